//! Compares a new list with the previous one.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::given::GivenTable;
use super::names::Names;
use super::ranges::canonical;
use super::{Match, Scope};
use crate::name::Text;

/// Maximum number of bytes of `lines`: about a million changes. It limits the memory, and the time to
/// record the history.
const WRITTEN: usize = 32 << 20;

/// The difference between two lists.
#[derive(Debug, Default)]
pub struct Difference {
    /// Names that are listed now only, and before only.
    pub added: u64,
    pub removed: u64,
    /// Names with another scope.
    pub changed: u64,
    /// Names that cover less than before: removed, narrowed, or now an exception. An exception
    /// counts because an entry of a parent may have blocked the name.
    pub lost: u64,
    /// Names that cover more than before.
    pub gained: u64,
    /// Lines `+ SCOPE NAME` and `- SCOPE NAME`; both for a changed name. In a policy zone, lines
    /// `= NUMBER SCOPE ANSWER` are before the first use of `+ NUMBER NAME` and `- NUMBER NAME`.
    /// `None` if they exceed the limit.
    pub lines: Option<Vec<u8>>,
    /// Of a policy zone: the numbers of scopes with their answers.
    numbers: HashMap<String, usize>,
}

impl Difference {
    /// Counts the effect of another scope for the queries of clients.
    fn weigh(&mut self, before: &Scope, after: &Scope) {
        let sides = [(before.at, after.at), (before.under, after.under)];
        let is_new = |rule| sides.iter().any(|(old, new)| said(*old) != rule && said(*new) == rule);
        let is_gone = |rule| sides.iter().any(|(old, new)| said(*old) == rule && said(*new) != rule);
        self.lost += u64::from(is_gone(LISTED) || is_new(EXCEPTED));
        self.gained += u64::from(is_new(LISTED) || is_gone(EXCEPTED));
    }

    fn write(&mut self, sign: char, facts: &ScopeFacts, text: &Text) {
        let Some(lines) = &mut self.lines else { return };
        let mut word = facts.word();
        if facts.answer.is_some() {
            let next = self.numbers.len();
            let number = *self.numbers.entry(word.clone()).or_insert(next);
            if number == next {
                lines.extend_from_slice(format!("= {number} {word}\n").as_bytes());
            }
            word = number.to_string();
        }
        lines.extend_from_slice(format!("{sign} {word} ").as_bytes());
        lines.extend_from_slice(text.as_bytes());
        lines.push(b'\n');
        if lines.len() > WRITTEN {
            self.lines = None;
        }
    }
}

/// The first rule of a list blocks; the others are exceptions.
const LISTED: Option<bool> = Some(false);
const EXCEPTED: Option<bool> = Some(true);

fn said(side: Option<(Match, u32)>) -> Option<bool> {
    side.map(|(_, rule)| rule > 0)
}

/// The parts of a scope that are compared.
#[derive(Clone, Debug, PartialEq)]
pub struct ScopeFacts {
    pub scope: Scope,
    /// The same with the rules of a list: 0 for a block, 2 for a passthru.
    as_listed: Scope,
    /// Of a policy zone: the same for the same answers, whatever their numbers are.
    canonical: Option<[u8; 34]>,
    /// Of a policy zone: the answer in text. If the name and the names below it have different ones,
    /// both, with ` | ` between them.
    answer: Option<Arc<str>>,
}

impl ScopeFacts {
    pub fn of_list(scope: Scope) -> ScopeFacts {
        ScopeFacts { scope, as_listed: scope, canonical: None, answer: None }
    }

    pub fn of_zone(scope: Scope, given: &GivenTable) -> ScopeFacts {
        let rule = |rule: u32| if given.all()[rule as usize].is_passthru() { PASSTHRU } else { BLOCK };
        let listed = |side: Option<(Match, u32)>| side.map(|(scope, own)| (scope, rule(own)));
        let as_listed = Scope { at: listed(scope.at), under: listed(scope.under) };
        let canonical = canonical(&scope, |rule| &given.digests()[rule as usize]);
        let text = |(_, rule): (Match, u32)| given.all()[rule as usize].text();
        let answer = match (scope.at, scope.under) {
            (Some(at), Some(under)) if at.1 != under.1 => format!("{} | {}", text(at), text(under)),
            (at, under) => at.or(under).map(text).unwrap_or_default(),
        };
        ScopeFacts { scope, as_listed, canonical: Some(canonical), answer: Some(answer.into()) }
    }

    /// The bytes of the scope for a digest.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        match &self.canonical {
            Some(canonical) => Cow::Borrowed(canonical),
            None => Cow::Owned(self.scope.to_bytes().to_vec()),
        }
    }

    fn is_same(&self, other: &ScopeFacts) -> bool {
        match (&self.canonical, &other.canonical) {
            (Some(own), Some(others)) => own == others,
            _ => self.as_listed == other.as_listed,
        }
    }

    /// The scope in text. In a policy zone, the answer follows after a space.
    pub fn word(&self) -> String {
        let word = self.as_listed.word();
        match &self.answer {
            Some(answer) => format!("{word} {answer}"),
            None => word,
        }
    }
}

const BLOCK: u32 = 0;
const PASSTHRU: u32 = 2;

/// Takes the entries of the new list in turn.
pub struct Comparison {
    before: Arc<Names>,
    /// Of a policy zone: the facts of its scopes.
    facts: HashMap<Scope, ScopeFacts>,
    /// A bit for each rank of the previous list: whether the new list has the name.
    kept: Vec<u64>,
    difference: Difference,
}

impl Comparison {
    pub fn with(before: Arc<Names>) -> Comparison {
        let kept = vec![0; before.entries().div_ceil(64)];
        let difference = Difference { lines: Some(Vec::new()), ..Difference::default() };
        let facts = before.zone().map(|zone| {
            let facts = |scope: &Scope| (*scope, ScopeFacts::of_zone(*scope, &zone.given));
            before.scopes().iter().map(facts).collect()
        });
        Comparison { before, facts: facts.unwrap_or_default(), kept, difference }
    }

    pub fn take(&mut self, hash: u64, text: &Text, facts: &ScopeFacts) {
        let Some((said, rank)) = self.before.find(hash, text, 0) else {
            self.difference.added += 1;
            self.difference.weigh(&Scope::default(), &facts.as_listed);
            self.difference.write('+', facts, text);
            return;
        };
        let (said, rank) = (facts_of(&self.facts, said), rank as usize);
        if let Some(word) = self.kept.get_mut(rank / 64) {
            *word |= 1 << (rank % 64);
        }
        if !said.is_same(facts) {
            self.difference.changed += 1;
            self.difference.weigh(&said.as_listed, &facts.as_listed);
            self.difference.write('-', &said, text);
            self.difference.write('+', facts, text);
        }
    }

    pub fn finish(mut self) -> Difference {
        let kept: u64 = self.kept.iter().map(|word| u64::from(word.count_ones())).sum();
        self.difference.removed = self.before.entries() as u64 - kept;
        if self.difference.removed > 0 {
            let (before, kept) = (Arc::clone(&self.before), std::mem::take(&mut self.kept));
            let facts = std::mem::take(&mut self.facts);
            let is_written = self.difference.lines.is_some();
            let mut weighed = Difference::default();
            let is_gone = |rank: u64, scope: &Scope| {
                let is_gone = kept[rank as usize / 64] & 1 << (rank % 64) == 0;
                if is_gone {
                    weighed.weigh(&facts_of(&facts, scope).as_listed, &Scope::default());
                }
                is_gone && is_written // names are only needed for the lines
            };
            let difference = &mut self.difference;
            before.each(is_gone, |_, text, scope| difference.write('-', &facts_of(&facts, scope), text));
            self.difference.lost += weighed.lost;
            self.difference.gained += weighed.gained;
        }
        self.difference
    }
}

fn facts_of<'a>(facts: &'a HashMap<Scope, ScopeFacts>, scope: &Scope) -> Cow<'a, ScopeFacts> {
    facts.get(scope).map_or_else(|| Cow::Owned(ScopeFacts::of_list(*scope)), Cow::Borrowed)
}

impl Scope {
    /// The scope in text: `exact`, `below` or `subtree`. An exemption has the prefix `except-`, a
    /// passthru `pass-`. Two scopes are joined by a comma if the name and the names below differ.
    /// The first rule of a list blocks, the second is its exemption, the third its passthru.
    pub fn word(&self) -> String {
        let word = |rule: u32, scope: Match| {
            let except = ["", "except-", "pass-"].get(rule as usize).unwrap_or(&"");
            format!("{except}{}", scope.name())
        };
        match (self.at, self.under) {
            (Some((_, at)), Some((_, under))) if at == under => word(at, Match::Subtree),
            (Some((_, at)), Some((_, under))) => {
                format!("{},{}", word(at, Match::Exact), word(under, Match::Below))
            }
            (Some((_, at)), None) => word(at, Match::Exact),
            (None, Some((_, under))) => word(under, Match::Below),
            (None, None) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_name_loses_and_gains_goes_by_what_is_answered() {
        let exact = |rule| Scope { at: Some((Match::Exact, rule)), under: None };
        let below = |rule| Scope { at: None, under: Some((Match::Below, rule)) };
        let subtree = |rule| Scope { at: Some((Match::Subtree, rule)), under: Some((Match::Subtree, rule)) };
        let both = Scope { at: Some((Match::Exact, 0)), under: Some((Match::Below, 1)) };
        let nothing = Scope::default();
        for (before, after, lost, gained) in [
            (nothing, exact(0), 0, 1),
            (subtree(0), nothing, 1, 0),
            (subtree(0), exact(0), 1, 0),
            (subtree(0), below(0), 1, 0),
            (below(0), subtree(0), 0, 1),
            (exact(0), below(0), 1, 1),
            (subtree(0), subtree(1), 1, 0),
            (subtree(1), subtree(0), 0, 1),
            (subtree(0), both, 1, 0),
            (nothing, subtree(1), 1, 0),
            (exact(1), nothing, 0, 1),
        ] {
            let mut difference = Difference::default();
            difference.weigh(&before, &after);
            assert_eq!((difference.lost, difference.gained), (lost, gained), "{before:?} {after:?}");
        }
    }
}
