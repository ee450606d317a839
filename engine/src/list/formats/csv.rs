//! One record per line (RFC 4180). The zone's settings name the column and the separator:
//!
//! ```text
//! No;Domain;Note             the first lines may be titles
//! 1;ads.example;             with `column: 2` and `separator: ";"`
//! 2;"bad.example";"quoted"
//! ```

use super::{Entry, TakeEntry};
use crate::list::tokens::split_once;
use crate::list::{Reason, name_parser};
use crate::name::Name;
use crate::policy::Match;

const EXPECTED: &str = "fields between separators, each quoted as a whole or not at all";

pub struct Csv {
    /// The column of the name, counted from 1.
    pub column: usize,
    pub separator: u8,
    pub scope: Match,
    /// How many of the next records may be titles: none after the first name.
    pub titles: usize,
}

/// Records at the top that may be titles: of the list, of its columns, perhaps a date.
pub const TITLES: usize = 5;

impl Csv {
    pub fn parse(&mut self, line: &[u8], take: &mut impl TakeEntry) -> Result<(), Reason> {
        // RFC 4180 has no comments, but lists do.
        let start = line.trim_ascii_start();
        if start.is_empty() || start.starts_with(b"#") {
            return Ok(());
        }
        let titles = self.titles;
        self.titles = titles.saturating_sub(1);
        let (name, is_blank) = match self.field(line) {
            Ok(found) => found,
            Err(Reason::ColumnMissing(_)) if titles > 0 => return Ok(()),
            Err(reason) => return Err(reason),
        };
        if is_blank || titles > 0 && is_title(name) {
            return Ok(());
        }
        if name.is_empty() {
            return Err(Reason::NoName);
        }
        self.titles = 0;
        take(Entry::wildcard(name, self.scope))
    }

    /// The field of the column, and whether all fields are blank. It parses the other fields as
    /// well: after an unclosed quote, the next line would start in the middle of a record.
    fn field<'a>(&self, line: &'a [u8]) -> Result<(&'a [u8], bool), Reason> {
        let mut found = None;
        let mut is_blank = true;
        let mut rest = Some(line);
        let mut column = 0;
        while let Some(text) = rest {
            let (field, after) = self.first_field(text)?;
            column += 1;
            is_blank &= field.is_empty();
            if column == self.column {
                found = Some(field);
            }
            rest = after;
        }
        match found {
            Some(field) => Ok((field, is_blank)),
            None if is_blank => Ok((b"", true)),
            None => Err(Reason::ColumnMissing(self.column)),
        }
    }

    /// The first field without its quotes, and the text after its separator.
    ///
    /// A quote in a quoted field is doubled, and stays so: no name has one.
    fn first_field<'a>(&self, text: &'a [u8]) -> Result<(&'a [u8], Option<&'a [u8]>), Reason> {
        let start = text.iter().position(|&byte| byte != b' ').unwrap_or(0);
        if text.get(start) != Some(&b'"') {
            let (field, after) = self.split(text);
            return Ok((field.trim_ascii(), after));
        }
        let quoted = &text[start + 1..];
        let end = closing_quote(quoted).ok_or(Reason::NotThisFormat(EXPECTED))?;
        let (between, after) = self.split(&quoted[end + 1..]);
        if !between.trim_ascii().is_empty() {
            return Err(Reason::NotThisFormat(EXPECTED));
        }
        Ok((quoted[..end].trim_ascii(), after))
    }

    fn split<'a>(&self, text: &'a [u8]) -> (&'a [u8], Option<&'a [u8]>) {
        split_once(text, self.separator).map_or((text, None), |(field, after)| (field, Some(after)))
    }
}

/// A title such as `Domain` has no dot, or is several words of which none is a name:
/// `Name (as of 01.02.2026)`.
fn is_title(field: &[u8]) -> bool {
    let mut name = Name::root();
    !field.contains(&b'.')
        || field.contains(&b' ')
            && field.split(|&byte| byte == b' ').all(|word| name_parser::parse(&mut name, word).is_err())
}

fn closing_quote(quoted: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += quoted.get(at..)?.iter().position(|&byte| byte == b'"')?;
        if quoted.get(at + 1) != Some(&b'"') {
            return Some(at);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::Match;
    use crate::list::reader::tests::{entries, settings};
    use crate::list::{Format, Reader, Settings};

    fn reader(column: usize, separator: u8) -> Reader {
        Reader::new(Settings { scope: Some(Match::Exact), column, separator, ..settings(Format::Csv) })
    }

    #[test]
    fn the_column_has_the_name() {
        let mut reader = reader(2, b',');
        for (line, expected) in [
            ("# from the ministry", Ok("")),
            ("No,Domain,Note", Ok("")),
            ("1,a.example,x", Ok("exact a.example")),
            ("2,\"a.example\",\"x, \"\"y\"\"\"", Ok("exact a.example")),
            ("3, \" a.example \" ,", Ok("exact a.example")),
            ("4,a.example", Ok("exact a.example")),
            ("", Ok("")),
            ("5", Err("column_missing")),
            ("6,", Err("no_name")),
            ("7,Domain", Err("top_level")),
            ("8,a.example,\"x", Err("not_this_format")),
            ("9,\"a.example\"x,", Err("not_this_format")),
            ("10,\"a\"\".example\"", Err("bad_character")),
            ("11,a b.example", Err("bad_character")),
            ("12,192.0.2.1", Err("address")),
            (",,", Ok("")),
            ("13,*.a.example", Ok("below a.example")),
        ] {
            let expected = expected.map(str::to_string);
            assert_eq!(entries(&mut reader, line.as_bytes()), expected, "{line}");
        }
    }

    /// A list without a header loses no name.
    #[test]
    fn a_first_line_with_a_name_is_not_a_header() {
        assert_eq!(entries(&mut reader(1, b','), b"a.example,x"), Ok("exact a.example".into()));
        assert_eq!(entries(&mut reader(1, b','), b"a.example:80,x"), Err("needs_repair"));
    }

    /// Titles may have fewer columns than the records. After the first name there are none.
    #[test]
    fn titles_are_ignored() {
        assert_eq!(entries(&mut reader(2, b';'), b"1;a.example b.example"), Err("bad_character"));
        let mut reader = reader(2, b';');
        for line in ["Blocked domains", "No.;Domain name (as of 01.02.2026);Note", ";;", "No;Domain"] {
            assert_eq!(entries(&mut reader, line.as_bytes()), Ok(String::new()), "{line}");
        }
        assert_eq!(entries(&mut reader, b"1;a.example"), Ok("exact a.example".into()));
        assert_eq!(entries(&mut reader, b"No;Domain"), Err("top_level"));
        assert_eq!(entries(&mut reader, b"Total: 1"), Err("column_missing"));
        assert_eq!(entries(&mut reader, b"2;two words.example"), Err("bad_character"));
    }

    #[test]
    fn a_tab_as_separator_is_not_white_space() {
        let mut reader = reader(3, b'\t');
        assert_eq!(entries(&mut reader, b"\t\ta.example\tx"), Ok("exact a.example".into()));
        assert_eq!(entries(&mut reader, b"a.example\t"), Err("column_missing"));
    }
}
