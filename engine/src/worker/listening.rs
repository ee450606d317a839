//! Applies a reload in a worker thread: listen addresses, upstreams and TCP limits. New addresses
//! are opened before removed ones are closed.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use super::{Buffers, Worker};
use crate::shared::Serving;
use crate::transport::listeners::{Bound, Listening, is_among};
use crate::transport::poll::Token;
use crate::transport::udp::Listener;
use crate::upstream::Origin;

/// How long this thread may serve the queries in the buffers of a removed address.
const DRAIN: Duration = Duration::from_millis(500);

/// A TCP socket that accepts clients.
pub(super) struct Accepting {
    pub(super) bound: Arc<Bound>,
    thread: usize,
    number: usize,
}

impl Accepting {
    pub(super) fn socket(&self) -> &TcpListener {
        &self.bound.tcp[self.thread][self.number]
    }
}

impl Worker {
    /// Applies the current settings where they have changed.
    pub(super) fn apply_reload(&mut self, buffers: &mut Buffers) {
        let serving = self.shared.serving.load();
        self.apply_upstreams(&serving);
        self.apply_dnstap(&serving);
        self.clients.set_limits(serving.tcp);
        if !Arc::ptr_eq(&self.listening, &serving.listening) && !self.stopping {
            self.listen(&serving.listening, buffers);
        }
    }

    /// Uses the upstreams that were published with this snapshot, and no others.
    pub(super) fn apply_upstreams(&mut self, serving: &Serving) {
        if !Arc::ptr_eq(self.upstreams.settings(), &serving.upstream) {
            self.upstreams.adopt(&serving.upstream, self.now);
        }
    }

    fn listen(&mut self, wanted: &Arc<Listening>, buffers: &mut Buffers) {
        let before = std::mem::replace(&mut self.listening, Arc::clone(wanted));
        for bound in wanted.iter().filter(|bound| !is_among(bound, &before)) {
            if let Err(error) = self.open(bound) {
                let address = bound.address;
                self.shared.events.push(format!("a worker thread does not listen on {address}: {error}"));
            }
        }
        for bound in before.iter().filter(|bound| !is_among(bound, wanted)) {
            self.close(bound, buffers);
        }
        self.remove_closed();
    }

    /// Starts to read from this thread's sockets of an address.
    pub(super) fn open(&mut self, bound: &Arc<Bound>) -> io::Result<()> {
        let thread = self.thread;
        for number in 0..bound.udp[thread].len() {
            let listener = Listener::new(Arc::clone(bound), thread, number);
            let place = self.listeners.insert(listener);
            self.poll.add_busy(self.listeners[place].socket(), Token::Udp(place))?;
        }
        for number in 0..bound.tcp[thread].len() {
            let place = self.accepting.insert(Accepting { bound: Arc::clone(bound), thread, number });
            self.poll.add(self.accepting[place].socket(), Token::Accept(place), true, false)?;
        }
        Ok(())
    }

    /// Serves the queries that have arrived at an address, and reads no more from it.
    fn close(&mut self, bound: &Arc<Bound>, buffers: &mut Buffers) {
        let here = self.accepting.iter().filter(|(_, accepting)| Arc::ptr_eq(&accepting.bound, bound));
        for place in here.map(|(place, _)| place).collect::<Vec<_>>() {
            // Connections that wait to be accepted.
            self.accept(place);
            let _ = self.poll.remove(self.accepting[place].socket());
            self.accepting.remove(place);
        }
        for key in self.clients.at(bound) {
            self.clients.read_last(key, self.now);
            self.serve_stream(key, buffers);
        }
        let here = self.listeners.iter().filter(|(_, listener)| Arc::ptr_eq(&listener.bound, bound));
        for place in here.map(|(place, _)| place).collect::<Vec<_>>() {
            self.drain(place, buffers, self.now + DRAIN);
            self.poll.remove_busy(Token::Udp(place));
            self.listeners[place].is_closing = true;
        }
    }

    pub(super) fn has_closing_listeners(&self) -> bool {
        self.listeners.iter().any(|(_, listener)| listener.is_closing)
    }

    /// Closes the sockets of removed addresses once their last query is answered.
    pub(super) fn remove_closed(&mut self) {
        if !self.has_closing_listeners() || !self.pending.is_empty() {
            return;
        }
        let mut awaited = Vec::new();
        self.upstreams.for_each_waiter(|waiter| {
            if let Origin::Udp { listener, .. } = waiter.origin {
                awaited.push(listener);
            }
        });
        self.listeners.retain(|place, listener| !listener.is_closing || awaited.contains(&place));
    }

    pub(super) fn close_accepting(&mut self) {
        for (_, accepting) in &self.accepting {
            // Explicitly, since the next process may still have the socket open.
            let _ = self.poll.remove(accepting.socket());
        }
        self.accepting.clear();
    }
}
