//! Queries that the policy lets pass: answered from the cache, or sent to an upstream.

use super::Worker;
use super::source::Source;
use crate::answer::Judgement;
use crate::cache::{Age, CachedResponse, Key};
use crate::counters::Refused;
use crate::failures::Failures;
use crate::message::{ExtendedError, Query, ede};
use crate::name::Name;
use crate::outcome::Outcome;
use crate::shared::Serving;
use crate::sys::Local;
use crate::upstream::{ClientAddresses, Flight, Join, Origin, Waiter};

/// A query that somebody else must answer.
pub(super) struct Passed {
    /// Its place among those of a batch.
    pub(super) place: usize,
    /// Where a CNAME of ours leads, which is asked about in the place of the name itself.
    follow: Option<Box<Name>>,
    /// The place of the zone whose passthru lets it pass.
    allowed_by: Option<usize>,
    /// Of the question.
    hash: u64,
    kept: Option<CachedResponse>,
}

impl Passed {
    pub(super) fn new(
        place: usize,
        query: &Query,
        follow: Option<Name>,
        allowed_by: Option<usize>,
    ) -> Passed {
        let mut passed = Passed { place, follow: follow.map(Box::new), allowed_by, hash: 0, kept: None };
        passed.hash = passed.key(query).hash();
        passed
    }

    pub(super) fn key<'a>(&'a self, query: &'a Query) -> Key<'a> {
        Key::new(&query.head, self.follow.as_deref().unwrap_or(&query.name), query.qtype)
    }
}

impl Worker {
    /// Looks for kept answers to those of the queries that are to be forwarded.
    pub(super) fn look_up(&self, queries: &[Query], passed: &mut [Passed]) {
        let cache = self.shared.cache.table();
        let Some(table) = cache.as_ref().filter(|_| !self.upstreams.sends_identity()) else { return };
        for passed in &*passed {
            table.prefetch_set(passed.hash);
        }
        for passed in &*passed {
            table.prefetch_response(passed.hash);
        }
        for passed in passed {
            passed.kept = table.find(passed.key(&queries[passed.place]));
        }
    }

    /// Gives a query that the policy lets pass what an upstream says to it; or, of
    /// one that is blocked by a CNAME, to where that leads.
    pub(super) fn forward(&mut self, query: &Query, passed: Passed, origin: Origin, serving: &Serving) {
        let settings = &serving.rules.cache;
        let stale = match passed.kept.as_ref().map(|kept| (kept.age(self.now, settings), kept)) {
            Some((age @ Age::Fresh(_), kept)) => {
                return self.give_kept(query, &passed, kept, age, origin, serving);
            }
            Some((Age::Stale, kept)) => Some(kept.clone()),
            _ => None,
        };
        let has_failed = self.failures.contains(passed.key(query), self.now) && !self.forget_failures();
        let waiter = Box::new(Waiter::new(query.clone(), passed.follow, origin));
        match has_failed {
            true => self.fail_again(waiter, stale.as_ref(), serving),
            false => self.wait(waiter, stale.as_ref()),
        }
    }

    fn give_kept(
        &mut self,
        query: &Query,
        passed: &Passed,
        kept: &CachedResponse,
        age: Age,
        origin: Origin,
        serving: &Serving,
    ) {
        if kept.claim_prefetch(self.now, &serving.rules.cache) {
            self.prefetch(query, passed.follow.clone());
        }
        let source = Source::Cached(kept, age);
        if let Some(follow) = &passed.follow {
            let waiter = Waiter::new(query.clone(), Some(follow.clone()), origin);
            return self.judge_again(Box::new(waiter), source);
        }
        let judgement = passed.allowed_by.map_or(Judgement::Pass, Judgement::Allow);
        self.give(query, None, origin, judgement, source, serving);
    }

    /// Forgets what failed while no upstream could be used, once one is back; whether it did.
    fn forget_failures(&mut self) -> bool {
        let returns = self.shared.health.returns();
        let is_back = std::mem::replace(&mut self.returns, returns) != returns;
        if is_back {
            self.failures = Failures::default();
        }
        is_back
    }

    /// No upstream answered a moment ago, and none is asked again so soon.
    pub(super) fn fail_again(
        &mut self,
        waiter: Box<Waiter>,
        stale: Option<&CachedResponse>,
        serving: &Serving,
    ) {
        match stale {
            Some(stale) => self.judge_again(waiter, Source::Cached(stale, Age::Stale)),
            None if waiter.follow.is_some() => self.judge_again(waiter, Source::Nothing(Outcome::Failed)),
            None => {
                let error = ExtendedError::new(ede::CACHED_ERROR, b"no upstream answered a moment ago");
                self.give_up(&waiter.query, waiter.origin, Outcome::Failed, error, serving);
            }
        }
    }

    /// Lets a query wait for an upstream's answer, with those that ask the same.
    pub(super) fn wait(&mut self, waiter: Box<Waiter>, stale: Option<&CachedResponse>) {
        let purges = self.shared.cache.purges();
        let instead = match stale {
            Some(stale) => Source::Cached(stale, Age::Stale),
            None => Source::Nothing(Outcome::Overloaded),
        };
        match self.upstreams.join(waiter, stale.is_some(), purges, self.now) {
            Join::Waits => self.counters.joined.add(1),
            Join::Alone(mut waiter) => match self.may_ask(&mut waiter) {
                Ok(()) => drop(self.ask(waiter, stale.is_some())),
                Err(why) => self.refuse(waiter, why, stale),
            },
            Join::Full(waiter) => self.refuse(waiter, Refused::Full, stale),
            Join::Overdue(waiter) => self.serve_waiter(waiter, instead),
        }
    }

    /// Whether one more question may be asked: for its domain, and for its client.
    fn may_ask(&mut self, waiter: &mut Waiter) -> Result<(), Refused> {
        let serving = self.shared.serving.load();
        let (rules, clients) = (&serving.rules, &self.clients);
        let client_of = |origin: &Origin| {
            let address = match origin {
                Origin::Udp { peer, .. } => peer.socket_addr()?.ip(),
                Origin::Tcp { connection, .. } => clients.get(*connection)?.peer.ip(),
                Origin::Nobody => return None,
            };
            (!rules.exempt.contains(address)).then_some(address)
        };
        self.upstreams.admit(waiter, &rules.suffixes, client_of)
    }

    /// Too much is outstanding, of all or of whose query it is.
    fn refuse(&mut self, waiter: Box<Waiter>, why: Refused, stale: Option<&CachedResponse>) {
        self.counters.refused[why as usize].add(1);
        let source = match stale {
            Some(stale) => Source::Cached(stale, Age::Stale),
            None => Source::Refused(why),
        };
        self.serve_waiter(waiter, source);
    }

    /// Asks an upstream; false where another worker thread does it.
    fn ask(&mut self, waiter: Box<Waiter>, has_stale: bool) -> bool {
        let mut flight = Flight::new(waiter, has_stale, self.shared.cache.purges(), self.now);
        if self.upstreams.sends_identity() {
            flight.client = self.client_addresses(flight.first.origin);
        }
        let is_awaited = flight.is_awaited();
        let is_asked = self.upstreams.ask(flight, self.now);
        self.counters.joined.add(u64::from(is_awaited && !is_asked));
        is_asked
    }

    /// The addresses of the client and of this server, for upstreams that receive them.
    fn client_addresses(&self, origin: Origin) -> Option<ClientAddresses> {
        match origin {
            Origin::Udp { listener, peer, local, .. } => {
                let mut server = self.listeners.get(listener)?.bound.address;
                match local {
                    Local::Bound => {}
                    Local::V4(address) => server.set_ip(address.into()),
                    Local::V6(address, _) => server.set_ip(address.into()),
                }
                Some(ClientAddresses { client: peer.socket_addr()?, server })
            }
            Origin::Tcp { connection, .. } => {
                let connection = self.clients.get(connection)?;
                Some(ClientAddresses {
                    client: connection.peer,
                    server: connection.stream.local_addr().ok()?,
                })
            }
            Origin::Nobody => None,
        }
    }

    /// Prefetches a record that is about to expire. No client waits for it.
    fn prefetch(&mut self, query: &Query, follow: Option<Box<Name>>) {
        let waiter = Box::new(Waiter::new(query.clone(), follow, Origin::Nobody));
        let purges = self.shared.cache.purges();
        if !self.upstreams.is_busy()
            && let Join::Alone(waiter) = self.upstreams.join(waiter, false, purges, self.now)
        {
            let is_asked = self.ask(waiter, false);
            self.counters.prefetched.add(u64::from(is_asked));
        }
    }
}
