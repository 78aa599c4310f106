//! A frozen image of the computer, and its snapshot as a stream: the same bytes as [`Computer::snapshot`] at that
//! instant, while the machine runs on.
//!
//! State and devices are copied when the image is frozen, for they are small; RAM is kept by copy before write
//! (`ram::frozen`); the boot image never changes. A section's length and checksum stand before its content, so pages are
//! looked at twice: once to measure them, once to give them.

use super::{AS_BOOTED, HartV1, kind, version_of};
use crate::board::Board;
use crate::boot_image::BootImage;
use crate::computer::Computer;
use crate::ram::PAGE;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use pollux_codec::crc::Crc32c;
use pollux_codec::snapshot::{HEADER_BYTES, SECTION_BYTES, header, section_header};
use pollux_machine::{DeviceState, Freeze, Inspect, Machine};
use pollux_vocab::{GuestAddr, Icount};

/// A section's length and checksum, as far as it has been looked at.
#[derive(Clone, Debug, Default)]
struct Sum {
    len: u64,
    sum: Crc32c,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        self.sum.update(bytes);
    }

    fn header(&self, kind: u16) -> [u8; SECTION_BYTES] {
        section_header(kind, version_of(kind), self.len, self.sum.clone().finish())
    }
}

/// How far the stream is. Numbers are of the next page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    MeasureBoot(usize),
    MeasureRam(u32),
    Head,
    Boot(usize),
    Ram(u32),
}

/// What was frozen, but for memory.
#[derive(Debug)]
pub(crate) struct Image {
    icount: Icount,
    /// All sections but boot image and RAM.
    sections: Vec<(u16, u16, Vec<u8>)>,
    harts: Vec<HartV1>,
    /// The boot image's places, and the section's sum.
    boot: Option<(Vec<u8>, Sum)>,
    ram: Sum,
    stage: Stage,
}

/// What a snapshot says of a page of RAM; `None` if that is nothing, for it is all zeros.
pub(super) fn entry_of<'a>(
    boot: Option<&BootImage>,
    page: u32,
    content: &'a [u8; PAGE],
) -> Option<(u32, &'a [u8])> {
    if boot.and_then(|image| image.page(page)) == Some(content) {
        Some((page | AS_BOOTED, &[]))
    } else {
        (*content != [0; PAGE]).then_some((page, content))
    }
}

impl Image {
    fn of(computer: &Computer) -> Self {
        let places = computer.image.as_ref().map(BootImage::places);
        let boot = places.map(|places| {
            let mut sum = Sum::default();
            sum.add(&places);
            (places, sum)
        });
        Self {
            icount: computer.icount(),
            sections: computer.sections(),
            harts: computer.harts.iter().map(HartV1::of).collect(),
            boot,
            ram: Sum::default(),
            stage: Stage::MeasureBoot(0),
        }
    }

    /// Bytes of the whole snapshot, once they are known.
    fn bytes(&self) -> Option<u64> {
        if matches!(self.stage, Stage::MeasureBoot(_) | Stage::MeasureRam(_)) {
            return None;
        }
        let small = self.sections.iter().map(|section| section.2.len() as u64);
        let large = self.boot.iter().map(|(_, sum)| sum.len).chain([self.ram.len]);
        Some(small.chain(large).fold(HEADER_BYTES as u64, |all, len| all + SECTION_BYTES as u64 + len))
    }

    fn measure(&mut self, computer: &Computer, pages_max: usize) {
        for _ in 0..pages_max {
            match self.stage {
                Stage::MeasureBoot(index) => {
                    let entry = computer.image.as_ref().and_then(|image| image.entry(index));
                    self.stage = match (entry, &mut self.boot) {
                        (Some((page, content)), Some((_, sum))) => {
                            sum.add(&page.to_le_bytes());
                            sum.add(content);
                            Stage::MeasureBoot(index + 1)
                        }
                        _ => Stage::MeasureRam(0),
                    };
                }
                Stage::MeasureRam(page) if (page as usize) < computer.ram.pages() => {
                    if let Some((number, content)) = computer.frozen_entry(page) {
                        self.ram.add(&number.to_le_bytes());
                        self.ram.add(content);
                    }
                    self.stage = Stage::MeasureRam(page + 1);
                }
                Stage::MeasureRam(_) => self.stage = Stage::Head,
                Stage::Head | Stage::Boot(_) | Stage::Ram(_) => return,
            }
        }
    }

    fn write_head(&mut self, out: &mut Vec<u8>) {
        let count = self.sections.len() as u32 + u32::from(self.boot.is_some()) + 1;
        out.extend_from_slice(&header(self.bytes().unwrap_or(0), count));
        for (kind, _, content) in &self.sections {
            let mut sum = Sum::default();
            sum.add(content);
            out.extend_from_slice(&sum.header(*kind));
            out.extend_from_slice(content);
        }
        match &self.boot {
            Some((places, sum)) => {
                out.extend_from_slice(&sum.header(kind::BOOT));
                out.extend_from_slice(places);
                self.stage = Stage::Boot(0);
            }
            None => self.begin_ram(out),
        }
    }

    fn begin_ram(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.ram.header(kind::RAM));
        self.stage = Stage::Ram(0);
    }

    /// Whether a page of RAM can still be read.
    fn has_page(&self, page: u64) -> bool {
        !matches!(self.stage, Stage::Ram(next) if page < u64::from(next))
    }
}

fn put(out: &mut Vec<u8>, (number, content): (u32, &[u8])) {
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(content);
}

impl Computer {
    /// What a snapshot of the frozen image says of a page.
    fn frozen_entry(&self, page: u32) -> Option<(u32, &[u8])> {
        entry_of(self.image.as_ref(), page, self.ram.frozen_page(page)?)
    }

    fn read_image(&mut self, image: &mut Image, pages_max: usize, out: &mut Vec<u8>) -> bool {
        image.measure(self, usize::MAX);
        let begun = out.len();
        match image.stage {
            Stage::Boot(index) => {
                let entries = (index..).map_while(|index| self.image.as_ref()?.entry(index));
                let given = entries.take(pages_max.max(1)).map(|entry| put(out, entry)).count();
                if given == 0 {
                    image.begin_ram(out);
                } else {
                    image.stage = Stage::Boot(index + given);
                }
            }
            Stage::Ram(first) => {
                let mut page = first;
                let mut left = pages_max.max(1);
                while (page as usize) < self.ram.pages() && left > 0 {
                    left -= usize::from(self.ram.frozen_page(page).is_some());
                    if let Some(entry) = self.frozen_entry(page) {
                        put(out, entry);
                    }
                    self.ram.release_frozen(page);
                    page += 1;
                }
                image.stage = Stage::Ram(page);
                // A portion of zeros says nothing, and is not the last one.
                return page > first;
            }
            Stage::MeasureBoot(_) | Stage::MeasureRam(_) | Stage::Head => image.write_head(out),
        }
        out.len() > begun
    }
}

impl Freeze for Computer {
    fn freeze(&mut self) {
        self.thaw();
        self.frozen = Some(Box::new(Image::of(self)));
        self.ram.freeze();
    }

    fn measure_frozen(&mut self, pages_max: usize) -> Option<u64> {
        let Some(mut image) = self.frozen.take() else { return Some(0) };
        image.measure(self, pages_max);
        let bytes = image.bytes();
        self.frozen = Some(image);
        bytes
    }

    fn read_frozen(&mut self, pages_max: usize, out: &mut Vec<u8>) -> bool {
        let Some(mut image) = self.frozen.take() else { return false };
        let is_more = self.read_image(&mut image, pages_max, out);
        self.frozen = Some(image);
        is_more
    }

    fn thaw(&mut self) {
        self.frozen = None;
        let kept = self.ram.thaw();
        self.retire(kept);
    }
}

impl Inspect for Computer {
    fn frozen_at(&self) -> Option<Icount> {
        self.frozen.as_ref().map(|image| image.icount)
    }

    fn inspect_memory(&self, addr: GuestAddr, to: &mut [u8]) -> bool {
        let Some(image) = &self.frozen else { return false };
        let Some(offset) = self.ram.offset(addr.0, to.len() as u64) else { return false };
        let (mut at, mut rest) = (offset, to);
        while !rest.is_empty() {
            let (page, first) = (at / PAGE, at % PAGE);
            let (now, later) = rest.split_at_mut(rest.len().min(PAGE - first));
            if !image.has_page(page as u64) {
                return false;
            }
            match self.ram.frozen_page(page as u32) {
                Some(content) => now.copy_from_slice(&content[first..first + now.len()]),
                None => now.fill(0),
            }
            at += now.len();
            rest = later;
        }
        true
    }

    fn inspect_harts(&self) -> Vec<Vec<(String, u64)>> {
        let harts = self.frozen.iter().flat_map(|image| &image.harts);
        harts.map(HartV1::describe).collect()
    }

    fn inspect_devices(&self) -> Vec<DeviceState> {
        let sections = self.frozen.iter().flat_map(|image| &image.sections);
        let state = |(kind, version, bytes): &(u16, u16, Vec<u8>)| {
            let name = Board::section_name(*kind)?;
            Some(DeviceState { name, version: *version, bytes: bytes.clone() })
        };
        sections.filter_map(state).collect()
    }
}
