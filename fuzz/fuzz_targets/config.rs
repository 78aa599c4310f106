//! What a person writes: a VM file, the values of flags, a switch's configuration; and an arbiter's claim, which
//! any process that reaches the folder may have written.
//!
//! Held true of any text: no panic; a VM that is accepted can be built, and its timeouts make sense; what is printed
//! reads as what it was. The sources are those of the binary and of the switch, compiled here as they are.
#![no_main]
#![allow(dead_code, unreachable_pub, reason = "the sources have more than is fuzzed")]

#[path = "../../crates/cli/src/choices.rs"]
mod choices;
#[path = "../../crates/cli/src/config.rs"]
mod config;
#[path = "../../crates/cli/src/engine.rs"]
mod engine;
#[path = "../../crates/cli/src/files.rs"]
mod files;
#[path = "../../crates/switch/src/config.rs"]
mod switch_config;

use config::{DiskSpec, NetSpec, VmArgs, parse_size};
use libfuzzer_sys::fuzz_target;
use pollux_codec::crc32c;
use pollux_riscv::board::Board;
use pollux_riscv::config::{HARTS_MAX, SLOTS};
use std::net::Ipv4Addr;
use std::path::Path;
use switch_config::{Config, Forward, Subnet, SwitchAddr};

fn vm_file(text: &str) {
    let Ok(args) = VmArgs::default().over(text, Path::new("/vm")) else { return };
    let Ok(vm) = args.resolve("vm", |_| Ok(1 << 20)) else { return };
    let protocol = &vm.settings.protocol;
    assert!(protocol.failure_after_ns / 2 >= protocol.heartbeat_every_ns);
    let machine = &vm.machine;
    assert!((1..=HARTS_MAX).contains(&machine.harts) && machine.devices.len() <= SLOTS);
    assert!(machine.ram_bytes.is_multiple_of(2 << 20) && (16 << 20..=64 << 30).contains(&machine.ram_bytes));
    let _ = Board::new(machine);
    for (_, mac, net) in &vm.nets {
        assert_eq!(mac[0] & 1, 0);
        // `tap` and `switch` name things on the host; whether they are there is not looked at.
        let _ = net.target();
    }
}

/// One value of a flag, whichever it is.
fn flag(text: &str) {
    let _ = (text.parse::<DiskSpec>(), parse_size(text), pollux_arbiter::validate_name(text));
    if let Ok(net) = text.parse::<NetSpec>() {
        let _ = net.target();
    }
    let args =
        VmArgs { net: vec![NetSpec { mac: Some(text.into()), ..NetSpec::default() }], ..VmArgs::default() };
    let _ = args.resolve("vm", |_| Ok(512));
    let args = VmArgs { console: Some(text.into()), name: Some("n".into()), ..VmArgs::default() };
    let _ = args.resolve("vm", |_| Ok(512));
}

/// Lines as a switch's flags.
fn switch(text: &str) {
    let mut config = Config::new(SwitchAddr::Unix("switch".into()));
    for line in text.lines() {
        if let Ok(address) = line.parse::<SwitchAddr>() {
            assert_eq!(address.to_string().parse(), Ok(address.clone()));
            config.listen = address;
        }
        if let Ok(forward) = line.parse::<Forward>() {
            assert_eq!(forward.to_string().parse(), Ok(forward));
            config.forwards.push(forward);
        }
        if let Ok(subnet) = line.parse::<Subnet>() {
            assert_eq!(subnet.to_string().parse(), Ok(subnet));
            let _ = (subnet.mask(), subnet.broadcast());
            config.subnet = subnet;
        }
        if let Ok(address) = line.parse::<Ipv4Addr>() {
            let _ = config.subnet.has_host(address);
            config.gateway = address;
            (config.dns, config.dhcp_first) =
                (None, config.dhcp_first.filter(|_| address.octets()[3] & 1 == 0));
        }
    }
    if config.check().is_ok() {
        assert!(config.subnet.has_host(config.gateway));
    }
}

/// A claim as it is, and with its checksum put right.
fn claim(text: &str) {
    let body = text.rsplit_once("check ").map_or(text, |(body, _)| body);
    let sealed = format!("{body}check {:08x}\n", crc32c(body.as_bytes()));
    for bytes in [text.as_bytes(), sealed.as_bytes()] {
        if let Ok(claim) = pollux_arbiter::decode(bytes) {
            assert_eq!(pollux_arbiter::encode(&claim), bytes);
            let _ = (claim.is_end(), pollux_arbiter::first_generation(Some(&claim)));
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    claim(text);
    vm_file(text);
    flag(text);
    switch(text);
});
