//! An impact run: counts for each entry of a zone how many queries it would block if the zone
//! came after all enforced zones.
//!
//! It is a shadow zone beside the snapshot, with a counter for each entry. It stores no
//! client addresses and no queried names.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::counters::Counters;
use crate::policy::{PolicyZone, Shadow, ShadowMatch};

pub struct ImpactRun {
    shadow: Shadow,
    /// By the entry's rank.
    entries: Box<[EntryCounts]>,
    /// Of the worker threads, for the number of all queries.
    counters: Vec<Arc<Counters>>,
    queries_before: u64,
}

/// The queries that matched an entry. 32 bits last for an hour of a million queries a second.
#[derive(Default)]
struct EntryCounts {
    /// The entry would block these.
    blocked: AtomicU32,
    /// An enforced zone decides these already.
    decided: AtomicU32,
}

/// The counts of an impact run so far.
#[derive(Debug, Default, PartialEq)]
pub struct ImpactCounts {
    /// Decided queries, for any name.
    pub queries: u64,
    /// Those that the zone would block.
    pub blocked: u64,
    /// Those for its names that an enforced zone decides already.
    pub decided: u64,
    /// Names that would block at least one query.
    pub blocking_names: usize,
    /// Queried names, whether or not another zone decides them already.
    pub queried_names: usize,
    /// The names that would block the most queries, highest count first.
    pub top: Vec<(String, u64)>,
}

impl ImpactRun {
    pub fn new(zone: Arc<PolicyZone>, counters: Vec<Arc<Counters>>) -> ImpactRun {
        let entries = (0..zone.ranks()).map(|_| EntryCounts::default()).collect();
        let mut run = ImpactRun { shadow: Shadow::after_all(zone), entries, counters, queries_before: 0 };
        run.queries_before = run.queries();
        run
    }

    pub fn shadow(&self) -> &Shadow {
        &self.shadow
    }

    /// Counts a query that an entry of the zone matches. Called by worker threads.
    pub fn count(&self, found: ShadowMatch) {
        if let Some(entry) = self.entries.get(found.rank as usize) {
            let count = if found.is_decided { &entry.decided } else { &entry.blocked };
            count.fetch_add(1, Relaxed);
        }
    }

    /// The counts so far, with at most `top` names.
    pub fn counts(&self, top: usize) -> ImpactCounts {
        let mut counts = ImpactCounts::default();
        let mut most = BinaryHeap::new();
        for (rank, entry) in self.entries.iter().enumerate() {
            let (blocked, decided) = (entry.blocked.load(Relaxed), entry.decided.load(Relaxed));
            counts.blocked += u64::from(blocked);
            counts.decided += u64::from(decided);
            counts.blocking_names += usize::from(blocked > 0);
            counts.queried_names += usize::from(blocked > 0 || decided > 0);
            if blocked > 0 {
                most.push(Reverse((blocked, Reverse(rank as u64))));
            }
            if most.len() > top {
                most.pop();
            }
        }
        // Read after the entries: a worker counts the query first, so no part exceeds the total.
        counts.queries = self.queries() - self.queries_before;
        counts.top =
            self.named(most.into_iter().map(|Reverse((count, Reverse(rank)))| (rank, count)).collect());
        counts
    }

    fn queries(&self) -> u64 {
        self.counters.iter().map(|counters| counters.impact_queries.get()).sum()
    }

    /// Counts with the names of their entries, highest first.
    fn named(&self, counts: HashMap<u64, u32>) -> Vec<(String, u64)> {
        let mut named = Vec::new();
        if !counts.is_empty() {
            self.shadow.zone.each(
                |rank, _| counts.contains_key(&rank),
                |rank, text, _| {
                    let name = String::from_utf8_lossy(text.as_bytes()).into_owned();
                    named.push((name, u64::from(counts[&rank])));
                },
            );
        }
        named.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        named
    }
}
