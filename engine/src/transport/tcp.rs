//! TCP towards clients (RFC 7766): queries of one connection are taken as they
//! come and answered as they are ready, in any order; everything is bounded.

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

/// Bounds of the TCP service.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of one listener, and of one client; all worker threads together.
    pub connections: usize,
    pub per_client: usize,
    /// Of one network at one listener; `None`: a quarter of `connections`.
    pub per_network: Option<usize>,
    /// Unanswered queries per connection.
    pub pipelined: usize,
    /// Patience with a connection that asks nothing and is owed nothing, and
    /// with one that does not take what it is sent.
    pub idle: Duration,
    /// Patience with a message that has begun.
    pub read: Duration,
}

impl Limits {
    fn of_network(&self) -> usize {
        self.per_network.unwrap_or((self.connections / 4).max(1))
    }
}

/// Who connects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Client,
    /// Has no limit of its own.
    Exempt,
    /// Outside the access list: is told so.
    Stranger,
}

/// Why a connection is closed at once.
pub enum NotAdmitted {
    ClientHasItsShare,
    NetworkHasItsShare,
    ListenerIsFull,
}

/// The connections of one worker thread.
pub struct Service {
    limits: Limits,
    /// Connections of all worker threads, by client and by network.
    crowd: Arc<ConnectionCounts>,
    connections: Slab<Connection>,
    /// Tells a connection from an earlier one in the same place.
    next_generation: u64,
}

/// A connection that is not admitted yet.
struct Newcomer<'a> {
    listener: &'a Arc<Bound>,
    standing: Standing,
    network: Network,
    /// Connections of its network, this one included.
    of_network: usize,
}

impl Newcomer<'_> {
    /// Whether `other`, whose network holds `held` connections, may be closed for this one. A network
    /// never pays for one that holds more. Who waits pays only for the same network or for a smaller one.
    fn may_replace(&self, other: &Connection, held: usize) -> bool {
        // Exempt clients have no limit, so what they hold does not count against them.
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

    /// Goes by these bounds from now on.
    pub fn adopt(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Takes a new connection and returns its key. A client that has its share of
    /// connections gets no more. When its network or the listener has too many, another
    /// connection of this thread makes room, see `make_room`.
    pub fn admit(
        &mut self,
        stream: TcpStream,
        peer: SocketAddr,
        listener: &Arc<Bound>,
        standing: Standing,
        now: Instant,
    ) -> Result<usize, NotAdmitted> {
        let is_limited = standing != Standing::Exempt;
        // Counted first: another thread may take the last place at the same time.
        if self.crowd.enter(peer.ip()) > self.limits.per_client && is_limited {
            self.crowd.leave(peer.ip());
            return Err(NotAdmitted::ClientHasItsShare);
        }
        let network = self.crowd.network(peer.ip(), listener.address, standing as u8);
        let of_network = self.crowd.enter_network(network);
        let of_listener = listener.connections.fetch_add(1, Relaxed) + 1;
        let newcomer = Newcomer { listener, standing, network, of_network };
        let refused = if is_limited && of_network > self.limits.of_network() {
            (!self.make_room(&newcomer, true)).then_some(NotAdmitted::NetworkHasItsShare)
        } else if of_listener > self.limits.connections {
            (!self.make_room(&newcomer, false)).then_some(NotAdmitted::ListenerIsFull)
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
            stream,
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

    /// Closes a connection of this thread for a new one: of a client that is refused anyway, else
    /// of the network that holds the most. Of that network, the connection that has been idle
    /// longest (RFC 7766 6.2.3), else the one that has waited longest for an answer. `within`:
    /// only an idle one of the newcomer's own network.
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

    /// Takes a connection out; dropping it closes it.
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

    /// Connections whose responses are not all on their way.
    pub fn unsent(&self) -> usize {
        self.connections.iter().filter(|(_, c)| !c.output.is_empty() && !c.broken).count()
    }

    /// Reads what has come.
    pub fn read(&mut self, key: usize, now: Instant) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.read(now);
        }
    }

    /// Copies the next whole message into `message`; returns its length. The
    /// query counts as unanswered until `answer` or `leave_unanswered`.
    pub fn next_message(&mut self, key: usize, message: &mut [u8], now: Instant) -> Option<usize> {
        let limits = self.limits;
        let connection = self.connections.get_mut(key)?;
        if !connection.takes_queries(&limits) {
            return None;
        }
        let length = connection.whole_message()?;
        let start = connection.taken + 2;
        message[..length].copy_from_slice(&connection.input[start..start + length]);
        connection.taken = start + length;
        if connection.unanswered == 0 {
            connection.waiting_since = now;
        }
        connection.unanswered += 1;
        connection.active_at = now;
        connection.message_since = (connection.taken < connection.input.len()).then_some(now);
        Some(length)
    }

    /// Adds a response, if the connection it belongs to is still there; `write`
    /// sends what was added.
    pub fn answer(&mut self, key: usize, generation: u64, response: &[u8], now: Instant) {
        let Some(connection) = self.connections.get_mut(key).filter(|c| c.generation == generation) else {
            return;
        };
        connection.unanswered -= 1;
        connection.active_at = now;
        connection.waiting_since = now;
        // RFC 7766 8: length and message leave in one write.
        let length = u16::try_from(response.len()).expect("a message is at most 65,535 octets");
        connection.output.extend_from_slice(&length.to_be_bytes());
        connection.output.extend_from_slice(response);
        connection.broken |= connection.output.len() > connection::MOST_UNREAD;
    }

    /// A query that gets no response (action `drop`).
    pub fn leave_unanswered(&mut self, key: usize, generation: u64) {
        if let Some(connection) = self.connections.get_mut(key).filter(|c| c.generation == generation) {
            connection.unanswered -= 1;
        }
    }

    /// Reads nothing more; what was asked is still answered.
    pub fn end(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.ended = true;
            connection.taken = connection.input.len();
        }
    }

    /// Connections to this address.
    pub fn of(&self, listener: &Arc<Bound>) -> Vec<usize> {
        let here = self.connections.iter().filter(|(_, c)| Arc::ptr_eq(&c.listener, listener));
        here.map(|(key, _)| key).collect()
    }

    /// Reads what has come, and nothing more; whole queries in it are still answered.
    pub fn finish(&mut self, key: usize, now: Instant) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.read(now);
            connection.ended = true;
        }
    }

    /// Writes what waits.
    pub fn write(&mut self, key: usize, now: Instant) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.write(now);
        }
    }

    /// What the connection now waits for: (readable, writable); `None` when
    /// it is finished.
    pub fn wants(&self, key: usize) -> Option<(bool, bool)> {
        let connection = self.connections.get(key)?;
        let owed = connection.unanswered > 0 || !connection.output.is_empty();
        let more = connection.takes_queries(&self.limits) && connection.whole_message().is_some();
        if connection.broken || (connection.ended && !owed && !more) {
            return None;
        }
        let readable = !connection.ended && connection.takes_queries(&self.limits);
        Some((readable, !connection.output.is_empty()))
    }

    /// Connections that have used up our patience.
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

    /// A service with one listener. Peers are what the test says; the streams are local ones.
    struct Scene {
        service: Service,
        listener: Arc<Bound>,
        knock: TcpListener,
        now: Instant,
    }

    impl Scene {
        fn new(connections: usize, per_network: Option<usize>) -> Scene {
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
            Scene {
                service: Service::new(limits, Arc::new(ConnectionCounts::new(7))),
                listener: Arc::clone(&listening[0]),
                knock: TcpListener::bind(any).unwrap(),
                now: Instant::now(),
            }
        }

        fn connect(&mut self, peer: &str, standing: Standing) -> Result<usize, NotAdmitted> {
            let stream = TcpStream::connect(self.knock.local_addr().unwrap()).unwrap();
            self.knock.accept().unwrap();
            self.now += Duration::from_millis(1);
            let peer = SocketAddr::new(peer.parse().unwrap(), 1024);
            self.service.admit(stream, peer, &self.listener, standing, self.now)
        }

        fn idle(&mut self, peer: &str) -> Result<usize, NotAdmitted> {
            self.connect(peer, Standing::Client)
        }

        /// A client that waits for an answer.
        fn waiting(&mut self, peer: &str) -> usize {
            let key = self.idle(peer).ok().unwrap();
            self.ask(key);
            key
        }

        fn ask(&mut self, key: usize) {
            self.now += Duration::from_millis(1);
            self.service.connections[key].input.extend_from_slice(&[0, 1, 0]);
            assert_eq!(self.service.next_message(key, &mut [0; 8], self.now), Some(1));
        }

        /// How many connections each of these addresses has.
        fn held<const N: usize>(&self, peers: [&str; N]) -> [usize; N] {
            peers.map(|peer| {
                let peer: std::net::IpAddr = peer.parse().unwrap();
                self.service.connections.iter().filter(|(_, c)| c.peer.ip() == peer).count()
            })
        }
    }

    #[test]
    fn a_network_holds_at_most_a_quarter_of_the_listener() {
        let mut scene = Scene::new(40, None);
        for subnet in 0..10 {
            scene.waiting(&format!("2001:db8:0:{subnet:x}::1"));
        }
        let more = scene.idle("2001:db8:0:f::1");
        assert!(matches!(more, Err(NotAdmitted::NetworkHasItsShare)));
        assert!(scene.idle("2001:db8:1::1").is_ok(), "another /48");
        assert_eq!(scene.service.count(), 11);
        assert!(scene.connect("2001:db8:0:f::1", Standing::Exempt).is_ok());
    }

    #[test]
    fn the_share_of_a_network_is_an_option_and_changes_at_a_reload() {
        let mut scene = Scene::new(40, Some(2));
        for _ in 0..2 {
            scene.waiting("198.51.100.1");
        }
        assert!(matches!(scene.idle("198.51.100.2"), Err(NotAdmitted::NetworkHasItsShare)));
        let limits = scene.service.limits;
        scene.service.adopt(Limits { per_network: Some(3), ..limits });
        assert!(scene.idle("198.51.100.2").is_ok());
    }

    #[test]
    fn in_a_network_that_has_its_share_an_idle_connection_makes_room() {
        let mut scene = Scene::new(8, None);
        scene.idle("198.51.100.1").ok().unwrap();
        scene.waiting("198.51.100.2");
        scene.waiting("198.51.100.3");
        assert_eq!(scene.held(["198.51.100.1", "198.51.100.2", "198.51.100.3"]), [0, 1, 1]);
        assert!(matches!(scene.idle("198.51.100.4"), Err(NotAdmitted::NetworkHasItsShare)));
        assert_eq!(scene.listener.connections.load(Relaxed), 2, "who is refused is not counted");
    }

    #[test]
    fn the_network_that_holds_most_makes_room_and_its_idle_connections_first() {
        let mut scene = Scene::new(6, Some(6));
        scene.idle("192.0.2.1").ok().unwrap();
        let (first, second) = (scene.waiting("2001:db8:0:1::1"), scene.waiting("2001:db8:0:2::1"));
        scene.waiting("2001:db8:0:3::1");
        scene.idle("2001:db8:0:4::1").ok().unwrap();
        scene.waiting("192.0.2.1");
        // Another question is no progress, an answer is.
        scene.ask(first);
        let generation = scene.service.connections[second].generation;
        scene.ask(second);
        scene.service.answer(second, generation, b"answer", scene.now);
        let many = ["2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:0:3::1", "2001:db8:0:4::1"];
        scene.waiting("203.0.113.1");
        assert_eq!(scene.held(many), [1, 1, 1, 0], "idle");
        scene.waiting("203.0.113.2");
        assert_eq!(scene.held(many), [0, 1, 1, 0], "longest without an answer");
        assert_eq!(scene.held(["192.0.2.1", "203.0.113.1", "203.0.113.2"]), [2, 1, 1]);
    }

    #[test]
    fn a_network_with_few_connections_never_pays_for_one_with_more() {
        let mut scene = Scene::new(4, Some(4));
        scene.idle("192.0.2.1").ok().unwrap();
        for _ in 0..3 {
            scene.waiting("198.51.100.1");
        }
        let oldest = scene.waiting("198.51.100.2");
        assert_eq!(scene.held(["192.0.2.1", "198.51.100.1", "198.51.100.2"]), [1, 2, 1], "its own pays");
        scene.service.remove(oldest);
        scene.waiting("203.0.113.1");
        scene.waiting("203.0.114.1");
        let held = scene.held(["192.0.2.1", "198.51.100.1", "203.0.113.1", "203.0.114.1"]);
        assert_eq!(held, [1, 1, 1, 1]);
    }

    #[test]
    fn who_waits_is_not_closed_for_a_network_that_holds_as_much() {
        let mut scene = Scene::new(4, None);
        for network in 0..4 {
            scene.waiting(&format!("198.51.{network}.1"));
        }
        assert!(matches!(scene.idle("203.0.113.1"), Err(NotAdmitted::ListenerIsFull)));
        assert_eq!(scene.service.count(), 4);
    }

    #[test]
    fn strangers_make_room_first_and_exempt_clients_that_wait_never() {
        let mut scene = Scene::new(8, Some(4));
        for _ in 0..3 {
            let key = scene.connect("192.0.2.1", Standing::Exempt).ok().unwrap();
            scene.ask(key);
        }
        scene.connect("203.0.113.9", Standing::Stranger).ok().unwrap();
        for _ in 0..2 {
            scene.idle("198.51.100.1").ok().unwrap();
        }
        for _ in 0..2 {
            scene.waiting("198.51.100.2");
        }
        let all = ["192.0.2.1", "203.0.113.9", "198.51.100.1", "198.51.100.2"];
        assert!(matches!(scene.connect("203.0.113.9", Standing::Stranger), Err(NotAdmitted::ListenerIsFull)));
        scene.idle("203.0.113.9").ok().unwrap();
        assert_eq!(scene.held(all), [3, 1, 2, 2], "the stranger, whose network counts apart");
        for left in [1, 0] {
            let key = scene.connect("192.0.2.1", Standing::Exempt).ok().unwrap();
            scene.ask(key);
            assert_eq!(scene.held(all)[2], left);
        }
    }
}
