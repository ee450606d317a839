//! A client's query that waits for an upstream's response.

use std::time::Instant;

use super::shares::Share;
use crate::cache::{Age, CachedResponse, Key};
use crate::message::{Query, Transport};
use crate::name::Name;
use crate::policy::Judges;
use crate::response::{Parser, Response};
use crate::sys::{Local, Peer};

#[derive(Clone)]
pub struct Waiter {
    pub query: Query,
    /// The target of our own CNAME. It is resolved instead of the queried name.
    pub follow: Option<Box<Name>>,
    pub origin: Origin,
    /// The upstream's response to the queried name, if `follow` replaces a blocked target in it.
    pub chain_start: Option<Box<ChainStart>>,
    /// The generation of rules and snapshot that let the name pass, and the zone whose passthru did.
    pub passed: Option<(u64, Option<Judges>)>,
    /// Set while shares are counted (`shares`).
    pub(super) share: Option<Share>,
    /// Restarts because the policy for the name had changed.
    restarts: usize,
}

impl Waiter {
    pub fn new(query: Query, follow: Option<Box<Name>>, origin: Origin) -> Waiter {
        Waiter { query, follow, origin, chain_start: None, passed: None, share: None, restarts: 0 }
    }

    /// The name to resolve.
    pub fn name(&self) -> &Name {
        self.follow.as_deref().unwrap_or(&self.query.name)
    }

    /// The question to resolve.
    pub fn key(&self) -> Key<'_> {
        Key::new(&self.query.head, self.name(), self.query.qtype)
    }

    /// Resolves another name, because the policy has changed. Returns false after too many restarts.
    pub fn restart(&mut self, follow: Option<Box<Name>>) -> bool {
        // A policy that changes more often while one query is outstanding is a fault.
        const RESTARTS: usize = 3;
        self.restarts += 1;
        self.follow = follow;
        self.restarts <= RESTARTS
    }
}

/// A response with a blocked target.
#[derive(Clone)]
pub enum ChainStart {
    Received(Box<[u8]>),
    Cached(CachedResponse, Age),
}

impl ChainStart {
    /// `None` if it is malformed.
    pub fn parse<'a>(&'a self, parser: &'a mut Parser) -> Option<Response<'a>> {
        match self {
            ChainStart::Received(message) => parser.parse(message),
            ChainStart::Cached(cached, _) => cached.parse(parser),
        }
    }
}

/// The destination of the response.
#[derive(Clone, Copy)]
pub enum Origin {
    Udp {
        listener: usize,
        peer: Peer,
        local: Local,
        /// When the query was read.
        read_at: Instant,
    },
    Tcp {
        connection: usize,
        generation: u64,
        read_at: Instant,
    },
    /// No client waits. The response is only cached.
    Nobody,
}

impl Origin {
    /// The transport of the query; UDP if no client waits.
    pub fn transport(&self) -> Transport {
        match self {
            Origin::Tcp { .. } => Transport::Tcp,
            Origin::Udp { .. } | Origin::Nobody => Transport::Udp,
        }
    }
}
