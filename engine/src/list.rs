//! Text in, policy zone out: plain lists, and the entries of orders as the
//! control plane hands them over.
//!
//! A line that cannot be meant is never guessed: the whole list is refused,
//! with line, value and reason, and what was served goes on being served.

use std::collections::BTreeMap;
use std::sync::Arc;

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

pub use compile::{Progress, RULES_ARE_EXCEPTIONS, compile};
pub use files::{Failure, ListFile, Read, Unreadable};
pub use formats::Format;
pub use name_guard::NameGuard;
pub use name_parser::canonical;
pub use reader::{Exceptions, Line, Reader, Settings};
pub use reason::Reason;
pub use repairs::Repairs;
pub use report::{Finding, Report};

use crate::name::{Name, NameError};
use crate::policy::compiler::{CompileError, Compiler, Destination, Origin};
use crate::policy::{Match, PolicyZone, Rule, Scope, in_order};

/// Problems that are described one by one; the rest is only counted.
const PROBLEMS_TOLD: usize = 100;
/// Characters of a wrong value that are shown.
const VALUE_SHOWN: usize = 80;

/// One line that cannot be meant.
#[derive(Debug)]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    /// The line, printable, cut at 80 characters.
    pub value: String,
    pub reason: String,
}

/// Why a text did not become a zone.
#[derive(Debug)]
pub enum ZoneError {
    /// The first hundred problems, and how many there are.
    Lines { problems: Vec<Problem>, total: usize },
    /// Nothing is wrong with the lines.
    NotCompiled(CompileError),
}

/// Compiles a plain list strictly, in memory: what tests and fuzzers hold look-ups
/// against. Lists of zones are compiled by `compile`. One name a line; `#` begins a comment at the start
/// of a line or after white space; empty lines, a byte order mark, CRLF and one
/// trailing dot are allowed. All names get the same match and rule.
pub fn plain(zone: &str, text: &[u8], scope: Match, rule: Rule) -> Result<PolicyZone, ZoneError> {
    compile_strictly(zone, vec![rule], text, |line| {
        let line = without_comment(line).trim_ascii();
        if line.is_empty() {
            return Ok(None);
        }
        let name = Name::from_text(line).map_err(|error| error.to_string())?;
        if let Some(reason) = name_parser::number_at_end(&name) {
            return Err(reason.to_string());
        }
        if name.labels() < 2 {
            return Err("a name of one label is a whole top-level domain".to_string());
        }
        Ok(Some((scope, 0, name)))
    })
}

/// Compiles `MATCH RULE NAME` lines. RULE is an index into `rules`.
pub fn entries(zone: &str, rules: Vec<Rule>, text: &[u8]) -> Result<PolicyZone, ZoneError> {
    let known = rules.len();
    compile_strictly(
        zone,
        rules,
        text,
        |line| {
            if line.is_empty() { Ok(None) } else { entry(line, known).map(Some) }
        },
    )
}

/// Applies changes to a zone of entries. `MATCH RULE NAME` lines replace all entries of these
/// names; `remove 0 NAME` leaves none. `None`: the zone must be compiled from all its entries.
pub fn with_changes(
    zone: &PolicyZone,
    rules: Vec<Rule>,
    text: &[u8],
) -> Result<Option<PolicyZone>, ZoneError> {
    let known = rules.len();
    let (rules, places) = in_order(rules);
    let is_exemption: Vec<bool> = rules.iter().map(Rule::is_exemption).collect();
    let mut changes: BTreeMap<String, (Name, Option<Scope>)> = BTreeMap::new();
    each_line(text, |_, line| {
        if let Some(removed) = line.strip_prefix(b"remove 0 ") {
            let name = Name::from_text(removed).map_err(|error| error.to_string())?;
            changes.entry(name.to_string()).or_insert((name, None));
        } else if !line.is_empty() {
            let (scope, rule, name) = entry(line, known)?;
            let (_, changed) = changes.entry(name.to_string()).or_insert((name, None));
            let before = changed.unwrap_or_default();
            *changed = Some(before.with(scope, places[rule as usize], &is_exemption));
        }
        Ok(())
    })?;
    let changes: Vec<_> =
        changes.into_values().map(|(name, scope)| (name, scope.map(Scope::plain))).collect();
    Ok(zone.with_changes(rules, &changes))
}

/// Reads a `MATCH RULE NAME` line.
fn entry(line: &[u8], rules: usize) -> Result<(Match, u32, Name), String> {
    let mut words = line.split(|&byte| byte == b' ');
    let mut word = || words.next().and_then(|word| std::str::from_utf8(word).ok());
    let scope = word().and_then(Match::from_name).ok_or("no match")?;
    let rule = word().and_then(|word| word.parse::<u32>().ok()).ok_or("no rule")?;
    if rule as usize >= rules {
        return Err("no such rule".to_string());
    }
    let name = word().ok_or("no name")?;
    let name = Name::from_text(name.as_bytes()).map_err(|error: NameError| error.to_string())?;
    // Also if it is not valid UTF-8.
    if words.next().is_some() {
        return Err("more than three words".to_string());
    }
    Ok((scope, rule, name))
}

/// Compiles a list of addresses strictly, in memory, as `plain` does with names.
pub fn addresses(zone: &str, text: &[u8], rule: Rule) -> Result<PolicyZone, ZoneError> {
    let mut prefixes = Vec::new();
    each_line(text, |_, line| {
        prefixes.extend(formats::addresses::read(line).map_err(|reason| reason.to_string())?);
        Ok(())
    })?;
    Ok(PolicyZone::of_addresses(zone, rule, prefixes))
}

fn compile_strictly(
    zone: &str,
    rules: Vec<Rule>,
    text: &[u8],
    read: impl Fn(&[u8]) -> Result<Option<(Match, u32, Name)>, String>,
) -> Result<PolicyZone, ZoneError> {
    let (rules, places) = in_order(rules);
    let mut compiler = Compiler::new(text.len() as u64, std::env::temp_dir());
    let mut spooled = Ok(());
    each_line(text, |number, line| {
        if let Some((scope, rule, name)) = read(line)? {
            compiler.walk(&name);
            let origin = Origin { line: number as u32, ..Origin::default() };
            if spooled.is_ok() {
                spooled = compiler.add(scope, places[rule as usize], origin);
            }
        }
        Ok(())
    })?;
    spooled.map_err(|error| ZoneError::NotCompiled(CompileError::Io(error)))?;
    let is_exemption: Vec<bool> = rules.iter().map(Rule::is_exemption).collect();
    let compiled =
        compiler.finish(&is_exemption, Destination::Memory, None).map_err(ZoneError::NotCompiled)?;
    let zone = PolicyZone::new(zone, Arc::new(compiled.names), rules, &is_exemption);
    zone.ok_or(ZoneError::NotCompiled(CompileError::NotVerified))
}

/// Line by line: take it, or note the problem.
fn each_line(text: &[u8], mut take: impl FnMut(usize, &[u8]) -> Result<(), String>) -> Result<(), ZoneError> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut problems = Vec::new();
    let mut total = 0;
    for (index, line) in text.split(|&octet| octet == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Err(reason) = take(index + 1, line) {
            total += 1;
            if problems.len() < PROBLEMS_TOLD {
                problems.push(Problem { line: index + 1, value: shown(line), reason });
            }
        }
    }
    if total > 0 { Err(ZoneError::Lines { problems, total }) } else { Ok(()) }
}

/// Four numbers: as a name, nobody asks for it.
fn without_comment(line: &[u8]) -> &[u8] {
    let begins = |at: usize| line[at] == b'#' && (at == 0 || line[at - 1].is_ascii_whitespace());
    match (0..line.len()).find(|&at| begins(at)) {
        Some(at) => &line[..at],
        None => line,
    }
}

fn shown(line: &[u8]) -> String {
    String::from_utf8_lossy(line).chars().take(VALUE_SHOWN).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::*;
    use crate::message::Transport;
    use crate::name::Walk;
    use crate::policy::names::SEED;
    use crate::policy::{Action, Answer, PlacedZone, Snapshot};

    fn rule(action: Action, reference: &str) -> Rule {
        let (ipv4, ipv6) = (vec![], vec![]);
        let answer = Answer { action, ttl: 30, extended_error: None, ipv4, ipv6, target: None };
        Rule::Answer { answer: Arc::new(answer), reference: reference.into(), structured: None }
    }

    fn name(text: &str) -> Name {
        Name::from_text(text.as_bytes()).unwrap()
    }

    fn snapshot(zones: Vec<PolicyZone>) -> Snapshot {
        let in_place = |zone| PlacedZone {
            zone: Arc::new(zone),
            next_change_at: None,
            judges_targets: true,
            is_shadow: false,
        };
        Snapshot::new(zones.into_iter().map(in_place).collect(), 1)
    }

    #[test]
    fn a_plain_list_may_hold_comments_crlf_bom_and_trailing_dots() {
        let text = b"\xef\xbb\xbf# head\r\na.example\r\n\r\n  B.Example. # why\nc.example#d";
        let Err(ZoneError::Lines { problems, total }) = plain("z", text, Match::Subtree, Rule::Exemption)
        else {
            panic!("'#' in the middle of a word is not a comment")
        };
        assert_eq!((total, problems[0].line), (1, 5));
        let zone = plain("z", &text[..text.len() - 2], Match::Subtree, Rule::Exemption).unwrap();
        assert_eq!(zone.entries(), 3);
    }

    #[test]
    fn every_bad_line_is_counted_and_the_first_hundred_are_told() {
        let text = "fine.example\nno spaces.example\n".repeat(150);
        let Err(ZoneError::Lines { problems, total }) =
            plain("z", text.as_bytes(), Match::Exact, Rule::Exemption)
        else {
            panic!("names with spaces")
        };
        assert_eq!((problems.len(), total), (PROBLEMS_TOLD, 150));
        assert_eq!((problems[1].line, problems[1].value.as_str()), (4, "no spaces.example"));
    }

    #[test]
    fn a_half_line_that_leaves_a_top_level_domain_is_refused() {
        assert!(plain("z", b"fine.example\nid", Match::Subtree, Rule::Exemption).is_err());
    }

    /// The longest owner decides, `exact` before what covers a subtree, and a
    /// hole before an answer: against a naive twin over random entries.
    #[test]
    fn lookup_agrees_with_a_naive_twin() {
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
                    let held = naive.get(&(owner.clone(), at)).copied();
                    if covers && held.is_none_or(|held| rank(held) < rank((scope, rule))) {
                        naive.insert((owner.clone(), at), (scope, rule));
                    }
                }
            }
            let rules = vec![Rule::Exemption, rule(Action::Nxdomain, ""), rule(Action::Sinkhole, "")];
            let zone = entries("z", rules, text.trim_end().as_bytes());
            let Ok(zone) = zone else {
                assert!(text.is_empty());
                continue;
            };
            for _ in 0..40 {
                let labels: Vec<&str> = (0..=draw(5)).map(|_| label(&mut draw)).collect();
                let asked = name(&labels.join("."));
                let expected = (0..labels.len()).find_map(|skip| {
                    let said = |at| naive.get(&(labels[skip..].join("."), at));
                    let (scope, rule) = said(skip == 0)?;
                    // The name and all below it by one rule are a subtree, however it was said.
                    let both = said(skip != 0).is_some_and(|(_, other)| other == rule);
                    Some((skip, if both { Match::Subtree } else { *scope }))
                });
                let found = zone.find(&asked, &Walk::new(&asked, SEED));
                assert_eq!(found.map(|found| (found.skip, found.scope)), expected, "{asked} in {text}");
            }
        }
    }

    #[test]
    fn an_index_of_a_hundred_thousand_names_holds_each_and_no_other() {
        let listed = |n: u32| format!("host{}.site{n}.example", n % 7);
        let text: String = (0..100_000).map(|n| listed(n) + "\n").collect();
        let zone = plain("z", text.as_bytes(), Match::Exact, rule(Action::Nodata, "")).unwrap();
        assert_eq!(zone.entries(), 100_000);
        let finds = |text: &str| {
            let asked = name(text);
            zone.find(&asked, &Walk::new(&asked, SEED)).is_some()
        };
        assert!((0..100_000).all(|n| finds(&listed(n))));
        assert!(!(100_000..200_000).any(|n| finds(&listed(n))));
    }

    #[test]
    fn the_digest_depends_on_what_is_said_and_not_on_the_order_of_lines() {
        let digest = |text: &str, action| {
            *plain("z", text.as_bytes(), Match::Subtree, rule(action, "")).unwrap().digest()
        };
        let one = digest("a.example\nb.example\n", Action::Nodata);
        assert_eq!(one, digest("b.example\n# x\nA.EXAMPLE.\nb.example", Action::Nodata));
        assert_ne!(one, digest("a.example\nb.example\n", Action::Nxdomain));
        assert_ne!(one, digest("a.example\nb.example\nc.example", Action::Nodata));
    }

    /// RFC 8020 2: NXDOMAIN for a name denies all below it.
    #[test]
    fn nxdomain_is_not_said_above_an_exception() {
        let nxdomain = || rule(Action::Nxdomain, "");
        let lists = |text: &str, scope, rule| plain("z", text.as_bytes(), scope, rule).unwrap();
        let says = |snapshot: &Snapshot, text: &str| {
            let asked = name(text);
            let decision = snapshot.find(&asked, Transport::Udp).unwrap();
            snapshot.denies_all_below(&asked, &decision)
        };
        let alone = snapshot(vec![lists("t.example", Match::Subtree, nxdomain())]);
        assert!(says(&alone, "t.example") && says(&alone, "x.t.example"));
        let exact = snapshot(vec![lists("t.example", Match::Exact, nxdomain())]);
        assert!(!says(&exact, "t.example"));
        let allowed = lists("cdn.t.example", Match::Subtree, rule(Action::Passthru, ""));
        let zones = vec![allowed, lists("t.example\nu.example", Match::Subtree, nxdomain())];
        let earlier = snapshot(zones);
        assert!(!says(&earlier, "t.example") && says(&earlier, "u.example"));
        let rules = vec![nxdomain(), Rule::Exemption];
        let hole = entries("z", rules, b"subtree 0 t.example\nexact 1 a.b.t.example\nsubtree 0 u.example");
        let hole = snapshot(vec![hole.unwrap_or_else(|_| panic!("entries"))]);
        assert!(!says(&hole, "t.example") && says(&hole, "u.example"));
    }

    #[test]
    fn a_hole_lets_the_next_zone_decide() {
        let rules = vec![rule(Action::Sinkhole, "1"), Rule::Exemption];
        let first = entries("a", rules, b"subtree 0 t.example\nsubtree 1 cdn.t.example").unwrap();
        let second = plain("b", b"x.cdn.t.example", Match::Subtree, rule(Action::Nodata, "")).unwrap();
        let both = snapshot(vec![first, second]);
        assert_eq!(both.find(&name("t.example"), Transport::Udp).unwrap().zone, 0);
        assert!(both.find(&name("cdn.t.example"), Transport::Udp).is_none());
        assert_eq!(both.find(&name("x.cdn.t.example"), Transport::Udp).unwrap().zone, 1);
        assert_eq!(both.covering(&name("x.cdn.t.example")).len(), 3);
    }
}
