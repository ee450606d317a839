//! System calls without a safe library, such as batches of datagrams with the addresses they were sent
//! to. The only file with `unsafe`.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// The largest number of datagrams in one system call.
pub const BATCH: usize = 64;
/// The largest datagram in bytes. A longer one is dropped: it is neither a query, nor a response of the
/// size that our OPT announces.
pub const DATAGRAM: usize = 4096;
/// linux/sockios.h; not in the crate.
const SIOCGSTAMPNS: libc::Ioctl = 0x8907;
const HUGE_PAGE: usize = 2 << 20;
/// The size of a cache line.
const LINE: usize = 64;
/// The size of a buffer for one IP_PKTINFO or IPV6_PKTINFO message.
const CONTROL: usize = 64;

/// One datagram, received or to be sent.
#[derive(Clone)]
pub struct Datagram {
    pub data: [u8; DATAGRAM],
    pub length: usize,
    pub peer: Peer,
    pub local: Local,
}

/// The peer's socket address, as the kernel writes it.
#[derive(Clone, Copy)]
pub struct Peer {
    address: libc::sockaddr_in6,
    length: libc::socklen_t,
}

/// The local address that a datagram was sent to, on a wildcard socket. The response must have it as its
/// source address (RFC 2181 4).
#[derive(Clone, Copy)]
pub enum Local {
    /// The socket is bound to one address.
    Bound,
    V4(Ipv4Addr),
    V6(Ipv6Addr, u32),
}

impl Peer {
    pub fn none() -> Peer {
        // SAFETY: sockaddr_in6 is made of integers; all zeros is a value.
        Peer { address: unsafe { zeroed() }, length: 0 }
    }

    /// The peer's address and port. `None` if the address family is not served.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match i32::from(self.address.sin6_family) {
            libc::AF_INET => {
                // SAFETY: for this family, the kernel wrote a sockaddr_in. It is smaller than
                // sockaddr_in6 and needs no stricter alignment.
                let v4 = unsafe { *(&raw const self.address).cast::<libc::sockaddr_in>() };
                let address = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Some(SocketAddr::new(IpAddr::V4(address), u16::from_be(v4.sin_port)))
            }
            libc::AF_INET6 => {
                let address = Ipv6Addr::from(self.address.sin6_addr.s6_addr);
                Some(SocketAddr::new(IpAddr::V6(address), u16::from_be(self.address.sin6_port)))
            }
            _ => None,
        }
    }
}

/// A batch of datagrams with the kernel's headers. The pointers in the headers are set before each call,
/// so a batch may be moved.
pub struct Batch {
    pub datagrams: Vec<Datagram>,
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    controls: Vec<Control>,
}

/// A buffer for control messages, aligned as `cmsghdr` requires.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

impl Batch {
    pub fn empty() -> Batch {
        let blank = Datagram { data: [0; DATAGRAM], length: 0, peer: Peer::none(), local: Local::Bound };
        Batch {
            datagrams: vec![blank; BATCH],
            // SAFETY: both consist of integers and pointers, for which zeros are valid.
            headers: (0..BATCH).map(|_| unsafe { zeroed() }).collect(),
            // SAFETY: as above.
            vectors: (0..BATCH).map(|_| unsafe { zeroed() }).collect(),
            controls: vec![Control([0; CONTROL]); BATCH],
        }
    }

    /// Receives at most `limit` datagrams without waiting. Returns their number n; they are in
    /// `datagrams[..n]`. `has_local`: the socket reports the address that each datagram was sent to.
    pub fn receive(&mut self, socket: impl AsFd, has_local: bool, limit: usize) -> io::Result<usize> {
        let limit = limit.min(BATCH);
        for index in 0..limit {
            let datagram = &mut self.datagrams[index];
            self.vectors[index] =
                libc::iovec { iov_base: datagram.data.as_mut_ptr().cast(), iov_len: DATAGRAM };
            let header = &mut self.headers[index].msg_hdr;
            header.msg_iov = &raw mut self.vectors[index];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut datagram.peer.address).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            header.msg_control =
                if has_local { self.controls[index].0.as_mut_ptr().cast() } else { null_mut() };
            header.msg_controllen = if has_local { CONTROL } else { 0 };
            header.msg_flags = 0;
        }
        // SAFETY: every header points to an iovec, a name and a control buffer in `self`, with their
        // real lengths. They do not move during the call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                self.headers.as_mut_ptr(),
                limit as libc::c_uint,
                libc::MSG_DONTWAIT,
                null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for index in 0..received {
            let header = &self.headers[index];
            let datagram = &mut self.datagrams[index];
            let is_truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            datagram.length = if is_truncated { 0 } else { header.msg_len as usize };
            datagram.peer.length = header.msg_hdr.msg_namelen;
            datagram.local = if has_local { local_of(&header.msg_hdr) } else { Local::Bound };
        }
        Ok(received)
    }

    /// Sends `datagrams[..count]`, and returns how many could not be sent. An error affects only one
    /// datagram, unless the socket's buffer is full.
    pub fn send(&mut self, socket: impl AsFd, count: usize) -> usize {
        for index in 0..count {
            let datagram = &mut self.datagrams[index];
            self.vectors[index] =
                libc::iovec { iov_base: datagram.data.as_mut_ptr().cast(), iov_len: datagram.length };
            let header = &mut self.headers[index].msg_hdr;
            header.msg_iov = &raw mut self.vectors[index];
            header.msg_iovlen = 1;
            header.msg_namelen = datagram.peer.length;
            header.msg_name = match datagram.peer.length {
                0 => null_mut(),
                _ => (&raw mut datagram.peer.address).cast(),
            };
            header.msg_flags = 0;
            put_local(header, &mut self.controls[index], datagram.local);
        }
        let (mut done, mut unsent) = (0, 0);
        while done < count {
            // SAFETY: as in `receive`; the range is within the headers.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_fd().as_raw_fd(),
                    self.headers[done..count].as_mut_ptr(),
                    (count - done) as libc::c_uint,
                    0,
                )
            };
            if let Ok(sent @ 1..) = usize::try_from(sent) {
                done += sent;
                continue;
            }
            match io::Error::last_os_error().kind() {
                io::ErrorKind::Interrupted => {}
                // The buffer is full even after the send timeout, so the rest is lost as well.
                io::ErrorKind::WouldBlock => return unsent + count - done,
                _ => (done, unsent) = (done + 1, unsent + 1),
            }
        }
        unsent
    }
}

/// How long the last datagram that was received had waited in this socket; zero if that is unknown. The
/// first call enables the kernel's timestamps.
pub fn waited(socket: impl AsFd) -> Duration {
    let mut arrived = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: this request writes one timespec to the pointer.
    let is_known = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCGSTAMPNS, &raw mut arrived) } == 0;
    // The clock of the kernel's timestamps.
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let nanoseconds = (now.tv_sec - arrived.tv_sec) * 1_000_000_000 + now.tv_nsec - arrived.tv_nsec;
    if is_known { Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0)) } else { Duration::ZERO }
}

/// Prefetches bytes that are about to be read.
pub fn prefetch<T>(address: *const T, bytes: usize) {
    for line in (0..bytes.max(1)).step_by(LINE) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch has no visible effect, and does not fault at any address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(address.cast::<i8>().wrapping_add(line));
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (address, line);
    }
}

/// A vector of this capacity, in huge pages if the kernel has them. Otherwise, each lookup in a large table
/// costs a walk through the page tables, or two in a virtual machine.
pub fn in_huge_pages<T>(capacity: usize) -> Vec<T> {
    let memory = Vec::with_capacity(capacity);
    let start = memory.as_ptr() as usize;
    let (from, to) =
        (start.next_multiple_of(HUGE_PAGE), (start + capacity * size_of::<T>()) & !(HUGE_PAGE - 1));
    if from < to {
        // SAFETY: the range lies within the vector's own memory. The advice changes how it is mapped,
        // not its content. An error has no effect.
        unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_HUGEPAGE) };
    }
    memory
}

/// A file that is mapped read-only. If the file is truncated or its disk fails, the lost bytes read as zeros,
/// and `is_corrupt` returns true.
pub struct Mapping {
    mapping: memmap2::Mmap,
    /// The range of the mapping, for the signal handler.
    place: &'static Mapped,
}

impl Mapping {
    pub fn open(path: &Path) -> io::Result<Mapping> {
        let file = File::open(path)?;
        // SAFETY: the file is never written. It was complete before it got its name, and only this
        // user may access its folder.
        let mapping = unsafe { memmap2::Mmap::map(&file) }?;
        let place = Mapped::enter(mapping.as_ptr() as usize, mapping.len())?;
        Ok(Mapping { mapping, place })
    }

    /// Whether bytes were lost since it was opened.
    pub fn is_corrupt(&self) -> bool {
        self.place.is_corrupt.load(Relaxed)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.mapping
    }

    /// Unmaps its pages. A later read loads them from the page cache or the disk.
    pub fn release_pages(&self) {
        // SAFETY: the mapping is of a file that is never written, so the same bytes are loaded again.
        let _ = unsafe { self.mapping.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    }

    /// Reads all of it from the disk, if the kernel supports that.
    pub fn populate(&self) {
        let _ = self.mapping.advise(memmap2::Advice::PopulateRead);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.place.leave();
    }
}

/// The range of a mapping, for the handler of SIGBUS. A thread that reads a page that the file no longer has gets
/// that signal, which would end the process.
struct Mapped {
    /// 0: free. 1: being added.
    start: AtomicUsize,
    end: AtomicUsize,
    is_corrupt: AtomicBool,
}

/// The largest number of mappings. Each of 64 zones has a few.
const MAPPINGS: usize = 4096;
static MAPPED: [Mapped; MAPPINGS] = [const {
    Mapped { start: AtomicUsize::new(0), end: AtomicUsize::new(0), is_corrupt: AtomicBool::new(false) }
}; MAPPINGS];
/// The previous action for SIGBUS, and the page size.
static PREVIOUS: OnceLock<(libc::sigaction, usize)> = OnceLock::new();

impl Mapped {
    fn enter(start: usize, length: usize) -> io::Result<&'static Mapped> {
        handle_sigbus()?;
        let free = |place: &&Mapped| place.start.compare_exchange(0, 1, AcqRel, Relaxed).is_ok();
        let place = MAPPED.iter().find(free).ok_or(io::ErrorKind::OutOfMemory)?;
        place.is_corrupt.store(false, Relaxed);
        place.end.store(start + length, Relaxed);
        place.start.store(start, Release);
        Ok(place)
    }

    fn leave(&self) {
        self.end.store(0, Relaxed);
        self.start.store(0, Release);
    }

    fn holds(&self, address: usize) -> bool {
        let start = self.start.load(Acquire);
        start > 1 && (start..self.end.load(Relaxed)).contains(&address)
    }
}

/// Installs the handler of SIGBUS at the first mapping.
fn handle_sigbus() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut is_installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if *is_installed {
        return Ok(());
    }
    // SAFETY: sysconf has no preconditions. sigaction consists of integers, for which zeros are valid, and both calls
    // get pointers to whole structures. The first call changes nothing, so the previous action is stored before the
    // handler can run. The handler is safe at any time, see there.
    unsafe {
        let page = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).map_err(io::Error::other)?;
        let mut previous: libc::sigaction = zeroed();
        if libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut previous) != 0 {
            return Err(io::Error::last_os_error());
        }
        let _ = PREVIOUS.set((previous, page));
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = on_sigbus as extern "C" fn(_, _, _) as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        if libc::sigaction(libc::SIGBUS, &raw const action, null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    *is_installed = true;
    Ok(())
}

/// Replaces the lost page of a mapping by zeros, so that the thread that read it continues. Any other SIGBUS has its
/// previous action.
extern "C" fn on_sigbus(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let Some((previous, page)) = PREVIOUS.get() else { return };
    // SAFETY: a signal handler may only use atomics and plain system calls, such as mmap, sigaction and raise. The
    // kernel passes a valid siginfo. The page lies in a range that `Mapping` has mapped read-only, and keeps mapped
    // as long as it is in the table. A thread reads from it at this moment; zeros are valid bytes for it.
    unsafe {
        let address = (*info).si_addr() as usize;
        if (*info).si_code > 0
            && let Some(place) = MAPPED.iter().find(|place| place.holds(address))
        {
            let at = (address & !(page - 1)) as *mut libc::c_void;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            if libc::mmap(at, *page, libc::PROT_READ, flags, -1, 0) == at {
                place.is_corrupt.store(true, Relaxed);
                return;
            }
        }
        // A fault is repeated when this returns, a signal from a process is not.
        libc::sigaction(libc::SIGBUS, previous, null_mut());
        if (*info).si_code <= 0 {
            libc::raise(libc::SIGBUS);
        }
    }
}

/// Asks for short turns of this thread: it then gets the processor sooner when it wakes up, and has the same
/// share of it (sched_runtime in sched_setattr(2), since Linux 6.12).
pub fn shorten_turns(turn: Duration) -> io::Result<()> {
    let size = size_of::<libc::sched_attr>() as u32;
    // SAFETY: sched_attr is made of integers; all zeros is a value.
    let mut attributes = unsafe { zeroed::<libc::sched_attr>() };
    // SAFETY: the kernel writes at most `size` bytes. Thread 0 is this one.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if read != 0 {
        return Err(io::Error::last_os_error());
    }
    attributes.sched_runtime = u64::try_from(turn.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: the kernel only reads it, as many bytes as `size` in it says.
    let written = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if written == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns free heap memory to the kernel, after a large piece of work.
pub fn trim_heap() {
    // SAFETY: it affects only unused memory, and any thread may call it (malloc_trim(3)).
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

fn local_of(header: &libc::msghdr) -> Local {
    // SAFETY: the kernel has filled the control buffer of this header, and the CMSG macros stay within
    // msg_controllen.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: not null, so it points to a whole cmsghdr in the buffer.
        let (level, kind) = unsafe { ((*message).cmsg_level, (*message).cmsg_type) };
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: for this level and type, the kernel writes in_pktinfo.
                let info = unsafe { libc::CMSG_DATA(message).cast::<libc::in_pktinfo>().read_unaligned() };
                return Local::V4(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: for this level and type, the kernel writes in6_pktinfo.
                let info = unsafe { libc::CMSG_DATA(message).cast::<libc::in6_pktinfo>().read_unaligned() };
                return Local::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr), info.ipi6_ifindex);
            }
            // SAFETY: header and message are from the calls above.
            _ => message = unsafe { libc::CMSG_NXTHDR(header, message) },
        }
    }
    Local::Bound
}

fn put_local(header: &mut libc::msghdr, control: &mut Control, local: Local) {
    match local {
        Local::Bound => {
            header.msg_control = null_mut();
            header.msg_controllen = 0;
        }
        Local::V4(address) => {
            // Without an interface: the routing table selects it.
            let source = libc::in_addr { s_addr: u32::from(address).to_be() };
            let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: source };
            put_control(header, control, (libc::IPPROTO_IP, libc::IP_PKTINFO), info);
        }
        Local::V6(address, interface) => {
            // A link-local address is ambiguous without its interface.
            let ipi6_ifindex = if address.is_unicast_link_local() { interface } else { 0 };
            let ipi6_addr = libc::in6_addr { s6_addr: address.octets() };
            let info = libc::in6_pktinfo { ipi6_addr, ipi6_ifindex };
            put_control(header, control, (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), info);
        }
    }
}

fn put_control<T>(header: &mut libc::msghdr, control: &mut Control, kind: (i32, i32), info: T) {
    let size = size_of::<T>() as libc::c_uint;
    header.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: CMSG_SPACE only computes a number.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(size) } as usize;
    assert!(header.msg_controllen <= CONTROL, "room for one pktinfo");
    // SAFETY: the buffer is aligned, and long enough for one message of T, as asserted. So the first
    // header and its data lie within it.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header);
        (*message).cmsg_level = kind.0;
        (*message).cmsg_type = kind.1;
        (*message).cmsg_len = libc::CMSG_LEN(size) as usize;
        libc::CMSG_DATA(message).cast::<T>().write_unaligned(info);
    }
}

/// Duplicates a descriptor that another owner keeps.
pub fn duplicate(descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: this uses no memory, and returns an error if the number is not a descriptor.
    let duplicate = unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 3) };
    if duplicate < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just created it, so it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
}

/// Enables reports of the address that each datagram was sent to.
pub fn report_local(socket: impl AsFd, ipv6: bool) -> io::Result<()> {
    let (level, option) = match ipv6 {
        true => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
        false => (libc::IPPROTO_IP, libc::IP_PKTINFO),
    };
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an int, and its size is passed.
    let done = unsafe {
        let value = (&raw const on).cast();
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, value, size_of::<libc::c_int>() as u32)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
