//! Sorts the entries of one partition, merges those for the same name, and counts their lines.
//!
//! In a list, one of several entries for a name takes precedence. In a policy zone, the records of a name
//! are one answer.

use std::collections::{BinaryHeap, HashMap};

use super::difference::ScopeFacts;
use super::given::{Given, GivenTable};
use super::partitions::Item;
use super::segment::Record;
use super::{Match, Scope};

/// Maximum number of reported lines of a kind.
const MAX_DESCRIBED: usize = 100;

/// The entries of one range of hashes, each name once.
pub struct Sorted {
    texts: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    hash: u64,
    /// The position of its name.
    at: u32,
    length: u8,
    scope: u32,
}

impl Sorted {
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> + Clone {
        self.entries.iter().map(|entry| Record {
            hash: entry.hash,
            text: &self.texts[entry.at as usize..entry.at as usize + usize::from(entry.length)],
            scope: entry.scope,
        })
    }

    /// Removes the records that are not to be kept. The flags are in the order of records.
    pub fn retain(&mut self, keep: impl IntoIterator<Item = bool>) {
        let mut keep = keep.into_iter();
        self.entries.retain(|_| keep.next().unwrap_or(true));
    }

    pub fn texts(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.records().map(|record| record.text)
    }
}

/// The treatment of several entries for one name.
pub enum Merging<'a> {
    /// The one with precedence. A flag for each rule: whether it is an exemption.
    Precedence(&'a [bool]),
    /// The answer of all their records.
    Records(GivenTable),
}

pub struct Sorter<'a> {
    pub merging: Merging<'a>,
    pub scopes: Vec<Scope>,
    places: HashMap<Scope, u32>,
    pub lines: Lines,
}

impl<'a> Sorter<'a> {
    pub fn new(merging: Merging<'a>) -> Sorter<'a> {
        Sorter { merging, scopes: Vec::new(), places: HashMap::new(), lines: Lines::default() }
    }

    /// The answers of a policy zone that its scopes have, in the end; none of a list.
    pub fn take_given(&mut self) -> GivenTable {
        match std::mem::replace(&mut self.merging, Merging::Precedence(&[])) {
            Merging::Precedence(_) => GivenTable::default(),
            Merging::Records(given) => given.used_by(&mut self.scopes),
        }
    }

    /// The scopes from this one on, with what a comparison and the digest need to know of them.
    pub fn facts_since(&self, place: usize) -> Vec<ScopeFacts> {
        let facts = |scope: &Scope| match &self.merging {
            Merging::Precedence(_) => ScopeFacts::of_list(*scope),
            Merging::Records(given) => ScopeFacts::of_zone(*scope, given),
        };
        self.scopes[place..].iter().map(facts).collect()
    }

    pub fn sort(&mut self, bytes: Vec<u8>) -> Sorted {
        let mut items: Vec<(u64, u32)> = Vec::with_capacity(bytes.len() / 32);
        let mut at = 0;
        while let Some((item, length)) = Item::read(&bytes[at..]) {
            items.push((item.hash, at as u32));
            at += length;
        }
        let item = |at: u32| Item::read(&bytes[at as usize..]).expect("it was read before").0;
        items.sort_unstable();
        // Different names with the same hash practically only occur if somebody constructs them.
        for same in items.chunk_by_mut(|a, b| a.0 == b.0).filter(|same| same.len() > 1) {
            same.sort_unstable_by(|a, b| item(a.1).text.cmp(item(b.1).text).then(a.1.cmp(&b.1)));
        }
        let mut entries = Vec::with_capacity(items.len());
        // The names are read more than once: store them in their order.
        let mut texts = Vec::with_capacity(bytes.len() - items.len() * Item::LEAST);
        let is_same = |a: &(u64, u32), b: &(u64, u32)| a.0 == b.0 && item(a.1).text == item(b.1).text;
        for same in items.chunk_by(is_same) {
            let first = item(same[0].1);
            let scope = self.merge(same.iter().map(|&(_, at)| item(at)));
            let length = first.text.len() as u8;
            entries.push(Entry { hash: first.hash, at: texts.len() as u32, length, scope });
            texts.extend_from_slice(first.text);
        }
        Sorted { texts, entries }
    }

    /// Merges all entries for one name, and counts their lines.
    fn merge<'b>(&mut self, items: impl Iterator<Item = Item<'b>>) -> u32 {
        let scope = match &mut self.merging {
            Merging::Precedence(is_exemption) => merge_entries(items, is_exemption, &mut self.lines),
            Merging::Records(given) => merge_records(items, given, &mut self.lines),
        };
        self.place(scope.plain())
    }

    fn place(&mut self, scope: Scope) -> u32 {
        if self.scopes.last() == Some(&scope) {
            return self.scopes.len() as u32 - 1;
        }
        let next = self.scopes.len() as u32;
        let place = *self.places.entry(scope).or_insert(next);
        if place == next {
            self.scopes.push(scope);
        }
        place
    }
}

fn merge_entries<'a>(
    items: impl Iterator<Item = Item<'a>>,
    is_exemption: &[bool],
    lines: &mut Lines,
) -> Scope {
    let mut scope = Scope::default();
    let mut first = None;
    for item in items {
        let merged = scope.with(item.scope, item.rule, is_exemption);
        lines.note(&item, merged != scope, *first.get_or_insert(item.line));
        scope = merged;
    }
    scope
}

/// The answer of all records of a name, and that of its wildcard.
fn merge_records<'a>(
    items: impl Iterator<Item = Item<'a>>,
    given: &mut GivenTable,
    lines: &mut Lines,
) -> Scope {
    let (mut at, mut under) = (Joined::default(), Joined::default());
    for item in items {
        let side = if item.scope == Match::Below { &mut under } else { &mut at };
        match side.add(&item, given) {
            Some(is_new) => lines.note(&item, is_new, side.first),
            None => lines.conflicts.note(item.line, side.first),
        }
    }
    Scope {
        at: at.place(given).map(|rule| (Match::Exact, rule)),
        under: under.place(given).map(|rule| (Match::Below, rule)),
    }
}

/// The records of one owner so far.
#[derive(Default)]
struct Joined {
    /// The answer of its first record.
    rule: Option<u32>,
    /// The answer of several. It gets a number when it is complete.
    several: Option<Given>,
    /// The line of its first record.
    first: u32,
}

impl Joined {
    /// Whether the record is new; `None` if it cannot be beside the others.
    fn add(&mut self, item: &Item<'_>, given: &GivenTable) -> Option<bool> {
        let Some(rule) = self.rule else {
            (self.rule, self.first) = (Some(item.rule), item.line);
            return Some(true);
        };
        if self.several.is_none() && rule == item.rule {
            return Some(false);
        }
        let other = &given.all()[item.rule as usize];
        let held = self.several.as_ref().unwrap_or(&given.all()[rule as usize]);
        match held.with(other) {
            Some(joined) => {
                let is_new = joined != *held;
                self.several = Some(joined);
                Some(is_new)
            }
            None => {
                if other.is_passthru() {
                    // Nothing is enforced beyond what was ordered.
                    (self.rule, self.several) = (Some(item.rule), None);
                }
                None
            }
        }
    }

    fn place(self, given: &mut GivenTable) -> Option<u32> {
        self.several.map(|several| given.place(several)).or(self.rule)
    }
}

impl Scope {
    /// Adds an entry. If entries for a name conflict, `exact` beats `subtree` and `below`. Then an
    /// exemption beats an answer, so that no more is enforced than was ordered. Then the earlier
    /// entry wins.
    pub fn with(self, scope: Match, rule: u32, is_exemption: &[bool]) -> Scope {
        let rank = |(scope, rule): (Match, u32)| (scope == Match::Exact, is_exemption[rule as usize]);
        let better = |held: Option<(Match, u32)>| match held {
            Some(held) if rank(held) >= rank((scope, rule)) => Some(held),
            _ => Some((scope, rule)),
        };
        Scope {
            at: if scope == Match::Below { self.at } else { better(self.at) },
            under: if scope == Match::Exact { self.under } else { better(self.under) },
        }
    }

    /// Entries that make this scope if they are added in turn.
    pub fn entries(self) -> impl Iterator<Item = (Match, u32)> {
        let below = self.under.filter(|(scope, _)| *scope == Match::Below);
        let rest = self.under.filter(|_| below.is_none() && self.under != self.at);
        below.into_iter().chain(self.at).chain(rest)
    }

    /// The canonical form: the same rule for a name and the names below is a subtree.
    pub fn plain(self) -> Scope {
        match (self.at, self.under) {
            (Some((_, at)), Some((_, under))) if at == under => {
                let subtree = Some((Match::Subtree, at));
                Scope { at: subtree, under: subtree }
            }
            _ => self,
        }
    }
}

/// The counts of lines.
#[derive(Default)]
pub struct Lines {
    accepted: u64,
    repaired: u64,
    /// Duplicate lines, with the lines that they repeat.
    pub repeats: FirstLines,
    /// Records that their owner cannot have beside that of another line.
    pub conflicts: FirstLines,
    shared: SharedLines,
}

/// The lines with the lowest numbers, each with another line, and the number of all.
#[derive(Default)]
pub struct FirstLines {
    /// The highest of them is on top.
    lowest: BinaryHeap<(u32, u32)>,
    pub count: u64,
}

impl FirstLines {
    fn note(&mut self, line: u32, other: u32) {
        self.count += 1;
        self.lowest.push((line, other));
        if self.lowest.len() > MAX_DESCRIBED {
            self.lowest.pop();
        }
    }

    pub fn into_sorted(self) -> Vec<(u32, u32)> {
        self.lowest.into_sorted_vec()
    }
}

/// Lines with several names. Such a line is a duplicate if none of its names is new.
#[derive(Default)]
struct SharedLines {
    seen: Bits,
    new: Bits,
    repaired: Bits,
}

#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn set(&mut self, place: u32) {
        let word = place as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (place % 64);
    }

    fn word(&self, place: usize) -> u64 {
        self.0.get(place).copied().unwrap_or(0)
    }
}

impl Lines {
    fn note(&mut self, item: &Item<'_>, is_new: bool, first: u32) {
        if item.shares_line {
            self.shared.seen.set(item.line);
            if is_new {
                self.shared.new.set(item.line);
            }
            if item.is_repaired {
                self.shared.repaired.set(item.line);
            }
            return;
        }
        match (is_new, item.is_repaired) {
            (true, false) => self.accepted += 1,
            (true, true) => self.repaired += 1,
            (false, _) => self.repeats.note(item.line, first),
        }
    }

    pub fn counted(&self) -> (u64, u64, u64) {
        let mut counted = (self.accepted, self.repaired, self.repeats.count);
        for (place, seen) in self.shared.seen.0.iter().enumerate() {
            let (new, repaired) = (self.shared.new.word(place), self.shared.repaired.word(place));
            counted.0 += u64::from((new & !repaired).count_ones());
            counted.1 += u64::from((new & repaired).count_ones());
            counted.2 += u64::from((seen & !new).count_ones());
        }
        counted
    }
}
