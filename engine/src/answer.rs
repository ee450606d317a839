//! Decides one packet: `read`, then `decide`. Both are pure: bytes, client and snapshot in, verdict
//! out; no socket, clock, allocation or log.
//!
//! The order of the checks is fixed. First, malformed and unsupported queries are refused, then clients
//! outside the access control list. Then the snapshot decides, then locally served names are answered.
//! All other queries are forwarded. Neither upstream nor cache is used before that.

use std::net::IpAddr;

use crate::chain::AmbiguousChain;
use crate::limits::Kind;
use crate::local;
use crate::message::{
    ExtendedError, Head, MAX_MESSAGE, Opt, Query, Refusal, Section, Transport, Writer, ede, has_option,
    put_soa, put_soa_of, rcode, rtype,
};
use crate::name::{BoxedName, Name, Walk};
use crate::notify::{Notify, is_notify};
use crate::outcome::Outcome;
use crate::policy::{Action, Answer, Decision, Judges, Snapshot};
use crate::relay;
use crate::response::Response;
use crate::rules::Rules;
use crate::targets;

/// What to do with one packet.
pub enum Verdict {
    /// Send nothing.
    Drop(Outcome),
    /// `out[..length]` is the response. `is_verified`: the client's address is proven, or exempt.
    Respond { length: usize, outcome: Outcome, is_verified: bool },
    /// The response to a NOTIFY.
    Notify { length: usize, notify: Notify, from: IpAddr, is_verified: bool },
    /// Not blocked, or blocked by our own CNAME, whose target `follow` is to be resolved.
    /// `allowed_by`: the zones that judge its targets after a passthru.
    Forward { follow: Option<Name>, allowed_by: Option<Judges>, is_verified: bool },
}

impl Verdict {
    /// The rate limit that applies. `None` if no response is sent, or if the client's address is proven.
    pub fn rate_limit(&self) -> Option<Kind> {
        match self {
            Verdict::Drop(_) => None,
            Verdict::Respond { is_verified, .. }
            | Verdict::Notify { is_verified, .. }
            | Verdict::Forward { is_verified, .. }
                if *is_verified =>
            {
                None
            }
            Verdict::Respond { outcome, .. } if outcome.is_error() => Some(Kind::Error),
            Verdict::Notify { notify: Notify::Accepted(_), .. } => Some(Kind::Query),
            Verdict::Notify { .. } => Some(Kind::Error),
            Verdict::Respond { .. } | Verdict::Forward { .. } => Some(Kind::Query),
        }
    }
}

#[derive(Clone, Copy)]
pub struct Client {
    pub address: IpAddr,
    pub port: u16,
    pub transport: Transport,
}

/// Reads one packet into `query`, and checks its client. Returns the verdict if there is nothing left
/// to decide. `now` is Unix time in seconds. The response is written to `out`.
pub fn read(
    packet: &[u8],
    client: Client,
    snapshot: &Snapshot,
    rules: &Rules,
    now: u64,
    query: &mut Query,
    out: &mut [u8],
) -> Result<(), Verdict> {
    // No client can receive a response at port 0.
    if client.port == 0 {
        return Err(Verdict::Drop(Outcome::Dropped));
    }
    let refusal = query.read(packet, client.transport);
    if refusal == Err(Refusal::Drop) {
        return Err(Verdict::Drop(Outcome::Dropped));
    }
    let head = &mut query.head;
    check_client(head, packet, client, rules, now);
    let is_stranger = !rules.clients.contains(client.address);
    if !rules.transferred.is_empty() && is_notify(packet) {
        return Err(respond_to_notify(packet, client, is_stranger, rules, head.hop.is_verified, out));
    }
    let refusal = match refusal {
        Err(Refusal::Chaos) => {
            let about = rules.local.respond_about(query, client.address, snapshot, rules.max_payload, out);
            if let Some(length) = about {
                let is_verified = query.head.hop.is_verified;
                return Err(Verdict::Respond { length, outcome: Outcome::Local, is_verified });
            }
            Err(Refusal::Error(rcode::REFUSED))
        }
        refusal => refusal,
    };
    let head = &mut query.head;
    match refusal {
        Err(Refusal::Error(mut rcode)) => {
            if rcode == rcode::NOERROR && head.hop.has_invalid_cookie {
                rcode = rcode::BADCOOKIE; // RFC 7873 5.4
            }
            // A malformed query gets its error from any client, unless other clients are dropped.
            let is_readable = matches!(rcode, rcode::REFUSED | rcode::NOERROR | rcode::BADCOOKIE);
            if is_stranger && (is_readable || rules.drop_others) {
                return Err(refuse_client(head, rules, out));
            }
            let length = respond_with_error(head, rcode, &[], rules, out);
            Err(Verdict::Respond { length, outcome: outcome_of(rcode), is_verified: head.hop.is_verified })
        }
        _ if is_stranger => Err(refuse_client(head, rules, out)),
        _ => Ok(()),
    }
}

/// A primary need not be a client, so strangers are judged by the zone's own rules.
fn respond_to_notify(
    packet: &[u8],
    client: Client,
    is_stranger: bool,
    rules: &Rules,
    is_verified: bool,
    out: &mut [u8],
) -> Verdict {
    let (notify, length) = rules.transferred.respond(packet, client.address, out);
    let is_dropped = is_stranger && rules.drop_others && !matches!(notify, Notify::Accepted(_));
    Verdict::Notify { length: if is_dropped { 0 } else { length }, notify, from: client.address, is_verified }
}

/// Decides a query that `read` has accepted. `walk` has the hashes of its name.
pub fn decide(
    query: &Query,
    walk: &Walk,
    snapshot: &Snapshot,
    rules: &Rules,
    now: u64,
    out: &mut [u8],
) -> Verdict {
    let is_verified = query.head.hop.is_verified;
    let (answered, allowed_by) = match judge(query, walk, snapshot, rules, now, out) {
        Judgement::Answer { length, outcome } => return Verdict::Respond { length, outcome, is_verified },
        Judgement::Silence(outcome) => return Verdict::Drop(outcome),
        Judgement::Follow(_, target, _) => {
            return Verdict::Forward { follow: Some(target), allowed_by: None, is_verified };
        }
        Judgement::Pass | Judgement::Unreadable => {
            (rules.local.respond(query, &rules.soa, rules.max_payload, out), None)
        }
        Judgement::Allow(judges) => (None, Some(judges)),
    };
    match answered.or_else(|| local::respond_to_any(query, rules.max_payload, out)) {
        Some(length) => Verdict::Respond { length, outcome: Outcome::Local, is_verified },
        None => Verdict::Forward { follow: None, allowed_by, is_verified },
    }
}

/// Fills in `head.hop`: whether the client's address is proven, how long its response may be, and which
/// of its EDNS options are answered.
fn check_client(head: &mut Head, packet: &[u8], client: Client, rules: &Rules, now: u64) {
    let cookie = head.edns.and_then(|edns| edns.cookie);
    let has_proof = cookie.is_some_and(|cookie| rules.secrets.verify(&cookie, client.address, now));
    let asks_keepalive = head.edns.is_some_and(|edns| edns.keepalive);
    let asks_structured = |code| head.edns.is_some() && has_option(packet, head.question(), code);
    let payload_limit = head.payload_limit(rules.max_payload);
    let wants_structured_errors = rules.structured_option.is_some_and(asks_structured);
    let hop = &mut head.hop;
    hop.is_verified = client.transport.is_tcp() || has_proof || rules.exempt.contains(client.address);
    hop.has_invalid_cookie = !has_proof && cookie.is_some_and(|cookie| cookie.has_server_cookie());
    hop.address = client.address;
    hop.cookie = cookie.and_then(|cookie| rules.secrets.create(&cookie, client.address, now));
    hop.keepalive = asks_keepalive.then_some(rules.keepalive);
    hop.wants_structured_errors = wants_structured_errors;
    hop.limit = match (client.transport, hop.is_verified, rules.amplification) {
        (Transport::Tcp, ..) => MAX_MESSAGE,
        (_, true, _) | (.., 0) => payload_limit,
        // A spoofed source address must not make this server an amplifier.
        (.., times) => payload_limit.min(times * packet.len()),
    };
}

/// The judgement of a snapshot about a query. The query is judged before it is forwarded, and again by
/// the current snapshot when the upstream's response arrives.
pub enum Judgement<'a> {
    /// No zone matches.
    Pass,
    /// A passthru, or a name that is allowed. Only these zones judge the response's targets.
    Allow(Judges),
    Silence(Outcome),
    Answer {
        length: usize,
        outcome: Outcome,
    },
    /// Answer with the profile's CNAME, and an upstream's records of its target. Its owner is QNAME, or this
    /// name in the chain that the response has.
    Follow(Decision<'a>, Name, Option<BoxedName>),
    /// The targets in the upstream's response are ambiguous or malformed: it is not relayed.
    Unreadable,
}

impl Judgement<'_> {
    /// The zones that judge after a passthru.
    pub fn allowed_by(&self) -> Option<Judges> {
        match self {
            Judgement::Allow(judges) => Some(*judges),
            _ => None,
        }
    }

    /// The zones that judge the targets in the response. `None` if no response is relayed.
    pub fn judges(&self) -> Option<Judges> {
        match self {
            Judgement::Pass => Some(Judges::ALL),
            Judgement::Allow(judges) => Some(*judges),
            _ => None,
        }
    }
}

pub fn judge<'a>(
    query: &Query,
    walk: &Walk,
    snapshot: &'a Snapshot,
    rules: &Rules,
    now: u64,
    out: &mut [u8],
) -> Judgement<'a> {
    let judgement = match snapshot.decide(&query.name, walk, query.head.hop.client()) {
        Some(decision) => carry_out(query, decision, None, snapshot, rules, now, out),
        None => Judgement::Pass,
    };
    match (judgement.judges(), snapshot.judges_from(&query.name)) {
        (Some(judges), allowed) if !allowed.lists => Judgement::Allow(judges.and(allowed)),
        _ => judgement,
    }
}

/// Judges the targets in an upstream's response. A blocked target blocks the query as if QNAME were
/// listed (see `targets::decide`); in a zone of records, the chain up to it stays in the response, as in
/// BIND.
pub fn judge_targets<'a>(
    query: &Query,
    response: Response<'_>,
    judges: Judges,
    snapshot: &'a Snapshot,
    rules: &Rules,
    now: u64,
    out: &mut [u8],
) -> Judgement<'a> {
    match targets::decide(query, response, judges, snapshot) {
        Ok(Some((decision, name))) => {
            let member = decision.is_of_records.then_some(Member { response, name });
            carry_out(query, decision, member, snapshot, rules, now, out)
        }
        Ok(None) => Judgement::Pass,
        Err(AmbiguousChain) => Judgement::Unreadable,
    }
}

/// A name that a response leads to, which is answered instead of QNAME.
pub struct Member<'a> {
    pub response: Response<'a>,
    pub name: Name,
}

fn carry_out<'a>(
    query: &Query,
    decision: Decision<'a>,
    member: Option<Member<'_>>,
    snapshot: &'a Snapshot,
    rules: &Rules,
    now: u64,
    out: &mut [u8],
) -> Judgement<'a> {
    let head = &query.head;
    let name = member.as_ref().map_or(&query.name, |member| &member.name);
    if decision.is_passthru() || decision.answer.points_to(name) {
        return Judgement::Allow(Judges::after(&decision));
    }
    let action = action_for(head, &decision);
    let outcome = Outcome::blocked(&decision, action);
    if action == Action::Drop {
        return Judgement::Silence(outcome);
    }
    let target = match decision.answer.target.as_ref().filter(|_| action == Action::Cname) {
        None => None,
        Some(target) => match target.of(name) {
            Some(target) => Some(target),
            None => {
                // RFC 6672 2.2: if the target is too long, the name is still blocked.
                let (errors, count) = reasons(head, &decision, false);
                let length = respond_too_long(query, member.as_ref(), &errors[..count], rules, out);
                return Judgement::Answer { length, outcome };
            }
        },
    };
    match target {
        Some(target) if !matches!(query.qtype, rtype::CNAME | rtype::ANY) => {
            Judgement::Follow(decision, target, member.map(|member| member.name.into()))
        }
        target => {
            let records = Records { target: target.as_ref(), member: member.as_ref() };
            let (length, answered) =
                respond_by_policy(query, action, &decision, records, snapshot, rules, now, out);
            let outcome = Outcome::blocked(&decision, answered);
            Judgement::Answer { length, outcome }
        }
    }
}

/// The profile's action. A client that reads structured errors gets the error instead of another
/// server's address (draft-ietf-dnsop-structured-dns-error 5.2).
fn action_for(head: &Head, decision: &Decision<'_>) -> Action {
    let wants_error = head.hop.wants_structured_errors && decision.structured.is_some();
    match decision.answer.action {
        Action::Sinkhole | Action::Cname | Action::Data if wants_error => Action::Nodata,
        action => action,
    }
}

/// The records of a response to a blocked name.
struct Records<'a> {
    /// Of our own CNAME.
    target: Option<&'a Name>,
    /// Set if the answer is not about QNAME.
    member: Option<&'a Member<'a>>,
}

/// Writes the response for a blocked name. It covers every type: an HTTPS record from an upstream would
/// bypass the block (RFC 9460). Returns its length and the resulting action: a sinkhole without an address
/// for this type is NODATA.
#[allow(clippy::too_many_arguments, reason = "the same few as its neighbours")]
fn respond_by_policy(
    query: &Query,
    action: Action,
    decision: &Decision<'_>,
    records: Records<'_>,
    snapshot: &Snapshot,
    rules: &Rules,
    now: u64,
    out: &mut [u8],
) -> (usize, Action) {
    let (head, answer) = (&query.head, decision.answer);
    let denies = action == Action::Nxdomain && snapshot.denies_all_below(&query.name, decision);
    let rcode = if denies { rcode::NXDOMAIN } else { rcode_of(action) };
    let limit = ttl_limit(decision, snapshot, now);
    let ttl = answer.ttl.min(limit);
    let Some(mut writer) = Writer::respond(head, rcode, out) else {
        return (0, action);
    };
    let member = records.member.filter(|_| !matches!(action, Action::Truncate | Action::Refused));
    let chain = member
        .map_or(Some(0), |member| relay::put_chain(&mut writer, member.response, query, &member.name, ttl));
    let owner = records.member.map(|member| member.name.suffix(0));
    let written = match action {
        Action::Truncate => None,
        Action::Sinkhole | Action::Cname | Action::Data => chain.and_then(|_| {
            let mut put = |rtype, ttl, rdata: &[u8]| match owner {
                Some(owner) => writer.put_record_of(Section::Answer, owner, rtype, ttl, &[rdata]),
                None => writer.put_record(Section::Answer, 0, rtype, ttl, &[rdata]),
            };
            put_data(&mut put, query.qtype, answer, records.target, limit)
        }),
        _ => chain.map(|_| 0),
    };
    let written = match written {
        Some(0) if action != Action::Refused => {
            let (serial, soa) = (snapshot.serial(), &rules.soa);
            let put = match owner {
                Some(owner) => put_soa_of(&mut writer, owner, ttl, serial, soa),
                None => put_soa(&mut writer, query.name.offset(decision.skip), ttl, serial, soa),
            };
            put.map(|()| 0)
        }
        written => written,
    };
    if written.is_none() {
        writer.truncate(head);
    }
    let answered = match (action, written) {
        (_, None) => Action::Truncate,
        (Action::Sinkhole | Action::Cname | Action::Data, Some(0)) => Action::Nodata,
        (Action::Nxdomain, _) if rcode == rcode::NOERROR => Action::Nodata,
        _ => action,
    };
    let (errors, count) = reasons(head, decision, written.is_some_and(|records| records > 0));
    (
        writer.finish(head, &Opt { payload: rules.max_payload, rcode, flags: 0, errors: &errors[..count] }),
        answered,
    )
}

/// Writes our own CNAME for a blocked name, and the records of its target from `response`. The target
/// itself is not judged (RPZ draft 6.1), since the page that explains a block must be reachable. Records
/// outside the chain are judged.
#[allow(clippy::too_many_arguments, reason = "the same few as its neighbours")]
pub fn respond_by_following(
    query: &Query,
    response: Option<Response<'_>>,
    decision: &Decision<'_>,
    target: &Name,
    member: Option<&Member<'_>>,
    snapshot: &Snapshot,
    rules: &Rules,
    now: u64,
    out: &mut [u8],
) -> usize {
    let ttl = decision.answer.ttl.min(ttl_limit(decision, snapshot, now));
    let (errors, count) = reasons(&query.head, decision, true);
    let response = response.filter(|response| {
        targets::drop_outside_chain(*response, target, snapshot, query.head.hop.client()).is_ok()
    });
    let chain = member.map(|member| (member.response, &member.name));
    let opt = (rules.max_payload, &errors[..count]);
    relay::respond_with_cname(response, chain, query, target, ttl, opt, out)
}

/// The extended errors: Forged Answer if there are records (RFC 8914 4.5), and the profile's code, such
/// as Blocked (4.16) or Censored (4.17). Returns their number as well.
fn reasons<'a>(head: &Head, decision: &Decision<'a>, has_records: bool) -> ([ExtendedError<'a>; 2], usize) {
    let mut errors = [ExtendedError::new(ede::FORGED_ANSWER, b""); 2];
    let mut count = usize::from(has_records);
    if let Some(code) = decision.answer.extended_error {
        errors[count] = match decision.structured.filter(|_| head.hop.wants_structured_errors) {
            Some(text) => ExtendedError { code, text: text.whole.as_bytes(), brief: text.brief.as_bytes() },
            None => ExtendedError::new(code, decision.reference.as_bytes()),
        };
        count += 1;
    }
    (errors, count)
}

fn rcode_of(action: Action) -> u16 {
    if action == Action::Refused { rcode::REFUSED } else { rcode::NOERROR }
}

/// Writes the records of this type of a profile or of local data. Returns their number, or `None` if they
/// do not fit. No TTL exceeds `limit`.
fn put_data(
    put: &mut impl FnMut(u16, u32, &[u8]) -> Option<()>,
    qtype: u16,
    answer: &Answer,
    target: Option<&Name>,
    limit: u32,
) -> Option<usize> {
    let ttl = answer.ttl.min(limit);
    let mut records = 0;
    if matches!(qtype, rtype::A | rtype::ANY) {
        for address in &answer.ipv4 {
            put(rtype::A, ttl, &address.octets())?;
            records += 1;
        }
    }
    if matches!(qtype, rtype::AAAA | rtype::ANY) {
        for address in &answer.ipv6 {
            put(rtype::AAAA, ttl, &address.octets())?;
            records += 1;
        }
    }
    for record in answer.data.iter().filter(|record| record.rtype == qtype || qtype == rtype::ANY) {
        put(record.rtype, record.ttl.min(limit), &record.rdata)?;
        records += 1;
    }
    if let Some(target) = target {
        put(rtype::CNAME, ttl, target.suffix(0))?;
        records += 1;
    }
    Some(records)
}

/// The longest TTL, so that no cache keeps the response beyond the zone's next scheduled change.
fn ttl_limit(decision: &Decision<'_>, snapshot: &Snapshot, now: u64) -> u32 {
    match snapshot.zones()[decision.zone].next_change_at {
        Some(change) => change.saturating_sub(now).clamp(1, u64::from(u32::MAX)) as u32,
        None => u32::MAX,
    }
}

//------- Errors -------------------------------------------------------------

/// Writes YXDOMAIN, after the chain to the name below which the target is too long (CVE-2026-11331).
fn respond_too_long(
    query: &Query,
    member: Option<&Member<'_>>,
    errors: &[ExtendedError<'_>],
    rules: &Rules,
    out: &mut [u8],
) -> usize {
    let (head, rcode) = (&query.head, rcode::YXDOMAIN);
    let Some(mut writer) = Writer::respond(head, rcode, out) else { return 0 };
    let put = member.map(|member| relay::put_chain(&mut writer, member.response, query, &member.name, 0));
    if put == Some(None) {
        writer.truncate(head);
    }
    writer.finish(head, &Opt { payload: rules.max_payload, rcode, flags: 0, errors })
}

/// Writes a response without records: header, question if it was readable, and OPT if the query had one.
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
    Verdict::Respond { length, outcome: Outcome::Refused, is_verified: head.hop.is_verified }
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

/// Writes the slip response to a query above its client's rate limit: BADCOOKIE if the client sent a
/// cookie (RFC 7873 5.2.3), otherwise truncated. A legitimate client then retries with the new cookie or
/// over TCP, which are not limited. Returns the response's length, and whether it is BADCOOKIE.
pub fn slip(query: &Query, rules: &Rules, out: &mut [u8]) -> Option<(usize, bool)> {
    let head = &query.head;
    if head.hop.cookie.is_some() {
        return Some((respond_with_error(head, rcode::BADCOOKIE, &[], rules, out), true));
    }
    let mut writer = Writer::respond(head, rcode::NOERROR, out)?;
    writer.truncate(head);
    Some((writer.finish(head, &Opt::plain(rules.max_payload, rcode::NOERROR)), false))
}
