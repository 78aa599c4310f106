//! The serial port (PC16550D data sheet).

use pollux_riscv::device::uart::{INPUT_MAX, Uart};

const DATA: u64 = 0;
const IER: u64 = 1;
const IIR: u64 = 2;
const FCR: u64 = 2;
const LCR: u64 = 3;
const MCR: u64 = 4;
const LSR: u64 = 5;
const MSR: u64 = 6;
const SCRATCH: u64 = 7;
const DLAB: u8 = 0x80;
const NO_INTERRUPT: u8 = 1;
const EMPTY_TRANSMITTER: u8 = 2;
const RECEIVED: u8 = 4;

#[test]
fn what_is_written_leaves_at_once_and_in_order() {
    let mut uart = Uart::default();
    let said: Vec<u8> = b"hello\0\xff".iter().filter_map(|byte| uart.write(DATA, *byte)).collect();
    assert_eq!(said, b"hello\0\xff");
    assert_eq!(uart.read(LSR), 0x60, "the transmitter is always empty");
}

#[test]
fn what_is_typed_is_read_in_order() {
    let mut uart = Uart::default();
    uart.receive(b"ab");
    assert_eq!((uart.read(LSR), uart.read(DATA)), (0x61, b'a'));
    assert_eq!((uart.read(LSR), uart.read(DATA)), (0x61, b'b'));
    assert_eq!((uart.read(LSR), uart.read(DATA)), (0x60, 0));
}

#[test]
fn what_finds_no_room_is_lost() {
    let mut uart = Uart::default();
    let typed: Vec<u8> = (0..100).collect();
    uart.receive(&typed);
    assert_eq!(uart.room(), 0);
    uart.receive(b"x");
    let read: Vec<u8> = (0..INPUT_MAX).map(|_| uart.read(DATA)).collect();
    assert_eq!(read, typed[..INPUT_MAX]);
    assert_eq!((uart.room(), uart.read(LSR)), (INPUT_MAX, 0x60));
}

#[test]
fn the_divisor_latch_hides_data_and_interrupt_enable() {
    let mut uart = Uart::default();
    uart.receive(b"x");
    uart.write(IER, 1);
    uart.write(LCR, DLAB | 3);
    assert_eq!((uart.write(DATA, 0x34), uart.write(IER, 0x12)), (None, None));
    assert_eq!((uart.read(DATA), uart.read(IER), uart.read(LCR)), (0x34, 0x12, DLAB | 3));
    uart.write(LCR, 3);
    assert_eq!((uart.read(IER), uart.read(DATA)), (1, b'x'));
    uart.write(LCR, DLAB);
    assert_eq!((uart.read(DATA), uart.read(IER)), (0x34, 0x12));
}

#[test]
fn received_data_interrupts_while_there_is_some() {
    let mut uart = Uart::default();
    uart.receive(b"ab");
    assert_eq!((uart.interrupts(), uart.read(IIR)), (false, NO_INTERRUPT), "not enabled");
    uart.write(IER, 1);
    assert_eq!((uart.interrupts(), uart.read(IIR)), (true, RECEIVED));
    uart.read(DATA);
    assert_eq!((uart.interrupts(), uart.read(IIR)), (true, RECEIVED), "reading IIR does not clear it");
    uart.read(DATA);
    assert_eq!((uart.interrupts(), uart.read(IIR)), (false, NO_INTERRUPT));
}

#[test]
fn the_empty_transmitter_interrupts_once_for_every_time_it_becomes_empty() {
    let mut uart = Uart::default();
    uart.write(IER, 2);
    assert!(uart.interrupts(), "enabling it while empty");
    assert_eq!((uart.read(IIR), uart.read(IIR)), (EMPTY_TRANSMITTER, NO_INTERRUPT), "reading IIR clears it");
    uart.write(IER, 2);
    assert!(!uart.interrupts(), "it was enabled already");
    uart.write(DATA, b'x');
    assert_eq!((uart.interrupts(), uart.read(IIR)), (true, EMPTY_TRANSMITTER));
    uart.write(DATA, b'y');
    uart.write(IER, 0);
    assert!(!uart.interrupts());
}

#[test]
fn received_data_comes_before_the_empty_transmitter() {
    let mut uart = Uart::default();
    uart.write(IER, 3);
    uart.receive(b"x");
    assert_eq!((uart.read(IIR), uart.read(IIR)), (RECEIVED, RECEIVED));
    uart.read(DATA);
    assert_eq!((uart.read(IIR), uart.read(IIR)), (EMPTY_TRANSMITTER, NO_INTERRUPT), "it has waited its turn");
}

#[test]
fn the_fifo_shows_in_iir_and_can_be_cleared() {
    let mut uart = Uart::default();
    assert_eq!(uart.read(IIR), NO_INTERRUPT);
    uart.receive(b"early");
    uart.write(FCR, 1);
    assert_eq!(uart.read(IIR), 0xc0 | NO_INTERRUPT);
    uart.write(FCR, 7);
    assert_eq!((uart.read(LSR), uart.read(IIR)), (0x60, 0xc0 | NO_INTERRUPT));
    uart.receive(b"x");
    uart.write(FCR, 5);
    assert_eq!(uart.read(DATA), b'x', "clearing the transmitter's side is no business of the receiver's");
}

#[test]
fn turning_the_fifo_on_or_off_clears_it() {
    let mut uart = Uart::default();
    for (fcr, iir) in [(1, 0xc0 | NO_INTERRUPT), (0, NO_INTERRUPT)] {
        uart.receive(b"x");
        uart.write(FCR, fcr);
        assert_eq!((uart.read(LSR), uart.read(IIR)), (0x60, iir));
    }
}

#[test]
fn loopback_turns_data_and_modem_lines_round() {
    let mut uart = Uart::default();
    assert_eq!(uart.read(MSR), 0xb0, "carrier, ready, clear to send");
    uart.write(MCR, 0x10);
    assert_eq!((uart.write(DATA, b'x'), uart.read(LSR), uart.read(DATA)), (None, 0x61, b'x'));
    // DTR shows as DSR, RTS as CTS, OUT1 as RI, OUT2 as DCD.
    for (out, shown) in [(1, 0x20), (2, 0x10), (4, 0x40), (8, 0x80), (15, 0xf0)] {
        uart.write(MCR, 0x10 | out);
        assert_eq!(uart.read(MSR), shown);
    }
    uart.write(MCR, 0xef);
    assert_eq!((uart.read(MCR), uart.read(MSR)), (0x0f, 0xb0), "bits 5 to 7 do not exist");
}

#[test]
fn registers_hold_what_they_can_hold() {
    let mut uart = Uart::default();
    uart.write(SCRATCH, 0xa5);
    uart.write(IER, 0xff);
    uart.write(LSR, 0xff);
    uart.write(MSR, 0xff);
    assert_eq!((uart.read(SCRATCH), uart.read(IER), uart.read(LSR)), (0xa5, 0x0f, 0x60));
    for offset in 8..16 {
        uart.write(offset, 0xff);
        assert_eq!(uart.read(offset), 0);
    }
}
