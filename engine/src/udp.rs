//! UDP towards clients: one socket for each address and packet thread, the
//! kernel spreads the queries over them (SO_REUSEPORT).

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::sys::{self, BATCH, Batch, Datagram};

/// Octets of kernel buffer asked for; the kernel may give less.
const KERNEL_BUFFER: usize = 4 << 20;
/// How long a send may wait for buffer space. Longer, and the datagram is lost
/// as it would be on any wire.
const SEND_PATIENCE: Duration = Duration::from_millis(50);

/// A socket and the responses that wait to be sent through it together.
pub struct Listener {
    pub socket: UdpSocket,
    /// The socket is bound to all addresses of the machine.
    pub wildcard: bool,
    out: Batch,
    waiting: usize,
    /// What is in the socket came after this.
    since: Instant,
}

/// How long a query may wait in a socket. Who asked has asked again by then, or given
/// up, and an answer would take its time from those who still wait.
const PATIENCE: Duration = Duration::from_secs(1);

impl Listener {
    pub fn new(socket: UdpSocket) -> io::Result<Listener> {
        let wildcard = socket.local_addr()?.ip().is_unspecified();
        sys::waited(&socket);
        Ok(Listener { socket, wildcard, out: Batch::empty(), waiting: 0, since: Instant::now() })
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
            let may_be_late = now.saturating_duration_since(self.since) >= PATIENCE;
            let most = if may_be_late { 1 } else { BATCH };
            let received = match batch.receive(&self.socket, self.wildcard, most) {
                Err(_) if late > 0 => return Ok((0, late)),
                received => received?,
            };
            if !may_be_late && received < BATCH {
                self.since = now;
                return Ok((received, late));
            }
            let waited = sys::waited(&self.socket);
            if waited < PATIENCE {
                self.since = now.checked_sub(waited).unwrap_or(now);
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
            waiting => self.out.send(&self.socket, waiting),
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
    // The kernel caps these at net.core.[rw]mem_max; less is no error.
    let _ = socket.set_recv_buffer_size(KERNEL_BUFFER);
    let _ = socket.set_send_buffer_size(KERNEL_BUFFER);
    socket.set_write_timeout(Some(SEND_PATIENCE))?;
    socket.bind(&address.into())?;
    if address.ip().is_unspecified() {
        sys::report_local(&socket, address.is_ipv6())?;
    }
    Ok(socket.into())
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
