//! Queries that are not blocked: they are answered from the cache, or forwarded to an upstream.

use super::Worker;
use super::source::Source;
use crate::answer::Judgement;
use crate::cache::{Age, CachedResponse, Key};
use crate::counters::Refused;
use crate::failures::Failures;
use crate::message::{ExtendedError, Query, ede};
use crate::name::Name;
use crate::outcome::Outcome;
use crate::policy::Judges;
use crate::shared::Serving;
use crate::sys::Local;
use crate::transport::Wire;
use crate::upstream::{ClientAddresses, Flight, Join, Origin, Waiter};

/// A query that is to be forwarded.
pub(super) struct Passed {
    /// Its index in the batch.
    pub(super) place: usize,
    /// The target of our own CNAME, which is queried instead of QNAME.
    follow: Option<Box<Name>>,
    /// The index of the zone whose passthru lets it pass.
    allowed_by: Option<Judges>,
    /// The hash of its cache key.
    hash: u64,
    cached: Option<CachedResponse>,
}

impl Passed {
    pub(super) fn new(
        place: usize,
        query: &Query,
        follow: Option<Name>,
        allowed_by: Option<Judges>,
    ) -> Passed {
        let mut passed = Passed { place, follow: follow.map(Box::new), allowed_by, hash: 0, cached: None };
        passed.hash = passed.key(query).hash();
        passed
    }

    pub(super) fn key<'a>(&'a self, query: &'a Query) -> Key<'a> {
        Key::new(&query.head, self.follow.as_deref().unwrap_or(&query.name), query.qtype)
    }
}

impl Worker {
    /// Looks the queries up in the cache.
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
            passed.cached = table.find(passed.key(&queries[passed.place]));
        }
    }

    /// Answers a query with an upstream's response to it, or to the target of our own CNAME. Uses the
    /// cache if it has the response.
    pub(super) fn forward(&mut self, query: &Query, passed: Passed, origin: Origin, serving: &Serving) {
        let settings = &serving.rules.cache;
        let stale = match passed.cached.as_ref().map(|cached| (cached.age(self.now, settings), cached)) {
            Some((age @ Age::Fresh(_), cached)) => {
                return self.respond_from_cache(query, &passed, cached, age, origin, serving);
            }
            Some((Age::Stale, cached)) => Some(cached.clone()),
            _ => None,
        };
        let has_failed = self.failures.contains(passed.key(query), self.now) && !self.forget_failures();
        let mut waiter = Box::new(Waiter::new(query.clone(), passed.follow, origin));
        if waiter.follow.is_none() {
            waiter.passed = Some((serving.generation, passed.allowed_by));
        }
        match has_failed {
            true => self.fail_again(waiter, stale.as_ref(), serving),
            false => self.wait(waiter, stale.as_ref()),
        }
    }

    fn respond_from_cache(
        &mut self,
        query: &Query,
        passed: &Passed,
        cached: &CachedResponse,
        age: Age,
        origin: Origin,
        serving: &Serving,
    ) {
        if cached.claim_prefetch(self.now, &serving.rules.cache) {
            self.prefetch(query, passed.follow.clone());
        }
        let source = Source::Cached(cached, age);
        if let Some(follow) = &passed.follow {
            let waiter = Waiter::new(query.clone(), Some(follow.clone()), origin);
            return self.judge_again(Box::new(waiter), source);
        }
        let judgement = passed.allowed_by.map_or(Judgement::Pass, Judgement::Allow);
        self.respond(query, None, origin, judgement, source, serving);
    }

    /// Forgets failures from the time when all upstreams were down, once one is back. Returns
    /// whether one is.
    fn forget_failures(&mut self) -> bool {
        let returns = self.shared.health.returns();
        let is_back = std::mem::replace(&mut self.returns, returns) != returns;
        if is_back {
            self.failures = Failures::default();
        }
        is_back
    }

    /// Answers a query that has just failed, without sending it again (RFC 9520).
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
                self.servfail(&waiter.query, waiter.origin, Outcome::Failed, error, serving);
            }
        }
    }

    /// Sends a query to an upstream, or coalesces it with an outstanding one.
    pub(super) fn wait(&mut self, waiter: Box<Waiter>, stale: Option<&CachedResponse>) {
        let purges = self.shared.cache.purges();
        let instead = match stale {
            Some(stale) => Source::Cached(stale, Age::Stale),
            None => Source::Nothing(Outcome::Overloaded),
        };
        match self.upstreams.join(waiter, stale.is_some(), purges, self.now) {
            Join::Waits => self.counters.joined.add(1),
            Join::Alone(mut waiter) => match self.admit_upstream(&mut waiter) {
                Ok(()) => drop(self.send_upstream(waiter, stale.is_some())),
                Err(why) => self.refuse(waiter, why, stale),
            },
            Join::Full(waiter) => self.refuse(waiter, Refused::Full, stale),
            Join::Overdue(waiter) => self.serve_waiter(waiter, instead),
        }
    }

    /// Checks the limits for outstanding queries of the domain and of the client.
    fn admit_upstream(&mut self, waiter: &mut Waiter) -> Result<(), Refused> {
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

    /// Answers a query above a limit for outstanding queries.
    fn refuse(&mut self, waiter: Box<Waiter>, why: Refused, stale: Option<&CachedResponse>) {
        self.counters.refused[why as usize].add(1);
        let source = match stale {
            Some(stale) => Source::Cached(stale, Age::Stale),
            None => Source::Refused(why),
        };
        self.serve_waiter(waiter, source);
    }

    /// Sends a query to an upstream. Returns false if another worker thread has sent it already.
    fn send_upstream(&mut self, waiter: Box<Waiter>, has_stale: bool) -> bool {
        let mut flight = Flight::new(waiter, has_stale, self.shared.cache.purges(), self.now);
        if self.upstreams.sends_identity() {
            flight.client = self.client_addresses(flight.first.origin);
        }
        let is_awaited = flight.is_awaited();
        let is_asked = self.upstreams.ask(flight, self.now);
        self.counters.joined.add(u64::from(is_awaited && !is_asked));
        is_asked
    }

    /// The client, and the address that it queried.
    pub(super) fn client_addresses(&self, origin: Origin) -> Option<ClientAddresses> {
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
                    server: connection.wire.local_address().ok()?,
                })
            }
            Origin::Nobody => None,
        }
    }

    /// Queries an upstream for a cached response that is about to expire.
    fn prefetch(&mut self, query: &Query, follow: Option<Box<Name>>) {
        let waiter = Box::new(Waiter::new(query.clone(), follow, Origin::Nobody));
        let purges = self.shared.cache.purges();
        if !self.upstreams.is_busy()
            && let Join::Alone(waiter) = self.upstreams.join(waiter, false, purges, self.now)
        {
            let is_asked = self.send_upstream(waiter, false);
            self.counters.prefetched.add(u64::from(is_asked));
        }
    }
}
