//! Results of the questions that were sent upstream: responses, results of other worker threads,
//! timeouts. Caches the response, and answers the clients that wait for it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::source::Source;
use super::{Buffers, Worker};
use crate::cache::{Age, CachedResponse, Key};
use crate::outcome::Outcome;
use crate::response::Parser;
use crate::transport::poll::Event;
use crate::upstream::{ClaimResult, Flight, Origin, Refusal, Waiter};

/// The result of a question that was sent upstream.
enum Arrival<'a> {
    /// A message from an upstream.
    Message(&'a mut [u8]),
    /// The response does not fit over UDP, and TCP to the upstream failed.
    TooLong,
    Nothing,
}

/// Coalesced queries that are answered in one turn; the others follow in later turns.
const MAX_PENDING_PER_TURN: usize = 256;

/// Coalesced queries that are too many for one turn, and their response.
pub(super) struct Pending {
    waiters: std::vec::IntoIter<Box<Waiter>>,
    result: ClaimResult,
    stale: Option<CachedResponse>,
}

impl Worker {
    pub(super) fn receive_datagrams(&mut self, key: usize, buffers: &mut Buffers) {
        for (flight, place) in self.upstreams.receive(key, &mut buffers.batch, self.now) {
            let datagram = &mut buffers.batch.datagrams[place];
            self.finish(flight, Arrival::Message(&mut datagram.data[..datagram.length]));
        }
    }

    pub(super) fn receive_stream(&mut self, key: usize, event: Event) {
        if event.writable {
            self.upstreams.write_stream(key, self.now);
        }
        if event.readable || event.broken {
            for (flight, mut message) in self.upstreams.read_stream(key, self.now) {
                self.finish(flight, Arrival::Message(&mut message));
            }
        }
    }

    /// Handles the results of questions that other worker threads have sent.
    pub(super) fn receive_results(&mut self) {
        for (flight, result) in self.upstreams.take_claim_results(self.now) {
            match result {
                ClaimResult::Response(message) => {
                    self.finish(flight, Arrival::Message(&mut message.to_vec()))
                }
                ClaimResult::TooLong => self.finish(flight, Arrival::TooLong),
                ClaimResult::NoResponse | ClaimResult::Abandoned => self.finish(flight, Arrival::Nothing),
            }
        }
    }

    /// Ends questions that have timed out, and answers overdue queries with stale responses.
    pub(super) fn expire(&mut self) {
        for flight in self.upstreams.expire(self.now) {
            let arrival = if flight.transport.is_tcp() { Arrival::TooLong } else { Arrival::Nothing };
            self.finish(flight, arrival);
        }
        for place in self.upstreams.overdue(self.now) {
            let Some(stale) = self.stale(self.upstreams.key_at(place)) else { continue };
            let waiters = self.upstreams.take_waiters(place);
            self.pending.push_back(Pending {
                waiters: waiters.into_iter(),
                result: ClaimResult::NoResponse,
                stale: Some(stale),
            });
        }
        self.serve_pending();
    }

    /// Answers some of the coalesced queries, so that other queries do not wait for all of them.
    fn serve_pending(&mut self) {
        let Some(mut pending) = self.pending.pop_front() else { return };
        let mut parser = self.parser();
        let source = match &pending.stale {
            Some(stale) => Source::Cached(stale, Age::Stale),
            None => Source::of(&pending.result, &mut parser),
        };
        for waiter in pending.waiters.by_ref().take(MAX_PENDING_PER_TURN) {
            self.serve_waiter(waiter, source);
        }
        self.upstreams.parsers.push(parser);
        if pending.waiters.len() > 0 {
            self.pending.push_back(pending);
        }
    }

    /// A stale response to this question, if the current settings allow one.
    pub(super) fn stale(&self, key: Key<'_>) -> Option<CachedResponse> {
        let settings = self.shared.serving.load().rules.cache;
        self.shared.cache.find(key).filter(|cached| cached.age(self.now, &settings) == Age::Stale)
    }

    /// Caches the result of a question, and answers the queries that wait for it.
    fn finish(&mut self, flight: Flight, arrival: Arrival<'_>) {
        let Flight { first, others, is_valid, parser, purges, claim, client, awaits_recursion, .. } = flight;
        let mut parser = parser.unwrap_or_else(|| self.parser());
        let mut refusal = flight.refusal;
        // The retry at another upstream was no better than this first SERVFAIL.
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
        let store = AssertUnwindSafe(|| self.store(first.key(), purges, (is_valid, is_shared), source));
        let has_failed = catch_unwind(store).unwrap_or_else(|_| {
            self.counters.panics.add(1);
            false
        });
        if let Some(claim) = claim {
            claim.end(|| source.to_others());
        }
        // RFC 8767 4: a stale response is preferred to a failure.
        let stale = if has_failed { self.stale(first.key()) } else { None };
        let (others, unserved) = match awaits_recursion {
            true => others.into_iter().partition(|waiter| first.key().serves(&waiter.key())),
            false => (others, Vec::new()),
        };
        if others.len() >= MAX_PENDING_PER_TURN {
            let waiters = [first].into_iter().chain(others).collect::<Vec<_>>().into_iter();
            self.pending.push_back(Pending { waiters, result: source.to_others(), stale });
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

    /// Caches a response. Returns true if it is a failure, or if there is none. `is_shared`: the
    /// upstream did not get a client's identity, so the response is for all clients.
    fn store(
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
        let Some(cached) = CachedResponse::new(response, key, self.now, &mut self.message[..]) else {
            // This response must not be cached, but it still replaces the cached one (RFC 8767 4).
            self.shared.cache.remove(key);
            return false;
        };
        let is_failure = cached.is_failure();
        if is_failure && self.shared.cache.find(key).is_some_and(|before| !before.is_failure()) {
            // The cached response may still be served stale.
            self.failures.insert(key, self.now);
        } else {
            self.shared.cache.insert(key, cached, purges);
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
            self.drop_after_panic(&origin);
            if let Origin::Tcp { connection, .. } = origin {
                self.resumable.push(connection);
            }
        }
    }
}
