//! The virtio random number generator against a hostile guest; what is held true is in `pollux_fuzz::guest`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pollux_fuzz::guest;
use pollux_riscv::DeviceConfig;

fuzz_target!(|bytes: &[u8]| {
    guest::play(bytes, DeviceConfig::Rng, 1);
});
