//! What is not blocked: given from the cache, or asked upstream and given once it
//! is there, by the snapshot of that moment.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::{Mail, Worker};
use crate::answer::{Judgement, Outcome, judge, judge_targets, respond_by_following, respond_with_error};
use crate::cache::{Age, Kept, Key};
use crate::counters::ResponseFrom;
use crate::failures::Failures;
use crate::message::{ExtendedError, Query, ede, rcode};
use crate::name::Name;
use crate::poll::Event;
use crate::relay;
use crate::shared::Serving;
use crate::sys::{DATAGRAM, Local};
use crate::upstream::{Asker, Flight, Heard, Join, Origin, Waiter};

/// A query that somebody else must answer.
pub(super) struct Passed {
    /// Its place among those of a batch.
    pub(super) place: usize,
    /// Where a CNAME of ours leads, which is asked about in the place of the name itself.
    follow: Option<Box<Name>>,
    /// By a passthru.
    is_allowed: bool,
    /// Of the question.
    hash: u64,
    kept: Option<Kept>,
}

impl Passed {
    pub(super) fn new(place: usize, query: &Query, follow: Option<Name>, is_allowed: bool) -> Passed {
        let mut passed = Passed { place, follow: follow.map(Box::new), is_allowed, hash: 0, kept: None };
        passed.hash = passed.key(query).hash();
        passed
    }

    fn key<'a>(&'a self, query: &'a Query) -> Key<'a> {
        Key::new(&query.head, self.follow.as_deref().unwrap_or(&query.name), query.qtype)
    }
}

/// What there is to answer a query with.
#[derive(Clone, Copy)]
enum Said<'a> {
    /// An upstream's message that has just come.
    Now(&'a [u8]),
    /// There is an answer, but it is too long for UDP and cannot be had over TCP.
    TooLong,
    Before(&'a Kept, Age),
    /// Nothing, and why.
    Nothing(Outcome),
}

impl<'a> Said<'a> {
    fn of(heard: &'a Heard) -> Said<'a> {
        match heard {
            Heard::Answer(message) => Said::Now(message),
            Heard::TooLong => Said::TooLong,
            Heard::Nothing | Heard::Lost => Said::Nothing(Outcome::Failed),
        }
    }

    fn message(&self) -> Option<&[u8]> {
        match self {
            Said::Now(message) => Some(message),
            Said::Before(kept, _) => Some(kept.message()),
            Said::TooLong | Said::Nothing(_) => None,
        }
    }

    /// Whether all that it leads to was judged by what is served, and passed.
    fn is_passed_by(self, generation: u64) -> bool {
        matches!(self, Said::Before(kept, _) if kept.is_passed_by(generation))
    }

    /// For packet threads whose clients asked the same.
    fn to_others(self) -> Heard {
        match self {
            Said::TooLong => Heard::TooLong,
            _ => self.message().map_or(Heard::Nothing, |message| Heard::Answer(message.into())),
        }
    }
}

/// Clients that waited together for one answer and are answered in one turn.
const TOGETHER: usize = 256;

/// Clients that waited together, and what they get: too many for one turn.
pub(super) struct Owed {
    waiters: std::vec::IntoIter<Box<Waiter>>,
    heard: Heard,
    stale: Option<Kept>,
}

impl Worker {
    /// Looks for kept answers to those of the queries that are to be forwarded.
    pub(super) fn look_up(&self, queries: &[Query], passed: &mut [Passed]) {
        let cache = self.shared.cache.table();
        let Some(table) = cache.as_ref().filter(|_| !self.upstreams.tells_client()) else { return };
        for passed in &*passed {
            table.warm_set(passed.hash);
        }
        for passed in &*passed {
            table.warm_answer(passed.hash);
        }
        for passed in passed {
            passed.kept = table.find(passed.key(&queries[passed.place]));
        }
    }

    /// Gives a query that the policy lets pass what an upstream says to it; or, of
    /// one that is blocked by a CNAME, to where that leads.
    pub(super) fn forward(&mut self, query: &Query, passed: Passed, origin: Origin, serving: &Serving) {
        let keeping = &serving.rules.keeping;
        let stale = match passed.kept.as_ref().map(|kept| (kept.age(self.now, keeping), kept)) {
            Some((age @ Age::Fresh(_), kept)) => {
                return self.give_kept(query, &passed, kept, age, origin, serving);
            }
            Some((Age::Stale, kept)) => Some(kept.clone()),
            _ => None,
        };
        let has_failed = self.failures.knows(passed.key(query), self.now) && !self.forget_failures();
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
        kept: &Kept,
        age: Age,
        origin: Origin,
        serving: &Serving,
    ) {
        if kept.is_due(self.now, &serving.rules.keeping) {
            self.ask_anew(query, passed.follow.clone());
        }
        let said = Said::Before(kept, age);
        if let Some(follow) = &passed.follow {
            let waiter = Waiter::new(query.clone(), Some(follow.clone()), origin);
            return self.judge_again(Box::new(waiter), said);
        }
        let judgement = if passed.is_allowed { Judgement::Allow } else { Judgement::Pass };
        self.give(query, None, origin, judgement, said, serving);
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
    fn fail_again(&mut self, waiter: Box<Waiter>, stale: Option<&Kept>, serving: &Serving) {
        match stale {
            Some(stale) => self.judge_again(waiter, Said::Before(stale, Age::Stale)),
            None if waiter.follow.is_some() => self.judge_again(waiter, Said::Nothing(Outcome::Failed)),
            None => {
                let error = ExtendedError::new(ede::CACHED_ERROR, b"no upstream answered a moment ago");
                self.give_up(&waiter.query, waiter.origin, Outcome::Failed, error, serving);
            }
        }
    }

    /// Lets a query wait for an upstream's answer, with those that ask the same.
    fn wait(&mut self, waiter: Box<Waiter>, stale: Option<&Kept>) {
        let purges = self.shared.cache.purges();
        let instead = match stale {
            Some(stale) => Said::Before(stale, Age::Stale),
            None => Said::Nothing(Outcome::Overloaded),
        };
        match self.upstreams.join(waiter, stale.is_some(), purges, self.now) {
            Join::Waits => self.counters.joined.add(1),
            Join::Alone(waiter) if self.upstreams.has_room() => drop(self.ask(waiter, stale.is_some())),
            Join::Alone(waiter) | Join::Overdue(waiter) | Join::Full(waiter) => {
                self.serve_waiter(waiter, instead);
            }
        }
    }

    /// Asks an upstream; false where another packet thread does it.
    fn ask(&mut self, waiter: Box<Waiter>, has_stale: bool) -> bool {
        let mut flight = Flight::new(waiter, has_stale, self.shared.cache.purges(), self.now);
        if self.upstreams.tells_client() {
            flight.asker = self.asker(flight.first.origin);
        }
        let is_awaited = flight.is_awaited();
        let is_asked = self.upstreams.ask(flight, self.now);
        self.counters.joined.add(u64::from(is_awaited && !is_asked));
        is_asked
    }

    /// Who asks, and at which address of ours.
    fn asker(&self, origin: Origin) -> Option<Asker> {
        match origin {
            Origin::Udp { listener, peer, local, .. } => {
                let mut asked_at = self.listeners.get(listener)?.bound.address;
                match local {
                    Local::Bound => {}
                    Local::V4(address) => asked_at.set_ip(address.into()),
                    Local::V6(address, _) => asked_at.set_ip(address.into()),
                }
                Some(Asker { client: peer.socket_addr()?, asked_at })
            }
            Origin::Tcp { connection, .. } => {
                let connection = self.clients.get(connection)?;
                Some(Asker { client: connection.peer, asked_at: connection.stream.local_addr().ok()? })
            }
            Origin::Nobody => None,
        }
    }

    /// Asks for an answer that is about to expire; nobody waits for it.
    fn ask_anew(&mut self, query: &Query, follow: Option<Box<Name>>) {
        let waiter = Box::new(Waiter::new(query.clone(), follow, Origin::Nobody));
        let purges = self.shared.cache.purges();
        if self.upstreams.has_room()
            && let Join::Alone(waiter) = self.upstreams.join(waiter, false, purges, self.now)
        {
            let is_asked = self.ask(waiter, false);
            self.counters.prefetched.add(u64::from(is_asked));
        }
    }

    //--- What comes back

    pub(super) fn take_datagrams(&mut self, key: usize, mail: &mut Mail) {
        for (flight, place) in self.upstreams.receive(key, &mut mail.batch, self.now) {
            let datagram = &mail.batch.datagrams[place];
            self.finish(flight, Said::Now(&datagram.data[..datagram.length]));
        }
    }

    pub(super) fn take_messages(&mut self, key: usize, event: Event) {
        if event.writable {
            self.upstreams.write_stream(key, self.now);
        }
        if event.readable || event.broken {
            for (flight, message) in self.upstreams.read_stream(key, self.now) {
                self.finish(flight, Said::Now(&message));
            }
        }
    }

    /// Takes what other packet threads have heard about questions of this one.
    pub(super) fn take_letters(&mut self) {
        for (flight, heard) in self.upstreams.hear(self.now) {
            self.finish(flight, Said::of(&heard));
        }
    }

    /// Gives what there is to those whose patience is at an end.
    pub(super) fn give_up_waiting(&mut self) {
        for flight in self.upstreams.expire(self.now) {
            let said = if flight.over_tcp { Said::TooLong } else { Said::Nothing(Outcome::Failed) };
            self.finish(flight, said);
        }
        for place in self.upstreams.overdue(self.now) {
            let Some(stale) = self.stale(self.upstreams.key_at(place)) else { continue };
            let waiters = self.upstreams.take_waiters(place);
            self.owed.push_back(Owed {
                waiters: waiters.into_iter(),
                heard: Heard::Nothing,
                stale: Some(stale),
            });
        }
        self.serve_owed();
    }

    /// Answers some of those who waited together: others come between them.
    fn serve_owed(&mut self) {
        let Some(mut owed) = self.owed.pop_front() else { return };
        for waiter in owed.waiters.by_ref().take(TOGETHER) {
            let stale = owed.stale.as_ref().map(|stale| Said::Before(stale, Age::Stale));
            self.serve_waiter(waiter, stale.unwrap_or(Said::of(&owed.heard)));
        }
        if owed.waiters.len() > 0 {
            self.owed.push_back(owed);
        }
    }

    /// What is kept for this question and will do where nothing else is to be had, by the
    /// rules of now.
    fn stale(&self, key: Key<'_>) -> Option<Kept> {
        let keeping = self.shared.serving.load().rules.keeping;
        self.shared.cache.find(key).filter(|kept| kept.age(self.now, &keeping) == Age::Stale)
    }

    /// Answers those who wait for a question that has been answered, or will not be.
    fn finish(&mut self, flight: Flight, said: Said<'_>) {
        let Flight { first, others, is_sound, purges, claim, asker, awaits_recursion, failure, .. } = flight;
        // Another upstream was asked, and had nothing better than this SERVFAIL.
        let (said, is_sound) = match failure.as_deref() {
            Some(failure) => (Said::Now(failure), true),
            None => (said, is_sound),
        };
        let is_for_all = asker.is_none();
        let keep = AssertUnwindSafe(|| self.keep(first.key(), purges, (is_sound, is_for_all), said));
        let kept = catch_unwind(keep);
        let has_failed = match kept {
            Ok(has_failed) => has_failed,
            Err(_) => {
                self.counters.panics.add(1);
                false
            }
        };
        if let Some(claim) = claim {
            claim.tell(|| said.to_others());
        }
        // RFC 8767 4: a failure is no better than what was known before.
        let stale = if has_failed { self.stale(first.key()) } else { None };
        let (others, unserved) = match awaits_recursion {
            true => others.into_iter().partition(|waiter| first.key().serves(&waiter.key())),
            false => (others, Vec::new()),
        };
        if others.len() >= TOGETHER {
            let waiters = [first].into_iter().chain(others).collect::<Vec<_>>().into_iter();
            self.owed.push_back(Owed { waiters, heard: said.to_others(), stale });
        } else {
            let said = stale.as_ref().map_or(said, |stale| Said::Before(stale, Age::Stale));
            for waiter in [first].into_iter().chain(others) {
                self.serve_waiter(waiter, said);
            }
        }
        for waiter in unserved {
            let stale = self.stale(waiter.key());
            self.wait(waiter, stale.as_ref());
        }
    }

    /// Keeps an answer for the next client; true if it is a failure, or there is none.
    /// `is_for_all`: it was not asked for one client, whom the upstream was told of.
    fn keep(
        &mut self,
        key: Key<'_>,
        purges: u64,
        (is_sound, is_for_all): (bool, bool),
        said: Said<'_>,
    ) -> bool {
        let message = match said {
            Said::Now(message) if is_sound => message,
            Said::Now(_) | Said::Nothing(Outcome::Failed) => {
                self.failures.remember(key, self.now);
                return true;
            }
            Said::Nothing(_) | Said::TooLong | Said::Before(..) => return true,
        };
        if !self.shared.cache.keeps_anything() || self.upstreams.tells_client() || !is_for_all {
            return false;
        }
        let keeping = &self.shared.serving.load().rules.keeping;
        let Some(kept) = Kept::new(message, key, keeping, self.now, &mut self.message[..]) else {
            // What was kept before is no longer true (RFC 8767 4), though this is for now alone.
            self.shared.cache.forget(key);
            return false;
        };
        let is_failure = kept.is_failure();
        if is_failure && self.shared.cache.find(key).is_some_and(|before| !before.is_failure()) {
            // What was known before may still be needed.
            self.failures.remember(key, self.now);
        } else {
            self.shared.cache.keep(key, kept, purges);
        }
        is_failure
    }

    fn serve_waiter(&mut self, waiter: Box<Waiter>, said: Said<'_>) {
        let origin = waiter.origin;
        let served = catch_unwind(AssertUnwindSafe(|| {
            fail::fail_point!("finish");
            self.judge_again(waiter, said);
        }));
        if served.is_err() {
            self.survive_panic(matches!(origin, Origin::Tcp { .. }));
            if let Origin::Tcp { connection, generation, .. } = origin {
                self.clients.leave_unanswered(connection, generation);
                self.resumable.push(connection);
            }
        }
    }

    /// The name is judged again: the snapshot may have changed meanwhile.
    fn judge_again(&mut self, mut waiter: Box<Waiter>, said: Said<'_>) {
        if matches!(waiter.origin, Origin::Nobody) {
            return;
        }
        let serving = self.shared.serving.load();
        let judgement =
            judge(&waiter.query, &serving.snapshot, &serving.rules, self.unix, &mut self.scratch[..]);
        // What should have been asked, as it is now.
        let follow = match &judgement {
            Judgement::Follow(_, target) => Some(target),
            Judgement::Pass | Judgement::Allow => None,
            Judgement::Answer { .. } | Judgement::Silence(_) | Judgement::Unreadable => {
                waiter.follow.as_deref()
            }
        };
        if follow != waiter.follow.as_deref() && said.message().is_some() {
            // The policy for the name changed while the upstream was asked.
            let follow = follow.cloned().map(Box::new);
            if waiter.begin_anew(follow) {
                let stale = self.stale(waiter.key());
                return self.wait(waiter, stale.as_ref());
            }
            return self.give(
                &waiter.query,
                None,
                waiter.origin,
                judgement,
                Said::Nothing(Outcome::Failed),
                &serving,
            );
        }
        self.give(&waiter.query, waiter.follow.as_deref(), waiter.origin, judgement, said, &serving);
    }

    /// Writes and sends the answer to a query that was judged as `judgement` says;
    /// but where the answer leads is judged here.
    fn give<'s>(
        &mut self,
        query: &Query,
        follow: Option<&Name>,
        origin: Origin,
        mut judgement: Judgement<'s>,
        said: Said<'_>,
        serving: &'s Serving,
    ) {
        let (snapshot, rules) = (&serving.snapshot, &serving.rules);
        let out = &mut self.scratch[..];
        let mut leads_into_shadow = false;
        if let (Judgement::Pass, Some(message), None) = (&judgement, said.message(), follow)
            && !said.is_passed_by(serving.generation)
        {
            leads_into_shadow =
                serving.has_shadows() && serving.count_shadow_targets(&self.counters, query, message);
            judgement = judge_targets(query, message, snapshot, rules, self.unix, out);
        }
        let (length, outcome) = match judgement {
            Judgement::Answer { length, outcome } => (length, outcome),
            Judgement::Silence(outcome) => (0, outcome),
            Judgement::Follow(decision, target) => {
                let outcome = Outcome::Blocked { zone: decision.zone, action: decision.answer.action };
                let aged = match said {
                    Said::Before(kept, age) => {
                        kept.aged(age, &mut self.message[..]).map(|length| &self.message[..length])
                    }
                    _ => said.message(),
                };
                (
                    respond_by_following(query, aged, &decision, &target, snapshot, rules, self.unix, out),
                    outcome,
                )
            }
            Judgement::Unreadable => return self.fail(query, follow, origin, said, serving),
            Judgement::Pass | Judgement::Allow => {
                let given = match said {
                    Said::Now(message) => relay::relay(message, query, rules.max_payload, out)
                        .map(|length| (length, Outcome::Forwarded)),
                    Said::TooLong if !query.head.hop.over_tcp => {
                        Some((relay::truncated(query, rules.max_payload, out), Outcome::Forwarded))
                    }
                    Said::Before(kept, age) => {
                        // Over TCP some blocks do not apply, so that says nothing about UDP.
                        let leads_nowhere = matches!(judgement, Judgement::Pass) && !leads_into_shadow;
                        if leads_nowhere && !query.head.hop.over_tcp {
                            kept.pass(serving.generation);
                        }
                        let outcome = if age == Age::Stale { Outcome::Stale } else { Outcome::Cached };
                        kept.respond(query, age, rules.max_payload, out).map(|length| (length, outcome))
                    }
                    Said::TooLong | Said::Nothing(_) => None,
                };
                match given {
                    Some(given) => given,
                    None => return self.fail(query, follow, origin, said, serving),
                }
            }
        };
        self.deliver(origin, length, outcome, serving);
    }

    /// Nobody who could tell has told (RFC 8914 4.23), or nothing that can be passed
    /// on (4.1), and then it is no use to ask again at once.
    fn fail(
        &mut self,
        query: &Query,
        follow: Option<&Name>,
        origin: Origin,
        said: Said<'_>,
        serving: &Serving,
    ) {
        let (outcome, error) = match said {
            Said::Nothing(outcome) => {
                (outcome, ExtendedError::new(ede::NO_REACHABLE_AUTHORITY, b"no upstream answered"))
            }
            Said::Now(_) | Said::TooLong | Said::Before(..) => {
                let key = Key::new(&query.head, follow.unwrap_or(&query.name), query.qtype);
                self.failures.remember(key, self.now);
                let error = ExtendedError::new(ede::OTHER, b"the upstream's answer cannot be used");
                (Outcome::Failed, error)
            }
        };
        self.give_up(query, origin, outcome, error, serving);
    }

    /// SERVFAIL with the reason.
    fn give_up(
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
    fn count_response(&mut self, length: usize, outcome: Outcome, read_at: Instant) {
        if length == 0 {
            return;
        }
        self.counters.count_response(&self.scratch[..length], outcome);
        if read_at == self.now {
            self.at_once += 1;
        } else {
            let waited = self.now.saturating_duration_since(read_at);
            self.counters.count_waiting(ResponseFrom::Upstream, waited, 1);
        }
    }

    /// Sends `scratch[..length]` to where the query came from; nothing if empty.
    fn deliver(&mut self, origin: Origin, length: usize, outcome: Outcome, serving: &Serving) {
        match origin {
            Origin::Udp { listener: place, peer, local, read_at } => {
                self.counters.count(false, outcome, &serving.slots);
                self.count_response(length, outcome, read_at);
                let slot = self.listeners[place].slot();
                let Some(data) = slot.data.get_mut(..length).filter(|data| !data.is_empty()) else { return };
                data.copy_from_slice(&self.scratch[..length]);
                (slot.length, slot.peer, slot.local) = (length, peer, local);
                self.push(place);
            }
            Origin::Tcp { connection, generation, read_at } => {
                self.counters.count(true, outcome, &serving.slots);
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
