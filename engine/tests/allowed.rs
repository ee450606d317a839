//! Names that the operator exempts from lists, compared with a naive model.

use std::net::IpAddr;
use std::sync::Arc;

use _engine::message::{QueryClient, Transport};
use _engine::name::{Name, Walk};
use _engine::nat64::Nat64;
use _engine::policy::names::SEED;
use _engine::policy::{Action, Answer, Evaluation, Judges, Match, PlacedZone, PolicyZone, Rule, Snapshot};
use _engine::{list, prefix::Prefix};

const ACTIONS: [Option<Action>; 4] =
    [None, Some(Action::Passthru), Some(Action::Nxdomain), Some(Action::Sinkhole)];

/// One entry: its match, the index of its action, and its owner.
type Entry = (Match, usize, String);

fn rule(action: Option<Action>) -> Rule {
    let answer = |action| Answer::without_data(action, 30, None);
    match action {
        None => Rule::Exemption,
        Some(action) => {
            Rule::Answer { answer: Arc::new(answer(action)), reference: "".into(), structured: None }
        }
    }
}

fn compiled(entries: &[Entry], rules: Vec<Rule>) -> PolicyZone {
    let lines: Vec<String> =
        entries.iter().map(|(scope, rule, owner)| format!("{} {rule} {owner}", scope.name())).collect();
    list::entries("z", rules, lines.join("\n").as_bytes()).ok().unwrap()
}

fn placed(zone: PolicyZone, is_list: bool) -> PlacedZone {
    let (zone, next_change_at) = (Arc::new(zone), None);
    PlacedZone { zone, next_change_at, judges_targets: true, is_shadow: false, clients: None, is_list }
}

fn covers((scope, _, owner): &Entry, name: &str) -> bool {
    match scope {
        _ if name == owner => *scope != Match::Below,
        Match::Exact => false,
        _ => name.ends_with(&format!(".{owner}")),
    }
}

/// The entry of the longest owner; of the same owner, an exact one decides about the name itself, then the
/// first one.
fn longest<'a>(entries: &'a [Entry], name: &str) -> Option<&'a Entry> {
    let found = entries.iter().filter(|entry| covers(entry, name));
    let precedence = |entry: &&Entry| (entry.2.len(), entry.0 == Match::Exact);
    found.rev().max_by_key(precedence)
}

/// The action for a name; `None`: none decides.
fn model(zones: &[(Vec<Entry>, bool)], allowed: &[Entry], name: &str) -> Option<Action> {
    zones.iter().find_map(|(entries, is_list)| {
        let (_, rule, owner) = longest(entries, name)?;
        let action = ACTIONS[*rule]?;
        let is_exempt = longest(allowed, name).is_some_and(|by| by.2.len() >= owner.len());
        (action == Action::Passthru || !(*is_list && is_exempt)).then_some(action)
    })
}

/// In each round: zones of orders and of lists, names that are allowed, and names in and around them. A
/// target is decided as a name.
#[test]
fn an_allowed_name_is_exempt_from_lists_and_from_no_order() {
    let mut random = 11u64;
    let mut draw = |below: usize| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) as usize % below
    };
    let client = QueryClient::anybody(Transport::Udp);
    let (mut exempt, mut blocked) = (0, 0);
    for _ in 0..400 {
        let mut entries = |most: usize, actions: usize| -> Vec<Entry> {
            let mut found: Vec<Entry> = Vec::new();
            for _ in 0..1 + draw(most) {
                let labels: Vec<&str> = (0..1 + draw(3)).map(|_| ["a", "b", "cc"][draw(3)]).collect();
                let entry = (Match::ALL[draw(3)].0, draw(actions), labels.join("."));
                // One entry for each owner: which of several decides is another test's matter.
                if found.iter().all(|other| other.2 != entry.2) {
                    found.push(entry);
                }
            }
            found
        };
        let allowed = entries(3, 1);
        let zones: Vec<(Vec<Entry>, bool)> = (0..3).map(|place| (entries(6, 4), place != 1)).collect();
        let rules = || ACTIONS.map(rule).to_vec();
        let place = |(own, is_list): &(Vec<Entry>, bool)| placed(compiled(own, rules()), *is_list);
        let names = Arc::new(compiled(&allowed, vec![Rule::passthru()]));
        let configured = zones.iter().map(place).collect();
        let snapshot = Snapshot::with_allowed(configured, Nat64::default(), Some(names), 1);
        for _ in 0..100 {
            let labels: Vec<&str> = (0..1 + draw(5)).map(|_| ["a", "b", "cc", "d"][draw(4)]).collect();
            let (text, name) = (labels.join("."), Name::from_text(labels.join(".").as_bytes()).unwrap());
            let expected = model(&zones, &allowed, &text);
            let decided = snapshot.decide(&name, &Walk::new(&name, SEED), client);
            assert_eq!(decided.map(|one| one.answer.action), expected, "{text} {zones:?} {allowed:?}");
            let target = snapshot.find_target(&name, Evaluation::all(client));
            assert_eq!(target.map(|one| one.answer.action), expected, "target {text}");
            blocked += usize::from(expected.is_some());
            exempt += usize::from(expected != model(&zones, &[], &text));
        }
    }
    assert!(blocked > 5_000 && exempt > 500, "{blocked} {exempt}");
}

/// Only orders judge the targets of an allowed name.
#[test]
fn lists_do_not_judge_the_targets_of_an_allowed_name() {
    let address: IpAddr = [192, 0, 2, 7].into();
    let prefix = Prefix { address, length: 32 };
    let block = || vec![rule(Some(Action::Nxdomain))];
    let of_addresses = PolicyZone::of_addresses("addresses", rule(Some(Action::Nodata)), vec![prefix]);
    let entry = |owner: &str| vec![(Match::Subtree, 0, owner.to_string())];
    let configured = vec![
        placed(compiled(&entry("listed.example"), block()), true),
        placed(compiled(&entry("ordered.example"), block()), false),
        placed(of_addresses, true),
    ];
    let allowed = Arc::new(compiled(&entry("good.example"), vec![Rule::passthru()]));
    let snapshot = Snapshot::with_allowed(configured, Nat64::default(), Some(allowed), 1);
    let name = |text: &str| Name::from_text(text.as_bytes()).unwrap();
    let judges = snapshot.judges_from(&name("www.good.example"));
    assert_eq!(judges, Judges { lists: false, ..Judges::ALL });
    assert_eq!(snapshot.judges_from(&name("other.example")), Judges::ALL);
    let client = QueryClient::anybody(Transport::Udp);
    let from_allowed = Evaluation::all(client).from(judges);
    let (listed, ordered) = (name("listed.example"), name("ordered.example"));
    assert!(snapshot.find_target(&listed, from_allowed).is_none());
    assert!(snapshot.find_target(&listed, Evaluation::all(client)).is_some());
    assert!(snapshot.find_target(&ordered, from_allowed).is_some());
    assert!(snapshot.find_address(address, from_allowed).is_none());
    assert!(snapshot.find_address(address, Evaluation::all(client)).is_some());
}

/// NXDOMAIN would deny the allowed name as well (RFC 8020 section 2).
#[test]
fn a_list_does_not_deny_a_name_above_an_allowed_one() {
    let of = |scope, owner: &str| vec![(scope, 0, owner.to_string())];
    let denied = compiled(&of(Match::Subtree, "example"), vec![rule(Some(Action::Nxdomain))]);
    let allowed = Arc::new(compiled(&of(Match::Exact, "a.good.example"), vec![Rule::passthru()]));
    let snapshot = Snapshot::with_allowed(vec![placed(denied, true)], Nat64::default(), Some(allowed), 1);
    let denies = |text: &str| {
        let name = Name::from_text(text.as_bytes()).unwrap();
        let decision = snapshot.find(&name, QueryClient::anybody(Transport::Udp)).unwrap();
        snapshot.denies_all_below(&name, &decision)
    };
    assert!(!denies("example") && !denies("good.example"));
    assert!(denies("bad.example"));
}
