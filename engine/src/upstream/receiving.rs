//! Receives responses from upstreams: finds the flight that a message answers, and decides whether
//! to accept the response or to retry at another upstream.

use std::io;
use std::time::Instant;

use super::Upstreams;
use super::flight::{Arrived, Flight, Refusal};
use super::tries::Channel;
use crate::message::{MAX_QUESTION, Transport, flag, is_truncated, rcode, u16_at};
use crate::relay;
use crate::sys::{BATCH, Batch};

/// Bytes of a SERVFAIL response that is stored while another upstream is queried.
const SERVFAIL_BYTES: usize = 1232;

impl Upstreams {
    /// Receives the datagrams of one socket. The messages are in `batch`, at the returned indexes.
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
        for index in 0..received {
            let datagram = &batch.datagrams[index];
            let message = &datagram.data[..datagram.length];
            if let Some(flight) = self.accept(Channel::Socket(socket), message, now) {
                arrived.push((flight, index));
            }
        }
        arrived
    }

    /// Finishes the flight that a message answers. Returns `None` for a message that matches no
    /// flight, and for a query that is sent again.
    pub(super) fn accept(&mut self, channel: Channel, message: &[u8], now: Instant) -> Option<Flight> {
        let (upstream, ids) = match channel {
            Channel::Socket(key) => self.pool.get(key).map(|socket| (socket.upstream, &socket.ids))?,
            Channel::Stream(key) => self.streams.get(key).map(|stream| (stream.upstream, &stream.ids))?,
        };
        let key = u16_at(message, 0).and_then(|id| ids.find(id));
        let mut question = [0; MAX_QUESTION];
        let matching =
            key.filter(|&key| relay::answers(message, self.flights[key].wire_question(&mut question)));
        let Some(key) = matching else {
            // RFC 5452, section 9.1: the right response may still come.
            self.count(upstream).mismatches.add(1);
            return None;
        };
        let had_opt = self.note_response(key, channel, upstream, now);
        if is_truncated(message) && matches!(channel, Channel::Socket(_)) {
            if !self.flights[key].transport.is_tcp() {
                // To the same upstream. This is no new try, because it responded.
                self.flights[key].transport = Transport::Tcp;
                self.send(key, upstream, now);
            }
            return None;
        }
        self.flights[key].parse(message, || self.parsers.pop());
        let is_retried = self.retry_without_opt(key, upstream, had_opt, message, now)
            || self.retry_refused(key, upstream, message, now);
        (!is_retried).then(|| self.finish(key))
    }

    /// Counts a response. Returns whether its query had an OPT record.
    fn note_response(&mut self, key: usize, channel: Channel, upstream: usize, now: Instant) -> bool {
        let route = self.flights[key].tries.route_over(channel).copied();
        if let Some(route) = route {
            self.count(upstream).answered_after(now.saturating_duration_since(route.sent_at));
        }
        if let Channel::Stream(stream) = channel {
            self.streams[stream].answered += 1;
        }
        self.health.query_answered(upstream, now);
        route.is_some_and(|route| route.has_opt)
    }

    /// Retries once at another upstream if the response is a refusal, a failure or unusable. If that
    /// is impossible, the best response is this one or the one in `Flight::refusal`.
    fn retry_refused(&mut self, key: usize, upstream: usize, message: &[u8], now: Instant) -> bool {
        let rcode = u16_at(message, 2).unwrap_or(0) & flag::RCODE;
        let flight = &self.flights[key];
        // The upstream may have lost its Internet connectivity, or the name may be bogus. A resolver
        // that does not validate would accept a bogus name, so only one other is queried (RFC 9520, 1).
        let has_failed = flight.is_valid && rcode == rcode::SERVFAIL;
        // It does not serve such queries, or not for us. Another upstream may.
        let is_refused = !flight.is_valid || matches!(rcode, rcode::FORMERR | rcode::NOTIMP | rcode::REFUSED);
        if !is_refused && !has_failed {
            self.flights[key].refusal = Refusal::None;
            return false;
        }
        let question = flight.first.key();
        if has_failed && matches!(flight.refusal, Refusal::Servfail(_)) {
            self.failed_twice.insert(question, now);
        }
        // RFC 9520, section 3.2: a failure at two upstreams is remembered, and not retried so soon.
        let is_known = has_failed && self.failed_twice.contains(question, now);
        let has_tries = flight.tries.count < self.settings.tries && matches!(flight.refusal, Refusal::None);
        let has_other = has_tries && self.up() & !flight.tries.upstreams != 0;
        if is_known || !has_other {
            if has_failed {
                self.flights[key].refusal = Refusal::None;
            }
            return false;
        }
        let count = self.count(upstream);
        if has_failed { &count.failures } else { &count.refused }.add(1);
        self.flights[key].refusal = match has_failed && message.len() <= SERVFAIL_BYTES {
            true => Refusal::Servfail(message.into()),
            false => Refusal::Refused,
        };
        self.try_next(key, now);
        true
    }

    /// Removes a flight and its routes.
    pub(super) fn finish(&mut self, key: usize) -> Flight {
        let mut flight = self.flights.remove(key);
        self.leave_share(&flight);
        while let Some(route) = flight.tries.take_route(|_| true) {
            self.close_route(&route);
        }
        flight
    }
}
