//! Lines of Unbound's configuration, unbound.conf(5) as of version 1.22:
//!
//! ```text
//! server:
//!     local-zone: "ads.example" always_nxdomain  # listed, with all names below
//!     local-data: "ads.example A 192.0.2.1"      # of the zone above: ignored
//!     local-data: "other.example A 192.0.2.1"    # of no zone: only this name is listed
//!     local-zone: "good.example" transparent     # an exception
//! ```

use super::{Entry, TakeEntry, record};
use crate::list::Reason;
use crate::list::tokens::{is_option, split_once, strip_parent, word};
use crate::policy::Match;

const EXPECTED: &str = "`local-zone: \"NAME\" TYPE` or `local-data: \"NAME TYPE DATA\"`";

#[derive(Default)]
pub struct Unbound {
    /// The last listed zone. Local data in it only changes what clients get.
    zone: Vec<u8>,
}

impl Unbound {
    pub fn parse(&mut self, line: &[u8], take: &mut impl TakeEntry) -> Result<(), Reason> {
        let line = line.trim_ascii();
        if is_end(line) {
            return Ok(());
        }
        let (option, rest) = split_once(line, b':').ok_or(Reason::NotThisFormat(EXPECTED))?;
        match option {
            b"server" if is_end(rest) => Ok(()),
            b"server" => Err(Reason::NotThisFormat(EXPECTED)),
            b"local-zone" => self.parse_zone(rest, take),
            b"local-data" => self.parse_data(rest, take),
            option if is_option(option) && (rest.is_empty() || rest[0].is_ascii_whitespace()) => {
                Err(Reason::Unsupported("an option that lists no names"))
            }
            _ => Err(Reason::NotThisFormat(EXPECTED)),
        }
    }

    fn parse_zone(&mut self, text: &[u8], take: &mut impl TakeEntry) -> Result<(), Reason> {
        self.zone.clear();
        let (name, rest) = value(text).ok_or(Reason::NotThisFormat(EXPECTED))?;
        let (zone_type, rest) = value(rest).ok_or(Reason::NotThisFormat(EXPECTED))?;
        if !is_end(rest) {
            return Err(Reason::NotThisFormat(EXPECTED));
        }
        let is_exception = is_transparent(zone_type)?;
        let name = without_dot(name);
        take(Entry { name, scope: Match::Subtree, is_exception })?;
        if !is_exception {
            self.zone.extend_from_slice(name);
        }
        Ok(())
    }

    fn parse_data(&mut self, text: &[u8], take: &mut impl TakeEntry) -> Result<(), Reason> {
        let (text, rest) = value(text).ok_or(Reason::NotThisFormat(EXPECTED))?;
        let (owner, record) = word(text);
        if !is_end(rest) || record::parse(record).is_none() {
            return Err(Reason::NotThisFormat(EXPECTED));
        }
        let owner = without_dot(owner);
        if !self.zone.is_empty() && strip_parent(owner, &self.zone).is_some() {
            return Ok(());
        }
        // Without a local zone, Unbound answers only this name from local data.
        take(Entry::new(owner, Match::Exact))
    }
}

/// Whether Unbound resolves names in a zone of this type as usual.
fn is_transparent(zone_type: &[u8]) -> Result<bool, Reason> {
    match zone_type {
        b"always_nxdomain" | b"always_nodata" | b"always_null" | b"always_refuse" | b"always_deny"
        | b"refuse" | b"deny" | b"static" | b"redirect" | b"inform_deny" | b"inform_redirect" => Ok(false),
        b"transparent" | b"typetransparent" | b"always_transparent" | b"inform" => Ok(true),
        b"nodefault" | b"block_a" | b"noview" | b"truncate" | b"ipset" => {
            Err(Reason::Unsupported("a local zone of this type"))
        }
        _ => Err(Reason::NotThisFormat(EXPECTED)),
    }
}

/// The first word, or the text in single or double quotes; and the rest.
fn value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.trim_ascii_start();
    match text {
        [quote @ (b'"' | b'\''), quoted @ ..] => split_once(quoted, *quote),
        _ if is_end(text) => None,
        _ => Some(word(text)),
    }
}

fn is_end(text: &[u8]) -> bool {
    matches!(text.trim_ascii_start(), [] | [b'#', ..])
}

/// In this format a trailing dot is normal, so removing it is not a repair.
fn without_dot(name: &[u8]) -> &[u8] {
    name.strip_suffix(b".").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use crate::list::Format;
    use crate::list::reader::tests::{code, entries, listed, reader};

    #[test]
    fn a_local_zone_lists_the_name_and_all_names_below() {
        let listed = |line| listed(Format::Unbound, line);
        for line in [
            "local-zone: \"a.example\" always_nxdomain",
            "  local-zone: a.example. refuse # why",
            "local-zone: 'a.example' static",
            "local-zone:\"a.example.\" inform_deny",
        ] {
            assert_eq!(listed(line), "subtree a.example", "{line}");
        }
        assert_eq!(listed("local-zone: \"a.example\" always_transparent"), "except subtree a.example");
        for line in ["server:", "server: # x", "# x", ""] {
            assert_eq!(listed(line), "", "{line}");
        }
    }

    #[test]
    fn local_data_of_the_zone_above_is_ignored() {
        let mut reader = reader(Format::Unbound);
        for (line, expected) in [
            ("local-zone: \"a.example\" redirect", "subtree a.example"),
            ("local-data: \"a.example. A 192.0.2.1\"", ""),
            ("local-data: 'x.A.example 30 IN TXT \"# y\"' # z", ""),
            ("local-data: \"b.example A 192.0.2.1\"", "exact b.example"),
            ("local-zone: \"c.example\" transparent", "except subtree c.example"),
            ("local-data: \"c.example A 192.0.2.1\"", "exact c.example"),
        ] {
            assert_eq!(entries(&mut reader, line.as_bytes()), Ok(expected.to_string()), "{line}");
        }
    }

    #[test]
    fn other_lines_are_rejected() {
        let code = |line| code(Format::Unbound, line);
        for line in [
            "local-zone: \"a.example\"",
            "local-zone: \"a.example always_nxdomain",
            "local-zone: \"a.example\" always_nxdomain x",
            "local-zone: \"a.example\" blocked",
            "local-data: \"a.example 192.0.2.1\"",
            "local-data: a.example A 192.0.2.1",
            "a.example",
            "server: x",
        ] {
            assert_eq!(code(line), "not_this_format", "{line}");
        }
        assert_eq!(code("local-zone: \"a.example\" block_a"), "unsupported");
        assert_eq!(code("do-ip6: no"), "unsupported");
        assert_eq!(code("forward-zone:"), "unsupported");
        assert_eq!(code("http://a.example"), "not_this_format");
        assert_eq!(code("local-zone: \"*.a.example\" transparent"), "lost_exception");
        assert_eq!(code("local-zone: \"com\" always_transparent"), "lost_exception");
        assert_eq!(code("local-zone: \"*.a.example\" static"), "unsupported");
        assert_eq!(code("local-zone: \".\" refuse"), "not_a_name");
        assert_eq!(code("local-zone: \"com\" refuse"), "top_level");
    }
}
