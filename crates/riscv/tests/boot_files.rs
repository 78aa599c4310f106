//! Boot files that are cut off, damaged, too large or in each other's way: a clear word for each, and never a panic.

mod world;

use pollux_riscv::board::{BootError, ROM_BASE};
use pollux_riscv::{Boot, Computer, Config, DeviceConfig, Machine, RAM_BASE};
use pollux_vocab::{GuestAddr, Icount};
use world::Random;

const TINY: &[u8] = include_bytes!("../../../guests/tiny/tiny.elf");
const MIB: u64 = 1 << 20;
const RAM_BYTES: u64 = 8 * MIB;
const RAM_END: u64 = RAM_BASE + RAM_BYTES;
/// Where the device tree lies: the last 2 MiB.
const FDT: u64 = RAM_END - 2 * MIB;
const KERNEL: u64 = RAM_BASE + 2 * MIB;

fn config() -> Config {
    Config { ram_bytes: RAM_BYTES, harts: 1, devices: vec![], rtc_base_ns: 0, ..Config::default() }
}

fn start(boot: Boot<'_>) -> Result<Computer, BootError> {
    Computer::new(&config(), boot)
}

fn kernel(image: &[u8]) -> Result<Computer, BootError> {
    start(Boot::Kernel { image, initrd: None, command_line: "" })
}

fn firmware(image: &[u8]) -> Result<Computer, BootError> {
    start(Boot::Firmware { image, kernel: None, initrd: None, command_line: "" })
}

/// What a person is told. Short, and about the right file.
fn told(started: Result<Computer, BootError>, what: &str) -> String {
    let Err(error) = started else { panic!("it was started") };
    let text = error.to_string();
    assert!(text.contains(what) && text.len() < 200, "{text}");
    text
}

/// Segments are linked at their physical address with these bits flipped.
const VIRTUAL: u64 = 0xffff_ffff << 32;

/// An ELF file with these segments: address, content, bytes in memory.
fn elf(entry: u64, segments: &[(u64, &[u8], u64)]) -> Vec<u8> {
    let mut file = vec![0; 64 + 56 * segments.len()];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[18..20].copy_from_slice(&243u16.to_le_bytes());
    file[24..32].copy_from_slice(&entry.to_le_bytes());
    file[32..40].copy_from_slice(&64u64.to_le_bytes());
    file[54..56].copy_from_slice(&56u16.to_le_bytes());
    file[56..58].copy_from_slice(&(segments.len() as u16).to_le_bytes());
    for (index, (addr, content, mem_bytes)) in segments.iter().enumerate() {
        let words = [file.len() as u64, addr ^ VIRTUAL, *addr, content.len() as u64, *mem_bytes];
        let at = 64 + 56 * index;
        file[at] = 1;
        for (i, word) in words.iter().enumerate() {
            file[at + 8 + 8 * i..at + 16 + 8 * i].copy_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(content);
    }
    file
}

/// A Linux `Image` of `len` bytes.
fn linux(text_offset: u64, image_bytes: u64, len: usize) -> Vec<u8> {
    let mut file: Vec<u8> = (0..len).map(|i| i as u8).collect();
    file[8..16].copy_from_slice(&text_offset.to_le_bytes());
    file[16..24].copy_from_slice(&image_bytes.to_le_bytes());
    file[56..60].copy_from_slice(b"RSC\x05");
    file
}

fn holds(computer: &Computer, addr: u64, bytes: &[u8]) -> bool {
    computer.ram().slice(GuestAddr(addr), bytes.len() as u64) == Some(bytes)
}

/// Whatever was loaded, a few thousand steps of it are no panic.
fn stir(started: Result<Computer, BootError>) {
    match started {
        Ok(mut computer) => _ = computer.run(Icount(2000)),
        Err(error) => assert!(error.to_string().len() < 300),
    }
}

#[test]
fn empty_files_are_named() {
    assert_eq!(told(kernel(b""), "kernel"), "the kernel file is empty");
    assert_eq!(told(firmware(b""), "firmware"), "the firmware file is empty");
    let boot = Boot::Firmware { image: b"x", kernel: Some(b""), initrd: None, command_line: "" };
    assert_eq!(told(start(boot), "kernel"), "the kernel file is empty");
    let boot = Boot::Kernel { image: b"x", initrd: Some(b""), command_line: "" };
    assert_eq!(told(start(boot), "RAM disk"), "the initial RAM disk file is empty");
}

#[test]
fn a_compressed_kernel_is_named_with_what_to_do() {
    let text = told(kernel(&[0x1f, 0x8b, 8, 0]), "kernel");
    assert!(text.contains("zcat"), "{text}");
}

#[test]
fn every_truncation_of_an_elf_file_is_refused_or_runs() {
    // Sections and symbols at the file's end are not loaded: a file without them is a whole one.
    let mut refused = 0;
    // Less than the magic number is no ELF file at all, but flat bytes.
    for len in (4..300).chain((300..TINY.len()).step_by(37)) {
        match kernel(&TINY[..len]) {
            Ok(_) => assert!(len > 1000, "{len} bytes cannot be started"),
            Err(BootError::Corrupt { .. }) => refused += 1,
            Err(error) => panic!("{len}: {error}"),
        }
        if len < 64 {
            assert!(told(kernel(&TINY[..len]), "kernel").contains("ELF"));
        }
    }
    assert!(refused > 300);
}

#[test]
fn damaged_elf_headers_are_refused_or_run() {
    let mut random = Random(0xe1f);
    for _ in 0..3000 {
        let mut file = TINY.to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(64 + 56 * 4) as usize;
            file[at] = [0, 1, 0x7f, 0x80, 0xff, random.below(256) as u8][random.below(6) as usize];
        }
        stir(kernel(&file));
        stir(firmware(&file));
    }
}

#[test]
fn elf_files_for_other_machines_are_refused() {
    for (at, value) in [(4, 1), (5, 2), (18, 62), (19, 1)] {
        let mut file = TINY.to_vec();
        file[at] = value;
        assert!(told(kernel(&file), "kernel").contains("not for 64-bit little-endian RISC-V"));
    }
}

#[test]
fn elf_segments_that_make_no_sense_are_named() {
    let code = [0x13; 64];
    let good = elf(KERNEL, &[(KERNEL, &code, 64)]);
    kernel(&good).expect("a good file");
    for (file, why) in [
        (elf(KERNEL, &[]), "nothing to load"),
        (elf(KERNEL, &[(KERNEL, &[], 0)]), "nothing to load"),
        (elf(KERNEL, &[(KERNEL, &code, 63)]), "larger in the file than in memory"),
        (good[..good.len() - 1].to_vec(), "cut off"),
        (elf(KERNEL + 64, &[(KERNEL, &code, 64)]), "entry"),
        (elf(KERNEL - 2, &[(KERNEL, &code, 64)]), "entry"),
        (elf((KERNEL + 64) ^ VIRTUAL, &[(KERNEL, &code, 64)]), "entry"),
    ] {
        assert!(told(kernel(&file), "kernel").contains(why), "{why}");
        assert!(told(firmware(&file), "firmware").contains(why), "{why}");
    }
    let many = vec![(KERNEL, &code[..], 64); 65];
    assert!(told(kernel(&elf(KERNEL, &many)), "kernel").contains("program headers make no sense"));
    kernel(&elf(KERNEL, &many[1..])).expect("pieces of one file may lie on each other");
    let mut file = good.clone();
    file[54] = 55;
    assert!(told(kernel(&file), "kernel").contains("program headers make no sense"));
}

#[test]
fn an_entry_may_be_given_as_a_virtual_address() {
    // As in QEMU: a kernel is linked where it will map itself, and entered where it is loaded.
    let file = elf((KERNEL + 4) ^ VIRTUAL, &[(RAM_BASE, &[0; 8], 8), (KERNEL, &[0x13; 64], 64)]);
    let computer = kernel(&file).expect("a kernel");
    assert_eq!(computer.describe_hart(0)[0], ("pc".to_owned(), KERNEL + 4));
}

#[test]
fn elf_segments_outside_ram_are_named() {
    for (addr, mem_bytes) in [
        (RAM_BASE - 1, 64),
        (RAM_END - 63, 64),
        (RAM_END, 64),
        (0, 64),
        (u64::MAX - 63, 64),
        (u64::MAX, u64::MAX),
        (KERNEL, RAM_BYTES),
        (KERNEL, u64::MAX),
    ] {
        let file = elf(addr, &[(addr, &[0x13; 64], mem_bytes)]);
        assert!(told(kernel(&file), "kernel").contains("--memory"), "{mem_bytes} bytes at {addr:#x}");
    }
}

#[test]
fn a_segments_rest_is_zero_and_the_file_may_fill_ram_to_its_edges() {
    let code = [0x13; 64];
    let file = elf(RAM_BASE, &[(RAM_BASE, &code, FDT - RAM_BASE)]);
    let computer = kernel(&file).expect("all that lies below the device tree");
    assert!(holds(&computer, RAM_BASE, &code) && holds(&computer, RAM_BASE + 64, &[0; 4096]));
    let file = elf(RAM_BASE, &[(RAM_BASE, &code, FDT - RAM_BASE + 1)]);
    assert!(told(kernel(&file), "device tree").contains("beside the kernel"));
    let file = elf(RAM_BASE, &[(RAM_BASE, &code, 64), (RAM_END - 64, &code, 64)]);
    assert!(told(kernel(&file), "device tree").contains("beside the kernel"));
}

#[test]
fn a_linux_image_lies_where_its_header_says() {
    for (text_offset, addr) in
        [(0, KERNEL), (2 * MIB, KERNEL), (0x1000, KERNEL + 0x1000), (4 * MIB + 64, KERNEL + 64)]
    {
        let file = linux(text_offset, 4096, 4096);
        assert!(holds(&kernel(&file).expect("a kernel"), addr, &file), "text offset {text_offset:#x}");
    }
}

#[test]
fn a_linux_image_fits_with_all_that_it_clears() {
    let file = |image_bytes| linux(0, image_bytes, 64);
    kernel(&file(FDT - KERNEL)).expect("up to the device tree");
    assert!(told(kernel(&file(FDT - KERNEL + 1)), "device tree").contains("beside the kernel"));
    assert!(told(kernel(&file(RAM_END - KERNEL + 1)), "kernel").contains("--memory"));
    // The file itself counts, too.
    let long = linux(0, 64, (RAM_END - KERNEL) as usize + 1);
    assert!(told(kernel(&long), "kernel").contains("--memory"));
}

#[test]
fn a_linux_image_with_an_impossible_header_is_refused() {
    for (text_offset, image_bytes) in
        [(0, 0), (u64::MAX, 4096), (0, u64::MAX), ((1 << 30) + 1, 1), (0, (1 << 40) + 1)]
    {
        let text = told(kernel(&linux(text_offset, image_bytes, 64)), "kernel");
        assert!(text.contains("impossible sizes"), "{text}");
    }
}

#[test]
fn damaged_linux_headers_are_refused_or_run() {
    let mut random = Random(0x11);
    for _ in 0..2000 {
        let mut file = linux(0, 1 << 20, 4096);
        for _ in 0..=random.below(3) {
            file[random.below(64) as usize] = random.below(256) as u8;
        }
        stir(kernel(&file));
    }
}

#[test]
fn flat_bytes_are_started_where_they_are_put() {
    let computer = kernel(b"flat").expect("a flat kernel");
    assert!(holds(&computer, KERNEL, b"flat"));
    let computer = firmware(b"flat").expect("flat firmware");
    assert!(holds(&computer, RAM_BASE, b"flat"));
    firmware(&vec![0; (FDT - RAM_BASE) as usize]).expect("up to the device tree");
    assert!(told(firmware(&vec![0; (FDT - RAM_BASE) as usize + 1]), "device tree").contains("firmware"));
    assert!(told(firmware(&vec![0; RAM_BYTES as usize + 1]), "firmware").contains("--memory"));
}

#[test]
fn firmware_and_the_next_stage_may_not_overlap() {
    let next = |len: usize| {
        let image = vec![0x13; len];
        start(Boot::Firmware { image: &image, kernel: Some(b"next"), initrd: None, command_line: "" })
    };
    assert!(holds(&next(2 * MIB as usize).expect("firmware right below"), KERNEL, b"next"));
    assert!(told(next(2 * MIB as usize + 1), "kernel").contains("beside the firmware"));
}

#[test]
fn an_initial_ram_disk_lies_below_the_device_tree_and_above_the_kernel() {
    let with = |len: usize| {
        let initrd = vec![0x5a; len];
        start(Boot::Kernel { image: &[0x13; 4096], initrd: Some(&initrd), command_line: "" })
    };
    assert!(holds(&with(100).expect("a small one"), FDT - 4096, &[0x5a; 100]));
    let room = (FDT - KERNEL - 4096) as usize;
    assert!(holds(&with(room).expect("all the room there is"), KERNEL + 4096, &[0x5a; 4096]));
    assert!(told(with(room + 1), "initial RAM disk").contains("beside the kernel"));
    assert!(told(with(RAM_BYTES as usize), "initial RAM disk").contains("--memory"));
    assert!(told(with(3 * RAM_BYTES as usize), "initial RAM disk").contains("--memory"));
}

#[test]
fn with_much_ram_everything_lies_where_every_kernel_can_reach_it() {
    let config = Config { ram_bytes: 3 << 29, ..config() };
    let boot = Boot::Kernel { image: b"x", initrd: Some(&[0x5a; 100]), command_line: "" };
    let computer = Computer::new(&config, boot).expect("a machine");
    let fdt = RAM_BASE + (1 << 30) - 2 * MIB;
    assert!(holds(&computer, fdt, &0xd00d_feed_u32.to_be_bytes()));
    assert!(holds(&computer, fdt - 4096, &[0x5a; 100]));
}

#[test]
fn a_command_line_has_a_longest_length_and_no_nul() {
    let with = |line: &str| start(Boot::Kernel { image: b"x", initrd: None, command_line: line });
    with(&"x".repeat(1023)).expect("the longest");
    let text = told(with(&"x".repeat(1024)), "command line");
    assert!(text.contains("1023"), "the number is the one that is kept: {text}");
    told(with("a\0b"), "command line");
}

/// The device tree of a machine.
fn tree(computer: &Computer) -> &[u8] {
    let head = computer.ram().slice(GuestAddr(FDT), 8).expect("RAM");
    let len = u32::from_be_bytes(head[4..8].try_into().expect("four bytes"));
    computer.ram().slice(GuestAddr(FDT), u64::from(len)).expect("RAM")
}

#[test]
fn a_device_tree_has_room_for_what_a_boot_loader_adds_in_place() {
    let computer = kernel(b"x").expect("a machine");
    let tree = tree(&computer);
    let word = |at: usize| u32::from_be_bytes(tree[at..at + 4].try_into().expect("four bytes")) as usize;
    // Offset and length of strings and of structure.
    let end = (word(12) + word(32)).max(word(8) + word(36));
    assert!(tree.len() - end >= 8 << 10, "{} of {} bytes are content", end, tree.len());
    assert!(tree[end..].iter().all(|byte| *byte == 0));
}

#[test]
fn the_device_tree_hands_the_seed_that_the_machine_was_created_with_to_the_guest() {
    let with = |seed: [u8; 32]| {
        let config = Config { rng_seed: seed, ..config() };
        let boot = Boot::Kernel { image: b"x", initrd: None, command_line: "" };
        Computer::new(&config, boot).expect("a machine")
    };
    let holds = |computer: &Computer, seed: &[u8]| tree(computer).windows(32).any(|bytes| bytes == seed);
    let seed: [u8; 32] = core::array::from_fn(|i| 100 + i as u8);
    assert!(holds(&with(seed), &seed) && !holds(&with([1; 32]), &seed));
    let restored = Computer::restore(&with(seed).snapshot()).expect("its own snapshot");
    assert_eq!(restored.config().rng_seed, seed, "it is part of the state");
    assert!(tree(&with(seed)).windows(9).any(|bytes| bytes == b"rng-seed\0"));
}

#[test]
fn the_reset_code_finds_entry_and_device_tree() {
    let computer = firmware(TINY).expect("firmware that is an ELF file");
    assert_eq!(computer.describe_hart(0)[0], ("pc".to_owned(), ROM_BASE));
    assert!(holds(&computer, FDT, &0xd00d_feed_u32.to_be_bytes()));
}

#[test]
fn impossible_machines_are_refused() {
    let good = Config { harts: 8, devices: vec![DeviceConfig::Rng; 8], ..config() };
    let start =
        |config: &Config| Computer::new(config, Boot::Kernel { image: b"x", initrd: None, command_line: "" });
    start(&good).expect("the largest");
    for harts in [0, 9, 17, 100, u32::MAX] {
        told(start(&Config { harts, ..good.clone() }), "harts");
    }
    told(start(&Config { devices: vec![DeviceConfig::Rng; 9], ..good.clone() }), "devices");
    for ram_bytes in [0, 1, 4096, 2 * MIB, 4 * MIB + 4096, 4 * MIB + 1] {
        told(start(&Config { ram_bytes, ..good.clone() }), "RAM");
    }
    for ram_bytes in [1 << 46, 1 << 62] {
        told(start(&Config { ram_bytes, ..good.clone() }), "than this host has got to give");
    }
    // A kernel belongs where its device tree would be: the smallest machine is for firmware alone.
    let least = Config { ram_bytes: 4 * MIB, ..good };
    told(start(&least), "device tree");
    let boot = Boot::Firmware { image: b"x", kernel: None, initrd: None, command_line: "" };
    Computer::new(&least, boot).expect("the smallest");
}
