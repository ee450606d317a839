//! One TCP connection of a client: its buffers, and what it is owed.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use super::{Limits, Standing};
use crate::limits::Network;
use crate::transport::listeners::Bound;

/// Octets of responses that a client may leave unread before its further
/// queries wait, and before it is sent away.
const UNREAD: usize = 256 << 10;
pub(super) const MOST_UNREAD: usize = 1 << 20;
/// Two octets of length and the longest message (RFC 1035 4.2.2).
const FRAME: usize = 2 + 65_535;
pub struct Connection {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    /// The address it came to.
    pub(super) listener: Arc<Bound>,
    pub(super) standing: Standing,
    pub(super) network: Network,
    pub generation: u64,
    pub(super) input: Vec<u8>,
    /// Octets at the front of `input` that were taken already.
    pub(super) taken: usize,
    pub(super) output: Vec<u8>,
    pub(super) unanswered: usize,
    /// The client has sent its last octet; what it asked is still answered.
    pub(super) ended: bool,
    pub(super) broken: bool,
    pub(super) active_at: Instant,
    /// While it is owed answers: since when it has got none.
    pub(super) waiting_since: Instant,
    pub(super) message_since: Option<Instant>,
    /// What epoll was told last: (readable, writable).
    pub watched: (bool, bool),
}

impl Connection {
    pub(super) fn takes_queries(&self, limits: &Limits) -> bool {
        self.unanswered < limits.pipelined && self.output.len() < UNREAD
    }

    /// The length of the message at the front of the input, if it is all there.
    pub(super) fn whole_message(&self) -> Option<usize> {
        let input = &self.input[self.taken..];
        let length = usize::from(u16::from_be_bytes([*input.first()?, *input.get(1)?]));
        (input.len() >= 2 + length).then_some(length)
    }

    pub(super) fn read(&mut self, now: Instant) {
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

    pub(super) fn write(&mut self, now: Instant) {
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
