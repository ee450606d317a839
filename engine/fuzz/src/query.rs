//! Any bytes as a client's packet. It causes no panic, each response is valid, and a well-formed
//! query is decided as by a naive model of the policy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::engine::{
    self, AMPLIFICATION, CHANGING, Decided, Entry, IPV4_COUNT, LANDING, MAX_PAYLOAD, POLICY, Peer,
    SECONDS_TO_CHANGE, SERVED, TTL,
};
use crate::parsing::{Response, hickory, is_well_formed, labels, question, word};

const QTYPE_A: usize = 1;
const QTYPE_CNAME: usize = 5;
const TYPE_SOA: u16 = 6;
const QTYPE_AAAA: usize = 28;
const QTYPE_OPT: usize = 41;
const QTYPE_ANY: usize = 255;

/// The first byte selects the client and transport. The rest is the packet.
pub fn query(data: &[u8]) {
    let Some((&how, packet)) = data.split_first() else { return };
    let peer = peer(how);
    let decided = engine::decided(packet, peer);
    let read = Question::read(packet, peer.over_tcp);
    match &decided {
        Decided::Answered { response, .. } => check_response(packet, peer, read.as_ref(), response),
        Decided::Forwarded { query, .. } => check_upstream_query(packet, query),
        Decided::Dropped { .. } => {}
    }
    if packet.len() < 12 || packet[2] & 0x80 != 0 || peer.port == 0 {
        let silent = matches!(decided, Decided::Dropped { blocked: None });
        return assert!(silent, "{packet:02x?} got {decided:02x?}");
    }
    match read {
        Some(question) if is_served(peer.address) => check_decision(&question, peer, &decided),
        // An error or no response; never forwarded, never counted as blocked.
        _ => match decided {
            Decided::Dropped { blocked: None } => assert!(peer.drop_others && !is_served(peer.address)),
            Decided::Answered { response, blocked: None } => {
                // RFC 7873 5.4: a query without a question, for a cookie.
                let asks_for_cookie = packet[4..6] == [0, 0] && has_option(packet, COOKIE);
                assert!(Response::read(&response).rcode() != 0 || asks_for_cookie, "an error");
            }
            other => panic!("{packet:02x?} got {other:02x?}"),
        },
    }
}

fn peer(how: u8) -> Peer {
    let inside = Ipv4Addr::new(192, 0, 2, how);
    let address = match how >> 1 & 3 {
        0 => IpAddr::V4(inside),
        1 => IpAddr::V6(inside.to_ipv6_mapped()),
        2 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, how.into(), 0, 0, 0, 0, 1)),
        _ => IpAddr::V4(Ipv4Addr::new(192, 0, 3, how)),
    };
    let port = if how & 0xf8 == 0xf8 { 0 } else { 53535 };
    Peer { address, port, over_tcp: how & 1 != 0, drop_others: how & 8 != 0 }
}

/// Compares bit by bit. `::ffff:192.0.2.1` is an IPv4 client.
fn is_served(address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => format!("4{:032b}", v4.to_bits()),
        IpAddr::V6(v6) => v6
            .to_ipv4_mapped()
            .map_or_else(|| format!("6{:0128b}", v6.to_bits()), |v4| format!("4{:032b}", v4.to_bits())),
    };
    let shared =
        |(net, length): (IpAddr, u8)| bits(address).starts_with(&bits(net)[..1 + usize::from(length)]);
    SERVED.into_iter().any(shared)
}

//------- Responses -----------------------------------------------------------

fn check_response(packet: &[u8], peer: Peer, read: Option<&Question>, bytes: &[u8]) {
    let response = Response::read(bytes);
    assert_eq!(bytes[..2], packet[..2], "the id");
    assert_ne!(bytes[2] & 0x80, 0, "QR");
    assert_eq!(bytes[2] & 0x79, packet[2] & 0x79, "opcode and RD are copied");
    assert_eq!(bytes[3] & 0x70, packet[3] & 0x10, "Z and AD clear, CD copied");
    assert_eq!(bytes[2] & 0x04, 0, "AA: nothing here is authoritative");
    assert_ne!(bytes[3] & 0x80, 0, "RA");
    match question(bytes) {
        Some(repeated) => assert_eq!(repeated, &packet[12..12 + repeated.len()], "byte for byte"),
        None => assert!(read.is_none() && bytes[4..6] == [0, 0], "a question that was read is repeated"),
    }
    let edns = response.hickory.edns.as_ref();
    if let Some(edns) = edns {
        assert_eq!((edns.version(), edns.max_payload()), (0, MAX_PAYLOAD));
    }
    if let Some(question) = read {
        assert_eq!(edns.is_some(), question.payload.is_some(), "OPT in the response iff in the query");
    }
    let wished = read.and_then(|question| question.payload).unwrap_or(0);
    let limit = if edns.is_some() && read.is_none() { MAX_PAYLOAD.into() } else { wished.clamp(512, 1232) };
    if peer.over_tcp {
        assert!(!response.is_truncated(), "TC over TCP");
    } else {
        assert!(bytes.len() <= limit, "{} bytes for a limit of {limit}", bytes.len());
        let may_be_verified = has_option(packet, COOKIE);
        assert!(may_be_verified || bytes.len() <= AMPLIFICATION * packet.len(), "{} bytes", bytes.len());
    }
    if response.is_truncated() {
        assert_eq!(response.sections.each_ref().map(Vec::len), [0; 3], "no part of an RRset");
    }
}

/// The query to the upstream has one question, our own OPT, and none of the client's options.
fn check_upstream_query(packet: &[u8], query: &[u8]) {
    assert!(is_well_formed(query) && query[2] & 0x80 == 0);
    let read = hickory(query).unwrap_or_else(|error| panic!("hickory: {error} in {query:02x?}"));
    assert_eq!(question(query), question(packet));
    let edns = read.edns.expect("our own OPT");
    assert_eq!((edns.version(), edns.max_payload()), (0, MAX_PAYLOAD));
    assert!(edns.options().as_ref().is_empty());
    let counts = (read.answers.len(), read.authorities.len(), read.additionals.len());
    assert_eq!(counts, (0, 0, 0));
}

//------- Decisions -----------------------------------------------------------

/// A query as a naive parser sees it.
struct Question {
    labels: Vec<Vec<u8>>,
    qtype: usize,
    /// The payload size in its OPT record, if it has one.
    payload: Option<usize>,
}

impl Question {
    /// `None` for anything but a well-formed query of class IN for data.
    fn read(packet: &[u8], over_tcp: bool) -> Option<Question> {
        let counts = [4, 6, 8].map(|count| word(packet, count));
        let is_plain = packet.len() >= 12 && packet[2] & 0xfa == 0 && is_well_formed(packet);
        if !is_plain || counts != [Some(1), Some(0), Some(0)] || word(packet, 10)? > 2 {
            return None;
        }
        let whole = question(packet)?;
        let (name, rest) = whole.split_at(whole.len() - 4);
        let (qtype, qclass) = (word(rest, 0)?, word(rest, 2)?);
        let is_meta = matches!(qtype, QTYPE_OPT | 249..=254);
        // A compression pointer in the question has no target.
        if qclass != 1 || is_meta || name.len() > 255 || name.last() != Some(&0) || !is_uncompressed(name) {
            return None;
        }
        let mut question = Question { labels: labels(name), qtype, payload: None };
        let mut rest = &packet[12 + whole.len()..];
        for _ in 0..word(packet, 10)? {
            let owner = owner_length(rest)?;
            let (fixed, length) = (&rest[owner..], word(rest, owner + 8)?);
            if word(fixed, 0)? == QTYPE_OPT {
                let options = &fixed[10..10 + length];
                let is_sound = owner == 1 && fixed[5] == 0 && are_sound(options, over_tcp);
                if !is_sound || question.payload.is_some() {
                    return None;
                }
                question.payload = word(fixed, 2);
            }
            rest = &fixed[10 + length..];
        }
        Some(question)
    }
}

fn is_uncompressed(name: &[u8]) -> bool {
    owner_length(name) == Some(name.len())
        && labels(name).iter().map(|label| label.len() + 1).sum::<usize>() + 1 == name.len()
}

fn owner_length(bytes: &[u8]) -> Option<usize> {
    match *bytes.first()? {
        0 => Some(1),
        0xc0.. => Some(2),
        label => Some(1 + usize::from(label) + owner_length(&bytes[1 + usize::from(label)..])?),
    }
}

const COOKIE: usize = 10;
const KEEPALIVE: usize = 11;

/// Whether the options are complete (RFC 6891 6.1.2), the first cookie has a valid length (RFC 7873
/// 5.2), and a keepalive option over TCP has no timeout (RFC 7828 3.2.1).
fn are_sound(options: &[u8], over_tcp: bool) -> bool {
    let Some(options) = parts(options) else { return false };
    let cookie = options.iter().find(|(code, _)| *code == COOKIE);
    let has_time = options.iter().any(|(code, data)| *code == KEEPALIVE && !data.is_empty());
    cookie.is_none_or(|(_, data)| matches!(data.len(), 8 | 16..=40)) && !(over_tcp && has_time)
}

/// Code and data of each option.
fn parts(options: &[u8]) -> Option<Vec<(usize, &[u8])>> {
    if options.is_empty() {
        return Some(Vec::new());
    }
    let end = 4 + word(options, 2)?;
    let first = (word(options, 0)?, options.get(4..end)?);
    Some([vec![first], parts(&options[end..])?].concat())
}

/// Whether the packet may have this option: it contains the code somewhere.
fn has_option(packet: &[u8], code: usize) -> bool {
    packet.windows(2).any(|pair| word(pair, 0) == Some(code))
}

/// A naive model of matching: zones in order, and the longest owner in each. Of its entries, `exact`
/// comes before the others and an exemption before an answer. After an exemption, the next zone
/// decides, and so it does after a truncate entry over TCP.
pub fn naive(
    name: &[Vec<u8>],
    zones: &[(&'static str, bool, &'static [Entry])],
    over_tcp: bool,
) -> Option<(usize, Entry)> {
    zones.iter().enumerate().find_map(|(zone, (_, _, entries))| {
        let covering = (0..name.len()).find_map(|skip| {
            let owns = |owner: &str| owner.split('.').map(str::as_bytes).eq(&name[skip..]);
            let covers = |scope| if skip == 0 { scope != "below" } else { scope != "exact" };
            let fits = entries.iter().filter(|(scope, _, owner)| covers(*scope) && owns(owner));
            fits.min_by_key(|(scope, action, _)| (*scope != "exact", *action != "exempt"))
        });
        let decides = |action| action != "exempt" && (action != "truncate" || !over_tcp);
        covering.filter(|(_, action, _)| decides(*action)).map(|entry| (zone, *entry))
    })
}

fn check_decision(question: &Question, peer: Peer, decided: &Decided) {
    let matched = naive(&question.labels, &POLICY, peer.over_tcp);
    let expected = matched.map(|(zone, (_, action, _))| (zone, action));
    let is_any = question.qtype == QTYPE_ANY && !peer.over_tcp;
    match (expected, decided) {
        (None, Decided::Answered { response, blocked: None }) if is_local(&question.labels) || is_any => {
            let response = Response::read(response);
            assert!(response.is_truncated() || response.sections[0].len() + response.sections[1].len() > 0);
        }
        (Some((_, "passthru")), Decided::Answered { response, blocked: None }) if is_any => {
            Response::read(response); // RFC 8482
        }
        (None, Decided::Forwarded { .. }) if is_local(&question.labels) || is_any => {
            panic!("{:?} was forwarded", question.labels);
        }
        (None | Some((_, "passthru")), Decided::Forwarded { follow, .. }) => assert_eq!(*follow, None),
        (Some((_, "cname")), Decided::Forwarded { follow: Some(follow), .. }) => {
            assert!(!matches!(question.qtype, QTYPE_CNAME | QTYPE_ANY));
            assert_eq!(*follow, landing());
        }
        (Some((_, "drop")), Decided::Dropped { blocked }) => assert_eq!(*blocked, expected),
        (Some((_, action)), Decided::Answered { response, blocked }) => {
            let response = Response::read(response);
            // Counted as NODATA: a sinkhole has no TXT record, and NXDOMAIN would deny an exemption
            // below the name.
            let is_empty = response.rcode() == 0 && response.sections[0].is_empty();
            let is_nodata = is_empty && matches!(action, "nxdomain" | "sinkhole");
            let as_nodata = expected.map(|(zone, _)| (zone, "nodata"));
            assert!(*blocked == expected || is_nodata && *blocked == as_nodata, "{blocked:?}, {expected:?}");
            assert!(!matches!(action, "passthru" | "drop"));
            assert!(action != "cname" || matches!(question.qtype, QTYPE_CNAME | QTYPE_ANY));
            check_blocked(question, matched.expect("it was matched"), &response);
        }
        _ => panic!("{:?} from {peer:?}: {matched:?}, but {decided:02x?}", question.labels),
    }
}

/// RFC 6761, RFC 6303, RFC 9462, and the canary.
fn is_local(name: &[Vec<u8>]) -> bool {
    let lists =
        ["localhost", "invalid", "test", "onion", "local", "resolver.arpa", "use-application-dns.net"];
    let reverse =
        ["10", "127", "0", "254.169", "168.192", "2.0.192", "100.51.198", "113.0.203", "255.255.255.255"];
    let private = (16..=31).map(|net| format!("{net}.172")).chain((64..=127).map(|net| format!("{net}.100")));
    let ipv4 = reverse.map(String::from).into_iter().chain(private).map(|net| format!("{net}.in-addr.arpa"));
    let loopback = ["0.", "1."].map(|last| format!("{last}{}", "0.".repeat(31)));
    let ipv6 = ["d.f.", "8.e.f.", "9.e.f.", "a.e.f.", "b.e.f.", "8.b.d.0.1.0.0.2."].map(String::from);
    let ipv6 = ipv6.into_iter().chain(loopback).map(|net| format!("{net}ip6.arpa"));
    let all = lists.map(String::from).into_iter().chain(ipv4).chain(ipv6);
    all.into_iter().any(|owner| {
        let owner: Vec<Vec<u8>> = owner.split('.').map(|label| label.as_bytes().to_vec()).collect();
        name.ends_with(&owner)
    })
}

fn landing() -> Vec<u8> {
    let labels = LANDING.split('.').map(|label| [&[label.len() as u8], label.as_bytes()].concat());
    labels.flatten().chain([0]).collect()
}

/// Checks the response for a blocked name against its entry.
fn check_blocked(question: &Question, (zone, entry): (usize, Entry), response: &Response<'_>) {
    let (scope, action, owner) = entry;
    let [answers, authorities, additionals] = &response.sections;
    assert!(additionals.is_empty());
    let records = match (action, question.qtype) {
        ("sinkhole", QTYPE_A) => IPV4_COUNT,
        ("sinkhole", QTYPE_AAAA) | ("cname", _) => 1,
        ("sinkhole", QTYPE_ANY) => IPV4_COUNT + 1,
        _ => 0,
    };
    if question.payload.is_some() {
        let forged = (records > 0 && action != "truncate").then_some(4);
        let errors: Vec<u16> = forged.into_iter().chain([16]).collect();
        assert!(response.errors.ends_with(&[16]) && errors.ends_with(&response.errors), "RFC 8914");
    }
    if response.is_truncated() {
        let is_big = records > 1; // for its payload size, or for an unverified client
        return assert!((action == "truncate" || is_big) && response.rcode() == 0);
    }
    assert_ne!(action, "truncate");
    if action == "refused" {
        return assert!(response.rcode() == 5 && answers.is_empty() && authorities.is_empty());
    }
    assert_eq!(answers.len(), records);
    assert_eq!(authorities.len(), usize::from(records == 0), "data, or an SOA (RFC 2308 3)");
    if let Some(soa) = authorities.first() {
        assert_eq!(soa.rtype, TYPE_SOA);
        assert!(owner.split('.').map(str::as_bytes).eq(labels(&soa.owner)), "its owner is the entry");
    }
    let longest = if POLICY[zone].0 == CHANGING { SECONDS_TO_CHANGE } else { TTL };
    assert!(answers.iter().chain(authorities).all(|record| record.ttl == longest));
    match response.rcode() {
        0 => {}
        3 => {
            assert!(action == "nxdomain" && scope != "exact" && records == 0);
            check_denial(&question.labels);
        }
        rcode => panic!("RCODE {rcode} for a blocked name"),
    }
}

/// RFC 8020 2: NXDOMAIN for a name denies all names below it, so no entry may decide otherwise for
/// any of them. An entry that truncates counts with its decision over TCP.
fn check_denial(name: &[Vec<u8>]) {
    for (_, _, entries) in POLICY {
        for (_, _, owner) in entries {
            let at: Vec<Vec<u8>> = owner.split('.').map(|label| label.as_bytes().to_vec()).collect();
            if at.ends_with(name) {
                let below = [&[b"x".to_vec()], &at[..]].concat();
                for denied in [at, below] {
                    let matched = naive(&denied, &POLICY, true);
                    assert!(
                        matched.is_some_and(|(_, (_, action, _))| action == "nxdomain"),
                        "{owner} is not denied"
                    );
                }
            }
        }
    }
}
