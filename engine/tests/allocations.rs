//! Allocations per packet: none, unless an upstream is queried.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use _engine::answer::{Client, Verdict, decide, read};
use _engine::cache::{self, Age, Cache, CachedResponse, Key};
use _engine::counters::Counters;
use _engine::impact::ImpactRun;
use _engine::list;
use _engine::local::{Local, Switches};
use _engine::message::{Query, QueryClient, Soa, Transport};
use _engine::name::{Name, Walk};
use _engine::policy::names::SEED;
use _engine::policy::{Action, Answer, PlacedZone, Rule, Snapshot};
use _engine::prefix::{Prefix, Prefixes};
use _engine::response::{Parser, TtlBounds};
use _engine::rules::Rules;
use _engine::shared::{Serving, Settings};
use _engine::transport::listeners::Listening;
use _engine::transport::tcp;
use _engine::upstream;

/// No upstreams, and no TCP connections.
fn settings() -> Settings {
    let (idle, read) = (Duration::ZERO, Duration::ZERO);
    Settings {
        upstream: upstream::Settings::default(),
        tcp: tcp::Limits { connections: 0, per_client: 0, per_network: None, pipelined: 0, idle, read },
    }
}

fn place(is_shadow: bool) -> PlacedZone {
    let answer = Answer {
        ipv4: vec![Ipv4Addr::new(192, 0, 2, 53)],
        ..Answer::without_data(Action::Sinkhole, 30, Some(16))
    };
    let rule = Rule::Answer { answer: Arc::new(answer), reference: "order 1".into(), structured: None };
    let base = list::entries("list", vec![rule], b"subtree 0 blocked.example").unwrap();
    // With an overlay, as a zone of orders has after a change.
    let zone = list::with_changes(&base, Vec::<Rule>::new(), b"exact 0 changed.example\n").unwrap();
    let zone = zone.expect("one change");
    PlacedZone {
        zone: Arc::new(zone),
        next_change_at: None,
        judges_targets: true,
        is_shadow,
        clients: None,
        is_list: false,
    }
}

fn snapshot() -> Snapshot {
    Snapshot::new(vec![place(false)], 1)
}

fn rules() -> Rules {
    let name = |text: &str| Name::from_text(text.as_bytes()).unwrap();
    let everyone = Prefixes::new([Prefix { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), length: 0 }]);
    Rules {
        clients: everyone,
        max_payload: 1232,
        soa: Soa(name("localhost"), name("nobody.invalid")),
        local: Local::new(Switches { special_names: true, ..Switches::default() }, None, Prefixes::default()),
        ..Rules::default()
    }
}

fn packet(labels: &[&str], qtype: u8) -> Vec<u8> {
    let mut packet = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in labels {
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, qtype, 0, 1]);
    packet.extend_from_slice(&[0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
    packet
}

const CLIENT: Client =
    Client { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 4711, transport: Transport::Udp };

#[test]
fn a_decision_allocates_nothing() {
    let (snapshot, rules) = (snapshot(), rules());
    let (mut query, mut out) = (Query::blank(), [0; 4096]);
    let deep = ["a", "b", "c", "d", "e", "blocked", "example"];
    for (labels, qtype) in [(&deep[..], 1), (&deep[..], 28), (&["free", "example"], 1), (&["localhost"], 1)] {
        let packet = packet(labels, qtype);
        let counted = allocation_counter::measure(|| {
            let Ok(()) = read(&packet, CLIENT, &snapshot, &rules, 1, &mut query, &mut out) else {
                panic!("a query")
            };
            let verdict = decide(&query, &Walk::new(&query.name, SEED), &snapshot, &rules, 1, &mut out);
            assert_eq!(matches!(verdict, Verdict::Forward { .. }), labels[0] == "free");
        });
        assert_eq!(counted.count_total, 0, "{labels:?} {qtype}");
    }
    let garbage = allocation_counter::measure(|| {
        assert!(read(&[0; 40], CLIENT, &snapshot, &rules, 1, &mut query, &mut out).is_err());
    });
    assert_eq!(garbage.count_total, 0);
}

#[test]
fn counting_for_shadow_zones_allocates_nothing() {
    let counters = Arc::new(Counters::new(1));
    let serving = Serving {
        snapshot: Arc::new(Snapshot::new(vec![place(true)], 1)),
        rules: Arc::default(),
        slots: Vec::new(),
        shadow_slots: vec![3],
        impact_run: Some(Arc::new(ImpactRun::new(place(false).zone, vec![Arc::clone(&counters)]))),
        ..Serving::nothing(settings(), Listening::default())
    };
    assert!(serving.has_shadows());
    let name = Name::from_text(b"deep.blocked.example").unwrap();
    let walk = Walk::new(&name, SEED);
    let counted = allocation_counter::measure(|| {
        serving.count_shadows(&counters, &name, &walk, QueryClient::anybody(Transport::Udp));
        serving.count_shadows(&counters, &name, &walk, QueryClient::anybody(Transport::Tcp));
    });
    assert_eq!(counted.count_total, 0);
    assert_eq!(counters.shadow_blocked(3, Action::Sinkhole as usize), 2);
    let counts = serving.impact_run.unwrap().counts(1);
    assert_eq!((counts.queries, counts.top), (2, vec![("blocked.example".to_string(), 2)]));
}

#[test]
fn a_cached_response_is_sent_without_an_allocation() {
    let (rules, asked) = (rules(), packet(&["free", "example"], 1));
    let settings = cache::Settings { bytes: 1 << 20, ..cache::Settings::default() };
    let bounds = TtlBounds { max_ttl: 300, ..TtlBounds::default() };
    let (mut query, mut out) = (Query::blank(), [0; 4096]);
    let Ok(()) = read(&asked, CLIENT, &snapshot(), &rules, 1, &mut query, &mut out) else {
        panic!("a query")
    };
    let mut response = asked[..asked.len() - 11].to_vec();
    (response[2], response[7], response[11]) = (0x81, 1, 0);
    response.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04\xc0\0\x02\x01");
    let cache = Cache::default();
    cache.resize(settings.bytes);
    let key = Key::new(&query.head, &query.name, query.qtype);
    let mut parser = Parser::default();
    parser.parse(&response);
    let response = parser.bound_ttls(&mut response, &bounds).unwrap();
    let now = Instant::now();
    let cached = CachedResponse::new(response, key, now, &mut [0; cache::BUFFER]).unwrap();
    cache.insert(key, cached, cache.purges());
    // Allocations that a thread makes once do not count.
    assert!(cache.find(key).is_some());
    let counted = allocation_counter::measure(|| {
        let cached = cache.find(Key::new(&query.head, &query.name, query.qtype)).unwrap();
        assert_eq!(cached.age(now, &settings), Age::Fresh(0));
        assert!(cached.respond(&query, Age::Fresh(0), 1232, &mut out).is_some());
    });
    assert_eq!(counted.count_total, 0);
}
