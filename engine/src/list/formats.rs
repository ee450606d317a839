//! The formats of lists. Each file parses the lines of one format into entries; `reader.rs` parses
//! the names of these entries and decides which repairs are allowed.

pub mod adblock;
pub mod addresses;
pub mod csv;
pub mod dnsmasq;
pub mod hosts;
pub mod plain;
pub mod record;
pub mod rpz;
pub mod subdomains;
pub mod unbound;
pub mod wildcard;

use super::Reason;
use crate::policy::Match;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Plain,
    Subdomains,
    Hosts,
    Wildcard,
    Dnsmasq,
    Unbound,
    Adblock,
    Csv,
    Rpz,
    /// Addresses instead of names. Never recognised: the zone is configured for it.
    Addresses,
    /// A policy zone with the answers of its records. Never recognised, either.
    Zone,
}

const ADDRESSES: &str = "addresses";
const ZONE: &str = "zone";

impl Format {
    /// All formats of names.
    pub const ALL: [(Format, &'static str); 9] = [
        (Format::Plain, "plain"),
        (Format::Subdomains, "subdomains"),
        (Format::Hosts, "hosts"),
        (Format::Wildcard, "wildcard"),
        (Format::Dnsmasq, "dnsmasq"),
        (Format::Unbound, "unbound"),
        (Format::Adblock, "adblock"),
        (Format::Csv, "csv"),
        (Format::Rpz, "rpz"),
    ];

    pub fn name(self) -> &'static str {
        match self {
            Format::Addresses => ADDRESSES,
            Format::Zone => ZONE,
            _ => Format::ALL[self as usize].1,
        }
    }

    pub fn from_name(name: &str) -> Option<Format> {
        if name == ADDRESSES {
            return Some(Format::Addresses);
        }
        Format::ALL.iter().find(|(_, known)| *known == name).map(|(format, _)| *format)
    }
}

/// A name in a line. A line may have several entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// As written, not parsed yet.
    pub name: &'a [u8],
    pub scope: Match,
    /// Exempts the name from the other entries.
    pub is_exception: bool,
}

impl<'a> Entry<'a> {
    pub fn new(name: &'a [u8], scope: Match) -> Entry<'a> {
        Entry { name, scope, is_exception: false }
    }

    /// `*.name` lists the names below `name`. A bare name has the scope `bare`.
    pub fn wildcard(text: &'a [u8], bare: Match) -> Entry<'a> {
        match text.strip_prefix(b"*.") {
            Some(name) => Entry::new(name, Match::Below),
            None => Entry::new(text, bare),
        }
    }
}

/// A function that takes the entries of a line. Its error rejects the line.
pub trait TakeEntry: FnMut(Entry<'_>) -> Result<(), Reason> {}

impl<F: FnMut(Entry<'_>) -> Result<(), Reason>> TakeEntry for F {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::list::reader::tests::{entries, settings};
    use crate::list::{Reader, Repairs, Settings};
    use crate::name::Name;

    #[test]
    fn each_format_is_found_by_its_name() {
        for (format, name) in Format::ALL {
            assert_eq!((format.name(), Format::from_name(name)), (name, Some(format)));
        }
        let addresses = Format::Addresses;
        assert_eq!((addresses.name(), Format::from_name("addresses")), ("addresses", Some(addresses)));
        assert_eq!(Format::from_name("Plain"), None);
    }

    /// The subtrees of two names, in each format.
    const SAME: [(Format, &str); 9] = [
        (Format::Plain, "# two\na.example\nb.example # why\n"),
        (Format::Subdomains, "a.example\n.b.example\n"),
        (Format::Hosts, "127.0.0.1 localhost\n0.0.0.0 a.example b.example\n"),
        (Format::Wildcard, "a.example\n*.a.example\nb.example\n*.b.example\n"),
        (Format::Dnsmasq, "address=/a.example/0.0.0.0\nlocal=/b.example/\n"),
        (
            Format::Unbound,
            "server:\nlocal-zone: \"a.example\" always_null\nlocal-zone: \"b.example.\" redirect\n\
             local-data: \"b.example. A 192.0.2.1\"\n",
        ),
        (Format::Adblock, "[Adblock Plus]\n||a.example^\n||b.example^$important\n"),
        (Format::Csv, "domain,since\na.example,2024\n\"b.example\",\"2025\"\n"),
        (
            Format::Rpz,
            "$TTL 30\n@ SOA a. b. (1 2 3\n 4 5)\na.example CNAME .\n*.a.example CNAME .\n\
             b.example A 192.0.2.1\n*.b.example.rpz. A 192.0.2.1\n",
        ),
    ];

    #[test]
    fn the_same_names_are_listed_in_each_format() {
        for (format, text) in SAME {
            let text = text.replace("$TTL", "$ORIGIN rpz.\n$TTL");
            let scope = Some(Match::Subtree);
            let mut reader = Reader::new(Settings { scope, ..settings(format) });
            let mut covered = BTreeSet::new();
            for line in text.lines() {
                let taken = reader.read(line.as_bytes(), &mut |name, scope, is_exception| {
                    assert!(!is_exception);
                    let (at, below) = (format!("{name}"), format!("*.{name}"));
                    covered.extend((scope != Match::Below).then_some(at));
                    covered.extend((scope != Match::Exact).then_some(below));
                });
                assert!(taken.is_ok(), "{line}");
            }
            let covered: Vec<String> = covered.into_iter().collect();
            assert_eq!(covered, ["*.a.example", "*.b.example", "a.example", "b.example"], "{format:?}");
            assert!(reader.end().is_ok());
            if format != Format::Csv {
                assert_eq!(Format::recognise(text.as_bytes()), format);
            }
        }
    }

    /// Any line: no panic, all of its names or none, and each of them valid.
    #[test]
    fn random_lines_cause_no_panic_and_no_invalid_name() {
        const PIECES: &str = "a.example b.example com 192.0.2.1 :: 2001:db8::1 https:// :443 / ? , . .. * *. # ; ! \
            || ^ @@|| $ $important ## \" ' ( ) [ ] \\ @ = _ - server=/ address=/ local=/ local-zone: static \
            local-data: CNAME cname SOA A TXT rpz-passthru. rpz-ip $ORIGIN $TTL IN 300 xn--a xn--bcher-kva bücher \
            рф 。 localhost \u{feff} \u{200b} \r \0 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        let pieces: Vec<&str> = PIECES.split(' ').chain([" ", "\t"]).collect();
        let mut random = 1u64;
        let mut draw = |below: usize| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) as usize % below
        };
        let mut taken = 0;
        for _ in 0..2_000 {
            let format = Format::ALL[draw(Format::ALL.len())].0;
            let repairs = Repairs::ALL.into_iter().filter(|_| draw(2) == 0);
            let repairs = repairs.fold(Repairs::NONE, |all, (repair, _)| all | repair);
            let (column, separator) = (draw(3), b",;\t|"[draw(4)]);
            let settings = Settings { column, separator, repairs, ..settings(format) };
            let mut reader = Reader::new(settings);
            for _ in 0..50 {
                let (_, text) = SAME[if draw(8) == 0 { draw(SAME.len()) } else { format as usize }];
                let lines: Vec<&str> = text.lines().collect();
                let mut line = lines[draw(lines.len())].as_bytes().to_vec();
                for _ in 0..draw(4) {
                    let at = draw(line.len() + 1);
                    let end = (at + draw(4)).min(line.len());
                    match draw(4) {
                        0 => line.truncate(at),
                        1 => drop(line.splice(at..end, [draw(256) as u8])),
                        _ => drop(line.splice(at..end, pieces[draw(pieces.len())].bytes())),
                    }
                }
                Format::recognise(&line);
                let Ok(entries) = entries(&mut reader, &line) else { continue };
                for entry in entries.split(", ").filter(|entry| !entry.is_empty()) {
                    let text = entry.rsplit(' ').next().unwrap();
                    let name = Name::from_text(text.as_bytes()).unwrap();
                    assert!(name.labels() > 1 && name.to_string() == text, "{text}");
                    taken += 1;
                }
            }
        }
        assert!(taken > 10_000, "only {taken} names were listed");
    }
}
