//! Opens sockets and sets their options: UDP and TCP towards clients, UDP towards upstreams.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::sys;

/// Bytes of kernel buffer asked for; the kernel may give less.
const UDP_BUFFER: usize = 4 << 20;
/// The same while no process reads the socket, during a restart. The kernel doubles it, and counts
/// 768 bytes or more for a query.
const RESTART_BUFFER: usize = 64 << 20;
/// How long a send may wait for buffer space. Longer, and the datagram is lost
/// as it would be on any wire.
const SEND_PATIENCE: Duration = Duration::from_millis(50);

/// Connections that wait to be accepted, per listener.
const BACKLOG: i32 = 1024;
/// Bytes of responses that the kernel buffers for a TCP client that does not read them. Its
/// default is several megabytes per connection, in memory that all connections share.
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

/// Makes a socket towards clients what this version wants it to be, whoever has bound it.
pub fn set_up_udp(socket: impl AsFd) {
    let socket = SockRef::from(&socket);
    // The kernel caps these at net.core.[rw]mem_max; less is no error.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER);
    let _ = socket.set_send_buffer_size(UDP_BUFFER);
    let _ = socket.set_write_timeout(Some(SEND_PATIENCE));
}

/// Lets more queries queue up in a socket than usual, during a restart.
pub fn make_room(socket: impl AsFd) {
    let _ = SockRef::from(&socket).set_recv_buffer_size(RESTART_BUFFER);
    // Without CAP_NET_ADMIN, the kernel caps it at net.core.rmem_max.
    let _ = set_socket_recv_buffer_size_force(&socket, RESTART_BUFFER);
}

/// Opens a socket of our own choosing towards an upstream; the kernel draws
/// its port, and drops what comes from anywhere else (RFC 5452 9.2).
pub fn connect_udp(upstream: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(upstream), Type::DGRAM, Some(Protocol::UDP))?;
    let _ = socket.set_recv_buffer_size(UDP_BUFFER);
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
pub fn probe_udp(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())
}

/// Listens on an address together with the other worker threads.
pub fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = stream_socket(address)?;
    socket.set_reuse_port(true)?;
    // Connections have it from their listener.
    socket.set_send_buffer_size(TCP_SEND_BUFFER)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Fails if anyone listens there already; see `probe_udp`.
pub fn probe_tcp(address: SocketAddr) -> io::Result<()> {
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
