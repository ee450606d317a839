//! Timeouts and retries: which tries have waited too long or lost their upstream, and what is
//! sent again.

use std::time::Instant;

use super::Upstreams;
use super::claims::Claim;
use super::flight::{Channel, Flight, Route};
use super::health::{self, Failure, HOLD};

/// Deadlines that are kept, whatever became of their questions.
const DEADLINES: usize = 4096;

pub(super) struct Deadline {
    pub(super) at: Instant,
    pub(super) flight: usize,
    pub(super) stamp: u64,
}

impl Upstreams {
    /// Ends the latest attempt, which is nobody's fault any more.
    pub(super) fn fail_now(&mut self, key: usize, now: Instant) {
        (self.flights[key].blame, self.flights[key].is_unreachable) = (None, true);
        self.wait(key, now, now);
    }

    /// Sets the deadline of the latest attempt.
    pub(super) fn wait(&mut self, key: usize, at: Instant, now: Instant) {
        if self.deadlines.len() > DEADLINES + 4 * self.flights.len() {
            // Most are of what was answered long ago.
            let flights = &self.flights;
            let is_due = |due: &Deadline| flights.get(due.flight).is_some_and(|f| f.stamp == due.stamp);
            self.deadlines.retain(is_due);
        }
        self.next_stamp += 1;
        self.flights[key].stamp = self.next_stamp;
        let deadline = Deadline { at, flight: key, stamp: self.next_stamp };
        // All get the same patience, or none; but for those from before a reload that changed it.
        match at > now {
            true if self.deadlines.back().is_none_or(|last| last.at <= at) => {
                self.deadlines.push_back(deadline);
            }
            true => {
                let place = self.deadlines.partition_point(|other| other.at <= at);
                self.deadlines.insert(place, deadline);
            }
            false => self.deadlines.push_front(deadline),
        }
    }

    /// Sends again what has waited long enough, and returns the flights that
    /// have no attempt left.
    pub fn expire(&mut self, now: Instant) -> Vec<Flight> {
        let is_back = self.note_returns();
        self.take_over(is_back, now);
        let mut failed = self.look_at_held(is_back, now);
        while self.deadlines.front().is_some_and(|deadline| deadline.at <= now) {
            let Some(Deadline { flight: key, stamp, .. }) = self.deadlines.pop_front() else { break };
            if self.flights.get(key).is_none_or(|flight| flight.stamp != stamp) {
                continue;
            }
            if let Some(upstream) = self.flights[key].blame.take() {
                self.count(upstream).timeouts.add(1);
                let since = self.flights[key].sent_at.unwrap_or(now);
                self.health.failed(upstream, Failure::Silence(since), now);
                self.drop_deaf_stream(key, now);
            }
            let flight = &mut self.flights[key];
            flight.awaits_recursion |= flight.claim.as_ref().is_some_and(Claim::awaits_recursion);
            let flight = &self.flights[key];
            if flight.attempts < self.attempts_of(flight) && !flight.is_lost && !flight.awaits_recursion {
                self.attempt(key, now);
            } else if !self.hold(key, now) {
                failed.push(self.land(key));
            }
        }
        self.flush(now);
        failed
    }

    /// Attempts of a flight. One that another worker thread asks about waits longer, as
    /// that thread may wait for an upstream to come back (`hold`).
    fn attempts_of(&self, flight: &Flight) -> usize {
        let more = match flight.is_told {
            true => HOLD.as_nanos().div_ceil(self.settings.timeout.as_nanos().max(1)) as usize,
            false => 0,
        };
        self.settings.attempts + more
    }

    /// Once an upstream is not up any more, or one is back after none was: what waits for
    /// one that cannot be used is sent to another at once, and does not wait for its deadline.
    pub(super) fn take_over(&mut self, is_back: bool, now: Instant) {
        let losses = self.health.losses();
        if std::mem::replace(&mut self.losses, losses) == losses && !is_back {
            return;
        }
        let up = if is_back { self.health.usable() & self.chooser.all() } else { self.up() };
        let attempts = self.settings.attempts;
        let is_stuck = |flight: &Flight| {
            let waits = flight.blame.is_some_and(|upstream| up & health::bit(upstream) == 0);
            waits && flight.attempts < attempts && (up & !flight.asked != 0 || is_back && up != 0)
        };
        let stuck: Vec<usize> =
            self.flights.iter().filter(|(_, flight)| is_stuck(flight)).map(|(key, _)| key).collect();
        for key in stuck {
            if let Some(upstream) = self.flights[key].blame.take() {
                self.count(upstream).failed_over.add(1);
                self.attempt(key, now);
            }
        }
    }

    /// Closes what nobody has used for a while. Meant for now and then.
    pub fn tidy(&mut self, now: Instant) {
        self.pool.shrink(now);
        self.close_idle_streams(now);
    }

    /// An ICMP error, most often: nobody listens there. Waiting would be lost
    /// time for every query that went out through this socket.
    pub(super) fn socket_failed(&mut self, key: usize, now: Instant) {
        let Some((upstream, lost)) = self.pool.get(key).map(|socket| (socket.upstream, socket.ids.all()))
        else {
            return;
        };
        self.count(upstream).network_errors.add(1);
        self.health.failed(upstream, Failure::Unreachable, now);
        for (id, flight) in lost {
            let Some(route) = self.lose_route(flight, Channel::Socket(key), id) else { continue };
            if self.flights[flight].ends_with(&route) {
                self.fail_now(flight, now);
            }
        }
    }

    /// Takes the route of a flight that has lost its channel.
    pub(super) fn lose_route(&mut self, flight: usize, channel: Channel, id: u16) -> Option<Route> {
        let routes = &mut self.flights.get_mut(flight)?.routes;
        let lost = |route: &Option<Route>| route.is_some_and(|r| r.channel == channel && r.id == id);
        let route = routes.iter_mut().find(|route| lost(route))?.take()?;
        self.leave(&route);
        Some(route)
    }
}
