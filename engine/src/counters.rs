//! Counters. Each worker thread has its own, and readers sum them. Since a counter has one writer,
//! counting costs a load and a store, and threads share no cache line.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::message::{Transport, rcode};
use crate::notify;
use crate::outcome::Outcome;
use crate::policy::Action;

/// The maximum number of policy zones in a snapshot, as in BIND.
pub const MAX_ZONES: usize = 64;
/// The names of policy zones that have their own counters during the life of a process.
pub const MAX_ZONE_SLOTS: usize = 256;

/// The number of counters of orders. Counter 0 is of no order.
pub const ORDERS: usize = 1 << 14;

/// Upper bounds of the latency histogram's buckets, in seconds.
pub const LATENCY_BOUNDS: [f64; 12] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// The same for the response times to clients, most of which are microseconds.
pub const RESPONSE_BOUNDS: [f64; 16] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0,
];

/// RCODEs of responses to clients (RFC 6895 section 2.3), in the order of `rcode_index`.
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

/// The index of a response's RCODE. Extended RCODEs have their upper bits in the OPT record; we send them only with
/// certain outcomes.
fn rcode_index(response: &[u8], outcome: Outcome) -> usize {
    const BADVERS: usize = 16;
    const BADCOOKIE: usize = 17;
    let low = response.get(3).map_or(0, |flags| flags & 0x0f);
    match outcome {
        Outcome::BadVersion => BADVERS,
        Outcome::Local | Outcome::Limited if low == (rcode::BADCOOKIE & 0x0f) as u8 => BADCOOKIE,
        _ => usize::from(low),
    }
}

/// The source of a response.
#[derive(Clone, Copy)]
pub enum ResponseFrom {
    /// Policy, cache, local names, errors: no wait.
    Here,
    /// After an upstream query.
    Upstream,
}

/// Labels in the order of `ResponseFrom`.
pub const RESPONSE_SOURCES: [&str; 2] = ["here", "upstream"];

/// Response times, from reading the query.
#[derive(Default)]
pub struct ResponseTimes {
    pub buckets: [Counter; RESPONSE_BOUNDS.len() + 1],
    pub nanoseconds: Counter,
}

/// A counter that only one thread writes.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, more: u64) {
        // Not fetch_add: there is no other writer, and a locked instruction is expensive.
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Labels of outcomes, in the order of `outcome_index`.
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

fn outcome_index(outcome: Outcome) -> usize {
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

/// The result for a query or an error response over its client's limit.
#[derive(Clone, Copy)]
pub enum Slip {
    Dropped,
    Truncated,
    BadCookie,
}

/// Why a query is not sent to an upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// The maximum number of queries is outstanding.
    Full,
    /// Its domain has used its share.
    Domain,
    /// Its client has used its share.
    Client,
}

/// Labels in the order of `Refused`.
pub const REFUSED: [&str; 3] = ["full", "domain", "client"];

/// Labels of the limits that closed a new TCP connection.
pub const TCP_REFUSED: [&str; 2] = ["client", "network"];

/// Labels in the order of `Slip`.
pub const SLIPS: [&str; 3] = ["dropped", "truncated", "bad_cookie"];

/// The counters of one worker thread. No other thread writes to their cache lines.
#[repr(align(128))]
pub struct Counters {
    /// By transport (UDP, TCP), then outcome.
    pub queries: [[Counter; OUTCOMES.len()]; 2],
    /// By the zone's slot, then action.
    blocked: Vec<[Counter; Action::ALL.len()]>,
    /// Blocked queries, by the counter of the order that blocks.
    orders: Vec<Counter>,
    /// The same for shadow zones: what they would have blocked.
    shadow_blocked: Vec<[Counter; Action::ALL.len()]>,
    /// Queries that were decided during an impact run.
    pub impact_queries: Counter,
    pub upstreams: Vec<UpstreamCounters>,
    pub tcp_connections: Counter,
    /// New connections that were closed, in the order of `TCP_REFUSED`.
    pub tcp_refused: [Counter; TCP_REFUSED.len()],
    pub outstanding: Counter,
    pub panics: Counter,
    /// Responses that the kernel refused.
    pub unsent: Counter,
    /// Responses over UDP with TC set.
    pub truncated: Counter,
    /// Records of upstreams' responses that were dropped.
    pub dropped_records: Counter,
    pub limited: [Counter; SLIPS.len()],
    /// Responses to clients, by RCODE.
    pub rcodes: [Counter; RCODES.len()],
    /// Their response times, by source.
    pub response_times: [ResponseTimes; RESPONSE_SOURCES.len()],
    /// Queries that were coalesced with an outstanding one.
    pub joined: Counter,
    /// Prefetches of cached responses.
    pub prefetched: Counter,
    /// NOTIFYs, in the order of `notify::RESULTS`.
    pub notifies: [Counter; notify::RESULTS.len()],
    /// Queries that were not sent to an upstream, in the order of `Refused`.
    pub refused: [Counter; REFUSED.len()],
    /// Messages that were not sent by dnstap, since the queue was full.
    pub dnstap_dropped: Counter,
}

/// The counters of one worker thread for one upstream.
#[derive(Default)]
pub struct UpstreamCounters {
    pub udp_queries: Counter,
    pub tcp_queries: Counter,
    pub timeouts: Counter,
    pub network_errors: Counter,
    /// Responses that match no outstanding query: late or spoofed.
    pub mismatches: Counter,
    /// Queries that were sent to another upstream without a timeout, since this one went down.
    pub failed_over: Counter,
    /// REFUSED, NOTIMP and FORMERR responses that were retried at another upstream.
    pub refused: Counter,
    /// SERVFAIL responses that were retried at another upstream.
    pub failures: Counter,
    pub latency_buckets: [Counter; LATENCY_BOUNDS.len() + 1],
    pub latency_nanoseconds: Counter,
}

impl Counters {
    pub fn new(upstreams: usize) -> Counters {
        Counters {
            queries: Default::default(),
            blocked: (0..MAX_ZONE_SLOTS).map(|_| Default::default()).collect(),
            orders: (0..ORDERS).map(|_| Counter::default()).collect(),
            shadow_blocked: (0..MAX_ZONE_SLOTS).map(|_| Default::default()).collect(),
            impact_queries: Counter::default(),
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
            response_times: Default::default(),
            joined: Counter::default(),
            prefetched: Counter::default(),
            notifies: Default::default(),
            refused: Default::default(),
            dnstap_dropped: Counter::default(),
        }
    }

    /// Counts the outcome of a query. `slots` maps the zones of the snapshot to counters.
    pub fn count(&self, transport: Transport, outcome: Outcome, slots: &[u16]) {
        self.queries[transport as usize][outcome_index(outcome)].add(1);
        if let Outcome::Blocked { zone, action, order } = outcome {
            let slot = slots.get(zone).copied().unwrap_or(0);
            self.blocked[usize::from(slot)][action as usize].add(1);
            self.orders[usize::from(order)].add(1);
        }
    }

    /// Counts a response that is sent to a client.
    pub fn count_response(&self, response: &[u8], outcome: Outcome) {
        self.rcodes[rcode_index(response, outcome)].add(1);
    }

    /// Counts a number of responses with the same response time.
    pub fn count_response_times(&self, from: ResponseFrom, time: Duration, responses: u64) {
        let (seconds, times) = (time.as_secs_f64(), &self.response_times[from as usize]);
        let bucket = RESPONSE_BOUNDS.iter().position(|bound| seconds <= *bound);
        times.buckets[bucket.unwrap_or(RESPONSE_BOUNDS.len())].add(responses);
        times.nanoseconds.add(time.as_nanos() as u64 * responses);
    }

    /// Counts what a shadow zone would have done.
    pub fn count_shadow(&self, slot: u16, action: Action) {
        self.shadow_blocked[usize::from(slot)][action as usize].add(1);
    }

    pub fn blocked(&self, slot: usize, action: usize) -> u64 {
        self.blocked[slot][action].get()
    }

    /// Queries that an order has blocked.
    pub fn of_order(&self, counter: usize) -> u64 {
        self.orders[counter].get()
    }

    pub fn shadow_blocked(&self, slot: usize, action: usize) -> u64 {
        self.shadow_blocked[slot][action].get()
    }
}

impl UpstreamCounters {
    /// Resets them for another upstream with the same index. No thread may count meanwhile.
    pub fn reset(&self) {
        let UpstreamCounters {
            udp_queries,
            tcp_queries,
            timeouts,
            network_errors,
            mismatches,
            failed_over,
            refused,
            failures,
            latency_buckets,
            latency_nanoseconds,
        } = self;
        let counters =
            [udp_queries, tcp_queries, timeouts, network_errors, mismatches, failed_over, refused, failures];
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
