//! TCP towards clients (RFC 7766): queries of one connection are taken as they
//! come and answered as they are ready, in any order; everything is bounded.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};

use crate::limits::Crowd;
use crate::listeners::Bound;

/// Connections that wait to be accepted, per listener.
const BACKLOG: i32 = 1024;
/// Octets of responses that a client may leave unread before its further
/// queries wait, and before it is sent away.
const UNREAD: usize = 256 << 10;
const MOST_UNREAD: usize = 1 << 20;
/// Two octets of length and the longest message (RFC 1035 4.2.2).
const FRAME: usize = 2 + 65_535;
/// Octets that the kernel keeps of what a client has not read. By itself it would
/// keep megabytes of each, and its memory is everybody's.
const KERNEL_BUFFER: usize = 128 << 10;

/// Bounds of the TCP service.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of one listener, and of one client; all packet threads together.
    pub connections: usize,
    pub per_client: usize,
    /// Unanswered queries per connection.
    pub pipelined: usize,
    /// Patience with a connection that asks nothing and is owed nothing, and
    /// with one that does not take what it is sent.
    pub idle: Duration,
    /// Patience with a message that has begun.
    pub read: Duration,
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
    ListenerIsFull,
}

/// The connections of one packet thread.
pub struct Service {
    limits: Limits,
    /// Connections of all packet threads, by client.
    crowd: Arc<Crowd>,
    connections: Slab<Connection>,
    /// Tells a connection from an earlier one in the same place.
    next_generation: u64,
}

pub struct Connection {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    /// The address it came to.
    listener: Arc<Bound>,
    is_stranger: bool,
    pub generation: u64,
    input: Vec<u8>,
    /// Octets at the front of `input` that were taken already.
    taken: usize,
    output: Vec<u8>,
    unanswered: usize,
    /// The client has sent its last octet; what it asked is still answered.
    ended: bool,
    broken: bool,
    active_at: Instant,
    message_since: Option<Instant>,
    /// What epoll was told last: (readable, writable).
    pub watched: (bool, bool),
}

impl Service {
    pub fn new(limits: Limits, crowd: Arc<Crowd>) -> Service {
        Service { limits, crowd, connections: Slab::new(), next_generation: 0 }
    }

    /// Goes by these bounds from now on.
    pub fn adopt(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Takes a new connection in and returns its key. When its listener has too
    /// many, an idle one of this thread makes room (RFC 7766 6.2.3), one of somebody
    /// who is refused anyway first, else the one that has been idle longest; for such
    /// a stranger nobody does. A client that has its share gets no more of them.
    pub fn admit(
        &mut self,
        stream: TcpStream,
        peer: SocketAddr,
        listener: &Arc<Bound>,
        standing: Standing,
        now: Instant,
    ) -> Result<usize, NotAdmitted> {
        if self.crowd.enter(peer.ip()) > self.limits.per_client && standing != Standing::Exempt {
            self.crowd.leave(peer.ip());
            return Err(NotAdmitted::ClientHasItsShare);
        }
        // Counted first: another thread may take the last place at the same time.
        if listener.connections.fetch_add(1, Relaxed) >= self.limits.connections {
            let is_stranger = standing == Standing::Stranger;
            let is_here = |c: &Connection| Arc::ptr_eq(&c.listener, listener);
            let idle = self.connections.iter().filter(|(_, c)| c.unanswered == 0 && is_here(c));
            let idle = idle.filter(|_| !is_stranger);
            let longest = idle.min_by_key(|(_, c)| (!c.is_stranger, c.active_at)).map(|(key, _)| key);
            let Some(longest) = longest else {
                listener.connections.fetch_sub(1, Relaxed);
                self.crowd.leave(peer.ip());
                return Err(NotAdmitted::ListenerIsFull);
            };
            self.remove(longest);
        }
        self.next_generation += 1;
        let key = self.connections.insert(Connection {
            stream,
            peer,
            listener: Arc::clone(listener),
            is_stranger: standing == Standing::Stranger,
            generation: self.next_generation,
            input: Vec::new(),
            taken: 0,
            output: Vec::new(),
            unanswered: 0,
            ended: false,
            broken: false,
            active_at: now,
            message_since: None,
            watched: (true, false),
        });
        Ok(key)
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
        // RFC 7766 8: length and message leave in one write.
        let length = u16::try_from(response.len()).expect("a message is at most 65,535 octets");
        connection.output.extend_from_slice(&length.to_be_bytes());
        connection.output.extend_from_slice(response);
        connection.broken |= connection.output.len() > MOST_UNREAD;
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

impl Connection {
    fn takes_queries(&self, limits: &Limits) -> bool {
        self.unanswered < limits.pipelined && self.output.len() < UNREAD
    }

    /// The length of the message at the front of the input, if it is all there.
    fn whole_message(&self) -> Option<usize> {
        let input = &self.input[self.taken..];
        let length = usize::from(u16::from_be_bytes([*input.first()?, *input.get(1)?]));
        (input.len() >= 2 + length).then_some(length)
    }

    fn read(&mut self, now: Instant) {
        // Once a read, not once a message: many small ones must not cost more.
        self.input.drain(..std::mem::take(&mut self.taken));
        let mut chunk = [0; 16 << 10];
        while self.input.len() < FRAME {
            let room = chunk.len().min(FRAME - self.input.len());
            match self.stream.read(&mut chunk[..room]) {
                Ok(0) => {
                    self.ended = true;
                    return;
                }
                Ok(count) => {
                    self.input.extend_from_slice(&chunk[..count]);
                    self.message_since.get_or_insert(now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
    }

    fn write(&mut self, now: Instant) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => {
                    self.output.drain(..count);
                    self.active_at = now;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.broken = true;
                    return;
                }
            }
        }
    }
}

/// Listens on an address together with the other packet threads.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = stream_socket(address)?;
    socket.set_reuse_port(true)?;
    // Connections have it from their listener.
    socket.set_send_buffer_size(KERNEL_BUFFER)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Fails if anyone listens there already; see `udp::probe`.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    let socket = stream_socket(address)?;
    socket.bind(&address.into())?;
    socket.listen(1)
}

fn stream_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Connections of an earlier run in TIME_WAIT do not keep us from starting.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}
