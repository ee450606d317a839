//! Forwarding over TCP: questions whose answers did not fit a datagram, pipelined
//! on one connection to each upstream (RFC 7766 6.2.1.1).

use std::io;
use std::time::{Duration, Instant};

use super::asker::{self, Tells};
use super::flight::{Channel, Route};
use super::sending::write_query;
use super::stream::Stream;
use super::{Arrived, Upstreams};
use crate::message::Transport;
use crate::transport::poll::Token;

/// How long a connection without questions under way is kept.
const IDLE: Duration = Duration::from_secs(5);
/// Questions of one connection over its life. Then another takes its place, so that
/// what a middlebox or a server does to old ones is met now and then, not all at once.
const QUESTIONS: usize = 1000;
/// Connections at most, where each is for one question.
const MOST: usize = 256;

impl Upstreams {
    pub(super) fn send_over_stream(&mut self, key: usize, upstream: usize, now: Instant) -> io::Result<()> {
        let stream = match self.stream_of[upstream] {
            Some(stream) => stream,
            None => self.open_stream(key, upstream, now)?,
        };
        let mut message = [0; 1024];
        let id = self.streams[stream].enter(key, &mut self.random);
        let has_opt = self.sends_opt(key, upstream, now);
        self.route(key, Route { channel: Channel::Stream(stream), upstream, id, has_opt, sent_at: now });
        let length = write_query(&self.settings, &self.flights[key], id, has_opt, &mut message);
        self.count(upstream).tcp_queries.add(1);
        let has_room = self.streams[stream].push(&message[..length]);
        if self.streams[stream].asked >= self.questions_of_a_stream() {
            self.stream_of[upstream] = None;
        }
        match has_room {
            true => self.write_stream(stream, now),
            false => self.stream_failed(stream, now),
        }
        Ok(())
    }

    /// A connection that begins by saying who asks is for that client's question
    /// alone.
    fn questions_of_a_stream(&self) -> usize {
        if self.settings.tells == Tells::Proxy { 1 } else { QUESTIONS }
    }

    fn open_stream(&mut self, flight: usize, upstream: usize, now: Instant) -> io::Result<usize> {
        if self.streams.len() >= self.most_streams {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let server = self.settings.servers.iter().find(|server| server.place == upstream);
        let address = server.map(|server| server.address).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mut stream = Stream::connect(address, upstream, now)?;
        if self.settings.tells == Tells::Proxy {
            let mut header = [0; asker::MAX_HEADER];
            let length = asker::write_proxy(self.flights[flight].asker.as_ref(), Transport::Tcp, &mut header);
            stream.begin_with(&header[..length]);
        }
        let entry = self.streams.vacant_entry();
        let key = entry.key();
        self.poll.add(stream.socket(), Token::Stream(key), true, true)?;
        entry.insert(stream);
        self.stream_of[upstream] = Some(key);
        Ok(key)
    }

    /// Connections that there may be: one to each upstream, those that wait for the
    /// last answers, and with a question each, many.
    pub(super) fn most_streams(upstreams: usize, share: usize) -> usize {
        upstreams + (share / 2).clamp(1, MOST)
    }

    /// Reads what has come over a TCP connection.
    pub fn read_stream(&mut self, key: usize, now: Instant) -> Arrived<Vec<u8>> {
        let mut arrived = Vec::new();
        let Some(stream) = self.streams.get_mut(key) else { return arrived };
        let is_alive = stream.read(now);
        while let Some(message) = self.streams.get_mut(key).and_then(Stream::next_message) {
            if let Some(flight) = self.take(Channel::Stream(key), &message, now) {
                arrived.push((flight, message));
            }
        }
        let is_done = |stream: &Stream| stream.ids.is_empty() && self.stream_of[stream.upstream] != Some(key);
        if !is_alive {
            self.stream_failed(key, now);
        } else if self.streams.get(key).is_some_and(is_done) {
            self.drop_stream(key);
        }
        arrived
    }

    pub fn write_stream(&mut self, key: usize, now: Instant) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let (is_alive, upstream) = (stream.write(), stream.upstream);
        let writable = is_alive && stream.has_output();
        if self.poll.change(stream.socket(), Token::Stream(key), true, writable).is_err() {
            self.stream_failed(key, now);
        } else if !is_alive && self.stream_of[upstream] == Some(key) {
            // Answers may have come before it was closed: reading tells, and ends it.
            self.stream_of[upstream] = None;
        }
    }

    pub(super) fn close_idle_streams(&mut self, now: Instant) {
        let is_idle =
            |stream: &Stream| stream.ids.is_empty() && now.saturating_duration_since(stream.heard_at) >= IDLE;
        let idle: Vec<usize> = self.streams.iter().filter(|(_, s)| is_idle(s)).map(|(key, _)| key).collect();
        for key in idle {
            self.drop_stream(key);
        }
    }

    /// A connection that has said nothing since a question that timed out was
    /// sent is dead, whatever TCP thinks; the next attempt opens another.
    pub(super) fn drop_deaf_stream(&mut self, key: usize, now: Instant) {
        for route in self.flights[key].routes.into_iter().flatten() {
            if let Channel::Stream(stream) = route.channel
                && self.streams.get(stream).is_some_and(|s| s.heard_at <= route.sent_at)
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

    /// A server may close a connection at any time (RFC 7766 6.2.4). One that has
    /// answered here was well: what it still owes is asked again at once, on another
    /// connection, and is no failure. As each such connection has answered something,
    /// that ends.
    fn stream_failed(&mut self, key: usize, now: Instant) {
        let Some(stream) = self.drop_stream(key) else { return };
        let lost = stream.ids.all();
        if lost.is_empty() {
            return;
        }
        let was_well = stream.answered > 0;
        if !was_well {
            self.count(stream.upstream).network_errors.add(1);
        }
        // All of them first: the next connection may get this one's place, and would be
        // taken for it.
        let lost: Vec<usize> = lost
            .into_iter()
            .filter_map(|(id, flight)| {
                let route = self.lose_route(flight, Channel::Stream(key), id)?;
                self.flights[flight].ends_with(&route).then_some(flight)
            })
            .collect();
        for flight in lost {
            match was_well {
                true => self.send(flight, stream.upstream, now),
                false => self.fail_now(flight, now),
            }
        }
    }
}
