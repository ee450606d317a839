//! A compiled list: its names and their scopes, in about 14 bytes per name.
//!
//! The file has segments, then a footer with their positions. All numbers are little-endian. The
//! file is mapped read-only, so a restart does not compile it and unused parts need not be in
//! memory. Its name is the SHA-256 of its content, so a changed, truncated or exchanged file is
//! detected before use. The same list with the same options gives the same bytes on every machine.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::cursor::Cursor;
use super::segment::{Hit, LocalHash, Segment, SegmentHeader};
use super::symbols::Symbols;
use super::zone_data::ZoneData;
use super::{Match, Scope};
use crate::name::{Name, Text, Walk};
use crate::sys::Mapping;

const MAGIC: &[u8; 8] = b"dnsblock";
/// Of a list.
const VERSION: u32 = 1;
/// Of a policy zone, which has more data at the end of its footer.
const VERSION_ZONE: u32 = 2;
/// Bytes after the footer: its length, and the magic number.
const TAIL: usize = 4 + MAGIC.len();
/// More segments than a list of fifty million names has.
pub const MAX_SEGMENTS_BITS: u32 = 10;

/// The seed for the hashes of names (see `crate::name::Walk`). It is the same everywhere because it
/// determines the order of names in a file. A list with names chosen for their hashes is rejected
/// (see `segment::HashFlood`); in a zone of orders, they are set aside (see `compiler::Aside`).
pub const SEED: u64 = 0x2017_0714_0430_0000;

pub struct Names {
    bytes: Storage,
    footer: Footer,
    /// The number of names before each segment.
    first_ranks: Vec<u64>,
    sha256: [u8; 32],
}

enum Storage {
    Memory(Vec<u8>),
    File(Mapping),
}

/// The data after the segments.
#[derive(Clone)]
pub struct Footer {
    /// The binary logarithm of the number of segments.
    pub bits: u32,
    /// SHA-256 over names and scopes, in order.
    pub digest: [u8; 32],
    /// Of any name. Suffixes of other lengths are not looked up.
    pub fewest_labels: u8,
    pub most_labels: u8,
    pub symbols: Symbols,
    pub scopes: Vec<Scope>,
    pub headers: Vec<SegmentHeader>,
    /// Of a policy zone.
    pub zone: Option<Arc<ZoneData>>,
}

/// Why a file cannot be used as a compiled list.
#[derive(Debug)]
pub enum Unusable {
    Unreadable(io::Error),
    /// The SHA-256 of the content differs from the file name.
    Corrupt,
    /// Another format or version.
    Foreign,
}

impl Names {
    /// Maps a file with this SHA-256.
    pub fn open(path: &Path, sha256: &[u8; 32]) -> Result<Names, Unusable> {
        let mapping = Mapping::open(path).map_err(Unusable::Unreadable)?;
        if <[u8; 32]>::from(Sha256::digest(mapping.bytes())) != *sha256 {
            return Err(Unusable::Corrupt);
        }
        Names::of(Storage::File(mapping), *sha256)
    }

    /// Maps a file that was just written.
    pub fn of_file(path: &Path, sha256: [u8; 32]) -> Result<Names, Unusable> {
        Names::of(Storage::File(Mapping::open(path).map_err(Unusable::Unreadable)?), sha256)
    }

    /// Uses bytes that were just compiled.
    pub fn in_memory(bytes: Vec<u8>) -> Result<Names, Unusable> {
        let sha256 = Sha256::digest(&bytes).into();
        Names::of(Storage::Memory(bytes), sha256)
    }

    /// An empty list.
    pub fn none() -> Arc<Names> {
        let footer = Footer {
            bits: 0,
            digest: Sha256::digest([]).into(),
            fewest_labels: u8::MAX,
            most_labels: 0,
            symbols: Symbols::of([].into_iter()),
            scopes: Vec::new(),
            headers: vec![SegmentHeader::default()],
            zone: None,
        };
        Arc::new(Names::in_memory(footer.to_bytes()).expect("a footer that was just made"))
    }

    fn of(bytes: Storage, sha256: [u8; 32]) -> Result<Names, Unusable> {
        let footer = Footer::read(bytes.all()).ok_or(Unusable::Foreign)?;
        Ok(Names::with_footer(bytes, footer, sha256))
    }

    /// The segments of a list that has no footer yet.
    pub fn unfinished(segments: Vec<u8>, footer: Footer) -> Names {
        Names::with_footer(Storage::Memory(segments), footer, [0; 32])
    }

    /// The same, in a file.
    pub fn unfinished_file(path: &Path, footer: Footer) -> io::Result<Names> {
        Ok(Names::with_footer(Storage::File(Mapping::open(path)?), footer, [0; 32]))
    }

    /// The bytes of a list in memory.
    pub fn into_bytes(self) -> Vec<u8> {
        match self.bytes {
            Storage::Memory(bytes) => bytes,
            Storage::File(mapping) => mapping.bytes().to_vec(),
        }
    }

    fn with_footer(bytes: Storage, footer: Footer, sha256: [u8; 32]) -> Names {
        let before = |names: &mut u64, header: &SegmentHeader| {
            Some(std::mem::replace(names, *names + u64::from(header.entries)))
        };
        let first_ranks = footer.headers.iter().scan(0, before).collect();
        Names { bytes, footer, first_ranks, sha256 }
    }

    /// The scope of exactly this name, and its rank: the number of names before it. The name begins
    /// at byte `from` of `text` and has this hash.
    pub fn find(&self, hash: u64, text: &Text, from: usize) -> Option<(&Scope, u64)> {
        let (place, local) = self.place(hash);
        let segment = self.segment(place);
        if !segment.may_hold(local) {
            return None;
        }
        let hit = segment.find(local, |codes| self.footer.symbols.spell(codes, text, from))?;
        Some((self.scope(hit)?, self.rank(place, hit)))
    }

    pub fn hash_of(text: &Text) -> u64 {
        let name = Name::from_text(text.as_bytes());
        name.map_or(0, |name| Walk::new(&name, SEED).hash(0))
    }

    fn place(&self, hash: u64) -> (usize, LocalHash) {
        (self.segment_of(hash), LocalHash::of(hash, self.footer.bits))
    }

    /// The segment that has the names with this hash.
    pub fn segment_of(&self, hash: u64) -> usize {
        (hash >> 1 >> (63 - self.footer.bits)) as usize
    }

    fn segment(&self, place: usize) -> Segment<'_> {
        let header = &self.footer.headers[place];
        let start = header.offset as usize;
        let bytes = self.bytes.all().get(start..start + header.bytes as usize);
        Segment::new(header, bytes.unwrap_or_default())
    }

    fn scope(&self, hit: Hit) -> Option<&Scope> {
        self.footer.scopes.get(hit.scope as usize)
    }

    fn rank(&self, place: usize, hit: Hit) -> u64 {
        self.first_ranks[place] + u64::from(hit.rank)
    }

    pub fn warm_filter(&self, hash: u64) {
        let (place, local) = self.place(hash);
        self.segment(place).warm_filter(local);
    }

    pub fn warm_index(&self, hash: u64) {
        let (place, local) = self.place(hash);
        let segment = self.segment(place);
        if segment.may_hold(local) {
            segment.warm_index(local);
        }
    }

    pub fn warm_bucket(&self, hash: u64) {
        let (place, local) = self.place(hash);
        let segment = self.segment(place);
        if segment.may_hold(local) {
            segment.warm_bucket(local);
        }
    }

    /// Every name whose rank is wanted, with its rank and scope, in the order of ranks.
    pub fn each(&self, mut wants: impl FnMut(u64, &Scope) -> bool, mut take: impl FnMut(u64, &Text, &Scope)) {
        let mut text = Text::default();
        for place in 0..self.footer.headers.len() {
            self.segment(place).each(|hit, codes| {
                let (rank, Some(scope)) = (self.rank(place, hit), self.scope(hit)) else { return };
                if wants(rank, scope) && self.footer.symbols.decode(codes, &mut text).is_some() {
                    take(rank, &text, scope);
                }
            });
        }
    }

    /// The names with these ranks, with rank and scope, in the order of ranks.
    pub fn each_of(&self, ranks: Range<u64>, mut take: impl FnMut(u64, &Text, &Scope)) {
        let mut text = Text::default();
        let mut place = self.first_ranks.partition_point(|&first| first <= ranks.start).saturating_sub(1);
        let mut next = ranks.start;
        while next < ranks.end && place < self.footer.headers.len() {
            let first = self.first_ranks[place];
            let own = (next - first) as u32..(ranks.end - first).min(u64::from(u32::MAX)) as u32;
            self.segment(place).each_of(own, |hit, codes| {
                let (rank, Some(scope)) = (self.rank(place, hit), self.scope(hit)) else { return };
                if self.footer.symbols.decode(codes, &mut text).is_some() {
                    take(rank, &text, scope);
                }
            });
            place += 1;
            next = self.first_ranks.get(place).copied().unwrap_or(ranks.end);
        }
    }

    /// False only for names that are not in the list.
    pub fn may_hold(&self, hash: u64) -> bool {
        let (place, local) = self.place(hash);
        self.segment(place).may_hold(local)
    }

    /// The number of names before this name, which is not in the list.
    pub fn names_before(&self, hash: u64, name: &[u8]) -> u64 {
        let (place, local) = self.place(hash);
        let mut text = Text::default();
        let before = self.segment(place).first_after(local, |codes| {
            let is_read = self.footer.symbols.decode(codes, &mut text).is_some();
            is_read && (Names::hash_of(&text), text.as_bytes()) > (hash, name)
        });
        self.first_ranks[place] + u64::from(before)
    }

    /// Whether its file was truncated or became unreadable while in use: names are missing then.
    pub fn is_corrupt(&self) -> bool {
        matches!(&self.bytes, Storage::File(mapping) if mapping.is_corrupt())
    }

    pub fn entries(&self) -> usize {
        self.footer.entries() as usize
    }

    /// The number of names with a listed entry. Names with exceptions only do not count.
    pub fn listed(&self, is_exception: impl Fn(u32) -> bool) -> usize {
        self.count(|scope| scope.is_listed(&is_exception))
    }

    /// The number of names that are listed only as `*.name`.
    pub fn apexless(&self) -> usize {
        self.count(|scope| scope.at.is_none() && scope.under.is_some_and(|(_, rule)| rule == 0))
    }

    fn count(&self, wants: impl Fn(&Scope) -> bool) -> usize {
        let scopes = &self.footer.scopes;
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
        self.footer.headers.len()
    }

    pub fn scopes(&self) -> &[Scope] {
        &self.footer.scopes
    }

    /// The fewest and the most labels of a name.
    pub fn labels(&self) -> (usize, usize) {
        (self.footer.fewest_labels.into(), self.footer.most_labels.into())
    }

    pub fn digest(&self) -> &[u8; 32] {
        &self.footer.digest
    }

    /// The data that only a policy zone has.
    pub fn zone(&self) -> Option<&Arc<ZoneData>> {
        self.footer.zone.as_ref()
    }

    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.all()
    }

    /// Releases the memory of a file to the kernel. The list stays usable and is read again on use.
    pub fn release_memory(&self) {
        if let Storage::File(mapping) = &self.bytes {
            mapping.release_pages();
        }
    }

    /// Reads the whole file into memory, so that no query waits for the disk.
    pub fn populate(&self) {
        if let Storage::File(mapping) = &self.bytes {
            mapping.populate();
        }
    }
}

impl Storage {
    fn all(&self) -> &[u8] {
        match self {
            Storage::Memory(bytes) => bytes,
            Storage::File(mapping) => mapping.bytes(),
        }
    }
}

impl Footer {
    fn entries(&self) -> u64 {
        self.headers.iter().map(|header| u64::from(header.entries)).sum()
    }

    /// The footer with its tail.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut footer = Vec::new();
        footer.extend(if self.zone.is_some() { VERSION_ZONE } else { VERSION }.to_le_bytes());
        footer.extend([self.bits as u8, self.fewest_labels, self.most_labels]);
        footer.extend(self.digest);
        footer.extend(self.symbols.to_bytes());
        footer.extend((self.scopes.len() as u32).to_le_bytes());
        for scope in &self.scopes {
            footer.extend(scope.to_bytes());
        }
        for header in &self.headers {
            footer.extend(header.offset.to_le_bytes());
            for number in [header.bytes, header.filter_words, header.buckets, header.entries, header.scope] {
                footer.extend(number.to_le_bytes());
            }
            footer.push(header.width);
        }
        if let Some(zone) = &self.zone {
            footer.extend(zone.to_bytes());
        }
        footer.extend((footer.len() as u32).to_le_bytes());
        footer.extend(MAGIC);
        footer
    }

    /// Reads the footer at the end of a compiled list; `None` for other data.
    fn read(bytes: &[u8]) -> Option<Footer> {
        let (front, tail) = bytes.split_at_checked(bytes.len().checked_sub(TAIL)?)?;
        let (length, magic) = tail.split_at(4);
        let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
        let (segments, footer) = front.split_at_checked(front.len().checked_sub(length)?)?;
        let mut left = Cursor(footer);
        let version = left.u32()?;
        if magic != MAGIC || !matches!(version, VERSION | VERSION_ZONE) {
            return None;
        }
        let bits = u32::from(left.u8()?);
        if bits > MAX_SEGMENTS_BITS {
            return None;
        }
        let (fewest_labels, most_labels) = (left.u8()?, left.u8()?);
        let digest = left.take(32)?.try_into().ok()?;
        let symbols = Symbols::from_bytes(left.take(Symbols::SIZE)?)?;
        let scopes: Option<Vec<Scope>> = (0..left.u32()?).map(|_| Scope::read(&mut left)).collect();
        let mut headers = Vec::new();
        let mut next = 0;
        for _ in 0..1 << bits {
            let offset = u64::from_le_bytes(left.take(8)?.try_into().ok()?);
            let [bytes, filter_words, buckets, entries, scope] =
                [left.u32()?, left.u32()?, left.u32()?, left.u32()?, left.u32()?];
            let header =
                SegmentHeader { offset, bytes, filter_words, buckets, entries, scope, width: left.u8()? };
            if offset != next || header.width > 4 {
                return None;
            }
            next = offset.checked_add(bytes.into())?;
            headers.push(header);
        }
        let zone = match version {
            VERSION_ZONE => Some(Arc::new(ZoneData::read(std::mem::take(&mut left.0))?)),
            _ => None,
        };
        let is_whole = next == segments.len() as u64 && left.0.is_empty();
        is_whole.then_some(Footer {
            bits,
            digest,
            fewest_labels,
            most_labels,
            symbols,
            scopes: scopes?,
            headers,
            zone,
        })
    }
}

/// The digest of a zone's entries: SHA-256 over names and scopes, in the order of names.
#[derive(Default)]
pub struct EntriesDigest {
    sha256: Sha256,
    scope: Option<Scope>,
}

impl EntriesDigest {
    /// `canonical`: the bytes of the scope.
    pub fn add(&mut self, name: &[u8], scope: Scope, canonical: &[u8]) {
        if self.scope.replace(scope) != Some(scope) {
            self.sha256.update([0]);
            self.sha256.update(canonical);
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

    /// Five bytes for the name and five for the names below: 0 or 1 + the index of the match, and
    /// the rule.
    pub fn to_bytes(self) -> [u8; 10] {
        let mut bytes = [0; 10];
        for (side, five) in [self.at, self.under].iter().zip(bytes.chunks_mut(5)) {
            if let Some((scope, rule)) = side {
                five[0] = 1 + *scope as u8;
                five[1..].copy_from_slice(&rule.to_le_bytes());
            }
        }
        bytes
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
