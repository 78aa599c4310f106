//! Pages in a section of a snapshot, as their bytes come: a number (32 bits, little-endian), then its content.

use alloc::vec::Vec;

/// Cuts a section into its entries. Holds the beginning of one at most.
#[derive(Default)]
pub(crate) struct Entries {
    begun: Vec<u8>,
}

impl Entries {
    /// Gives all entries that end in `bytes` to `take`; how long an entry's content is depends on its number. `None` if
    /// `take` says so.
    pub(crate) fn push(
        &mut self,
        mut bytes: &[u8],
        len_of: impl Fn(u32) -> usize,
        mut take: impl FnMut(u32, &[u8]) -> Option<()>,
    ) -> Option<()> {
        while !bytes.is_empty() {
            if self.begun.is_empty()
                && let Some((number, behind)) = bytes.split_first_chunk()
                && let number = u32::from_le_bytes(*number)
                && let Some((content, rest)) = behind.split_at_checked(len_of(number))
            {
                take(number, content)?;
                bytes = rest;
                continue;
            }
            let number = |begun: &[u8]| begun.first_chunk().map(|number| u32::from_le_bytes(*number));
            let wanted = 4 + number(&self.begun).map_or(0, &len_of);
            let missing = wanted.saturating_sub(self.begun.len()).min(bytes.len());
            let (head, rest) = bytes.split_at(missing);
            self.begun.extend_from_slice(head);
            bytes = rest;
            if let Some(number) = number(&self.begun)
                && self.begun.len() == 4 + len_of(number)
            {
                take(number, &self.begun[4..])?;
                self.begun.clear();
            }
        }
        Some(())
    }

    /// Whether no entry has begun and not ended.
    pub(crate) fn is_whole(&self) -> bool {
        self.begun.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_out_whole_in_whatever_pieces_they_come() {
        let len_of = |number: u32| number as usize % 10;
        let all: Vec<u8> = [3u32, 10, 7, 20, 9]
            .iter()
            .flat_map(|&n| {
                n.to_le_bytes().into_iter().chain((0..len_of(n)).map(move |i| (n as usize + i) as u8))
            })
            .collect();
        let read = |piece: usize| {
            let (mut entries, mut got) = (Entries::default(), Vec::new());
            for bytes in all.chunks(piece) {
                let take = |number: u32, content: &[u8]| {
                    got.push((number, content.to_vec()));
                    Some(())
                };
                entries.push(bytes, len_of, take).expect("nobody minds");
            }
            assert!(entries.is_whole());
            got
        };
        assert_eq!(read(all.len()).iter().map(|entry| entry.0).collect::<Vec<_>>(), [3, 10, 7, 20, 9]);
        for piece in 1..all.len() {
            assert_eq!(read(piece), read(all.len()), "in pieces of {piece}");
        }
        let mut entries = Entries::default();
        entries.push(&all[..5], len_of, |_, _| Some(())).expect("nobody minds");
        assert!(!entries.is_whole());
    }
}
