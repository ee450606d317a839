//! How an upstream goes up, becomes suspect and goes down. Worker threads report each query and
//! response; the watch thread reports health checks and silence.

use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::{Duration, Instant};

use super::{Failure, Health, RETRY, bit};

/// Outstanding queries after which the silence of an upstream is significant.
pub(super) const SILENT_QUERIES: u32 = 8;
/// Consecutive unanswered queries after which an upstream is down despite good health checks.
pub(super) const UNANSWERED_QUERIES: u32 = 16;
/// How long silence does not count after it was misleading. An upstream that is always slow must not
/// be left again and again.
pub(super) const IGNORE_SILENCE: Duration = Duration::from_secs(10);

impl Health {
    //--- Reports of worker threads

    pub fn query_sent(&self, place: usize, now: Instant) {
        let state = &self.states[place];
        state.outstanding.fetch_add(1, Relaxed);
        match state.queries.fetch_add(1, Relaxed) + 1 {
            1 => state.first_query_at.store(self.at(now), Relaxed),
            SILENT_QUERIES => state.many_queries_at.store(self.at(now), Relaxed),
            _ => {}
        }
    }

    /// A response to one of its queries is not accepted any more.
    pub fn query_done(&self, place: usize) {
        self.states[place].outstanding.fetch_sub(1, Relaxed);
    }

    pub fn query_answered(&self, place: usize, now: Instant) {
        self.received(place, now);
        let state = &self.states[place];
        if state.unanswered.load(Relaxed) != 0 {
            state.unanswered.store(0, Relaxed);
        }
        let answered_none = self.answers_no_queries(place);
        if answered_none {
            self.masks.answering_checks_only.fetch_and(!bit(place), Relaxed);
        }
        if !self.is_up(place) && (!self.has_checks() || answered_none) {
            self.mark_up(place);
        }
    }

    fn answers_no_queries(&self, place: usize) -> bool {
        self.masks.answering_checks_only.load(Relaxed) & bit(place) != 0
    }

    /// An upstream that answers health checks may have no Internet connectivity. If another one is
    /// up, many unanswered queries in a row outweigh the checks.
    fn count_unanswered(&self, place: usize, now: Instant) {
        let unanswered = self.states[place].unanswered.fetch_add(1, Relaxed) + 1;
        if unanswered >= UNANSWERED_QUERIES && self.has_checks() && self.up() & !bit(place) != 0 {
            self.masks.answering_checks_only.fetch_or(bit(place), Relaxed);
            self.mark_down(place, "answers health checks, but no queries", now);
        }
    }

    /// Silence makes an upstream suspect, and health checks decide. Without health checks, silence
    /// decides.
    pub fn failed(&self, place: usize, how: Failure, now: Instant) {
        let state = &self.states[place];
        if let Failure::Timeout(sent_at) = how {
            self.count_unanswered(place, now);
            if state.received_at.load(Relaxed) >= self.at(sent_at) {
                // It is alive: the name is hard to resolve, or the response was lost.
                return;
            }
        }
        let failures = state.failures.fetch_add(1, Relaxed) + 1;
        let max = self.failures.load(Relaxed);
        match how {
            Failure::Timeout(_) if failures >= max => self.suspect(place, now),
            Failure::Unreachable if failures >= max || self.is_suspected_beside_others(place) => {
                self.mark_silent(place, "cannot be reached", now);
            }
            _ => {}
        }
    }

    /// The upstream has sent a message, so silence is no reason to leave it.
    pub fn received(&self, place: usize, now: Instant) {
        let state = &self.states[place];
        state.received_at.store(self.at(now), Relaxed);
        // These cache lines are shared with other threads, so they are written only on a change.
        if state.queries.load(Relaxed) != 0 {
            state.queries.store(0, Relaxed);
        }
        if state.failures.load(Relaxed) != 0 {
            state.failures.store(0, Relaxed);
        }
        if self.masks.responding.load(Relaxed) & bit(place) == 0 {
            let is_first = self.is_out();
            self.masks.responding.fetch_or(bit(place), Relaxed);
            self.masks.returns.fetch_add(u64::from(is_first), Relaxed);
        }
        if self.is_suspected(place) {
            state.silence_ignored_until.store(self.at(now + IGNORE_SILENCE), Relaxed);
            self.mark_up(place);
        }
    }

    //--- Questions of the watch thread

    pub fn has_sent_since(&self, place: usize, since: Instant) -> bool {
        self.states[place].received_at.load(Relaxed) >= self.at(since)
    }

    /// Whether a query is outstanding, and nothing was received for so long.
    pub fn is_silent(&self, place: usize, timeout: Duration, now: Instant) -> bool {
        let state = &self.states[place];
        // The query may be older than the last message.
        let since = state.received_at.load(Relaxed).max(state.first_query_at.load(Relaxed));
        let waits = state.outstanding.load(Relaxed) > 0;
        waits && self.at(now) >= since + timeout.as_nanos() as u64
    }

    /// The same of so many queries that it can be no accident.
    pub fn is_silent_to_many(&self, place: usize, timeout: Duration, now: Instant) -> bool {
        let state = &self.states[place];
        let since = state.many_queries_at.load(Relaxed);
        state.queries.load(Relaxed) >= SILENT_QUERIES && self.at(now) >= since + timeout.as_nanos() as u64
    }

    pub fn is_suspected(&self, place: usize) -> bool {
        self.masks.suspected.load(Relaxed) & bit(place) != 0
    }

    /// Whether one more failure is enough. The last upstream is not given up early: it may only be
    /// slow, because all its caches are empty.
    pub fn is_suspected_beside_others(&self, place: usize) -> bool {
        self.is_suspected(place) && self.up() != 0
    }

    pub fn is_responding(&self, place: usize) -> bool {
        self.masks.responding.load(Relaxed) & bit(place) != 0
    }

    //--- Transitions

    /// The upstream is silent. Queries go to others, unless its silence was misleading recently.
    pub fn suspect(&self, place: usize, now: Instant) {
        if !self.has_checks() {
            self.mark_silent(place, "is not responding", now);
        } else if self.at(now) >= self.states[place].silence_ignored_until.load(Relaxed) {
            self.suspect_by_check(place);
        }
    }

    /// Queries go to others until a health check decides.
    pub fn suspect_by_check(&self, place: usize) {
        // In this order, no thread sees an upstream that is neither up nor suspected.
        self.masks.suspected.fetch_or(bit(place), Relaxed);
        if self.masks.up.fetch_and(!bit(place), Relaxed) & bit(place) != 0 {
            self.masks.losses.fetch_add(1, Relaxed);
            self.log_change(place, "is not responding");
        }
    }

    /// Down. Whether it responds is unchanged.
    pub fn mark_down(&self, place: usize, why: &str, now: Instant) {
        let was_suspected = self.masks.suspected.fetch_and(!bit(place), Relaxed) & bit(place) != 0;
        let was_up = self.masks.up.fetch_and(!bit(place), Relaxed) & bit(place) != 0;
        if was_up || was_suspected {
            let interval = self.retry_interval.load(Relaxed);
            self.states[place].retry_at.store(self.at(now) + interval, Relaxed);
            self.masks.losses.fetch_add(1, Relaxed);
        }
        if was_up {
            self.log_change(place, why);
        } else if was_suspected {
            self.record_change(place, why);
        }
    }

    /// Down and silent.
    pub fn mark_silent(&self, place: usize, why: &str, now: Instant) {
        let was_usable = self.usable() & bit(place) != 0;
        if was_usable {
            // Queries are delayed from this time, so it is set before any thread sees the outage.
            self.masks.lost_at.fetch_max(self.at(now), Relaxed);
        }
        self.masks.responding.fetch_and(!bit(place), Release);
        self.mark_down(place, why, now);
        if was_usable && self.is_out() && !self.has_checks() {
            let soon = self.at(now + RETRY);
            for state in &self.states {
                state.retry_at.fetch_min(soon, Relaxed);
            }
        }
    }

    /// The first usable upstream releases delayed queries. The watch thread wakes their threads.
    pub fn mark_up(&self, place: usize) {
        if self.answers_no_queries(place) {
            return;
        }
        self.states[place].failures.store(0, Relaxed);
        self.masks.suspected.fetch_and(!bit(place), Relaxed);
        let is_first = self.is_out();
        if self.masks.up.fetch_or(bit(place), Relaxed) & bit(place) == 0 {
            self.masks.returns.fetch_add(u64::from(is_first), Relaxed);
            self.log_change(place, "answers again");
        }
    }
}
