//! Policy zones: compile, look up, explain.
//!
//! A policy zone is the orders of one issuer or one list, compiled. It is immutable.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};

use crate::name::{Name, Text, Walk};
use crate::prefix::{Prefix, Prefixes};

pub mod amended;
mod between;
pub mod compiler;
mod cursor;
pub mod difference;
mod exceptions;
mod filter;
pub mod given;
mod keyed;
mod layers;
pub mod names;
mod partitions;
mod prefix_table;
mod ranges;
pub mod records;
mod rule_table;
mod segment;
mod snapshot;
mod sorter;
mod symbols;
mod writer;
pub mod zone_data;
use compiler::Compiled;
use exceptions::Exceptions;
pub use given::DataRecord;
use given::{Given, GivenAction};
pub use layers::Changes;
use layers::ZoneNames;
use names::Names;
pub use prefix_table::PrefixTable;
use ranges::Ranges;
use records::RecordsZone;
pub use rule_table::{CanonicalRule, RuleTable};
pub use snapshot::{Decision, Evaluation, Judges, LookupStep, PlacedZone, Shadow, ShadowMatch, Snapshot};

/// The action of a policy zone for a query, in the order of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Passthru,
    Sinkhole,
    Nxdomain,
    Nodata,
    Refused,
    Drop,
    /// TCP-Only: over UDP an empty answer with TC set; over TCP the next zone decides.
    Truncate,
    Cname,
    /// Records of any type: RPZ's local data.
    Data,
}

impl Action {
    pub const ALL: [(Action, &str); 9] = [
        (Action::Passthru, "passthru"),
        (Action::Sinkhole, "sinkhole"),
        (Action::Nxdomain, "nxdomain"),
        (Action::Nodata, "nodata"),
        (Action::Refused, "refused"),
        (Action::Drop, "drop"),
        (Action::Truncate, "truncate"),
        (Action::Cname, "cname"),
        (Action::Data, "data"),
    ];

    pub fn name(self) -> &'static str {
        Action::ALL[self as usize].1
    }

    pub fn from_name(name: &str) -> Option<Action> {
        Action::ALL.iter().find(|(_, known)| *known == name).map(|(action, _)| *action)
    }
}

/// An answer profile: the answer for blocked names.
#[derive(Clone, Debug)]
pub struct Answer {
    pub action: Action,
    /// In seconds, for addresses, the CNAME, and the SOA of a negative answer.
    pub ttl: u32,
    /// INFO-CODE of RFC 8914: 15 Blocked, 16 Censored, 17 Filtered.
    pub extended_error: Option<u16>,
    pub ipv4: Vec<Ipv4Addr>,
    pub ipv6: Vec<Ipv6Addr>,
    /// The target of `Action::Cname`.
    pub target: Option<Target>,
    /// The records of `Action::Data`, sorted by type.
    pub data: Box<[DataRecord]>,
    /// Given by a record of a policy zone: TCP-Only lets a query over TCP pass, as in BIND. An answer
    /// profile leaves it to the next zone.
    pub is_given: bool,
}

impl Answer {
    /// An answer without records.
    pub fn without_data(action: Action, ttl: u32, extended_error: Option<u16>) -> Answer {
        let (ipv4, ipv6, target, data) = (Vec::new(), Vec::new(), None, Box::default());
        Answer { action, ttl, extended_error, ipv4, ipv6, target, data, is_given: false }
    }

    /// Whether it is a CNAME to this name itself: in the first version of RPZ, that was a passthru.
    pub fn points_to(&self, name: &Name) -> bool {
        self.is_given && matches!(&self.target, Some(Target::Name(target)) if target == name)
    }

    /// The answer that records give. No TTL exceeds `max_ttl`. `None` if a target is not a name.
    pub fn given(given: &Given, max_ttl: u32, extended_error: Option<u16>) -> Option<Answer> {
        let action = match &given.action {
            GivenAction::Nxdomain => Action::Nxdomain,
            GivenAction::Nodata => Action::Nodata,
            GivenAction::Passthru => Action::Passthru,
            GivenAction::Drop => Action::Drop,
            GivenAction::TcpOnly => Action::Truncate,
            GivenAction::Cname(_) => Action::Cname,
            GivenAction::Data(_) => Action::Data,
        };
        let mut answer = Answer::without_data(action, given.ttl.min(max_ttl), extended_error);
        answer.is_given = true;
        match &given.action {
            GivenAction::Cname(target) => answer.target = Some(Target::from_text(target)?),
            GivenAction::Data(records) => {
                answer.data = records.clone().into();
                answer.data.iter_mut().for_each(|record| record.ttl = record.ttl.min(max_ttl));
            }
            _ => {}
        }
        Some(answer)
    }
}

/// The target of a CNAME of ours.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    Name(Name),
    /// The QNAME prepended to this name: RPZ's `CNAME *.garden.example.`
    /// (draft-vixie-dnsop-dns-rpz-00 section 3.6).
    Under(Name),
}

impl Target {
    /// `None` if it is not a name.
    pub fn from_text(text: &str) -> Option<Target> {
        let name = |text: &str| match text {
            "" => Some(Name::root()),
            text => Name::from_text(text.as_bytes()).ok(),
        };
        match text.strip_prefix("*.") {
            Some(parent) => name(parent).map(Target::Under),
            None => name(text).map(Target::Name),
        }
    }

    /// The target for this query; `None` if the name is too long.
    pub fn of(&self, queried: &Name) -> Option<Name> {
        match self {
            Target::Name(name) => Some(name.clone()),
            Target::Under(parent) => queried.under(parent),
        }
    }
}

/// A structured error instead of the reference, for clients that support it: I-JSON
/// (draft-ietf-dnsop-structured-dns-error).
#[derive(Clone, Debug)]
pub struct Structured {
    pub whole: Box<str>,
    /// Without the optional parts, if the whole does not fit.
    pub brief: Box<str>,
}

/// The order behind an answer.
#[derive(Clone)]
pub struct Reference {
    /// Its number; empty for a list.
    number: Box<str>,
    /// Its counter of blocked queries, below `counters::ORDERS`; 0 if it has none. Clients notice nothing of it.
    pub counter: u16,
}

impl Reference {
    pub fn new(number: &str, counter: u16) -> Reference {
        Reference { number: number.into(), counter }
    }
}

impl<T: Into<Box<str>>> From<T> for Reference {
    fn from(number: T) -> Reference {
        Reference { number: number.into(), counter: 0 }
    }
}

impl Deref for Reference {
    type Target = str;

    fn deref(&self) -> &str {
        &self.number
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(f)
    }
}

/// The effect of an entry on the names that it covers.
#[derive(Clone, Debug)]
pub enum Rule {
    /// An exemption: this zone does not match, and the next zone is evaluated.
    Exemption,
    Answer {
        answer: Arc<Answer>,
        reference: Reference,
        structured: Option<Box<Structured>>,
    },
}

impl Rule {
    /// The rule of an exception that ends the evaluation.
    pub fn passthru() -> Rule {
        let answer = Arc::new(Answer::without_data(Action::Passthru, 0, None));
        Rule::Answer { answer, reference: "".into(), structured: None }
    }

    /// Whether it is the answer to a blocked name, also over TCP.
    pub fn blocks(&self) -> bool {
        matches!(self, Rule::Answer { answer, .. }
            if !matches!(answer.action, Action::Passthru | Action::Truncate | Action::Cname | Action::Data))
    }

    pub fn is_exemption(&self) -> bool {
        matches!(self, Rule::Exemption)
    }

    pub fn is(&self, wanted: Action) -> bool {
        matches!(self, Rule::Answer { answer, .. } if answer.action == wanted)
    }

    /// The form that enters the digest: everything that a client can notice.
    fn canonical(&self) -> String {
        let Rule::Answer { answer, reference, structured } = self else {
            return "hole".to_string();
        };
        let mut text = format!("{} ttl={} ede={:?}", answer.action.name(), answer.ttl, answer.extended_error);
        let _ = write!(text, " ipv4={:?} ipv6={:?} target={:?}", answer.ipv4, answer.ipv6, answer.target);
        if answer.is_given {
            let _ = write!(text, " given data={:?}", answer.data);
        }
        let _ = write!(text, " reference={reference:?}");
        if let Some(structured) = structured {
            let _ = write!(text, " structured={structured:?}");
        }
        text
    }
}

/// The names that an entry covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    /// The name only.
    Exact,
    /// The name and all names below.
    Subtree,
    /// All names below; RPZ's `*.name`.
    Below,
}

impl Match {
    pub const ALL: [(Match, &str); 3] =
        [(Match::Exact, "exact"), (Match::Subtree, "subtree"), (Match::Below, "below")];

    pub fn name(self) -> &'static str {
        Match::ALL[self as usize].1
    }

    pub fn from_name(name: &str) -> Option<Match> {
        Match::ALL.iter().find(|(_, known)| *known == name).map(|(scope, _)| *scope)
    }
}

//------- PolicyZone ---------------------------------------------------------

/// The orders of one issuer or one source: names, their scopes, and rules.
///
/// A zone may have addresses instead, for addresses in upstream responses (RPZ's trigger RPZ-IP). A zone
/// of records may have both, and addresses of clients.
pub struct PolicyZone {
    name: String,
    names: ZoneNames,
    rules: RuleTable,
    /// Of a zone of orders.
    ranges: Option<Ranges>,
    addresses: PrefixTable,
    /// Of a zone whose answers its records give.
    records: Option<RecordsZone>,
    listed: usize,
    digest: [u8; 32],
    exceptions: Exceptions,
}

/// The entries of an owner, for the name itself and for the names below: the match, and an index
/// into the zone's rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    pub at: Option<(Match, u32)>,
    pub under: Option<(Match, u32)>,
}

/// An entry that covers a name.
#[derive(Clone, Copy)]
pub struct Found<'a> {
    /// The number of labels of the QNAME before the owner name.
    pub skip: usize,
    pub scope: Match,
    pub rule: &'a Rule,
    /// A number that distinguishes the entry from others of its zone, below `PolicyZone::ranks`.
    pub rank: u64,
}

impl PolicyZone {
    /// A zone of compiled names; `None` if they need other rules. Names with rules of exceptions
    /// only are not counted as listed.
    pub fn new(name: &str, names: Arc<Names>, rules: Vec<Rule>, is_exception: &[bool]) -> Option<PolicyZone> {
        let (names, rules) = (ZoneNames::from(names), RuleTable::from(rules));
        let listed = listed(&names, &rules, |rule| is_exception.get(rule as usize) == Some(&true))?;
        let mut hasher = Sha256::new();
        hasher.update(names.base().digest());
        for rule in rules.all() {
            hasher.update(rule.canonical() + "\n");
        }
        let digest = hasher.finalize().into();
        let exceptions = Exceptions::of(names.base(), &rules);
        let zone = PolicyZone::of(name, names, rules, None, PrefixTable::default(), listed, digest);
        Some(PolicyZone { exceptions, ..zone })
    }

    /// A zone of orders, which sets names aside that were chosen for their hashes.
    pub fn of_entries(name: &str, compiled: Compiled, rules: RuleTable) -> Option<PolicyZone> {
        let aside: Vec<u16> = compiled.aside.iter().map(|(hash, _, _)| Ranges::of(*hash)).collect();
        let mut exceptions = Exceptions::of(&compiled.names, &rules);
        let note = |name: &[u8], before, after| exceptions.note(name, before, after, &rules);
        let names = ZoneNames::with_aside(Arc::new(compiled.names), compiled.aside, note)?;
        let listed = listed(&names, &rules, |rule| rules.all()[rule as usize].is_exemption())?;
        let mut ranges = compiled.ranges;
        names.digest(&mut ranges, aside, rules.all());
        let zone = PolicyZone::of_orders(name, names, rules, ranges, listed);
        Some(PolicyZone { exceptions, ..zone })
    }

    /// This zone of orders with other entries for some owners, as if it were compiled from all
    /// entries. `rules` are those of this zone, and perhaps more. `None`: it must be compiled.
    pub fn with_changes(&self, rules: RuleTable, changes: Changes) -> Option<PolicyZone> {
        let changed: BTreeSet<u16> = changes.keys().map(|(hash, _)| Ranges::of(*hash)).collect();
        let counts = |scope: Option<Scope>| {
            let is_exemption = |rule: u32| rules.all()[rule as usize].is_exemption();
            usize::from(scope.is_some_and(|scope| scope.is_listed(is_exemption)))
        };
        let mut listed = self.listed;
        let mut exceptions = self.exceptions.clone();
        let names = self.names.with_changes(changes, |name, before, after| {
            listed = listed + counts(after) - counts(before);
            exceptions.note(name, before, after, &rules);
        })?;
        let mut ranges = self.ranges.clone()?;
        names.digest(&mut ranges, changed, rules.all());
        let zone = PolicyZone::of_orders(&self.name, names, rules, ranges, listed);
        Some(PolicyZone { exceptions, ..zone })
    }

    /// Whether changes have made at least half of what `with_changes` can hold.
    pub fn is_grown(&self) -> bool {
        self.names.is_grown()
    }

    fn of_orders(
        name: &str,
        names: ZoneNames,
        rules: RuleTable,
        ranges: Ranges,
        listed: usize,
    ) -> PolicyZone {
        let digest = ranges.digest();
        PolicyZone::of(name, names, rules, Some(ranges), PrefixTable::default(), listed, digest)
    }

    /// A zone of addresses.
    pub fn of_addresses(name: &str, rule: Rule, prefixes: Vec<Prefix>) -> PolicyZone {
        let addresses = PrefixTable::of(prefixes);
        let listed = addresses.len();
        let (names, rules) = (ZoneNames::from(Names::none()), RuleTable::from(vec![rule]));
        let mut hasher = Sha256::new();
        hasher.update(names.base().digest());
        for rule in rules.all() {
            hasher.update(rule.canonical() + "\n");
        }
        for prefix in addresses.prefixes().iter() {
            hasher.update(format!("{prefix}\n"));
        }
        let digest = hasher.finalize().into();
        PolicyZone::of(name, names, rules, None, addresses, listed, digest)
    }

    /// A zone of a compiled list of addresses; `None` for a list of names.
    pub fn of_triggers(name: &str, rule: Rule, names: &Names) -> Option<PolicyZone> {
        let mut prefixes = Vec::with_capacity(names.entries());
        let mut is_of_addresses = true;
        names.each(
            |_, _| true,
            |_, text, _| {
                let prefix = std::str::from_utf8(text.as_bytes()).ok().and_then(Prefix::from_trigger);
                is_of_addresses &= prefix.is_some();
                prefixes.extend(prefix);
            },
        );
        is_of_addresses.then(|| PolicyZone::of_addresses(name, rule, prefixes))
    }

    fn of(
        name: &str,
        names: ZoneNames,
        rules: RuleTable,
        ranges: Option<Ranges>,
        addresses: PrefixTable,
        listed: usize,
        digest: [u8; 32],
    ) -> PolicyZone {
        let (name, exceptions) = (name.to_string(), Exceptions::default());
        PolicyZone { name, names, rules, ranges, addresses, records: None, listed, digest, exceptions }
    }

    /// The entry that decides about `name`: that of the longest owner. `walk` has the hashes of its
    /// suffixes.
    pub fn find(&self, name: &Name, walk: &Walk) -> Option<Found<'_>> {
        if let Some(records) = &self.records {
            return self.find_record(records, name, walk);
        }
        self.skips(name.labels()).find_map(|skip| self.entry_at(name, walk, skip))
    }

    /// Prefetches one part of the memory that `find` reads; the parts before must have arrived. If
    /// a list is much larger than the processor's caches, `find` mostly waits for memory. With one
    /// call for all queries of a batch, these waits overlap.
    pub fn warm(&self, labels: usize, walk: &Walk, step: LookupStep) {
        for hash in self.skips(labels).map(|skip| walk.hash(skip)) {
            match step {
                LookupStep::Filter => self.names.base().warm_filter(hash),
                LookupStep::Index => self.names.base().warm_index(hash),
                LookupStep::Bucket => self.names.base().warm_bucket(hash),
            }
        }
    }

    /// The suffixes to look up, as the number of labels before each. Lengths that no owner has are
    /// skipped.
    fn skips(&self, labels: usize) -> Range<usize> {
        let (fewest, most) = self.names.labels();
        labels.saturating_sub(most)..(labels + 1).saturating_sub(fewest).min(labels)
    }

    /// Every entry of this zone that covers `name`, the deciding one first.
    pub fn covering(&self, name: &Name, walk: &Walk) -> Vec<Found<'_>> {
        if self.records.is_some() {
            return self.find(name, walk).into_iter().collect();
        }
        (0..name.labels()).filter_map(|skip| self.entry_at(name, walk, skip)).collect()
    }

    /// The entry of the suffix after `skip` labels, if it covers the whole name.
    fn entry_at(&self, name: &Name, walk: &Walk, skip: usize) -> Option<Found<'_>> {
        let (scope, rank) = self.names.find(walk.hash(skip), walk.text(), name.offset(skip))?;
        let (scope, rule) = if skip == 0 { scope.at? } else { scope.under? };
        Some(Found { skip, scope, rule: &self.rules.all()[rule as usize], rank })
    }

    /// The scope of exactly this suffix.
    fn scope_of(&self, name: &Name, walk: &Walk, skip: usize) -> Option<Scope> {
        self.names.find(walk.hash(skip), walk.text(), name.offset(skip)).map(|(scope, _)| scope)
    }

    /// The entries of exactly the suffix after `skip` labels: for that name itself, and for names below it.
    pub fn entries_at(&self, name: &Name, walk: &Walk, skip: usize) -> Option<[Option<Found<'_>>; 2]> {
        let from = name.offset(skip).min(walk.text().length()); // for the root, the end
        let (scope, rank) = self.names.find(walk.hash(skip), walk.text(), from)?;
        let found = |(scope, rule): (Match, u32)| {
            let rule = &self.rules.all()[rule as usize];
            Found { skip, scope, rule, rank }
        };
        Some([scope.at, scope.under].map(|side| side.map(found)))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn rules(&self) -> &RuleTable {
        &self.rules
    }

    /// Every name whose rank is wanted, with its rank and scope.
    pub fn each(&self, wants: impl FnMut(u64, &Scope) -> bool, take: impl FnMut(u64, &Text, &Scope)) {
        self.names.each(wants, take);
    }

    /// The ranks of entries are below this.
    pub fn ranks(&self) -> usize {
        self.names.ranks()
    }

    /// Whether it is a zone of orders.
    pub fn is_of_orders(&self) -> bool {
        self.ranges.is_some()
    }

    /// The prefixes of a zone for addresses in responses.
    pub fn prefixes(&self) -> &Prefixes {
        self.addresses.prefixes()
    }

    /// The same with their rules.
    pub fn prefix_table(&self) -> &PrefixTable {
        &self.addresses
    }

    /// The number of distinct owner names or prefixes.
    pub fn entries(&self) -> usize {
        match self.records {
            Some(_) => self.names.entries(), // which include its prefixes
            None => self.names.entries() + self.addresses.len(),
        }
    }

    /// Those without exceptions only, which enforce nothing.
    pub fn listed(&self) -> usize {
        self.listed
    }

    /// Every prefix of this zone that contains the address, longest first, with its rule.
    pub fn covering_address(&self, address: IpAddr) -> Vec<(Prefix, &Rule)> {
        let rule = |(prefix, rule)| (prefix, &*self.rules.all()[rule as usize]);
        self.addresses.covering(address).into_iter().map(rule).collect()
    }

    /// SHA-256 over names and rules in canonical order. It is the same on every instance that
    /// enforces the same entries.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

/// The number of names that are listed; `None` if a rule does not exist.
fn listed(names: &ZoneNames, rules: &RuleTable, is_exception: impl Fn(u32) -> bool) -> Option<usize> {
    let mut sides = names.scopes().flat_map(|scope| [scope.at, scope.under]).flatten();
    let has_all = sides.all(|(_, rule)| (rule as usize) < rules.all().len());
    has_all.then(|| names.listed(is_exception))
}

/// A seed for hashes that clients cannot predict.
pub fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| RandomState::new().hash_one("dnsblock"))
}
