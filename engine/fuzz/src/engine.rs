//! The engine for the properties: bytes in, bytes out, and its configuration. No other file here
//! except `formats.rs` uses the engine's items.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

use _engine::answer::{Client, Judgement, Verdict, decide, judge_targets, read};
use _engine::chain::{self, Chains, Sections};
use _engine::cookie::Secrets;
use _engine::local::{Local, Switches};
use _engine::message::{ExtendedError, MAX_MESSAGE, Query, Soa, Transport};
use _engine::name::{Name, Walk};
use _engine::outcome::Outcome;
use _engine::policy::names::SEED;
use _engine::policy::{Action, Answer, Judges, PlacedZone, PolicyZone, Rule, Snapshot, Target};
use _engine::prefix::{Prefix, Prefixes};
use _engine::response::Parser;
use _engine::rules::Rules;
use _engine::{list, relay};

/// Bytes of a UDP response at most.
pub const MAX_PAYLOAD: u16 = 1232;
/// The target of the CNAME for blocked names.
pub const LANDING: &str = "landing.example";
/// How many times larger than its query a response to an unverified client may be.
pub const AMPLIFICATION: usize = 10;
/// The zone of blocked addresses comes after so many zones of the policy. Its action is NODATA.
pub const BADNETS_AT: usize = 3;
pub const BADNETS: [(IpAddr, u8); 2] = [
    (IpAddr::V4(Ipv4Addr::new(198, 51, 100, 0)), 24),
    (IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 0)), 48),
];
/// IPv4 addresses of the sinkhole: more than fit into 512 bytes. It has one IPv6 address.
pub const IPV4_COUNT: usize = 40;
/// The zone whose entries change soon.
pub const CHANGING: &str = "orders";
/// In seconds; the change comes earlier.
pub const TTL: u32 = 30;
pub const SECONDS_TO_CHANGE: u32 = 10;
const NOW: u64 = 1_000_000;
/// The output buffer: larger than any UDP response may be, so that a violation is seen.
const DATAGRAM: usize = 4096;

/// The policy: zones in order. Each has a name, whether it judges the targets of answers, and its
/// entries.
pub const POLICY: [(&str, bool, &[Entry]); 4] = [
    (
        "allowed",
        true,
        &[("subtree", "passthru", "ok.nxdomain.example"), ("exact", "passthru", "ok.sinkhole.example")],
    ),
    (
        "orders",
        true,
        &[
            ("subtree", "sinkhole", "sinkhole.example"),
            ("subtree", "nxdomain", "nxdomain.example"),
            ("subtree", "nodata", "nodata.example"),
            ("subtree", "refused", "refused.example"),
            ("subtree", "drop", "drop.example"),
            ("subtree", "truncate", "truncate.example"),
            ("subtree", "cname", "cname.example"),
            ("exact", "nxdomain", "exact.example"),
            ("below", "nxdomain", "below.example"),
            ("below", "nodata", "both.example"),
            ("exact", "sinkhole", "both.example"),
            ("subtree", "nxdomain", "t.me"),
            ("subtree", "exempt", "hole.sinkhole.example"),
            ("exact", "exempt", "hole.nodata.example"),
            ("subtree", "sinkhole", "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.deep.example"),
        ],
    ),
    (
        "later",
        false,
        &[
            ("subtree", "nodata", "x.hole.sinkhole.example"),
            ("subtree", "nxdomain", "later.example"),
            ("exact", "exempt", "hole.later.example"),
            ("subtree", "refused", "nxdomain.example"),
            ("subtree", "nodata", "truncate.example"),
            ("exact", "passthru", "ok.truncate.example"),
        ],
    ),
    // After the zone of addresses.
    (
        "last",
        true,
        &[
            ("subtree", "passthru", "free.example"),
            ("exact", "passthru", "www.example"),
            ("subtree", "passthru", "svc.example"),
            ("subtree", "nodata", "tcp.truncate.example"),
        ],
    ),
];

/// Match, action or `exempt`, and name.
pub type Entry = (&'static str, &'static str, &'static str);

/// A client, and how it queries.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub address: IpAddr,
    pub port: u16,
    pub over_tcp: bool,
    /// Whether the ACL drops queries of other clients instead of refusing them.
    pub drop_others: bool,
}

/// The access control list.
pub const SERVED: [(IpAddr, u8); 2] = [
    (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 0)), 24),
    (IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0)), 32),
];

/// The result for a packet. `blocked` is the zone and the action, if a zone decided.
#[derive(Debug)]
pub enum Decided {
    Dropped {
        blocked: Option<(usize, &'static str)>,
    },
    Answered {
        response: Vec<u8>,
        blocked: Option<(usize, &'static str)>,
    },
    /// `query` is the query to the upstream; `follow` is in wire format.
    Forwarded {
        query: Vec<u8>,
        follow: Option<Vec<u8>>,
    },
}

pub fn decided(packet: &[u8], peer: Peer) -> Decided {
    decided_by(&SNAPSHOT, packet, peer)
}

fn decided_by(snapshot: &Snapshot, packet: &[u8], peer: Peer) -> Decided {
    let Peer { address, port, over_tcp, drop_others } = peer;
    let rules = if drop_others { &RULES.1 } else { &RULES.0 };
    let mut out = vec![0; if over_tcp { MAX_MESSAGE } else { DATAGRAM }];
    let (client, mut query) = (Client { address, port, transport: transport(over_tcp) }, Query::blank());
    let verdict = match read(packet, client, snapshot, rules, NOW, &mut query, &mut out) {
        Ok(()) => decide(&query, &Walk::new(&query.name, SEED), snapshot, rules, NOW, &mut out),
        Err(verdict) => verdict,
    };
    match verdict {
        Verdict::Drop(outcome) => Decided::Dropped { blocked: blocked(outcome) },
        Verdict::Respond { length, outcome, .. } => {
            out.truncate(length);
            Decided::Answered { response: out, blocked: blocked(outcome) }
        }
        Verdict::Notify { .. } => unreachable!("no zone is received by zone transfer"),
        Verdict::Forward { follow, .. } => {
            let length =
                query.write_upstream(0xf00d, query.head.question(), Some((MAX_PAYLOAD, &[])), &mut out);
            out.truncate(length.expect("a query of one question fits"));
            Decided::Forwarded { query: out, follow: follow.map(|name| name.suffix(0).to_vec()) }
        }
    }
}

fn blocked(outcome: Outcome) -> Option<(usize, &'static str)> {
    match outcome {
        Outcome::Blocked { zone, action, .. } => Some((zone, action.name())),
        _ => None,
    }
}

//------- Forwarded queries ---------------------------------------------------

/// An outstanding query of a client.
pub struct Waiting {
    query: Query,
}

/// The judgement on the targets of an upstream's answer.
#[derive(Debug, PartialEq)]
pub enum Judged {
    /// The relayed response, without blocked records.
    Pass(Option<Vec<u8>>),
    Silence,
    Unreadable,
    Answer(Vec<u8>),
    /// The upstream is queried for the target of our own CNAME instead.
    Follow(String),
}

impl Waiting {
    /// `None` for a packet that is not a query.
    pub fn new(packet: &[u8], over_tcp: bool) -> Option<Waiting> {
        let mut query = Query::parse(packet, transport(over_tcp)).ok()?;
        query.head.hop.limit = if over_tcp { MAX_MESSAGE } else { query.head.payload_limit(MAX_PAYLOAD) };
        Some(Waiting { query })
    }

    pub fn question(&self) -> &[u8] {
        self.query.head.question()
    }

    /// The size limit of the response.
    pub fn limit(&self) -> usize {
        self.query.head.hop.limit
    }

    pub fn relayed(&self, response: &[u8]) -> Option<Vec<u8>> {
        let (mut out, mut parser) = (vec![0; MAX_MESSAGE], Parser::default());
        let length = relay::respond(parser.parse(response)?, &self.query, MAX_PAYLOAD, &mut out)?;
        out.truncate(length);
        Some(out)
    }

    /// The response if the name is blocked by a CNAME to `LANDING`.
    pub fn followed(&self, response: Option<&[u8]>) -> Vec<u8> {
        let mut out = vec![0; MAX_MESSAGE];
        let opt = (MAX_PAYLOAD, &[ExtendedError::new(4, b"why")][..]);
        let mut parser = Parser::default();
        let response = response.and_then(|response| parser.parse(response));
        let length =
            relay::respond_with_cname(response, None, &self.query, &name(LANDING), TTL, opt, &mut out);
        out.truncate(length);
        out
    }

    /// The response if the upstream's response does not fit.
    pub fn truncated(&self) -> Vec<u8> {
        let mut out = vec![0; MAX_MESSAGE];
        let length = relay::respond_truncated(&self.query, MAX_PAYLOAD, &mut out);
        out.truncate(length);
        out
    }

    pub fn targets_judged(&self, response: &[u8]) -> Judged {
        let (mut out, mut parser) = (vec![0; MAX_MESSAGE], Parser::default());
        let Some(response) = parser.parse(response) else { return Judged::Unreadable };
        match judge_targets(&self.query, response, Judges::ALL, &SNAPSHOT, &RULES.0, NOW, &mut out) {
            Judgement::Pass => {
                let length = relay::respond(response, &self.query, MAX_PAYLOAD, &mut out);
                Judged::Pass(length.map(|length| out[..length].to_vec()))
            }
            Judgement::Allow(_) => unreachable!("a passthru only exempts from later zones"),
            Judgement::Silence(_) => Judged::Silence,
            Judgement::Unreadable => Judged::Unreadable,
            Judgement::Answer { length, .. } => {
                out.truncate(length);
                Judged::Answer(out)
            }
            Judgement::Follow(_, target, _) => Judged::Follow(target.to_string()),
        }
    }
}

/// Whether the message is a response to the question.
pub fn answers(response: &[u8], question: &[u8]) -> bool {
    relay::answers(response, question)
}

/// Follows the CNAME chain and targets of any message. It may not panic.
pub fn follow_chain(response: &[u8]) {
    let (mut parser, free) = (Parser::default(), name("free.example"));
    let Some(response) = parser.parse(response) else { return };
    chain::is_unambiguous(response, &free);
    let (mut last, judge) = (free.clone(), |_: &Name| None::<()>);
    let followed =
        Chains::new(response).and_then(|mut chains| chains.follow(Sections::Answer, &mut last, judge));
    if followed.is_ok() {
        let last = chain::Owners::new(response, last, usize::MAX).next().expect("the first");
        chain::alternatives(response, &last).flat_map(|alternative| alternative.addresses).count();
    }
}

//------- Lists --------------------------------------------------------------

/// A compiled list that answers queries.
pub struct Listed {
    pub digest: [u8; 32],
    pub entries: usize,
    snapshot: Snapshot,
}

/// The rules of entries, by index.
pub const LIST_RULES: [&str; 3] = ["exempt", "nodata", "sinkhole"];

/// Compiles lines of match, index of a rule, and name. `Err` is the number of invalid lines.
pub fn entries(text: &[u8]) -> Result<Listed, usize> {
    listed(list::entries("fuzz", LIST_RULES.map(rule).into(), text))
}

/// Compiles a list of addresses and prefixes.
pub fn addresses(text: &[u8]) -> Result<Listed, usize> {
    listed(list::addresses("fuzz", text, rule("nodata")))
}

fn listed(zone: Result<PolicyZone, list::ZoneError>) -> Result<Listed, usize> {
    match zone {
        Ok(zone) => {
            let (digest, entries) = (*zone.digest(), zone.entries());
            Ok(Listed { digest, entries, snapshot: Snapshot::new(vec![in_place(zone, true)], 1) })
        }
        Err(list::ZoneError::InvalidLines { lines, total }) => {
            assert_eq!(lines.len(), total.min(100), "the first hundred invalid lines are described");
            for line in lines {
                assert!(line.value.chars().chain(line.reason.chars()).all(|c| !c.is_control()));
                assert!(line.number > 0 && !line.reason.is_empty());
            }
            Err(total)
        }
        Err(list::ZoneError::NotCompiled(error)) => panic!("{error:?}"),
    }
}

impl Listed {
    pub fn decided(&self, packet: &[u8]) -> Decided {
        let address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        decided_by(&self.snapshot, packet, Peer { address, port: 9, over_tcp: false, drop_others: false })
    }

    /// Whether an upstream's response to `query` is blocked because of its targets.
    pub fn blocks(&self, query: &[u8], response: &[u8]) -> bool {
        let waiting = Waiting::new(query, false).expect("a plain query");
        let (mut out, mut parser) = (vec![0; DATAGRAM], Parser::default());
        let Some(response) = parser.parse(response) else { return false };
        let judged =
            judge_targets(&waiting.query, response, Judges::ALL, &self.snapshot, &RULES.0, NOW, &mut out);
        matches!(judged, Judgement::Answer { .. })
    }
}

//------- Configuration -------------------------------------------------------

/// With REFUSED for other clients, and with dropped queries.
static RULES: LazyLock<(Rules, Rules)> = LazyLock::new(|| (rules(false), rules(true)));

static SNAPSHOT: LazyLock<Snapshot> = LazyLock::new(|| {
    let numbers: Vec<&str> = Action::ALL.iter().map(|(_, name)| *name).chain(["exempt"]).collect();
    let zones = POLICY.map(|(zone, judges_targets, entries)| {
        let rules = numbers.iter().map(|action| rule(action)).collect();
        let line = |&(scope, action, name): &Entry| {
            let number = numbers.iter().position(|known| *known == action);
            format!("{scope} {} {name}\n", number.expect("an action or `exempt`"))
        };
        let text: String = entries.iter().map(line).collect();
        in_place(list::entries(zone, rules, text.as_bytes()).expect("valid entries"), judges_targets)
    });
    let badnets: String = BADNETS.iter().map(|(address, length)| format!("{address}/{length}\n")).collect();
    let badnets = list::addresses("badnets", badnets.as_bytes(), rule("nodata"));
    let badnets = in_place(badnets.expect("valid prefixes"), true);
    // A shadow zone before all others: it must have no effect.
    let shadow =
        list::entries("shadow", vec![rule("drop"), rule("passthru")], b"subtree 0 example\nsubtree 1 t.me\n");
    let shadow = in_place(shadow.expect("valid entries"), true);
    let shadow = PlacedZone { is_shadow: true, ..shadow };
    let mut zones: Vec<PlacedZone> = zones.into_iter().collect();
    zones.insert(BADNETS_AT, badnets);
    Snapshot::new([shadow].into_iter().chain(zones).collect(), 7)
});

fn transport(over_tcp: bool) -> Transport {
    if over_tcp { Transport::Tcp } else { Transport::Udp }
}

fn rules(drop_others: bool) -> Rules {
    let all = Switches { special_names: true, private_reverse: true, canary: true };
    Rules {
        clients: Prefixes::new(SERVED.map(|(address, length)| Prefix { address, length })),
        drop_others,
        amplification: AMPLIFICATION,
        secrets: Secrets(vec![[7; 16]]),
        max_payload: MAX_PAYLOAD,
        keepalive: 100,
        structured_option: Some(65023),
        soa: Soa(name("localhost"), name("nobody.invalid")),
        local: Local::new(all, Some(b"\x08qnamemin".to_vec()), Prefixes::default()),
        ..Rules::default()
    }
}

fn rule(action: &str) -> Rule {
    let Some(action) = Action::from_name(action) else { return Rule::Exemption };
    let has_addresses = usize::from(action == Action::Sinkhole);
    let answer = Answer {
        ipv4: vec![Ipv4Addr::new(192, 0, 2, 53); has_addresses * IPV4_COUNT],
        ipv6: vec![Ipv6Addr::LOCALHOST; has_addresses],
        target: (action == Action::Cname).then(|| Target::Name(name(LANDING))),
        ..Answer::without_data(action, TTL, Some(16))
    };
    Rule::Answer { answer: Arc::new(answer), reference: "order 17/2017".repeat(15).into(), structured: None }
}

fn in_place(zone: PolicyZone, judges_targets: bool) -> PlacedZone {
    let next_change_at = (zone.name() == CHANGING).then_some(NOW + u64::from(SECONDS_TO_CHANGE));
    PlacedZone {
        zone: Arc::new(zone),
        next_change_at,
        judges_targets,
        is_shadow: false,
        clients: None,
        is_list: false,
    }
}

fn name(text: &str) -> Name {
    Name::from_text(text.as_bytes()).expect("a valid name")
}
