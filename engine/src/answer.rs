//! `read` and `decide`: what to do with one packet. Pure: bytes, client and
//! snapshot in, verdict out; no socket, clock, allocation or log.
//!
//! The order is the whole policy: what is not a query we may answer is
//! refused, then the client is checked, then the snapshot decides, then the
//! names that nobody is asked about are answered, and the rest is forwarded. No
//! upstream and no cache is asked before.

use std::net::IpAddr;

use crate::chain::AmbiguousChain;
use crate::limits::Kind;
use crate::local;
use crate::message::{
    ExtendedError, Head, MAX_MESSAGE, Opt, Query, Refusal, Section, Transport, Writer, ede, has_option,
    put_soa, rcode, rtype,
};
use crate::name::Name;
use crate::outcome::Outcome;
use crate::policy::{Action, Answer, Decision, Snapshot};
use crate::relay;
use crate::response::Response;
use crate::rules::Rules;
use crate::targets;

/// What to do with one packet.
pub enum Verdict {
    /// Send nothing.
    Drop(Outcome),
    /// `out[..length]` is the response. `is_known`: to where it was asked from,
    /// as far as we can tell.
    Respond { length: usize, outcome: Outcome, is_known: bool },
    /// Not blocked, or blocked by a CNAME to be followed: give what an upstream says.
    /// `allowed_by`: the place of the zone whose passthru lets the name pass.
    Forward { follow: Option<Name>, allowed_by: Option<usize>, is_known: bool },
}

impl Verdict {
    /// What a client that may not be who it says would have from us; `None` where
    /// nothing is sent to it, or where it is known.
    pub fn claim(&self) -> Option<Kind> {
        match self {
            Verdict::Drop(_) => None,
            Verdict::Respond { is_known, .. } | Verdict::Forward { is_known, .. } if *is_known => None,
            Verdict::Respond { outcome, .. } if outcome.is_error() => Some(Kind::Error),
            Verdict::Respond { .. } | Verdict::Forward { .. } => Some(Kind::Query),
        }
    }
}

/// Who asks, and how.
#[derive(Clone, Copy)]
pub struct Client {
    pub address: IpAddr,
    pub port: u16,
    pub transport: Transport,
}

/// Reads one packet into `query`, and greets its client; what is not to be decided
/// about has its verdict already. `now` is Unix time in seconds; `out` takes the
/// response.
pub fn read(
    packet: &[u8],
    client: Client,
    rules: &Rules,
    now: u64,
    query: &mut Query,
    out: &mut [u8],
) -> Result<(), Verdict> {
    // Nobody sends from port 0 and waits for an answer.
    if client.port == 0 {
        return Err(Verdict::Drop(Outcome::Dropped));
    }
    let refusal = query.read(packet, client.transport);
    if refusal == Err(Refusal::Drop) {
        return Err(Verdict::Drop(Outcome::Dropped));
    }
    let head = &mut query.head;
    greet(head, packet, client, rules, now);
    let is_stranger = !rules.clients.contains(client.address);
    match refusal {
        Err(Refusal::Error(mut rcode)) => {
            if rcode == rcode::NOERROR && head.hop.has_invalid_cookie {
                rcode = rcode::BADCOOKIE; // RFC 7873 5.4
            }
            // What cannot be read is told so before it is asked who sent it;
            // with silence for strangers, strangers get silence.
            let is_readable = matches!(rcode, rcode::REFUSED | rcode::NOERROR | rcode::BADCOOKIE);
            if is_stranger && (is_readable || rules.drop_others) {
                return Err(refuse_client(head, rules, out));
            }
            let length = respond_with_error(head, rcode, &[], rules, out);
            Err(Verdict::Respond { length, outcome: outcome_of(rcode), is_known: head.hop.is_verified })
        }
        _ if is_stranger => Err(refuse_client(head, rules, out)),
        _ => Ok(()),
    }
}

/// Decides one query, which `read` has read.
pub fn decide(query: &Query, snapshot: &Snapshot, rules: &Rules, now: u64, out: &mut [u8]) -> Verdict {
    let is_known = query.head.hop.is_verified;
    let (answered, allowed_by) = match judge(query, snapshot, rules, now, out) {
        Judgement::Answer { length, outcome } => return Verdict::Respond { length, outcome, is_known },
        Judgement::Silence(outcome) => return Verdict::Drop(outcome),
        Judgement::Follow(_, target) => {
            return Verdict::Forward { follow: Some(target), allowed_by: None, is_known };
        }
        Judgement::Pass | Judgement::Unreadable => {
            (rules.local.respond(query, &rules.soa, rules.max_payload, out), None)
        }
        Judgement::Allow(zone) => (None, Some(zone)),
    };
    match answered.or_else(|| local::respond_to_any(query, rules.max_payload, out)) {
        Some(length) => Verdict::Respond { length, outcome: Outcome::Local, is_known },
        None => Verdict::Forward { follow: None, allowed_by, is_known },
    }
}

/// Fills in what is known of the way to the client: whether it is who it says,
/// and so how much it may get, and which of its options we answer.
fn greet(head: &mut Head, packet: &[u8], client: Client, rules: &Rules, now: u64) {
    let cookie = head.edns.and_then(|edns| edns.cookie);
    let has_proof = cookie.is_some_and(|cookie| rules.secrets.verify(&cookie, client.address, now));
    let asks_keepalive = head.edns.is_some_and(|edns| edns.keepalive);
    let asks_structured = |code| head.edns.is_some() && has_option(packet, head.question(), code);
    let payload_limit = head.payload_limit(rules.max_payload);
    let wants_structured_errors = rules.structured_option.is_some_and(asks_structured);
    let hop = &mut head.hop;
    hop.is_verified = client.transport.is_tcp() || has_proof || rules.exempt.contains(client.address);
    hop.has_invalid_cookie = !has_proof && cookie.is_some_and(|cookie| cookie.has_server_cookie());
    hop.cookie = cookie.and_then(|cookie| rules.secrets.create(&cookie, client.address, now));
    hop.keepalive = asks_keepalive.then_some(rules.keepalive);
    hop.wants_structured_errors = wants_structured_errors;
    hop.limit = match (client.transport, hop.is_verified, rules.amplification) {
        (Transport::Tcp, ..) => MAX_MESSAGE,
        (_, true, _) | (.., 0) => payload_limit,
        // Whoever forges its address gets no more of us than it pays for.
        (.., times) => payload_limit.min(times * packet.len()),
    };
}

/// What a snapshot says about a query: asked before anything is forwarded, and
/// again when the upstream's answer is there, by the snapshot of that moment.
pub enum Judgement<'a> {
    /// No zone matches.
    Pass,
    /// A passthru of the zone at this place: the answer is judged by the zones before it alone.
    Allow(usize),
    Silence(Outcome),
    Answer {
        length: usize,
        outcome: Outcome,
    },
    /// Answer with the profile's CNAME and what an upstream says about where
    /// it leads.
    Follow(Decision<'a>, Name),
    /// Where the upstream's answer leads cannot be read: it is not passed on.
    Unreadable,
}

impl Judgement<'_> {
    /// How many zones judge the records of the answer; `None` where it is not asked for or not
    /// passed on.
    pub fn judges(&self) -> Option<usize> {
        match self {
            Judgement::Pass => Some(usize::MAX),
            Judgement::Allow(zone) => Some(*zone),
            _ => None,
        }
    }
}

pub fn judge<'a>(
    query: &Query,
    snapshot: &'a Snapshot,
    rules: &Rules,
    now: u64,
    out: &mut [u8],
) -> Judgement<'a> {
    match snapshot.find(&query.name, query.head.hop.transport) {
        Some(decision) => carry_out(query, decision, snapshot, rules, now, out),
        None => Judgement::Pass,
    }
}

/// What a snapshot says about where an upstream's response leads, as if the query's own name
/// were listed (see `targets::decide`).
pub fn judge_targets<'a>(
    query: &Query,
    response: Response<'_>,
    first: usize,
    snapshot: &'a Snapshot,
    rules: &Rules,
    now: u64,
    out: &mut [u8],
) -> Judgement<'a> {
    match targets::decide(query, response, first, snapshot) {
        Ok(Some(decision)) => carry_out(query, decision, snapshot, rules, now, out),
        Ok(None) => Judgement::Pass,
        Err(AmbiguousChain) => Judgement::Unreadable,
    }
}

fn carry_out<'a>(
    query: &Query,
    decision: Decision<'a>,
    snapshot: &'a Snapshot,
    rules: &Rules,
    now: u64,
    out: &mut [u8],
) -> Judgement<'a> {
    let head = &query.head;
    let action = action_for(head, &decision);
    let outcome = Outcome::Blocked { zone: decision.zone, action };
    match action {
        Action::Passthru => return Judgement::Allow(decision.zone),
        Action::Drop => return Judgement::Silence(outcome),
        _ => {}
    }
    let target = match decision.answer.target.as_ref().filter(|_| action == Action::Cname) {
        None => None,
        Some(target) => match target.of(&query.name) {
            Some(target) => Some(target),
            None => {
                // RFC 6672 2.2: a name that grew too long is never let through.
                let (errors, told) = reasons(head, &decision, false);
                let length = respond_with_error(head, rcode::YXDOMAIN, &errors[..told], rules, out);
                return Judgement::Answer { length, outcome };
            }
        },
    };
    match target {
        Some(target) if !matches!(query.qtype, rtype::CNAME | rtype::ANY) => {
            Judgement::Follow(decision, target)
        }
        target => {
            let (length, answered) =
                respond_by_policy(query, action, &decision, target.as_ref(), snapshot, rules, now, out);
            let outcome = Outcome::Blocked { zone: decision.zone, action: answered };
            Judgement::Answer { length, outcome }
        }
    }
}

/// The profile's action; but a client that reads structured errors is told, and
/// never sent elsewhere (draft-ietf-dnsop-structured-dns-error 5.2).
fn action_for(head: &Head, decision: &Decision<'_>) -> Action {
    let is_told = head.hop.wants_structured_errors && decision.structured.is_some();
    match decision.answer.action {
        Action::Sinkhole | Action::Cname if is_told => Action::Nodata,
        action => action,
    }
}

/// Writes the answer of a blocked name; every type is answered here, none is
/// left for an upstream (RFC 9460: an HTTPS record would be a way around). Returns the response's length, and
/// the action that it is: a sinkhole without an address for this type is NODATA.
#[allow(clippy::too_many_arguments, reason = "the same few as its neighbours")]
fn respond_by_policy(
    query: &Query,
    action: Action,
    decision: &Decision<'_>,
    target: Option<&Name>,
    snapshot: &Snapshot,
    rules: &Rules,
    now: u64,
    out: &mut [u8],
) -> (usize, Action) {
    let (head, answer) = (&query.head, decision.answer);
    let rcode = match action {
        Action::Nxdomain if snapshot.denies_all_below(&query.name, decision) => rcode::NXDOMAIN,
        Action::Refused => rcode::REFUSED,
        _ => rcode::NOERROR,
    };
    let ttl = ttl_now(answer, decision, snapshot, now);
    let Some(mut writer) = Writer::respond(head, rcode, out) else {
        return (0, action);
    };
    let written = match action {
        Action::Truncate => None,
        Action::Sinkhole | Action::Cname => put_data(&mut writer, query.qtype, answer, target, ttl),
        _ => Some(0),
    };
    let written = match written {
        Some(0) if action != Action::Refused => {
            put_soa(&mut writer, query.name.offset(decision.skip), ttl, snapshot.serial(), &rules.soa)
                .map(|()| 0)
        }
        written => written,
    };
    if written.is_none() {
        writer.truncate(head);
    }
    let answered = match (action, written) {
        (_, None) => Action::Truncate,
        (Action::Sinkhole | Action::Cname, Some(0)) => Action::Nodata,
        (Action::Nxdomain, _) if rcode == rcode::NOERROR => Action::Nodata,
        _ => action,
    };
    let (errors, told) = reasons(head, decision, written.is_some_and(|records| records > 0));
    (
        writer.finish(head, &Opt { payload: rules.max_payload, rcode, flags: 0, errors: &errors[..told] }),
        answered,
    )
}

/// Writes the answer of a name that is blocked by a CNAME, with what an
/// upstream said about the target, if one did. The target itself is not judged
/// (RPZ draft 6.1): the page that explains a block must be reachable. Records beside the
/// way from it are.
#[allow(clippy::too_many_arguments, reason = "the same few as its neighbours")]
pub fn respond_by_following(
    query: &Query,
    response: Option<Response<'_>>,
    decision: &Decision<'_>,
    target: &Name,
    snapshot: &Snapshot,
    rules: &Rules,
    now: u64,
    out: &mut [u8],
) -> usize {
    let ttl = ttl_now(decision.answer, decision, snapshot, now);
    let (errors, told) = reasons(&query.head, decision, true);
    let response = response.filter(|response| {
        targets::drop_outside_chain(*response, target, snapshot, query.head.hop.transport).is_ok()
    });
    relay::respond_with_cname(response, query, target, ttl, (rules.max_payload, &errors[..told]), out)
}

/// Why the answer is what it is. RFC 8914 4.5: Forged Answer where there is an
/// answer at all; and always the reason behind it (4.16 Blocked, 4.17 Censored).
fn reasons<'a>(head: &Head, decision: &Decision<'a>, has_records: bool) -> ([ExtendedError<'a>; 2], usize) {
    let mut errors = [ExtendedError::new(ede::FORGED_ANSWER, b""); 2];
    let mut told = usize::from(has_records);
    if let Some(code) = decision.answer.extended_error {
        errors[told] = match decision.structured.filter(|_| head.hop.wants_structured_errors) {
            Some(text) => ExtendedError { code, text: text.whole.as_bytes(), brief: text.brief.as_bytes() },
            None => ExtendedError::new(code, decision.reference.as_bytes()),
        };
        told += 1;
    }
    (errors, told)
}

/// Puts the records the profile has for this type; returns how many.
fn put_data(
    writer: &mut Writer<'_>,
    qtype: u16,
    answer: &Answer,
    target: Option<&Name>,
    ttl: u32,
) -> Option<usize> {
    let mut records = 0;
    if matches!(qtype, rtype::A | rtype::ANY) {
        for address in &answer.ipv4 {
            writer.put_record(Section::Answer, 0, rtype::A, ttl, &[&address.octets()])?;
            records += 1;
        }
    }
    if matches!(qtype, rtype::AAAA | rtype::ANY) {
        for address in &answer.ipv6 {
            writer.put_record(Section::Answer, 0, rtype::AAAA, ttl, &[&address.octets()])?;
            records += 1;
        }
    }
    if let Some(target) = target {
        writer.put_record(Section::Answer, 0, rtype::CNAME, ttl, &[target.suffix(0)])?;
        records += 1;
    }
    Some(records)
}

/// The profile's TTL, cut so that no cache holds the answer longer than to the
/// zone's next scheduled change.
fn ttl_now(answer: &Answer, decision: &Decision<'_>, snapshot: &Snapshot, now: u64) -> u32 {
    match snapshot.zones()[decision.zone].next_change_at {
        Some(change) => {
            let left = change.saturating_sub(now).clamp(1, u64::from(u32::MAX));
            answer.ttl.min(left as u32)
        }
        None => answer.ttl,
    }
}

//------- Errors -------------------------------------------------------------

/// Writes a response without records: header, question if it could be read,
/// and OPT if the query had one.
pub fn respond_with_error(
    head: &Head,
    rcode: u16,
    errors: &[ExtendedError<'_>],
    rules: &Rules,
    out: &mut [u8],
) -> usize {
    match Writer::respond(head, rcode, out) {
        Some(writer) => writer.finish(head, &Opt { payload: rules.max_payload, rcode, flags: 0, errors }),
        None => 0,
    }
}

fn refuse_client(head: &Head, rules: &Rules, out: &mut [u8]) -> Verdict {
    if rules.drop_others {
        return Verdict::Drop(Outcome::Dropped);
    }
    let errors = [ExtendedError::new(ede::PROHIBITED, b"")];
    let length = respond_with_error(head, rcode::REFUSED, &errors, rules, out);
    Verdict::Respond { length, outcome: Outcome::Refused, is_known: head.hop.is_verified }
}

fn outcome_of(error: u16) -> Outcome {
    match error {
        rcode::NOERROR | rcode::BADCOOKIE => Outcome::Local,
        rcode::NOTIMP => Outcome::NotImplemented,
        rcode::BADVERS => Outcome::BadVersion,
        rcode::REFUSED => Outcome::Refused,
        _ => Outcome::Malformed,
    }
}

/// Answers a query above its client's limit, which `read` has read, so that a real
/// client comes back where it is not limited: with its new cookie (RFC 7873 5.2.3),
/// else over TCP. Returns the response's length and whether it is about a cookie.
pub fn slip(query: &Query, rules: &Rules, out: &mut [u8]) -> Option<(usize, bool)> {
    let head = &query.head;
    if head.hop.cookie.is_some() {
        return Some((respond_with_error(head, rcode::BADCOOKIE, &[], rules, out), true));
    }
    let mut writer = Writer::respond(head, rcode::NOERROR, out)?;
    writer.truncate(head);
    Some((writer.finish(head, &Opt::plain(rules.max_payload, rcode::NOERROR)), false))
}
