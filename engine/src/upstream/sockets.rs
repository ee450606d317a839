//! UDP sockets towards upstreams: which source port a query leaves from.
//!
//! A port that cannot be guessed is half of the defence against forged answers
//! (RFC 5452 9.2); a socket of its own for each query would cost more than the
//! query. So there is a pool of connected sockets for each upstream; one is
//! drawn at random, and each is soon replaced.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use slab::Slab;

use super::choice::Server;
use super::health::MAX_UPSTREAMS;
use super::ids::Ids;
use crate::transport::poll::{Poll, Token};
use crate::transport::sockets::connect_udp;

/// Sockets, and so source ports, that are open towards one upstream at most.
const POOL: usize = 256;
/// Of these descriptors, the part for all pools.
const SHARE: usize = 4;
/// Queries sent through one socket, and its age, before another port takes its
/// place: under little load that is a port for nearly every query, under much
/// load a new socket costs less than a hundredth of what goes through it.
const USES: u32 = 128;
const AGE: Duration = Duration::from_millis(160);

/// Descriptors that this process has for files, listeners, metrics and control.
const OTHERS: usize = 32;

/// Descriptors that this process may have for clients and upstreams.
pub fn descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    limit.saturating_sub(OTHERS)
}

/// Descriptors for the sockets towards one upstream; `pools` is how many such there
/// will be in the process, so that some are left for everything else.
pub fn share(pools: usize) -> usize {
    (descriptors() / SHARE / pools.max(1)).max(1)
}

/// The sockets of one worker thread.
pub struct Pool {
    /// By place.
    upstreams: [Option<SocketAddr>; MAX_UPSTREAMS],
    /// Keys of the sockets that are drawn from, by upstream.
    drawn_from: Vec<Vec<usize>>,
    sockets: Slab<PoolSocket>,
    /// Sockets that are drawn from, for each upstream.
    size: usize,
    /// All there may be, with those that wait for the last answers.
    most: usize,
    poll: Rc<Poll>,
}

pub struct PoolSocket {
    pub socket: UdpSocket,
    /// Place of the upstream.
    pub upstream: usize,
    /// Queries whose answers are still welcome here.
    pub ids: Ids,
    uses_left: u32,
    opened_at: Instant,
    retired: bool,
}

impl PoolSocket {
    fn is_fresh(&self, now: Instant) -> bool {
        self.uses_left > 0 && now.saturating_duration_since(self.opened_at) < AGE
    }
}

impl Pool {
    pub fn new(servers: &[Server], pools: usize, poll: Rc<Poll>) -> Pool {
        let (upstreams, drawn_from) = ([None; MAX_UPSTREAMS], vec![Vec::new(); MAX_UPSTREAMS]);
        let sockets = Slab::new();
        let mut pool = Pool { upstreams, drawn_from, sockets, size: 1, most: 1, poll };
        pool.adopt(servers, pools);
        pool
    }

    /// Leads to these upstreams from now on. Sockets towards others are closed once no
    /// answer is waited for there.
    pub fn adopt(&mut self, servers: &[Server], pools: usize) {
        let share = share(pools);
        (self.size, self.most) = ((share / 2).clamp(1, POOL), share * servers.len());
        let before = std::mem::replace(&mut self.upstreams, [None; MAX_UPSTREAMS]);
        for server in servers {
            self.upstreams[server.place] = Some(server.address);
        }
        for (place, before) in before.into_iter().enumerate() {
            if self.upstreams[place].is_none() {
                (0..self.drawn_from[place].len()).rev().for_each(|drawn| self.retire(place, drawn));
            } else if before.is_none() {
                // Where there is no way to it now, there may be one when it is asked.
                let _ = self.open(place, Instant::now());
            }
        }
    }

    pub fn get(&self, key: usize) -> Option<&PoolSocket> {
        self.sockets.get(key)
    }

    /// Whether the socket is there, and no other in its place.
    pub fn leads_to(&self, key: usize, upstream: usize) -> bool {
        self.sockets.get(key).is_some_and(|socket| socket.upstream == upstream)
    }

    /// Draws a socket towards an upstream, filling the pool up first.
    pub fn draw(&mut self, upstream: usize, random: &mut StdRng, now: Instant) -> io::Result<usize> {
        let place = random.random_range(0..self.size);
        let drawn = self.drawn_from[upstream].get(place).copied();
        if let Some(key) = drawn.filter(|&key| self.sockets[key].is_fresh(now)) {
            return Ok(key);
        }
        let opened = self.open(upstream, now);
        match (&opened, drawn.or_else(|| self.drawn_from[upstream].first().copied())) {
            // Out of descriptors: an old port is better than no answer.
            (Err(_), Some(key)) => return Ok(key),
            (Ok(_), _) if drawn.is_some() => self.retire(upstream, place),
            _ => {}
        }
        opened
    }

    /// Closes what has grown old, so that nothing stays open that nobody uses; but
    /// for one socket to each upstream, which is there when descriptors are not.
    pub fn shrink(&mut self, now: Instant) {
        for upstream in 0..MAX_UPSTREAMS {
            for place in (1..self.drawn_from[upstream].len()).rev() {
                if !self.sockets[self.drawn_from[upstream][place]].is_fresh(now) {
                    self.retire(upstream, place);
                }
            }
        }
    }

    fn open(&mut self, upstream: usize, now: Instant) -> io::Result<usize> {
        if self.sockets.len() >= self.most {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let address = self.upstreams[upstream].ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = connect_udp(address)?;
        let entry = self.sockets.vacant_entry();
        let key = entry.key();
        self.poll.add(&socket, Token::Upstream(key), true, false)?;
        let (ids, uses_left, opened_at, retired) = (Ids::default(), USES, now, false);
        entry.insert(PoolSocket { socket, upstream, ids, uses_left, opened_at, retired });
        self.drawn_from[upstream].push(key);
        Ok(key)
    }

    fn retire(&mut self, upstream: usize, place: usize) {
        let key = self.drawn_from[upstream].swap_remove(place);
        self.sockets[key].retired = true;
        self.close_if_done(key);
    }

    /// Notes that a query of this flight leaves through the socket; returns its id.
    pub fn enter(&mut self, key: usize, flight: usize, random: &mut StdRng) -> u16 {
        let socket = &mut self.sockets[key];
        socket.uses_left = socket.uses_left.saturating_sub(1);
        socket.ids.draw(flight, random)
    }

    /// Notes that no answer is waited for any more for this id.
    pub fn leave(&mut self, key: usize, id: u16) {
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.ids.remove(id);
            self.close_if_done(key);
        }
    }

    fn close_if_done(&mut self, key: usize) {
        if self.sockets[key].retired && self.sockets[key].ids.is_empty() {
            self.sockets.remove(key);
        }
    }
}
