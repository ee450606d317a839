//! One TCP connection of a client: its buffers, and the state of its queries.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use super::{Limits, Standing};
use crate::limits::Network;
use crate::transport::Wire;
use crate::transport::listeners::Bound;

/// Bytes of unread responses: above the first limit, further queries wait; above the second one, the
/// connection is closed.
const UNREAD: usize = 256 << 10;
pub(super) const MAX_UNREAD: usize = 1 << 20;
/// The length field and the longest message (RFC 1035 4.2.2).
const FRAME: usize = 2 + 65_535;

impl Wire for TcpStream {
    fn socket(&self) -> impl AsFd {
        self
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}

pub struct Connection<W = TcpStream> {
    pub wire: W,
    pub peer: SocketAddr,
    /// The listen address that the client connected to.
    pub(super) listener: Arc<Bound>,
    pub(super) standing: Standing,
    pub(super) network: Network,
    pub generation: u64,
    pub(super) input: Vec<u8>,
    /// Bytes at the front of `input` that were taken already.
    pub(super) taken: usize,
    pub(super) output: Vec<u8>,
    pub(super) unanswered: usize,
    /// Nothing more is read; outstanding queries are still answered.
    pub(super) ended: bool,
    pub(super) broken: bool,
    pub(super) active_at: Instant,
    /// While queries are unanswered: the time of the last response, or of the first query.
    pub(super) waiting_since: Instant,
    pub(super) message_since: Option<Instant>,
    /// The events that epoll reports at present: (readable, writable).
    pub watched: (bool, bool),
}

impl<W: Wire> Connection<W> {
    pub(super) fn takes_queries(&self, limits: &Limits) -> bool {
        self.unanswered < limits.pipelined && self.output.len() < UNREAD
    }

    /// The length of the message at the front of the input, if all of it has arrived.
    pub(super) fn whole_message(&self) -> Option<usize> {
        let input = &self.input[self.taken..];
        let length = usize::from(u16::from_be_bytes([*input.first()?, *input.get(1)?]));
        (input.len() >= 2 + length).then_some(length)
    }

    pub(super) fn read(&mut self, now: Instant) {
        // Once per read instead of once per message, so that many small messages cost no more.
        self.input.drain(..std::mem::take(&mut self.taken));
        let mut chunk = [0; 16 << 10];
        while self.input.len() < FRAME {
            let room = chunk.len().min(FRAME - self.input.len());
            match self.wire.read(&mut chunk[..room]) {
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
            match self.wire.write(&self.output) {
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
