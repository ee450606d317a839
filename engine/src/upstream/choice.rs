//! Chooses the upstream for a query.
//!
//! Candidates are the upstreams that are up, have the lowest order, and have not been tried for this
//! query. The configured method chooses among them. If none is up, one that responds at all is used,
//! even with errors. Silent ones get one query now and then.

use std::net::SocketAddr;
use std::time::Instant;

use rand::RngExt;
use rand::rngs::StdRng;
use xxhash_rust::xxh3::xxh3_64;

use super::client_identity::mapped;
use super::health::{Health, MAX_UPSTREAMS, Mask, bit, places};
use crate::name::Name;

/// A recursive resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    pub address: SocketAddr,
    pub weight: u32,
    pub order: u32,
    /// The index in masks and tables, given by `reload::assign`. It stays the same over reloads.
    pub place: usize,
}

/// The method to choose one of several candidates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first in configured order.
    #[default]
    First,
    /// The one with the fewest outstanding queries for its weight.
    LeastOutstanding,
    /// At random, by weight.
    Weighted,
    /// By the name: the same name goes to the same upstream while that is up. If an upstream goes
    /// down, only its own names move.
    Hashed,
}

impl Choice {
    pub const ALL: [(&str, Choice); 4] = [
        ("first", Choice::First),
        ("least_outstanding", Choice::LeastOutstanding),
        ("weighted", Choice::Weighted),
        ("hashed", Choice::Hashed),
    ];

    pub fn from_name(name: &str) -> Option<Choice> {
        Choice::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, choice)| choice)
    }
}

/// The configured upstreams, prepared for a choice.
pub struct Chooser {
    choice: Choice,
    /// In configured order.
    places: Vec<usize>,
    /// The upstreams of each order, lowest first.
    orders: Vec<Mask>,
    /// The configured upstreams.
    pub all: Mask,
    /// By place.
    weights: [u32; MAX_UPSTREAMS],
    /// By place: makes the hash of a name different for each upstream.
    seeds: [u64; MAX_UPSTREAMS],
}

impl Chooser {
    pub fn new(choice: Choice, servers: &[Server]) -> Chooser {
        let mut orders: Vec<u32> = servers.iter().map(|server| server.order).collect();
        orders.sort_unstable();
        orders.dedup();
        let of = |order: u32| {
            let servers = servers.iter().filter(|server| server.order == order);
            servers.fold(0, |mask, server| mask | bit(server.place))
        };
        let orders: Vec<Mask> = orders.into_iter().map(of).collect();
        let (mut weights, mut seeds) = ([0; MAX_UPSTREAMS], [0; MAX_UPSTREAMS]);
        for server in servers {
            weights[server.place] = server.weight;
            seeds[server.place] = seed(server.address);
        }
        Chooser {
            choice,
            places: servers.iter().map(|server| server.place).collect(),
            all: orders.iter().fold(0, |all, order| all | order),
            orders,
            weights,
            seeds,
        }
    }

    /// The upstream for a query about `name` that was already sent to `tried`. `None` if all are down
    /// and none is due for a retry.
    pub fn choose(
        &self,
        health: &Health,
        tried: Mask,
        name: &Name,
        random: &mut StdRng,
        now: Instant,
    ) -> Option<usize> {
        let up = health.up();
        let mut due = health.retried_beside_others(now);
        loop {
            let place = self.among(up | due, tried, health, name, random);
            let place = place.or_else(|| self.among(health.responding(), tried, health, name, random));
            match place {
                Some(place) if due & bit(place) == 0 => return Some(place),
                Some(place) if health.claim_retry(place, now) => return Some(place),
                // Another thread was faster.
                Some(place) => due &= !bit(place),
                None => break,
            }
        }
        let due = health.due_for_retry(now) & self.all;
        let mut silent = places(due & !tried).chain(places(due & tried));
        silent.find(|&place| health.claim_retry(place, now))
    }

    /// One of the candidates of the lowest order that was not tried, otherwise one that was.
    fn among(
        &self,
        candidates: Mask,
        tried: Mask,
        health: &Health,
        name: &Name,
        random: &mut StdRng,
    ) -> Option<usize> {
        let fresh = candidates & !tried;
        let candidates = if fresh != 0 { fresh } else { candidates };
        let candidates = self.orders.iter().map(|order| order & candidates).find(|mask| *mask != 0)?;
        if candidates.is_power_of_two() {
            return places(candidates).next();
        }
        match self.choice {
            Choice::First => self.places.iter().copied().find(|&place| candidates & bit(place) != 0),
            Choice::LeastOutstanding => self.least_outstanding(candidates, health, random),
            Choice::Weighted => self.weighted(candidates, random),
            Choice::Hashed => self.hashed(candidates, name),
        }
    }

    /// Equal candidates share the queries by weight.
    fn least_outstanding(&self, candidates: Mask, health: &Health, random: &mut StdRng) -> Option<usize> {
        let mut best: Mask = 0;
        let (mut least, mut weight) = (u64::MAX, 1);
        for place in places(candidates) {
            let own = u64::from(self.weights[place]);
            let outstanding = u64::from(health.outstanding(place));
            // least / weight and outstanding / own, without the division.
            let (left, right) = (outstanding * weight, least.saturating_mul(own));
            if best == 0 || left < right {
                (best, least, weight) = (bit(place), outstanding, own);
            } else if left == right {
                best |= bit(place);
            }
        }
        self.weighted(best, random)
    }

    fn weighted(&self, candidates: Mask, random: &mut StdRng) -> Option<usize> {
        if candidates.is_power_of_two() {
            return places(candidates).next();
        }
        let weights = || places(candidates).map(|place| (place, self.weights[place]));
        let mut drawn = random.random_range(0..weights().map(|(_, weight)| weight).sum::<u32>().max(1));
        weights()
            .find(|(_, weight)| {
                let is_here = drawn < *weight;
                drawn = drawn.saturating_sub(*weight);
                is_here
            })
            .map(|(place, _)| place)
    }

    /// Weighted rendezvous hashing: -weight / ln(u), where u in (0, 1) depends on upstream and name.
    /// There is no random input, so that all threads and instances choose alike.
    fn hashed(&self, candidates: Mask, name: &Name) -> Option<usize> {
        let hash = xxh3_64(name.suffix(0));
        let score = |place: usize| {
            let mixed = mix(hash ^ self.seeds[place]);
            let unit = ((mixed >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
            -f64::from(self.weights[place]) / unit.ln()
        };
        let scored = places(candidates).map(|place| (place, score(place)));
        scored.reduce(|best, other| if other.1 > best.1 { other } else { best }).map(|(place, _)| place)
    }
}

/// Depends on the address and not the place. A new upstream takes names, and moves no others.
fn seed(address: SocketAddr) -> u64 {
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&mapped(address.ip()));
    bytes[16..].copy_from_slice(&address.port().to_be_bytes());
    xxh3_64(&bytes)
}

/// The finalizer of SplitMix64: every bit of the sum changes half of the result.
fn mix(sum: u64) -> u64 {
    let sum = (sum ^ (sum >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let sum = (sum ^ (sum >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    sum ^ (sum >> 31)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rand::SeedableRng;

    use super::*;
    use crate::events::Events;
    use crate::upstream::health::Failure;

    struct Pool {
        chooser: Chooser,
        health: Health,
        random: StdRng,
        now: Instant,
    }

    impl Pool {
        /// Upstreams by weight and order.
        fn new(choice: Choice, servers: &[(u32, u32)]) -> Pool {
            let server = |(place, (weight, order)): (usize, &(u32, u32))| Server {
                address: SocketAddr::from(([192, 0, 2, place as u8], 53)),
                weight: *weight,
                order: *order,
                place,
            };
            let servers: Vec<_> = servers.iter().enumerate().map(server).collect();
            let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
            Pool {
                chooser: Chooser::new(choice, &servers),
                health: Health::new(&addresses, Some((3, Duration::from_secs(1))), Arc::<Events>::default()),
                random: StdRng::seed_from_u64(1),
                now: Instant::now(),
            }
        }

        fn choose(&mut self, tried: Mask, text: &str) -> Option<usize> {
            let name = Name::from_text(text.as_bytes()).unwrap();
            self.chooser.choose(&self.health, tried, &name, &mut self.random, self.now)
        }

        fn kill(&self, place: usize) {
            for _ in 0..3 {
                self.health.failed(place, Failure::Unreachable, self.now);
            }
        }

        fn hashed(&mut self) -> Vec<Option<usize>> {
            (0..2000).map(|number| self.choose(0, &format!("n{number}.example"))).collect()
        }
    }

    #[test]
    fn the_first_is_chosen_while_it_is_up_then_the_next_then_the_next_order() {
        let mut pool = Pool::new(Choice::First, &[(1, 1), (1, 0), (1, 0)]);
        assert_eq!(pool.choose(0, "a"), Some(1));
        assert_eq!(pool.choose(0b010, "a"), Some(2));
        assert_eq!(pool.choose(0b110, "a"), Some(0), "another order before the same again");
        assert_eq!(pool.choose(0b111, "a"), Some(1));
        pool.kill(1);
        assert_eq!(pool.choose(0, "a"), Some(2));
        pool.kill(2);
        assert_eq!(pool.choose(0, "a"), Some(0));
        assert_eq!(pool.choose(0b001, "a"), Some(0), "one that was tried is better than a dead one");
    }

    #[test]
    fn if_all_are_down_a_responding_one_is_chosen_and_silent_ones_are_tried_now_and_then() {
        let mut pool = Pool::new(Choice::First, &[(1, 0), (1, 0)]);
        pool.kill(0);
        pool.kill(1);
        assert_eq!(pool.choose(0, "a"), None);
        pool.health.received(1, pool.now);
        assert_eq!((pool.choose(0, "a"), pool.choose(0b10, "a")), (Some(1), Some(1)));
        pool.health.mark_silent(1, "is silent", pool.now);
        pool.now += Duration::from_secs(1);
        let tries: Vec<_> = (0..4).map(|_| pool.choose(0, "a")).collect();
        assert_eq!(tries, [Some(0), Some(1), None, None]);
    }

    #[test]
    fn the_upstream_with_the_fewest_outstanding_queries_for_its_weight_is_chosen() {
        let mut pool = Pool::new(Choice::LeastOutstanding, &[(1, 0), (3, 0), (9, 1)]);
        let mut got = [0; 3];
        for _ in 0..4000 {
            let place = pool.choose(0, "a").unwrap();
            pool.health.query_sent(place, pool.now);
            got[place] += 1;
        }
        assert_eq!(got, [1000, 3000, 0]);
        for _ in 0..10 {
            pool.health.query_done(0);
        }
        assert_eq!(pool.choose(0, "a"), Some(0));
    }

    #[test]
    fn idle_upstreams_share_by_weight() {
        for choice in [Choice::LeastOutstanding, Choice::Weighted] {
            let mut pool = Pool::new(choice, &[(1, 0), (3, 0)]);
            let second = (0..4000).filter(|_| pool.choose(0, "a") == Some(1)).count();
            assert!((2850..3150).contains(&second), "{choice:?}: {second}");
        }
    }

    #[test]
    fn a_name_stays_with_its_upstream_and_only_those_of_a_dead_one_move() {
        let mut pool = Pool::new(Choice::Hashed, &[(1, 0), (1, 0), (2, 0)]);
        let before = pool.hashed();
        let share = |place| before.iter().filter(|chosen| **chosen == Some(place)).count();
        assert!((430..570).contains(&share(0)) && (430..570).contains(&share(1)), "by weight");
        assert_eq!(pool.choose(0, "WWW.example"), pool.choose(0, "www.EXAMPLE"));
        pool.kill(0);
        let after = pool.hashed();
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
        assert_eq!(moved.count(), share(0));
        pool.health.mark_up(0);
        assert_eq!(pool.hashed(), before);
    }

    #[test]
    fn instances_with_the_same_upstreams_in_another_order_choose_alike() {
        let server = |place: fn(u8) -> usize| {
            move |host| {
                let address = SocketAddr::from(([192, 0, 2, host], 53));
                Server { address, weight: 1, order: 0, place: place(host) }
            }
        };
        let servers: Vec<_> = (0..5).map(server(|host: u8| usize::from(host))).collect();
        let turned: Vec<_> = (0..5).rev().map(server(|host: u8| 4 - usize::from(host))).collect();
        let (one, other) = (Chooser::new(Choice::Hashed, &servers), Chooser::new(Choice::Hashed, &turned));
        for number in 0..100 {
            let name = Name::from_text(format!("n{number}").as_bytes()).unwrap();
            let chosen = one.hashed(0b11111, &name).unwrap();
            assert_eq!(other.hashed(0b11111, &name), Some(4 - chosen));
        }
    }
}
