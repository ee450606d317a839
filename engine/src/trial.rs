//! A trial: what a zone would block if it were enforced behind all others, counted
//! entry by entry while every query is answered as if it were not there.
//!
//! Nothing about clients and no queried name is kept, only how often an entry of the
//! zone would have decided.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::counters::Counters;
use crate::message::{Query, Transport};
use crate::name::{Name, Walk};
use crate::policy::{PolicyZone, Snapshot, Supposed};
use crate::response::Response;
use crate::targets::would_block_target;

pub struct Trial {
    zone: Arc<PolicyZone>,
    /// By the entry's rank.
    entries: Box<[Entry]>,
    /// Of the worker threads, for the queries that have nothing to do with the zone.
    counters: Vec<Arc<Counters>>,
    tried_before: u64,
}

/// How often a name was met; 32 bits are a million queries a second for an hour.
#[derive(Default)]
struct Entry {
    /// The zone would have blocked the query.
    blocked: AtomicU32,
    /// A zone that is enforced decides about it already.
    decided: AtomicU32,
}

/// What a trial has counted so far.
#[derive(Debug, Default, PartialEq)]
pub struct Tally {
    /// Queries that were decided, whatever their name.
    pub queries: u64,
    /// Of them, those that the zone would have blocked.
    pub blocked: u64,
    /// And those for its names about which a zone that is enforced decides.
    pub decided: u64,
    /// Names by which at least one query would have been blocked.
    pub blocking_names: usize,
    /// Names that were asked for, blocked by others already or not.
    pub asked_names: usize,
    /// The names by which most would have been blocked, and how many.
    pub top: Vec<(String, u64)>,
}

impl Trial {
    pub fn new(zone: Arc<PolicyZone>, counters: Vec<Arc<Counters>>) -> Trial {
        let entries = (0..zone.names().entries()).map(|_| Entry::default()).collect();
        let mut trial = Trial { zone, entries, counters, tried_before: 0 };
        trial.tried_before = trial.tried();
        trial
    }

    pub fn zone(&self) -> &PolicyZone {
        &self.zone
    }

    /// Counts a query: called by worker threads, so an atomic addition and no more.
    pub fn count(&self, name: &Name, walk: &Walk, transport: Transport, snapshot: &Snapshot) {
        let Some((_, rank)) = self.zone.would_block(name, walk, transport) else { return };
        let Some(entry) = self.entries.get(rank as usize) else { return };
        let is_decided = snapshot.decides(name, walk, transport, snapshot.zones().len());
        let count = if is_decided { &entry.decided } else { &entry.blocked };
        count.fetch_add(1, Relaxed);
    }

    /// Counts an answer that a client gets, if the zone would block it for where it
    /// leads; whether it would.
    pub fn count_target(
        &self,
        query: &Query,
        response: Response<'_>,
        allowed_by: Option<usize>,
        snapshot: &Snapshot,
    ) -> bool {
        let supposed = Supposed { zone: &self.zone, after: snapshot.zones().len(), judges_targets: true };
        let blocked = would_block_target(query, response, allowed_by, snapshot, supposed);
        let entry = blocked.and_then(|(_, rank)| self.entries.get(rank as usize));
        let Some(entry) = entry else { return false };
        entry.blocked.fetch_add(1, Relaxed);
        true
    }

    /// What was counted so far, with at most so many names.
    pub fn tally(&self, top: usize) -> Tally {
        let mut tally = Tally::default();
        let mut most = BinaryHeap::new();
        for (rank, entry) in self.entries.iter().enumerate() {
            let (blocked, decided) = (entry.blocked.load(Relaxed), entry.decided.load(Relaxed));
            tally.blocked += u64::from(blocked);
            tally.decided += u64::from(decided);
            tally.blocking_names += usize::from(blocked > 0);
            tally.asked_names += usize::from(blocked > 0 || decided > 0);
            if blocked > 0 {
                most.push(Reverse((blocked, Reverse(rank as u64))));
            }
            if most.len() > top {
                most.pop();
            }
        }
        // After the entries: a query is counted here first, so the part is never more than the whole.
        tally.queries = self.tried() - self.tried_before;
        tally.top =
            self.named(most.into_iter().map(|Reverse((count, Reverse(rank)))| (rank, count)).collect());
        tally
    }

    fn tried(&self) -> u64 {
        self.counters.iter().map(|counters| counters.tried.get()).sum()
    }

    /// Counts with their names, the highest first.
    fn named(&self, counts: HashMap<u64, u32>) -> Vec<(String, u64)> {
        let (found, mut named) = (Cell::new(None), Vec::new());
        let wants = |rank| {
            found.set(counts.get(&rank).copied());
            found.get().is_some()
        };
        if !counts.is_empty() {
            self.zone.names().each(
                |rank, _| wants(rank),
                |text, _| {
                    let name = String::from_utf8_lossy(text.as_bytes()).into_owned();
                    named.push((name, u64::from(found.get().unwrap_or_default())));
                },
            );
        }
        named.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        named
    }
}
