//! Forwarding over TCP, for responses that do not fit a datagram: queries are pipelined on one
//! connection to each upstream (RFC 7766, section 6.2.1.1).

use std::io;
use std::time::{Duration, Instant};

use super::client_identity::{ClientIdentity, MAX_HEADER};
use super::sending::write_query;
use super::stream::Stream;
use super::tries::{Channel, Route};
use super::{Arrived, Upstreams};
use crate::message::Transport;
use crate::transport::poll::Token;

/// How long an idle connection stays open.
const IDLE: Duration = Duration::from_secs(5);
/// Queries of one connection over its life. Regular replacement spreads the failures that
/// middleboxes and servers cause on old connections.
const QUERIES: usize = 1000;
/// The most connections if each is for one query.
const MAX_STREAMS: usize = 256;

impl Upstreams {
    pub(super) fn send_over_stream(&mut self, key: usize, upstream: usize, now: Instant) -> io::Result<()> {
        let stream = match self.stream_of[upstream] {
            Some(stream) => stream,
            None => self.open_stream(key, upstream, now)?,
        };
        let mut message = [0; 1024];
        let id = self.streams[stream].enter(key, &mut self.random);
        let has_opt = self.sends_opt(key, upstream, now);
        let route = Route { channel: Channel::Stream(stream), upstream, id, has_opt, sent_at: now };
        self.add_route(key, route);
        let length = write_query(&self.settings, &self.flights[key], &route, &mut message);
        self.count(upstream).tcp_queries.add(1);
        let has_room = self.streams[stream].push(&message[..length]);
        if self.streams[stream].queries >= self.queries_per_stream() {
            self.stream_of[upstream] = None;
        }
        match has_room {
            true => self.write_stream(stream, now),
            false => self.stream_failed(stream, now),
        }
        Ok(())
    }

    /// With the PROXY protocol, a connection is for one query of one client.
    fn queries_per_stream(&self) -> usize {
        if self.settings.client_identity == ClientIdentity::Proxy { 1 } else { QUERIES }
    }

    fn open_stream(&mut self, flight: usize, upstream: usize, now: Instant) -> io::Result<usize> {
        if self.streams.len() >= self.max_streams {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let server = self.settings.server(upstream).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mut stream = Stream::connect(server.address, upstream, now)?;
        let (mut header, client) = ([0; MAX_HEADER], self.flights[flight].client.as_ref());
        let length = self.settings.client_identity.write_header(client, Transport::Tcp, &mut header);
        stream.begin_with(&header[..length]);
        let entry = self.streams.vacant_entry();
        let key = entry.key();
        self.poll.add(&stream.socket, Token::Stream(key), true, true)?;
        entry.insert(stream);
        self.stream_of[upstream] = Some(key);
        Ok(key)
    }

    /// The most connections: one to each upstream, and others that wait for their last responses.
    /// With one query each, there are many.
    pub(super) fn max_streams(upstreams: usize, share: usize) -> usize {
        upstreams + (share / 2).clamp(1, MAX_STREAMS)
    }

    /// Reads the responses on a connection.
    pub fn read_stream(&mut self, key: usize, now: Instant) -> Arrived<Vec<u8>> {
        let mut arrived = Vec::new();
        let Some(stream) = self.streams.get_mut(key) else { return arrived };
        let is_open = stream.read(now);
        while let Some(message) = self.streams.get_mut(key).and_then(Stream::next_message) {
            if let Some(flight) = self.accept(Channel::Stream(key), &message, now) {
                arrived.push((flight, message));
            }
        }
        let is_done = |stream: &Stream| stream.ids.is_empty() && self.stream_of[stream.upstream] != Some(key);
        if !is_open {
            self.stream_failed(key, now);
        } else if self.streams.get(key).is_some_and(is_done) {
            self.drop_stream(key);
        }
        arrived
    }

    pub fn write_stream(&mut self, key: usize, now: Instant) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let (is_open, upstream) = (stream.write(), stream.upstream);
        let writable = is_open && stream.has_output();
        if self.poll.change(&stream.socket, Token::Stream(key), true, writable).is_err() {
            self.stream_failed(key, now);
        } else if !is_open && self.stream_of[upstream] == Some(key) {
            // Responses may have come before it was closed. Reading finds them, and ends it.
            self.stream_of[upstream] = None;
        }
    }

    pub(super) fn close_idle_streams(&mut self, now: Instant) {
        let is_idle = |stream: &Stream| {
            stream.ids.is_empty() && now.saturating_duration_since(stream.received_at) >= IDLE
        };
        let idle: Vec<_> = self.streams.iter().filter(|(_, s)| is_idle(s)).map(|(key, _)| key).collect();
        for key in idle {
            self.drop_stream(key);
        }
    }

    /// Ends the connections of a query that timed out, if nothing was received on them since it was
    /// sent. The next try opens another one.
    pub(super) fn drop_silent_streams(&mut self, key: usize, now: Instant) {
        for route in self.flights[key].tries.routes.into_iter().flatten() {
            if let Channel::Stream(stream) = route.channel
                && self.streams.get(stream).is_some_and(|s| s.received_at <= route.sent_at)
            {
                self.stream_failed(stream, now);
            }
        }
    }

    pub(super) fn drop_stream(&mut self, key: usize) -> Option<Stream> {
        let stream = self.streams.try_remove(key)?;
        if self.stream_of[stream.upstream] == Some(key) {
            self.stream_of[stream.upstream] = None;
        }
        Some(stream)
    }

    /// A server may close a connection at any time (RFC 7766, section 6.2.4). If it has answered
    /// here, its outstanding queries are sent again immediately, on another connection, and this is
    /// no failure. Each such connection has answered something, so this ends.
    fn stream_failed(&mut self, key: usize, now: Instant) {
        let Some(stream) = self.drop_stream(key) else { return };
        let lost = stream.ids.all();
        if lost.is_empty() {
            return;
        }
        let was_healthy = stream.answered > 0;
        if !was_healthy {
            self.count(stream.upstream).network_errors.add(1);
        }
        // Take all routes first: the next connection may get the same key.
        let lost: Vec<usize> = lost
            .into_iter()
            .filter_map(|(id, flight)| {
                let route = self.lose_route(flight, Channel::Stream(key), id)?;
                self.flights[flight].fails_with(&route).then_some(flight)
            })
            .collect();
        for flight in lost {
            match was_healthy {
                true => self.send(flight, stream.upstream, now),
                false => self.fail_try(flight, now),
            }
        }
    }
}
