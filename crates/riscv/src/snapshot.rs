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

use crate::board::{self, Board};
use crate::boot_image::{BootImage, ImageReader, is_kept};
use crate::computer::state::MachineV2;
use crate::computer::{Computer, new_ram};
use crate::config::{Config, HARTS_MAX, SLOTS};
use crate::hart::Hart;
use crate::hart::state::HartV1;
use crate::ram::{PAGE, RAM_BASE};
use crate::state::{Fields, Saved, UNFIT, decode, encode};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use entries::Entries;
use pollux_codec::snapshot::{self as container, ContainerError};
use pollux_machine::{MemorySource, OwnMemory};
use pollux_vocab::{GuestAddr, PAGE_BYTES};

/// Section kinds of the machine itself; the board's are below `0xff00`.
mod kind {
    pub(super) const CONFIG: u16 = 0xff00;
    pub(super) const MACHINE: u16 = 0xff01;
    pub(super) const HARTS: u16 = 0xff02;
    pub(super) const RAM: u16 = 0xff03;
    /// What a reset finds again; only of a machine that is reset in place.
    pub(super) const BOOT: u16 = 0xff04;
}

/// The version of a section that this code writes, and the only one that it reads. A machine whose harts take turns in
/// another way is one of another version.
const fn version_of(kind: u16) -> u16 {
    match kind {
        kind::CONFIG | kind::MACHINE | kind::RAM => 2,
        kind::HARTS | kind::BOOT => 1,
        _ => board::version_of(kind),
    }
}

/// [`version_of`], for messages.
const fn reads(kind: &u16) -> u16 {
    version_of(*kind)
}

/// A section, for people.
struct Named<'a>(&'a u16);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self.0 {
            kind::CONFIG => "configuration",
            kind::MACHINE => "machine",
            kind::HARTS => "harts",
            kind::RAM => "RAM",
            kind::BOOT => "boot image",
            kind => Board::section_name(kind).unwrap_or("of no name"),
        };
        write!(f, "section {name} ({:#06x})", self.0)
    }
}

/// What is wrong with a section of pages that are not this machine's.
const PAGES: &str = "(its pages)";
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
    /// a section has a version that this build does not read
    #[error("{} has version {version}, this build reads version {}; use the version of Pollux that wrote it", Named(.kind), reads(.kind))]
    Version {
        /// Which section.
        kind: u16,
        /// The version found.
        version: u16,
    },
    /// a section is missing
    #[error("{} is missing", Named(.kind))]
    Missing {
        /// Which section.
        kind: u16,
    },
    /// a section does not hold what it should
    #[error("{} is not what this build has in version {}: field {field}; use the version of Pollux that wrote it", Named(.kind), reads(.kind))]
    Malformed {
        /// Which section.
        kind: u16,
        /// Which of its fields, by name.
        field: &'static str,
    },
    /// the host has not the memory
    #[error("the snapshot is of a machine with {bytes} bytes of RAM, which this host has not got to give")]
    NoMemory {
        /// How much it wants.
        bytes: u64,
    },
    /// a section comes behind RAM
    #[error("{} comes behind RAM, where none can; the snapshot was not written by Pollux", Named(.kind))]
    BehindRam {
        /// Which section.
        kind: u16,
    },
    /// a section is unknown to this build
    #[error("{} is unknown to this build", Named(.kind))]
    Unknown {
        /// Which section.
        kind: u16,
    },
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

/// The sections of a snapshot, each to be taken once.
struct Sections(Vec<(u16, u16, Vec<u8>)>);

impl Sections {
    fn take(&mut self, kind: u16) -> Result<Vec<u8>, SnapshotError> {
        let at = self.0.iter().position(|s| s.0 == kind).ok_or(SnapshotError::Missing { kind })?;
        let (_, version, bytes) = self.0.remove(at);
        check_version(kind, version)?;
        Ok(bytes)
    }

    fn decode<T: Fields>(&mut self, kind: u16) -> Result<T, SnapshotError> {
        decode(&self.take(kind)?).map_err(|field| SnapshotError::Malformed { kind, field })
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
        Some(image) => {
            image.finish(config.ram_bytes).map(Some).ok_or(SnapshotError::Malformed { kind, field: PAGES })
        }
    }
}

/// Whether a section has the version that this code reads.
fn check_version(kind: u16, version: u16) -> Result<(), SnapshotError> {
    if version == version_of(kind) { Ok(()) } else { Err(SnapshotError::Version { kind, version }) }
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
            (kind::CONFIG, version_of(kind::CONFIG), encode(&self.config.save())),
            (kind::MACHINE, version_of(kind::MACHINE), encode(&MachineV2::of(self))),
            (kind::HARTS, version_of(kind::HARTS), encode(&harts)),
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
            container.section(kind::BOOT, version_of(kind::BOOT), |out| image.write(out));
        }
        container.section(kind::RAM, version_of(kind::RAM), |out| write_ram(self, out));
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
        check_version(kind::RAM, *version)?;
        let mut image = None;
        if let Some((kind, version, bytes)) = large(kind::BOOT) {
            check_version(*kind, *version)?;
            let mut reader = ImageReader::default();
            reader.push(bytes).ok_or(SnapshotError::Malformed { kind: *kind, field: PAGES })?;
            image = Some(reader);
        }
        let mut computer = Self::build(Sections(rest), image, Box::new(OwnMemory))?;
        let mut entries = Entries::default();
        let filled = fill_ram(&mut computer, &mut entries, ram).filter(|()| entries.is_whole());
        filled.ok_or(SnapshotError::Malformed { kind: kind::RAM, field: PAGES })?;
        Ok(computer)
    }

    /// The machine that sections are of, with nothing in its RAM.
    fn build(
        mut sections: Sections,
        image: Option<ImageReader>,
        mut memory: Box<dyn MemorySource>,
    ) -> Result<Self, SnapshotError> {
        let malformed = |kind| SnapshotError::Malformed { kind, field: UNFIT };
        let config = Config::revive(sections.decode(kind::CONFIG)?);
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
        machine.apply(&mut computer);
        Ok(computer)
    }

    /// A hart's registers by name, so that the first that differs between two machines can be named.
    #[must_use]
    pub fn describe_hart(&self, hart: usize) -> Vec<(String, u64)> {
        self.harts.get(hart).map_or(Vec::new(), |hart| HartV1::of(hart).describe())
    }
}
