//! The virtio disk against a hostile guest; what is held true is in `pollux_fuzz::guest`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pollux_fuzz::guest::{self, DISK_BYTES};
use pollux_riscv::DeviceConfig;

fuzz_target!(|bytes: &[u8]| {
    // The byte's low bits are the size of the first rings.
    let read_only = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    guest::play(bytes, DeviceConfig::Block { bytes: DISK_BYTES, read_only, serial: "fuzz".into() }, 1);
});
