//! The machine's own SBI: what firmware would do for a supervisor, done by the machine (DESIGN 3).
//!
//! Source: RISC-V Supervisor Binary Interface specification 2.0: base, TIME, IPI, RFENCE, HSM, SRST, DBCN, and the
//! legacy console, timer and shutdown calls. Remote fences have nothing to do: the MMU and instruction fetch are
//! coherent (DESIGN 2.1), so a fence is over before it begins.
//!
//! The handler is a function over [`Host`]; the machine implements that in `sbi_host`.

/// What the SBI needs of the machine.
pub trait Host {
    /// Number of harts; their ids are 0 and up.
    fn hart_count(&self) -> u64;
    /// Arms a hart's timer: an interrupt when `time` reaches `ticks`; clears a pending one.
    fn set_timer(&mut self, hart: usize, ticks: u64);
    /// Makes a supervisor software interrupt pending.
    fn raise_software_interrupt(&mut self, hart: usize);
    /// Whether a hart is stopped.
    fn is_stopped(&self, hart: usize) -> bool;
    /// Starts a stopped hart in S-mode at `addr`, with a0 = its id and a1 = `opaque`.
    fn start(&mut self, hart: usize, addr: u64, opaque: u64);
    /// Stops a hart.
    fn stop(&mut self, hart: usize);
    /// Lets a hart sleep until an interrupt that it has enabled is pending.
    fn suspend(&mut self, hart: usize);
    /// Whether an address can be executed from.
    fn is_ram(&self, addr: u64) -> bool;
    /// Reads guest memory; false if it is not all RAM.
    fn read_memory(&self, addr: u64, to: &mut [u8]) -> bool;
    /// Writes guest memory; false if it is not all RAM.
    fn write_memory(&mut self, addr: u64, from: &[u8]) -> bool;
    /// Shows bytes on the console.
    fn console_write(&mut self, bytes: &[u8]);
    /// A byte that was typed, if any.
    fn console_read(&mut self) -> Option<u8>;
    /// Ends the machine.
    fn end(&mut self, how: End);
}

/// How a supervisor ends the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Power-off; whether the supervisor calls it a failure.
    PowerOff {
        /// It does.
        failed: bool,
    },
    /// Reboot.
    Reset,
}

/// What a call returns in a0 and a1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SbiRet {
    /// 0, or a negative error.
    pub error: i64,
    /// The value, if there is one.
    pub value: u64,
    /// Legacy calls return in a0 only.
    pub legacy: bool,
}

/// `SBI_ERR_NOT_SUPPORTED`.
pub const ERR_NOT_SUPPORTED: i64 = -2;
/// `SBI_ERR_INVALID_PARAM`.
pub const ERR_INVALID_PARAM: i64 = -3;
/// `SBI_ERR_INVALID_ADDRESS`.
pub const ERR_INVALID_ADDRESS: i64 = -5;
/// `SBI_ERR_ALREADY_AVAILABLE`.
pub const ERR_ALREADY_AVAILABLE: i64 = -6;

const SPEC_VERSION: u64 = 2 << 24;
/// Nobody has registered it with RISC-V International: large and arbitrary.
const IMPLEMENTATION_ID: u64 = 0x504c58;
const IMPLEMENTATION_VERSION: u64 = 1;

const EID_SET_TIMER: u64 = 0;
const EID_PUTCHAR: u64 = 1;
const EID_GETCHAR: u64 = 2;
const EID_SHUTDOWN: u64 = 8;
const EID_BASE: u64 = 0x10;
const EID_TIME: u64 = 0x5449_4d45;
const EID_IPI: u64 = 0x73_5049;
const EID_RFENCE: u64 = 0x5246_4e43;
const EID_HSM: u64 = 0x48_534d;
const EID_SRST: u64 = 0x5352_5354;
const EID_DBCN: u64 = 0x4442_434e;
const EXTENSIONS: [u64; 11] = [
    EID_SET_TIMER,
    EID_PUTCHAR,
    EID_GETCHAR,
    EID_SHUTDOWN,
    EID_BASE,
    EID_TIME,
    EID_IPI,
    EID_RFENCE,
    EID_HSM,
    EID_SRST,
    EID_DBCN,
];
/// Bytes that one debug-console call moves.
const DBCN_BYTES_MAX: u64 = 4096;

const fn ok(value: u64) -> SbiRet {
    SbiRet { error: 0, value, legacy: false }
}

const fn err(error: i64) -> SbiRet {
    SbiRet { error, value: 0, legacy: false }
}

const fn legacy(error: i64) -> SbiRet {
    SbiRet { error, value: 0, legacy: true }
}

/// Answers a call: extension `eid` (a7), function `fid` (a6), arguments a0 to a5.
pub fn handle(host: &mut impl Host, hart: usize, eid: u64, fid: u64, args: [u64; 6]) -> SbiRet {
    match (eid, fid) {
        (EID_BASE, _) => base(fid, args[0]),
        (EID_TIME, 0) => {
            host.set_timer(hart, args[0]);
            ok(0)
        }
        (EID_IPI, 0) => match harts_of(host, args[0], args[1]) {
            Some(harts) => {
                harts
                    .into_iter()
                    .enumerate()
                    .filter(|(_, hit)| *hit)
                    .for_each(|(h, _)| host.raise_software_interrupt(h));
                ok(0)
            }
            None => err(ERR_INVALID_PARAM),
        },
        // Functions 3 to 6 are the hypervisor extension's, which these harts do not have.
        (EID_RFENCE, 0..=2) => match harts_of(host, args[0], args[1]) {
            Some(_) => ok(0),
            None => err(ERR_INVALID_PARAM),
        },
        (EID_HSM, _) => hsm(host, hart, fid, args),
        (EID_SRST, 0) => reset(host, args[0], args[1]),
        (EID_DBCN, _) => console(host, fid, args),
        (EID_SET_TIMER, _) => {
            host.set_timer(hart, args[0]);
            legacy(0)
        }
        (EID_PUTCHAR, _) => {
            host.console_write(&[args[0] as u8]);
            legacy(0)
        }
        (EID_GETCHAR, _) => legacy(host.console_read().map_or(-1, i64::from)),
        (EID_SHUTDOWN, _) => {
            host.end(End::PowerOff { failed: false });
            legacy(0)
        }
        _ => err(ERR_NOT_SUPPORTED),
    }
}

fn base(fid: u64, arg: u64) -> SbiRet {
    match fid {
        0 => ok(SPEC_VERSION),
        1 => ok(IMPLEMENTATION_ID),
        2 => ok(IMPLEMENTATION_VERSION),
        3 => ok(u64::from(EXTENSIONS.contains(&arg))),
        // mvendorid, marchid, mimpid.
        4..=6 => ok(0),
        _ => err(ERR_NOT_SUPPORTED),
    }
}

/// The harts of a mask (chapter 3.1), as flags; `None` if one does not exist.
fn harts_of(host: &impl Host, mask: u64, first: u64) -> Option<[bool; 64]> {
    let count = host.hart_count();
    let mut harts = [false; 64];
    if first == u64::MAX {
        harts[..count.min(64) as usize].fill(true);
        return Some(harts);
    }
    for bit in (0..64).filter(|bit| mask >> bit & 1 != 0) {
        let hart = first.checked_add(bit).filter(|hart| *hart < count)?;
        *harts.get_mut(hart as usize)? = true;
    }
    Some(harts)
}

fn hsm(host: &mut impl Host, hart: usize, fid: u64, args: [u64; 6]) -> SbiRet {
    let exists = args[0] < host.hart_count();
    match fid {
        0 if !exists => err(ERR_INVALID_PARAM),
        0 if !host.is_stopped(args[0] as usize) => err(ERR_ALREADY_AVAILABLE),
        0 if !host.is_ram(args[1]) => err(ERR_INVALID_ADDRESS),
        0 => {
            host.start(args[0] as usize, args[1], args[2]);
            ok(0)
        }
        1 => {
            host.stop(hart);
            ok(0)
        }
        2 if !exists => err(ERR_INVALID_PARAM),
        2 => ok(u64::from(host.is_stopped(args[0] as usize))),
        3 => match args[0] {
            // Default retentive suspend.
            0 => {
                host.suspend(hart);
                ok(0)
            }
            // Reserved types, and the non-retentive one.
            _ if args[0] == 0x8000_0000 => err(ERR_NOT_SUPPORTED),
            _ => err(ERR_INVALID_PARAM),
        },
        _ => err(ERR_NOT_SUPPORTED),
    }
}

fn reset(host: &mut impl Host, how: u64, reason: u64) -> SbiRet {
    match (how, reason) {
        (0, 0 | 1) => host.end(End::PowerOff { failed: reason == 1 }),
        // Cold and warm reboot are the same here.
        (1 | 2, 0 | 1) => host.end(End::Reset),
        _ => return err(ERR_INVALID_PARAM),
    }
    ok(0)
}

fn console(host: &mut impl Host, fid: u64, args: [u64; 6]) -> SbiRet {
    let (length, addr) = (args[0].min(DBCN_BYTES_MAX) as usize, args[1]);
    match fid {
        0 if args[2] != 0 => err(ERR_INVALID_PARAM),
        0 => {
            let mut bytes = alloc::vec![0; length];
            if !host.read_memory(addr, &mut bytes) {
                return err(ERR_INVALID_PARAM);
            }
            host.console_write(&bytes);
            ok(length as u64)
        }
        1 if args[2] != 0 => err(ERR_INVALID_PARAM),
        // What was typed must not be lost to an address that takes nothing.
        1 if !host.read_memory(addr, &mut alloc::vec![0; length]) => err(ERR_INVALID_PARAM),
        1 => {
            let bytes: alloc::vec::Vec<u8> = (0..length).map_while(|_| host.console_read()).collect();
            if host.write_memory(addr, &bytes) { ok(bytes.len() as u64) } else { err(ERR_INVALID_PARAM) }
        }
        2 => {
            host.console_write(&[args[0] as u8]);
            ok(0)
        }
        _ => err(ERR_NOT_SUPPORTED),
    }
}
