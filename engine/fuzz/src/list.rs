//! Any bytes as a list. Either all invalid lines are counted, or queries find exactly the listed
//! names, whatever the order of the lines.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{self, Decided, LIST_RULES, Listed};
use crate::{addresses, formats};

/// Names of a list that are queried: the time is better spent on other lists.
const MAX_QUERIED: usize = 16;

pub fn list(text: &[u8]) {
    check_names(text);
    check_entries(text);
    addresses::check(text);
    formats::check(text);
}

type Label = Vec<u8>;

/// Checks a list of names with each of the three matches.
fn check_names(text: &[u8]) {
    let names: Vec<_> = words(text).map(naive_name).collect();
    let invalid = names.iter().filter(|name| name.is_none()).count();
    let names: BTreeSet<Vec<Label>> = names.into_iter().flatten().collect();
    for scope in ["exact", "subtree", "below"] {
        let compiled = |text: &[u8]| {
            let entry = |word: &[u8]| [scope.as_bytes(), b" 1 ", word, b"\n"].concat();
            engine::entries(&words(text).flat_map(entry).collect::<Vec<u8>>())
        };
        let listed = match compiled(text) {
            Ok(listed) => listed,
            Err(total) => {
                assert_eq!(total, invalid);
                continue;
            }
        };
        assert_eq!((invalid, listed.entries), (0, names.len()));
        for name in names.iter().take(MAX_QUERIED).flat_map(|name| neighbours(name)) {
            let covers = |skip: &usize| match scope {
                "exact" => *skip == 0,
                "below" => *skip > 0,
                _ => true,
            };
            let is_listed = (0..name.len()).filter(covers).any(|skip| names.contains(&name[skip..]));
            let expected = is_listed.then_some("nodata");
            assert_eq!(action(&listed, &name), expected, "{scope} {}", name.join(&b'.').escape_ascii());
        }
        let backwards = compiled(&reversed(text)).map(|listed| listed.digest);
        assert_eq!(backwards, Ok(listed.digest), "the order of lines");
    }
}

/// The lines that are not empty, without comments and white space.
pub fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let lines = text.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let uncommented = |line: &'_ [u8]| {
        (0..line.len())
            .find(|&at| line[at] == b'#' && (at == 0 || is_space(line[at - 1])))
            .unwrap_or(line.len())
    };
    lines.map(move |line| line[..uncommented(line)].trim_ascii()).filter(|word| !word.is_empty())
}

fn is_space(byte: u8) -> bool {
    b" \t\n\x0c\r".contains(&byte)
}

/// RFC 1035 2.3.4: a label has at most 63 bytes, a name 253 characters.
fn naive_name(text: &[u8]) -> Option<Vec<Label>> {
    let text = text.strip_suffix(b".").unwrap_or(text).to_ascii_lowercase();
    let labels: Vec<Label> = text.split(|&byte| byte == b'.').map(<[u8]>::to_vec).collect();
    let fits = |label: &Label| (1..=63).contains(&label.len()) && label.iter().all(|&byte| is_plain(byte));
    (text.len() <= 253 && labels.iter().all(fits)).then_some(labels)
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')
}

//------- Entries: match, index of a rule, and name ---------------------------

/// Match, index of a rule, and name.
type Entry = (&'static str, usize, Vec<Label>);
/// Match and rule of each entry for a name, or for the names below it.
type Entries = Vec<(&'static str, &'static str)>;

fn check_entries(text: &[u8]) {
    let listed = engine::entries(text);
    let Ok(lines) = naive_entries(text) else {
        return assert!(listed.is_err(), "an invalid line was accepted");
    };
    let Ok(listed) = listed else { panic!("a valid line was rejected") };
    // By owner, and by whether they apply to the owner itself or to names below it.
    let mut by_owner: BTreeMap<(&[Label], bool), Entries> = BTreeMap::new();
    for (scope, rule, name) in &lines {
        for itself in [true, false] {
            if itself && *scope != "below" || !itself && *scope != "exact" {
                by_owner.entry((name.as_slice(), itself)).or_default().push((scope, LIST_RULES[*rule]));
            }
        }
    }
    let rank = |&(scope, rule): &(&'static str, &'static str)| (scope == "exact", rule == "exempt");
    // The first of the best.
    let best = |entries: &Entries| {
        let top = entries.iter().map(rank).max();
        entries.iter().find(|one| Some(rank(one)) == top).map(|(_, rule)| *rule)
    };
    let names: BTreeSet<&Vec<Label>> = lines.iter().map(|(_, _, name)| name).collect();
    assert_eq!(listed.entries, names.len());
    for name in names.into_iter().take(MAX_QUERIED).flat_map(|name| neighbours(name)) {
        let decides = (0..name.len()).find_map(|skip| by_owner.get(&(&name[skip..], skip == 0)));
        let expected = decides.and_then(best).filter(|rule| *rule != "exempt");
        assert_eq!(
            action(&listed, &name),
            expected,
            "{} in {}",
            name.join(&b'.').escape_ascii(),
            text.escape_ascii()
        );
    }
    // Of two different rules of the same rank, the earlier wins.
    let clash =
        |entries: &Entries| entries.iter().any(|a| entries.iter().any(|b| rank(a) == rank(b) && a.1 != b.1));
    let conflicts = by_owner.values().any(clash);
    let backwards = engine::entries(&reversed(text)).map(|listed| listed.digest);
    assert!(conflicts || backwards == Ok(listed.digest), "the order of lines: {}", text.escape_ascii());
}

fn naive_entries(text: &[u8]) -> Result<Vec<Entry>, ()> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let lines = text.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.filter(|line| !line.is_empty()).map(|line| naive_entry(line).ok_or(())).collect()
}

fn naive_entry(line: &[u8]) -> Option<Entry> {
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let [scope, rule, name] = words[..] else { return None };
    let scope = ["exact", "subtree", "below"].into_iter().find(|known| known.as_bytes() == scope)?;
    let rule = std::str::from_utf8(rule).ok()?;
    let rule = rule.parse::<u32>().ok()? as usize;
    (rule < LIST_RULES.len()).then_some((scope, rule, naive_name(name)?))
}

//------- Queries -------------------------------------------------------------

/// The lines in reverse order. Only the first line may have a byte order mark, so it is removed.
pub fn reversed(text: &[u8]) -> Vec<u8> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    lines.reverse();
    lines.join(&b'\n')
}

/// The name, and similar names.
fn neighbours(name: &[Label]) -> Vec<Vec<Label>> {
    let first = &name[0];
    let with = |label: Vec<u8>| [&[label], &name[1..]].concat();
    let mut near = vec![
        name.to_vec(),
        name[1..].to_vec(),
        [&[b"x".to_vec()], name].concat(),
        [&[b"x".to_vec(), b"y".to_vec()], name].concat(),
        [name, &[b"x".to_vec()]].concat(),
        with([first.as_slice(), b"x"].concat()),
        with([b"x", first.as_slice()].concat()),
        with(first[1..].to_vec()),
        // RFC 2181 11: a dot in a label is not a separator.
        vec![name.join(&b'.')],
    ];
    let mut changed = first.clone();
    changed[0] ^= 1;
    near.push(with(changed));
    let is_name = |name: &Vec<Label>| {
        name.iter().map(|label| label.len() + 1).sum::<usize>() < 255
            && name.iter().all(|label| (1..=63).contains(&label.len()))
    };
    near.retain(is_name);
    near
}

/// The action for a query. Its name is in upper case.
fn action(listed: &Listed, name: &[Label]) -> Option<&'static str> {
    let mut packet = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name {
        packet.push(label.len() as u8);
        packet.extend(label.to_ascii_uppercase());
    }
    packet.extend_from_slice(b"\0\0\x01\0\x01"); // type A, for which the actions differ
    match listed.decided(&packet) {
        // Answered without being blocked: a special-use name.
        Decided::Forwarded { .. } | Decided::Answered { blocked: None, .. } => None,
        Decided::Answered { blocked: Some((0, action)), .. } => Some(action),
        other => panic!("a plain query got {other:02x?}"),
    }
}
