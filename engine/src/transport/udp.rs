//! UDP towards clients: one socket for each address and worker thread, the
//! kernel spreads the queries over them (SO_REUSEPORT).

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::listeners::Bound;
use super::sockets::{make_room, set_up_udp};
use crate::sys::{self, BATCH, Batch, Datagram};

/// A socket and the responses that wait to be sent through it together.
pub struct Listener {
    pub bound: Arc<Bound>,
    /// Which of its sockets.
    thread: usize,
    number: usize,
    /// Nothing is read from it any more; what it has received is still answered.
    pub is_closing: bool,
    out: Batch,
    waiting: usize,
    /// What is in the socket came after this.
    since: Instant,
    /// Since when this process serves, while there may be queries that came before.
    backlog_until: Option<Instant>,
}

/// How long a query may wait in a socket. Who asked has asked again by then, or given
/// up, and an answer would take its time from those who still wait.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same for queries that came while no process was there to read them: a restart is no
/// overload, and a stub resolver waits for five seconds, or up to so many (resolv.conf(5), timeout).
const RESTART_PATIENCE: Duration = Duration::from_secs(30);

impl Listener {
    /// `number`: which of the sockets that this thread has.
    pub fn new(bound: Arc<Bound>, thread: usize, number: usize) -> Listener {
        let now = Instant::now();
        let backlog_until = bound.is_inherited.then_some(now);
        // How long the oldest query of the process before has waited is found out at first.
        let since = if bound.is_inherited { now.checked_sub(RESTART_PATIENCE).unwrap_or(now) } else { now };
        let (out, waiting, is_closing) = (Batch::empty(), 0, false);
        let listener = Listener { bound, thread, number, is_closing, out, waiting, since, backlog_until };
        sys::waited(listener.socket());
        listener
    }

    pub fn socket(&self) -> &UdpSocket {
        &self.bound.udp[self.thread][self.number]
    }

    /// The socket is bound to all addresses of the machine.
    fn is_wildcard(&self) -> bool {
        self.bound.address.ip().is_unspecified()
    }

    /// Receives a batch; returns how many queries it holds, and how many it would have
    /// held that nobody waits for any more.
    ///
    /// When each query came would cost a part of every query to know. So it is only
    /// asked for where it may have been too long ago: if the socket was not found empty
    /// within that time, because this thread was held up, or cannot keep up.
    pub fn receive(&mut self, batch: &mut Batch) -> io::Result<(usize, usize)> {
        let mut late = 0;
        loop {
            let now = Instant::now();
            let patience = if self.backlog_until.is_some() { RESTART_PATIENCE } else { PATIENCE };
            let may_be_late = now.saturating_duration_since(self.since) >= patience;
            let most = if may_be_late { 1 } else { BATCH };
            let received = match batch.receive(self.socket(), self.is_wildcard(), most) {
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
            let came = now.checked_sub(waited).unwrap_or(now);
            // From here on, what was received came while this process was there.
            if self.backlog_until.take_if(|begun| came >= *begun).is_some() {
                set_up_udp(self.socket());
            }
            if waited < patience {
                self.since = came;
                return Ok((received, late));
            }
            late += received;
        }
    }

    /// Lets more queries queue up than usual, since nothing is read from here until the next process does.
    ///
    /// The thread that reads does it, so that it cannot set the usual size again afterwards.
    pub fn make_room(&self) {
        make_room(self.socket());
    }

    /// Room for one response; `push` then keeps it.
    pub fn slot(&mut self) -> &mut Datagram {
        &mut self.out.datagrams[self.waiting]
    }

    /// Keeps the response in the slot, and sends all of them once the batch is
    /// full. Returns how many were lost.
    pub fn push(&mut self) -> usize {
        self.waiting += 1;
        if self.waiting == BATCH { self.flush() } else { 0 }
    }

    /// Sends what waits. Returns how many were lost.
    pub fn flush(&mut self) -> usize {
        match std::mem::take(&mut self.waiting) {
            0 => 0,
            waiting => self.out.send(&self.bound.udp[self.thread][self.number], waiting),
        }
    }
}
