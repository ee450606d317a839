//! What a new list says that the one before did not, and the other way round.

use std::sync::Arc;

use super::names::Names;
use super::{Match, Scope};
use crate::name::Text;

/// Octets of lines that are written down at most, so that a list of other names
/// altogether does not fill the memory, nor its history the time of whoever waits: about
/// a million changes.
const WRITTEN: usize = 32 << 20;

/// The difference between two lists.
#[derive(Debug, Default)]
pub struct Difference {
    /// Names that were not listed before, and that are listed no more.
    pub added: u64,
    pub removed: u64,
    /// Names about which something else is said now.
    pub changed: u64,
    /// What this means for who asks, whatever a list says it by. Names of which the name
    /// itself or what is below was listed, and is no more; those that are excepted now
    /// count, too, since the block of a name above may have been theirs.
    pub lost: u64,
    /// The other way round: listed now and not before, or excepted no more.
    pub gained: u64,
    /// `+ SCOPE NAME` and `- SCOPE NAME`, a line each; both for a changed name. `None`
    /// where that is too much.
    pub lines: Option<Vec<u8>>,
}

impl Difference {
    /// Counts what another entry about a name means for those who ask for it.
    fn weigh(&mut self, before: &Scope, after: &Scope) {
        let sides = [(before.at, after.at), (before.under, after.under)];
        let is_new = |rule| sides.iter().any(|(old, new)| said(*old) != rule && said(*new) == rule);
        let is_gone = |rule| sides.iter().any(|(old, new)| said(*old) == rule && said(*new) != rule);
        self.lost += u64::from(is_gone(LISTED) || is_new(EXCEPTED));
        self.gained += u64::from(is_new(LISTED) || is_gone(EXCEPTED));
    }
}

/// The first rule of a list lists, the others except.
const LISTED: Option<bool> = Some(false);
const EXCEPTED: Option<bool> = Some(true);

fn said(side: Option<(Match, u32)>) -> Option<bool> {
    side.map(|(_, rule)| rule > 0)
}

/// Takes the entries of the new list, one after the other.
pub struct Comparison {
    before: Arc<Names>,
    /// By the rank of an entry of the list before: whether the new one has it, too.
    kept: Vec<u64>,
    difference: Difference,
}

impl Comparison {
    pub fn with(before: Arc<Names>) -> Comparison {
        let kept = vec![0; before.entries().div_ceil(64)];
        let difference = Difference { lines: Some(Vec::new()), ..Difference::default() };
        Comparison { before, kept, difference }
    }

    pub fn take(&mut self, hash: u64, text: &Text, scope: &Scope) {
        let Some((said, rank)) = self.before.find(hash, text, 0) else {
            self.difference.added += 1;
            self.difference.weigh(&Scope::default(), scope);
            self.write('+', scope, text);
            return;
        };
        let (said, rank) = (*said, rank as usize);
        if let Some(word) = self.kept.get_mut(rank / 64) {
            *word |= 1 << (rank % 64);
        }
        if said != *scope {
            self.difference.changed += 1;
            self.difference.weigh(&said, scope);
            self.write('-', &said, text);
            self.write('+', scope, text);
        }
    }

    pub fn finish(mut self) -> Difference {
        let kept: u64 = self.kept.iter().map(|word| u64::from(word.count_ones())).sum();
        self.difference.removed = self.before.entries() as u64 - kept;
        if self.difference.removed > 0 {
            let (before, kept) = (Arc::clone(&self.before), std::mem::take(&mut self.kept));
            let is_written = self.difference.lines.is_some();
            let mut weighed = Difference::default();
            let is_gone = |rank: u64, scope: &Scope| {
                let is_gone = kept[rank as usize / 64] & 1 << (rank % 64) == 0;
                if is_gone {
                    weighed.weigh(scope, &Scope::default());
                }
                is_gone && is_written // what nobody writes down need not be spelt
            };
            before.each(is_gone, |_, text, scope| self.write('-', scope, text));
            self.difference.lost += weighed.lost;
            self.difference.gained += weighed.gained;
        }
        self.difference
    }

    fn write(&mut self, sign: char, scope: &Scope, text: &Text) {
        let Some(lines) = &mut self.difference.lines else { return };
        lines.extend_from_slice(format!("{sign} {} ", scope.word()).as_bytes());
        lines.extend_from_slice(text.as_bytes());
        lines.push(b'\n');
        if lines.len() > WRITTEN {
            self.difference.lines = None;
        }
    }
}

impl Scope {
    /// What a list says about a name, in one word: `exact`, `below` or `subtree`, with
    /// `except-` before it for a hole and `pass-` for a passthru; two, if it says different
    /// things about the name and about what is below. The first rule of a list blocks, the second
    /// is its hole, the third its passthru.
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
