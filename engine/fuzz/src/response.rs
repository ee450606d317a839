//! Any octets as an upstream's message: nothing panics, and the client gets its
//! own question back with all of the upstream's records, or none and TC.
//!
//! RDATA is relayed as it is, also where it is not what its type asks for. So a
//! library must read what we send where it could read what the upstream sent.

use std::net::IpAddr;

use crate::query::naive;
use crate::reading::{self, Record, Response, UNCOMPRESSED, labels, question, word};
use crate::world::{self, BADNETS, Entry, Judged, LANDING, POLICY, Waiting};

const HEADER: usize = 12;
const TYPE_CNAME: u16 = 5;
const TYPE_SOA: u16 = 6;

/// The first octet says how the client asked, the rest is the upstream's
/// message. What was asked is made from the message's own question, in another
/// case, so that any message from anywhere is an answer to something.
pub fn response(data: &[u8]) {
    let Some((&how, message)) = data.split_first() else { return };
    world::targets(message);
    let other = b"\x05other\x07example\0\0\x01\0\x01";
    assert_eq!(world::answers(message, other), is_answer(message, other));
    let Some(asked) = question(message).and_then(|asked| packet(asked, how)) else { return };
    let Some(waiting) = Waiting::new(&asked, how & 1 != 0) else { return };
    let is_answer = is_answer(message, waiting.question());
    assert_eq!(world::answers(message, waiting.question()), is_answer);
    if !is_answer {
        return;
    }
    // Names that begin in the header mean something else behind another header.
    // No server writes them; what becomes of them is only checked for soundness.
    let is_readable = !message.windows(2).any(|pair| pair[0] == 0xc0 && usize::from(pair[1]) < HEADER);
    let upstream = Upstream {
        message,
        domain: reading::domain(message).ok().filter(|_| is_readable),
        hickory: reading::hickory(message).ok().filter(|_| is_readable),
    };
    let judged = waiting.targets_judged(message);
    if let Judged::Answer(response) = &judged {
        check(&asked, &waiting, response);
        Response::read(response);
    }
    let relayed = waiting.relayed(message);
    if let Some(response) = &relayed {
        check(&asked, &waiting, response);
        check_relayed(&upstream, how & 1 != 0, response);
        if is_readable {
            check_judged(how & 1 != 0, response, &judged);
        }
    }
    let followed = waiting.followed(Some(message));
    check(&asked, &waiting, &followed);
    check_followed(&upstream, &followed);
    let alone = waiting.followed(None);
    check(&asked, &waiting, &alone);
    assert!(Response::read(&alone).sections[0].len() == 1 || alone[2] & 2 != 0);
    if how & 1 == 0 {
        let truncated = waiting.truncated();
        check(&asked, &waiting, &truncated);
        assert!(Response::read(&truncated).is_truncated());
    }
}

struct Upstream<'a> {
    message: &'a [u8],
    domain: Option<(reading::Sections, Vec<u16>)>,
    hickory: Option<hickory_proto::op::Message>,
}

/// The client's query for this question.
fn packet(asked: &[u8], how: u8) -> Option<Vec<u8>> {
    let payload: [u8; 2] = if how & 4 == 0 { [2, 0] } else { [4, 0xd0] };
    let flags: [u8; 2] = [how >> 4 & 1, (how >> 1) & 0x30];
    let mut packet = vec![0xbe, 0xef, flags[0], flags[1], 0, 1, 0, 0, 0, 0, 0, how >> 1 & 1];
    let name = asked.len().checked_sub(4)?;
    let flip = |octet: &u8| if octet.is_ascii_alphabetic() { octet ^ 0x20 } else { *octet };
    packet.extend(asked[..name].iter().map(flip));
    packet.extend_from_slice(&asked[name..]);
    if how & 2 != 0 {
        packet.extend_from_slice(&[0, 0, 41, payload[0], payload[1], 0, 0, how & 0x80, 0, 0, 0]);
    }
    Some(packet)
}

/// RFC 5452 9.1, naively.
fn is_answer(message: &[u8], asked: &[u8]) -> bool {
    let Some(repeated) = question(message) else { return false };
    let (name, rest) = asked.split_at(asked.len() - 4);
    message[2] & 0xf8 == 0x80
        && repeated.len() == asked.len()
        && repeated.to_ascii_lowercase()[..name.len()] == name.to_ascii_lowercase()
        && repeated.ends_with(rest)
}

/// What holds for everything that is sent to a client.
fn check(asked: &[u8], waiting: &Waiting, response: &[u8]) {
    assert!(reading::is_well_formed(response), "{response:02x?}");
    assert_eq!(response[..2], asked[..2], "the id");
    assert_eq!(question(response), Some(waiting.question()), "byte for byte");
    assert_ne!(response[2] & 0x80, 0, "QR");
    assert_eq!(response[2] & 0x79, asked[2] & 0x79, "opcode and RD are copied");
    assert_eq!(response[3] & 0x50, asked[3] & 0x10, "Z clear, CD copied");
    assert!(response.len() <= waiting.limit(), "{} octets", response.len());
    let has_opt = asked[11] == 1;
    if response[2] & 2 != 0 {
        assert!(waiting.limit() < 65535, "TC over TCP");
        assert_eq!(response[6..12], [0, 0, 0, 0, 0, u8::from(has_opt)], "no part of an RRset");
    }
}

/// The records are all there, or none and TC; what could be read still can.
fn check_relayed(upstream: &Upstream<'_>, over_tcp: bool, response: &[u8]) {
    let hickory = reading::hickory(response);
    let domain = reading::domain(response);
    let message = upstream.message;
    if response[2] & 2 != 0 {
        assert!(!over_tcp && hickory.is_ok() && domain.is_ok());
        return;
    }
    assert_eq!(message[2] & 2, 0, "TC is passed on");
    // What stands behind the OPT record has moved.
    let has_moved = match (&upstream.domain, &upstream.hickory) {
        (Some((sections, _)), _) => sections[2].iter().any(|record| record.may_point),
        (None, Some(said)) => said.additionals.iter().any(|r| UNCOMPRESSED.contains(&r.record_type().into())),
        (None, None) => true,
    };
    if has_moved {
        return;
    }
    if let Some((sections, _)) = &upstream.domain {
        let (relayed, _) =
            domain.unwrap_or_else(|e| panic!("domain: {e}: {message:02x?} became {response:02x?}"));
        assert_eq!(relayed, *sections, "{message:02x?} became {response:02x?}");
    }
    if let Some(said) = &upstream.hickory {
        let relayed =
            hickory.unwrap_or_else(|e| panic!("hickory: {e}: {message:02x?} became {response:02x?}"));
        assert_eq!(
            (&relayed.answers, &relayed.authorities, &relayed.additionals),
            (&said.answers, &said.authorities, &said.additionals)
        );
    }
}

/// No target that a client can read in the answer was left unjudged.
fn check_judged(over_tcp: bool, response: &[u8], judged: &Judged) {
    let rcode = response[3] & 0xf;
    let Ok((sections, _)) = reading::domain(response) else { return };
    if response[2] & 2 != 0 || !matches!(rcode, 0 | 3) {
        return;
    }
    let judging: Vec<(&str, bool, &[Entry])> = POLICY.into_iter().filter(|(_, judges, _)| *judges).collect();
    let targets = sections[0].iter().filter_map(|record| record.target.as_deref()).map(labels);
    let said = targets.into_iter().find_map(|target| naive(&target, &judging));
    let is_bad = |address: &IpAddr| {
        BADNETS.iter().any(|(net, length)| match (net, address) {
            (IpAddr::V4(net), IpAddr::V4(host)) => {
                net.octets().starts_with(&host.octets()[..*length as usize / 8])
            }
            (IpAddr::V6(net), IpAddr::V6(host)) => {
                net.octets().starts_with(&host.octets()[..*length as usize / 8])
            }
            _ => false,
        })
    };
    let leads_astray = sections[0].iter().flat_map(|record| &record.addresses).any(is_bad);
    let expected = said.map(|(_, (_, action, _))| action).or(leads_astray.then_some("nodata"));
    let agrees = match judged {
        Judged::Pass => expected.is_none() || expected == Some("truncate") && over_tcp,
        Judged::Allow => expected == Some("passthru"),
        Judged::Silence => expected == Some("drop"),
        Judged::Answer(_) => !matches!(expected, None | Some("passthru" | "drop")),
    };
    assert!(agrees, "{expected:?}, but {judged:02x?} for {response:02x?}");
}

/// Our CNAME first, then the upstream's answers and SOAs, or it stands alone.
fn check_followed(upstream: &Upstream<'_>, response: &[u8]) {
    let (Ok((sections, _)), Some((said, _))) = (reading::domain(response), &upstream.domain) else { return };
    if response[2] & 2 != 0 || said[0].iter().any(|record| record.may_point) {
        return;
    }
    let [answers, authorities, additionals] = &sections;
    let (ours, rest) = answers.split_first().expect("our CNAME");
    assert_eq!((ours.rtype, ours.data.trim_end_matches('.')), (TYPE_CNAME, LANDING));
    let soas: Vec<&Record> = said[1].iter().filter(|record| record.rtype == TYPE_SOA).collect();
    let is_whole = *rest == said[0] && authorities.iter().eq(soas);
    assert!(is_whole || rest.is_empty() && authorities.is_empty(), "{response:02x?}");
    assert!(additionals.is_empty());
    assert!(word(response, 6) == Some(answers.len()) && response.len() > HEADER);
}
