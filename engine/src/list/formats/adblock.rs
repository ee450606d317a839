//! Filter rules of ad blockers, as far as AdGuard gives them a meaning for the DNS:
//! `||name^` and its exception. What depends on a page or a client is refused.

use super::Listed;
use crate::list::Reason;
use crate::list::words::split_once;
use crate::policy::Match;

const EXPECTED: &str = "rules such as `||ads.example^`";

pub fn read(line: &[u8], list: &mut impl FnMut(Listed) -> Result<(), Reason>) -> Result<(), Reason> {
    let line = line.trim_ascii();
    if is_comment(line)? {
        return Ok(());
    }
    if is_cosmetic(line) {
        return Err(Reason::Unsupported("a rule about parts of a page"));
    }
    let (is_exception, rule) = match line.strip_prefix(b"@@") {
        Some(rule) => (true, rule),
        None => (false, line),
    };
    if rule.starts_with(b"/") {
        return Err(Reason::Unsupported("a regular expression or a path"));
    }
    // Alone, a name is a rule of hosts files: the name itself.
    if !is_exception && !rule.iter().any(|octet| b"|^$*/:?=".contains(octet)) {
        return list(Listed::new(rule, Match::Exact));
    }
    let pattern = without_modifiers(rule)?;
    let (text, scope) = name(pattern)?;
    list(Listed { text, scope, is_exception })
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

/// What remains in the DNS of a rule's modifiers: those that make it hold for all that
/// is asked, which it does here anyway.
fn without_modifiers(rule: &[u8]) -> Result<&[u8], Reason> {
    let Some((pattern, modifiers)) = split_once(rule, b'$') else { return Ok(rule) };
    let holds_for_all = |modifier: &[u8]| matches!(modifier, b"important" | b"all" | b"document" | b"doc");
    if !modifiers.split(|&octet| octet == b',').all(holds_for_all) {
        return Err(Reason::Unsupported("a rule with modifiers"));
    }
    Ok(pattern)
}

/// `||name^` is the name and what is below, `|name^` the name alone; a `|` at the end
/// changes nothing, since a host's name ends where `^` is.
fn name(pattern: &[u8]) -> Result<(&[u8], Match), Reason> {
    let (start, scope) = match pattern {
        [b'|', b'|', name @ ..] => (name, Match::Subtree),
        [b'|', name @ ..] => (name, Match::Exact),
        _ => return Err(Reason::Unsupported("a rule that matches a part of a name or a path")),
    };
    let ended = start.strip_suffix(b"|").unwrap_or(start);
    let name = ended.strip_suffix(b"^").unwrap_or(ended);
    if name.iter().any(|octet| b"/:?=^|".contains(octet)) {
        return Err(Reason::Unsupported("a rule with a port or a path"));
    }
    if name.len() == start.len() {
        return Err(Reason::Unsupported("a rule without `^`, which other names begin with as well"));
    }
    if name.contains(&b' ') {
        return Err(Reason::NotThisFormat(EXPECTED));
    }
    Ok((name, scope))
}

#[cfg(test)]
mod tests {
    use crate::list::Format;
    use crate::list::reader::tests::{code, listed};

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
        ] {
            assert_eq!(listed(Format::Adblock, line), said, "{line}");
        }
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
            "||*.example.org^",
            "||a.example^$third-party",
            "||a.example^$important,client=192.0.2.1",
            "||a.example^$dnsrewrite=192.0.2.1",
            "||a.example^$",
            "a.example$important",
            "@@a.example",
            "/^ads[0-9]+\\.example$/",
            "@@/ads/",
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
        assert_eq!(code(Format::Adblock, "0.0.0.0 a.example"), "bad_character");
    }
}
