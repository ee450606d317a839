//! The names above exceptions: NXDOMAIN for one of them would deny the exception, too (RFC 8020
//! section 2).
//!
//! They are found once for a compiled zone. Changes of the zone add to them and take from them, so
//! that a large zone is not searched for each order.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use super::keyed::Keyed;
use super::names::{Names, SEED};
use super::{Action, Match, RuleTable, Scope};
use crate::name::{Name, Walk};

/// Whose denial an exception is checked against.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// The zone with the exceptions.
    Itself,
    /// A later zone.
    Later,
}

impl Denial {
    const ALL: [Denial; 2] = [Denial::Itself, Denial::Later];

    pub fn of(is_itself: bool) -> Denial {
        if is_itself { Denial::Itself } else { Denial::Later }
    }
}

/// The denials and exceptions of a zone.
#[derive(Clone, Default)]
pub struct Exceptions {
    /// Whether an entry may deny a name and all names below.
    pub may_deny_all: bool,
    /// Whether an entry may be TCP-only: only then the names differ by the denial.
    has_tcp_only: bool,
    above: [NamesAbove; 2],
}

impl Exceptions {
    /// Those of compiled names.
    pub fn of(names: &Names, rules: &RuleTable) -> Exceptions {
        let mut exceptions = Exceptions::default();
        names.scopes().iter().for_each(|scope| exceptions.note_scope(scope, rules));
        exceptions
    }

    fn note_scope(&mut self, scope: &Scope, rules: &RuleTable) {
        self.may_deny_all |= rules.may_deny_all(scope);
        self.has_tcp_only |= rules.is_tcp_only(scope.at) || rules.is_tcp_only(scope.under);
        for denial in Denial::ALL {
            self.above[denial as usize].has_any |= rules.is_exception(scope, denial);
        }
    }

    /// Notes that the entries of a name have changed.
    pub fn note(&mut self, name: &[u8], before: Option<Scope>, after: Option<Scope>, rules: &RuleTable) {
        after.iter().for_each(|scope| self.note_scope(scope, rules));
        for denial in Denial::ALL {
            let is = |scope: Option<Scope>| scope.is_some_and(|scope| rules.is_exception(&scope, denial));
            let difference = i64::from(is(after)) - i64::from(is(before));
            if difference != 0 {
                let above = &mut self.above[denial as usize];
                each_above(name, |hash| above.change(hash, difference));
            }
        }
    }

    /// Finds the names above exceptions of compiled names, which no query may wait for. `can_change`:
    /// whether changes will be made of the zone.
    pub fn prepare(&self, denial: Denial, names: &Names, rules: &RuleTable, can_change: bool) {
        if let Some(above) = self.above(denial) {
            above.prepare(can_change, |add| {
                names.each(
                    |_, scope| rules.is_exception(scope, denial),
                    |_, text, _| each_above(text.as_bytes(), &mut *add),
                );
            });
        }
    }

    /// The names above exceptions for a denial, which `prepare` must have found. `None`: there are no
    /// exceptions.
    pub fn above(&self, denial: Denial) -> Option<&NamesAbove> {
        let denial = if self.has_tcp_only { denial } else { Denial::Itself };
        Some(&self.above[denial as usize]).filter(|above| above.has_any)
    }
}

/// Calls `take` with the hash of each name above this name.
fn each_above(name: &[u8], take: impl FnMut(u64)) {
    let name = Name::from_text(name).expect("owners were names when added");
    let walk = Walk::new(&name, SEED);
    (1..name.labels()).map(|skip| walk.hash(skip)).for_each(take);
}

impl RuleTable {
    fn is(&self, side: Option<(Match, u32)>, action: Action) -> bool {
        side.is_some_and(|(_, rule)| self.all()[rule as usize].is(action))
    }

    fn is_tcp_only(&self, side: Option<(Match, u32)>) -> bool {
        self.is(side, Action::Truncate)
    }

    /// Whether NXDOMAIN may be the answer for this and for all names below, if there is no exception.
    fn may_deny_all(&self, scope: &Scope) -> bool {
        let is_wide = |side: &Option<(Match, u32)>| side.is_some_and(|(scope, _)| scope != Match::Exact);
        [scope.at, scope.under].into_iter().filter(is_wide).any(|side| self.is(side, Action::Nxdomain))
    }

    /// Whether not all names below an owner are denied. For a denial by a later zone, a truncate
    /// entry is no exception: over TCP, the later zone decides.
    pub fn is_exception(&self, scope: &Scope, denial: Denial) -> bool {
        let denies_below = self.is(scope.under, Action::Nxdomain);
        let mut sides = [scope.at, scope.under].into_iter().filter(Option::is_some);
        !denies_below && (denial == Denial::Itself || !sides.all(|side| self.is_tcp_only(side)))
    }
}

/// The names above the exceptions of a zone, by their hashes. If two names have the same hash, a
/// response is NODATA instead of NXDOMAIN.
#[derive(Clone, Default)]
pub struct NamesAbove {
    /// Those of the compiled zone, once they are needed.
    compiled: Arc<OnceLock<Counted>>,
    /// By how much changes have raised or lowered the number of exceptions below a name.
    changed: HashMap<u64, i64, Keyed>,
    /// Whether there may be any.
    has_any: bool,
}

/// Hashes, and how often each occurs.
#[derive(Default)]
struct Counted {
    all: HashSet<u64, Keyed>,
    /// Those that occur more than once. Only for zones that can change.
    repeated: HashMap<u64, i64, Keyed>,
}

impl NamesAbove {
    /// Whether an exception is below the name with this hash.
    pub fn contain(&self, hash: u64) -> bool {
        let compiled = self.compiled.get().filter(|compiled| compiled.all.contains(&hash));
        match (compiled, self.changed.get(&hash)) {
            (compiled, None) => compiled.is_some(),
            (None, Some(changed)) => *changed > 0,
            (Some(compiled), Some(changed)) => {
                compiled.repeated.get(&hash).copied().unwrap_or(1) + changed > 0
            }
        }
    }

    /// Finds those of the compiled zone, if that was not done yet. `each` calls its argument with each
    /// hash, also repeatedly.
    fn prepare(&self, can_change: bool, each: impl FnOnce(&mut dyn FnMut(u64))) {
        self.compiled.get_or_init(|| {
            let mut found = Counted::default();
            each(&mut |hash| {
                if !found.all.insert(hash) && can_change {
                    *found.repeated.entry(hash).or_insert(1) += 1;
                }
            });
            found
        });
    }

    /// An exception below the name with this hash has come (1) or is gone (-1).
    fn change(&mut self, hash: u64, difference: i64) {
        let changed = self.changed.entry(hash).or_insert(0);
        *changed += difference;
        if *changed == 0 {
            self.changed.remove(&hash);
        }
    }
}
