//! A frozen image of a machine whose code is translated: its stream is the snapshot of its instant, whatever translated
//! stores do meanwhile.

use pollux_jit::Jit;
use pollux_machine::{Freeze, Machine};
use pollux_riscv::{Boot, Computer, Config};

const CODE_BYTES: usize = 4 << 20;
/// Stores to every page of RAM from the sixteenth on, again and again, each time something else.
const WRITER: [u32; 8] = [
    0x0001_0297, // auipc t0, 0x10: where it begins
    0x007f_0317, // auipc t1, 0x7f0: where it ends
    0x0000_1e37, // lui t3, 1: a page
    0x0072_b023, // sd t2, 0(t0)
    0x0013_8393, // addi t2, t2, 1
    0x01c2_82b3, // add t0, t0, t3
    0xfe62_eae3, // bltu t0, t1, -12
    0xfe5f_f06f, // j -28: again
];

#[test]
fn translated_stores_leave_a_frozen_image_as_it_was() {
    let Ok(jit) = Jit::eager(CODE_BYTES) else { return };
    let image: Vec<u8> = WRITER.iter().flat_map(|word| word.to_le_bytes()).collect();
    let config = Config { ram_bytes: 8 << 20, ..Config::default() };
    let boot = Boot::Firmware { image: &image, kernel: None, initrd: None, command_line: "" };
    let mut machine = Computer::new(&config, boot).expect("a machine");
    machine.set_engine(Some(Box::new(jit)));
    machine.run(machine.icount().after(100_000));
    for _ in 0..3 {
        let snapshot = machine.snapshot();
        machine.freeze();
        machine.run(machine.icount().after(4_000));
        while machine.measure_frozen(100).is_none() {
            machine.run(machine.icount().after(500));
        }
        let mut stream = Vec::new();
        while machine.read_frozen(7, &mut stream) {
            machine.run(machine.icount().after(100));
        }
        assert!(stream == snapshot);
        assert!(machine.snapshot() != snapshot, "it has run on");
        machine.thaw();
    }
}
