//! Rejects entries that no list may have: public suffixes, and names that the operator protects. A
//! truncated line can turn a domain into a whole country (`example.id` → `id`).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::Reason;
use crate::name::{Name, Walk};
use crate::policy::Match;
use crate::policy::names::SEED;

// Flags of a name.
const SUFFIX: u8 = 1;
/// All names directly below it are suffixes.
const PARENT: u8 = 1 << 1;
/// Not a suffix, although it is below such a parent.
const NO_SUFFIX: u8 = 1 << 2;
const PROTECTED: u8 = 1 << 3;
/// A protected name is below it.
const ABOVE: u8 = 1 << 4;

/// Bits of the filter that excludes most names without a lookup in the table.
const FILTER_BITS: usize = 1 << 17;

pub struct NameGuard {
    filter: Vec<u64>,
    flags: HashMap<u64, u8, BuildHasherDefault<Identity>>,
}

/// The keys are hashes already. The author of a list cannot choose the names in the table.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, _: &[u8]) {
        unreachable!("a hash is written as a number");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl NameGuard {
    /// Of the public suffix list: `suffixes`, `parents` (`*.` rules) and `exceptions` (`!` rules).
    pub fn new(suffixes: &[Name], parents: &[Name], exceptions: &[Name], protected: &[Name]) -> NameGuard {
        let mut guard = NameGuard { filter: vec![0; FILTER_BITS / 64], flags: HashMap::default() };
        for (names, flag) in
            [(suffixes, SUFFIX), (parents, PARENT), (exceptions, NO_SUFFIX), (protected, PROTECTED)]
        {
            names.iter().for_each(|name| guard.add(Walk::new(name, SEED).hash(0), flag));
        }
        for name in protected {
            let walk = Walk::new(name, SEED);
            (1..name.labels()).for_each(|skip| guard.add(walk.hash(skip), ABOVE));
        }
        guard
    }

    fn add(&mut self, hash: u64, flag: u8) {
        *self.flags.entry(hash).or_default() |= flag;
        let bit = hash as usize % FILTER_BITS;
        self.filter[bit / 64] |= 1 << (bit % 64);
    }

    /// Whether any name is protected.
    pub fn protects_any(&self) -> bool {
        self.flags.values().any(|flags| flags & PROTECTED != 0)
    }

    fn flags(&self, walk: &Walk, skip: usize) -> u8 {
        let hash = walk.hash(skip);
        let bit = hash as usize % FILTER_BITS;
        match self.filter[bit / 64] >> (bit % 64) & 1 {
            0 => 0,
            _ => self.flags.get(&hash).copied().unwrap_or(0),
        }
    }

    /// Why an entry for this name is rejected, if it is. An exception does not harm a protected
    /// name; an exception for a public suffix is a mistake as well.
    pub fn reason(&self, name: &Name, walk: &Walk, scope: Match, is_exception: bool) -> Option<Reason> {
        let own = self.flags(walk, 0);
        let is_child = name.labels() > 1 && self.flags(walk, 1) & PARENT != 0 && own & NO_SUFFIX == 0;
        if own & SUFFIX != 0 || is_child {
            return Some(Reason::PublicSuffix.of_exception_if(is_exception));
        }
        if is_exception {
            return None;
        }
        let covers = own & ABOVE != 0 && scope != Match::Exact;
        let is_within = (0..name.labels()).any(|skip| self.flags(walk, skip) & PROTECTED != 0);
        (covers || is_within).then_some(Reason::Protected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<Name> {
        text.split_whitespace().map(|text| Name::from_text(text.as_bytes()).unwrap()).collect()
    }

    #[test]
    fn public_suffixes_and_protected_names_are_rejected_and_no_others() {
        let guard =
            NameGuard::new(&names("id co.id uk ck"), &names("ck"), &names("www.ck"), &names("ns.isp.co.id"));
        let reason = |text: &str, scope| {
            let name = names(text).remove(0);
            guard.reason(&name, &Walk::new(&name, SEED), scope, false)
        };
        let exception = |text: &str| {
            let name = names(text).remove(0);
            guard.reason(&name, &Walk::new(&name, SEED), Match::Below, true).map(Reason::code)
        };
        assert_eq!([exception("co.id"), exception("isp.co.id")], [Some("lost_exception"), None]);
        for (text, scope, expected) in [
            ("co.id", Match::Exact, Some(Reason::PublicSuffix)),
            ("co.id", Match::Below, Some(Reason::PublicSuffix)),
            ("any.ck", Match::Subtree, Some(Reason::PublicSuffix)),
            ("www.ck", Match::Subtree, None),
            ("a.any.ck", Match::Subtree, None),
            ("shop.co.id", Match::Subtree, None),
            ("ns.isp.co.id", Match::Exact, Some(Reason::Protected)),
            ("x.ns.isp.co.id", Match::Exact, Some(Reason::Protected)),
            ("isp.co.id", Match::Subtree, Some(Reason::Protected)),
            ("isp.co.id", Match::Below, Some(Reason::Protected)),
            ("isp.co.id", Match::Exact, None),
            ("www.isp.co.id", Match::Subtree, None),
        ] {
            assert_eq!(reason(text, scope), expected, "{text} {}", scope.name());
        }
    }
}
