//! Upstreams that do not understand EDNS: a query with OPT that they refuse is sent again
//! without, and for ten minutes they are queried without OPT (RFC 6891 7). Used by the
//! packet threads and by the probes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::health::{Health, MAX_UPSTREAMS, bit};
use super::{Tells, Upstreams};
use crate::message::{flag, rcode, u16_at};
use crate::relay;

/// How long an upstream is queried without OPT before it is tried with one again.
const WITHOUT: Duration = Duration::from_secs(600);

/// What is known of the upstreams' EDNS.
pub struct WithoutEdns {
    /// A bit for each upstream that has refused OPT, and has not understood it since.
    places: AtomicU64,
    /// By place: until when it is queried without OPT; nanoseconds since `Health::since`.
    until: [AtomicU64; MAX_UPSTREAMS],
}

impl WithoutEdns {
    pub fn new() -> WithoutEdns {
        WithoutEdns { places: AtomicU64::new(0), until: [const { AtomicU64::new(0) }; MAX_UPSTREAMS] }
    }

    /// Another upstream has got this place.
    pub fn forget(&self, place: usize) {
        self.places.fetch_and(!bit(place), Relaxed);
    }
}

impl Health {
    /// Whether it is queried without OPT now.
    pub fn is_without_edns(&self, place: usize, now: Instant) -> bool {
        let without = &self.without_edns;
        without.places.load(Relaxed) & bit(place) != 0 && self.at(now) < without.until[place].load(Relaxed)
    }

    /// Whether the latest that is known is that it refuses OPT.
    pub fn has_refused_edns(&self, place: usize) -> bool {
        self.without_edns.places.load(Relaxed) & bit(place) != 0
    }

    /// It has answered a query without OPT, and refused the same with OPT.
    pub fn note_without_edns(&self, place: usize, now: Instant) {
        let without = &self.without_edns;
        without.until[place].store(self.at(now + WITHOUT), Relaxed);
        if without.places.fetch_or(bit(place), Relaxed) & bit(place) == 0 {
            self.tell(place, "refuses EDNS: queried without OPT, and tried with OPT every ten minutes");
        }
    }

    /// It has answered a query with OPT.
    pub fn note_edns(&self, place: usize) {
        if self.has_refused_edns(place)
            && self.without_edns.places.fetch_and(!bit(place), Relaxed) & bit(place) != 0
        {
            self.tell(place, "understands EDNS again: queried with OPT");
        }
    }
}

/// Whether an upstream's answer to a query with OPT may be about the OPT: FORMERR and
/// NOTIMP of a server that does not know EDNS (RFC 6891 7), BADVERS of one that does
/// not know its version 0 (6.1.3), which is none that could be passed on.
pub fn may_refuse_opt(message: &[u8], is_sound: bool) -> bool {
    match u16_at(message, 2).unwrap_or(0) & flag::RCODE {
        rcode::FORMERR | rcode::NOTIMP => true,
        rcode::NOERROR if !is_sound => relay::rcode(message) == Some(rcode::BADVERS),
        _ => false,
    }
}

impl Upstreams {
    /// Whether this flight is sent to that upstream with OPT.
    pub(super) fn sends_opt(&self, key: usize, upstream: usize, now: Instant) -> bool {
        self.flights[key].without_opt & bit(upstream) == 0 && !self.health.is_without_edns(upstream, now)
    }

    /// Sends a query again without OPT, to the same upstream, where its answer may be
    /// about the OPT; else learns from the answer. Not an attempt, since it answered.
    pub(super) fn sends_again_without_opt(
        &mut self,
        key: usize,
        upstream: usize,
        had_opt: bool,
        message: &[u8],
        now: Instant,
    ) -> bool {
        let flight = &mut self.flights[key];
        let may_refuse = may_refuse_opt(message, flight.is_sound);
        if had_opt && may_refuse {
            flight.without_opt |= bit(upstream);
            self.send(key, upstream, now);
            return true;
        }
        if had_opt {
            self.health.note_edns(upstream);
        } else if flight.without_opt & bit(upstream) != 0 && !may_refuse && self.is_usual(key) {
            self.health.note_without_edns(upstream, now);
        }
        false
    }

    /// Whether what was refused is in every query: clients must not have a say in how
    /// those of others are sent.
    fn is_usual(&self, key: usize) -> bool {
        let edns = self.flights[key].first.query.head.edns;
        edns.is_none_or(|edns| {
            edns.passed == 0 && (edns.subnet.is_none() || !matches!(self.settings.tells, Tells::Subnet(_)))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::events::Events;

    #[test]
    fn an_upstream_is_without_edns_for_ten_minutes_and_told_of_once() {
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

    #[test]
    fn what_may_be_about_the_opt() {
        let answer = |low: u8, extended: u8| {
            let mut message = vec![0, 7, 0x81, 0x80 | low, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1];
            message.extend([0, 0, 41, 4, 0xd0, extended, 0, 0, 0, 0, 0]);
            may_refuse_opt(&message, false)
        };
        assert!(answer(1, 0) && answer(4, 0) && answer(0, 1));
        assert!(!answer(0, 0) && !answer(2, 0) && !answer(3, 0) && !answer(5, 0) && !answer(7, 1));
    }
}
