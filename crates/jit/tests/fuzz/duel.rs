//! Two machines that run the same random program, one interpreted and one translated, stopped at random steps.

use super::boot::{World, image};
use super::layout::*;
use super::program::program;
use super::rng::Rng;
use super::trace::trace;
use pollux_jit::Jit;
use pollux_riscv::{Boot, Computer, Config, Machine, Stop};
use pollux_vocab::{ClockRate, ConsoleId, GuestAddr, Icount, Input, VirtTime};

/// What a seed is run as.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub world: World,
    pub harts: u32,
    pub steps: u64,
    /// No seed lets the interpreter have caches; otherwise some do not.
    pub cold: bool,
}

/// Steps that are shown of those before the difference.
const TRACED: u64 = 120;

/// The machines differ.
#[derive(Debug)]
pub struct Difference {
    /// Pieces that went well, and steps of the one that did not.
    pub piece: u64,
    pub steps: u64,
    pub report: String,
    /// Harts and names of the registers that differ.
    pub registers: Vec<(usize, String)>,
}

/// What a seed came to, so that it can be seen that programs live.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    pub steps: u64,
    pub stops: u64,
    pub trapped: u64,
    /// Stops at which the program counter was in random code.
    pub at_home: u64,
    pub by_mode: [u64; 4],
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.stops += other.stops;
        self.trapped += other.trapped;
        self.at_home += other.at_home;
        self.by_mode.iter_mut().zip(other.by_mode).for_each(|(sum, count)| *sum += count);
    }
}

pub struct Duel {
    rng: Rng,
    plan: Plan,
    pristine: Vec<u8>,
    eager: bool,
    /// The interpreter remembers nothing from one step to the next: the machine's own caches are judged, too.
    cold: bool,
    interpreted: Computer,
    translated: Computer,
}

fn set_jit(computer: &mut Computer, eager: bool) {
    // As little code memory as there may be, so that it fills up.
    let jit = if eager { Jit::eager(0) } else { Jit::new(0) };
    // Elsewhere than on x86-64 there is none, and nothing to compare.
    if let Ok(jit) = jit {
        computer.set_engine(Some(Box::new(jit)));
    }
}

impl Duel {
    pub fn new(seed: u64, plan: Plan) -> Self {
        let mut rng = Rng::new(seed);
        let calm = rng.percent(50);
        let (code, starts) = program(&mut rng, plan.world, calm);
        let pristine = image(&mut rng, plan.world, calm, &code, &starts);
        let config = Config {
            ram_bytes: 4 << 20,
            harts: plan.harts,
            devices: vec![],
            rtc_base_ns: 0,
            ..Config::default()
        };
        let boot = Boot::Firmware { image: &pristine, kernel: None, initrd: None, command_line: "" };
        let interpreted = Computer::new(&config, boot).expect("a machine");
        let mut translated = Computer::new(&config, boot).expect("a machine");
        let eager = rng.percent(60);
        let cold = rng.percent(if plan.cold { 100 } else { 2 });
        set_jit(&mut translated, eager);
        Self { rng, plan, pristine, eager, cold, interpreted, translated }
    }

    /// Runs to the end, or through `until.0` pieces and `until.1` steps of the next one.
    pub fn run(&mut self, until: Option<(u64, u64)>) -> Result<Tally, Difference> {
        let mut tally = Tally::default();
        for piece in 0.. {
            if self.interpreted.icount().0 >= self.plan.steps || piece > self.plan.steps {
                break;
            }
            let steps = match self.rng.below(10) {
                0 => 1,
                1 | 2 => self.rng.between(2, 30),
                3..8 => self.rng.between(30, 600),
                _ => self.rng.between(600, 6000),
            };
            let last = until.filter(|until| until.0 == piece);
            let steps = last.map_or(steps as u64, |until| until.1);
            let stop = self.advance(piece, steps)?;
            self.count(&mut tally);
            match stop {
                _ if last.is_some() => break,
                Stop::Halted | Stop::Idle { wake: None } => break,
                Stop::Idle { wake: Some(time) } => {
                    self.apply(&Input::Clock { time, rate: ClockRate::default() });
                }
                Stop::Until | Stop::Output => {}
            }
            self.meddle();
        }
        tally.steps = self.interpreted.icount().0;
        for hart in 0..self.plan.harts as usize {
            tally.trapped += register(&self.interpreted, hart, "trapped");
        }
        Ok(tally)
    }

    fn count(&self, tally: &mut Tally) {
        tally.stops += 1;
        let pc = register(&self.interpreted, 0, "pc");
        let windows = [CODE, VIRTUAL, VIRTUAL + SECOND * PAGE, LARGE + (CODE - RESET)];
        let at_home = windows.iter().any(|window| (*window..*window + CODE_PAGES * PAGE).contains(&pc));
        tally.at_home += u64::from(at_home);
        tally.by_mode[register(&self.interpreted, 0, "mode") as usize % 4] += 1;
    }

    fn advance(&mut self, piece: u64, steps: u64) -> Result<Stop, Difference> {
        let until = self.interpreted.icount().after(steps);
        let before = self.interpreted.icount();
        let stop = loop {
            let stop = self.interpret(until);
            let mut other = self.translated.run(until);
            // An engine may stop for outputs only where the interpreter does; both report all of them.
            while other == Stop::Until && self.translated.icount() < until {
                other = self.translated.run(until);
            }
            let outputs = [&mut self.interpreted, &mut self.translated]
                .map(|machine| std::iter::from_fn(|| machine.take_output()).collect::<Vec<_>>());
            let same = stop == other
                && self.interpreted.icount() == self.translated.icount()
                && outputs[0] == outputs[1]
                && self.interpreted.digest() == self.translated.digest();
            if !same {
                let report = format!("from {before:?}: {stop:?} and {other:?}\n{}", self.describe());
                let registers = self.different();
                return Err(Difference { piece, steps, report, registers });
            }
            if stop != Stop::Output {
                break stop;
            }
        };
        Ok(stop)
    }

    fn interpret(&mut self, until: Icount) -> Stop {
        while self.cold && self.interpreted.icount().after(1) < until {
            let stop = self.interpreted.run(self.interpreted.icount().after(1));
            if stop != Stop::Until {
                return stop;
            }
            self.interpreted.clear_caches();
        }
        self.interpreted.run(until)
    }

    fn apply(&mut self, input: &Input) {
        self.interpreted.apply(input);
        self.translated.apply(input);
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        for machine in [&mut self.interpreted, &mut self.translated] {
            // As a device would.
            machine.ram_mut().write(GuestAddr(at), bytes).expect("it is RAM");
        }
    }

    /// Does something to both machines that is not the program's doing, or nothing.
    fn meddle(&mut self) {
        match self.rng.below(160) {
            0..4 => self.translated.clear_caches(),
            4..6 => self.interpreted.clear_caches(),
            6..10 => {
                let time = VirtTime(self.interpreted.time().0 + self.rng.below(20_000));
                let rate = ClockRate(self.rng.pick(&[10 << 32, 10 << 32, 3 << 32, (25 << 32) + 12_345]));
                self.apply(&Input::Clock { time, rate });
            }
            10..12 => {
                let bytes = vec![self.rng.next() as u8; 3];
                self.apply(&Input::Console { console: ConsoleId::Uart, bytes });
            }
            12..18 => {
                // What programs have done to page tables, or handlers, is undone.
                let at = self.rng.pick(&[TABLES, leaf_table(0), leaf_table(1), RESET, ENTRIES & !(PAGE - 1)]);
                self.restore(at);
            }
            18..25 => {
                let at = CODE + self.rng.below(CODE_PAGES) * PAGE;
                self.restore(at);
            }
            25 => {
                let at = CODE + self.rng.below(CODE_PAGES * PAGE / 8) * 8;
                let bytes = self.rng.next().to_le_bytes();
                let len = self.rng.pick(&[2, 4, 8]);
                self.write(at, &bytes[..len]);
            }
            26 if self.rng.percent(30) => self.swap(),
            _ => {}
        }
    }

    fn restore(&mut self, at: u64) {
        let offset = (at - RESET) as usize;
        let page = self.pristine[offset..offset + PAGE as usize].to_vec();
        self.write(at, &page);
    }

    /// Each machine goes on as the other one did.
    fn swap(&mut self) {
        let [interpreted, translated] = [self.interpreted.snapshot(), self.translated.snapshot()];
        assert!(interpreted == translated, "equal digests, but not equal snapshots");
        self.interpreted = Computer::restore(&translated).expect("a snapshot");
        self.translated = Computer::restore(&interpreted).expect("a snapshot");
        set_jit(&mut self.translated, self.eager);
    }

    fn different(&self) -> Vec<(usize, String)> {
        let names = |hart| {
            let (one, two) = (self.interpreted.describe_hart(hart), self.translated.describe_hart(hart));
            one.into_iter().zip(two).filter(|(one, two)| one != two).map(move |((name, _), _)| (hart, name))
        };
        (0..self.plan.harts as usize).flat_map(names).collect()
    }

    /// Where the machines differ.
    fn describe(&mut self) -> String {
        let mut lines = Vec::new();
        let (icount, other) = (self.interpreted.icount(), self.translated.icount());
        lines.push(format!("step {icount} interpreted, {other} translated"));
        for hart in 0..self.plan.harts as usize {
            let (one, two) = (self.interpreted.describe_hart(hart), self.translated.describe_hart(hart));
            lines.push(format!(
                "hart {hart}: pc {:#x} mode {}",
                one[0].1,
                register(&self.interpreted, hart, "mode")
            ));
            for ((name, one), (_, two)) in one.iter().zip(&two).filter(|(one, two)| one != two) {
                lines.push(format!("  {name}: {one:#x} interpreted, {two:#x} translated"));
            }
        }
        for page in 0..self.interpreted.ram().pages() as u64 {
            let at = RESET + page * PAGE;
            let bytes = |machine: &Computer| machine.ram().slice(GuestAddr(at), PAGE).map(<[u8]>::to_vec);
            let (Some(one), Some(two)) = (bytes(&self.interpreted), bytes(&self.translated)) else {
                continue;
            };
            if let Some(first) = (0..one.len()).find(|&i| one[i] != two[i]) {
                lines.push(format!(
                    "  RAM differs from {:#x}: {:#x} {:#x}",
                    at + first as u64,
                    one[first],
                    two[first]
                ));
            }
        }
        lines.join("\n")
    }
}

pub fn register(computer: &Computer, hart: usize, name: &str) -> u64 {
    computer.describe_hart(hart).iter().find(|(known, _)| known == name).map_or(0, |(_, value)| *value)
}

/// Runs a seed; what differs is described from the step at which it begins to.
pub fn duel(seed: u64, plan: Plan) -> Result<Tally, String> {
    let found = match Duel::new(seed, plan).run(None) {
        Ok(tally) => return Ok(tally),
        Err(found) => found,
    };
    // The least number of steps of that piece after which they differ.
    let (mut same, mut differs) = (0, found.steps);
    let (piece, mut nearest) = (found.piece, found);
    while differs - same > 1 {
        let middle = same + (differs - same) / 2;
        match Duel::new(seed, plan).run(Some((piece, middle))) {
            Err(difference) if difference.piece == piece => (differs, nearest) = (middle, difference),
            _ => same = middle,
        }
    }
    // The last steps may have been interpreted on both sides, so what went wrong lies up to a block or two before.
    let mut before = Duel::new(seed, plan);
    let first = same.saturating_sub(TRACED);
    let traced = match before.run(Some((piece, first))) {
        Ok(_) => trace(&before.interpreted, differs - first, &nearest.registers),
        Err(_) => "they differ even before".into(),
    };
    let Difference { report, .. } = nearest;
    Err(format!(
        "seed {seed}, {plan:?}: after {piece} pieces the machines part by step {differs} of the next.\n{report}\n\
         The steps before that, with an asterisk where a register that differs is written:\n{traced}"
    ))
}
