//! UDP sockets to upstreams, and so the source ports of queries.
//!
//! An unpredictable port is half of the defence against forged responses (RFC 5452, section 9.2).
//! A socket per query would cost more than the query. So each upstream has a pool of connected
//! sockets. A query uses a random one, and each is soon replaced.

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

/// The most sockets, and so source ports, to one upstream.
const POOL: usize = 256;
/// The pools get one of so many parts of the descriptors.
const PARTS: usize = 4;
/// A socket is replaced after so many queries, or at this age. Under low load, nearly every query
/// has its own port. Under high load, a new socket costs less than 1 % of its queries.
const USES: u32 = 128;
const AGE: Duration = Duration::from_millis(160);

/// Descriptors for files, listeners, metrics and control.
const OTHERS: usize = 32;

/// Descriptors for clients and upstreams.
pub fn descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    limit.saturating_sub(OTHERS)
}

/// Descriptors for one pool, if the process has so many.
pub fn share(pools: usize) -> usize {
    (descriptors() / PARTS / pools.max(1)).max(1)
}

/// The sockets of one worker thread.
pub struct Pool {
    /// By place.
    upstreams: [Option<SocketAddr>; MAX_UPSTREAMS],
    /// Keys of the sockets for new queries, by upstream.
    current: Vec<Vec<usize>>,
    sockets: Slab<PoolSocket>,
    /// Sockets for new queries, per upstream.
    size: usize,
    /// The most sockets, including those that wait for their last responses.
    max: usize,
    poll: Rc<Poll>,
}

pub struct PoolSocket {
    pub socket: UdpSocket,
    /// The upstream's place.
    pub upstream: usize,
    /// Outstanding queries.
    pub ids: Ids,
    uses_left: u32,
    opened_at: Instant,
    is_retired: bool,
}

impl PoolSocket {
    fn is_fresh(&self, now: Instant) -> bool {
        self.uses_left > 0 && now.saturating_duration_since(self.opened_at) < AGE
    }
}

impl Pool {
    pub fn new(servers: &[Server], pools: usize, poll: Rc<Poll>) -> Pool {
        let (upstreams, current) = ([None; MAX_UPSTREAMS], vec![Vec::new(); MAX_UPSTREAMS]);
        let sockets = Slab::new();
        let mut pool = Pool { upstreams, current, sockets, size: 1, max: 1, poll };
        pool.adopt(servers, pools);
        pool
    }

    /// Changes the upstreams. Sockets to removed ones are closed after their last response.
    pub fn adopt(&mut self, servers: &[Server], pools: usize) {
        let share = share(pools);
        (self.size, self.max) = ((share / 2).clamp(1, POOL), share * servers.len());
        let before = std::mem::replace(&mut self.upstreams, [None; MAX_UPSTREAMS]);
        for server in servers {
            self.upstreams[server.place] = Some(server.address);
        }
        for (place, before) in before.into_iter().enumerate() {
            if self.upstreams[place].is_none() {
                (0..self.current[place].len()).rev().for_each(|drawn| self.retire(place, drawn));
            } else if before.is_none() {
                // If this fails, `draw` tries again.
                let _ = self.open(place, Instant::now());
            }
        }
    }

    pub fn get(&self, key: usize) -> Option<&PoolSocket> {
        self.sockets.get(key)
    }

    /// Whether this socket is open, and the key was not reused for another upstream.
    pub fn leads_to(&self, key: usize, upstream: usize) -> bool {
        self.sockets.get(key).is_some_and(|socket| socket.upstream == upstream)
    }

    /// Draws a random socket. Opens one if the pool is not full or the drawn one is old.
    pub fn draw(&mut self, upstream: usize, random: &mut StdRng, now: Instant) -> io::Result<usize> {
        let index = random.random_range(0..self.size);
        let drawn = self.current[upstream].get(index).copied();
        if let Some(key) = drawn.filter(|&key| self.sockets[key].is_fresh(now)) {
            return Ok(key);
        }
        let opened = self.open(upstream, now);
        match (&opened, drawn.or_else(|| self.current[upstream].first().copied())) {
            // Out of descriptors: an old port is better than no response.
            (Err(_), Some(key)) => return Ok(key),
            (Ok(_), _) if drawn.is_some() => self.retire(upstream, index),
            _ => {}
        }
        opened
    }

    /// Closes old sockets. One per upstream stays open for times when descriptors run out.
    pub fn shrink(&mut self, now: Instant) {
        for upstream in 0..MAX_UPSTREAMS {
            for index in (1..self.current[upstream].len()).rev() {
                if !self.sockets[self.current[upstream][index]].is_fresh(now) {
                    self.retire(upstream, index);
                }
            }
        }
    }

    fn open(&mut self, upstream: usize, now: Instant) -> io::Result<usize> {
        if self.sockets.len() >= self.max {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let address = self.upstreams[upstream].ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = connect_udp(address)?;
        let entry = self.sockets.vacant_entry();
        let key = entry.key();
        self.poll.add(&socket, Token::Upstream(key), true, false)?;
        let (ids, uses_left, opened_at, is_retired) = (Ids::default(), USES, now, false);
        entry.insert(PoolSocket { socket, upstream, ids, uses_left, opened_at, is_retired });
        self.current[upstream].push(key);
        Ok(key)
    }

    fn retire(&mut self, upstream: usize, index: usize) {
        let key = self.current[upstream].swap_remove(index);
        self.sockets[key].is_retired = true;
        self.close_if_done(key);
    }

    /// Adds a query of this flight; returns its ID.
    pub fn enter(&mut self, key: usize, flight: usize, random: &mut StdRng) -> u16 {
        let socket = &mut self.sockets[key];
        socket.uses_left = socket.uses_left.saturating_sub(1);
        socket.ids.draw(flight, random)
    }

    /// Removes a query.
    pub fn leave(&mut self, key: usize, id: u16) {
        if let Some(socket) = self.sockets.get_mut(key) {
            socket.ids.remove(id);
            self.close_if_done(key);
        }
    }

    fn close_if_done(&mut self, key: usize) {
        if self.sockets[key].is_retired && self.sockets[key].ids.is_empty() {
            self.sockets.remove(key);
        }
    }
}
