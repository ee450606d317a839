//! Shadow zones and impact runs, compared with a naive model: the same zone, enforced alone.

use std::sync::Arc;
use std::thread;

use _engine::answer::{Judgement, judge, judge_targets};
use _engine::counters::Counters;
use _engine::impact::{ImpactCounts, ImpactRun};
use _engine::list;
use _engine::message::{Query, QueryClient, Transport};
use _engine::name::{Name, Walk};
use _engine::outcome::Outcome;
use _engine::policy::names::SEED;
use _engine::policy::{Action, Answer, Evaluation, Match, PlacedZone, PolicyZone, Rule, Snapshot};
use _engine::response::Parser;
use _engine::rules::Rules;
use _engine::targets::would_block_target;

mod common;
use common::Random;

const ACTIONS: [Action; 4] = [Action::Nxdomain, Action::Sinkhole, Action::Truncate, Action::Passthru];

fn random_zone(random: &mut Random, name: &str) -> Arc<PolicyZone> {
    let rules = ACTIONS.map(rule).into_iter().chain([Rule::Exemption]).collect();
    let entry = |random: &mut Random| {
        let (scope, _) = Match::ALL[random.below(3)];
        format!("{} {} {}\n", scope.name(), random.below(5), random.name())
    };
    let text: String = (0..1 + random.below(6)).map(|_| entry(random)).collect();
    Arc::new(list::entries(name, rules, text.as_bytes()).unwrap_or_else(|_| panic!("entries: {text}")))
}

fn rule(action: Action) -> Rule {
    let answer = Answer::without_data(action, 30, None);
    Rule::Answer { answer: Arc::new(answer), reference: "".into(), structured: None }
}

fn plain(name: &str, names: &str, action: Action) -> Arc<PolicyZone> {
    let lines: String = names.lines().map(|name| format!("subtree 0 {name}\n")).collect();
    Arc::new(list::entries(name, vec![rule(action)], lines.as_bytes()).unwrap())
}

fn snapshot<'a>(zones: impl IntoIterator<Item = (&'a Arc<PolicyZone>, bool)>) -> Snapshot {
    let place = |(zone, is_shadow): (&Arc<PolicyZone>, bool)| PlacedZone {
        zone: Arc::clone(zone),
        next_change_at: None,
        judges_targets: true,
        is_shadow,
        clients: None,
        is_list: false,
    };
    Snapshot::new(zones.into_iter().map(place).collect(), 1)
}

fn name(text: &str) -> (Name, Walk) {
    let name = Name::from_text(text.as_bytes()).unwrap();
    let walk = Walk::new(&name, SEED);
    (name, walk)
}

/// Everything in a snapshot that determines a response.
fn decision_text(snapshot: &Snapshot, name: &Name, transport: Transport) -> String {
    let decision = snapshot.find(name, QueryClient::anybody(transport));
    let found = decision.map(|d| {
        let denies = snapshot.denies_all_below(name, &d);
        (snapshot.zones()[d.zone].zone.name(), d.skip, d.scope, d.answer.action, denies)
    });
    let target = snapshot.find_target(name, Evaluation::all(QueryClient::anybody(transport)));
    let target = target.map(|d| (snapshot.zones()[d.zone].zone.name(), d.answer.action));
    format!("{found:?} {target:?}")
}

/// By which action the zone, enforced behind those before it, would block a query.
fn naively(
    before: &[&Arc<PolicyZone>],
    zone: &Arc<PolicyZone>,
    name: &Name,
    transport: Transport,
) -> Option<Action> {
    let all = snapshot(before.iter().copied().chain([zone]).map(|zone| (zone, false)));
    let decision =
        all.find(name, QueryClient::anybody(transport)).filter(|decision| decision.zone == before.len())?;
    (!decision.is_passthru()).then_some(decision.answer.action)
}

/// A zone in shadow changes nothing that is answered, and is counted what it would
/// block if it were enforced and no other one in shadow were.
#[test]
fn a_shadow_decides_nothing_and_counts_what_it_would_alone() {
    let mut random = Random(1);
    for _ in 0..400 {
        let zones: Vec<_> = (0..1 + random.below(4))
            .map(|place| (random_zone(&mut random, &format!("z{place}")), random.below(2) == 0))
            .collect();
        let mixed = snapshot(zones.iter().map(|(zone, is_shadow)| (zone, *is_shadow)));
        let enforced: Vec<_> = zones.iter().filter(|(_, is_shadow)| !is_shadow).map(|(z, _)| z).collect();
        let without = snapshot(enforced.iter().map(|zone| (*zone, false)));
        for _ in 0..30 {
            let (text, transport) = (random.name(), Transport::ALL[random.below(2)]);
            let (name, walk) = name(&text);
            assert_eq!(
                decision_text(&mixed, &name, transport),
                decision_text(&without, &name, transport),
                "{text}"
            );
            let would_block =
                |shadow| mixed.would_block(shadow, &name, &walk, QueryClient::anybody(transport));
            let undecided = |shadow| would_block(shadow).filter(|found| !found.is_decided);
            let counted: Vec<_> = mixed
                .shadows()
                .iter()
                .filter_map(|shadow| Some((shadow.zone.name(), undecided(shadow)?.action)))
                .collect();
            let shadows = zones.iter().enumerate().filter(|(_, (_, is_shadow))| *is_shadow);
            let expected: Vec<_> = shadows
                .filter_map(|(place, (zone, _))| {
                    let before: Vec<_> = zones[..place].iter().filter(|z| !z.1).map(|(z, _)| z).collect();
                    Some((zone.name(), naively(&before, zone, &name, transport)?))
                })
                .collect();
            assert_eq!(counted, expected, "{text}");
            let order: Vec<_> = mixed.covering(&name).iter().map(|(_, zone, _)| zone.name()).collect();
            assert!(order.is_sorted(), "entries are in configured order: {order:?}");
        }
    }
}

/// An upstream's answer about a name: along CNAME, or not, to what is offered there.
fn response(random: &mut Random, queried: &Name) -> Vec<u8> {
    let mut message = vec![0, 1, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend([queried.suffix(0), &[0, 1, 0, 1]].concat());
    let mut owner = queried.suffix(0).to_vec();
    let mut add = |owner: &[u8], rtype: u8, rdata: &[u8]| {
        message[7] += 1;
        message.extend([owner, &[0, rtype, 0, 1, 0, 0, 1, 0, 0, rdata.len() as u8], rdata].concat());
    };
    for _ in 0..random.below(3) {
        let target = name(&random.name()).0.suffix(0).to_vec();
        add(&owner, 5, &target);
        owner = target;
    }
    for _ in 0..random.below(3) {
        match random.below(2) {
            0 => add(&owner, 1, &[192, 0, 2, random.below(4) as u8]),
            _ => add(&owner, 65, &[&[0, 1], name(&random.name()).0.suffix(0)].concat()),
        }
    }
    message
}

/// How a snapshot answers a query for where the upstream's answer leads.
fn led(snapshot: &Snapshot, query: &Query, response: &[u8]) -> Option<Outcome> {
    let (rules, mut out) = (Rules::default(), [0; 4096]);
    let mut parser = Parser::default();
    let response = parser.parse(response).expect("as an upstream writes it");
    let first = judge(query, &Walk::new(&query.name, SEED), snapshot, &rules, 0, &mut out).judges()?;
    match judge_targets(query, response, first, snapshot, &rules, 0, &mut out) {
        Judgement::Answer { outcome, .. } | Judgement::Silence(outcome) => Some(outcome),
        _ => None,
    }
}

/// A shadow zone counts CNAME, DNAME, HTTPS and SVCB targets as it would block them if enforced alone.
#[test]
fn a_shadow_counts_the_targets_that_it_would_block_if_enforced() {
    let (mut random, mut blocked) = (Random(3), 0);
    for _ in 0..400 {
        let mut zones: Vec<_> = (0..1 + random.below(3))
            .map(|place| (random_zone(&mut random, &format!("z{place}")), random.below(2) == 0))
            .collect();
        let prefixes = format!("192.0.2.{}/31", random.below(2) * 2);
        let net = list::addresses("net", prefixes.as_bytes(), rule(Action::Nxdomain));
        zones.insert(random.below(2), (Arc::new(net.unwrap_or_else(|_| panic!())), random.below(2) == 0));
        let mixed = snapshot(zones.iter().map(|(zone, is_shadow)| (zone, *is_shadow)));
        for _ in 0..20 {
            let ((queried, walk), transport) = (name(&random.name()), Transport::ALL[random.below(2)]);
            let response = response(&mut random, &queried);
            let question = [&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], queried.suffix(0), &[0, 1, 0, 1]].concat();
            let query = Query::parse(&question, transport).unwrap();
            let allowed_by = match judge(&query, &walk, &mixed, &Rules::default(), 0, &mut [0; 4096]) {
                Judgement::Pass => None,
                Judgement::Allow(judges) => Some(judges),
                _ => continue,
            };
            for (place, shadow) in mixed.shadows().iter().enumerate() {
                let this = zones.iter().filter(|(_, is_shadow)| *is_shadow).nth(place).unwrap();
                let enforced = zones.iter().filter(|zone| std::ptr::eq(*zone, this) || !zone.1);
                let alone = snapshot(enforced.map(|(zone, _)| (zone, false)));
                let expected = match led(&alone, &query, &response) {
                    Some(Outcome::Blocked { zone, action, .. }) if zone == shadow.after => Some(action),
                    _ => None,
                };
                let mut parser = Parser::default();
                let read = parser.parse(&response).expect("as an upstream writes it");
                let counted = would_block_target(&query, read, allowed_by, &mixed, shadow);
                // An enforced zone is counted by its answer, which is NODATA for a target.
                let answered = counted.map(|found| match found.action {
                    Action::Nxdomain | Action::Sinkhole => Action::Nodata,
                    other => other,
                });
                assert_eq!(answered, expected, "{queried} {response:?}");
                blocked += usize::from(expected.is_some());
            }
        }
    }
    assert!(blocked > 200, "{blocked}");
}

#[test]
fn a_shadow_enters_the_digest_and_no_shield() {
    let (blocked, exemption) =
        (plain("b", "t.example", Action::Nxdomain), plain("p", "cdn.t.example", Action::Passthru));
    let with = |is_shadow| snapshot([(&exemption, is_shadow), (&blocked, false)]);
    assert_ne!(with(true).digest(), with(false).digest());
    assert_ne!(with(true).digest(), snapshot([(&blocked, false)]).digest());
    let (asked, _) = name("t.example");
    let denies = |snapshot: &Snapshot| {
        snapshot
            .denies_all_below(&asked, &snapshot.find(&asked, QueryClient::anybody(Transport::Udp)).unwrap())
    };
    assert!(denies(&with(true)));
    assert!(!denies(&with(false)));
}

/// Counts a query by its name, as a worker thread does.
fn count(run: &ImpactRun, text: &str, transport: Transport, served: &Snapshot) {
    let (name, walk) = name(text);
    if let Some(found) = served.would_block(run.shadow(), &name, &walk, QueryClient::anybody(transport)) {
        run.count(found);
    }
}

fn impact_run(names: &str, counters: Vec<Arc<Counters>>) -> ImpactRun {
    ImpactRun::new(plain("impact", names, Action::Nodata), counters)
}

#[test]
fn an_impact_run_counts_each_entry_as_if_its_zone_came_last() {
    let mut random = Random(2);
    for _ in 0..300 {
        let zones = [random_zone(&mut random, "a"), random_zone(&mut random, "b")];
        let served = snapshot(zones.iter().map(|zone| (zone, false)));
        let candidate = random_zone(&mut random, "impact");
        let run = ImpactRun::new(Arc::clone(&candidate), Vec::new());
        let (mut blocked, mut decided) = (std::collections::HashMap::new(), 0);
        for _ in 0..60 {
            let (text, transport) = (random.name(), Transport::ALL[random.below(2)]);
            count(&run, &text, transport, &served);
            let (name, walk) = name(&text);
            let owner = candidate
                .find(&name, &walk)
                .map(|found| text.split('.').skip(found.skip).collect::<Vec<_>>().join("."));
            let before: Vec<_> = zones.iter().collect();
            match (naively(&[], &candidate, &name, transport), naively(&before, &candidate, &name, transport))
            {
                (None, _) => {}
                (Some(_), None) => decided += 1,
                (Some(_), Some(_)) => *blocked.entry(owner.unwrap()).or_insert(0) += 1,
            }
        }
        let counts = run.counts(usize::MAX);
        assert_eq!((counts.blocked, counts.decided), (blocked.values().sum(), decided));
        assert_eq!(counts.blocking_names, blocked.len());
        assert_eq!(counts.top.into_iter().collect::<std::collections::HashMap<_, _>>(), blocked);
    }
}

#[test]
fn the_top_has_the_highest_counts_and_at_most_the_requested_number() {
    let names: Vec<_> = (0..50).map(|number| format!("n{number:02}.example")).collect();
    let (run, served) = (impact_run(&names.join("\n"), Vec::new()), snapshot([]));
    for (times, name) in names.iter().enumerate() {
        (0..times).for_each(|_| count(&run, name, Transport::Udp, &served));
    }
    let counts = run.counts(3);
    assert_eq!((counts.blocked, counts.blocking_names, counts.queried_names), ((0..50).sum(), 49, 49));
    let top: Vec<_> = counts.top.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(top, [("n49.example", 49), ("n48.example", 48), ("n47.example", 47)]);
    assert_eq!(run.counts(0), ImpactCounts { top: Vec::new(), ..counts });
}

#[test]
fn worker_threads_count_at_the_same_time_without_losing_queries() {
    let (run, served) = (impact_run("t.example", Vec::new()), snapshot([]));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..10_000).for_each(|_| count(&run, "x.t.example", Transport::Udp, &served)));
        }
    });
    assert_eq!(run.counts(1).top, [("t.example".to_string(), 40_000)]);
}

#[test]
fn an_impact_run_counts_only_queries_since_its_start() {
    let counters = Arc::new(Counters::new(1));
    counters.impact_queries.add(7);
    let run = impact_run("t.example", vec![Arc::clone(&counters)]);
    counters.impact_queries.add(3);
    assert_eq!(run.counts(1).queries, 3);
}
