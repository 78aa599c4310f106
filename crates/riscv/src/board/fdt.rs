//! The device tree that the guest is given: what the board has, in the words of the Linux bindings.
//!
//! Built with `vm-fdt`. The same configuration gives the same bytes: the random seed in it is the configuration's, and
//! there is no time.

use super::{
    CLINT_BASE, FINISHER_BASE, PLIC_BASE, RTC_BASE, RTC_SOURCE, UART_BASE, UART_SOURCE, VIRTIO_BASE,
};
use crate::config::{Config, RNG_SEED_BYTES, SLOTS};
use crate::device::{clint, finisher, plic, rtc, uart};
use crate::ram::RAM_BASE;
use crate::virtio::mmio;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use vm_fdt::{FdtWriter, FdtWriterResult};

/// What the harts implement, in the canonical order of the ISA manual's chapter on naming.
const EXTENSIONS: [&str; 48] = [
    "i",
    "m",
    "a",
    "f",
    "d",
    "c",
    "zic64b",
    "zicbom",
    "zicbop",
    "zicboz",
    "ziccamoa",
    "ziccif",
    "zicclsm",
    "ziccrse",
    "zicntr",
    "zicond",
    "zicsr",
    "zifencei",
    "zihintntl",
    "zihintpause",
    "zihpm",
    "zimop",
    "za64rs",
    "zacas",
    "zawrs",
    "zfa",
    "zfhmin",
    "zca",
    "zcb",
    "zcd",
    "zcmop",
    "zba",
    "zbb",
    "zbc",
    "zbkb",
    "zbs",
    "zkt",
    "ssccptr",
    "sscounterenw",
    "sstc",
    "sstvala",
    "sstvecd",
    "ssu64xl",
    // Alone: accessed and dirty bits are set for the supervisor from the start.
    "svadu",
    "svbare",
    "svinval",
    "svnapot",
    "svpbmt",
];
const TIMEBASE_HZ: u32 = 10_000_000;
const UART_CLOCK_HZ: u32 = 3_686_400;
/// Bytes of a cache block: what `cbo.zero` clears, and the others name.
const BLOCK_BYTES: u32 = 64;
/// Room behind the tree's content: U-Boot adds nodes for reserved memory, graphics and its own start.
const SLACK_BYTES: usize = 16 << 10;
/// Where a blob says how long it is.
const TOTAL_SIZE: core::ops::Range<usize> = 4..8;
/// Stands for the seed until the blob is written: no text, and nothing else in the tree, has these bytes.
const SEED_MARK: [u8; RNG_SEED_BYTES] = [0xff; RNG_SEED_BYTES];
const PHANDLE_PLIC: u32 = 1;
const PHANDLE_FINISHER: u32 = 2;
const PHANDLE_HART: u32 = 16;

fn isa_string() -> String {
    let (letters, words) = EXTENSIONS.split_at(6);
    let mut isa = format!("rv64{}", letters.concat());
    for word in words {
        isa.push('_');
        isa.push_str(word);
    }
    isa
}

fn cells(base: u64, bytes: u64) -> [u64; 2] {
    [base, bytes]
}

/// The blob, and where in it the seed lies. `initrd` is where it lies: first byte, and the first behind it.
pub(super) fn build(
    config: &Config,
    command_line: &str,
    initrd: Option<(u64, u64)>,
) -> FdtWriterResult<(Vec<u8>, usize)> {
    let mut fdt = FdtWriter::new()?;
    let root = fdt.begin_node("")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_string("compatible", "riscv-virtio")?;
    fdt.property_string("model", "pollux,virt")?;
    chosen(&mut fdt, command_line, initrd)?;
    cpus(&mut fdt, config.harts)?;
    let memory = fdt.begin_node(&format!("memory@{RAM_BASE:x}"))?;
    fdt.property_string("device_type", "memory")?;
    fdt.property_array_u64("reg", &cells(RAM_BASE, config.ram_bytes))?;
    fdt.end_node(memory)?;
    power(&mut fdt)?;
    let soc = fdt.begin_node("soc")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_string("compatible", "simple-bus")?;
    fdt.property_null("ranges")?;
    devices(&mut fdt, config.harts)?;
    fdt.end_node(soc)?;
    fdt.end_node(root)?;
    let mut blob = with_slack(fdt.finish()?);
    let seed = blob.windows(SEED_MARK.len()).position(|bytes| *bytes == SEED_MARK).unwrap_or(0);
    if let Some(place) = blob.get_mut(seed..seed + SEED_MARK.len()) {
        place.copy_from_slice(&config.rng_seed);
    }
    Ok((blob, seed))
}

/// Lets the blob end [`SLACK_BYTES`] behind its content, so that a boot loader that edits it in place has room, as on
/// QEMU's `virt`.
fn with_slack(mut blob: Vec<u8>) -> Vec<u8> {
    blob.resize(blob.len() + SLACK_BYTES, 0);
    let total = (blob.len() as u32).to_be_bytes();
    if let Some(field) = blob.get_mut(TOTAL_SIZE) {
        field.copy_from_slice(&total);
    }
    blob
}

fn chosen(fdt: &mut FdtWriter, command_line: &str, initrd: Option<(u64, u64)>) -> FdtWriterResult<()> {
    let chosen = fdt.begin_node("chosen")?;
    fdt.property("rng-seed", &SEED_MARK)?;
    fdt.property_string("bootargs", command_line)?;
    fdt.property_string("stdout-path", &format!("/soc/serial@{UART_BASE:x}"))?;
    if let Some((start, end)) = initrd {
        fdt.property_u64("linux,initrd-start", start)?;
        fdt.property_u64("linux,initrd-end", end)?;
    }
    fdt.end_node(chosen)
}

fn cpus(fdt: &mut FdtWriter, harts: u32) -> FdtWriterResult<()> {
    let cpus = fdt.begin_node("cpus")?;
    fdt.property_u32("#address-cells", 1)?;
    fdt.property_u32("#size-cells", 0)?;
    fdt.property_u32("timebase-frequency", TIMEBASE_HZ)?;
    for hart in 0..harts {
        let cpu = fdt.begin_node(&format!("cpu@{hart:x}"))?;
        fdt.property_string("device_type", "cpu")?;
        fdt.property_u32("reg", hart)?;
        fdt.property_string("status", "okay")?;
        fdt.property_string("compatible", "riscv")?;
        fdt.property_string("riscv,isa", &isa_string())?;
        fdt.property_string("riscv,isa-base", "rv64i")?;
        fdt.property_string_list("riscv,isa-extensions", EXTENSIONS.iter().map(|e| (*e).into()).collect())?;
        for operations in ["riscv,cbom-block-size", "riscv,cbop-block-size", "riscv,cboz-block-size"] {
            fdt.property_u32(operations, BLOCK_BYTES)?;
        }
        fdt.property_string("mmu-type", "riscv,sv48")?;
        let controller = fdt.begin_node("interrupt-controller")?;
        fdt.property_u32("#interrupt-cells", 1)?;
        fdt.property_null("interrupt-controller")?;
        fdt.property_string("compatible", "riscv,cpu-intc")?;
        fdt.property_phandle(PHANDLE_HART + hart)?;
        fdt.end_node(controller)?;
        fdt.end_node(cpu)?;
    }
    fdt.end_node(cpus)
}

/// How a guest without SBI powers off and reboots: through the finisher.
fn power(fdt: &mut FdtWriter) -> FdtWriterResult<()> {
    for (name, compatible, value) in
        [("poweroff", "syscon-poweroff", 0x5555), ("reboot", "syscon-reboot", 0x7777)]
    {
        let node = fdt.begin_node(name)?;
        fdt.property_string("compatible", compatible)?;
        fdt.property_u32("regmap", PHANDLE_FINISHER)?;
        fdt.property_u32("offset", 0)?;
        fdt.property_u32("value", value)?;
        fdt.end_node(node)?;
    }
    Ok(())
}

fn devices(fdt: &mut FdtWriter, harts: u32) -> FdtWriterResult<()> {
    let node = fdt.begin_node(&format!("test@{FINISHER_BASE:x}"))?;
    fdt.property_string_list(
        "compatible",
        alloc::vec!["sifive,test1".into(), "sifive,test0".into(), "syscon".into()],
    )?;
    fdt.property_array_u64("reg", &cells(FINISHER_BASE, finisher::BYTES))?;
    fdt.property_phandle(PHANDLE_FINISHER)?;
    fdt.end_node(node)?;

    let node = fdt.begin_node(&format!("rtc@{RTC_BASE:x}"))?;
    fdt.property_string("compatible", "google,goldfish-rtc")?;
    fdt.property_array_u64("reg", &cells(RTC_BASE, rtc::BYTES))?;
    interrupt(fdt, RTC_SOURCE)?;
    fdt.end_node(node)?;

    let wires = |machine: u32, supervisor: u32| -> Vec<u32> {
        (0..harts).flat_map(|h| [PHANDLE_HART + h, machine, PHANDLE_HART + h, supervisor]).collect()
    };
    let node = fdt.begin_node(&format!("clint@{CLINT_BASE:x}"))?;
    fdt.property_string_list("compatible", alloc::vec!["sifive,clint0".into(), "riscv,clint0".into()])?;
    fdt.property_array_u64("reg", &cells(CLINT_BASE, clint::BYTES))?;
    fdt.property_array_u32("interrupts-extended", &wires(3, 7))?;
    fdt.end_node(node)?;

    let node = fdt.begin_node(&format!("plic@{PLIC_BASE:x}"))?;
    fdt.property_string_list("compatible", alloc::vec!["sifive,plic-1.0.0".into(), "riscv,plic0".into()])?;
    fdt.property_array_u64("reg", &cells(PLIC_BASE, plic::BYTES))?;
    fdt.property_u32("#interrupt-cells", 1)?;
    fdt.property_u32("#address-cells", 0)?;
    fdt.property_null("interrupt-controller")?;
    fdt.property_u32("riscv,ndev", plic::SOURCES as u32 - 1)?;
    fdt.property_array_u32("interrupts-extended", &wires(11, 9))?;
    fdt.property_phandle(PHANDLE_PLIC)?;
    fdt.end_node(node)?;

    let node = fdt.begin_node(&format!("serial@{UART_BASE:x}"))?;
    fdt.property_string("compatible", "ns16550a")?;
    fdt.property_array_u64("reg", &cells(UART_BASE, uart::BYTES))?;
    fdt.property_u32("clock-frequency", UART_CLOCK_HZ)?;
    interrupt(fdt, UART_SOURCE)?;
    fdt.end_node(node)?;

    for slot in 0..=SLOTS {
        let base = VIRTIO_BASE + slot as u64 * mmio::BYTES;
        let node = fdt.begin_node(&format!("virtio_mmio@{base:x}"))?;
        fdt.property_string("compatible", "virtio,mmio")?;
        fdt.property_array_u64("reg", &cells(base, mmio::BYTES))?;
        fdt.property_null("dma-coherent")?;
        interrupt(fdt, slot + 1)?;
        fdt.end_node(node)?;
    }
    Ok(())
}

fn interrupt(fdt: &mut FdtWriter, source: usize) -> FdtWriterResult<()> {
    fdt.property_u32("interrupt-parent", PHANDLE_PLIC)?;
    fdt.property_u32("interrupts", source as u32)
}
