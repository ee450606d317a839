//! Limits for each client, in fixed memory: queries and error responses per second, and TCP
//! connections.
//!
//! Rates are limited only for clients whose source address may be spoofed, that is, over UDP
//! without a valid cookie. Responses to spoofed queries must not flood the owner of the address.
//!
//! All worker threads share the limits, since the kernel spreads a client's queries over them. They
//! are lock-free.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::prefix::Prefix;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Limits per second; 0: unlimited.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    pub queries: u32,
    /// Error responses.
    pub errors: u32,
    /// Every `slip`-th query over the limit is answered with TC or BADCOOKIE; 0: none.
    pub slip: u32,
}

/// The kinds of limits, each with its own allowance.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Query,
    Error,
}

/// The limit of a network, as a multiple of a client's. A client is an IPv4 address, an IPv6 /64
/// (usually one subscriber), or a link-local address.
const NETWORK: u64 = 32;
/// Slots for clients: sets of one cache line each.
const SLOTS: usize = 8;
const SETS: usize = 8192;
/// Ticks per second.
const TICKS: u64 = 16_000_000;
/// Bits of a slot that hold a time, in ticks; the others are a hash of the client. The time wraps
/// every 19 hours, but is only used within a second.
const TIME: u32 = 40;
const TIME_MASK: u64 = (1 << TIME) - 1;
/// Tries to update a slot that other threads update too; then the query is admitted.
const TRIES: usize = 4;

#[repr(align(64))]
#[derive(Default)]
struct Set([AtomicU64; SLOTS]);

/// Rate limits by the generic cell rate algorithm. A slot holds the time at which the client's
/// allowance will be complete again. A time more than a second ahead exceeds the limit. A slot
/// whose time has passed is empty.
pub struct Limiter {
    sets: Box<[Set]>,
    seed: u64,
    started_at: Instant,
}

impl Limiter {
    pub fn new(seed: u64) -> Limiter {
        Limiter { sets: (0..SETS).map(|_| Set::default()).collect(), seed, started_at: Instant::now() }
    }

    /// Counts one more of `kind`; false, without counting, if that exceeds `per_second`.
    pub fn admit(&self, address: IpAddr, kind: Kind, per_second: u32, now: Instant) -> bool {
        if per_second == 0 {
            return true;
        }
        let ticks = self.ticks(now);
        let rate = u64::from(per_second);
        let (client, network) = (client_of(address), network_of(address));
        self.consume(client, kind, TICKS / rate, ticks)
            && self.consume(network, kind, TICKS / (rate * NETWORK), ticks)
    }

    fn ticks(&self, now: Instant) -> u64 {
        // 16 ticks per microsecond.
        (now.saturating_duration_since(self.started_at).as_nanos() as u64 / 1000) << 4
    }

    /// Consumes one of the allowance of `prefix`; false if nothing is left.
    fn consume(&self, prefix: Prefix, kind: Kind, interval: u64, now: u64) -> bool {
        let hash = hash_of(prefix, kind, self.seed);
        let set = &self.sets[hash as usize % SETS].0;
        let tag = hash & !TIME_MASK;
        for _ in 0..TRIES {
            let (slot, value) = choose(set, tag, now);
            let ahead = if value & !TIME_MASK == tag { ahead(value, now) } else { 0 };
            if ahead + interval > TICKS {
                return false;
            }
            let next = tag | ((now + ahead + interval) & TIME_MASK);
            if slot.compare_exchange(value, next, Relaxed, Relaxed).is_ok() {
                return true;
            }
        }
        true
    }
}

/// The slot of the client, otherwise that of the client with the least use. So a flood from many
/// addresses does not free the heaviest client.
fn choose(set: &[AtomicU64; SLOTS], tag: u64, now: u64) -> (&AtomicU64, u64) {
    let mut least = (&set[0], set[0].load(Relaxed));
    for slot in set {
        let value = slot.load(Relaxed);
        if value & !TIME_MASK == tag {
            return (slot, value);
        }
        if ahead(value, now) < ahead(least.1, now) {
            least = (slot, value);
        }
    }
    least
}

/// Ticks until the allowance of a slot is complete again. A little more than a second means that
/// another thread read its clock later; much more, that the slot is from before the time wrapped.
fn ahead(value: u64, now: u64) -> u64 {
    let ahead = (value & TIME_MASK).wrapping_sub(now) & TIME_MASK;
    if ahead <= 2 * TICKS { ahead.min(TICKS) } else { 0 }
}

/// The hash of a client: an IPv4 address or an IPv6 /64.
pub fn client_hash(address: IpAddr, seed: u64) -> u64 {
    hash_of(client_of(address), Kind::Query, seed)
}

fn client_of(address: IpAddr) -> Prefix {
    match address.to_canonical() {
        address @ IpAddr::V4(_) => Prefix { address, length: 32 },
        // All hosts of a link share one /64.
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Prefix { address: v6.into(), length: 128 },
        address => Prefix { address, length: 64 },
    }
}

fn network_of(address: IpAddr) -> Prefix {
    match address.to_canonical() {
        address @ IpAddr::V4(_) => Prefix { address, length: 24 },
        address => Prefix { address, length: 48 },
    }
}

fn hash_of(prefix: Prefix, kind: Kind, seed: u64) -> u64 {
    let mut bytes = [0; 18];
    match prefix.address {
        IpAddr::V4(address) => {
            let network = address.to_bits() & (u32::MAX << (32 - u32::from(prefix.length)));
            bytes[..4].copy_from_slice(&network.to_be_bytes());
        }
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << (128 - u32::from(prefix.length)));
            bytes[..16].copy_from_slice(&network.to_be_bytes());
        }
    }
    bytes[16] = prefix.length;
    bytes[17] = kind as u8;
    xxh3_64_with_seed(&bytes, seed)
}

//------- Connections ---------------------------------------------------------

/// Counters for clients, and as many for networks.
const COUNTERS: usize = 1 << 16;

/// The number of TCP connections of each client, and of each network to each listen address. Two
/// of them may share a counter, and so a limit. With the seed, nobody can choose the other one.
pub struct ConnectionCounts {
    clients: Box<[AtomicU32]>,
    networks: Box<[AtomicU32]>,
    seed: u64,
}

/// The counter of a network: an IPv4 /24 or an IPv6 /48 that connects to one listen address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network(usize);

impl ConnectionCounts {
    pub fn new(seed: u64) -> ConnectionCounts {
        let counters = || (0..COUNTERS).map(|_| AtomicU32::default()).collect();
        ConnectionCounts { clients: counters(), networks: counters(), seed }
    }

    /// Adds a connection of the client; returns the number of its connections.
    pub fn enter(&self, address: IpAddr) -> usize {
        self.client(address).fetch_add(1, Relaxed) as usize + 1
    }

    pub fn leave(&self, address: IpAddr) {
        self.client(address).fetch_sub(1, Relaxed);
    }

    fn client(&self, address: IpAddr) -> &AtomicU32 {
        &self.clients[hash_of(client_of(address), Kind::Query, self.seed) as usize % COUNTERS]
    }

    /// The network of a client of `listener`. Each `class` of clients is counted separately.
    pub fn network(&self, address: IpAddr, listener: SocketAddr, class: u8) -> Network {
        let host = Prefix { address: listener.ip(), length: if listener.is_ipv4() { 32 } else { 128 } };
        let seed = self.seed ^ (u64::from(listener.port()) << 8 | u64::from(class));
        let seed = hash_of(host, Kind::Query, seed);
        Network(hash_of(network_of(address), Kind::Query, seed) as usize % COUNTERS)
    }

    /// Adds a connection of the network; returns the number of its connections.
    pub fn enter_network(&self, network: Network) -> usize {
        self.networks[network.0].fetch_add(1, Relaxed) as usize + 1
    }

    pub fn leave_network(&self, network: Network) {
        self.networks[network.0].fetch_sub(1, Relaxed);
    }

    /// The number of connections of the network.
    pub fn held(&self, network: Network) -> usize {
        self.networks[network.0].load(Relaxed) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn admitted(limiter: &Limiter, address: IpAddr, rate: u32, tries: usize, at: Instant) -> usize {
        (0..tries).filter(|_| limiter.admit(address, Kind::Query, rate, at)).count()
    }

    #[test]
    fn a_client_may_burst_for_a_second_of_its_rate() {
        let limiter = Limiter::new(1);
        let start = Instant::now();
        let client = address("192.0.2.1");
        assert_eq!(admitted(&limiter, client, 100, 1000, start), 100);
        assert_eq!(admitted(&limiter, client, 100, 1000, start + Duration::from_millis(500)), 50);
        assert_eq!(admitted(&limiter, client, 100, 1000, start + Duration::from_secs(60)), 100);
        assert_eq!(admitted(&limiter, address("192.0.2.2"), 100, 1000, start), 100, "a neighbour");
        assert!(limiter.admit(client, Kind::Error, 1, start + Duration::from_secs(60)), "limited separately");
        assert_eq!(admitted(&limiter, client, 0, 1000, start), 1000, "0 is no limit");
    }

    #[test]
    fn an_ipv6_client_is_a_64_and_networks_are_limited() {
        let limiter = Limiter::new(2);
        let start = Instant::now();
        assert_eq!(admitted(&limiter, address("2001:db8::1"), 10, 20, start), 10);
        assert_eq!(admitted(&limiter, address("2001:db8::2"), 10, 20, start), 0);
        assert_eq!(admitted(&limiter, address("2001:db8:0:1::2"), 10, 20, start), 10);
        assert_eq!(admitted(&limiter, address("fe80::1"), 10, 20, start), 10);
        assert_eq!(admitted(&limiter, address("fe80::2"), 10, 20, start), 10);
        let network: usize = (1..=255)
            .map(|host| admitted(&limiter, address(&format!("198.51.100.{host}")), 10, 20, start))
            .sum();
        assert_eq!(network, 10 * NETWORK as usize);
    }

    /// Each worker thread reads the clock once per batch, so one may be behind.
    #[test]
    fn threads_with_different_clocks_share_one_allowance() {
        let limiter = Limiter::new(6);
        let (client, behind) = (address("192.0.2.1"), Instant::now());
        let ahead = behind + Duration::from_millis(20);
        let turns = (0..4000).map(|turn| if turn % 2 == 0 { ahead } else { behind });
        let admitted = turns.filter(|at| limiter.admit(client, Kind::Query, 1000, *at)).count();
        assert!((1000..=1020).contains(&admitted), "{admitted}");
    }

    /// The time of the slots wraps every 19 hours.
    #[test]
    fn a_slot_is_not_used_after_the_time_wrapped() {
        let limiter = Limiter::new(3);
        let (start, client) = (Instant::now(), address("192.0.2.1"));
        for hours in [0, 9, 10, 19, 20, 100, 10_000] {
            let at = start + Duration::from_secs(hours * 3600);
            assert_eq!(admitted(&limiter, client, 50, 60, at), 50, "after {hours} hours");
        }
    }

    /// Memory is fixed, so clients are evicted: those with the least use first.
    #[test]
    fn many_addresses_do_not_free_the_heaviest_client() {
        let limiter = Limiter::new(4);
        let (start, busy) = (Instant::now(), address("203.0.113.7"));
        assert_eq!(admitted(&limiter, busy, 100, 200, start), 100);
        for host in 0..100_000u32 {
            limiter.admit(IpAddr::from((0x0b00_0000 + host * 256).to_be_bytes()), Kind::Query, 100, start);
        }
        assert_eq!(admitted(&limiter, busy, 100, 200, start), 0);
    }

    #[test]
    fn connections_are_counted_by_client() {
        let counts = ConnectionCounts::new(5);
        assert_eq!((counts.enter(address("192.0.2.1")), counts.enter(address("192.0.2.1"))), (1, 2));
        assert_eq!(counts.enter(address("192.0.2.2")), 1);
        assert_eq!((counts.enter(address("2001:db8::1")), counts.enter(address("2001:db8::2"))), (1, 2));
        counts.leave(address("192.0.2.1"));
        assert_eq!(counts.enter(address("192.0.2.1")), 2);
    }

    #[test]
    fn connections_are_counted_by_network_for_each_listener_and_class() {
        let counts = ConnectionCounts::new(5);
        let listener = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (one, other) = (listener("192.0.2.53:53"), listener("192.0.2.53:5353"));
        let counter_of = |text: &str| counts.network(address(text), one, 0);
        assert_eq!(counter_of("198.51.100.1"), counter_of("198.51.100.255"));
        assert_eq!(counter_of("198.51.100.1"), counter_of("::ffff:198.51.100.2"));
        assert_ne!(counter_of("198.51.100.1"), counter_of("198.51.101.1"));
        assert_eq!(counter_of("2001:db8:0:f::1"), counter_of("2001:db8:0:ffff::1"));
        assert_ne!(counter_of("2001:db8:0:f::1"), counter_of("2001:db8:1:f::1"));
        let network = counter_of("198.51.100.1");
        assert_ne!(network, counts.network(address("198.51.100.1"), other, 0));
        assert_ne!(network, counts.network(address("198.51.100.1"), one, 1));
        assert_eq!((counts.enter_network(network), counts.enter_network(network)), (1, 2));
        counts.leave_network(network);
        assert_eq!(counts.held(network), 1);
    }
}
