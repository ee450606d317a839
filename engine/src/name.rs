//! Domain names in wire format: parsing, lower case, suffixes.
//!
//! A `Name` is parsed once, from a question or from a line of a list. Labels are binary (RFC 2181
//! 11): a label may contain a dot, so names are never compared as text.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64_with_seed;

mod text;
pub use text::{MAX_TEXT, Text};

/// The maximum length of a name, with the root label (RFC 1035 2.3.4).
pub const MAX_NAME: usize = 255;
/// The maximum length of a label (RFC 1035 2.3.4).
pub const MAX_LABEL: usize = 63;
/// The maximum number of labels: each needs two octets or more, the root label one.
pub const MAX_LABELS: usize = 127;

/// A valid domain name in wire format and lower case.
#[derive(Clone)]
pub struct Name {
    wire: [u8; MAX_NAME],
    length: u8,
    /// The offset of each label, from left to right.
    starts: [u8; MAX_LABELS],
    labels: u8,
}

/// Why a name is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// The message ends within the name.
    Truncated,
    /// A compression pointer, or an unassigned label type.
    NotALabel,
    Empty,
    EmptyLabel,
    LabelTooLong,
    NameTooLong,
    /// In text: not a letter, digit, hyphen or underscore.
    BadByte(u8),
}

impl Name {
    /// Parses the uncompressed name at `at`; returns it and its end. A compression pointer is an
    /// error: in a question, there is no earlier name.
    pub fn parse(message: &[u8], at: usize) -> Result<(Name, usize), NameError> {
        let mut name = Name::root();
        let end = name.read(message, at)?;
        Ok((name, end))
    }

    /// As `parse`, in place: to move a name would cost too much for each packet. The content is
    /// undefined after an error.
    pub fn read(&mut self, message: &[u8], at: usize) -> Result<usize, NameError> {
        self.labels = 0;
        let mut here = at;
        loop {
            let length = *message.get(here).ok_or(NameError::Truncated)? as usize;
            if length > MAX_LABEL {
                return Err(NameError::NotALabel);
            }
            let next = here + 1 + length;
            if next - at > MAX_NAME {
                return Err(NameError::NameTooLong);
            }
            if length == 0 {
                break;
            }
            // Cannot overflow: 127 labels of one byte fill 254 bytes.
            self.starts[self.labels as usize] = (here - at) as u8;
            self.labels += 1;
            here = next;
        }
        let wire = message.get(at..=here).ok_or(NameError::Truncated)?;
        self.length = wire.len() as u8;
        let own = &mut self.wire[..wire.len()];
        own.copy_from_slice(wire);
        // The lengths of labels are at most 63, below 'A'. Bytes from 0x80 stay (RFC 4343).
        own.make_ascii_lowercase();
        Ok(here + 1)
    }

    /// Parses presentation format as in lists: letters, digits, hyphens and underscores, with or
    /// without a trailing dot, without escapes.
    pub fn from_text(text: &[u8]) -> Result<Name, NameError> {
        let mut name = Name::root();
        name.read_text(text)?;
        Ok(name)
    }

    /// As `from_text`, in place: a list has millions of names. The content is undefined after an
    /// error.
    pub fn read_text(&mut self, text: &[u8]) -> Result<(), NameError> {
        let text = text.strip_suffix(b".").unwrap_or(text);
        // The wire format adds the length of the first label, and the root label.
        if text.is_empty() || text.len() + 2 > MAX_NAME {
            return Err(fault(text));
        }
        self.labels = 0;
        let mut start = 0;
        for (at, &byte) in text.iter().enumerate() {
            let folded = FOLDED[byte as usize];
            // `close_label` replaces a dot by the length of a label.
            self.wire[at + 1] = folded;
            if folded == 0 {
                if byte != b'.' || !self.close_label(start, at) {
                    return Err(fault(text));
                }
                start = at + 1;
            }
        }
        if !self.close_label(start, text.len()) {
            return Err(fault(text));
        }
        self.wire[text.len() + 1] = 0;
        self.length = text.len() as u8 + 2;
        Ok(())
    }

    /// Adds the label at `start..end` of the text; false if its length is invalid.
    fn close_label(&mut self, start: usize, end: usize) -> bool {
        let length = end - start;
        // Cannot overflow: 127 labels of one byte fill 253 bytes of text.
        self.wire[start] = length as u8;
        self.starts[self.labels as usize] = start as u8;
        self.labels += 1;
        (1..=MAX_LABEL).contains(&length)
    }

    pub fn root() -> Name {
        Name { wire: [0; MAX_NAME], length: 1, starts: [0; MAX_LABELS], labels: 0 }
    }

    /// This name below `parent`; `None` if that is too long.
    pub fn under(&self, parent: &Name) -> Option<Name> {
        self.replace(self.labels(), parent)
    }

    /// The first `count` labels of this name, below `parent`.
    pub fn replace(&self, count: usize, parent: &Name) -> Option<Name> {
        let own = &self.wire[..self.offset(count)];
        let mut wire = [0; 2 * MAX_NAME];
        wire[..own.len()].copy_from_slice(own);
        wire[own.len()..own.len() + parent.suffix(0).len()].copy_from_slice(parent.suffix(0));
        Name::parse(&wire, 0).ok().map(|(name, _)| name)
    }

    /// The number of labels, without the root label.
    pub fn labels(&self) -> usize {
        self.labels as usize
    }

    /// The name in wire format, without its `skip` leftmost labels.
    pub fn suffix(&self, skip: usize) -> &[u8] {
        &self.wire[self.offset(skip)..self.length as usize]
    }

    /// The offset of the suffix without the `skip` leftmost labels.
    pub fn offset(&self, skip: usize) -> usize {
        match self.starts[..self.labels()].get(skip) {
            Some(&start) => start as usize,
            None => self.length as usize - 1,
        }
    }

    fn label(&self, index: usize) -> &[u8] {
        &self.wire[self.offset(index)..self.offset(index + 1)]
    }
}

/// A name that is seldom kept, and takes little room in what may keep it.
pub struct BoxedName(Box<Name>);

impl From<Name> for BoxedName {
    fn from(name: Name) -> BoxedName {
        BoxedName(Box::new(name))
    }
}

impl BoxedName {
    pub fn into_name(self) -> Name {
        *self.0
    }
}

/// Case-insensitive for ASCII, by wire format.
impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.suffix(0) == other.suffix(0)
    }
}

/// Presentation format without the trailing dot. Bytes that could mislead a reader are escaped as
/// `\DDD` (RFC 1035 5.1).
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.labels == 0 {
            return f.write_str(".");
        }
        for index in 0..self.labels() {
            if index > 0 {
                f.write_str(".")?;
            }
            for &byte in &self.label(index)[1..] {
                match byte {
                    byte if is_host_byte(byte) || byte == b'*' => write!(f, "{}", byte as char)?,
                    byte => write!(f, "\\{byte:03}")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameError::Truncated => f.write_str("the name is truncated"),
            NameError::NotALabel => f.write_str("not a plain label (compression pointer?)"),
            NameError::Empty => f.write_str("the name is empty"),
            NameError::EmptyLabel => f.write_str("empty label (two dots in a row, or a leading dot)"),
            NameError::LabelTooLong => f.write_str("a label is longer than 63 bytes"),
            NameError::NameTooLong => f.write_str("the name is longer than 253 characters"),
            NameError::BadByte(b'*') => {
                f.write_str("'*' is not allowed in a name; set `match: below` for the zone instead")
            }
            NameError::BadByte(byte @ 0x20..=0x7e) => {
                write!(f, "'{}' is not allowed in a name: write one name per line", *byte as char)
            }
            NameError::BadByte(byte) => {
                write!(f, "byte 0x{byte:02x} is not allowed in a name; is this a text file?")
            }
        }
    }
}

const fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// Each byte that is allowed in a label, in lower case; 0 for all others and for dots.
const FOLDED: [u8; 256] = {
    let mut folded = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        if is_host_byte(byte as u8) {
            folded[byte] = (byte as u8).to_ascii_lowercase();
        }
        byte += 1;
    }
    folded
};

/// Why a text without its trailing dot is not a name: the most useful reason first.
#[cold]
fn fault(text: &[u8]) -> NameError {
    let labels = || text.split(|&byte| byte == b'.');
    if text.is_empty() {
        return NameError::Empty;
    }
    if let Some(&bad) = text.iter().find(|&&byte| byte != b'.' && !is_host_byte(byte)) {
        return NameError::BadByte(bad);
    }
    if labels().any(|label| label.is_empty()) {
        return NameError::EmptyLabel;
    }
    if labels().any(|label| label.len() > MAX_LABEL) {
        return NameError::LabelTooLong;
    }
    NameError::NameTooLong
}

//------- Walk ---------------------------------------------------------------

/// The hashes of all suffixes of a name, computed in one pass from the root. All policy zones are
/// looked up with them.
pub struct Walk {
    hashes: [u64; MAX_LABELS + 1],
    text: Text,
}

impl Walk {
    /// The hash of each suffix is seeded with that of its parent. Use a `seed` that is random for
    /// each process, so that nobody can choose names with equal hashes.
    pub fn new(name: &Name, seed: u64) -> Walk {
        let mut walk = Walk { hashes: [0; MAX_LABELS + 1], text: Text::default() };
        walk.take(name, seed);
        walk
    }

    /// As `new`, in place.
    pub fn take(&mut self, name: &Name, seed: u64) {
        let mut hash = seed;
        self.hashes[name.labels()] = hash;
        for skip in (0..name.labels()).rev() {
            hash = xxh3_64_with_seed(name.label(skip), hash);
            self.hashes[skip] = hash;
        }
        self.text.take_wire(name.suffix(0), name.labels());
    }

    /// The hash of the suffix without the `skip` leftmost labels.
    pub fn hash(&self, skip: usize) -> u64 {
        self.hashes[skip]
    }

    /// The name as text. Its suffixes have the same offsets as in the name (`Name::offset`).
    pub fn text(&self) -> &Text {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_text(text.as_bytes()).unwrap()
    }

    #[test]
    fn text_and_wire_format_are_parsed_to_the_same_name() {
        let (parsed, end) = Name::parse(b"\x03WeB\x08Telegram\x03org\x00tail", 0).unwrap();
        assert_eq!(parsed, name("web.telegram.org."));
        assert_eq!(end, 18);
        assert_eq!(parsed.to_string(), "web.telegram.org");
        assert_eq!(parsed.suffix(1), b"\x08telegram\x03org\x00");
        assert_eq!(parsed.suffix(3), b"\x00");
    }

    /// RFC 1035 2.3.4: 255 octets with the root label, and 63 for a label.
    #[test]
    fn limits_are_exact() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(name(&longest).suffix(0).len(), MAX_NAME);
        let over = format!("{label}.{label}.{label}.{}", "a".repeat(62));
        assert_eq!(Name::from_text(over.as_bytes()), Err(NameError::NameTooLong));
        assert_eq!(Name::from_text(&[b'a'; 64]), Err(NameError::LabelTooLong));
        let deepest = "a.".repeat(127);
        assert_eq!(name(&deepest).labels(), MAX_LABELS);
        let wire = name(&deepest).suffix(0).to_vec();
        assert_eq!(Name::parse(&wire, 0).unwrap().0.labels(), MAX_LABELS);
        assert_eq!(Name::from_text("a.".repeat(128).as_bytes()), Err(NameError::NameTooLong));
        let mut over = b"\x01a".repeat(128);
        over.push(0);
        assert_eq!(Name::parse(&over, 0), Err(NameError::NameTooLong));
    }

    #[test]
    fn invalid_names_are_refused_with_a_reason() {
        let cases: [(&[u8], NameError); 8] = [
            (b"", NameError::Empty),
            (b".", NameError::Empty),
            (b"a..b", NameError::EmptyLabel),
            (b".a", NameError::EmptyLabel),
            (b"a b", NameError::BadByte(b' ')),
            (b"http://x", NameError::BadByte(b':')),
            (b"a\x00b", NameError::BadByte(0)),
            (b"*.x", NameError::BadByte(b'*')),
        ];
        for (text, error) in cases {
            assert_eq!(Name::from_text(text), Err(error), "{text:?}");
        }
        for wire in [&b"\x03ab"[..], b"\x01a", b"", b"\x03abc"] {
            assert_eq!(Name::parse(wire, 0), Err(NameError::Truncated), "{wire:?}");
        }
        for wire in [&b"\xc0\x0c"[..], b"\x40a\x00", b"\x01a\xc0\x00"] {
            assert_eq!(Name::parse(wire, 0), Err(NameError::NotALabel), "{wire:?}");
        }
    }

    /// RFC 2181 11: labels are binary.
    #[test]
    fn a_label_with_a_dot_is_not_two_labels() {
        let (tricky, _) = Name::parse(b"\x04t.me\x00", 0).unwrap();
        assert_ne!(tricky, name("t.me"));
        assert_eq!(tricky.to_string(), "t\\046me");
        assert_ne!(Walk::new(&tricky, 7).hash(0), Walk::new(&name("t.me"), 7).hash(0));
    }

    #[test]
    fn a_name_is_put_below_another_within_the_limits() {
        assert_eq!(name("a.b").under(&name("c.example")), Some(name("a.b.c.example")));
        assert_eq!(Name::root().under(&name("c.example")), Some(name("c.example")));
        assert_eq!(name("a.b").under(&Name::root()), Some(name("a.b")));
        let long = name(&"a.".repeat(120));
        assert_eq!(long.under(&name(&"b.".repeat(7))).map(|name| name.labels()), Some(127));
        assert_eq!(long.under(&name(&"b.".repeat(8))), None);
        assert_eq!(long.under(&long), None);
    }

    #[test]
    fn the_hash_of_a_suffix_is_the_hash_of_that_name() {
        let deep = name("a.b.example.com");
        for skip in 0..4 {
            let (suffix, _) = Name::parse(deep.suffix(skip), 0).unwrap();
            assert_eq!(Walk::new(&deep, 42).hash(skip), Walk::new(&suffix, 42).hash(0));
        }
    }
}
