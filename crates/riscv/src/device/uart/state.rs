//! The UART as it is saved.

use super::Uart;
use crate::state::state;
use alloc::collections::VecDeque;

state!(
    /// Version 2. (In version 1 the transmitter's interrupt was asked for until it was read.)
    UartV2 of Uart {
        ier: u8,
        lcr: u8,
        mcr: u8,
        scratch: u8,
        fifo: bool,
        divisor: u16,
        input: VecDeque<u8>,
        thre: bool,
        thre_asks: bool,
    }
);
