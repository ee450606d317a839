//! Forwarding: queries under way, which answer is believed, and when another
//! upstream is asked.
//!
//! Against forged answers (RFC 5452 9): ids are drawn at random, so are source
//! ports (`sockets`), the question must come back as it was asked, and what does
//! not fit is counted and ignored while the wait goes on.

use std::collections::VecDeque;
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

pub mod asker;
pub mod choice;
pub mod claims;
mod deadlines;
mod edns;
pub mod flight;
pub mod health;
mod hold;
mod ids;
mod probe;
mod questions;
mod receiving;
pub mod reload;
mod sending;
mod shares;
pub mod sockets;
mod stream;
mod streams;
pub mod watch;

pub use asker::{Asker, Tells};
pub use choice::{Choice, Server};
pub use claims::{Claims, Heard};
pub use flight::{Arrived, Flight, Led, MAX_ATTEMPTS, Origin, Waiter};
pub use health::{Health, MAX_UPSTREAMS};
pub use questions::Join;
pub use watch::Probe;

use choice::Chooser;
use deadlines::Deadline;
use health::Mask;
use hold::Holding;
use questions::Questions;
use sending::Outbox;
use shares::Shares;
use sockets::Pool;
use stream::Stream;

#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    pub servers: Vec<Server>,
    pub choice: Choice,
    pub attempts: usize,
    /// Patience with one attempt.
    pub timeout: Duration,
    /// Queries under way per worker thread.
    pub max_outstanding: usize,
    /// Octets of UDP that our OPT announces.
    pub payload: u16,
    pub tells: Tells,
    pub probe: Option<Probe>,
}

impl Settings {
    /// The places of all upstreams.
    pub fn places(&self) -> Mask {
        self.servers.iter().fold(0, |mask, server| mask | health::bit(server.place))
    }

    /// By what `Health` judges.
    pub fn probes(&self) -> Option<(u32, Duration)> {
        self.probe.as_ref().map(|probe| (probe.failures, probe.interval))
    }

    /// Whether what an upstream answers may depend on who asks.
    pub fn tells_client(&self) -> bool {
        self.tells != Tells::Nothing
    }
}

/// All forwarding of one worker thread.
pub struct Upstreams {
    settings: Arc<Settings>,
    workers: usize,
    health: Arc<Health>,
    /// `Health::losses` as it was when this thread last looked.
    losses: u64,
    chooser: Chooser,
    pool: Pool,
    streams: Slab<Stream>,
    most_streams: usize,
    /// Key of the TCP connection towards each upstream that takes questions.
    stream_of: Vec<Option<usize>>,
    flights: Slab<Flight>,
    questions: Questions,
    holding: Holding,
    shares: Shares,
    /// Questions that two upstreams answered SERVFAIL a moment ago.
    failed_twice: Failures,
    claims: Arc<Claims>,
    /// Which of the worker threads this is.
    thread: usize,
    /// In order of time.
    deadlines: VecDeque<Deadline>,
    /// What waits to be sent to each upstream, and to which something does.
    outboxes: Vec<Outbox>,
    pending: Mask,
    next_stamp: u64,
    random: StdRng,
    poll: Rc<Poll>,
    counters: Arc<Counters>,
    /// Parsers that are not in use.
    pub parsers: Vec<Box<Parser>>,
}

impl Upstreams {
    /// `workers`: worker threads, each of which has sockets towards each upstream;
    /// `thread`: which of them this is.
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
            most_streams: Upstreams::most_streams(settings.servers.len(), sockets::share(pools)),
            settings,
            streams: Slab::new(),
            flights: Slab::new(),
            questions: Questions::default(),
            holding: Holding::new(returns),
            shares: Shares::default(),
            failed_twice: Failures::default(),
            claims,
            thread,
            deadlines: VecDeque::new(),
            outboxes: (0..MAX_UPSTREAMS).map(|_| Outbox::default()).collect(),
            pending: 0,
            next_stamp: 0,
            random: rand::make_rng(),
            poll,
            counters,
            parsers: Vec::new(),
        }
    }

    /// Questions under way, and queries that wait with others for one of them.
    pub fn outstanding(&self) -> usize {
        self.flights.len() + self.questions.joined()
    }

    /// Whether anybody waits for an answer.
    pub fn owes_answers(&self) -> bool {
        self.flights.iter().any(|(_, flight)| flight.is_awaited())
    }

    /// Every query that waits for an answer.
    pub fn for_each_waiter(&self, mut visit: impl FnMut(&Waiter)) {
        for (_, flight) in &self.flights {
            visit(&flight.first);
            flight.others.iter().for_each(|waiter| visit(waiter));
        }
    }

    pub fn tells_client(&self) -> bool {
        self.settings.tells_client()
    }

    /// Takes a question over; it ends in `receive`, `read_stream`, `hear` or `expire`.
    /// False where another worker thread asks it.
    pub fn ask(&mut self, mut flight: Flight, now: Instant) -> bool {
        let is_awaited = flight.is_awaited();
        (flight.claim, flight.is_told) = self.claim_for(&flight, is_awaited);
        let asks = !flight.is_told;
        if !asks && !is_awaited {
            return false;
        }
        self.enter_share(&mut flight);
        let entry = self.flights.vacant_entry();
        let place = entry.key();
        self.questions.enter(place, &mut flight, now);
        entry.insert(flight);
        match asks {
            true => self.attempt(place, now),
            false => self.wait(place, now + self.settings.timeout, now),
        }
        asks
    }

    /// When `expire` or `impatient` has work next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadline = self.deadlines.front().map(|deadline| deadline.at);
        let others = [self.questions.next_deadline(), self.holding.next_look()];
        deadline.into_iter().chain(others.into_iter().flatten()).min()
    }

    /// The configured upstreams that are up.
    fn up(&self) -> Mask {
        self.health.up() & self.chooser.all()
    }

    fn count(&self, upstream: usize) -> &UpstreamCounters {
        &self.counters.upstreams[upstream]
    }
}

/// A lack of descriptors here is no upstream's failure.
fn is_our_own(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}
