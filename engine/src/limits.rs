//! How much one client may ask, in memory that does not grow: queries and error
//! answers a second, and connections.
//!
//! Only clients that may not be who they claim are limited: over UDP, without a
//! valid cookie. A forged address must not make us flood whom it belongs to; who
//! proves its address pays for what it asks with its own line.
//!
//! Shared by all worker threads: the kernel spreads one client's queries over
//! them. Everything here is an atomic number, nobody waits for anybody.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::prefix::Prefix;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How much a client may ask for a second; 0: without a limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    pub queries: u32,
    /// Error answers: what a forged query can have from us is one of these.
    pub errors: u32,
    /// Of the queries above the limit, every how-manieth is answered, with TC or
    /// BADCOOKIE; 0: none.
    pub slip: u32,
}

/// What is counted apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Query,
    Error,
}

/// A client is an IPv4 address or an IPv6 /64, which is what a subscriber has, or a
/// link-local address; its network may do as much as this many clients.
const NETWORK: u64 = 32;
/// Clients that are remembered at the same time, in sets of a cache line each.
const WAYS: usize = 8;
const SETS: usize = 8192;
/// Parts of a second that are counted in.
const TICKS: u64 = 16_000_000;
/// Bits of a slot that hold a time, in ticks; the others tell clients apart. The
/// time begins anew every 19 hours: what a slot says is believed for a second.
const TIME: u32 = 40;
const TIME_MASK: u64 = (1 << TIME) - 1;
/// Tries of one update against other threads; then the query is let pass.
const TRIES: usize = 4;

#[repr(align(64))]
#[derive(Default)]
struct Set([AtomicU64; WAYS]);

/// Rates of clients, by the generic cell rate algorithm: a slot holds when the
/// client's allowance will be whole again, and more than a second ahead is too
/// much. A slot whose time has come is as good as empty.
pub struct Limiter {
    sets: Box<[Set]>,
    seed: u64,
    began: Instant,
}

impl Limiter {
    pub fn new(seed: u64) -> Limiter {
        Limiter { sets: (0..SETS).map(|_| Set::default()).collect(), seed, began: Instant::now() }
    }

    /// Whether the client may have one more of `kind`, of which it may have
    /// `per_second`; if so it is counted.
    pub fn admit(&self, address: IpAddr, kind: Kind, per_second: u32, now: Instant) -> bool {
        if per_second == 0 {
            return true;
        }
        let ticks = self.ticks(now);
        let rate = u64::from(per_second);
        let (client, network) = (client_of(address), network_of(address));
        self.take(client, kind, TICKS / rate, ticks)
            && self.take(network, kind, TICKS / (rate * NETWORK), ticks)
    }

    fn ticks(&self, now: Instant) -> u64 {
        // 16 ticks a microsecond.
        (now.saturating_duration_since(self.began).as_nanos() as u64 / 1000) << 4
    }

    /// Takes one from the allowance of `prefix`; false where nothing is left.
    fn take(&self, prefix: Prefix, kind: Kind, interval: u64, now: u64) -> bool {
        let hash = hash_of(prefix, kind, self.seed);
        let set = &self.sets[hash as usize % SETS].0;
        let tag = hash & !TIME_MASK;
        for _ in 0..TRIES {
            let (slot, held) = choose(set, tag, now);
            let ahead = if held & !TIME_MASK == tag { ahead(held, now) } else { 0 };
            if ahead + interval > TICKS {
                return false;
            }
            let next = tag | ((now + ahead + interval) & TIME_MASK);
            if slot.compare_exchange(held, next, Relaxed, Relaxed).is_ok() {
                return true;
            }
        }
        true
    }
}

/// The slot of the client, or else the one whose client has used least: who
/// comes with many addresses must not make us forget who asks most.
fn choose(set: &[AtomicU64; WAYS], tag: u64, now: u64) -> (&AtomicU64, u64) {
    let mut least = (&set[0], set[0].load(Relaxed));
    for slot in set {
        let held = slot.load(Relaxed);
        if held & !TIME_MASK == tag {
            return (slot, held);
        }
        if ahead(held, now) < ahead(least.1, now) {
            least = (slot, held);
        }
    }
    least
}

/// Ticks until the slot's allowance is whole again. A little more than a second
/// comes from a thread that looked at its clock later; much more is what is left of
/// an earlier round.
fn ahead(held: u64, now: u64) -> u64 {
    let ahead = (held & TIME_MASK).wrapping_sub(now) & TIME_MASK;
    if ahead <= 2 * TICKS { ahead.min(TICKS) } else { 0 }
}

/// By which a client is counted: an IPv4 address or an IPv6 /64.
pub fn client_hash(address: IpAddr, seed: u64) -> u64 {
    hash_of(client_of(address), Kind::Query, seed)
}

fn client_of(address: IpAddr) -> Prefix {
    match address.to_canonical() {
        address @ IpAddr::V4(_) => Prefix { address, length: 32 },
        // All of a link are in one /64.
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
    let mut octets = [0; 18];
    match prefix.address {
        IpAddr::V4(address) => {
            let kept = address.to_bits() & (u32::MAX << (32 - u32::from(prefix.length)));
            octets[..4].copy_from_slice(&kept.to_be_bytes());
        }
        IpAddr::V6(address) => {
            let kept = address.to_bits() & (u128::MAX << (128 - u32::from(prefix.length)));
            octets[..16].copy_from_slice(&kept.to_be_bytes());
        }
    }
    octets[16] = prefix.length;
    octets[17] = kind as u8;
    xxh3_64_with_seed(&octets, seed)
}

//------- ConnectionCounts --------------------------------------------------------------

/// Places in which connections are counted.
const PLACES: usize = 1 << 16;

/// TCP connections by client, and by network of each listen address. Two clients (or two
/// networks) may share a place, and then their bound; with the seed nobody can choose
/// with whom.
pub struct ConnectionCounts {
    clients: Box<[AtomicU32]>,
    networks: Box<[AtomicU32]>,
    seed: u64,
}

/// The place of a network: an IPv4 /24 or an IPv6 /48 that connects to one listen address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network(usize);

impl ConnectionCounts {
    pub fn new(seed: u64) -> ConnectionCounts {
        let places = || (0..PLACES).map(|_| AtomicU32::default()).collect();
        ConnectionCounts { clients: places(), networks: places(), seed }
    }

    /// Counts one more connection of the client; returns how many it has.
    pub fn enter(&self, address: IpAddr) -> usize {
        self.client(address).fetch_add(1, Relaxed) as usize + 1
    }

    pub fn leave(&self, address: IpAddr) {
        self.client(address).fetch_sub(1, Relaxed);
    }

    fn client(&self, address: IpAddr) -> &AtomicU32 {
        &self.clients[hash_of(client_of(address), Kind::Query, self.seed) as usize % PLACES]
    }

    /// The network of a client of `listener`. Each `class` of clients is counted apart.
    pub fn network(&self, address: IpAddr, listener: SocketAddr, class: u8) -> Network {
        let host = Prefix { address: listener.ip(), length: if listener.is_ipv4() { 32 } else { 128 } };
        let seed = self.seed ^ (u64::from(listener.port()) << 8 | u64::from(class));
        let seed = hash_of(host, Kind::Query, seed);
        Network(hash_of(network_of(address), Kind::Query, seed) as usize % PLACES)
    }

    /// Counts one more connection of the network; returns how many it has.
    pub fn enter_network(&self, network: Network) -> usize {
        self.networks[network.0].fetch_add(1, Relaxed) as usize + 1
    }

    pub fn leave_network(&self, network: Network) {
        self.networks[network.0].fetch_sub(1, Relaxed);
    }

    /// Connections of the network.
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
    fn a_client_has_a_second_of_its_rate_at_once_and_then_its_rate() {
        let limiter = Limiter::new(1);
        let start = Instant::now();
        let client = address("192.0.2.1");
        assert_eq!(admitted(&limiter, client, 100, 1000, start), 100);
        assert_eq!(admitted(&limiter, client, 100, 1000, start + Duration::from_millis(500)), 50);
        assert_eq!(admitted(&limiter, client, 100, 1000, start + Duration::from_secs(60)), 100);
        assert_eq!(admitted(&limiter, address("192.0.2.2"), 100, 1000, start), 100, "a neighbour");
        assert!(limiter.admit(client, Kind::Error, 1, start + Duration::from_secs(60)), "counted apart");
        assert_eq!(admitted(&limiter, client, 0, 1000, start), 1000, "0 is no limit");
    }

    #[test]
    fn an_ipv6_client_is_its_64_and_a_network_is_bounded_too() {
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

    /// Each worker thread looks at the clock once a turn, so one may be behind.
    #[test]
    fn threads_whose_clocks_differ_give_one_allowance() {
        let limiter = Limiter::new(6);
        let (client, behind) = (address("192.0.2.1"), Instant::now());
        let ahead = behind + Duration::from_millis(20);
        let turns = (0..4000).map(|turn| if turn % 2 == 0 { ahead } else { behind });
        let admitted = turns.filter(|at| limiter.admit(client, Kind::Query, 1000, *at)).count();
        assert!((1000..=1020).contains(&admitted), "{admitted}");
    }

    /// The clock of the slots begins anew every 19 hours.
    #[test]
    fn what_a_slot_says_is_forgotten_in_time() {
        let limiter = Limiter::new(3);
        let (start, client) = (Instant::now(), address("192.0.2.1"));
        for hours in [0, 9, 10, 19, 20, 100, 10_000] {
            let at = start + Duration::from_secs(hours * 3600);
            assert_eq!(admitted(&limiter, client, 50, 60, at), 50, "after {hours} hours");
        }
    }

    /// Memory is fixed, so clients are forgotten: those who ask least first.
    #[test]
    fn a_crowd_of_addresses_does_not_free_who_asks_most() {
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
        let crowd = ConnectionCounts::new(5);
        assert_eq!((crowd.enter(address("192.0.2.1")), crowd.enter(address("192.0.2.1"))), (1, 2));
        assert_eq!(crowd.enter(address("192.0.2.2")), 1);
        assert_eq!((crowd.enter(address("2001:db8::1")), crowd.enter(address("2001:db8::2"))), (1, 2));
        crowd.leave(address("192.0.2.1"));
        assert_eq!(crowd.enter(address("192.0.2.1")), 2);
    }

    #[test]
    fn connections_are_counted_by_network_for_each_listener_and_class() {
        let crowd = ConnectionCounts::new(5);
        let listener = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (one, other) = (listener("192.0.2.53:53"), listener("192.0.2.53:5353"));
        let place = |text: &str| crowd.network(address(text), one, 0);
        assert_eq!(place("198.51.100.1"), place("198.51.100.255"));
        assert_eq!(place("198.51.100.1"), place("::ffff:198.51.100.2"));
        assert_ne!(place("198.51.100.1"), place("198.51.101.1"));
        assert_eq!(place("2001:db8:0:f::1"), place("2001:db8:0:ffff::1"));
        assert_ne!(place("2001:db8:0:f::1"), place("2001:db8:1:f::1"));
        let network = place("198.51.100.1");
        assert_ne!(network, crowd.network(address("198.51.100.1"), other, 0));
        assert_ne!(network, crowd.network(address("198.51.100.1"), one, 1));
        assert_eq!((crowd.enter_network(network), crowd.enter_network(network)), (1, 2));
        crowd.leave_network(network);
        assert_eq!(crowd.held(network), 1);
    }
}
