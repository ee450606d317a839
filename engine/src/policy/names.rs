//! A compiled list: every name, and what its entries say, in about fourteen octets each.
//!
//! Segments stand one behind the other, the foot behind them says where; all numbers are
//! little-endian. In a file it is mapped and only read: starting costs no compiling, and
//! what nobody asks about need not be in memory. The file's name is the SHA-256 of its
//! octets, so a file that was changed, cut off or exchanged is noticed before it is used.
//! The same text, read in the same way, makes the same octets on every machine.

use std::io;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::segment::{Head, Hit, Rest, Segment};
use super::symbols::Symbols;
use super::{Match, Scope};
use crate::name::{Name, Text, Walk};
use crate::sys::Mapping;

const MAGIC: &[u8; 8] = b"dnsblock";
const VERSION: u32 = 1;
/// Octets behind the foot: its length, and the magic.
const TAIL: usize = 4 + MAGIC.len();
/// More segments than a list of fifty million names has.
pub const MAX_SEGMENTS_BITS: u32 = 10;

/// What a list's names are hashed with, segment by segment (see `crate::name::Walk`). The
/// same everywhere, since the order of names in a file goes by it. Who chooses names for
/// their hashes gets no further than `segment::Crowded`, and the list is refused.
pub const SEED: u64 = 0x2017_0714_0430_0000;

pub struct Names {
    octets: Octets,
    foot: Foot,
    /// How many names stand before each segment.
    first_ranks: Vec<u64>,
    sha256: [u8; 32],
}

enum Octets {
    Memory(Vec<u8>),
    File(Mapping),
}

/// What stands behind the segments.
#[derive(Clone)]
pub struct Foot {
    /// Segments are two to the power of this.
    pub bits: u32,
    /// SHA-256 over the names and what is said about them, in order.
    pub digest: [u8; 32],
    /// Of any name: lengths that no name has are not looked up.
    pub fewest_labels: u8,
    pub most_labels: u8,
    pub symbols: Symbols,
    pub scopes: Vec<Scope>,
    pub heads: Vec<Head>,
}

/// Why a file is no compiled list that can be used.
#[derive(Debug)]
pub enum Unusable {
    Unreadable(io::Error),
    /// Not the octets that its name promises.
    Corrupt,
    /// Of another program or version.
    Foreign,
}

impl Names {
    /// Maps a file whose octets have this SHA-256.
    pub fn open(path: &Path, sha256: &[u8; 32]) -> Result<Names, Unusable> {
        let mapping = Mapping::open(path).map_err(Unusable::Unreadable)?;
        if <[u8; 32]>::from(Sha256::digest(mapping.bytes())) != *sha256 {
            return Err(Unusable::Corrupt);
        }
        Names::of(Octets::File(mapping), *sha256)
    }

    /// Maps a file that was just written.
    pub fn of_file(path: &Path, sha256: [u8; 32]) -> Result<Names, Unusable> {
        Names::of(Octets::File(Mapping::open(path).map_err(Unusable::Unreadable)?), sha256)
    }

    /// Takes octets that were just made.
    pub fn in_memory(octets: Vec<u8>) -> Result<Names, Unusable> {
        let sha256 = Sha256::digest(&octets).into();
        Names::of(Octets::Memory(octets), sha256)
    }

    /// The list that holds nothing.
    pub fn none() -> Arc<Names> {
        let foot = Foot {
            bits: 0,
            digest: Sha256::digest([]).into(),
            fewest_labels: u8::MAX,
            most_labels: 0,
            symbols: Symbols::of([].into_iter()),
            scopes: Vec::new(),
            heads: vec![Head::default()],
        };
        Arc::new(Names::in_memory(foot.to_octets()).expect("a foot that was just made"))
    }

    fn of(octets: Octets, sha256: [u8; 32]) -> Result<Names, Unusable> {
        let foot = Foot::read(octets.all()).ok_or(Unusable::Foreign)?;
        let before =
            |names: &mut u64, head: &Head| Some(std::mem::replace(names, *names + u64::from(head.entries)));
        let first_ranks = foot.heads.iter().scan(0, before).collect();
        Ok(Names { octets, foot, first_ranks, sha256 })
    }

    /// The entry of exactly this name, which has this hash and stands in `text` from an
    /// octet on; and how many names of the list stand before it.
    pub fn find(&self, hash: u64, text: &Text, from: usize) -> Option<(&Scope, u64)> {
        let (place, rest) = self.place(hash);
        let segment = self.segment(place);
        if !segment.may_hold(rest) {
            return None;
        }
        let hit = segment.find(rest, |codes| self.foot.symbols.spell(codes, text, from))?;
        Some((self.scope(hit)?, self.rank(place, hit)))
    }

    /// The hash of a name in text.
    pub fn hash_of(text: &Text) -> u64 {
        let name = Name::from_text(text.as_bytes());
        name.map_or(0, |name| Walk::new(&name, SEED).hash(0))
    }

    fn place(&self, hash: u64) -> (usize, Rest) {
        (self.segment_of(hash), Rest::of(hash, self.foot.bits))
    }

    /// Which segment has the names of this hash.
    pub fn segment_of(&self, hash: u64) -> usize {
        (hash >> 1 >> (63 - self.foot.bits)) as usize
    }

    fn segment(&self, place: usize) -> Segment<'_> {
        let head = &self.foot.heads[place];
        let start = head.offset as usize;
        let octets = self.octets.all().get(start..start + head.octets as usize);
        Segment::new(head, octets.unwrap_or_default())
    }

    fn scope(&self, hit: Hit) -> Option<&Scope> {
        self.foot.scopes.get(hit.scope as usize)
    }

    fn rank(&self, place: usize, hit: Hit) -> u64 {
        self.first_ranks[place] + u64::from(hit.rank)
    }

    pub fn warm_filter(&self, hash: u64) {
        let (place, rest) = self.place(hash);
        self.segment(place).warm_filter(rest);
    }

    pub fn warm_index(&self, hash: u64) {
        let (place, rest) = self.place(hash);
        let segment = self.segment(place);
        if segment.may_hold(rest) {
            segment.warm_index(rest);
        }
    }

    pub fn warm_bucket(&self, hash: u64) {
        let (place, rest) = self.place(hash);
        let segment = self.segment(place);
        if segment.may_hold(rest) {
            segment.warm_bucket(rest);
        }
    }

    /// Every name whose rank is wanted, with its rank and scope, in the order of ranks.
    pub fn each(&self, mut wants: impl FnMut(u64, &Scope) -> bool, mut take: impl FnMut(u64, &Text, &Scope)) {
        let mut text = Text::default();
        for place in 0..self.foot.heads.len() {
            self.segment(place).each(|hit, codes| {
                let (rank, Some(scope)) = (self.rank(place, hit), self.scope(hit)) else { return };
                if wants(rank, scope) && self.foot.symbols.decode(codes, &mut text).is_some() {
                    take(rank, &text, scope);
                }
            });
        }
    }

    /// How many names come before this name, which is not in the list.
    pub fn names_before(&self, hash: u64, name: &[u8]) -> u64 {
        let (place, rest) = self.place(hash);
        let mut text = Text::default();
        let before = self.segment(place).first_after(rest, |codes| {
            let is_read = self.foot.symbols.decode(codes, &mut text).is_some();
            is_read && (Names::hash_of(&text), text.as_bytes()) > (hash, name)
        });
        self.first_ranks[place] + u64::from(before)
    }

    /// Whether octets of its file were lost while it was in use: names are missing then.
    pub fn is_damaged(&self) -> bool {
        matches!(&self.octets, Octets::File(mapping) if mapping.is_corrupt())
    }

    pub fn entries(&self) -> usize {
        self.foot.entries() as usize
    }

    /// The number of names with a listed entry: names with exceptions only do not count.
    pub fn listed(&self, is_exception: impl Fn(u32) -> bool) -> usize {
        self.count(|scope| scope.is_listed(&is_exception))
    }

    /// Names of a list of which only what is below them is listed, by its first rule.
    pub fn apexless(&self) -> usize {
        self.count(|scope| scope.at.is_none() && scope.under.is_some_and(|(_, rule)| rule == 0))
    }

    fn count(&self, wants: impl Fn(&Scope) -> bool) -> usize {
        let scopes = &self.foot.scopes;
        if scopes.iter().all(&wants) {
            return self.entries();
        }
        let mut counted = 0;
        if scopes.iter().any(&wants) {
            let count = |_, scope: &Scope| {
                counted += usize::from(wants(scope));
                false
            };
            self.each(count, |_, _, _| {});
        }
        counted
    }

    pub fn segments(&self) -> usize {
        self.foot.heads.len()
    }

    pub fn scopes(&self) -> &[Scope] {
        &self.foot.scopes
    }

    /// Lengths of names in labels, fewest and most.
    pub fn labels(&self) -> (usize, usize) {
        (self.foot.fewest_labels.into(), self.foot.most_labels.into())
    }

    pub fn digest(&self) -> &[u8; 32] {
        &self.foot.digest
    }

    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// All of it, foot included.
    pub fn octets(&self) -> &[u8] {
        self.octets.all()
    }

    /// Gives back the memory of a file. It can be used as before, and is read again then.
    pub fn give_back(&self) {
        if let Octets::File(mapping) = &self.octets {
            mapping.release_pages();
        }
    }

    /// Reads all of a file into memory, so that no packet has to wait for the disk.
    pub fn populate(&self) {
        if let Octets::File(mapping) = &self.octets {
            mapping.populate();
        }
    }
}

impl Octets {
    fn all(&self) -> &[u8] {
        match self {
            Octets::Memory(octets) => octets,
            Octets::File(mapping) => mapping.bytes(),
        }
    }
}

impl Foot {
    fn entries(&self) -> u64 {
        self.heads.iter().map(|head| u64::from(head.entries)).sum()
    }

    /// The foot and what follows it, to stand behind the last segment.
    pub fn to_octets(&self) -> Vec<u8> {
        let mut foot = Vec::new();
        foot.extend(VERSION.to_le_bytes());
        foot.extend([self.bits as u8, self.fewest_labels, self.most_labels]);
        foot.extend(self.digest);
        foot.extend(self.symbols.to_octets());
        foot.extend((self.scopes.len() as u32).to_le_bytes());
        for scope in &self.scopes {
            foot.extend(scope.to_octets());
        }
        for head in &self.heads {
            foot.extend(head.offset.to_le_bytes());
            for number in [head.octets, head.filter_words, head.buckets, head.entries, head.scope] {
                foot.extend(number.to_le_bytes());
            }
            foot.push(head.width);
        }
        foot.extend((foot.len() as u32).to_le_bytes());
        foot.extend(MAGIC);
        foot
    }

    /// Reads the foot at the end of a compiled list; `None` where there is none of ours.
    fn read(octets: &[u8]) -> Option<Foot> {
        let (front, tail) = octets.split_at_checked(octets.len().checked_sub(TAIL)?)?;
        let (length, magic) = tail.split_at(4);
        let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
        let (segments, foot) = front.split_at_checked(front.len().checked_sub(length)?)?;
        let mut left = Cursor(foot);
        if magic != MAGIC || left.u32()? != VERSION {
            return None;
        }
        let bits = u32::from(left.u8()?);
        if bits > MAX_SEGMENTS_BITS {
            return None;
        }
        let (fewest_labels, most_labels) = (left.u8()?, left.u8()?);
        let digest = left.take(32)?.try_into().ok()?;
        let symbols = Symbols::from_octets(left.take(Symbols::OCTETS)?)?;
        let scopes: Option<Vec<Scope>> = (0..left.u32()?).map(|_| Scope::read(&mut left)).collect();
        let mut heads = Vec::new();
        let mut next = 0;
        for _ in 0..1 << bits {
            let offset = u64::from_le_bytes(left.take(8)?.try_into().ok()?);
            let [octets, filter_words, buckets, entries, scope] =
                [left.u32()?, left.u32()?, left.u32()?, left.u32()?, left.u32()?];
            let head = Head { offset, octets, filter_words, buckets, entries, scope, width: left.u8()? };
            if offset != next || head.width > 4 {
                return None;
            }
            next = offset.checked_add(octets.into())?;
            heads.push(head);
        }
        let is_whole = next == segments.len() as u64 && left.0.is_empty();
        is_whole.then_some(Foot { bits, digest, fewest_labels, most_labels, symbols, scopes: scopes?, heads })
    }
}

/// What is left to be read.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, octets: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(octets)?;
        self.0 = left;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|octets| octets[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).and_then(|octets| octets.try_into().ok()).map(u32::from_le_bytes)
    }
}

/// The digest of a zone's entries: SHA-256 over names and scopes, in the order of names.
#[derive(Default)]
pub struct EntriesDigest {
    sha256: Sha256,
    scope: Option<Scope>,
}

impl EntriesDigest {
    pub fn add(&mut self, name: &[u8], scope: Scope) {
        if self.scope.replace(scope) != Some(scope) {
            self.sha256.update([0]);
            self.sha256.update(scope.to_octets());
        }
        self.sha256.update([name.len() as u8]);
        self.sha256.update(name);
    }

    pub fn finish(self) -> [u8; 32] {
        self.sha256.finalize().into()
    }
}

impl Scope {
    /// Whether an entry lists the name or names below it, and not only exceptions.
    pub fn is_listed(&self, is_exception: impl Fn(u32) -> bool) -> bool {
        [self.at, self.under].into_iter().flatten().any(|(_, rule)| !is_exception(rule))
    }

    /// For the name itself, then for what is below: 0 or 1 and the place of the match,
    /// and the rule.
    pub fn to_octets(self) -> [u8; 10] {
        let mut octets = [0; 10];
        for (side, five) in [self.at, self.under].iter().zip(octets.chunks_mut(5)) {
            if let Some((scope, rule)) = side {
                five[0] = 1 + *scope as u8;
                five[1..].copy_from_slice(&rule.to_le_bytes());
            }
        }
        octets
    }

    fn read(left: &mut Cursor<'_>) -> Option<Scope> {
        let mut side = || {
            let (scope, rule) = (left.u8()?, left.u32()?);
            let scope = (scope as usize).checked_sub(1);
            Some(match scope {
                Some(place) => Some((Match::ALL.get(place)?.0, rule)),
                None => None,
            })
        };
        Some(Scope { at: side()?, under: side()? })
    }
}
