//! Queries that wait because no upstream can be used just now: a restart of the last one
//! takes a moment, and a client is better served late than with SERVFAIL. They wait until
//! an upstream is back, for two seconds at most, and no longer than clients wait.

use std::time::{Duration, Instant};

use super::Upstreams;
use super::flight::Flight;
use super::health::{HOLD, Mask, RETRY};

/// How long a stub resolver waits for a response (resolv.conf(5): timeout).
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// Queries that are sent again in one turn; others come between them.
const TOGETHER: usize = 256;

/// The flights of one worker thread that wait.
#[derive(Default)]
pub struct Holding {
    held: Vec<Held>,
    /// When it is looked through next.
    look_at: Option<Instant>,
    /// `Health::returns` as it was when this thread last looked.
    returns: u64,
}

struct Held {
    key: usize,
    /// Tells the flight from another in its place.
    number: u64,
    until: Instant,
    retry_at: Instant,
}

impl Holding {
    pub fn new(returns: u64) -> Holding {
        Holding { returns, ..Holding::default() }
    }

    pub fn next_look(&self) -> Option<Instant> {
        self.look_at
    }

    fn look_by(&mut self, at: Instant) {
        self.look_at = Some(self.look_at.map_or(at, |before| before.min(at)));
    }
}

impl Upstreams {
    /// Lets a flight wait that nobody can be asked about now; false where it has waited
    /// long enough, or its clients can be given something at once.
    pub(super) fn hold(&mut self, key: usize, now: Instant) -> bool {
        let out_until = self.health.is_out().then(|| self.health.lost_at() + HOLD);
        let flight = &mut self.flights[key];
        // While upstreams are up, only what the network returned is worth another try:
        // one of them is restarting.
        let is_hopeful = out_until.is_some() || (flight.is_unreachable && !flight.transport.is_tcp());
        let may_wait = !flight.has_stale && !flight.is_told && !flight.awaits_recursion;
        if !is_hopeful || !may_wait || !flight.is_awaited() {
            return false;
        }
        let own_until = *flight.held_until.get_or_insert(now + HOLD);
        let until = out_until.unwrap_or(own_until).min(flight.began_at + CLIENT_TIMEOUT);
        if until <= now {
            return false;
        }
        // The deadline of the attempt before means nothing any more.
        (flight.blame, flight.stamp) = (None, 0);
        let retry_at = now + RETRY;
        self.holding.held.push(Held { key, number: flight.number, until, retry_at });
        self.holding.look_by(retry_at);
        true
    }

    /// Whether an upstream is back since this was last called, after none could be used.
    pub(super) fn note_returns(&mut self) -> bool {
        let returns = self.health.returns();
        let is_back = std::mem::replace(&mut self.holding.returns, returns) != returns;
        if is_back {
            // What was sent while nobody could answer has not had its chance.
            let before = self.settings.attempts - 1;
            self.flights.iter_mut().for_each(|(_, flight)| flight.attempts = flight.attempts.min(before));
        }
        is_back
    }

    /// Sends again what waits, once an upstream can be used; returns the flights that have
    /// waited long enough.
    pub(super) fn look_at_held(&mut self, is_back: bool, now: Instant) -> Vec<Flight> {
        let mut failed = Vec::new();
        if !is_back && self.holding.look_at.is_none_or(|at| at > now) {
            return failed;
        }
        self.holding.look_at = None;
        let is_out = self.health.is_out();
        let mut room = match is_out {
            false => TOGETHER,
            true if self.settings.probe.is_some() => 0,
            // Without health checks, queries find out who is back: one for each upstream.
            true => self.settings.servers.len(),
        };
        for mut held in std::mem::take(&mut self.holding.held) {
            if self.flights.get(held.key).is_none_or(|flight| flight.number != held.number) {
                continue; // A late answer has come.
            }
            if is_back && !is_out {
                held.retry_at = now;
            }
            if held.until <= now {
                failed.push(self.land(held.key));
            } else if held.retry_at <= now && room > 0 {
                room -= 1;
                self.try_again(held.key, now);
            } else {
                let at = if is_out { now + RETRY } else { held.retry_at };
                self.holding.look_by(at.min(held.until));
                self.holding.held.push(held);
            }
        }
        failed
    }

    /// With all of its attempts: those before were lost on who could not be reached.
    fn try_again(&mut self, key: usize, now: Instant) {
        let flight = &mut self.flights[key];
        (flight.attempts, flight.asked, flight.is_unreachable) = (0, 0 as Mask, false);
        self.attempt(key, now);
    }
}
