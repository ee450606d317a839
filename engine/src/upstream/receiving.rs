//! Takes what upstreams send: finds the question that a message answers, and decides whether
//! the answer is used, or another upstream is asked.

use std::io;
use std::time::Instant;

use super::Upstreams;
use super::flight::{Arrived, Channel, Flight, MAX_ATTEMPTS, Route};
use crate::message::{MAX_QUESTION, Transport, flag, is_truncated, rcode, u16_at};
use crate::relay;
use crate::sys::{BATCH, Batch};

/// Octets of a SERVFAIL that is kept while another upstream is asked.
const FAILURE: usize = 1232;

impl Upstreams {
    /// Takes the datagrams that have come to one socket; `batch` holds the
    /// messages of those that are returned, by place.
    pub fn receive(&mut self, socket: usize, batch: &mut Batch, now: Instant) -> Arrived<usize> {
        let mut arrived = Vec::new();
        let received = match self.pool.get(socket) {
            Some(pool_socket) => batch.receive(&pool_socket.socket, false, BATCH),
            None => return arrived,
        };
        let received = match received {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return arrived,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return arrived,
            Err(_) => {
                self.socket_failed(socket, now);
                return arrived;
            }
        };
        for place in 0..received {
            let datagram = &batch.datagrams[place];
            let message = &datagram.data[..datagram.length];
            if let Some(flight) = self.take(Channel::Socket(socket), message, now) {
                arrived.push((flight, place));
            }
        }
        arrived
    }

    /// Finds the flight that a message answers, and ends it; `None` for what
    /// nobody asked, and for what must be asked again.
    pub(super) fn take(&mut self, channel: Channel, message: &[u8], now: Instant) -> Option<Flight> {
        let (upstream, ids) = match channel {
            Channel::Socket(key) => self.pool.get(key).map(|socket| (socket.upstream, &socket.ids))?,
            Channel::Stream(key) => self.streams.get(key).map(|stream| (stream.upstream, &stream.ids))?,
        };
        let key = u16_at(message, 0).and_then(|id| ids.find(id));
        let mut question = [0; MAX_QUESTION];
        let asked =
            key.filter(|&key| relay::answers(message, self.flights[key].asked_question(&mut question)));
        let Some(key) = asked else {
            // RFC 5452 9.1: not an answer to us. The right one may still come.
            self.count(upstream).mismatches.add(1);
            return None;
        };
        let had_opt = self.answered(key, channel, upstream, now);
        if is_truncated(message) && matches!(channel, Channel::Socket(_)) {
            if !self.flights[key].transport.is_tcp() {
                // The same upstream once more; not an attempt, since it answered.
                self.flights[key].transport = Transport::Tcp;
                self.send(key, upstream, now);
            }
            return None;
        }
        self.flights[key].parse(message, &mut self.parsers);
        if self.sends_again_without_opt(key, upstream, had_opt, message, now) {
            return None;
        }
        match self.asks_elsewhere(key, upstream, message, now) {
            true => None,
            false => Some(self.land(key)),
        }
    }

    /// Notes that a query was answered; whether that had been sent with OPT.
    pub(super) fn answered(&mut self, key: usize, channel: Channel, upstream: usize, now: Instant) -> bool {
        let route = self.flights[key].route_over(channel).copied();
        if let Some(route) = route {
            self.count(upstream).answered_after(now.saturating_duration_since(route.sent_at));
        }
        if let Channel::Stream(stream) = channel {
            self.streams[stream].answered += 1;
        }
        self.health.answered(upstream, now);
        route.is_some_and(|route| route.has_opt)
    }

    /// Asks another upstream, once, where this one will not answer, cannot be understood,
    /// or has failed. Where that is not to be had, the best answer stands in the message or
    /// in `Flight::failure`.
    fn asks_elsewhere(&mut self, key: usize, upstream: usize, message: &[u8], now: Instant) -> bool {
        let flight = &self.flights[key];
        let is_useless = !flight.is_sound || is_unwilling(message);
        let has_failed = flight.is_sound && is_failure(message);
        if !is_useless && !has_failed {
            self.flights[key].failure = None;
            return false;
        }
        let question = flight.first.key();
        if has_failed && flight.failure.is_some() {
            self.failed_twice.insert(question, now);
        }
        // RFC 9520 3.2: what two have failed at is not asked twice again at once.
        let is_known = has_failed && self.failed_twice.contains(question, now);
        if is_known || !self.has_another(key) {
            if has_failed {
                self.flights[key].failure = None;
            }
            return false;
        }
        let count = self.count(upstream);
        if has_failed { &count.failures } else { &count.refused }.add(1);
        let flight = &mut self.flights[key];
        flight.was_refused = true;
        flight.failure = (has_failed && message.len() <= FAILURE).then(|| message.into());
        self.attempt(key, now);
        true
    }

    /// Whether a query that an upstream would not answer may be put to another that
    /// is up; once.
    fn has_another(&self, key: usize) -> bool {
        let flight = &self.flights[key];
        let has_attempts = flight.attempts < self.settings.attempts && !flight.was_refused;
        has_attempts && self.up() & !flight.asked != 0
    }

    /// Takes a flight out, and its routes with it.
    pub(super) fn land(&mut self, key: usize) -> Flight {
        let mut flight = self.flights.remove(key);
        self.questions.leave(key, &flight);
        self.leave_share(&flight);
        for place in 0..MAX_ATTEMPTS {
            if let Some(route) = flight.routes[place].take() {
                self.leave(&route);
            }
        }
        flight
    }

    pub(super) fn leave(&mut self, route: &Route) {
        self.health.is_done(route.upstream);
        match route.channel {
            Channel::Socket(key) => self.pool.leave(key, route.id),
            Channel::Stream(key) => {
                if let Some(stream) = self.streams.get_mut(key) {
                    stream.ids.remove(route.id);
                }
            }
        }
    }
}

/// Whether the answer says that this upstream does not answer such questions, which
/// another may: it is not set up for it, or we are not welcome.
fn is_unwilling(message: &[u8]) -> bool {
    let rcode = u16_at(message, 2).unwrap_or(0) & flag::RCODE;
    matches!(rcode, rcode::FORMERR | rcode::NOTIMP | rcode::REFUSED)
}

/// Whether the upstream could not find an answer. Another one may: this one may have lost
/// its way to the Internet. Or the name may be bogus, which one that does not validate will
/// not notice; so one other is asked, and no more (RFC 9520 1).
fn is_failure(message: &[u8]) -> bool {
    u16_at(message, 2).unwrap_or(0) & flag::RCODE == rcode::SERVFAIL
}
