//! Random changes to packets, for the pure parts of the packet path. Nothing panics, and every response is
//! well-formed and belongs to its query.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use _engine::answer::{Client, Verdict, decide, read};
use _engine::chain::{self, Chains, Sections};
use _engine::list;
use _engine::local::{Local, Switches};
use _engine::message::{HEADER, Query, Record, Soa, Transport, flag, skip_name, u16_at};
use _engine::name::{Name, Walk};
use _engine::policy::names::SEED;
use _engine::policy::{Action, Answer, PlacedZone, Rule, Snapshot, Target};
use _engine::prefix::{Prefix, Prefixes};
use _engine::relay;
use _engine::response::Parser;
use _engine::rules::Rules;

const ROUNDS: u64 = 60_000;

/// A generator with the same numbers in each run (Knuth's MMIX).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit
    }

    /// Changes, removes or adds a few bytes.
    fn corrupt(&mut self, message: &mut Vec<u8>) {
        for _ in 0..self.below(4) {
            match (self.below(4), message.len()) {
                (0, _) => message.push(self.below(256) as u8),
                (1, length @ 1..) => message.truncate(self.below(length)),
                (_, length @ 1..) => {
                    let interesting = [0, 1, 0x3f, 0x40, 0xc0, 0xff, self.below(256) as u8];
                    message[self.below(length)] = interesting[self.below(7)];
                }
                _ => {}
            }
        }
    }
}

fn name(text: &str) -> Name {
    Name::from_text(text.as_bytes()).unwrap()
}

fn rules() -> Rules {
    let everyone = Prefix { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), length: 0 };
    let soa = Soa(name("localhost"), name("nobody.invalid"));
    let clients = Prefixes::new([everyone]);
    let local = Local::new(Switches::default(), None, clients.clone());
    Rules { clients, local, max_payload: 1232, soa, ..Rules::default() }
}

/// One zone for each action, `ACTION.example`.
fn snapshot() -> Snapshot {
    let zone = |action: Action| {
        let answer = Answer {
            ipv4: vec![Ipv4Addr::new(192, 0, 2, 53); 40],
            ipv6: vec!["2001:db8::53".parse().unwrap()],
            target: (action == Action::Cname).then(|| Target::Name(name("landing.example"))),
            ..Answer::without_data(action, 30, Some(16))
        };
        let rule = Rule::Answer {
            answer: Arc::new(answer),
            reference: "order 17/2017".repeat(15).into(),
            structured: None,
        };
        let entry = format!("subtree 0 {}.example", action.name());
        let zone = list::entries(action.name(), vec![rule], entry.as_bytes()).unwrap();
        PlacedZone {
            zone: Arc::new(zone),
            next_change_at: Some(1_000),
            judges_targets: true,
            is_shadow: false,
            clients: None,
            is_list: false,
        }
    };
    Snapshot::new(Action::ALL.map(|(action, _)| zone(action)).into(), 7)
}

fn query(labels: &[&str], qtype: u16, with_opt: bool) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(with_opt)];
    for label in labels {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend_from_slice(&qtype.to_be_bytes());
    message.extend_from_slice(&[0, 1]);
    if with_opt {
        message.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\x80\0\0\x0c\0\x0a\0\x08eightoct");
    }
    message
}

/// Parses a message by its own lengths only.
fn is_well_formed(message: &[u8]) -> bool {
    let count = |at| usize::from(u16_at(message, at).unwrap());
    let mut at = HEADER;
    for _ in 0..count(4) {
        let Some(end) = skip_name(message, at) else { return false };
        at = end + 4;
    }
    for _ in 0..count(6) + count(8) + count(10) {
        let Some(record) = Record::parse(message, at) else { return false };
        at = record.end;
    }
    at == message.len()
}

#[test]
fn the_response_to_any_packet_is_well_formed() {
    let (snapshot, rules) = (snapshot(), rules());
    let mut random = Random(20170714);
    let mut responses = 0;
    for _ in 0..ROUNDS {
        let action = Action::ALL[random.below(8)].1;
        let qtype = [1, 28, 65, 255, 5, 6, 41, 252][random.below(8)];
        let (blocked, free) = (["a", action, "example"], ["free", "example"]);
        let about = [["serial", "digest"][random.below(2)], "dnsblock"];
        let labels = [&blocked[random.below(2)..], &free, &about][random.below(3)];
        let mut packet = query(labels, qtype, random.below(2) == 1);
        if labels == about {
            let end = packet.iter().rposition(|byte| *byte == b'k').unwrap() + 2;
            packet[end..end + 4].copy_from_slice(&[0, 16, 0, 3]); // TXT of class CH
        }
        random.corrupt(&mut packet);
        let transport = Transport::ALL[random.below(2)];
        let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let client = Client { address, port: random.below(3) as u16, transport };
        let (mut asked, mut out) = (Query::blank(), [0; 4096]);
        let verdict = match read(&packet, client, &snapshot, &rules, 990, &mut asked, &mut out) {
            Ok(()) => decide(&asked, &Walk::new(&asked.name, SEED), &snapshot, &rules, 990, &mut out),
            Err(verdict) => verdict,
        };
        if let Verdict::Respond { length, .. } = verdict {
            responses += 1;
            let response = &out[..length];
            assert!(is_well_formed(response), "{packet:02x?} got {response:02x?}");
            assert_eq!(response[..2], packet[..2], "the id");
            assert_eq!(u16_at(&packet, 2).unwrap() & flag::QR, 0, "a response was answered");
            assert!(transport.is_tcp() || length <= 1232, "{length} bytes over UDP");
            assert!(
                !transport.is_tcp() || response[2] & 2 == 0 || !is_well_formed(&packet) || packet[2] & 2 != 0
            );
        }
    }
    assert!(responses > ROUNDS / 4, "only {responses} packets got a response");
}

#[test]
fn the_response_for_any_upstream_message_is_well_formed() {
    let mut random = Random(20170810);
    let (asked, target) = (query(&["free", "example"], 1, true), name("landing.example"));
    let Ok(mut query) = Query::parse(&asked, Transport::Udp) else { panic!("a plain query") };
    query.head.hop.limit = 1232;
    // Two addresses, a CNAME and an MX with pointers, an OPT with an extended error, and a record after it.
    let mut whole = asked[..HEADER + 18].to_vec();
    whole[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 4, 0, 0, 0, 2]);
    whole.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04\xc0\0\x02\x01");
    whole.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04\xc0\0\x02\x02");
    whole.extend_from_slice(b"\xc0\x0c\0\x05\0\x01\0\0\x01\x2c\0\x06\x03www\xc0\x0c");
    whole.extend_from_slice(b"\xc0\x0c\0\x0f\0\x01\0\0\x01\x2c\0\x04\0\x0a\xc0\x11");
    whole.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\0\0\0\x08\0\x0f\0\x04\0\x16no");
    whole.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04\xc0\0\x02\x03");
    assert!(is_well_formed(&whole) && relay::answers(&whole, query.head.question()));
    let mut relayed = 0;
    for round in 0..ROUNDS {
        let mut response = whole.clone();
        if round > 0 {
            random.corrupt(&mut response);
        }
        let mut parser = Parser::default();
        let read = parser.parse(&response);
        if let Some(read) = read {
            let mut steps = 0;
            let count = |_: &Name| {
                steps += 1;
                None::<()>
            };
            let mut last = query.name.clone();
            let followed =
                Chains::new(read).and_then(|mut all| all.follow(Sections::Answer, &mut last, count));
            if followed.is_ok() {
                let last = chain::Owners::new(read, last, usize::MAX).next().unwrap();
                let addresses =
                    chain::alternatives(read, &last).flat_map(|alternative| alternative.addresses).count();
                assert!(addresses <= response.len() / 4, "more addresses than bytes");
            }
            chain::is_unambiguous(read, &query.name);
            assert!(steps <= response.len() / 12 + 1, "more steps than records");
            // Some records are dropped: the rest is a message, too.
            read.entries().iter().filter(|_| random.below(8) == 0).for_each(|entry| read.drop_entry(entry));
        }
        let mut out = [0; 4096];
        if let Some(length) = read.and_then(|read| relay::respond(read, &query, 1232, &mut out)) {
            relayed += 1;
            assert_eq!(out[..2], asked[..2]);
            let question = HEADER..HEADER + query.head.question().len();
            assert_eq!(out[question.clone()], asked[question], "the question is the client's");
            assert!(length <= 1232);
            assert!(is_well_formed(&out[..length]), "{response:02x?} became {:02x?}", &out[..length]);
        }
        let opt = (1232, &[][..]);
        let length = relay::respond_with_cname(read, None, &query, &target, 30, opt, &mut out);
        assert!(is_well_formed(&out[..length]), "{response:02x?} became {:02x?}", &out[..length]);
    }
    assert!(relayed > ROUNDS / 4, "only {relayed} messages were relayed");
}
