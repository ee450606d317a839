//! The digest of a zone of orders.
//!
//! Its names are in 16,384 ranges of hashes, and each range has a digest of its own. So one more
//! order costs the ranges of its names, not a look at the millions of others. A rule enters by its
//! content, not by its index: it does not matter in which sequence the orders came.

use sha2::{Digest, Sha256};

use super::{CanonicalRule, Scope};

const BITS: u32 = 14;

/// The digests of the ranges that have names, in order.
#[derive(Clone, Default)]
pub struct Ranges(Vec<(u16, [u8; 32])>);

impl Ranges {
    /// The range of a name with this hash.
    pub fn of(hash: u64) -> u16 {
        (hash >> (64 - BITS)) as u16
    }

    /// The first and the last hash of a range.
    pub fn bounds(range: u16) -> (u64, u64) {
        let first = u64::from(range) << (64 - BITS);
        (first, first | (u64::MAX >> BITS))
    }

    /// Sets the digest of a range; `None`: it has no names.
    pub fn set(&mut self, range: u16, digest: Option<[u8; 32]>) {
        match (self.0.binary_search_by_key(&range, |one| one.0), digest) {
            (Ok(place), Some(digest)) => self.0[place].1 = digest,
            (Ok(place), None) => drop(self.0.remove(place)),
            (Err(place), Some(digest)) => self.0.insert(place, (range, digest)),
            (Err(_), None) => {}
        }
    }

    /// The digest of all names.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        for (range, digest) in &self.0 {
            hasher.update(range.to_le_bytes());
            hasher.update(digest);
        }
        hasher.finalize().into()
    }
}

/// The digest of the names of one range, in order. They are collected first: one call of the hash
/// function for all is faster.
#[derive(Default)]
pub struct RangeDigest {
    bytes: Vec<u8>,
    scope: Option<[u8; 34]>,
}

impl RangeDigest {
    pub fn add(&mut self, name: &[u8], scope: &Scope, rules: &[CanonicalRule]) {
        let scope = canonical(scope, |rule| rules[rule as usize].digest());
        if self.scope.replace(scope) != Some(scope) {
            self.bytes.push(0);
            self.bytes.extend(scope);
        }
        self.bytes.push(name.len() as u8);
        self.bytes.extend(name);
    }

    /// `None` without names.
    pub fn finish(self) -> Option<[u8; 32]> {
        self.scope.map(|_| Sha256::digest(&self.bytes).into())
    }
}

/// 17 bytes for the name and 17 for the names below: 0 or 1 + the index of the match, and the digest
/// of the rule.
pub fn canonical<'a>(scope: &Scope, digest: impl Fn(u32) -> &'a [u8; 16]) -> [u8; 34] {
    let mut bytes = [0; 34];
    for (side, own) in [scope.at, scope.under].iter().zip(bytes.chunks_mut(17)) {
        if let Some((scope, rule)) = side {
            own[0] = 1 + *scope as u8;
            own[1..].copy_from_slice(digest(*rule));
        }
    }
    bytes
}

/// Makes the digests of all ranges from names in order.
pub struct RangesMaker<'a> {
    rules: &'a [CanonicalRule],
    ranges: Ranges,
    current: Option<(u16, RangeDigest)>,
}

impl<'a> RangesMaker<'a> {
    pub fn new(rules: &'a [CanonicalRule]) -> RangesMaker<'a> {
        RangesMaker { rules, ranges: Ranges::default(), current: None }
    }

    pub fn add(&mut self, hash: u64, name: &[u8], scope: &Scope) {
        let range = Ranges::of(hash);
        if self.current.as_ref().is_none_or(|(current, _)| *current != range) {
            self.close();
            self.current = Some((range, RangeDigest::default()));
        }
        if let Some((_, digest)) = &mut self.current {
            digest.add(name, scope, self.rules);
        }
    }

    fn close(&mut self) {
        if let Some((range, digest)) = self.current.take() {
            self.ranges.set(range, digest.finish());
        }
    }

    pub fn finish(mut self) -> Ranges {
        self.close();
        self.ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Match, Rule};

    #[test]
    fn every_hash_is_within_the_bounds_of_its_range() {
        for hash in [0, 1, u64::MAX, u64::MAX >> BITS, (u64::MAX >> BITS) + 1, 0x2017_0714_0430_0000] {
            let (first, last) = Ranges::bounds(Ranges::of(hash));
            assert!(first <= hash && hash <= last);
            assert!(first == 0 || Ranges::of(first - 1) != Ranges::of(hash));
            assert!(last == u64::MAX || Ranges::of(last + 1) != Ranges::of(hash));
        }
    }

    #[test]
    fn a_rule_enters_by_its_content() {
        let (exemption, other) =
            (CanonicalRule::from(Rule::Exemption), CanonicalRule::from(Rule::passthru()));
        let digest = |rules: &[CanonicalRule], rule| {
            let side = Some((Match::Subtree, rule));
            let mut digest = RangeDigest::default();
            digest.add(b"a.example", &Scope { at: side, under: side }, rules);
            digest.finish()
        };
        let (one, two) = ([exemption.clone(), other.clone()], [other, exemption]);
        assert_eq!(digest(&one, 0), digest(&two, 1));
        assert_ne!(digest(&one, 0), digest(&one, 1));
        assert_eq!(RangeDigest::default().finish(), None);
    }
}
