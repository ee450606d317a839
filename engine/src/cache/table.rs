//! The table of cached responses: sets of a few slots, each set in two cache lines with its own
//! lock. A batch of queries can prefetch all memory that it will read. A lock is held no longer
//! than one set is searched.
//!
//! Eviction is the CLOCK algorithm: each hit raises a response's count a little, a hand that goes
//! round lowers it, and a response with a count of zero is evicted. A new response has a count of
//! zero until its second query, so a scan of names evicts no popular ones.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::{CachedResponse, Key};
use crate::events::lock;
use crate::sys::{in_huge_pages, prefetch};

/// Slots of a set: as many as fit into two cache lines.
const SLOTS: usize = 10;
/// The highest count of hits.
const MAX_HITS: u8 = 3;
/// Bytes of a response of typical size, from which the number of sets is computed.
const TYPICAL_SIZE: u64 = 256;
/// Slots for each response of typical size, in tenths.
const SLOTS_PER_RESPONSE: u64 = 13;
/// Bytes that the allocator needs for a response, besides its own.
const OVERHEAD: usize = 16;

/// A table of bounded memory.
pub struct Table {
    sets: Box<[Set]>,
    /// Bytes for the table and its responses.
    capacity: u64,
    /// Bytes in use.
    bytes: AtomicU64,
    entries: AtomicUsize,
    evicted: AtomicU64,
    /// The set from which the next response is evicted.
    hand: AtomicUsize,
}

#[repr(align(128))]
#[derive(Default)]
struct Set(Mutex<Slots>);

const _: () = assert!(size_of::<Set>() == 128);

#[derive(Default)]
struct Slots {
    /// Part of each response's hash, other than the part that chooses the set.
    tags: [u16; SLOTS],
    hits: [u8; SLOTS],
    hand: u8,
    responses: [Option<CachedResponse>; SLOTS],
}

impl Table {
    pub fn new(capacity: u64) -> Table {
        let slots = capacity * SLOTS_PER_RESPONSE / 10 / TYPICAL_SIZE;
        let count = (slots / SLOTS as u64).max(1).next_power_of_two() as usize;
        let mut sets = in_huge_pages(count);
        sets.resize_with(count, Set::default);
        Table {
            sets: sets.into(),
            capacity,
            bytes: AtomicU64::new((count * size_of::<Set>()) as u64),
            entries: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
            hand: AtomicUsize::new(0),
        }
    }

    /// Prefetches the memory that `prefetch_response` and `find` read first.
    pub fn prefetch_set(&self, hash: u64) {
        prefetch(self.set(hash), size_of::<Set>());
    }

    /// Prefetches the memory of the response, once that of its set is in the cache.
    pub fn prefetch_response(&self, hash: u64) {
        let slots = lock(&self.set(hash).0);
        if let Some(response) = slots.tagged(hash).find_map(|slot| slots.responses[slot].as_ref()) {
            response.prefetch_memory();
        }
    }

    pub fn find(&self, key: Key<'_>) -> Option<CachedResponse> {
        let mut slots = lock(&self.set(key.hash()).0);
        let slot = slots.slot_of(key)?;
        slots.hits[slot] = (slots.hits[slot] + 1).min(MAX_HITS);
        slots.responses[slot].clone()
    }

    /// Replaces a response to the same question, else uses an empty slot, else evicts one.
    pub fn insert(&self, key: Key<'_>, response: CachedResponse) {
        self.bytes.fetch_add(size(&response), Relaxed);
        self.entries.fetch_add(1, Relaxed);
        let previous = {
            let mut slots = lock(&self.set(key.hash()).0);
            let same = slots.slot_of(key);
            let slot = same.or_else(|| slots.responses.iter().position(Option::is_none));
            let slot = slot.unwrap_or_else(|| slots.find_unused());
            if same.is_none() {
                slots.hits[slot] = 0;
                self.evicted.fetch_add(u64::from(slots.responses[slot].is_some()), Relaxed);
            }
            slots.tags[slot] = tag(key.hash());
            slots.responses[slot].replace(response)
        };
        self.subtract(previous);
        self.evict();
    }

    pub fn remove(&self, key: Key<'_>) {
        let removed = {
            let mut slots = lock(&self.set(key.hash()).0);
            slots.slot_of(key).and_then(|slot| slots.responses[slot].take())
        };
        self.subtract(removed);
    }

    /// Evicts responses until all are within the capacity.
    fn evict(&self) {
        // Each round lowers all counts, so that the last one leaves no response.
        for _ in 0..self.sets.len() * (usize::from(MAX_HITS) + SLOTS) {
            if self.bytes() <= self.capacity {
                return;
            }
            let hand = self.hand.fetch_add(1, Relaxed) & (self.sets.len() - 1);
            let evicted = lock(&self.sets[hand].0).evict();
            self.evicted.fetch_add(u64::from(evicted.is_some()), Relaxed);
            self.subtract(evicted);
        }
    }

    /// Removes the responses for which `condition` is true; returns their number.
    pub fn remove_where(&self, condition: impl Fn(&CachedResponse) -> bool) -> usize {
        let mut count = 0;
        for set in &self.sets {
            for slot in 0..SLOTS {
                let removed = lock(&set.0).responses[slot].take_if(|response| condition(response));
                count += usize::from(removed.is_some());
                self.subtract(removed);
            }
        }
        count
    }

    /// Subtracts a removed response from the totals.
    fn subtract(&self, removed: Option<CachedResponse>) {
        if let Some(response) = removed {
            self.bytes.fetch_sub(size(&response), Relaxed);
            self.entries.fetch_sub(1, Relaxed);
        }
    }

    fn set(&self, hash: u64) -> &Set {
        &self.sets[hash as usize & (self.sets.len() - 1)]
    }

    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    pub fn entries(&self) -> usize {
        self.entries.load(Relaxed)
    }

    /// Bytes of memory, including those of the table itself.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// The number of evictions so far.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }
}

impl Slots {
    fn tagged(&self, hash: u64) -> impl Iterator<Item = usize> + '_ {
        (0..SLOTS).filter(move |&slot| self.tags[slot] == tag(hash))
    }

    fn slot_of(&self, key: Key<'_>) -> Option<usize> {
        self.tagged(key.hash())
            .find(|&slot| self.responses[slot].as_ref().is_some_and(|response| response.answers(key)))
    }

    /// A slot whose count is zero; lowers the counts until there is one.
    fn find_unused(&mut self) -> usize {
        loop {
            for _ in 0..SLOTS {
                self.hand = (self.hand + 1) % SLOTS as u8;
                if self.hits[usize::from(self.hand)] == 0 {
                    return usize::from(self.hand);
                }
            }
            self.hits.iter_mut().for_each(|hits| *hits -= 1);
        }
    }

    /// Removes a response whose count is zero; otherwise lowers all counts.
    fn evict(&mut self) -> Option<CachedResponse> {
        let unused = (0..SLOTS).find(|&slot| self.hits[slot] == 0 && self.responses[slot].is_some());
        if unused.is_none() {
            self.hits.iter_mut().for_each(|hits| *hits = hits.saturating_sub(1));
        }
        self.responses[unused?].take()
    }
}

fn tag(hash: u64) -> u16 {
    (hash >> 48) as u16
}

fn size(response: &CachedResponse) -> u64 {
    (OVERHEAD + response.memory()) as u64
}
