//! Sends a question to an upstream: chooses the upstream, writes the query, and collects the
//! datagrams of one socket, so that they leave in one system call.

use std::io;
use std::time::Instant;

use super::client_identity::{ClientIdentity, Subnet};
use super::flight::{Flight, State};
use super::health;
use super::tries::{Channel, Route};
use super::{Settings, Upstreams, is_our_own};
use crate::message::{MAX_QUESTION, Transport};
use crate::sys::{BATCH, Batch, Local, Peer};

/// Queries of one received batch that may leave through the same socket.
const RUN: usize = 16;
const _: () = assert!(RUN <= BATCH, "they leave in one system call");

/// Queries to one upstream that leave together, through one socket.
#[derive(Default)]
pub(super) struct Outbox {
    /// Allocated with the first query, because it is large.
    batch: Option<Batch>,
    socket: usize,
    waiting: usize,
}

impl Upstreams {
    /// Sends a flight to the upstream that is best now.
    pub(super) fn try_next(&mut self, key: usize, now: Instant) {
        let flight = &self.flights[key];
        if flight.state == State::OtherThread {
            return self.wait_on(key, now);
        }
        let tried = flight.tries.upstreams;
        let chosen = self.chooser.choose(&self.health, tried, flight.first.name(), &mut self.random, now);
        match chosen {
            Some(upstream) => {
                self.flights[key].tries.add(upstream);
                self.send(key, upstream, now);
            }
            None if self.delay(key, now) => {}
            // A response to an earlier try may still come.
            None if self.flights[key].tries.has_routes() => self.wait_on(key, now),
            None => {
                self.flights[key].state = State::Exhausted;
                self.set_deadline(key, now, now);
            }
        }
    }

    /// Waits as long as for a try.
    fn wait_on(&mut self, key: usize, now: Instant) {
        self.flights[key].tries.count += 1;
        self.set_deadline(key, now + self.settings.timeout, now);
    }

    pub(super) fn send(&mut self, key: usize, upstream: usize, now: Instant) {
        self.flights[key].state = State::Sent { upstream, at: now };
        let sent = match self.flights[key].transport {
            Transport::Tcp => self.send_over_stream(key, upstream, now),
            Transport::Udp => self.send_datagram(key, upstream, now),
        };
        match sent {
            Ok(()) if matches!(self.flights[key].state, State::Sent { .. }) => {
                self.set_deadline(key, now + self.settings.timeout, now);
            }
            // The connection has failed meanwhile, and `fail_try` was called.
            Ok(()) => {}
            Err(error) => {
                if !is_our_own(&error) {
                    self.network_failed(upstream, now);
                }
                self.fail_try(key, now);
            }
        }
    }

    fn send_datagram(&mut self, key: usize, upstream: usize, now: Instant) -> io::Result<()> {
        let Outbox { socket, waiting, .. } = self.outboxes[upstream];
        if waiting == RUN || (waiting > 0 && !self.pool.leads_to(socket, upstream)) {
            self.flush_to(upstream, now);
        }
        if self.outboxes[upstream].waiting == 0 {
            self.outboxes[upstream].socket = self.pool.draw(upstream, &mut self.random, now)?;
        }
        let socket = self.outboxes[upstream].socket;
        let id = self.pool.enter(socket, key, &mut self.random);
        let has_opt = self.sends_opt(key, upstream, now);
        let route = Route { channel: Channel::Socket(socket), upstream, id, has_opt, sent_at: now };
        self.add_route(key, route);
        let (flight, outbox) = (&self.flights[key], &mut self.outboxes[upstream]);
        let slot = &mut outbox.batch.get_or_insert_with(Batch::empty).datagrams[outbox.waiting];
        let identity = self.settings.client_identity;
        let header = identity.write_header(flight.client.as_ref(), Transport::Udp, &mut slot.data);
        slot.length = header + write_query(&self.settings, flight, &route, &mut slot.data[header..]);
        (slot.peer, slot.local) = (Peer::none(), Local::Bound);
        outbox.waiting += 1;
        self.pending |= health::bit(upstream);
        self.count(upstream).udp_queries.add(1);
        Ok(())
    }

    /// Sends the collected datagrams.
    pub fn flush(&mut self, now: Instant) {
        for upstream in health::places(self.pending) {
            self.flush_to(upstream, now);
        }
    }

    fn flush_to(&mut self, upstream: usize, now: Instant) {
        self.pending &= !health::bit(upstream);
        let outbox = &mut self.outboxes[upstream];
        let (socket, waiting) = (outbox.socket, std::mem::take(&mut outbox.waiting));
        if !self.pool.leads_to(socket, upstream) {
            return;
        }
        let (Some(batch), Some(pool_socket)) = (&mut outbox.batch, self.pool.get(socket)) else { return };
        if batch.send(&pool_socket.socket, waiting) > 0 {
            // The kernel reports an ICMP error on sending, too.
            self.socket_failed(socket, now);
        }
    }

    pub(super) fn add_route(&mut self, key: usize, route: Route) {
        self.health.query_sent(route.upstream, route.sent_at);
        if let Some(before) = self.flights[key].tries.add_route(route) {
            self.close_route(&before);
        }
    }

    /// Accepts no response over this route any more.
    pub(super) fn close_route(&mut self, route: &Route) {
        self.health.query_done(route.upstream);
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

/// Writes the query to an upstream; returns its length.
pub(super) fn write_query(settings: &Settings, flight: &Flight, route: &Route, out: &mut [u8]) -> usize {
    let mut question = [0; MAX_QUESTION];
    let question = flight.wire_question(&mut question);
    let subnet = match (settings.client_identity, &flight.client) {
        (ClientIdentity::Subnet(limits), Some(addresses)) => {
            let wanted = flight.first.query.head.edns.and_then(|edns| edns.subnet);
            Subnet::of(addresses.client.ip(), wanted, limits)
        }
        _ => Subnet::NONE,
    };
    let opt = route.has_opt.then_some((settings.payload, subnet.bytes()));
    let written = flight.first.query.write_upstream(route.id, question, opt, out);
    written.expect("header, question and OPT fit")
}
