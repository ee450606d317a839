//! Forwarding: queries under way, which answer is believed, and when another
//! upstream is asked.
//!
//! Against forged answers (RFC 5452 9): ids are drawn at random, so are source
//! ports (`sockets`), the question must come back as it was asked, and what does
//! not fit is counted and ignored while the wait goes on.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use slab::Slab;

use crate::chain;
use crate::counters::{Counters, UpstreamCounters};
use crate::failures::Failures;
use crate::message::{MAX_QUESTION, flag, is_truncated, rcode, u16_at};
use crate::name::Name;
use crate::relay;
use crate::response::Reader;
use crate::sys::{BATCH, Batch, Local, Peer};
use crate::transport::poll::Poll;

pub mod asker;
pub mod choice;
pub mod claims;
mod edns;
pub mod flight;
pub mod health;
mod hold;
mod ids;
mod probe;
mod questions;
pub mod reload;
mod shares;
pub mod sockets;
mod stream;
mod streams;
pub mod watch;

pub use asker::{Asker, Tells};
pub use choice::{Choice, Server};
pub use claims::{Claims, Heard};
pub use flight::{Flight, Led, MAX_ATTEMPTS, Origin, Waiter};
pub use health::{Health, MAX_UPSTREAMS};
pub use questions::Join;
pub use watch::Probe;

use asker::Subnet;
use choice::Chooser;
use claims::Claim;
use flight::{Channel, Route};
use health::{Failure, HOLD, Mask};
use hold::Holding;
use questions::Questions;
use shares::Shares;
use sockets::Pool;
use stream::Stream;

/// Queries of one received batch that may leave through the same socket.
const RUN: usize = 16;
const _: () = assert!(RUN <= BATCH, "they leave in one system call");

/// Octets of a SERVFAIL that is kept while another upstream is asked.
const FAILURE: usize = 1232;

/// Deadlines that are kept, whatever became of their questions.
const DEADLINES: usize = 4096;

#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    pub servers: Vec<Server>,
    pub choice: Choice,
    pub attempts: usize,
    /// Patience with one attempt.
    pub timeout: Duration,
    /// Queries under way per packet thread.
    pub max_outstanding: usize,
    /// Octets of UDP that our OPT announces.
    pub payload: u16,
    pub tells: Tells,
    pub probe: Option<Probe>,
}

impl Settings {
    /// The places of all upstreams.
    pub fn places(&self) -> Mask {
        self.servers.iter().fold(0, |mask, server| mask | health::bit(server.place))
    }

    /// By what `Health` judges.
    pub fn probes(&self) -> Option<(u32, Duration)> {
        self.probe.as_ref().map(|probe| (probe.failures, probe.interval))
    }

    /// Whether what an upstream answers may depend on who asks.
    pub fn tells_client(&self) -> bool {
        self.tells != Tells::Nothing
    }
}

struct Deadline {
    at: Instant,
    flight: usize,
    stamp: u64,
}

/// Queries that leave together, through one socket.
#[derive(Default)]
struct Outbox {
    /// Made with the first query: it takes some room.
    batch: Option<Batch>,
    socket: usize,
    waiting: usize,
}

/// All forwarding of one packet thread.
pub struct Upstreams {
    settings: Arc<Settings>,
    workers: usize,
    health: Arc<Health>,
    /// `Health::losses` as it was when this thread last looked.
    losses: u64,
    chooser: Chooser,
    pool: Pool,
    streams: Slab<Stream>,
    most_streams: usize,
    /// Key of the TCP connection towards each upstream that takes questions.
    stream_of: Vec<Option<usize>>,
    flights: Slab<Flight>,
    questions: Questions,
    holding: Holding,
    shares: Shares,
    /// Questions that two upstreams answered SERVFAIL a moment ago.
    failed_twice: Failures,
    claims: Arc<Claims>,
    /// Which of the packet threads this is.
    thread: usize,
    /// In order of time.
    deadlines: VecDeque<Deadline>,
    /// What waits to be sent to each upstream, and to which something does.
    outboxes: Vec<Outbox>,
    pending: Mask,
    next_stamp: u64,
    random: StdRng,
    poll: Rc<Poll>,
    counters: Arc<Counters>,
    reader: Reader,
}

/// An answer that was asked for: the flight, and where the message stands.
pub type Arrived<M> = Vec<(Flight, M)>;

impl Upstreams {
    /// `workers`: packet threads, each of which has sockets towards each upstream;
    /// `thread`: which of them this is.
    pub fn new(
        settings: Arc<Settings>,
        workers: usize,
        (claims, thread): (Arc<Claims>, usize),
        health: Arc<Health>,
        poll: Rc<Poll>,
        counters: Arc<Counters>,
    ) -> Upstreams {
        let pools = settings.servers.len() * workers;
        let returns = health.returns();
        Upstreams {
            workers,
            losses: health.losses(),
            health,
            chooser: Chooser::new(settings.choice, &settings.servers),
            pool: Pool::new(&settings.servers, pools, Rc::clone(&poll)),
            stream_of: vec![None; MAX_UPSTREAMS],
            most_streams: Upstreams::most_streams(settings.servers.len(), sockets::share(pools)),
            settings,
            streams: Slab::new(),
            flights: Slab::new(),
            questions: Questions::default(),
            holding: Holding::new(returns),
            shares: Shares::default(),
            failed_twice: Failures::default(),
            claims,
            thread,
            deadlines: VecDeque::new(),
            outboxes: (0..MAX_UPSTREAMS).map(|_| Outbox::default()).collect(),
            pending: 0,
            next_stamp: 0,
            random: rand::make_rng(),
            poll,
            counters,
            reader: Reader::default(),
        }
    }

    /// Questions under way, and queries that wait with others for one of them.
    pub fn outstanding(&self) -> usize {
        self.flights.len() + self.questions.joined()
    }

    /// Whether anybody waits for an answer.
    pub fn owes_answers(&self) -> bool {
        self.flights.iter().any(|(_, flight)| flight.is_awaited())
    }

    /// Every query that waits for an answer.
    pub fn for_each_waiter(&self, mut visit: impl FnMut(&Waiter)) {
        for (_, flight) in &self.flights {
            visit(&flight.first);
            flight.others.iter().for_each(|waiter| visit(waiter));
        }
    }

    pub fn tells_client(&self) -> bool {
        self.settings.tells_client()
    }

    /// Takes a question over; it ends in `receive`, `read_stream`, `hear` or `expire`.
    /// False where another packet thread asks it.
    pub fn ask(&mut self, mut flight: Flight, now: Instant) -> bool {
        let is_awaited = flight.is_awaited();
        (flight.claim, flight.is_told) = self.claim_for(&flight, is_awaited);
        let asks = !flight.is_told;
        if !asks && !is_awaited {
            return false;
        }
        self.enter_share(&mut flight);
        let entry = self.flights.vacant_entry();
        let place = entry.key();
        self.questions.enter(place, &mut flight, now);
        entry.insert(flight);
        match asks {
            true => self.attempt(place, now),
            false => self.wait(place, now + self.settings.timeout, now),
        }
        asks
    }

    /// When `expire` or `impatient` has work next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadline = self.deadlines.front().map(|deadline| deadline.at);
        let others = [self.questions.next_deadline(), self.holding.next_look()];
        deadline.into_iter().chain(others.into_iter().flatten()).min()
    }

    //--- Sending

    /// Sends a flight once more, to the upstream that is best now.
    fn attempt(&mut self, key: usize, now: Instant) {
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

    fn send(&mut self, key: usize, upstream: usize, now: Instant) {
        self.flights[key].blame = Some(upstream);
        self.flights[key].sent_at = Some(now);
        self.flights[key].is_unreachable = false;
        let sent = match self.flights[key].over_tcp {
            true => self.send_over_stream(key, upstream, now),
            false => self.send_datagram(key, upstream, now),
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

    /// Ends the latest attempt, which is nobody's fault any more.
    fn fail_now(&mut self, key: usize, now: Instant) {
        (self.flights[key].blame, self.flights[key].is_unreachable) = (None, true);
        self.wait(key, now, now);
    }

    /// Sets the deadline of the latest attempt.
    fn wait(&mut self, key: usize, at: Instant, now: Instant) {
        if self.deadlines.len() > DEADLINES + 4 * self.flights.len() {
            // Most are of what was answered long ago.
            let flights = &self.flights;
            let is_due = |due: &Deadline| flights.get(due.flight).is_some_and(|f| f.stamp == due.stamp);
            self.deadlines.retain(is_due);
        }
        self.next_stamp += 1;
        self.flights[key].stamp = self.next_stamp;
        let deadline = Deadline { at, flight: key, stamp: self.next_stamp };
        // All get the same patience, or none; but for those from before a reload that changed it.
        match at > now {
            true if self.deadlines.back().is_none_or(|last| last.at <= at) => {
                self.deadlines.push_back(deadline);
            }
            true => {
                let place = self.deadlines.partition_point(|other| other.at <= at);
                self.deadlines.insert(place, deadline);
            }
            false => self.deadlines.push_front(deadline),
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
            Tells::Proxy => asker::write_proxy(flight.asker.as_ref(), false, &mut slot.data),
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
    fn route(&mut self, key: usize, route: Route) {
        self.health.asks(route.upstream, route.sent_at);
        let place = self.flights[key].place_for(route.channel);
        if let Some(before) = self.flights[key].routes[place].replace(route) {
            self.leave(&before);
        }
    }

    //--- Receiving

    /// Takes the datagrams that have come to one socket; `batch` holds the
    /// messages of those that are returned, by place.
    pub fn receive(&mut self, socket: usize, batch: &mut Batch, now: Instant) -> Arrived<usize> {
        let mut arrived = Vec::new();
        let received = match self.pool.get(socket) {
            Some(pool_socket) => batch.receive(&pool_socket.socket, false, BATCH),
            None => return arrived,
        };
        let received = match received {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return arrived,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return arrived,
            Err(_) => {
                self.socket_failed(socket, now);
                return arrived;
            }
        };
        for place in 0..received {
            let datagram = &batch.datagrams[place];
            let message = &datagram.data[..datagram.length];
            if let Some(flight) = self.take(Channel::Socket(socket), message, now) {
                arrived.push((flight, place));
            }
        }
        arrived
    }

    /// Finds the flight that a message answers, and ends it; `None` for what
    /// nobody asked, and for what must be asked again.
    fn take(&mut self, channel: Channel, message: &[u8], now: Instant) -> Option<Flight> {
        let (upstream, ids) = match channel {
            Channel::Socket(key) => self.pool.get(key).map(|socket| (socket.upstream, &socket.ids))?,
            Channel::Stream(key) => self.streams.get(key).map(|stream| (stream.upstream, &stream.ids))?,
        };
        let key = u16_at(message, 0).and_then(|id| ids.find(id));
        let mut question = [0; MAX_QUESTION];
        let asked =
            key.filter(|&key| relay::answers(message, self.flights[key].asked_question(&mut question)));
        let Some(key) = asked else {
            // RFC 5452 9.1: not an answer to us. The right one may still come.
            self.count(upstream).mismatches.add(1);
            return None;
        };
        let had_opt = self.answered(key, channel, upstream, now);
        if is_truncated(message) && matches!(channel, Channel::Socket(_)) {
            if !self.flights[key].over_tcp {
                // The same upstream once more; not an attempt, since it answered.
                self.flights[key].over_tcp = true;
                self.send(key, upstream, now);
            }
            return None;
        }
        let is_sound = is_sound(message, self.flights[key].first.name(), &mut self.reader);
        self.flights[key].is_sound = is_sound;
        if self.sends_again_without_opt(key, upstream, had_opt, message, now) {
            return None;
        }
        match self.asks_elsewhere(key, upstream, message, now) {
            true => None,
            false => Some(self.land(key)),
        }
    }

    /// Notes that a query was answered; whether that had been sent with OPT.
    fn answered(&mut self, key: usize, channel: Channel, upstream: usize, now: Instant) -> bool {
        let route = self.flights[key].route_over(channel).copied();
        if let Some(route) = route {
            self.count(upstream).answered_after(now.saturating_duration_since(route.sent_at));
        }
        if let Channel::Stream(stream) = channel {
            self.streams[stream].answered += 1;
        }
        self.health.answered(upstream, now);
        route.is_some_and(|route| route.has_opt)
    }

    /// Asks another upstream, once, where this one will not answer, cannot be understood,
    /// or has failed. Where that is not to be had, the best answer stands in the message or
    /// in `Flight::failure`.
    fn asks_elsewhere(&mut self, key: usize, upstream: usize, message: &[u8], now: Instant) -> bool {
        let flight = &self.flights[key];
        let is_useless = !flight.is_sound || is_unwilling(message);
        let has_failed = flight.is_sound && is_failure(message);
        if !is_useless && !has_failed {
            self.flights[key].failure = None;
            return false;
        }
        let question = flight.first.key();
        if has_failed && flight.failure.is_some() {
            self.failed_twice.remember(question, now);
        }
        // RFC 9520 3.2: what two have failed at is not asked twice again at once.
        let is_known = has_failed && self.failed_twice.knows(question, now);
        if is_known || !self.has_another(key) {
            if has_failed {
                self.flights[key].failure = None;
            }
            return false;
        }
        let count = self.count(upstream);
        if has_failed { &count.failures } else { &count.unwilling }.add(1);
        let flight = &mut self.flights[key];
        flight.was_refused = true;
        flight.failure = (has_failed && message.len() <= FAILURE).then(|| message.into());
        self.attempt(key, now);
        true
    }

    /// Whether a query that an upstream would not answer may be put to another that
    /// is up; once.
    fn has_another(&self, key: usize) -> bool {
        let flight = &self.flights[key];
        let has_attempts = flight.attempts < self.settings.attempts && !flight.was_refused;
        has_attempts && self.up() & !flight.asked != 0
    }

    /// Takes a flight out, and its routes with it.
    fn land(&mut self, key: usize) -> Flight {
        let mut flight = self.flights.remove(key);
        self.questions.leave(key, &flight);
        self.leave_share(&flight);
        for place in 0..MAX_ATTEMPTS {
            if let Some(route) = flight.routes[place].take() {
                self.leave(&route);
            }
        }
        flight
    }

    fn leave(&mut self, route: &Route) {
        self.health.is_done(route.upstream);
        match route.channel {
            Channel::Socket(key) => self.pool.leave(key, route.id),
            Channel::Stream(key) => {
                if let Some(stream) = self.streams.get_mut(key) {
                    stream.ids.remove(route.id);
                }
            }
        }
    }

    //--- Failing

    /// Sends again what has waited long enough, and returns the flights that
    /// have no attempt left.
    pub fn expire(&mut self, now: Instant) -> Vec<Flight> {
        let is_back = self.note_returns();
        self.take_over(is_back, now);
        let mut failed = self.look_at_held(is_back, now);
        while self.deadlines.front().is_some_and(|deadline| deadline.at <= now) {
            let Some(Deadline { flight: key, stamp, .. }) = self.deadlines.pop_front() else { break };
            if self.flights.get(key).is_none_or(|flight| flight.stamp != stamp) {
                continue;
            }
            if let Some(upstream) = self.flights[key].blame.take() {
                self.count(upstream).timeouts.add(1);
                let since = self.flights[key].sent_at.unwrap_or(now);
                self.health.failed(upstream, Failure::Silence(since), now);
                self.drop_deaf_stream(key, now);
            }
            let flight = &mut self.flights[key];
            flight.awaits_recursion |= flight.claim.as_ref().is_some_and(Claim::awaits_recursion);
            let flight = &self.flights[key];
            if flight.attempts < self.attempts_of(flight) && !flight.is_lost && !flight.awaits_recursion {
                self.attempt(key, now);
            } else if !self.hold(key, now) {
                failed.push(self.land(key));
            }
        }
        self.flush(now);
        failed
    }

    /// Attempts of a flight. One that another packet thread asks about waits longer, as
    /// that thread may wait for an upstream to come back (`hold`).
    fn attempts_of(&self, flight: &Flight) -> usize {
        let more = match flight.is_told {
            true => HOLD.as_nanos().div_ceil(self.settings.timeout.as_nanos().max(1)) as usize,
            false => 0,
        };
        self.settings.attempts + more
    }

    /// Once an upstream is not up any more, or one is back after none was: what waits for
    /// one that cannot be used is sent to another at once, and does not wait for its deadline.
    fn take_over(&mut self, is_back: bool, now: Instant) {
        let losses = self.health.losses();
        if std::mem::replace(&mut self.losses, losses) == losses && !is_back {
            return;
        }
        let up = if is_back { self.health.usable() & self.chooser.all() } else { self.up() };
        let attempts = self.settings.attempts;
        let is_stuck = |flight: &Flight| {
            let waits = flight.blame.is_some_and(|upstream| up & health::bit(upstream) == 0);
            waits && flight.attempts < attempts && (up & !flight.asked != 0 || is_back && up != 0)
        };
        let stuck: Vec<usize> =
            self.flights.iter().filter(|(_, flight)| is_stuck(flight)).map(|(key, _)| key).collect();
        for key in stuck {
            if let Some(upstream) = self.flights[key].blame.take() {
                self.count(upstream).taken_over.add(1);
                self.attempt(key, now);
            }
        }
    }

    /// Closes what nobody has used for a while. Meant for now and then.
    pub fn tidy(&mut self, now: Instant) {
        self.pool.shrink(now);
        self.close_idle_streams(now);
    }

    /// An ICMP error, most often: nobody listens there. Waiting would be lost
    /// time for every query that went out through this socket.
    fn socket_failed(&mut self, key: usize, now: Instant) {
        let Some((upstream, lost)) = self.pool.get(key).map(|socket| (socket.upstream, socket.ids.all()))
        else {
            return;
        };
        self.count(upstream).network_errors.add(1);
        self.health.failed(upstream, Failure::Unreachable, now);
        for (id, flight) in lost {
            let Some(route) = self.lose_route(flight, Channel::Socket(key), id) else { continue };
            if self.flights[flight].ends_with(&route) {
                self.fail_now(flight, now);
            }
        }
    }

    /// Takes the route of a flight that has lost its channel.
    fn lose_route(&mut self, flight: usize, channel: Channel, id: u16) -> Option<Route> {
        let routes = &mut self.flights.get_mut(flight)?.routes;
        let lost = |route: &Option<Route>| route.is_some_and(|r| r.channel == channel && r.id == id);
        let route = routes.iter_mut().find(|route| lost(route))?.take()?;
        self.leave(&route);
        Some(route)
    }

    /// The configured upstreams that are up.
    fn up(&self) -> Mask {
        self.health.up() & self.chooser.all()
    }

    fn count(&self, upstream: usize) -> &UpstreamCounters {
        &self.counters.upstreams[upstream]
    }
}

/// Writes the message that is sent upstream; returns its length.
fn write_query(settings: &Settings, flight: &Flight, id: u16, has_opt: bool, out: &mut [u8]) -> usize {
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

/// Whether the answer says that this upstream does not answer such questions, which
/// another may: it is not set up for it, or we are not welcome.
fn is_unwilling(message: &[u8]) -> bool {
    let rcode = u16_at(message, 2).unwrap_or(0) & flag::RCODE;
    matches!(rcode, rcode::FORMERR | rcode::NOTIMP | rcode::REFUSED)
}

/// Whether the upstream could not find an answer. Another one may: this one may have lost
/// its way to the Internet. Or the name may be bogus, which one that does not validate will
/// not notice; so one other is asked, and no more (RFC 9520 1).
fn is_failure(message: &[u8]) -> bool {
    u16_at(message, 2).unwrap_or(0) & flag::RCODE == rcode::SERVFAIL
}

/// Whether an answer is well-formed, and there is one way through all to which it leads.
fn is_sound(message: &[u8], asked: &Name, reader: &mut Reader) -> bool {
    reader.read(message).is_some_and(|response| chain::is_readable(response, asked))
}

/// A lack of descriptors here is no upstream's failure.
fn is_our_own(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}
