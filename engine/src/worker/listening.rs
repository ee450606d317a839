//! What one worker thread takes over from a reload: other listen addresses, upstreams and
//! bounds. New addresses are opened before old ones are closed.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use super::{Mail, Worker};
use crate::shared::Serving;
use crate::transport::listeners::{Bound, Listening, is_among};
use crate::transport::poll::Token;
use crate::transport::udp::Listener;
use crate::upstream::Origin;

/// How long the queries that are received at a removed address may take this thread.
const DRAIN: Duration = Duration::from_millis(500);

/// A TCP socket that clients connect to.
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
    /// Goes over to what is served now, where that has changed.
    pub(super) fn take_over(&mut self, mail: &mut Mail) {
        let serving = self.shared.serving.load();
        self.ask_those_of(&serving);
        self.clients.adopt(serving.tcp);
        if !Arc::ptr_eq(&self.listening, &serving.listening) && !self.stopping {
            self.listen(&serving.listening, mail);
        }
    }

    /// Asks the upstreams that go with this snapshot, and no others.
    pub(super) fn ask_those_of(&mut self, serving: &Serving) {
        if !Arc::ptr_eq(self.upstreams.settings(), &serving.upstream) {
            self.upstreams.adopt(&serving.upstream, self.now);
        }
    }

    fn listen(&mut self, wanted: &Arc<Listening>, mail: &mut Mail) {
        let before = std::mem::replace(&mut self.listening, Arc::clone(wanted));
        for bound in wanted.iter().filter(|bound| !is_among(bound, &before)) {
            if let Err(error) = self.open(bound) {
                let address = bound.address;
                self.shared.events.push(format!("a worker thread does not listen on {address}: {error}"));
            }
        }
        for bound in before.iter().filter(|bound| !is_among(bound, wanted)) {
            self.close(bound, mail);
        }
        self.close_answered();
    }

    /// Takes queries from this thread's sockets of an address.
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

    /// Answers what was received at an address, and takes no more there.
    fn close(&mut self, bound: &Arc<Bound>, mail: &mut Mail) {
        let here = self.accepting.iter().filter(|(_, accepting)| Arc::ptr_eq(&accepting.bound, bound));
        for place in here.map(|(place, _)| place).collect::<Vec<_>>() {
            // Those that have connected already.
            self.accept(place);
            let _ = self.poll.remove(self.accepting[place].socket());
            self.accepting.remove(place);
        }
        for key in self.clients.of(bound) {
            self.clients.finish(key, self.now);
            self.take_queries(key);
        }
        let here = self.listeners.iter().filter(|(_, listener)| Arc::ptr_eq(&listener.bound, bound));
        for place in here.map(|(place, _)| place).collect::<Vec<_>>() {
            self.drain(place, mail, self.now + DRAIN);
            self.poll.remove_busy(Token::Udp(place));
            self.listeners[place].is_closing = true;
        }
    }

    pub(super) fn closes(&self) -> bool {
        self.listeners.iter().any(|(_, listener)| listener.is_closing)
    }

    /// Closes what was removed, once the last of its queries is answered.
    pub(super) fn close_answered(&mut self) {
        if !self.closes() || !self.owed.is_empty() {
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

    pub(super) fn stop_accepting(&mut self) {
        for (_, accepting) in &self.accepting {
            // Other threads, and the next process, may have it open still.
            let _ = self.poll.remove(accepting.socket());
        }
        self.accepting.clear();
    }
}
