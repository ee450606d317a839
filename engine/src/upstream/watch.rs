//! The thread that watches the upstreams: it runs health checks, and finds silent upstreams by the
//! reports of the worker threads. There is one for the whole engine. It wakes the worker threads when
//! something has changed.
//!
//! The silence of a busy upstream is noticed within a third of a second. An upstream with few queries
//! gets a health check when a query has been outstanding for that time.

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::health::{CheckResult, Health, MAX_UPSTREAMS, Mask, RETRY, places};
use super::health_check::{CheckResponse, HealthCheck, OptUse, OutstandingCheck};
use super::{Settings, is_our_own};
use crate::events::Events;
use crate::transport::poll::{Poll, Token};

/// How long an upstream with outstanding queries may be silent.
const SILENCE: Duration = Duration::from_millis(300);
/// How often silence is looked for.
const TICK: Duration = Duration::from_millis(100);
/// The longest interval between checks of an upstream that is down.
const MAX_INTERVAL: Duration = Duration::from_secs(30);
/// The most outstanding checks of one upstream.
const MAX_CHECKS: usize = 32;

/// The part of the engine that this thread uses.
pub trait Shared {
    /// The settings in force.
    fn settings(&self) -> Arc<Settings>;
    fn health(&self) -> &Health;
    fn events(&self) -> &Events;
    fn is_stopping(&self) -> bool;
}

/// Watches until the engine stops. `wake` wakes this thread, `wakers` the worker threads.
pub fn run(shared: &impl Shared, wake: &OwnedFd, wakers: &[Arc<OwnedFd>]) -> io::Result<()> {
    let events = shared.events();
    let poll = Poll::new()?;
    poll.add(wake, Token::Wake, true, false)?;
    let mut watch = Watch {
        health: shared.health(),
        settings: shared.settings(),
        upstreams: (0..MAX_UPSTREAMS).map(|_| Watched::new(None, Instant::now())).collect(),
        changes: (shared.health().losses(), shared.health().returns()),
        is_urgent: false,
        poll,
        wake,
        wakers,
    };
    watch.begin(watch.settings.places(), Instant::now());
    while !shared.is_stopping() {
        // A panic costs one round, and never ends the thread.
        match catch_unwind(AssertUnwindSafe(|| watch.turn(|| shared.settings()))) {
            Ok(result) => result?,
            Err(_) => events.push("a round of health checks ended in a panic".to_string()),
        }
    }
    Ok(())
}

struct Watch<'a> {
    health: &'a Health,
    settings: Arc<Settings>,
    /// By place.
    upstreams: Vec<Watched>,
    /// Losses and returns when the worker threads were last woken.
    changes: (u64, u64),
    /// No upstream is usable, so all are checked every 100 ms until one answers.
    is_urgent: bool,
    poll: Poll,
    wake: &'a OwnedFd,
    wakers: &'a [Arc<OwnedFd>],
}

/// The health checks of one upstream.
struct Watched {
    /// When the next check is due, if there are any, and the interval.
    due: Option<Instant>,
    interval: Duration,
    outstanding: Vec<OutstandingCheck>,
    /// Consecutive checks.
    failures: u32,
    successes: u32,
    was_responding: bool,
    was_suspected: bool,
}

impl Watched {
    fn new(check: Option<&HealthCheck>, now: Instant) -> Watched {
        Watched {
            due: check.map(|_| now),
            interval: check.map_or(MAX_INTERVAL, |check| check.interval),
            outstanding: Vec::new(),
            failures: 0,
            successes: 0,
            was_responding: true,
            was_suspected: false,
        }
    }
}

impl Watch<'_> {
    /// `settings` returns the settings after the wait, which a change ends.
    fn turn(&mut self, settings: impl FnOnce() -> Arc<Settings>) -> io::Result<()> {
        let events = self.poll.wait(self.timeout())?;
        let now = Instant::now();
        if events.iter().any(|event| matches!(event.token, Token::Wake)) {
            // Without this, the next wait ends immediately.
            let _ = rustix::io::read(self.wake, &mut [0; 8]);
        }
        self.adopt(settings(), now);
        let settings = Arc::clone(&self.settings);
        let check = settings.health_check.as_ref();
        for event in events {
            if let (Token::Upstream(place), Some(check)) = (event.token, check) {
                self.read(place, check, now);
            }
        }
        self.look_for_outage(now);
        for place in places(settings.places()) {
            if let Some(check) = check {
                self.expire(place, check, now);
            }
            self.look_for_silence(place, now);
            if let Some(check) = check {
                self.check_if_due(place, check, now);
            }
        }
        self.wake_workers();
        Ok(())
    }

    fn adopt(&mut self, settings: Arc<Settings>, now: Instant) {
        if Arc::ptr_eq(&self.settings, &settings) {
            return;
        }
        let before = std::mem::replace(&mut self.settings, Arc::clone(&settings));
        let is_checked_alike = before.health_check == settings.health_check
            && before.client_identity == settings.client_identity;
        let known = if is_checked_alike { before.places() } else { 0 };
        for place in places(before.places() & !settings.places()) {
            self.upstreams[place] = Watched::new(None, now);
        }
        self.begin(settings.places() & !known, now);
    }

    /// Starts with the upstreams in these places, of which nothing is known yet.
    fn begin(&mut self, new: Mask, now: Instant) {
        for place in places(new) {
            self.upstreams[place] = Watched::new(self.settings.health_check.as_ref(), now);
        }
    }

    fn timeout(&self) -> Duration {
        let timeout = self.settings.health_check.as_ref().map_or(TICK, |check| check.timeout);
        let next = |watched: &Watched| match watched.outstanding.first() {
            Some(check) if !self.is_urgent => Some(check.sent_at + timeout),
            _ => watched.due,
        };
        let next = self.upstreams.iter().filter_map(next).min();
        next.map_or(TICK, |next| next.saturating_duration_since(Instant::now()).min(TICK))
    }

    /// Wakes the worker threads if queries must fail over, or delayed queries can be sent.
    fn wake_workers(&mut self) {
        let changes = (self.health.losses(), self.health.returns());
        if std::mem::replace(&mut self.changes, changes) != changes {
            for waker in self.wakers {
                // An eventfd whose counter is full wakes the thread, too.
                let _ = rustix::io::write(&**waker, &1u64.to_ne_bytes());
            }
        }
    }

    /// When no upstream is usable any more, all are checked immediately, because clients wait.
    fn look_for_outage(&mut self, now: Instant) {
        let was_urgent = std::mem::replace(&mut self.is_urgent, self.health.is_out());
        if self.is_urgent && !was_urgent {
            for watched in &mut self.upstreams {
                watched.due = watched.due.map(|_| now);
            }
        }
    }

    fn look_for_silence(&mut self, place: usize, now: Instant) {
        if self.health.is_up(place) {
            self.upstreams[place].successes = 0;
            if self.health.is_silent_to_many(place, SILENCE, now) {
                self.health.suspect(place, now);
            }
        }
        let watched = &mut self.upstreams[place];
        let is_suspected = self.health.is_suspected(place);
        let is_news = is_suspected && !watched.was_suspected;
        watched.was_suspected = is_suspected;
        // One query may be lost, or its name hard to resolve, so a health check decides.
        if is_news || (self.health.is_up(place) && self.health.is_silent(place, SILENCE, now)) {
            watched.due = watched.due.map(|_| now);
        }
    }

    //--- Health checks

    fn check_if_due(&mut self, place: usize, check: &HealthCheck, now: Instant) {
        let watched = &mut self.upstreams[place];
        let is_responding = self.health.is_responding(place);
        if !std::mem::replace(&mut watched.was_responding, is_responding) && is_responding {
            // It has answered a query.
            (watched.interval, watched.due) = (check.interval, Some(now));
        }
        let is_waited_for = !watched.outstanding.is_empty() && !self.is_urgent;
        if is_waited_for || watched.due.is_none_or(|due| due > now) {
            return;
        }
        let interval = watched.interval.mul_f64(rand::rng().random_range(0.9..1.1));
        watched.due = Some(now + if self.is_urgent { interval.min(RETRY) } else { interval });
        if watched.outstanding.len() >= MAX_CHECKS {
            watched.outstanding.remove(0);
        }
        let opt_use = if self.health.is_without_edns(place, now) { OptUse::Without } else { OptUse::With };
        self.send(place, check, opt_use, now);
    }

    fn send(&mut self, place: usize, check: &HealthCheck, opt_use: OptUse, now: Instant) {
        let Some(server) = self.settings.server(place) else { return };
        let sent = OutstandingCheck::send(check, server.address, &self.settings, opt_use, now);
        let added = sent.and_then(|sent| {
            self.poll.add(&sent.socket, Token::Upstream(place), true, false)?;
            Ok(sent)
        });
        match added {
            Ok(sent) => self.upstreams[place].outstanding.push(sent),
            Err(error) if is_our_own(&error) => {}
            Err(_) => self.lost(place, "cannot be reached", check, now, now),
        }
    }

    fn read(&mut self, place: usize, check: &HealthCheck, now: Instant) {
        let mut read = Vec::new();
        self.upstreams[place].outstanding.retain(|sent| match sent.read(check) {
            Some(response) => {
                read.push((sent.sent_at, sent.opt_use, response));
                false
            }
            None => true,
        });
        for (sent_at, opt_use, response) in read {
            match response {
                // RFC 6891, section 7: again without OPT.
                Ok(CheckResponse::RefusesOpt) => self.send(place, check, OptUse::Retry, now),
                Ok(CheckResponse::Result(result)) => {
                    match (opt_use, result) {
                        (OptUse::With, CheckResult::Good) => self.health.note_edns(place),
                        (OptUse::Retry, CheckResult::Good) => self.health.note_without_edns(place, now),
                        _ => {}
                    }
                    self.answered(place, check, result, now);
                }
                Err(_) => self.lost(place, "cannot be reached", check, sent_at, now),
            }
        }
    }

    fn expire(&mut self, place: usize, check: &HealthCheck, now: Instant) {
        let outstanding = &mut self.upstreams[place].outstanding;
        let over = outstanding.iter().take_while(|sent| now >= sent.sent_at + check.timeout).count();
        let over: Vec<Instant> = outstanding.drain(..over).map(|sent| sent.sent_at).collect();
        for sent_at in over {
            self.lost(place, "does not answer health checks", check, sent_at, now);
        }
    }

    fn answered(&mut self, place: usize, check: &HealthCheck, result: CheckResult, now: Instant) {
        self.health.received(place, now);
        self.health.count_check(place, result);
        let watched = &mut self.upstreams[place];
        watched.was_responding = true;
        if result == CheckResult::Good {
            (watched.failures, watched.interval) = (0, check.interval);
            watched.successes += 1;
            if watched.successes >= check.successes {
                self.health.mark_up(place);
            } else if !self.health.is_up(place) {
                watched.due = Some(now + check.interval);
            }
            return;
        }
        (watched.failures, watched.successes) = (watched.failures.saturating_add(1), 0);
        if watched.failures >= check.failures {
            self.health.mark_down(place, "returns errors to health checks", now);
            self.back_off(place, check);
        }
    }

    /// A check was not answered in time, or could not be sent.
    fn lost(&mut self, place: usize, why: &str, check: &HealthCheck, since: Instant, now: Instant) {
        self.health.count_check(place, CheckResult::Lost);
        let watched = &mut self.upstreams[place];
        watched.successes = 0;
        if since < now && self.health.has_sent_since(place, since) {
            // It is alive: it has answered something else.
            watched.failures = 0;
            return;
        }
        watched.failures = watched.failures.saturating_add(1);
        if watched.failures >= check.failures || self.health.is_suspected_beside_others(place) {
            self.health.mark_silent(place, why, now);
            self.back_off(place, check);
        } else if self.health.is_up(place) && self.health.is_silent(place, SILENCE, now) {
            self.health.suspect_by_check(place);
        }
    }

    /// Doubles the interval, but not while all upstreams are checked often: the first one that is back
    /// must be noticed immediately.
    fn back_off(&mut self, place: usize, check: &HealthCheck) {
        if self.is_urgent {
            return;
        }
        let watched = &mut self.upstreams[place];
        watched.interval = (watched.interval * 2).min(MAX_INTERVAL.max(check.interval));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    /// Stops after the settings were read so many times.
    struct Counted {
        settings: Arc<Settings>,
        health: Health,
        events: Arc<Events>,
        left: AtomicUsize,
    }

    impl Shared for Counted {
        fn settings(&self) -> Arc<Settings> {
            self.left.fetch_sub(1, Ordering::SeqCst);
            Arc::clone(&self.settings)
        }

        fn health(&self) -> &Health {
            &self.health
        }

        fn events(&self) -> &Events {
            &self.events
        }

        fn is_stopping(&self) -> bool {
            self.left.load(Ordering::SeqCst) == 0
        }
    }

    #[test]
    fn a_wakeup_costs_one_round() {
        let events = Arc::new(Events::default());
        let health = Health::new(&[], None, Arc::clone(&events));
        // At startup, in the round that the wakeup starts, and in four that wait.
        let shared = Counted { settings: Arc::default(), health, events, left: AtomicUsize::new(6) };
        let wake = eventfd(1, EventfdFlags::NONBLOCK).unwrap();
        let begun = Instant::now();
        run(&shared, &wake, &[]).unwrap();
        assert!(begun.elapsed() >= 3 * TICK, "a wakeup that is not read ends every wait");
    }
}
