//! UDP towards clients: one socket for each address and packet thread, the
//! kernel spreads the queries over them (SO_REUSEPORT).

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::listeners::Bound;
use crate::sys::{self, BATCH, Batch, Datagram};

/// Octets of kernel buffer asked for; the kernel may give less.
const KERNEL_BUFFER: usize = 4 << 20;
/// How long a send may wait for buffer space. Longer, and the datagram is lost
/// as it would be on any wire.
const SEND_PATIENCE: Duration = Duration::from_millis(50);

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
                    set_up(self.socket());
                }
                return Ok((received, late));
            }
            let waited = sys::waited(self.socket());
            let came = now.checked_sub(waited).unwrap_or(now);
            // From here on, what was received came while this process was there.
            if self.backlog_until.take_if(|begun| came >= *begun).is_some() {
                set_up(self.socket());
            }
            if waited < patience {
                self.since = came;
                return Ok((received, late));
            }
            late += received;
        }
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

/// Binds a socket that shares its port with those of the other packet threads.
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    set_up(&socket);
    socket.bind(&address.into())?;
    if address.ip().is_unspecified() {
        sys::report_local(&socket, address.is_ipv6())?;
    }
    Ok(socket.into())
}

/// Makes a socket towards clients what this version wants it to be, whoever has bound it.
pub fn set_up(socket: impl AsFd) {
    let socket = SockRef::from(&socket);
    // The kernel caps these at net.core.[rw]mem_max; less is no error.
    let _ = socket.set_recv_buffer_size(KERNEL_BUFFER);
    let _ = socket.set_send_buffer_size(KERNEL_BUFFER);
    let _ = socket.set_write_timeout(Some(SEND_PATIENCE));
}

/// Opens a socket of our own choosing towards an upstream; the kernel draws
/// its port, and drops what comes from anywhere else (RFC 5452 9.2).
pub fn connect(upstream: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(upstream), Type::DGRAM, Some(Protocol::UDP))?;
    let _ = socket.set_recv_buffer_size(KERNEL_BUFFER);
    socket.set_write_timeout(Some(SEND_PATIENCE))?;
    socket.connect(&upstream.into())?;
    Ok(socket.into())
}

/// An address whose port nobody holds.
pub fn free_port(ip: IpAddr) -> io::Result<SocketAddr> {
    UdpSocket::bind((ip, 0))?.local_addr()
}

/// Fails if anyone holds the address already: with SO_REUSEPORT alone, a second
/// daemon of the same user would quietly take half of the queries.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())
}
