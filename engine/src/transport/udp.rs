//! UDP towards clients. Each worker thread has a socket for each listen address, and the kernel
//! spreads the queries over them (SO_REUSEPORT).

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::DatagramIo;
use super::listeners::Bound;
use super::sockets::{enlarge_buffer, set_up_udp};
use crate::sys::{self, BATCH, Batch, Datagram};

/// How long a query may wait in a socket. After that, the client has retried or given up, and a
/// response would delay clients that still wait.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// The same for queries that arrived while no process read the socket. A restart is not an overload,
/// and a stub resolver waits for 5 seconds, or for up to 30 (resolv.conf(5), timeout).
const MAX_RESTART_WAIT: Duration = Duration::from_secs(30);

/// A socket and the responses that are queued for it.
pub struct Listener {
    pub bound: Arc<Bound>,
    thread: usize,
    /// Which of the thread's sockets for this address.
    number: usize,
    /// Queries are no longer read, but outstanding ones are still answered.
    pub is_closing: bool,
    out: Batch,
    queued: usize,
    /// All datagrams in the socket arrived after this.
    since: Instant,
    /// The start of this process, while the socket may hold queries from before.
    backlog_until: Option<Instant>,
}

impl Listener {
    pub fn new(bound: Arc<Bound>, thread: usize, number: usize) -> Listener {
        let now = Instant::now();
        let backlog_until = bound.is_inherited.then_some(now);
        // Inherited sockets: the first receive finds out how old the oldest query is.
        let since = if bound.is_inherited { now.checked_sub(MAX_RESTART_WAIT).unwrap_or(now) } else { now };
        let (out, queued, is_closing) = (Batch::empty(), 0, false);
        let listener = Listener { bound, thread, number, is_closing, out, queued, since, backlog_until };
        sys::waited(listener.socket());
        listener
    }

    pub fn socket(&self) -> &UdpSocket {
        &self.bound.udp[self.thread][self.number]
    }

    /// Whether the socket is bound to the wildcard address.
    fn is_wildcard(&self) -> bool {
        self.bound.address.ip().is_unspecified()
    }

    /// Enlarges the receive buffer before a restart, since the next reader is the next process.
    ///
    /// Only the thread that reads calls this, so it cannot reset the size afterwards.
    pub fn enlarge_buffer(&self) {
        enlarge_buffer(self.socket());
    }
}

impl DatagramIo for Listener {
    /// The arrival time of each query would cost a part of every query. It is only read if a query
    /// may be too old: if the thread was delayed or overloaded, so that it has not found the socket
    /// empty for that long.
    fn receive(&mut self, batch: &mut Batch) -> io::Result<(usize, usize)> {
        let mut late = 0;
        loop {
            let now = Instant::now();
            let max_wait = if self.backlog_until.is_some() { MAX_RESTART_WAIT } else { MAX_WAIT };
            let may_be_late = now.saturating_duration_since(self.since) >= max_wait;
            let limit = if may_be_late { 1 } else { BATCH };
            let received = match batch.receive(self.socket(), self.is_wildcard(), limit) {
                Err(_) if late > 0 => return Ok((0, late)),
                received => received?,
            };
            if !may_be_late && received < BATCH {
                self.since = now;
                if self.backlog_until.take().is_some() {
                    set_up_udp(self.socket());
                }
                return Ok((received, late));
            }
            let waited = sys::waited(self.socket());
            let arrived = now.checked_sub(waited).unwrap_or(now);
            // From here on, all queries arrived after this process began.
            if self.backlog_until.take_if(|begun| arrived >= *begun).is_some() {
                set_up_udp(self.socket());
            }
            if waited < max_wait {
                self.since = arrived;
                return Ok((received, late));
            }
            late += received;
        }
    }

    fn slot(&mut self) -> &mut Datagram {
        &mut self.out.datagrams[self.queued]
    }

    fn push(&mut self) -> usize {
        self.queued += 1;
        if self.queued == BATCH { self.flush() } else { 0 }
    }

    fn flush(&mut self) -> usize {
        match std::mem::take(&mut self.queued) {
            0 => 0,
            queued => self.out.send(&self.bound.udp[self.thread][self.number], queued),
        }
    }
}
