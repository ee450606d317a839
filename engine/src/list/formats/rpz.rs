//! A zone file (RFC 1035 5.1) of a response policy zone (RPZ, draft-vixie-dnsop-dns-rpz):
//!
//! ```text
//! $ORIGIN rpz.example.
//! @              SOA localhost. root.localhost. 1 12h 15m 3w 2h
//! ads.example    CNAME .               ; only this name
//! *.ads.example  CNAME .               ; the names below it
//! good.example   CNAME rpz-passthru.   ; an exception
//! data.example   A 192.0.2.1           ; listed, whatever the data is
//! ```
//!
//! The zone that uses the list decides what clients get. So all actions list the name, except
//! `rpz-passthru.`.

use std::borrow::Cow;

use super::record::{self, Kind};
use super::{Entry, TakeEntry};
use crate::list::Reason;
use crate::list::tokens::{strip_parent, word};
use crate::policy::Match;

const EXPECTED: &str = "records of a zone file, as in `ads.example CNAME .`";
/// Lines in one pair of parentheses. The longest records, keys and signatures, need half as many.
/// Without this limit, an unclosed parenthesis would swallow the rest of the list.
const MAX_LINES_IN_PARENTHESES: usize = 40;

/// The state between lines. Names in it are absolute, without their trailing dot.
#[derive(Default)]
pub struct Rpz {
    /// Relative names are below it. If it is unknown, they are the listed names.
    origin: Option<Vec<u8>>,
    /// The name of the zone: the owner of its SOA record, before that `$ORIGIN` at the top.
    apex: Option<Vec<u8>>,
    /// The owner of the last record, as written. A line that starts with white space has the same
    /// owner, even if the last record was invalid.
    owner: Vec<u8>,
    has_records: bool,
    /// Lines since a parenthesis was opened; 0 if none is open.
    lines_in_parentheses: usize,
}

impl Rpz {
    pub fn parse(&mut self, line: &[u8], take: &mut impl TakeEntry) -> Result<(), Reason> {
        let parsed = self.parse_line(line, take);
        if parsed.is_err() {
            // Better to reject too many lines than to lose any in parentheses.
            self.lines_in_parentheses = 0;
        }
        parsed
    }

    fn is_open(&self) -> bool {
        self.lines_in_parentheses > 0
    }

    /// Whether the last line belongs to a record that has no end.
    pub fn is_incomplete(&self) -> bool {
        self.lines_in_parentheses > 1
    }

    fn parse_line(&mut self, line: &[u8], take: &mut impl TakeEntry) -> Result<(), Reason> {
        if self.is_open() && starts_record(line) {
            self.lines_in_parentheses = 0; // the parenthesis was never closed
        }
        let is_continuation = self.is_open();
        let text = self.scan(line)?.trim_ascii_end();
        if is_continuation || text.is_empty() {
            return Ok(());
        }
        if text.starts_with(b"$") {
            return self.parse_directive(text);
        }
        let rest = if text.starts_with(b" ") || text.starts_with(b"\t") {
            text
        } else {
            let (owner, rest) = word(text);
            self.owner.clear();
            self.owner.extend_from_slice(owner);
            rest
        };
        let record = record::parse(rest).ok_or(Reason::NotThisFormat(EXPECTED))?;
        if self.owner.is_empty() {
            return Err(Reason::NotThisFormat(EXPECTED));
        }
        self.has_records = true;
        match record.kind {
            Kind::Soa => self.enter_zone(),
            Kind::Dnssec => {}
            Kind::Cut | Kind::Cname | Kind::Data => self.parse_trigger(record.kind, record.data, take)?,
        }
        Ok(())
    }

    /// The line without its comment. Counts the lines while a parenthesis is open.
    fn scan<'a>(&mut self, line: &'a [u8]) -> Result<&'a [u8], Reason> {
        let mut is_open = self.is_open();
        let mut is_quoted = false;
        let mut end = line.len();
        let mut bytes = line.iter().enumerate();
        while let Some((at, &byte)) = bytes.next() {
            match byte {
                b'\\' => drop(bytes.next()),
                b'"' => is_quoted = !is_quoted,
                _ if is_quoted => {}
                b';' => {
                    end = at;
                    break;
                }
                b'(' | b')' if is_open == (byte == b'(') => return Err(Reason::NotThisFormat(EXPECTED)),
                b'(' | b')' => is_open = !is_open,
                _ => {}
            }
        }
        if is_quoted || is_open && self.lines_in_parentheses == MAX_LINES_IN_PARENTHESES {
            return Err(Reason::NotThisFormat(EXPECTED));
        }
        self.lines_in_parentheses = if is_open { self.lines_in_parentheses + 1 } else { 0 };
        Ok(&line[..end])
    }

    fn parse_directive(&mut self, text: &[u8]) -> Result<(), Reason> {
        let (directive, rest) = word(text);
        let (argument, after) = word(rest);
        if directive.eq_ignore_ascii_case(b"$TTL") {
            return Ok(());
        }
        if !directive.eq_ignore_ascii_case(b"$ORIGIN") {
            return Err(Reason::Unsupported("a directive other than $ORIGIN and $TTL"));
        }
        if argument.is_empty() || !after.trim_ascii().is_empty() {
            return Err(Reason::NotThisFormat("`$ORIGIN NAME`"));
        }
        self.origin = self.absolute(argument).map(Cow::into_owned);
        self.owner.clear();
        if !self.has_records {
            self.apex.clone_from(&self.origin);
        }
        Ok(())
    }

    /// The owner of the SOA record is the apex of the zone.
    fn enter_zone(&mut self) {
        let Some(apex) = self.absolute(&self.owner).map(Cow::into_owned) else { return };
        self.owner = [&apex, &b"."[..]].concat();
        if self.origin.is_none() {
            self.origin = Some(apex.clone());
        }
        self.apex = Some(apex);
    }

    fn parse_trigger(&self, kind: Kind, data: &[u8], take: &mut impl TakeEntry) -> Result<(), Reason> {
        let joined;
        let name = if !self.owner.ends_with(b".") && self.origin == self.apex {
            // As in nearly all records: relative to the apex.
            if self.owner == b"@" { b"" } else { &self.owner[..] }
        } else {
            joined = self.absolute(&self.owner).ok_or(Reason::OutsideZone)?;
            let apex = self.apex.as_deref().ok_or(Reason::OutsideZone)?;
            strip_parent(&joined, apex).ok_or(Reason::OutsideZone)?
        };
        // Records at the apex are about the zone.
        if name.is_empty() {
            return Ok(());
        }
        if kind == Kind::Cut {
            return Err(Reason::Unsupported("a zone or tree below this one"));
        }
        let is_exception = kind == Kind::Cname && is_passthru(data, name)?;
        if let Some(reason) = not_applicable(name) {
            return Err(reason.of_exception_if(is_exception));
        }
        take(Entry { is_exception, ..Entry::wildcard(name, Match::Exact) })
    }

    /// The absolute name. Without an origin, a name is absolute as written, and `@` is unknown.
    fn absolute<'a>(&'a self, name: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        if let Some(name) = name.strip_suffix(b".") {
            return Some(name.into());
        }
        match (self.origin.as_deref(), name) {
            (origin, b"@") => origin.map(Cow::from),
            (None | Some(b""), name) => Some(name.into()),
            (Some(origin), name) => Some([name, origin].join(&b'.').into()),
        }
    }
}

/// Why an RPZ trigger is not a name, if it is not.
fn not_applicable(name: &[u8]) -> Option<Reason> {
    let last_label = name.rsplit(|&byte| byte == b'.').next().unwrap_or(name);
    if last_label.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"rpz-")) {
        return Some(Reason::Unsupported("a trigger other than the queried name"));
    }
    (name == b"*").then_some(Reason::Unsupported("a record for all names"))
}

/// Whether a line starts a record, with its owner. Continuation lines in parentheses (numbers, keys,
/// text) do not look like this.
fn starts_record(line: &[u8]) -> bool {
    let (owner, rest) = word(line);
    let is_owner = owner.first().is_some_and(|byte| !b" \t\"();$".contains(byte));
    is_owner && !line.starts_with(b" ") && !line.starts_with(b"\t") && record::parse(rest).is_some()
}

/// Whether a CNAME to `target` exempts the name. In the first version of RPZ, that was a CNAME to
/// the name itself.
fn is_passthru(target: &[u8], name: &[u8]) -> Result<bool, Reason> {
    if target.iter().any(|byte| b" \t()".contains(byte)) {
        return Err(Reason::NotThisFormat(EXPECTED));
    }
    if target.eq_ignore_ascii_case(b"rpz-passthru") {
        return Err(Reason::LostException("rpz-passthru without its trailing dot is a name in the zone"));
    }
    let itself = target.strip_suffix(b".").is_some_and(|target| target.eq_ignore_ascii_case(name));
    Ok(itself || target.eq_ignore_ascii_case(b"rpz-passthru."))
}

#[cfg(test)]
mod tests {
    use super::MAX_LINES_IN_PARENTHESES;
    use crate::list::Format;
    use crate::list::reader::tests::{entries, reader};

    /// Parses the lines in order and compares their entries or errors.
    fn check(lines: &[(&str, Result<&str, &'static str>)]) {
        let mut reader = reader(Format::Rpz);
        for (line, expected) in lines {
            let expected = expected.map(str::to_string);
            assert_eq!(entries(&mut reader, line.as_bytes()), expected, "{line}");
        }
    }

    /// The actions of RPZ, section 3.
    #[test]
    fn each_action_lists_the_name_and_passthru_exempts_it() {
        check(&[
            ("$TTL 300", Ok("")),
            ("@ SOA localhost. root.localhost. 1 12h 15m 3w 2h ; serial", Ok("")),
            ("  NS localhost.", Ok("")),
            ("; a comment", Ok("")),
            ("nxdomain.example CNAME .", Ok("exact nxdomain.example")),
            ("*.nxdomain.example CNAME .", Ok("below nxdomain.example")),
            ("nodata.example 300 IN cname *.", Ok("exact nodata.example")),
            ("drop.example IN 300 CNAME rpz-drop.", Ok("exact drop.example")),
            ("tcp.example CNAME rpz-tcp-only.", Ok("exact tcp.example")),
            ("garden.example CNAME landing.isp.example.", Ok("exact garden.example")),
            ("data.example A 192.0.2.1 ; why", Ok("exact data.example")),
            ("\tTXT \"a ; (b\" ", Ok("exact data.example")),
            ("  AAAA 2001:db8::1", Ok("exact data.example")),
            ("ok.example CNAME rpz-passthru.", Ok("except exact ok.example")),
            ("*.ok.example CNAME RPZ-PASSTHRU.", Ok("except below ok.example")),
            ("old.example CNAME old.example.", Ok("except exact old.example")),
            ("nxdomain.example RRSIG CNAME 13 2 300 (", Ok("")),
            ("  20300101000000 ; ) not this one", Ok("")),
            ("  x== )", Ok("")),
            ("last.example CNAME .", Ok("exact last.example")),
        ]);
    }

    #[test]
    fn names_are_relative_to_the_zone() {
        check(&[
            ("$ORIGIN rpz.example.", Ok("")),
            ("@ IN SOA localhost. root.localhost. (", Ok("")),
            ("   1 ; serial", Ok("")),
            ("   3600 600 86400 300 )", Ok("")),
            ("@ TXT \"about the zone\"", Ok("")),
            ("a.example CNAME .", Ok("exact a.example")),
            ("b.example.RPZ.example. CNAME .", Ok("exact b.example")),
            ("*.b.example.rpz.example. CNAME .", Ok("below b.example")),
            ("rpz.example. ZONEMD 1 1 1 00", Ok("")),
            ("c.example. CNAME .", Err("outside_zone")),
            ("$ORIGIN example.rpz.example.", Ok("")),
            ("  CNAME .", Err("not_this_format")),
            ("d CNAME .", Ok("exact d.example")),
            ("@ CNAME .", Err("top_level")),
            ("$ORIGIN sub", Ok("")),
            ("e CNAME .", Ok("exact e.sub.example")),
        ]);
    }

    /// As in BIND's zone files, and in the output of `dig AXFR`.
    #[test]
    fn the_owner_of_the_soa_record_is_the_apex() {
        check(&[
            ("$ORIGIN .", Ok("")),
            ("rpz.example IN SOA ns. host. 1 2 3 4 5", Ok("")),
            ("  NS ns.", Ok("")),
            ("$ORIGIN example.rpz.example.", Ok("")),
            ("a CNAME .", Ok("exact a.example")),
        ]);
        check(&[
            ("rpz.example. 300 IN SOA ns. host. 1 2 3 4 5", Ok("")),
            ("rpz.example. 300 IN NS ns.", Ok("")),
            ("a.example.rpz.example. 300 IN CNAME .", Ok("exact a.example")),
            ("a.example CNAME .", Ok("exact a.example")),
        ]);
        check(&[("a.example. CNAME .", Err("outside_zone")), ("a.example CNAME .", Ok("exact a.example"))]);
    }

    #[test]
    fn other_records_and_invalid_lines_are_rejected() {
        check(&[
            ("  CNAME .", Err("not_this_format")),
            ("32.1.2.0.192.rpz-ip CNAME .", Err("unsupported")),
            ("32.1.2.0.192.rpz-client-ip CNAME rpz-drop.", Err("unsupported")),
            ("ns.a.example.rpz-nsdname CNAME .", Err("unsupported")),
            ("32.1.2.0.192.RPZ-NSIP CNAME .", Err("unsupported")),
            ("* CNAME .", Err("unsupported")),
            ("a.*.example CNAME .", Err("unsupported")),
            ("sub.example NS ns.example.", Err("unsupported")),
            ("$INCLUDE other.zone", Err("unsupported")),
            ("$GENERATE 1-9 a$.example CNAME .", Err("unsupported")),
            ("a.example CNAME rpz-passthru", Err("lost_exception")),
            ("32.1.2.0.192.rpz-client-ip CNAME rpz-passthru.", Err("lost_exception")),
            ("* CNAME rpz-passthru.", Err("lost_exception")),
            ("*.com CNAME rpz-passthru.", Err("lost_exception")),
            ("a.example CNAME", Err("not_this_format")),
            ("a.example CH TXT x", Err("not_this_format")),
            ("a.example TXT \"x", Err("not_this_format")),
            ("a.example )", Err("not_this_format")),
            ("a.example", Err("not_this_format")),
            ("com CNAME .", Err("top_level")),
            ("*.com CNAME .", Err("top_level")),
            ("a/b.example CNAME .", Err("bad_character")),
            ("a\\.b.example CNAME .", Err("bad_character")),
        ]);
    }

    #[test]
    fn an_unclosed_parenthesis_does_not_swallow_the_list() {
        let mut reader = reader(Format::Rpz);
        for line in [&b"b.example CNAME ."[..], b"b.example 300 IN A 192.0.2.1", b"b.example TXT ("] {
            assert_eq!(entries(&mut reader, b"a.example TXT ("), Ok("exact a.example".to_string()));
            assert_eq!(entries(&mut reader, b"  \"text\" ; b.example CNAME ."), Ok(String::new()));
            assert!(reader.end().is_err());
            assert_eq!(entries(&mut reader, line), Ok("exact b.example".to_string()));
            assert!(reader.end().is_ok());
        }
        for _ in 1..MAX_LINES_IN_PARENTHESES {
            assert_eq!(entries(&mut reader, b"  x=="), Ok(String::new()));
        }
        assert_eq!(entries(&mut reader, b"  x=="), Err("not_this_format"));
        assert_eq!(entries(&mut reader, b"b.example CNAME ."), Ok("exact b.example".to_string()));
        assert!(reader.end().is_ok());
        check(&[("no record (", Err("not_this_format")), ("b.example CNAME .", Ok("exact b.example"))]);
    }
}
