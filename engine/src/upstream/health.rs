//! What is known of each upstream: whether it is up, how much it is asked, when
//! it last said anything. Shared by all worker threads, which note here what they
//! meet, and by the one thread that watches (`watch`), which probes and judges.
//!
//! An upstream is up, suspected (it has fallen silent, and a probe will tell), or
//! down. One that is down may still speak: it answers, but not as it should.

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

/// Upstreams at most: as many as a mask has bits.
pub const MAX_UPSTREAMS: usize = 64;
/// Failures in a row after which an upstream is down, where nothing else is configured.
const FAILURES: u32 = 3;
/// How long an upstream that is down rests before one query tries it again, where
/// no probe does.
const REST: Duration = Duration::from_secs(2);

/// How long queries wait for an upstream to come back, once none can be used.
pub const HOLD: Duration = Duration::from_secs(2);
/// How often upstreams are tried meanwhile, and probed until one answers.
pub const RETRY: Duration = Duration::from_millis(100);

/// A bit for each upstream.
pub type Mask = u64;

pub fn bit(place: usize) -> Mask {
    1 << place
}

/// The places in a mask, from the first.
pub fn places(mut mask: Mask) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = mask.trailing_zeros() as usize;
        mask &= mask.wrapping_sub(1);
        (place < MAX_UPSTREAMS).then_some(place)
    })
}

/// One for the life of the engine: a reload adds upstreams, and removes others, and the
/// rest keep what is known of them.
pub struct Health {
    since: Instant,
    /// Failures in a row after which an upstream is down.
    failures: AtomicU32,
    /// How long it is left alone before a query tries it, when there is none better: nanoseconds.
    rest: AtomicU64,
    /// Whether probes say when an upstream is up again; else a query's answer does.
    has_probes: AtomicBool,
    standing: Standing,
    states: Vec<State>,
    without_edns: WithoutEdns,
    events: Arc<Events>,
}

/// Read for each query and rarely written: apart from what each query writes.
#[derive(Default)]
#[repr(align(128))]
struct Standing {
    /// The places of upstreams; those of others mean nothing.
    used: AtomicU64,
    up: AtomicU64,
    suspected: AtomicU64,
    /// Those whose last word, if it was one, came after their last failure.
    speaking: AtomicU64,
    /// Those that answer probes and no queries.
    deaf: AtomicU64,
    /// Counts how often an upstream has left those that are up.
    losses: AtomicU64,
    /// Counts how often one could be used again after none could.
    returns: AtomicU64,
    /// When the last one that could be used was lost; nanoseconds since `Health::since`.
    lost_at: AtomicU64,
}

/// What is known of one upstream. Times are nanoseconds since `Health::since`.
#[repr(align(128))]
#[derive(Default)]
struct State {
    address: Mutex<Option<SocketAddr>>,
    /// Queries of all threads whose answers are still welcome.
    outstanding: AtomicU32,
    /// Queries since it last said anything, and when the first of them was sent,
    /// and the one with which they became many.
    asked: AtomicU32,
    first_asked_at: AtomicU64,
    many_asked_at: AtomicU64,
    heard_at: AtomicU64,
    failures: AtomicU32,
    /// Queries that waited in vain since it last answered one.
    unanswered: AtomicU32,
    /// When a query may try it, although it is down.
    trial_at: AtomicU64,
    trusted_until: AtomicU64,
    /// When it last went up or down, in Unix seconds, and why.
    changed: Mutex<Option<(u64, String)>>,
    pub probes: [Counter; PROBE_RESULTS.len()],
}

/// What became of a probe, as it is called in metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProbeResult {
    Good,
    /// It was answered, with an RCODE that says that nothing can be had there.
    Bad,
    /// Not answered in time, or not sent.
    Lost,
}

/// In the order of `ProbeResult`.
pub const PROBE_RESULTS: [&str; 3] = ["good", "bad", "lost"];

/// How an upstream has failed.
#[derive(Clone, Copy)]
pub enum Failure {
    /// No answer to what was sent at that time.
    Silence(Instant),
    /// The network says that there is no way to it.
    Unreachable,
}

impl Health {
    pub fn new(addresses: &[SocketAddr], probes: Option<(u32, Duration)>, events: Arc<Events>) -> Health {
        assert!(addresses.len() <= MAX_UPSTREAMS, "the settings were checked");
        let health = Health {
            since: Instant::now(),
            failures: AtomicU32::default(),
            rest: AtomicU64::default(),
            has_probes: AtomicBool::default(),
            standing: Standing::default(),
            states: (0..MAX_UPSTREAMS).map(|_| State::default()).collect(),
            without_edns: WithoutEdns::new(),
            events,
        };
        for (place, address) in addresses.iter().enumerate() {
            health.enter(place, *address);
        }
        health.judge_by(probes);
        health
    }

    //--- What a reload changes

    /// Takes an upstream in, at a place that nobody uses; it is up until it fails.
    pub fn enter(&self, place: usize, address: SocketAddr) {
        self.states[place].reset(address);
        self.without_edns.forget(place);
        for mask in [&self.standing.used, &self.standing.up, &self.standing.speaking] {
            mask.fetch_or(bit(place), Relaxed);
        }
    }

    /// Forgets all upstreams but these.
    pub fn keep_only(&self, places: Mask) {
        let standing = &self.standing;
        for mask in [&standing.used, &standing.up, &standing.suspected, &standing.speaking, &standing.deaf] {
            mask.fetch_and(places, Relaxed);
        }
    }

    /// How an upstream is judged from now on: failures in a row and time between probes, if
    /// there are any.
    pub fn judge_by(&self, probes: Option<(u32, Duration)>) {
        let (failures, rest) = probes.unwrap_or((FAILURES, REST));
        self.failures.store(failures, Relaxed);
        self.rest.store(rest.as_nanos() as u64, Relaxed);
        self.has_probes.store(probes.is_some(), Relaxed);
        if probes.is_none() {
            // No probe will tell of these any more.
            let suspected = self.standing.suspected.load(Relaxed);
            places(suspected).for_each(|place| self.give_up(place, "has fallen silent", Instant::now()));
            self.standing.deaf.store(0, Relaxed);
        }
    }

    fn has_probes(&self) -> bool {
        self.has_probes.load(Relaxed)
    }

    //--- What worker threads ask

    pub fn up(&self) -> Mask {
        self.standing.up.load(Relaxed)
    }

    /// Those that are down and yet answer something.
    pub fn speaking(&self) -> Mask {
        self.standing.speaking.load(Relaxed) & !self.up()
    }

    /// Changes whenever an upstream is not up any more.
    pub fn losses(&self) -> u64 {
        self.standing.losses.load(Relaxed)
    }

    /// Those that queries may be sent to: who is up, else who speaks.
    pub fn usable(&self) -> Mask {
        match self.up() {
            0 => self.speaking(),
            up => up,
        }
    }

    /// Whether no upstream can be used.
    pub fn is_out(&self) -> bool {
        self.usable() == 0
    }

    /// Changes whenever an upstream can be used again after none could.
    pub fn returns(&self) -> u64 {
        self.standing.returns.load(Relaxed)
    }

    /// When the last upstream was lost that could be used.
    pub fn lost_at(&self) -> Instant {
        // It is written before that upstream's bits are cleared.
        fence(Acquire);
        self.since + Duration::from_nanos(self.standing.lost_at.load(Relaxed))
    }

    /// Whether no upstream can be used, and that is new: queries wait for one.
    fn is_out_briefly(&self, now: Instant) -> bool {
        self.is_out() && now < self.lost_at() + HOLD
    }

    pub fn outstanding(&self, place: usize) -> u32 {
        self.states[place].outstanding.load(Relaxed)
    }

    pub fn is_up(&self, place: usize) -> bool {
        self.up() & bit(place) != 0
    }

    /// Those that are down, have rested, and are to be tried by queries though others are
    /// up: where there are no probes, or these tell nothing.
    pub fn tried_by_queries(&self, now: Instant) -> Mask {
        let deaf = self.standing.deaf.load(Relaxed);
        match self.has_probes() {
            true if deaf == 0 => 0,
            true => self.rested(now) & deaf,
            false => self.rested(now),
        }
    }

    /// Those that are down and have rested.
    pub fn rested(&self, now: Instant) -> Mask {
        let (up, now) = (self.up(), self.at(now));
        let rested = |place: &usize| self.states[*place].trial_at.load(Relaxed) <= now;
        places(self.all() & !up).filter(rested).fold(0, |mask, place| mask | bit(place))
    }

    /// Takes the one turn to try an upstream that is down; the next is after a rest.
    pub fn claim_trial(&self, place: usize, now: Instant) -> bool {
        let rest = if self.is_out_briefly(now) { RETRY.as_nanos() as u64 } else { self.rest.load(Relaxed) };
        let (trial_at, now) = (&self.states[place].trial_at, self.at(now));
        let due = trial_at.load(Relaxed);
        let next = now + rest;
        due <= now && trial_at.compare_exchange(due, next, Relaxed, Relaxed).is_ok()
    }

    //--- What is told

    pub fn count_probe(&self, place: usize, result: ProbeResult) {
        self.states[place].probes[result as usize].add(1);
    }

    pub fn probes(&self, place: usize, result: usize) -> u64 {
        self.states[place].probes[result].get()
    }

    /// When an upstream last went up or down, in Unix seconds, and why; `None` if it never did.
    pub fn last_change(&self, place: usize) -> Option<(u64, String)> {
        lock(&self.states[place].changed).clone()
    }

    fn note(&self, place: usize, what: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        *lock(&self.states[place].changed) = Some((now, what.to_string()));
    }

    /// It went up or down.
    fn change(&self, place: usize, what: &str) {
        self.note(place, what);
        self.tell(place, what);
    }

    fn tell(&self, place: usize, what: &str) {
        if let Some(address) = *lock(&self.states[place].address) {
            self.events.push(format!("upstream {address} {what}"));
        }
    }

    fn all(&self) -> Mask {
        self.standing.used.load(Relaxed)
    }

    fn at(&self, time: Instant) -> u64 {
        time.saturating_duration_since(self.since).as_nanos() as u64
    }
}

impl State {
    /// Nothing is known of the upstream that gets this place.
    fn reset(&self, address: SocketAddr) {
        // All of them by name: one that is added must not be forgotten here.
        let State {
            address: known,
            outstanding,
            asked,
            first_asked_at,
            many_asked_at,
            heard_at,
            failures,
            unanswered,
            trial_at,
            trusted_until,
            changed,
            probes,
        } = self;
        *lock(known) = Some(address);
        *lock(changed) = None;
        [outstanding, asked, failures, unanswered].into_iter().for_each(|count| count.store(0, Relaxed));
        let times = [first_asked_at, many_asked_at, heard_at, trial_at, trusted_until];
        times.into_iter().for_each(|time| time.store(0, Relaxed));
        probes.iter().for_each(|count| count.set(0));
    }
}

#[cfg(test)]
mod tests {
    use super::transitions::{DEAF_QUERIES, SILENT_QUERIES, TRUST};
    use super::*;

    const PROBED: Option<(u32, Duration)> = Some((3, Duration::from_secs(1)));

    fn health(upstreams: u16, probes: Option<(u32, Duration)>) -> (Health, Arc<Events>) {
        let events = Arc::new(Events::default());
        let addresses: Vec<_> = (0..upstreams).map(|port| SocketAddr::from(([192, 0, 2, 1], port))).collect();
        (Health::new(&addresses, probes, Arc::clone(&events)), events)
    }

    fn fail(health: &Health, place: usize, times: usize, now: Instant) {
        for _ in 0..times {
            health.failed(place, Failure::Unreachable, now);
        }
    }

    #[test]
    fn without_probes_one_query_tries_again_after_a_rest_and_its_answer_is_enough() {
        let (health, events) = health(2, None);
        let start = health.since + Duration::from_secs(1);
        fail(&health, 0, 2, start);
        assert_eq!(health.up(), 0b11);
        fail(&health, 0, 1, start);
        assert_eq!((health.up(), health.rested(start), health.losses()), (0b10, 0, 1));
        let rested = start + REST;
        assert_eq!(health.rested(rested), 0b01);
        assert!(health.claim_trial(0, rested) && !health.claim_trial(0, rested));
        assert_eq!(health.rested(rested), 0);
        health.answered(0, rested);
        assert_eq!(health.up(), 0b11);
        let told = events.take();
        assert_eq!(told, ["upstream 192.0.2.1:0 cannot be reached", "upstream 192.0.2.1:0 answers again"]);
    }

    #[test]
    fn with_probes_an_answer_makes_it_speak_and_no_more() {
        let (health, _) = health(1, PROBED);
        let start = health.since;
        fail(&health, 0, 3, start);
        assert_eq!((health.up(), health.speaking()), (0, 0));
        health.answered(0, start);
        assert_eq!((health.up(), health.speaking()), (0, 1));
        health.rise(0);
        assert_eq!((health.up(), health.speaking()), (1, 0));
    }

    #[test]
    fn who_has_spoken_since_is_slow_and_not_dead() {
        let (health, _) = health(1, PROBED);
        let asked = health.since + Duration::from_secs(1);
        health.heard(0, asked + Duration::from_millis(1));
        for _ in 0..100 {
            health.failed(0, Failure::Silence(asked), asked + Duration::from_secs(1));
        }
        assert!(health.is_up(0));
        let later = asked + Duration::from_secs(2);
        for _ in 0..3 {
            health.failed(0, Failure::Silence(later), later);
        }
        assert!(health.is_suspected(0), "and silence alone is no proof, where probes can tell");
    }

    #[test]
    fn who_leaves_many_queries_unanswered_is_down_whatever_it_says_to_probes() {
        let (health, _) = health(2, PROBED);
        let (start, second) = (health.since, Duration::from_secs(1));
        let ask_in_vain = |times: u32, at: Instant| {
            for _ in 0..times {
                health.heard(0, at);
                health.failed(0, Failure::Silence(at), at);
            }
        };
        ask_in_vain(DEAF_QUERIES - 1, start);
        health.answered(0, start);
        ask_in_vain(DEAF_QUERIES - 1, start);
        assert_eq!(health.up(), 0b11, "only in a row");
        ask_in_vain(1, start);
        health.rise(0);
        assert_eq!((health.up(), health.tried_by_queries(start)), (0b10, 0));
        let rested = start + second * 60;
        assert_eq!(health.tried_by_queries(rested), 0b01);
        assert!(health.claim_trial(0, rested) && !health.claim_trial(0, rested));
        health.answered(0, rested);
        assert_eq!((health.up(), health.tried_by_queries(rested)), (0b11, 0));
        for _ in 0..3 {
            health.failed(1, Failure::Unreachable, rested);
        }
        ask_in_vain(100, rested);
        assert!(health.is_up(0), "the last one that answers anything");
    }

    #[test]
    fn silence_that_deceived_is_not_believed_for_a_while_but_probes_are() {
        let (health, events) = health(1, PROBED);
        let start = health.since;
        health.suspect(0, start);
        health.answered(0, start);
        assert!(health.is_up(0));
        health.suspect(0, start + TRUST / 2);
        assert!(health.is_up(0));
        health.suspect(0, start + TRUST);
        assert!(!health.is_up(0));
        health.answered(0, start + TRUST);
        health.suspect_by_probe(0);
        assert!(!health.is_up(0));
        assert_eq!(events.take().len(), 5);
    }

    #[test]
    fn only_failures_in_a_row_count() {
        let (health, _) = health(1, PROBED);
        for _ in 0..10 {
            fail(&health, 0, 2, health.since);
            health.answered(0, health.since);
        }
        assert!(health.is_up(0));
    }

    #[test]
    fn silence_is_measured_from_the_query_with_which_they_became_many() {
        let (health, events) = health(1, PROBED);
        let (start, patience) = (health.since, Duration::from_millis(300));
        health.asks(0, start);
        assert!(!health.is_silent(0, patience, start + patience / 2));
        assert!(health.is_silent(0, patience, start + patience));
        for _ in 1..SILENT_QUERIES {
            health.asks(0, start + patience);
        }
        assert!(!health.is_silent_to_many(0, patience, start + patience));
        assert!(health.is_silent_to_many(0, patience, start + 2 * patience));
        health.suspect(0, start + 2 * patience);
        assert_eq!((health.up(), health.is_suspected(0), health.losses()), (0, true, 1));
        health.answered(0, start + 2 * patience);
        assert!(health.is_up(0) && !health.is_suspected(0));
        assert!(!health.is_silent(0, patience, start + 5 * patience / 2), "it has just spoken");
        assert!(health.is_silent(0, patience, start + 3 * patience), "and queries wait on");
        assert_eq!(health.outstanding(0), SILENT_QUERIES);
        assert_eq!(events.take().len(), 2);
    }

    #[test]
    fn the_last_one_that_is_suspected_is_given_as_many_failures_as_any() {
        let (health, _) = health(2, PROBED);
        health.suspect(0, health.since);
        health.suspect(1, health.since);
        assert_eq!((health.up(), health.speaking()), (0, 0b11));
        fail(&health, 0, 2, health.since);
        assert_eq!(health.speaking(), 0b11);
        fail(&health, 0, 1, health.since);
        assert_eq!(health.speaking(), 0b10);
        health.rise(0);
        fail(&health, 1, 1, health.since);
        assert_eq!((health.up(), health.speaking()), (0b01, 0), "beside one that is up the first is enough");
    }

    #[test]
    fn the_places_of_a_mask_come_in_order() {
        assert_eq!(places(0b1011 | 1 << 63).collect::<Vec<_>>(), [0, 1, 3, 63]);
        assert_eq!(places(0).count(), 0);
    }
}
