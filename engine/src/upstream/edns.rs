//! Upstreams that do not understand EDNS: a query with OPT that they refuse is sent again
//! without, and for ten minutes they are queried without OPT (RFC 6891 7). Used by the
//! worker threads and by health checks.

use std::time::Instant;

use super::health::bit;
use super::{Tells, Upstreams};
use crate::message::{flag, rcode, u16_at};
use crate::relay;

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
    use super::*;

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
