//! How much memory this host has got to give: Linux promises more than it has, and ends whoever asks for it.

use pollux_codec::message::Hello;

/// Bytes of a snapshot besides RAM, at most: harts, devices and what they have begun.
const DEVICES_BYTES_MAX: u64 = 256 << 20;

/// Bytes that may be used without anything being pushed out, if the host says.
#[must_use]
pub(crate) fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    parse(&text)
}

fn parse(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Whether the snapshot that a peer announces may be one of the machine that it announces, and finds room here as the
/// machine that it becomes. `available`: bytes that this host has got to give, if it says.
pub(crate) fn check_snapshot(hello: &Hello, available: Option<u64>) -> Result<(), String> {
    let bytes = hello.snapshot_bytes;
    // A page of RAM, and its number before it; and what a reset finds, which fits into RAM.
    let ram = (hello.ram_bytes / 4096).saturating_mul(4096 + 4);
    let most = ram.saturating_add(hello.ram_bytes).saturating_add(DEVICES_BYTES_MAX);
    if bytes > most {
        let ram = hello.ram_bytes;
        return Err(format!(
            "a snapshot of {bytes} bytes is more than a machine with {ram} bytes of RAM has: {most} at most"
        ));
    }
    match available {
        Some(available) if bytes > available => Err(format!(
            "the snapshot has {bytes} bytes and becomes a machine of that size; this host has {available} bytes to give"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_says_is_understood() {
        assert_eq!(parse("MemTotal:  16 kB\nMemAvailable:       12 kB\n"), Some(12 * 1024));
        assert_eq!(parse("MemTotal:  16 kB\n"), None);
        assert!(available().is_none_or(|bytes| bytes > 0));
    }
}
