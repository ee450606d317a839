//! Parses a list line by line: the entries of the line by its format, then the name of each entry,
//! then whether the necessary repairs are allowed. A line is accepted as a whole or rejected.

use super::formats::adblock::{Adblock, SwitchedOff};
use super::formats::csv::{self, Csv};
use super::formats::{Entry, Format, TakeEntry, addresses, dnsmasq, hosts, plain, subdomains, wildcard};
use super::formats::{rpz::Rpz, unbound::Unbound};
use super::{Reason, Repairs, name_parser};
use crate::name::Name;
use crate::policy::Match;

/// The configuration of a list.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub format: Format,
    /// The scope of names in plain, hosts and csv. The default is `Exact` for hosts and `Subtree`
    /// for the others. In a wildcard list only `Subtree` has an effect: on all its names.
    pub scope: Option<Match>,
    /// csv: the column of the names, counted from 1.
    pub column: usize,
    /// csv: the separator of the columns.
    pub separator: u8,
    /// Allowed repairs. A line that needs another one is rejected.
    pub repairs: Repairs,
    pub exceptions: Exceptions,
    /// Limit for the uncompressed size of all files together.
    pub max_bytes: u64,
}

/// The effect of exceptions in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceptions {
    /// As in the format: `Passthru` in rpz, `Exemption` in the others.
    AsFormat,
    /// Exempt from this list: the next zone decides.
    Exemption,
    /// Exempt from all later zones too.
    Passthru,
    /// They are the entries of the list, for a zone with the action passthru.
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

/// An accepted line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Blank, a comment, a title, or about the list itself.
    Silent,
    Names {
        names: usize,
        repaired: Repairs,
        is_exception: bool,
    },
}

pub struct Reader {
    parser: Parser,
    /// Names may be written as web addresses.
    allows_urls: bool,
    allowed: Repairs,
    /// Reused for each name: it is too large to move for every line.
    name: Name,
    /// Reused for each line with white space that is not ASCII.
    respaced: Vec<u8>,
}

/// A format with its state between lines.
enum Parser {
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
        let scope = |default| settings.scope.unwrap_or(default);
        let parser = match settings.format {
            Format::Plain => Parser::Plain(scope(Match::Subtree)),
            Format::Subdomains => Parser::Subdomains,
            Format::Hosts => Parser::Hosts(scope(Match::Exact)),
            Format::Wildcard => Parser::Wildcard { are_subtrees: settings.scope == Some(Match::Subtree) },
            Format::Dnsmasq => Parser::Dnsmasq,
            Format::Unbound => Parser::Unbound(Unbound::default()),
            Format::Adblock => Parser::Adblock(Adblock::default()),
            Format::Csv => Parser::Csv(Csv {
                column: settings.column,
                separator: settings.separator,
                scope: scope(Match::Subtree),
                titles: csv::TITLES,
            }),
            Format::Rpz => Parser::Rpz(Rpz::default()),
            // A zone has a reader of its own.
            Format::Addresses | Format::Zone => Parser::Addresses,
        };
        let allows_urls = matches!(
            settings.format,
            Format::Plain | Format::Subdomains | Format::Hosts | Format::Wildcard | Format::Csv
        );
        // A name in another script has only one meaning.
        let allowed = settings.repairs | Repairs::IDN;
        Reader { parser, allows_urls, allowed, name: Name::root(), respaced: Vec::new() }
    }

    /// Parses a line without its line feed. `take` gets each name, its scope and whether it is an
    /// exception, after the whole line was found valid.
    pub fn read(&mut self, line: &[u8], take: &mut impl FnMut(&Name, Match, bool)) -> Result<Line, Reason> {
        let (line, repaired) = without_marks(line);
        if line.is_ascii() || !respace(line, &mut self.respaced) {
            return self.read_text(line, repaired, take);
        }
        let respaced = std::mem::take(&mut self.respaced);
        let read = self.read_text(&respaced, repaired, take);
        self.respaced = respaced;
        read
    }

    fn read_text(
        &mut self,
        line: &[u8],
        mut repaired: Repairs,
        take: &mut impl FnMut(&Name, Match, bool),
    ) -> Result<Line, Reason> {
        if self.parser.is_comment(line) {
            return Ok(Line::Silent);
        }
        let mut names = 0;
        let mut last = (Match::Exact, false);
        let parsed = self.parser.parse(line, &mut |entry: Entry<'_>| {
            let repairs = parse_name(&mut self.name, entry.name, self.allows_urls);
            repaired.add(repairs.map_err(|reason| reason.of_exception_if(entry.is_exception))?);
            names += 1;
            last = (entry.scope, entry.is_exception);
            Ok(())
        });
        // An exception of an adblock list that is read in another format.
        let is_adblock_exception =
            || line.trim_ascii_start().starts_with(b"@@") && !matches!(self.parser, Parser::Adblock(_));
        parsed.map_err(|reason| reason.of_exception_if(is_adblock_exception()))?;
        let (scope, is_exception) = last;
        if names == 0 {
            return Ok(Line::Silent);
        }
        if !self.allowed.contains(repaired) {
            let reason = Reason::NeedsRepair(repaired.without(self.allowed));
            return Err(reason.of_exception_if(is_exception));
        }
        if names == 1 {
            take(&self.name, scope, is_exception);
        } else {
            // Formats with several names per line have no state, so a second pass has the same result.
            self.parser.parse(line, &mut |entry: Entry<'_>| {
                parse_name(&mut self.name, entry.name, self.allows_urls)?;
                take(&self.name, entry.scope, entry.is_exception);
                Ok(())
            })?;
        }
        Ok(Line::Names { names, repaired, is_exception })
    }

    /// Sets the adblock rules that `$badfilter` switches off. Call it before the first line.
    pub fn switch_off(&mut self, rules: SwitchedOff) {
        if let Parser::Adblock(adblock) = &mut self.parser {
            adblock.switched_off = rules;
        }
    }

    /// Returns these rules, with those marked that the list had.
    pub fn take_switched_off(&mut self) -> SwitchedOff {
        match &mut self.parser {
            Parser::Adblock(adblock) => std::mem::take(&mut adblock.switched_off),
            _ => SwitchedOff::default(),
        }
    }

    /// Call it after the last line: an error if the last record is incomplete.
    pub fn end(&self) -> Result<(), Reason> {
        match &self.parser {
            Parser::Rpz(zone) if zone.is_incomplete() => {
                Err(Reason::NotThisFormat("an end to each parenthesis"))
            }
            _ => Ok(()),
        }
    }
}

impl Parser {
    /// Lists have comments of all kinds, whatever their format allows. Exceptions: adblock rules
    /// start with the same characters, and in csv a `;` may follow a blank first column.
    fn is_comment(&self, line: &[u8]) -> bool {
        let line = line.trim_ascii_start();
        match (self, line) {
            (Parser::Adblock(_), _) => false,
            (_, [b'#' | b'!', ..] | [b'/', b'/', ..]) => true,
            (Parser::Csv(csv), [b';', ..]) => csv.separator != b';',
            (_, [b';', ..]) => true,
            _ => false,
        }
    }

    fn parse(&mut self, line: &[u8], take: &mut impl TakeEntry) -> Result<(), Reason> {
        match self {
            Parser::Plain(scope) => plain::parse(line, *scope, take),
            Parser::Subdomains => subdomains::parse(line, take),
            Parser::Hosts(scope) => hosts::parse(line, *scope, take),
            Parser::Wildcard { are_subtrees } => wildcard::parse(line, *are_subtrees, take),
            Parser::Dnsmasq => dnsmasq::parse(line, take),
            Parser::Unbound(unbound) => unbound.parse(line, take),
            Parser::Adblock(adblock) => adblock.parse(line, take),
            Parser::Csv(csv) => csv.parse(line, take),
            Parser::Rpz(rpz) => rpz.parse(line, take),
            // As the name of the RPZ trigger, which needs no repairs.
            Parser::Addresses => match addresses::parse(line)? {
                Some(prefix) => take(Entry::new(prefix.trigger().as_bytes(), Match::Exact)),
                None => Ok(()),
            },
        }
    }
}

fn parse_name(name: &mut Name, text: &[u8], allows_urls: bool) -> Result<Repairs, Reason> {
    if allows_urls { name_parser::parse_url(name, text) } else { name_parser::parse(name, text) }
}

/// The line without a byte order mark and a carriage return. Concatenated files have byte order
/// marks in the middle.
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

/// Replaces white space that is not ASCII (from word processors and web pages) by spaces. False if
/// the line has none.
fn respace(line: &[u8], respaced: &mut Vec<u8>) -> bool {
    let Ok(text) = std::str::from_utf8(line) else { return false };
    let is_space = |char: char| char.is_whitespace() && !char.is_ascii();
    if !text.contains(is_space) {
        return false;
    }
    respaced.clear();
    respaced.extend_from_slice(text.replace(is_space, " ").as_bytes());
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

    /// The entries of a line as text, or the code of the error.
    pub fn entries(reader: &mut Reader, line: &[u8]) -> Result<String, &'static str> {
        let mut entries = Vec::new();
        let read = reader.read(line, &mut |name, scope, is_exception| {
            entries.push(format!("{}{} {name}", if is_exception { "except " } else { "" }, scope.name()));
        });
        let names = match read {
            Ok(Line::Silent) | Err(_) => 0,
            Ok(Line::Names { names, .. }) => names,
        };
        assert_eq!(names, entries.len(), "all or nothing: {}", String::from_utf8_lossy(line));
        read.map(|_| entries.join(", ")).map_err(Reason::code)
    }

    pub fn listed(format: Format, line: &str) -> String {
        entries(&mut reader(format), line.as_bytes()).unwrap_or_else(|code| panic!("{line}: {code}"))
    }

    pub fn code(format: Format, line: &str) -> &'static str {
        entries(&mut reader(format), line.as_bytes()).expect_err(line)
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
    fn comments_of_all_kinds_are_ignored() {
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

    /// Word processors and web pages insert non-breaking and other spaces.
    #[test]
    fn all_kinds_of_white_space_separate_words() {
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
    fn a_configured_scope_applies_where_the_format_has_none() {
        let with_below = |format, line: &[u8]| {
            let settings = Settings { scope: Some(Match::Below), ..settings(format) };
            entries(&mut Reader::new(settings), line).unwrap()
        };
        assert_eq!(with_below(Format::Plain, b"a.example"), "below a.example");
        assert_eq!(with_below(Format::Hosts, b"0.0.0.0 a.example"), "below a.example");
        assert_eq!(with_below(Format::Csv, b"a.example"), "below a.example");
        assert_eq!(with_below(Format::Wildcard, b"a.example"), "exact a.example");
        assert_eq!(with_below(Format::Wildcard, b"*.a.example"), "below a.example");
        let settings = Settings { scope: Some(Match::Subtree), ..settings(Format::Wildcard) };
        for line in [&b"a.example"[..], b"*.a.example"] {
            assert_eq!(entries(&mut Reader::new(settings), line), Ok("subtree a.example".into()));
        }
    }

    /// A repair is reported. If it is not allowed, the whole line is rejected, and the reason names it.
    #[test]
    fn each_repair_must_be_allowed() {
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

    /// They have only one meaning, so `source.repair` does not list them.
    #[test]
    fn names_in_other_scripts_are_always_allowed() {
        let line = "пример.рф".as_bytes();
        assert_eq!(entries(&mut reader(Format::Plain), line), Ok("subtree xn--e1afmkfd.xn--p1ai".into()));
        assert_eq!(entries(&mut reader(Format::Plain), b"caf\xe9.example"), Err("not_utf8"));
        assert_eq!(
            entries(&mut reader(Format::Plain), b"a.example # caf\xe9"),
            Ok("subtree a.example".into())
        );
    }

    #[test]
    fn formats_with_a_syntax_of_their_own_accept_no_web_addresses() {
        let all = Repairs::ALL.into_iter().fold(Repairs::NONE, |all, (repair, _)| all | repair);
        for (format, line) in [
            (Format::Rpz, "a.example/x CNAME ."),
            (Format::Unbound, "local-zone: \"a.example/x\" static"),
            (Format::Dnsmasq, "address=/a.example:80/"),
        ] {
            let mut reader = Reader::new(Settings { repairs: all, ..settings(format) });
            assert_eq!(entries(&mut reader, line.as_bytes()), Err("bad_character"), "{line}");
        }
    }
}
