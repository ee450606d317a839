//! The path of a query, the same for every transport: read, decide, limit, then respond or forward.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Worker;
use super::forward::Passed;
use super::tap::Basis;
use crate::answer::{self, Client, Verdict, decide, slip};
use crate::counters::Slip;
use crate::limits::Kind;
use crate::message::Query;
use crate::name::{Name, Walk};
use crate::notify::Notify;
use crate::outcome::Outcome;
use crate::policy::names::SEED;
use crate::policy::{Judges, LookupStep};
use crate::query_counts::Place;
use crate::shared::Serving;
use crate::sys::BATCH;
use crate::upstream::Origin;

/// A message from a client.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) packet: &'a [u8],
    pub(super) client: Client,
    /// Where the response goes.
    pub(super) origin: Origin,
}

/// Messages that one transport has received together, at most `BATCH`.
///
/// A transport implements it, has a variant of `Origin`, and sends its responses in `deliver`.
pub(super) trait Messages {
    fn count(&self) -> usize;
    /// `None` if the client's address family is not served.
    fn get(&self, index: usize) -> Option<Message<'_>>;
}

/// A message on its own.
impl Messages for Message<'_> {
    fn count(&self) -> usize {
        1
    }

    fn get(&self, _: usize) -> Option<Message<'_>> {
        Some(*self)
    }
}

/// Buffers for the queries of a batch. They are reused, since a `Query` is too large to move for each packet.
pub(super) struct Queries {
    queries: Vec<Query>,
    walks: Vec<Walk>,
    /// Where their names are counted.
    places: Vec<Place>,
    passed: Vec<Passed>,
}

impl Queries {
    pub(super) fn new() -> Queries {
        let walk = || Walk::new(&Name::root(), 0);
        Queries {
            queries: vec![Query::blank(); BATCH],
            walks: (0..BATCH).map(|_| walk()).collect(),
            places: vec![Place::default(); BATCH],
            passed: Vec::with_capacity(BATCH),
        }
    }
}

impl Worker {
    /// Serves a batch. Each step runs over the whole batch, so that the memory that it prefetches
    /// has arrived when the next step reads it.
    pub(super) fn serve(&mut self, messages: &impl Messages, serving: &Serving, buffers: &mut Queries) {
        let Queries { queries, walks, places, passed } = buffers;
        // A panic may have left queries of the previous batch.
        passed.clear();
        let count = messages.count();
        let mut is_undecided = [false; BATCH];
        for index in 0..count {
            let Some(message) = messages.get(index) else { continue };
            let (query, walk) = (&mut queries[index], &mut walks[index]);
            match catch_unwind(AssertUnwindSafe(|| self.read(&message, query, walk, serving))) {
                Ok(is_query) => is_undecided[index] = is_query,
                Err(_) => self.drop_after_panic(&message.origin),
            }
            // A single query gains nothing from prefetching.
            if is_undecided[index] && count > 1 {
                serving.warm(&query.name, walk, LookupStep::Filter);
            }
        }
        let undecided = || (0..count).filter(|index| is_undecided[*index]);
        if count > 1 {
            for step in [LookupStep::Index, LookupStep::Bucket] {
                for index in undecided() {
                    serving.warm(&queries[index].name, &walks[index], step);
                }
            }
        }
        if let Some(counts) = &serving.query_counts {
            undecided().for_each(|index| places[index] = counts.place(walks[index].text()));
        }
        for index in undecided() {
            let Some(message) = messages.get(index) else { continue };
            let (query, walk, place) = (&queries[index], &walks[index], places[index]);
            match catch_unwind(AssertUnwindSafe(|| self.decide(&message, query, walk, place, serving))) {
                Ok(Some((follow, zone))) => passed.push(Passed::new(index, query, follow, zone)),
                Ok(None) => {}
                Err(_) => self.drop_after_panic(&message.origin),
            }
        }
        if !passed.is_empty() {
            self.look_up(queries, passed);
        }
        for passed in passed.drain(..) {
            let Some(Message { origin, .. }) = messages.get(passed.place) else { continue };
            let query = &queries[passed.place];
            let forward = AssertUnwindSafe(|| self.forward(query, passed, origin, serving));
            if catch_unwind(forward).is_err() {
                self.drop_after_panic(&origin);
            }
        }
    }

    /// Reads one message. Returns whether it is a query that is still to be decided.
    fn read(&mut self, message: &Message, query: &mut Query, walk: &mut Walk, serving: &Serving) -> bool {
        fail::fail_point!("decide");
        let (rules, now, out) = (&serving.rules, self.unix, self.slot(&message.origin));
        match answer::read(message.packet, message.client, &serving.snapshot, rules, now, query, out) {
            Ok(()) => {
                walk.take(&query.name, SEED);
                true
            }
            Err(verdict) => {
                if !matches!(verdict, Verdict::Drop(_) | Verdict::Notify { .. }) {
                    self.tap_query(message.packet, &message.origin, query, None, serving);
                }
                if self.admits(message, query, &verdict, serving) {
                    self.carry_out(verdict, query, &message.origin, serving);
                }
                false
            }
        }
    }

    /// Decides a query. For what it returns, see `carry_out`.
    fn decide(
        &mut self,
        message: &Message,
        query: &Query,
        walk: &Walk,
        place: Place,
        serving: &Serving,
    ) -> Option<(Option<Name>, Option<Judges>)> {
        let (rules, now, out) = (&serving.rules, self.unix, self.slot(&message.origin));
        let verdict = decide(query, walk, &serving.snapshot, rules, now, out);
        let dropped = if let Verdict::Drop(outcome) = verdict { Some(outcome) } else { None };
        self.tap_query(message.packet, &message.origin, query, dropped, serving);
        if !self.admits(message, query, &verdict, serving) {
            return None;
        }
        if serving.has_shadows() {
            serving.count_shadows(&self.counters, &query.name, walk, query.head.hop.client());
        }
        if let Some(counts) = &serving.query_counts {
            counts.count(walk.text(), place);
        }
        self.carry_out(verdict, query, &message.origin, serving)
    }

    /// Applies the client's rate limit. A query above it is dropped here, or gets a slip response.
    fn admits(&mut self, message: &Message, query: &Query, verdict: &Verdict, serving: &Serving) -> bool {
        let rules = &serving.rules;
        let Some(kind) = verdict.rate_limit() else { return true };
        let rate = match kind {
            Kind::Query => rules.rates.queries,
            Kind::Error => rules.rates.errors,
        };
        let is_admitted = self.shared.limiter.admit(message.client.address, kind, rate, self.now);
        if !is_admitted {
            self.limit(&message.origin, query, kind, serving);
        }
        is_admitted
    }

    /// Drops a query above its client's rate limit. Every Nth query gets a response, so that a
    /// legitimate client whose address is spoofed can retry.
    fn limit(&mut self, origin: &Origin, query: &Query, kind: Kind, serving: &Serving) {
        let rules = &serving.rules;
        self.counters.count(origin.transport(), Outcome::Limited, &[]);
        // Errors are not counted here: if they alternated with queries, all queries would slip, or none.
        self.limited = self.limited.wrapping_add(u32::from(kind == Kind::Query));
        let slips = kind == Kind::Query && self.limited.checked_rem(rules.rates.slip) == Some(0);
        let response = if slips { slip(query, rules, self.slot(origin)) } else { None };
        let Some((length, is_about_cookie)) = response else {
            self.counters.limited[Slip::Dropped as usize].add(1);
            return self.leave_unanswered(origin);
        };
        let slip = if is_about_cookie { Slip::BadCookie } else { Slip::Truncated };
        self.counters.limited[slip as usize].add(1);
        self.tap_response(query, origin, length, Outcome::Limited, &Basis::Query, serving);
        self.send(origin, length, Outcome::Limited);
    }

    /// Sends the response in the slot, or none. Returns what to forward: the name to query instead
    /// of QNAME, and the zone whose passthru lets the query pass.
    fn carry_out(
        &mut self,
        verdict: Verdict,
        query: &Query,
        origin: &Origin,
        serving: &Serving,
    ) -> Option<(Option<Name>, Option<Judges>)> {
        match verdict {
            Verdict::Respond { length, outcome, .. } => {
                self.counters.count(origin.transport(), outcome, &serving.slots);
                self.tap_response(query, origin, length, outcome, &Basis::Query, serving);
                self.send(origin, length, outcome);
                None
            }
            Verdict::Notify { length, notify, from, .. } => {
                if let Notify::Accepted(zone) = notify {
                    self.shared.notified.note(&serving.rules.transferred.0[zone].label, from);
                }
                self.answer_notify(notify, length, origin, serving);
                None
            }
            Verdict::Forward { follow, allowed_by, .. } => Some((follow, allowed_by)),
            Verdict::Drop(outcome) => {
                self.counters.count(origin.transport(), outcome, &serving.slots);
                self.leave_unanswered(origin);
                if outcome == Outcome::Dropped {
                    self.stop_reading(origin);
                }
                None
            }
        }
    }

    fn answer_notify(&mut self, notify: Notify, length: usize, origin: &Origin, serving: &Serving) {
        let outcome = match notify {
            Notify::Accepted(_) => Outcome::Local,
            Notify::Malformed => Outcome::Malformed,
            Notify::Refused | Notify::BadSignature => Outcome::Refused,
        };
        self.counters.notifies[notify.index()].add(1);
        self.counters.count(origin.transport(), outcome, &serving.slots);
        match length {
            0 => self.leave_unanswered(origin),
            length => self.send(origin, length, outcome),
        }
    }

    /// Counts a panic and the query that is lost by it.
    pub(super) fn drop_after_panic(&mut self, origin: &Origin) {
        self.counters.panics.add(1);
        self.counters.count(origin.transport(), Outcome::Dropped, &[]);
        self.leave_unanswered(origin);
    }
}
