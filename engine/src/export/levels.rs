//! The decisions of all zones about a name and about each name above it, found in one pass from the top.

use crate::message::Transport;
use crate::name::{Name, Walk};
use crate::policy::names::SEED;
use crate::policy::{Decision, Found, Snapshot};

/// The decisions about one name.
pub struct Level<'a> {
    /// Labels before it in the full name.
    pub skip: usize,
    /// About the name itself.
    pub at: Option<Decision<'a>>,
    /// About all names below it that no entry names.
    pub below: Option<Decision<'a>>,
    /// About the name, if it had no entry.
    pub inherited: Option<Decision<'a>>,
    /// Whether a zone has an entry of exactly this name, or the operator allows it.
    pub has_entry: bool,
    /// Whether the operator exempts the name from lists, and names below it.
    pub is_allowed: [bool; 2],
}

/// The levels of a name, from the label before the root to the full name.
pub fn levels<'a>(snapshot: &'a Snapshot, name: &Name, walk: &Walk, over: Transport) -> Vec<Level<'a>> {
    let zones = snapshot.zones();
    // For each zone, the entry for names below the level before.
    let mut under: Vec<Option<Found<'a>>> = zones
        .iter()
        .map(|placed| placed.zone.entries_at(name, walk, name.labels()).and_then(|[_, below]| below))
        .collect();
    let allowed = snapshot.allowed();
    let mut under_allowed: Option<Found<'a>> = None;
    let mut levels = Vec::with_capacity(name.labels());
    for skip in (0..name.labels()).rev() {
        let decide = |found: &[Option<Found<'a>>], allowed: Option<Found<'a>>| {
            found.iter().enumerate().find_map(|(place, found)| {
                let found = (*found)?;
                let decision = Decision::new((place, &zones[place].zone), found, over, walk.hash(skip))?;
                let is_exempt = zones[place].is_list && allowed.is_some_and(|by| by.skip <= found.skip);
                (decision.is_passthru() || !is_exempt).then_some(decision)
            })
        };
        let inherited = decide(&under, under_allowed);
        let mut at_allowed = under_allowed;
        let mut at = under.clone();
        let own_allowed = allowed.and_then(|zone| zone.entries_at(name, walk, skip));
        let mut has_entry = own_allowed.is_some();
        if let Some([own, below]) = own_allowed {
            (at_allowed, under_allowed) = (own.or(at_allowed), below.or(under_allowed));
        }
        for (zone, placed) in zones.iter().enumerate() {
            let entries = placed.zone.entries_at(name, walk, skip);
            has_entry |= entries.is_some();
            if placed.zone.ends_wildcards(name, walk, skip) {
                [at[zone], under[zone]] = entries.unwrap_or_default();
            } else if let Some([own, below]) = entries {
                at[zone] = own.or(at[zone]);
                under[zone] = below.or(under[zone]);
            }
        }
        let is_allowed = [at_allowed.is_some(), under_allowed.is_some()];
        let (at, below) = (decide(&at, at_allowed), decide(&under, under_allowed));
        levels.push(Level { skip, at, below, inherited, has_entry, is_allowed });
    }
    levels
}

/// The decision about all names that no entry names: that of the record `*`.
pub fn everything(snapshot: &Snapshot, over: Transport) -> Option<Decision<'_>> {
    let (root, mut zones) = (Name::root(), snapshot.zones().iter().enumerate());
    let walk = Walk::new(&root, SEED);
    zones.find_map(|(place, placed)| {
        let [_, below] = placed.zone.entries_at(&root, &walk, 0)?;
        Decision::new((place, &placed.zone), below?, over, walk.hash(0))
    })
}
