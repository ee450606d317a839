//! The queries that a zone would have blocked on past days, from the counts of queried names.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use super::day::{Corrupt, Day, Lines};
use crate::message::{QueryClient, Transport};
use crate::name::{Name, Walk};
use crate::policy::names::SEED;
use crate::policy::{Match, PolicyZone, Shadow, Snapshot};

/// The effect of a zone, if it had come after all zones that are enforced now.
#[derive(Debug, Default, PartialEq)]
pub struct PastImpact {
    /// All queries of these days.
    pub queries: u64,
    /// Those for the stored names. The others are the error of all sums.
    pub listed: u64,
    /// The most queries that are missing in the count of any name, over all days.
    pub bound: u64,
    /// Queries that the zone would have blocked, and no other zone blocks now: at least, and at most.
    pub blocked: u64,
    pub blocked_at_most: u64,
    /// Those for its names that an enforced zone decides now.
    pub decided: u64,
    /// Entries that would have blocked a stored name.
    pub blocking_entries: usize,
    /// Entries with a stored name, whether or not another zone decides it now.
    pub queried_entries: usize,
    /// By day, as `blocked`.
    pub blocked_by_day: Vec<u64>,
    /// The entries that would have blocked the most queries: name, match, and queries at least and at most.
    pub entries: Vec<PastEntry>,
    /// The most queried names that would have been blocked.
    pub names: Vec<(String, u64)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PastEntry {
    pub name: String,
    pub covers: Match,
    pub queries: u64,
    pub at_most: u64,
}

/// `top`: the most entries and names in the result.
pub fn past_impact(
    zone: Arc<PolicyZone>,
    snapshot: &Snapshot,
    days: &[Day],
    top: usize,
) -> Result<PastImpact, Corrupt> {
    let mut sums = Sums {
        shadow: Shadow::after_all(zone),
        snapshot,
        top,
        by_entry: HashMap::new(),
        names: BinaryHeap::new(),
    };
    let mut impact = PastImpact { blocked_by_day: vec![0; days.len()], ..PastImpact::default() };
    for day in days {
        impact.queries = impact.queries.saturating_add(day.head.queries);
        impact.bound = impact.bound.saturating_add(day.head.bound);
    }
    let mut merged = Merged::open(days)?;
    while let Some((name, counts)) = merged.next()? {
        sums.add(&name, &counts, &mut impact);
    }
    sums.finish(&mut impact);
    Ok(impact)
}

struct Sums<'a> {
    shadow: Shadow,
    snapshot: &'a Snapshot,
    top: usize,
    /// Blocked queries by the rank of the entry; 0 for entries whose names are all decided.
    by_entry: HashMap<u64, u64>,
    names: BinaryHeap<(Reverse<u64>, String)>,
}

impl Sums<'_> {
    /// Adds a name with its counts by day.
    fn add(&mut self, text: &[u8], counts: &[(usize, u64)], impact: &mut PastImpact) {
        let queries = counts.iter().fold(0u64, |sum, (_, count)| sum.saturating_add(*count));
        impact.listed = impact.listed.saturating_add(queries);
        let Ok(name) = Name::from_text(text) else { return };
        let walk = Walk::new(&name, SEED);
        let client = QueryClient::anybody(Transport::Udp);
        let Some(found) = self.snapshot.would_block(&self.shadow, &name, &walk, client) else { return };
        let sum = self.by_entry.entry(found.rank).or_default();
        if found.is_decided {
            impact.decided = impact.decided.saturating_add(queries);
            return;
        }
        *sum = sum.saturating_add(queries);
        impact.blocked = impact.blocked.saturating_add(queries);
        for (day, count) in counts {
            impact.blocked_by_day[*day] = impact.blocked_by_day[*day].saturating_add(*count);
        }
        self.names.push((Reverse(queries), name.to_string()));
        if self.names.len() > self.top {
            self.names.pop();
        }
    }

    fn finish(self, impact: &mut PastImpact) {
        impact.names = self.names.into_sorted_vec().into_iter().map(|(Reverse(n), name)| (name, n)).collect();
        impact.queried_entries = self.by_entry.len();
        impact.blocking_entries = self.by_entry.values().filter(|queries| **queries > 0).count();
        // All that the counts lack, of whatever name.
        let rest = impact.queries.saturating_sub(impact.listed);
        let mut most: Vec<_> = self.by_entry.iter().filter(|(_, queries)| **queries > 0).collect();
        most.sort_unstable_by_key(|(rank, queries)| (Reverse(**queries), **rank));
        most.truncate(self.top);
        let most: HashMap<u64, u64> = most.into_iter().map(|(rank, queries)| (*rank, *queries)).collect();
        let (mut names, mut covers_more, mut entries) = (0u64, false, Vec::new());
        self.shadow.zone.each(
            |rank, scope| {
                names += u64::from(scope.at.is_some());
                covers_more |= scope.under.is_some();
                most.contains_key(&rank)
            },
            |rank, text, scope| {
                let (Some(queries), Some(covers)) = (most.get(&rank), covers(scope.at, scope.under)) else {
                    return;
                };
                let error = if covers == Match::Exact { rest.min(impact.bound) } else { rest };
                let name = String::from_utf8_lossy(text.as_bytes()).into_owned();
                entries.push(PastEntry { name, covers, queries: *queries, at_most: queries + error });
            },
        );
        entries.sort_by(|a, b| b.queries.cmp(&a.queries).then_with(|| a.name.cmp(&b.name)));
        impact.entries = entries;
        let error = if covers_more { rest } else { rest.min(impact.bound.saturating_mul(names)) };
        impact.blocked_at_most = impact.blocked.saturating_add(error);
    }
}

/// The names that the entries of an owner cover together.
fn covers(at: Option<(Match, u32)>, under: Option<(Match, u32)>) -> Option<Match> {
    match (at, under) {
        (Some(_), Some(_)) => Some(Match::Subtree),
        (Some(_), None) => Some(Match::Exact),
        (None, Some(_)) => Some(Match::Below),
        (None, None) => None,
    }
}

/// The names of all days, each once, in order.
struct Merged<'a> {
    days: Vec<Lines<'a>>,
    /// The next name of each day, and the day.
    next: BinaryHeap<Reverse<(Vec<u8>, usize)>>,
}

/// A name with its counts by day.
type Merging = (Vec<u8>, Vec<(usize, u64)>);

impl<'a> Merged<'a> {
    fn open(days: &'a [Day]) -> Result<Merged<'a>, Corrupt> {
        let days: Vec<_> = days.iter().map(Day::lines).collect::<Result<_, _>>()?;
        let mut merged = Merged { next: BinaryHeap::with_capacity(days.len()), days };
        for day in 0..merged.days.len() {
            merged.advance(day)?;
        }
        Ok(merged)
    }

    fn advance(&mut self, day: usize) -> Result<(), Corrupt> {
        let lines = &mut self.days[day];
        if lines.advance()? {
            self.next.push(Reverse((lines.name.clone(), day)));
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Merging>, Corrupt> {
        let Some(Reverse((name, first))) = self.next.pop() else { return Ok(None) };
        let mut counts = vec![(first, self.days[first].count)];
        self.advance(first)?;
        while let Some(Reverse((other, day))) = self.next.peek() {
            if *other != name {
                break;
            }
            let day = *day;
            self.next.pop();
            counts.push((day, self.days[day].count));
            self.advance(day)?;
        }
        Ok(Some((name, counts)))
    }
}
