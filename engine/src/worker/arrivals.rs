//! What comes back for questions that were sent upstream: responses, messages of other worker
//! threads, timeouts. Caches a response, and answers the clients that wait for it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::source::Source;
use super::{Mail, Worker};
use crate::cache::{Age, CachedResponse, Key};
use crate::outcome::Outcome;
use crate::response::Parser;
use crate::transport::poll::Event;
use crate::upstream::{ClaimResult, Flight, Origin, Refusal, Waiter};

/// What has become of a question that was sent upstream.
enum Arrival<'a> {
    /// An upstream's message.
    Message(&'a mut [u8]),
    /// There is an answer, but it is too long for UDP and cannot be had over TCP.
    TooLong,
    Nothing,
}

/// Clients that waited together for one answer and are answered in one turn.
const TOGETHER: usize = 256;

/// Clients that waited together, and what they get: too many for one turn.
pub(super) struct Owed {
    waiters: std::vec::IntoIter<Box<Waiter>>,
    heard: ClaimResult,
    stale: Option<CachedResponse>,
}

impl Worker {
    pub(super) fn take_datagrams(&mut self, key: usize, mail: &mut Mail) {
        for (flight, place) in self.upstreams.receive(key, &mut mail.batch, self.now) {
            let datagram = &mut mail.batch.datagrams[place];
            self.finish(flight, Arrival::Message(&mut datagram.data[..datagram.length]));
        }
    }

    pub(super) fn take_messages(&mut self, key: usize, event: Event) {
        if event.writable {
            self.upstreams.write_stream(key, self.now);
        }
        if event.readable || event.broken {
            for (flight, mut message) in self.upstreams.read_stream(key, self.now) {
                self.finish(flight, Arrival::Message(&mut message));
            }
        }
    }

    /// Takes what other worker threads have heard about questions of this one.
    pub(super) fn take_letters(&mut self) {
        for (flight, heard) in self.upstreams.take_claim_results(self.now) {
            match heard {
                ClaimResult::Response(message) => {
                    self.finish(flight, Arrival::Message(&mut message.to_vec()))
                }
                ClaimResult::TooLong => self.finish(flight, Arrival::TooLong),
                ClaimResult::NoResponse | ClaimResult::Abandoned => self.finish(flight, Arrival::Nothing),
            }
        }
    }

    /// Gives what there is to those whose patience is at an end.
    pub(super) fn give_up_waiting(&mut self) {
        for flight in self.upstreams.expire(self.now) {
            let arrival = if flight.transport.is_tcp() { Arrival::TooLong } else { Arrival::Nothing };
            self.finish(flight, arrival);
        }
        for place in self.upstreams.overdue(self.now) {
            let Some(stale) = self.stale(self.upstreams.key_at(place)) else { continue };
            let waiters = self.upstreams.take_waiters(place);
            self.owed.push_back(Owed {
                waiters: waiters.into_iter(),
                heard: ClaimResult::NoResponse,
                stale: Some(stale),
            });
        }
        self.serve_owed();
    }

    /// Answers some of those who waited together: others come between them.
    fn serve_owed(&mut self) {
        let Some(mut owed) = self.owed.pop_front() else { return };
        let mut parser = self.parser();
        let source = match &owed.stale {
            Some(stale) => Source::Cached(stale, Age::Stale),
            None => Source::of(&owed.heard, &mut parser),
        };
        for waiter in owed.waiters.by_ref().take(TOGETHER) {
            self.serve_waiter(waiter, source);
        }
        self.upstreams.parsers.push(parser);
        if owed.waiters.len() > 0 {
            self.owed.push_back(owed);
        }
    }

    /// What is kept for this question and will do where nothing else is to be had, by the
    /// rules of now.
    pub(super) fn stale(&self, key: Key<'_>) -> Option<CachedResponse> {
        let settings = self.shared.serving.load().rules.cache;
        self.shared.cache.find(key).filter(|kept| kept.age(self.now, &settings) == Age::Stale)
    }

    /// Answers those who wait for a question that has been answered, or will not be.
    fn finish(&mut self, flight: Flight, arrival: Arrival<'_>) {
        let Flight { first, others, is_valid, parser, purges, claim, client, awaits_recursion, .. } = flight;
        let mut parser = parser.unwrap_or_else(|| self.parser());
        let mut refusal = flight.refusal;
        // Another upstream was asked, and had nothing better than this SERVFAIL.
        let (arrival, is_valid) = match &mut refusal {
            Refusal::Servfail(failure) => {
                parser.parse(failure);
                (Arrival::Message(failure), true)
            }
            Refusal::None | Refusal::Refused => (arrival, is_valid),
        };
        let is_shared = client.is_none();
        let bounds = self.shared.serving.load().rules.ttl_bounds;
        let source = match arrival {
            Arrival::Message(message) => {
                parser.bound_ttls(message, &bounds).map_or(Source::Malformed, Source::Upstream)
            }
            Arrival::TooLong => Source::TooLong,
            Arrival::Nothing => Source::Nothing(Outcome::Failed),
        };
        let keep = AssertUnwindSafe(|| self.keep(first.key(), purges, (is_valid, is_shared), source));
        let kept = catch_unwind(keep);
        let has_failed = match kept {
            Ok(has_failed) => has_failed,
            Err(_) => {
                self.counters.panics.add(1);
                false
            }
        };
        if let Some(claim) = claim {
            claim.end(|| source.to_others());
        }
        // RFC 8767 4: a failure is no better than what was known before.
        let stale = if has_failed { self.stale(first.key()) } else { None };
        let (others, unserved) = match awaits_recursion {
            true => others.into_iter().partition(|waiter| first.key().serves(&waiter.key())),
            false => (others, Vec::new()),
        };
        if others.len() >= TOGETHER {
            let waiters = [first].into_iter().chain(others).collect::<Vec<_>>().into_iter();
            self.owed.push_back(Owed { waiters, heard: source.to_others(), stale });
        } else {
            let source = stale.as_ref().map_or(source, |stale| Source::Cached(stale, Age::Stale));
            for waiter in [first].into_iter().chain(others) {
                self.serve_waiter(waiter, source);
            }
        }
        self.upstreams.parsers.push(parser);
        for waiter in unserved {
            let stale = self.stale(waiter.key());
            self.wait(waiter, stale.as_ref());
        }
    }

    /// A parser that is not in use; to be returned to `Upstreams::parsers`.
    pub(super) fn parser(&mut self) -> Box<Parser> {
        self.upstreams.parsers.pop().unwrap_or_default()
    }

    /// Keeps an answer for the next client; true if it is a failure, or there is none.
    /// `is_shared`: it was not asked for one client, whom the upstream was told of.
    fn keep(
        &mut self,
        key: Key<'_>,
        purges: u64,
        (is_valid, is_shared): (bool, bool),
        source: Source<'_>,
    ) -> bool {
        let response = match source {
            Source::Upstream(response) if is_valid => response,
            Source::Upstream(_) | Source::Malformed | Source::Nothing(Outcome::Failed) => {
                self.failures.insert(key, self.now);
                return true;
            }
            Source::Nothing(_) | Source::Refused(_) | Source::TooLong | Source::Cached(..) => return true,
        };
        if !self.shared.cache.is_enabled() || self.upstreams.sends_identity() || !is_shared {
            return false;
        }
        let Some(kept) = CachedResponse::new(response, key, self.now, &mut self.message[..]) else {
            // What was kept before is no longer true (RFC 8767 4), though this is for now alone.
            self.shared.cache.remove(key);
            return false;
        };
        let is_failure = kept.is_failure();
        if is_failure && self.shared.cache.find(key).is_some_and(|before| !before.is_failure()) {
            // What was known before may still be needed.
            self.failures.insert(key, self.now);
        } else {
            self.shared.cache.insert(key, kept, purges);
        }
        is_failure
    }

    pub(super) fn serve_waiter(&mut self, waiter: Box<Waiter>, source: Source<'_>) {
        let origin = waiter.origin;
        let served = catch_unwind(AssertUnwindSafe(|| {
            fail::fail_point!("finish");
            self.judge_again(waiter, source);
        }));
        if served.is_err() {
            self.survive_panic(origin.transport());
            if let Origin::Tcp { connection, generation, .. } = origin {
                self.clients.leave_unanswered(connection, generation);
                self.resumable.push(connection);
            }
        }
    }
}
