//! Queries that are delayed because no upstream is usable. A restart of the last upstream takes a
//! moment, and a late response is better than SERVFAIL. They wait until an upstream is back, at
//! most two seconds, and never longer than a client waits.

use std::time::{Duration, Instant};

use super::Upstreams;
use super::flight::{Flight, Stale, State};
use super::health::{MAX_DELAY, RETRY};

/// How long a stub resolver waits for a response (resolv.conf(5): timeout).
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Queries that are sent again in one turn, so that other work is done between them.
const BATCH: usize = 256;

/// The delayed queries of one worker thread.
#[derive(Default)]
pub(super) struct Delayed {
    queries: Vec<Query>,
    pub(super) next_check: Option<Instant>,
    /// `Health::returns` when this thread last looked.
    returns: u64,
}

struct Query {
    flight: usize,
    /// Of the flight: its key may have been reused.
    number: u64,
    until: Instant,
    retry_at: Instant,
}

impl Delayed {
    pub(super) fn new(returns: u64) -> Delayed {
        Delayed { returns, ..Delayed::default() }
    }

    fn check_by(&mut self, at: Instant) {
        self.next_check = Some(self.next_check.map_or(at, |before| before.min(at)));
    }
}

impl Upstreams {
    /// Delays a query. Returns false if it was delayed long enough, or a delay cannot help.
    pub(super) fn delay(&mut self, key: usize, now: Instant) -> bool {
        let out_until = self.health.is_out().then(|| self.health.lost_at() + MAX_DELAY);
        let flight = &mut self.flights[key];
        // While other upstreams are up, only a query that the network rejected is worth a delay: its
        // upstream restarts.
        let was_rejected = matches!(flight.state, State::Unreachable | State::Exhausted);
        let is_hopeful = out_until.is_some() || (was_rejected && !flight.transport.is_tcp());
        let may_wait = flight.stale == Stale::None
            && flight.state != State::OtherThread
            && !flight.awaits_recursion
            && flight.is_awaited();
        if !is_hopeful || !may_wait {
            return false;
        }
        let own_until = *flight.delay_until.get_or_insert(now + MAX_DELAY);
        let until = out_until.unwrap_or(own_until).min(flight.started_at + CLIENT_TIMEOUT);
        if until <= now {
            return false;
        }
        // No deadline has this number.
        (flight.state, flight.deadline) = (State::Delayed, 0);
        let retry_at = now + RETRY;
        self.delayed.queries.push(Query { flight: key, number: flight.number, until, retry_at });
        self.delayed.check_by(retry_at);
        true
    }

    /// Whether an upstream has come back since the last call, after none was usable.
    pub(super) fn note_returns(&mut self) -> bool {
        let returns = self.health.returns();
        let is_back = std::mem::replace(&mut self.delayed.returns, returns) != returns;
        if is_back {
            // Tries during the outage do not use up the last one.
            let most = self.settings.tries - 1;
            self.flights.iter_mut().for_each(|(_, flight)| flight.tries.count = flight.tries.count.min(most));
        }
        is_back
    }

    /// Retries delayed queries when an upstream is usable. Returns those that waited long enough.
    pub(super) fn check_delayed(&mut self, is_back: bool, now: Instant) -> Vec<Flight> {
        let mut failed = Vec::new();
        if !is_back && self.delayed.next_check.is_none_or(|at| at > now) {
            return failed;
        }
        self.delayed.next_check = None;
        let is_out = self.health.is_out();
        let mut room = match is_out {
            false => BATCH,
            true if self.settings.health_check.is_some() => 0,
            // Without health checks, queries find out which upstream is back: one for each.
            true => self.settings.servers.len(),
        };
        for mut query in std::mem::take(&mut self.delayed.queries) {
            let key = query.flight;
            let is_delayed =
                |flight: &Flight| flight.number == query.number && flight.state == State::Delayed;
            if !self.flights.get(key).is_some_and(is_delayed) {
                // A late response has come, or the query was sent again because of one.
                continue;
            }
            if is_back && !is_out {
                query.retry_at = now;
            }
            if query.until <= now {
                failed.push(self.finish(key));
            } else if query.retry_at <= now && room > 0 {
                room -= 1;
                self.retry_delayed(key, now);
            } else {
                let at = if is_out { now + RETRY } else { query.retry_at };
                self.delayed.check_by(at.min(query.until));
                self.delayed.queries.push(query);
            }
        }
        failed
    }

    /// Starts again with all tries: earlier ones failed because no upstream was reachable.
    fn retry_delayed(&mut self, key: usize, now: Instant) {
        let flight = &mut self.flights[key];
        (flight.state, flight.tries.count, flight.tries.upstreams) = (State::Idle, 0, 0);
        self.try_next(key, now);
    }
}
