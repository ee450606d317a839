//! Recognises the format of a list by its first lines. Lines without a clear sign count as plain;
//! the reader of plain lists then rejects lines that are not names.

use super::formats::record::{self, Kind};
use super::formats::{Format, hosts};
use super::tokens::word;

/// Bytes of the file that are examined.
const MAX_HEAD: usize = 64 * 1024;

impl Format {
    /// The format of at least half of the first lines. Comments do not count. Never csv, which
    /// needs a configured column.
    pub fn recognise(head: &[u8]) -> Format {
        let head = head.get(..MAX_HEAD).unwrap_or(head);
        let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
        let mut counts = [0; Format::ALL.len()];
        let mut lines = 0;
        for line in head.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii) {
            if line.is_empty() || b"#!;".contains(&line[0]) {
                continue;
            }
            if let Some(format) = format_of_header(line) {
                return format;
            }
            lines += 1;
            counts[format_of_line(line) as usize] += 1;
        }
        // Half is enough: in many wildcard lists, every other line is a bare name.
        let is_recognised =
            |format: Format| format != Format::Plain && lines > 0 && 2 * counts[format as usize] >= lines;
        let mut formats = Format::ALL.into_iter().map(|(format, _)| format);
        formats.find(|format| is_recognised(*format)).unwrap_or(Format::Plain)
    }
}

/// The format of a line that occurs in one format only, usually once.
fn format_of_header(line: &[u8]) -> Option<Format> {
    let (first, rest) = word(line);
    let is = |directive: &[u8]| first.eq_ignore_ascii_case(directive);
    if line.starts_with(b"[Adblock") {
        return Some(Format::Adblock);
    }
    let is_soa = record::parse(rest).is_some_and(|record| record.kind == Kind::Soa);
    (is(b"$TTL") || is(b"$ORIGIN") || is_soa).then_some(Format::Rpz)
}

fn format_of_line(line: &[u8]) -> Format {
    let (first, rest) = word(line);
    let starts = |signs: &[&[u8]]| signs.iter().any(|sign| line.starts_with(sign));
    if starts(&[b"address=/", b"server=/", b"local=/"]) {
        Format::Dnsmasq
    } else if starts(&[b"local-zone:", b"local-data:", b"server:"]) {
        Format::Unbound
    } else if starts(&[b"||", b"@@||"]) {
        Format::Adblock
    } else if record::parse(rest).is_some() {
        Format::Rpz
    } else if hosts::is_address(first) && !rest.trim_ascii().is_empty() {
        Format::Hosts
    } else if starts(&[b"*."]) {
        Format::Wildcard
    } else if starts(&[b"."]) {
        Format::Subdomains
    } else {
        Format::Plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lines_show_the_format() {
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

    /// Later lines, or a few lines of another format, have no effect.
    #[test]
    fn half_of_the_first_lines_decide() {
        let names = "a.example\n".repeat(MAX_HEAD / 10 + 1);
        let head = names.clone() + &"||b.example^\n".repeat(20_000);
        assert_eq!(Format::recognise(head.as_bytes()), Format::Plain);
        let head = "||b.example^\n".repeat(3) + "a.example\n0.0.0.0 c.example\n";
        assert_eq!(Format::recognise(head.as_bytes()), Format::Adblock);
    }
}
