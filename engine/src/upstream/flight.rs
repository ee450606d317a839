//! A question under way: what is asked, who waits for the answer, and where it was sent.

use std::time::Instant;

use super::asker::Asker;
use super::claims::Claim;
use super::health::{Mask, bit};
use super::shares::Share;
use crate::cache::{Age, CachedResponse, Key};
use crate::chain;
use crate::message::{MAX_QUESTION, Query, Transport};
use crate::name::Name;
use crate::response::Parser;
use crate::sys::{Local, Peer};

/// Times a query is sent at most; the configuration may say less.
pub const MAX_ATTEMPTS: usize = 4;

/// A question under way, and who waits for its answer: each question is asked once,
/// however many clients ask it meanwhile.
pub struct Flight {
    pub first: Box<Waiter>,
    pub others: Vec<Box<Waiter>>,
    /// Whose it is, where that is counted.
    pub(super) share: Option<Share>,
    /// Who asks, where upstreams are told.
    pub asker: Option<Asker>,
    /// TCP once an upstream's response did not fit over UDP.
    pub transport: Transport,
    /// A kept answer was there that will do if no other comes.
    pub has_stale: bool,
    /// Whoever waited longest was given that, and so is who comes later.
    pub(super) is_overdue: bool,
    /// The last response is well-formed and unambiguous.
    pub is_sound: bool,
    /// It has parsed the last response.
    pub parser: Option<Box<Parser>>,
    /// How often something had been purged from the cache when this was asked.
    pub purges: u64,
    /// The right to ask, where there are other worker threads.
    pub claim: Option<Claim>,
    /// Another worker thread asks, and will tell.
    pub(super) is_told: bool,
    /// Somebody waits who asks with RD, while this was asked without: then asked anew.
    pub awaits_recursion: bool,
    /// `Key::coalescing_hash` of the question.
    pub(super) question: u64,
    /// Tells it from another flight in the same place.
    pub(super) number: u64,
    pub(super) attempts: usize,
    pub(super) began_at: Instant,
    /// The network returned the latest attempt, or nobody was there to send it to.
    pub(super) is_unreachable: bool,
    /// Until when it waits for an upstream that can be reached, once it has begun to.
    pub(super) held_until: Option<Instant>,
    /// There is nobody left to ask.
    pub(super) is_lost: bool,
    /// An upstream's SERVFAIL, which is given where another upstream has nothing better.
    pub failure: Option<Box<[u8]>>,
    /// An upstream would not answer it, or failed to; another was asked.
    pub(super) was_refused: bool,
    pub(super) routes: [Option<Route>; MAX_ATTEMPTS],
    pub(super) asked: Mask,
    /// The upstreams that may have refused its OPT: sent there without.
    pub(super) without_opt: Mask,
    /// The upstream of the latest attempt, until that is known to have failed.
    pub(super) blame: Option<usize>,
    /// When the latest attempt was sent.
    pub(super) sent_at: Option<Instant>,
    /// Tells the deadline of this attempt from those of earlier ones.
    pub(super) stamp: u64,
}

/// An answer that was asked for: the flight, and where the message stands.
pub type Arrived<M> = Vec<(Flight, M)>;

/// A query that waits for an upstream's answer.
#[derive(Clone)]
pub struct Waiter {
    pub query: Query,
    /// Asks about this name instead: where a CNAME of ours leads.
    pub follow: Option<Box<Name>>,
    pub origin: Origin,
    /// What an upstream said to the query itself, where `follow` takes the place of where that leads.
    pub led: Option<Box<Led>>,
    /// Whose it is, where that is counted.
    pub(super) share: Option<Share>,
    /// Times that it began anew because the policy for its name had changed.
    restarts: usize,
}

impl Waiter {
    pub fn new(query: Query, follow: Option<Box<Name>>, origin: Origin) -> Waiter {
        Waiter { query, follow, origin, led: None, share: None, restarts: 0 }
    }

    /// The name that is asked about.
    pub fn name(&self) -> &Name {
        self.follow.as_deref().unwrap_or(&self.query.name)
    }

    /// The question that it waits for.
    pub fn key(&self) -> Key<'_> {
        Key::new(&self.query.head, self.name(), self.query.qtype)
    }

    /// Begins anew because what is to be asked has changed; false where that has
    /// happened too often.
    pub fn begin_anew(&mut self, follow: Option<Box<Name>>) -> bool {
        // A policy that changes more often while one query is under way is a fault.
        const RESTARTS: usize = 3;
        self.restarts += 1;
        self.follow = follow;
        self.restarts <= RESTARTS
    }
}

/// A response that leads to what is blocked.
#[derive(Clone)]
pub enum Led {
    Now(Box<[u8]>),
    Before(CachedResponse, Age),
}

/// Where the answer goes.
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
    /// Into the cache alone.
    Nobody,
}

impl Origin {
    /// What the query came over; as UDP where no client waits.
    pub fn transport(&self) -> Transport {
        match self {
            Origin::Tcp { .. } => Transport::Tcp,
            Origin::Udp { .. } | Origin::Nobody => Transport::Udp,
        }
    }
}

/// One sending of a flight. An answer to an earlier one is still welcome.
#[derive(Clone, Copy)]
pub struct Route {
    pub channel: Channel,
    pub upstream: usize,
    pub id: u16,
    pub has_opt: bool,
    pub sent_at: Instant,
}

/// A socket or a connection towards an upstream, by its key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    Socket(usize),
    Stream(usize),
}

impl Flight {
    pub fn new(first: Box<Waiter>, has_stale: bool, purges: u64, now: Instant) -> Flight {
        Flight {
            first,
            others: Vec::new(),
            share: None,
            asker: None,
            transport: Transport::Udp,
            has_stale,
            is_overdue: false,
            is_sound: false,
            parser: None,
            purges,
            claim: None,
            is_told: false,
            awaits_recursion: false,
            question: 0,
            number: 0,
            attempts: 0,
            began_at: now,
            is_unreachable: false,
            held_until: None,
            is_lost: false,
            failure: None,
            was_refused: false,
            routes: [None; MAX_ATTEMPTS],
            asked: 0,
            without_opt: 0,
            blame: None,
            sent_at: None,
            stamp: 0,
        }
    }

    /// Whether anybody waits for the answer.
    pub fn is_awaited(&self) -> bool {
        !matches!(self.first.origin, Origin::Nobody) || !self.others.is_empty()
    }

    pub(super) fn note_attempt(&mut self, upstream: usize) {
        self.attempts += 1;
        self.asked |= bit(upstream);
    }

    pub(super) fn route_over(&self, channel: Channel) -> Option<&Route> {
        self.routes.iter().flatten().find(|route| route.channel == channel)
    }

    /// A place for a route over this channel: one over the same is replaced, else
    /// the oldest where none is free.
    pub(super) fn place_for(&self, channel: Channel) -> usize {
        let same = |route: &Option<Route>| route.is_some_and(|route| route.channel == channel);
        let free = || self.routes.iter().position(Option::is_none);
        self.routes.iter().position(same).or_else(free).unwrap_or(0)
    }

    /// Whether nothing was sent after this route.
    pub(super) fn ends_with(&self, route: &Route) -> bool {
        self.routes.iter().flatten().all(|other| other.sent_at <= route.sent_at)
    }

    /// Parses a response. `parsers` holds those that are not in use.
    pub(super) fn parse(&mut self, message: &[u8], parsers: &mut Vec<Box<Parser>>) {
        let mut parser = self.parser.take().or_else(|| parsers.pop()).unwrap_or_default();
        let response = parser.parse(message);
        self.is_sound = response.is_some_and(|response| chain::is_unambiguous(response, self.first.name()));
        self.parser = Some(parser);
    }

    /// The question as it is asked upstream.
    pub(super) fn asked_question<'a>(&'a self, buffer: &'a mut [u8; MAX_QUESTION]) -> &'a [u8] {
        let question = self.first.query.head.question();
        let Some(target) = &self.first.follow else { return question };
        let (name, type_and_class) = (target.suffix(0), &question[question.len() - 4..]);
        buffer[..name.len()].copy_from_slice(name);
        buffer[name.len()..name.len() + 4].copy_from_slice(type_and_class);
        &buffer[..name.len() + 4]
    }
}
