//! A set of repairs of a name or line: those that a list's settings allow, and those that a line
//! needed, for the report.

use std::fmt;
use std::ops::BitOr;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repairs(u16);

impl Repairs {
    pub const NONE: Repairs = Repairs(0);
    /// A byte order mark before the line.
    pub const BOM: Repairs = Repairs(1);
    /// A carriage return at the end of the line.
    pub const CRLF: Repairs = Repairs(1 << 1);
    /// Upper case.
    pub const CASE: Repairs = Repairs(1 << 2);
    /// One trailing dot.
    pub const DOT: Repairs = Repairs(1 << 3);
    /// `https://` before the name.
    pub const SCHEME: Repairs = Repairs(1 << 4);
    /// `:443` after the name.
    pub const PORT: Repairs = Repairs(1 << 5);
    /// `/path` or `?query` after the name.
    pub const PATH: Repairs = Repairs(1 << 6);
    /// One trailing comma.
    pub const COMMA: Repairs = Repairs(1 << 7);
    /// A name in another script, converted to A-labels (UTS 46). Always allowed: such a name has
    /// only one meaning.
    pub const IDN: Repairs = Repairs(1 << 8);

    /// Each repair with its name in configuration and metrics.
    pub const ALL: [(Repairs, &'static str); 9] = [
        (Repairs::BOM, "bom"),
        (Repairs::CRLF, "crlf"),
        (Repairs::CASE, "case"),
        (Repairs::DOT, "dot"),
        (Repairs::SCHEME, "scheme"),
        (Repairs::PORT, "port"),
        (Repairs::PATH, "path"),
        (Repairs::COMMA, "comma"),
        (Repairs::IDN, "idn"),
    ];

    pub fn from_name(name: &str) -> Option<Repairs> {
        Repairs::ALL.iter().find(|(_, known)| *known == name).map(|(repair, _)| *repair)
    }

    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Repairs::ALL.into_iter().filter(move |(repair, _)| self.contains(*repair)).map(|(_, name)| name)
    }

    pub fn is_empty(self) -> bool {
        self == Repairs::NONE
    }

    pub fn contains(self, others: Repairs) -> bool {
        others.without(self).is_empty()
    }

    pub fn without(self, others: Repairs) -> Repairs {
        Repairs(self.0 & !others.0)
    }

    pub(super) fn add(&mut self, others: Repairs) {
        self.0 |= others.0;
    }
}

impl BitOr for Repairs {
    type Output = Repairs;

    fn bitor(self, others: Repairs) -> Repairs {
        Repairs(self.0 | others.0)
    }
}

impl fmt::Display for Repairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_repair_is_found_by_its_name_and_all_are_different() {
        let mut all = Repairs::NONE;
        for (repair, name) in Repairs::ALL {
            assert_eq!(Repairs::from_name(name), Some(repair));
            assert!(!all.contains(repair));
            all.add(repair);
        }
        assert_eq!(all.to_string(), "bom, crlf, case, dot, scheme, port, path, comma, idn");
        assert_eq!(all.without(Repairs::DOT).names().count(), 8);
    }
}
