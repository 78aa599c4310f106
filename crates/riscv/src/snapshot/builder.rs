//! Builds the computer from a snapshot as its bytes come.
//!
//! RAM comes last, and goes where it belongs at once: besides the machine no more is held than one page. What has come is
//! believed only when its section's checksum is right; a machine of a snapshot that turns out damaged is never given out.

use super::{PAGES, Sections, SnapshotError, check_version, fill_ram, kind};
use crate::boot_image::ImageReader;
use crate::computer::Computer;
use crate::config::DeviceConfig;
use crate::snapshot::entries::Entries;
use alloc::boxed::Box;
use alloc::vec::Vec;
use pollux_codec::snapshot::{Item, Reader};
use pollux_machine::{Build, DiskPart, MemorySource, Parts, Restore};
use pollux_vocab::SlotId;

/// What the section under way goes into.
enum Into {
    Nothing,
    Small,
    Boot,
    Ram,
}

/// Takes a snapshot in.
pub struct Builder {
    reader: Reader,
    section: Into,
    small: Vec<(u16, u16, Vec<u8>)>,
    boot: Option<ImageReader>,
    memory: Option<Box<dyn MemorySource>>,
    entries: Entries,
    computer: Option<Box<Computer>>,
}

impl Builder {
    fn begin(&mut self, kind: u16, version: u16) -> Result<(), SnapshotError> {
        if self.computer.is_some() {
            return Err(SnapshotError::BehindRam { kind });
        }
        self.section = match kind {
            kind::RAM => {
                check_version(kind, version)?;
                let missing = SnapshotError::Missing { kind };
                let (small, boot) = (core::mem::take(&mut self.small), self.boot.take());
                let computer = Computer::build(Sections(small), boot, self.memory.take().ok_or(missing)?)?;
                self.computer = Some(Box::new(computer));
                Into::Ram
            }
            kind::BOOT => {
                check_version(kind, version)?;
                self.boot = Some(ImageReader::default());
                Into::Boot
            }
            _ => {
                self.small.push((kind, version, Vec::new()));
                Into::Small
            }
        };
        Ok(())
    }

    fn take(&mut self, content: &[u8]) -> Result<(), SnapshotError> {
        let malformed = |kind| SnapshotError::Malformed { kind, field: PAGES };
        match self.section {
            Into::Nothing => {}
            Into::Small => {
                if let Some((_, _, bytes)) = self.small.last_mut() {
                    bytes.extend_from_slice(content);
                }
            }
            Into::Boot => {
                let boot = self.boot.as_mut().and_then(|boot| boot.push(content));
                boot.ok_or(malformed(kind::BOOT))?;
            }
            Into::Ram => {
                let computer = self.computer.as_mut();
                let filled = computer.and_then(|computer| fill_ram(computer, &mut self.entries, content));
                filled.ok_or(malformed(kind::RAM))?;
            }
        }
        Ok(())
    }
}

impl Build for Builder {
    type Machine = Computer;
    type Error = SnapshotError;

    fn push(&mut self, mut bytes: &[u8]) -> Result<(), SnapshotError> {
        while let Some(item) = self.reader.next(&mut bytes)? {
            match item {
                Item::Begin { kind, version, .. } => self.begin(kind, version)?,
                Item::Content(content) => self.take(content)?,
                Item::End => self.section = Into::Nothing,
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Computer, SnapshotError> {
        self.reader.finish()?;
        let computer = self.computer.ok_or(SnapshotError::Missing { kind: kind::RAM })?;
        if self.entries.is_whole() {
            Ok(*computer)
        } else {
            Err(SnapshotError::Malformed { kind: kind::RAM, field: PAGES })
        }
    }
}

impl Restore for Computer {
    const KIND: &'static str = "riscv-virt";
    type Builder = Builder;

    fn builder(memory: Box<dyn MemorySource>) -> Builder {
        Builder {
            reader: Reader::default(),
            section: Into::Nothing,
            small: Vec::new(),
            boot: None,
            memory: Some(memory),
            entries: Entries::default(),
            computer: None,
        }
    }

    fn parts(&self) -> Parts {
        let disk = |(slot, device): (usize, &DeviceConfig)| match device {
            DeviceConfig::Block { bytes, read_only, .. } => {
                Some(DiskPart { slot: slot as SlotId, bytes: *bytes, read_only: *read_only })
            }
            _ => None,
        };
        Parts {
            harts: self.config.harts,
            memory_bytes: self.config.ram_bytes,
            disks: self.config.devices.iter().enumerate().filter_map(disk).collect(),
        }
    }
}
