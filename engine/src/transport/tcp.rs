//! TCP towards clients (RFC 7766). The queries of a connection are read as they arrive, and the
//! responses sent as they are ready, in any order. Connections, time and memory are limited.

use std::cmp::Reverse;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use slab::Slab;

use super::listeners::Bound;
use crate::limits::{ConnectionCounts, Network};

mod connection;
pub use connection::Connection;

/// Limits of the TCP service.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections per listen address and per client, in all worker threads.
    pub connections: usize,
    pub per_client: usize,
    /// Connections per network and listen address. `None`: a quarter of `connections`.
    pub per_network: Option<usize>,
    /// Unanswered queries per connection.
    pub pipelined: usize,
    /// Timeout of a connection without queries, and of one that does not read its responses.
    pub idle: Duration,
    /// Timeout of a message that has arrived in part.
    pub read: Duration,
}

impl Limits {
    fn of_network(&self) -> usize {
        self.per_network.unwrap_or((self.connections / 4).max(1))
    }
}

/// The class of a client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Client,
    /// In `limits.exempt`: no limit per client or network.
    Exempt,
    /// Outside the access control list: its queries get REFUSED.
    Stranger,
}

/// Why a connection is not accepted: the limit that is reached.
pub enum LimitReached {
    Client,
    Network,
    Listener,
}

/// The connections of one worker thread.
pub struct Service {
    limits: Limits,
    /// The connections of all worker threads, by client and by network.
    crowd: Arc<ConnectionCounts>,
    connections: Slab<Connection>,
    /// Distinguishes a connection from an earlier one with the same key.
    next_generation: u64,
}

/// A connection that is not accepted yet.
struct Newcomer<'a> {
    listener: &'a Arc<Bound>,
    standing: Standing,
    network: Network,
    /// The connections of its network, including this one.
    of_network: usize,
}

impl Newcomer<'_> {
    /// Whether `other`, whose network holds `held` connections, may be closed for this one. A network
    /// never loses a connection to one that holds more. A connection with unanswered queries is only
    /// closed for the same network, or for one that holds less.
    fn may_replace(&self, other: &Connection, held: usize) -> bool {
        // Exempt clients have no limit, so their connections do not count against them.
        let holds = if self.standing == Standing::Exempt { 1 } else { self.of_network };
        match other.standing {
            Standing::Stranger => true,
            Standing::Exempt if other.unanswered > 0 => false,
            _ if other.unanswered > 0 => other.network == self.network || held > holds,
            _ => held >= holds,
        }
    }
}

impl Service {
    pub fn new(limits: Limits, crowd: Arc<ConnectionCounts>) -> Service {
        Service { limits, crowd, connections: Slab::new(), next_generation: 0 }
    }

    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Accepts a connection and returns its key. A client at its limit gets no further connection.
    /// If the limit of the network or of the listener is reached, another connection of this thread is
    /// closed, see `make_room`.
    pub fn admit(
        &mut self,
        stream: TcpStream,
        peer: SocketAddr,
        listener: &Arc<Bound>,
        standing: Standing,
        now: Instant,
    ) -> Result<usize, LimitReached> {
        let is_limited = standing != Standing::Exempt;
        // Counted first, since another thread may reach the limit at the same time.
        if self.crowd.enter(peer.ip()) > self.limits.per_client && is_limited {
            self.crowd.leave(peer.ip());
            return Err(LimitReached::Client);
        }
        let network = self.crowd.network(peer.ip(), listener.address, standing as u8);
        let of_network = self.crowd.enter_network(network);
        let of_listener = listener.connections.fetch_add(1, Relaxed) + 1;
        let newcomer = Newcomer { listener, standing, network, of_network };
        let refused = if is_limited && of_network > self.limits.of_network() {
            (!self.make_room(&newcomer, true)).then_some(LimitReached::Network)
        } else if of_listener > self.limits.connections {
            (!self.make_room(&newcomer, false)).then_some(LimitReached::Listener)
        } else {
            None
        };
        if let Some(reason) = refused {
            listener.connections.fetch_sub(1, Relaxed);
            self.crowd.leave_network(network);
            self.crowd.leave(peer.ip());
            return Err(reason);
        }
        self.next_generation += 1;
        let key = self.connections.insert(Connection {
            wire: stream,
            peer,
            listener: Arc::clone(listener),
            standing,
            network,
            generation: self.next_generation,
            input: Vec::new(),
            taken: 0,
            output: Vec::new(),
            unanswered: 0,
            ended: false,
            broken: false,
            active_at: now,
            waiting_since: now,
            message_since: None,
            watched: (true, false),
        });
        Ok(key)
    }

    /// Closes a connection of this thread for a new one. Clients outside the access control list are
    /// first, then the network with the most connections. Within a network, the connection that has been
    /// idle longest is first (RFC 7766 6.2.3), then the one that has waited longest for a response.
    /// `within`: close only an idle connection of the newcomer's own network.
    fn make_room(&mut self, newcomer: &Newcomer, within: bool) -> bool {
        if newcomer.standing == Standing::Stranger {
            return false;
        }
        let may_close = |c: &Connection, held: usize| match within {
            true => c.network == newcomer.network && c.unanswered == 0,
            false => newcomer.may_replace(c, held),
        };
        let here = self.connections.iter().filter(|(_, c)| Arc::ptr_eq(&c.listener, newcomer.listener));
        let held = here.map(|(key, c)| (key, c, self.crowd.held(c.network)));
        let candidates = held.filter(|(_, c, held)| may_close(c, *held));
        let first = candidates.min_by_key(|(_, c, held)| {
            let since = if c.unanswered > 0 { c.waiting_since } else { c.active_at };
            (c.standing != Standing::Stranger, Reverse(*held), c.unanswered > 0, since)
        });
        let key = first.map(|(key, _, _)| key);
        key.is_some_and(|key| self.remove(key).is_some())
    }

    pub fn get_mut(&mut self, key: usize) -> Option<&mut Connection> {
        self.connections.get_mut(key)
    }

    pub fn get(&self, key: usize) -> Option<&Connection> {
        self.connections.get(key)
    }

    /// Removes a connection. Dropping it closes it.
    pub fn remove(&mut self, key: usize) -> Option<Connection> {
        let removed = self.connections.try_remove(key)?;
        removed.listener.connections.fetch_sub(1, Relaxed);
        self.crowd.leave(removed.peer.ip());
        self.crowd.leave_network(removed.network);
        Some(removed)
    }

    pub fn count(&self) -> usize {
        self.connections.len()
    }

    /// The number of connections with unsent responses.
    pub fn unsent(&self) -> usize {
        self.connections.iter().filter(|(_, c)| !c.output.is_empty() && !c.broken).count()
    }

    /// Reads the bytes that have arrived.
    pub fn read(&mut self, key: usize, now: Instant) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.read(now);
        }
    }

    /// Copies the next whole message into `message`, if the connection's limits allow one. The query
    /// counts as unanswered until `answer` or `leave_unanswered`.
    pub fn next_message(&mut self, key: usize, message: &mut Vec<u8>, now: Instant) -> bool {
        let limits = self.limits;
        let Some(connection) = self.connections.get_mut(key).filter(|c| c.takes_queries(&limits)) else {
            return false;
        };
        let Some(length) = connection.whole_message() else { return false };
        let start = connection.taken + 2;
        message.clear();
        message.extend_from_slice(&connection.input[start..start + length]);
        connection.taken = start + length;
        if connection.unanswered == 0 {
            connection.waiting_since = now;
        }
        connection.unanswered += 1;
        connection.active_at = now;
        connection.message_since = (connection.taken < connection.input.len()).then_some(now);
        true
    }

    /// Queues a response, if the connection still exists. `write` sends the queue.
    pub fn answer(&mut self, key: usize, generation: u64, response: &[u8], now: Instant) {
        let Some(connection) = self.connections.get_mut(key).filter(|c| c.generation == generation) else {
            return;
        };
        connection.unanswered = connection.unanswered.saturating_sub(1);
        connection.active_at = now;
        connection.waiting_since = now;
        // RFC 7766 8: length and message leave in one write.
        let length = u16::try_from(response.len()).expect("a message is at most 65,535 bytes long");
        connection.output.extend_from_slice(&length.to_be_bytes());
        connection.output.extend_from_slice(response);
        connection.broken |= connection.output.len() > connection::MAX_UNREAD;
    }

    /// Counts a query that gets no response (action `drop`).
    pub fn leave_unanswered(&mut self, key: usize, generation: u64) {
        if let Some(connection) = self.connections.get_mut(key).filter(|c| c.generation == generation) {
            connection.unanswered = connection.unanswered.saturating_sub(1);
        }
    }

    /// Reads nothing more. Outstanding queries are still answered.
    pub fn end(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.ended = true;
            connection.taken = connection.input.len();
        }
    }

    /// The connections to this listen address.
    pub fn at(&self, listener: &Arc<Bound>) -> Vec<usize> {
        let here = self.connections.iter().filter(|(_, c)| Arc::ptr_eq(&c.listener, listener));
        here.map(|(key, _)| key).collect()
    }

    /// Reads the bytes that have arrived, and nothing more. Whole queries are still answered.
    pub fn read_last(&mut self, key: usize, now: Instant) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.read(now);
            connection.ended = true;
        }
    }

    /// Sends the queued responses.
    pub fn write(&mut self, key: usize, now: Instant) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.write(now);
        }
    }

    /// The events that the connection waits for: (readable, writable). `None` if it is finished.
    pub fn wants(&self, key: usize) -> Option<(bool, bool)> {
        let connection = self.connections.get(key)?;
        let is_outstanding = connection.unanswered > 0 || !connection.output.is_empty();
        let more = connection.takes_queries(&self.limits) && connection.whole_message().is_some();
        if connection.broken || (connection.ended && !is_outstanding && !more) {
            return None;
        }
        let readable = !connection.ended && connection.takes_queries(&self.limits);
        Some((readable, !connection.output.is_empty()))
    }

    /// The connections that have timed out.
    pub fn expired(&self, now: Instant) -> Vec<usize> {
        let limits = self.limits;
        let late = |connection: &Connection| {
            let slow = connection.message_since.is_some_and(|since| now - since >= limits.read);
            let waits_for_us = connection.unanswered > 0 && connection.output.is_empty();
            let paused = !connection.takes_queries(&limits);
            (slow && !paused)
                || (!waits_for_us && now.saturating_duration_since(connection.active_at) >= limits.idle)
        };
        self.connections.iter().filter(|(_, connection)| late(connection)).map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::transport::listeners::{self, Inherited};

    /// A service with one listener. The test chooses peer addresses; the streams are local.
    struct Fixture {
        service: Service,
        listener: Arc<Bound>,
        acceptor: TcpListener,
        now: Instant,
    }

    impl Fixture {
        fn new(connections: usize, per_network: Option<usize>) -> Fixture {
            let second = Duration::from_secs(1);
            let limits = Limits {
                connections,
                per_client: 64,
                per_network,
                pipelined: 10,
                idle: second,
                read: second,
            };
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let listening = listeners::bind(&[any], 1, &[], Inherited::default()).ok().unwrap();
            Fixture {
                service: Service::new(limits, Arc::new(ConnectionCounts::new(7))),
                listener: Arc::clone(&listening[0]),
                acceptor: TcpListener::bind(any).unwrap(),
                now: Instant::now(),
            }
        }

        fn connect(&mut self, peer: &str, standing: Standing) -> Result<usize, LimitReached> {
            let stream = TcpStream::connect(self.acceptor.local_addr().unwrap()).unwrap();
            self.acceptor.accept().unwrap();
            self.now += Duration::from_millis(1);
            let peer = SocketAddr::new(peer.parse().unwrap(), 1024);
            self.service.admit(stream, peer, &self.listener, standing, self.now)
        }

        fn idle(&mut self, peer: &str) -> Result<usize, LimitReached> {
            self.connect(peer, Standing::Client)
        }

        /// A client that waits for a response.
        fn waiting(&mut self, peer: &str) -> usize {
            let key = self.idle(peer).ok().unwrap();
            self.ask(key);
            key
        }

        fn ask(&mut self, key: usize) {
            self.now += Duration::from_millis(1);
            self.service.connections[key].input.extend_from_slice(&[0, 1, 0]);
            assert!(self.service.next_message(key, &mut Vec::new(), self.now));
        }

        /// The number of connections of each address.
        fn held<const N: usize>(&self, peers: [&str; N]) -> [usize; N] {
            peers.map(|peer| {
                let peer: std::net::IpAddr = peer.parse().unwrap();
                self.service.connections.iter().filter(|(_, c)| c.peer.ip() == peer).count()
            })
        }
    }

    #[test]
    fn a_network_has_at_most_a_quarter_of_the_connections() {
        let mut fixture = Fixture::new(40, None);
        for subnet in 0..10 {
            fixture.waiting(&format!("2001:db8:0:{subnet:x}::1"));
        }
        let more = fixture.idle("2001:db8:0:f::1");
        assert!(matches!(more, Err(LimitReached::Network)));
        assert!(fixture.idle("2001:db8:1::1").is_ok(), "another /48");
        assert_eq!(fixture.service.count(), 11);
        assert!(fixture.connect("2001:db8:0:f::1", Standing::Exempt).is_ok());
    }

    #[test]
    fn the_limit_of_a_network_is_an_option_and_can_be_reloaded() {
        let mut fixture = Fixture::new(40, Some(2));
        for _ in 0..2 {
            fixture.waiting("198.51.100.1");
        }
        assert!(matches!(fixture.idle("198.51.100.2"), Err(LimitReached::Network)));
        let limits = fixture.service.limits;
        fixture.service.set_limits(Limits { per_network: Some(3), ..limits });
        assert!(fixture.idle("198.51.100.2").is_ok());
    }

    #[test]
    fn an_idle_connection_is_closed_for_another_of_its_network() {
        let mut fixture = Fixture::new(8, None);
        fixture.idle("198.51.100.1").ok().unwrap();
        fixture.waiting("198.51.100.2");
        fixture.waiting("198.51.100.3");
        assert_eq!(fixture.held(["198.51.100.1", "198.51.100.2", "198.51.100.3"]), [0, 1, 1]);
        assert!(matches!(fixture.idle("198.51.100.4"), Err(LimitReached::Network)));
        assert_eq!(fixture.listener.connections.load(Relaxed), 2, "the refused connection is not counted");
    }

    #[test]
    fn the_network_with_most_connections_loses_one_and_idle_ones_first() {
        let mut fixture = Fixture::new(6, Some(6));
        fixture.idle("192.0.2.1").ok().unwrap();
        let (first, second) = (fixture.waiting("2001:db8:0:1::1"), fixture.waiting("2001:db8:0:2::1"));
        fixture.waiting("2001:db8:0:3::1");
        fixture.idle("2001:db8:0:4::1").ok().unwrap();
        fixture.waiting("192.0.2.1");
        // A further query is no progress, a response is.
        fixture.ask(first);
        let generation = fixture.service.connections[second].generation;
        fixture.ask(second);
        fixture.service.answer(second, generation, b"answer", fixture.now);
        let many = ["2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:0:3::1", "2001:db8:0:4::1"];
        fixture.waiting("203.0.113.1");
        assert_eq!(fixture.held(many), [1, 1, 1, 0], "idle");
        fixture.waiting("203.0.113.2");
        assert_eq!(fixture.held(many), [0, 1, 1, 0], "longest without a response");
        assert_eq!(fixture.held(["192.0.2.1", "203.0.113.1", "203.0.113.2"]), [2, 1, 1]);
    }

    #[test]
    fn a_network_with_few_connections_loses_none_to_one_with_more() {
        let mut fixture = Fixture::new(4, Some(4));
        fixture.idle("192.0.2.1").ok().unwrap();
        for _ in 0..3 {
            fixture.waiting("198.51.100.1");
        }
        let oldest = fixture.waiting("198.51.100.2");
        assert_eq!(
            fixture.held(["192.0.2.1", "198.51.100.1", "198.51.100.2"]),
            [1, 2, 1],
            "its own network loses one"
        );
        fixture.service.remove(oldest);
        fixture.waiting("203.0.113.1");
        fixture.waiting("203.0.114.1");
        let held = fixture.held(["192.0.2.1", "198.51.100.1", "203.0.113.1", "203.0.114.1"]);
        assert_eq!(held, [1, 1, 1, 1]);
    }

    #[test]
    fn a_waiting_connection_is_not_closed_for_a_network_of_the_same_size() {
        let mut fixture = Fixture::new(4, None);
        for network in 0..4 {
            fixture.waiting(&format!("198.51.{network}.1"));
        }
        assert!(matches!(fixture.idle("203.0.113.1"), Err(LimitReached::Listener)));
        assert_eq!(fixture.service.count(), 4);
    }

    #[test]
    fn strangers_are_closed_first_and_waiting_exempt_clients_never() {
        let mut fixture = Fixture::new(8, Some(4));
        for _ in 0..3 {
            let key = fixture.connect("192.0.2.1", Standing::Exempt).ok().unwrap();
            fixture.ask(key);
        }
        fixture.connect("203.0.113.9", Standing::Stranger).ok().unwrap();
        for _ in 0..2 {
            fixture.idle("198.51.100.1").ok().unwrap();
        }
        for _ in 0..2 {
            fixture.waiting("198.51.100.2");
        }
        let all = ["192.0.2.1", "203.0.113.9", "198.51.100.1", "198.51.100.2"];
        assert!(matches!(fixture.connect("203.0.113.9", Standing::Stranger), Err(LimitReached::Listener)));
        fixture.idle("203.0.113.9").ok().unwrap();
        assert_eq!(fixture.held(all), [3, 1, 2, 2], "the stranger, whose network is counted separately");
        for left in [1, 0] {
            let key = fixture.connect("192.0.2.1", Standing::Exempt).ok().unwrap();
            fixture.ask(key);
            assert_eq!(fixture.held(all)[2], left);
        }
    }
}
