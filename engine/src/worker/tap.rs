//! Sends queries and responses of clients by dnstap, with the policy that decided them.
//!
//! Without an output, each function ends at its first line. With one, the policy is found again by the same pure
//! functions that decided, so that nothing is carried along for it.

use std::time::SystemTime;

use super::Worker;
use crate::answer::Judgement;
use crate::counters::Counters;
use crate::dnstap::event::{Event, Kind};
use crate::dnstap::policy::Policy;
use crate::dnstap::{Messages, Queue};
use crate::message::Query;
use crate::name::{Name, Walk};
use crate::outcome::Outcome;
use crate::policy::names::SEED;
use crate::policy::{Action, Decision, Judges};
use crate::response::Response;
use crate::shared::Serving;
use crate::targets;
use crate::transport::DatagramIo;
use crate::upstream::{ClientAddresses, Origin};

/// The reason why a query is blocked, or passes.
#[derive(Default)]
pub(super) enum Basis<'a> {
    /// If it is blocked, its name or its client.
    #[default]
    Query,
    /// A passthru for its name or its client.
    Passthru,
    /// A name or an address in the response: the decision, and the name.
    Target(Box<(Decision<'a>, Name)>),
}

impl Basis<'_> {
    /// The basis of a judgement about the query alone.
    pub(super) fn of<'a>(judgement: &Judgement<'_>) -> Basis<'a> {
        if judgement.allowed_by().is_some() { Basis::Passthru } else { Basis::Query }
    }
}

impl Worker {
    /// Uses the output that was published with this snapshot, and no other.
    pub(super) fn apply_dnstap(&mut self, serving: &Serving) {
        let is_current = match (&self.tap, &serving.dnstap) {
            (None, None) => true,
            (Some(queue), Some(tap)) => queue.is_of(tap),
            _ => false,
        };
        if !is_current {
            self.tap = serving.dnstap.as_ref().and_then(|tap| Queue::of(tap, self.thread)).map(Box::new);
        }
    }

    /// Whether a name or an address in the response decides, in the words of `Basis`. Judges again.
    pub(super) fn basis_of_targets<'s>(
        &self,
        query: &Query,
        response: Response<'_>,
        judges: Judges,
        serving: &'s Serving,
    ) -> Option<Basis<'s>> {
        self.tap.as_ref()?;
        let found = targets::decide(query, response, judges, &serving.snapshot).ok()??;
        Some(Basis::Target(Box::new(found)))
    }

    /// Sends a query. `outcome` is set if it is dropped.
    pub(super) fn tap_query(
        &mut self,
        packet: &[u8],
        origin: &Origin,
        query: &Query,
        outcome: Option<Outcome>,
        serving: &Serving,
    ) {
        let Some(queue) = &self.tap else { return };
        let outcome = outcome.filter(|outcome| matches!(outcome, Outcome::Blocked { .. }));
        let messages = queue.settings().messages;
        let policy = outcome.and_then(|outcome| self.policy_of(query, outcome, &Basis::Query, serving));
        if policy.is_none() && messages != Messages::All {
            return;
        }
        let Some(addresses) = self.addresses_of(origin) else { return };
        let event = event(Kind::ClientQuery, origin, addresses, self.queried_at(origin), packet);
        put(&mut self.tap, &self.counters, &Event { policy, ..event });
    }

    /// Sends a query that is dropped because of the response to it. Its message is no longer there, so header
    /// and question are written again.
    pub(super) fn tap_dropped(
        &mut self,
        query: &Query,
        origin: &Origin,
        outcome: Outcome,
        basis: &Basis<'_>,
        serving: &Serving,
    ) {
        if self.tap.is_none() || !matches!(outcome, Outcome::Blocked { .. }) {
            return;
        }
        let Some(addresses) = self.addresses_of(origin) else { return };
        let Some(policy) = self.policy_of(query, outcome, basis, serving) else { return };
        let head = &query.head;
        let words = [head.id, head.flags, 1, 0, 0, 0].map(u16::to_be_bytes);
        let message = [words.as_flattened(), head.question()].concat();
        let event = event(Kind::ClientQuery, origin, addresses, self.queried_at(origin), &message);
        put(&mut self.tap, &self.counters, &Event { policy: Some(policy), ..event });
    }

    /// Sends the response in `slot()[..length]`.
    pub(super) fn tap_response(
        &mut self,
        query: &Query,
        origin: &Origin,
        length: usize,
        outcome: Outcome,
        basis: &Basis<'_>,
        serving: &Serving,
    ) {
        let Some(queue) = &self.tap else { return };
        let messages = queue.settings().messages;
        let policy = self.policy_of(query, outcome, basis, serving);
        if policy.is_none() && messages == Messages::Policy {
            return;
        }
        let Some(addresses) = self.addresses_of(origin) else { return };
        let (queried_at, now) = (self.queried_at(origin), SystemTime::now());
        let message = match origin {
            Origin::Udp { listener, .. } => &self.listeners[*listener].slot().data[..length],
            Origin::Tcp { .. } | Origin::Nobody => &self.scratch[..length],
        };
        let event = event(Kind::ClientResponse, origin, addresses, queried_at, message);
        put(&mut self.tap, &self.counters, &Event { policy, responded_at: Some(now), ..event });
    }

    /// The policy that decided a query with this outcome; `None` if no policy did.
    fn policy_of<'s>(
        &self,
        query: &Query,
        outcome: Outcome,
        basis: &Basis<'s>,
        serving: &'s Serving,
    ) -> Option<Policy<'s>> {
        let (snapshot, client) = (&*serving.snapshot, query.head.hop.client());
        let prefixes = self.tap.as_ref()?.settings().client_prefix;
        let by_query = || snapshot.decide(&query.name, &Walk::new(&query.name, SEED), client);
        let policy = |decision: &Decision<'s>, name: &Name, action| {
            Policy::new(snapshot, decision, name, client, action, prefixes)
        };
        match (outcome, basis) {
            (Outcome::Blocked { zone, action, .. }, Basis::Target(found)) if found.0.zone == zone => {
                policy(&found.0, &found.1, action)
            }
            (Outcome::Blocked { zone, action, .. }, _) => {
                let decision = by_query().filter(|decision| decision.zone == zone)?;
                policy(&decision, &query.name, action)
            }
            (_, Basis::Passthru) => policy(&by_query()?, &query.name, Action::Passthru),
            _ => None,
        }
    }

    /// When the query was read, which is the same for the query and its response.
    fn queried_at(&self, origin: &Origin) -> SystemTime {
        match origin {
            Origin::Udp { read_at, .. } | Origin::Tcp { read_at, .. } => {
                self.clock - self.now.saturating_duration_since(*read_at)
            }
            Origin::Nobody => self.clock,
        }
    }

    /// The addresses of client and server, unless the client's connection is closed.
    fn addresses_of(&self, origin: &Origin) -> Option<ClientAddresses> {
        if let Origin::Tcp { connection, generation, .. } = origin {
            self.clients.get(*connection).filter(|connection| connection.generation == *generation)?;
        }
        self.client_addresses(*origin)
    }
}

/// Queues an event, or counts it as dropped.
fn put(tap: &mut Option<Box<Queue>>, counters: &Counters, event: &Event<'_>) {
    let is_queued = tap.as_mut().is_none_or(|queue| queue.put(event));
    counters.dnstap_dropped.add(u64::from(!is_queued));
}

/// An event without policy and without the time of a response.
fn event<'a>(
    kind: Kind,
    origin: &Origin,
    addresses: ClientAddresses,
    queried_at: SystemTime,
    message: &'a [u8],
) -> Event<'a> {
    let (transport, ClientAddresses { client, server }) = (origin.transport(), addresses);
    Event { kind, transport, client, server, queried_at, responded_at: None, message, policy: None }
}
