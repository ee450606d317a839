//! Why a line lists nothing: a code for metrics and programs, a text for people. The line is
//! invalid, or it is valid but not applicable: names cannot express it.

use std::fmt;

use super::Repairs;
use crate::name::NameError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    NotAName,
    NotUtf8,
    EmptyLabel,
    LabelTooLong,
    NameTooLong,
    BadByte(u8),
    /// A name of one label.
    TopLevel,
    /// An IPv4 or IPv6 address. Counted separately, because many lists contain some.
    Address,
    /// The last label is a number, which no top-level domain is.
    EndsInNumber,
    /// The necessary repairs that are not allowed.
    NeedsRepair(Repairs),
    /// Not a line of this format. The text describes such lines.
    NotThisFormat(&'static str),
    /// A valid line that is not about names. The text says what it is.
    Unsupported(&'static str),
    /// An exception that is not enforced, and why. The names that it exempts may be blocked.
    LostException(&'static str),
    /// A rule that another rule of the list switches off.
    SwitchedOff,
    /// A trigger for the name servers of a name, which a forwarder does not see.
    NameServerTrigger,
    /// A record whose column is blank.
    NoName,
    /// A record without this column, counted from 1.
    ColumnMissing(usize),
    /// A record of a zone file that is outside the zone.
    OutsideZone,
    /// A record of another class than IN.
    OtherClass,
    /// A record that its owner cannot have beside another one.
    Conflict,
    /// `$INCLUDE` in a form that cannot be followed: it costs the whole zone.
    NotIncluded,
    LineTooLong,
    /// A line of a list of addresses. The text is the likely mistake.
    NotAnAddress(&'static str),
    /// A prefix with bits set after its length.
    HostBits,
    /// A prefix that is shorter than this minimum.
    TooWide(u8),
    /// Domains are registered directly below it.
    PublicSuffix,
    /// One of the operator's own names, or a name that would cover one.
    Protected,
}

impl Reason {
    /// A stable word for metrics and programs.
    pub fn code(self) -> &'static str {
        match self {
            Reason::NotAName => "not_a_name",
            Reason::NotUtf8 => "not_utf8",
            Reason::EmptyLabel => "empty_label",
            Reason::LabelTooLong => "label_too_long",
            Reason::NameTooLong => "name_too_long",
            Reason::BadByte(_) => "bad_character",
            Reason::TopLevel => "top_level",
            Reason::Address => "address",
            Reason::EndsInNumber => "ends_in_number",
            Reason::NeedsRepair(_) => "needs_repair",
            Reason::NotThisFormat(_) => "not_this_format",
            Reason::Unsupported(_) => "unsupported",
            Reason::LostException(_) => "lost_exception",
            Reason::SwitchedOff => "switched_off",
            Reason::NameServerTrigger => "name_server_trigger",
            Reason::NoName => "no_name",
            Reason::ColumnMissing(_) => "column_missing",
            Reason::OutsideZone => "outside_zone",
            Reason::OtherClass => "other_class",
            Reason::Conflict => "conflict",
            Reason::NotIncluded => "not_included",
            Reason::LineTooLong => "line_too_long",
            Reason::NotAnAddress(_) => "not_an_address",
            Reason::HostBits => "host_bits",
            Reason::TooWide(_) => "too_wide",
            Reason::PublicSuffix => "public_suffix",
            Reason::Protected => "protected",
        }
    }

    /// Whether the line is valid, and so no evidence of a corrupt list.
    pub fn is_not_applicable(self) -> bool {
        matches!(
            self,
            Reason::Unsupported(_)
                | Reason::LostException(_)
                | Reason::SwitchedOff
                | Reason::NameServerTrigger
                | Reason::NoName
                | Reason::ColumnMissing(_)
        )
    }

    /// The reason for a line that is an exception.
    pub fn of_exception(self) -> Reason {
        Reason::LostException(match self {
            Reason::LostException(why) | Reason::Unsupported(why) => why,
            Reason::TopLevel => "a name of one label",
            Reason::PublicSuffix => "a public suffix",
            Reason::Address => "an IP address",
            Reason::NeedsRepair(_) => "the name needs a repair that is not allowed",
            _ => "not a domain name",
        })
    }

    pub fn of_exception_if(self, is_exception: bool) -> Reason {
        if is_exception { self.of_exception() } else { self }
    }
}

const ENDS_IN_NUMBER: &str = "not a domain name: the last label is a number, and no top-level domain is one";
const HOST_BITS: &str =
    "bits are set after the prefix: write the first address of the network, or only the address";
const OTHER_CLASS: &str = "a record of another class than IN";
const CONFLICT: &str =
    "its owner has another record, and cannot have both (RFC 1034 section 3.6.2), or has too many";
const NOT_INCLUDED: &str = "write `$INCLUDE FILE` or `$INCLUDE FILE ORIGIN` at the start of a line";
const NAME_SERVER_TRIGGER: &str = "a trigger for name servers: a server that forwards does not see them";

impl From<NameError> for Reason {
    fn from(error: NameError) -> Reason {
        match error {
            NameError::EmptyLabel => Reason::EmptyLabel,
            NameError::LabelTooLong => Reason::LabelTooLong,
            NameError::NameTooLong => Reason::NameTooLong,
            NameError::BadByte(b'*') => Reason::Unsupported("a `*` where this format has no meaning for it"),
            NameError::BadByte(byte) => Reason::BadByte(byte),
            NameError::Empty | NameError::Truncated | NameError::NotALabel => Reason::NotAName,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::NotAName => "not a domain name",
            Reason::NotUtf8 => "neither ASCII nor UTF-8: save the list as UTF-8",
            Reason::EmptyLabel => "empty label: two dots in a row, or a leading dot",
            Reason::LabelTooLong => "a part between two dots is longer than 63 characters",
            Reason::NameTooLong => "the name is longer than 253 characters",
            Reason::BadByte(b' ' | b'\t') => "two words instead of one name: is the list in another format?",
            Reason::BadByte(byte @ 0x21..=0x7e) => {
                return write!(f, "'{}' is not allowed in a name", *byte as char);
            }
            Reason::BadByte(byte) => {
                return write!(f, "byte 0x{byte:02x} is not allowed in a name; is this a text file?");
            }
            Reason::TopLevel => "a name of one label is a whole top-level domain",
            Reason::Address => "an IP address, not a name: list it in a zone of addresses",
            Reason::EndsInNumber => ENDS_IN_NUMBER,
            Reason::NeedsRepair(repairs) => {
                return write!(
                    f,
                    "needs repair ({repairs}): correct the line, or allow the repair for this list"
                );
            }
            Reason::NotThisFormat(expected) => {
                return write!(f, "not a line of this format, which has {expected}");
            }
            Reason::Unsupported(what) => return write!(f, "{what}: names cannot express it"),
            Reason::LostException(why) => {
                return write!(
                    f,
                    "an exception that is not enforced ({why}): the names that it exempts may be blocked"
                );
            }
            Reason::SwitchedOff => "switched off by a `$badfilter` rule of this list",
            Reason::NameServerTrigger => NAME_SERVER_TRIGGER,
            Reason::NoName => "the column is blank",
            Reason::ColumnMissing(column) => {
                return write!(f, "no column {column}: check the column and the separator of this list");
            }
            Reason::OutsideZone => "not in the zone that the SOA record, or $ORIGIN at the top, names",
            Reason::OtherClass => OTHER_CLASS,
            Reason::Conflict => CONFLICT,
            Reason::NotIncluded => NOT_INCLUDED,
            Reason::LineTooLong => "the line is longer than 16 KiB; is this a text file?",
            Reason::NotAnAddress(what) => what,
            Reason::HostBits => HOST_BITS,
            Reason::TooWide(minimum) => {
                return write!(
                    f,
                    "TOO_WIDE: more of the Internet than a list may block; a prefix has at least \
                     {minimum} bits"
                );
            }
            Reason::PublicSuffix => {
                "PUBLIC_SUFFIX: domains are registered directly below it; a list names single domains"
            }
            Reason::Protected => "PROTECTED: the name, or one that it would cover, is protected",
        })
    }
}
