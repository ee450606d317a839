//! Reads a list line by line: what the format says, then each name, then whether
//! all of it is allowed. A line is taken as a whole or not at all.

use super::formats::{Format, Listed, csv::Csv, rpz::Rpz, unbound::Unbound};
use super::formats::{adblock, dnsmasq, hosts, plain, subdomains, wildcard};
use super::{Reason, Repairs, spelling};
use crate::name::Name;
use crate::policy::Match;

/// How a list is read.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub format: Format,
    /// What a name covers where the format leaves it open: plain, hosts and csv. By
    /// default a hosts file means its names alone, the others all below them as well.
    pub scope: Option<Match>,
    /// csv: the column of the names, counted from 1.
    pub column: usize,
    /// csv: what stands between two columns.
    pub separator: u8,
    /// What may be put right. A line that needs more is refused.
    pub repairs: Repairs,
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Blank, a comment, a title, or what is about the list itself.
    Nothing,
    Names {
        names: usize,
        repaired: Repairs,
    },
}

pub struct Reader {
    grammar: Grammar,
    /// Names are written as people write them, so web addresses may stand for them.
    is_loose: bool,
    allowed: Repairs,
    /// The name under way; it is too long to be moved about for every line.
    name: Name,
}

/// A format, with what it keeps from line to line.
enum Grammar {
    Plain(Match),
    Subdomains,
    Hosts(Match),
    Wildcard,
    Dnsmasq,
    Unbound(Unbound),
    Adblock,
    Csv(Csv),
    Rpz(Rpz),
}

impl Reader {
    pub fn new(settings: Settings) -> Reader {
        let scope = |usual| settings.scope.unwrap_or(usual);
        let grammar = match settings.format {
            Format::Plain => Grammar::Plain(scope(Match::Subtree)),
            Format::Subdomains => Grammar::Subdomains,
            Format::Hosts => Grammar::Hosts(scope(Match::Exact)),
            Format::Wildcard => Grammar::Wildcard,
            Format::Dnsmasq => Grammar::Dnsmasq,
            Format::Unbound => Grammar::Unbound(Unbound::default()),
            Format::Adblock => Grammar::Adblock,
            Format::Csv => Grammar::Csv(Csv {
                column: settings.column,
                separator: settings.separator,
                scope: scope(Match::Subtree),
                is_first: true,
            }),
            Format::Rpz => Grammar::Rpz(Rpz::default()),
        };
        let is_loose = matches!(
            settings.format,
            Format::Plain | Format::Subdomains | Format::Hosts | Format::Wildcard | Format::Csv
        );
        // A name in another script can mean one thing only.
        let allowed = settings.repairs | Repairs::IDN;
        Reader { grammar, is_loose, allowed, name: Name::root() }
    }

    /// Reads a line, without its line feed. `take` is given each name with its scope and
    /// whether it is an exception, once all of the line is known to be right.
    pub fn read(&mut self, line: &[u8], take: &mut impl FnMut(&Name, Match, bool)) -> Result<Line, Reason> {
        let (line, mut repaired) = without_marks(line);
        let mut names = 0;
        let mut last = (Match::Exact, false);
        self.grammar.read(line, &mut |listed| {
            repaired.add(spell(&mut self.name, listed.text, self.is_loose)?);
            names += 1;
            last = (listed.scope, listed.is_exception);
            Ok(())
        })?;
        if names == 0 {
            return Ok(Line::Nothing);
        }
        if !self.allowed.contains(repaired) {
            return Err(Reason::NeedsRepair(repaired.without(self.allowed)));
        }
        if names == 1 {
            take(&self.name, last.0, last.1);
        } else {
            // The formats with several names a line keep nothing from one to the next,
            // and say the same again.
            self.grammar.read(line, &mut |listed| {
                spell(&mut self.name, listed.text, self.is_loose)?;
                take(&self.name, listed.scope, listed.is_exception);
                Ok(())
            })?;
        }
        Ok(Line::Names { names, repaired })
    }

    /// To be asked behind the last line: an error if that cannot be the end.
    pub fn end(&self) -> Result<(), Reason> {
        match &self.grammar {
            Grammar::Rpz(zone) if zone.is_cut_off() => {
                Err(Reason::NotThisFormat("an end to each parenthesis"))
            }
            _ => Ok(()),
        }
    }
}

impl Grammar {
    fn read(
        &mut self,
        line: &[u8],
        list: &mut impl FnMut(Listed) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        match self {
            Grammar::Plain(scope) => plain::read(line, *scope, list),
            Grammar::Subdomains => subdomains::read(line, list),
            Grammar::Hosts(scope) => hosts::read(line, *scope, list),
            Grammar::Wildcard => wildcard::read(line, list),
            Grammar::Dnsmasq => dnsmasq::read(line, list),
            Grammar::Unbound(unbound) => unbound.read(line, list),
            Grammar::Adblock => adblock::read(line, list),
            Grammar::Csv(csv) => csv.read(line, list),
            Grammar::Rpz(rpz) => rpz.read(line, list),
        }
    }
}

fn spell(name: &mut Name, text: &[u8], is_loose: bool) -> Result<Repairs, Reason> {
    if is_loose { spelling::read_loose(name, text) } else { spelling::read(name, text) }
}

/// The line without what editors leave at its ends. A byte order mark stands before
/// other lines than the first where files were put together.
fn without_marks(line: &[u8]) -> (&[u8], Repairs) {
    let mut repaired = Repairs::NONE;
    let mut text = line;
    if let Some(after) = text.strip_prefix(b"\xef\xbb\xbf") {
        (text, repaired) = (after, Repairs::BOM);
    }
    if let Some(before) = text.strip_suffix(b"\r") {
        (text, repaired) = (before, repaired | Repairs::CRLF);
    }
    (text, repaired)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn reader(format: Format) -> Reader {
        Reader::new(settings(format))
    }

    pub fn settings(format: Format) -> Settings {
        Settings { format, scope: None, column: 1, separator: b',', repairs: Repairs::NONE }
    }

    /// What a line says, in words; a refusal's code.
    pub fn said(reader: &mut Reader, line: &[u8]) -> Result<String, &'static str> {
        let mut said = Vec::new();
        let read = reader.read(line, &mut |name, scope, is_exception| {
            said.push(format!("{}{} {name}", if is_exception { "except " } else { "" }, scope.name()));
        });
        let names = match read {
            Ok(Line::Nothing) | Err(_) => 0,
            Ok(Line::Names { names, .. }) => names,
        };
        assert_eq!(names, said.len(), "all or nothing: {}", String::from_utf8_lossy(line));
        read.map(|_| said.join(", ")).map_err(Reason::code)
    }

    pub fn listed(format: Format, line: &str) -> String {
        said(&mut reader(format), line.as_bytes()).unwrap_or_else(|code| panic!("{line}: {code}"))
    }

    pub fn code(format: Format, line: &str) -> &'static str {
        said(&mut reader(format), line.as_bytes()).expect_err(line)
    }

    #[test]
    fn plain_lines() {
        let listed = |line| listed(Format::Plain, line);
        assert_eq!(listed("a.example"), "subtree a.example");
        assert_eq!(listed(" \ta.example # why"), "subtree a.example");
        assert_eq!(listed("# a.example"), "");
        assert_eq!(listed(" "), "");
        let code = |line| code(Format::Plain, line);
        assert_eq!(code(".a.example"), "empty_label");
        assert_eq!(code("*.a.example"), "unsupported");
        assert_eq!(code("a.example#why"), "bad_character");
        assert_eq!(code("0.0.0.0 a.example"), "bad_character");
        assert_eq!(code("<html>"), "bad_character");
        assert_eq!(code("id"), "top_level");
    }

    #[test]
    fn subdomains_and_wildcards() {
        assert_eq!(listed(Format::Subdomains, ".a.example"), "subtree a.example");
        assert_eq!(listed(Format::Subdomains, "a.example"), "subtree a.example");
        assert_eq!(code(Format::Subdomains, "..a.example"), "empty_label");
        assert_eq!(listed(Format::Wildcard, "*.a.example"), "below a.example");
        assert_eq!(listed(Format::Wildcard, "a.example"), "exact a.example");
        assert_eq!(code(Format::Wildcard, "a.*.example"), "unsupported");
        assert_eq!(code(Format::Wildcard, "*.com"), "top_level");
    }

    #[test]
    fn the_scope_is_set_where_the_format_leaves_it_open() {
        let says = |format, line: &[u8]| {
            let settings = Settings { scope: Some(Match::Below), ..settings(format) };
            said(&mut Reader::new(settings), line).unwrap()
        };
        assert_eq!(says(Format::Plain, b"a.example"), "below a.example");
        assert_eq!(says(Format::Hosts, b"0.0.0.0 a.example"), "below a.example");
        assert_eq!(says(Format::Csv, b"a.example"), "below a.example");
        assert_eq!(says(Format::Wildcard, b"a.example"), "exact a.example");
    }

    /// What is put right is told; what may not be is refused by name, all of the line.
    #[test]
    fn repairs_are_allowed_one_by_one() {
        let line = b"\xef\xbb\xbf0.0.0.0 A.example https://b.example./x c.example\r";
        let needed = Repairs::BOM | Repairs::CRLF | Repairs::CASE | Repairs::SCHEME;
        let needed = needed | Repairs::DOT | Repairs::PATH;
        let read = |repairs| {
            let mut names = 0;
            let settings = Settings { repairs, ..settings(Format::Hosts) };
            let read = Reader::new(settings).read(line, &mut |_, _, _| names += 1);
            (read, names)
        };
        assert_eq!(read(needed), (Ok(Line::Names { names: 3, repaired: needed }), 3));
        for (repair, name) in Repairs::ALL {
            let (read, names) = read(needed.without(repair));
            if !needed.contains(repair) {
                assert_eq!(names, 3);
                continue;
            }
            assert_eq!((read, names), (Err(Reason::NeedsRepair(repair)), 0));
            assert!(read.unwrap_err().to_string().contains(name));
        }
    }

    /// A country's name in its own script needs no leave.
    #[test]
    fn names_in_other_scripts_are_always_allowed() {
        let line = "пример.рф".as_bytes();
        assert_eq!(said(&mut reader(Format::Plain), line), Ok("subtree xn--e1afmkfd.xn--p1ai".into()));
        assert_eq!(said(&mut reader(Format::Plain), b"caf\xe9.example"), Err("not_utf8"));
        assert_eq!(said(&mut reader(Format::Plain), b"a.example # caf\xe9"), Ok("subtree a.example".into()));
    }

    #[test]
    fn formats_with_signs_of_their_own_take_no_web_addresses() {
        let all = Repairs::ALL.into_iter().fold(Repairs::NONE, |all, (repair, _)| all | repair);
        for (format, line) in [
            (Format::Rpz, "a.example/x CNAME ."),
            (Format::Unbound, "local-zone: \"a.example/x\" static"),
            (Format::Dnsmasq, "address=/a.example:80/"),
        ] {
            let mut reader = Reader::new(Settings { repairs: all, ..settings(format) });
            assert_eq!(said(&mut reader, line.as_bytes()), Err("bad_character"), "{line}");
        }
    }
}
