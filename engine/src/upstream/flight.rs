//! An outstanding question: the clients that wait for it, and the state of its tries.

use std::time::Instant;

use super::Waiter;
use super::claims::{Claim, Right};
use super::client_identity::ClientAddresses;
use super::shares::Share;
use super::tries::{Route, Tries};
use super::waiter::Origin;
use crate::chain;
use crate::message::{MAX_QUESTION, Transport};
use crate::response::Parser;

/// An outstanding question. Each question is sent once, however many clients wait for it.
pub struct Flight {
    pub first: Box<Waiter>,
    pub others: Vec<Box<Waiter>>,
    /// Set while shares are counted (`shares`).
    pub(super) share: Option<Share>,
    /// Set if upstreams receive the client's identity.
    pub client: Option<ClientAddresses>,
    /// TCP after a truncated response.
    pub transport: Transport,
    pub(super) stale: Stale,
    /// The last response is well-formed, and its CNAME chain is unambiguous.
    pub is_valid: bool,
    /// It has parsed the last response.
    pub parser: Option<Box<Parser>>,
    /// The number of cache purges when the question was asked.
    pub purges: u64,
    /// Set if there are other worker threads, and this one asks the question for all of them.
    pub claim: Option<Claim>,
    /// A waiting query has RD set, and the question was sent without RD. It is sent again for that query.
    pub awaits_recursion: bool,
    pub refusal: Refusal,
    /// `Key::coalescing_hash` of the question.
    pub(super) question: u64,
    /// Differs from that of another flight with the same key.
    pub(super) number: u64,
    pub(super) started_at: Instant,
    pub(super) state: State,
    pub(super) tries: Tries,
    /// The number of the last deadline. Earlier deadlines have no effect.
    pub(super) deadline: u64,
    /// The end of all delays, set by the first one.
    pub(super) delay_until: Option<Instant>,
}

/// A received response: the flight, and the message or its index in the batch.
pub type Arrived<M> = Vec<(Flight, M)>;

/// The event that a flight waits for.
///
/// It starts in `OtherThread` or `Idle`. `send` leads to `Sent`, `fail_try` to `Unreachable`,
/// `delay` to `Delayed`; `try_next` sends it, delays it, or finds no upstream left. A timeout, a
/// failover or a removed upstream leads from `Sent` to `Idle`, and the next try follows at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Another worker thread has the claim, and sends its result.
    OtherThread,
    /// No try is charged to an upstream. Late responses are accepted.
    Idle,
    /// The last try. The upstream is charged if it does not respond in time.
    Sent { upstream: usize, at: Instant },
    /// The network rejected the last try.
    Unreachable,
    /// No upstream is left to try, and no response can come.
    Exhausted,
    /// Waits until an upstream is usable again (`Delayed`).
    Delayed,
}

/// The stale response in the cache.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stale {
    None,
    Available,
    /// The clients that waited longest have received it. Later clients get it immediately.
    Given,
}

/// The response because of which a query was retried at another upstream. That happens once.
pub enum Refusal {
    None,
    /// FORMERR, NOTIMP, REFUSED, an unusable response, or a SERVFAIL that is too long to store.
    Refused,
    /// It is passed on if the other upstream returns nothing better.
    Servfail(Box<[u8]>),
}

impl Flight {
    pub fn new(first: Box<Waiter>, has_stale: bool, purges: u64, now: Instant) -> Flight {
        Flight {
            first,
            others: Vec::new(),
            share: None,
            client: None,
            transport: Transport::Udp,
            stale: if has_stale { Stale::Available } else { Stale::None },
            is_valid: false,
            parser: None,
            purges,
            claim: None,
            awaits_recursion: false,
            refusal: Refusal::None,
            question: 0,
            number: 0,
            started_at: now,
            state: State::Idle,
            tries: Tries::default(),
            deadline: 0,
            delay_until: None,
        }
    }

    /// Whether any client waits for the response.
    pub fn is_awaited(&self) -> bool {
        !matches!(self.first.origin, Origin::Nobody) || !self.others.is_empty()
    }

    /// Only while nothing is sent.
    pub(super) fn set_right(&mut self, right: Right) {
        (self.claim, self.state) = match right {
            Right::Ours(claim) => (Some(claim), State::Idle),
            Right::Apart => (None, State::Idle),
            Right::Theirs => (None, State::OtherThread),
        };
    }

    /// Whether the loss of this route ends the last try. Tries of one turn have the same time, so the
    /// upstream counts too. A delayed flight is retried anyway.
    pub(super) fn fails_with(&self, route: &Route) -> bool {
        match self.state {
            State::Delayed => false,
            State::Sent { upstream, .. } if upstream != route.upstream => false,
            _ => self.tries.end_with(route),
        }
    }

    /// Ends the last try if its upstream matches. Returns the upstream and when it was sent.
    pub(super) fn end_try(&mut self, matches: impl Fn(usize) -> bool) -> Option<(usize, Instant)> {
        match self.state {
            State::Sent { upstream, at } if matches(upstream) => {
                self.state = State::Idle;
                Some((upstream, at))
            }
            _ => None,
        }
    }

    /// Parses a response. `unused` returns a parser that is not in use.
    pub(super) fn parse(&mut self, message: &[u8], unused: impl FnOnce() -> Option<Box<Parser>>) {
        let mut parser = self.parser.take().or_else(unused).unwrap_or_default();
        let response = parser.parse(message);
        self.is_valid = response.is_some_and(|response| chain::is_unambiguous(response, self.first.name()));
        self.parser = Some(parser);
    }

    /// The question as it is sent upstream.
    pub(super) fn wire_question<'a>(&'a self, buffer: &'a mut [u8; MAX_QUESTION]) -> &'a [u8] {
        let question = self.first.query.head.question();
        let Some(target) = &self.first.follow else { return question };
        let (name, type_and_class) = (target.suffix(0), &question[question.len() - 4..]);
        buffer[..name.len()].copy_from_slice(name);
        buffer[name.len()..name.len() + 4].copy_from_slice(type_and_class);
        &buffer[..name.len() + 4]
    }
}

#[cfg(test)]
mod tests {
    use super::super::tries::Channel;
    use super::*;
    use crate::message::Query;

    /// ICMP errors about the old upstream arrive after a failover, and in the same turn.
    #[test]
    fn a_lost_route_ends_only_a_try_at_its_own_upstream() {
        let now = Instant::now();
        let mut flight =
            Flight::new(Box::new(Waiter::new(Query::blank(), None, Origin::Nobody)), false, 0, now);
        let route = |upstream| Route {
            channel: Channel::Socket(upstream),
            upstream,
            id: 0,
            has_opt: true,
            sent_at: now,
        };
        let (old, new) = (route(0), route(1));
        flight.tries.add_route(new);
        flight.state = State::Sent { upstream: 1, at: now };
        assert!(!flight.fails_with(&old));
        assert!(flight.fails_with(&new));
        flight.state = State::Delayed;
        assert!(!flight.fails_with(&new), "its entry among the delayed queries retries it");
        flight.state = State::Idle;
        assert!(flight.fails_with(&old));
    }
}
