//! Cached responses of upstreams. The cache is below the policy: a query that is blocked never
//! reaches it, and the targets of a cached response are judged by the current snapshot.
//!
//! It holds no responses of our own, so lifting a block needs no flush.

use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use arc_swap::{ArcSwapOption, Guard};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::message::{Head, edns_flag, flag};
use crate::name::Name;
use crate::policy::seed;

mod response;
mod table;
pub use response::{Age, Allowed, BUFFER, CachedResponse, Settings};
pub use table::Table;

/// The identity of a question for an upstream: name, type, and the flags RD, CD, DO, CO and DE.
/// AD is set in all upstream queries, so it makes no difference.
#[derive(Clone, Copy)]
pub struct Key<'a> {
    name: &'a Name,
    qtype: u16,
    flags: u8,
    coalescing_hash: u64,
}

/// The bit of RD in `Key::flags`.
const RECURSION: u8 = 1;
/// Makes the hash of a question with RD different from that without.
const RECURSION_HASH: u64 = 0x9e37_79b9_7f4a_7c15;

impl Key<'_> {
    pub fn new<'a>(head: &Head, name: &'a Name, qtype: u16) -> Key<'a> {
        let (dnssec_ok, passed) = head.edns.map_or((false, 0), |edns| (edns.dnssec_ok, edns.passed));
        let flags = [
            passed & edns_flag::DE != 0,
            passed & edns_flag::CO != 0,
            dnssec_ok,
            head.flags & flag::CD != 0,
            head.flags & flag::RD != 0, // `RECURSION`
        ];
        let flags = flags.into_iter().fold(0, |flags, bit| flags << 1 | u8::from(bit));
        // With the seed of this process, so that nobody can choose names with equal hashes.
        let seed = seed() ^ (u64::from(qtype) << 8 | u64::from(flags & !RECURSION));
        Key { name, qtype, flags, coalescing_hash: xxh3_64_with_seed(name.suffix(0), seed) }
    }

    /// In wire format and lower case.
    pub fn name(&self) -> &[u8] {
        self.name.suffix(0)
    }

    pub fn qtype(&self) -> u16 {
        self.qtype
    }

    /// DE, CO, DO, CD and RD, a bit each.
    pub fn flags(&self) -> u8 {
        self.flags
    }

    pub fn hash(&self) -> u64 {
        self.coalescing_hash ^ (RECURSION_HASH * u64::from(self.flags & RECURSION))
    }

    /// The same hash for questions that coalesce. Of two questions that differ only in RD, the
    /// second waits for the first (RFC 5452 5).
    pub fn coalescing_hash(&self) -> u64 {
        self.coalescing_hash
    }

    /// Whether the questions are equal, or differ only in RD.
    pub fn coalesces_with(&self, other: &Key<'_>) -> bool {
        (self.qtype, self.flags | RECURSION) == (other.qtype, other.flags | RECURSION)
            && self.name == other.name
    }

    /// Whether a response to this question also answers a question that coalesces with it. A query
    /// without RD may use a response to one with RD, but not the reverse.
    pub fn serves(&self, other: &Key<'_>) -> bool {
        self.asks_recursion() || !other.asks_recursion()
    }

    pub fn asks_recursion(&self) -> bool {
        self.flags & RECURSION != 0
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        (self.qtype, self.flags) == (other.qtype, other.flags) && self.name == other.name
    }
}

/// For tables whose keys are hashes.
#[derive(Clone, Copy, Default)]
pub struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0 << 8 | u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The responses that `purge` removes.
pub enum Purge<'a> {
    All,
    Name(&'a Name),
    /// The name and everything below it.
    Subtree(&'a Name),
}

impl Purge<'_> {
    /// `qname`: in wire format.
    fn covers(&self, qname: &[u8]) -> bool {
        match self {
            Purge::All => true,
            Purge::Name(name) => qname.eq_ignore_ascii_case(name.suffix(0)),
            Purge::Subtree(name) => {
                let mut suffix = qname;
                while suffix.len() > name.suffix(0).len() {
                    suffix = &suffix[1 + usize::from(suffix[0])..];
                }
                suffix.eq_ignore_ascii_case(name.suffix(0))
            }
        }
    }
}

/// The cache of all worker threads.
#[derive(Default)]
pub struct Cache {
    /// `None` if the cache is disabled.
    table: ArcSwapOption<Table>,
    purges: AtomicU64,
}

impl Cache {
    /// Limits the memory to so many bytes; 0 disables the cache. A new size empties it.
    pub fn resize(&self, bytes: u64) {
        let previous = self.table.load().as_ref().map_or(0, |table| table.capacity());
        if previous != bytes {
            self.table.store((bytes > 0).then(|| Arc::new(Table::new(bytes))));
        }
    }

    /// The table, for a batch of lookups.
    pub fn table(&self) -> Guard<Option<Arc<Table>>> {
        self.table.load()
    }

    pub fn find(&self, key: Key<'_>) -> Option<CachedResponse> {
        self.table.load().as_ref()?.find(key)
    }

    pub fn is_enabled(&self) -> bool {
        self.table.load().is_some()
    }

    /// Caches a response, unless there was a purge after `purges` was read: the response may be
    /// what the operator purged.
    pub fn insert(&self, key: Key<'_>, response: CachedResponse, purges: u64) {
        let table = self.table.load();
        let Some(table) = &*table else { return };
        if self.purges() == purges {
            table.insert(key, response.clone());
        }
        if self.purges() != purges {
            table.remove_where(|other| other.is_same(&response));
        }
    }

    pub fn remove(&self, key: Key<'_>) {
        if let Some(table) = &*self.table.load() {
            table.remove(key);
        }
    }

    /// How often the cache was purged.
    pub fn purges(&self) -> u64 {
        self.purges.load(SeqCst)
    }

    /// Removes responses; returns their number.
    pub fn purge(&self, purge: &Purge<'_>) -> usize {
        self.purges.fetch_add(1, SeqCst);
        let table = self.table.load();
        table.as_ref().map_or(0, |table| table.remove_where(|response| purge.covers(response.name())))
    }

    /// The number of responses, their bytes of memory, and the number of evictions.
    pub fn size(&self) -> (usize, u64, u64) {
        self.table
            .load()
            .as_ref()
            .map_or((0, 0, 0), |table| (table.entries(), table.bytes(), table.evicted()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::message::{Edns, Query, Transport};
    use crate::response::{Parser, TtlBounds};

    fn question(text: &str) -> (Query, Vec<u8>) {
        let name = Name::from_text(text.as_bytes()).unwrap();
        let mut packet = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        packet.extend(name.suffix(0));
        packet.extend([0, 1, 0, 1]);
        (Query::parse(&packet, Transport::Udp).unwrap(), packet)
    }

    /// Runs a closure with the key of a question about this name.
    fn with<T>(text: &str, run: impl FnOnce(Key<'_>) -> T) -> T {
        let (query, _) = question(text);
        run(Key::new(&query.head, &query.name, query.qtype))
    }

    fn has(cache: &Cache, text: &str) -> bool {
        with(text, |key| cache.find(key).is_some())
    }

    fn put(cache: &Cache, text: &str) {
        let bounds = TtlBounds { max_ttl: 300, ..TtlBounds::default() };
        let mut response = question(text).1;
        (response[2], response[7]) = (0x81, 1);
        response.extend(b"\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04\xc0\0\x02\x01");
        with(text, |key| {
            let mut parser = Parser::default();
            parser.parse(&response);
            let response = parser.bound_ttls(&mut response, &bounds).unwrap();
            let cached = CachedResponse::new(response, key, Instant::now(), &mut [0; BUFFER]).unwrap();
            cache.insert(key, cached, cache.purges());
        });
    }

    fn cache(bytes: u64) -> Cache {
        let cache = Cache::default();
        cache.resize(bytes);
        cache
    }

    #[test]
    fn keys_differ_by_all_that_changes_a_response() {
        let (mut query, _) = question("a.example");
        let (same, other) = (query.name.clone(), question("b.example").0.name);
        let mut heads = vec![query.head.clone()];
        for flag in [flag::CD, flag::RD] {
            query.head.flags ^= flag;
            heads.push(query.head.clone());
        }
        let edns =
            Edns { payload: 1232, dnssec_ok: true, passed: 0, cookie: None, keepalive: false, subnet: None };
        for passed in [0, edns_flag::CO, edns_flag::DE, edns_flag::PASSED] {
            query.head.edns = Some(Edns { passed, ..edns });
            heads.push(query.head.clone());
        }
        let keys: Vec<Key<'_>> = heads
            .iter()
            .flat_map(|head| {
                [(&same, 1), (&same, 28), (&other, 1)].map(|(name, qtype)| Key::new(head, name, qtype))
            })
            .collect();
        for (place, key) in keys.iter().enumerate() {
            assert!(!keys[..place].contains(key), "{place}");
            assert!(!keys[..place].iter().any(|other| other.hash() == key.hash()), "{place}");
        }
        with("A.EXAMPLE", |key| assert!(key == Key::new(&heads[0], &same, 1)));
        heads[1].flags = heads[0].flags ^ flag::AD;
        assert!(
            Key::new(&heads[0], &same, 1) == Key::new(&heads[1], &same, 1),
            "AD does not reach the upstream"
        );
    }

    #[test]
    fn questions_that_differ_only_in_rd_coalesce() {
        let (query, _) = question("a.example");
        let with_recursion = Key::new(&query.head, &query.name, 1);
        let mut other_head = query.head.clone();
        other_head.flags ^= flag::RD;
        let without = Key::new(&other_head, &query.name, 1);
        assert!(with_recursion != without && with_recursion.hash() != without.hash());
        assert_eq!(with_recursion.coalescing_hash(), without.coalescing_hash());
        assert!(with_recursion.coalesces_with(&without) && with_recursion.serves(&without));
        assert!(!without.serves(&with_recursion) && without.serves(&without));
        assert!(!with_recursion.coalesces_with(&Key::new(&query.head, &query.name, 28)));
    }

    #[test]
    fn a_purge_drops_a_name_or_a_subtree_at_label_boundaries() {
        let names = ["example", "a.example", "b.a.example", "xa.example", "other"];
        let name = Name::from_text(b"a.example").unwrap();
        let all_but = |dropped: &[&str], purge: &Purge<'_>| {
            let cache = cache(1 << 20);
            names.iter().for_each(|name| put(&cache, name));
            assert_eq!((cache.size().0, cache.purge(purge)), (names.len(), dropped.len()));
            for name in names {
                assert_eq!(!has(&cache, name), dropped.contains(&name), "{name}");
            }
        };
        all_but(&["a.example"], &Purge::Name(&name));
        all_but(&["a.example", "b.a.example"], &Purge::Subtree(&name));
        all_but(&names, &Purge::Subtree(&Name::root()));
        all_but(&names, &Purge::All);
    }

    #[test]
    fn a_response_that_was_outstanding_during_a_purge_is_not_cached() {
        let cache = cache(1 << 20);
        put(&cache, "a.example");
        let cached = with("a.example", |key| cache.find(key)).unwrap();
        let before = cache.purges();
        cache.purge(&Purge::All);
        with("a.example", |key| cache.insert(key, cached, before));
        assert_eq!(cache.size().0, 0);
    }

    #[test]
    fn it_stays_within_its_memory_and_keeps_popular_names() {
        let cache = cache(1 << 20);
        let popular: Vec<String> = (0..200).map(|n| format!("popular{n}.example")).collect();
        for name in &popular {
            put(&cache, name);
        }
        for number in 0..50_000 {
            put(&cache, &format!("once{number}.example"));
            has(&cache, &popular[number % popular.len()]);
        }
        assert!(cache.size().1 <= 1 << 20);
        let left = popular.iter().filter(|name| has(&cache, name)).count();
        assert!(left > popular.len() * 9 / 10, "{left} of {} are left", popular.len());
        assert!(cache.size().2 > 40_000);
        cache.resize(1 << 19);
        assert!(cache.size().1 <= 1 << 19);
        cache.resize(0);
        assert!(cache.size().0 == 0 && !has(&cache, "once49999.example"));
    }
}
