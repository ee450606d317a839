//! The hashes of the ledger's lines, which Python reads. `dnsblock/orders/records.py` describes the
//! format.

use memchr::memmem;
use sha2::{Digest, Sha256};

/// The text before the digest at the end of a line, and after it.
const BEFORE: &[u8] = b",\"digest\":\"";
const AFTER: &[u8] = b"\"}";
const HEX: usize = 64;
/// The prefix of a leaf in a Merkle tree (RFC 6962, section 2.1).
const LEAF: &[u8] = b"\0";

/// A complete line, without its line end.
pub struct Line {
    /// The position of its line end.
    pub end: usize,
    pub hash: [u8; 32],
    pub leaf: [u8; 32],
    /// Whether it is one object, and its digest is that of its content.
    pub is_sealed: bool,
}

/// The lines that end in these bytes.
pub fn lines(data: &[u8]) -> Vec<Line> {
    let mut begin = 0;
    let ends = data.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    ends.map(|(end, _)| {
        let line = &data[begin..end];
        begin = end + 1;
        let leaf = Sha256::new_with_prefix(LEAF).chain_update(line).finalize().into();
        Line { end, hash: Sha256::digest(line).into(), leaf, is_sealed: is_sealed(line) }
    })
    .collect()
}

fn is_sealed(line: &[u8]) -> bool {
    let sealed = line
        .len()
        .checked_sub(BEFORE.len() + HEX + AFTER.len())
        .map(|length| line.split_at(length))
        .and_then(|(content, end)| Some((content, end.strip_prefix(BEFORE)?.strip_suffix(AFTER)?)));
    let Some((content, digest)) = sealed else { return false };
    if !content.starts_with(b"{") || memmem::find(content, BEFORE).is_some() {
        return false; // Perhaps two records on one line. Python looks at these lines closely.
    }
    let expected: [u8; 32] = Sha256::new_with_prefix(content).chain_update(b"}").finalize().into();
    let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
    digest.chunks_exact(2).eq(expected.map(|byte| [digit(byte >> 4), digit(byte & 15)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The digest is `printf '{"n":1}' | sha256sum`.
    const GOOD: &str =
        r#"{"n":1,"digest":"2bfd14f43d17fc7cea24e0917a8879b4b2f880b8baeec1b9d90fbaad655e71bd"}"#;

    #[test]
    fn each_complete_line_has_its_hashes() {
        let found = lines(b"abc\n\nrest");
        assert_eq!(found.iter().map(|line| line.end).collect::<Vec<_>>(), [3, 4]);
        let hash: [u8; 32] = Sha256::digest(b"abc").into();
        let leaf: [u8; 32] = Sha256::digest(b"\0abc").into();
        assert_eq!((found[0].hash, found[0].leaf), (hash, leaf));
        assert!(!found[0].is_sealed && !found[1].is_sealed);
    }

    #[test]
    fn one_line_has_one_digest() {
        assert!(!is_sealed(format!("{GOOD}{GOOD}").as_bytes()));
        let nested = format!("{{\"x\":{}", &GOOD[..GOOD.len() - 1]);
        let digest: [u8; 32] = Sha256::digest(format!("{nested}}}")).into();
        let hex = digest.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        assert!(!is_sealed(format!("{nested},\"digest\":\"{hex}\"}}").as_bytes()));
    }

    #[test]
    fn a_line_is_sealed_until_a_byte_of_it_changes() {
        assert!(is_sealed(GOOD.as_bytes()));
        for place in 0..GOOD.len() {
            let mut changed = GOOD.as_bytes().to_vec();
            changed[place] ^= 1;
            assert!(!is_sealed(&changed), "{place}");
            assert!(!is_sealed(&GOOD.as_bytes()[..place]), "{place}");
        }
    }
}
