//! Forwarding: queries under way, which answer is believed, and when another
//! upstream is asked.
//!
//! Against forged answers (RFC 5452 9): ids are drawn at random, so are source
//! ports (`pool`), the question must come back as it was asked, and what does
//! not fit is counted and ignored while the wait goes on.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use slab::Slab;

use crate::cache::{AsItIs, Kept, Key};
use crate::counters::{Counters, UpstreamCounters};
use crate::health::Health;
use crate::message::{MAX_QUESTION, Query, is_truncated, u16_at};
use crate::name::Name;
use crate::poll::{Poll, Token};
use crate::pool::Pool;
use crate::relay;
use crate::shared::Events;
use crate::stream::Stream;
use crate::sys::{BATCH, Batch, Local, Peer};

/// Queries of one received batch that may leave through the same socket.
const RUN: usize = 16;
/// Times a query is sent at most; the configuration may say less.
pub const MAX_ATTEMPTS: usize = 4;
/// How long a TCP connection without questions under way is kept.
const STREAM_IDLE: Duration = Duration::from_secs(5);

pub struct Settings {
    pub upstreams: Vec<SocketAddr>,
    pub attempts: usize,
    /// Patience with one attempt.
    pub timeout: Duration,
    pub max_outstanding: usize,
    /// Packet threads, each of which has sockets towards each upstream.
    pub workers: usize,
    /// Octets of UDP that our OPT announces.
    pub payload: u16,
}

/// A question under way, and who waits for its answer: each question is asked once,
/// however many clients ask it meanwhile.
pub struct Flight {
    pub first: Box<Waiter>,
    pub others: Vec<Box<Waiter>>,
    /// An upstream's answer did not fit over UDP.
    pub over_tcp: bool,
    /// A kept answer that will do if no other comes.
    pub stale: Option<Kept>,
    /// How often something had been purged from the cache when this was asked.
    pub purges: u64,
    /// The hash of the question.
    question: u64,
    /// Tells it from another flight in the same place.
    number: u64,
    attempts: usize,
    routes: [Option<Route>; MAX_ATTEMPTS],
    /// Upstreams asked so far, a bit each.
    asked: u64,
    /// The upstream of the latest attempt, until that is known to have failed.
    blame: Option<usize>,
    /// Tells the deadline of this attempt from those of earlier ones.
    stamp: u64,
}

/// A query that waits for an upstream's answer.
#[derive(Clone)]
pub struct Waiter {
    pub query: Query,
    /// Asks about this name instead: where a CNAME of ours leads.
    pub follow: Option<Box<Name>>,
    pub origin: Origin,
    /// Times that it began anew because the policy for its name had changed.
    restarts: usize,
}

/// Where the answer goes.
#[derive(Clone, Copy)]
pub enum Origin {
    Udp {
        listener: usize,
        peer: Peer,
        local: Local,
    },
    Tcp {
        connection: usize,
        generation: u64,
    },
    /// Into the cache alone.
    Nobody,
}

/// One sending of a flight. An answer to an earlier one is still welcome.
#[derive(Clone, Copy)]
struct Route {
    channel: Channel,
    id: u16,
    sent_at: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Channel {
    Socket(usize),
    Stream(usize),
}

/// Times that a query may begin anew; a policy that changes more often while
/// one query is under way is a fault.
const RESTARTS: usize = 3;

/// How long a client waits before it is given a stale answer, as its own patience
/// may be little more (RFC 8767 5: the client response timer).
const STALE_PATIENCE: Duration = Duration::from_millis(1800);

struct Deadline {
    at: Instant,
    flight: usize,
    stamp: u64,
}

/// All forwarding of one packet thread.
pub struct Upstreams {
    settings: Settings,
    health: Health,
    pool: Pool,
    streams: Slab<Stream>,
    /// Key of the TCP connection towards each upstream.
    stream_of: Vec<Option<usize>>,
    flights: Slab<Flight>,
    routes: HashMap<(Channel, u16), usize>,
    /// Flights by the hash of their question.
    questions: HashMap<u64, usize, BuildHasherDefault<AsItIs>>,
    /// Queries that wait for a question of somebody else.
    joined: usize,
    /// Flights with a stale answer, and when that is given.
    impatient: VecDeque<(Instant, usize, u64)>,
    next_number: u64,
    /// In order of time, since every attempt gets the same patience.
    deadlines: VecDeque<Deadline>,
    out: Batch,
    out_socket: Option<usize>,
    waiting: usize,
    next_stamp: u64,
    random: StdRng,
    poll: Rc<Poll>,
    counters: Arc<Counters>,
    events: Arc<Events>,
}

/// An answer that was asked for: the flight, and where the message stands.
pub type Arrived<M> = Vec<(Flight, M)>;

impl Upstreams {
    pub fn new(
        settings: Settings,
        poll: Rc<Poll>,
        counters: Arc<Counters>,
        events: Arc<Events>,
    ) -> Upstreams {
        Upstreams {
            health: Health::new(settings.upstreams.len()),
            pool: Pool::new(
                &settings.upstreams,
                settings.upstreams.len() * settings.workers,
                Rc::clone(&poll),
            ),
            stream_of: vec![None; settings.upstreams.len()],
            settings,
            streams: Slab::new(),
            flights: Slab::new(),
            routes: HashMap::new(),
            questions: HashMap::default(),
            joined: 0,
            impatient: VecDeque::new(),
            next_number: 0,
            deadlines: VecDeque::new(),
            out: Batch::empty(),
            out_socket: None,
            waiting: 0,
            next_stamp: 0,
            random: rand::make_rng(),
            poll,
            counters,
            events,
        }
    }

    /// Questions under way.
    pub fn outstanding(&self) -> usize {
        self.flights.len()
    }

    pub fn has_room(&self) -> bool {
        self.flights.len() + self.joined < self.settings.max_outstanding
    }

    /// Lets a query wait with those that ask the same already; gives it back where
    /// nobody does.
    pub fn join(&mut self, waiter: Box<Waiter>) -> Option<Box<Waiter>> {
        let key = waiter.key();
        let place = self.questions.get(&key.hash()).copied();
        let Some(flight) = place.and_then(|place| self.flights.get_mut(place)) else { return Some(waiter) };
        if flight.first.key() != key {
            return Some(waiter);
        }
        flight.others.push(waiter);
        self.joined += 1;
        None
    }

    /// Takes a question over; it ends in `receive`, `read_stream` or `expire`.
    pub fn ask(&mut self, mut flight: Flight, now: Instant) {
        flight.question = flight.first.key().hash();
        self.next_number += 1;
        flight.number = self.next_number;
        let has_stale = flight.stale.is_some();
        let place = self.flights.insert(flight);
        self.questions.insert(self.flights[place].question, place);
        if has_stale {
            self.impatient.push_back((now + STALE_PATIENCE, place, self.next_number));
        }
        self.attempt(place, now);
    }

    /// Takes out who has waited long enough to be given a stale answer; the question
    /// stays under way.
    pub fn impatient(&mut self, now: Instant) -> Vec<(Box<Waiter>, Kept)> {
        let mut impatient = Vec::new();
        while self.impatient.front().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, place, number)) = self.impatient.pop_front() else { break };
            let Some(flight) = self.flights.get_mut(place).filter(|f| f.number == number) else { continue };
            let Some(stale) = flight.stale.clone() else { continue };
            let nobody = Waiter { origin: Origin::Nobody, ..(*flight.first).clone() };
            let first = std::mem::replace(&mut flight.first, Box::new(nobody));
            let others = std::mem::take(&mut flight.others);
            self.joined -= others.len();
            let waiters = [first].into_iter().chain(others);
            impatient.extend(waiters.map(|waiter| (waiter, stale.clone())));
        }
        impatient
    }

    /// When `expire` or `impatient` has work next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadline = self.deadlines.front().map(|deadline| deadline.at);
        let patience = self.impatient.front().map(|(at, ..)| *at);
        deadline.into_iter().chain(patience).min()
    }

    //--- Sending

    /// Sends a flight once more, to the upstream that is best now.
    fn attempt(&mut self, key: usize, now: Instant) {
        let upstream = self.health.choose(self.flights[key].asked, now);
        let flight = &mut self.flights[key];
        flight.attempts += 1;
        flight.asked |= 1 << upstream;
        self.send(key, upstream, now);
    }

    fn send(&mut self, key: usize, upstream: usize, now: Instant) {
        self.flights[key].blame = Some(upstream);
        let sent = match self.flights[key].over_tcp {
            true => self.send_over_stream(key, upstream, now),
            false => self.send_datagram(key, upstream, now),
        };
        match sent {
            Ok(()) => self.wait(key, now + self.settings.timeout, now),
            Err(error) => {
                self.count(upstream).network_errors.add(1);
                self.upstream_failed(upstream, &format!("cannot be reached: {error}"), now);
                self.flights[key].blame = None;
                self.wait(key, now, now);
            }
        }
    }

    /// Sets the deadline of the latest attempt.
    fn wait(&mut self, key: usize, at: Instant, now: Instant) {
        self.next_stamp += 1;
        self.flights[key].stamp = self.next_stamp;
        let deadline = Deadline { at, flight: key, stamp: self.next_stamp };
        // In order of time: all get the same patience, or none.
        match at > now {
            true => self.deadlines.push_back(deadline),
            false => self.deadlines.push_front(deadline),
        }
    }

    fn send_datagram(&mut self, key: usize, upstream: usize, now: Instant) -> io::Result<()> {
        let same =
            self.out_socket.filter(|&socket| self.pool.get(socket).is_some_and(|s| s.upstream == upstream));
        let socket = match same {
            Some(socket) if self.waiting < RUN.min(BATCH) => socket,
            _ => {
                self.flush(now);
                self.pool.draw(upstream, &mut self.random, now)?
            }
        };
        self.out_socket = Some(socket);
        let route = self.route(key, Channel::Socket(socket), now);
        let slot = &mut self.out.datagrams[self.waiting];
        let mut question = [0; MAX_QUESTION];
        let flight = &self.flights[key];
        let question = flight.asked_question(&mut question);
        let payload = self.settings.payload;
        let length = flight.first.query.write_upstream(route.id, question, payload, &mut slot.data);
        slot.length = length.expect("header, question and OPT fit a datagram");
        (slot.peer, slot.local) = (Peer::none(), Local::Bound);
        self.waiting += 1;
        self.pool.uses(socket);
        self.count(upstream).udp_queries.add(1);
        Ok(())
    }

    /// Sends what waits.
    pub fn flush(&mut self, now: Instant) {
        let Some(socket) = self.out_socket.take() else { return };
        let waiting = std::mem::take(&mut self.waiting);
        let Some(pool_socket) = self.pool.get(socket) else { return };
        let unsent = self.out.send(&pool_socket.socket, waiting);
        if unsent > 0 {
            // The kernel told of an ICMP error here instead of on receipt.
            self.socket_failed(socket, now);
        }
    }

    /// Enters a new route of the flight under an id that is free there.
    fn route(&mut self, key: usize, channel: Channel, now: Instant) -> Route {
        // One route a flight and channel, and at most 32,768 flights: half of
        // the ids at least are free, and the draw ends.
        let flight = &self.flights[key];
        let same = flight.routes.iter().position(|r| r.is_some_and(|r| r.channel == channel));
        let place = same.or_else(|| flight.routes.iter().position(Option::is_none)).unwrap_or(0);
        if let Some(before) = self.flights[key].routes[place].take() {
            self.leave(&before);
        }
        let id = loop {
            let id = self.random.random::<u16>();
            if !self.routes.contains_key(&(channel, id)) {
                break id;
            }
        };
        let route = Route { channel, id, sent_at: now };
        self.routes.insert((channel, id), key);
        self.flights[key].routes[place] = Some(route);
        route
    }

    fn send_over_stream(&mut self, key: usize, upstream: usize, now: Instant) -> io::Result<()> {
        let stream = match self.stream_of[upstream] {
            Some(stream) => stream,
            None => self.open_stream(upstream, now)?,
        };
        let route = self.route(key, Channel::Stream(stream), now);
        let mut message = [0; 1024];
        let mut question = [0; MAX_QUESTION];
        let flight = &self.flights[key];
        let question = flight.asked_question(&mut question);
        let payload = self.settings.payload;
        let length = flight.first.query.write_upstream(route.id, question, payload, &mut message);
        let length = length.expect("header, question and OPT fit");
        self.count(upstream).tcp_queries.add(1);
        if self.streams[stream].push(&message[..length]) {
            self.write_stream(stream, now);
        } else {
            self.stream_failed(stream, now);
        }
        Ok(())
    }

    fn open_stream(&mut self, upstream: usize, now: Instant) -> io::Result<usize> {
        let stream = Stream::connect(self.settings.upstreams[upstream], upstream, now)?;
        let entry = self.streams.vacant_entry();
        let key = entry.key();
        self.poll.add(stream.socket(), Token::Stream(key), true, true)?;
        entry.insert(stream);
        self.stream_of[upstream] = Some(key);
        Ok(key)
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
    /// nobody asked, and for what must be asked again over TCP.
    fn take(&mut self, channel: Channel, message: &[u8], now: Instant) -> Option<Flight> {
        let upstream = match channel {
            Channel::Socket(key) => self.pool.get(key)?.upstream,
            Channel::Stream(key) => self.streams.get(key)?.upstream,
        };
        let key = u16_at(message, 0).and_then(|id| self.routes.get(&(channel, id)).copied());
        let mut question = [0; MAX_QUESTION];
        let asked =
            key.filter(|&key| relay::answers(message, self.flights[key].asked_question(&mut question)));
        let Some(key) = asked else {
            // RFC 5452 9.1: not an answer to us. The right one may still come.
            self.count(upstream).mismatches.add(1);
            return None;
        };
        self.answered(key, channel, upstream, now);
        if is_truncated(message) && matches!(channel, Channel::Socket(_)) {
            if !self.flights[key].over_tcp {
                // The same upstream once more; not an attempt, since it answered.
                self.flights[key].over_tcp = true;
                self.send(key, upstream, now);
            }
            return None;
        }
        Some(self.land(key))
    }

    fn answered(&mut self, key: usize, channel: Channel, upstream: usize, now: Instant) {
        let sent = self.flights[key].routes.iter().flatten().find(|route| route.channel == channel);
        if let Some(route) = sent {
            self.count(upstream).answered_after(now.saturating_duration_since(route.sent_at));
        }
        if self.health.answered(upstream) {
            self.events.push(format!("upstream {} answers again", self.settings.upstreams[upstream]));
        }
    }

    /// Takes a flight out, and its routes with it.
    fn land(&mut self, key: usize) -> Flight {
        let mut flight = self.flights.remove(key);
        self.joined -= flight.others.len();
        if self.questions.get(&flight.question) == Some(&key) {
            self.questions.remove(&flight.question);
        }
        for place in 0..MAX_ATTEMPTS {
            if let Some(route) = flight.routes[place].take() {
                self.leave(&route);
            }
        }
        flight
    }

    fn leave(&mut self, route: &Route) {
        self.routes.remove(&(route.channel, route.id));
        if let Channel::Socket(key) = route.channel {
            self.pool.releases(key);
        }
    }

    /// Reads what has come over a TCP connection.
    pub fn read_stream(&mut self, key: usize, now: Instant) -> Arrived<Vec<u8>> {
        let mut arrived = Vec::new();
        let Some(stream) = self.streams.get_mut(key) else { return arrived };
        let alive = stream.read(now);
        while let Some(message) = self.streams.get_mut(key).and_then(Stream::next_message) {
            if let Some(flight) = self.take(Channel::Stream(key), &message, now) {
                arrived.push((flight, message));
            }
        }
        if !alive {
            self.stream_failed(key, now);
        }
        arrived
    }

    pub fn write_stream(&mut self, key: usize, now: Instant) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let alive = stream.write();
        let writable = stream.has_output();
        let changed = self.poll.change(stream.socket(), Token::Stream(key), true, writable);
        if !alive || changed.is_err() {
            self.stream_failed(key, now);
        }
    }

    //--- Failing

    /// Sends again what has waited long enough, and returns the flights that
    /// have no attempt left.
    pub fn expire(&mut self, now: Instant) -> Vec<Flight> {
        let mut failed = Vec::new();
        while self.deadlines.front().is_some_and(|deadline| deadline.at <= now) {
            let Some(Deadline { flight: key, stamp, .. }) = self.deadlines.pop_front() else { break };
            if self.flights.get(key).is_none_or(|flight| flight.stamp != stamp) {
                continue;
            }
            if let Some(upstream) = self.flights[key].blame.take() {
                self.count(upstream).timeouts.add(1);
                self.upstream_failed(upstream, "does not answer", now);
                self.drop_deaf_stream(key, now);
            }
            if self.flights[key].attempts < self.settings.attempts {
                self.attempt(key, now);
            } else {
                failed.push(self.land(key));
            }
        }
        self.flush(now);
        failed
    }

    /// Closes what nobody has used for a while. Meant for now and then.
    pub fn tidy(&mut self, now: Instant) {
        self.pool.shrink(now);
        let idle = |stream: &Stream| now.saturating_duration_since(stream.heard_at) >= STREAM_IDLE;
        let idle: Vec<usize> = self.streams.iter().filter(|(_, s)| idle(s)).map(|(key, _)| key).collect();
        for key in idle {
            if !self.has_routes(Channel::Stream(key)) {
                self.drop_stream(key);
            }
        }
    }

    /// A connection that has said nothing since a question that timed out was
    /// sent is dead, whatever TCP thinks; the next attempt opens another.
    fn drop_deaf_stream(&mut self, key: usize, now: Instant) {
        for route in self.flights[key].routes.into_iter().flatten() {
            if let Channel::Stream(stream) = route.channel
                && self.streams.get(stream).is_some_and(|s| s.heard_at <= route.sent_at)
            {
                self.stream_failed(stream, now);
            }
        }
    }

    fn has_routes(&self, channel: Channel) -> bool {
        self.routes.keys().any(|(other, _)| *other == channel)
    }

    fn drop_stream(&mut self, key: usize) {
        if let Some(stream) = self.streams.try_remove(key) {
            self.stream_of[stream.upstream] = None;
        }
    }

    /// An ICMP error, most often: nobody listens there. Waiting would be lost
    /// time for every query that went out through this socket.
    fn socket_failed(&mut self, key: usize, now: Instant) {
        let Some(upstream) = self.pool.get(key).map(|socket| socket.upstream) else { return };
        self.count(upstream).network_errors.add(1);
        self.upstream_failed(upstream, "cannot be reached", now);
        self.expire_routes(Channel::Socket(key), now);
    }

    fn stream_failed(&mut self, key: usize, now: Instant) {
        let Some(upstream) = self.streams.get(key).map(|stream| stream.upstream) else { return };
        let lost = self.has_routes(Channel::Stream(key));
        self.drop_stream(key);
        if lost {
            self.count(upstream).network_errors.add(1);
            self.expire_routes(Channel::Stream(key), now);
        }
    }

    /// Brings the deadline of every flight on a dead channel forward to now.
    fn expire_routes(&mut self, channel: Channel, now: Instant) {
        let lost: Vec<(u16, usize)> = self
            .routes
            .iter()
            .filter(|((c, _), _)| *c == channel)
            .map(|((_, id), key)| (*id, *key))
            .collect();
        for (id, key) in lost {
            let flight = &mut self.flights[key];
            let place =
                flight.routes.iter().position(|r| r.is_some_and(|r| r.channel == channel && r.id == id));
            let Some(route) = place.and_then(|place| flight.routes[place].take()) else { continue };
            self.leave(&route);
            if self.flights[key].routes.iter().flatten().all(|other| other.sent_at <= route.sent_at) {
                // The failure was counted with the channel.
                self.flights[key].blame = None;
                self.wait(key, now, now);
            }
        }
    }

    fn upstream_failed(&mut self, index: usize, how: &str, now: Instant) {
        if self.health.failed(index, now) {
            self.events.push(format!("upstream {} {how}", self.settings.upstreams[index]));
        }
    }

    fn count(&self, upstream: usize) -> &UpstreamCounters {
        &self.counters.upstreams[upstream]
    }
}

impl Flight {
    pub fn new(first: Box<Waiter>, stale: Option<Kept>, purges: u64) -> Flight {
        Flight {
            first,
            others: Vec::new(),
            over_tcp: false,
            stale,
            purges,
            question: 0,
            number: 0,
            attempts: 0,
            routes: [None; MAX_ATTEMPTS],
            asked: 0,
            blame: None,
            stamp: 0,
        }
    }

    /// The question as it is asked upstream.
    fn asked_question<'a>(&'a self, buffer: &'a mut [u8; MAX_QUESTION]) -> &'a [u8] {
        let question = self.first.query.head.question();
        let Some(target) = &self.first.follow else { return question };
        let (name, type_and_class) = (target.suffix(0), &question[question.len() - 4..]);
        buffer[..name.len()].copy_from_slice(name);
        buffer[name.len()..name.len() + 4].copy_from_slice(type_and_class);
        &buffer[..name.len() + 4]
    }
}

impl Waiter {
    pub fn new(query: Query, follow: Option<Box<Name>>, origin: Origin) -> Waiter {
        Waiter { query, follow, origin, restarts: 0 }
    }

    /// The question that it waits for.
    pub fn key(&self) -> Key<'_> {
        Key::new(&self.query.head, self.follow.as_deref().unwrap_or(&self.query.name), self.query.qtype)
    }

    /// Begins anew because what is to be asked has changed; false where that has
    /// happened too often.
    pub fn begin_anew(&mut self, follow: Option<Box<Name>>) -> bool {
        self.restarts += 1;
        self.follow = follow;
        self.restarts <= RESTARTS
    }
}
