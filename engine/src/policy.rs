//! Policy zones: build, look up, explain.
//!
//! A policy zone is one issuer's orders or one list, compiled; immutable once
//! built.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};

use crate::name::{Name, Walk};
use crate::prefix::{Prefix, Prefixes};
use crate::sys::{in_huge_pages, prefetch};

mod filter;
mod snapshot;
use filter::Filter;
pub use snapshot::{Decision, Part, Snapshot, ZoneInPlace};

/// What a policy zone may do with a query. The order is that of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Passthru,
    Sinkhole,
    Nxdomain,
    Nodata,
    Refused,
    Drop,
    /// TCP only: over UDP an empty answer with TC set, over TCP as if not listed.
    Truncate,
    Cname,
}

impl Action {
    pub const ALL: [(Action, &str); 8] = [
        (Action::Passthru, "passthru"),
        (Action::Sinkhole, "sinkhole"),
        (Action::Nxdomain, "nxdomain"),
        (Action::Nodata, "nodata"),
        (Action::Refused, "refused"),
        (Action::Drop, "drop"),
        (Action::Truncate, "truncate"),
        (Action::Cname, "cname"),
    ];

    pub fn name(self) -> &'static str {
        Action::ALL[self as usize].1
    }

    pub fn from_name(name: &str) -> Option<Action> {
        Action::ALL.iter().find(|(_, known)| *known == name).map(|(action, _)| *action)
    }
}

/// An answer profile: what a blocked name is answered with.
#[derive(Clone, Debug)]
pub struct Answer {
    pub action: Action,
    /// Seconds; of addresses, of the CNAME and of the SOA of a negative answer.
    pub ttl: u32,
    /// RFC 8914 INFO-CODE that tells why: 15 Blocked, 16 Censored, 17 Filtered.
    pub extended_error: Option<u16>,
    pub ipv4: Vec<Ipv4Addr>,
    pub ipv6: Vec<Ipv6Addr>,
    /// Where `Action::Cname` leads.
    pub target: Option<Target>,
}

/// Where a CNAME of ours leads.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    Name(Name),
    /// The queried name, under this one: RPZ's `CNAME *.garden.example.`
    /// (draft-vixie-dnsop-dns-rpz-00 section 3.6).
    Under(Name),
}

impl Target {
    /// Where it leads for this query; `None` if that name is too long.
    pub fn of(&self, queried: &Name) -> Option<Name> {
        match self {
            Target::Name(name) => Some(name.clone()),
            Target::Under(parent) => queried.under(parent),
        }
    }
}

/// What a client that reads structured errors is told in the place of the
/// reference: I-JSON (draft-ietf-dnsop-structured-dns-error).
#[derive(Clone, Debug)]
pub struct Structured {
    pub whole: Box<str>,
    /// Without what can be left out, for where the whole does not fit.
    pub brief: Box<str>,
}

/// What one entry does to the names it matches.
#[derive(Clone, Debug)]
pub enum Rule {
    /// No match here: the next zone is asked (an `exempt` entry).
    Hole,
    /// `reference` is the order's own number; empty for a list.
    Answer { answer: Arc<Answer>, reference: Box<str>, structured: Option<Box<Structured>> },
}

impl Rule {
    fn is(&self, wanted: Action) -> bool {
        matches!(self, Rule::Answer { answer, .. } if answer.action == wanted)
    }

    /// The rule as it enters the digest: all that a client can notice.
    fn canonical(&self) -> String {
        let Rule::Answer { answer, reference, structured } = self else {
            return "hole".to_string();
        };
        let mut text = format!("{} ttl={} ede={:?}", answer.action.name(), answer.ttl, answer.extended_error);
        let _ = write!(text, " ipv4={:?} ipv6={:?} target={:?}", answer.ipv4, answer.ipv6, answer.target);
        let _ = write!(text, " reference={reference:?}");
        if let Some(structured) = structured {
            let _ = write!(text, " structured={structured:?}");
        }
        text
    }
}

/// Which names an entry covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    /// The name alone.
    Exact,
    /// The name and everything below it.
    Subtree,
    /// Only what is below; RPZ's `*.name`.
    Below,
}

impl Match {
    pub const ALL: [(Match, &str); 3] =
        [(Match::Exact, "exact"), (Match::Subtree, "subtree"), (Match::Below, "below")];

    pub fn name(self) -> &'static str {
        Match::ALL[self as usize].1
    }

    pub fn from_name(name: &str) -> Option<Match> {
        Match::ALL.iter().find(|(_, known)| *known == name).map(|(scope, _)| *scope)
    }
}

//------- PolicyZone ---------------------------------------------------------

/// One issuer's orders or one source, compiled for lookup.
///
/// A hash table of 8-octet slots (24 bits of fingerprint, 40 bits of place)
/// leads into an arena that holds each owner name once, as its place in
/// `scopes` (4 octets), its length (1) and its wire format. The name itself is
/// compared in the end: a fingerprint alone would block names nobody ordered.
///
/// A zone may hold addresses instead, which are asked for where an upstream's
/// answer leads (RPZ's trigger RPZ-IP); the first rule is theirs.
pub struct PolicyZone {
    name: String,
    rules: Vec<Rule>,
    scopes: Vec<Scope>,
    slots: Vec<u64>,
    filter: Filter,
    arena: Vec<u8>,
    addresses: Prefixes,
    entries: usize,
    duplicates: usize,
    /// Fewest and most labels of any owner: lengths that no owner has are not
    /// looked up.
    fewest_labels: usize,
    most_labels: usize,
    digest: [u8; 32],
    above_exceptions: OnceLock<HashSet<u64>>,
}

/// What an owner's entries say about the name itself and about what is below:
/// places in `rules`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Scope {
    at: Option<(Match, u32)>,
    under: Option<(Match, u32)>,
}

/// An entry as the compiler takes it.
pub struct Entry<'a> {
    pub name: &'a Name,
    pub scope: Match,
    /// Place in the zone's rules.
    pub rule: u32,
}

/// An entry that covers a name.
#[derive(Clone, Copy)]
pub struct Found<'a> {
    /// Labels of the queried name that stand before the entry's owner name.
    pub skip: usize,
    pub scope: Match,
    pub rule: &'a Rule,
}

/// A lookup of the zone's own entries failed: the table has lost a name.
#[derive(Debug)]
pub struct IndexBroken;

const FINGERPRINT: u64 = !((1 << 40) - 1);
const RECORD_HEAD: usize = 5;
/// Octets of an owner's record of usual size.
const OWNER: usize = 32;

impl PolicyZone {
    /// Looks `name` up; `walk` holds the hashes of its suffixes.
    ///
    /// The longest owner decides; no limit on depth in either name.
    pub fn find(&self, name: &Name, walk: &Walk) -> Option<Found<'_>> {
        self.skips(name.labels()).find_map(|skip| self.entry_at(name, walk, skip))
    }

    /// Asks for a part of the memory that `find` looks at; the parts before must be
    /// there. With a list far larger than the processor's caches, `find` does little
    /// but wait for it: asked for all queries of a batch, the waits go by together.
    pub fn warm(&self, labels: usize, walk: &Walk, part: Part) {
        let Some(mask) = self.slots.len().checked_sub(1) else { return };
        for hash in self.skips(labels).map(|skip| walk.hash(skip)) {
            if part == Part::Filter {
                self.filter.warm(hash);
                continue;
            }
            if !self.filter.may_hold(hash) {
                continue;
            }
            let slot = &self.slots[hash as usize & mask];
            match part {
                Part::Filter => {}
                Part::Slots => prefetch(slot, size_of::<u64>()),
                Part::Owners if *slot != 0 && (*slot ^ hash) & FINGERPRINT == 0 => {
                    prefetch(&self.arena[(*slot & !FINGERPRINT) as usize - 1], OWNER);
                }
                Part::Owners => {}
            }
        }
    }

    /// How many labels of a name of so many are to be left out, one after the other:
    /// suffixes of lengths that no owner has are not looked up.
    fn skips(&self, labels: usize) -> Range<usize> {
        labels.saturating_sub(self.most_labels)..(labels + 1).saturating_sub(self.fewest_labels).min(labels)
    }

    /// Every entry of this zone that covers `name`, the deciding one first.
    pub fn covering(&self, name: &Name, walk: &Walk) -> Vec<Found<'_>> {
        (0..name.labels()).filter_map(|skip| self.entry_at(name, walk, skip)).collect()
    }

    /// The entry whose owner is the suffix that leaves out `skip` labels, if
    /// it covers the whole name.
    fn entry_at(&self, name: &Name, walk: &Walk, skip: usize) -> Option<Found<'_>> {
        let scope = self.scope(self.place(walk.hash(skip), name.suffix(skip))?);
        let (scope, rule) = if skip == 0 { scope.at? } else { scope.under? };
        Some(Found { skip, scope, rule: &self.rules[rule as usize] })
    }

    /// Where the owner stands in the arena.
    fn place(&self, hash: u64, owner: &[u8]) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        if !self.filter.may_hold(hash) {
            return None;
        }
        let mut slot = hash as usize & mask;
        loop {
            let held = self.slots[slot];
            if held == 0 {
                return None;
            }
            if (held ^ hash) & FINGERPRINT == 0 {
                let place = (held & !FINGERPRINT) as usize - 1;
                if self.owner(place) == owner {
                    return Some(place);
                }
            }
            slot = (slot + 1) & mask;
        }
    }

    fn owner(&self, place: usize) -> &[u8] {
        let length = self.arena[place + 4] as usize;
        &self.arena[place + RECORD_HEAD..place + RECORD_HEAD + length]
    }

    fn scope(&self, place: usize) -> Scope {
        let head = &self.arena[place..place + 4];
        self.scopes[u32::from_le_bytes(head.try_into().expect("a slice of four octets")) as usize]
    }

    /// Places of all owners, in the order in which they were added.
    fn places(&self) -> impl Iterator<Item = usize> + '_ {
        let mut next = 0;
        std::iter::from_fn(move || {
            let place = next;
            let length = *self.arena.get(place + 4)? as usize;
            next = place + RECORD_HEAD + length;
            Some(place)
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Distinct owner names, or prefixes of addresses.
    pub fn entries(&self) -> usize {
        self.entries + self.addresses.len()
    }

    /// Every prefix of this zone that holds the address, the longest first, and
    /// what the zone does about it.
    pub fn covering_address(&self, address: IpAddr) -> Vec<(Prefix, &Rule)> {
        self.addresses.covering(address).into_iter().map(|prefix| (prefix, &self.rules[0])).collect()
    }

    /// Entries that repeated an owner name and added nothing.
    pub fn duplicates(&self) -> usize {
        self.duplicates
    }

    /// SHA-256 over the sorted canonical rules; the same on every node that
    /// enforces the same thing.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Octets that the compiled zone takes.
    pub fn memory(&self) -> usize {
        let slots = self.slots.capacity() * size_of::<u64>();
        self.arena.capacity() + slots + self.filter.memory() + self.addresses.memory()
    }
}

//------- Builder ------------------------------------------------------------

/// Collects entries into a zone. Of entries that say different things about
/// one name at one length, `exact` beats `subtree` and `below`, then a hole
/// beats an answer (never enforce more than was ordered), then the earlier one
/// wins.
pub struct Builder {
    zone: PolicyZone,
    scope_places: HashMap<Scope, u32>,
}

impl Builder {
    /// `expected` is an upper bound of the entries to come; the table is laid
    /// out once for it.
    pub fn new(name: &str, rules: Vec<Rule>, expected: usize) -> Builder {
        let slots = (expected + expected / 3 + 2).next_power_of_two();
        let zone = PolicyZone {
            name: name.to_string(),
            rules,
            scopes: Vec::new(),
            slots: zeros(slots),
            filter: Filter::new(expected),
            arena: in_huge_pages(expected.saturating_mul(OWNER)),
            addresses: Prefixes::default(),
            entries: 0,
            duplicates: 0,
            fewest_labels: usize::MAX,
            most_labels: 0,
            digest: [0; 32],
            above_exceptions: OnceLock::new(),
        };
        Builder { zone, scope_places: HashMap::new() }
    }

    /// Adds one entry. `entry.rule` must be a place in the rules, and there
    /// may not be more entries than were announced.
    pub fn add(&mut self, entry: Entry<'_>) {
        let zone = &mut self.zone;
        let owner = entry.name.suffix(0);
        let hash = Walk::new(entry.name, seed()).hash(0);
        let known = zone.place(hash, owner);
        let before = known.map(|place| zone.scope(place)).unwrap_or_default();
        let scope = merge(&zone.rules, before, entry.scope, entry.rule);
        let next = zone.scopes.len() as u32;
        let scope_place = *self.scope_places.entry(scope).or_insert(next);
        if scope_place == next {
            zone.scopes.push(scope);
        }
        if let Some(place) = known {
            zone.arena[place..place + 4].copy_from_slice(&scope_place.to_le_bytes());
            zone.duplicates += usize::from(scope == before);
            return;
        }
        let place = zone.arena.len();
        zone.arena.extend_from_slice(&scope_place.to_le_bytes());
        zone.arena.push(owner.len() as u8);
        zone.arena.extend_from_slice(owner);
        zone.entries += 1;
        assert!(zone.entries < zone.slots.len(), "more entries than announced");
        assert!((place as u64) < !FINGERPRINT, "an arena of a terabyte");
        let mask = zone.slots.len() - 1;
        let mut slot = hash as usize & mask;
        while zone.slots[slot] != 0 {
            slot = (slot + 1) & mask;
        }
        zone.slots[slot] = (hash & FINGERPRINT) | (place as u64 + 1);
        zone.filter.add(hash);
        zone.fewest_labels = zone.fewest_labels.min(entry.name.labels());
        zone.most_labels = zone.most_labels.max(entry.name.labels());
    }

    /// Finishes the zone, and looks every entry up through the code that
    /// answers queries: an index that loses names is worse than none.
    pub fn finish(mut self) -> Result<PolicyZone, IndexBroken> {
        self.zone.arena.shrink_to_fit();
        self.zone.digest = self.zone.compute_digest();
        let zone = self.zone;
        for place in zone.places() {
            let (name, _) = Name::parse(zone.owner(place), 0).map_err(|_| IndexBroken)?;
            let walk = Walk::new(&name, seed());
            let found = zone.place(walk.hash(0), name.suffix(0)).ok_or(IndexBroken)?;
            let scope = zone.scope(place);
            let decided = zone.find(&name, &walk).filter(|found| found.skip == 0);
            if found != place || scope.at.is_some() != decided.is_some() {
                return Err(IndexBroken);
            }
        }
        Ok(zone)
    }
}

fn zeros(length: usize) -> Vec<u64> {
    let mut zeros = in_huge_pages(length);
    zeros.resize(length, 0);
    zeros
}

fn merge(rules: &[Rule], before: Scope, scope: Match, rule: u32) -> Scope {
    let rank =
        |(scope, rule): (Match, u32)| (scope == Match::Exact, matches!(rules[rule as usize], Rule::Hole));
    let better = |held: Option<(Match, u32)>| match held {
        Some(held) if rank(held) >= rank((scope, rule)) => Some(held),
        _ => Some((scope, rule)),
    };
    Scope {
        at: if scope == Match::Below { before.at } else { better(before.at) },
        under: if scope == Match::Exact { before.under } else { better(before.under) },
    }
}

impl PolicyZone {
    /// A zone of addresses.
    pub fn of_addresses(name: &str, rule: Rule, prefixes: Vec<Prefix>) -> PolicyZone {
        let mut zone = Builder::new(name, vec![rule], 0).zone;
        zone.duplicates = prefixes.len();
        zone.addresses = Prefixes::new(prefixes);
        zone.duplicates -= zone.addresses.len();
        zone.digest = zone.compute_digest();
        zone
    }

    fn compute_digest(&self) -> [u8; 32] {
        let said: Vec<String> = self.scopes.iter().map(|scope| self.canonical(scope)).collect();
        let mut places: Vec<usize> = self.places().collect();
        places.sort_unstable_by(|&a, &b| self.owner(a).cmp(self.owner(b)));
        let mut hasher = Sha256::new();
        for place in places {
            let head = &self.arena[place..place + 4];
            let scope = u32::from_le_bytes(head.try_into().expect("a slice of four octets"));
            hasher.update(self.owner(place));
            hasher.update(&said[scope as usize]);
        }
        for prefix in self.addresses.iter() {
            hasher.update(format!("{prefix} {}\n", self.rules[0].canonical()));
        }
        hasher.finalize().into()
    }

    fn canonical(&self, scope: &Scope) -> String {
        let said = |(_, rule): &(Match, u32)| self.rules[*rule as usize].canonical();
        // Of the name itself it can be noticed whether what is below is covered as
        // well (NXDOMAIN); of what is below, by which entry it is, cannot.
        let at = scope.at.as_ref().map(|at| format!("{} {}", at.0.name(), said(at)));
        let under = scope.under.as_ref().map(said);
        format!("{} | {}\n", at.as_deref().unwrap_or("-"), under.as_deref().unwrap_or("-"))
    }
}

/// The seed of all name hashes of this process.
pub fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| RandomState::new().hash_one("dnsblock"))
}
