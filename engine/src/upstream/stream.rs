//! A TCP connection towards an upstream: several questions under way on it,
//! answers in any order (RFC 7766 6.2.1.1), kept open while it is of use.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use rand::rngs::StdRng;
use socket2::{Domain, Protocol, Socket, Type};

use super::ids::Ids;

/// Octets of queries that may wait to be sent; with more, nobody is reading.
const UNSENT: usize = 64 << 10;

pub struct Stream {
    stream: TcpStream,
    /// Place of the upstream in the configuration.
    pub upstream: usize,
    /// When something was last read, or the connection was begun.
    pub heard_at: Instant,
    /// Questions whose answers are still welcome here.
    pub ids: Ids,
    /// Questions that were ever put here, and that were answered.
    pub asked: usize,
    pub answered: usize,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Stream {
    /// Begins to connect; what is pushed meanwhile is sent once it is done.
    pub fn connect(address: SocketAddr, upstream: usize, now: Instant) -> io::Result<Stream> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        Ok(Stream {
            stream: socket.into(),
            upstream,
            heard_at: now,
            ids: Ids::default(),
            asked: 0,
            answered: 0,
            input: Vec::new(),
            output: Vec::new(),
        })
    }

    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Notes that a question of this flight is put here; returns its id.
    pub fn enter(&mut self, flight: usize, random: &mut StdRng) -> u16 {
        self.asked += 1;
        self.ids.draw(flight, random)
    }

    /// Says first what stands in front of all messages.
    pub fn begin_with(&mut self, octets: &[u8]) {
        self.output.extend_from_slice(octets);
    }

    /// Adds a message, behind its length; false if too much waits already.
    pub fn push(&mut self, message: &[u8]) -> bool {
        let length = u16::try_from(message.len()).expect("a query is short");
        self.output.extend_from_slice(&length.to_be_bytes());
        self.output.extend_from_slice(message);
        self.output.len() <= UNSENT
    }

    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Writes what waits; false if the connection is gone.
    pub fn write(&mut self) -> bool {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                // Not connected yet, or no room: epoll tells when to go on.
                Err(error) if is_not_yet(&error) => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Reads what has come; false if the connection is gone.
    pub fn read(&mut self, now: Instant) -> bool {
        let mut chunk = [0; 16 << 10];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return false,
                Ok(count) => {
                    self.input.extend_from_slice(&chunk[..count]);
                    self.heard_at = now;
                    // A whole message at most is kept back, so this is bounded.
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

    /// Takes the next whole message out of what was read.
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
