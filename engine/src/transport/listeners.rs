//! The sockets of each listen address. The worker threads share them.
//!
//! A reload binds new addresses before removed ones are closed, and an address that stays keeps its
//! sockets. A restart may inherit the sockets of the previous process, with the queries in their buffers.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::{fmt, io};

use rustix::net::sockopt::socket_acceptconn;
use socket2::{SockRef, Type};

use super::sockets::{bind_udp, check_tcp, check_udp, free_port, listen_tcp};
use crate::message::Transport;

/// Tries to find a port that is free for both UDP and TCP.
const MAX_TRIES: usize = 32;

/// The sockets of one listen address.
pub struct Bound {
    /// As configured: the port may be 0.
    wanted: SocketAddr,
    /// The real address.
    pub address: SocketAddr,
    /// The sockets of each worker thread: one, or more if the previous process had more threads.
    pub udp: Vec<Vec<UdpSocket>>,
    pub tcp: Vec<Vec<TcpListener>>,
    /// From the previous process: the buffers may hold old queries.
    pub is_inherited: bool,
    /// Open TCP connections of all worker threads.
    pub connections: AtomicUsize,
}

/// The sockets of all listen addresses.
#[derive(Debug, Default)]
pub struct Listening {
    /// In configured order, followed by the covered addresses.
    all: Vec<Arc<Bound>>,
    configured: usize,
}

impl Listening {
    /// The sockets of the configured addresses, in their order.
    pub fn configured(&self) -> &[Arc<Bound>] {
        &self.all[..self.configured]
    }

    /// Whether both have the same sockets and configured addresses.
    pub fn is_same(&self, other: &Listening) -> bool {
        let is_same = |(ours, theirs): (&Arc<Bound>, &Arc<Bound>)| Arc::ptr_eq(ours, theirs);
        self.configured == other.configured
            && self.all.len() == other.all.len()
            && self.all.iter().zip(&other.all).all(is_same)
    }
}

impl Deref for Listening {
    type Target = [Arc<Bound>];

    fn deref(&self) -> &[Arc<Bound>] {
        &self.all
    }
}

impl Bound {
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let udp = self.udp.iter().flatten().map(AsFd::as_fd);
        udp.chain(self.tcp.iter().flatten().map(AsFd::as_fd))
    }

    /// Whether one of the two is a wildcard address that includes the other.
    fn overlaps(&self, address: SocketAddr) -> bool {
        overlap(self.address, address)
    }

    /// Whether this is a wildcard address that includes the other.
    fn covers(&self, address: SocketAddr) -> bool {
        self.address.ip().is_unspecified() && self.address != address && self.overlaps(address)
    }
}

fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let is_wildcard = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && is_wildcard
}

/// The sockets of the previous process.
#[derive(Default)]
pub struct Inherited {
    udp: Vec<(SocketAddr, UdpSocket)>,
    tcp: Vec<(SocketAddr, TcpListener)>,
}

impl Inherited {
    /// Sorts out the sockets that serve clients. Other descriptors are closed.
    pub fn new(descriptors: Vec<OwnedFd>) -> Inherited {
        let mut inherited = Inherited::default();
        for descriptor in descriptors {
            match listens(&descriptor) {
                Some((Transport::Udp, address)) => inherited.udp.push((address, descriptor.into())),
                Some((Transport::Tcp, address)) => inherited.tcp.push((address, descriptor.into())),
                None => {}
            }
        }
        inherited
    }

    /// The address of a socket for a configured address. For port 0, that is any socket of the IP address
    /// whose port is not configured.
    fn address_for(&self, wanted: SocketAddr, all: &[SocketAddr]) -> Option<SocketAddr> {
        let fits = |address: &SocketAddr| match wanted.port() {
            0 => address.ip() == wanted.ip() && !all.contains(address),
            _ => *address == wanted,
        };
        self.udp.iter().map(|(address, _)| *address).find(fits)
    }

    /// The addresses of the sockets that are not used yet.
    fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for (address, _) in &self.udp {
            if !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        addresses
    }

    fn take<S>(sockets: &mut Vec<(SocketAddr, S)>, address: SocketAddr) -> Vec<S> {
        let (taken, left) = std::mem::take(sockets).into_iter().partition(|(bound, _)| *bound == address);
        *sockets = left;
        let taken: Vec<(SocketAddr, S)> = taken;
        taken.into_iter().map(|(_, socket)| socket).collect()
    }
}

/// The transport and address of a socket that serves clients: unconnected UDP, or TCP that listens.
/// `None` for any other descriptor.
fn listens(descriptor: &OwnedFd) -> Option<(Transport, SocketAddr)> {
    let socket = SockRef::from(descriptor);
    let transport = match socket.r#type().ok()? {
        Type::DGRAM if socket.peer_addr().is_err() => Transport::Udp,
        Type::STREAM if socket_acceptconn(descriptor) == Ok(true) => Transport::Tcp,
        _ => return None,
    };
    Some((transport, socket.local_addr().ok()?.as_socket()?))
}

/// An address that could not be bound.
pub struct NotBound(pub SocketAddr, pub io::Error);

/// Binds these addresses. Those that `known` has already keep their sockets.
///
/// An address that a wildcard address now covers keeps its sockets as well. While they are open, the
/// kernel delivers the address's queries to them, and closing them would lose the queries in their buffers.
pub fn bind(
    wanted: &[SocketAddr],
    workers: usize,
    known: &[Arc<Bound>],
    mut inherited: Inherited,
) -> Result<Listening, NotBound> {
    let mut listening: Vec<Arc<Bound>> = Vec::new();
    for &address in wanted {
        let is_free = |bound: &&Arc<Bound>| !is_among(bound, &listening);
        let same = known.iter().filter(is_free).find(|bound| bound.wanted == address);
        let same = same.or_else(|| known.iter().filter(is_free).find(|bound| bound.address == address));
        let bound = match same {
            Some(bound) => Arc::clone(bound),
            None => {
                let left = inherited.address_for(address, wanted);
                let bound = match left {
                    Some(left) => inherit(address, left, workers, &mut inherited),
                    None => {
                        let is_shared = known.iter().chain(&listening).any(|bound| bound.overlaps(address))
                            || inherited.addresses().into_iter().any(|other| overlap(other, address));
                        bind_all(address, workers, is_shared)
                    }
                };
                Arc::new(bound.map_err(|error| NotBound(address, error))?)
            }
        };
        listening.push(bound);
    }
    let configured = listening.len();
    let covers = |address| listening.iter().any(|bound| bound.covers(address));
    let mut covered: Vec<Arc<Bound>> = Vec::new();
    for bound in known.iter().filter(|bound| covers(bound.address)) {
        if !is_among(bound, &listening) && !is_among(bound, &covered) {
            covered.push(Arc::clone(bound));
        }
    }
    for address in inherited.addresses().into_iter().filter(|address| covers(*address)) {
        covered.push(Arc::new(inherit_covered(address, workers, &mut inherited)));
    }
    listening.extend(covered);
    Ok(Listening { all: listening, configured })
}

/// Whether `others` has this address, with the same sockets.
pub fn is_among(bound: &Arc<Bound>, others: &[Arc<Bound>]) -> bool {
    others.iter().any(|other| Arc::ptr_eq(other, bound))
}

/// Uses the inherited sockets of an address, and binds further ones for additional threads.
fn inherit(
    wanted: SocketAddr,
    address: SocketAddr,
    workers: usize,
    inherited: &mut Inherited,
) -> io::Result<Bound> {
    let udp = Inherited::take(&mut inherited.udp, address);
    let tcp = Inherited::take(&mut inherited.tcp, address);
    Ok(Bound {
        udp: spread(udp, workers, || bind_udp(address))?,
        tcp: spread(tcp, workers, || listen_tcp(address))?,
        is_inherited: true,
        ..Bound::new(wanted, address)
    })
}

/// Uses the inherited sockets of an address that is no longer configured. None is bound, since the
/// machine may no longer have the address.
fn inherit_covered(address: SocketAddr, workers: usize, inherited: &mut Inherited) -> Bound {
    Bound {
        udp: distribute(Inherited::take(&mut inherited.udp, address), workers),
        tcp: distribute(Inherited::take(&mut inherited.tcp, address), workers),
        is_inherited: true,
        ..Bound::new(address, address)
    }
}

/// Distributes sockets to threads.
fn distribute<S>(sockets: Vec<S>, workers: usize) -> Vec<Vec<S>> {
    let mut distributed: Vec<Vec<S>> = (0..workers).map(|_| Vec::new()).collect();
    for (number, socket) in sockets.into_iter().enumerate() {
        distributed[number % workers].push(socket);
    }
    distributed
}

/// Distributes sockets to threads, and binds one for each thread without any.
fn spread<S>(sockets: Vec<S>, workers: usize, bind: impl Fn() -> io::Result<S>) -> io::Result<Vec<Vec<S>>> {
    let has_any = !sockets.is_empty();
    let mut distributed = distribute(sockets, workers);
    for of_thread in distributed.iter_mut().filter(|sockets| sockets.is_empty()) {
        match bind() {
            Ok(socket) => of_thread.push(socket),
            // The user has changed: only the threads with a socket serve this address.
            Err(error) if has_any && error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    Ok(distributed)
}

/// Binds one UDP and one TCP socket per worker thread, on one port. `is_shared`: this process already
/// has sockets on an overlapping address and the same port.
fn bind_all(wanted: SocketAddr, workers: usize, is_shared: bool) -> io::Result<Bound> {
    let mut tries = 0;
    loop {
        tries += 1;
        let address = match wanted.port() {
            // Picked without SO_REUSEPORT. With it, the kernel may pick a port that another daemon of
            // the same user already shares.
            0 => free_port(wanted.ip())?,
            _ => wanted,
        };
        let bound = || -> io::Result<_> {
            // The checks do not share the port, so our own sockets would make them fail.
            if !is_shared {
                check_udp(address)?;
                check_tcp(address)?;
            }
            Ok(Bound {
                udp: spread(Vec::new(), workers, || bind_udp(address))?,
                tcp: spread(Vec::new(), workers, || listen_tcp(address))?,
                ..Bound::new(wanted, address)
            })
        };
        match bound() {
            Err(_) if wanted.port() == 0 && tries < MAX_TRIES => {}
            result => return result,
        }
    }
}

impl Bound {
    fn new(wanted: SocketAddr, address: SocketAddr) -> Bound {
        let (udp, tcp) = (Vec::new(), Vec::new());
        Bound { wanted, address, udp, tcp, is_inherited: false, connections: AtomicUsize::new(0) }
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} sockets", self.address, self.descriptors().count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any_port() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    fn listen(wanted: &[SocketAddr], known: &[Arc<Bound>]) -> Listening {
        bind(wanted, 2, known, Inherited::default()).map_err(|NotBound(_, error)| error).unwrap()
    }

    /// The descriptors that the next process inherits.
    fn descriptors_of(listening: &Listening) -> Vec<OwnedFd> {
        let all = listening.iter().flat_map(|bound| bound.descriptors());
        all.map(|descriptor| descriptor.try_clone_to_owned().unwrap()).collect()
    }

    #[test]
    fn an_address_that_stays_keeps_its_sockets_and_its_port() {
        let first = listen(&[any_port()], &[]);
        let next = listen(&[any_port(), any_port()], &first);
        assert!(Arc::ptr_eq(&first[0], &next[0]) && next[1].address != next[0].address);
        let by_port = listen(&[next[1].address], &next);
        assert!(Arc::ptr_eq(&by_port[0], &next[1]));
    }

    #[test]
    fn an_address_below_a_wildcard_address_keeps_its_sockets() {
        let one = listen(&[any_port()], &[]);
        let narrow = one[0].address;
        let all = SocketAddr::from(([0, 0, 0, 0], narrow.port()));
        let wide = listen(&[all], &one);
        assert!(wide.configured().len() == 1 && wide[0].address == all);
        assert!(wide.len() == 2 && Arc::ptr_eq(&wide[1], &one[0]));
        let again = listen(&[all], &wide);
        assert!(again.is_same(&wide), "a reload changes nothing");
        let both = listen(&[narrow, all], &wide);
        assert!(both.configured().len() == 2 && Arc::ptr_eq(&both[0], &one[0]));
        let other = listen(&[any_port()], &wide);
        assert_eq!(other.len(), 1, "without the wildcard address, it is closed");
        let inherited = Inherited::new(descriptors_of(&one));
        drop((one, wide, again, both));
        let next = bind(&[all], 2, &[], inherited).ok().unwrap();
        let addresses: Vec<_> = next.iter().map(|bound| bound.address).collect();
        assert_eq!((addresses, next.configured().len()), (vec![all, narrow], 1), "and a restart keeps it");
    }

    #[test]
    fn an_address_replaces_the_wildcard_address() {
        let wide = listen(&[SocketAddr::from(([0, 0, 0, 0], 0))], &[]);
        let narrow = SocketAddr::from(([127, 0, 0, 1], wide[0].address.port()));
        let one = listen(&[narrow], &wide);
        assert!(one.len() == 1 && one[0].address == narrow);
    }

    #[test]
    fn an_address_in_use_is_an_error_that_names_it() {
        let other = UdpSocket::bind(any_port()).unwrap();
        let taken = other.local_addr().unwrap();
        let NotBound(address, error) = bind(&[any_port(), taken], 2, &[], Inherited::default()).unwrap_err();
        assert_eq!((address, error.kind()), (taken, io::ErrorKind::AddrInUse));
    }

    #[test]
    fn the_next_process_inherits_the_sockets_with_any_number_of_threads() {
        for workers in [1, 2, 3] {
            let before = listen(&[any_port()], &[]);
            let client = UdpSocket::bind(any_port()).unwrap();
            client.send_to(b"during the restart", before[0].address).unwrap();
            let descriptors = descriptors_of(&before);
            let address = before[0].address;
            drop(before);
            let after = bind(&[any_port()], workers, &[], Inherited::new(descriptors)).ok().unwrap();
            assert_eq!((after[0].address, after[0].is_inherited), (address, true));
            assert!(after[0].udp.iter().all(|sockets| !sockets.is_empty()), "a socket for each thread");
            assert_eq!(after[0].descriptors().count(), 2 * workers.max(2));
            let sockets: Vec<_> = after[0].udp.iter().flatten().collect();
            sockets.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
            assert_eq!(sockets.iter().filter(|socket| socket.recv(&mut [0; 64]).is_ok()).count(), 1);
        }
    }

    #[test]
    fn other_descriptors_are_not_inherited() {
        let connected = UdpSocket::bind(any_port()).unwrap();
        connected.connect(connected.local_addr().unwrap()).unwrap();
        let unbound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let inherited = Inherited::new(vec![connected.into(), unbound.into(), file.into()]);
        assert!(inherited.udp.is_empty() && inherited.tcp.is_empty());
    }
}
