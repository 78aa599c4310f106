//! The JIT engine: runs what `pollux-codegen` translates.
//!
//! Invariant (DESIGN 2.1): it never shows. For every instruction there are two ways, translated or interpreted, and
//! which one is taken depends on what is in the cache; the state that they leave is the same, to the bit and to the
//! step. `tests/` holds both against each other.
//!
//! Map: [`Jit`] the engine; `run` one run of a hart; `cache` the translations; `memory` and `enter` the `unsafe` part:
//! executable memory and the call into it.
//!
//! On hosts that are not x86-64 Linux, [`Jit::new`] says so, and the interpreter serves.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod cache;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod enter;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod memory;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod run;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub use native::Jit;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub use stub::Jit;

/// Bytes of code memory that suit a guest of a gigabyte or so.
pub const CODE_BYTES: usize = 256 << 20;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod native {
    use crate::cache::Cache;
    use crate::run::Run;
    use pollux_codegen::Features;
    use pollux_riscv::engine::{Engine, Guest};
    use std::io;

    /// The engine.
    pub struct Jit {
        cache: Cache,
        hot: u8,
    }

    /// How often a place is interpreted before it is translated: most code of a boot runs once or twice.
    const HOT: u8 = 3;

    impl Jit {
        /// An engine with `code_bytes` bytes of code memory.
        pub fn new(code_bytes: usize) -> io::Result<Self> {
            let features = Features {
                fma: std::is_x86_feature_detected!("fma"),
                popcnt: std::is_x86_feature_detected!("popcnt"),
            };
            Ok(Self { cache: Cache::new(code_bytes, features)?, hot: HOT })
        }

        /// The same, but it translates everything before it runs for the first time: for tests.
        pub fn eager(code_bytes: usize) -> io::Result<Self> {
            Ok(Self { hot: 1, ..Self::new(code_bytes)? })
        }

        /// The same, as on a host that can do no more than every x86-64 can: for tests.
        pub fn baseline(code_bytes: usize) -> io::Result<Self> {
            Ok(Self { cache: Cache::new(code_bytes, Features::default())?, hot: 1 })
        }
    }

    impl Engine for Jit {
        fn run(&mut self, guest: &mut Guest<'_, '_>, limit: u64) -> u64 {
            Run::new(guest, &mut self.cache, limit).run(self.hot)
        }

        fn clear(&mut self) {
            self.cache.clear();
        }
    }
}

// Tests compile it everywhere, so that it cannot rot.
#[cfg(any(test, not(all(target_arch = "x86_64", target_os = "linux"))))]
#[cfg_attr(
    all(target_arch = "x86_64", target_os = "linux"),
    allow(dead_code, unreachable_pub, reason = "only compiled")
)]
mod stub {
    use pollux_riscv::engine::{Engine, Guest};
    use std::io;

    /// The engine, which this host has none of.
    pub struct Jit;

    impl Jit {
        /// Always an error: translations are for x86-64.
        pub fn new(_code_bytes: usize) -> io::Result<Self> {
            Err(io::Error::new(io::ErrorKind::Unsupported, "the JIT needs an x86-64 Linux host"))
        }

        /// The same.
        pub fn eager(code_bytes: usize) -> io::Result<Self> {
            Self::new(code_bytes)
        }

        /// The same.
        pub fn baseline(code_bytes: usize) -> io::Result<Self> {
            Self::new(code_bytes)
        }
    }

    impl Engine for Jit {
        fn run(&mut self, guest: &mut Guest<'_, '_>, limit: u64) -> u64 {
            guest.interpret(0, limit, false)
        }

        fn clear(&mut self) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    #[test]
    fn a_host_without_a_jit_says_what_it_needs() {
        let error = stub::Jit::new(CODE_BYTES).err().expect("there is none");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("x86-64 Linux"), "{error}");
    }

    #[test]
    fn there_is_a_jit_on_x86_64_linux_alone() {
        let expected = cfg!(all(target_arch = "x86_64", target_os = "linux"));
        assert_eq!(Jit::new(1 << 20).is_ok(), expected);
    }
}
