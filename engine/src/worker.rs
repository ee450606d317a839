//! One worker thread, top to bottom: wait, take what came, decide, answer or
//! forward, and again. With the other threads it shares the current snapshot, which it
//! only reads, kept answers, and word of who asks what; it never touches the interpreter.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use slab::Slab;

use crate::answer::{self, Client, Verdict, decide, slip};
use crate::cache::BUFFER;
use crate::counters::{Counters, ResponseFrom, Slip};
use crate::failures::Failures;
use crate::limits::Kind;
use crate::message::{MAX_MESSAGE, Query, Transport, is_truncated};
use crate::name::{Name, Walk};
use crate::outcome::Outcome;
use crate::policy::Part;
use crate::policy::names::SEED;
use crate::rules::Rules;
use crate::shared::{Serving, Shared};
use crate::sys::{BATCH, Batch, Datagram};
use crate::transport::listeners::Listening;
use crate::transport::poll::{Event, Poll, Token};
use crate::transport::tcp;
use crate::transport::udp::Listener;
use crate::upstream::{Origin, Upstreams};

mod arrivals;
mod clients;
mod deliver;
mod forward;
mod give;
mod listening;
mod source;

use arrivals::Owed;
use forward::Passed;
use listening::Accepting;

/// Longest wait when nothing is due: bounds how late a clock is noticed.
const TICK: Duration = Duration::from_millis(500);
/// How often connections are looked through for those without patience left.
const SWEEP: Duration = Duration::from_millis(100);
/// Batches taken from a socket that is being closed: its buffer holds no more.
const DRAIN_ROUNDS: usize = 128;

/// One of the worker threads.
pub struct Thread {
    pub number: usize,
    /// Becomes readable when the control thread wants something, or another worker
    /// thread tells something.
    pub wake: Arc<OwnedFd>,
}

/// Runs until the engine stops. `ready` learns whether it could begin.
pub fn run(
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    thread: Thread,
    ready: Sender<io::Result<()>>,
) -> io::Result<()> {
    let mut worker = match Worker::new(shared, counters, thread) {
        Ok(worker) => worker,
        Err(error) => {
            // Whoever started this thread waits for it, and handles the error.
            let _ = ready.send(Err(error));
            return Ok(());
        }
    };
    let _ = ready.send(Ok(()));
    drop(ready);
    let mut mail = Mail::empty();
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

/// A batch that was received, and room for what is read from it: kept from batch to
/// batch, since a query is too long to be moved about for every packet.
struct Mail {
    batch: Batch,
    queries: Vec<Query>,
    walks: Vec<Walk>,
    /// Those that the policy lets pass.
    passed: Vec<Passed>,
}

impl Mail {
    fn empty() -> Mail {
        let walk = || Walk::new(&Name::root(), 0);
        Mail {
            batch: Batch::empty(),
            queries: vec![Query::blank(); BATCH],
            walks: (0..BATCH).map(|_| walk()).collect(),
            passed: Vec::with_capacity(BATCH),
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    poll: Rc<Poll>,
    /// Which of the worker threads this is.
    thread: usize,
    wake: Arc<OwnedFd>,
    /// Those of which this thread has sockets.
    listening: Arc<Listening>,
    listeners: Slab<Listener>,
    accepting: Slab<Accepting>,
    accept_again: Option<Instant>,
    /// Told once, until one is accepted again.
    cannot_accept: bool,
    clients: tcp::Service,
    /// Connections that have whole messages left to be taken.
    resumable: Vec<usize>,
    swept_at: Instant,
    upstreams: Upstreams,
    /// Answers to those who waited together, a portion in each turn.
    owed: VecDeque<Owed>,
    failures: Failures,
    /// `Health::returns` as it was when failures were last forgotten.
    returns: u64,
    /// Queries above their client's limit, so that every so manieth is answered.
    turned_away: u32,
    /// Responses of this turn to queries that were read in it.
    at_once: u64,
    now: Instant,
    unix: u64,
    scratch: Box<[u8; MAX_MESSAGE]>,
    message: Box<[u8; BUFFER]>,
    stopping: bool,
}

impl Worker {
    fn new(shared: Arc<Shared>, counters: Arc<Counters>, thread: Thread) -> io::Result<Worker> {
        let claims = (Arc::clone(&shared.claims), thread.number);
        let poll = Rc::new(Poll::new()?);
        poll.add(&*thread.wake, Token::Wake, true, false)?;
        let serving = shared.serving.load_full();
        let health = Arc::clone(&shared.health);
        let now = Instant::now();
        let mut worker = Worker {
            clients: tcp::Service::new(serving.tcp, Arc::clone(&shared.crowd)),
            upstreams: Upstreams::new(
                Arc::clone(&serving.upstream),
                shared.workers,
                claims,
                health,
                Rc::clone(&poll),
                Arc::clone(&counters),
            ),
            shared,
            counters,
            poll,
            thread: thread.number,
            wake: thread.wake,
            listening: Arc::default(),
            listeners: Slab::new(),
            accepting: Slab::new(),
            accept_again: None,
            cannot_accept: false,
            resumable: Vec::new(),
            swept_at: now,
            owed: VecDeque::new(),
            failures: Failures::default(),
            returns: 0,
            turned_away: 0,
            at_once: 0,
            now,
            unix: unix_now(),
            scratch: Box::new([0; MAX_MESSAGE]),
            message: Box::new([0; BUFFER]),
            stopping: false,
        };
        for bound in serving.listening.iter() {
            worker.open(bound)?;
        }
        worker.listening = Arc::clone(&serving.listening);
        Ok(worker)
    }

    /// One round; false when there is nothing more to do, ever.
    fn turn(&mut self, mail: &mut Mail) -> io::Result<bool> {
        let events = self.poll.wait(self.patience())?;
        (self.now, self.unix) = (Instant::now(), unix_now());
        self.take_over(mail);
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
        self.give_up_waiting();
        for key in std::mem::take(&mut self.resumable) {
            if catch_unwind(AssertUnwindSafe(|| self.take_queries(key))).is_err() {
                self.counters.panics.add(1);
                self.clients.remove(key);
            }
        }
        self.upstreams.flush(self.now);
        for (_, listener) in &mut self.listeners {
            self.counters.unsent.add(listener.flush() as u64);
        }
        if self.at_once > 0 {
            // One look at the clock for all of them: what a turn answers at once leaves in the same moment.
            let responses = std::mem::take(&mut self.at_once);
            self.counters.count_response_times(ResponseFrom::Here, self.now.elapsed(), responses);
        }
        self.sweep();
        self.counters.outstanding.set(self.upstreams.outstanding() as u64);
        self.counters.tcp_connections.set(self.clients.count() as u64);
        self.check_stop(mail)
    }

    fn serve(&mut self, event: Event, mail: &mut Mail) {
        match event.token {
            Token::Wake => self.wake_up(),
            Token::Udp(place) if self.listeners.contains(place) => drop(self.serve_udp(place, mail)),
            Token::Accept(place) if self.accepting.contains(place) => self.accept(place),
            // Closed in this turn.
            Token::Udp(_) | Token::Accept(_) => {}
            Token::Client(key, _) if self.is_current(event.token) => self.serve_client(key, event),
            Token::Client(..) => {}
            Token::Upstream(key) => self.take_datagrams(key, mail),
            Token::Stream(key) => self.take_messages(key, event),
        }
    }

    fn patience(&self) -> Duration {
        if !self.resumable.is_empty() || !self.owed.is_empty() {
            return Duration::ZERO;
        }
        let busy = self.clients.count() > 0 || self.accept_again.is_some() || self.stopping || self.closes();
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
        self.take_letters();
    }

    //--- UDP

    /// Serves one batch; false if there was none.
    fn serve_udp(&mut self, place: usize, mail: &mut Mail) -> bool {
        let Ok((received, late)) = self.listeners[place].receive(&mut mail.batch) else {
            // Nothing there after all, or an ICMP error about some client:
            // weather, not a reason to stop listening.
            return false;
        };
        (0..late).for_each(|_| self.counters.count(Transport::Udp, Outcome::Late, &[]));
        // Loaded after the queries came: one that was sent after `publish` had
        // returned is never judged by the snapshot before.
        let serving = self.shared.serving.load();
        self.ask_those_of(&serving);
        let Mail { batch, queries, walks, passed } = mail;
        let datagrams = &batch.datagrams[..received];
        // A panic may have left some of the batch before.
        passed.clear();
        // Step by step for the whole batch, not query by query: what a step asks of
        // the memory is there when the next step wants it.
        let mut to_decide: [bool; BATCH] = [false; BATCH];
        for (index, datagram) in datagrams.iter().enumerate() {
            let (query, walk) = (&mut queries[index], &mut walks[index]);
            let read = catch_unwind(AssertUnwindSafe(|| self.read(place, datagram, query, walk, &serving)));
            to_decide[index] = read.unwrap_or_else(|_| self.survive_panic(Transport::Udp));
        }
        let to_decide = || (0..received).filter(|index| to_decide[*index]);
        for part in [Part::Index, Part::Bucket] {
            for index in to_decide() {
                serving.warm(&queries[index].name, &walks[index], part);
            }
        }
        for index in to_decide() {
            let (datagram, query, walk) = (&datagrams[index], &queries[index], &walks[index]);
            let decide = AssertUnwindSafe(|| self.decide(place, datagram, query, walk, &serving));
            match catch_unwind(decide) {
                Ok(Some((follow, allowed_by))) => {
                    passed.push(Passed::new(index, &queries[index], follow, allowed_by));
                }
                Ok(None) => {}
                Err(_) => drop(self.survive_panic(Transport::Udp)),
            }
        }
        self.look_up(queries, passed);
        for passed in passed.drain(..) {
            let (datagram, query) = (&datagrams[passed.place], &queries[passed.place]);
            let origin = Origin::Udp {
                listener: place,
                peer: datagram.peer,
                local: datagram.local,
                read_at: self.now,
            };
            let forward = AssertUnwindSafe(|| self.forward(query, passed, origin, &serving));
            if catch_unwind(forward).is_err() {
                self.survive_panic(Transport::Udp);
            }
        }
        self.flush(place);
        self.upstreams.flush(self.now);
        true
    }

    /// Reads one datagram; false where nothing is left to decide.
    fn read(
        &mut self,
        place: usize,
        datagram: &Datagram,
        query: &mut Query,
        walk: &mut Walk,
        serving: &Serving,
    ) -> bool {
        fail::fail_point!("decide");
        let Some(peer) = datagram.peer.socket_addr() else { return false };
        let client = Client { address: peer.ip(), port: peer.port(), transport: Transport::Udp };
        let (packet, rules) = (&datagram.data[..datagram.length], &serving.rules);
        let slot = self.listeners[place].slot();
        match answer::read(packet, client, rules, self.unix, query, &mut slot.data) {
            Ok(()) => {
                walk.take(&query.name, SEED);
                serving.warm(&query.name, walk, Part::Filter);
                true
            }
            Err(verdict) => {
                if self.admits(place, datagram, query, &verdict, rules) {
                    self.carry_out(place, datagram, verdict, serving);
                }
                false
            }
        }
    }

    /// Decides a query. Where somebody else must be asked, returns about what, if not
    /// the name itself, and whether a passthru lets it pass.
    fn decide(
        &mut self,
        place: usize,
        datagram: &Datagram,
        query: &Query,
        walk: &Walk,
        serving: &Serving,
    ) -> Option<(Option<Name>, Option<usize>)> {
        let slot = self.listeners[place].slot();
        let verdict = decide(query, &serving.snapshot, &serving.rules, self.unix, &mut slot.data);
        if !self.admits(place, datagram, query, &verdict, &serving.rules) {
            return None;
        }
        if serving.has_shadows() {
            serving.count_shadows(&self.counters, &query.name, walk, Transport::Udp);
        }
        self.carry_out(place, datagram, verdict, serving)
    }

    /// Whether the client may have what the verdict gives it; otherwise it is turned away.
    fn admits(
        &mut self,
        place: usize,
        datagram: &Datagram,
        query: &Query,
        verdict: &Verdict,
        rules: &Rules,
    ) -> bool {
        match verdict.claim().filter(|kind| !self.may_have(datagram, *kind, rules)) {
            Some(kind) => {
                self.turn_away(place, datagram, query, kind, rules);
                false
            }
            None => true,
        }
    }

    fn carry_out(
        &mut self,
        place: usize,
        datagram: &Datagram,
        verdict: Verdict,
        serving: &Serving,
    ) -> Option<(Option<Name>, Option<usize>)> {
        match verdict {
            Verdict::Respond { length, outcome, .. } => {
                let slot = self.listeners[place].slot();
                (slot.length, slot.peer, slot.local) = (length, datagram.peer, datagram.local);
                self.counters.count(Transport::Udp, outcome, &serving.slots);
                self.counters.count_response(&slot.data[..length], outcome);
                self.at_once += 1;
                self.push(place);
                None
            }
            Verdict::Forward { follow, allowed_by, .. } => Some((follow, allowed_by)),
            Verdict::Drop(outcome) => {
                self.counters.count(Transport::Udp, outcome, &serving.slots);
                None
            }
        }
    }

    fn may_have(&self, datagram: &Datagram, kind: Kind, rules: &Rules) -> bool {
        let rate = match kind {
            Kind::Query => rules.rates.queries,
            Kind::Error => rules.rates.errors,
        };
        let admit = |peer: SocketAddr| self.shared.limiter.admit(peer.ip(), kind, rate, self.now);
        datagram.peer.socket_addr().is_some_and(admit)
    }

    /// Drops a query above its client's limit; every so manieth is answered, so
    /// that a real client behind a forged flood finds its way.
    fn turn_away(&mut self, place: usize, datagram: &Datagram, query: &Query, kind: Kind, rules: &Rules) {
        self.counters.count(Transport::Udp, Outcome::Limited, &[]);
        // Errors are counted apart: with them, queries that come in turn with them
        // would all slip, or none.
        self.turned_away = self.turned_away.wrapping_add(u32::from(kind == Kind::Query));
        let slips = kind == Kind::Query && self.turned_away.checked_rem(rules.rates.slip) == Some(0);
        let slot = self.listeners[place].slot();
        let answered = if slips { slip(query, rules, &mut slot.data) } else { None };
        let Some((length, is_about_cookie)) = answered else {
            self.counters.limited[Slip::Dropped as usize].add(1);
            return;
        };
        (slot.length, slot.peer, slot.local) = (length, datagram.peer, datagram.local);
        let how = if is_about_cookie { Slip::BadCookie } else { Slip::Truncated };
        self.counters.limited[how as usize].add(1);
        self.counters.count_response(&slot.data[..length], Outcome::Limited);
        self.at_once += 1;
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

    /// Counts a packet that is lost; false, since there is nothing left to do with it.
    fn survive_panic(&self, transport: Transport) -> bool {
        self.counters.panics.add(1);
        self.counters.count(transport, Outcome::Dropped, &[]);
        false
    }

    fn sweep(&mut self) {
        if self.now.saturating_duration_since(self.swept_at) < SWEEP {
            return;
        }
        self.swept_at = self.now;
        self.upstreams.tidy(self.now);
        self.close_answered();
        for key in self.clients.expired(self.now) {
            self.clients.remove(key);
        }
        if self.accept_again.is_some_and(|at| at <= self.now) {
            self.accept_again = None;
            for (place, listener) in &self.accepting {
                let _ = self.poll.add(listener.socket(), Token::Accept(place), true, false);
            }
        }
    }

    //--- Stopping

    /// Once the engine stops: takes no more, answers what was asked, until
    /// nothing is under way or the deadline has come.
    fn check_stop(&mut self, mail: &mut Mail) -> io::Result<bool> {
        let Some(deadline) = self.shared.stop_deadline() else { return Ok(true) };
        if !self.stopping {
            self.stopping = true;
            self.stop_accepting();
            let open = self.listeners.iter().filter(|(_, listener)| !listener.is_closing);
            for place in open.map(|(place, _)| place).collect::<Vec<_>>() {
                self.drain(place, mail, deadline);
                self.poll.remove_busy(Token::Udp(place));
                self.listeners[place].make_room();
            }
        }
        let is_owed =
            !self.owed.is_empty() || self.upstreams.has_waiting_clients() || self.clients.unsent() > 0;
        Ok(is_owed && self.now < deadline)
    }

    /// Serves what the kernel had already taken in for us; not without end,
    /// since more may come in as fast as it is served.
    fn drain(&mut self, place: usize, mail: &mut Mail, deadline: Instant) {
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
