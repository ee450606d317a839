//! The impact of past days against a naive twin, which compares names as text.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use _engine::list;
use _engine::name::Text;
use _engine::policy::{Action, Answer, PlacedZone, Rule, Snapshot};
use _engine::query_counts::QueryCounts;
use _engine::query_counts::day::Day;
use _engine::query_counts::past::past_impact;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const RULES: [&str; 3] = ["block", "passthru", "exempt"];
const MATCHES: [&str; 3] = ["exact", "subtree", "below"];

/// Match and rule by name.
type Entries = BTreeMap<String, (usize, usize)>;

fn zone(entries: &Entries) -> Arc<_engine::policy::PolicyZone> {
    let answer = Arc::new(Answer::without_data(Action::Nodata, 0, None));
    let block = Rule::Answer { answer, reference: "".into(), structured: None };
    let lines = entries.iter().map(|(name, (covers, rule))| format!("{} {rule} {name}\n", MATCHES[*covers]));
    let lines: String = lines.collect();
    Arc::new(list::entries("zone", vec![block, Rule::passthru(), Rule::Exemption], lines.as_bytes()).unwrap())
}

/// The name and the rule of the longest entry that covers a name.
fn naive<'a>(entries: &'a Entries, name: &str) -> Option<(&'a str, &'static str)> {
    let covers = |entry: &str, covers: usize| match MATCHES[covers] {
        "exact" => name == entry,
        "below" => name.ends_with(&format!(".{entry}")),
        _ => name == entry || name.ends_with(&format!(".{entry}")),
    };
    let covering = entries.iter().filter(|(entry, (scope, _))| covers(entry, *scope));
    covering.max_by_key(|(entry, _)| entry.len()).map(|(entry, (_, rule))| (entry.as_str(), RULES[*rule]))
}

fn random_name(random: &mut StdRng) -> String {
    let labels = (0..random.random_range(1..4)).map(|_| ["a", "b", "c", "d"][random.random_range(0..4)]);
    labels.chain(["example"]).collect::<Vec<_>>().join(".")
}

fn random_entries(random: &mut StdRng, count: usize) -> Entries {
    let entry = |random: &mut StdRng| (random.random_range(0..3), [0, 0, 0, 1, 2][random.random_range(0..5)]);
    (0..count).map(|_| (random_name(random), entry(random))).collect()
}

/// A day of random queries with the true counts of its names.
fn random_day(random: &mut StdRng) -> (Day, HashMap<String, u64>) {
    let (table, mut truth, mut text) = (QueryCounts::new(1 << 20), HashMap::new(), Text::default());
    for _ in 0..random.random_range(1..3000) {
        let name = random_name(random);
        text.take(name.as_bytes());
        table.count(&text, table.place(&text));
        *truth.entry(name).or_default() += 1;
    }
    (Day::of(&table.counted(true), 1, 1 << 20), truth)
}

#[test]
fn past_impact_is_that_of_a_naive_search() {
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..60 {
        let (mut tried, mut enforced) = (random_entries(&mut random, 12), random_entries(&mut random, 4));
        tried.insert("a.example".to_string(), (1, 0));
        enforced.insert("d.example".to_string(), (1, 0));
        let is_shadow = false;
        let (next_change_at, judges_targets, clients, is_list) = (None, true, None, false);
        let placed =
            PlacedZone { zone: zone(&enforced), next_change_at, judges_targets, is_shadow, clients, is_list };
        let snapshot = Snapshot::new(vec![placed], 1);
        let (days, truths): (Vec<_>, Vec<_>) = (0..5).map(|_| random_day(&mut random)).unzip();
        let found = past_impact(zone(&tried), &snapshot, &days, 100).unwrap();

        let (mut blocked, mut decided, mut most, mut queries) = (0, 0, 0, 0);
        let (mut by_entry, mut by_name) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
        for (name, count) in truths.iter().flatten() {
            queries += count;
            let Some((entry, "block")) = naive(&tried, name) else { continue };
            let is_decided = naive(&enforced, name).is_some_and(|(_, rule)| rule != "exempt");
            most += if is_decided { 0 } else { *count };
            match (*count >= 10, is_decided) {
                (false, _) => {}
                (true, true) => decided += count,
                (true, false) => {
                    blocked += count;
                    *by_entry.entry(entry.to_string()).or_default() += count;
                    *by_name.entry(name.clone()).or_default() += count;
                }
            }
        }
        assert_eq!((found.queries, found.blocked, found.decided), (queries, blocked, decided));
        assert!(found.blocked_at_most >= most && found.blocked_at_most <= queries);
        assert_eq!(found.blocked_by_day.iter().sum::<u64>(), blocked);
        let entries = found.entries.iter().map(|entry| (entry.name.clone(), entry.queries));
        assert_eq!(entries.collect::<BTreeMap<_, _>>(), by_entry);
        assert_eq!(found.names.iter().cloned().collect::<BTreeMap<_, _>>(), by_name);
        assert!(found.names.is_sorted_by(|one, next| one.1 >= next.1));
        assert_eq!(found.blocking_entries, by_entry.len());
    }
}
