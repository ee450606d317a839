//! Names that a list never means, whoever wrote it: those below which a registry sells
//! names, and those that the operator protects. A line cut off in the middle may name a
//! country; left out, it does no harm, and it is told.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::Reason;
use crate::name::{Name, Walk};
use crate::policy::Match;
use crate::policy::names::SEED;

/// What is known about a name: bits.
const SUFFIX: u8 = 1;
/// All names directly below are suffixes.
const PARENT: u8 = 1 << 1;
/// No suffix, although it is below such a parent.
const NO_SUFFIX: u8 = 1 << 2;
const PROTECTED: u8 = 1 << 3;
/// What is below it is protected in part.
const ABOVE: u8 = 1 << 4;

/// Bits of a small filter that tells of most names that they are not meant.
const FILTER: usize = 1 << 17;

pub struct NameGuard {
    filter: Vec<u64>,
    known: HashMap<u64, u8, BuildHasherDefault<Hashed>>,
}

/// What is looked up is a hash already, and what is known is nobody's choice who writes a list.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
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
    /// Names that are public suffixes, names whose children all are (`*.` in the public
    /// suffix list), names that are none all the same (`!`), and protected names.
    pub fn new(suffixes: &[Name], parents: &[Name], exceptions: &[Name], protected: &[Name]) -> NameGuard {
        let mut guard = NameGuard { filter: vec![0; FILTER / 64], known: HashMap::default() };
        for (names, bit) in
            [(suffixes, SUFFIX), (parents, PARENT), (exceptions, NO_SUFFIX), (protected, PROTECTED)]
        {
            names.iter().for_each(|name| guard.note(Walk::new(name, SEED).hash(0), bit));
        }
        for name in protected {
            let walk = Walk::new(name, SEED);
            (1..name.labels()).for_each(|skip| guard.note(walk.hash(skip), ABOVE));
        }
        guard
    }

    fn note(&mut self, hash: u64, bit: u8) {
        *self.known.entry(hash).or_default() |= bit;
        let place = hash as usize % FILTER;
        self.filter[place / 64] |= 1 << (place % 64);
    }

    fn known(&self, walk: &Walk, skip: usize) -> u8 {
        let hash = walk.hash(skip);
        let place = hash as usize % FILTER;
        match self.filter[place / 64] >> (place % 64) & 1 {
            0 => 0,
            _ => self.known.get(&hash).copied().unwrap_or(0),
        }
    }

    /// Why an entry about this name is left out, if it is. An exception does a protected name
    /// no harm; one for all names that a registry sells is a slip, too.
    pub fn reason(&self, name: &Name, walk: &Walk, scope: Match, is_exception: bool) -> Option<Reason> {
        let own = self.known(walk, 0);
        let is_child = name.labels() > 1 && self.known(walk, 1) & PARENT != 0 && own & NO_SUFFIX == 0;
        if own & SUFFIX != 0 || is_child {
            let reason = Reason::PublicSuffix;
            return Some(if is_exception { reason.of_exception() } else { reason });
        }
        if is_exception {
            return None;
        }
        let covers = own & ABOVE != 0 && scope != Match::Exact;
        let is_within = (0..name.labels()).any(|skip| self.known(walk, skip) & PROTECTED != 0);
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
    fn suffixes_and_protected_names_are_left_out_and_nothing_else() {
        let guard =
            NameGuard::new(&names("id co.id uk ck"), &names("ck"), &names("www.ck"), &names("ns.isp.co.id"));
        let reason = |text: &str, scope| {
            let name = names(text).remove(0);
            guard.reason(&name, &Walk::new(&name, SEED), scope, false)
        };
        let excepted = |text: &str| {
            let name = names(text).remove(0);
            guard.reason(&name, &Walk::new(&name, SEED), Match::Below, true).map(Reason::code)
        };
        assert_eq!([excepted("co.id"), excepted("isp.co.id")], [Some("lost_exception"), None]);
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
