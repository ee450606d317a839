//! The names of a zone: a compiled base, and an overlay of the owners that changed since.
//!
//! The base is immutable; it may be a mapped file of millions of names. A change makes a new
//! overlay. When that becomes too large, the zone is compiled again. All answers and the
//! digest are those of a zone that was compiled from scratch with the same entries.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::compiler::Aside;
use super::keyed::Keyed;
use super::names::Names;
use super::ranges::{RangeDigest, Ranges};
use super::{CanonicalRule, Scope};
use crate::name::Text;

/// An overlay has at most this many owners, or the base divided by `BASE_PART` if that is more.
const MAX_OWNERS: usize = 1000;
const BASE_PART: usize = 8;

/// The owners that change, by hash and text; `None` removes an owner.
pub type Changes = BTreeMap<(u64, Box<[u8]>), Option<Scope>>;

/// The names of a zone and their scopes.
pub struct ZoneNames {
    base: Arc<Names>,
    overlay: Option<Box<Overlay>>,
}

#[derive(Default)]
struct Overlay {
    /// In the order of names: by hash, then by text.
    owners: Vec<Owner>,
    /// The owners of each hash: the first one, and how many.
    by_hash: HashMap<u64, (u32, u32), Keyed>,
    /// Names that were chosen for their hashes, which no base can have.
    aside: usize,
    /// The number of base names that owners replace or remove.
    replaced: usize,
    /// The number of owners with entries.
    entries: usize,
    labels: (usize, usize),
}

#[derive(Clone)]
struct Owner {
    hash: u64,
    text: Arc<[u8]>,
    labels: u8,
    /// `None` if all its entries were removed.
    scope: Option<Scope>,
    /// The rank of its name in the base, or of the first name after it.
    place: u64,
    is_in_base: bool,
}

impl Owner {
    fn key(&self) -> (u64, &[u8]) {
        (self.hash, &self.text)
    }
}

impl From<Arc<Names>> for ZoneNames {
    fn from(base: Arc<Names>) -> ZoneNames {
        ZoneNames { base, overlay: None }
    }
}

impl ZoneNames {
    /// Names of which some were set aside, since they were chosen for their hashes. A base with them
    /// would be slow.
    pub fn with_aside(
        base: Arc<Names>,
        aside: Aside,
        note: impl FnMut(&[u8], Option<Scope>, Option<Scope>),
    ) -> Option<ZoneNames> {
        if aside.is_empty() {
            return Some(base.into());
        }
        let overlay = Overlay { aside: aside.len(), ..Overlay::default() };
        let names = ZoneNames { base, overlay: Some(Box::new(overlay)) };
        let changes = aside.into_iter().map(|(hash, text, scope)| ((hash, text), Some(scope))).collect();
        names.with_changes(changes, note)
    }

    /// These names with other scopes for some owners. `note` gets the name of each owner, and its scopes
    /// before and after. Only the changed owners are looked up and verified.
    ///
    /// Returns `None` if the zone must be compiled again: the overlay is too large.
    pub fn with_changes(
        &self,
        changes: Changes,
        mut note: impl FnMut(&[u8], Option<Scope>, Option<Scope>),
    ) -> Option<ZoneNames> {
        let before = self.overlay.as_deref();
        let mut rest = before.map_or(&[][..], |overlay| &overlay.owners).iter().peekable();
        let mut owners = Vec::with_capacity(rest.len() + changes.len());
        let mut text = Text::default();
        for ((hash, name), scope) in &changes {
            while let Some(owner) = rest.next_if(|owner| owner.key() < (*hash, name)) {
                owners.push(owner.clone());
            }
            text.take(name);
            let in_base = self.base.find(*hash, &text, 0);
            let scope_in_base = in_base.map(|(scope, _)| *scope);
            let same = rest.next_if(|owner| owner.key() == (*hash, name));
            note(name, same.map_or(scope_in_base, |owner| owner.scope), *scope);
            if scope_in_base == *scope {
                continue;
            }
            owners.push(Owner {
                hash: *hash,
                text: Arc::from(&**name),
                labels: name.split(|&byte| byte == b'.').count() as u8,
                scope: *scope,
                place: in_base.map_or_else(|| self.base.names_before(*hash, name), |(_, rank)| rank),
                is_in_base: in_base.is_some(),
            });
        }
        owners.extend(rest.cloned());
        let aside = before.map_or(0, |overlay| overlay.aside);
        if owners.len() > self.most_changes() + aside {
            return None;
        }
        let overlay = Some(Box::new(Overlay::new(&self.base, owners, aside)));
        let names = ZoneNames { base: Arc::clone(&self.base), overlay };
        names.finds_all(&changes).then_some(names)
    }

    /// How many owners an overlay may have, without those set aside.
    fn most_changes(&self) -> usize {
        MAX_OWNERS.max(self.base.entries() / BASE_PART)
    }

    /// Whether the overlay has at least half of the owners that it may have.
    pub fn is_grown(&self) -> bool {
        let owners = self.overlay.as_ref().map_or(0, |o| o.owners.len().saturating_sub(o.aside));
        2 * owners >= self.most_changes()
    }

    /// Verifies each changed owner with the lookup that answers queries.
    fn finds_all(&self, changes: &Changes) -> bool {
        let mut text = Text::default();
        changes.iter().all(|((hash, name), scope)| {
            text.take(name);
            self.find(*hash, &text, 0).map(|(scope, _)| scope) == *scope
        })
    }

    /// The scope of exactly this name, and its rank. See `Names::find`.
    pub fn find(&self, hash: u64, text: &Text, from: usize) -> Option<(Scope, u64)> {
        if let Some(overlay) = &self.overlay
            && let Some(place) = overlay.place_of(hash, &text.as_bytes()[from..])
        {
            return overlay.owners[place].scope.map(|scope| (scope, (self.base.entries() + place) as u64));
        }
        self.base.find(hash, text, from).map(|(scope, rank)| (*scope, rank))
    }

    /// Every name whose rank is wanted, with its rank and scope, in the order of ranks.
    pub fn each(&self, mut wants: impl FnMut(u64, &Scope) -> bool, mut take: impl FnMut(u64, &Text, &Scope)) {
        let Some(overlay) = &self.overlay else { return self.base.each(wants, take) };
        let mut replaced = overlay.owners.iter().filter(|owner| owner.is_in_base).peekable();
        let wants_of_base = |rank: u64, scope: &Scope| {
            let is_replaced = replaced.next_if(|owner| owner.place == rank).is_some();
            !is_replaced && wants(rank, scope)
        };
        self.base.each(wants_of_base, &mut take);
        let mut text = Text::default();
        for (rank, owner) in (self.base.entries() as u64..).zip(&overlay.owners) {
            if let Some(scope) = owner.scope.filter(|scope| wants(rank, scope)) {
                text.take(&owner.text);
                take(rank, &text, &scope);
            }
        }
    }

    /// False only for names that it does not have.
    pub fn may_hold(&self, hash: u64) -> bool {
        let is_changed = || self.overlay.as_ref().is_some_and(|overlay| overlay.by_hash.contains_key(&hash));
        self.base.may_hold(hash) || is_changed()
    }

    /// At least all scopes of the names.
    pub fn scopes(&self) -> impl Iterator<Item = Scope> {
        let owners = self.overlay.iter().flat_map(|overlay| &overlay.owners);
        self.base.scopes().iter().copied().chain(owners.filter_map(|owner| owner.scope))
    }

    /// The number of names.
    pub fn entries(&self) -> usize {
        let (added, replaced) = self.overlay.as_ref().map_or((0, 0), |o| (o.entries, o.replaced));
        self.base.entries() + added - replaced
    }

    /// The ranks of names are below this.
    pub fn ranks(&self) -> usize {
        self.base.entries() + self.overlay.as_ref().map_or(0, |overlay| overlay.owners.len())
    }

    /// The number of names with a listed entry. See `Names::listed`.
    pub fn listed(&self, is_exception: impl Fn(u32) -> bool) -> usize {
        let mut listed = self.base.listed(&is_exception);
        let mut text = Text::default();
        for owner in self.overlay.iter().flat_map(|overlay| &overlay.owners) {
            text.take(&owner.text);
            if let Some((scope, _)) = self.base.find(owner.hash, &text, 0) {
                listed -= usize::from(scope.is_listed(&is_exception));
            }
            listed += usize::from(owner.scope.is_some_and(|scope| scope.is_listed(&is_exception)));
        }
        listed
    }

    /// The fewest and the most labels of a name. The range may be too wide.
    pub fn labels(&self) -> (usize, usize) {
        self.overlay.as_ref().map_or_else(|| self.base.labels(), |overlay| overlay.labels)
    }

    pub fn base(&self) -> &Names {
        &self.base
    }

    /// The digests of these ranges again, in `ranges`.
    pub fn digest(
        &self,
        ranges: &mut Ranges,
        changed: impl IntoIterator<Item = u16>,
        rules: &[CanonicalRule],
    ) {
        for range in changed {
            let mut digest = RangeDigest::default();
            self.each_in_range(range, |name, scope| digest.add(name, scope, rules));
            ranges.set(range, digest.finish());
        }
    }

    /// The names of a range of hashes, in order: by hash, then by text.
    fn each_in_range(&self, range: u16, mut take: impl FnMut(&[u8], &Scope)) {
        let (first, last) = Ranges::bounds(range);
        let before = |hash: Option<u64>| {
            hash.map_or(self.base.entries() as u64, |hash| self.base.names_before(hash, b""))
        };
        let owners = self.overlay.as_ref().map_or(&[][..], |overlay| &overlay.owners);
        let (from, to) = (
            owners.partition_point(|owner| owner.hash < first),
            owners.partition_point(|owner| owner.hash <= last),
        );
        let mut owners = owners[from..to].iter().peekable();
        let take_owner = |owner: &Owner, take: &mut dyn FnMut(&[u8], &Scope)| {
            if let Some(scope) = &owner.scope {
                take(&owner.text, scope);
            }
        };
        self.base.each_of(before(Some(first))..before(last.checked_add(1)), |rank, text, scope| {
            let is_before = |owner: &&Owner| owner.place < rank || owner.place == rank && !owner.is_in_base;
            while let Some(owner) = owners.next_if(is_before) {
                take_owner(owner, &mut take);
            }
            match owners.next_if(|owner| owner.place == rank) {
                Some(owner) => take_owner(owner, &mut take),
                None => take(text.as_bytes(), scope),
            }
        });
        owners.for_each(|owner| take_owner(owner, &mut take));
    }
}

impl Overlay {
    fn new(base: &Names, owners: Vec<Owner>, aside: usize) -> Overlay {
        let mut overlay = Overlay { aside, labels: base.labels(), ..Overlay::default() };
        overlay.by_hash.reserve(owners.len());
        for (place, owner) in (0..).zip(&owners) {
            overlay.by_hash.entry(owner.hash).or_insert((place, 0)).1 += 1;
            overlay.replaced += usize::from(owner.is_in_base);
            overlay.entries += usize::from(owner.scope.is_some());
            let labels = usize::from(owner.labels);
            overlay.labels = (overlay.labels.0.min(labels), overlay.labels.1.max(labels));
        }
        overlay.owners = owners;
        overlay
    }

    fn place_of(&self, hash: u64, name: &[u8]) -> Option<usize> {
        let &(first, count) = self.by_hash.get(&hash)?;
        let same_hash = self.owners.get(first as usize..(first + count) as usize)?;
        let place = same_hash.binary_search_by(|owner| (*owner.text).cmp(name)).ok()?;
        Some(first as usize + place)
    }
}
