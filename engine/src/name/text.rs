//! Names as lists write them: in lower case, with dots between labels and none at the end. Names
//! that no list can hold are only approximated: see `take_wire`.

/// The length of the longest name as text (RFC 1035 2.3.4).
pub const MAX_TEXT: usize = 253;
/// Bytes that can be read after the end.
const PADDING: usize = 8;
/// Replaces a dot within a label.
const ESCAPED_DOT: u8 = 0xff;

/// A name as text, followed by zeros, so that a word can be read at each offset.
#[derive(Clone)]
pub struct Text {
    bytes: [u8; MAX_TEXT + PADDING],
    length: u8,
}

impl Default for Text {
    fn default() -> Text {
        Text { bytes: [0; MAX_TEXT + PADDING], length: 0 }
    }
}

impl Text {
    /// Replaces the name by one in wire format with this number of labels. A dot within a label (RFC 2181 11)
    /// becomes a byte that no list holds, so that the label is not confused with two.
    pub fn take_wire(&mut self, wire: &[u8], labels: usize) {
        let length = wire.len().saturating_sub(2);
        self.take(wire.get(1..=length).unwrap_or_default());
        let dots = self.as_bytes().iter().filter(|&&byte| byte == b'.').count();
        let mut at = usize::from(wire.first().copied().unwrap_or(0));
        while at < length {
            let label = std::mem::replace(&mut self.bytes[at], b'.');
            at += usize::from(label) + 1;
        }
        // The length of a label of 46 bytes looks like a dot as well.
        if dots > 0 && self.as_bytes().iter().filter(|&&byte| byte == b'.').count() >= labels {
            self.escape_dots(wire);
        }
    }

    fn escape_dots(&mut self, wire: &[u8]) {
        let mut start = 0;
        while let Some(&label) = wire.get(start).filter(|&&label| label != 0) {
            let end = (start + usize::from(label)).min(self.length());
            for byte in &mut self.bytes[start..end] {
                *byte = if *byte == b'.' { ESCAPED_DOT } else { *byte };
            }
            start += usize::from(label) + 1;
        }
    }

    /// Replaces the name by one of at most `MAX_TEXT` bytes.
    pub fn take(&mut self, text: &[u8]) {
        self.length = text.len() as u8;
        self.bytes[..text.len()].copy_from_slice(text);
        self.pad();
    }

    /// False, without a change, if the name would be too long.
    pub fn append(&mut self, text: &[u8]) -> bool {
        let (start, next) = (self.length(), self.length() + text.len());
        if next > MAX_TEXT {
            return false;
        }
        self.bytes[start..next].copy_from_slice(text);
        self.length = next as u8;
        self.pad();
        true
    }

    fn pad(&mut self) {
        let end = self.length();
        self.bytes[end..end + PADDING].fill(0);
    }

    pub fn length(&self) -> usize {
        self.length.into()
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length()]
    }

    /// Eight bytes in little-endian order. `at` is at most the length.
    pub fn word(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + PADDING].try_into().expect("eight bytes"))
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
    fn labels_are_separated_by_dots() {
        assert_eq!(text_of(b"\x01t\x02me\x00", 2), b"t.me");
        assert_eq!(text_of(b"\x02id\x00", 1), b"id");
        assert_eq!(text_of(b"\x00", 0), b"");
    }

    /// RFC 2181 11: labels are binary.
    #[test]
    fn a_label_with_a_dot_is_not_two_labels() {
        assert_eq!(text_of(b"\x04t.me\x00", 1), b"t\xffme");
        assert_eq!(text_of(b"\x01.\x01a\x03b.c\x02id\x00", 4), b"\xff.a.b\xffc.id");
        let label = [&[46][..], &[b'x'; 45], b"."].concat();
        assert_eq!(text_of(&[&label[..], b"\x02me\x00"].concat(), 2)[45..], *b"\xff.me");
    }
}
