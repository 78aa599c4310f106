//! What sections of snapshots hold, by name: a state that was ever written keeps its fields, or is given another version.

use crate::board::state::{MiscV2, ResetV1};
use crate::computer::state::MachineV2;
use crate::config::state::{ConfigV2, DeviceV1, EndV1};
use crate::config::{Config, DeviceConfig};
use crate::device::clint::state::ClintV1;
use crate::device::plic::state::{PlicContextV1, PlicV1};
use crate::device::rtc::state::RtcV1;
use crate::device::uart::Uart;
use crate::device::uart::state::UartV2;
use crate::hart::pmp::state::PmpV1;
use crate::hart::state::HartV1;
use crate::snapshot::SnapshotError;
use crate::state::{BEHIND_THE_END, ClockV1, Fields, Saved, decode, encode};
use crate::virtio::mmio::state::SlotV2;
use crate::virtio::queue::state::{QueueV1, SegmentV1};
use crate::virtio::state::ChipV2;
use crate::virtio::{blk, button, console, net, rng};
use alloc::string::ToString;
use alloc::vec;
use pollux_vocab::DiskOp;

/// Every state that was ever written, in order of their names. Lines are added, and none is changed.
const STATES: &str = include_str!("states.txt");

#[test]
fn a_state_whose_fields_have_changed_is_given_a_version_of_its_own() {
    let all = [
        blk::state::BlkV1::FIELDS,
        blk::state::BlkInFlightV1::FIELDS,
        button::state::ButtonV1::FIELDS,
        console::state::ConsoleV1::FIELDS,
        net::state::NetV1::FIELDS,
        rng::state::RngInFlightV1::FIELDS,
        rng::state::RngV1::FIELDS,
        ClintV1::FIELDS,
        ClockV1::FIELDS,
        ConfigV2::FIELDS,
        HartV1::FIELDS,
        MachineV2::FIELDS,
        MiscV2::FIELDS,
        PlicContextV1::FIELDS,
        PlicV1::FIELDS,
        PmpV1::FIELDS,
        QueueV1::FIELDS,
        ResetV1::FIELDS,
        RtcV1::FIELDS,
        SegmentV1::FIELDS,
        SlotV2::FIELDS,
        UartV2::FIELDS,
    ];
    for state in all {
        assert!(
            STATES.lines().any(|line| line == state),
            "this state has other fields than were written under its name; give it a new version, and states.txt this line:\n{state}"
        );
    }
    let is_known = |line: &str| all.contains(&line) || line.starts_with('#');
    assert!(STATES.lines().all(is_known), "a state that was written has changed");
}

#[test]
fn choices_keep_their_numbers() {
    let ends = [EndV1::Stop, EndV1::Restart].map(|end| encode(&end));
    assert_eq!(ends, [[0], [1]]);
    let block = DeviceV1::Block { bytes: 1, read_only: true, serial: "s".to_string() };
    let devices = [
        DeviceV1::Empty,
        block,
        DeviceV1::Net { mac: [7; 6] },
        DeviceV1::Console,
        DeviceV1::Rng,
        DeviceV1::Button,
    ];
    let bytes: [&[u8]; 6] = [&[0], &[1, 1, 1, 1, b's'], &[2, 7, 7, 7, 7, 7, 7], &[3], &[4], &[5]];
    assert_eq!(devices.each_ref().map(encode), bytes);
    let chips =
        [DeviceConfig::Empty, DeviceConfig::Net { mac: [7; 6] }, DeviceConfig::Console, DeviceConfig::Rng];
    let chips = chips.map(|config| encode(&crate::virtio::Chip::new(&config).save()));
    assert_eq!(chips, [&[0][..], &[2, 7, 7, 7, 7, 7, 7], &[3, 0], &[4, 0, 0]]);
    let button = ChipV2::Button(button::state::ButtonV1 { select: 1, subselect: 2, next: 3 });
    assert_eq!(encode(&button), [5, 1, 2, 3]);
    let ops = [
        DiskOp::Read { offset: 1, len: 2 },
        DiskOp::Write { offset: 1, data: vec![9] },
        DiskOp::Flush,
        DiskOp::Zero { offset: 1, len: 2, unmap: true },
    ];
    let bytes: [&[u8]; 4] = [&[0, 1, 2], &[1, 1, 1, 9], &[2], &[3, 1, 2, 1]];
    assert_eq!(ops.each_ref().map(encode), bytes);
}

#[test]
fn a_state_that_does_not_fit_is_named_by_section_version_and_field() {
    let uart = encode(&Uart::default().save());
    assert_eq!(decode::<UartV2>(&uart), Ok(Uart::default().save()));
    assert_eq!(decode::<UartV2>(&uart[..3]), Err("scratch"));
    assert_eq!(decode::<UartV2>(&[&uart[..], &[0]].concat()), Err(BEHIND_THE_END));
    let mut other = uart.clone();
    other[4] = 7;
    assert_eq!(decode::<UartV2>(&other), Err("fifo"), "that is neither true nor false");
    let error = SnapshotError::Malformed { kind: 3, field: "fifo" }.to_string();
    assert!(error.contains("uart") && error.contains("version 2") && error.contains("fifo"), "{error}");
    let error = SnapshotError::Version { kind: 3, version: 9 }.to_string();
    assert!(error.contains("uart") && error.contains("version 9") && error.contains("version 2"), "{error}");
}

#[test]
fn what_is_saved_is_revived() {
    let devices = vec![
        DeviceConfig::Block { bytes: 512, read_only: true, serial: "s".to_string() },
        DeviceConfig::Net { mac: [1; 6] },
        DeviceConfig::Button,
    ];
    let config = Config { devices, rng_seed: [3; 32], harts: 4, ..Config::default() };
    assert_eq!(Config::revive(config.save()), config);
    assert_eq!(decode::<ConfigV2>(&encode(&config.save())), Ok(config.save()));
}
