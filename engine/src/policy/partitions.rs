//! The entries of a list while it is read, partitioned by ranges of their hashes: one partition per
//! segment of the compiled list.
//!
//! Small lists stay in memory. For large ones, full partitions are written to an unnamed temporary
//! file, so reading needs little memory whatever the length of the list.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::Match;

/// Maximum number of bytes in memory, divided equally among the partitions.
const HELD: usize = 6 << 20;
/// Maximum size of an item.
const LONGEST: usize = HEAD + 4 + 255;

/// An entry as it was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Item<'a> {
    pub hash: u64,
    pub text: &'a [u8],
    pub scope: Match,
    /// Index into the zone's rules.
    pub rule: u32,
    pub line: u32,
    /// Whether something about the entry was repaired.
    pub is_repaired: bool,
    /// Whether its line has other names, too.
    pub shares_line: bool,
}

pub struct Partitions {
    parts: Vec<Part>,
    bits: u32,
    /// Maximum number of bytes of a partition in memory.
    share: usize,
    folder: PathBuf,
    file: Option<File>,
    end: u64,
}

#[derive(Default)]
struct Part {
    held: Vec<u8>,
    /// Offsets and lengths of the data in the file.
    written: Vec<(u64, usize)>,
}

impl Partitions {
    /// Makes `1 << bits` partitions. The temporary file is in `folder`.
    pub fn new(bits: u32, folder: PathBuf) -> Partitions {
        let parts: Vec<Part> = (0..1 << bits).map(|_| Part::default()).collect();
        let share = HELD / parts.len();
        Partitions { parts, bits, share, folder, file: None, end: 0 }
    }

    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    pub fn bits(&self) -> u32 {
        self.bits
    }

    pub fn add(&mut self, item: &Item<'_>) -> io::Result<()> {
        let place = (item.hash >> 1 >> (63 - self.bits)) as usize;
        let part = &mut self.parts[place];
        item.write(&mut part.held);
        if part.held.len() + LONGEST > self.share { self.spill(place) } else { Ok(()) }
    }

    fn spill(&mut self, place: usize) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile_in(&self.folder)?),
        };
        let part = &mut self.parts[place];
        file.write_all_at(&part.held, self.end)?;
        part.written.push((self.end, part.held.len()));
        self.end += part.held.len() as u64;
        // Allocate exactly: a grown vector has up to twice the capacity.
        match part.written.len() {
            1 => part.held = Vec::with_capacity(self.share),
            _ => part.held.clear(),
        }
        Ok(())
    }

    /// All items of a partition in the order of their addition, for `Item::read`.
    pub fn take(&mut self, part: usize) -> io::Result<Vec<u8>> {
        let part = std::mem::take(&mut self.parts[part]);
        let Some(file) = &self.file else { return Ok(part.held) };
        let written: usize = part.written.iter().map(|(_, length)| length).sum();
        let mut bytes = vec![0; written];
        let mut left = &mut bytes[..];
        for (offset, length) in part.written {
            let own;
            (own, left) = left.split_at_mut(length);
            file.read_exact_at(own, offset)?;
        }
        bytes.extend_from_slice(&part.held);
        Ok(bytes)
    }
}

const HEAD: usize = 14;
/// Rules below this fit into the byte with the flags. With this value, four bytes follow.
const FEW_RULES: u32 = 15;

impl<'a> Item<'a> {
    /// Minimum size of an item without its name.
    pub const LEAST: usize = HEAD;

    fn write(&self, out: &mut Vec<u8>) {
        let rule = self.rule.min(FEW_RULES);
        let flags = self.scope as u8
            | u8::from(self.is_repaired) << 2
            | u8::from(self.shares_line) << 3
            | (rule as u8) << 4;
        let mut header = [0; HEAD];
        header[..8].copy_from_slice(&self.hash.to_le_bytes());
        header[8..12].copy_from_slice(&self.line.to_le_bytes());
        header[12] = flags;
        header[13] = self.text.len() as u8;
        out.extend_from_slice(&header);
        if rule == FEW_RULES {
            out.extend_from_slice(&self.rule.to_le_bytes());
        }
        out.extend_from_slice(self.text);
    }

    /// The first item, and its size.
    pub fn read(bytes: &'a [u8]) -> Option<(Item<'a>, usize)> {
        let (header, mut left) = bytes.split_first_chunk::<HEAD>()?;
        let flags = header[12];
        let mut rule = u32::from(flags >> 4);
        if rule == FEW_RULES {
            let written;
            (written, left) = left.split_first_chunk()?;
            rule = u32::from_le_bytes(*written);
        }
        let text = left.get(..usize::from(header[13]))?;
        let item = Item {
            hash: u64::from_le_bytes(*header.first_chunk()?),
            text,
            scope: Match::ALL.get(usize::from(flags & 3))?.0,
            rule,
            line: u32::from_le_bytes(*header[8..].first_chunk()?),
            is_repaired: flags & 4 != 0,
            shares_line: flags & 8 != 0,
        };
        Some((item, bytes.len() - left.len() + text.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(n: u64, text: &str) -> Item<'_> {
        Item {
            hash: n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            text: text.as_bytes(),
            scope: Match::ALL[n as usize % 3].0,
            rule: (n % 40) as u32,
            line: n as u32,
            is_repaired: n.is_multiple_of(5),
            shares_line: n.is_multiple_of(7),
        }
    }

    #[test]
    fn what_is_added_comes_back_by_the_range_of_its_hash_and_in_order() {
        let mut partitions = Partitions::new(4, std::env::temp_dir());
        let text = |n: u64| format!("name{n}.{}", "x".repeat(n as usize % 200));
        const ITEMS: u64 = 300_000; // 36 MB: some are written to the file
        for n in 0..ITEMS {
            partitions.add(&item(n, &text(n))).unwrap();
        }
        assert!(partitions.file.is_some());
        let mut seen = 0;
        for part in 0..partitions.parts() {
            let bytes = partitions.take(part).unwrap();
            let (mut at, mut last) = (0, None);
            while let Some((read, length)) = Item::read(&bytes[at..]) {
                let n = u64::from(read.line);
                assert_eq!(read, item(n, &text(n)));
                assert!(last < Some(n) && (read.hash >> 60) as usize == part);
                (at, last, seen) = (at + length, Some(n), seen + 1);
            }
            assert_eq!(at, bytes.len());
        }
        assert_eq!(seen, ITEMS);
    }
}
