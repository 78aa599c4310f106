//! How much memory this host has got to give: Linux promises more than it has, and ends whoever asks for it.

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
