//! Waits for events of many sockets (epoll, level-triggered). A `Token` names the source of an event.
//!
//! The busy sockets, which carry nearly all queries, and the epoll itself are waited for with poll(2).
//! For a socket in an epoll, the kernel takes two locks for every datagram that is sent. These
//! took 5 % of the time of a blocked response.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags};
use rustix::time::Timespec;

/// Events taken in one turn.
const EVENTS: usize = 128;

/// The source of an event. The numbers are keys in the table of the module that owns the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// The eventfd that other threads write to.
    Wake,
    /// A UDP socket that clients send to.
    Udp(usize),
    /// A TCP socket that accepts clients.
    Accept(usize),
    /// A TCP connection of a client, and its generation. Events of an earlier connection with the same
    /// key may still be queued.
    Client(usize, u32),
    /// A UDP socket towards an upstream.
    Upstream(usize),
    /// A TCP connection towards an upstream.
    Stream(usize),
}

#[derive(Clone, Copy)]
pub struct Event {
    pub token: Token,
    pub readable: bool,
    pub writable: bool,
    pub broken: bool,
}

pub struct Poll {
    epoll: OwnedFd,
    /// The sockets that poll(2) waits for.
    busy: RefCell<Vec<(OwnedFd, Token)>>,
}

impl Poll {
    pub fn new() -> io::Result<Poll> {
        Ok(Poll { epoll: epoll::create(CreateFlags::CLOEXEC)?, busy: RefCell::default() })
    }

    /// Adds a busy socket, for readable events only.
    pub fn add_busy(&self, socket: impl AsFd, token: Token) -> io::Result<()> {
        self.busy.borrow_mut().push((socket.as_fd().try_clone_to_owned()?, token));
        Ok(())
    }

    pub fn remove_busy(&self, token: Token) {
        self.busy.borrow_mut().retain(|(_, other)| *other != token);
    }

    pub fn add(&self, socket: impl AsFd, token: Token, readable: bool, writable: bool) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(encode(token)), flags(readable, writable))?)
    }

    pub fn change(&self, socket: impl AsFd, token: Token, readable: bool, writable: bool) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(encode(token)), flags(readable, writable))?)
    }

    /// Only needed if the socket stays open: a socket that is closed is removed automatically.
    pub fn remove(&self, socket: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, socket)?)
    }

    /// Waits for events, at most for `timeout`.
    pub fn wait(&self, timeout: Duration) -> io::Result<Vec<Event>> {
        let busy = self.busy.borrow();
        let sockets = busy.iter().map(|(socket, _)| socket).chain([&self.epoll]);
        let mut waiting: Vec<_> = sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        match rustix::event::poll(&mut waiting, Some(&timespec(timeout))) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let is_ready = |socket: &PollFd<'_>| !socket.revents().is_empty();
        let ready = waiting.iter().zip(&*busy).filter(|(socket, _)| is_ready(socket));
        let event = |(_, (_, token)): (_, &(_, Token))| Event {
            token: *token,
            readable: true,
            writable: false,
            broken: false,
        };
        let mut events: Vec<Event> = ready.map(event).collect();
        if waiting.last().is_some_and(is_ready) {
            events.extend(self.take()?);
        }
        Ok(events)
    }

    /// The events of the sockets in the epoll.
    fn take(&self) -> io::Result<Vec<Event>> {
        let mut events = Vec::with_capacity(EVENTS);
        let now = timespec(Duration::ZERO);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&now)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let event = |event: &epoll::Event| {
            // Copied, since the kernel's structure is packed.
            let (flags, data) = (event.flags, event.data);
            Event {
                token: decode(data.u64()),
                readable: flags.contains(EventFlags::IN),
                writable: flags.contains(EventFlags::OUT),
                broken: flags.intersects(EventFlags::ERR | EventFlags::HUP),
            }
        };
        Ok(events.iter().map(event).collect())
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) }
}

fn flags(readable: bool, writable: bool) -> EventFlags {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN, readable);
    flags.set(EventFlags::OUT, writable);
    flags
}

const KIND: u32 = 56;
/// Bits of a client's key, below its generation.
const PLACE: u32 = 32;
const GENERATION: usize = (1 << (KIND - PLACE)) - 1;

impl Token {
    /// The token of a client's connection.
    pub fn client(place: usize, generation: u64) -> Token {
        Token::Client(place, (generation as usize & GENERATION) as u32)
    }
}

fn encode(token: Token) -> u64 {
    let (kind, place) = match token {
        Token::Wake => (0, 0),
        Token::Udp(place) => (1, place),
        Token::Accept(place) => (2, place),
        Token::Client(place, generation) => (3, place | (generation as usize & GENERATION) << PLACE),
        Token::Upstream(place) => (4, place),
        Token::Stream(place) => (5, place),
    };
    (kind << KIND) | place as u64
}

fn decode(data: u64) -> Token {
    let place = (data & ((1 << KIND) - 1)) as usize;
    match data >> KIND {
        1 => Token::Udp(place),
        2 => Token::Accept(place),
        3 => Token::Client(place & ((1 << PLACE) - 1), (place >> PLACE) as u32),
        4 => Token::Upstream(place),
        5 => Token::Stream(place),
        _ => Token::Wake,
    }
}
