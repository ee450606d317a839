//! Answers a query from an upstream's or a cached response, after the current snapshot has judged both.

use super::Worker;
use super::source::Source;
use super::tap::Basis;
use crate::answer::{Judgement, Member, judge, judge_targets, respond_by_following};
use crate::cache::{Age, Allowed};
use crate::message::Query;
use crate::name::{BoxedName, Name, Walk};
use crate::outcome::Outcome;
use crate::policy::names::SEED;
use crate::policy::{Decision, Judges};
use crate::response::{Parser, Response};
use crate::shared::Serving;
use crate::upstream::{ChainStart, Origin, Waiter};

impl Worker {
    /// Answers a query that has waited. The name is judged again if rules or snapshot have changed.
    pub(super) fn judge_again(&mut self, mut waiter: Box<Waiter>, source: Source<'_>) {
        if matches!(waiter.origin, Origin::Nobody) {
            return;
        }
        let serving = self.shared.serving.load();
        let (query, out) = (&waiter.query, &mut self.scratch[..]);
        let mut judgement = match waiter.passed {
            Some((generation, allowed_by)) if generation == serving.generation => {
                allowed_by.map_or(Judgement::Pass, Judgement::Allow)
            }
            _ => {
                let walk = Walk::new(&query.name, SEED);
                judge(query, &walk, &serving.snapshot, &serving.rules, self.unix, out)
            }
        };
        let chain_start = waiter.chain_start.take();
        let judges = judgement.judges().filter(|judges| judges.first > 0);
        let mut basis = Basis::of(&judgement);
        if let (Some(judges), Some(chain_start)) = (judges, &chain_start) {
            let mut parser = self.parser();
            let by_target = self.judge_chain_start(&waiter.query, chain_start, judges, &mut parser, &serving);
            self.upstreams.parsers.push(parser);
            if !matches!(by_target.0, Judgement::Pass) {
                (judgement, basis) = by_target;
            }
        }
        // The target that the current snapshot would query.
        let follow = match &judgement {
            Judgement::Follow(_, target, _) => Some(target),
            Judgement::Pass | Judgement::Allow(_) => None,
            Judgement::Answer { .. } | Judgement::Silence(_) | Judgement::Unreadable => {
                waiter.follow.as_deref()
            }
        };
        if let (None, Some(chain_start)) = (follow, &chain_start) {
            // The name is no longer blocked, and the upstream's response to it is there.
            let mut parser = self.parser();
            let source = Source::of_chain_start(chain_start, &mut parser);
            self.respond(&waiter.query, None, waiter.origin, judgement, source, &serving);
            return self.upstreams.parsers.push(parser);
        }
        if follow != waiter.follow.as_deref() && source.is_response() {
            // The policy for the name has changed while the query was outstanding.
            let follow = follow.cloned().map(Box::new);
            if waiter.restart(follow) {
                waiter.chain_start = chain_start;
                let stale = self.stale(waiter.key());
                return self.wait(waiter, stale.as_ref());
            }
            let nothing = Source::Nothing(Outcome::Failed);
            return self.respond(&waiter.query, None, waiter.origin, judgement, nothing, &serving);
        }
        let start = chain_start.as_deref();
        let (query, follow, origin) = (&waiter.query, waiter.follow.as_deref(), waiter.origin);
        let mut parser = self.parser();
        self.respond_with(query, follow, origin, (judgement, basis), source, start, &serving, &mut parser);
        self.upstreams.parsers.push(parser);
    }

    /// Judges the upstream's response that our own CNAME is about to replace.
    fn judge_chain_start<'s>(
        &mut self,
        query: &Query,
        chain_start: &ChainStart,
        judges: Judges,
        parser: &mut Parser,
        serving: &'s Serving,
    ) -> (Judgement<'s>, Basis<'s>) {
        let Some(response) = chain_start.parse(parser) else { return (Judgement::Unreadable, Basis::Query) };
        let (snapshot, rules) = (&serving.snapshot, &serving.rules);
        let basis = self.basis_of_targets(query, response, judges, serving).unwrap_or_default();
        let out = &mut self.scratch[..];
        (judge_targets(query, response, judges, snapshot, rules, self.unix, out), basis)
    }

    /// Answers with our own CNAME, because a target in the response is blocked. The records of the
    /// CNAME's target are needed as well: without them a stub has no address (RFC 1034 4.3.2).
    fn respond_with_target(
        &mut self,
        query: &Query,
        target: Name,
        origin: Origin,
        source: Source<'_>,
        serving: &Serving,
    ) {
        let mut waiter = Box::new(Waiter::new(query.clone(), Some(Box::new(target)), origin));
        waiter.chain_start = source.to_chain_start().map(Box::new);
        let key = waiter.key();
        let cached = if self.upstreams.sends_identity() { None } else { self.shared.cache.find(key) };
        let cached = cached.map(|cached| (cached.age(self.now, &serving.rules.cache), cached));
        let stale = match &cached {
            Some((age @ Age::Fresh(_), cached)) => {
                return self.judge_again(waiter, Source::Cached(cached, *age));
            }
            Some((Age::Stale, cached)) => Some(cached),
            _ => None,
        };
        match self.failures.contains(key, self.now) {
            true => self.fail_again(waiter, stale, serving),
            false => self.wait(waiter, stale),
        }
    }

    /// Writes and sends the response to a query whose name was judged. Its targets are judged here.
    pub(super) fn respond<'s>(
        &mut self,
        query: &Query,
        follow: Option<&Name>,
        origin: Origin,
        judgement: Judgement<'s>,
        source: Source<'_>,
        serving: &'s Serving,
    ) {
        let mut parser = self.parser();
        let basis = Basis::of(&judgement);
        self.respond_with(query, follow, origin, (judgement, basis), source, None, serving, &mut parser);
        self.upstreams.parsers.push(parser);
    }

    #[allow(clippy::too_many_arguments, reason = "those of `respond`, and a parser")]
    fn respond_with<'s>(
        &mut self,
        query: &Query,
        follow: Option<&Name>,
        origin: Origin,
        (mut judgement, mut basis): (Judgement<'s>, Basis<'s>),
        source: Source<'_>,
        chain_start: Option<&ChainStart>,
        serving: &'s Serving,
        parser: &mut Parser,
    ) {
        let (snapshot, rules) = (&serving.snapshot, &serving.rules);
        let mut has_shadowed_target = false;
        // Set if the targets were judged; some records may be marked to be dropped.
        let mut judged = None;
        let is_judged_by = |judges: &Judges| judges.first > 0 || serving.has_shadows();
        let judges = judgement.judges().filter(is_judged_by);
        let judges = judges.filter(|_| follow.is_none() && source.is_response());
        let is_allowed = judges.is_some_and(|judges| source.is_allowed(judges, serving));
        let judges = judges.filter(|_| !is_allowed);
        if let Some(judges) = judges {
            let Some(response) = source.response(parser) else {
                return self.fail(query, follow, origin, source, serving);
            };
            let allowed_by = judgement.allowed_by();
            has_shadowed_target = serving.has_shadows()
                && serving.count_shadow_targets(&self.counters, query, response, allowed_by);
            if judges.first > 0 {
                basis = self.basis_of_targets(query, response, judges, serving).unwrap_or(basis);
                let out = &mut self.scratch[..];
                judgement = judge_targets(query, response, judges, snapshot, rules, self.unix, out);
                judged = Some(response);
                self.counters.dropped_records.add(response.dropped() as u64);
            }
        }
        let (length, outcome) = match judgement {
            Judgement::Answer { length, outcome } => (length, outcome),
            Judgement::Silence(outcome) => (0, outcome),
            Judgement::Follow(_, target, _) if follow.is_none() && judged.is_some() => {
                return self.respond_with_target(query, target, origin, source, serving);
            }
            Judgement::Follow(decision, target, name) => {
                self.follow(query, (&decision, &target), chain_start.zip(name), source, serving, parser)
            }
            Judgement::Unreadable => return self.fail(query, follow, origin, source, serving),
            Judgement::Pass | Judgement::Allow(_) => {
                let is_passed = !is_allowed && !has_shadowed_target;
                let passed_by = if is_passed { passed_by(query, judged, judges, serving) } else { None };
                match self.write_response(query, source, judged, passed_by, rules) {
                    Some(given) => given,
                    None => return self.fail(query, follow, origin, source, serving),
                }
            }
        };
        self.deliver(query, origin, (length, outcome), &basis, serving);
    }

    /// Writes our own CNAME, and an upstream's records of its target.
    fn follow(
        &mut self,
        query: &Query,
        (decision, target): (&Decision<'_>, &Name),
        chain: Option<(&ChainStart, BoxedName)>,
        source: Source<'_>,
        serving: &Serving,
        parser: &mut Parser,
    ) -> (usize, Outcome) {
        let mut parser_of_chain = self.parser();
        let member = chain.and_then(|(start, name)| {
            start.parse(&mut parser_of_chain).map(|response| Member { response, name: name.into_name() })
        });
        let (snapshot, rules) = (&serving.snapshot, &serving.rules);
        let (message, out) = (&mut self.message[..], &mut self.scratch[..]);
        let response = source.response(parser).and_then(|response| match source {
            Source::Cached(cached, age) => {
                cached.copy_aged(age, message).map(|length| response.with_message(&message[..length]))
            }
            _ => Some(response),
        });
        let now = self.unix;
        let length = respond_by_following(
            query,
            response,
            decision,
            target,
            member.as_ref(),
            snapshot,
            rules,
            now,
            out,
        );
        self.upstreams.parsers.push(parser_of_chain);
        (length, Outcome::blocked(decision, decision.answer.action))
    }
}

/// The policy that lets a response pass, if it lets it pass for all clients. `judged`: by these zones.
///
/// Not over TCP, where zones with the action `truncate` do not apply. A response that passes over UDP also
/// passes over TCP, and a passthru applies to all clients, unless some zones apply to certain clients only.
fn passed_by(
    query: &Query,
    judged: Option<Response<'_>>,
    judges: Option<Judges>,
    serving: &Serving,
) -> Option<Allowed> {
    let passes_always = !serving.snapshot.depends_on_client()
        && !query.head.hop.transport.is_tcp()
        && judged.is_none_or(|response| response.dropped() == 0);
    let is_of_addresses =
        judges == Some(Judges::ALL) && judged.is_some_and(|response| response.is_only_about(&query.name));
    passes_always.then_some(Allowed { generation: serving.generation, is_of_addresses })
}
