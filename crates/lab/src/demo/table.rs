//! The table at the end.

use super::history::Verdict;

/// Prints the result for people.
pub fn print(v: &Verdict) {
    let row = |name: &str, value: String| println!("  {name:<34} {value}");
    println!();
    row("boot to first answer", format!("{:.1} s", v.boot_s));
    row("requests before / after the kill", format!("{} / {}", v.requests_before, v.requests_after));
    row("request time, median", format!("{:.2} ms", v.request_ms_p50));
    row("longest gap before the kill", format!("{:.1} ms", v.gap_before_ms));
    row("longest gap at the kill", format!("{:.1} ms", v.gap_ms));
    row("  detect", format!("{:.1} ms", v.detect_ms));
    row("  arbiter", format!("{:.1} ms", v.arbiter_ms));
    row("  replay to the end of the log", format!("{:.1} ms", v.replay_ms));
    row("  go live", format!("{:.1} ms", v.go_live_ms));
    row("  until the client's next reply", format!("{:.1} ms", v.resume_ms));
    row("log bandwidth", format!("{:.2} Mbit/s", v.log_mbit_s));
    row("execution lag, at the kill / max", format!("{:.1} / {:.1} ms", v.lag_ms, v.lag_max_ms));
    row("outputs released by the primary", v.outputs.to_string());
    let [p50, p99, max] = v.held_ms;
    row("outputs held, p50 / p99 / max", format!("{p50:.2} / {p99:.2} / {max:.2} ms"));
    row("state digests compared equal", v.digests_agreed.to_string());
    row("acknowledged writes / lost", format!("{} / {}", v.writes, v.lost));
    row("replies contradicted", v.contradicted.to_string());
    row("reconnects", v.reconnects.to_string());
    println!();
    if v.faults.is_empty() {
        println!("  PASSED: one connection, nothing lost, nothing contradicted.");
    } else {
        for fault in &v.faults {
            println!("  FAILED: {fault}");
        }
    }
}
