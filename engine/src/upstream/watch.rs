//! The thread that watches the upstreams: it probes them, and judges by what the
//! worker threads have noted who has fallen silent. One for the whole engine; it
//! waits, decides, wakes the worker threads where something has changed, and again.
//!
//! Silence of a busy upstream is noticed in a third of a second; of one that is
//! hardly asked, by a probe that is sent as soon as a query has waited as long.

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt;

use super::health::{Health, MAX_UPSTREAMS, Mask, ProbeResult, RETRY, places};
pub use super::probe::Probe;
use super::probe::{ProbeEdns, Said, UnderWay};
use super::{Settings, is_our_own};
use crate::events::Events;
use crate::transport::poll::{Poll, Token};

/// How long an upstream may say nothing at all while queries wait for it.
const SILENCE: Duration = Duration::from_millis(300);
/// How often it is looked whether one has fallen silent.
const TICK: Duration = Duration::from_millis(100);
/// The longest interval between probes of one that is down.
const LONGEST: Duration = Duration::from_secs(30);
/// Probes of one upstream that are waited for at the same time.
const MOST: usize = 32;

/// What the watching thread shares with the rest of the engine.
pub trait Shared {
    /// Those in force now.
    fn settings(&self) -> Arc<Settings>;
    fn health(&self) -> &Health;
    fn events(&self) -> &Events;
    fn is_stopping(&self) -> bool;
}

/// Watches until the engine stops. `wake` ends the wait; `wakers` those of the worker
/// threads.
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
        // What goes wrong here may cost a look at the upstreams, never the watch.
        match catch_unwind(AssertUnwindSafe(|| watch.turn(|| shared.settings()))) {
            Ok(result) => result?,
            Err(_) => events.push("a look at the upstreams ended in a panic".to_string()),
        }
    }
    Ok(())
}

struct Watch<'a> {
    health: &'a Health,
    settings: Arc<Settings>,
    /// By place.
    upstreams: Vec<Watched>,
    /// Losses and returns as they were when the worker threads were last woken.
    changes: (u64, u64),
    /// No upstream can be used, so all are probed every 100 ms until one answers.
    is_urgent: bool,
    poll: Poll,
    /// Ends the wait of this thread.
    wake: &'a OwnedFd,
    wakers: &'a [Arc<OwnedFd>],
}

/// What the watch alone knows of an upstream.
struct Watched {
    /// When the next probe is due, if there are any, and the time between two.
    due: Option<Instant>,
    interval: Duration,
    under_way: Vec<UnderWay>,
    /// Probes in a row.
    failures: u32,
    successes: u32,
    was_speaking: bool,
    was_suspected: bool,
}

impl Watched {
    fn new(probe: Option<&Probe>, now: Instant) -> Watched {
        Watched {
            due: probe.map(|_| now),
            interval: probe.map_or(LONGEST, |probe| probe.interval),
            under_way: Vec::new(),
            failures: 0,
            successes: 0,
            was_speaking: true,
            was_suspected: false,
        }
    }
}

impl Watch<'_> {
    /// `settings` are those in force after the wait, which a change of them ends.
    fn turn(&mut self, settings: impl FnOnce() -> Arc<Settings>) -> io::Result<()> {
        let events = self.poll.wait(self.patience())?;
        let now = Instant::now();
        if events.iter().any(|event| matches!(event.token, Token::Wake)) {
            // Until it is read, no wait takes any time.
            let _ = rustix::io::read(self.wake, &mut [0; 8]);
        }
        self.take_over(settings(), now);
        for event in events {
            if let Token::Upstream(place) = event.token {
                self.read(place, now);
            }
        }
        self.look_for_outage(now);
        for place in places(self.settings.places()) {
            self.expire(place, now);
            self.judge(place, now);
            self.probe(place, now);
        }
        self.wake();
        Ok(())
    }

    /// Watches those that are asked now, as it is set now.
    fn take_over(&mut self, settings: Arc<Settings>, now: Instant) {
        if Arc::ptr_eq(&self.settings, &settings) {
            return;
        }
        let before = std::mem::replace(&mut self.settings, Arc::clone(&settings));
        let is_probed_alike = before.probe == settings.probe && before.tells == settings.tells;
        let known = if is_probed_alike { before.places() } else { 0 };
        for place in places(before.places() & !settings.places()) {
            self.upstreams[place] = Watched::new(None, now);
        }
        self.begin(settings.places() & !known, now);
    }

    /// Knows nothing yet of the upstreams in these places.
    fn begin(&mut self, new: Mask, now: Instant) {
        for place in places(new) {
            self.upstreams[place] = Watched::new(self.settings.probe.as_ref(), now);
        }
    }

    fn patience(&self) -> Duration {
        let timeout = self.settings.probe.as_ref().map_or(TICK, |probe| probe.timeout);
        let next = |watched: &Watched| match watched.under_way.first() {
            Some(probe) if !self.is_urgent => Some(probe.sent_at + timeout),
            _ => watched.due,
        };
        let next = self.upstreams.iter().filter_map(next).min();
        next.map_or(TICK, |next| next.saturating_duration_since(Instant::now()).min(TICK))
    }

    /// Tells the worker threads that what waits for an upstream must go elsewhere, or that
    /// what waits because none can be used is sent now.
    fn wake(&mut self) {
        let changes = (self.health.losses(), self.health.returns());
        if std::mem::replace(&mut self.changes, changes) != changes {
            for waker in self.wakers {
                // Full: it is awake.
                let _ = rustix::io::write(&**waker, &1u64.to_ne_bytes());
            }
        }
    }

    /// Once no upstream can be used, clients wait: all are probed at once.
    fn look_for_outage(&mut self, now: Instant) {
        let was_urgent = std::mem::replace(&mut self.is_urgent, self.health.is_out());
        if self.is_urgent && !was_urgent {
            for watched in &mut self.upstreams {
                watched.due = watched.due.map(|_| now);
            }
        }
    }

    //--- Silence

    fn judge(&mut self, place: usize, now: Instant) {
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
        // One query may have been lost, or be hard: a probe tells, as of a suspect.
        if is_news || (self.health.is_up(place) && self.health.is_silent(place, SILENCE, now)) {
            watched.due = watched.due.map(|_| now);
        }
    }

    //--- Probes

    fn probe(&mut self, place: usize, now: Instant) {
        let settings = Arc::clone(&self.settings);
        let (Some(probe), watched) = (&settings.probe, &mut self.upstreams[place]) else { return };
        let is_speaking = self.health.is_speaking(place);
        if !std::mem::replace(&mut watched.was_speaking, is_speaking) && is_speaking {
            // A query that tried it was answered.
            (watched.interval, watched.due) = (probe.interval, Some(now));
        }
        let is_waited_for = !watched.under_way.is_empty() && !self.is_urgent;
        if is_waited_for || watched.due.is_none_or(|due| due > now) {
            return;
        }
        let interval = watched.interval.mul_f64(rand::rng().random_range(0.9..1.1));
        watched.due = Some(now + if self.is_urgent { interval.min(RETRY) } else { interval });
        if watched.under_way.len() >= MOST {
            watched.under_way.remove(0);
        }
        let edns = match self.health.is_without_edns(place, now) {
            true => ProbeEdns::Without,
            false => ProbeEdns::With,
        };
        self.send(place, edns, now);
    }

    fn send(&mut self, place: usize, edns: ProbeEdns, now: Instant) {
        let settings = Arc::clone(&self.settings);
        let server = settings.servers.iter().find(|server| server.place == place);
        let (Some(probe), Some(server)) = (&settings.probe, server) else { return };
        let edns = (settings.payload, edns);
        let sent = UnderWay::send(probe, server.address, edns, settings.tells, now);
        let added = sent.and_then(|sent| {
            self.poll.add(&sent.socket, Token::Upstream(place), true, false)?;
            Ok(sent)
        });
        match added {
            Ok(sent) => self.upstreams[place].under_way.push(sent),
            Err(error) if is_our_own(&error) => {}
            Err(_) => self.lost(place, "cannot be reached", now, now),
        }
    }

    fn read(&mut self, place: usize, now: Instant) {
        let Some(probe) = self.settings.probe.clone() else { return };
        let mut read = Vec::new();
        self.upstreams[place].under_way.retain(|sent| match sent.read(&probe) {
            Some(said) => {
                read.push((sent.sent_at, sent.edns, said));
                false
            }
            None => true,
        });
        for (sent_at, edns, said) in read {
            match said {
                // RFC 6891 7: the same once more, without OPT.
                Ok(Said::RefusesOpt) => self.send(place, ProbeEdns::SecondTry, now),
                Ok(Said::Result(result)) => {
                    self.note_edns(place, edns, result, now);
                    self.heard(place, result, now);
                }
                Err(_) => self.lost(place, "cannot be reached", sent_at, now),
            }
        }
    }

    fn note_edns(&self, place: usize, edns: ProbeEdns, result: ProbeResult, now: Instant) {
        match (edns, result) {
            (ProbeEdns::With, ProbeResult::Good) => self.health.note_edns(place),
            (ProbeEdns::SecondTry, ProbeResult::Good) => self.health.note_without_edns(place, now),
            _ => {}
        }
    }

    fn expire(&mut self, place: usize, now: Instant) {
        let Some(probe) = self.settings.probe.clone() else { return };
        let under_way = &mut self.upstreams[place].under_way;
        let over = under_way.iter().take_while(|sent| now >= sent.sent_at + probe.timeout).count();
        let over: Vec<Instant> = under_way.drain(..over).map(|sent| sent.sent_at).collect();
        for sent_at in over {
            self.lost(place, "does not answer", sent_at, now);
        }
    }

    /// A probe was answered.
    fn heard(&mut self, place: usize, result: ProbeResult, now: Instant) {
        let Some(probe) = self.settings.probe.clone() else { return };
        self.health.heard(place, now);
        self.health.count_probe(place, result);
        let watched = &mut self.upstreams[place];
        watched.was_speaking = true;
        if result == ProbeResult::Good {
            (watched.failures, watched.interval) = (0, probe.interval);
            watched.successes += 1;
            if watched.successes >= probe.successes {
                self.health.rise(place);
            } else if !self.health.is_up(place) {
                watched.due = Some(now + probe.interval);
            }
            return;
        }
        (watched.failures, watched.successes) = (watched.failures.saturating_add(1), 0);
        if watched.failures >= probe.failures {
            self.health.go_down(place, "says that it cannot answer", now);
            self.back_off(place);
        }
    }

    /// A probe was not answered in time, or could not be sent.
    fn lost(&mut self, place: usize, how: &str, since: Instant, now: Instant) {
        let Some(probe) = self.settings.probe.clone() else { return };
        self.health.count_probe(place, ProbeResult::Lost);
        let watched = &mut self.upstreams[place];
        watched.successes = 0;
        if since < now && self.health.has_spoken_since(place, since) {
            // To somebody else, so it is alive.
            watched.failures = 0;
            return;
        }
        watched.failures = watched.failures.saturating_add(1);
        if watched.failures >= probe.failures || self.health.is_suspected_beside_others(place) {
            self.health.give_up(place, how, now);
            self.back_off(place);
        } else if self.health.is_up(place) && self.health.is_silent(place, SILENCE, now) {
            self.health.suspect_by_probe(place);
        }
    }

    /// Not while all are probed often: the first that is back must not find itself at the
    /// end of a long interval.
    fn back_off(&mut self, place: usize) {
        let Some(probe) = self.settings.probe.clone() else { return };
        if self.is_urgent {
            return;
        }
        let watched = &mut self.upstreams[place];
        watched.interval = (watched.interval * 2).min(LONGEST.max(probe.interval));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustix::event::{EventfdFlags, eventfd};

    use super::super::{Choice, Tells};
    use super::*;

    /// Stops after so many looks at the settings.
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
    fn a_wakeup_costs_one_turn() {
        let settings = Settings {
            servers: Vec::new(),
            choice: Choice::First,
            attempts: 1,
            timeout: Duration::ZERO,
            max_outstanding: 0,
            payload: 512,
            tells: Tells::Nothing,
            probe: None,
        };
        let events = Arc::new(Events::default());
        let health = Health::new(&[], None, Arc::clone(&events));
        // At the start, in the turn that the wakeup begins, and in four that wait.
        let shared = Counted { settings: Arc::new(settings), health, events, left: AtomicUsize::new(6) };
        let wake = eventfd(1, EventfdFlags::NONBLOCK).unwrap();
        let begun = Instant::now();
        run(&shared, &wake, &[]).unwrap();
        assert!(begun.elapsed() >= 3 * TICK, "a wakeup that is not read ends every wait");
    }
}
