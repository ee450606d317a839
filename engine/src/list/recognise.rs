//! Which format a list is in, by its first lines. Only clear signs count; what has
//! none is a plain list, whose reader refuses what is no name.

use super::formats::record::{self, Kind};
use super::formats::{Format, hosts};
use super::tokens::word;

/// Octets that are looked at.
const LOOKED_AT: usize = 64 * 1024;

impl Format {
    /// The format that at least half of the first lines with anything to say show
    /// signs of. Never csv: its column has to be told.
    pub fn recognise(head: &[u8]) -> Format {
        let head = head.get(..LOOKED_AT).unwrap_or(head);
        let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
        let mut seen = [0; Format::ALL.len()];
        let mut lines = 0;
        for line in head.split(|&octet| octet == b'\n').map(<[u8]>::trim_ascii) {
            if line.is_empty() || b"#!;".contains(&line[0]) {
                continue;
            }
            if let Some(format) = header(line) {
                return format;
            }
            lines += 1;
            seen[sign(line) as usize] += 1;
        }
        let is_shown = |format: Format| lines > 0 && 2 * seen[format as usize] >= lines;
        // Where names and `*.name` take turns, half of the lines have a sign.
        let signs =
            Format::ALL.into_iter().map(|(format, _)| format).filter(|format| *format != Format::Plain);
        signs.into_iter().find(|format| is_shown(*format)).unwrap_or(Format::Plain)
    }
}

/// What only one format has, and usually only once.
fn header(line: &[u8]) -> Option<Format> {
    let (first, rest) = word(line);
    let is = |directive: &[u8]| first.eq_ignore_ascii_case(directive);
    if line.starts_with(b"[Adblock") {
        return Some(Format::Adblock);
    }
    let is_soa = record::read(rest).is_some_and(|record| record.kind == Kind::Soa);
    (is(b"$TTL") || is(b"$ORIGIN") || is_soa).then_some(Format::Rpz)
}

fn sign(line: &[u8]) -> Format {
    let (first, rest) = word(line);
    let begins = |signs: &[&[u8]]| signs.iter().any(|sign| line.starts_with(sign));
    if begins(&[b"address=/", b"server=/", b"local=/"]) {
        Format::Dnsmasq
    } else if begins(&[b"local-zone:", b"local-data:", b"server:"]) {
        Format::Unbound
    } else if begins(&[b"||", b"@@||"]) {
        Format::Adblock
    } else if record::read(rest).is_some() {
        Format::Rpz
    } else if hosts::is_address(first) && !rest.trim_ascii().is_empty() {
        Format::Hosts
    } else if begins(&[b"*."]) {
        Format::Wildcard
    } else if begins(&[b"."]) {
        Format::Subdomains
    } else {
        Format::Plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_known_by_its_first_lines() {
        for (head, format) in [
            ("", Format::Plain),
            ("# only\n! comments\n", Format::Plain),
            ("a.example\nb.example\n", Format::Plain),
            ("<html>\n<body>0.0.0.0 x</body>\n", Format::Plain),
            ("domain,note\na.example,x\n", Format::Plain),
            ("# x\n.a.example\n.b.example", Format::Subdomains),
            ("127.0.0.1 localhost\r\n0.0.0.0 a.example\r\n", Format::Hosts),
            ("\u{feff}a.example\n*.a.example\n", Format::Wildcard),
            ("address=/a.example/\n", Format::Dnsmasq),
            ("# x\nlocal=/a.example/\nserver=/b.example/\ncache-size=0", Format::Dnsmasq),
            ("server:\n  local-zone: \"a.example\" static\n", Format::Unbound),
            ("[Adblock Plus]\na.example\n", Format::Adblock),
            ("! x\n||a.example^\n@@||b.example^\n", Format::Adblock),
            ("$TTL 30\n", Format::Rpz),
            ("; x\n@ IN SOA a. b. (\n1\n2\n3\n4\n5 )\n", Format::Rpz),
            ("a.example CNAME .\n*.a.example CNAME .\n", Format::Rpz),
            ("a.example 30 IN A 192.0.2.1\n", Format::Rpz),
        ] {
            assert_eq!(Format::recognise(head.as_bytes()), format, "{head}");
        }
    }

    /// What is far behind, or a few strange lines, change nothing.
    #[test]
    fn the_first_lines_decide_by_majority() {
        let names = "a.example\n".repeat(LOOKED_AT / 10 + 1);
        let head = names.clone() + &"||b.example^\n".repeat(20_000);
        assert_eq!(Format::recognise(head.as_bytes()), Format::Plain);
        let head = "||b.example^\n".repeat(3) + "a.example\n0.0.0.0 c.example\n";
        assert_eq!(Format::recognise(head.as_bytes()), Format::Adblock);
    }
}
