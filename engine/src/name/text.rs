//! Names in text, lower case, labels separated by dots, without one at the end: as lists
//! write them. Only for names that a list can hold; what clients ask may be anything.

/// Octets of the longest name in text (RFC 1035 2.3.4).
pub const MAX_TEXT: usize = 253;
/// Octets that can be read behind the end.
const ROOM: usize = 8;
/// In the place of a dot that separates nothing.
const HIDDEN: u8 = 0xff;

/// A name in text. Behind its end are zeros, so that a word can be read at each place.
#[derive(Clone)]
pub struct Text {
    octets: [u8; MAX_TEXT + ROOM],
    length: u8,
}

impl Default for Text {
    fn default() -> Text {
        Text { octets: [0; MAX_TEXT + ROOM], length: 0 }
    }
}

impl Text {
    /// Takes a name in wire format that has so many labels. A dot within a label becomes
    /// what no list holds: the label is one (RFC 2181 11), and must not be taken for two.
    pub fn take_wire(&mut self, wire: &[u8], labels: usize) {
        let length = wire.len().saturating_sub(2);
        self.take(wire.get(1..=length).unwrap_or_default());
        let dots = self.as_bytes().iter().filter(|&&octet| octet == b'.').count();
        let mut at = usize::from(wire.first().copied().unwrap_or(0));
        while at < length {
            let label = std::mem::replace(&mut self.octets[at], b'.');
            at += usize::from(label) + 1;
        }
        // A length octet looks like a dot, too, in a label of 46.
        if dots > 0 && self.as_bytes().iter().filter(|&&octet| octet == b'.').count() >= labels {
            self.hide_dots_within(wire);
        }
    }

    fn hide_dots_within(&mut self, wire: &[u8]) {
        let mut start = 0;
        while let Some(&label) = wire.get(start).filter(|&&label| label != 0) {
            let end = (start + usize::from(label)).min(self.length());
            for octet in &mut self.octets[start..end] {
                *octet = if *octet == b'.' { HIDDEN } else { *octet };
            }
            start += usize::from(label) + 1;
        }
    }

    /// Takes a name of at most `MAX_TEXT` octets.
    pub fn take(&mut self, text: &[u8]) {
        self.length = text.len() as u8;
        self.octets[..text.len()].copy_from_slice(text);
        self.end();
    }

    /// False, and nothing done, where that is too long.
    pub fn append(&mut self, text: &[u8]) -> bool {
        let (start, next) = (self.length(), self.length() + text.len());
        if next > MAX_TEXT {
            return false;
        }
        self.octets[start..next].copy_from_slice(text);
        self.length = next as u8;
        self.end();
        true
    }

    fn end(&mut self) {
        let end = self.length();
        self.octets[end..end + ROOM].fill(0);
    }

    pub fn length(&self) -> usize {
        self.length.into()
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.octets[..self.length()]
    }

    /// Eight octets from here on, the first one lowest. `at` is at most the length.
    pub fn word(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.octets[at..at + ROOM].try_into().expect("eight octets"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(wire: &[u8], labels: usize) -> Vec<u8> {
        let mut text = Text::default();
        text.take(&[b'x'; MAX_TEXT]);
        text.take_wire(wire, labels);
        assert_eq!(text.word(text.length()), 0);
        text.as_bytes().to_vec()
    }

    #[test]
    fn the_wire_s_labels_are_separated_by_dots() {
        assert_eq!(text_of(b"\x01t\x02me\x00", 2), b"t.me");
        assert_eq!(text_of(b"\x02id\x00", 1), b"id");
        assert_eq!(text_of(b"\x00", 0), b"");
    }

    /// RFC 2181 11: a dot in a label is an octet like any other.
    #[test]
    fn a_label_with_a_dot_is_not_two_labels() {
        assert_eq!(text_of(b"\x04t.me\x00", 1), b"t\xffme");
        assert_eq!(text_of(b"\x01.\x01a\x03b.c\x02id\x00", 4), b"\xff.a.b\xffc.id");
        let label = [&[46][..], &[b'x'; 45], b"."].concat();
        assert_eq!(text_of(&[&label[..], b"\x02me\x00"].concat(), 2)[45..], *b"\xff.me");
    }
}
