//! Wire-format domain names: check, lowercase, walk towards the root.
//!
//! A `Name` is parsed once, at the door, from a question or from a list's
//! line, and trusted inside. Labels are binary (RFC 2181 11): a label that
//! holds a dot is one label, and nothing here ever joins labels into text to
//! compare them.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64_with_seed;

mod text;
pub use text::{MAX_TEXT, Text};

/// Octets of a name at most, the root label included (RFC 1035 2.3.4).
pub const MAX_NAME: usize = 255;
/// Octets of a label at most (RFC 1035 2.3.4).
pub const MAX_LABEL: usize = 63;
/// Labels of a name at most: each takes two octets or more, the root one.
pub const MAX_LABELS: usize = 127;

/// A checked domain name in wire format, ASCII letters in lower case.
#[derive(Clone)]
pub struct Name {
    octets: [u8; MAX_NAME],
    length: u8,
    /// Where each label's length octet stands, outermost last.
    starts: [u8; MAX_LABELS],
    labels: u8,
}

/// Why something is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// The octets end before the name does.
    CutOff,
    /// A compression pointer, or a label type that was never assigned.
    NotALabel,
    Empty,
    EmptyLabel,
    LabelTooLong,
    NameTooLong,
    /// Text only: not a letter, digit, hyphen or underscore.
    BadOctet(u8),
}

impl Name {
    /// Reads the uncompressed name at `at`; returns it and where it ends.
    ///
    /// A question has nothing before it to point at, so a compression pointer
    /// here is an error, not something to follow.
    pub fn parse(message: &[u8], at: usize) -> Result<(Name, usize), NameError> {
        let mut name = Name::root();
        let end = name.read(message, at)?;
        Ok((name, end))
    }

    /// As `parse`, into this one: a name is too long to be moved about for every
    /// packet. After an error it is some name or other.
    pub fn read(&mut self, message: &[u8], at: usize) -> Result<usize, NameError> {
        self.labels = 0;
        let mut here = at;
        loop {
            let length = *message.get(here).ok_or(NameError::CutOff)? as usize;
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
            // Cannot overflow: 127 labels of one octet fill 254 octets.
            self.starts[self.labels as usize] = (here - at) as u8;
            self.labels += 1;
            here = next;
        }
        let wire = message.get(at..=here).ok_or(NameError::CutOff)?;
        self.length = wire.len() as u8;
        let octets = &mut self.octets[..wire.len()];
        octets.copy_from_slice(wire);
        // Length octets are at most 63, below 'A', so folding case over the
        // whole name touches labels only; octets >= 0x80 stay (RFC 4343).
        octets.make_ascii_lowercase();
        Ok(here + 1)
    }

    /// Reads presentation format as lists hold it: letters, digits, hyphens
    /// and underscores, one trailing dot allowed, no escapes.
    pub fn from_text(text: &[u8]) -> Result<Name, NameError> {
        let mut name = Name::root();
        name.read_text(text)?;
        Ok(name)
    }

    /// As `from_text`, into this one: a list has millions of names, and each is
    /// needed only until it is in its zone. After an error it is some name or other.
    pub fn read_text(&mut self, text: &[u8]) -> Result<(), NameError> {
        let text = text.strip_suffix(b".").unwrap_or(text);
        // In wire format one octet more on either side: the first label's length, the root.
        if text.is_empty() || text.len() + 2 > MAX_NAME {
            return Err(fault(text));
        }
        self.labels = 0;
        let mut start = 0;
        for (at, &octet) in text.iter().enumerate() {
            let folded = FOLDED[octet as usize];
            // Where a dot was, its label's length comes in the end.
            self.octets[at + 1] = folded;
            if folded == 0 {
                if octet != b'.' || !self.close_label(start, at) {
                    return Err(fault(text));
                }
                start = at + 1;
            }
        }
        if !self.close_label(start, text.len()) {
            return Err(fault(text));
        }
        self.octets[text.len() + 1] = 0;
        self.length = text.len() as u8 + 2;
        Ok(())
    }

    /// Notes the label of the text's octets `start..end`; false if there can be none such.
    fn close_label(&mut self, start: usize, end: usize) -> bool {
        let length = end - start;
        // Cannot overflow: 127 labels of one octet fill 253 octets of text.
        self.octets[start] = length as u8;
        self.starts[self.labels as usize] = start as u8;
        self.labels += 1;
        (1..=MAX_LABEL).contains(&length)
    }

    pub fn root() -> Name {
        Name { octets: [0; MAX_NAME], length: 1, starts: [0; MAX_LABELS], labels: 0 }
    }

    /// This name with its root replaced by `parent`; `None` if that is too long.
    pub fn under(&self, parent: &Name) -> Option<Name> {
        self.replace(self.labels(), parent)
    }

    /// The first `kept` labels of this name, under `parent`.
    pub fn replace(&self, kept: usize, parent: &Name) -> Option<Name> {
        let own = &self.octets[..self.offset(kept)];
        let mut wire = [0; 2 * MAX_NAME];
        wire[..own.len()].copy_from_slice(own);
        wire[own.len()..own.len() + parent.suffix(0).len()].copy_from_slice(parent.suffix(0));
        Name::parse(&wire, 0).ok().map(|(name, _)| name)
    }

    /// Labels, the root not counted.
    pub fn labels(&self) -> usize {
        self.labels as usize
    }

    /// The name in wire format, without its `skip` leftmost labels.
    pub fn suffix(&self, skip: usize) -> &[u8] {
        &self.octets[self.offset(skip)..self.length as usize]
    }

    /// Where the suffix that leaves out `skip` labels begins in the name.
    pub fn offset(&self, skip: usize) -> usize {
        match self.starts[..self.labels()].get(skip) {
            Some(&start) => start as usize,
            None => self.length as usize - 1,
        }
    }

    fn label(&self, index: usize) -> &[u8] {
        &self.octets[self.offset(index)..self.offset(index + 1)]
    }
}

/// Case-insensitive for ASCII, by wire format.
impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.suffix(0) == other.suffix(0)
    }
}

/// Presentation format with every octet that could mislead a reader escaped
/// as `\DDD` (RFC 1035 5.1), and without the trailing dot.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.labels == 0 {
            return f.write_str(".");
        }
        for index in 0..self.labels() {
            if index > 0 {
                f.write_str(".")?;
            }
            for &octet in &self.label(index)[1..] {
                match octet {
                    octet if is_host_octet(octet) || octet == b'*' => write!(f, "{}", octet as char)?,
                    octet => write!(f, "\\{octet:03}")?,
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
            NameError::CutOff => f.write_str("the name is cut off"),
            NameError::NotALabel => f.write_str("not a plain label (compression pointer?)"),
            NameError::Empty => f.write_str("the name is empty"),
            NameError::EmptyLabel => f.write_str("empty label (two dots in a row, or a leading dot)"),
            NameError::LabelTooLong => f.write_str("a label is longer than 63 octets"),
            NameError::NameTooLong => f.write_str("the name is longer than 253 characters"),
            NameError::BadOctet(b'*') => {
                f.write_str("'*' is not part of a name; say `match: below` for the zone instead")
            }
            NameError::BadOctet(octet @ 0x20..=0x7e) => {
                write!(f, "'{}' is not allowed in a name: one name a line, nothing else", *octet as char)
            }
            NameError::BadOctet(octet) => {
                write!(f, "octet 0x{octet:02x} is not allowed in a name; is this a text file?")
            }
        }
    }
}

const fn is_host_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_'
}

/// Each octet that a name's text may hold in lower case; 0 for dots and all others.
const FOLDED: [u8; 256] = {
    let mut folded = [0; 256];
    let mut octet = 0;
    while octet < 256 {
        if is_host_octet(octet as u8) {
            folded[octet] = (octet as u8).to_ascii_lowercase();
        }
        octet += 1;
    }
    folded
};

/// Why a text without its trailing dot is no name: what says most about it first.
#[cold]
fn fault(text: &[u8]) -> NameError {
    let labels = || text.split(|&octet| octet == b'.');
    if text.is_empty() {
        return NameError::Empty;
    }
    if let Some(&bad) = text.iter().find(|&&octet| octet != b'.' && !is_host_octet(octet)) {
        return NameError::BadOctet(bad);
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

/// A hash of every suffix of a name, computed in one pass from the root, so
/// that any number of policy zones can be asked without hashing again.
pub struct Walk {
    hashes: [u64; MAX_LABELS],
    text: Text,
}

impl Walk {
    /// Hashes each suffix with the one above it as seed. `seed` is drawn once
    /// a process: who chooses names cannot choose where they collide.
    pub fn new(name: &Name, seed: u64) -> Walk {
        let mut walk = Walk { hashes: [0; MAX_LABELS], text: Text::default() };
        walk.take(name, seed);
        walk
    }

    /// As `new`, in the place of another name's.
    pub fn take(&mut self, name: &Name, seed: u64) {
        let mut hash = seed;
        for skip in (0..name.labels()).rev() {
            hash = xxh3_64_with_seed(name.label(skip), hash);
            self.hashes[skip] = hash;
        }
        self.text.take_wire(name.suffix(0), name.labels());
    }

    /// The hash of the suffix that leaves out `skip` labels.
    pub fn hash(&self, skip: usize) -> u64 {
        self.hashes[skip]
    }

    /// The name in text. The suffix that leaves out `skip` labels begins in it where it
    /// does in the name (`Name::offset`).
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
    fn text_and_wire_give_the_same_name() {
        let (parsed, end) = Name::parse(b"\x03WeB\x08Telegram\x03org\x00tail", 0).unwrap();
        assert_eq!(parsed, name("web.telegram.org."));
        assert_eq!(end, 18);
        assert_eq!(parsed.to_string(), "web.telegram.org");
        assert_eq!(parsed.suffix(1), b"\x08telegram\x03org\x00");
        assert_eq!(parsed.suffix(3), b"\x00");
    }

    /// RFC 1035 2.3.4: 255 octets with the root, 63 a label.
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
    fn what_is_not_a_name_is_refused_by_reason() {
        let cases: [(&[u8], NameError); 8] = [
            (b"", NameError::Empty),
            (b".", NameError::Empty),
            (b"a..b", NameError::EmptyLabel),
            (b".a", NameError::EmptyLabel),
            (b"a b", NameError::BadOctet(b' ')),
            (b"http://x", NameError::BadOctet(b':')),
            (b"a\x00b", NameError::BadOctet(0)),
            (b"*.x", NameError::BadOctet(b'*')),
        ];
        for (text, error) in cases {
            assert_eq!(Name::from_text(text), Err(error), "{text:?}");
        }
        for wire in [&b"\x03ab"[..], b"\x01a", b"", b"\x03abc"] {
            assert_eq!(Name::parse(wire, 0), Err(NameError::CutOff), "{wire:?}");
        }
        for wire in [&b"\xc0\x0c"[..], b"\x40a\x00", b"\x01a\xc0\x00"] {
            assert_eq!(Name::parse(wire, 0), Err(NameError::NotALabel), "{wire:?}");
        }
    }

    /// RFC 2181 11: a dot inside a label is an octet like any other.
    #[test]
    fn a_label_that_holds_a_dot_is_not_two_labels() {
        let (tricky, _) = Name::parse(b"\x04t.me\x00", 0).unwrap();
        assert_ne!(tricky, name("t.me"));
        assert_eq!(tricky.to_string(), "t\\046me");
        assert_ne!(Walk::new(&tricky, 7).hash(0), Walk::new(&name("t.me"), 7).hash(0));
    }

    #[test]
    fn a_name_is_put_under_another_within_the_limits() {
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
