//! Questions under way, by what they ask: who asks the same waits with the others,
//! and who may be given a stale answer does not wait too long.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::time::{Duration, Instant};

use super::{Flight, Origin, Upstreams, Waiter};
use crate::cache::{AsItIs, Kept};

/// How long a client waits before it is given a stale answer, as its own patience
/// may be little more (RFC 8767 5: the client response timer).
const PATIENCE: Duration = Duration::from_millis(1800);

/// What one packet thread knows of its questions.
#[derive(Default)]
pub struct Questions {
    /// The latest flight with a question of this hash.
    flights: HashMap<u64, usize, BuildHasherDefault<AsItIs>>,
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

    /// The place of the latest flight with a question of this hash.
    pub fn find(&self, question: u64) -> Option<usize> {
        self.flights.get(&question).copied()
    }

    /// When somebody has waited long enough.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.impatient.front().map(|(at, ..)| *at)
    }

    /// Notes a flight that goes to this place.
    pub fn enter(&mut self, place: usize, flight: &mut Flight, now: Instant) {
        flight.question = flight.first.key().hash();
        self.next_number += 1;
        flight.number = self.next_number;
        self.flights.insert(flight.question, place);
        if flight.stale.is_some() {
            self.impatient.push_back((now + PATIENCE, place, flight.number));
        }
    }

    /// Notes that a flight has left its place.
    pub fn leave(&mut self, place: usize, flight: &Flight) {
        self.joined -= flight.others.len();
        if self.flights.get(&flight.question) == Some(&place) {
            self.flights.remove(&flight.question);
        }
    }
}

impl Upstreams {
    /// Lets a query wait with those that ask the same already; gives it back where
    /// nobody does. What upstreams answer to one client is for no other where they
    /// are told who asks.
    pub fn join(&mut self, waiter: Box<Waiter>) -> Option<Box<Waiter>> {
        if self.tells_client() {
            return Some(waiter);
        }
        let key = waiter.key();
        let place = self.questions.find(key.hash());
        let Some(flight) = place.and_then(|place| self.flights.get_mut(place)) else { return Some(waiter) };
        if flight.first.key() != key {
            return Some(waiter);
        }
        flight.others.push(waiter);
        self.questions.joined += 1;
        None
    }

    /// Takes out who has waited long enough to be given a stale answer; the question
    /// stays under way.
    pub fn impatient(&mut self, now: Instant) -> Vec<(Box<Waiter>, Kept)> {
        let mut impatient = Vec::new();
        while self.questions.next_deadline().is_some_and(|at| at <= now) {
            let Some((_, place, number)) = self.questions.impatient.pop_front() else { break };
            let Some(flight) = self.flights.get_mut(place).filter(|f| f.number == number) else { continue };
            let Some(stale) = flight.stale.clone() else { continue };
            let first = flight.first.clone();
            flight.first.origin = Origin::Nobody;
            let others = std::mem::take(&mut flight.others);
            self.questions.joined -= others.len();
            let waiters = [first].into_iter().chain(others);
            impatient.extend(waiters.map(|waiter| (waiter, stale.clone())));
        }
        impatient
    }
}
