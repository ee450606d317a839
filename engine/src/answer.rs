//! `decide`: what to do with one packet. Pure: bytes, client and snapshot in,
//! verdict out; no socket, clock, allocation or log.
//!
//! The order is the whole policy: what is not a query we may answer is
//! refused, then the client is checked, then the snapshot decides, and what it
//! does not list is forwarded. No upstream and no cache is asked before.

use std::net::IpAddr;

use crate::message::{ExtendedError, Head, Opt, Query, Refusal, Section, Writer, ede, rcode, rtype};
use crate::name::Name;
use crate::policy::{Action, Answer, Decision, Snapshot};
use crate::relay;

/// What to do with one packet.
pub enum Verdict {
    /// Send nothing.
    Drop(Outcome),
    /// `out[..length]` is the response.
    Respond { length: usize, outcome: Outcome },
    /// Not blocked, or blocked by a CNAME to be followed: ask an upstream.
    Forward { query: Query, follow: Option<Name> },
}

/// How a query ended, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By the zone at this place of the snapshot.
    Blocked {
        zone: usize,
        action: Action,
    },
    /// Answered with what an upstream said.
    Forwarded,
    /// No upstream answered.
    Failed,
    Refused,
    Malformed,
    NotImplemented,
    BadVersion,
    /// Not answered: nobody to answer, or nothing to answer.
    Dropped,
    /// More queries under way than allowed.
    Overloaded,
}

/// What of the configuration a decision depends on.
#[derive(Clone)]
pub struct Rules {
    pub clients: Vec<Prefix>,
    /// Clients outside `clients` get silence instead of REFUSED.
    pub drop_others: bool,
    /// Octets of a UDP response at most, and what our OPT announces.
    pub max_payload: u16,
    /// MNAME and RNAME of the SOA in negative answers.
    pub soa: (Name, Name),
}

/// Who asks, and how.
#[derive(Clone, Copy)]
pub struct Client {
    pub address: IpAddr,
    pub port: u16,
    pub over_tcp: bool,
}

/// Decides one packet. `now` is Unix time in seconds; `out` takes the response.
pub fn decide(
    packet: &[u8],
    client: Client,
    snapshot: &Snapshot,
    rules: &Rules,
    now: u64,
    out: &mut [u8],
) -> Verdict {
    // Nobody sends from port 0 and waits for an answer.
    if client.port == 0 {
        return Verdict::Drop(Outcome::Dropped);
    }
    let query = match Query::parse(packet) {
        Ok(query) => query,
        Err(Refusal::Silence) => return Verdict::Drop(Outcome::Dropped),
        Err(Refusal::Error { rcode, head }) => {
            // What cannot be read is told so before it is asked who sent it;
            // with silence for strangers, strangers get silence.
            if !rules.serves(client.address) && (rcode == rcode::REFUSED || rules.drop_others) {
                return refuse_client(&head, rules, out);
            }
            let length = respond_with_error(&head, rcode, &[], rules, out);
            return Verdict::Respond { length, outcome: outcome_of(rcode) };
        }
    };
    if !rules.serves(client.address) {
        return refuse_client(&query.head(), rules, out);
    }
    match judge(&query, client.over_tcp, snapshot, rules, now, out) {
        Judgement::Pass | Judgement::Allow => Verdict::Forward { query, follow: None },
        Judgement::Follow(decision) => {
            let follow = decision.answer.target.clone();
            Verdict::Forward { query, follow }
        }
        Judgement::Silence(outcome) => Verdict::Drop(outcome),
        Judgement::Answer { length, outcome } => Verdict::Respond { length, outcome },
    }
}

/// What a snapshot says about a query: asked before anything is forwarded, and
/// again when the upstream's answer is there, by the snapshot of that moment.
pub enum Judgement<'a> {
    /// No zone matches.
    Pass,
    /// A passthru: where the answer leads is not judged either.
    Allow,
    Silence(Outcome),
    Answer {
        length: usize,
        outcome: Outcome,
    },
    /// Answer with the profile's CNAME and what an upstream says about where
    /// it leads.
    Follow(Decision<'a>),
}

pub fn judge<'a>(
    query: &Query,
    over_tcp: bool,
    snapshot: &'a Snapshot,
    rules: &Rules,
    now: u64,
    out: &mut [u8],
) -> Judgement<'a> {
    match snapshot.find(&query.name) {
        Some(decision) => carry_out(query, over_tcp, decision, snapshot, rules, now, out),
        None => Judgement::Pass,
    }
}

/// What a snapshot says about where an upstream's answer leads: the targets of
/// CNAME, DNAME, HTTPS and SVCB records, in the order of the answer (RPZ draft
/// 5.1). The first that a zone matches decides, as if the query's own name were
/// listed; our own CNAME then stands alone.
pub fn judge_targets<'a>(
    query: &Query,
    over_tcp: bool,
    response: &[u8],
    snapshot: &'a Snapshot,
    rules: &Rules,
    now: u64,
    out: &mut [u8],
) -> Judgement<'a> {
    let decided = relay::targets(response).find_map(|target| snapshot.find_target(&target));
    let Some(decision) = decided else { return Judgement::Pass };
    match carry_out(query, over_tcp, decision, snapshot, rules, now, out) {
        Judgement::Follow(decision) => {
            let limit = if over_tcp { out.len() } else { query.payload_limit(rules.max_payload) };
            let outcome = Outcome::Blocked { zone: decision.zone, action: Action::Cname };
            let length = respond_by_following(query, None, &decision, snapshot, rules, now, limit, out);
            Judgement::Answer { length, outcome }
        }
        judgement => judgement,
    }
}

fn carry_out<'a>(
    query: &Query,
    over_tcp: bool,
    decision: Decision<'a>,
    snapshot: &'a Snapshot,
    rules: &Rules,
    now: u64,
    out: &mut [u8],
) -> Judgement<'a> {
    let outcome = Outcome::Blocked { zone: decision.zone, action: decision.answer.action };
    match decision.answer.action {
        Action::Passthru => return Judgement::Allow,
        Action::Truncate if over_tcp => return Judgement::Pass,
        Action::Drop => return Judgement::Silence(outcome),
        Action::Cname if !matches!(query.qtype, rtype::CNAME | ANY) => {
            return Judgement::Follow(decision);
        }
        _ => {}
    }
    let length = respond_by_policy(query, over_tcp, &decision, snapshot, rules, now, out);
    Judgement::Answer { length, outcome }
}

const ANY: u16 = 255;

/// Writes the answer of a blocked name; every type is answered here, none is
/// left for an upstream (RFC 9460: an HTTPS record would be a way around).
fn respond_by_policy(
    query: &Query,
    over_tcp: bool,
    decision: &Decision<'_>,
    snapshot: &Snapshot,
    rules: &Rules,
    now: u64,
    out: &mut [u8],
) -> usize {
    let head = query.head();
    let answer = decision.answer;
    let rcode = match answer.action {
        Action::Nxdomain if snapshot.denies_all_below(&query.name, decision) => rcode::NXDOMAIN,
        Action::Refused => rcode::REFUSED,
        _ => rcode::NOERROR,
    };
    let limit = if over_tcp { out.len() } else { query.payload_limit(rules.max_payload) };
    let ttl = ttl_now(answer, decision, snapshot, now);
    let Some(mut writer) = Writer::respond(&head, rcode, out) else {
        return 0;
    };
    let written = match answer.action {
        Action::Truncate => None,
        Action::Refused => Some(0),
        _ => put_data(&mut writer, query.qtype, answer, ttl),
    };
    let written = match written {
        Some(0) if answer.action != Action::Refused => {
            put_soa(&mut writer, query.name.offset(decision.skip), ttl, snapshot.serial(), rules).map(|()| 0)
        }
        written => written,
    };
    if written.is_none() {
        writer.truncate(&head);
    }
    let (errors, told) = reasons(decision, written.is_some_and(|records| records > 0));
    writer.finish(&head, &Opt { payload: rules.max_payload, rcode, errors: &errors[..told] }, limit)
}

/// Writes the answer of a name that is blocked by a CNAME, with what an
/// upstream said about the target, if one did. The target itself is not judged
/// (RPZ draft 6.1): the page that explains a block must be reachable.
#[allow(clippy::too_many_arguments, reason = "the same few as its neighbours")]
pub fn respond_by_following(
    query: &Query,
    response: Option<&[u8]>,
    decision: &Decision<'_>,
    snapshot: &Snapshot,
    rules: &Rules,
    now: u64,
    limit: usize,
    out: &mut [u8],
) -> usize {
    let Some(target) = &decision.answer.target else { return 0 };
    let ttl = ttl_now(decision.answer, decision, snapshot, now);
    let (errors, told) = reasons(decision, true);
    relay::follow(response, query, target, ttl, (rules.max_payload, &errors[..told]), limit, out)
}

/// Why the answer is what it is. RFC 8914 4.5: Forged Answer where there is an
/// answer at all; and always the reason behind it (4.16 Blocked, 4.17 Censored).
fn reasons<'a>(decision: &Decision<'a>, has_records: bool) -> ([ExtendedError<'a>; 2], usize) {
    let mut errors: [ExtendedError<'_>; 2] = [(ede::FORGED_ANSWER, b""), (0, b"")];
    let mut told = usize::from(has_records);
    if let Some(code) = decision.answer.extended_error {
        errors[told] = (code, decision.reference.as_bytes());
        told += 1;
    }
    (errors, told)
}

/// Puts the records the profile has for this type; returns how many.
fn put_data(writer: &mut Writer<'_>, qtype: u16, answer: &Answer, ttl: u32) -> Option<usize> {
    let mut records = 0;
    if matches!(qtype, rtype::A | ANY) {
        for address in &answer.ipv4 {
            writer.put_record(Section::Answer, 0, rtype::A, ttl, &[&address.octets()])?;
            records += 1;
        }
    }
    if matches!(qtype, rtype::AAAA | ANY) {
        for address in &answer.ipv6 {
            writer.put_record(Section::Answer, 0, rtype::AAAA, ttl, &[&address.octets()])?;
            records += 1;
        }
    }
    if let Some(target) = &answer.target {
        writer.put_record(Section::Answer, 0, rtype::CNAME, ttl, &[target.suffix(0)])?;
        records += 1;
    }
    Some(records)
}

/// RFC 2308 3: an SOA in the authority section, so that the denial is cached,
/// for as long as the block is; its owner is the entry that matched.
fn put_soa(writer: &mut Writer<'_>, owner: usize, ttl: u32, serial: u32, rules: &Rules) -> Option<()> {
    const REFRESH_RETRY_EXPIRE: [u32; 3] = [3600, 600, 86400];
    let [refresh, retry, expire] = REFRESH_RETRY_EXPIRE;
    let mut numbers = [0; 20];
    for (place, number) in [serial, refresh, retry, expire, ttl].into_iter().enumerate() {
        numbers[place * 4..place * 4 + 4].copy_from_slice(&number.to_be_bytes());
    }
    let (mname, rname) = &rules.soa;
    writer.put_record(
        Section::Authority,
        owner,
        rtype::SOA,
        ttl,
        &[mname.suffix(0), rname.suffix(0), &numbers],
    )
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

/// Writes an error response: header, question if it could be read, and OPT if
/// the query had one.
pub fn respond_with_error(
    head: &Head,
    rcode: u16,
    errors: &[ExtendedError<'_>],
    rules: &Rules,
    out: &mut [u8],
) -> usize {
    let limit = head.payload_limit(rules.max_payload);
    match Writer::respond(head, rcode, out) {
        Some(writer) => writer.finish(head, &Opt { payload: rules.max_payload, rcode, errors }, limit),
        None => 0,
    }
}

fn refuse_client(head: &Head, rules: &Rules, out: &mut [u8]) -> Verdict {
    if rules.drop_others {
        return Verdict::Drop(Outcome::Dropped);
    }
    let length = respond_with_error(head, rcode::REFUSED, &[(ede::PROHIBITED, b"")], rules, out);
    Verdict::Respond { length, outcome: Outcome::Refused }
}

fn outcome_of(error: u16) -> Outcome {
    match error {
        rcode::NOTIMP => Outcome::NotImplemented,
        rcode::BADVERS => Outcome::BadVersion,
        rcode::REFUSED => Outcome::Refused,
        _ => Outcome::Malformed,
    }
}

//------- Prefix -------------------------------------------------------------

/// A range of client addresses.
#[derive(Clone, Copy, Debug)]
pub struct Prefix {
    pub address: IpAddr,
    pub length: u8,
}

impl Prefix {
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(host)) => {
                let differ = net.to_bits() ^ host.to_bits();
                differ.checked_shr(32 - u32::from(self.length)).unwrap_or(0) == 0
            }
            (IpAddr::V6(net), IpAddr::V6(host)) => {
                let differ = net.to_bits() ^ host.to_bits();
                differ.checked_shr(128 - u32::from(self.length)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl Rules {
    /// Whether the address may ask. A client that reaches a dual-stack socket
    /// over IPv4 counts as IPv4.
    fn serves(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.clients.iter().any(|prefix| prefix.contains(address))
    }
}
