//! Writes the response to a client, counts it, and sends it to where the query came from.

use std::time::Instant;

use super::Worker;
use super::source::Source;
use crate::answer::respond_with_error;
use crate::cache::{Age, Key};
use crate::counters::{Refused, ResponseFrom};
use crate::message::{ExtendedError, Query, Transport, ede, rcode};
use crate::name::Name;
use crate::outcome::Outcome;
use crate::relay;
use crate::response::Response;
use crate::rules::Rules;
use crate::shared::Serving;
use crate::sys::DATAGRAM;
use crate::upstream::Origin;

impl Worker {
    /// Writes what an upstream said. `judged`: the response, where that was judged; what it was
    /// told to drop is left out. `passed_by`: the generation of what lets all of it pass.
    pub(super) fn pass_on(
        &mut self,
        query: &Query,
        source: Source<'_>,
        judged: Option<Response<'_>>,
        passed_by: Option<u64>,
        rules: &Rules,
    ) -> Option<(usize, Outcome)> {
        let (payload, out) = (rules.max_payload, &mut self.scratch[..]);
        match source {
            Source::Upstream(response) => {
                if judged.is_none() {
                    // Another client's query may have marked what to drop.
                    response.clear_marks();
                }
                relay::respond(response, query, payload, out).map(|length| (length, Outcome::Forwarded))
            }
            Source::TooLong if !query.head.hop.transport.is_tcp() => {
                Some((relay::respond_truncated(query, payload, out), Outcome::Forwarded))
            }
            Source::Cached(kept, age) => {
                if let Some(generation) = passed_by {
                    kept.mark_allowed_by(generation);
                }
                let outcome = if age == Age::Stale { Outcome::Stale } else { Outcome::Cached };
                let length = match judged.filter(|response| response.dropped() > 0) {
                    None => kept.respond(query, age, payload, out),
                    Some(response) => {
                        let room = &mut self.message[..];
                        kept.respond_without_dropped(query, age, payload, response, room, out)
                    }
                };
                length.map(|length| (length, outcome))
            }
            Source::Malformed | Source::TooLong | Source::Nothing(_) | Source::Refused(_) => None,
        }
    }

    /// Nobody who could tell has told (RFC 8914 4.23), or nothing that can be passed
    /// on (4.1), and then it is no use to ask again at once.
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
        self.give_up(query, origin, outcome, error, serving);
    }

    /// SERVFAIL with the reason.
    pub(super) fn give_up(
        &mut self,
        query: &Query,
        origin: Origin,
        outcome: Outcome,
        error: ExtendedError<'_>,
        serving: &Serving,
    ) {
        let out = &mut self.scratch[..DATAGRAM];
        let length = respond_with_error(&query.head, rcode::SERVFAIL, &[error], &serving.rules, out);
        self.deliver(origin, length, outcome, serving);
    }

    /// Counts the response in `scratch[..length]`, if there is one, and how long its client has waited.
    pub(super) fn count_response(&mut self, length: usize, outcome: Outcome, read_at: Instant) {
        if length == 0 {
            return;
        }
        self.counters.count_response(&self.scratch[..length], outcome);
        if read_at == self.now {
            self.at_once += 1;
        } else {
            let waited = self.now.saturating_duration_since(read_at);
            self.counters.count_response_times(ResponseFrom::Upstream, waited, 1);
        }
    }

    /// Sends `scratch[..length]` to where the query came from; nothing if empty.
    pub(super) fn deliver(&mut self, origin: Origin, length: usize, outcome: Outcome, serving: &Serving) {
        match origin {
            Origin::Udp { listener: place, peer, local, read_at } => {
                self.counters.count(Transport::Udp, outcome, &serving.slots);
                self.count_response(length, outcome, read_at);
                let slot = self.listeners[place].slot();
                let Some(data) = slot.data.get_mut(..length).filter(|data| !data.is_empty()) else { return };
                data.copy_from_slice(&self.scratch[..length]);
                (slot.length, slot.peer, slot.local) = (length, peer, local);
                self.push(place);
            }
            Origin::Tcp { connection, generation, read_at } => {
                self.counters.count(Transport::Tcp, outcome, &serving.slots);
                self.count_response(length, outcome, read_at);
                match length {
                    0 => self.clients.leave_unanswered(connection, generation),
                    _ => self.clients.answer(connection, generation, &self.scratch[..length], self.now),
                }
                self.resumable.push(connection);
            }
            Origin::Nobody => {}
        }
    }
}
