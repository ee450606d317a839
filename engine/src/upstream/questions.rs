//! Questions under way, by what they ask: who asks the same waits with the others,
//! and who may be given a stale answer does not wait too long.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::time::{Duration, Instant};

use super::{Flight, Origin, Upstreams, Waiter};
use crate::cache::{IdentityHasher, Key};

/// How long a client waits before it is given a stale answer, as its own patience
/// may be little more (RFC 8767 5: the client response timer).
const PATIENCE: Duration = Duration::from_millis(1800);

/// What one worker thread knows of its questions.
#[derive(Default)]
pub struct Questions {
    /// The latest flight with a question of this turn (`Key::coalescing_hash`).
    flights: HashMap<u64, usize, BuildHasherDefault<IdentityHasher>>,
    /// Flights with a question that a later flight asks again, after a purge of the cache.
    superseded: usize,
    /// Queries that wait for a question of somebody else.
    joined: usize,
    /// Flights with a stale answer, by place and number, and when that is given.
    impatient: VecDeque<(Instant, usize, u64)>,
    next_number: u64,
}

impl Questions {
    pub fn joined(&self) -> usize {
        self.joined
    }

    /// The place of the latest flight with a question of this turn.
    pub fn find(&self, question: u64) -> Option<usize> {
        self.flights.get(&question).copied()
    }

    /// Whether `find` misses some flights.
    pub fn has_superseded(&self) -> bool {
        self.superseded > 0
    }

    /// When somebody has waited long enough.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.impatient.front().map(|(at, ..)| *at)
    }

    /// Notes a flight that goes to this place.
    pub fn enter(&mut self, place: usize, flight: &mut Flight, now: Instant) {
        flight.question = flight.first.key().coalescing_hash();
        self.next_number += 1;
        flight.number = self.next_number;
        self.superseded += usize::from(self.flights.insert(flight.question, place).is_some());
        if flight.has_stale {
            self.bound_patience(place, flight.number, now);
        }
    }

    fn bound_patience(&mut self, place: usize, number: u64, now: Instant) {
        self.impatient.push_back((now + PATIENCE, place, number));
    }

    /// Notes that a flight has left its place.
    pub fn leave(&mut self, place: usize, flight: &Flight) {
        self.joined -= flight.others.len();
        if self.flights.get(&flight.question) == Some(&place) {
            self.flights.remove(&flight.question);
        } else {
            self.superseded -= 1;
        }
    }
}

/// What becomes of a query whose question may be under way already.
pub enum Join {
    /// It waits with the others.
    Waits,
    /// Nobody has asked, or before something was purged from the cache.
    Alone(Box<Waiter>),
    /// Others have waited too long already.
    Overdue(Box<Waiter>),
    /// Too many wait.
    Full(Box<Waiter>),
}

impl Upstreams {
    /// Lets a query wait with those that ask the same already. `has_stale`: there is a
    /// kept answer that would do. What upstreams answer to one client is for no other
    /// where they are told who asks.
    pub fn join(&mut self, waiter: Box<Waiter>, has_stale: bool, purges: u64, now: Instant) -> Join {
        if self.tells_client() {
            return Join::Alone(waiter);
        }
        let key = waiter.key();
        let place = self.questions.find(key.coalescing_hash());
        let flight = place.and_then(|place| Some((place, self.flights.get_mut(place)?)));
        let Some((place, flight)) = flight else { return Join::Alone(waiter) };
        // With `asker` it was asked for one client, before a reload changed that.
        let is_for_one = flight.asker.is_some();
        if is_for_one || !flight.first.key().coalesces_with(&key) || flight.purges != purges {
            return Join::Alone(waiter);
        }
        let is_same = flight.first.key() == key;
        if is_same && has_stale && flight.is_overdue {
            return Join::Overdue(waiter);
        }
        if self.questions.joined >= self.settings.max_outstanding {
            return Join::Full(waiter);
        }
        flight.awaits_recursion |= !flight.first.key().serves(&waiter.key());
        if is_same && has_stale && !std::mem::replace(&mut flight.has_stale, true) {
            self.questions.bound_patience(place, flight.number, now);
        }
        flight.others.push(waiter);
        self.questions.joined += 1;
        Join::Waits
    }

    /// Places of the questions for which was waited long enough, where a stale answer may
    /// be given. Each is told once.
    pub fn overdue(&mut self, now: Instant) -> Vec<usize> {
        let mut overdue = Vec::new();
        while self.questions.next_deadline().is_some_and(|at| at <= now) {
            let Some((_, place, number)) = self.questions.impatient.pop_front() else { break };
            let Some(flight) = self.flights.get_mut(place).filter(|f| f.number == number) else { continue };
            flight.is_overdue = true;
            overdue.push(place);
        }
        overdue
    }

    /// What is asked at this place.
    pub fn key_at(&self, place: usize) -> Key<'_> {
        self.flights[place].first.key()
    }

    /// Takes out who waits for this very question; it stays under way.
    pub fn take_waiters(&mut self, place: usize) -> Vec<Box<Waiter>> {
        let flight = &mut self.flights[place];
        let first = flight.first.clone();
        flight.first.origin = Origin::Nobody;
        let (others, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut flight.others).into_iter().partition(|waiter| waiter.key() == first.key());
        flight.others = left;
        self.questions.joined -= others.len();
        [first].into_iter().chain(others).collect()
    }
}
