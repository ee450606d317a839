//! Sends a question to an upstream: chooses it, writes the query, and collects what leaves
//! through one socket so that it leaves in one system call.

use std::io;
use std::time::Instant;

use super::asker::{self, Subnet, Tells};
use super::flight::{Channel, Flight, Route};
use super::health::{self, Failure};
use super::{Settings, Upstreams, is_our_own};
use crate::message::{MAX_QUESTION, Transport};
use crate::sys::{BATCH, Batch, Local, Peer};

/// Queries of one received batch that may leave through the same socket.
const RUN: usize = 16;
const _: () = assert!(RUN <= BATCH, "they leave in one system call");

/// Queries that leave together, through one socket.
#[derive(Default)]
pub(super) struct Outbox {
    /// Made with the first query: it takes some room.
    pub(super) batch: Option<Batch>,
    pub(super) socket: usize,
    pub(super) waiting: usize,
}

impl Upstreams {
    /// Sends a flight once more, to the upstream that is best now.
    pub(super) fn attempt(&mut self, key: usize, now: Instant) {
        let flight = &mut self.flights[key];
        if flight.is_told {
            // As patient as if it had been sent.
            flight.attempts += 1;
            return self.wait(key, now + self.settings.timeout, now);
        }
        let flight = &self.flights[key];
        let chosen =
            self.chooser.choose(&self.health, flight.asked, flight.first.name(), &mut self.random, now);
        match chosen {
            Some(upstream) => {
                self.flights[key].note_attempt(upstream);
                self.send(key, upstream, now);
            }
            None if self.hold(key, now) => {}
            // Nobody to send it to, and an answer to what was sent may still come.
            None if self.flights[key].routes.iter().any(Option::is_some) => {
                self.flights[key].attempts += 1;
                self.wait(key, now + self.settings.timeout, now);
            }
            None => {
                self.flights[key].is_lost = true;
                self.fail_now(key, now);
            }
        }
    }

    pub(super) fn send(&mut self, key: usize, upstream: usize, now: Instant) {
        self.flights[key].blame = Some(upstream);
        self.flights[key].sent_at = Some(now);
        self.flights[key].is_unreachable = false;
        let sent = match self.flights[key].transport {
            Transport::Tcp => self.send_over_stream(key, upstream, now),
            Transport::Udp => self.send_datagram(key, upstream, now),
        };
        match sent {
            // A connection that failed meanwhile has settled this already.
            Ok(()) if self.flights[key].blame.is_none() => {}
            Ok(()) => self.wait(key, now + self.settings.timeout, now),
            Err(error) => {
                if !is_our_own(&error) {
                    self.count(upstream).network_errors.add(1);
                    self.health.failed(upstream, Failure::Unreachable, now);
                }
                self.fail_now(key, now);
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
        self.route(key, Route { channel: Channel::Socket(socket), upstream, id, has_opt, sent_at: now });
        let (flight, outbox) = (&self.flights[key], &mut self.outboxes[upstream]);
        let slot = &mut outbox.batch.get_or_insert_with(Batch::empty).datagrams[outbox.waiting];
        let header = match self.settings.tells {
            Tells::Proxy => asker::write_proxy(flight.asker.as_ref(), Transport::Udp, &mut slot.data),
            _ => 0,
        };
        slot.length = header + write_query(&self.settings, flight, id, has_opt, &mut slot.data[header..]);
        (slot.peer, slot.local) = (Peer::none(), Local::Bound);
        outbox.waiting += 1;
        self.pending |= health::bit(upstream);
        self.count(upstream).udp_queries.add(1);
        Ok(())
    }

    /// Sends what waits.
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
            // The kernel told of an ICMP error here instead of on receipt.
            self.socket_failed(socket, now);
        }
    }

    /// Notes where a flight was sent.
    pub(super) fn route(&mut self, key: usize, route: Route) {
        self.health.asks(route.upstream, route.sent_at);
        let place = self.flights[key].place_for(route.channel);
        if let Some(before) = self.flights[key].routes[place].replace(route) {
            self.leave(&before);
        }
    }
}

/// Writes the message that is sent upstream; returns its length.
pub(super) fn write_query(
    settings: &Settings,
    flight: &Flight,
    id: u16,
    has_opt: bool,
    out: &mut [u8],
) -> usize {
    let mut question = [0; MAX_QUESTION];
    let question = flight.asked_question(&mut question);
    let subnet = match (settings.tells, &flight.asker) {
        (Tells::Subnet(bounds), Some(asker)) => {
            let wished = flight.first.query.head.edns.and_then(|edns| edns.subnet);
            Subnet::of(asker.client.ip(), wished, bounds)
        }
        _ => Subnet::NONE,
    };
    let opt = has_opt.then_some((settings.payload, subnet.octets()));
    let written = flight.first.query.write_upstream(id, question, opt, out);
    written.expect("header, question and OPT fit")
}
