//! What is not blocked: given from the cache, or asked upstream and given once it
//! is there, by the snapshot of that moment.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::{Mail, Worker};
use crate::answer::{Judgement, judge, judge_targets, respond_by_following, respond_with_error};
use crate::cache::{Age, Kept, Key};
use crate::counters::{Refused, ResponseFrom};
use crate::failures::Failures;
use crate::message::{ExtendedError, Query, ede, rcode};
use crate::name::Name;
use crate::outcome::Outcome;
use crate::relay;
use crate::response::{Reader, Response};
use crate::rules::Rules;
use crate::shared::Serving;
use crate::sys::{DATAGRAM, Local};
use crate::transport::poll::Event;
use crate::upstream::{Asker, Flight, Heard, Join, Led, Origin, Waiter};

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
    kept: Option<Kept>,
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

    fn key<'a>(&'a self, query: &'a Query) -> Key<'a> {
        Key::new(&query.head, self.follow.as_deref().unwrap_or(&query.name), query.qtype)
    }
}

/// What has become of a question.
enum Came<'a> {
    /// An upstream's message.
    Message(&'a mut [u8]),
    /// One that another packet thread has taken.
    Told(&'a [u8]),
    /// There is an answer, but it is too long for UDP and cannot be had over TCP.
    TooLong,
    Nothing,
}

/// What there is to answer a query with.
#[derive(Clone, Copy)]
enum Said<'a> {
    /// An upstream's response that has just come.
    Now(Response<'a>),
    /// One that is none: not well-formed.
    Malformed,
    TooLong,
    Before(&'a Kept, Age),
    /// Nothing, and why.
    Nothing(Outcome),
    /// Nothing, as too much is outstanding.
    Refused(Refused),
}

impl<'a> Said<'a> {
    fn of(heard: &'a Heard, reader: &'a mut Reader) -> Said<'a> {
        match heard {
            Heard::Answer(message) => reader.read(message).map_or(Said::Malformed, Said::Now),
            Heard::TooLong => Said::TooLong,
            Heard::Nothing | Heard::Lost => Said::Nothing(Outcome::Failed),
        }
    }

    /// Whether an upstream has said something.
    fn is_response(self) -> bool {
        matches!(self, Said::Now(_) | Said::Malformed | Said::Before(..))
    }

    /// What there is to read: with `reader`, where that was not done.
    fn response(self, reader: &'a mut Reader) -> Option<Response<'a>> {
        match self {
            Said::Now(response) => Some(response),
            Said::Before(kept, _) => kept.read(reader),
            Said::Malformed | Said::TooLong | Said::Nothing(_) | Said::Refused(_) => None,
        }
    }

    /// Whether all that it leads to was judged by what is served, and passed.
    fn is_passed_by(self, generation: u64) -> bool {
        matches!(self, Said::Before(kept, _) if kept.is_passed_by(generation))
    }

    /// For packet threads whose clients asked the same.
    fn to_others(self) -> Heard {
        match self {
            Said::Now(response) => Heard::Answer(response.message().into()),
            Said::Before(kept, _) => Heard::Answer(kept.message().into()),
            Said::TooLong => Heard::TooLong,
            Said::Malformed | Said::Nothing(_) | Said::Refused(_) => Heard::Nothing,
        }
    }

    /// For the time until it is known what is said about a target of ours.
    fn to_led(self) -> Option<Led> {
        match self {
            Said::Now(response) => Some(Led::Now(response.message().into())),
            Said::Before(kept, age) => Some(Led::Before(kept.clone(), age)),
            Said::Malformed | Said::TooLong | Said::Nothing(_) | Said::Refused(_) => None,
        }
    }

    fn of_led(led: &'a Led, reader: &'a mut Reader) -> Said<'a> {
        match led {
            Led::Now(message) => reader.read(message).map_or(Said::Malformed, Said::Now),
            Led::Before(kept, age) => Said::Before(kept, *age),
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
        let settings = &serving.rules.cache;
        let stale = match passed.kept.as_ref().map(|kept| (kept.age(self.now, settings), kept)) {
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
        if kept.is_due(self.now, &serving.rules.cache) {
            self.ask_anew(query, passed.follow.clone());
        }
        let said = Said::Before(kept, age);
        if let Some(follow) = &passed.follow {
            let waiter = Waiter::new(query.clone(), Some(follow.clone()), origin);
            return self.judge_again(Box::new(waiter), said);
        }
        let judgement = passed.allowed_by.map_or(Judgement::Pass, Judgement::Allow);
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
    fn refuse(&mut self, waiter: Box<Waiter>, why: Refused, stale: Option<&Kept>) {
        self.counters.refused[why as usize].add(1);
        let said = match stale {
            Some(stale) => Said::Before(stale, Age::Stale),
            None => Said::Refused(why),
        };
        self.serve_waiter(waiter, said);
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
        if !self.upstreams.is_busy()
            && let Join::Alone(waiter) = self.upstreams.join(waiter, false, purges, self.now)
        {
            let is_asked = self.ask(waiter, false);
            self.counters.prefetched.add(u64::from(is_asked));
        }
    }

    //--- What comes back

    pub(super) fn take_datagrams(&mut self, key: usize, mail: &mut Mail) {
        for (flight, place) in self.upstreams.receive(key, &mut mail.batch, self.now) {
            let datagram = &mut mail.batch.datagrams[place];
            self.finish(flight, Came::Message(&mut datagram.data[..datagram.length]));
        }
    }

    pub(super) fn take_messages(&mut self, key: usize, event: Event) {
        if event.writable {
            self.upstreams.write_stream(key, self.now);
        }
        if event.readable || event.broken {
            for (flight, mut message) in self.upstreams.read_stream(key, self.now) {
                self.finish(flight, Came::Message(&mut message));
            }
        }
    }

    /// Takes what other packet threads have heard about questions of this one.
    pub(super) fn take_letters(&mut self) {
        for (flight, heard) in self.upstreams.hear(self.now) {
            match heard {
                Heard::Answer(message) => self.finish(flight, Came::Told(&message)),
                Heard::TooLong => self.finish(flight, Came::TooLong),
                Heard::Nothing | Heard::Lost => self.finish(flight, Came::Nothing),
            }
        }
    }

    /// Gives what there is to those whose patience is at an end.
    pub(super) fn give_up_waiting(&mut self) {
        for flight in self.upstreams.expire(self.now) {
            let came = if flight.over_tcp { Came::TooLong } else { Came::Nothing };
            self.finish(flight, came);
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
        let mut reader = self.reader();
        let said = match &owed.stale {
            Some(stale) => Said::Before(stale, Age::Stale),
            None => Said::of(&owed.heard, &mut reader),
        };
        for waiter in owed.waiters.by_ref().take(TOGETHER) {
            self.serve_waiter(waiter, said);
        }
        self.readers.push(reader);
        if owed.waiters.len() > 0 {
            self.owed.push_back(owed);
        }
    }

    /// What is kept for this question and will do where nothing else is to be had, by the
    /// rules of now.
    fn stale(&self, key: Key<'_>) -> Option<Kept> {
        let settings = self.shared.serving.load().rules.cache;
        self.shared.cache.find(key).filter(|kept| kept.age(self.now, &settings) == Age::Stale)
    }

    /// Answers those who wait for a question that has been answered, or will not be.
    fn finish(&mut self, flight: Flight, came: Came<'_>) {
        let Flight { first, others, is_sound, purges, claim, asker, awaits_recursion, mut failure, .. } =
            flight;
        // Another upstream was asked, and had nothing better than this SERVFAIL.
        let (came, is_sound) = match failure.as_deref_mut() {
            Some(failure) => (Came::Message(failure), true),
            None => (came, is_sound),
        };
        let is_for_all = asker.is_none();
        let mut reader = self.reader();
        let bounds = self.shared.serving.load().rules.ttl_bounds;
        let said = match came {
            Came::Message(message) => {
                reader.read_bounded(message, &bounds).map_or(Said::Malformed, Said::Now)
            }
            Came::Told(message) => reader.read_told(message, &bounds).map_or(Said::Malformed, Said::Now),
            Came::TooLong => Said::TooLong,
            Came::Nothing => Said::Nothing(Outcome::Failed),
        };
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
        self.readers.push(reader);
        for waiter in unserved {
            let stale = self.stale(waiter.key());
            self.wait(waiter, stale.as_ref());
        }
    }

    /// Room to read a message; it is put back into `readers`.
    fn reader(&mut self) -> Reader {
        self.readers.pop().unwrap_or_default()
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
        let response = match said {
            Said::Now(response) if is_sound => response,
            Said::Now(_) | Said::Malformed | Said::Nothing(Outcome::Failed) => {
                self.failures.remember(key, self.now);
                return true;
            }
            Said::Nothing(_) | Said::Refused(_) | Said::TooLong | Said::Before(..) => return true,
        };
        if !self.shared.cache.keeps_anything() || self.upstreams.tells_client() || !is_for_all {
            return false;
        }
        let Some(kept) = Kept::new(response, key, self.now, &mut self.message[..]) else {
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
        let out = &mut self.scratch[..];
        let mut judgement = judge(&waiter.query, &serving.snapshot, &serving.rules, self.unix, out);
        let led = waiter.led.take();
        if let (Some(first @ 1..), Some(led)) = (judgement.judges(), &led) {
            let mut reader = self.reader();
            let said = self.judge_led(&waiter.query, led, first, &mut reader, &serving);
            self.readers.push(reader);
            if !matches!(said, Judgement::Pass) {
                judgement = said;
            }
        }
        // What should have been asked, as it is now.
        let follow = match &judgement {
            Judgement::Follow(_, target) => Some(target),
            Judgement::Pass | Judgement::Allow(_) => None,
            Judgement::Answer { .. } | Judgement::Silence(_) | Judgement::Unreadable => {
                waiter.follow.as_deref()
            }
        };
        if let (None, Some(led)) = (follow, &led) {
            // It is not blocked any more, and what an upstream said about it is there.
            let mut reader = self.reader();
            let said = Said::of_led(led, &mut reader);
            self.give(&waiter.query, None, waiter.origin, judgement, said, &serving);
            return self.readers.push(reader);
        }
        if follow != waiter.follow.as_deref() && said.is_response() {
            // The policy for the name changed while the upstream was asked.
            let follow = follow.cloned().map(Box::new);
            if waiter.begin_anew(follow) {
                waiter.led = led;
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

    /// What the snapshot of now says about the response whose place a target of ours takes.
    fn judge_led<'s>(
        &mut self,
        query: &Query,
        led: &Led,
        first: usize,
        reader: &mut Reader,
        serving: &'s Serving,
    ) -> Judgement<'s> {
        let response = match led {
            Led::Now(message) => reader.read(message),
            Led::Before(kept, _) => kept.read(reader),
        };
        let Some(response) = response else { return Judgement::Unreadable };
        let (snapshot, rules) = (&serving.snapshot, &serving.rules);
        judge_targets(query, response, first, snapshot, rules, self.unix, &mut self.scratch[..])
    }

    /// Gives a target of ours in the place of a response that leads to what is blocked, with what
    /// an upstream says about the target: without its addresses a stub has none (RFC 1034 4.3.2).
    fn give_target(
        &mut self,
        query: &Query,
        target: Name,
        origin: Origin,
        said: Said<'_>,
        serving: &Serving,
    ) {
        let mut waiter = Box::new(Waiter::new(query.clone(), Some(Box::new(target)), origin));
        waiter.led = said.to_led().map(Box::new);
        let key = waiter.key();
        let kept = if self.upstreams.tells_client() { None } else { self.shared.cache.find(key) };
        let kept = kept.map(|kept| (kept.age(self.now, &serving.rules.cache), kept));
        let stale = match &kept {
            Some((age @ Age::Fresh(_), kept)) => return self.judge_again(waiter, Said::Before(kept, *age)),
            Some((Age::Stale, kept)) => Some(kept),
            _ => None,
        };
        match self.failures.knows(key, self.now) {
            true => self.fail_again(waiter, stale, serving),
            false => self.wait(waiter, stale),
        }
    }

    /// Writes and sends the answer to a query that was judged as `judgement` says;
    /// but where the answer leads is judged here.
    fn give<'s>(
        &mut self,
        query: &Query,
        follow: Option<&Name>,
        origin: Origin,
        judgement: Judgement<'s>,
        said: Said<'_>,
        serving: &'s Serving,
    ) {
        let mut reader = self.reader();
        self.give_read(query, follow, origin, judgement, said, serving, &mut reader);
        self.readers.push(reader);
    }

    #[allow(clippy::too_many_arguments, reason = "the same as of `give`, and where to read")]
    fn give_read<'s>(
        &mut self,
        query: &Query,
        follow: Option<&Name>,
        origin: Origin,
        mut judgement: Judgement<'s>,
        said: Said<'_>,
        serving: &'s Serving,
        reader: &mut Reader,
    ) {
        let (snapshot, rules) = (&serving.snapshot, &serving.rules);
        let mut leads_into_shadow = false;
        // Of a response that was judged: some of its records may be dropped.
        let mut judged = None;
        let is_judged_by = |first: &usize| *first > 0 || serving.has_shadows();
        let judges = judgement
            .judges()
            .filter(is_judged_by)
            .filter(|_| follow.is_none() && said.is_response() && !said.is_passed_by(serving.generation));
        if let Some(first) = judges {
            let Some(response) = said.response(reader) else {
                return self.fail(query, follow, origin, said, serving);
            };
            let allowed_by = if let Judgement::Allow(zone) = judgement { Some(zone) } else { None };
            leads_into_shadow = serving.has_shadows()
                && serving.count_shadow_targets(&self.counters, query, response, allowed_by);
            if first > 0 {
                let out = &mut self.scratch[..];
                judgement = judge_targets(query, response, first, snapshot, rules, self.unix, out);
                judged = Some(response);
                self.counters.dropped_records.add(response.dropped() as u64);
            }
        }
        let (length, outcome) = match judgement {
            Judgement::Answer { length, outcome } => (length, outcome),
            Judgement::Silence(outcome) => (0, outcome),
            Judgement::Follow(_, target) if follow.is_none() && judged.is_some() => {
                return self.give_target(query, target, origin, said, serving);
            }
            Judgement::Follow(decision, target) => {
                let outcome = Outcome::Blocked { zone: decision.zone, action: decision.answer.action };
                let (message, out) = (&mut self.message[..], &mut self.scratch[..]);
                let response = said.response(reader).and_then(|response| match said {
                    Said::Before(kept, age) => {
                        kept.aged(age, message).map(|length| response.over(&message[..length]))
                    }
                    _ => Some(response),
                });
                (
                    respond_by_following(
                        query, response, &decision, &target, snapshot, rules, self.unix, out,
                    ),
                    outcome,
                )
            }
            Judgement::Unreadable => return self.fail(query, follow, origin, said, serving),
            Judgement::Pass | Judgement::Allow(_) => {
                // Over TCP other zones may decide, so that says nothing about UDP. What passes over
                // UDP passes over TCP, and a passthru of the name is the same for all who ask for it.
                let is_passed = !leads_into_shadow
                    && !query.head.hop.over_tcp
                    && judged.is_none_or(|response| response.dropped() == 0);
                match self.pass_on(query, said, judged, is_passed.then_some(serving.generation), rules) {
                    Some(given) => given,
                    None => return self.fail(query, follow, origin, said, serving),
                }
            }
        };
        self.deliver(origin, length, outcome, serving);
    }

    /// Writes what an upstream said. `judged`: the response, where that was judged; what it was
    /// told to drop is left out. `passed_by`: the generation of what lets all of it pass.
    fn pass_on(
        &mut self,
        query: &Query,
        said: Said<'_>,
        judged: Option<Response<'_>>,
        passed_by: Option<u64>,
        rules: &Rules,
    ) -> Option<(usize, Outcome)> {
        let (payload, out) = (rules.max_payload, &mut self.scratch[..]);
        match said {
            Said::Now(response) => {
                if judged.is_none() {
                    // Another client's query may have marked what to drop.
                    response.clear_marks();
                }
                relay::relay(response, query, payload, out).map(|length| (length, Outcome::Forwarded))
            }
            Said::TooLong if !query.head.hop.over_tcp => {
                Some((relay::truncated(query, payload, out), Outcome::Forwarded))
            }
            Said::Before(kept, age) => {
                if let Some(generation) = passed_by {
                    kept.pass(generation);
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
            Said::Malformed | Said::TooLong | Said::Nothing(_) | Said::Refused(_) => None,
        }
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
            Said::Refused(why) => {
                let text: &[u8] = match why {
                    Refused::Full => b"too many queries are outstanding",
                    Refused::Domain => b"too many queries are outstanding for this domain",
                    Refused::Client => b"too many queries of this client are outstanding",
                };
                (Outcome::Overloaded, ExtendedError::new(ede::OTHER, text))
            }
            Said::Nothing(outcome) => {
                (outcome, ExtendedError::new(ede::NO_REACHABLE_AUTHORITY, b"no upstream answered"))
            }
            Said::Now(_) | Said::Malformed | Said::TooLong | Said::Before(..) => {
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
