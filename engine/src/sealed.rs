//! The hashes of the ledger's lines, which Python reads, and of its tree. `dnsblock/orders/records.py`
//! describes the format.

use memchr::{memchr_iter, memmem};
use sha2::{Digest, Sha256};

/// The text before the digest at the end of a line, and after it.
const BEFORE: &[u8] = b",\"digest\":\"";
const AFTER: &[u8] = b"\"}";
const HEX: usize = 64;
/// The prefix of a leaf in a Merkle tree (RFC 6962, section 2.1).
const LEAF: &[u8] = b"\0";
/// The same of a hash above two others.
const PARENT: &[u8] = b"\x01";

/// A complete line, without its line end.
pub struct Line<'a> {
    pub data: &'a [u8],
    pub hash: [u8; 32],
    pub leaf: [u8; 32],
    /// Whether it is one object, and its digest is that of its content.
    pub is_sealed: bool,
}

/// The lines that end in these bytes.
pub fn lines(data: &[u8]) -> Vec<Line<'_>> {
    let mut begin = 0;
    let ends = memchr_iter(b'\n', data);
    ends.map(|end| {
        let line = &data[begin..end];
        begin = end + 1;
        Line::new(line)
    })
    .collect()
}

impl Line<'_> {
    fn new(data: &[u8]) -> Line<'_> {
        let leaf = Sha256::new_with_prefix(LEAF).chain_update(data).finalize().into();
        let Some((content, digest)) = split(data) else {
            return Line { data, hash: Sha256::digest(data).into(), leaf, is_sealed: false };
        };
        // Both hashes begin with the content, which is hashed once.
        let begun = Sha256::new_with_prefix(content);
        let expected: [u8; 32] = begun.clone().chain_update(b"}").finalize().into();
        let hash = begun.chain_update(&data[content.len()..]).finalize().into();
        let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
        let is_sealed = digest.chunks_exact(2).eq(expected.map(|byte| [digit(byte >> 4), digit(byte & 15)]));
        Line { data, hash, leaf, is_sealed }
    }
}

/// The parents of these hashes in a Merkle tree (RFC 6962, section 2.1). A last hash without a
/// neighbour has no parent.
pub fn tree_parents(hashes: &[u8]) -> Vec<u8> {
    let parent = |pair| Sha256::new_with_prefix(PARENT).chain_update(pair).finalize();
    hashes.chunks_exact(64).flat_map(parent).collect()
}

/// The content of a line, and its digest. `None` if it does not look like one object with a digest.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (content, end) = line.split_at_checked(line.len().checked_sub(BEFORE.len() + HEX + AFTER.len())?)?;
    let digest = end.strip_prefix(BEFORE)?.strip_suffix(AFTER)?;
    // Otherwise perhaps two records on one line. Python looks at these lines closely.
    let is_one = content.starts_with(b"{") && memmem::find(content, BEFORE).is_none();
    is_one.then_some((content, digest))
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
        assert_eq!(found.iter().map(|line| line.data).collect::<Vec<_>>(), [&b"abc"[..], b""]);
        let hash: [u8; 32] = Sha256::digest(b"abc").into();
        let leaf: [u8; 32] = Sha256::digest(b"\0abc").into();
        assert_eq!((found[0].hash, found[0].leaf), (hash, leaf));
        assert!(!found[0].is_sealed && !found[1].is_sealed);
    }

    #[test]
    fn the_hash_of_a_sealed_line_is_that_of_all_its_bytes() {
        let line = format!("{GOOD}\n");
        let found = &lines(line.as_bytes())[0];
        let hash: [u8; 32] = Sha256::digest(GOOD).into();
        assert!(found.is_sealed && found.hash == hash);
    }

    fn is_sealed(line: &[u8]) -> bool {
        Line::new(line).is_sealed
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
