//! Lists and orders become policy zones here.
//!
//! `compile` turns the files of a list into compiled names, and drops and reports invalid lines.
//! `entries` and `addresses` compile what the control plane wrote itself; one invalid line rejects all.

mod compile;
mod file_type;
mod files;
mod formats;
mod name_guard;
mod name_parser;
mod reader;
mod reason;
mod recognise;
mod repairs;
mod report;
mod tokens;
pub mod zone;

pub use compile::{Progress, RULES_ARE_EXCEPTIONS, compile};
pub use files::{Failure, FileSummary, ListFile, Unreadable};
pub use formats::Format;
pub use name_guard::NameGuard;
pub use name_parser::canonical;
pub use reader::{Exceptions, Line, Reader, Settings};
pub use reason::Reason;
pub use repairs::Repairs;
pub use report::{Finding, Report};

use crate::name::{Name, Walk};
use crate::policy::compiler::{CompileError, Compiler, Destination, Origin};
use crate::policy::names::SEED;
use crate::policy::{CanonicalRule, Changes, Match, PolicyZone, Rule, RuleTable};

/// Invalid lines that an error describes; more are only counted.
const MAX_DESCRIBED: usize = 100;
/// The bytes of a line of `entries`.
const TYPICAL_LINE: u64 = 32;

#[derive(Debug)]
pub struct InvalidLine {
    /// Counted from 1.
    pub number: usize,
    /// The line, printable, at most 80 characters.
    pub value: String,
    pub reason: String,
}

/// Why lines did not become a zone.
#[derive(Debug)]
pub enum ZoneError {
    /// The first hundred invalid lines, and how many there are.
    InvalidLines { lines: Vec<InvalidLine>, total: usize },
    /// All lines are valid.
    NotCompiled(CompileError),
}

/// Compiles lines such as `subtree 0 ads.example`: match, index into `rules`, and name.
pub fn entries(
    zone: &str,
    rules: Vec<impl Into<CanonicalRule>>,
    lines: &[u8],
) -> Result<PolicyZone, ZoneError> {
    let rules = RuleTable::default().with(rules);
    // Orders must always be compiled: one that is refused here would keep others from ending.
    let mut compiler = Compiler::of_orders(lines.len() as u64, std::env::temp_dir(), rules.all());
    let mut written = Ok(());
    for_each_line(lines, |number, line| {
        if line.is_empty() {
            return Ok(());
        }
        let (scope, place, name) = parse_entry(line, &rules)?;
        compiler.walk(&name);
        let origin = Origin { line: number as u32, ..Origin::default() };
        if written.is_ok() {
            written = compiler.add(scope, place, origin);
        }
        Ok(())
    })?;
    written.map_err(|error| ZoneError::NotCompiled(CompileError::Io(error)))?;
    let compiled =
        compiler.finish(&is_exemption(&rules), Destination::Memory, None).map_err(ZoneError::NotCompiled)?;
    let zone = PolicyZone::of_entries(zone, compiled, rules);
    zone.ok_or(ZoneError::NotCompiled(CompileError::NotVerified))
}

/// Compiles a zone of orders from its own entries: the same zone without an overlay.
pub fn compiled_again(zone: &PolicyZone) -> Result<PolicyZone, ZoneError> {
    let rules = zone.rules();
    let expected = zone.entries() as u64 * TYPICAL_LINE;
    let mut compiler = Compiler::of_orders(expected, std::env::temp_dir(), rules.all());
    let mut written = Ok(());
    zone.each(
        |_, _| true,
        |_, text, scope| {
            let name = Name::from_text(text.as_bytes()).expect("owners were names when added");
            compiler.walk(&name);
            for (scope, rule) in scope.entries() {
                if written.is_ok() {
                    written = compiler.add(scope, rule, Origin::default());
                }
            }
        },
    );
    written.map_err(|error| ZoneError::NotCompiled(CompileError::Io(error)))?;
    let compiled =
        compiler.finish(&is_exemption(rules), Destination::Memory, None).map_err(ZoneError::NotCompiled)?;
    let again = PolicyZone::of_entries(zone.name(), compiled, rules.clone());
    let is_same = |again: &PolicyZone| {
        (again.digest(), again.entries(), again.listed()) == (zone.digest(), zone.entries(), zone.listed())
    };
    again.filter(is_same).ok_or(ZoneError::NotCompiled(CompileError::NotVerified))
}

fn is_exemption(rules: &RuleTable) -> Vec<bool> {
    rules.all().iter().map(|rule| rule.is_exemption()).collect()
}

/// Applies changes to a zone of entries. Lines as of `entries` replace all entries of their names;
/// `remove 0 NAME` leaves none. The indexes of the new `rules` follow those of the zone. `None`: the
/// zone must be compiled from all its entries.
pub fn with_changes(
    zone: &PolicyZone,
    rules: Vec<impl Into<CanonicalRule>>,
    lines: &[u8],
) -> Result<Option<PolicyZone>, ZoneError> {
    let rules = zone.rules().with(rules);
    let is_exemption = is_exemption(&rules);
    let mut walk = Walk::new(&Name::root(), SEED);
    let mut key = |name: &Name| {
        walk.take(name, SEED);
        (walk.hash(0), Box::from(walk.text().as_bytes()))
    };
    let mut changes = Changes::new();
    for_each_line(lines, |_, line| {
        if let Some(removed) = line.strip_prefix(b"remove 0 ") {
            let name = Name::from_text(removed).map_err(|error| error.to_string())?;
            changes.entry(key(&name)).or_insert(None);
        } else if !line.is_empty() {
            let (scope, place, name) = parse_entry(line, &rules)?;
            let changed = changes.entry(key(&name)).or_insert(None);
            let before = changed.unwrap_or_default();
            *changed = Some(before.with(scope, place, &is_exemption));
        }
        Ok(())
    })?;
    changes.values_mut().flatten().for_each(|scope| *scope = scope.plain());
    Ok(zone.with_changes(rules, changes))
}

/// Parses a line of `entries`.
fn parse_entry(line: &[u8], rules: &RuleTable) -> Result<(Match, u32, Name), String> {
    let mut words = line.split(|&byte| byte == b' ');
    let mut text = || words.next().and_then(|word| std::str::from_utf8(word).ok());
    let scope = text().and_then(Match::from_name).ok_or("no match")?;
    let rule: u32 = text().and_then(|word| word.parse().ok()).ok_or("no rule")?;
    let place = rules.place(rule).ok_or("no such rule")?;
    let name = Name::from_text(words.next().ok_or("no name")?).map_err(|error| error.to_string())?;
    if words.next().is_some() {
        return Err("more than three words".to_string());
    }
    Ok((scope, place, name))
}

/// Compiles addresses and prefixes, one per line. Comments are allowed.
pub fn addresses(zone: &str, lines: &[u8], rule: Rule) -> Result<PolicyZone, ZoneError> {
    let mut prefixes = Vec::new();
    for_each_line(lines, |_, line| {
        prefixes.extend(formats::addresses::parse(line).map_err(|reason| reason.to_string())?);
        Ok(())
    })?;
    Ok(PolicyZone::of_addresses(zone, rule, prefixes))
}

/// Calls `take` with each line and its number from 1, and collects the errors.
fn for_each_line(
    lines: &[u8],
    mut take: impl FnMut(usize, &[u8]) -> Result<(), String>,
) -> Result<(), ZoneError> {
    let lines = lines.strip_prefix(b"\xef\xbb\xbf").unwrap_or(lines);
    let mut invalid = Vec::new();
    let mut total = 0;
    for (number, line) in (1..).zip(lines.split(|&byte| byte == b'\n')) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Err(reason) = take(number, line) {
            total += 1;
            if invalid.len() < MAX_DESCRIBED {
                invalid.push(InvalidLine { number, value: report::printable(line), reason });
            }
        }
    }
    if total > 0 { Err(ZoneError::InvalidLines { lines: invalid, total }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::*;
    use crate::message::{QueryClient, Transport};
    use crate::name::Walk;
    use crate::policy::names::SEED;
    use crate::policy::{Action, Answer, PlacedZone, Snapshot};

    fn rule(action: Action) -> Rule {
        let answer = Answer::without_data(action, 30, None);
        Rule::Answer { answer: Arc::new(answer), reference: "".into(), structured: None }
    }

    fn name(text: &str) -> Name {
        Name::from_text(text.as_bytes()).unwrap()
    }

    /// A zone with one rule for all names, which are separated by spaces.
    fn zone(names: &str, scope: Match, action: Action) -> PolicyZone {
        let lines: String = names.split(' ').map(|name| format!("{} 0 {name}\n", scope.name())).collect();
        entries("z", vec![rule(action)], lines.as_bytes()).unwrap()
    }

    fn snapshot(zones: Vec<PolicyZone>) -> Snapshot {
        let in_place = |zone| PlacedZone {
            zone: Arc::new(zone),
            next_change_at: None,
            judges_targets: true,
            is_shadow: false,
            clients: None,
            is_list: false,
        };
        Snapshot::new(zones.into_iter().map(in_place).collect(), 1)
    }

    #[test]
    fn all_invalid_lines_are_counted_and_the_first_hundred_described() {
        let lines = "exact 0 a.example\nexact 0 two words.example\n".repeat(150);
        let Err(ZoneError::InvalidLines { lines, total }) =
            entries("z", vec![Rule::Exemption], lines.as_bytes())
        else {
            panic!("names with spaces")
        };
        assert_eq!((lines.len(), total), (MAX_DESCRIBED, 150));
        assert_eq!((lines[1].number, lines[1].value.as_str()), (4, "exact 0 two words.example"));
    }

    /// The longest owner decides, then `exact` before `subtree` and `below`, then an exemption
    /// before an answer. The entries are random.
    #[test]
    fn lookup_agrees_with_a_naive_model() {
        let mut random = 1u64;
        let mut draw = |below: u64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) % below
        };
        for _ in 0..300 {
            let label = |draw: &mut dyn FnMut(u64) -> u64| ["a", "b", "cc"][draw(3) as usize];
            let mut text = String::new();
            let mut naive: HashMap<(String, bool), (Match, u32)> = HashMap::new();
            for _ in 0..draw(12) {
                let labels: Vec<&str> = (0..=draw(3)).map(|_| label(&mut draw)).collect();
                let (owner, scope, rule) = (labels.join("."), Match::ALL[draw(3) as usize].0, draw(3) as u32);
                text += &format!("{} {rule} {owner}\n", scope.name());
                for (at, covers) in [(true, scope != Match::Below), (false, scope != Match::Exact)] {
                    let rank = |(scope, rule): (Match, u32)| (scope == Match::Exact, rule == 0);
                    let other = naive.get(&(owner.clone(), at)).copied();
                    if covers && other.is_none_or(|other| rank(other) < rank((scope, rule))) {
                        naive.insert((owner.clone(), at), (scope, rule));
                    }
                }
            }
            let rules = vec![Rule::Exemption, rule(Action::Nxdomain), rule(Action::Sinkhole)];
            let zone = entries("z", rules, text.trim_end().as_bytes());
            let Ok(zone) = zone else {
                assert!(text.is_empty());
                continue;
            };
            for _ in 0..40 {
                let labels: Vec<&str> = (0..=draw(5)).map(|_| label(&mut draw)).collect();
                let qname = name(&labels.join("."));
                let expected = (0..labels.len()).find_map(|skip| {
                    let entry = |at| naive.get(&(labels[skip..].join("."), at));
                    let (scope, rule) = entry(skip == 0)?;
                    // `exact` and `below` with one rule are stored as `subtree`.
                    let both = entry(skip != 0).is_some_and(|(_, other)| other == rule);
                    Some((skip, if both { Match::Subtree } else { *scope }))
                });
                let found = zone.find(&qname, &Walk::new(&qname, SEED));
                assert_eq!(found.map(|found| (found.skip, found.scope)), expected, "{qname} in {text}");
            }
        }
    }

    #[test]
    fn an_index_of_a_hundred_thousand_names_holds_each_and_no_other() {
        let listed = |n: u32| format!("host{}.site{n}.example", n % 7);
        let names: Vec<String> = (0..100_000).map(listed).collect();
        let zone = zone(&names.join(" "), Match::Exact, Action::Nodata);
        assert_eq!(zone.entries(), 100_000);
        let finds = |text: &str| {
            let qname = name(text);
            zone.find(&qname, &Walk::new(&qname, SEED)).is_some()
        };
        assert!(names.iter().all(|name| finds(name)));
        assert!(!(100_000..200_000).any(|n| finds(&listed(n))));
    }

    #[test]
    fn the_digest_depends_on_the_rules_and_not_on_the_order_of_lines() {
        let digest = |names, action| *zone(names, Match::Subtree, action).digest();
        let one = digest("a.example b.example", Action::Nodata);
        assert_eq!(one, digest("b.example A.EXAMPLE. b.example", Action::Nodata));
        assert_ne!(one, digest("a.example b.example", Action::Nxdomain));
        assert_ne!(one, digest("a.example b.example c.example", Action::Nodata));
    }

    /// RFC 8020 2: NXDOMAIN for a name denies all names below it.
    #[test]
    fn a_name_above_an_exemption_is_not_denied_with_all_names_below() {
        let denies = |snapshot: &Snapshot, text: &str| {
            let qname = name(text);
            let decision = snapshot.find(&qname, QueryClient::anybody(Transport::Udp)).unwrap();
            snapshot.denies_all_below(&qname, &decision)
        };
        let blocked = |names, scope| zone(names, scope, Action::Nxdomain);
        let alone = snapshot(vec![blocked("t.example", Match::Subtree)]);
        assert!(denies(&alone, "t.example") && denies(&alone, "x.t.example"));
        let exact = snapshot(vec![blocked("t.example", Match::Exact)]);
        assert!(!denies(&exact, "t.example"));
        let allowed = zone("cdn.t.example", Match::Subtree, Action::Passthru);
        let earlier = snapshot(vec![allowed, blocked("t.example u.example", Match::Subtree)]);
        assert!(!denies(&earlier, "t.example") && denies(&earlier, "u.example"));
        let rules = vec![rule(Action::Nxdomain), Rule::Exemption];
        let same = entries("z", rules, b"subtree 0 t.example\nexact 1 a.b.t.example\nsubtree 0 u.example");
        let same = snapshot(vec![same.unwrap()]);
        assert!(!denies(&same, "t.example") && denies(&same, "u.example"));
    }

    #[test]
    fn an_exemption_lets_the_next_zone_decide() {
        let rules = vec![rule(Action::Sinkhole), Rule::Exemption];
        let first = entries("a", rules, b"subtree 0 t.example\nsubtree 1 cdn.t.example").unwrap();
        let second = zone("x.cdn.t.example", Match::Subtree, Action::Nodata);
        let both = snapshot(vec![first, second]);
        assert_eq!(both.find(&name("t.example"), QueryClient::anybody(Transport::Udp)).unwrap().zone, 0);
        assert!(both.find(&name("cdn.t.example"), QueryClient::anybody(Transport::Udp)).is_none());
        assert_eq!(
            both.find(&name("x.cdn.t.example"), QueryClient::anybody(Transport::Udp)).unwrap().zone,
            1
        );
        assert_eq!(both.covering(&name("x.cdn.t.example")).len(), 3);
    }
}
