//! One packet thread, top to bottom: wait, take what came, decide, answer or
//! forward, and again. It shares with the other threads the current snapshot,
//! which it only reads, and nothing else; it never touches the interpreter.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::answer::{
    Client, Judgement, Outcome, Verdict, decide, judge, respond_by_following, respond_with_error,
};
use crate::counters::Counters;
use crate::engine::{Serving, Shared};
use crate::message::{Query, ede, rcode};
use crate::poll::{Event, Poll, Token};
use crate::relay;
use crate::sys::{Batch, DATAGRAM};
use crate::tcp;
use crate::udp::Listener;
use crate::upstream::{Flight, Origin, Upstreams};

/// Longest wait when nothing is due: bounds how late a clock is noticed.
const TICK: Duration = Duration::from_millis(500);
/// How often connections are looked through for those without patience left.
const SWEEP: Duration = Duration::from_millis(100);
/// How long new connections wait when there are no descriptors for them.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest DNS message over TCP.
const MESSAGE: usize = 65_535;

/// The sockets of one packet thread.
pub struct Sockets {
    pub udp: Vec<UdpSocket>,
    pub tcp: Vec<TcpListener>,
    /// Becomes readable when the control thread wants something.
    pub wake: Arc<OwnedFd>,
}

/// Runs until the engine stops.
pub fn run(shared: Arc<Shared>, counters: Arc<Counters>, sockets: Sockets) -> io::Result<()> {
    let mut worker = Worker::new(shared, counters, sockets)?;
    let mut mail = Batch::empty();
    loop {
        // What goes wrong with one packet may cost that packet, not the rest.
        let turn = catch_unwind(AssertUnwindSafe(|| worker.turn(&mut mail)));
        match turn {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => worker.counters.panics.add(1),
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    poll: Rc<Poll>,
    wake: Arc<OwnedFd>,
    listeners: Vec<Listener>,
    accepting: Vec<TcpListener>,
    accept_again: Option<Instant>,
    clients: tcp::Service,
    /// Connections that have whole messages left to be taken.
    resumable: Vec<usize>,
    swept_at: Instant,
    upstreams: Upstreams,
    now: Instant,
    unix: u64,
    scratch: Box<[u8; MESSAGE]>,
    message: Box<[u8; MESSAGE]>,
    stopping: bool,
}

impl Worker {
    fn new(shared: Arc<Shared>, counters: Arc<Counters>, sockets: Sockets) -> io::Result<Worker> {
        let poll = Rc::new(Poll::new()?);
        poll.add(&*sockets.wake, Token::Wake, true, false)?;
        let listeners = sockets.udp.into_iter().map(Listener::new).collect::<io::Result<Vec<_>>>()?;
        for (place, listener) in listeners.iter().enumerate() {
            poll.add(&listener.socket, Token::Udp(place), true, false)?;
        }
        for (place, listener) in sockets.tcp.iter().enumerate() {
            poll.add(listener, Token::Accept(place), true, false)?;
        }
        let settings = shared.settings.upstream();
        let events = Arc::clone(&shared.events);
        let now = Instant::now();
        Ok(Worker {
            clients: tcp::Service::new(shared.settings.tcp, Arc::clone(&shared.connections)),
            upstreams: Upstreams::new(settings, Rc::clone(&poll), Arc::clone(&counters), events),
            shared,
            counters,
            poll,
            wake: sockets.wake,
            listeners,
            accepting: sockets.tcp,
            accept_again: None,
            resumable: Vec::new(),
            swept_at: now,
            now,
            unix: unix_now(),
            scratch: Box::new([0; MESSAGE]),
            message: Box::new([0; MESSAGE]),
            stopping: false,
        })
    }

    /// One round; false when there is nothing more to do, ever.
    fn turn(&mut self, mail: &mut Batch) -> io::Result<bool> {
        let events = self.poll.wait(self.patience())?;
        (self.now, self.unix) = (Instant::now(), unix_now());
        for event in events {
            match event.token {
                Token::Wake => self.wake_up(),
                Token::Udp(place) => self.serve_udp(place, mail),
                Token::Accept(place) => self.accept(place),
                Token::Client(key) => self.serve_client(key, event),
                Token::Upstream(key) => self.take_datagrams(key, mail),
                Token::Stream(key) => self.take_messages(key, event),
            }
        }
        for flight in self.upstreams.expire(self.now) {
            self.finish(flight, None);
        }
        while let Some(key) = self.resumable.pop() {
            self.take_queries(key);
        }
        self.upstreams.flush(self.now);
        for place in 0..self.listeners.len() {
            self.flush(place);
        }
        self.sweep();
        self.counters.outstanding.set(self.upstreams.outstanding() as u64);
        self.counters.tcp_connections.set(self.clients.count() as u64);
        self.check_stop(mail)
    }

    fn patience(&self) -> Duration {
        let busy = self.clients.count() > 0 || self.accept_again.is_some() || self.stopping;
        let tick = if busy { SWEEP } else { TICK };
        match self.upstreams.next_deadline() {
            Some(at) => at.saturating_duration_since(Instant::now()).min(tick),
            None => tick,
        }
    }

    fn wake_up(&mut self) {
        let mut count = [0; 8];
        // Empty is fine: what there is to do is looked up elsewhere.
        let _ = rustix::io::read(&*self.wake, &mut count);
    }

    //--- UDP

    fn serve_udp(&mut self, place: usize, mail: &mut Batch) {
        let listener = &self.listeners[place];
        let Ok(received) = mail.receive(&listener.socket, listener.wildcard) else {
            // Nothing there after all, or an ICMP error about some client:
            // weather, not a reason to stop listening.
            return;
        };
        // Loaded after the queries came: one that was sent after `publish` had
        // returned is never judged by the snapshot before.
        let serving = self.shared.serving.load();
        for datagram in &mail.datagrams[..received] {
            let Some(peer) = datagram.peer.socket_addr() else { continue };
            let client = Client { address: peer.ip(), port: peer.port(), over_tcp: false };
            let packet = &datagram.data[..datagram.length];
            let slot = self.listeners[place].slot();
            let verdict = catch_unwind(AssertUnwindSafe(|| {
                decide(
                    packet,
                    client,
                    &serving.snapshot,
                    &self.shared.settings.rules,
                    self.unix,
                    &mut slot.data,
                )
            }));
            match verdict {
                Ok(Verdict::Respond { length, outcome }) => {
                    (slot.length, slot.peer, slot.local) = (length, datagram.peer, datagram.local);
                    self.counters.count(false, outcome, &serving.slots);
                    self.push(place);
                }
                Ok(Verdict::Forward { query, follow }) => {
                    let origin = Origin::Udp { listener: place, peer: datagram.peer, local: datagram.local };
                    self.forward(query, follow.map(Box::new), origin);
                }
                Ok(Verdict::Drop(outcome)) => self.counters.count(false, outcome, &serving.slots),
                Err(_) => self.survive_panic(false),
            }
        }
        self.flush(place);
        self.upstreams.flush(self.now);
    }

    fn push(&mut self, place: usize) {
        let lost = self.listeners[place].push();
        self.counters.unsent.add(lost as u64);
    }

    fn flush(&mut self, place: usize) {
        let lost = self.listeners[place].flush();
        self.counters.unsent.add(lost as u64);
    }

    fn survive_panic(&self, over_tcp: bool) {
        self.counters.panics.add(1);
        self.counters.count(over_tcp, Outcome::Dropped, &[]);
    }

    //--- TCP

    fn accept(&mut self, place: usize) {
        loop {
            match self.accepting[place].accept() {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The client went away between knocking and the door.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Out of descriptors, most often. Looking away for a moment
                    // keeps this thread free for UDP.
                    self.shared.events.push(format!("cannot accept TCP connections: {error}"));
                    for listener in &self.accepting {
                        let _ = self.poll.remove(listener);
                    }
                    self.accept_again = Some(self.now + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, stream: std::net::TcpStream, peer: SocketAddr) {
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        // Responses are single writes already; waiting to fill a segment would
        // only delay them.
        let _ = stream.set_nodelay(true);
        let Some(key) = self.clients.admit(stream, peer, self.now) else { return };
        let added = self.clients.get(key).map(|c| self.poll.add(&c.stream, Token::Client(key), true, false));
        if !matches!(added, Some(Ok(()))) {
            self.clients.remove(key);
        }
    }

    fn serve_client(&mut self, key: usize, event: Event) {
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

    /// Takes all queries that the connection's bounds allow.
    fn take_queries(&mut self, key: usize) {
        let serving = self.shared.serving.load();
        let Some((peer, generation)) = self.clients.get(key).map(|c| (c.peer, c.generation)) else { return };
        let client = Client { address: peer.ip(), port: peer.port(), over_tcp: true };
        while let Some(length) = self.clients.next_message(key, &mut self.message[..], self.now) {
            let packet = &self.message[..length];
            let rules = &self.shared.settings.rules;
            let verdict = catch_unwind(AssertUnwindSafe(|| {
                decide(packet, client, &serving.snapshot, rules, self.unix, &mut self.scratch[..])
            }));
            match verdict {
                Ok(Verdict::Respond { length, outcome }) => {
                    self.counters.count(true, outcome, &serving.slots);
                    self.clients.answer(key, generation, &self.scratch[..length], self.now);
                }
                Ok(Verdict::Forward { query, follow }) => {
                    let origin = Origin::Tcp { connection: key, generation };
                    self.forward(query, follow.map(Box::new), origin);
                }
                Ok(Verdict::Drop(outcome)) => {
                    self.counters.count(true, outcome, &serving.slots);
                    self.clients.leave_unanswered(key, generation);
                }
                Err(_) => {
                    self.survive_panic(true);
                    self.clients.leave_unanswered(key, generation);
                }
            }
        }
        self.watch(key);
    }

    /// Tells epoll what the connection waits for now, or closes it.
    fn watch(&mut self, key: usize) {
        let wants = self.clients.wants(key);
        let Some(connection) = self.clients.get(key) else { return };
        let watched = wants.map(|(readable, writable)| {
            self.poll.change(&connection.stream, Token::Client(key), readable, writable)
        });
        if !matches!(watched, Some(Ok(()))) {
            self.clients.remove(key);
        }
    }

    fn sweep(&mut self) {
        if self.now.saturating_duration_since(self.swept_at) < SWEEP {
            return;
        }
        self.swept_at = self.now;
        for key in self.clients.expired(self.now) {
            self.clients.remove(key);
        }
        if self.accept_again.is_some_and(|at| at <= self.now) {
            self.accept_again = None;
            for (place, listener) in self.accepting.iter().enumerate() {
                let _ = self.poll.add(listener, Token::Accept(place), true, false);
            }
        }
    }

    //--- Upstream

    fn forward(&mut self, query: Query, follow: Option<Box<crate::name::Name>>, origin: Origin) {
        if self.upstreams.has_room() {
            self.upstreams.ask(query, follow, origin, self.now);
            return;
        }
        let serving = self.shared.serving.load();
        self.give_up(&query, origin, Outcome::Overloaded, &serving);
    }

    fn take_datagrams(&mut self, key: usize, mail: &mut Batch) {
        for (flight, place) in self.upstreams.receive(key, mail, self.now) {
            let datagram = &mail.datagrams[place];
            self.finish(flight, Some(&datagram.data[..datagram.length]));
        }
    }

    fn take_messages(&mut self, key: usize, event: Event) {
        if event.writable {
            self.upstreams.write_stream(key, self.now);
        }
        if event.readable || event.broken {
            for (flight, message) in self.upstreams.read_stream(key, self.now) {
                self.finish(flight, Some(&message));
            }
        }
    }

    /// Answers a query whose upstream has answered, or has not. What the name
    /// is allowed is asked again: the snapshot may have changed meanwhile.
    fn finish(&mut self, flight: Flight, response: Option<&[u8]>) {
        let serving = self.shared.serving.load();
        let rules = &self.shared.settings.rules;
        let over_tcp = flight.came_over_tcp();
        let limit = if over_tcp { MESSAGE } else { flight.query.payload_limit(rules.max_payload) };
        let out = &mut self.scratch[..];
        let judgement = judge(&flight.query, over_tcp, &serving.snapshot, rules, self.unix, out);
        let (length, outcome) = match judgement {
            Judgement::Answer { length, outcome } => (length, outcome),
            Judgement::Silence(outcome) => (0, outcome),
            Judgement::Follow(decision) => {
                if response.is_some() && flight.follow.as_deref() != decision.answer.target.as_ref() {
                    let target = decision.answer.target.clone().map(Box::new);
                    return self.ask_again(flight, target, &serving);
                }
                let outcome = Outcome::Blocked { zone: decision.zone, action: decision.answer.action };
                let query = &flight.query;
                let snapshot = &serving.snapshot;
                let length =
                    respond_by_following(query, response, &decision, snapshot, rules, self.unix, limit, out);
                (length, outcome)
            }
            Judgement::Pass if flight.follow.is_some() && response.is_some() => {
                return self.ask_again(flight, None, &serving);
            }
            Judgement::Pass => {
                let relayed = response.and_then(|response| {
                    relay::relay(response, &flight.query, rules.max_payload, limit, out)
                });
                match relayed {
                    Some(length) => (length, Outcome::Forwarded),
                    None if flight.over_tcp && !over_tcp => {
                        (relay::truncated(&flight.query, rules.max_payload, limit, out), Outcome::Forwarded)
                    }
                    None => return self.give_up(&flight.query, flight.origin, Outcome::Failed, &serving),
                }
            }
        };
        self.deliver(flight.origin, length, outcome, &serving);
    }

    /// The policy for the name changed while the upstream was asked.
    fn ask_again(&mut self, flight: Flight, follow: Option<Box<crate::name::Name>>, serving: &Serving) {
        if let Some(flight) = self.upstreams.ask_again(flight, follow, self.now) {
            self.give_up(&flight.query, flight.origin, Outcome::Failed, serving);
        }
    }

    /// SERVFAIL with the reason (RFC 8914 4.23): nobody who could tell answers.
    fn give_up(&mut self, query: &Query, origin: Origin, outcome: Outcome, serving: &Serving) {
        let errors = [(ede::NO_REACHABLE_AUTHORITY, &b"no upstream answered"[..])];
        let rules = &self.shared.settings.rules;
        let out = &mut self.scratch[..DATAGRAM];
        let length = respond_with_error(&query.head(), rcode::SERVFAIL, &errors, rules, out);
        self.deliver(origin, length, outcome, serving);
    }

    /// Sends `scratch[..length]` to where the query came from; nothing if empty.
    fn deliver(&mut self, origin: Origin, length: usize, outcome: Outcome, serving: &Serving) {
        match origin {
            Origin::Udp { listener: place, peer, local } => {
                self.counters.count(false, outcome, &serving.slots);
                let slot = self.listeners[place].slot();
                let Some(data) = slot.data.get_mut(..length).filter(|data| !data.is_empty()) else { return };
                data.copy_from_slice(&self.scratch[..length]);
                (slot.length, slot.peer, slot.local) = (length, peer, local);
                self.push(place);
            }
            Origin::Tcp { connection, generation } => {
                self.counters.count(true, outcome, &serving.slots);
                match length {
                    0 => self.clients.leave_unanswered(connection, generation),
                    _ => self.clients.answer(connection, generation, &self.scratch[..length], self.now),
                }
                self.resumable.push(connection);
            }
        }
    }

    //--- Stopping

    /// Once the engine stops: takes no more, answers what was asked, until
    /// nothing is under way or the deadline has come.
    fn check_stop(&mut self, mail: &mut Batch) -> io::Result<bool> {
        let Some(deadline) = self.shared.stop_deadline() else { return Ok(true) };
        if !self.stopping {
            self.stopping = true;
            self.accepting.clear();
            for place in 0..self.listeners.len() {
                self.drain(place, mail);
                self.poll.remove(&self.listeners[place].socket)?;
            }
        }
        let owed = self.upstreams.outstanding() + self.clients.unsent();
        Ok(owed > 0 && self.now < deadline)
    }

    /// Serves what the kernel had already taken in for us.
    fn drain(&mut self, place: usize, mail: &mut Batch) {
        loop {
            let before = self.counters.queries[0].iter().map(|counter| counter.get()).sum::<u64>();
            let under_way = self.upstreams.outstanding();
            self.serve_udp(place, mail);
            let after = self.counters.queries[0].iter().map(|counter| counter.get()).sum::<u64>();
            if after == before && self.upstreams.outstanding() == under_way {
                return;
            }
        }
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
