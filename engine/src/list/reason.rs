//! Why a line of a list lists nothing: a code for metrics, a sentence for people. A line is
//! malformed, or it is understood and not applicable: it says something that names cannot.

use std::fmt;

use super::Repairs;
use crate::name::NameError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No name where one belongs, or one in another script that is none.
    NotAName,
    NotUtf8,
    EmptyLabel,
    LabelTooLong,
    NameTooLong,
    BadOctet(u8),
    /// A name of one label.
    TopLevel,
    /// An IPv4 or IPv6 address. Callers count these apart: many lists hold some.
    Address,
    /// The last label is a number, which no top-level domain is.
    EndsInNumber,
    /// Repairs that the settings do not allow.
    NeedsRepair(Repairs),
    /// Not a line of this format; what such a line looks like.
    NotThisFormat(&'static str),
    /// A line of this format that says something that names cannot; what it is.
    Unsupported(&'static str),
    /// An exception that is not carried out, and why. What it excepts may be blocked.
    LostException(&'static str),
    /// A rule that another rule of the list switches off.
    SwitchedOff,
    /// A record whose column is blank.
    NoName,
    /// The column that the line does not have, counted from 1.
    ColumnMissing(usize),
    /// A record of a zone file that is not in the zone.
    OutsideZone,
    LineTooLong,
    /// Of a list of addresses; what the line may be instead.
    NotAnAddress(&'static str),
    /// A prefix with bits set behind it.
    HostBits,
    /// A prefix of fewer bits than any list can mean, which are these.
    TooWide(u8),
    /// Registries sell names below it.
    PublicSuffix,
    /// One of the operator's own, or one that would cover it.
    Protected,
}

impl Reason {
    /// A stable word for metrics.
    pub fn code(self) -> &'static str {
        match self {
            Reason::NotAName => "not_a_name",
            Reason::NotUtf8 => "not_utf8",
            Reason::EmptyLabel => "empty_label",
            Reason::LabelTooLong => "label_too_long",
            Reason::NameTooLong => "name_too_long",
            Reason::BadOctet(_) => "bad_character",
            Reason::TopLevel => "top_level",
            Reason::Address => "address",
            Reason::EndsInNumber => "ends_in_number",
            Reason::NeedsRepair(_) => "needs_repair",
            Reason::NotThisFormat(_) => "not_this_format",
            Reason::Unsupported(_) => "unsupported",
            Reason::LostException(_) => "lost_exception",
            Reason::SwitchedOff => "switched_off",
            Reason::NoName => "no_name",
            Reason::ColumnMissing(_) => "column_missing",
            Reason::OutsideZone => "outside_zone",
            Reason::LineTooLong => "line_too_long",
            Reason::NotAnAddress(_) => "not_an_address",
            Reason::HostBits => "host_bits",
            Reason::TooWide(_) => "too_wide",
            Reason::PublicSuffix => "public_suffix",
            Reason::Protected => "protected",
        }
    }
}

impl Reason {
    /// Whether the line is understood, and is no sign of a broken list.
    pub fn is_not_applicable(self) -> bool {
        matches!(
            self,
            Reason::Unsupported(_)
                | Reason::LostException(_)
                | Reason::SwitchedOff
                | Reason::NoName
                | Reason::ColumnMissing(_)
        )
    }

    /// The same of a line that is an exception.
    pub fn of_exception(self) -> Reason {
        Reason::LostException(match self {
            Reason::LostException(why) | Reason::Unsupported(why) => why,
            Reason::TopLevel => "a name of one label",
            Reason::PublicSuffix => "names are sold below the name",
            Reason::Address => "an IP address",
            Reason::NeedsRepair(_) => "the name needs a repair that is not allowed",
            _ => "not a domain name",
        })
    }
}

impl From<NameError> for Reason {
    fn from(error: NameError) -> Reason {
        match error {
            NameError::EmptyLabel => Reason::EmptyLabel,
            NameError::LabelTooLong => Reason::LabelTooLong,
            NameError::NameTooLong => Reason::NameTooLong,
            NameError::BadByte(b'*') => Reason::Unsupported("a `*` where this format has no meaning for it"),
            NameError::BadByte(octet) => Reason::BadOctet(octet),
            NameError::Empty | NameError::Truncated | NameError::NotALabel => Reason::NotAName,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NotAName => f.write_str("not a domain name"),
            Reason::NotUtf8 => f.write_str("neither ASCII nor UTF-8: save the list as UTF-8"),
            Reason::EmptyLabel => f.write_str("empty label: two dots in a row, or a leading dot"),
            Reason::LabelTooLong => f.write_str("a part between two dots is longer than 63 characters"),
            Reason::NameTooLong => f.write_str("the name is longer than 253 characters"),
            Reason::BadOctet(b' ' | b'\t') => {
                f.write_str("two words where one name belongs: is the list in another format?")
            }
            Reason::BadOctet(octet @ 0x21..=0x7e) => {
                write!(f, "'{}' is not allowed in a name", *octet as char)
            }
            Reason::BadOctet(octet) => {
                write!(f, "octet 0x{octet:02x} is not allowed in a name; is this a text file?")
            }
            Reason::TopLevel => f.write_str("a name of one label is a whole top-level domain"),
            Reason::Address => f.write_str("an IP address, not a name: list it in a zone of addresses"),
            Reason::EndsInNumber => {
                f.write_str("not a domain name: the last label is a number, and no top-level domain is one")
            }
            Reason::NeedsRepair(repairs) => {
                write!(f, "needs repair ({repairs}): correct the line, or allow it for this list")
            }
            Reason::NotThisFormat(expected) => write!(f, "not a line of this format, which has {expected}"),
            Reason::Unsupported(what) => write!(f, "{what}: cannot be carried out by names"),
            Reason::LostException(why) => {
                write!(f, "an exception that is not carried out ({why}): what it excepts may be blocked")
            }
            Reason::SwitchedOff => f.write_str("switched off by a `$badfilter` rule of this list"),
            Reason::NoName => f.write_str("the column is blank"),
            Reason::ColumnMissing(column) => {
                write!(f, "there is no column {column}: see the column and the separator set for this list")
            }
            Reason::OutsideZone => {
                f.write_str("not in the zone that the SOA record, or $ORIGIN at the top, is about")
            }
            Reason::LineTooLong => f.write_str("the line is longer than 16 KiB; is this a text file?"),
            Reason::NotAnAddress(what) => f.write_str(what),
            Reason::HostBits => {
                f.write_str("bits are set behind the prefix: write its first address, or the address alone")
            }
            Reason::TooWide(widest) => {
                write!(
                    f,
                    "TOO_WIDE: more of the Internet than a list may block; a prefix has at least {widest} bits"
                )
            }
            Reason::PublicSuffix => {
                f.write_str("PUBLIC_SUFFIX: names are sold below it; a list names single domains")
            }
            Reason::Protected => f.write_str("PROTECTED: the name, or what it would cover, is protected"),
        }
    }
}
