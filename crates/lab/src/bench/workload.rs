//! The workloads: what `guest/driver` and `guests/workloads` know by these names.

use anyhow::{Result, bail};
use std::sync::LazyLock;

/// One workload.
#[derive(PartialEq, Eq, Debug)]
pub struct Workload {
    /// As the driver and the results have it.
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
    origin: Origin,
}

/// Who wrote the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Origin {
    /// `guests/workloads`.
    Ours,
    /// A package of Debian's.
    Debian,
}

/// The row that is no workload: from the start of the process until init has brought the guest up.
pub const BOOT: &str = "boot";

const fn ours(name: &'static str, what: &'static str) -> Workload {
    Workload { name, what, origin: Origin::Ours }
}

const fn debian(name: &'static str, what: &'static str) -> Workload {
    Workload { name, what, origin: Origin::Debian }
}

/// All, in the order in which they run.
pub static WORKLOADS: [Workload; 25] = [
    ours("integer", "list, matrices, state machine, CRC, as in CoreMark"),
    ours("calls", "recursive calls"),
    ours("indirect", "calls through a table of functions, in an order that nobody can predict"),
    ours("dispatch", "the same, in the order of a short program that repeats itself"),
    ours("sieve", "bytes in 8 MB"),
    ours("chase", "pointers through 64 MB"),
    ours("nbody", "double precision with division and square root"),
    ours("getppid", "500,000 system calls"),
    ours("pipe", "10,000 round trips between two processes"),
    ours("fork", "1000 times fork and wait"),
    ours("exec", "500 times fork, exec and wait"),
    ours("fault", "49,152 pages mapped, touched, given back"),
    ours("quiet", "comparisons that raise nothing for a NaN, 20 million rounds"),
    ours("quad", "the compiler's emulation of 128-bit floating point"),
    ours("crossing", "two million loads and stores each of doublewords that cross pages"),
    debian("openssl-sha256", "SHA-256 of 16 MiB"),
    debian("openssl-aes", "AES-128-CTR of 16 MiB"),
    debian("openssl-prime", "primality of a number of 1279 bits"),
    debian("python", "dictionaries, strings, calls, big numbers"),
    debian("libm", "sine, exponential, logarithm, powers: 2.4 million calls by awk"),
    debian("gron", "a program in Go: takes a JSON document of 4000 records apart, and sorts it"),
    debian("gcc", "compiles a C file of 600 lines with -O2"),
    debian("sqlite", "fills, indexes and asks a table of 20,000 rows"),
    debian("redis", "4000 SET and 4000 GET, 16 connections, inside the guest"),
    debian("pipelined", "32,000 SET and 32,000 GET, 16 connections, 16 requests at a time on each"),
];

/// The end of `pollux bench --help`.
pub static HELP: LazyLock<String> = LazyLock::new(|| {
    let mut text = String::from("Workloads:\n");
    for workload in &WORKLOADS {
        text.push_str(&format!("  {:<15} {}\n", workload.name, workload.what));
    }
    text + "\nExamples:\n  pollux bench\n  pollux bench --only integer,fork,redis --engines pollux,qemu --rounds 5\n\n\
            The first use builds a Debian guest with the host's apt (some minutes; kept in the cache). Other work on \
            the host shows in the seconds; in the ratios less, because the systems take turns."
});

impl Workload {
    /// Whether it needs nothing of Debian's and can run on the host, too.
    pub fn is_ours(&self) -> bool {
        self.origin == Origin::Ours
    }
}

/// The workloads with these names; all, if there are none.
pub fn chosen(names: &[String]) -> Result<Vec<&'static Workload>> {
    for name in names {
        if !WORKLOADS.iter().any(|w| w.name == name) {
            let there: Vec<_> = WORKLOADS.iter().map(|w| w.name).collect();
            bail!("--only {name}: there is no such workload; there are {}", there.join(", "));
        }
    }
    Ok(WORKLOADS.iter().filter(|w| names.is_empty() || names.iter().any(|name| name == w.name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_of_ours_is_in_the_program_and_every_one_of_debians_in_the_driver() {
        let program = super::super::native::SOURCE;
        let driver = super::super::guest::DRIVER;
        for workload in &WORKLOADS {
            let there = if workload.is_ours() {
                program.contains(&format!("{{\"{}\", ", workload.name))
            } else {
                driver.contains(&format!("    {})", workload.name))
            };
            assert!(there, "{}", workload.name);
        }
    }

    #[test]
    fn unknown_names_are_refused_with_the_known_ones() {
        assert_eq!(chosen(&[]).expect("all").len(), WORKLOADS.len());
        let two = chosen(&["redis".into(), "calls".into()]).expect("known");
        assert_eq!(two.iter().map(|w| w.name).collect::<Vec<_>>(), ["calls", "redis"]);
        let error = chosen(&["quake".into()]).expect_err("unknown").to_string();
        assert!(error.contains("quake") && error.contains("openssl-aes"), "{error}");
    }
}
