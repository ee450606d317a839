//! The rules of a zone. A zone of orders has one for each order, so they are shared between a zone
//! and the one that follows it.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Rule;

/// A rule, and the digest of everything that a client can notice of it.
#[derive(Clone)]
pub struct CanonicalRule(Arc<(Rule, [u8; 16])>);

impl From<Rule> for CanonicalRule {
    fn from(rule: Rule) -> CanonicalRule {
        let whole: [u8; 32] = Sha256::digest(rule.canonical()).into();
        let digest = whole.first_chunk().copied().expect("16 of 32 bytes");
        CanonicalRule(Arc::new((rule, digest)))
    }
}

impl CanonicalRule {
    pub fn digest(&self) -> &[u8; 16] {
        &self.0.1
    }
}

impl Deref for CanonicalRule {
    type Target = Rule;

    fn deref(&self) -> &Rule {
        &self.0.0
    }
}

/// Rules in the sequence in which they were given. Equal ones have one place. Rules are added, never
/// removed: the indexes in a compiled zone stay valid.
#[derive(Clone, Default)]
pub struct RuleTable {
    rules: Vec<CanonicalRule>,
    /// The place of each given rule.
    places: Vec<u32>,
}

impl<T: Into<CanonicalRule>> From<Vec<T>> for RuleTable {
    /// Each rule has its own place.
    fn from(rules: Vec<T>) -> RuleTable {
        let rules: Vec<CanonicalRule> = rules.into_iter().map(Into::into).collect();
        RuleTable { places: (0..rules.len() as u32).collect(), rules }
    }
}

impl RuleTable {
    /// Adds a rule with a place of its own, and returns it.
    pub fn push(&mut self, rule: CanonicalRule) -> u32 {
        let place = self.rules.len() as u32;
        self.rules.push(rule);
        self.places.push(place);
        place
    }

    /// With more rules, whose indexes follow those of the rules given before.
    pub fn with(&self, more: Vec<impl Into<CanonicalRule>>) -> RuleTable {
        let mut table = self.clone();
        if more.is_empty() {
            return table;
        }
        let places = self.rules.iter().zip(0..).map(|(rule, place)| (*rule.digest(), place));
        let mut known: HashMap<[u8; 16], u32> = places.collect();
        for rule in more.into_iter().map(Into::into) {
            let rule: CanonicalRule = rule;
            let place = *known.entry(*rule.digest()).or_insert(table.rules.len() as u32);
            if place as usize == table.rules.len() {
                table.rules.push(rule);
            }
            table.places.push(place);
        }
        table
    }

    /// The rules by their place.
    pub fn all(&self) -> &[CanonicalRule] {
        &self.rules
    }

    /// The place of the rule with this index among all that were given.
    pub fn place(&self, index: u32) -> Option<u32> {
        self.places.get(index as usize).copied()
    }

    /// The number of rules that were given.
    pub fn given(&self) -> usize {
        self.places.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rules_have_one_place_whenever_they_are_given() {
        let table = RuleTable::default().with(vec![Rule::passthru(), Rule::Exemption, Rule::passthru()]);
        assert_eq!((table.all().len(), table.given()), (2, 3));
        let more = table.with(vec![Rule::Exemption, Rule::passthru()]);
        assert_eq!((more.all().len(), more.given()), (2, 5));
        assert_eq!(
            [0, 1, 2, 3, 4, 5].map(|index| more.place(index)),
            [Some(0), Some(1), Some(0), Some(1), Some(0), None]
        );
    }
}
