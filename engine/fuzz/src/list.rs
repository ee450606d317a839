//! Any octets as a list: refused as a whole, or each name of it and no other is
//! found by asking as clients ask, whatever the order of the lines.

use std::collections::{BTreeMap, BTreeSet};

use crate::world::{self, Decided, LIST_RULES, Listed};
use crate::{addresses, formats};

/// More names than these are not asked for: the time is better spent on other
/// lists.
const ASKED: usize = 16;

pub fn list(text: &[u8]) {
    check_plain(text);
    check_entries(text);
    addresses::check(text);
    formats::check(text);
}

type Label = Vec<u8>;

fn check_plain(text: &[u8]) {
    let read = naive_plain(text);
    for scope in ["exact", "subtree", "below"] {
        let listed = world::plain(text, scope);
        match (&read, listed) {
            (Ok(names), Ok(listed)) => {
                assert_eq!(listed.entries, names.len());
                for name in names.iter().take(ASKED).flat_map(|name| neighbours(name)) {
                    let covers = |skip: &usize| match scope {
                        "exact" => *skip == 0,
                        "below" => *skip > 0,
                        _ => true,
                    };
                    let is_listed = (0..name.len()).filter(covers).any(|skip| names.contains(&name[skip..]));
                    let expected = is_listed.then_some("nodata");
                    assert_eq!(
                        action(&listed, &name),
                        expected,
                        "{scope} of {}",
                        name.join(&b'.').escape_ascii()
                    );
                }
                let backwards = world::plain(&reversed(text), scope).map(|listed| listed.digest);
                assert_eq!(backwards, Ok(listed.digest), "the order of lines");
            }
            (Err(bad), Err(total)) => assert_eq!(*bad, total),
            (read, listed) => panic!("{read:?}, but {:?}", listed.map(|listed| listed.entries)),
        }
    }
}

/// The naive twin: the names, or how many lines are wrong.
fn naive_plain(text: &[u8]) -> Result<BTreeSet<Vec<Label>>, usize> {
    let names: Vec<_> = words(text).map(naive_name).collect();
    // No top-level domain is a number (RFC 1123 2.1), and one label is a whole one.
    let is_number = |label: &Label| {
        let text = String::from_utf8_lossy(label);
        text.chars().all(|c| c.is_ascii_digit())
            || text.starts_with("0x") && text.chars().skip(2).all(|c| c.is_ascii_hexdigit())
    };
    let is_wrong = |name: &Vec<Label>| name.len() < 2 || name.last().is_some_and(is_number);
    match names.iter().filter(|name| name.as_ref().is_none_or(is_wrong)).count() {
        0 => Ok(names.into_iter().flatten().collect()),
        bad => Err(bad),
    }
}

/// What stands on the lines, without comments and white space.
pub fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let lines = text.split(|&octet| octet == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let uncommented = |line: &'_ [u8]| {
        (0..line.len())
            .find(|&at| line[at] == b'#' && (at == 0 || is_space(line[at - 1])))
            .unwrap_or(line.len())
    };
    lines.map(move |line| line[..uncommented(line)].trim_ascii()).filter(|word| !word.is_empty())
}

fn is_space(octet: u8) -> bool {
    b" \t\n\x0c\r".contains(&octet)
}

/// RFC 1035 2.3.4: 63 octets a label, 253 characters a name.
fn naive_name(text: &[u8]) -> Option<Vec<Label>> {
    let text = text.strip_suffix(b".").unwrap_or(text).to_ascii_lowercase();
    let labels: Vec<Label> = text.split(|&octet| octet == b'.').map(<[u8]>::to_vec).collect();
    let fits = |label: &Label| (1..=63).contains(&label.len()) && label.iter().all(|&octet| is_plain(octet));
    (text.len() <= 253 && labels.iter().all(fits)).then_some(labels)
}

fn is_plain(octet: u8) -> bool {
    matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')
}

//------- Lines of match, number of a rule, and name -------------------------

/// Match, rule and name.
type Entry = (&'static str, usize, Vec<Label>);
/// What entries say about one owner, or about what is below it: match and rule.
type Said = Vec<(&'static str, &'static str)>;

fn check_entries(text: &[u8]) {
    let listed = world::entries(text);
    let Ok(lines) = naive_entries(text) else {
        return assert!(listed.is_err(), "a line that means nothing was taken");
    };
    let Ok(listed) = listed else { panic!("a line that means something was refused") };
    // By owner, and by whether it is about the name itself or what is below.
    let mut held: BTreeMap<(&[Label], bool), Said> = BTreeMap::new();
    for (scope, rule, name) in &lines {
        for itself in [true, false] {
            if itself && *scope != "below" || !itself && *scope != "exact" {
                held.entry((name.as_slice(), itself)).or_default().push((scope, LIST_RULES[*rule]));
            }
        }
    }
    let rank = |&(scope, rule): &(&'static str, &'static str)| (scope == "exact", rule == "hole");
    // The first of the best.
    let best = |said: &Said| {
        let top = said.iter().map(rank).max();
        said.iter().find(|one| Some(rank(one)) == top).map(|(_, rule)| *rule)
    };
    let names: BTreeSet<&Vec<Label>> = lines.iter().map(|(_, _, name)| name).collect();
    assert_eq!(listed.entries, names.len());
    for name in names.into_iter().take(ASKED).flat_map(|name| neighbours(name)) {
        let decides = (0..name.len()).find_map(|skip| held.get(&(&name[skip..], skip == 0)));
        let expected = decides.and_then(best).filter(|rule| *rule != "hole");
        assert_eq!(
            action(&listed, &name),
            expected,
            "{} in {}",
            name.join(&b'.').escape_ascii(),
            text.escape_ascii()
        );
    }
    // Of two that say different things with one rank the earlier wins.
    let clash = |said: &Said| said.iter().any(|a| said.iter().any(|b| rank(a) == rank(b) && a.1 != b.1));
    let conflicts = held.values().any(clash);
    let backwards = world::entries(&reversed(text)).map(|listed| listed.digest);
    assert!(conflicts || backwards == Ok(listed.digest), "the order of lines: {}", text.escape_ascii());
}

fn naive_entries(text: &[u8]) -> Result<Vec<Entry>, ()> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let lines = text.split(|&octet| octet == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.filter(|line| !line.is_empty()).map(|line| naive_entry(line).ok_or(())).collect()
}

fn naive_entry(line: &[u8]) -> Option<Entry> {
    let words: Vec<&[u8]> = line.split(|&octet| octet == b' ').collect();
    let [scope, rule, name] = words[..] else { return None };
    let scope = ["exact", "subtree", "below"].into_iter().find(|known| known.as_bytes() == scope)?;
    let rule = std::str::from_utf8(rule).ok()?;
    let rule = rule.parse::<u32>().ok()? as usize;
    (rule < LIST_RULES.len()).then_some((scope, rule, naive_name(name)?))
}

//------- Asking -------------------------------------------------------------

/// The lines in reverse, without the byte order mark that only the first may have.
pub fn reversed(text: &[u8]) -> Vec<u8> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut lines: Vec<&[u8]> = text.split(|&octet| octet == b'\n').collect();
    lines.reverse();
    lines.join(&b'\n')
}

/// The name, and names that only look like it.
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
        // RFC 2181 11: a dot within a label parts nothing.
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

/// Asks for a name, in upper case, as a client does; the action it meets.
fn action(listed: &Listed, name: &[Label]) -> Option<&'static str> {
    let mut packet = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name {
        packet.push(label.len() as u8);
        packet.extend(label.to_ascii_uppercase());
    }
    packet.extend_from_slice(b"\0\0\x01\0\x01"); // A: each action answers it as what it is
    match listed.decided(&packet) {
        Decided::Forwarded { .. } => None,
        Decided::Answered { blocked: Some((0, action)), .. } => Some(action),
        other => panic!("a plain query got {other:02x?}"),
    }
}
