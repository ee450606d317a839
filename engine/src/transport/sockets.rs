//! Opens sockets and sets their options: UDP and TCP towards clients, UDP towards upstreams.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::sys;

/// The size of the kernel's buffers. The kernel may limit it.
const UDP_BUFFER: usize = 4 << 20;
/// The same during a restart, while no process reads the socket. The kernel doubles it, and counts
/// at least 768 bytes for a query.
const RESTART_BUFFER: usize = 64 << 20;
/// How long a send may wait for buffer space. After that, the datagram is lost, as on any network.
const SEND_TIMEOUT: Duration = Duration::from_millis(50);

/// Connections per socket that wait to be accepted.
const BACKLOG: i32 = 1024;
/// The kernel's buffer for responses that a TCP client does not read. The default is several
/// megabytes per connection, in memory that all connections share.
const TCP_SEND_BUFFER: usize = 128 << 10;

/// Binds a socket that shares its port with those of the other worker threads.
pub fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    set_up_udp(&socket);
    socket.bind(&address.into())?;
    if address.ip().is_unspecified() {
        sys::report_local(&socket, address.is_ipv6())?;
    }
    Ok(socket.into())
}

/// Sets the options of a socket towards clients, also of an inherited one.
pub fn set_up_udp(socket: impl AsFd) {
    let socket = SockRef::from(&socket);
    // The kernel limits these to net.core.[rw]mem_max, without an error.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER);
    let _ = socket.set_send_buffer_size(UDP_BUFFER);
    let _ = socket.set_write_timeout(Some(SEND_TIMEOUT));
}

/// Enlarges the receive buffer for a restart.
pub fn enlarge_buffer(socket: impl AsFd) {
    let _ = SockRef::from(&socket).set_recv_buffer_size(RESTART_BUFFER);
    // Without CAP_NET_ADMIN, the kernel limits it to net.core.rmem_max.
    let _ = set_socket_recv_buffer_size_force(&socket, RESTART_BUFFER);
}

/// Opens a socket towards an upstream. The kernel picks a random port, and drops datagrams from other
/// addresses (RFC 5452 9.2).
pub fn connect_udp(upstream: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(upstream), Type::DGRAM, Some(Protocol::UDP))?;
    let _ = socket.set_recv_buffer_size(UDP_BUFFER);
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    socket.connect(&upstream.into())?;
    Ok(socket.into())
}

/// An address with a port that no socket uses.
pub fn free_port(ip: IpAddr) -> io::Result<SocketAddr> {
    UdpSocket::bind((ip, 0))?.local_addr()
}

/// Fails if the address is in use. SO_REUSEPORT would let a second daemon of the same user silently
/// receive half of the queries.
pub fn check_udp(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())
}

/// Listens on an address, and shares its port with the other worker threads.
pub fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = stream_socket(address)?;
    socket.set_reuse_port(true)?;
    // Connections inherit it.
    socket.set_send_buffer_size(TCP_SEND_BUFFER)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Fails if the address is in use, see `check_udp`.
pub fn check_tcp(address: SocketAddr) -> io::Result<()> {
    let socket = stream_socket(address)?;
    socket.bind(&address.into())?;
    socket.listen(1)
}

fn stream_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Connections of an earlier run in TIME_WAIT must not prevent a start.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}
