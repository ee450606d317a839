//! TCP clients of a worker thread: accepts connections, and serves their queries.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::serve::Message;
use super::{Buffers, Worker};
use crate::answer::Client;
use crate::message::Transport;
use crate::outcome::Outcome;
use crate::transport::Wire;
use crate::transport::listeners::Bound;
use crate::transport::poll::{Event, Token};
use crate::transport::tcp;
use crate::upstream::Origin;

/// Queries served from one connection before others are.
const QUERIES_A_TURN: usize = 64;
/// How long no connection is accepted after a failure.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Worker {
    pub(super) fn accept(&mut self, place: usize) {
        loop {
            match self.accepting[place].socket().accept() {
                Ok((stream, peer)) => {
                    self.has_accept_failed = false;
                    let bound = Arc::clone(&self.accepting[place].bound);
                    self.admit(stream, peer, &bound);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The client closed the connection before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Usually no descriptor is free. The pause leaves this thread free for UDP.
                    if !std::mem::replace(&mut self.has_accept_failed, true) {
                        self.shared.events.push(format!("cannot accept TCP connections: {error}"));
                    }
                    for (_, listener) in &self.accepting {
                        let _ = self.poll.remove(listener.socket());
                    }
                    self.accept_at = Some(self.now + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, stream: std::net::TcpStream, peer: SocketAddr, listener: &Arc<Bound>) {
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        // Each response is a single write, so waiting to fill a segment would only delay it.
        let _ = stream.set_nodelay(true);
        let serving = self.shared.serving.load();
        let rules = &serving.rules;
        let standing = match rules.clients.contains(peer.ip()) {
            false if rules.drop_others && !rules.local.serves_snapshot_to(peer.ip()) => {
                return self.counters.count(Transport::Tcp, Outcome::Dropped, &[]);
            }
            false => tcp::Standing::Stranger,
            true if rules.exempt.contains(peer.ip()) => tcp::Standing::Exempt,
            true => tcp::Standing::Client,
        };
        let key = match self.clients.admit(stream, peer, listener, standing, self.now) {
            Ok(key) => key,
            Err(tcp::LimitReached::Client) => return self.counters.tcp_refused[0].add(1),
            Err(tcp::LimitReached::Network) => return self.counters.tcp_refused[1].add(1),
            Err(tcp::LimitReached::Listener) => return,
        };
        let added = self.clients.get(key).map(|connection| {
            self.poll.add(connection.wire.socket(), Token::client(key, connection.generation), true, false)
        });
        if !matches!(added, Some(Ok(()))) {
            self.clients.remove(key);
        }
    }

    /// Whether the event is for the connection that now has this key.
    pub(super) fn is_current(&self, token: Token) -> bool {
        let Token::Client(key, _) = token else { return false };
        self.clients.get(key).is_some_and(|connection| Token::client(key, connection.generation) == token)
    }

    pub(super) fn serve_client(&mut self, key: usize, event: Event, buffers: &mut Buffers) {
        if event.broken {
            self.clients.remove(key);
            return;
        }
        if event.writable {
            self.clients.write(key, self.now);
        }
        if event.readable {
            self.clients.read(key, self.now);
        }
        self.serve_stream(key, buffers);
    }

    /// Serves the queries that the connection's limits allow, at most `QUERIES_A_TURN`, and sends the
    /// responses that are ready.
    pub(super) fn serve_stream(&mut self, key: usize, buffers: &mut Buffers) {
        let serving = self.shared.serving.load();
        self.apply_upstreams(&serving);
        self.apply_dnstap(&serving);
        let Some((peer, generation)) = self.clients.get(key).map(|c| (c.peer, c.generation)) else { return };
        let client = Client { address: peer.ip(), port: peer.port(), transport: Transport::Tcp };
        let origin = Origin::Tcp { connection: key, generation, read_at: self.now };
        let Buffers { message, queries, .. } = buffers;
        for turn in 0.. {
            if turn == QUERIES_A_TURN {
                self.resumable.push(key);
                break;
            }
            // One at a time: the response decides whether the limits allow another one.
            if !self.clients.next_message(key, message, self.now) {
                break;
            }
            self.serve(&Message { packet: message, client, origin }, &serving, queries);
        }
        self.clients.write(key, self.now);
        self.watch(key);
    }

    /// Updates the events that epoll reports for the connection, or closes it if it is finished.
    fn watch(&mut self, key: usize) {
        let wants = self.clients.wants(key);
        let Some(connection) = self.clients.get_mut(key) else { return };
        let Some((readable, writable)) = wants else {
            self.clients.remove(key);
            return;
        };
        if connection.watched != (readable, writable) {
            connection.watched = (readable, writable);
            let token = Token::client(key, connection.generation);
            if self.poll.change(connection.wire.socket(), token, readable, writable).is_err() {
                self.clients.remove(key);
            }
        }
    }
}
