//! The 16550 UART: the first console of every guest.
//!
//! Source: National Semiconductor PC16550D data sheet. Transmission takes no time: what is written leaves at once,
//! so the transmitter is always empty. Baud rate and line format are kept for those who read them back.
//!
//! The transmitter's interrupt is requested once for each time that it becomes empty, as on QEMU's `virt`: a driver that
//! takes the interrupt and neither reads its cause nor writes is not asked again. Its cause stays to be read.

pub(crate) mod state;

use alloc::collections::VecDeque;

/// Size of the register window, in bytes.
pub const BYTES: u64 = 0x100;
/// Bytes of input that are taken; the guest sees them through a 16-byte FIFO's registers.
pub const INPUT_MAX: usize = 64;

const IER_RX: u8 = 1;
const IER_THRE: u8 = 2;
/// What the interrupt identification says.
const CAUSE_NONE: u8 = 1;
const CAUSE_THRE: u8 = 2;
const CAUSE_RX: u8 = 4;
const LCR_DLAB: u8 = 0x80;
const MCR_LOOP: u8 = 0x10;
const LSR_DATA: u8 = 1;
const LSR_EMPTY: u8 = 0x60;

/// The chip.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Uart {
    ier: u8,
    lcr: u8,
    mcr: u8,
    scratch: u8,
    fifo: bool,
    divisor: u16,
    input: VecDeque<u8>,
    /// The transmitter became empty, and nobody has taken note yet.
    thre: bool,
    /// The interrupt for that is still to be taken.
    thre_asks: bool,
}

impl Uart {
    /// Whether the chip asks for an interrupt.
    #[must_use]
    pub fn interrupts(&self) -> bool {
        match self.cause() {
            CAUSE_THRE => self.thre_asks,
            cause => cause != CAUSE_NONE,
        }
    }

    /// A hart has claimed the chip's interrupt.
    pub fn handle_claim(&mut self) {
        if self.cause() == CAUSE_THRE {
            self.thre_asks = false;
        }
    }

    /// The transmitter has become empty.
    fn empty(&mut self) {
        (self.thre, self.thre_asks) = (true, true);
    }

    /// The interrupt identification, without the FIFO bits: 1 for none.
    fn cause(&self) -> u8 {
        if self.ier & IER_RX != 0 && !self.input.is_empty() {
            CAUSE_RX
        } else if self.ier & IER_THRE != 0 && self.thre {
            CAUSE_THRE
        } else {
            CAUSE_NONE
        }
    }

    /// How many bytes of input would be taken.
    #[must_use]
    pub fn room(&self) -> usize {
        INPUT_MAX.saturating_sub(self.input.len())
    }

    /// Takes a typed byte out past the registers, for the SBI's console.
    pub fn take_typed(&mut self) -> Option<u8> {
        self.input.pop_front()
    }

    /// Whether a state that was saved is one this chip can be in.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.input.len() <= INPUT_MAX
    }

    /// Somebody typed. What finds no room is lost.
    pub fn receive(&mut self, bytes: &[u8]) {
        let room = self.room();
        self.input.extend(bytes.iter().take(room));
    }

    /// Reads a register.
    pub fn read(&mut self, offset: u64) -> u8 {
        match offset {
            0 if self.lcr & LCR_DLAB != 0 => self.divisor as u8,
            0 => self.input.pop_front().unwrap_or(0),
            1 if self.lcr & LCR_DLAB != 0 => (self.divisor >> 8) as u8,
            1 => self.ier,
            2 => {
                let cause = self.cause();
                if cause == CAUSE_THRE {
                    self.thre = false;
                }
                cause | if self.fifo { 0xc0 } else { 0 }
            }
            3 => self.lcr,
            4 => self.mcr,
            5 => LSR_EMPTY | if self.input.is_empty() { 0 } else { LSR_DATA },
            // Carrier, ready and clear to send; in loopback what MCR says.
            6 if self.mcr & MCR_LOOP != 0 => {
                (self.mcr & 0x0c) << 4 | (self.mcr & 0x02) << 3 | (self.mcr & 0x01) << 5
            }
            6 => 0xb0,
            7 => self.scratch,
            _ => 0,
        }
    }

    /// Writes a register. Returns the byte that leaves, if one does.
    pub fn write(&mut self, offset: u64, value: u8) -> Option<u8> {
        match offset {
            0 if self.lcr & LCR_DLAB != 0 => self.divisor = self.divisor & 0xff00 | u16::from(value),
            0 => {
                self.empty();
                if self.mcr & MCR_LOOP != 0 {
                    self.receive(&[value]);
                } else {
                    return Some(value);
                }
            }
            1 if self.lcr & LCR_DLAB != 0 => self.divisor = self.divisor & 0x00ff | u16::from(value) << 8,
            1 => {
                // Enabling the transmitter's interrupt while it is empty raises it.
                if value & IER_THRE != 0 && self.ier & IER_THRE == 0 {
                    self.empty();
                }
                self.ier = value & 0x0f;
            }
            2 => {
                // A change of mode clears the FIFOs, too.
                let fifo = value & 1 != 0;
                if value & 2 != 0 || fifo != self.fifo {
                    self.input.clear();
                }
                self.fifo = fifo;
            }
            3 => self.lcr = value,
            4 => self.mcr = value & 0x1f,
            7 => self.scratch = value,
            _ => {}
        }
        None
    }
}
