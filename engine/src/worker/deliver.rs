//! Writes the response to a client, counts it, and sends it over the transport of the query.

use super::Worker;
use super::source::Source;
use super::tap::Basis;
use crate::answer::respond_with_error;
use crate::cache::{Age, Allowed, Key};
use crate::counters::{Refused, ResponseFrom};
use crate::message::{ExtendedError, Query, ede, is_truncated, rcode};
use crate::name::Name;
use crate::outcome::Outcome;
use crate::relay;
use crate::response::Response;
use crate::rules::Rules;
use crate::shared::Serving;
use crate::sys::DATAGRAM;
use crate::transport::DatagramIo;
use crate::upstream::Origin;

impl Worker {
    /// Writes an upstream's response. `judged`: the response if its targets were judged, with marks on
    /// the records to drop. `passed_by`: the policy that lets all records pass.
    pub(super) fn write_response(
        &mut self,
        query: &Query,
        source: Source<'_>,
        judged: Option<Response<'_>>,
        passed_by: Option<Allowed>,
        rules: &Rules,
    ) -> Option<(usize, Outcome)> {
        let (payload, out) = (rules.max_payload, &mut self.scratch[..]);
        match source {
            Source::Upstream(response) => {
                if judged.is_none() {
                    // The query of another client may have left marks.
                    response.clear_marks();
                }
                relay::respond(response, query, payload, out).map(|length| (length, Outcome::Forwarded))
            }
            Source::TooLong if !query.head.hop.transport.is_tcp() => {
                Some((relay::respond_truncated(query, payload, out), Outcome::Forwarded))
            }
            Source::Cached(cached, age) => {
                if let Some(by) = passed_by {
                    cached.mark_allowed(by);
                }
                let outcome = if age == Age::Stale { Outcome::Stale } else { Outcome::Cached };
                let length = match judged.filter(|response| response.dropped() > 0) {
                    None => cached.respond(query, age, payload, out),
                    Some(response) => {
                        let room = &mut self.message[..];
                        cached.respond_without_dropped(query, age, payload, response, room, out)
                    }
                };
                length.map(|length| (length, outcome))
            }
            Source::Malformed | Source::TooLong | Source::Nothing(_) | Source::Refused(_) => None,
        }
    }

    /// SERVFAIL, with the reason. If the upstream has sent a response that cannot be used, the failure
    /// is remembered, so that the question is not sent again immediately.
    pub(super) fn fail(
        &mut self,
        query: &Query,
        follow: Option<&Name>,
        origin: Origin,
        source: Source<'_>,
        serving: &Serving,
    ) {
        let (outcome, error) = match source {
            Source::Refused(why) => {
                let text: &[u8] = match why {
                    Refused::Full => b"too many queries are outstanding",
                    Refused::Domain => b"too many queries are outstanding for this domain",
                    Refused::Client => b"too many queries of this client are outstanding",
                };
                (Outcome::Overloaded, ExtendedError::new(ede::OTHER, text))
            }
            Source::Nothing(outcome) => {
                (outcome, ExtendedError::new(ede::NO_REACHABLE_AUTHORITY, b"no upstream answered"))
            }
            Source::Upstream(_) | Source::Malformed | Source::TooLong | Source::Cached(..) => {
                let key = Key::new(&query.head, follow.unwrap_or(&query.name), query.qtype);
                self.failures.insert(key, self.now);
                let error = ExtendedError::new(ede::OTHER, b"the upstream's answer cannot be used");
                (Outcome::Failed, error)
            }
        };
        self.servfail(query, origin, outcome, error, serving);
    }

    /// SERVFAIL with the reason.
    pub(super) fn servfail(
        &mut self,
        query: &Query,
        origin: Origin,
        outcome: Outcome,
        error: ExtendedError<'_>,
        serving: &Serving,
    ) {
        let out = &mut self.scratch[..DATAGRAM];
        let length = respond_with_error(&query.head, rcode::SERVFAIL, &[error], &serving.rules, out);
        self.deliver(query, origin, (length, outcome), &Basis::Query, serving);
    }

    /// Sends the response in `scratch[..length]`; none if that is empty.
    pub(super) fn deliver(
        &mut self,
        query: &Query,
        origin: Origin,
        (length, outcome): (usize, Outcome),
        basis: &Basis<'_>,
        serving: &Serving,
    ) {
        if matches!(origin, Origin::Nobody) {
            return;
        }
        self.counters.count(origin.transport(), outcome, &serving.slots);
        if length == 0 {
            self.tap_dropped(query, &origin, outcome, basis, serving);
            self.leave_unanswered(&origin);
        } else {
            if let Origin::Udp { listener, .. } = origin {
                let slot = self.listeners[listener].slot();
                let Some(data) = slot.data.get_mut(..length) else { return };
                data.copy_from_slice(&self.scratch[..length]);
            }
            self.tap_response(query, &origin, length, outcome, basis, serving);
            self.send(&origin, length, outcome);
        }
        if let Origin::Tcp { connection, .. } = origin {
            self.resumable.push(connection);
        }
    }

    /// Where a response is written that `send` sends.
    pub(super) fn slot(&mut self, origin: &Origin) -> &mut [u8] {
        match origin {
            Origin::Udp { listener, .. } => &mut self.listeners[*listener].slot().data,
            Origin::Tcp { .. } | Origin::Nobody => &mut self.scratch[..],
        }
    }

    /// Counts the response in `slot()[..length]` and how long its client has waited. Queues it to be sent.
    pub(super) fn send(&mut self, origin: &Origin, length: usize, outcome: Outcome) {
        let read_at = match origin {
            Origin::Udp { listener, peer, local, read_at } => {
                let listener = &mut self.listeners[*listener];
                let slot = listener.slot();
                (slot.length, slot.peer, slot.local) = (length, *peer, *local);
                let response = &slot.data[..length];
                self.counters.count_response(response, outcome);
                self.counters.truncated.add(u64::from(is_truncated(response)));
                self.counters.unsent.add(listener.push() as u64);
                read_at
            }
            Origin::Tcp { connection, generation, read_at } => {
                let response = &self.scratch[..length];
                self.counters.count_response(response, outcome);
                self.clients.answer(*connection, *generation, response, self.now);
                read_at
            }
            Origin::Nobody => return,
        };
        if *read_at == self.now {
            self.immediate += 1;
        } else {
            let waited = self.now.saturating_duration_since(*read_at);
            self.counters.count_response_times(ResponseFrom::Upstream, waited, 1);
        }
    }

    /// A query gets no response. Over UDP that takes nothing.
    pub(super) fn leave_unanswered(&mut self, origin: &Origin) {
        if let Origin::Tcp { connection, generation, .. } = origin {
            self.clients.leave_unanswered(*connection, *generation);
        }
    }

    /// The message was not a query, or its client may not query: the rest of its stream is not read.
    pub(super) fn stop_reading(&mut self, origin: &Origin) {
        if let Origin::Tcp { connection, .. } = origin {
            self.clients.end(*connection);
        }
    }
}
