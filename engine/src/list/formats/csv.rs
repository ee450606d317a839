//! One record a line (RFC 4180), the name in the column that the settings say.

use super::Listed;
use crate::list::Reason;
use crate::policy::Match;

const EXPECTED: &str = "fields between separators, each quoted as a whole or not at all";

pub struct Csv {
    /// Where the name stands, counted from 1.
    pub column: usize,
    pub separator: u8,
    pub scope: Match,
    /// No record was read yet: the next one may be the header.
    pub is_first: bool,
}

impl Csv {
    pub fn read(
        &mut self,
        line: &[u8],
        list: &mut impl FnMut(Listed) -> Result<(), Reason>,
    ) -> Result<(), Reason> {
        // RFC 4180 has no comments, but lists have them.
        let start = line.trim_ascii_start();
        if start.is_empty() || start.starts_with(b"#") {
            return Ok(());
        }
        let is_first = std::mem::replace(&mut self.is_first, false);
        let name = self.field(line)?;
        // A title such as `Domain`. A name has a dot, or it is refused below anyway.
        if is_first && !name.contains(&b'.') {
            return Ok(());
        }
        list(Listed::new(name, self.scope))
    }

    /// The field of the column. The other fields are looked at as well: behind a quote
    /// that is not closed, the next line would begin in the middle of a record.
    fn field<'a>(&self, line: &'a [u8]) -> Result<&'a [u8], Reason> {
        let mut found = None;
        let mut rest = Some(line);
        let mut column = 0;
        while let Some(text) = rest {
            let (field, after) = self.first_field(text)?;
            column += 1;
            if column == self.column {
                found = Some(field);
            }
            rest = after;
        }
        found.ok_or(Reason::ColumnMissing(self.column))
    }

    /// The first field, without its quotes, and what is behind its separator.
    ///
    /// A quote in a quoted field is doubled. It stays so: no name has one.
    fn first_field<'a>(&self, text: &'a [u8]) -> Result<(&'a [u8], Option<&'a [u8]>), Reason> {
        let start = text.iter().position(|&octet| octet != b' ').unwrap_or(0);
        if text.get(start) != Some(&b'"') {
            let (field, after) = self.cut(text);
            return Ok((field.trim_ascii(), after));
        }
        let quoted = &text[start + 1..];
        let end = closing_quote(quoted).ok_or(Reason::NotThisFormat(EXPECTED))?;
        let (nothing, after) = self.cut(&quoted[end + 1..]);
        if !nothing.trim_ascii().is_empty() {
            return Err(Reason::NotThisFormat(EXPECTED));
        }
        Ok((quoted[..end].trim_ascii(), after))
    }

    fn cut<'a>(&self, text: &'a [u8]) -> (&'a [u8], Option<&'a [u8]>) {
        match text.iter().position(|&octet| octet == self.separator) {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        }
    }
}

fn closing_quote(quoted: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += quoted.get(at..)?.iter().position(|&octet| octet == b'"')?;
        if quoted.get(at + 1) != Some(&b'"') {
            return Some(at);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::Match;
    use crate::list::reader::tests::said;
    use crate::list::{Format, Reader, Repairs, Settings};

    fn reader(column: usize, separator: u8) -> Reader {
        let repairs = Repairs::NONE;
        let scope = Some(Match::Exact);
        Reader::new(Settings { format: Format::Csv, scope, column, separator, repairs })
    }

    #[test]
    fn the_column_holds_the_name() {
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
            ("6,", Err("not_a_name")),
            ("7,Domain", Err("top_level")),
            ("8,a.example,\"x", Err("not_this_format")),
            ("9,\"a.example\"x,", Err("not_this_format")),
            ("10,\"a\"\".example\"", Err("bad_character")),
            ("11,a b.example", Err("bad_character")),
            ("12,192.0.2.1", Err("address")),
            (",,", Err("not_a_name")),
        ] {
            let expected = expected.map(str::to_string);
            assert_eq!(said(&mut reader, line.as_bytes()), expected, "{line}");
        }
    }

    /// A list without a header loses no name.
    #[test]
    fn a_first_line_with_a_name_is_no_header() {
        assert_eq!(said(&mut reader(1, b','), b"a.example,x"), Ok("exact a.example".into()));
        assert_eq!(said(&mut reader(1, b','), b"No. 1,x"), Err("bad_character"));
    }

    #[test]
    fn tabs_separate_and_are_not_white_space_then() {
        let mut reader = reader(3, b'\t');
        assert_eq!(said(&mut reader, b"\t\ta.example\tx"), Ok("exact a.example".into()));
        assert_eq!(said(&mut reader, b"a.example\t"), Err("column_missing"));
    }
}
