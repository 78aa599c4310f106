//! What the clients saw, and whether it is a history that one machine which never died could have made.

use pollux_host::status::Status;
use serde::Serialize;
use std::time::Duration;

/// One request and its reply, in `CLOCK_MONOTONIC` nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exchange {
    /// When the request left.
    pub sent_ns: u64,
    /// When the reply came.
    pub replied_ns: u64,
    /// The counter's value in the reply.
    pub value: u64,
    /// Whether the request incremented the counter, or read it.
    pub increments: bool,
}

/// The demo's result.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Verdict {
    /// What is wrong; empty if the history is right.
    pub faults: Vec<String>,
    /// Start to first answer, seconds.
    pub boot_s: f64,
    /// Requests answered before the kill.
    pub requests_before: usize,
    /// Requests answered after it.
    pub requests_after: usize,
    /// Median time of a request before the kill, milliseconds.
    pub request_ms_p50: f64,
    /// Longest time between two replies before the kill, milliseconds.
    pub gap_before_ms: f64,
    /// Longest time between two replies around the kill, milliseconds.
    pub gap_ms: f64,
    /// Kill to suspicion, milliseconds.
    pub detect_ms: f64,
    /// Suspicion to the arbiter's answer, milliseconds.
    pub arbiter_ms: f64,
    /// Arbiter's answer to the log's end, milliseconds.
    pub replay_ms: f64,
    /// Log's end to live, milliseconds.
    pub go_live_ms: f64,
    /// Live to the client's next reply, milliseconds.
    pub resume_ms: f64,
    /// Log from primary to backup, Mbit/s, since the start.
    pub log_mbit_s: f64,
    /// Execution lag when the primary was killed, milliseconds.
    pub lag_ms: f64,
    /// Largest execution lag, milliseconds.
    pub lag_max_ms: f64,
    /// Outputs released by the primary.
    pub outputs: u64,
    /// How long outputs were held: median, 99th percentile, maximum, milliseconds.
    pub held_ms: [f64; 3],
    /// State digests of both sides compared equal.
    pub digests_agreed: u64,
    /// Acknowledged disk writes.
    pub writes: usize,
    /// Acknowledged disk writes that are gone.
    pub lost: usize,
    /// Replies that contradict an earlier one.
    pub contradicted: usize,
    /// Times a client had to connect again.
    pub reconnects: usize,
}

impl Verdict {
    /// Judges the counter's history. `exchanges` are one client's, in order, and it was the only one to count.
    pub fn of_counter(exchanges: &[Exchange], killed_ns: u64) -> Self {
        let mut verdict = Self::default();
        let mut expected = 0;
        for exchange in exchanges {
            expected += u64::from(exchange.increments);
            if exchange.value != expected {
                verdict.contradicted += 1;
                if verdict.contradicted == 1 {
                    verdict.faults.push(format!("a reply says {} where {expected} is right", exchange.value));
                }
                expected = exchange.value;
            }
        }
        verdict.requests_before = exchanges.iter().filter(|e| e.replied_ns < killed_ns).count();
        verdict.requests_after = exchanges.len() - verdict.requests_before;
        if verdict.requests_before == 0 || verdict.requests_after == 0 {
            verdict.faults.push("no replies on one side of the kill".into());
        }
        for pair in exchanges.windows(2) {
            let gap = ms(pair[1].replied_ns.saturating_sub(pair[0].replied_ns));
            if pair[1].replied_ns < killed_ns {
                verdict.gap_before_ms = verdict.gap_before_ms.max(gap);
            } else {
                verdict.gap_ms = verdict.gap_ms.max(gap);
            }
        }
        let before = exchanges.iter().filter(|e| e.replied_ns < killed_ns);
        let mut times: Vec<u64> = before.map(|e| e.replied_ns - e.sent_ns).collect();
        times.sort_unstable();
        verdict.request_ms_p50 = ms(times.get(times.len() / 2).copied().unwrap_or(0));
        verdict.resume_ms = exchanges
            .iter()
            .find(|e| e.replied_ns >= killed_ns)
            .map_or(0.0, |e| ms(e.replied_ns - killed_ns));
        verdict
    }

    /// Adds the account of the writes.
    pub fn and_writes(mut self, writes: usize, lost: usize) -> Self {
        self.writes = writes;
        self.lost = lost;
        if lost > 0 {
            self.faults.push(format!("{lost} of {writes} acknowledged writes are lost"));
        }
        if writes == 0 {
            self.faults.push("no write was acknowledged".into());
        }
        self
    }

    /// Adds the time the guest took to answer.
    pub fn and_boot(mut self, boot: Duration) -> Self {
        self.boot_s = boot.as_secs_f64();
        self
    }

    /// Adds what the replicas say of themselves.
    pub fn with_status(mut self, primary: &Status, backup: &Status, killed_ns: u64) -> Self {
        let t = backup.timeline;
        let between = |from: u64, to: u64| ms(to.saturating_sub(from));
        if t.live_ns == 0 {
            self.faults.push("the backup did not go live".into());
        } else {
            self.detect_ms = between(killed_ns, t.suspected_ns);
            self.arbiter_ms = between(t.suspected_ns, t.won_ns);
            self.replay_ms = between(t.won_ns, t.replayed_ns);
            self.go_live_ms = between(t.replayed_ns, t.live_ns);
            self.resume_ms = (self.resume_ms - between(killed_ns, t.live_ns)).max(0.0);
        }
        let run_s = killed_ns.saturating_sub(primary.timeline.started_ns) as f64 / 1e9;
        self.log_mbit_s = primary.log_bytes as f64 * 8.0 / 1e6 / run_s.max(0.001);
        self.lag_ms = ms(primary.lag_ns);
        self.lag_max_ms = ms(primary.lag_max_ns);
        self.outputs = primary.released;
        self.held_ms = primary.hold_ns.map(ms);
        self.digests_agreed = backup.digests_agreed;
        self
    }
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(values: &[(u64, bool)]) -> Vec<Exchange> {
        let exchange = |(i, &(value, increments)): (usize, &(u64, bool))| {
            let at = 10 * i as u64;
            Exchange { sent_ns: at, replied_ns: at + 5, value, increments }
        };
        values.iter().enumerate().map(exchange).collect()
    }

    #[test]
    fn a_counter_that_counts_is_right() {
        let verdict = Verdict::of_counter(&history(&[(1, true), (1, false), (2, true), (3, true)]), 12);
        assert!(verdict.faults.is_empty(), "{:?}", verdict.faults);
        assert_eq!((verdict.requests_before, verdict.requests_after), (1, 3));
    }

    #[test]
    fn a_counter_that_forgets_repeats_or_skips_is_wrong() {
        for bad in [[(1, true), (1, true)], [(2, true), (3, true)], [(1, true), (0, false)]] {
            assert_eq!(Verdict::of_counter(&history(&bad), 7).contradicted, 1, "{bad:?}");
        }
    }

    #[test]
    fn a_lost_write_is_a_fault() {
        let verdict = Verdict::of_counter(&history(&[(1, true), (2, true)]), 7).and_writes(5, 1);
        assert!(verdict.faults[0].contains("1 of 5"));
    }
}
