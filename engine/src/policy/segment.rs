//! A segment of a compiled list: the names of one range of hashes.
//!
//! Three parts, one behind the other, all ordered by hash: a filter that tells of most
//! names that they are not there, an index of buckets, and the buckets, each of about
//! sixteen names: an octet of every name's hash, the lengths of their codes, what their
//! entries say (where that differs within the segment), and the codes themselves. The
//! name itself is compared in the end: a hash alone would block names nobody ordered.
//!
//! A segment is made whole in memory, so a list of any length can be compiled and
//! checked piece by piece. Nothing here panics or loops on octets that are none of ours.

use super::filter;
use super::symbols::Encoder;
use crate::name::Text;
use crate::sys::prefetch;

/// Names of a bucket, on average.
const BUCKET: usize = 16;
/// More are only there if somebody chose them for their hashes.
const CROWD: usize = 255;
/// A place in the index: where a bucket begins, and how many names are before it.
const INDEX: usize = 8;
/// Octets of a bucket that are asked for ahead: its usual size.
const USUAL: usize = 256;

/// Where a segment stands in its list, and how it is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Head {
    pub offset: u64,
    pub octets: u32,
    pub filter_words: u32,
    pub buckets: u32,
    pub entries: u32,
    /// What all its entries say, where `width` is 0: a place among the list's scopes.
    pub scope: u32,
    /// Octets of a scope beside each name.
    pub width: u8,
}

/// An entry as it is put into a segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record<'a> {
    pub hash: u64,
    pub text: &'a [u8],
    pub scope: u32,
}

/// An entry that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    pub scope: u32,
    /// How many entries of the segment stand before it.
    pub rank: u32,
}

/// More names have almost the same hash than chance would bring together.
#[derive(Debug, PartialEq)]
pub struct Crowded;

/// The part of a hash that is left for a segment of one in two to the `bits`.
#[derive(Clone, Copy)]
pub struct Rest(u64);

impl Rest {
    pub fn of(hash: u64, bits: u32) -> Rest {
        // The lowest 32 stay what they are: they are the filter's and the fingerprint's.
        Rest((hash << bits) & !u64::from(u32::MAX) | hash & u64::from(u32::MAX))
    }

    /// Scales the upper half to so many places; a higher hash never has a lower place.
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

/// The octets of a segment and how they are laid out.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    head: &'a Head,
    octets: &'a [u8],
}

/// The names of a bucket, side by side.
struct Bucket<'a> {
    first_rank: u32,
    fingerprints: &'a [u8],
    lengths: &'a [u8],
    scopes: &'a [u8],
    codes: &'a [u8],
}

impl<'a> Segment<'a> {
    pub fn new(head: &'a Head, octets: &'a [u8]) -> Segment<'a> {
        Segment { head, octets }
    }

    /// False only for what is not listed.
    pub fn may_hold(&self, rest: Rest) -> bool {
        let bits = rest.filter_bits();
        self.word(rest.place(self.head.filter_words)) & bits == bits
    }

    /// The entry with this hash whose codes are the ones wanted. To be asked only where
    /// `may_hold` says yes.
    pub fn find(&self, rest: Rest, mut is_wanted: impl FnMut(&[u8]) -> bool) -> Option<Hit> {
        let bucket = self.bucket(rest.place(self.head.buckets))?;
        let fingerprint = rest.fingerprint();
        let mut alike = memchr::memchr_iter(fingerprint, bucket.fingerprints);
        let found = alike.find(|&at| is_wanted(bucket.codes_of(at)))?;
        Some(Hit { scope: self.scope(&bucket, found), rank: bucket.first_rank + found as u32 })
    }

    pub fn warm_filter(&self, rest: Rest) {
        self.warm(rest.place(self.head.filter_words) * 8, 8);
    }

    pub fn warm_index(&self, rest: Rest) {
        self.warm(self.index() + rest.place(self.head.buckets) * INDEX, 2 * INDEX);
    }

    pub fn warm_bucket(&self, rest: Rest) {
        if let Some((start, _)) = self.indexed(rest.place(self.head.buckets)) {
            self.warm(self.data() + start as usize, USUAL);
        }
    }

    fn warm(&self, at: usize, octets: usize) {
        if let Some(there) = self.octets.get(at) {
            prefetch(there, octets);
        }
    }

    /// Every entry with its codes, in the order of ranks.
    pub fn each(&self, mut take: impl FnMut(Hit, &'a [u8])) {
        for place in 0..self.head.buckets as usize {
            let Some(bucket) = self.bucket(place) else { return };
            for (at, codes) in bucket.each().enumerate() {
                take(Hit { scope: self.scope(&bucket, at), rank: bucket.first_rank + at as u32 }, codes);
            }
        }
    }

    /// The rank of the first entry after a name that is not in the segment. `is_after` tells by
    /// its codes whether an entry comes after the name.
    pub fn first_after(&self, rest: Rest, is_after: impl FnMut(&[u8]) -> bool) -> u32 {
        let Some(bucket) = self.bucket(rest.place(self.head.buckets)) else { return 0 };
        let before = bucket.each().position(is_after).unwrap_or(bucket.lengths.len());
        bucket.first_rank + before as u32
    }

    fn word(&self, place: usize) -> u64 {
        self.octets.get(place * 8..).and_then(<[u8]>::first_chunk).map_or(0, |word| u64::from_le_bytes(*word))
    }

    fn index(&self) -> usize {
        self.head.filter_words as usize * 8
    }

    fn data(&self) -> usize {
        self.index() + (self.head.buckets as usize + 1) * INDEX
    }

    /// Where a bucket begins in the data, and how many names are before it.
    fn indexed(&self, place: usize) -> Option<(u32, u32)> {
        let both = u64::from_le_bytes(*self.octets.get(self.index() + place * INDEX..)?.first_chunk()?);
        Some((both as u32, (both >> 32) as u32))
    }

    fn bucket(&self, place: usize) -> Option<Bucket<'a>> {
        let (start, first_rank) = self.indexed(place)?;
        let (end, next_rank) = self.indexed(place + 1)?;
        let octets = self.octets.get(self.data()..)?.get(start as usize..end as usize)?;
        let names = next_rank.checked_sub(first_rank)? as usize;
        let (fingerprints, left) = octets.split_at_checked(names)?;
        let (lengths, left) = left.split_at_checked(names)?;
        let (scopes, codes) = left.split_at_checked(names * usize::from(self.head.width))?;
        Some(Bucket { first_rank, fingerprints, lengths, scopes, codes })
    }

    fn scope(&self, bucket: &Bucket<'_>, at: usize) -> u32 {
        let width = usize::from(self.head.width);
        if width == 0 {
            return self.head.scope;
        }
        let octets = bucket.scopes.get(at * width..(at + 1) * width).unwrap_or_default();
        octets.iter().rev().fold(0, |scope, &octet| scope << 8 | u32::from(octet))
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

/// Makes a segment of entries that are ordered by hash and then by name, each once.
/// `bits`: of how many segments, as a power of two, it is one.
pub fn make(records: &[Record<'_>], bits: u32, encoder: &Encoder) -> Result<(Head, Vec<u8>), Crowded> {
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
        let rest = |record: &Record<'_>| Rest::of(record.hash, bits);
        let end = left.iter().take_while(|r| rest(r).place(buckets as u32) == bucket).count();
        let own;
        (own, left) = left.split_at(end);
        if own.len() > CROWD {
            return Err(Crowded);
        }
        let before = records.len() - left.len() - own.len();
        index.push(data.len() as u64 | (before as u64) << 32);
        for record in own {
            let rest = rest(record);
            filter[rest.place(filter_words as u32)] |= rest.filter_bits();
            data.push(rest.fingerprint());
        }
        codes.take(own, encoder);
        data.extend_from_slice(&codes.lengths);
        for record in own {
            data.extend_from_slice(&record.scope.to_le_bytes()[..width]);
        }
        data.extend_from_slice(&codes.codes);
    }
    index.push(data.len() as u64 | (records.len() as u64) << 32);
    let mut octets = Vec::with_capacity((filter.len() + index.len()) * 8 + data.len());
    octets.extend(filter.iter().chain(&index).flat_map(|word| word.to_le_bytes()));
    octets.extend_from_slice(&data);
    let head = Head {
        offset: 0,
        octets: octets.len() as u32,
        filter_words: filter_words as u32,
        buckets: buckets as u32,
        entries: records.len() as u32,
        scope,
        width: width as u8,
    };
    Ok((head, octets))
}

/// The codes of one bucket's names, and how long each is; reused for the next bucket.
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
            // No code stands for less than a character.
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
