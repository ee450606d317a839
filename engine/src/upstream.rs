//! Forwarding: which upstream is asked, over which socket and under which id;
//! which answer is believed; when another one is asked.
//!
//! Against forged answers (RFC 5452 9): ids are drawn at random, so are source
//! ports (a pool of connected sockets for each upstream, each replaced after a
//! while), the question must come back as it was asked, and what does not fit
//! is counted and ignored while the wait goes on.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use slab::Slab;

use crate::counters::{Counters, UpstreamCounters};
use crate::engine::Events;
use crate::message::{MAX_QUESTION, Query, u16_at};
use crate::name::Name;
use crate::poll::{Poll, Token};
use crate::relay;
use crate::stream::Stream;
use crate::sys::{BATCH, Batch, Local, Peer};
use crate::udp;

/// Sockets, and so source ports, that are open towards one upstream at a time.
const POOL: usize = 64;
/// Queries sent through one socket, and its age, before another port takes its
/// place: under little load that is a port for nearly every query, under much
/// load a new socket costs less than a hundredth of what goes through it.
const USES: u32 = 128;
const AGE: Duration = Duration::from_millis(40);
/// Queries of one received batch that may leave through the same socket.
const RUN: usize = 16;
/// Times a query is sent at most; the configuration may say less.
pub const MAX_ATTEMPTS: usize = 4;
/// Failures in a row after which an upstream is asked only now and then.
const FAILURES: u32 = 3;
/// How long such an upstream is left alone before one query tries it again.
const REST: Duration = Duration::from_secs(2);
/// How long a TCP connection without questions under way is kept.
const STREAM_IDLE: Duration = Duration::from_secs(5);

pub struct Settings {
    pub upstreams: Vec<SocketAddr>,
    pub attempts: usize,
    /// Patience with one attempt.
    pub timeout: Duration,
    pub max_outstanding: usize,
    /// Octets of UDP that our OPT announces.
    pub payload: u16,
}

/// A query under way.
pub struct Flight {
    pub query: Query,
    /// Ask about this name instead: where a CNAME of ours leads.
    pub follow: Option<Box<Name>>,
    pub origin: Origin,
    pub attempts: usize,
    /// An upstream's answer did not fit over UDP.
    pub over_tcp: bool,
    routes: [Option<Route>; MAX_ATTEMPTS],
    /// Upstreams asked so far, a bit each.
    asked: u64,
    /// Tells the deadline of this attempt from those of earlier ones.
    stamp: u64,
}

/// Where the answer goes.
#[derive(Clone, Copy)]
pub enum Origin {
    Udp { listener: usize, peer: Peer, local: Local },
    Tcp { connection: usize, generation: u64 },
}

/// One sending of a flight. An answer to an earlier one is still welcome.
#[derive(Clone, Copy)]
struct Route {
    channel: Channel,
    id: u16,
    upstream: usize,
    sent_at: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Channel {
    Socket(usize),
    Stream(usize),
}

struct Upstream {
    address: SocketAddr,
    /// Keys of the sockets that are drawn from.
    pool: Vec<usize>,
    stream: Option<usize>,
    failures: u32,
    rest_until: Option<Instant>,
}

struct PoolSocket {
    socket: UdpSocket,
    upstream: usize,
    outstanding: usize,
    uses_left: u32,
    opened_at: Instant,
    retired: bool,
}

struct Deadline {
    at: Instant,
    flight: usize,
    stamp: u64,
}

/// All forwarding of one packet thread.
pub struct Upstreams {
    settings: Settings,
    upstreams: Vec<Upstream>,
    sockets: Slab<PoolSocket>,
    streams: Slab<Stream>,
    flights: Slab<Flight>,
    routes: HashMap<(Channel, u16), usize>,
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
        let upstream = |address: &SocketAddr| Upstream {
            address: *address,
            pool: Vec::with_capacity(POOL),
            stream: None,
            failures: 0,
            rest_until: None,
        };
        Upstreams {
            upstreams: settings.upstreams.iter().map(upstream).collect(),
            settings,
            sockets: Slab::new(),
            streams: Slab::new(),
            flights: Slab::new(),
            routes: HashMap::new(),
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

    pub fn outstanding(&self) -> usize {
        self.flights.len()
    }

    pub fn has_room(&self) -> bool {
        self.flights.len() < self.settings.max_outstanding
    }

    /// Takes a query over; it ends in `receive`, `read_stream` or `expire`.
    pub fn ask(&mut self, query: Query, follow: Option<Box<Name>>, origin: Origin, now: Instant) {
        let routes = [None; MAX_ATTEMPTS];
        let flight =
            Flight { query, follow, origin, attempts: 0, over_tcp: false, routes, asked: 0, stamp: 0 };
        let key = self.flights.insert(flight);
        self.attempt(key, now);
    }

    /// Asks again because what is to be asked has changed, while attempts are
    /// left; gives the flight back where none is.
    pub fn ask_again(
        &mut self,
        mut flight: Flight,
        follow: Option<Box<Name>>,
        now: Instant,
    ) -> Option<Flight> {
        if flight.attempts >= self.settings.attempts {
            return Some(flight);
        }
        flight.follow = follow;
        flight.over_tcp = false;
        let key = self.flights.insert(flight);
        self.attempt(key, now);
        None
    }

    /// When `expire` has work next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.front().map(|deadline| deadline.at)
    }

    //--- Sending

    /// Sends a flight once more, to the upstream that is best now.
    fn attempt(&mut self, key: usize, now: Instant) {
        let asked = self.flights[key].asked;
        let upstream = self.choose(asked, now);
        self.next_stamp += 1;
        let flight = &mut self.flights[key];
        flight.attempts += 1;
        flight.asked |= 1 << upstream;
        flight.stamp = self.next_stamp;
        let over_tcp = flight.over_tcp;
        self.deadlines.push_back(Deadline {
            at: now + self.settings.timeout,
            flight: key,
            stamp: self.next_stamp,
        });
        // What cannot be sent is found out by its deadline, as if the network
        // had lost it.
        if over_tcp {
            self.send_over_stream(key, upstream, now);
        } else {
            self.send_datagram(key, upstream, now);
        }
    }

    /// The first upstream, in configured order, that is not resting and has
    /// not been asked; else one that has not been asked; else any.
    fn choose(&mut self, asked: u64, now: Instant) -> usize {
        let fresh = |index: &usize| asked & (1 << index) == 0;
        let awake = |u: &Upstream| u.failures < FAILURES || u.rest_until.is_none_or(|until| now >= until);
        let all = 0..self.upstreams.len();
        let chosen = all.clone().filter(fresh).find(|&index| awake(&self.upstreams[index]));
        let chosen = chosen.or_else(|| all.clone().find(|&index| awake(&self.upstreams[index])));
        let chosen = chosen.or_else(|| all.clone().find(fresh)).unwrap_or(0);
        let upstream = &mut self.upstreams[chosen];
        if upstream.failures >= FAILURES {
            // One query tries whether it is back; the others need not wait.
            upstream.rest_until = Some(now + REST);
        }
        chosen
    }

    fn send_datagram(&mut self, key: usize, upstream: usize, now: Instant) {
        let same = self.out_socket.filter(|&socket| self.sockets[socket].upstream == upstream);
        let socket = match same {
            Some(socket) if self.waiting < RUN.min(BATCH) => socket,
            _ => {
                self.flush(now);
                match self.draw(upstream, now) {
                    Ok(socket) => socket,
                    Err(error) => return self.cannot_open(upstream, &error),
                }
            }
        };
        self.out_socket = Some(socket);
        let route = self.route(key, Channel::Socket(socket), upstream, now);
        let slot = &mut self.out.datagrams[self.waiting];
        let mut question = [0; MAX_QUESTION];
        let flight = &self.flights[key];
        let question = flight.asked_question(&mut question);
        let payload = self.settings.payload;
        let length = flight.query.write_upstream(route.id, question, payload, &mut slot.data);
        slot.length = length.expect("header, question and OPT fit a datagram");
        (slot.peer, slot.local) = (Peer::none(), Local::Bound);
        self.waiting += 1;
        let pool_socket = &mut self.sockets[socket];
        pool_socket.outstanding += 1;
        pool_socket.uses_left = pool_socket.uses_left.saturating_sub(1);
        self.count(upstream).udp_queries.add(1);
    }

    /// Sends what waits.
    pub fn flush(&mut self, now: Instant) {
        let Some(socket) = self.out_socket.take() else { return };
        let waiting = std::mem::take(&mut self.waiting);
        let unsent = self.out.send(&self.sockets[socket].socket, waiting);
        if unsent > 0 {
            // The kernel told of an ICMP error here instead of on receipt.
            self.socket_failed(socket, now);
        }
    }

    /// Draws one of the pool's sockets, filling the pool up first.
    fn draw(&mut self, upstream: usize, now: Instant) -> io::Result<usize> {
        let place = self.random.random_range(0..POOL);
        if let Some(&key) = self.upstreams[upstream].pool.get(place) {
            let socket = &self.sockets[key];
            if socket.uses_left > 0 && now.saturating_duration_since(socket.opened_at) < AGE {
                return Ok(key);
            }
            self.upstreams[upstream].pool.swap_remove(place);
            self.sockets[key].retired = true;
            self.close_if_done(key);
        }
        let opened = self.open(upstream, now);
        if let (Err(_), Some(&key)) = (&opened, self.upstreams[upstream].pool.first()) {
            // Out of descriptors: an old port is better than no answer.
            return Ok(key);
        }
        opened
    }

    fn open(&mut self, upstream: usize, now: Instant) -> io::Result<usize> {
        let socket = udp::connect(self.upstreams[upstream].address)?;
        let entry = self.sockets.vacant_entry();
        let key = entry.key();
        self.poll.add(&socket, Token::Upstream(key), true, false)?;
        let (outstanding, uses_left, opened_at, retired) = (0, USES, now, false);
        entry.insert(PoolSocket { socket, upstream, outstanding, uses_left, opened_at, retired });
        self.upstreams[upstream].pool.push(key);
        Ok(key)
    }

    fn close_if_done(&mut self, key: usize) {
        let done = self.sockets.get(key).is_some_and(|socket| socket.retired && socket.outstanding == 0);
        if done && self.out_socket != Some(key) {
            self.sockets.remove(key);
        }
    }

    /// Enters a new route of the flight under an id that is free there.
    fn route(&mut self, key: usize, channel: Channel, upstream: usize, now: Instant) -> Route {
        let id = loop {
            let id = self.random.random::<u16>();
            if !self.routes.contains_key(&(channel, id)) {
                break id;
            }
        };
        let route = Route { channel, id, upstream, sent_at: now };
        self.routes.insert((channel, id), key);
        let flight = &mut self.flights[key];
        let place = flight.routes.iter().position(Option::is_none).unwrap_or(0);
        if let Some(oldest) = flight.routes[place].replace(route) {
            self.leave(&oldest);
        }
        route
    }

    fn send_over_stream(&mut self, key: usize, upstream: usize, now: Instant) {
        let stream = match self.upstreams[upstream].stream {
            Some(stream) => stream,
            None => match self.open_stream(upstream, now) {
                Ok(stream) => stream,
                Err(error) => return self.cannot_open(upstream, &error),
            },
        };
        let route = self.route(key, Channel::Stream(stream), upstream, now);
        let mut message = [0; 1024];
        let mut question = [0; MAX_QUESTION];
        let flight = &self.flights[key];
        let question = flight.asked_question(&mut question);
        let payload = self.settings.payload;
        let length = flight.query.write_upstream(route.id, question, payload, &mut message);
        let length = length.expect("header, question and OPT fit");
        self.streams[stream].push(&message[..length], now);
        self.count(upstream).tcp_queries.add(1);
        self.write_stream(stream, now);
    }

    fn open_stream(&mut self, upstream: usize, now: Instant) -> io::Result<usize> {
        let stream = Stream::connect(self.upstreams[upstream].address, upstream, now)?;
        let entry = self.streams.vacant_entry();
        let key = entry.key();
        self.poll.add(stream.socket(), Token::Stream(key), true, true)?;
        entry.insert(stream);
        self.upstreams[upstream].stream = Some(key);
        Ok(key)
    }

    //--- Receiving

    /// Takes the datagrams that have come to one socket; `batch` holds the
    /// messages of those that are returned, by place.
    pub fn receive(&mut self, socket: usize, batch: &mut Batch, now: Instant) -> Arrived<usize> {
        let mut arrived = Vec::new();
        let received = match self.sockets.get(socket) {
            Some(pool_socket) => batch.receive(&pool_socket.socket, false),
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
        self.close_if_done(socket);
        arrived
    }

    /// Finds the flight that a message answers, and ends it; `None` for what
    /// nobody asked, and for what must be asked again over TCP.
    fn take(&mut self, channel: Channel, message: &[u8], now: Instant) -> Option<Flight> {
        let upstream = match channel {
            Channel::Socket(key) => self.sockets.get(key)?.upstream,
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
        if relay::is_truncated(message) && matches!(channel, Channel::Socket(_)) {
            if !self.flights[key].over_tcp {
                self.flights[key].over_tcp = true;
                self.retry_over_stream(key, upstream, now);
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
        let upstream = &mut self.upstreams[upstream];
        if upstream.failures >= FAILURES {
            self.events.push(format!("upstream {} answers again", upstream.address));
        }
        (upstream.failures, upstream.rest_until) = (0, None);
    }

    /// The same upstream once more, over TCP; not counted as an attempt, since
    /// it did answer.
    fn retry_over_stream(&mut self, key: usize, upstream: usize, now: Instant) {
        self.next_stamp += 1;
        self.flights[key].stamp = self.next_stamp;
        let deadline = Deadline { at: now + self.settings.timeout, flight: key, stamp: self.next_stamp };
        self.deadlines.push_back(deadline);
        self.send_over_stream(key, upstream, now);
    }

    /// Takes a flight out, and its routes with it.
    fn land(&mut self, key: usize) -> Flight {
        let mut flight = self.flights.remove(key);
        for place in 0..MAX_ATTEMPTS {
            if let Some(route) = flight.routes[place].take() {
                self.leave(&route);
            }
        }
        flight
    }

    fn leave(&mut self, route: &Route) {
        self.routes.remove(&(route.channel, route.id));
        if let Channel::Socket(key) = route.channel
            && let Some(socket) = self.sockets.get_mut(key)
        {
            socket.outstanding -= 1;
            self.close_if_done(key);
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
            if let Some(upstream) = self.flights[key].last_upstream() {
                self.count(upstream).timeouts.add(1);
                self.upstream_failed(upstream, now);
            }
            if self.flights[key].attempts < self.settings.attempts {
                self.attempt(key, now);
            } else {
                failed.push(self.land(key));
            }
        }
        self.flush(now);
        self.close_idle_streams(now);
        failed
    }

    fn close_idle_streams(&mut self, now: Instant) {
        let idle = |stream: &Stream| now.saturating_duration_since(stream.used_at) >= STREAM_IDLE;
        let idle: Vec<usize> = self.streams.iter().filter(|(_, s)| idle(s)).map(|(key, _)| key).collect();
        for key in idle {
            if !self.has_routes(Channel::Stream(key)) {
                self.drop_stream(key);
            }
        }
    }

    fn has_routes(&self, channel: Channel) -> bool {
        self.routes.keys().any(|(other, _)| *other == channel)
    }

    fn drop_stream(&mut self, key: usize) {
        if let Some(stream) = self.streams.try_remove(key) {
            self.upstreams[stream.upstream].stream = None;
        }
    }

    /// An ICMP error, most often: nobody listens there. Waiting would be lost
    /// time for every query that went out through this socket.
    fn socket_failed(&mut self, key: usize, now: Instant) {
        let upstream = self.sockets[key].upstream;
        self.count(upstream).network_errors.add(1);
        self.upstream_failed(upstream, now);
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
                self.next_stamp += 1;
                self.flights[key].stamp = self.next_stamp;
                self.deadlines.push_front(Deadline { at: now, flight: key, stamp: self.next_stamp });
            }
        }
    }

    fn upstream_failed(&mut self, index: usize, now: Instant) {
        let upstream = &mut self.upstreams[index];
        upstream.failures = upstream.failures.saturating_add(1);
        if upstream.failures == FAILURES {
            upstream.rest_until = Some(now + REST);
            self.events.push(format!("upstream {} does not answer", upstream.address));
        }
    }

    fn cannot_open(&mut self, upstream: usize, error: &io::Error) {
        self.count(upstream).network_errors.add(1);
        self.events.push(format!("no socket towards upstream {}: {error}", self.upstreams[upstream].address));
    }

    fn count(&self, upstream: usize) -> &UpstreamCounters {
        &self.counters.upstreams[upstream]
    }
}

impl Flight {
    /// The question as it is asked upstream.
    fn asked_question<'a>(&'a self, buffer: &'a mut [u8; MAX_QUESTION]) -> &'a [u8] {
        let question = self.query.question();
        let Some(target) = &self.follow else { return question };
        let (name, type_and_class) = (target.suffix(0), &question[question.len() - 4..]);
        buffer[..name.len()].copy_from_slice(name);
        buffer[name.len()..name.len() + 4].copy_from_slice(type_and_class);
        &buffer[..name.len() + 4]
    }

    fn last_upstream(&self) -> Option<usize> {
        self.routes.iter().flatten().max_by_key(|route| route.sent_at).map(|route| route.upstream)
    }

    pub fn came_over_tcp(&self) -> bool {
        matches!(self.origin, Origin::Tcp { .. })
    }
}
