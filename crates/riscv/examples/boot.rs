//! Boots a kernel with nothing around it: `boot IMAGE [INITRD [COMMAND_LINE [MAX_MILLION_STEPS]]]`. Console to standard
//! output, idle waits skipped, disk requests failed. Says at the end how fast it was. For work on the interpreter.

use pollux_riscv::{Boot, Computer, Config, DeviceConfig, Machine, Stop};
use pollux_vocab::{ClockRate, Icount, Input, Output};
use std::io::Write;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let image = std::fs::read(&args[1]).expect("a kernel");
    let initrd = args.get(2).filter(|p| !p.is_empty()).map(|p| std::fs::read(p).expect("an initrd"));
    let command_line = args.get(3).map_or("console=ttyS0 earlycon", String::as_str);
    let limit = args.get(4).map_or(5_000, |n| n.parse().expect("a number")) * 1_000_000;
    let devices = vec![DeviceConfig::Net { mac: [0x52, 0x54, 0, 1, 2, 3] }, DeviceConfig::Rng];
    let config = Config {
        ram_bytes: 512 << 20,
        harts: 1,
        devices,
        rtc_base_ns: 1_700_000_000_000_000_000,
        ..Config::default()
    };
    let boot = Boot::Kernel { image: &image, initrd: initrd.as_deref(), command_line };
    let mut machine = Computer::new(&config, boot).expect("a machine");
    let begun = std::time::Instant::now();
    while machine.icount().0 < limit {
        let stop = machine.run(Icount(limit));
        while let Some(output) = machine.take_output() {
            match output {
                Output::Console { bytes, .. } => std::io::stdout().write_all(&bytes).expect("a terminal"),
                Output::EntropyWanted { slot, request, len } => {
                    machine.apply(&Input::Entropy { slot, request, bytes: vec![42; len as usize] });
                }
                _ => {}
            }
        }
        match stop {
            Stop::Idle { wake: Some(time) } => {
                machine.apply(&Input::Clock { time, rate: ClockRate::default() })
            }
            Stop::Idle { wake: None } | Stop::Halted => break,
            Stop::Until | Stop::Output => {}
        }
    }
    let spent = begun.elapsed().as_secs_f64();
    let steps = machine.icount().0;
    println!("\n{steps} steps in {spent:.2} s: {:.0} million a second", steps as f64 / spent / 1e6);
}
