//! Timeouts and retries: the tries that timed out or lost their upstream, and the next try.

use std::collections::VecDeque;
use std::time::Instant;

use super::Upstreams;
use super::claims::Claim;
use super::flight::{Flight, State};
use super::flights::Flights;
use super::health::{self, Failure, MAX_DELAY};
use super::tries::{Channel, Route};

/// Above this number, and four per flight, deadlines of finished flights are removed.
const DEADLINES: usize = 4096;

/// The deadlines of one worker thread, in order of time. One deadline of a flight counts: the last.
#[derive(Default)]
pub(super) struct Deadlines {
    queue: VecDeque<Deadline>,
    next_number: u64,
}

struct Deadline {
    at: Instant,
    flight: usize,
    number: u64,
}

impl Deadline {
    fn counts(&self, flights: &Flights) -> bool {
        flights.get(self.flight).is_some_and(|flight| flight.deadline == self.number)
    }
}

impl Deadlines {
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.front().map(|deadline| deadline.at)
    }

    fn set(&mut self, flights: &mut Flights, flight: usize, at: Instant, now: Instant) {
        if self.queue.len() > DEADLINES + 4 * flights.len() {
            self.queue.retain(|deadline| deadline.counts(flights));
        }
        self.next_number += 1;
        flights[flight].deadline = self.next_number;
        let deadline = Deadline { at, flight, number: self.next_number };
        // All tries have the same timeout, or none; a reload may have changed it.
        match at > now {
            true if self.queue.back().is_none_or(|last| last.at <= at) => self.queue.push_back(deadline),
            true => {
                let place = self.queue.partition_point(|other| other.at <= at);
                self.queue.insert(place, deadline);
            }
            false => self.queue.push_front(deadline),
        }
    }

    /// Takes the next flight whose deadline has passed.
    fn take_due(&mut self, flights: &Flights, now: Instant) -> Option<usize> {
        while self.next().is_some_and(|at| at <= now) {
            let due = self.queue.pop_front()?;
            if due.counts(flights) {
                return Some(due.flight);
            }
        }
        None
    }
}

impl Upstreams {
    /// Replaces the deadline of a flight.
    pub(super) fn set_deadline(&mut self, key: usize, at: Instant, now: Instant) {
        self.deadlines.set(&mut self.flights, key, at, now);
    }

    /// Ends the last try, which the network rejected. The next call of `expire` tries again.
    pub(super) fn fail_try(&mut self, key: usize, now: Instant) {
        self.flights[key].state = State::Unreachable;
        self.set_deadline(key, now, now);
    }

    /// Retries what has timed out, and returns the flights that have no try left.
    pub fn expire(&mut self, now: Instant) -> Vec<Flight> {
        let is_back = self.note_returns();
        self.fail_over(is_back, now);
        let mut failed = self.check_delayed(is_back, now);
        while let Some(key) = self.deadlines.take_due(&self.flights, now) {
            if let Some((upstream, sent_at)) = self.flights[key].end_try(|_| true) {
                self.count(upstream).timeouts.add(1);
                self.health.failed(upstream, Failure::Timeout(sent_at), now);
                self.drop_silent_streams(key, now);
            }
            let flight = &mut self.flights[key];
            flight.awaits_recursion |= flight.claim.as_ref().is_some_and(Claim::awaits_recursion);
            let can_retry = flight.state != State::Exhausted && !flight.awaits_recursion;
            if can_retry && self.flights[key].tries.count < self.max_tries(&self.flights[key]) {
                self.try_next(key, now);
            } else if !self.delay(key, now) {
                failed.push(self.finish(key));
            }
        }
        self.flush(now);
        failed
    }

    /// A flight that waits for another worker thread waits longer, because that thread may delay the
    /// query until an upstream is back (`delay`).
    fn max_tries(&self, flight: &Flight) -> usize {
        let timeout = self.settings.timeout.as_nanos().max(1);
        let more =
            if flight.state == State::OtherThread { MAX_DELAY.as_nanos().div_ceil(timeout) } else { 0 };
        self.settings.tries + more as usize
    }

    /// Retries queries elsewhere before their deadline if their upstream has gone down. Also retries
    /// those of an unusable upstream when one is back after none was usable.
    fn fail_over(&mut self, is_back: bool, now: Instant) {
        let losses = self.health.losses();
        if std::mem::replace(&mut self.losses, losses) == losses && !is_back {
            return;
        }
        let up = if is_back { self.health.usable() & self.chooser.all } else { self.up() };
        let max_tries = self.settings.tries;
        let stuck = self.flights.keys(|flight| {
            let State::Sent { upstream, .. } = flight.state else { return false };
            let has_other = up & !flight.tries.upstreams != 0 || is_back && up != 0;
            up & health::bit(upstream) == 0 && flight.tries.count < max_tries && has_other
        });
        for key in stuck {
            if let Some((upstream, _)) = self.flights[key].end_try(|_| true) {
                self.count(upstream).failed_over.add(1);
                self.try_next(key, now);
            }
        }
    }

    /// Closes idle sockets and connections. Called now and then.
    pub fn tidy(&mut self, now: Instant) {
        self.pool.shrink(now);
        self.close_idle_streams(now);
    }

    /// A socket reports an error, usually ICMP port unreachable. All queries that were last sent
    /// through it are retried without waiting.
    pub(super) fn socket_failed(&mut self, key: usize, now: Instant) {
        let Some(socket) = self.pool.get(key) else { return };
        let (upstream, lost) = (socket.upstream, socket.ids.all());
        self.network_failed(upstream, now);
        for (id, flight) in lost {
            let Some(route) = self.lose_route(flight, Channel::Socket(key), id) else { continue };
            if self.flights[flight].fails_with(&route) {
                self.fail_try(flight, now);
            }
        }
    }

    pub(super) fn network_failed(&mut self, upstream: usize, now: Instant) {
        self.count(upstream).network_errors.add(1);
        self.health.failed(upstream, Failure::Unreachable, now);
    }

    /// Takes the route of a flight that has lost its channel.
    pub(super) fn lose_route(&mut self, flight: usize, channel: Channel, id: u16) -> Option<Route> {
        let tries = &mut self.flights.get_mut(flight)?.tries;
        let route = tries.take_route(|route| route.channel == channel && route.id == id)?;
        self.close_route(&route);
        Some(route)
    }
}
