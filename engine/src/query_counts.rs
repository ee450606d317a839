//! Counts of queried names, in bounded memory: for each of them a lower bound that is exact if nothing was
//! evicted. No client is stored, and no name before its tenth query.
//!
//! It is the algorithm Space-Saving (Metwally et al. 2005) in sets of a few slots, without its
//! overestimates: a name starts at one, and the queries of the name that it evicts become `uncounted`. The
//! name with the fewest queries of a set is evicted. So names that are queried once evict each other, and a
//! flood of random names costs no name that is queried more often. All worker threads share one table, as
//! with the cache, so the tenth query counts wherever it arrives.

use std::hash::Hasher;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, TryLockError};

use rand::random;
use siphasher::sip128::{Hasher128, SipHasher13};
use triomphe::ThinArc;

use crate::events::lock;
use crate::name::Text;
use crate::sys::{in_huge_pages, prefetch};

pub mod day;
pub mod past;

use day::Counted;

/// A name is stored from this number of queries on. Below, there is only a keyed hash.
pub const SHOWN_FROM: u32 = 10;
/// Slots of a set: as many as fit into six cache lines.
const SLOTS: usize = 18;
/// Names may use one part in this many of the memory.
const NAMES_SHARE: usize = 6;
/// Bytes that the allocator and the reference count need for a name, besides its own.
const OVERHEAD: usize = 24;

/// Bytes of a set without its names.
const PREFETCHED: usize = 256;

/// Where a name is counted.
#[derive(Clone, Copy, Default)]
pub struct Place {
    set: usize,
    /// Distinguishes the name from others of the set.
    tag: u64,
}

/// A table of bounded memory.
pub struct QueryCounts {
    /// Of the hash. They are random, so that nobody can choose names with equal hashes.
    keys: [u64; 2],
    sets: Box<[Set]>,
    /// Bytes of names, and how many there may be.
    name_bytes: AtomicUsize,
    name_capacity: usize,
    /// Queries for names that no list can hold.
    unlistable: AtomicU64,
}

#[repr(align(64))]
#[derive(Default)]
struct Set {
    slots: Mutex<Slots>,
    /// Queries for names of this set that no slot has.
    uncounted: AtomicU32,
}

const _: () = assert!(size_of::<Set>() == 384);

/// A slot with a count of zero is empty. The names come last: most queries do not need them.
#[repr(C)]
#[derive(Default)]
struct Slots {
    tags: [u64; SLOTS],
    counts: [u32; SLOTS],
    names: [Option<ThinArc<(), u8>>; SLOTS],
}

impl QueryCounts {
    pub fn new(bytes: usize) -> QueryCounts {
        let name_capacity = bytes / NAMES_SHARE;
        let count = ((bytes - name_capacity) / size_of::<Set>()).max(1);
        let mut sets = in_huge_pages(count);
        sets.resize_with(count, Set::default);
        let (sets, name_bytes, unlistable) = (sets.into(), AtomicUsize::new(0), AtomicU64::new(0));
        QueryCounts { keys: [random(), random()], sets, name_bytes, name_capacity, unlistable }
    }

    /// The place of a name, whose memory is prefetched.
    pub fn place(&self, name: &Text) -> Place {
        let mut hasher = SipHasher13::new_with_keys(self.keys[0], self.keys[1]);
        hasher.write(name.as_bytes());
        let hash = hasher.finish128();
        let set = ((u128::from(hash.h1) * self.sets.len() as u128) >> 64) as usize;
        prefetch(&self.sets[set], PREFETCHED);
        Place { set, tag: hash.h2 }
    }

    /// Counts a query. It never waits: while the set is in use elsewhere, the query is uncounted.
    pub fn count(&self, name: &Text, Place { set, tag }: Place) {
        let Some(set) = self.sets.get(set) else { return };
        let mut slots = match set.slots.try_lock() {
            Ok(slots) => slots,
            Err(TryLockError::Poisoned(slots)) => slots.into_inner(),
            Err(TryLockError::WouldBlock) => {
                set.uncounted.fetch_add(1, Relaxed);
                return;
            }
        };
        if let Some(slot) = slots.find(tag) {
            slots.counts[slot] = slots.counts[slot].saturating_add(1);
            if slots.counts[slot] >= SHOWN_FROM && slots.names[slot].is_none() {
                self.store(&mut slots, slot, name.as_bytes());
            }
        } else if is_listable(name.as_bytes()) {
            let (evicted, evicted_name) = slots.replace(tag);
            set.uncounted.fetch_add(evicted, Relaxed);
            self.subtract(evicted_name);
        } else {
            self.unlistable.fetch_add(1, Relaxed);
        }
    }

    /// Stores the name of a slot. Without memory for it, a name of the set with fewer queries is removed.
    fn store(&self, slots: &mut Slots, slot: usize, name: &[u8]) {
        if self.name_bytes.load(Relaxed) + memory(name) > self.name_capacity {
            let Some(fewer) = slots.fewest_named(slots.counts[slot]) else { return };
            self.subtract(slots.names[fewer].take());
            if self.name_bytes.load(Relaxed) + memory(name) > self.name_capacity {
                return;
            }
        }
        self.name_bytes.fetch_add(memory(name), Relaxed);
        slots.names[slot] = Some(ThinArc::from_header_and_slice((), name));
    }

    fn subtract(&self, name: Option<ThinArc<(), u8>>) {
        if let Some(name) = name {
            self.name_bytes.fetch_sub(memory(&name.slice), Relaxed);
        }
    }

    /// The counts so far. `clears`: the counts start again at zero.
    ///
    /// Each query is in the result exactly once, or in the next one.
    pub fn counted(&self, clears: bool) -> Counted {
        let queries = match clears {
            true => self.unlistable.swap(0, Relaxed),
            false => self.unlistable.load(Relaxed),
        };
        let mut counted = Counted { queries, ..Counted::default() };
        for set in &self.sets {
            let mut slots = lock(&set.slots);
            let uncounted = match clears {
                true => set.uncounted.swap(0, Relaxed),
                false => set.uncounted.load(Relaxed),
            };
            let mut most_unnamed = 0;
            for slot in 0..SLOTS {
                let count = slots.counts[slot];
                counted.queries += u64::from(count);
                match &slots.names[slot] {
                    Some(name) => counted.names.push((name.clone(), u64::from(count))),
                    None => most_unnamed = most_unnamed.max(count),
                }
            }
            counted.queries += u64::from(uncounted);
            counted.bound = counted.bound.max(u64::from(uncounted) + u64::from(most_unnamed));
            if clears {
                let emptied = std::mem::take(&mut *slots);
                drop(slots);
                emptied.names.into_iter().for_each(|name| self.subtract(name));
            }
        }
        counted.names.sort_unstable_by(|a, b| a.0.slice.cmp(&b.0.slice));
        counted
    }

    /// Bytes of memory: those of the table, and the most that names may use.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.sets) + self.name_capacity
    }

    /// Bytes of the stored names.
    pub fn name_bytes(&self) -> usize {
        self.name_bytes.load(Relaxed)
    }
}

impl Slots {
    fn find(&self, tag: u64) -> Option<usize> {
        (0..SLOTS).find(|&slot| self.tags[slot] == tag && self.counts[slot] > 0)
    }

    /// Starts to count a name, in an empty slot or in that of the name with the fewest queries. Returns the
    /// queries of that name.
    fn replace(&mut self, tag: u64) -> (u32, Option<ThinArc<(), u8>>) {
        let slot = (0..SLOTS).min_by_key(|&slot| self.counts[slot]).unwrap_or(0);
        let evicted = std::mem::replace(&mut self.counts[slot], 1);
        self.tags[slot] = tag;
        (evicted, self.names[slot].take())
    }

    /// The slot with the fewest queries among those that have a name, if these are fewer than `count`.
    fn fewest_named(&self, count: u32) -> Option<usize> {
        let named = (0..SLOTS).filter(|&slot| self.names[slot].is_some() && self.counts[slot] < count);
        named.min_by_key(|&slot| self.counts[slot])
    }
}

/// Bytes of memory for a stored name.
fn memory(name: &[u8]) -> usize {
    (name.len() + OVERHEAD).next_multiple_of(16)
}

/// Whether a list can hold the name. Other names cannot be written as text; the root is one.
fn is_listable(name: &[u8]) -> bool {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && name.iter().all(is_allowed)
}

#[cfg(test)]
mod tests;
