//! A policy zone to which changes of single records are applied decides as one that is compiled from all of
//! its records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use _engine::list::zone::{self, Settings};
use _engine::list::{ListFile, NameGuard, Progress};
use _engine::name::{Name, Walk};
use _engine::policy::compiler::Destination;
use _engine::policy::names::SEED;
use _engine::policy::records::Answers;
use _engine::policy::{PolicyZone, Rule};

mod common;
use common::Random;

const LABELS: [&str; 3] = ["a", "b", "c"];
/// A record of the first four has its owner for itself.
const DATA: [&str; 8] = [
    "CNAME .",
    "CNAME *.",
    "CNAME rpz-passthru.",
    "CNAME landing.example.",
    "A 192.0.2.1",
    "A 192.0.2.2",
    "AAAA 2001:db8::1",
    "TXT \"why\"",
];

/// The lines of each owner, without it.
type Records = BTreeMap<String, BTreeSet<String>>;

fn owner(random: &mut Random) -> String {
    let labels: Vec<&str> = (0..1 + random.below(4)).map(|_| LABELS[random.below(3)]).collect();
    let name = labels.join(".");
    if random.below(3) == 0 { format!("*.{name}") } else { name }
}

fn data(random: &mut Random) -> BTreeSet<String> {
    let ttl = [60, 120][random.below(2)];
    match random.below(3) {
        0 => (0..1 + random.below(3)).map(|_| format!("{ttl} {}", DATA[4 + random.below(4)])).collect(),
        _ => [format!("{ttl} {}", DATA[random.below(4)])].into(),
    }
}

fn settings(guard: &NameGuard) -> Settings<'_> {
    Settings { name: "rpz.example", guard, takes_wide: true, max_bytes: u64::MAX }
}

fn compiled(records: &Records) -> PolicyZone {
    let mut text = String::from("$ORIGIN rpz.example.\n@ 60 SOA . . 1 60 60 60 60\n");
    for (owner, data) in records {
        data.iter().for_each(|data| text += &format!("{owner} {data}\n"));
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let files = [ListFile { label: "zone".to_string(), path: file.path().to_path_buf() }];
    let guard = NameGuard::new(&[], &[], &[], &[]);
    let compiled =
        zone::compile(&files, &settings(&guard), Destination::Memory, None, &Progress::default()).unwrap();
    assert_eq!(compiled.report.rejected, 0);
    let answers = Answers::Given { max_ttl: 3600, extended_error: None, structured: None };
    let zone = PolicyZone::of_records("z", Arc::new(compiled.compiled.names), answers).unwrap();
    zone.find_empty();
    zone
}

/// The differences as lines, as a transfer has them.
fn lines(before: &Records, after: &Records) -> Vec<(bool, String)> {
    let all = |records: &Records| -> BTreeSet<(String, String)> {
        let line = |(owner, data): (&String, &BTreeSet<String>)| {
            let owner = owner.clone();
            data.iter().map(move |data| (owner.clone(), data.clone())).collect::<Vec<_>>()
        };
        records.iter().flat_map(line).collect()
    };
    let (before, after) = (all(before), all(after));
    let text = |(owner, data): &(String, String)| format!("{owner} {data}");
    let removed = before.difference(&after).map(|line| (false, text(line)));
    removed.chain(after.difference(&before).map(|line| (true, text(line)))).collect()
}

/// The answer for each name of up to five labels, and of how many labels its owner is shorter.
fn decisions(zone: &PolicyZone) -> Vec<Option<(usize, String)>> {
    let mut names = vec![String::new()];
    let mut last = names.clone();
    for _ in 0..5 {
        let longer = last.iter().flat_map(|name| LABELS.map(|label| format!("{label}.{name}")));
        last = longer.map(|name| name.trim_end_matches('.').to_string()).collect();
        names.extend(last.clone());
    }
    let answer = |name: &String| {
        let name = if name.is_empty() { Name::root() } else { Name::from_text(name.as_bytes()).unwrap() };
        let found = zone.find(&name, &Walk::new(&name, SEED))?;
        let Rule::Answer { answer, .. } = found.rule else { panic!("an answer") };
        let target = answer.target.as_ref().map(|target| format!("{target:?}"));
        let text = format!("{:?} {} {:?} {target:?}", answer.action, answer.ttl, answer.data);
        Some((found.skip, text))
    };
    names.iter().map(answer).collect()
}

#[test]
fn an_amended_zone_decides_as_the_compiled_one() {
    let mut random = Random(20170810);
    let guard = NameGuard::new(&[], &[], &[], &[]);
    let (mut amended, mut compiled_again) = (0, 0);
    for _ in 0..60 {
        let mut records: Records =
            (0..random.below(20)).map(|_| (owner(&mut random), data(&mut random))).collect();
        let mut zone = compiled(&records);
        for _ in 0..6 {
            let mut after = records.clone();
            for _ in 0..1 + random.below(3) {
                match (random.below(2), after.len()) {
                    (0, count @ 1..) => {
                        let gone = after.keys().nth(random.below(count)).unwrap().clone();
                        after.remove(&gone);
                    }
                    _ => {
                        after.insert(owner(&mut random), data(&mut random));
                    }
                }
            }
            let lines = lines(&records, &after);
            let changes = lines.iter().map(|(is_added, line)| (*is_added, line.as_bytes()));
            let changes = zone::changes(changes, &settings(&guard)).expect("every record is a trigger");
            records = after;
            match zone.amended(&changes) {
                Some(one) => {
                    amended += 1;
                    zone = one.zone;
                    assert_eq!(
                        decisions(&zone),
                        decisions(&compiled(&records)),
                        "{records:?} after {lines:?}"
                    );
                    assert_eq!(zone.entries(), compiled(&records).entries());
                }
                None => {
                    compiled_again += 1;
                    zone = compiled(&records);
                }
            }
        }
    }
    assert!(amended > compiled_again / 2, "{amended} amended, {compiled_again} compiled again");
}

#[test]
fn the_usual_pairs_are_amended_and_counted() {
    let pair = |name: &str| {
        [name.to_string(), format!("*.{name}")]
            .map(|owner| (owner, BTreeSet::from(["60 CNAME .".to_string()])))
    };
    let before: Records = ["a.com", "b.com", "c.com"].into_iter().flat_map(pair).collect();
    let after: Records = ["a.com", "c.com", "d.com", "www.e.com"].into_iter().flat_map(pair).collect();
    let zone = compiled(&before);
    let guard = NameGuard::new(&[], &[], &[], &[]);
    let lines = lines(&before, &after);
    let lines = lines.iter().map(|(is_added, line)| (*is_added, line.as_bytes()));
    let amended = zone.amended(&zone::changes(lines, &settings(&guard)).unwrap()).unwrap();
    assert_eq!((amended.lost, amended.gained, amended.zone.entries()), (1, 2, 4));
    assert_ne!(amended.zone.digest(), zone.digest());
}
