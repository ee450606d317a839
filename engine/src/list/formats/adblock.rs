//! Filter rules of ad blockers, as far as AdGuard gives them a meaning for the DNS:
//! `||name^` and its exception. What depends on a page or a client is not applicable.

use std::collections::HashMap;

use super::{Entry, hosts};
use crate::list::Reason;
use crate::list::tokens::{split_once, word};
use crate::policy::Match;

const EXPECTED: &str = "rules such as `||ads.example^`";
/// Modifiers that make a rule hold for all that is asked, which it does in the DNS anyway.
const FOR_ALL: [&[u8]; 4] = [b"important", b"all", b"document", b"doc"];
/// Modifiers of exceptions that are about what a page shows or does, not about what is asked.
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
/// Octets of rules that are switched off, and that are remembered.
const REMEMBERED: usize = 16 << 20;

#[derive(Default)]
pub struct Adblock {
    pub switched_off: SwitchedOff,
}

impl Adblock {
    pub fn read(
        &mut self,
        line: &[u8],
        list: &mut impl FnMut(Entry) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        let line = line.trim_ascii();
        if is_comment(line)? {
            return Ok(());
        }
        if is_cosmetic(line) {
            return Err(Reason::Unsupported("a rule about parts of a page"));
        }
        let (address, names) = word(line);
        if hosts::is_address(address) && !names.is_empty() {
            return hosts::read(line, Match::Exact, list);
        }
        match self.switched_off.judge(line) {
            Switched::Not => read_rule(line, list),
            Switched::Off => Err(Reason::SwitchedOff),
            Switched::Switch => Ok(()), // `SwitchedOff::unused` tells those that did nothing
            Switched::Forgotten => Err(Reason::LostException("too many `$badfilter` rules")),
        }
    }
}

fn read_rule(line: &[u8], list: &mut impl FnMut(Entry) -> Result<(), Reason>) -> Result<(), Reason> {
    let Some(rule) = line.strip_prefix(b"@@") else {
        return list(name(line, false)?);
    };
    let is_of_page = |modifier: &[u8]| OF_PAGES.contains(&modifier);
    if modifiers(rule).1.is_some_and(|modifiers| modifiers.split(|octet| *octet == b',').any(is_of_page)) {
        return Err(Reason::Unsupported("an exception for parts of a page"));
    }
    list(name(rule, true).map_err(Reason::of_exception)?)
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
    let has = |sign: &[u8]| line.windows(sign.len()).any(|octets| octets == sign);
    [&b"##"[..], b"#@", b"#?#", b"#$", b"#%", b"$$", b"$@$"].into_iter().any(has)
}

/// The pattern of a rule, and what stands behind `$`. A regular expression may hold a `$`.
fn modifiers(rule: &[u8]) -> (&[u8], Option<&[u8]>) {
    match split_once(rule, b'$') {
        Some((pattern, modifiers)) if !rule.starts_with(b"/") => (pattern, Some(modifiers)),
        _ => (rule, None),
    }
}

/// `||name^` is the name and what is below, `|name^` and `://name^` the name alone, `*.name^`
/// what is below; a `|` at the end changes nothing, since a host's name ends where `^` is.
///
/// Without `^`, or without a sign before it, a rule is about other names as well, which begin or
/// end with this one. An exception of this kind is one for the name: for too few names
/// rather than for none.
fn name(rule: &[u8], is_exception: bool) -> Result<Entry<'_>, Reason> {
    if rule.starts_with(b"/") {
        return Err(Reason::Unsupported("a regular expression or a path"));
    }
    let (pattern, modifiers) = modifiers(rule);
    let for_all = |modifier: &[u8]| FOR_ALL.contains(&modifier);
    if modifiers.is_some_and(|all| !all.split(|octet| *octet == b',').all(for_all)) {
        return Err(Reason::Unsupported("a rule with modifiers"));
    }
    let (start, scope) = match pattern {
        [b'|', b'|', b'*', b'.', name @ ..] | [b'*', b'.', name @ ..] | [b'.', name @ ..] => {
            (name, Some(Match::Below))
        }
        [b'|', b'|', name @ ..] => (name, Some(Match::Subtree)),
        [b':', b'/', b'/', name @ ..] => (name, Some(Match::Exact)),
        [b'|', name @ ..] => (without_scheme(name), Some(Match::Exact)),
        name => (name, None),
    };
    let ended = start.strip_suffix(b"|").unwrap_or(start);
    let text = ended.strip_suffix(b"^").unwrap_or(ended);
    if text.iter().any(|octet| b"/:?=^|&".contains(octet)) {
        return Err(Reason::Unsupported("a rule with a port or a path"));
    }
    if text.contains(&b' ') {
        return Err(Reason::NotThisFormat(EXPECTED));
    }
    let is_ended = text.len() < start.len();
    let scope = match scope {
        Some(scope) if is_ended || is_exception => scope,
        Some(_) => {
            return Err(Reason::Unsupported("a rule without `^`, which other names begin with as well"));
        }
        None if is_exception => Match::Subtree,
        // Alone, a name is a rule of hosts files: the name itself.
        None if !is_ended && modifiers.is_none() && is_host(text) => Match::Exact,
        None => return Err(Reason::Unsupported("a rule that matches a part of a name or a path")),
    };
    Ok(Entry { text, scope, is_exception })
}

fn is_host(text: &[u8]) -> bool {
    !text.contains(&b'*') && text.strip_suffix(b".").unwrap_or(text).contains(&b'.')
}

fn without_scheme(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"https://").or_else(|| text.strip_prefix(b"http://")).unwrap_or(text)
}

/// The rules that `$badfilter` switches off: those that are the same but for this modifier.
#[derive(Default)]
pub struct SwitchedOff {
    /// By what they say: where the rule stands that switches them off, and whether there is one.
    rules: HashMap<Vec<u8>, (usize, u32, bool)>,
    octets: usize,
}

impl SwitchedOff {
    /// Takes note of a line; `file` and `number` are its place.
    pub fn note(&mut self, line: &[u8], file: usize, number: u32) {
        if memchr::memmem::find(line, b"badfilter").is_none() {
            return;
        }
        let (rule, true) = rule_of(line.trim_ascii()) else { return };
        self.octets += rule.len();
        if self.octets <= REMEMBERED {
            self.rules.entry(rule).or_insert((file, number, false));
        }
    }

    /// Those that switch off a block that the list does not have, by file and line: they may be
    /// meant for the rule of another list.
    pub fn unused(&self) -> impl Iterator<Item = (usize, u32)> {
        let is_unused = |(rule, (_, _, is_there)): &(&Vec<u8>, &(usize, u32, bool))| {
            !is_there && !rule.starts_with(b"@@")
        };
        self.rules.iter().filter(is_unused).map(|(_, (file, number, _))| (*file, *number))
    }

    fn judge(&mut self, line: &[u8]) -> Switched {
        if self.octets == 0 {
            return Switched::Not; // nearly all lists
        }
        let (rule, is_switch) = rule_of(line);
        match (is_switch, self.rules.get_mut(&rule)) {
            (false, None) => Switched::Not,
            (false, Some((_, _, is_there))) => {
                *is_there = true;
                Switched::Off
            }
            (true, Some(_)) => Switched::Switch,
            (true, None) => Switched::Forgotten,
        }
    }
}

enum Switched {
    Not,
    Off,
    Switch,
    Forgotten,
}

/// What a rule says, whatever the order of its modifiers and without `badfilter`; and whether
/// it has that one.
fn rule_of(line: &[u8]) -> (Vec<u8>, bool) {
    let at = if line.starts_with(b"@@") { 2 } else { 0 };
    let (pattern, Some(modifiers)) = modifiers(&line[at..]) else { return (line.to_vec(), false) };
    let mut others: Vec<&[u8]> = modifiers.split(|octet| *octet == b',').collect();
    let count = others.len();
    others.retain(|modifier| *modifier != b"badfilter");
    let is_switch = others.len() < count;
    others.sort_unstable();
    let mut rule = line[..at + pattern.len()].to_vec();
    if !others.is_empty() {
        rule.push(b'$');
        rule.extend(others.join(&b','));
    }
    (rule, is_switch)
}

#[cfg(test)]
mod tests {
    use super::SwitchedOff;
    use crate::list::Format;
    use crate::list::reader::tests::{code, listed, reader, said};

    #[test]
    fn rules_about_names_are_read() {
        for (line, said) in [
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
            assert_eq!(listed(Format::Adblock, line), said, "{line}");
        }
    }

    /// As AdGuard and uBlock Origin write them.
    #[test]
    fn no_exception_is_lost_because_of_its_form() {
        for (line, said) in [
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
            assert_eq!(listed(Format::Adblock, line), said, "{line}");
        }
    }

    #[test]
    fn an_exception_that_is_not_carried_out_is_told_as_one() {
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
        // About what a page shows: nothing is blocked for want of it.
        assert_eq!(code(Format::Adblock, "@@||a.example^$generichide"), "unsupported");
        assert_eq!(code(Format::Adblock, "a.example#@#.ad"), "unsupported");
    }

    #[test]
    fn a_rule_may_be_switched_off_from_anywhere() {
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
            off.note(line.as_bytes(), 7, number as u32);
        }
        let mut reader = reader(Format::Adblock);
        reader.switch_off(off);
        let read = lines.map(|line| said(&mut reader, line.as_bytes()));
        let (nothing, off) = (Ok(String::new()), Err("switched_off"));
        let expected = [&nothing, &off, &off, &nothing, &off, &nothing, &nothing, &nothing];
        assert!(read.iter().zip(expected).all(|(read, expected)| read == expected), "{read:?}");
        assert_eq!(read[8], Ok("subtree f.example".to_string()));
        assert_eq!(reader.take_switched_off().unused().collect::<Vec<_>>(), [(7, 6)]);
    }

    #[test]
    fn comments_and_headers_are_nothing() {
        for line in ["", "! Title: x", "[Adblock Plus 2.0]", "# x", "#x", "# x ## y", "#", "!"] {
            assert_eq!(listed(Format::Adblock, line), "", "{line}");
        }
    }

    #[test]
    fn what_is_not_about_names_is_refused() {
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
