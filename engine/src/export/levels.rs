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
    /// Whether a zone has an entry of exactly this name.
    pub has_entry: bool,
}

/// The levels of a name, from the label before the root to the full name.
pub fn levels<'a>(snapshot: &'a Snapshot, name: &Name, walk: &Walk, over: Transport) -> Vec<Level<'a>> {
    let zones = snapshot.zones();
    // For each zone, the entry for names below the level before.
    let mut under: Vec<Option<Found<'a>>> = zones
        .iter()
        .map(|placed| placed.zone.entries_at(name, walk, name.labels()).and_then(|[_, below]| below))
        .collect();
    let mut levels = Vec::with_capacity(name.labels());
    for skip in (0..name.labels()).rev() {
        let decide = |found: &[Option<Found<'a>>]| {
            found.iter().enumerate().find_map(|(place, found)| {
                Decision::new((place, &zones[place].zone), (*found)?, over, walk.hash(skip))
            })
        };
        let inherited = decide(&under);
        let mut at = under.clone();
        let mut has_entry = false;
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
        levels.push(Level { skip, at: decide(&at), below: decide(&under), inherited, has_entry });
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
