//! The public suffix list: which part of a name is the registered domain. `upstream/shares.rs`
//! limits outstanding queries by it.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use crate::cache::IdentityHasher;
use crate::name::{Name, Walk};
use crate::policy::names::SEED;

/// Flags for a name.
const SUFFIX: u8 = 1;
/// All names directly below it are suffixes.
const PARENT: u8 = 1 << 1;
/// It is not a suffix, although its parent has the flag above.
const EXCEPTION: u8 = 1 << 2;

/// By hash of the name; 16 bytes per entry.
#[derive(Debug, Default)]
pub struct Suffixes(HashMap<u64, u8, BuildHasherDefault<IdentityHasher>>);

impl Suffixes {
    /// Public suffixes, names whose children are all suffixes (`*.` in the list), and exceptions
    /// among these children (`!`).
    pub fn new(suffixes: &[Name], parents: &[Name], exceptions: &[Name]) -> Suffixes {
        let mut known = Suffixes::default();
        for (names, bit) in [(suffixes, SUFFIX), (parents, PARENT), (exceptions, EXCEPTION)] {
            for name in names {
                *known.0.entry(Walk::new(name, SEED).hash(0)).or_default() |= bit;
            }
        }
        known
    }

    /// The registered domain of a name in wire format: the longest public suffix and one more
    /// label, if any. If no suffix matches, the top-level domain is the suffix.
    pub fn domain<'n>(&self, name: &'n Name) -> &'n [u8] {
        let walk = Walk::new(name, SEED);
        let known = |skip: usize| self.0.get(&walk.hash(skip)).copied().unwrap_or(0);
        let is_suffix = |skip: usize| {
            let own = known(skip);
            own & SUFFIX != 0
                || own & EXCEPTION == 0 && skip + 1 < name.labels() && known(skip + 1) & PARENT != 0
        };
        let suffix = (0..name.labels()).find(|&skip| is_suffix(skip));
        let suffix = suffix.unwrap_or(name.labels().saturating_sub(1));
        name.suffix(suffix.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<Name> {
        text.split_whitespace().map(|text| Name::from_text(text.as_bytes()).unwrap()).collect()
    }

    #[test]
    fn a_domain_is_the_longest_suffix_and_one_label() {
        let suffixes = Suffixes::new(&names("id co.id com ck"), &names("ck"), &names("www.ck"));
        for (name, domain) in [
            ("a.b.shop.co.id", "shop.co.id"),
            ("shop.co.id", "shop.co.id"),
            ("co.id", "co.id"),
            ("b.example.com", "example.com"),
            ("a.b.any.ck", "b.any.ck"),
            ("a.www.ck", "www.ck"),
            ("a.b.unlisted", "b.unlisted"),
            ("unlisted", "unlisted"),
        ] {
            let (name, domain) = (names(name).remove(0), names(domain).remove(0));
            assert_eq!(suffixes.domain(&name), domain.suffix(0), "{name}");
        }
        assert_eq!(suffixes.domain(&Name::root()), [0]);
    }
}
