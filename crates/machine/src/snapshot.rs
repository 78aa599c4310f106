//! The whole state as bytes and back (LAYOUT, "Live types never serialise themselves").
//!
//! Invariant: a restored machine goes on exactly as the saved one would have; caches, host resources and
//! digests are left out. Every section carries its version; what is not understood is refused, and so is a
//! section that nobody has taken. Pages of zeros are left out.
//!
//! Sections: the machine's own (kinds below) and the board's, which has its own kinds. A snapshot is written as a stream
//! over a frozen image ([`frozen`]), and read as it comes ([`builder`]); small ones also at once.

pub mod builder;
pub(crate) mod entries;
pub(crate) mod frozen;

use crate::board::Board;
use crate::boot_image::{BootImage, ImageReader, is_kept};
use crate::computer::{Computer, new_ram};
use crate::config::{Config, HARTS_MAX, SLOTS};
use crate::hart::csr::Csrs;
use crate::hart::pmp::Pmp;
use crate::hart::{Activity, Hart, Mode, NO_RESERVATION};
use crate::ram::{PAGE, RAM_BASE};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use entries::Entries;
use pollux_codec::snapshot::{self as container, ContainerError};
use pollux_contract::{MemorySource, OwnMemory};
use pollux_isa::{freg_name, reg_name};
use pollux_vocab::{Clock, GuestAddr, PAGE_BYTES};
use serde::{Deserialize, Serialize};

/// Section kinds of the machine itself; the board's are below `0xff00`.
mod kind {
    pub(super) const CONFIG: u16 = 0xff00;
    pub(super) const MACHINE: u16 = 0xff01;
    pub(super) const HARTS: u16 = 0xff02;
    pub(super) const RAM: u16 = 0xff03;
    /// What a reset finds again; only of a machine that is reset in place.
    pub(super) const BOOT: u16 = 0xff04;
}

/// The versions this code writes, and the only ones it reads: of configuration, RAM and what belongs to no hart and no
/// device, and of all other sections. A machine whose harts take turns in another way is one of another version.
const V2: u16 = 2;
const V1: u16 = 1;
/// Set in the number of a page that is as a reset finds it, and whose content therefore is in the boot image alone.
const AS_BOOTED: u32 = 1 << 31;
/// Most RAM a snapshot may ask for, in bytes: what it says is not trusted with the host's memory.
const RAM_BYTES_MAX: u64 = 1 << 39;

/// Why a snapshot was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SnapshotError {
    /// the container is damaged or of another version
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// section {kind:#06x} has version {version}, which this build does not read
    #[error("section {kind:#06x} has version {version}, which this build does not read")]
    Version {
        /// Which section.
        kind: u16,
        /// The version found.
        version: u16,
    },
    /// section {kind:#06x} is missing
    #[error("section {kind:#06x} is missing")]
    Missing {
        /// Which section.
        kind: u16,
    },
    /// section {kind:#06x} does not hold what it should
    #[error("section {kind:#06x} does not hold what it should")]
    Malformed {
        /// Which section.
        kind: u16,
    },
    /// the host has not the memory
    #[error("the snapshot is of a machine with {bytes} bytes of RAM, which this host has not got to give")]
    NoMemory {
        /// How much it wants.
        bytes: u64,
    },
    /// section {kind:#06x} comes behind RAM
    #[error("section {kind:#06x} comes behind RAM, where none can; the snapshot was not written by Pollux")]
    BehindRam {
        /// Which section.
        kind: u16,
    },
    /// section {kind:#06x} is unknown to this build
    #[error("section {kind:#06x} is unknown to this build")]
    Unknown {
        /// Which section.
        kind: u16,
    },
}

/// Version 1 of a hart's state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct HartV1 {
    x: [u64; 32],
    f: [u64; 32],
    pc: u64,
    mode: u8,
    activity: u8,
    /// In the order of [`Csrs::NAMES`].
    csrs: Vec<u64>,
    pmp: Pmp,
    reservation: Option<u64>,
    steps: u64,
    trapped: u64,
}

/// Version 2 of what belongs to no hart and no device. (In version 1 turns were shorter, and a lone hart gave its own away.)
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct MachineV2 {
    clock: Clock,
    icount: u64,
    current: u32,
    quantum_left: u64,
    builtin_sbi: bool,
}

impl HartV1 {
    pub(crate) fn of(hart: &Hart) -> Self {
        let mut x = [0; 32];
        x.copy_from_slice(&hart.x[..32]);
        Self {
            x,
            f: hart.f,
            pc: hart.pc,
            mode: hart.mode as u8,
            activity: hart.activity as u8,
            csrs: hart.csrs.values().to_vec(),
            pmp: hart.pmp.clone(),
            reservation: (hart.reservation != NO_RESERVATION).then_some(hart.reservation),
            steps: hart.steps,
            trapped: hart.trapped,
        }
    }

    /// The registers by name.
    fn describe(&self) -> Vec<(String, u64)> {
        let mut all = alloc::vec![("pc".to_string(), self.pc)];
        all.extend((1..32u8).map(|i| (reg_name(i).to_string(), self.x[usize::from(i)])));
        all.extend((0..32u8).map(|i| (freg_name(i).to_string(), self.f[usize::from(i)])));
        all.extend(Csrs::NAMES.iter().zip(&self.csrs).map(|(name, value)| (name.to_string(), *value)));
        all.extend((0..2).map(|i| (alloc::format!("pmpcfg{}", 2 * i), self.pmp.cfg(8 * i))));
        all.extend((0..16).map(|i| (alloc::format!("pmpaddr{i}"), self.pmp.addr(i))));
        all.push(("mode".to_string(), u64::from(self.mode)));
        all.push(("activity".to_string(), u64::from(self.activity)));
        all.push(("reservation".to_string(), self.reservation.unwrap_or(NO_RESERVATION)));
        all.push(("steps".to_string(), self.steps));
        all.push(("trapped".to_string(), self.trapped));
        all
    }

    /// The hart this is the state of; `None` if it is no hart's state.
    fn revive(&self, id: u64) -> Option<Hart> {
        let mut hart = Hart::new(id);
        hart.x[1..32].copy_from_slice(&self.x[1..]);
        hart.f = self.f;
        hart.pc = self.pc & !1;
        hart.mode = match self.mode {
            0 => Mode::User,
            1 => Mode::Supervisor,
            3 => Mode::Machine,
            _ => return None,
        };
        hart.activity = match self.activity {
            0 => Activity::Running,
            1 => Activity::Waiting,
            2 => Activity::Stopped,
            _ => return None,
        };
        hart.csrs.set_values(self.csrs.as_slice().try_into().ok()?);
        hart.pmp = self.pmp.clone();
        hart.reservation = self.reservation.unwrap_or(NO_RESERVATION);
        hart.steps = self.steps;
        hart.trapped = self.trapped;
        hart.refresh_contexts();
        Some(hart)
    }
}

impl MachineV2 {
    pub(crate) fn of(computer: &Computer) -> Self {
        Self {
            clock: computer.clock,
            icount: computer.icount,
            current: computer.current as u32,
            quantum_left: computer.quantum_left,
            builtin_sbi: computer.builtin_sbi,
        }
    }
}

/// Pages that are not all zero: page number in RAM (32 bits, little-endian), then the page; or, of one that is as in the
/// boot image, the number with [`AS_BOOTED`] alone.
fn write_ram(computer: &Computer, out: &mut Vec<u8>) {
    for (page, content) in computer.ram.written_pages() {
        if let Some((number, content)) = frozen::entry_of(computer.image.as_ref(), page, content) {
            out.extend_from_slice(&number.to_le_bytes());
            out.extend_from_slice(content);
        }
    }
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Serialising plain structs into a growing buffer cannot fail.
    postcard::to_allocvec(value).unwrap_or_default()
}

/// The sections of a snapshot, each to be taken once.
struct Sections(Vec<(u16, u16, Vec<u8>)>);

impl Sections {
    fn take(&mut self, kind: u16) -> Result<Vec<u8>, SnapshotError> {
        let at = self.0.iter().position(|s| s.0 == kind).ok_or(SnapshotError::Missing { kind })?;
        let (_, version, bytes) = self.0.remove(at);
        let wanted = if matches!(kind, kind::CONFIG | kind::MACHINE) { V2 } else { V1 };
        if version == wanted { Ok(bytes) } else { Err(SnapshotError::Version { kind, version }) }
    }

    fn decode<T: for<'de> Deserialize<'de>>(&mut self, kind: u16) -> Result<T, SnapshotError> {
        let bytes = self.take(kind)?;
        match postcard::take_from_bytes(&bytes) {
            Ok((value, [])) => Ok(value),
            _ => Err(SnapshotError::Malformed { kind }),
        }
    }
}

/// Whether a configuration is one a machine can be built from.
fn is_buildable(config: &Config) -> bool {
    (PAGE_BYTES..=RAM_BYTES_MAX).contains(&config.ram_bytes)
        && config.ram_bytes.is_multiple_of(PAGE_BYTES)
        && (1..=HARTS_MAX).contains(&config.harts)
        && config.devices.len() <= SLOTS
}

/// What a reset is to find, which is there if and only if the machine is reset in place.
fn restore_image(config: &Config, image: Option<ImageReader>) -> Result<Option<BootImage>, SnapshotError> {
    let kind = kind::BOOT;
    match image {
        None if is_kept(config) => Err(SnapshotError::Missing { kind }),
        None => Ok(None),
        Some(_) if !is_kept(config) => Err(SnapshotError::Unknown { kind }),
        Some(image) => image.finish(config.ram_bytes).map(Some).ok_or(SnapshotError::Malformed { kind }),
    }
}

/// Whether a section has the version that this code reads.
fn check_version(kind: u16, version: u16, wanted: u16) -> Result<(), SnapshotError> {
    if version == wanted { Ok(()) } else { Err(SnapshotError::Version { kind, version }) }
}

/// Takes pages of RAM in as their bytes come; `None` if they are not this machine's.
fn fill_ram(computer: &mut Computer, entries: &mut Entries, bytes: &[u8]) -> Option<()> {
    let Computer { ram, image, .. } = computer;
    let len_of = |page: u32| if page & AS_BOOTED == 0 { PAGE } else { 0 };
    entries.push(bytes, len_of, |page, content| {
        let number = page & !AS_BOOTED;
        let content = if page == number { content } else { image.as_ref()?.page(number)? };
        ram.write(GuestAddr(RAM_BASE + u64::from(number) * PAGE_BYTES), content).ok()
    })
}

impl Computer {
    /// All sections but RAM and boot image: the machine's, then the board's.
    fn sections(&self) -> Vec<(u16, u16, Vec<u8>)> {
        let harts: Vec<HartV1> = self.harts.iter().map(HartV1::of).collect();
        let mut sections = alloc::vec![
            (kind::CONFIG, V2, encode(&self.config)),
            (kind::MACHINE, V2, encode(&MachineV2::of(self))),
            (kind::HARTS, V1, encode(&harts)),
        ];
        sections.extend(self.board.save());
        sections
    }

    /// The whole state as a snapshot, at once: caches and resources are left out. Untaken outputs must have been taken
    /// first. For small machines that stand still.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let mut container = container::Writer::default();
        for (kind, version, bytes) in self.sections() {
            container.section(kind, version, |out| out.extend_from_slice(&bytes));
        }
        if let Some(image) = &self.image {
            container.section(kind::BOOT, V1, |out| image.write(out));
        }
        container.section(kind::RAM, V2, |out| write_ram(self, out));
        container.finish()
    }

    /// The machine that a snapshot is of, whatever the order of its sections; all checksums are checked first.
    pub fn restore(snapshot: &[u8]) -> Result<Self, SnapshotError> {
        let all = container::decode(snapshot)?;
        // RAM and what a reset finds in it stay where they are: there is much of it.
        let large = |kind| all.iter().find(move |section| section.0 == kind);
        let rest = all.iter().filter(|section| !matches!(section.0, kind::RAM | kind::BOOT));
        let rest = rest.map(|(kind, version, bytes)| (*kind, *version, bytes.to_vec())).collect();
        let Some((_, version, ram)) = large(kind::RAM) else {
            return Err(SnapshotError::Missing { kind: kind::RAM });
        };
        check_version(kind::RAM, *version, V2)?;
        let mut image = None;
        if let Some((kind, version, bytes)) = large(kind::BOOT) {
            check_version(*kind, *version, V1)?;
            let mut reader = ImageReader::default();
            reader.push(bytes).ok_or(SnapshotError::Malformed { kind: *kind })?;
            image = Some(reader);
        }
        let mut computer = Self::build(Sections(rest), image, Box::new(OwnMemory))?;
        let mut entries = Entries::default();
        let filled = fill_ram(&mut computer, &mut entries, ram).filter(|()| entries.is_whole());
        filled.ok_or(SnapshotError::Malformed { kind: kind::RAM })?;
        Ok(computer)
    }

    /// The machine that sections are of, with nothing in its RAM.
    fn build(
        mut sections: Sections,
        image: Option<ImageReader>,
        mut memory: Box<dyn MemorySource>,
    ) -> Result<Self, SnapshotError> {
        let malformed = |kind| SnapshotError::Malformed { kind };
        let config: Config = sections.decode(kind::CONFIG)?;
        let machine: MachineV2 = sections.decode(kind::MACHINE)?;
        let harts: Vec<HartV1> = sections.decode(kind::HARTS)?;
        if !is_buildable(&config) {
            return Err(malformed(kind::CONFIG));
        }
        let no_memory = SnapshotError::NoMemory { bytes: config.ram_bytes };
        let ram = new_ram(&mut *memory, config.ram_bytes).ok_or(no_memory)?;
        if machine.current >= config.harts {
            return Err(malformed(kind::MACHINE));
        }
        let board = Board::restore(&config, sections.0)?;
        let mut computer = Self::assemble_in(&config, board, ram, memory);
        let revived: Option<Vec<Hart>> = harts.iter().zip(0..).map(|(hart, id)| hart.revive(id)).collect();
        computer.harts =
            revived.filter(|harts| harts.len() == config.harts as usize).ok_or(malformed(kind::HARTS))?;
        computer.image = restore_image(&config, image)?;
        computer.clock = machine.clock;
        computer.icount = machine.icount;
        computer.current = machine.current as usize;
        computer.quantum_left = machine.quantum_left;
        computer.builtin_sbi = machine.builtin_sbi;
        Ok(computer)
    }

    /// A hart's registers by name, so that the first that differs between two machines can be named.
    #[must_use]
    pub fn describe_hart(&self, hart: usize) -> Vec<(String, u64)> {
        self.harts.get(hart).map_or(Vec::new(), |hart| HartV1::of(hart).describe())
    }
}
