//! The names of a zone: a compiled base, and an overlay of the owners that changed since.
//!
//! The base is immutable; it may be a mapped file of millions of names. A change makes a new
//! overlay. When that becomes too large, the zone is compiled again. All answers and the
//! digest are those of a zone that was compiled from scratch with the same entries.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use super::Scope;
use super::compiler::Aside;
use super::names::{EntriesDigest, Names};
use crate::name::Text;

/// An overlay has at most this many owners, or the base divided by `BASE_PART` if that is more.
const MAX_OWNERS: usize = 1000;
const BASE_PART: usize = 8;

/// The owners that change, by hash and text; `None` removes an owner.
pub type Changes = BTreeMap<(u64, Box<[u8]>), Option<Scope>>;

/// For each rule of an earlier zone, the index of the same rule in this zone.
pub type RuleMap = Vec<Option<u32>>;

/// The names of a zone and their scopes.
pub struct ZoneNames {
    base: Arc<Names>,
    overlay: Option<Box<Overlay>>,
}

struct Overlay {
    /// In the order of names: by hash, then by text.
    owners: Vec<Owner>,
    /// The owners of each hash: the first one, and how many.
    by_hash: HashMap<u64, (u32, u32), Keys>,
    /// Names that were chosen for their hashes, which no base can have.
    aside: usize,
    /// For the rules of the base.
    rules: RuleMap,
    /// The number of base names that owners replace or remove.
    replaced: usize,
    labels: (usize, usize),
    digest: [u8; 32],
}

struct Owner {
    hash: u64,
    text: Box<[u8]>,
    /// `None` if all its entries were removed.
    scope: Option<Scope>,
    /// The rank of its name in the base, or of the first name after it.
    place: u64,
    is_in_base: bool,
}

impl From<Arc<Names>> for ZoneNames {
    fn from(base: Arc<Names>) -> ZoneNames {
        ZoneNames { base, overlay: None }
    }
}

impl ZoneNames {
    /// Names of which some were set aside, since they were chosen for their hashes. A base with them
    /// would be slow. `rules`: how many the zone has.
    pub fn with_aside(base: Arc<Names>, aside: Aside, rules: usize) -> Option<ZoneNames> {
        if aside.is_empty() {
            return Some(base.into());
        }
        let same = (0..rules as u32).map(Some).collect();
        let count = aside.len();
        let owners = aside.into_iter().map(|(hash, text, scope)| ((hash, text), Some(scope))).collect();
        let overlay = Overlay::new(&base, owners, same, count)?;
        let names = ZoneNames { base, overlay: Some(Box::new(overlay)) };
        names.finds_all_owners().then_some(names)
    }

    /// These names with other scopes for some owners.
    ///
    /// Returns `None` if the zone must be compiled again: the overlay is too large, or an entry
    /// that did not change has a rule that is gone.
    pub fn with_changes(&self, mut owners: Changes, rules: &RuleMap) -> Option<ZoneNames> {
        let mut of_base = rules.clone();
        if let Some(before) = &self.overlay {
            of_base = before.rules.iter().map(|rule| rules[(*rule)? as usize]).collect();
            for owner in &before.owners {
                let key = (owner.hash, owner.text.clone());
                if let Entry::Vacant(vacant) = owners.entry(key) {
                    let scope = owner.scope.map(|scope| scope.with_rules(rules).ok_or(()));
                    vacant.insert(scope.transpose().ok()?);
                }
            }
        }
        let aside = self.overlay.as_ref().map_or(0, |before| before.aside);
        let overlay = Overlay::new(&self.base, owners, of_base, aside)?;
        let names = ZoneNames { base: Arc::clone(&self.base), overlay: Some(Box::new(overlay)) };
        names.finds_all_owners().then_some(names)
    }

    /// Verifies each changed owner with the lookup that answers queries.
    fn finds_all_owners(&self) -> bool {
        let mut text = Text::default();
        self.overlay.iter().flat_map(|overlay| &overlay.owners).all(|owner| {
            text.take(&owner.text);
            self.find(owner.hash, &text, 0).map(|(scope, _)| scope) == owner.scope
        })
    }

    /// The scope of exactly this name, and its rank. See `Names::find`.
    pub fn find(&self, hash: u64, text: &Text, from: usize) -> Option<(Scope, u64)> {
        let Some(overlay) = &self.overlay else {
            return self.base.find(hash, text, from).map(|(scope, rank)| (*scope, rank));
        };
        if let Some(place) = overlay.place_of(hash, &text.as_bytes()[from..]) {
            return overlay.owners[place].scope.map(|scope| (scope, (self.base.entries() + place) as u64));
        }
        let (scope, rank) = self.base.find(hash, text, from)?;
        Some((scope.with_rules(&overlay.rules)?, rank))
    }

    /// Every name whose rank is wanted, with its rank and scope, in the order of ranks.
    pub fn each(&self, mut wants: impl FnMut(u64, &Scope) -> bool, mut take: impl FnMut(u64, &Text, &Scope)) {
        let Some(overlay) = &self.overlay else { return self.base.each(wants, take) };
        let mut replaced = overlay.owners.iter().filter(|owner| owner.is_in_base).peekable();
        let wants_of_base = |rank: u64, scope: &Scope| {
            let is_replaced = replaced.next_if(|owner| owner.place == rank).is_some();
            !is_replaced && scope.with_rules(&overlay.rules).is_some_and(|scope| wants(rank, &scope))
        };
        self.base.each(wants_of_base, |rank, text, scope| {
            if let Some(scope) = scope.with_rules(&overlay.rules) {
                take(rank, text, &scope);
            }
        });
        let mut text = Text::default();
        for (rank, owner) in (self.base.entries() as u64..).zip(&overlay.owners) {
            if let Some(scope) = owner.scope.filter(|scope| wants(rank, scope)) {
                text.take(&owner.text);
                take(rank, &text, &scope);
            }
        }
    }

    /// At least all scopes of the names.
    pub fn scopes(&self) -> impl Iterator<Item = Scope> {
        let overlay = self.overlay.as_deref();
        let of_base = self.base.scopes().iter().filter_map(move |scope| match overlay {
            Some(overlay) => scope.with_rules(&overlay.rules),
            None => Some(*scope),
        });
        of_base.chain(overlay.into_iter().flat_map(|overlay| overlay.owners.iter().filter_map(|o| o.scope)))
    }

    /// The number of names.
    pub fn entries(&self) -> usize {
        let overlay = self.overlay.as_deref();
        let added = overlay.map_or(0, |o| o.owners.iter().filter(|owner| owner.scope.is_some()).count());
        self.base.entries() + added - overlay.map_or(0, |overlay| overlay.replaced)
    }

    /// The ranks of names are below this.
    pub fn ranks(&self) -> usize {
        self.base.entries() + self.overlay.as_ref().map_or(0, |overlay| overlay.owners.len())
    }

    /// The number of names with a listed entry. See `Names::listed`.
    pub fn listed(&self, is_exception: impl Fn(u32) -> bool) -> usize {
        let Some(overlay) = &self.overlay else {
            return self.base.listed(is_exception);
        };
        // Entries of the base whose rule is gone are replaced, so it does not matter how they count.
        let is_exception_of_base = |rule: u32| overlay.rules[rule as usize].is_some_and(&is_exception);
        let mut listed = self.base.listed(is_exception_of_base);
        let mut text = Text::default();
        for owner in &overlay.owners {
            text.take(&owner.text);
            if let Some((scope, _)) = self.base.find(owner.hash, &text, 0) {
                listed -= usize::from(scope.is_listed(is_exception_of_base));
            }
            listed += usize::from(owner.scope.is_some_and(|scope| scope.is_listed(&is_exception)));
        }
        listed
    }

    /// The fewest and the most labels of a name. The range may be too wide.
    pub fn labels(&self) -> (usize, usize) {
        self.overlay.as_ref().map_or_else(|| self.base.labels(), |overlay| overlay.labels)
    }

    /// SHA-256 over names and scopes, in the order of names.
    pub fn digest(&self) -> &[u8; 32] {
        self.overlay.as_ref().map_or_else(|| self.base.digest(), |overlay| &overlay.digest)
    }

    pub fn base(&self) -> &Names {
        &self.base
    }
}

impl Overlay {
    fn new(base: &Names, owners: Changes, rules: RuleMap, aside: usize) -> Option<Overlay> {
        let mut overlay = Overlay {
            owners: Vec::new(),
            by_hash: HashMap::default(),
            aside,
            rules,
            replaced: 0,
            labels: base.labels(),
            digest: [0; 32],
        };
        let mut text = Text::default();
        for ((hash, name), scope) in owners {
            text.take(&name);
            let in_base = base.find(hash, &text, 0);
            let unchanged = in_base.map(|(scope, _)| scope.with_rules(&overlay.rules));
            if unchanged == scope.map(Some) {
                continue;
            }
            let place = in_base.map_or_else(|| base.names_before(hash, &name), |(_, rank)| rank);
            overlay.add(Owner { hash, text: name, scope, place, is_in_base: in_base.is_some() });
        }
        if overlay.owners.len() > MAX_OWNERS.max(base.entries() / BASE_PART) + aside {
            return None;
        }
        overlay.digest = overlay.digest_with(base)?;
        Some(overlay)
    }

    fn add(&mut self, owner: Owner) {
        self.by_hash.entry(owner.hash).or_insert((self.owners.len() as u32, 0)).1 += 1;
        self.replaced += usize::from(owner.is_in_base);
        let labels = owner.text.split(|&byte| byte == b'.').count();
        self.labels = (self.labels.0.min(labels), self.labels.1.max(labels));
        self.owners.push(owner);
    }

    fn place_of(&self, hash: u64, name: &[u8]) -> Option<usize> {
        let &(first, count) = self.by_hash.get(&hash)?;
        let same_hash = self.owners.get(first as usize..(first + count) as usize)?;
        let place = same_hash.binary_search_by(|owner| (*owner.text).cmp(name)).ok()?;
        Some(first as usize + place)
    }

    /// The digest of the base with these changes; `None` if an unchanged entry has a rule that
    /// is gone.
    fn digest_with(&self, base: &Names) -> Option<[u8; 32]> {
        let mut digest = EntriesDigest::default();
        let add = |digest: &mut EntriesDigest, owner: &Owner| {
            if let Some(scope) = owner.scope {
                digest.add(&owner.text, scope);
            }
        };
        let mut owners = self.owners.iter().peekable();
        let mut has_all_rules = true;
        base.each(
            |_, _| true,
            |rank, text, scope| {
                let is_before =
                    |owner: &&Owner| owner.place < rank || owner.place == rank && !owner.is_in_base;
                while let Some(owner) = owners.next_if(is_before) {
                    add(&mut digest, owner);
                }
                match (owners.next_if(|owner| owner.place == rank), scope.with_rules(&self.rules)) {
                    (Some(owner), _) => add(&mut digest, owner),
                    (None, Some(scope)) => digest.add(text.as_bytes(), scope),
                    (None, None) => has_all_rules = false,
                }
            },
        );
        owners.for_each(|owner| add(&mut digest, owner));
        has_all_rules.then(|| digest.finish())
    }
}

impl Scope {
    /// The same scope in a zone with other rules; `None` if a rule is gone.
    fn with_rules(&self, rules: &RuleMap) -> Option<Scope> {
        let side = |side: Option<(super::Match, u32)>| match side {
            Some((scope, rule)) => Some(Some((scope, (*rules.get(rule as usize)?)?))),
            None => Some(None),
        };
        Some(Scope { at: side(self.at)?, under: side(self.under)? })
    }
}

/// Mixes a hash with random keys: that of a name is the same everywhere, so names can be chosen for
/// it.
#[derive(Clone)]
struct Keys([u64; 2]);

impl Default for Keys {
    fn default() -> Keys {
        let random = RandomState::new();
        Keys([random.hash_one(0), random.hash_one(1) | 1])
    }
}

impl BuildHasher for Keys {
    type Hasher = Mixed;

    fn build_hasher(&self) -> Mixed {
        Mixed { keys: self.0, hash: 0 }
    }
}

struct Mixed {
    keys: [u64; 2],
    hash: u64,
}

impl Hasher for Mixed {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes of names are keys");
    }

    fn write_u64(&mut self, hash: u64) {
        let product = u128::from(hash ^ self.keys[0]) * u128::from(self.keys[1]);
        self.hash = product as u64 ^ (product >> 64) as u64;
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}
