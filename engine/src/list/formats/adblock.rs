//! Filter rules of ad blockers, with the meaning that AdGuard gives them for DNS:
//!
//! ```text
//! ||ads.example^             ! the name and all names below it
//! |ads.example^              ! only the name; so do `://ads.example^`, and `ads.example` alone
//! ||*.ads.example^           ! only names below it; so do `*.ads.example^` and `.ads.example^`
//! @@||good.example^          ! an exception
//! ||ads.example^$badfilter   ! switches off the rule `||ads.example^`, wherever it is
//! 0.0.0.0 ads.example        ! as in a hosts file
//! ```
//!
//! Rules that depend on a page, a client or a path are not applicable.

use std::collections::HashMap;

use super::{Entry, TakeEntry, hosts};
use crate::list::Reason;
use crate::list::tokens::{split_once, word};
use crate::policy::Match;

const EXPECTED: &str = "rules such as `||ads.example^`";
/// Modifiers that apply a rule to all requests, as DNS blocking always does.
const FOR_ALL: [&[u8]; 4] = [b"important", b"all", b"document", b"doc"];
/// Modifiers of exceptions that concern the content of a page, not the requests for it.
const OF_PAGES: [&[u8]; 12] = [
    b"elemhide",
    b"ehide",
    b"generichide",
    b"ghide",
    b"specifichide",
    b"shide",
    b"genericblock",
    b"jsinject",
    b"content",
    b"extension",
    b"stealth",
    b"inline-script",
];
/// Memory for `$badfilter` rules, in bytes.
const MAX_SWITCHED_OFF: usize = 16 << 20;

#[derive(Default)]
pub struct Adblock {
    pub switched_off: SwitchedOff,
}

impl Adblock {
    pub fn parse(&mut self, line: &[u8], take: &mut impl TakeEntry) -> Result<(), Reason> {
        let line = line.trim_ascii();
        if is_comment(line)? {
            return Ok(());
        }
        if is_cosmetic(line) {
            return Err(Reason::Unsupported("a rule about parts of a page"));
        }
        let (address, names) = word(line);
        if hosts::is_address(address) && !names.is_empty() {
            return hosts::parse(line, Match::Exact, take);
        }
        match self.switched_off.state(line) {
            State::Active => parse_rule(line, take),
            State::SwitchedOff => Err(Reason::SwitchedOff),
            State::Badfilter => Ok(()), // `SwitchedOff::unused` returns those without a rule
            State::Unknown => Err(Reason::LostException("too many `$badfilter` rules")),
        }
    }
}

fn parse_rule(line: &[u8], take: &mut impl TakeEntry) -> Result<(), Reason> {
    let Some(rule) = line.strip_prefix(b"@@") else {
        return take(entry(line, false)?);
    };
    let is_of_page = |modifier: &[u8]| OF_PAGES.contains(&modifier);
    if modifiers(rule).1.is_some_and(|all| all.split(|byte| *byte == b',').any(is_of_page)) {
        return Err(Reason::Unsupported("an exception for parts of a page"));
    }
    take(entry(rule, true).map_err(Reason::of_exception)?)
}

fn is_comment(line: &[u8]) -> Result<bool, Reason> {
    if line.starts_with(b"!#include") || line.starts_with(b"!#if") {
        return Err(Reason::Unsupported("a directive that other lines depend on"));
    }
    let is_header = line.starts_with(b"[") && line.ends_with(b"]");
    let is_hash = line.starts_with(b"# ") || line.starts_with(b"#") && !is_cosmetic(line);
    Ok(line.is_empty() || line.starts_with(b"!") || is_header || is_hash)
}

fn is_cosmetic(line: &[u8]) -> bool {
    let has = |mark: &[u8]| line.windows(mark.len()).any(|bytes| bytes == mark);
    [&b"##"[..], b"#@", b"#?#", b"#$", b"#%", b"$$", b"$@$"].into_iter().any(has)
}

/// Splits a rule into its pattern and the modifiers after `$`. A regular expression may contain `$`.
fn modifiers(rule: &[u8]) -> (&[u8], Option<&[u8]>) {
    match split_once(rule, b'$') {
        Some((pattern, modifiers)) if !rule.starts_with(b"/") => (pattern, Some(modifiers)),
        _ => (rule, None),
    }
}

/// Parses a rule without its `@@`.
///
/// A rule without `^` at its end or an anchor at its start also matches longer names, so it is not
/// applicable. Such an exception exempts only the name: better too few exemptions than none.
fn entry(rule: &[u8], is_exception: bool) -> Result<Entry<'_>, Reason> {
    if rule.starts_with(b"/") {
        return Err(Reason::Unsupported("a regular expression or a path"));
    }
    let (pattern, modifiers) = modifiers(rule);
    let for_all = |modifier: &[u8]| FOR_ALL.contains(&modifier);
    if modifiers.is_some_and(|all| !all.split(|byte| *byte == b',').all(for_all)) {
        return Err(Reason::Unsupported("a rule with modifiers"));
    }
    let (anchored, text) = anchor(pattern);
    // A `|` at the end has no effect: a host name ends where `^` is.
    let name = text.strip_suffix(b"|").unwrap_or(text);
    let name = name.strip_suffix(b"^").unwrap_or(name);
    if name.iter().any(|byte| b"/:?=^|&".contains(byte)) {
        return Err(Reason::Unsupported("a rule with a port or a path"));
    }
    if name.contains(&b' ') {
        return Err(Reason::NotThisFormat(EXPECTED));
    }
    let is_ended = name.len() < text.len();
    let scope = match anchored {
        Some(scope) if is_ended || is_exception => scope,
        Some(_) => {
            return Err(Reason::Unsupported("a rule without `^`, which other names begin with as well"));
        }
        None if is_exception => Match::Subtree,
        // A bare name is a rule of hosts files: only the name itself.
        None if !is_ended && modifiers.is_none() && is_host(name) => Match::Exact,
        None => return Err(Reason::Unsupported("a rule that matches a part of a name or a path")),
    };
    Ok(Entry { name, scope, is_exception })
}

/// The scope that the start of a pattern stands for, and the rest of the pattern.
fn anchor(pattern: &[u8]) -> (Option<Match>, &[u8]) {
    match pattern {
        [b'|', b'|', b'*', b'.', rest @ ..] | [b'*', b'.', rest @ ..] | [b'.', rest @ ..] => {
            (Some(Match::Below), rest)
        }
        [b'|', b'|', rest @ ..] => (Some(Match::Subtree), rest),
        [b':', b'/', b'/', rest @ ..] => (Some(Match::Exact), rest),
        [b'|', rest @ ..] => {
            let host = rest.strip_prefix(b"https://").or_else(|| rest.strip_prefix(b"http://"));
            (Some(Match::Exact), host.unwrap_or(rest))
        }
        rest => (None, rest),
    }
}

fn is_host(text: &[u8]) -> bool {
    !text.contains(&b'*') && text.strip_suffix(b".").unwrap_or(text).contains(&b'.')
}

/// The rules that `$badfilter` rules switch off: equal rules without this modifier.
#[derive(Default)]
pub struct SwitchedOff {
    rules: HashMap<Vec<u8>, Badfilter>,
    bytes: usize,
}

struct Badfilter {
    file: usize,
    line: u32,
    /// Whether the list has the rule that it switches off.
    is_used: bool,
}

impl SwitchedOff {
    /// Adds the rule of a line if it has `$badfilter`.
    pub fn add(&mut self, text: &[u8], file: usize, line: u32) {
        if memchr::memmem::find(text, b"badfilter").is_none() {
            return;
        }
        let (rule, true) = canonical_rule(text.trim_ascii()) else { return };
        self.bytes += rule.len();
        if self.bytes <= MAX_SWITCHED_OFF {
            self.rules.entry(rule).or_insert(Badfilter { file, line, is_used: false });
        }
    }

    /// File and line of each `$badfilter` for a block that the list does not have. It may be meant
    /// for a rule of another list.
    pub fn unused(&self) -> impl Iterator<Item = (usize, u32)> {
        let is_unused = |(rule, by): &(&Vec<u8>, &Badfilter)| !by.is_used && !rule.starts_with(b"@@");
        self.rules.iter().filter(is_unused).map(|(_, by)| (by.file, by.line))
    }

    fn state(&mut self, line: &[u8]) -> State {
        if self.bytes == 0 {
            return State::Active; // as in nearly all lists
        }
        let (rule, is_badfilter) = canonical_rule(line);
        match (is_badfilter, self.rules.get_mut(&rule)) {
            (false, None) => State::Active,
            (false, Some(badfilter)) => {
                badfilter.is_used = true;
                State::SwitchedOff
            }
            (true, Some(_)) => State::Badfilter,
            (true, None) => State::Unknown,
        }
    }
}

/// The state of a rule, according to `$badfilter` rules.
enum State {
    Active,
    SwitchedOff,
    /// It is such a rule itself.
    Badfilter,
    /// It is one that was not stored, because there were too many.
    Unknown,
}

/// The rule with sorted modifiers and without `badfilter`, and whether it had that modifier.
fn canonical_rule(line: &[u8]) -> (Vec<u8>, bool) {
    let at = if line.starts_with(b"@@") { 2 } else { 0 };
    let (pattern, Some(modifiers)) = modifiers(&line[at..]) else { return (line.to_vec(), false) };
    let mut others: Vec<&[u8]> = modifiers.split(|byte| *byte == b',').collect();
    let count = others.len();
    others.retain(|modifier| *modifier != b"badfilter");
    let is_badfilter = others.len() < count;
    others.sort_unstable();
    let mut rule = line[..at + pattern.len()].to_vec();
    if !others.is_empty() {
        rule.push(b'$');
        rule.extend(others.join(&b','));
    }
    (rule, is_badfilter)
}

#[cfg(test)]
mod tests {
    use super::SwitchedOff;
    use crate::list::Format;
    use crate::list::reader::tests::{code, entries, listed, reader};

    #[test]
    fn rules_about_names_are_listed() {
        for (line, expected) in [
            ("||a.example^", "subtree a.example"),
            ("||a.example|", "subtree a.example"),
            ("||a.example^$important", "subtree a.example"),
            ("||a.example^$document,all", "subtree a.example"),
            ("@@||a.example^", "except subtree a.example"),
            ("@@||a.example^|", "except subtree a.example"),
            ("|a.example^", "exact a.example"),
            ("a.example", "exact a.example"),
            ("://a.example^", "exact a.example"),
            ("|https://a.example^", "exact a.example"),
            ("||*.a.example^", "below a.example"),
            ("*.a.example^", "below a.example"),
            (".a.example^", "below a.example"),
            ("0.0.0.0 a.example", "exact a.example"),
        ] {
            assert_eq!(listed(Format::Adblock, line), expected, "{line}");
        }
    }

    /// The forms that AdGuard and uBlock Origin use.
    #[test]
    fn no_exception_is_lost_because_of_its_form() {
        for (line, expected) in [
            ("@@||a.example", "except subtree a.example"),
            ("@@||a.example|", "except subtree a.example"),
            ("@@a.example", "except subtree a.example"),
            ("@@a.example^", "except subtree a.example"),
            ("@@://a.example^|", "except exact a.example"),
            ("@@|https://a.example^|", "except exact a.example"),
            ("@@|a.example^", "except exact a.example"),
            ("@@||*.a.example^", "except below a.example"),
            ("@@||a.example^$important", "except subtree a.example"),
        ] {
            assert_eq!(listed(Format::Adblock, line), expected, "{line}");
        }
    }

    #[test]
    fn an_exception_that_is_not_applicable_is_reported_as_lost() {
        for line in [
            "@@||a.example^$client=192.0.2.1",
            "@@||a.example^$third-party",
            "@@||a.example/path",
            "@@/^ads$/",
            "@@||a..example^",
            "@@||com^",
            "@@||192.0.2.1^",
            "@@||a.*.example^",
            "@@two words",
        ] {
            assert_eq!(code(Format::Adblock, line), "lost_exception", "{line}");
        }
        // It concerns the content of a page: without it, no name is blocked.
        assert_eq!(code(Format::Adblock, "@@||a.example^$generichide"), "unsupported");
        assert_eq!(code(Format::Adblock, "a.example#@#.ad"), "unsupported");
    }

    #[test]
    fn badfilter_switches_off_a_rule_anywhere_in_the_list() {
        let lines = [
            "||a.example^$badfilter",
            "||a.example^",
            "||b.example^$important,document",
            "||b.example^$document,badfilter,important",
            "@@||c.example^",
            "@@||c.example^$badfilter",
            "||d.example^$badfilter",
            "@@||e.example^$badfilter",
            "||f.example^",
        ];
        let mut off = SwitchedOff::default();
        for (number, line) in lines.iter().enumerate() {
            off.add(line.as_bytes(), 7, number as u32);
        }
        let mut reader = reader(Format::Adblock);
        reader.switch_off(off);
        let read = lines.map(|line| entries(&mut reader, line.as_bytes()));
        let (nothing, off) = (Ok(String::new()), Err("switched_off"));
        let expected = [&nothing, &off, &off, &nothing, &off, &nothing, &nothing, &nothing];
        assert!(read.iter().zip(expected).all(|(read, expected)| read == expected), "{read:?}");
        assert_eq!(read[8], Ok("subtree f.example".to_string()));
        assert_eq!(reader.take_switched_off().unused().collect::<Vec<_>>(), [(7, 6)]);
    }

    #[test]
    fn comments_and_headers_are_ignored() {
        for line in ["", "! Title: x", "[Adblock Plus 2.0]", "# x", "#x", "# x ## y", "#", "!"] {
            assert_eq!(listed(Format::Adblock, line), "", "{line}");
        }
    }

    #[test]
    fn other_rules_are_rejected() {
        for line in [
            "||a.example",
            "||a.example/ads",
            "||a.example/ads^",
            "||a.example:8080^",
            "||ads.*.example^",
            "||a.example^$third-party",
            "||a.example^$important,client=192.0.2.1",
            "||a.example^$dnsrewrite=192.0.2.1",
            "||a.example^$",
            "a.example$important",
            "-ad-300x250.",
            "a.example^",
            "*",
            "/^ads[0-9]+\\.example$/",
            "&ad_box=",
            "a.example##.ad",
            "##.ad",
            "a.example#@#.ad",
            "a.example#$#body{}",
            "a.example$$script",
            "!#include https://a.example/list",
            "://ads.",
        ] {
            let code = code(Format::Adblock, line);
            assert!(["unsupported", "bad_character", "not_a_name"].contains(&code), "{line}: {code}");
        }
        assert_eq!(code(Format::Adblock, "||com^"), "top_level");
        assert_eq!(code(Format::Adblock, "||^"), "not_a_name");
        assert_eq!(code(Format::Adblock, "||a.example^ ||b.example^"), "unsupported");
        assert_eq!(code(Format::Adblock, "||192.0.2.1^"), "address");
    }
}
