//! The toy machine: an icount and everything that it ever heard. It says one word every two steps, and the word tells
//! all that it had heard by then, so that two machines with different pasts cannot say the same.
//!
//! Source: DESIGN 1, "the machine is a pure function", with nothing else left in. Not here: a computer (`pollux-riscv`).

use pollux_vocab::{ConsoleId, Input, Output};

/// Steps of one slice: the word is said at the first of them, so that a mark lies behind it and an input before it.
pub const SLICE_STEPS: u8 = 2;

/// The machine.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Toy {
    /// Steps since reset.
    pub icount: u8,
    /// What it heard, and when.
    heard: Vec<(u8, u8)>,
}

/// What a machine said: at which step, and all that it had heard by then.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Word {
    /// The step.
    pub icount: u8,
    heard: Vec<(u8, u8)>,
}

impl Toy {
    /// Something comes in, here and now.
    pub fn hear(&mut self, what: u8) {
        self.heard.push((self.icount, what));
    }

    /// Runs to `until`, and tells what is said on the way.
    pub fn run(&mut self, until: u8) -> Vec<Word> {
        let from = self.icount.min(until);
        self.icount = self.icount.max(until);
        (from + 1..=until).filter_map(|icount| self.word(icount)).collect()
    }

    /// What it said at a step that lies behind it.
    #[must_use]
    pub fn word(&self, icount: u8) -> Option<Word> {
        let heard = || self.heard.iter().copied().filter(|(at, _)| *at < icount).collect();
        (icount % SLICE_STEPS == 1 && icount <= self.icount).then(|| Word { icount, heard: heard() })
    }
}

impl Word {
    /// As something that a machine lets out.
    #[must_use]
    pub fn to_output(&self) -> Output {
        let heard = self.heard.iter().flat_map(|(at, what)| [*at, *what]);
        Output::Console { console: ConsoleId::Uart, bytes: [self.icount].into_iter().chain(heard).collect() }
    }

    /// And back.
    #[must_use]
    pub fn from_output(output: &Output) -> Option<Self> {
        let Output::Console { bytes, .. } = output else { return None };
        let (icount, heard) = bytes.split_first()?;
        Some(Self { icount: *icount, heard: heard.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect() })
    }
}

/// An input that carries `what`.
#[must_use]
pub fn to_input(what: u8) -> Input {
    Input::Console { console: ConsoleId::Uart, bytes: vec![what] }
}

/// And back.
#[must_use]
pub fn from_input(input: &Input) -> Option<u8> {
    match input {
        Input::Console { bytes, .. } => bytes.first().copied(),
        _ => None,
    }
}
