//! A zone with changes answers, and is identified, as one that is compiled from all its entries.

use std::collections::BTreeMap;
use std::sync::Arc;

use _engine::impact::ImpactRun;
use _engine::list;
use _engine::message::{QueryClient, Transport};
use _engine::name::{Name, Text, Walk};
use _engine::policy::names::SEED;
use _engine::policy::{Action, Answer, Decision, Match, PlacedZone, PolicyZone, Rule, Scope, Snapshot};

mod common;
use common::Random;

/// A rule by its number: an action of an order, or an exemption.
fn rule(number: usize) -> Rule {
    if number.is_multiple_of(7) {
        return Rule::Exemption;
    }
    let actions = [Action::Nxdomain, Action::Sinkhole, Action::Truncate, Action::Passthru, Action::Nxdomain];
    let action = actions[number % 5];
    let answer = Answer::without_data(action, 30, None);
    let reference = format!("order {number}").into();
    Rule::Answer { answer: Arc::new(answer), reference, structured: None }
}

/// The entries of a zone: by name, each with a match and the number of a rule.
type Entries = BTreeMap<String, Vec<(Match, usize)>>;

/// The rules in any order, and the lines of some names. `given`: how many rules the zone has.
fn lines<'a>(
    random: &mut Random,
    entries: &Entries,
    names: impl Iterator<Item = &'a String> + Clone,
    given: usize,
) -> (Vec<Rule>, String) {
    let used = names.clone().filter_map(|name| entries.get(name)).flatten();
    let mut numbers: Vec<usize> = used.map(|(_, number)| *number).collect();
    let turn = random.below(numbers.len().max(1));
    numbers.rotate_left(turn);
    numbers.dedup();
    let mut text = String::new();
    for name in names {
        for (scope, number) in entries.get(name).into_iter().flatten() {
            let index = given + numbers.iter().position(|other| other == number).unwrap();
            text += &format!("{} {index} {name}\n", scope.name());
        }
        if !entries.contains_key(name) {
            text += &format!("remove 0 {name}\n");
        }
    }
    (numbers.into_iter().map(rule).collect(), text)
}

fn compiled(random: &mut Random, entries: &Entries) -> PolicyZone {
    let (rules, text) = lines(random, entries, entries.keys(), 0);
    list::entries("z", rules, text.as_bytes()).unwrap_or_else(|_| panic!("entries: {text}"))
}

fn changed(random: &mut Random, before: &PolicyZone, now: &Entries, names: &[String]) -> Option<PolicyZone> {
    let (rules, text) = lines(random, now, names.iter(), before.rules().given());
    list::with_changes(before, rules, text.as_bytes()).unwrap_or_else(|_| panic!("changes: {text}"))
}

fn compiled_again(zone: &PolicyZone) -> Arc<PolicyZone> {
    Arc::new(list::compiled_again(zone).unwrap_or_else(|_| panic!("the entries of a zone")))
}

/// Changes some names at random: adds, replaces and removes entries.
fn change(random: &mut Random, entries: &mut Entries) -> Vec<String> {
    let names: Vec<String> = (0..random.below(4)).map(|_| random.name()).collect();
    for name in &names {
        entries.remove(name);
        let entry = |random: &mut Random| (Match::ALL[random.below(3)].0, random.below(15));
        let new: Vec<_> = (0..random.below(3)).map(|_| entry(random)).collect();
        if !new.is_empty() {
            entries.insert(name.clone(), new);
        }
    }
    names
}

fn snapshot(zone: &Arc<PolicyZone>, other: &Arc<PolicyZone>, is_first: bool, is_shadow: bool) -> Snapshot {
    let place = |zone: &Arc<PolicyZone>, is_shadow| {
        let zone = Arc::clone(zone);
        PlacedZone {
            zone,
            next_change_at: None,
            judges_targets: true,
            is_shadow,
            clients: None,
            is_list: false,
        }
    };
    let mut zones = vec![place(zone, is_shadow), place(other, false)];
    zones.rotate_left(usize::from(!is_first));
    Snapshot::new(zones, 1)
}

/// Whether NXDOMAIN is true for a name and all names below, by a look at all entries.
fn naively_denies(snapshot: &Snapshot, text: &str, decision: &Decision<'_>) -> bool {
    let mut denies = decision.answer.action == Action::Nxdomain && decision.scope != Match::Exact;
    for (place, placed) in snapshot.zones()[..=decision.zone].iter().enumerate() {
        let zone = &placed.zone;
        let is = |side: Option<(Match, u32)>, wanted| {
            side.is_none_or(|(_, rule)| match &*zone.rules().all()[rule as usize] {
                Rule::Answer { answer, .. } => answer.action == wanted,
                Rule::Exemption => false,
            })
        };
        let take = |_, owner: &Text, scope: &Scope| {
            let owner = std::str::from_utf8(owner.as_bytes()).unwrap();
            let is_below = owner == text || owner.ends_with(&format!(".{text}"));
            let is_tcp_only = is(scope.at, Action::Truncate) && is(scope.under, Action::Truncate);
            let is_passed = place < decision.zone && is_tcp_only;
            let denies_below = scope.under.is_some() && is(scope.under, Action::Nxdomain);
            denies &= !is_below || denies_below || is_passed;
        };
        zone.each(|_, _| true, take);
    }
    denies
}

/// All that a snapshot says about a name.
fn says(snapshot: &Snapshot, text: &str, transport: Transport) -> String {
    let name = Name::from_text(text.as_bytes()).unwrap();
    let walk = Walk::new(&name, SEED);
    let decision = snapshot.find(&name, QueryClient::anybody(transport));
    let decision = decision.map(|d| {
        let denies = d.answer.action == Action::Nxdomain && snapshot.denies_all_below(&name, &d);
        assert_eq!(denies, naively_denies(snapshot, text, &d), "{text}");
        (d.zone, d.skip, d.scope, d.answer.action, d.reference, denies)
    });
    let covering: Vec<_> = snapshot
        .covering(&name)
        .into_iter()
        .map(|(place, _, found)| format!("{place:?} {} {:?} {:?}", found.skip, found.scope, found.rule))
        .collect();
    let shadows: Vec<_> = snapshot
        .shadows()
        .iter()
        .map(|shadow| snapshot.would_block(shadow, &name, &walk, QueryClient::anybody(transport)))
        .map(|found| found.map(|found| (found.action, found.is_decided)))
        .collect();
    format!("{decision:?} {covering:?} {shadows:?}")
}

/// The names with the counts of queries that their entries would block.
fn impact(zone: &Arc<PolicyZone>, names: &[String]) -> String {
    let run = ImpactRun::new(Arc::clone(zone), Vec::new());
    let served = Snapshot::new(Vec::new(), 1);
    for text in names {
        let name = Name::from_text(text.as_bytes()).unwrap();
        let walk = Walk::new(&name, SEED);
        served
            .would_block(run.shadow(), &name, &walk, QueryClient::anybody(Transport::Udp))
            .into_iter()
            .for_each(|found| run.count(found));
    }
    format!("{:?}", run.counts(usize::MAX))
}

fn assert_same(
    random: &mut Random,
    zone: &Arc<PolicyZone>,
    scratch: &Arc<PolicyZone>,
    other: &Arc<PolicyZone>,
) {
    assert_eq!(zone.digest(), scratch.digest());
    assert_eq!((zone.entries(), zone.listed()), (scratch.entries(), scratch.listed()));
    let (is_first, is_shadow) = (random.below(2) == 0, random.below(4) == 0);
    let one = snapshot(zone, other, is_first, is_shadow);
    let two = snapshot(scratch, other, is_first, is_shadow);
    assert_eq!(one.digest(), two.digest());
    let names: Vec<String> = (0..40).map(|_| random.name()).collect();
    for name in &names {
        let transport = Transport::ALL[random.below(2)];
        assert_eq!(says(&one, name, transport), says(&two, name, transport), "{name}");
    }
    assert_eq!(impact(zone, &names), impact(scratch, &names));
}

/// Whatever the split into base and overlay is: the same answers, counts and digest.
#[test]
fn a_zone_with_changes_is_the_zone_compiled_from_all_its_entries() {
    let mut random = Random(5);
    for _ in 0..150 {
        let mut entries = Entries::new();
        (0..random.below(8)).for_each(|_| drop(change(&mut random, &mut entries)));
        let mut zone = Arc::new(compiled(&mut random, &entries));
        let mut other_entries = Entries::new();
        (0..3).for_each(|_| drop(change(&mut random, &mut other_entries)));
        let other = Arc::new(compiled(&mut random, &other_entries));
        for _ in 0..8 {
            let names = change(&mut random, &mut entries);
            zone = Arc::new(changed(&mut random, &zone, &entries, &names).expect("few changes"));
            let scratch = Arc::new(compiled(&mut random, &entries));
            assert_same(&mut random, &zone, &scratch, &other);
            assert_same(&mut random, &compiled_again(&zone), &scratch, &other);
        }
    }
}

/// Names of the base and of the overlay alternate, also at the limits of segments.
#[test]
fn the_digest_of_a_large_zone_with_changes_is_that_of_its_entries() {
    let mut random = Random(9);
    let listed = |number: usize| format!("host{}.site{number}.example", number % 7);
    let mut entries: Entries =
        (0..60_000).map(|number| (listed(number), vec![(Match::Subtree, 1 + number % 3)])).collect();
    let mut zone = compiled(&mut random, &entries);
    for turn in 0..3 {
        let numbers: Vec<usize> = (0..900).map(|_| random.below(70_000)).collect();
        let names: Vec<String> = numbers.into_iter().map(listed).collect();
        for (place, name) in names.iter().enumerate() {
            match place % 3 {
                0 => drop(entries.remove(name)),
                _ => drop(entries.insert(name.clone(), vec![(Match::Exact, 8 + turn)])),
            }
        }
        zone = changed(&mut random, &zone, &entries, &names).expect("few changes");
        let scratch = compiled(&mut random, &entries);
        assert_eq!((zone.digest(), zone.entries()), (scratch.digest(), scratch.entries()));
        let again = compiled_again(&zone);
        assert_eq!((again.digest(), again.entries()), (scratch.digest(), scratch.entries()));
    }
}

#[test]
fn too_many_changes_need_a_new_base() {
    let mut random = Random(1);
    let mut entries = Entries::from([("old.example".to_string(), vec![(Match::Exact, 1)])]);
    let zone = compiled(&mut random, &entries);
    let names: Vec<String> = (0..1001).map(|number| format!("n{number}.example")).collect();
    entries.extend(names.iter().map(|name| (name.clone(), vec![(Match::Exact, 1)])));
    assert!(changed(&mut random, &zone, &entries, &names[1..]).is_some());
    assert!(changed(&mut random, &zone, &entries, &names).is_none());
}

/// It is compiled again before it must be, so that no order waits for that. Changes then go on.
#[test]
fn a_zone_that_has_changed_much_is_compiled_again() {
    let mut random = Random(1);
    let entry = |number: usize| (format!("n{number}.example"), vec![(Match::Subtree, 1 + number % 20)]);
    let mut entries: Entries = (0..20).map(entry).collect();
    let mut zone = compiled(&mut random, &entries);
    let mut turns = Vec::new();
    for turn in 1..=20 {
        let new: Entries = (100 * turn..100 * turn + 99).map(entry).collect();
        let gone = format!("n{}.example", turn - 1);
        entries.remove(&gone);
        let names: Vec<String> = new.keys().cloned().chain([gone.clone()]).collect();
        entries.extend(new);
        zone = changed(&mut random, &zone, &entries, &names).expect("few changes");
        if zone.is_grown() {
            turns.push(turn);
            zone = Arc::into_inner(compiled_again(&zone)).unwrap();
            assert!(!zone.is_grown());
        }
        assert_eq!(zone.digest(), compiled(&mut random, &entries).digest());
    }
    assert_eq!(turns, [5, 10, 15, 20], "at half of a thousand changes");
}

/// Names above exceptions are found once; what changes then must count. By themselves, or by an
/// earlier zone, they keep NXDOMAIN from being said for a name above.
#[test]
fn exceptions_come_and_go_with_changes() {
    let mut random = Random(1);
    let nxdomain = |name: &str| (name.to_string(), vec![(Match::Subtree, 4)]);
    assert!(matches!(rule(4), Rule::Answer { answer, .. } if answer.action == Action::Nxdomain));
    let list =
        Arc::new(compiled(&mut random, &Entries::from([nxdomain("t.example"), nxdomain("u.example")])));
    let denies = |zone: &Arc<PolicyZone>, is_first: bool, text: &str| {
        let (snapshot, name) =
            (snapshot(zone, &list, is_first, false), Name::from_text(text.as_bytes()).unwrap());
        snapshot.denies_all_below(&name, &snapshot.find(&name, QueryClient::anybody(Transport::Udp)).unwrap())
    };
    let exempt = |name: &str| (name.to_string(), vec![(Match::Subtree, 0)]);
    let mut entries = Entries::from([exempt("a.t.example"), exempt("b.t.example"), nxdomain("v.example")]);
    let mut zone = Arc::new(compiled(&mut random, &entries));
    let steps: [(&str, bool, bool); 6] = [
        ("", false, true),            // two exemptions below t.example
        ("a.t.example", false, true), // one
        ("b.t.example", true, true),  // none
        ("c.u.example", true, false), // another name
        ("x.v.example", true, false), // below a block of its own
        ("c.u.example", true, true),
    ];
    for (name, t_is_denied, u_is_denied) in steps {
        if !name.is_empty() {
            if entries.remove(name).is_none() {
                entries.extend([exempt(name)]);
            }
            zone = Arc::new(changed(&mut random, &zone, &entries, &[name.to_string()]).expect("one"));
        }
        for zone in [&zone, &Arc::new(compiled(&mut random, &entries)), &compiled_again(&zone)] {
            let found = [denies(zone, true, "t.example"), denies(zone, true, "u.example")];
            assert_eq!(found, [t_is_denied, u_is_denied], "{name}");
            assert_eq!(denies(zone, true, "v.example"), !entries.contains_key("x.v.example"), "{name}");
            assert!(denies(zone, false, "t.example") && denies(zone, false, "u.example"), "a later zone");
        }
    }
}

/// Names that a compiled zone puts into one of `parts` ranges of hashes.
fn chosen(parts: u64) -> impl Iterator<Item = String> {
    (0..).map(|number| format!("n{number}.example")).filter(move |name| {
        let name = Name::from_text(name.as_bytes()).unwrap();
        ((Walk::new(&name, SEED).hash(0) >> 32) * parts) >> 32 == 3
    })
}

/// Orders whose names were chosen to be in one bucket, or that are there since other orders have
/// ended, are enforced as any others. If they were refused here, no other order could end.
#[test]
fn a_zone_of_chosen_names_can_always_be_compiled_and_changed() {
    let mut random = Random(3);
    let entry = |name: String, number: usize| (name, vec![(Match::Subtree, 1 + number % 3)]);
    let ordinary = (0..1000).map(|number| entry(format!("host{number}.test"), number));
    let crowd: Entries = chosen(32).take(400).enumerate().map(|(n, name)| entry(name, n)).collect();
    let mut entries: Entries = ordinary.clone().collect();
    entries.extend(crowd.clone());
    // Few enough in each bucket.
    let zone = compiled(&mut random, &entries);
    let ended: Vec<String> = ordinary.map(|(name, _)| name).collect();
    let mut changed_zone = changed(&mut random, &zone, &crowd, &ended).expect("an overlay");
    let mut entries = crowd;
    for turn in 0..4 {
        let scratch = compiled(&mut random, &entries);
        assert_eq!((scratch.entries(), scratch.listed()), (entries.len(), entries.len()));
        assert_eq!(scratch.digest(), changed_zone.digest());
        assert_eq!(scratch.digest(), compiled_again(&changed_zone).digest());
        let snapshot = snapshot(&Arc::new(scratch), &Arc::new(changed_zone), true, false);
        for name in entries.keys() {
            assert!(says(&snapshot, &format!("a.{name}"), Transport::Udp).starts_with("Some((0, 1, Subtree"));
            assert_eq!(says(&snapshot, &format!("a{name}"), Transport::Udp), "None [] []");
        }
        // Changes of what was set aside.
        let gone: Vec<String> = entries.keys().take(150 * (turn % 2) + 20).cloned().collect();
        gone.iter().for_each(|name| drop(entries.remove(name)));
        let new: Vec<_> = chosen(32).skip(400 + 100 * turn).take(100).collect();
        entries.extend(new.iter().map(|name| entry(name.clone(), turn)));
        let names: Vec<String> = gone.into_iter().chain(new).collect();
        let scratch = compiled(&mut random, &entries);
        changed_zone =
            changed(&mut random, &snapshot.zones()[0].zone, &entries, &names).expect("few changes");
        assert_eq!(scratch.digest(), changed_zone.digest());
    }
}

/// A hundred thousand of them cost no more than others: neither to compile nor to look up.
#[test]
fn many_chosen_names_are_compiled() {
    let mut random = Random(3);
    let entries: Entries = chosen(64).take(20_000).map(|name| (name, vec![(Match::Exact, 1)])).collect();
    let zone = compiled(&mut random, &entries);
    assert_eq!((zone.entries(), zone.listed()), (20_000, 20_000));
    let more: Vec<String> = chosen(64).skip(20_000).take(900).collect();
    let mut now = entries.clone();
    now.extend(more.iter().map(|name| (name.clone(), vec![(Match::Exact, 1)])));
    assert!(changed(&mut random, &zone, &now, &more).is_some(), "one more order is an overlay");
}

/// Orders that have ended leave rules that no entry has. They must not change the digest.
#[test]
fn rules_without_entries_do_not_matter() {
    let mut random = Random(1);
    let old = Entries::from([("old.example".to_string(), vec![(Match::Exact, 1)])]);
    let zone = compiled(&mut random, &old);
    let new = Entries::from([("new.example".to_string(), vec![(Match::Exact, 2)])]);
    let both = ["new.example".to_string(), "old.example".to_string()];
    let then = changed(&mut random, &zone, &new, &both).unwrap();
    assert_eq!(then.digest(), compiled(&mut random, &new).digest());
    let again = changed(&mut random, &then, &old, &both).unwrap();
    assert_eq!(again.digest(), zone.digest());
}
