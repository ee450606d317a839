//! Forwarding: outstanding queries, retries and failover, and which response is accepted.
//!
//! Against forged responses (RFC 5452, section 9): IDs and source ports are random (`ids`,
//! `sockets`), and a response must repeat the question exactly. Other messages are counted and
//! ignored, and the wait goes on.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use slab::Slab;

use crate::counters::{Counters, UpstreamCounters};
use crate::failures::Failures;
use crate::response::Parser;
use crate::transport::poll::Poll;

pub mod choice;
pub mod claims;
pub mod client_identity;
mod deadlines;
mod delayed;
mod edns;
pub mod flight;
mod flights;
pub mod health;
mod health_check;
mod ids;
mod receiving;
pub mod reload;
mod sending;
mod shares;
pub mod sockets;
mod stream;
mod streams;
mod tries;
pub mod waiter;
pub mod watch;

pub use choice::{Choice, Server};
pub use claims::{ClaimResult, Claims};
pub use client_identity::{ClientAddresses, ClientIdentity};
pub use flight::{Arrived, Flight, Refusal};
pub use flights::Join;
pub use health::{Health, MAX_UPSTREAMS};
pub use health_check::HealthCheck;
pub use tries::MAX_TRIES;
pub use waiter::{ChainStart, Origin, Waiter};

use choice::Chooser;
use deadlines::Deadlines;
use delayed::Delayed;
use flight::State;
use flights::Flights;
use health::Mask;
use sending::Outbox;
use shares::Shares;
use sockets::Pool;
use stream::Stream;

#[derive(Clone, Default, PartialEq, Eq)]
pub struct Settings {
    pub servers: Vec<Server>,
    pub choice: Choice,
    pub tries: usize,
    /// For each try.
    pub timeout: Duration,
    /// Outstanding queries per worker thread.
    pub max_outstanding: usize,
    /// The UDP payload size in our OPT record.
    pub payload: u16,
    pub client_identity: ClientIdentity,
    pub health_check: Option<HealthCheck>,
}

impl Settings {
    /// The places of all upstreams.
    pub fn places(&self) -> Mask {
        self.servers.iter().fold(0, |mask, server| mask | health::bit(server.place))
    }

    pub fn server(&self, place: usize) -> Option<&Server> {
        self.servers.iter().find(|server| server.place == place)
    }

    /// Failed health checks in a row that mark an upstream down, and the interval of the checks.
    pub fn health_rules(&self) -> Option<(u32, Duration)> {
        self.health_check.as_ref().map(|check| (check.failures, check.interval))
    }

    /// Whether an upstream's response may depend on the client.
    pub fn sends_identity(&self) -> bool {
        self.client_identity != ClientIdentity::None
    }
}

/// All forwarding of one worker thread.
pub struct Upstreams {
    settings: Arc<Settings>,
    workers: usize,
    health: Arc<Health>,
    /// `Health::losses` when this thread last failed over.
    losses: u64,
    chooser: Chooser,
    pool: Pool,
    streams: Slab<Stream>,
    max_streams: usize,
    /// Key of the TCP connection to each upstream that new queries use.
    stream_of: Vec<Option<usize>>,
    flights: Flights,
    delayed: Delayed,
    shares: Shares,
    /// Questions for which two upstreams have just returned SERVFAIL.
    failed_twice: Failures,
    claims: Arc<Claims>,
    /// The index of this worker thread.
    thread: usize,
    deadlines: Deadlines,
    /// Datagrams to each upstream that leave together, and the upstreams that have some.
    outboxes: Vec<Outbox>,
    pending: Mask,
    random: StdRng,
    poll: Rc<Poll>,
    counters: Arc<Counters>,
    /// Parsers that are not in use.
    pub parsers: Vec<Box<Parser>>,
}

impl Upstreams {
    /// `workers` is the number of worker threads. Each has sockets to each upstream. `thread` is
    /// the index of this one.
    pub fn new(
        settings: Arc<Settings>,
        workers: usize,
        (claims, thread): (Arc<Claims>, usize),
        health: Arc<Health>,
        poll: Rc<Poll>,
        counters: Arc<Counters>,
    ) -> Upstreams {
        let pools = settings.servers.len() * workers;
        let returns = health.returns();
        Upstreams {
            workers,
            losses: health.losses(),
            health,
            chooser: Chooser::new(settings.choice, &settings.servers),
            pool: Pool::new(&settings.servers, pools, Rc::clone(&poll)),
            stream_of: vec![None; MAX_UPSTREAMS],
            max_streams: Upstreams::max_streams(settings.servers.len(), sockets::share(pools)),
            settings,
            streams: Slab::new(),
            flights: Flights::default(),
            delayed: Delayed::new(returns),
            shares: Shares::default(),
            failed_twice: Failures::default(),
            claims,
            thread,
            deadlines: Deadlines::default(),
            outboxes: (0..MAX_UPSTREAMS).map(|_| Outbox::default()).collect(),
            pending: 0,
            random: rand::make_rng(),
            poll,
            counters,
            parsers: Vec::new(),
        }
    }

    /// Outstanding queries, and client queries that are coalesced with them.
    pub fn outstanding(&self) -> usize {
        self.flights.len() + self.flights.joined
    }

    pub fn has_waiting_clients(&self) -> bool {
        self.flights.iter().any(|(_, flight)| flight.is_awaited())
    }

    /// Visits every query that waits for a response.
    pub fn for_each_waiter(&self, mut visit: impl FnMut(&Waiter)) {
        for (_, flight) in self.flights.iter() {
            visit(&flight.first);
            flight.others.iter().for_each(|waiter| visit(waiter));
        }
    }

    pub fn sends_identity(&self) -> bool {
        self.settings.sends_identity()
    }

    /// Accepts a query. It ends in `receive`, `read_stream`, `take_claim_results` or `expire`.
    /// Returns false if another worker thread has the same question outstanding.
    pub fn ask(&mut self, mut flight: Flight, now: Instant) -> bool {
        let is_awaited = flight.is_awaited();
        flight.set_right(self.claim_for(&flight, is_awaited));
        let is_sent = flight.state != State::OtherThread;
        if !is_sent && !is_awaited {
            return false;
        }
        self.enter_share(&mut flight);
        let key = self.flights.insert(flight, now);
        match is_sent {
            true => self.try_next(key, now),
            false => self.set_deadline(key, now + self.settings.timeout, now),
        }
        is_sent
    }

    /// When `expire` or `overdue` must be called next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [self.deadlines.next(), self.flights.next_overdue(), self.delayed.next_check];
        deadlines.into_iter().flatten().min()
    }

    /// The configured upstreams that are up.
    fn up(&self) -> Mask {
        self.health.up() & self.chooser.all
    }

    fn count(&self, upstream: usize) -> &UpstreamCounters {
        &self.counters.upstreams[upstream]
    }
}

/// This process has too few file descriptors. That is no failure of an upstream.
fn is_our_own(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}
