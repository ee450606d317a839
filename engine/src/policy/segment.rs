//! A segment of a compiled list: the names of one range of hashes.
//!
//! Its parts are ordered by hash: a filter that excludes most names that are not listed, an index
//! of buckets, and the buckets of about 16 names. A bucket has a fingerprint of each hash (one
//! byte), the lengths of the codes, the scopes if they differ within the segment, and the codes. A
//! lookup compares the complete name in the end; a hash alone would block names that are not
//! listed.
//!
//! Each segment is made in memory as a whole, so a list of any length is compiled and verified
//! piece by piece. No code here panics or loops on foreign data.

use std::ops::Range;

use super::filter;
use super::symbols::Encoder;
use crate::name::Text;
use crate::sys::prefetch;

/// Average number of names in a bucket.
const BUCKET: usize = 16;
/// A larger bucket only occurs if names were chosen for their hashes.
const CROWD: usize = 255;
/// Size of an index entry: the start of a bucket, and the number of names before it.
const INDEX: usize = 8;
/// Bytes of a bucket to prefetch: its usual size.
const USUAL: usize = 256;

/// The position and the layout of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SegmentHeader {
    pub offset: u64,
    pub bytes: u32,
    pub filter_words: u32,
    pub buckets: u32,
    pub entries: u32,
    /// The scope of all entries if `width` is 0: an index into the scopes of the list.
    pub scope: u32,
    /// Bytes per scope.
    pub width: u8,
}

/// An entry to put into a segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record<'a> {
    pub hash: u64,
    pub text: &'a [u8],
    pub scope: u32,
}

/// The result of a lookup.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    pub scope: u32,
    /// The number of entries before it in the segment.
    pub rank: u32,
}

/// More names have nearly the same hash than occur by chance: an attack.
#[derive(Debug, PartialEq)]
pub struct HashFlood;

/// The part of a hash that distinguishes names within a segment of a list with `1 << bits`
/// segments.
#[derive(Clone, Copy)]
pub struct LocalHash(u64);

impl LocalHash {
    pub fn of(hash: u64, bits: u32) -> LocalHash {
        // The lower 32 bits stay: the filter and the fingerprint use them.
        LocalHash((hash << bits) & !u64::from(u32::MAX) | hash & u64::from(u32::MAX))
    }

    /// Scales the upper half to a number of places. The order of hashes is kept.
    fn place(self, places: u32) -> usize {
        (((self.0 >> 32) * u64::from(places)) >> 32) as usize
    }

    fn fingerprint(self) -> u8 {
        (self.0 >> 24) as u8
    }

    fn filter_bits(self) -> u64 {
        filter::bits(self.0)
    }
}

/// A segment in memory.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    header: &'a SegmentHeader,
    bytes: &'a [u8],
}

/// The names of a bucket, in parallel arrays.
struct Bucket<'a> {
    first_rank: u32,
    fingerprints: &'a [u8],
    lengths: &'a [u8],
    scopes: &'a [u8],
    codes: &'a [u8],
}

impl<'a> Segment<'a> {
    pub fn new(header: &'a SegmentHeader, bytes: &'a [u8]) -> Segment<'a> {
        Segment { header, bytes }
    }

    /// False only for names that are not in the segment.
    pub fn may_hold(&self, local: LocalHash) -> bool {
        let bits = local.filter_bits();
        self.word(local.place(self.header.filter_words)) & bits == bits
    }

    /// The entry with this hash whose codes are wanted. Call it only if `may_hold` is true.
    pub fn find(&self, local: LocalHash, mut is_wanted: impl FnMut(&[u8]) -> bool) -> Option<Hit> {
        let bucket = self.bucket(local.place(self.header.buckets))?;
        let fingerprint = local.fingerprint();
        let mut alike = memchr::memchr_iter(fingerprint, bucket.fingerprints);
        let found = alike.find(|&at| is_wanted(bucket.codes_of(at)))?;
        Some(Hit { scope: self.scope(&bucket, found), rank: bucket.first_rank + found as u32 })
    }

    pub fn warm_filter(&self, local: LocalHash) {
        self.warm(local.place(self.header.filter_words) * 8, 8);
    }

    pub fn warm_index(&self, local: LocalHash) {
        self.warm(self.index() + local.place(self.header.buckets) * INDEX, 2 * INDEX);
    }

    pub fn warm_bucket(&self, local: LocalHash) {
        if let Some((start, _)) = self.indexed(local.place(self.header.buckets)) {
            self.warm(self.data() + start as usize, USUAL);
        }
    }

    fn warm(&self, at: usize, bytes: usize) {
        if let Some(there) = self.bytes.get(at) {
            prefetch(there, bytes);
        }
    }

    /// Every entry with its codes, in the order of ranks.
    pub fn each(&self, mut take: impl FnMut(Hit, &'a [u8])) {
        for place in 0..self.header.buckets as usize {
            let Some(bucket) = self.bucket(place) else { return };
            for (at, codes) in bucket.each().enumerate() {
                take(Hit { scope: self.scope(&bucket, at), rank: bucket.first_rank + at as u32 }, codes);
            }
        }
    }

    /// The entries with these ranks, with their codes, in order.
    pub fn each_of(&self, ranks: Range<u32>, mut take: impl FnMut(Hit, &'a [u8])) {
        let (mut least, mut most) = (0, self.header.buckets as usize);
        while most - least > 1 {
            let middle = least.midpoint(most);
            match self.indexed(middle) {
                Some((_, before)) if before <= ranks.start => least = middle,
                _ => most = middle,
            }
        }
        for place in least..self.header.buckets as usize {
            let Some(bucket) = self.bucket(place) else { return };
            if bucket.first_rank >= ranks.end {
                return;
            }
            for (at, codes) in bucket.each().enumerate() {
                let rank = bucket.first_rank + at as u32;
                if ranks.contains(&rank) {
                    take(Hit { scope: self.scope(&bucket, at), rank }, codes);
                }
            }
        }
    }

    /// The rank of the first entry after a name that is not in the segment. `is_after` tells from
    /// the codes of an entry whether it comes after the name.
    pub fn first_after(&self, local: LocalHash, mut is_after: impl FnMut(&[u8]) -> bool) -> u32 {
        let Some(bucket) = self.bucket(local.place(self.header.buckets)) else { return 0 };
        let (mut first, mut end) = (0, bucket.lengths.len());
        while first < end {
            let middle = first.midpoint(end);
            match is_after(bucket.codes_of(middle)) {
                true => end = middle,
                false => first = middle + 1,
            }
        }
        bucket.first_rank + first as u32
    }

    fn word(&self, place: usize) -> u64 {
        self.bytes.get(place * 8..).and_then(<[u8]>::first_chunk).map_or(0, |word| u64::from_le_bytes(*word))
    }

    fn index(&self) -> usize {
        self.header.filter_words as usize * 8
    }

    fn data(&self) -> usize {
        self.index() + (self.header.buckets as usize + 1) * INDEX
    }

    /// The start of a bucket in the data, and the number of names before it.
    fn indexed(&self, place: usize) -> Option<(u32, u32)> {
        let both = u64::from_le_bytes(*self.bytes.get(self.index() + place * INDEX..)?.first_chunk()?);
        Some((both as u32, (both >> 32) as u32))
    }

    fn bucket(&self, place: usize) -> Option<Bucket<'a>> {
        let (start, first_rank) = self.indexed(place)?;
        let (end, next_rank) = self.indexed(place + 1)?;
        let bytes = self.bytes.get(self.data()..)?.get(start as usize..end as usize)?;
        let names = next_rank.checked_sub(first_rank)? as usize;
        let (fingerprints, left) = bytes.split_at_checked(names)?;
        let (lengths, left) = left.split_at_checked(names)?;
        let (scopes, codes) = left.split_at_checked(names * usize::from(self.header.width))?;
        Some(Bucket { first_rank, fingerprints, lengths, scopes, codes })
    }

    fn scope(&self, bucket: &Bucket<'_>, at: usize) -> u32 {
        let width = usize::from(self.header.width);
        if width == 0 {
            return self.header.scope;
        }
        let bytes = bucket.scopes.get(at * width..(at + 1) * width).unwrap_or_default();
        bytes.iter().rev().fold(0, |scope, &byte| scope << 8 | u32::from(byte))
    }
}

impl<'a> Bucket<'a> {
    /// The codes of each name.
    fn each(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut codes = self.codes;
        self.lengths.iter().map(move |&length| {
            let (own, left) = codes.split_at(usize::from(length).min(codes.len()));
            codes = left;
            own
        })
    }

    fn codes_of(&self, at: usize) -> &'a [u8] {
        let start: usize = self.lengths[..at].iter().map(|&length| usize::from(length)).sum();
        self.codes.get(start..start + usize::from(self.lengths[at])).unwrap_or_default()
    }
}

/// The records in crowded buckets, which were chosen for their hashes. A bucket is crowded with half
/// as many as are rejected: without these records, all buckets become wider.
pub fn crowd(records: &[Record<'_>], bits: u32) -> Vec<bool> {
    let buckets = records.len().div_ceil(BUCKET) as u32;
    let place = |record: &Record<'_>| LocalHash::of(record.hash, bits).place(buckets);
    let own = records.chunk_by(|a, b| place(a) == place(b));
    own.flat_map(|own| std::iter::repeat_n(own.len() > CROWD / 2, own.len())).collect()
}

/// Makes a segment of one of `1 << bits` segments. The records are unique, and ordered by hash and
/// name.
pub fn make(
    records: &[Record<'_>],
    bits: u32,
    encoder: &Encoder,
) -> Result<(SegmentHeader, Vec<u8>), HashFlood> {
    let buckets = records.len().div_ceil(BUCKET);
    let filter_words = filter::words(records.len());
    let scope = records.first().map_or(0, |record| record.scope);
    let highest = records.iter().map(|record| record.scope).max().unwrap_or(0);
    let width = if records.iter().all(|record| record.scope == scope) {
        0
    } else {
        4 - highest.leading_zeros() as usize / 8
    };
    let mut filter = vec![0u64; filter_words];
    let mut index: Vec<u64> = Vec::with_capacity(buckets + 1);
    let mut data = Vec::with_capacity(records.len() * BUCKET);
    let mut codes = Codes::default();
    let mut left = records;
    for bucket in 0..buckets {
        let local = |record: &Record<'_>| LocalHash::of(record.hash, bits);
        let end = left.iter().take_while(|r| local(r).place(buckets as u32) == bucket).count();
        let own;
        (own, left) = left.split_at(end);
        if own.len() > CROWD {
            return Err(HashFlood);
        }
        let before = records.len() - left.len() - own.len();
        index.push(data.len() as u64 | (before as u64) << 32);
        for record in own {
            let local = local(record);
            filter[local.place(filter_words as u32)] |= local.filter_bits();
            data.push(local.fingerprint());
        }
        codes.take(own, encoder);
        data.extend_from_slice(&codes.lengths);
        for record in own {
            data.extend_from_slice(&record.scope.to_le_bytes()[..width]);
        }
        data.extend_from_slice(&codes.codes);
    }
    index.push(data.len() as u64 | (records.len() as u64) << 32);
    let mut bytes = Vec::with_capacity((filter.len() + index.len()) * 8 + data.len());
    bytes.extend(filter.iter().chain(&index).flat_map(|word| word.to_le_bytes()));
    bytes.extend_from_slice(&data);
    let header = SegmentHeader {
        offset: 0,
        bytes: bytes.len() as u32,
        filter_words: filter_words as u32,
        buckets: buckets as u32,
        entries: records.len() as u32,
        scope,
        width: width as u8,
    };
    Ok((header, bytes))
}

/// The codes of the names of a bucket, and their lengths. Reused for the next bucket.
#[derive(Default)]
struct Codes {
    codes: Vec<u8>,
    lengths: Vec<u8>,
    text: Text,
    other: Text,
    other_codes: Vec<u8>,
}

impl Codes {
    fn take(&mut self, own: &[Record<'_>], encoder: &Encoder) {
        self.codes.clear();
        self.lengths.clear();
        for both in own.chunks(2) {
            let start = self.codes.len();
            self.text.take(both[0].text);
            // A code stands for at least one character.
            if let Some(second) = both.get(1) {
                self.other.take(second.text);
                self.other_codes.clear();
                encoder.encode_both([&self.text, &self.other], [&mut self.codes, &mut self.other_codes]);
                self.lengths.extend([(self.codes.len() - start) as u8, self.other_codes.len() as u8]);
                self.codes.extend_from_slice(&self.other_codes);
            } else {
                encoder.encode(&self.text, &mut self.codes);
                self.lengths.push((self.codes.len() - start) as u8);
            }
        }
    }
}
