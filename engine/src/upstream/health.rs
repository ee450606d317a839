//! The health of each upstream: whether it is up, its outstanding queries, and when it last sent
//! anything. All worker threads report here. One thread (`watch`) runs health checks and judges.
//!
//! An upstream is up, suspected (it is silent, and a health check will decide), or down. One that is
//! down may still respond, but with errors.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, fence};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::counters::Counter;
use crate::events::{Events, lock};

mod edns;
mod transitions;

use edns::WithoutEdns;

/// As many as a mask has bits.
pub const MAX_UPSTREAMS: usize = 64;
/// Consecutive failures that mark an upstream down if there are no health checks.
const FAILURES: u32 = 3;
/// How often one query retries an upstream that is down if there are no health checks.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// How long queries are delayed when no upstream is usable any more.
pub const MAX_DELAY: Duration = Duration::from_secs(2);
/// How often upstreams are retried meanwhile, and checked until one answers.
pub const RETRY: Duration = Duration::from_millis(100);

/// A bit for each upstream.
pub type Mask = u64;

pub fn bit(place: usize) -> Mask {
    1 << place
}

/// The places in a mask, in order.
pub fn places(mut mask: Mask) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = mask.trailing_zeros() as usize;
        mask &= mask.wrapping_sub(1);
        (place < MAX_UPSTREAMS).then_some(place)
    })
}

/// There is one for the life of the engine. A reload adds and removes upstreams, and the others keep
/// their health.
pub struct Health {
    since: Instant,
    /// Consecutive failures that mark an upstream down.
    failures: AtomicU32,
    /// How often a query retries an upstream that is down, in nanoseconds.
    retry_interval: AtomicU64,
    /// Whether health checks mark an upstream up again. Otherwise a response to a query does.
    has_checks: AtomicBool,
    masks: Masks,
    states: Vec<State>,
    without_edns: WithoutEdns,
    events: Arc<Events>,
}

/// Read for each query and rarely written. So these are in other cache lines than `State`.
#[derive(Default)]
#[repr(align(128))]
struct Masks {
    /// The places with an upstream. Bits of other places mean nothing.
    used: AtomicU64,
    up: AtomicU64,
    suspected: AtomicU64,
    /// The upstreams that have sent a message since their last failure, or did not fail.
    responding: AtomicU64,
    /// The upstreams that are down because they answer no queries.
    answering_checks_only: AtomicU64,
    /// How often an upstream has gone down or become suspect.
    losses: AtomicU64,
    /// How often an upstream became usable after none was.
    returns: AtomicU64,
    /// When the last usable upstream was lost, in nanoseconds since `Health::since`.
    lost_at: AtomicU64,
}

/// The state of one upstream. Times are nanoseconds since `Health::since`.
#[repr(align(128))]
#[derive(Default)]
struct State {
    address: Mutex<Option<SocketAddr>>,
    /// Outstanding queries of all threads.
    outstanding: AtomicU32,
    /// Queries since the last message, and when the first and the `SILENT_QUERIES`th were sent.
    queries: AtomicU32,
    first_query_at: AtomicU64,
    many_queries_at: AtomicU64,
    received_at: AtomicU64,
    failures: AtomicU32,
    /// Consecutive queries that timed out.
    unanswered: AtomicU32,
    /// When a query may be sent to it although it is down.
    retry_at: AtomicU64,
    silence_ignored_until: AtomicU64,
    /// When it last went up or down, in Unix seconds, and why.
    changed: Mutex<Option<(u64, String)>>,
    checks: [Counter; CHECK_RESULTS.len()],
}

/// The result of a health check, named as in the metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckResult {
    Good,
    /// Answered with an error RCODE.
    Bad,
    /// Not answered in time, or not sent.
    Lost,
}

/// In the order of `CheckResult`.
pub const CHECK_RESULTS: [&str; 3] = ["good", "bad", "lost"];

/// How an upstream has failed.
#[derive(Clone, Copy)]
pub enum Failure {
    /// No response to a query that was sent at this time.
    Timeout(Instant),
    /// The network rejected a query.
    Unreachable,
}

impl Health {
    pub fn new(addresses: &[SocketAddr], rules: Option<(u32, Duration)>, events: Arc<Events>) -> Health {
        assert!(addresses.len() <= MAX_UPSTREAMS, "the settings were checked");
        let health = Health {
            since: Instant::now(),
            failures: AtomicU32::default(),
            retry_interval: AtomicU64::default(),
            has_checks: AtomicBool::default(),
            masks: Masks::default(),
            states: (0..MAX_UPSTREAMS).map(|_| State::default()).collect(),
            without_edns: WithoutEdns::new(),
            events,
        };
        for (place, address) in addresses.iter().enumerate() {
            health.add(place, *address);
        }
        health.configure(rules);
        health
    }

    //--- Changes by a reload

    /// Adds an upstream at an unused place. It is up until it fails.
    pub fn add(&self, place: usize, address: SocketAddr) {
        self.states[place].reset(address);
        self.without_edns.forget(place);
        for mask in [&self.masks.used, &self.masks.up, &self.masks.responding] {
            mask.fetch_or(bit(place), Relaxed);
        }
    }

    /// Removes all other upstreams.
    pub fn keep_only(&self, places: Mask) {
        let Masks { used, up, suspected, responding, answering_checks_only, .. } = &self.masks;
        for mask in [used, up, suspected, responding, answering_checks_only] {
            mask.fetch_and(places, Relaxed);
        }
    }

    /// Sets the consecutive failures that mark an upstream down, and the interval of health checks, if
    /// there are any.
    pub fn configure(&self, rules: Option<(u32, Duration)>) {
        let (failures, interval) = rules.unwrap_or((FAILURES, RETRY_INTERVAL));
        self.failures.store(failures, Relaxed);
        self.retry_interval.store(interval.as_nanos() as u64, Relaxed);
        self.has_checks.store(rules.is_some(), Relaxed);
        if rules.is_none() {
            // No health check will decide about these any more.
            let suspected = self.masks.suspected.load(Relaxed);
            places(suspected).for_each(|place| self.mark_silent(place, "is not responding", Instant::now()));
            self.masks.answering_checks_only.store(0, Relaxed);
        }
    }

    fn has_checks(&self) -> bool {
        self.has_checks.load(Relaxed)
    }

    //--- Questions of worker threads

    pub fn up(&self) -> Mask {
        self.masks.up.load(Relaxed)
    }

    /// The upstreams that are down, and respond with errors or to queries only.
    pub fn responding(&self) -> Mask {
        self.masks.responding.load(Relaxed) & !self.up()
    }

    /// Changes whenever an upstream is not up any more.
    pub fn losses(&self) -> u64 {
        self.masks.losses.load(Relaxed)
    }

    /// The upstreams that queries may be sent to: those that are up, otherwise those that respond.
    pub fn usable(&self) -> Mask {
        match self.up() {
            0 => self.responding(),
            up => up,
        }
    }

    /// Whether no upstream is usable.
    pub fn is_out(&self) -> bool {
        self.usable() == 0
    }

    /// Changes whenever an upstream becomes usable after none was.
    pub fn returns(&self) -> u64 {
        self.masks.returns.load(Relaxed)
    }

    /// When the last usable upstream was lost.
    pub fn lost_at(&self) -> Instant {
        // It is written before that upstream's bits are cleared.
        fence(Acquire);
        self.since + Duration::from_nanos(self.masks.lost_at.load(Relaxed))
    }

    pub fn outstanding(&self, place: usize) -> u32 {
        self.states[place].outstanding.load(Relaxed)
    }

    pub fn is_up(&self, place: usize) -> bool {
        self.up() & bit(place) != 0
    }

    /// The upstreams that are due for a retry with a query although others are up. Their state is
    /// unknown otherwise, because health checks are disabled or wrong.
    pub fn retried_beside_others(&self, now: Instant) -> Mask {
        let answering_checks_only = self.masks.answering_checks_only.load(Relaxed);
        match self.has_checks() {
            true if answering_checks_only == 0 => 0,
            true => self.due_for_retry(now) & answering_checks_only,
            false => self.due_for_retry(now),
        }
    }

    /// The upstreams that are down and due for a retry with a query.
    pub fn due_for_retry(&self, now: Instant) -> Mask {
        let (up, now) = (self.up(), self.at(now));
        let is_due = |place: &usize| self.states[*place].retry_at.load(Relaxed) <= now;
        let used = self.masks.used.load(Relaxed);
        places(used & !up).filter(is_due).fold(0, |mask, place| mask | bit(place))
    }

    /// Claims the retry of an upstream that is down. The next one is due after an interval, which is
    /// shorter while queries are delayed.
    pub fn claim_retry(&self, place: usize, now: Instant) -> bool {
        let interval = match self.is_out() && now < self.lost_at() + MAX_DELAY {
            true => RETRY.as_nanos() as u64,
            false => self.retry_interval.load(Relaxed),
        };
        let (retry_at, now) = (&self.states[place].retry_at, self.at(now));
        let due = retry_at.load(Relaxed);
        due <= now && retry_at.compare_exchange(due, now + interval, Relaxed, Relaxed).is_ok()
    }

    //--- Metrics and log

    pub fn count_check(&self, place: usize, result: CheckResult) {
        self.states[place].checks[result as usize].add(1);
    }

    pub fn checks(&self, place: usize, result: usize) -> u64 {
        self.states[place].checks[result].get()
    }

    /// When an upstream last went up or down, in Unix seconds, and why; `None` if it never did.
    pub fn last_change(&self, place: usize) -> Option<(u64, String)> {
        lock(&self.states[place].changed).clone()
    }

    fn record_change(&self, place: usize, what: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        *lock(&self.states[place].changed) = Some((now, what.to_string()));
    }

    fn log_change(&self, place: usize, what: &str) {
        self.record_change(place, what);
        self.log(place, what);
    }

    fn log(&self, place: usize, what: &str) {
        if let Some(address) = *lock(&self.states[place].address) {
            self.events.push(format!("upstream {address} {what}"));
        }
    }

    fn at(&self, time: Instant) -> u64 {
        time.saturating_duration_since(self.since).as_nanos() as u64
    }
}

impl State {
    /// Prepares the place for a new upstream.
    fn reset(&self, address: SocketAddr) {
        // The pattern is complete, so that the compiler reports a field that is missing here.
        let State {
            address: known,
            outstanding,
            queries,
            first_query_at,
            many_queries_at,
            received_at,
            failures,
            unanswered,
            retry_at,
            silence_ignored_until,
            changed,
            checks,
        } = self;
        *lock(known) = Some(address);
        *lock(changed) = None;
        [outstanding, queries, failures, unanswered].into_iter().for_each(|count| count.store(0, Relaxed));
        let times = [first_query_at, many_queries_at, received_at, retry_at, silence_ignored_until];
        times.into_iter().for_each(|time| time.store(0, Relaxed));
        checks.iter().for_each(|count| count.set(0));
    }
}

#[cfg(test)]
mod tests {
    use super::transitions::{IGNORE_SILENCE, SILENT_QUERIES, UNANSWERED_QUERIES};
    use super::*;

    const CHECKED: Option<(u32, Duration)> = Some((3, Duration::from_secs(1)));

    fn health(upstreams: u16, rules: Option<(u32, Duration)>) -> (Health, Arc<Events>) {
        let events = Arc::new(Events::default());
        let addresses: Vec<_> = (0..upstreams).map(|port| SocketAddr::from(([192, 0, 2, 1], port))).collect();
        (Health::new(&addresses, rules, Arc::clone(&events)), events)
    }

    fn fail(health: &Health, place: usize, times: usize, now: Instant) {
        for _ in 0..times {
            health.failed(place, Failure::Unreachable, now);
        }
    }

    #[test]
    fn without_health_checks_one_query_retries_after_an_interval_and_its_response_is_enough() {
        let (health, events) = health(2, None);
        let start = health.since + Duration::from_secs(1);
        fail(&health, 0, 2, start);
        assert_eq!(health.up(), 0b11);
        fail(&health, 0, 1, start);
        assert_eq!((health.up(), health.due_for_retry(start), health.losses()), (0b10, 0, 1));
        let due = start + RETRY_INTERVAL;
        assert_eq!(health.due_for_retry(due), 0b01);
        assert!(health.claim_retry(0, due) && !health.claim_retry(0, due));
        assert_eq!(health.due_for_retry(due), 0);
        health.query_answered(0, due);
        assert_eq!(health.up(), 0b11);
        let logged = events.take();
        assert_eq!(logged, ["upstream 192.0.2.1:0 cannot be reached", "upstream 192.0.2.1:0 answers again"]);
    }

    #[test]
    fn with_health_checks_a_response_to_a_query_does_not_mark_it_up() {
        let (health, _) = health(1, CHECKED);
        let start = health.since;
        fail(&health, 0, 3, start);
        assert_eq!((health.up(), health.responding()), (0, 0));
        health.query_answered(0, start);
        assert_eq!((health.up(), health.responding()), (0, 1));
        health.mark_up(0);
        assert_eq!((health.up(), health.responding()), (1, 0));
    }

    #[test]
    fn an_upstream_that_has_sent_a_message_since_is_slow_and_not_dead() {
        let (health, _) = health(1, CHECKED);
        let asked = health.since + Duration::from_secs(1);
        health.received(0, asked + Duration::from_millis(1));
        for _ in 0..100 {
            health.failed(0, Failure::Timeout(asked), asked + Duration::from_secs(1));
        }
        assert!(health.is_up(0));
        let later = asked + Duration::from_secs(2);
        for _ in 0..3 {
            health.failed(0, Failure::Timeout(later), later);
        }
        assert!(health.is_suspected(0), "silence alone is no proof if there are health checks");
    }

    #[test]
    fn many_unanswered_queries_mark_an_upstream_down_despite_good_health_checks() {
        let (health, _) = health(2, CHECKED);
        let (start, second) = (health.since, Duration::from_secs(1));
        let time_out = |times: u32, at: Instant| {
            for _ in 0..times {
                health.received(0, at);
                health.failed(0, Failure::Timeout(at), at);
            }
        };
        time_out(UNANSWERED_QUERIES - 1, start);
        health.query_answered(0, start);
        time_out(UNANSWERED_QUERIES - 1, start);
        assert_eq!(health.up(), 0b11, "only consecutive ones count");
        time_out(1, start);
        health.mark_up(0);
        assert_eq!((health.up(), health.retried_beside_others(start)), (0b10, 0));
        let due = start + second * 60;
        assert_eq!(health.retried_beside_others(due), 0b01);
        assert!(health.claim_retry(0, due) && !health.claim_retry(0, due));
        health.query_answered(0, due);
        assert_eq!((health.up(), health.retried_beside_others(due)), (0b11, 0));
        for _ in 0..3 {
            health.failed(1, Failure::Unreachable, due);
        }
        time_out(100, due);
        assert!(health.is_up(0), "the last one that responds at all");
    }

    #[test]
    fn misleading_silence_is_ignored_for_a_while_but_health_checks_are_not() {
        let (health, events) = health(1, CHECKED);
        let start = health.since;
        health.suspect(0, start);
        health.query_answered(0, start);
        assert!(health.is_up(0));
        health.suspect(0, start + IGNORE_SILENCE / 2);
        assert!(health.is_up(0));
        health.suspect(0, start + IGNORE_SILENCE);
        assert!(!health.is_up(0));
        health.query_answered(0, start + IGNORE_SILENCE);
        health.suspect_by_check(0);
        assert!(!health.is_up(0));
        assert_eq!(events.take().len(), 5);
    }

    #[test]
    fn only_consecutive_failures_count() {
        let (health, _) = health(1, CHECKED);
        for _ in 0..10 {
            fail(&health, 0, 2, health.since);
            health.query_answered(0, health.since);
        }
        assert!(health.is_up(0));
    }

    #[test]
    fn silence_is_measured_from_the_eighth_query() {
        let (health, events) = health(1, CHECKED);
        let (start, timeout) = (health.since, Duration::from_millis(300));
        health.query_sent(0, start);
        assert!(!health.is_silent(0, timeout, start + timeout / 2));
        assert!(health.is_silent(0, timeout, start + timeout));
        for _ in 1..SILENT_QUERIES {
            health.query_sent(0, start + timeout);
        }
        assert!(!health.is_silent_to_many(0, timeout, start + timeout));
        assert!(health.is_silent_to_many(0, timeout, start + 2 * timeout));
        health.suspect(0, start + 2 * timeout);
        assert_eq!((health.up(), health.is_suspected(0), health.losses()), (0, true, 1));
        health.query_answered(0, start + 2 * timeout);
        assert!(health.is_up(0) && !health.is_suspected(0));
        assert!(!health.is_silent(0, timeout, start + 5 * timeout / 2), "it has just sent a message");
        assert!(health.is_silent(0, timeout, start + 3 * timeout), "queries are still outstanding");
        assert_eq!(health.outstanding(0), SILENT_QUERIES);
        assert_eq!(events.take().len(), 2);
    }

    #[test]
    fn the_last_suspected_upstream_has_as_many_failures_as_any() {
        let (health, _) = health(2, CHECKED);
        health.suspect(0, health.since);
        health.suspect(1, health.since);
        assert_eq!((health.up(), health.responding()), (0, 0b11));
        fail(&health, 0, 2, health.since);
        assert_eq!(health.responding(), 0b11);
        fail(&health, 0, 1, health.since);
        assert_eq!(health.responding(), 0b10);
        health.mark_up(0);
        fail(&health, 1, 1, health.since);
        assert_eq!(
            (health.up(), health.responding()),
            (0b01, 0),
            "one failure is enough beside one that is up"
        );
    }

    #[test]
    fn the_places_of_a_mask_come_in_order() {
        assert_eq!(places(0b1011 | 1 << 63).collect::<Vec<_>>(), [0, 1, 3, 63]);
        assert_eq!(places(0).count(), 0);
    }
}
