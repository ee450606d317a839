//! Answers of upstreams, kept for the next client that asks the same. Asked after
//! the policy, never before it; and where a kept answer leads is judged by the
//! snapshot of the moment it is given, as one that has just come.
//!
//! What is kept is what an upstream said, never an answer of ours: a block leaves
//! nothing behind here when it is lifted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use arc_swap::ArcSwapOption;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::message::{Head, flag};
use crate::name::{MAX_NAME, Name};

mod kept;
pub use kept::{Age, Keeping, Kept};

/// Parts of the table, each with a lock of its own, which a purge goes through one
/// after the other: so it holds up nobody for long.
const PARTS: usize = 64;
/// What a kept answer takes beside its octets: its place in the table, the
/// allocator's own. Measured: `octets_of_memory_are_what_is_weighed`.
const OVERHEAD: usize = 200;
/// An answer of usual size, by which the table is laid out.
const USUAL: u64 = 400;

/// What makes a question another one for an upstream: the name in lower case, type,
/// and of the flags RD, CD, AD and DO.
#[derive(Clone)]
pub struct Key {
    octets: [u8; MAX_NAME + KIND],
    length: usize,
}

/// Octets of a key behind the name.
const KIND: usize = 3;

impl Key {
    pub fn new(head: &Head, name: &Name, qtype: u16) -> Key {
        let wire = name.suffix(0);
        let mut octets = [0; MAX_NAME + KIND];
        octets[..wire.len()].copy_from_slice(wire);
        let [high, low] = qtype.to_be_bytes();
        let dnssec_ok = head.edns.is_some_and(|edns| edns.dnssec_ok);
        // AD asks for AD in the answer (RFC 6840 5.7).
        let asked = [flag::RD, flag::CD, flag::AD].map(|flag| head.flags & flag != 0);
        let kind = asked.into_iter().chain([dnssec_ok]).fold(0, |kind, bit| kind << 1 | u8::from(bit));
        octets[wire.len()..wire.len() + KIND].copy_from_slice(&[high, low, kind]);
        Key { octets, length: wire.len() + KIND }
    }

    pub fn octets(&self) -> &[u8] {
        &self.octets[..self.length]
    }

    /// For tables of questions; `seed` is the process's own.
    pub fn hash(&self, seed: u64) -> u64 {
        xxh3_64_with_seed(self.octets(), seed)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.octets() == other.octets()
    }
}

/// Which answers `purge` drops.
pub enum Purge<'a> {
    All,
    Name(&'a Name),
    /// The name and everything below it.
    Subtree(&'a Name),
}

impl Purge<'_> {
    /// `owner`: a name in wire format.
    fn covers(&self, owner: &[u8]) -> bool {
        match self {
            Purge::All => true,
            Purge::Name(name) => owner == name.suffix(0),
            Purge::Subtree(name) => {
                let mut rest = owner;
                while rest.len() > name.suffix(0).len() {
                    rest = &rest[1 + usize::from(rest[0])..];
                }
                rest == name.suffix(0)
            }
        }
    }
}

/// Its memory is bounded; of what does not fit, that goes which was asked for least:
/// a scan of names that nobody asks for again drives out none that are (S3-FIFO, in
/// the crate `quick_cache`).
type Table = quick_cache::sync::Cache<Box<[u8]>, Arc<Kept>, Octets, DefaultHashBuilder, Evicted>;

/// The answers of all packet threads.
#[derive(Default)]
pub struct Cache {
    /// Empty where nothing is to be kept.
    table: ArcSwapOption<Table>,
    evicted: Arc<AtomicU64>,
    purges: AtomicU64,
}

#[derive(Clone)]
struct Octets;

impl Weighter<Box<[u8]>, Arc<Kept>> for Octets {
    fn weight(&self, key: &Box<[u8]>, kept: &Arc<Kept>) -> u64 {
        (OVERHEAD + key.len() + kept.octets()) as u64
    }
}

/// Counts what had to make room.
#[derive(Clone)]
struct Evicted(Arc<AtomicU64>);

impl Lifecycle<Box<[u8]>, Arc<Kept>> for Evicted {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: Box<[u8]>, _: Arc<Kept>) {
        self.0.fetch_add(1, Relaxed);
    }
}

impl Cache {
    /// Takes so many octets of memory from now on; 0: keeps nothing.
    pub fn resize(&self, octets: u64) {
        match &*self.table.load() {
            _ if octets == 0 => self.table.store(None),
            Some(table) if table.capacity() == octets => {}
            Some(table) => table.set_capacity(octets),
            None => {
                let options = OptionsBuilder::new()
                    .shards(PARTS)
                    .estimated_items_capacity((octets / USUAL) as usize)
                    .weight_capacity(octets)
                    .build()
                    .expect("all that must be set is set");
                let (hashes, evicted) = (DefaultHashBuilder::default(), Evicted(Arc::clone(&self.evicted)));
                self.table.store(Some(Arc::new(Table::with_options(options, Octets, hashes, evicted))));
            }
        }
    }

    pub fn find(&self, key: &Key) -> Option<Arc<Kept>> {
        self.table.load().as_ref()?.get(key.octets())
    }

    pub fn keeps_anything(&self) -> bool {
        self.table.load().is_some()
    }

    /// Keeps an answer, unless something was purged since `purges` was read: it may
    /// be what the purge was about, come late.
    pub fn keep(&self, key: &Key, kept: Arc<Kept>, purges: u64) {
        let table = self.table.load();
        let Some(table) = &*table else { return };
        if self.purges() == purges {
            table.insert(key.octets().into(), kept);
        }
        if self.purges() != purges {
            table.remove(key.octets());
        }
    }

    /// How often something was purged.
    pub fn purges(&self) -> u64 {
        self.purges.load(SeqCst)
    }

    /// Drops what is kept about these names; returns how many answers that were.
    pub fn purge(&self, purge: &Purge<'_>) -> usize {
        self.purges.fetch_add(1, SeqCst);
        let table = self.table.load();
        let Some(table) = &*table else { return 0 };
        let dropped = AtomicUsize::new(0);
        table.retain(|key, _| {
            let stays = !purge.covers(&key[..key.len() - KIND]);
            dropped.fetch_add(usize::from(!stays), Relaxed);
            stays
        });
        dropped.into_inner()
    }

    /// Answers that are kept.
    pub fn len(&self) -> usize {
        self.table.load().as_ref().map_or(0, |table| table.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Octets that they take.
    pub fn octets(&self) -> u64 {
        self.table.load().as_ref().map_or(0, |table| table.weight())
    }

    /// Answers that had to make room so far.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::message::{MAX_MESSAGE, Query};

    fn question(text: &str) -> (Query, Vec<u8>) {
        let name = Name::from_text(text.as_bytes()).unwrap();
        let mut packet = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        packet.extend(name.suffix(0));
        packet.extend([0, 1, 0, 1]);
        (Query::parse(&packet, false).unwrap(), packet)
    }

    fn key(text: &str) -> Key {
        let (query, _) = question(text);
        Key::new(&query.head, &query.name, query.qtype)
    }

    fn put(cache: &Cache, text: &str) {
        let keeping = Keeping { max_ttl: 300, ..Keeping::default() };
        let mut response = question(text).1;
        (response[2], response[7]) = (0x81, 1);
        response.extend(b"\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04\xc0\0\x02\x01");
        let kept = Kept::new(&response, 1, &keeping, Instant::now(), &mut [0; MAX_MESSAGE]).unwrap();
        cache.keep(&key(text), Arc::new(kept), cache.purges());
    }

    fn cache(octets: u64) -> Cache {
        let cache = Cache::default();
        cache.resize(octets);
        cache
    }

    #[test]
    fn what_changes_an_answer_makes_another_question() {
        let (mut query, _) = question("a.example");
        let mut seen = vec![key("a.example"), key("b.example")];
        query.qtype = 28;
        seen.push(Key::new(&query.head, &query.name, 28));
        for flag in [flag::CD, flag::AD, flag::RD] {
            query.head.flags ^= flag;
            seen.push(Key::new(&query.head, &query.name, 28));
        }
        for (place, key) in seen.iter().enumerate() {
            assert!(!seen[..place].contains(key), "{place}");
        }
        assert!(key("A.EXAMPLE") == key("a.example"));
    }

    #[test]
    fn a_purge_drops_a_name_or_a_subtree_at_label_boundaries() {
        let names = ["example", "a.example", "b.a.example", "xa.example", "other"];
        let name = Name::from_text(b"a.example").unwrap();
        let all_but = |dropped: &[&str], purge: &Purge<'_>| {
            let cache = cache(1 << 20);
            names.iter().for_each(|name| put(&cache, name));
            assert_eq!((cache.len(), cache.purge(purge)), (names.len(), dropped.len()));
            for name in names {
                assert_eq!(cache.find(&key(name)).is_none(), dropped.contains(&name), "{name}");
            }
        };
        all_but(&["a.example"], &Purge::Name(&name));
        all_but(&["a.example", "b.a.example"], &Purge::Subtree(&name));
        all_but(&names, &Purge::Subtree(&Name::root()));
        all_but(&names, &Purge::All);
    }

    #[test]
    fn an_answer_that_was_on_its_way_during_a_purge_is_not_kept() {
        let cache = cache(1 << 20);
        put(&cache, "a.example");
        let kept = cache.find(&key("a.example")).unwrap();
        let before = cache.purges();
        cache.purge(&Purge::All);
        cache.keep(&key("a.example"), kept, before);
        assert!(cache.is_empty());
    }

    #[test]
    fn it_stays_within_its_memory_and_keeps_what_is_asked_for() {
        let cache = cache(1 << 20);
        let popular: Vec<String> = (0..200).map(|n| format!("popular{n}.example")).collect();
        for name in &popular {
            put(&cache, name);
        }
        for number in 0..50_000 {
            put(&cache, &format!("once{number}.example"));
            cache.find(&key(&popular[number % popular.len()]));
        }
        assert!(cache.octets() <= 1 << 20);
        let left = popular.iter().filter(|name| cache.find(&key(name)).is_some()).count();
        assert!(left > popular.len() * 9 / 10, "{left} of {} are left", popular.len());
        assert!(cache.evicted() > 40_000);
        cache.resize(1 << 19);
        assert!(cache.octets() <= 1 << 19);
        cache.resize(0);
        assert!(cache.is_empty() && cache.find(&key("once49999.example")).is_none());
    }
}
