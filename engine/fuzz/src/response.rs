//! Any bytes as an upstream's message. It causes no panic, and the client gets its own question with
//! all of the upstream's records, or none and TC.
//!
//! RDATA is relayed unchanged, even if it is invalid for its type. So two libraries must parse the
//! response only if both can parse the upstream's message.

use crate::engine::{self, BADNETS_AT, Judged, LANDING, Waiting};
use crate::filtering::{self, is_bad};
use crate::parsing::{self, Record, Response, constant, labels, question, word};

const HEADER: usize = 12;
const TYPE_CNAME: u16 = 5;
const TYPE_SOA: u16 = 6;
pub const TYPE_DNAME: u16 = 39;

/// The first byte selects the client's options. The rest is the upstream's message. The query is made
/// from the question of that message, in another case, so that any message is a response to it.
pub fn response(data: &[u8]) {
    let Some((&how, message)) = data.split_first() else { return };
    engine::follow_chain(message);
    let Some(query) = question(message).and_then(|question| packet(question, how)) else { return };
    let Some(waiting) = Waiting::new(&query, how & 1 != 0) else { return };
    for (place, changed) in waiting.question().iter().enumerate() {
        // Another letter case, or another type or class.
        let mut other = waiting.question().to_vec();
        other[place] = changed ^ 0x20;
        assert_eq!(engine::answers(message, &other), is_answer(message, &other));
    }
    let is_answer = is_answer(message, waiting.question());
    assert_eq!(engine::answers(message, waiting.question()), is_answer);
    if !is_answer {
        return;
    }
    let upstream = Upstream { message, read: Parsed::by_both(message) };
    let judged = waiting.targets_judged(message);
    if let Judged::Answer(response) = &judged {
        check(&query, &waiting, response);
        Response::read(response);
    }
    if let Judged::Follow(target) = &judged {
        assert_eq!(target, LANDING);
    }
    if let Judged::Pass(Some(response)) = &judged {
        check(&query, &waiting, response);
        if let Some(parsed) = &upstream.read {
            filtering::check_left(parsed, labels(&query[HEADER..query.len()]), how & 1 != 0, response);
        }
    }
    let relayed = waiting.relayed(message);
    if let Some(response) = &relayed {
        check(&query, &waiting, response);
        check_head(&upstream, &query, response);
        check_relayed(&upstream, how & 1 != 0, response);
        if upstream.read.is_some() {
            check_judged(&upstream, how & 1 != 0, response, &judged);
        }
    }
    let followed = waiting.followed(Some(message));
    check(&query, &waiting, &followed);
    check_followed(&upstream, &followed);
    let alone = waiting.followed(None);
    check(&query, &waiting, &alone);
    assert!(Response::read(&alone).sections[0].len() == 1 || alone[2] & 2 != 0);
    if how & 1 == 0 {
        let truncated = waiting.truncated();
        check(&query, &waiting, &truncated);
        assert!(Response::read(&truncated).is_truncated());
    }
}

struct Upstream<'a> {
    message: &'a [u8],
    read: Option<Parsed>,
}

/// A message that both libraries parse. One is not enough: domain also parses names that continue
/// in the bytes after them, and these differ in our response.
pub struct Parsed {
    pub sections: parsing::Sections,
    errors: Vec<u16>,
    hickory: hickory_proto::op::Message,
}

impl Parsed {
    /// A failure has no targets: SERVFAIL, and RCODEs of more than four bits.
    pub fn is_failure(&self) -> bool {
        let rcode = u16::from(self.hickory.metadata.response_code);
        rcode == 2 || rcode > 15
    }

    fn by_both(message: &[u8]) -> Option<Parsed> {
        // A name that starts in the header is a different name after another header. No server
        // writes it, so only the validity of the response is checked.
        if message.windows(2).any(|pair| pair[0] == 0xc0 && usize::from(pair[1]) < HEADER) {
            return None;
        }
        let (sections, errors) = parsing::domain(message).ok()?;
        Some(Parsed { sections, errors, hickory: parsing::hickory(message).ok()? })
    }
}

/// The client's query for this question.
fn packet(question: &[u8], how: u8) -> Option<Vec<u8>> {
    let payload: [u8; 2] = if how & 4 == 0 { [2, 0] } else { [4, 0xd0] };
    let flags: [u8; 2] = [how >> 4 & 1, (how >> 1) & 0x30];
    let mut packet = vec![0xbe, 0xef, flags[0], flags[1], 0, 1, 0, 0, 0, 0, 0, how >> 1 & 1];
    let name = question.len().checked_sub(4)?;
    let flip = |byte: &u8| if byte.is_ascii_alphabetic() { byte ^ 0x20 } else { *byte };
    packet.extend(question[..name].iter().map(flip));
    packet.extend_from_slice(&question[name..]);
    if how & 2 != 0 {
        packet.extend_from_slice(&[0, 0, 41, payload[0], payload[1], 0, 0, how & 0x80, 0, 0, 0]);
    }
    Some(packet)
}

/// RFC 5452 9.1, naively.
fn is_answer(message: &[u8], expected: &[u8]) -> bool {
    let Some(repeated) = question(message) else { return false };
    let (name, rest) = expected.split_at(expected.len() - 4);
    message[2] & 0xf8 == 0x80
        && repeated.len() == expected.len()
        && repeated.to_ascii_lowercase()[..name.len()] == name.to_ascii_lowercase()
        && repeated.ends_with(rest)
}

/// Checks that apply to every response.
fn check(query: &[u8], waiting: &Waiting, response: &[u8]) {
    assert!(parsing::is_well_formed(response), "{response:02x?}");
    assert_eq!(response[..2], query[..2], "the id");
    assert_eq!(question(response), Some(waiting.question()), "byte for byte");
    assert_ne!(response[2] & 0x80, 0, "QR");
    assert_eq!(response[2] & 0x79, query[2] & 0x79, "opcode and RD are copied");
    assert_eq!(response[3] & 0x50, query[3] & 0x10, "Z clear, CD copied");
    assert!(response.len() <= waiting.limit(), "{} bytes", response.len());
    let has_opt = query[11] == 1;
    if response[2] & 2 != 0 {
        assert!(waiting.limit() < 65535, "TC over TCP");
        assert_eq!(response[6..12], [0, 0, 0, 0, 0, u8::from(has_opt)], "no part of an RRset");
    }
}

/// Checks the header and the OPT record.
fn check_head(upstream: &Upstream<'_>, query: &[u8], response: &[u8]) {
    let (message, has_opt) = (upstream.message, query[11] == 1);
    assert_eq!((response[2] & 4, response[3] & 0x80), (message[2] & 4, message[3] & 0x80), "AA and RA");
    // RFC 6840 5.8: AD only for clients that request it with AD or DO.
    let wants_ad = query[3] & 0x20 != 0 || has_opt && query[query.len() - 4] & 0x80 != 0;
    assert_eq!(response[3] & 0x20, if wants_ad { message[3] & 0x20 } else { 0 }, "AD");
    let Some(parsed) = &upstream.read else { return };
    let Ok((_, errors)) = parsing::domain(response) else { return };
    assert_eq!(
        errors,
        if has_opt { &parsed.errors[..parsed.errors.len().min(4)] } else { &[] },
        "extended errors"
    );
    let Ok(read) = parsing::hickory(response) else { return };
    let rcode = u16::from(parsed.hickory.metadata.response_code);
    // Twelve bits need an OPT record (RFC 6891 6.1.3).
    let expected = if rcode > 15 && !has_opt { 2 } else { rcode };
    assert_eq!(u16::from(read.metadata.response_code), expected);
}

/// Checks that the response has all records, or none and TC, and that both libraries parse it.
fn check_relayed(upstream: &Upstream<'_>, over_tcp: bool, response: &[u8]) {
    let message = upstream.message;
    if response[2] & 2 != 0 {
        assert!(!over_tcp && Response::read(response).is_truncated());
        return;
    }
    assert_eq!(message[2] & 2, 0, "TC is passed on");
    let Some(parsed) = &upstream.read else { return };
    // Records after the OPT record have moved.
    if parsed.sections[2].iter().any(|record| record.may_point) {
        return;
    }
    let relayed = Response::read(response);
    assert_eq!(relayed.sections, parsed.sections, "{message:02x?} became {response:02x?}");
    let (relayed, parsed) = (&relayed.hickory, &parsed.hickory);
    for (relayed, parsed) in [
        (&relayed.answers, &parsed.answers),
        (&relayed.authorities, &parsed.authorities),
        (&relayed.additionals, &parsed.additionals),
    ] {
        assert_eq!(constant(relayed), constant(parsed), "{message:02x?} became {response:02x?}");
    }
}

/// Checks that no target in the answer was left unjudged.
fn check_judged(upstream: &Upstream<'_>, over_tcp: bool, response: &[u8], judged: &Judged) {
    let Ok((sections, _)) = parsing::domain(response) else { return };
    if upstream.read.as_ref().is_some_and(Parsed::is_failure) {
        assert!(matches!(judged, Judged::Pass(_)), "a failure is relayed unchanged: {judged:02x?}");
        return;
    }
    if response[2] & 2 != 0 {
        return;
    }
    let answers = &sections[0];
    let repeated = question(response).expect("the client's own");
    let chained = names_of_chain(labels(&repeated[..repeated.len() - 4]), answers);
    let here = chained.last().expect("the queried name at least");
    // In the chain, the first blocked name decides. At its end, each record is an alternative.
    let (in_chain, first) = step(&chained[1..], usize::MAX, over_tcp);
    // Records about the target of an alternative are followed as well.
    let both: Vec<Record> = answers.iter().chain(&sections[2]).cloned().collect();
    let (mut owners, mut blocking) = (vec![(here.clone(), first)], Vec::new());
    let mut next = 0;
    while let Some((owner, first)) = owners.get(next).cloned() {
        let records = if next == 0 && !filtering::uses_itself(&owner, answers) { answers } else { &both };
        next += 1;
        for record in
            records.iter().filter(|record| labels(&record.owner) == owner && !is_alias(record.rtype))
        {
            let mut freed = first;
            if let Some(target) = record.target.as_deref().map(labels).filter(|name| !name.is_empty()) {
                let led = names_of_chain(target, &both);
                let parsed;
                (parsed, freed) = step(&led, first, over_tcp);
                blocking.extend(parsed);
                let last = &led[led.len() - 1];
                let is_new = |(name, before): &(Vec<Vec<u8>>, usize)| name != last || *before < freed;
                if parsed.is_none() && freed > 0 && owners[1..].iter().all(is_new) {
                    owners.push((last.clone(), freed));
                }
            }
            let is_blocked = freed > BADNETS_AT && record.addresses.iter().any(is_bad);
            blocking.extend(is_blocked.then_some("nodata"));
        }
    }
    let expected = in_chain.or(blocking.first().copied());
    let agrees = match judged {
        // If several alternatives are blocked, the first zone decides.
        _ if in_chain.is_none() && blocking.len() > 1 => {
            matches!(judged, Judged::Answer(_) | Judged::Silence | Judged::Follow(_) | Judged::Unreadable)
        }
        Judged::Unreadable => true, // nothing is relayed
        Judged::Follow(_) => expected == Some("cname"),
        Judged::Pass(_) => expected.is_none(),
        Judged::Silence => expected == Some("drop"),
        Judged::Answer(_) => !matches!(expected, None | Some("passthru" | "drop")),
    };
    assert!(agrees, "{expected:?}, but {judged:02x?} for {response:02x?}");
}

/// The action for the first blocked name, and how many zones judge later names. A passthru exempts
/// them from its own zone and from the zones after it.
fn step(names: &[Vec<Vec<u8>>], mut first: usize, over_tcp: bool) -> (Option<&'static str>, usize) {
    for name in names {
        match filtering::decides(name, first, over_tcp) {
            Some((zone, "passthru")) => first = zone,
            Some((_, action)) => return (Some(action), first),
            None => {}
        }
    }
    (None, first)
}

pub fn is_alias(rtype: u16) -> bool {
    matches!(rtype, TYPE_CNAME | TYPE_DNAME)
}

/// The chain of CNAME and DNAME records, from the queried name on.
pub fn names_of_chain(queried: Vec<Vec<u8>>, answers: &[Record]) -> Vec<Vec<Vec<u8>>> {
    let mut chain = vec![queried];
    loop {
        let before = chain.len();
        for record in answers.iter().filter(|record| is_alias(record.rtype)) {
            let (here, owner) = (chain.last().expect("one at least"), labels(&record.owner));
            let target = labels(record.target.as_deref().expect("of these types"));
            let next = match record.rtype {
                TYPE_CNAME if owner == *here => target,
                TYPE_DNAME if here.len() > owner.len() && here.ends_with(&owner) => {
                    [&here[..here.len() - owner.len()], &target].concat()
                }
                _ => continue,
            };
            if next.iter().map(|label| label.len() + 1).sum::<usize>() > 254 {
                continue;
            }
            let is_loop = chain.contains(&next);
            chain.push(next);
            if is_loop {
                return chain;
            }
        }
        if chain.len() == before || chain.len() > 70 {
            return chain;
        }
    }
}

/// Checks that our CNAME comes first, then the upstream's answers and SOAs, or nothing.
fn check_followed(upstream: &Upstream<'_>, response: &[u8]) {
    let Some(Parsed { sections: parsed, .. }) = &upstream.read else { return };
    if response[2] & 2 != 0 || parsed[0].iter().any(|record| record.may_point) {
        return;
    }
    let sections = Response::read(response).sections;
    let [answers, authorities, additionals] = &sections;
    let (ours, rest) = answers.split_first().expect("our CNAME");
    assert_eq!((ours.rtype, ours.data.trim_end_matches('.')), (TYPE_CNAME, LANDING));
    let soas: Vec<&Record> = parsed[1].iter().filter(|record| record.rtype == TYPE_SOA).collect();
    let is_whole = *rest == parsed[0] && authorities.iter().eq(soas);
    assert!(is_whole || rest.is_empty() && authorities.is_empty(), "{response:02x?}");
    assert!(additionals.is_empty());
    assert!(word(response, 6) == Some(answers.len()) && response.len() > HEADER);
}
