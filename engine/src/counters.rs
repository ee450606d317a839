//! Counters: each worker thread has its own, and whoever reads sums them. A
//! counter has one writer, so counting costs a load and a store, and no cache
//! line travels between threads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::message::{Transport, rcode};
use crate::outcome::Outcome;
use crate::policy::Action;

/// Policy zones of one snapshot at most, as many as BIND allows.
pub const MAX_ZONES: usize = 64;
/// Names of policy zones, over the life of a process, that are counted apart.
pub const MAX_ZONE_SLOTS: usize = 256;

/// Upper bounds of the latency histogram's buckets, in seconds.
pub const LATENCY_BOUNDS: [f64; 12] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// The same of the time in which clients are answered; most of it takes microseconds.
pub const RESPONSE_BOUNDS: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0,
];

/// RCODEs of responses to clients (RFC 6895 section 2.3), in the order of `rcode_place`.
pub const RCODES: [&str; 18] = [
    "NOERROR",
    "FORMERR",
    "SERVFAIL",
    "NXDOMAIN",
    "NOTIMP",
    "REFUSED",
    "YXDOMAIN",
    "YXRRSET",
    "NXRRSET",
    "NOTAUTH",
    "NOTZONE",
    "DSOTYPENI",
    "12",
    "13",
    "14",
    "15",
    "BADVERS",
    "BADCOOKIE",
];

/// The place of a response's RCODE. An extended one has its upper bits in the OPT record; ours are told by
/// what was answered.
fn rcode_place(response: &[u8], outcome: Outcome) -> usize {
    const BADVERS: usize = 16;
    const BADCOOKIE: usize = 17;
    let low = response.get(3).map_or(0, |flags| flags & 0x0f);
    match outcome {
        Outcome::BadVersion => BADVERS,
        Outcome::Local | Outcome::Limited if low == (rcode::BADCOOKIE & 0x0f) as u8 => BADCOOKIE,
        _ => usize::from(low),
    }
}

/// Who made a response, as it is called in metrics.
#[derive(Clone, Copy)]
pub enum ResponseFrom {
    /// Policy, cache, local names, refusals: at once.
    Here,
    /// After an upstream was asked.
    Upstream,
}

/// In the order of `ResponseFrom`.
pub const FROM: [&str; 2] = ["here", "upstream"];

/// How long clients waited, from the moment at which a query was read.
#[derive(Default)]
pub struct Waited {
    pub buckets: [Counter; RESPONSE_BOUNDS.len() + 1],
    pub nanoseconds: Counter,
}

/// One number with one writing thread.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, more: u64) {
        // Not fetch_add: nobody else writes, and a locked instruction is dear.
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How a query's end is called in metrics, in the order of `outcome_place`.
pub const OUTCOMES: [&str; 14] = [
    "blocked",
    "forwarded",
    "cached",
    "stale",
    "local",
    "failed",
    "refused",
    "malformed",
    "not_implemented",
    "bad_version",
    "dropped",
    "late",
    "limited",
    "overloaded",
];

fn outcome_place(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Blocked { .. } => 0,
        Outcome::Forwarded => 1,
        Outcome::Cached => 2,
        Outcome::Stale => 3,
        Outcome::Local => 4,
        Outcome::Failed => 5,
        Outcome::Refused => 6,
        Outcome::Malformed => 7,
        Outcome::NotImplemented => 8,
        Outcome::BadVersion => 9,
        Outcome::Dropped => 10,
        Outcome::Late => 11,
        Outcome::Limited => 12,
        Outcome::Overloaded => 13,
    }
}

/// What becomes of a query or an error answer above its client's limit, as it is
/// called in metrics.
#[derive(Clone, Copy)]
pub enum Slip {
    Dropped,
    Truncated,
    BadCookie,
}

/// Why a query is not sent to an upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// As many queries are outstanding as may be.
    Full,
    /// Its domain has its share.
    Domain,
    /// Its client has its share.
    Client,
}

/// As they are called in metrics, in the order of `Refused`.
pub const REFUSED: [&str; 3] = ["full", "domain", "client"];

/// Who had its share, when a TCP connection was closed at once.
pub const TCP_REFUSED: [&str; 2] = ["client", "network"];

/// In the order of `Slip`.
pub const SLIPS: [&str; 3] = ["dropped", "truncated", "bad_cookie"];

/// What one worker thread has counted. No other one's shares a cache line with it.
#[repr(align(128))]
pub struct Counters {
    /// By transport (UDP, TCP), then outcome.
    pub queries: [[Counter; OUTCOMES.len()]; 2],
    /// By the zone's slot, then action.
    blocked: Vec<[Counter; Action::ALL.len()]>,
    /// The same of zones in shadow, which would have blocked these.
    shadow_blocked: Vec<[Counter; Action::ALL.len()]>,
    /// Queries that were decided while a trial ran.
    pub tried: Counter,
    pub upstreams: Vec<UpstreamCounters>,
    pub tcp_connections: Counter,
    /// Connections closed at once; in the order of `TCP_REFUSED`.
    pub tcp_refused: [Counter; TCP_REFUSED.len()],
    pub outstanding: Counter,
    pub panics: Counter,
    /// Responses that the kernel would not take.
    pub unsent: Counter,
    /// Responses over UDP with TC set.
    pub truncated: Counter,
    /// Records of upstreams' responses that were not passed on.
    pub dropped_records: Counter,
    pub limited: [Counter; SLIPS.len()],
    /// Responses to clients, by RCODE.
    pub rcodes: [Counter; RCODES.len()],
    /// The time to these responses, by who made them.
    pub waited: [Waited; FROM.len()],
    /// Queries that waited for a question that was under way already.
    pub joined: Counter,
    /// Questions that were asked since their answer was about to expire.
    pub prefetched: Counter,
    /// Queries that were not sent, as too much was outstanding; in the order of `Refused`.
    pub refused: [Counter; REFUSED.len()],
}

/// What one worker thread has counted about one upstream.
#[derive(Default)]
pub struct UpstreamCounters {
    pub udp_queries: Counter,
    pub tcp_queries: Counter,
    pub timeouts: Counter,
    pub network_errors: Counter,
    /// Responses that answer nothing we asked there: late, or forged.
    pub mismatches: Counter,
    /// Queries sent to another upstream before their time, as this one was lost.
    pub taken_over: Counter,
    /// Answers that it does not answer such queries; another upstream was asked.
    pub unwilling: Counter,
    /// Answers SERVFAIL; another upstream was asked.
    pub failures: Counter,
    pub latency_buckets: [Counter; LATENCY_BOUNDS.len() + 1],
    pub latency_nanoseconds: Counter,
}

impl Counters {
    pub fn new(upstreams: usize) -> Counters {
        Counters {
            queries: Default::default(),
            blocked: (0..MAX_ZONE_SLOTS).map(|_| Default::default()).collect(),
            shadow_blocked: (0..MAX_ZONE_SLOTS).map(|_| Default::default()).collect(),
            tried: Counter::default(),
            upstreams: (0..upstreams).map(|_| UpstreamCounters::default()).collect(),
            tcp_connections: Counter::default(),
            tcp_refused: Default::default(),
            outstanding: Counter::default(),
            panics: Counter::default(),
            unsent: Counter::default(),
            truncated: Counter::default(),
            dropped_records: Counter::default(),
            limited: Default::default(),
            rcodes: Default::default(),
            waited: Default::default(),
            joined: Counter::default(),
            prefetched: Counter::default(),
            refused: Default::default(),
        }
    }

    /// Counts how one query ended. `slots` gives the slot of each zone of the
    /// snapshot that decided.
    pub fn count(&self, transport: Transport, outcome: Outcome, slots: &[u16]) {
        self.queries[transport as usize][outcome_place(outcome)].add(1);
        if let Outcome::Blocked { zone, action } = outcome {
            let slot = slots.get(zone).copied().unwrap_or(0);
            self.blocked[usize::from(slot)][action as usize].add(1);
        }
    }

    /// Counts a response that is sent to a client.
    pub fn count_response(&self, response: &[u8], outcome: Outcome) {
        self.rcodes[rcode_place(response, outcome)].add(1);
    }

    /// Counts the time of so many responses.
    pub fn count_response_times(&self, from: ResponseFrom, time: Duration, responses: u64) {
        let (seconds, waited) = (time.as_secs_f64(), &self.waited[from as usize]);
        let bucket = RESPONSE_BOUNDS.iter().position(|bound| seconds <= *bound);
        waited.buckets[bucket.unwrap_or(RESPONSE_BOUNDS.len())].add(responses);
        waited.nanoseconds.add(time.as_nanos() as u64 * responses);
    }

    /// Counts what a zone in shadow would have done.
    pub fn count_shadow(&self, slot: u16, action: Action) {
        self.shadow_blocked[usize::from(slot)][action as usize].add(1);
    }

    pub fn blocked(&self, slot: usize, action: usize) -> u64 {
        self.blocked[slot][action].get()
    }

    pub fn shadow_blocked(&self, slot: usize, action: usize) -> u64 {
        self.shadow_blocked[slot][action].get()
    }
}

impl UpstreamCounters {
    /// For another upstream in this place; only while no thread counts here.
    pub fn reset(&self) {
        let UpstreamCounters {
            udp_queries,
            tcp_queries,
            timeouts,
            network_errors,
            mismatches,
            taken_over,
            unwilling,
            failures,
            latency_buckets,
            latency_nanoseconds,
        } = self;
        let counters =
            [udp_queries, tcp_queries, timeouts, network_errors, mismatches, taken_over, unwilling, failures];
        let counters = counters.into_iter().chain(latency_buckets).chain([latency_nanoseconds]);
        counters.for_each(|counter| counter.set(0));
    }

    pub fn answered_after(&self, latency: Duration) {
        let seconds = latency.as_secs_f64();
        let bucket = LATENCY_BOUNDS.iter().position(|bound| seconds <= *bound);
        self.latency_buckets[bucket.unwrap_or(LATENCY_BOUNDS.len())].add(1);
        self.latency_nanoseconds.add(latency.as_nanos() as u64);
    }
}
