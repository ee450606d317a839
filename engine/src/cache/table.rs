//! The table of kept answers: sets of a few places, each in two cache lines with a
//! lock of its own, so that what a batch of queries will look at can be asked of the
//! memory beforehand, and nobody waits for a lock longer than a look at one set.
//!
//! Which answer makes room is a clock's choice: each hit winds an answer up a little,
//! a hand that goes round winds down, and takes what has run down. A new answer is
//! not wound up before it is asked for a second time, so a scan of names that nobody
//! asks for again drives out none that are asked for.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::{CachedResponse, Key};
use crate::events::lock;
use crate::sys::{in_huge_pages, prefetch};

/// Places of a set: what fits into two cache lines.
const WAYS: usize = 10;
/// Hits that count at most.
const MOST_WOUND: u8 = 3;
/// Octets of an answer of usual size, by which the table is laid out.
const USUAL: u64 = 256;
/// Places for each answer of usual size, in tenths.
const ROOM: u64 = 13;
/// What the allocator takes for an answer beside its octets.
const OVERHEAD: usize = 16;

/// A table of bounded memory.
pub struct Table {
    sets: Box<[Set]>,
    /// Octets for the table and what is in it.
    capacity: u64,
    /// Octets of what is in it.
    octets: AtomicU64,
    entries: AtomicUsize,
    evicted: AtomicU64,
    /// The set that makes room next.
    hand: AtomicUsize,
}

#[repr(align(128))]
#[derive(Default)]
struct Set(Mutex<Ways>);

const _: () = assert!(size_of::<Set>() == 128);

#[derive(Default)]
struct Ways {
    /// Of each answer a part of the hash that did not choose the set.
    tags: [u16; WAYS],
    wound: [u8; WAYS],
    hand: u8,
    kept: [Option<CachedResponse>; WAYS],
}

impl Table {
    pub fn new(capacity: u64) -> Table {
        let sets = (capacity * ROOM / 10 / USUAL / WAYS as u64).max(1).next_power_of_two() as usize;
        let mut places = in_huge_pages(sets);
        places.resize_with(sets, Set::default);
        Table {
            sets: places.into(),
            capacity,
            octets: AtomicU64::new((sets * size_of::<Set>()) as u64),
            entries: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
            hand: AtomicUsize::new(0),
        }
    }

    /// Asks for the memory that `prefetch_response` and `find` look at first.
    pub fn prefetch_set(&self, hash: u64) {
        prefetch(self.set(hash), size_of::<Set>());
    }

    /// Asks for the memory of the answer itself, once that of its set is there.
    pub fn prefetch_response(&self, hash: u64) {
        let ways = lock(&self.set(hash).0);
        if let Some(kept) = ways.tagged(hash).find_map(|way| ways.kept[way].as_ref()) {
            kept.warm();
        }
    }

    pub fn find(&self, key: Key<'_>) -> Option<CachedResponse> {
        let mut ways = lock(&self.set(key.hash()).0);
        let way = ways.way_of(key)?;
        ways.wound[way] = (ways.wound[way] + 1).min(MOST_WOUND);
        ways.kept[way].clone()
    }

    /// Puts an answer into the place of an earlier one to the same question, else of
    /// none, else of what has run down.
    pub fn insert(&self, key: Key<'_>, kept: CachedResponse) {
        self.octets.fetch_add(weight(&kept), Relaxed);
        self.entries.fetch_add(1, Relaxed);
        let before = {
            let mut ways = lock(&self.set(key.hash()).0);
            let same = ways.way_of(key);
            let way = same.or_else(|| ways.kept.iter().position(Option::is_none));
            let way = way.unwrap_or_else(|| ways.run_down());
            if same.is_none() {
                ways.wound[way] = 0;
                self.evicted.fetch_add(u64::from(ways.kept[way].is_some()), Relaxed);
            }
            ways.tags[way] = tag(key.hash());
            ways.kept[way].replace(kept)
        };
        self.forget(before);
        self.make_room();
    }

    /// Takes out the answer to this question.
    pub fn remove(&self, key: Key<'_>) {
        let gone = {
            let mut ways = lock(&self.set(key.hash()).0);
            ways.way_of(key).and_then(|way| ways.kept[way].take())
        };
        self.forget(gone);
    }

    /// Takes out one answer after the other until all are within the capacity.
    fn make_room(&self) {
        // Each round winds down; after the last one all that is left has gone.
        for _ in 0..self.sets.len() * (usize::from(MOST_WOUND) + WAYS) {
            if self.octets() <= self.capacity {
                return;
            }
            let hand = self.hand.fetch_add(1, Relaxed) & (self.sets.len() - 1);
            let gone = lock(&self.sets[hand].0).let_go();
            self.evicted.fetch_add(u64::from(gone.is_some()), Relaxed);
            self.forget(gone);
        }
    }

    /// Takes out what `is_dropped` says; returns how many answers that were.
    pub fn drop_where(&self, is_dropped: impl Fn(&CachedResponse) -> bool) -> usize {
        let mut dropped = 0;
        for set in &self.sets {
            for way in 0..WAYS {
                let gone = lock(&set.0).kept[way].take_if(|kept| is_dropped(kept));
                dropped += usize::from(gone.is_some());
                self.forget(gone);
            }
        }
        dropped
    }

    /// Notes that an answer is no longer there.
    fn forget(&self, gone: Option<CachedResponse>) {
        if let Some(gone) = gone {
            self.octets.fetch_sub(weight(&gone), Relaxed);
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

    /// Octets of memory, those of the table itself included.
    pub fn octets(&self) -> u64 {
        self.octets.load(Relaxed)
    }

    /// Answers that had to make room so far.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }
}

impl Ways {
    fn tagged(&self, hash: u64) -> impl Iterator<Item = usize> + '_ {
        (0..WAYS).filter(move |&way| self.tags[way] == tag(hash))
    }

    fn way_of(&self, key: Key<'_>) -> Option<usize> {
        self.tagged(key.hash()).find(|&way| self.kept[way].as_ref().is_some_and(|kept| kept.answers(key)))
    }

    /// A place whose answer has run down; winds down until there is one.
    fn run_down(&mut self) -> usize {
        loop {
            for _ in 0..WAYS {
                self.hand = (self.hand + 1) % WAYS as u8;
                if self.wound[usize::from(self.hand)] == 0 {
                    return usize::from(self.hand);
                }
            }
            self.wound.iter_mut().for_each(|wound| *wound -= 1);
        }
    }

    /// Takes out an answer that has run down; else winds down all of them.
    fn let_go(&mut self) -> Option<CachedResponse> {
        let run_down = (0..WAYS).find(|&way| self.wound[way] == 0 && self.kept[way].is_some());
        if run_down.is_none() {
            self.wound.iter_mut().for_each(|wound| *wound = wound.saturating_sub(1));
        }
        self.kept[run_down?].take()
    }
}

fn tag(hash: u64) -> u16 {
    (hash >> 48) as u16
}

fn weight(kept: &CachedResponse) -> u64 {
    (OVERHEAD + kept.memory()) as u64
}
