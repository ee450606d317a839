//! The formats that lists come in. Each has a file that knows what its lines
//! say; what a name is, and which repairs are allowed, is no matter of theirs.

pub mod adblock;
pub mod csv;
pub mod dnsmasq;
pub mod hosts;
pub mod plain;
pub mod record;
pub mod rpz;
pub mod subdomains;
pub mod unbound;
pub mod wildcard;

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
}

impl Format {
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
        Format::ALL[self as usize].1
    }

    pub fn from_name(name: &str) -> Option<Format> {
        Format::ALL.iter().find(|(_, known)| *known == name).map(|(format, _)| *format)
    }
}

/// What a line says about one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// The name as it is written, not looked at yet.
    pub text: &'a [u8],
    pub scope: Match,
    /// The name is taken out of what other lines cover.
    pub is_exception: bool,
}

impl<'a> Listed<'a> {
    pub fn new(text: &'a [u8], scope: Match) -> Listed<'a> {
        Listed { text, scope, is_exception: false }
    }

    /// `*.name` means what is below the name; a bare name has the scope that its
    /// format gives it.
    pub fn wildcard(text: &'a [u8], bare: Match) -> Listed<'a> {
        match text.strip_prefix(b"*.") {
            Some(name) => Listed::new(name, Match::Below),
            None => Listed::new(text, bare),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_is_found_by_its_name() {
        for (format, name) in Format::ALL {
            assert_eq!((format.name(), Format::from_name(name)), (name, Some(format)));
        }
        assert_eq!(Format::from_name("Plain"), None);
    }
}
