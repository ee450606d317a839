//! TCP clients of one worker thread: accept, take queries as they come, answer
//! those that need nobody else.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::{Passed, Worker};
use crate::answer::{Client, Verdict, decide, read};
use crate::message::{Query, Transport};
use crate::name::Walk;
use crate::outcome::Outcome;
use crate::policy::names::SEED;
use crate::transport::listeners::Bound;
use crate::transport::poll::{Event, Token};
use crate::transport::tcp;
use crate::upstream::Origin;

/// Queries taken from one connection before others get their turn.
const QUERIES_A_TURN: usize = 64;
/// How long new connections wait when there are no descriptors for them.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Worker {
    pub(super) fn accept(&mut self, place: usize) {
        loop {
            match self.accepting[place].socket().accept() {
                Ok((stream, peer)) => {
                    self.cannot_accept = false;
                    let bound = Arc::clone(&self.accepting[place].bound);
                    self.admit(stream, peer, &bound);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The client went away between knocking and the door.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Out of descriptors, most often. Looking away for a moment
                    // keeps this thread free for UDP.
                    if !std::mem::replace(&mut self.cannot_accept, true) {
                        self.shared.events.push(format!("cannot accept TCP connections: {error}"));
                    }
                    for (_, listener) in &self.accepting {
                        let _ = self.poll.remove(listener.socket());
                    }
                    self.accept_again = Some(self.now + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, stream: std::net::TcpStream, peer: SocketAddr, listener: &Arc<Bound>) {
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        // Responses are single writes already; waiting to fill a segment would
        // only delay them.
        let _ = stream.set_nodelay(true);
        let serving = self.shared.serving.load();
        let rules = &serving.rules;
        let standing = match rules.clients.contains(peer.ip()) {
            false if rules.drop_others => return self.counters.count(Transport::Tcp, Outcome::Dropped, &[]),
            false => tcp::Standing::Stranger,
            true if rules.exempt.contains(peer.ip()) => tcp::Standing::Exempt,
            true => tcp::Standing::Client,
        };
        let key = match self.clients.admit(stream, peer, listener, standing, self.now) {
            Ok(key) => key,
            Err(tcp::NotAdmitted::ClientHasItsShare) => return self.counters.tcp_refused[0].add(1),
            Err(tcp::NotAdmitted::NetworkHasItsShare) => return self.counters.tcp_refused[1].add(1),
            Err(tcp::NotAdmitted::ListenerIsFull) => return,
        };
        let added = self.clients.get(key).map(|connection| {
            self.poll.add(&connection.stream, Token::client(key, connection.generation), true, false)
        });
        if !matches!(added, Some(Ok(()))) {
            self.clients.remove(key);
        }
    }

    /// Whether the event belongs to the connection that is in its place now.
    pub(super) fn is_current(&self, token: Token) -> bool {
        let Token::Client(key, _) = token else { return false };
        self.clients.get(key).is_some_and(|connection| Token::client(key, connection.generation) == token)
    }

    pub(super) fn serve_client(&mut self, key: usize, event: Event) {
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
        self.take_queries(key);
    }

    /// Takes the queries that the connection's bounds allow, a few at a time so
    /// that others get their turn, and sends the answers that are ready.
    pub(super) fn take_queries(&mut self, key: usize) {
        let serving = self.shared.serving.load();
        self.ask_those_of(&serving);
        let Some((peer, generation)) = self.clients.get(key).map(|c| (c.peer, c.generation)) else { return };
        let client = Client { address: peer.ip(), port: peer.port(), transport: Transport::Tcp };
        let mut query = Query::blank();
        for turn in 0.. {
            if turn == QUERIES_A_TURN {
                self.resumable.push(key);
                break;
            }
            let Some(length) = self.clients.next_message(key, &mut self.message[..], self.now) else { break };
            let packet = &self.message[..length];
            let verdict = catch_unwind(AssertUnwindSafe(|| {
                fail::fail_point!("decide");
                let (out, rules) = (&mut self.scratch[..], &serving.rules);
                match read(packet, client, rules, self.unix, &mut query, out) {
                    Ok(()) => {
                        let verdict = decide(&query, &serving.snapshot, rules, self.unix, out);
                        if serving.has_shadows() {
                            let walk = Walk::new(&query.name, SEED);
                            serving.count_shadows(&self.counters, &query.name, &walk, Transport::Tcp);
                        }
                        verdict
                    }
                    Err(verdict) => verdict,
                }
            }));
            match verdict {
                Ok(Verdict::Respond { length, outcome, .. }) => {
                    self.counters.count(Transport::Tcp, outcome, &serving.slots);
                    self.counters.count_response(&self.scratch[..length], outcome);
                    self.at_once += 1;
                    self.clients.answer(key, generation, &self.scratch[..length], self.now);
                }
                Ok(Verdict::Forward { follow, allowed_by, .. }) => {
                    let origin = Origin::Tcp { connection: key, generation, read_at: self.now };
                    let mut passed = Passed::new(0, &query, follow, allowed_by);
                    self.look_up(std::slice::from_ref(&query), std::slice::from_mut(&mut passed));
                    self.forward(&query, passed, origin, &serving);
                }
                Ok(Verdict::Drop(Outcome::Dropped)) => {
                    // No query, or not from here: nothing more is read.
                    self.counters.count(Transport::Tcp, Outcome::Dropped, &[]);
                    self.clients.leave_unanswered(key, generation);
                    self.clients.end(key);
                }
                Ok(Verdict::Drop(outcome)) => {
                    self.counters.count(Transport::Tcp, outcome, &serving.slots);
                    self.clients.leave_unanswered(key, generation);
                }
                Err(_) => {
                    self.survive_panic(Transport::Tcp);
                    self.clients.leave_unanswered(key, generation);
                }
            }
        }
        self.clients.write(key, self.now);
        self.watch(key);
    }

    /// Tells epoll what the connection waits for now, or closes it.
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
            if self.poll.change(&connection.stream, token, readable, writable).is_err() {
                self.clients.remove(key);
            }
        }
    }
}
