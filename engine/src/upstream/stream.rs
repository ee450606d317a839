//! A TCP connection to an upstream, with several outstanding queries. Responses come in any order
//! (RFC 7766, section 6.2.1.1).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use rand::rngs::StdRng;
use socket2::{Domain, Protocol, Socket, Type};

use super::ids::Ids;

/// Bytes of queries that may wait to be sent. With more, the upstream does not read.
const UNSENT: usize = 64 << 10;

pub struct Stream {
    pub socket: TcpStream,
    /// The upstream's place.
    pub upstream: usize,
    /// When something was last received, or the connection was opened.
    pub received_at: Instant,
    /// Outstanding queries.
    pub ids: Ids,
    /// All queries that were sent here, and responses.
    pub queries: usize,
    pub answered: usize,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Stream {
    /// Begins to connect. Messages wait until the connection is open.
    pub fn connect(address: SocketAddr, upstream: usize, now: Instant) -> io::Result<Stream> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        Ok(Stream {
            socket: socket.into(),
            upstream,
            received_at: now,
            ids: Ids::default(),
            queries: 0,
            answered: 0,
            input: Vec::new(),
            output: Vec::new(),
        })
    }

    /// Adds a query of this flight; returns its ID.
    pub fn enter(&mut self, flight: usize, random: &mut StdRng) -> u16 {
        self.queries += 1;
        self.ids.draw(flight, random)
    }

    /// Adds the PROXY header, before all messages.
    pub fn begin_with(&mut self, header: &[u8]) {
        self.output.extend_from_slice(header);
    }

    /// Adds a message with its length. Returns false if too much waits already.
    pub fn push(&mut self, message: &[u8]) -> bool {
        let length = u16::try_from(message.len()).expect("a query is short");
        self.output.extend_from_slice(&length.to_be_bytes());
        self.output.extend_from_slice(message);
        self.output.len() <= UNSENT
    }

    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Writes the waiting bytes. Returns false if the connection is closed.
    pub fn write(&mut self) -> bool {
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                // Not connected yet, or the send buffer is full: epoll reports when to go on.
                Err(error) if is_not_yet(&error) => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Reads the received bytes. Returns false if the connection is closed.
    pub fn read(&mut self, now: Instant) -> bool {
        let mut chunk = [0; 16 << 10];
        loop {
            match self.socket.read(&mut chunk) {
                Ok(0) => return false,
                Ok(count) => {
                    self.input.extend_from_slice(&chunk[..count]);
                    self.received_at = now;
                    // At most one incomplete message stays in the buffer, so this is bounded.
                    if self.input.len() > 2 * 65_537 {
                        return true;
                    }
                }
                Err(error) if is_not_yet(&error) => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    /// Takes the next complete message.
    pub fn next_message(&mut self) -> Option<Vec<u8>> {
        let length = usize::from(u16::from_be_bytes([*self.input.first()?, *self.input.get(1)?]));
        let message = self.input.get(2..2 + length)?.to_vec();
        self.input.drain(..2 + length);
        Some(message)
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}
