//! System calls that no safe library offers: many datagrams in one call, with
//! the address each was sent to. The only file with `unsafe`.
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

/// Datagrams a system call moves at most.
pub const BATCH: usize = 64;
/// Octets of a datagram that are received at most; a longer one is not a query
/// (nor an answer to what we announce), and is dropped.
pub const DATAGRAM: usize = 4096;
/// linux/sockios.h; not in the crate.
const SIOCGSTAMPNS: libc::Ioctl = 0x8907;
const HUGE_PAGE: usize = 2 << 20;
/// Octets of a line of the processor's caches.
const LINE: usize = 64;
/// Room for one IP_PKTINFO or IPV6_PKTINFO message.
const CONTROL: usize = 64;

/// One datagram, received or to be sent.
#[derive(Clone)]
pub struct Datagram {
    pub data: [u8; DATAGRAM],
    pub length: usize,
    pub peer: Peer,
    pub local: Local,
}

/// The other end's socket address, as the kernel writes it.
#[derive(Clone, Copy)]
pub struct Peer {
    address: libc::sockaddr_in6,
    length: libc::socklen_t,
}

/// The address of ours that a datagram came to, on a wildcard socket: the
/// response must leave from it (RFC 2181 4).
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

    /// The peer's address and port; `None` for a family we do not serve.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match i32::from(self.address.sin6_family) {
            libc::AF_INET => {
                // SAFETY: the family says that the kernel wrote a sockaddr_in,
                // which is smaller than sockaddr_in6 and has no more alignment.
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

/// A batch of datagrams with the headers the kernel wants. The pointers in the
/// headers are set anew before each call, so moving a batch is harmless.
pub struct Batch {
    pub datagrams: Vec<Datagram>,
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
    controls: Vec<Control>,
}

/// Control message space, aligned as `cmsghdr` asks.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

impl Batch {
    pub fn empty() -> Batch {
        let blank = Datagram { data: [0; DATAGRAM], length: 0, peer: Peer::none(), local: Local::Bound };
        Batch {
            datagrams: vec![blank; BATCH],
            // SAFETY: both are made of integers and pointers; zeros are values.
            headers: (0..BATCH).map(|_| unsafe { zeroed() }).collect(),
            // SAFETY: as above.
            vectors: (0..BATCH).map(|_| unsafe { zeroed() }).collect(),
            controls: vec![Control([0; CONTROL]); BATCH],
        }
    }

    /// Receives what is there, without waiting; `datagrams[..n]` is it.
    ///
    /// `ask_local`: the socket reports the address each datagram came to. `most`: no
    /// more than these, and than a batch.
    pub fn receive(&mut self, socket: impl AsFd, ask_local: bool, most: usize) -> io::Result<usize> {
        let most = most.min(BATCH);
        for index in 0..most {
            let datagram = &mut self.datagrams[index];
            self.vectors[index] =
                libc::iovec { iov_base: datagram.data.as_mut_ptr().cast(), iov_len: DATAGRAM };
            let header = &mut self.headers[index].msg_hdr;
            header.msg_iov = &raw mut self.vectors[index];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut datagram.peer.address).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            header.msg_control =
                if ask_local { self.controls[index].0.as_mut_ptr().cast() } else { null_mut() };
            header.msg_controllen = if ask_local { CONTROL } else { 0 };
            header.msg_flags = 0;
        }
        // SAFETY: every header points at an iovec, a name and a control buffer
        // that live in `self`, with their true lengths; nothing moves meanwhile.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                self.headers.as_mut_ptr(),
                most as libc::c_uint,
                libc::MSG_DONTWAIT,
                null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for index in 0..received {
            let header = &self.headers[index];
            let datagram = &mut self.datagrams[index];
            let cut = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            datagram.length = if cut { 0 } else { header.msg_len as usize };
            datagram.peer.length = header.msg_hdr.msg_namelen;
            datagram.local = if ask_local { local_of(&header.msg_hdr) } else { Local::Bound };
        }
        Ok(received)
    }

    /// Sends `datagrams[..count]`; returns how many the kernel would not take.
    /// One that cannot be sent does not hold up the others.
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
                // No room even after the socket's patience: there is none for
                // the rest either.
                io::ErrorKind::WouldBlock => return unsent + count - done,
                _ => (done, unsent) = (done + 1, unsent + 1),
            }
        }
        unsent
    }
}

/// How long ago the last datagram that was received from this socket came in; zero where
/// that is not known. From the first call on, the kernel notes when each comes.
pub fn waited(socket: impl AsFd) -> Duration {
    let mut came = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: this request writes one timespec to where it is told.
    let known = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCGSTAMPNS, &raw mut came) } == 0;
    // The kernel's clock as the kernel reads it.
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let nanoseconds = (now.tv_sec - came.tv_sec) * 1_000_000_000 + now.tv_nsec - came.tv_nsec;
    if known { Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0)) } else { Duration::ZERO }
}

/// Asks the processor to fetch so many octets from an address on, which are about to
/// be read.
pub fn prefetch<T>(address: *const T, octets: usize) {
    for line in (0..octets.max(1)).step_by(LINE) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch changes nothing that a program could notice, and faults at
        // no address, whatever is there.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(address.cast::<i8>().wrapping_add(line));
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (address, line);
    }
}

/// A vector of this capacity whose memory is in huge pages where the kernel has them:
/// in a large table each look costs a walk through page tables otherwise, and in a
/// virtual machine two.
pub fn in_huge_pages<T>(capacity: usize) -> Vec<T> {
    let memory = Vec::with_capacity(capacity);
    let start = memory.as_ptr() as usize;
    let (from, to) =
        (start.next_multiple_of(HUGE_PAGE), (start + capacity * size_of::<T>()) & !(HUGE_PAGE - 1));
    if from < to {
        // SAFETY: the range lies within the vector's own memory, and the advice changes
        // how that is mapped, not what it holds. Where it is not taken, nothing is lost.
        unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_HUGEPAGE) };
    }
    memory
}

/// A file in memory, read only. If the file is cut off or its disk fails, the octets that are lost read as
/// zeros from then on, and `is_damaged` says so.
pub struct Mapping {
    mapping: memmap2::Mmap,
    /// Where the signal handler finds the range of the mapping.
    place: &'static Mapped,
}

impl Mapping {
    pub fn open(path: &Path) -> io::Result<Mapping> {
        let file = File::open(path)?;
        // SAFETY: what is mapped is never written: it is a file of ours, which had its
        // last octet before it got its name, in a folder that nobody else may enter.
        let mapping = unsafe { memmap2::Mmap::map(&file) }?;
        let place = Mapped::enter(mapping.as_ptr() as usize, mapping.len())?;
        Ok(Mapping { mapping, place })
    }

    /// Whether octets of it were lost since it was opened.
    pub fn is_damaged(&self) -> bool {
        self.place.is_damaged.load(Relaxed)
    }

    pub fn octets(&self) -> &[u8] {
        &self.mapping
    }

    /// Unmaps its pages; whoever reads them has them back from the page cache or the disk.
    pub fn give_back(&self) {
        // SAFETY: the mapping is of a file and nothing is ever written to it, so that the
        // octets that come back are those that were there.
        let _ = unsafe { self.mapping.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    }

    /// Reads all of it from the disk, where that can be asked for.
    pub fn populate(&self) {
        let _ = self.mapping.advise(memmap2::Advice::PopulateRead);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.place.leave();
    }
}

/// The range of a mapping, for the handler of SIGBUS: whoever reads a page that its file no longer has gets that
/// signal, which would end the process.
struct Mapped {
    /// 0: free; 1: being entered.
    start: AtomicUsize,
    end: AtomicUsize,
    is_damaged: AtomicBool,
}

/// Compiled lists of all kinds at the same time; 64 zones have a few each.
const MAPPINGS: usize = 4096;
static MAPPED: [Mapped; MAPPINGS] = [const {
    Mapped { start: AtomicUsize::new(0), end: AtomicUsize::new(0), is_damaged: AtomicBool::new(false) }
}; MAPPINGS];
/// What was done about SIGBUS before, and the size of a page.
static BEFORE: OnceLock<(libc::sigaction, usize)> = OnceLock::new();

impl Mapped {
    fn enter(start: usize, length: usize) -> io::Result<&'static Mapped> {
        handle_sigbus()?;
        let free = |place: &&Mapped| place.start.compare_exchange(0, 1, AcqRel, Relaxed).is_ok();
        let place = MAPPED.iter().find(free).ok_or(io::ErrorKind::OutOfMemory)?;
        place.is_damaged.store(false, Relaxed);
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

/// Sees to SIGBUS from the first mapping on.
fn handle_sigbus() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut is_installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if *is_installed {
        return Ok(());
    }
    // SAFETY: sysconf has no conditions; sigaction is made of integers, and all zeros is a value. Both calls of
    // sigaction get pointers to whole structures. What was done before is known before the handler can run, as
    // the first call changes nothing. The handler itself is safe at any time: see there.
    unsafe {
        let page = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).map_err(io::Error::other)?;
        let mut before: libc::sigaction = zeroed();
        if libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut before) != 0 {
            return Err(io::Error::last_os_error());
        }
        let _ = BEFORE.set((before, page));
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

/// Puts a page of zeros where a mapping has lost one, and lets the thread that read it go on. Any other SIGBUS
/// is treated as it was before.
extern "C" fn on_sigbus(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let Some((before, page)) = BEFORE.get() else { return };
    // SAFETY: this runs as a signal handler, so it calls nothing but what may be called there: loads and stores of
    // atomics, mmap, sigaction and raise, which are plain system calls. The kernel passes a valid siginfo. The page
    // that is replaced lies in a range that `Mapping` has mapped read only and keeps mapped as long as it is
    // entered; somebody reads from it at this moment, and goes on with zeros, which are octets as good as any.
    unsafe {
        let address = (*info).si_addr() as usize;
        if (*info).si_code > 0
            && let Some(place) = MAPPED.iter().find(|place| place.holds(address))
        {
            let at = (address & !(page - 1)) as *mut libc::c_void;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            if libc::mmap(at, *page, libc::PROT_READ, flags, -1, 0) == at {
                place.is_damaged.store(true, Relaxed);
                return;
            }
        }
        // A fault comes again as soon as this returns; a signal that was sent does not.
        libc::sigaction(libc::SIGBUS, before, null_mut());
        if (*info).si_code <= 0 {
            libc::raise(libc::SIGBUS);
        }
    }
}

/// Gives back what a large piece of work has left free in the heap.
pub fn trim_heap() {
    // SAFETY: it touches nothing that is in use (malloc_trim(3)), from any thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

fn local_of(header: &libc::msghdr) -> Local {
    // SAFETY: the kernel has just filled the control buffer this header points
    // at; the CMSG macros stay within msg_controllen.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: not null, so it points at a whole cmsghdr in the buffer.
        let (level, kind) = unsafe { ((*message).cmsg_level, (*message).cmsg_type) };
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: of this level and type, the kernel writes in_pktinfo.
                let info = unsafe { libc::CMSG_DATA(message).cast::<libc::in_pktinfo>().read_unaligned() };
                return Local::V4(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: of this level and type, the kernel writes in6_pktinfo.
                let info = unsafe { libc::CMSG_DATA(message).cast::<libc::in6_pktinfo>().read_unaligned() };
                return Local::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr), info.ipi6_ifindex);
            }
            // SAFETY: header and message are those of the loop.
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
            // No interface: the route decides that, the address is what counts.
            let source = libc::in_addr { s_addr: u32::from(address).to_be() };
            let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: source };
            put_control(header, control, (libc::IPPROTO_IP, libc::IP_PKTINFO), info);
        }
        Local::V6(address, interface) => {
            // A link-local address means nothing without its interface.
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
    // SAFETY: CMSG_SPACE only computes.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(size) } as usize;
    assert!(header.msg_controllen <= CONTROL, "room for one pktinfo");
    // SAFETY: the buffer is aligned and long enough for one message of T, as
    // asserted, so the first header and its data lie within it.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header);
        (*message).cmsg_level = kind.0;
        (*message).cmsg_type = kind.1;
        (*message).cmsg_len = libc::CMSG_LEN(size) as usize;
        libc::CMSG_DATA(message).cast::<T>().write_unaligned(info);
    }
}

/// A descriptor of its own for what this number stands for; the number stays whoever's it is.
pub fn duplicate(descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: this touches no memory, and says so where the number stands for nothing.
    let duplicate = unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 3) };
    if duplicate < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
}

/// Asks the kernel to report the address that each datagram came to.
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
