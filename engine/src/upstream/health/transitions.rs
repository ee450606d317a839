//! How an upstream goes up, becomes suspect and goes down: by what the worker threads note for
//! each query and response, and by what the watching thread finds.

use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::{Duration, Instant};

use super::{Failure, Health, RETRY, bit};

/// Queries that an upstream must have been asked before its silence means anything.
pub(super) const SILENT_QUERIES: u32 = 8;
/// Queries in a row that an upstream has left unanswered when its probes are no longer
/// believed.
pub(super) const DEAF_QUERIES: u32 = 16;
/// How long silence is not believed, but only probes, after it had deceived: an
/// upstream whose answers all take long must not be left again and again.
pub(super) const TRUST: Duration = Duration::from_secs(10);

impl Health {
    //--- What worker threads note

    /// A query goes there.
    pub fn asks(&self, place: usize, now: Instant) {
        let state = &self.states[place];
        state.outstanding.fetch_add(1, Relaxed);
        match state.asked.fetch_add(1, Relaxed) + 1 {
            1 => state.first_asked_at.store(self.at(now), Relaxed),
            SILENT_QUERIES => state.many_asked_at.store(self.at(now), Relaxed),
            _ => {}
        }
    }

    /// No answer is waited for any more for one of its queries.
    pub fn is_done(&self, place: usize) {
        self.states[place].outstanding.fetch_sub(1, Relaxed);
    }

    /// It has answered a query.
    pub fn answered(&self, place: usize, now: Instant) {
        self.heard(place, now);
        let state = &self.states[place];
        if state.unanswered.load(Relaxed) != 0 {
            state.unanswered.store(0, Relaxed);
        }
        let was_deaf = self.is_deaf(place);
        if was_deaf {
            self.standing.deaf.fetch_and(!bit(place), Relaxed);
        }
        if !self.is_up(place) && (!self.has_probes() || was_deaf) {
            self.rise(place);
        }
    }

    fn is_deaf(&self, place: usize) -> bool {
        self.standing.deaf.load(Relaxed) & bit(place) != 0
    }

    /// A query has waited in vain. Who answers probes may yet have no way to the Internet:
    /// where another one is up, so many queries in a row tell more than a probe.
    fn note_unanswered(&self, place: usize, now: Instant) {
        let unanswered = self.states[place].unanswered.fetch_add(1, Relaxed) + 1;
        if unanswered >= DEAF_QUERIES && self.has_probes() && self.up() & !bit(place) != 0 {
            self.standing.deaf.fetch_or(bit(place), Relaxed);
            self.go_down(place, "answers no queries, whatever it says to probes", now);
        }
    }

    /// Silence makes a suspect, and probes tell; without any, silence is all there is.
    pub fn failed(&self, place: usize, how: Failure, now: Instant) {
        let state = &self.states[place];
        if let Failure::Silence(_) = how {
            self.note_unanswered(place, now);
        }
        if let Failure::Silence(since) = how
            && state.heard_at.load(Relaxed) >= self.at(since)
        {
            // Slow, and alive: the name is hard to resolve, or the answer was lost.
            return;
        }
        let failures = state.failures.fetch_add(1, Relaxed) + 1;
        let most = self.failures.load(Relaxed);
        match how {
            Failure::Silence(_) if failures >= most => self.suspect(place, now),
            Failure::Unreachable if failures >= most || self.is_suspected_beside_others(place) => {
                self.give_up(place, "cannot be reached", now);
            }
            _ => {}
        }
    }

    //--- What the watching thread judges by

    /// It has said something: it speaks, and silence was no reason to leave it.
    pub fn heard(&self, place: usize, now: Instant) {
        let state = &self.states[place];
        state.heard_at.store(self.at(now), Relaxed);
        // A line that others read is written where it changes, only.
        if state.asked.load(Relaxed) != 0 {
            state.asked.store(0, Relaxed);
        }
        if state.failures.load(Relaxed) != 0 {
            state.failures.store(0, Relaxed);
        }
        if self.standing.speaking.load(Relaxed) & bit(place) == 0 {
            let is_first = self.is_out();
            self.standing.speaking.fetch_or(bit(place), Relaxed);
            self.note_return(is_first);
        }
        if self.is_suspected(place) {
            let trust = TRUST.as_nanos() as u64;
            self.states[place].trusted_until.store(self.at(now) + trust, Relaxed);
            self.rise(place);
        }
    }

    pub fn has_spoken_since(&self, place: usize, since: Instant) -> bool {
        self.states[place].heard_at.load(Relaxed) >= self.at(since)
    }

    /// Whether a query has been waiting for so long, and nothing was heard meanwhile.
    pub fn is_silent(&self, place: usize, patience: Duration, now: Instant) -> bool {
        let state = &self.states[place];
        // Asked before it was last heard, or after.
        let since = state.heard_at.load(Relaxed).max(state.first_asked_at.load(Relaxed));
        let waits = state.outstanding.load(Relaxed) > 0;
        waits && self.at(now) >= since + patience.as_nanos() as u64
    }

    /// The same of so many queries that it can be no accident.
    pub fn is_silent_to_many(&self, place: usize, patience: Duration, now: Instant) -> bool {
        let state = &self.states[place];
        let asked_at = state.many_asked_at.load(Relaxed);
        state.asked.load(Relaxed) >= SILENT_QUERIES && self.at(now) >= asked_at + patience.as_nanos() as u64
    }

    pub fn is_suspected(&self, place: usize) -> bool {
        self.standing.suspected.load(Relaxed) & bit(place) != 0
    }

    /// Whether one more failure is enough. To give up the last one sooner than it must
    /// be would help nobody: it may only be slow, with all caches empty.
    pub fn is_suspected_beside_others(&self, place: usize) -> bool {
        self.is_suspected(place) && self.up() != 0
    }

    pub fn is_speaking(&self, place: usize) -> bool {
        self.standing.speaking.load(Relaxed) & bit(place) != 0
    }

    /// It is silent: others are asked, unless it has just been so and was alive.
    pub fn suspect(&self, place: usize, now: Instant) {
        if !self.has_probes() {
            self.give_up(place, "has fallen silent", now);
        } else if self.at(now) >= self.states[place].trusted_until.load(Relaxed) {
            self.suspect_by_probe(place);
        }
    }

    /// Others are asked until a probe has told.
    pub fn suspect_by_probe(&self, place: usize) {
        // Suspected first, so that nobody finds it neither up nor suspected.
        self.standing.suspected.fetch_or(bit(place), Relaxed);
        if self.standing.up.fetch_and(!bit(place), Relaxed) & bit(place) != 0 {
            self.standing.losses.fetch_add(1, Relaxed);
            self.change(place, "has fallen silent");
        }
    }

    /// Down; whether it still speaks is left as it was.
    pub fn go_down(&self, place: usize, how: &str, now: Instant) {
        let was_suspected = self.standing.suspected.fetch_and(!bit(place), Relaxed) & bit(place) != 0;
        let was_up = self.standing.up.fetch_and(!bit(place), Relaxed) & bit(place) != 0;
        if was_up || was_suspected {
            let rest = self.rest.load(Relaxed);
            self.states[place].trial_at.store(self.at(now) + rest, Relaxed);
            self.standing.losses.fetch_add(1, Relaxed);
        }
        if was_up {
            self.change(place, how);
        } else if was_suspected {
            self.note(place, how);
        }
    }

    /// Down, and silent.
    pub fn give_up(&self, place: usize, how: &str, now: Instant) {
        let was_usable = self.usable() & bit(place) != 0;
        if was_usable {
            // Before anybody can see that none is left: it says how long queries wait.
            self.standing.lost_at.fetch_max(self.at(now), Relaxed);
        }
        self.standing.speaking.fetch_and(!bit(place), Release);
        self.go_down(place, how, now);
        if was_usable && self.is_out() && !self.has_probes() {
            let soon = self.at(now + RETRY);
            for state in &self.states {
                state.trial_at.fetch_min(soon, Relaxed);
            }
        }
    }

    /// Where none could be used, those who wait are released (`watch` wakes their threads).
    fn note_return(&self, is_first: bool) {
        if is_first {
            self.standing.returns.fetch_add(1, Relaxed);
        }
    }

    pub fn rise(&self, place: usize) {
        if self.is_deaf(place) {
            return;
        }
        self.states[place].failures.store(0, Relaxed);
        self.standing.suspected.fetch_and(!bit(place), Relaxed);
        let is_first = self.is_out();
        if self.standing.up.fetch_or(bit(place), Relaxed) & bit(place) == 0 {
            self.note_return(is_first);
            self.change(place, "answers again");
        }
    }
}
