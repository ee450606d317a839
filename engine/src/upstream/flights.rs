//! The outstanding questions of one worker thread. Identical queries are coalesced, and clients
//! that can be given a stale response do not wait too long.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use slab::Slab;

use super::flight::{Stale, State};
use super::{Flight, Origin, Upstreams, Waiter};
use crate::cache::{IdentityHasher, Key};

/// The client response timer (RFC 8767, section 5): clients get a stale response before their own
/// timeout, which may be little longer.
const STALE_TIMEOUT: Duration = Duration::from_millis(1800);

#[derive(Default)]
pub(super) struct Flights {
    flights: Slab<Flight>,
    /// The latest flight of each question, by `Key::coalescing_hash`.
    latest: HashMap<u64, usize, BuildHasherDefault<IdentityHasher>>,
    /// Flights that are not in `latest`, because their question was asked again after a purge.
    superseded: usize,
    /// Queries that are coalesced with another one.
    pub(super) joined: usize,
    /// Key and number of flights with a stale response, and when it is due.
    stale_timers: VecDeque<(Instant, usize, u64)>,
    next_number: u64,
}

impl Deref for Flights {
    type Target = Slab<Flight>;

    fn deref(&self) -> &Slab<Flight> {
        &self.flights
    }
}

impl DerefMut for Flights {
    fn deref_mut(&mut self) -> &mut Slab<Flight> {
        &mut self.flights
    }
}

impl Flights {
    pub fn keys(&self, matches: impl Fn(&Flight) -> bool) -> Vec<usize> {
        self.flights.iter().filter(|(_, flight)| matches(flight)).map(|(key, _)| key).collect()
    }

    /// The flight that waits for another worker thread's result. The question may have been asked
    /// again since, after a purge of the cache.
    pub fn waiting_for(&self, question: u64, purges: u64) -> Option<usize> {
        let waits = |flight: &Flight| {
            flight.state == State::OtherThread && flight.question == question && flight.purges == purges
        };
        let latest = self.latest.get(&question).copied().filter(|key| waits(&self.flights[*key]));
        if latest.is_some() || self.superseded == 0 {
            return latest;
        }
        self.flights.iter().find(|(_, flight)| waits(flight)).map(|(key, _)| key)
    }

    /// When the next stale response is due.
    pub fn next_overdue(&self) -> Option<Instant> {
        self.stale_timers.front().map(|(at, ..)| *at)
    }

    pub fn insert(&mut self, mut flight: Flight, now: Instant) -> usize {
        let key = self.flights.vacant_key();
        flight.question = flight.first.key().coalescing_hash();
        self.next_number += 1;
        flight.number = self.next_number;
        self.superseded += usize::from(self.latest.insert(flight.question, key).is_some());
        if flight.stale != Stale::None {
            self.stale_timers.push_back((now + STALE_TIMEOUT, key, flight.number));
        }
        self.flights.insert(flight)
    }

    pub fn remove(&mut self, key: usize) -> Flight {
        let flight = self.flights.remove(key);
        self.joined -= flight.others.len();
        if self.latest.get(&flight.question) == Some(&key) {
            self.latest.remove(&flight.question);
        } else {
            self.superseded -= 1;
        }
        flight
    }
}

/// The result of `Upstreams::join`.
pub enum Join {
    /// The query waits together with the others.
    Waits,
    /// The question is not outstanding, or was asked before a purge of the cache.
    Alone(Box<Waiter>),
    /// The stale response is due already.
    Overdue(Box<Waiter>),
    /// Too many queries wait.
    Full(Box<Waiter>),
}

impl Upstreams {
    /// Coalesces a query with an identical outstanding one. `has_stale` says that the cache has a
    /// stale response. Nothing is coalesced if upstreams receive the client's identity, because a
    /// response is then for one client.
    pub fn join(&mut self, waiter: Box<Waiter>, has_stale: bool, purges: u64, now: Instant) -> Join {
        if self.sends_identity() {
            return Join::Alone(waiter);
        }
        let (key, flights) = (waiter.key(), &mut self.flights);
        let found = flights.latest.get(&key.coalescing_hash()).copied();
        let found = found.and_then(|found| Some((found, flights.flights.get_mut(found)?)));
        let Some((found, flight)) = found else { return Join::Alone(waiter) };
        // With `client` it was sent for one client, before a reload changed that.
        let is_for_one = flight.client.is_some();
        if is_for_one || !flight.first.key().coalesces_with(&key) || flight.purges != purges {
            return Join::Alone(waiter);
        }
        let is_same = flight.first.key() == key;
        if is_same && has_stale && flight.stale == Stale::Given {
            return Join::Overdue(waiter);
        }
        if flights.joined >= self.settings.max_outstanding {
            return Join::Full(waiter);
        }
        flight.awaits_recursion |= !flight.first.key().serves(&waiter.key());
        if is_same && has_stale && flight.stale == Stale::None {
            flight.stale = Stale::Available;
            flights.stale_timers.push_back((now + STALE_TIMEOUT, found, flight.number));
        }
        flight.others.push(waiter);
        flights.joined += 1;
        Join::Waits
    }

    /// The keys of the flights whose stale response is due. Each is returned once.
    pub fn overdue(&mut self, now: Instant) -> Vec<usize> {
        let (mut overdue, flights) = (Vec::new(), &mut self.flights);
        while flights.next_overdue().is_some_and(|at| at <= now) {
            let Some((_, key, number)) = flights.stale_timers.pop_front() else { break };
            let Some(flight) = flights.get_mut(key).filter(|flight| flight.number == number) else {
                continue;
            };
            flight.stale = Stale::Given;
            overdue.push(key);
        }
        overdue
    }

    /// The question of a flight.
    pub fn key_at(&self, key: usize) -> Key<'_> {
        self.flights[key].first.key()
    }

    /// Takes the clients that wait for exactly this question. It stays outstanding.
    pub fn take_waiters(&mut self, key: usize) -> Vec<Box<Waiter>> {
        let flight = &mut self.flights[key];
        let first = flight.first.clone();
        flight.first.origin = Origin::Nobody;
        let (others, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut flight.others).into_iter().partition(|waiter| waiter.key() == first.key());
        flight.others = left;
        self.flights.joined -= others.len();
        [first].into_iter().chain(others).collect()
    }
}
