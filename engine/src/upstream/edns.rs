//! Upstreams that do not understand EDNS: a refused query with OPT is sent again without. The
//! upstream is then queried without OPT for ten minutes (RFC 6891, section 7). Used by worker
//! threads and by health checks.

use std::time::Instant;

use super::health::bit;
use super::{ClientIdentity, Upstreams};
use crate::message::{flag, rcode, u16_at};
use crate::relay;

/// Whether a response to a query with OPT may be about the OPT. A server without EDNS returns
/// FORMERR or NOTIMP (RFC 6891, section 7). One without version 0 returns BADVERS (6.1.3), which
/// cannot be passed on.
pub fn may_refuse_opt(message: &[u8], is_valid: bool) -> bool {
    match u16_at(message, 2).unwrap_or(0) & flag::RCODE {
        rcode::FORMERR | rcode::NOTIMP => true,
        rcode::NOERROR if !is_valid => relay::rcode(message) == Some(rcode::BADVERS),
        _ => false,
    }
}

impl Upstreams {
    pub(super) fn sends_opt(&self, key: usize, upstream: usize, now: Instant) -> bool {
        self.flights[key].tries.without_opt & bit(upstream) == 0
            && !self.health.is_without_edns(upstream, now)
    }

    /// Sends a query again to the same upstream, without OPT, if its response may be about the OPT.
    /// This is no new try, because the upstream responded. Otherwise learns from the response.
    pub(super) fn retry_without_opt(
        &mut self,
        key: usize,
        upstream: usize,
        had_opt: bool,
        message: &[u8],
        now: Instant,
    ) -> bool {
        let flight = &mut self.flights[key];
        let may_refuse = may_refuse_opt(message, flight.is_valid);
        if had_opt && may_refuse {
            flight.tries.without_opt |= bit(upstream);
            self.send(key, upstream, now);
            return true;
        }
        if had_opt {
            self.health.note_edns(upstream);
        } else if flight.tries.without_opt & bit(upstream) != 0 && !may_refuse && self.is_usual(key) {
            self.health.note_without_edns(upstream, now);
        }
        false
    }

    /// Whether all queries have such an OPT record. The OPT record of one client must not decide how
    /// the queries of others are sent.
    fn is_usual(&self, key: usize) -> bool {
        let edns = self.flights[key].first.query.head.edns;
        edns.is_none_or(|edns| {
            edns.passed == 0
                && (edns.subnet.is_none()
                    || !matches!(self.settings.client_identity, ClientIdentity::Subnet(_)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formerr_notimp_and_badvers_may_be_about_the_opt() {
        let answer = |low: u8, extended: u8| {
            let mut message = vec![0, 7, 0x81, 0x80 | low, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1];
            message.extend([0, 0, 41, 4, 0xd0, extended, 0, 0, 0, 0, 0]);
            may_refuse_opt(&message, false)
        };
        assert!(answer(1, 0) && answer(4, 0) && answer(0, 1));
        assert!(!answer(0, 0) && !answer(2, 0) && !answer(3, 0) && !answer(5, 0) && !answer(7, 1));
    }
}
