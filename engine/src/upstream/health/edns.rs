//! The upstreams that are queried without OPT, because they do not understand EDNS (RFC 6891,
//! section 7).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{Health, MAX_UPSTREAMS, bit};

/// How long an upstream is queried without OPT. Then OPT is tried again.
const WITHOUT: Duration = Duration::from_secs(600);

pub struct WithoutEdns {
    /// The upstreams that have refused OPT, and have not understood it since.
    places: AtomicU64,
    /// By place: the end of the time without OPT, in nanoseconds since `Health::since`.
    until: [AtomicU64; MAX_UPSTREAMS],
}

impl WithoutEdns {
    pub fn new() -> WithoutEdns {
        WithoutEdns { places: AtomicU64::new(0), until: [const { AtomicU64::new(0) }; MAX_UPSTREAMS] }
    }

    /// The place has a new upstream.
    pub fn forget(&self, place: usize) {
        self.places.fetch_and(!bit(place), Relaxed);
    }
}

impl Health {
    pub fn is_without_edns(&self, place: usize, now: Instant) -> bool {
        let without = &self.without_edns;
        without.places.load(Relaxed) & bit(place) != 0 && self.at(now) < without.until[place].load(Relaxed)
    }

    /// Whether its last known behaviour was to refuse OPT.
    pub fn has_refused_edns(&self, place: usize) -> bool {
        self.without_edns.places.load(Relaxed) & bit(place) != 0
    }

    /// It has answered a query without OPT, and refused the same query with OPT.
    pub fn note_without_edns(&self, place: usize, now: Instant) {
        let without = &self.without_edns;
        without.until[place].store(self.at(now + WITHOUT), Relaxed);
        if without.places.fetch_or(bit(place), Relaxed) & bit(place) == 0 {
            self.log(place, "refuses EDNS: queried without OPT, and tried with OPT every ten minutes");
        }
    }

    /// It has answered a query with OPT.
    pub fn note_edns(&self, place: usize) {
        if self.has_refused_edns(place)
            && self.without_edns.places.fetch_and(!bit(place), Relaxed) & bit(place) != 0
        {
            self.log(place, "understands EDNS again: queried with OPT");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::events::Events;

    #[test]
    fn an_upstream_is_without_edns_for_ten_minutes_and_logged_once() {
        let events = Arc::<Events>::default();
        let health = Health::new(&["192.0.2.1:53".parse().unwrap()], None, Arc::clone(&events));
        let now = Instant::now();
        assert!(!health.is_without_edns(0, now));
        health.note_edns(0);
        health.note_without_edns(0, now);
        health.note_without_edns(0, now);
        assert!(health.is_without_edns(0, now + WITHOUT / 2) && !health.is_without_edns(0, now + WITHOUT));
        health.note_without_edns(0, now + WITHOUT);
        assert!(health.is_without_edns(0, now + WITHOUT));
        assert_eq!(events.take().len(), 1);
        health.note_edns(0);
        assert!(!health.is_without_edns(0, now) && !health.has_refused_edns(0));
        assert_eq!(events.take().len(), 1);
    }
}
