//! The RV64 computer: harts, RAM and board behind the [`Machine`] trait, and the loop that runs them.
//!
//! Invariants (DESIGN 2.3, 2.4, 2.9): a run stops exactly where it was told to; interrupts are recognised at
//! instants that do not depend on where runs stopped; harts take turns of a fixed number of steps, and whose
//! turn it is and what is left of it are state. Everything that is decided (switching harts, waking one,
//! taking an interrupt) is decided right before a step that is then taken, so that a run that stops in
//! between has decided nothing.
//!
//! Not here: instructions (`hart`), devices (`board`), what reset loads (`board::load`), resets (`boot_image`), state as bytes
//! (`snapshot`, `digest`).

pub(crate) mod state;

use crate::board::{self, Board, BootError};
use crate::boot_image::{BootImage, Retired};
use crate::config::{Boot, Config};
use crate::digest::Digester;
use crate::engine::{Engine, Guest};
use crate::hart::code::CodeCache;
use crate::hart::csr::{NS_PER_TICK, envcfg, irq};
use crate::hart::execute::{self, Env};
use crate::hart::{Activity, Hart, NO_RESERVATION, fetch, trap};
use crate::ram::{PAGE, Ram};
use crate::snapshot::frozen::Image;
use alloc::boxed::Box;
use alloc::vec::Vec;
use pollux_machine::{Machine, Memory, MemorySource, OwnMemory, Stop};
use pollux_vocab::{Clock, ConsoleId, Digest, Icount, Input, Output, SlotId, VirtTime};

/// Steps in a hart's turn, when there are several.
pub(crate) const QUANTUM_STEPS: u64 = 20_000;

/// A complete computer.
pub struct Computer {
    pub(crate) config: Config,
    pub(crate) harts: Vec<Hart>,
    pub(crate) ram: Ram,
    pub(crate) board: Board,
    pub(crate) clock: Clock,
    pub(crate) icount: u64,
    /// Whose turn it is.
    pub(crate) current: usize,
    /// Steps left of that turn.
    pub(crate) quantum_left: u64,
    /// `ecall` from S-mode is answered by the machine itself.
    pub(crate) builtin_sbi: bool,
    /// What a reset finds again, if this machine is reset in place.
    pub(crate) image: Option<BootImage>,
    /// Not state: where RAM comes from.
    pub(crate) memory: Box<dyn MemorySource>,
    /// Not state: the image that is frozen, if one is.
    pub(crate) frozen: Option<Box<Image>>,
    /// Not state: the next life's RAM, as far as it is filled.
    pub(crate) next_ram: Option<(Ram, usize)>,
    /// Not state: an earlier life's RAM, as far as it is given back.
    pub(crate) retired: Retired,
    /// Not state: decoded instructions.
    pub(crate) code: CodeCache,
    /// Not state: page hashes.
    pub(crate) digester: Digester,
    /// Not state: what runs the harts, if it is not the interpreter.
    pub(crate) engine: Option<Box<dyn Engine>>,
}

/// Bytes of RAM for each byte that is noted of its pages, at least.
const RAM_BYTES_PER_NOTE: usize = 64;

/// RAM with memory from `memory`; `None` if the host has not got that much to give, what is noted of each page included.
pub(crate) fn new_ram(memory: &mut dyn MemorySource, bytes: u64) -> Option<Ram> {
    let bytes = usize::try_from(bytes).ok()?;
    let given = memory.give(bytes).filter(|given| given.len() == bytes)?;
    // Asked because an allocation that fails ends the process.
    OwnMemory.give(bytes / RAM_BYTES_PER_NOTE)?;
    Some(Ram::of(given))
}

impl Computer {
    /// A computer at reset, with what `boot` names in its memory.
    pub fn new(config: &Config, boot: Boot<'_>) -> Result<Self, BootError> {
        Self::new_in(config, boot, Box::new(OwnMemory))
    }

    /// The same, with RAM from `memory`.
    pub fn new_in(
        config: &Config,
        boot: Boot<'_>,
        mut memory: Box<dyn MemorySource>,
    ) -> Result<Self, BootError> {
        let no_memory = BootError::NoMemory { bytes: config.ram_bytes };
        let ram = new_ram(&mut *memory, config.ram_bytes & !(PAGE as u64 - 1)).ok_or(no_memory)?;
        let mut computer = Self::assemble_in(config, Board::new(config), ram, memory);
        let state = board::load(config, &boot, &mut computer.ram, &mut computer.board)?;
        computer.image = BootImage::of(config, &state, &computer.ram);
        computer.enter(&state);
        Ok(computer)
    }

    /// The same as [`Self::assemble_in`] with memory of its own.
    #[cfg(test)]
    pub(crate) fn assemble(config: &Config, board: Board) -> Self {
        Self::assemble_in(config, board, Ram::new(config.ram_bytes), Box::new(OwnMemory))
    }

    /// A computer at power-on, with nothing loaded and every hart at address 0 in M-mode.
    pub(crate) fn assemble_in(
        config: &Config,
        board: Board,
        ram: Ram,
        memory: Box<dyn MemorySource>,
    ) -> Self {
        let pages = ram.pages();
        let harts = u64::from(config.harts.clamp(1, crate::config::HARTS_MAX));
        Self {
            config: config.clone(),
            harts: (0..harts).map(Hart::new).collect(),
            ram,
            board,
            clock: Clock::default(),
            icount: 0,
            current: 0,
            quantum_left: 0,
            builtin_sbi: false,
            image: None,
            memory,
            frozen: None,
            next_ram: None,
            retired: Retired::default(),
            code: CodeCache::new(pages),
            digester: Digester::new(pages),
            engine: None,
        }
    }

    /// Lets `engine` run the harts from now on; `None` is the interpreter. Which one runs never shows.
    pub fn set_engine(&mut self, engine: Option<Box<dyn Engine>>) {
        self.code.report_writes(engine.is_some());
        self.engine = engine;
    }

    /// Its build sheet.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its RAM.
    #[must_use]
    pub fn ram(&self) -> &Ram {
        &self.ram
    }

    /// Its RAM, for dirty tracking; contents change through `Ram`'s own writes only.
    pub fn ram_mut(&mut self) -> &mut Ram {
        &mut self.ram
    }

    /// Gives memory back that no life needs any more.
    pub(crate) fn retire(&mut self, memory: Option<Memory>) {
        match memory {
            Some(Memory::Own(bytes)) => self.retired = Retired::of(bytes),
            Some(lent) => self.memory.take_back(lent),
            None => {}
        }
    }

    /// The present as the clock has it.
    pub(crate) fn now(&self) -> VirtTime {
        self.clock.at(Icount(self.icount))
    }

    /// Steps in a turn: a machine with one hart has no turns to speak of.
    fn quantum(&self) -> u64 {
        if self.harts.len() == 1 { 1 << 20 } else { QUANTUM_STEPS }
    }

    /// The interrupt lines into a hart's `mip`: from the board, and its timers against the clock.
    pub(crate) fn lines(&self, hart: usize) -> u64 {
        let board = self.board.interrupts(hart) & (irq::MSI | irq::SEI | irq::MEI);
        board | self.harts[hart].csrs.timer_lines(self.board.mtimecmp(hart), self.now())
    }

    /// When the hart's next timer interrupt that is enabled and not yet pending becomes so.
    fn next_timer(&self, hart: usize, lines: u64) -> Option<VirtTime> {
        let c = &self.harts[hart].csrs;
        let waiting = c.mie & !lines;
        let machine = (waiting & irq::MTI != 0).then(|| self.board.mtimecmp(hart));
        let supervisor = (waiting & irq::STI != 0 && c.menvcfg & envcfg::STCE != 0).then_some(c.stimecmp);
        let ticks = machine.unwrap_or(u64::MAX).min(supervisor.unwrap_or(u64::MAX));
        ticks.checked_mul(NS_PER_TICK).map(VirtTime)
    }

    /// Whether a hart would take a step if it were its turn.
    fn is_runnable(&self, hart: usize) -> bool {
        match self.harts[hart].activity {
            Activity::Running => true,
            Activity::Stopped => false,
            Activity::Waiting => {
                let c = &self.harts[hart].csrs;
                (c.mip | self.lines(hart)) & c.mie != 0
            }
        }
    }

    /// The hart that takes the next step, if any can.
    fn next_hart(&self) -> Option<usize> {
        let count = self.harts.len();
        if self.quantum_left > 0 && self.is_runnable(self.current) {
            return Some(self.current);
        }
        (1..=count).map(|i| (self.current + i) % count).find(|&hart| self.is_runnable(hart))
    }

    /// Makes it this hart's turn. A new turn is a whole one.
    fn give_turn(&mut self, hart: usize) {
        if hart != self.current {
            self.harts[self.current].reservation = NO_RESERVATION;
        }
        if hart != self.current || self.quantum_left == 0 {
            self.quantum_left = self.quantum();
        }
        self.current = hart;
        self.harts[hart].activity = Activity::Running;
    }

    /// When the earliest timer goes off that would wake a hart.
    fn wake_time(&self) -> Option<VirtTime> {
        (0..self.harts.len())
            .filter(|&hart| self.harts[hart].activity == Activity::Waiting)
            .filter_map(|hart| self.next_timer(hart, self.lines(hart)))
            .min()
    }

    /// Drops what stores outside the inner loop, or to page tables, made stale.
    pub(crate) fn settle(&mut self) {
        if !self.ram.is_stale() {
            return;
        }
        self.code.drain(&mut self.ram);
        while let Some(stale) = self.ram.take_stale_translation() {
            self.harts.iter_mut().for_each(|hart| hart.forget(&mut self.ram, stale));
        }
        if self.ram.stale_translations() {
            self.forget_translations();
        }
    }

    fn forget_translations(&mut self) {
        self.ram.forget_tables();
        self.harts.iter_mut().for_each(|hart| hart.forget_translations(&mut self.ram));
    }

    /// Drops every cache. Never shows; for the tests that prove so.
    pub fn clear_caches(&mut self) {
        self.settle();
        self.code.clear(&mut self.ram);
        self.forget_translations();
        if let Some(engine) = &mut self.engine {
            engine.clear();
        }
    }

    /// Runs the current hart until its next event: at least one step, at most up to `until`.
    fn take_turn(&mut self, until: u64) {
        let index = self.current;
        let lines = self.lines(index);
        if let Some((number, mode)) = trap::due(&self.harts[index], lines) {
            trap::interrupt(&mut self.harts[index], number, mode);
        }
        let timer = self.next_timer(index, lines).map_or(u64::MAX, |time| self.clock.icount_reaching(time).0);
        let is_alone = self.harts.len() == 1;
        let end = until
            .min(timer.max(self.icount.saturating_add(1)))
            .min(self.icount.saturating_add(self.quantum_left));
        while self.icount < end {
            let hart = &mut self.harts[index];
            let mut env = Env {
                board: &mut self.board,
                code: &self.code,
                clock: self.clock,
                icount_base: self.icount,
                steps_base: hart.steps,
                lines,
                builtin_sbi: self.builtin_sbi,
                is_alone,
                begun: 0,
                leave: false,
                fetch_miss: false,
                sbi_call: false,
                yielded: false,
            };
            let limit = end - self.icount;
            let steps = match &mut self.engine {
                Some(engine) => engine.run(&mut Guest::new(hart, &mut self.ram, &mut env), limit),
                None => execute::run::<false>(hart, &mut self.ram, &mut env, limit),
            };
            let (leave, miss, sbi, yielded) = (env.leave, env.fetch_miss, env.sbi_call, env.yielded);
            self.account(steps);
            if yielded {
                self.quantum_left = 0;
            }
            if sbi {
                self.sbi_call();
            }
            if !miss || leave {
                return;
            }
            self.fetch_page();
            self.settle();
        }
    }

    /// Counts steps of the current hart.
    fn account(&mut self, steps: u64) {
        self.icount += steps;
        self.quantum_left = self.quantum_left.saturating_sub(steps);
        let hart = &mut self.harts[self.current];
        hart.steps = hart.steps.wrapping_add(steps);
    }

    /// Makes the page of the current hart's `pc` executable, or takes the step that faults.
    fn fetch_page(&mut self) {
        if self.code.is_full() {
            self.code.clear(&mut self.ram);
            self.harts.iter_mut().for_each(|hart| hart.forget_translations(&mut self.ram));
        }
        let hart = &mut self.harts[self.current];
        if let Err(exception) = fetch::fill(hart, &mut self.ram, &mut self.code) {
            trap::exception(hart, exception);
            self.account(1);
        }
    }
}

impl Machine for Computer {
    fn icount(&self) -> Icount {
        Icount(self.icount)
    }

    fn time(&self) -> VirtTime {
        self.now()
    }

    fn run(&mut self, until: Icount) -> Stop {
        let mut end = until.0;
        loop {
            if !self.board.outputs.is_empty() {
                return Stop::Output;
            }
            if self.board.halted() {
                return Stop::Halted;
            }
            self.retired.shrink();
            if self.board.is_restarting() {
                if self.icount >= end {
                    return Stop::Until;
                }
                if !self.restart() {
                    return Stop::Until;
                }
                // A step, so that nothing comes between; but no more, for this has taken as long as a million of them.
                end = self.icount + 1;
                continue;
            }
            let Some(hart) = self.next_hart() else { return Stop::Idle { wake: self.wake_time() } };
            if self.icount >= end {
                return Stop::Until;
            }
            self.settle();
            self.give_turn(hart);
            self.take_turn(end);
        }
    }

    fn apply(&mut self, input: &Input) {
        self.harts.iter_mut().for_each(|hart| hart.reservation = NO_RESERVATION);
        match *input {
            Input::Clock { time, rate } => {
                self.clock = self.clock.adjusted(Icount(self.icount), time, rate);
            }
            _ => {
                let now = self.now();
                self.board.apply(&mut self.ram, now, input);
            }
        }
    }

    fn restarts(&self) -> u64 {
        self.board.restarts()
    }

    fn take_output(&mut self) -> Option<Output> {
        self.board.outputs.pop_front()
    }

    fn packet_room(&self, slot: SlotId) -> bool {
        self.board.packet_room(&self.ram, slot)
    }

    fn console_room(&self, console: ConsoleId) -> usize {
        self.board.console_room(console)
    }

    fn pending(&self) -> Vec<Output> {
        self.board.pending()
    }

    fn prepare_digest(&mut self, pages_max: usize) -> bool {
        self.digester.prepare(&mut self.ram, pages_max)
    }

    fn digest(&mut self) -> Digest {
        self.state_digest()
    }
}

/// Bytes of RAM per page, for callers that count in pages.
pub const PAGE_SIZE: usize = PAGE;
