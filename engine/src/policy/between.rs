//! Finds the empty non-terminals of a policy zone: names without records that have names below them.

use std::collections::BTreeSet;

use super::names::{Names, SEED};
use super::zone_data::is_trigger;
use crate::name::{Name, Walk};

/// A zone with more is a mistake or an attack: a single deep name adds a hundred.
const MOST: usize = 1_000_000;

/// The empty non-terminals of a zone that are below one of its wildcards, in order; `None`: too many.
pub fn between(names: &Names) -> Option<BTreeSet<String>> {
    let mut between = BTreeSet::new();
    if names.scopes().iter().all(|scope| scope.under.is_none()) {
        return Some(between);
    }
    let (fewest, _) = names.labels();
    let mut walk = Walk::new(&Name::root(), SEED);
    names.each(
        |_, _| true,
        |_, text, _| {
            let dots = text.as_bytes().iter().filter(|&&byte| byte == b'.').count();
            if text.length() == 0 || between.len() > MOST || dots + 1 < fewest + 2 {
                return; // no owner is two labels above it
            }
            let Ok(name) = Name::from_text(text.as_bytes()) else { return };
            if is_trigger(&name) {
                return;
            }
            walk.take(&name, SEED);
            for skip in 1..=name.labels() {
                let from = name.offset(skip).min(walk.text().length());
                let Some((scope, _)) = names.find(walk.hash(skip), walk.text(), from) else { continue };
                if scope.under.is_some() {
                    let empty = (1..skip).map(|skip| &text.as_bytes()[name.offset(skip)..]);
                    between.extend(empty.map(|name| String::from_utf8_lossy(name).into_owned()));
                }
                break;
            }
        },
    );
    (between.len() <= MOST).then_some(between)
}
