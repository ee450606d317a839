//! One packet thread, top to bottom: wait, take what came, decide, answer or
//! forward, and again. It shares with the other threads the current snapshot,
//! which it only reads, and nothing else; it never touches the interpreter.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::answer::{
    Client, Judgement, Outcome, Rules, Verdict, decide, judge, judge_targets, respond_by_following,
    respond_with_error, slip,
};
use crate::counters::{Counters, Slip};
use crate::failures::Failures;
use crate::limits::Kind;
use crate::message::{ExtendedError, MAX_MESSAGE, Query, ede, is_truncated, rcode};
use crate::name::Name;
use crate::policy::seed;
use crate::poll::{Event, Poll, Token};
use crate::relay;
use crate::shared::{Serving, Shared};
use crate::sys::{Batch, DATAGRAM, Datagram};
use crate::tcp;
use crate::udp::Listener;
use crate::upstream::{Flight, Origin, Upstreams};

mod clients;

/// Longest wait when nothing is due: bounds how late a clock is noticed.
const TICK: Duration = Duration::from_millis(500);
/// How often connections are looked through for those without patience left.
const SWEEP: Duration = Duration::from_millis(100);
/// Batches taken from a socket that is being closed: its buffer holds no more.
const DRAIN_ROUNDS: usize = 128;

/// The sockets of one packet thread.
pub struct Sockets {
    pub udp: Vec<UdpSocket>,
    pub tcp: Vec<TcpListener>,
    /// Becomes readable when the control thread wants something.
    pub wake: Arc<OwnedFd>,
}

/// Runs until the engine stops. `ready` learns whether it could begin.
pub fn run(
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    sockets: Sockets,
    ready: Sender<io::Result<()>>,
) -> io::Result<()> {
    let mut worker = match Worker::new(shared, counters, sockets) {
        Ok(worker) => worker,
        Err(error) => {
            // Whoever started this thread waits for it, and handles the error.
            let _ = ready.send(Err(error));
            return Ok(());
        }
    };
    let _ = ready.send(Ok(()));
    drop(ready);
    let mut mail = Batch::empty();
    loop {
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
    /// Told once, until one is accepted again.
    cannot_accept: bool,
    clients: tcp::Service,
    /// Connections that have whole messages left to be taken.
    resumable: Vec<usize>,
    swept_at: Instant,
    upstreams: Upstreams,
    failures: Failures,
    /// Queries above their client's limit, so that every so manieth is answered.
    turned_away: u32,
    now: Instant,
    unix: u64,
    scratch: Box<[u8; MAX_MESSAGE]>,
    message: Box<[u8; MAX_MESSAGE]>,
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
            clients: tcp::Service::new(
                shared.settings.tcp,
                Arc::clone(&shared.connections),
                Arc::clone(&shared.crowd),
            ),
            upstreams: Upstreams::new(settings, Rc::clone(&poll), Arc::clone(&counters), events),
            shared,
            counters,
            poll,
            wake: sockets.wake,
            listeners,
            accepting: sockets.tcp,
            accept_again: None,
            cannot_accept: false,
            resumable: Vec::new(),
            swept_at: now,
            failures: Failures::new(seed()),
            turned_away: 0,
            now,
            unix: unix_now(),
            scratch: Box::new([0; MAX_MESSAGE]),
            message: Box::new([0; MAX_MESSAGE]),
            stopping: false,
        })
    }

    /// One round; false when there is nothing more to do, ever.
    fn turn(&mut self, mail: &mut Batch) -> io::Result<bool> {
        let events = self.poll.wait(self.patience())?;
        (self.now, self.unix) = (Instant::now(), unix_now());
        for event in events {
            // What goes wrong with one packet may cost that packet, or at most its
            // connection; the others of this turn are served.
            if catch_unwind(AssertUnwindSafe(|| self.serve(event, mail))).is_err() {
                self.counters.panics.add(1);
                if let Token::Client(key, _) = event.token {
                    self.clients.remove(key);
                }
            }
        }
        for flight in self.upstreams.expire(self.now) {
            self.finish(flight, Err(Outcome::Failed));
        }
        for key in std::mem::take(&mut self.resumable) {
            if catch_unwind(AssertUnwindSafe(|| self.take_queries(key))).is_err() {
                self.counters.panics.add(1);
                self.clients.remove(key);
            }
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

    fn serve(&mut self, event: Event, mail: &mut Batch) {
        match event.token {
            Token::Wake => self.wake_up(),
            Token::Udp(place) => drop(self.serve_udp(place, mail)),
            Token::Accept(place) => self.accept(place),
            Token::Client(key, _) if self.is_current(event.token) => self.serve_client(key, event),
            Token::Client(..) => {}
            Token::Upstream(key) => self.take_datagrams(key, mail),
            Token::Stream(key) => self.take_messages(key, event),
        }
    }

    fn patience(&self) -> Duration {
        if !self.resumable.is_empty() {
            return Duration::ZERO;
        }
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

    /// Serves one batch; false if there was none.
    fn serve_udp(&mut self, place: usize, mail: &mut Batch) -> bool {
        let listener = &self.listeners[place];
        let Ok(received) = mail.receive(&listener.socket, listener.wildcard) else {
            // Nothing there after all, or an ICMP error about some client:
            // weather, not a reason to stop listening.
            return false;
        };
        // Loaded after the queries came: one that was sent after `publish` had
        // returned is never judged by the snapshot before.
        let serving = self.shared.serving.load();
        for datagram in &mail.datagrams[..received] {
            let serve = AssertUnwindSafe(|| self.serve_datagram(place, datagram, &serving));
            if catch_unwind(serve).is_err() {
                self.survive_panic(false);
            }
        }
        self.flush(place);
        self.upstreams.flush(self.now);
        true
    }

    fn serve_datagram(&mut self, place: usize, datagram: &Datagram, serving: &Serving) {
        fail::fail_point!("decide");
        let Some(peer) = datagram.peer.socket_addr() else { return };
        let client = Client { address: peer.ip(), port: peer.port(), over_tcp: false };
        let (packet, rules) = (&datagram.data[..datagram.length], &serving.rules);
        let slot = self.listeners[place].slot();
        let verdict = decide(packet, client, &serving.snapshot, rules, self.unix, &mut slot.data);
        if let Some(kind) = verdict.claim().filter(|kind| !self.may_have(client, *kind, rules)) {
            return self.turn_away(place, datagram, client, kind, rules);
        }
        match verdict {
            Verdict::Respond { length, outcome, .. } => {
                let slot = self.listeners[place].slot();
                (slot.length, slot.peer, slot.local) = (length, datagram.peer, datagram.local);
                self.counters.count(false, outcome, &serving.slots);
                self.push(place);
            }
            Verdict::Forward { query, follow } => {
                let origin = Origin::Udp { listener: place, peer: datagram.peer, local: datagram.local };
                self.forward(query, follow.map(Box::new), origin);
            }
            Verdict::Drop(outcome) => self.counters.count(false, outcome, &serving.slots),
        }
    }

    fn may_have(&self, client: Client, kind: Kind, rules: &Rules) -> bool {
        let rate = match kind {
            Kind::Query => rules.rates.queries,
            Kind::Error => rules.rates.errors,
        };
        self.shared.limiter.admit(client.address, kind, rate, self.now)
    }

    /// Drops a query above its client's limit; every so manieth is answered, so
    /// that a real client behind a forged flood finds its way.
    fn turn_away(&mut self, place: usize, datagram: &Datagram, client: Client, kind: Kind, rules: &Rules) {
        self.counters.count(false, Outcome::Limited, &[]);
        // Errors are counted apart: with them, queries that come in turn with them
        // would all slip, or none.
        self.turned_away = self.turned_away.wrapping_add(u32::from(kind == Kind::Query));
        let slips = kind == Kind::Query && self.turned_away.checked_rem(rules.rates.slip) == Some(0);
        let slot = self.listeners[place].slot();
        let packet = &datagram.data[..datagram.length];
        let answered = if slips { slip(packet, client, rules, self.unix, &mut slot.data) } else { None };
        let Some((length, is_about_cookie)) = answered else {
            self.counters.limited[Slip::Dropped as usize].add(1);
            return;
        };
        (slot.length, slot.peer, slot.local) = (length, datagram.peer, datagram.local);
        let how = if is_about_cookie { Slip::BadCookie } else { Slip::Truncated };
        self.counters.limited[how as usize].add(1);
        self.push(place);
    }

    /// Sends what is in the listener's slot, with others.
    fn push(&mut self, place: usize) {
        let slot = self.listeners[place].slot();
        self.counters.truncated.add(u64::from(is_truncated(&slot.data[..slot.length])));
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

    fn sweep(&mut self) {
        if self.now.saturating_duration_since(self.swept_at) < SWEEP {
            return;
        }
        self.swept_at = self.now;
        self.upstreams.tidy(self.now);
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

    fn forward(&mut self, query: Query, follow: Option<Box<Name>>, origin: Origin) {
        let asked = follow.as_deref().unwrap_or(&query.name);
        let has_failed = self.failures.knows(&query.head, asked, query.qtype, self.now);
        if follow.is_none() && has_failed {
            let serving = self.shared.serving.load();
            let error = ExtendedError::new(ede::CACHED_ERROR, b"no upstream answered a moment ago");
            return self.give_up(&query, origin, Outcome::Failed, error, &serving);
        }
        let flight = Flight::new(query, follow, origin);
        if has_failed {
            self.finish(flight, Err(Outcome::Failed));
        } else if self.upstreams.has_room() {
            self.upstreams.ask(flight, self.now);
        } else {
            self.finish(flight, Err(Outcome::Overloaded));
        }
    }

    fn take_datagrams(&mut self, key: usize, mail: &mut Batch) {
        for (flight, place) in self.upstreams.receive(key, mail, self.now) {
            let datagram = &mail.datagrams[place];
            self.finish(flight, Ok(&datagram.data[..datagram.length]));
        }
    }

    fn take_messages(&mut self, key: usize, event: Event) {
        if event.writable {
            self.upstreams.write_stream(key, self.now);
        }
        if event.readable || event.broken {
            for (flight, message) in self.upstreams.read_stream(key, self.now) {
                self.finish(flight, Ok(&message));
            }
        }
    }

    /// Answers a query whose upstream has answered, or why none has.
    fn finish(&mut self, flight: Flight, response: Result<&[u8], Outcome>) {
        let origin = flight.origin;
        let finished = catch_unwind(AssertUnwindSafe(|| {
            fail::fail_point!("finish");
            self.judge_again(flight, response);
        }));
        if finished.is_err() {
            self.survive_panic(matches!(origin, Origin::Tcp { .. }));
            if let Origin::Tcp { connection, generation } = origin {
                self.clients.leave_unanswered(connection, generation);
                self.resumable.push(connection);
            }
        }
    }

    /// The name is judged again: the snapshot may have changed meanwhile.
    fn judge_again(&mut self, flight: Flight, response: Result<&[u8], Outcome>) {
        let serving = self.shared.serving.load();
        let (snapshot, rules, query) = (&serving.snapshot, &serving.rules, &flight.query);
        let out = &mut self.scratch[..];
        let mut judgement = judge(query, snapshot, rules, self.unix, out);
        if let (Judgement::Pass, Ok(said), None) = (&judgement, response, &flight.follow) {
            judgement = judge_targets(query, said, snapshot, rules, self.unix, out);
        }
        let (length, outcome) = match judgement {
            Judgement::Answer { length, outcome } => (length, outcome),
            Judgement::Silence(outcome) => (0, outcome),
            Judgement::Follow(decision, target) => {
                if response.is_ok() && flight.follow.as_deref() != Some(&target) {
                    return self.ask_again(flight, Some(Box::new(target)));
                }
                self.remember(&flight, response.err());
                let (query, out) = (&flight.query, &mut self.scratch[..]);
                let outcome = Outcome::Blocked { zone: decision.zone, action: decision.answer.action };
                let said = response.ok();
                let length =
                    respond_by_following(query, said, &decision, &target, snapshot, rules, self.unix, out);
                (length, outcome)
            }
            Judgement::Pass | Judgement::Allow if flight.follow.is_some() && response.is_ok() => {
                return self.ask_again(flight, None);
            }
            Judgement::Unreadable => return self.fail(&flight, Ok(()), &serving),
            Judgement::Pass | Judgement::Allow => {
                let over_tcp = query.head.hop.over_tcp;
                let said = response.ok();
                match said.and_then(|said| relay::relay(said, query, rules.max_payload, out)) {
                    Some(length) => (length, Outcome::Forwarded),
                    None if flight.over_tcp && !over_tcp => {
                        (relay::truncated(query, rules.max_payload, out), Outcome::Forwarded)
                    }
                    None => return self.fail(&flight, response.map(drop), &serving),
                }
            }
        };
        self.deliver(flight.origin, length, outcome, &serving);
    }

    /// Nobody who could tell has told (RFC 8914 4.23), or nothing that can be passed
    /// on (4.1).
    fn fail(&mut self, flight: &Flight, response: Result<(), Outcome>, serving: &Serving) {
        let outcome = response.err().unwrap_or(Outcome::Failed);
        self.remember(flight, Some(outcome));
        let error = match response {
            Ok(()) => ExtendedError::new(ede::OTHER, b"the upstream's answer cannot be used"),
            Err(_) => ExtendedError::new(ede::NO_REACHABLE_AUTHORITY, b"no upstream answered"),
        };
        self.give_up(&flight.query, flight.origin, outcome, error, serving);
    }

    /// Remembers that no upstream answered what was asked, if it was.
    fn remember(&mut self, flight: &Flight, outcome: Option<Outcome>) {
        if outcome == Some(Outcome::Failed) && flight.was_asked() {
            let query = &flight.query;
            let asked = flight.follow.as_deref().unwrap_or(&query.name);
            self.failures.remember(&query.head, asked, query.qtype, self.now);
        }
    }

    /// The policy for the name changed while the upstream was asked.
    fn ask_again(&mut self, flight: Flight, follow: Option<Box<Name>>) {
        if let Some(flight) = self.upstreams.ask_again(flight, follow, self.now) {
            self.finish(flight, Err(Outcome::Failed));
        }
    }

    /// SERVFAIL with the reason.
    fn give_up(
        &mut self,
        query: &Query,
        origin: Origin,
        outcome: Outcome,
        error: ExtendedError<'_>,
        serving: &Serving,
    ) {
        let out = &mut self.scratch[..DATAGRAM];
        let length = respond_with_error(&query.head, rcode::SERVFAIL, &[error], &serving.rules, out);
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
                self.drain(place, mail, deadline);
                self.poll.remove(&self.listeners[place].socket)?;
            }
        }
        let owed = self.upstreams.outstanding() + self.clients.unsent();
        Ok(owed > 0 && self.now < deadline)
    }

    /// Serves what the kernel had already taken in for us; not without end,
    /// since more may come in as fast as it is served.
    fn drain(&mut self, place: usize, mail: &mut Batch, deadline: Instant) {
        for _ in 0..DRAIN_ROUNDS {
            if !self.serve_udp(place, mail) || Instant::now() >= deadline {
                return;
            }
        }
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
