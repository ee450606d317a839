//! Reads a list line by line: what the format says, then each name, then whether
//! all of it is allowed. A line is taken as a whole or not at all.

use super::formats::adblock::{Adblock, SwitchedOff};
use super::formats::csv::{self, Csv};
use super::formats::{Entry, Format, addresses, dnsmasq, hosts, plain, subdomains, wildcard};
use super::formats::{rpz::Rpz, unbound::Unbound};
use super::{Reason, Repairs, name_parser};
use crate::name::Name;
use crate::policy::Match;

/// How a list is read.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub format: Format,
    /// What a name covers where the format leaves it open: plain, hosts and csv. By
    /// default a hosts file means its names alone, the others all below them as well. In a
    /// wildcard list only `Subtree` means anything: the name of `*.name`, too.
    pub scope: Option<Match>,
    /// csv: the column of the names, counted from 1.
    pub column: usize,
    /// csv: what stands between two columns.
    pub separator: u8,
    /// What may be put right. A line that needs more is refused.
    pub repairs: Repairs,
    pub exceptions: Exceptions,
    /// Octets of text in all files of the list at most.
    pub max_bytes: u64,
}

/// What the exceptions of a list do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceptions {
    /// As in the format: `Passthru` in rpz, `Exemption` in the others.
    AsFormat,
    /// The list says nothing about the name: the next zone is asked.
    Exemption,
    /// No later zone is asked about the name.
    Passthru,
    /// They are what the list lists: that of a zone whose answer is a passthru.
    Listed,
}

impl Exceptions {
    pub fn from_name(name: &str) -> Option<Exceptions> {
        match name {
            "auto" => Some(Exceptions::AsFormat),
            "exempt" => Some(Exceptions::Exemption),
            "passthru" => Some(Exceptions::Passthru),
            "listed" => Some(Exceptions::Listed),
            _ => None,
        }
    }
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Blank, a comment, a title, or what is about the list itself.
    Nothing,
    Names {
        names: usize,
        repaired: Repairs,
        /// The names are taken out of what other lines cover.
        is_exception: bool,
    },
}

pub struct Reader {
    grammar: Grammar,
    /// Names are written as people write them, so web addresses may stand for them.
    is_loose: bool,
    allowed: Repairs,
    /// The name under way; it is too long to be moved about for every line.
    name: Name,
    /// A line with other white space than ASCII's, with spaces in its place.
    spaced: Vec<u8>,
}

/// A format, with what it keeps from line to line.
enum Grammar {
    Plain(Match),
    Subdomains,
    Hosts(Match),
    Wildcard { are_subtrees: bool },
    Dnsmasq,
    Unbound(Unbound),
    Adblock(Adblock),
    Csv(Csv),
    Rpz(Rpz),
    Addresses,
}

impl Reader {
    pub fn new(settings: Settings) -> Reader {
        let scope = |usual| settings.scope.unwrap_or(usual);
        let grammar = match settings.format {
            Format::Plain => Grammar::Plain(scope(Match::Subtree)),
            Format::Subdomains => Grammar::Subdomains,
            Format::Hosts => Grammar::Hosts(scope(Match::Exact)),
            Format::Wildcard => Grammar::Wildcard { are_subtrees: settings.scope == Some(Match::Subtree) },
            Format::Dnsmasq => Grammar::Dnsmasq,
            Format::Unbound => Grammar::Unbound(Unbound::default()),
            Format::Adblock => Grammar::Adblock(Adblock::default()),
            Format::Csv => Grammar::Csv(Csv {
                column: settings.column,
                separator: settings.separator,
                scope: scope(Match::Subtree),
                titles: csv::TITLES,
            }),
            Format::Rpz => Grammar::Rpz(Rpz::default()),
            Format::Addresses => Grammar::Addresses,
        };
        let is_loose = matches!(
            settings.format,
            Format::Plain | Format::Subdomains | Format::Hosts | Format::Wildcard | Format::Csv
        );
        // A name in another script can mean one thing only.
        let allowed = settings.repairs | Repairs::IDN;
        Reader { grammar, is_loose, allowed, name: Name::root(), spaced: Vec::new() }
    }

    /// Reads a line, without its line feed. `take` is given each name with its scope and
    /// whether it is an exception, once all of the line is known to be right.
    pub fn read(&mut self, line: &[u8], take: &mut impl FnMut(&Name, Match, bool)) -> Result<Line, Reason> {
        let (line, repaired) = without_marks(line);
        if line.is_ascii() || !space_out(line, &mut self.spaced) {
            return self.read_text(line, repaired, take);
        }
        let spaced = std::mem::take(&mut self.spaced);
        let read = self.read_text(&spaced, repaired, take);
        self.spaced = spaced;
        read
    }

    fn read_text(
        &mut self,
        line: &[u8],
        mut repaired: Repairs,
        take: &mut impl FnMut(&Name, Match, bool),
    ) -> Result<Line, Reason> {
        if self.grammar.is_comment(line) {
            return Ok(Line::Nothing);
        }
        let mut names = 0;
        let mut last = (Match::Exact, false);
        let read = self.grammar.read(line, &mut |listed| {
            let spelt = spell(&mut self.name, listed.text, self.is_loose);
            repaired.add(spelt.map_err(|why| if listed.is_exception { why.of_exception() } else { why })?);
            names += 1;
            last = (listed.scope, listed.is_exception);
            Ok(())
        });
        match read {
            // An exception of adblock lists, in a list that is read as something else.
            Err(reason) if line.trim_ascii_start().starts_with(b"@@") && !self.grammar.is_adblock() => {
                return Err(reason.of_exception());
            }
            read => read?,
        }
        if names == 0 {
            return Ok(Line::Nothing);
        }
        if !self.allowed.contains(repaired) {
            let reason = Reason::NeedsRepair(repaired.without(self.allowed));
            return Err(if last.1 { reason.of_exception() } else { reason });
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
        Ok(Line::Names { names, repaired, is_exception: last.1 })
    }

    /// The rules of adblock that other rules switch off, wherever in the list they stand. To be
    /// put before the first line is read.
    pub fn switch_off(&mut self, rules: SwitchedOff) {
        if let Grammar::Adblock(adblock) = &mut self.grammar {
            adblock.switched_off = rules;
        }
    }

    /// These rules again, with those noted that were found.
    pub fn take_switched_off(&mut self) -> SwitchedOff {
        match &mut self.grammar {
            Grammar::Adblock(adblock) => std::mem::take(&mut adblock.switched_off),
            _ => SwitchedOff::default(),
        }
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
    fn is_adblock(&self) -> bool {
        matches!(self, Grammar::Adblock(_))
    }

    /// Lists have comments of every kind, whatever their format says. Of adblock's rules some
    /// begin with the same signs; and a `;` may part the blank first column from the second.
    fn is_comment(&self, line: &[u8]) -> bool {
        let line = line.trim_ascii_start();
        match (self, line) {
            (Grammar::Adblock(_), _) => false,
            (_, [b'#' | b'!', ..] | [b'/', b'/', ..]) => true,
            (Grammar::Csv(csv), [b';', ..]) => csv.separator != b';',
            (_, [b';', ..]) => true,
            _ => false,
        }
    }

    fn read(
        &mut self,
        line: &[u8],
        list: &mut impl FnMut(Entry) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        match self {
            Grammar::Plain(scope) => plain::read(line, *scope, list),
            Grammar::Subdomains => subdomains::read(line, list),
            Grammar::Hosts(scope) => hosts::read(line, *scope, list),
            Grammar::Wildcard { are_subtrees } => wildcard::read(line, *are_subtrees, list),
            Grammar::Dnsmasq => dnsmasq::read(line, list),
            Grammar::Unbound(unbound) => unbound.read(line, list),
            Grammar::Adblock(adblock) => adblock.read(line, list),
            Grammar::Csv(csv) => csv.read(line, list),
            Grammar::Rpz(rpz) => rpz.read(line, list),
            // As the name of an RPZ trigger, in which no repair is ever needed.
            Grammar::Addresses => match addresses::read(line)? {
                Some(prefix) => list(Entry::new(prefix.trigger().as_bytes(), Match::Exact)),
                None => Ok(()),
            },
        }
    }
}

fn spell(name: &mut Name, text: &[u8], is_loose: bool) -> Result<Repairs, Reason> {
    if is_loose { name_parser::read_loose(name, text) } else { name_parser::read(name, text) }
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

/// Puts a space in the place of each white space that is not ASCII: that of word processors
/// and web pages. False, and nothing done, where there is none.
fn space_out(line: &[u8], spaced: &mut Vec<u8>) -> bool {
    let Ok(text) = std::str::from_utf8(line) else { return false };
    let is_space = |char: char| char.is_whitespace() && !char.is_ascii();
    if !text.contains(is_space) {
        return false;
    }
    spaced.clear();
    spaced.extend_from_slice(text.replace(is_space, " ").as_bytes());
    true
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn reader(format: Format) -> Reader {
        Reader::new(settings(format))
    }

    pub fn settings(format: Format) -> Settings {
        let (repairs, exceptions) = (Repairs::NONE, Exceptions::AsFormat);
        let (column, separator, max_bytes) = (1, b',', u64::MAX);
        Settings { format, scope: None, column, separator, repairs, exceptions, max_bytes }
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
        assert_eq!(listed("*.a.example"), "below a.example");
        assert_eq!(code("a.*.example"), "unsupported");
        assert_eq!(code("@@||a.example^"), "lost_exception");
        assert_eq!(code("a.example#why"), "bad_character");
        assert_eq!(code("0.0.0.0 a.example"), "bad_character");
        assert_eq!(code("<html>"), "bad_character");
        assert_eq!(code("id"), "top_level");
    }

    #[test]
    fn comments_of_every_kind_are_nothing() {
        for (format, _) in Format::ALL {
            for line in ["# x", "! Title: x y", "; x", "// x", "  // x", "\u{a0}", "\u{3000}# x"] {
                if format != Format::Adblock || line.trim_start().starts_with(['#', '!']) {
                    assert_eq!(listed(format, line), "", "{} {line}", format.name());
                }
            }
        }
        assert_eq!(listed(Format::Plain, "a.example ; x"), "subtree a.example");
        assert_eq!(listed(Format::Plain, "a.example // x"), "subtree a.example");
    }

    /// Word processors and web pages leave them.
    #[test]
    fn white_space_of_every_kind_separates() {
        assert_eq!(listed(Format::Plain, "\u{a0}a.example\u{a0}"), "subtree a.example");
        assert_eq!(listed(Format::Plain, "bücher.example\u{2003}# x"), "subtree xn--bcher-kva.example");
        assert_eq!(
            listed(Format::Hosts, "0.0.0.0\u{a0}a.example\u{202f}b.example"),
            "exact a.example, exact b.example"
        );
        assert_eq!(code(Format::Plain, "two\u{a0}words.example"), "bad_character");
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
        assert_eq!(says(Format::Wildcard, b"*.a.example"), "below a.example");
        let settings = Settings { scope: Some(Match::Subtree), ..settings(Format::Wildcard) };
        for line in [&b"a.example"[..], b"*.a.example"] {
            assert_eq!(said(&mut Reader::new(settings), line), Ok("subtree a.example".into()));
        }
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
        assert_eq!(read(needed), (Ok(Line::Names { names: 3, repaired: needed, is_exception: false }), 3));
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
