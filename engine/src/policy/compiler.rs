//! Compiles entries to a list, and verifies it.
//!
//! Entries are partitioned by ranges of their hashes. For each range, this thread sorts them,
//! merges entries for the same name, and makes the segment. A second thread follows one range
//! behind: it verifies every entry with the lookup that answers queries, compares the list with the
//! previous one, and writes it. The memory is that of a few ranges, whatever the length of the
//! list.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use super::difference::Difference;
use super::names::{Footer, MAX_SEGMENTS_BITS, Names, SEED};
use super::partitions::{Item, Partitions};
use super::ranges::Ranges;
use super::segment::{self, Record, SegmentHeader};
use super::sorter::{Merging, Sorted, Sorter};
use super::symbols::{Encoder, Symbols};
use super::writer::{Batch, Writer};
pub use super::writer::{CompileError, Destination};
use super::zone_data::ZoneData;
use super::{CanonicalRule, Match, Scope};
use crate::name::{Name, Walk};

/// Bytes of names per segment.
const SEGMENT: u64 = 1 << 20;
/// Maximum number of names in the sample that determines the symbols.
const SAMPLE: usize = 4096;

/// A compiled list, and the counts of its lines.
pub struct Compiled {
    pub names: Names,
    /// Lines with a new entry. Includes repaired lines.
    pub accepted: u64,
    pub repaired: u64,
    pub duplicate: u64,
    /// The first duplicate lines, and the lines that they repeat.
    pub repeats: Vec<(u32, u32)>,
    /// Records of a policy zone that their owner cannot have beside others. The first lines, and the lines
    /// of these others.
    pub conflicts: u64,
    pub conflicting: Vec<(u32, u32)>,
    pub difference: Option<Difference>,
    /// Names that were chosen for their hashes. They are not in `names`.
    pub aside: Aside,
    /// Of a zone of orders: the digests of its names, without those that were set aside.
    pub ranges: Ranges,
}

/// Names with their hashes and scopes.
pub type Aside = Vec<(u64, Box<[u8]>, Scope)>;

/// The origin of an entry.
#[derive(Clone, Copy, Default)]
pub struct Origin {
    pub line: u32,
    /// Whether something about the line was repaired.
    pub is_repaired: bool,
    /// Whether the line has other names, too.
    pub shares_line: bool,
}

pub struct Compiler<'a> {
    partitions: Partitions,
    walk: Walk,
    name_labels: usize,
    /// The fewest and the most labels of a name.
    labels: (usize, usize),
    /// Of a zone of orders.
    rules: Option<&'a [CanonicalRule]>,
    /// Of a policy zone with records.
    zone: Option<ZoneData>,
}

impl<'a> Compiler<'a> {
    /// For a list of about `expected` bytes. Temporary data is stored in an unnamed file in
    /// `folder`.
    pub fn new(expected: u64, folder: PathBuf) -> Compiler<'a> {
        let bits = (expected / SEGMENT + 1).next_power_of_two().trailing_zeros().min(MAX_SEGMENTS_BITS);
        Compiler {
            partitions: Partitions::new(bits, folder),
            walk: Walk::new(&Name::root(), SEED),
            name_labels: 0,
            labels: (usize::MAX, 0),
            rules: None,
            zone: None,
        }
    }

    /// For a zone of orders with these rules. It sets names aside that were chosen for their hashes,
    /// instead of rejecting the list.
    pub fn of_orders(expected: u64, folder: PathBuf, rules: &'a [CanonicalRule]) -> Compiler<'a> {
        Compiler { rules: Some(rules), ..Compiler::new(expected, folder) }
    }

    /// For a policy zone, whose entries have the answers that its records give.
    pub fn of_records(expected: u64, folder: PathBuf) -> Compiler<'a> {
        Compiler { zone: Some(ZoneData::default()), ..Compiler::new(expected, folder) }
    }

    /// The answers and triggers of a policy zone so far.
    pub fn zone(&mut self) -> &mut ZoneData {
        self.zone.get_or_insert_default()
    }

    /// Takes the name of the next entry. Returns the hashes of its suffixes.
    pub fn walk(&mut self, name: &Name) -> &Walk {
        self.walk.take(name, SEED);
        self.name_labels = name.labels();
        &self.walk
    }

    /// The hashes of the current name.
    pub fn walked(&self) -> &Walk {
        &self.walk
    }

    /// Adds an entry for the current name. `rule` is an index into the zone's rules.
    pub fn add(&mut self, scope: Match, rule: u32, origin: Origin) -> io::Result<()> {
        self.labels = (self.labels.0.min(self.name_labels), self.labels.1.max(self.name_labels));
        self.partitions.add(&Item {
            hash: self.walk.hash(0),
            text: self.walk.text().as_bytes(),
            scope,
            rule,
            line: origin.line,
            is_repaired: origin.is_repaired,
            shares_line: origin.shares_line,
        })
    }

    /// Compiles. `is_exemption` is a flag for each rule; `before` is the previous list, for the
    /// comparison.
    pub fn finish(
        mut self,
        is_exemption: &[bool],
        into: Destination<'_>,
        before: Option<Arc<Names>>,
    ) -> Result<Compiled, CompileError> {
        let bits = self.partitions.bits();
        let mut zone = self.zone.take();
        let mut sorter = Sorter::new(match &mut zone {
            Some(zone) => Merging::Records(std::mem::take(&mut zone.given)),
            None => Merging::Precedence(is_exemption),
        });
        let first = sorter.sort(self.partitions.take(0)?);
        let encoder = Encoder::new(Symbols::of(first.texts().step_by(first.texts().count() / SAMPLE + 1)));
        let symbols = encoder.symbols().clone();
        let (send, receive) = sync_channel(1);
        let (written, made) = std::thread::scope(|threads| {
            let writer =
                threads.spawn(|| Writer::new(&symbols, bits, &into, before, self.rules)?.run(receive));
            let sets_aside = self.rules.is_some();
            let mut maker = Maker { bits, encoder: &encoder, sets_aside, aside: Vec::new() };
            let made = maker.make(first, &mut self.partitions, &mut sorter, send).map(|()| maker.aside);
            (writer.join().expect("a writer does not panic"), made)
        });
        // The thread that failed first has the reason; the other one only sees its channel closed.
        let (written, aside) = match (written, made) {
            (Err(error), _) | (Ok(_), Err(error)) => return Err(error),
            (Ok(written), Ok(aside)) => (written, aside),
        };
        let (fewest, most) = self.labels;
        let zone = zone.map(|zone| ZoneData { given: sorter.take_given(), ..zone });
        let footer = Footer {
            bits,
            digest: [0; 32],
            fewest_labels: fewest.min(255) as u8,
            most_labels: most as u8,
            symbols: symbols.clone(),
            scopes: sorter.scopes,
            headers: written.headers.clone(),
            zone: None,
        };
        let (accepted, repaired, duplicate) = sorter.lines.counted();
        let repeats = sorter.lines.repeats.into_sorted();
        let (conflicts, conflicting) = (sorter.lines.conflicts.count, sorter.lines.conflicts.into_sorted());
        let (names, difference, ranges) = written.finish(footer, zone)?;
        Ok(Compiled {
            names,
            accepted,
            repaired,
            duplicate,
            repeats,
            conflicts,
            conflicting,
            difference,
            aside,
            ranges,
        })
    }
}

struct Maker<'a> {
    bits: u32,
    encoder: &'a Encoder,
    sets_aside: bool,
    aside: Aside,
}

impl Maker<'_> {
    /// Makes all segments for the writer.
    fn make(
        &mut self,
        first: Sorted,
        partitions: &mut Partitions,
        sorter: &mut Sorter<'_>,
        send: SyncSender<Batch>,
    ) -> Result<(), CompileError> {
        let mut next = Some(first);
        let mut known = 0;
        for part in 0..partitions.parts() {
            let mut sorted = match next.take() {
                Some(first) => first,
                None => sorter.sort(partitions.take(part)?),
            };
            let (header, segment) = self.segment(&mut sorted, &sorter.scopes)?;
            let scopes = sorter.facts_since(known);
            known += scopes.len();
            if send.send(Batch { sorted, header, segment, scopes }).is_err() {
                return Ok(()); // The writer has failed and reports why.
            }
        }
        Ok(())
    }

    fn segment(
        &mut self,
        sorted: &mut Sorted,
        scopes: &[Scope],
    ) -> Result<(SegmentHeader, Vec<u8>), CompileError> {
        loop {
            let records: Vec<Record<'_>> = sorted.records().collect();
            if let Ok(made) = segment::make(&records, self.bits, self.encoder) {
                return Ok(made);
            }
            if !self.sets_aside {
                return Err(CompileError::HashFlood);
            }
            let is_crowd = segment::crowd(&records, self.bits);
            let crowd = records.iter().zip(&is_crowd).filter(|(_, is_crowd)| **is_crowd);
            self.aside.extend(crowd.map(|(one, _)| (one.hash, one.text.into(), scopes[one.scope as usize])));
            drop(records);
            sorted.retain(is_crowd.into_iter().map(|is_crowd| !is_crowd));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::policy::names::Unusable;
    use crate::policy::writer::file_name;

    fn listed(number: u32) -> String {
        format!("host{}.site{number}.example", number % 7)
    }

    fn compile(lines: &[String], into: Destination<'_>, before: Option<Arc<Names>>) -> Compiled {
        let bytes = lines.iter().map(String::len).sum::<usize>() as u64;
        let mut compiler = Compiler::new(bytes, std::env::temp_dir());
        for (number, line) in lines.iter().enumerate() {
            let (scope, text) = line.split_once(' ').unwrap_or(("subtree", line));
            let name = Name::from_text(text.as_bytes()).unwrap();
            let origin = Origin { line: number as u32 + 1, ..Origin::default() };
            compiler.walk(&name);
            compiler.add(Match::from_name(scope).unwrap(), 0, origin).unwrap();
        }
        compiler.finish(&[false], into, before).unwrap()
    }

    fn finds(names: &Names, text: &str) -> bool {
        let name = Name::from_text(text.as_bytes()).unwrap();
        let walk = Walk::new(&name, SEED);
        names.find(walk.hash(0), walk.text(), 0).is_some()
    }

    #[test]
    fn a_large_list_finds_each_of_its_names_and_no_other_in_few_bytes() {
        const NAMES: u32 = 150_000;
        let lines: Vec<String> = (0..NAMES).map(listed).collect();
        let made = compile(&lines, Destination::Memory, None);
        let names = made.names;
        assert_eq!((names.entries(), made.accepted, made.duplicate), (NAMES as usize, NAMES.into(), 0));
        assert!(names.segments() > 2, "several segments");
        assert!((0..NAMES).all(|number| finds(&names, &listed(number))));
        assert!(!(NAMES..2 * NAMES).any(|number| finds(&names, &listed(number))));
        assert!(names.bytes().len() < 16 * NAMES as usize);
        let mut ranks = Vec::new();
        names.each(
            |rank, _| {
                ranks.push(rank);
                false
            },
            |_, _, _| {},
        );
        assert!(ranks.into_iter().eq(0..u64::from(NAMES)));
    }

    #[test]
    fn the_order_of_lines_does_not_change_the_file_and_one_name_does() {
        let mut lines: Vec<String> = (0..5000).map(listed).collect();
        let one = *compile(&lines, Destination::Memory, None).names.sha256();
        lines.reverse();
        assert_eq!(one, *compile(&lines, Destination::Memory, None).names.sha256());
        lines[17] = "other.example".to_string();
        assert_ne!(one, *compile(&lines, Destination::Memory, None).names.sha256());
    }

    #[test]
    fn duplicate_entries_are_counted_with_their_lines() {
        let lines = ["a.example", "exact b.example", "a.example", "below b.example", "subtree b.example"];
        let made = compile(&lines.map(String::from), Destination::Memory, None);
        assert_eq!((made.accepted, made.duplicate, made.repeats), (3, 2, vec![(3, 1), (5, 2)]));
        assert_eq!(made.names.scopes().len(), 1, "a name and what is below it are a subtree");
    }

    #[test]
    fn the_difference_has_each_added_removed_or_changed_name() {
        let first: Vec<String> = (0..3000).map(listed).collect();
        let mut second: Vec<String> = (10..3005).map(listed).collect();
        second[7] = format!("exact {}", second[7]);
        let before = Arc::new(compile(&first, Destination::Memory, None).names);
        let made = compile(&second, Destination::Memory, Some(Arc::clone(&before)));
        let difference = made.difference.unwrap();
        assert_eq!((difference.added, difference.removed, difference.changed), (5, 10, 1));
        let text = String::from_utf8(difference.lines.unwrap()).unwrap();
        let mut lines: Vec<String> = text.lines().map(String::from).collect();
        lines.sort();
        let mut expected: Vec<String> = (0..10).map(|n| format!("- subtree {}", listed(n))).collect();
        expected.extend((3000..3005).map(|n| format!("+ subtree {}", listed(n))));
        expected.extend([format!("- subtree {}", listed(17)), format!("+ exact {}", listed(17))]);
        expected.sort();
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_file_is_opened_by_its_sha256_and_rejected_after_any_change() {
        let folder = tempfile::tempdir().unwrap();
        let lines: Vec<String> = (0..2000).map(listed).collect();
        let made = compile(&lines, Destination::Folder(folder.path()), None);
        let sha256 = *made.names.sha256();
        let path = folder.path().join(file_name(&sha256));
        let names = Names::open(&path, &sha256).unwrap();
        assert!(finds(&names, &listed(1)) && !finds(&names, &listed(2000)));
        drop((names, made));
        let good = std::fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            matches!(Names::open(&path, &sha256), Err(Unusable::Corrupt))
        };
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        assert!(refused(&flipped) && refused(&good[..good.len() - 1]) && refused(b"x"));
        // Complete, but not a compiled list.
        for foreign in [&b""[..], b"dnsblock", &good[1..], &good[..good.len() - 1]] {
            assert!(matches!(Names::in_memory(foreign.to_vec()), Err(Unusable::Foreign)));
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
    }

    /// An attacker who can write to the folder can construct plausible files.
    #[test]
    fn corrupt_files_are_rejected_or_harmless() {
        let lines: Vec<String> = (0..300).map(listed).collect();
        let good = compile(&lines, Destination::Memory, None).names.bytes().to_vec();
        let mut random = 7u64;
        for _ in 0..3000 {
            let mut bytes = good.clone();
            for _ in 0..4 {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                // Half of the changes are near the end, in the footer.
                let from = if random & 1 == 0 { 0 } else { bytes.len() - 100 };
                let place = from + (random >> 33) as usize % (bytes.len() - from);
                bytes[place] = (random >> 13) as u8;
            }
            if let Ok(names) = Names::in_memory(bytes) {
                let _ = (0..20).filter(|&number| finds(&names, &listed(number))).count();
                names.each(|_, _| true, |_, _, _| {});
            }
        }
    }

    #[test]
    fn a_missing_folder_is_an_error() {
        let mut compiler = Compiler::new(1, std::env::temp_dir());
        let name = Name::from_text(b"a.example").unwrap();
        compiler.walk(&name);
        compiler.add(Match::Exact, 0, Origin::default()).unwrap();
        let gone = Path::new("/nonexistent/folder");
        assert!(matches!(
            compiler.finish(&[false], Destination::Folder(gone), None),
            Err(CompileError::Io(_))
        ));
    }
}
