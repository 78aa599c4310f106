//! A claim under way: asking the arbiter for the next generation, until it says whose that is.
//!
//! ```text
//!  begun ──► asked ── won ──► the VM is this side's
//!              │ ▲ ── lost ─► it is another's
//!              ▼ │
//!           unreachable, or no answer: asked again, after 100 ms doubling to 1 s
//! ```
//!
//! Both sides of a pair claim in this one way; what they do with the answer differs (`primary`, `backup`). Asking twice
//! does no harm: the same holder wins twice.
//!
//! Not here: who may claim and when, and the arbiter (`pollux-arbiter`).

use crate::types::{HostTime, Settings, Verdict};
use pollux_vocab::Generation;

/// What the arbiter has said of the generation that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// It is this side's.
    Won,
    /// It is another's.
    Lost,
}

/// A question to the arbiter that has not been answered.
#[derive(Clone, Hash, Debug)]
pub(crate) struct Claim {
    wanted: Generation,
    retry_ns: u64,
    retry_max_ns: u64,
    ask_at: HostTime,
}

impl Claim {
    /// Wants generation `wanted`. `serves`: clients reach this side, as far as it knows.
    ///
    /// Rule: who does not reach the service network lets a side that may reach it claim first.
    pub(crate) fn begin(settings: &Settings, now: HostTime, wanted: Generation, serves: bool) -> Self {
        let retry_max_ns = settings.claim_retry_max_ns.max(1);
        let retry_ns = settings.claim_retry_ns.clamp(1, retry_max_ns);
        let ask_at = if serves { now } else { now.after(settings.net_wait_ns) };
        Self { wanted, retry_ns, retry_max_ns, ask_at }
    }

    /// Clients reach this side again: nothing is waited for any more.
    pub(crate) fn handle_served(&mut self, now: HostTime) {
        self.ask_at = now;
    }

    /// The generation to ask for, if that is due. A question that nobody answers is put again after the longest wait.
    pub(crate) fn poll_question(&mut self, now: HostTime) -> Option<Generation> {
        let due = now >= self.ask_at;
        if due {
            self.ask_at = now.after(self.retry_max_ns);
        }
        due.then_some(self.wanted)
    }

    /// The arbiter has answered; `None` if that answers nothing.
    pub(crate) fn handle_verdict(
        &mut self,
        now: HostTime,
        generation: Generation,
        verdict: Verdict,
    ) -> Option<Answer> {
        match verdict {
            _ if generation != self.wanted => None,
            Verdict::Won => Some(Answer::Won),
            Verdict::Lost => Some(Answer::Lost),
            // Rule: an unreachable arbiter lets nobody run. Ask again, never guess.
            Verdict::Unreachable => {
                self.ask_at = now.after(self.retry_ns);
                self.retry_ns = self.retry_ns.saturating_mul(2).min(self.retry_max_ns);
                None
            }
        }
    }

    /// When the question is due.
    pub(crate) fn ask_at(&self) -> HostTime {
        self.ask_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Generation = Generation(2);

    fn begun(serves: bool) -> Claim {
        let settings =
            Settings { claim_retry_ns: 10, claim_retry_max_ns: 40, net_wait_ns: 100, ..Settings::default() };
        Claim::begin(&settings, HostTime(0), WANTED, serves)
    }

    fn asks(claim: &mut Claim, times: impl IntoIterator<Item = u64>) -> Vec<u64> {
        times.into_iter().filter(|at| claim.poll_question(HostTime(*at)) == Some(WANTED)).collect()
    }

    use alloc::vec::Vec;

    #[test]
    fn a_claim_asks_at_once_and_again_after_the_longest_wait_if_nobody_answers() {
        assert_eq!(asks(&mut begun(true), 0..100), [0, 40, 80]);
    }

    #[test]
    fn an_arbiter_that_is_not_reached_is_asked_again_after_waits_that_double_and_decides_nothing() {
        let mut claim = begun(true);
        let mut asked = Vec::new();
        for at in 0..130 {
            if claim.poll_question(HostTime(at)).is_some() {
                asked.push(at);
                assert_eq!(claim.handle_verdict(HostTime(at), WANTED, Verdict::Unreachable), None);
            }
        }
        assert_eq!(asked, [0, 10, 30, 70, 110]);
    }

    #[test]
    fn only_an_answer_about_the_generation_that_was_asked_for_is_one() {
        let mut claim = begun(true);
        for other in [Generation(1), Generation(3)] {
            assert_eq!(claim.handle_verdict(HostTime(1), other, Verdict::Won), None);
        }
        assert_eq!(claim.handle_verdict(HostTime(1), WANTED, Verdict::Lost), Some(Answer::Lost));
        assert_eq!(claim.handle_verdict(HostTime(1), WANTED, Verdict::Won), Some(Answer::Won));
    }

    #[test]
    fn a_side_that_clients_do_not_reach_asks_later_or_as_soon_as_they_do() {
        assert_eq!(asks(&mut begun(false), 0..120), [100]);
        let mut claim = begun(false);
        assert_eq!(asks(&mut claim, 0..50), []);
        claim.handle_served(HostTime(50));
        assert_eq!(asks(&mut claim, 50..60), [50]);
    }
}
