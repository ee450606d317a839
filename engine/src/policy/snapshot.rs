//! Snapshots: the policy zones in configured order.
//!
//! The first zone that matches decides (RPZ, draft-vixie-dnsop-dns-rpz-00 section 5.2). Later zones
//! are not evaluated.

use std::net::IpAddr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::exceptions::Denial;
use super::names::SEED;
use super::{Action, Answer, Found, Match, PolicyZone, Reference, Rule, Structured};
use crate::message::{QueryClient, Transport};
use crate::name::{Name, Walk};
use crate::nat64::Nat64;
use crate::prefix::{Prefix, Prefixes};

mod alike;

/// The policy zones in configured order. Shadow zones are stored apart from the enforced ones, so
/// that no lookup can enforce them.
pub struct Snapshot {
    zones: Vec<PlacedZone>,
    shadows: Vec<Shadow>,
    serial: u32,
    digest: [u8; 32],
    nat64: Nat64,
    depends_on_client: bool,
    /// Names that the operator exempts from the zones of lists.
    allowed: Option<Arc<PolicyZone>>,
}

/// The zones that judge where a response leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judges {
    /// How many zones from the first one on. A passthru exempts from its own zone and from later ones, never
    /// from earlier ones.
    pub first: usize,
    /// Whether zones of records are among them. As in BIND, the first name of a chain that such a zone has
    /// decides about all of it, so that its passthru exempts from earlier zones of records, too.
    pub records: bool,
    /// Whether zones of lists are among them. If the operator exempts a name from lists, none of them judges
    /// its targets.
    pub lists: bool,
}

impl Judges {
    pub const ALL: Judges = Judges { first: usize::MAX, records: true, lists: true };

    /// Those that are left after a passthru.
    pub fn after(decision: &Decision<'_>) -> Judges {
        Judges { first: decision.zone, records: !decision.is_of_records, lists: true }
    }

    /// Those of both.
    pub fn and(self, other: Judges) -> Judges {
        Judges {
            first: self.first.min(other.first),
            records: self.records && other.records,
            lists: self.lists && other.lists,
        }
    }
}

/// Which zones are evaluated for a name or an address in a response.
#[derive(Clone, Copy)]
pub struct Evaluation<'a> {
    pub client: QueryClient,
    /// A shadow zone that is evaluated as if it were enforced.
    pub shadow: Option<&'a Shadow>,
    /// Their number includes the shadow zone.
    pub judges: Judges,
}

impl<'a> Evaluation<'a> {
    /// Only the zones before this one.
    pub fn before(self, zone: usize) -> Evaluation<'a> {
        let judges = Judges { first: self.judges.first.min(zone), ..self.judges };
        Evaluation { judges, ..self }
    }

    /// Those that are left after a passthru.
    pub fn after(self, decision: &Decision<'_>) -> Evaluation<'a> {
        self.from(Judges::after(decision))
    }

    /// Those of them that are also among these.
    pub fn from(self, judges: Judges) -> Evaluation<'a> {
        Evaluation { judges: self.judges.and(judges), ..self }
    }

    /// With the zones of records among them.
    pub fn of_records(self) -> Evaluation<'a> {
        Evaluation { judges: Judges { records: true, ..self.judges }, ..self }
    }

    /// All enforced zones.
    pub fn all(client: QueryClient) -> Evaluation<'a> {
        Evaluation { client, shadow: None, judges: Judges::ALL }
    }
}

/// The steps of a lookup in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum LookupStep {
    Filter,
    Index,
    Bucket,
}

/// A policy zone with its options in a snapshot.
pub struct PlacedZone {
    pub zone: Arc<PolicyZone>,
    /// Unix time in seconds of the next scheduled change.
    pub next_change_at: Option<u64>,
    /// Whether the zone also applies to targets in upstream responses.
    pub judges_targets: bool,
    /// Whether the zone decides nothing, and its matches are counted.
    pub is_shadow: bool,
    /// The clients for which alone the zone applies; `None`: for all.
    pub clients: Option<Arc<Prefixes>>,
    /// Whether it is a list, from which the operator may exempt names. Nobody exempts names from orders.
    pub is_list: bool,
}

/// A policy zone whose matches are counted and never decide.
pub struct Shadow {
    pub zone: Arc<PolicyZone>,
    /// How many enforced zones come before it.
    pub after: usize,
    judges_targets: bool,
    clients: Option<Arc<Prefixes>>,
    is_list: bool,
}

impl Shadow {
    /// A shadow zone after all enforced zones of any snapshot.
    pub fn after_all(zone: Arc<PolicyZone>) -> Shadow {
        Shadow { zone, after: usize::MAX, judges_targets: true, clients: None, is_list: false }
    }
}

/// A query that a shadow zone would block if it were enforced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShadowMatch {
    pub action: Action,
    /// The rank of the matching entry.
    pub rank: u64,
    /// Whether an enforced zone before it decides.
    pub is_decided: bool,
}

/// The decision of a snapshot about a name.
pub struct Decision<'a> {
    /// The number of the zone among those evaluated; without a shadow zone, in the snapshot.
    pub zone: usize,
    /// The number of labels before the owner name.
    pub skip: usize,
    pub scope: Match,
    /// The rank of the entry in its zone.
    pub rank: u64,
    pub answer: &'a Answer,
    pub reference: &'a Reference,
    pub structured: Option<&'a Structured>,
    /// Whether the zone is one of records: it has the response codes of RPZ.
    pub is_of_records: bool,
    /// Whether the query passes because it came over TCP.
    is_tcp_only: bool,
    /// The prefix, if an address in a response has decided.
    pub prefix: Option<Prefix>,
    /// That address.
    pub address: Option<IpAddr>,
    /// The hash of the queried name; 0 for an address.
    hash: u64,
}

impl<'a> Decision<'a> {
    /// Whether a name has decided, and not an address.
    pub fn is_of_name(&self) -> bool {
        self.hash != 0
    }

    pub fn is_passthru(&self) -> bool {
        self.is_tcp_only || self.answer.action == Action::Passthru
    }

    /// Of several decisions about a response, the lowest one counts: that of the first zone. In a zone of
    /// records, a name comes before an address, then the longest prefix, then the smallest address (sections
    /// 5.2 to 5.7 of the draft).
    pub fn precedence(&self) -> (usize, bool, u8, u128) {
        match &self.prefix {
            Some(prefix) if self.is_of_records => {
                (self.zone, true, 128 - prefix.rpz_length(), prefix.rpz_address())
            }
            _ => (self.zone, false, 0, 0),
        }
    }

    /// `None` for an exemption, and over TCP for an answer profile that is TCP-Only: the next zone decides.
    pub fn new(
        (place, zone): (usize, &PolicyZone),
        found: Found<'a>,
        transport: Transport,
        hash: u64,
    ) -> Option<Decision<'a>> {
        let Found { skip, scope, rank, rule } = found;
        let Rule::Answer { answer, reference, structured } = rule else { return None };
        let is_tcp_only = answer.action == Action::Truncate && transport.is_tcp();
        if is_tcp_only && !answer.is_given {
            return None;
        }
        let (structured, is_of_records) = (structured.as_deref(), zone.is_of_records());
        let (prefix, address) = (None, None);
        Some(Decision {
            zone: place,
            skip,
            scope,
            rank,
            answer,
            reference,
            structured,
            is_of_records,
            is_tcp_only,
            prefix,
            address,
            hash,
        })
    }
}

fn applies_to(clients: &Option<Arc<Prefixes>>, client: IpAddr) -> bool {
    clients.as_ref().is_none_or(|clients| clients.contains(client))
}

impl Snapshot {
    pub fn new(configured: Vec<PlacedZone>, serial: u32) -> Snapshot {
        Snapshot::with_allowed(configured, Nat64::default(), None, serial)
    }

    /// `allowed`: names that the operator exempts from the zones of lists.
    pub fn with_allowed(
        configured: Vec<PlacedZone>,
        nat64: Nat64,
        allowed: Option<Arc<PolicyZone>>,
        serial: u32,
    ) -> Snapshot {
        let digest = Snapshot::digest_of(&configured, &nat64, allowed.as_deref());
        let (mut zones, mut shadows) = (Vec::new(), Vec::new());
        for zone in configured {
            match zone.is_shadow {
                true => {
                    let PlacedZone { zone, judges_targets, clients, is_list, .. } = zone;
                    shadows.push(Shadow { zone, after: zones.len(), judges_targets, clients, is_list });
                }
                false => zones.push(zone),
            }
        }
        prepare_denials(&zones, allowed.as_deref());
        let all = zones.iter().map(|placed| (&placed.zone, &placed.clients));
        let mut all = all.chain(shadows.iter().map(|shadow| (&shadow.zone, &shadow.clients)));
        let depends_on_client = all.any(|(zone, clients)| clients.is_some() || zone.has_client_triggers());
        Snapshot { zones, shadows, serial, digest, nat64, depends_on_client, allowed }
    }

    /// SHA-256 over the name, digest, flags (targets, shadow) and clients of each zone in order, and over
    /// the NAT64 prefixes and the names that are allowed.
    pub fn digest_of(configured: &[PlacedZone], nat64: &Nat64, allowed: Option<&PolicyZone>) -> [u8; 32] {
        let mut hasher = Sha256::new();
        for PlacedZone { zone, judges_targets, is_shadow, clients, .. } in configured {
            hasher.update([u8::from(*judges_targets) | u8::from(*is_shadow) << 1]);
            hasher.update([zone.name.len() as u8]);
            hasher.update(zone.name.as_bytes());
            hasher.update(zone.digest);
            for prefix in clients.iter().flat_map(|clients| clients.iter()) {
                hasher.update(format!("client {prefix}\n"));
            }
        }
        for prefix in nat64.configured() {
            hasher.update(format!("nat64 {prefix}\n"));
        }
        if let Some(allowed) = allowed {
            hasher.update("allowed\n");
            hasher.update(allowed.digest);
        }
        hasher.finalize().into()
    }

    /// The decision about a name: that of the first zone that matches.
    pub fn find(&self, name: &Name, client: QueryClient) -> Option<Decision<'_>> {
        self.decide(name, &Walk::new(name, SEED), client)
    }

    /// The same, for a name whose hashes are known.
    pub fn decide(&self, name: &Name, walk: &Walk, client: QueryClient) -> Option<Decision<'_>> {
        let mut zones = self.zones.iter().enumerate();
        zones.find_map(|(place, PlacedZone { zone, clients, is_list, .. })| {
            let decision =
                applies_to(clients, client.address).then(|| zone.decide(place, name, walk, client));
            decision.flatten().filter(|decision| !(*is_list && self.excepts(name, walk, decision)))
        })
    }

    /// Whether the operator has exempted a name from the lists, and a list has decided about it by no longer
    /// name. The addresses of clients are no names.
    fn excepts(&self, name: &Name, walk: &Walk, decision: &Decision<'_>) -> bool {
        let Some(allowed) = &self.allowed else { return false };
        let is_of_block = decision.is_of_name() && !decision.is_passthru();
        is_of_block && allowed.find(name, walk).is_some_and(|found| found.skip <= decision.skip)
    }

    /// The zones that judge the targets of a name, if none has decided about the name itself.
    pub fn judges_from(&self, name: &Name) -> Judges {
        let Some(allowed) = &self.allowed else { return Judges::ALL };
        let is_allowed = allowed.find(name, &Walk::new(name, SEED)).is_some();
        Judges { lists: !is_allowed, ..Judges::ALL }
    }

    /// The decision about all queries of a client by its address, whatever their name.
    pub fn find_client(&self, client: QueryClient) -> Option<Decision<'_>> {
        let mut zones = self.zones.iter().enumerate();
        zones.find_map(|(place, PlacedZone { zone, clients, .. })| {
            applies_to(clients, client.address).then(|| zone.decide_client(place, client)).flatten()
        })
    }

    /// Whether decisions depend on the client, also those of shadow zones: what one may see, another may not.
    pub fn depends_on_client(&self) -> bool {
        self.depends_on_client
    }

    /// See `PolicyZone::warm`.
    pub fn warm(&self, name: &Name, walk: &Walk, step: LookupStep) {
        for PlacedZone { zone, .. } in &self.zones {
            zone.warm(name.labels(), walk, step);
        }
        for Shadow { zone, .. } in &self.shadows {
            zone.warm(name.labels(), walk, step);
        }
    }

    /// The decision about a query whose response points to `target`.
    ///
    /// It applies to the queried name only, not to names below. Its zone number counts an
    /// evaluated shadow zone.
    pub fn find_target<'a>(&'a self, target: &Name, evaluation: Evaluation<'a>) -> Option<Decision<'a>> {
        let walk = Walk::new(target, SEED);
        let transport = evaluation.client.transport;
        let mut zones = self.evaluated(evaluation).enumerate().filter(|(_, zone)| zone.judges_targets);
        let decision = zones.find_map(|(place, Evaluated { zone, is_list, .. })| {
            let decision = zone?.decide_name(place, target, &walk, transport)?;
            (!(is_list && self.excepts(target, &walk, &decision))).then_some(decision)
        })?;
        Some(Decision { skip: 0, scope: Match::Exact, ..decision })
    }

    /// The decision about a query whose response contains this address: that of the first zone
    /// that holds it, or an IPv4 address that a NAT64 translator maps it to. For the zone number
    /// see `find_target`.
    pub fn find_address<'a>(&'a self, address: IpAddr, evaluation: Evaluation<'a>) -> Option<Decision<'a>> {
        let mut zones = self.evaluated(evaluation).enumerate();
        let addresses = self.nat64.with_embedded(address);
        zones.find_map(|(place, Evaluated { zone, .. })| {
            let zone = zone?;
            let found = addresses.clone().filter_map(|address| zone.find_address(address));
            let (prefix, found) = found.max_by_key(|(prefix, _)| prefix.rpz_length())?;
            let decision = Decision::new((place, zone), found, evaluation.client.transport, 0)?;
            Some(Decision { prefix: Some(prefix), address: Some(address), ..decision })
        })
    }

    /// The evaluated zones in order.
    fn evaluated<'a>(&'a self, evaluation: Evaluation<'a>) -> impl Iterator<Item = Evaluated<'a>> {
        let Judges { first, records, lists } = evaluation.judges;
        let client = evaluation.client.address;
        let evaluated = move |zone: &'a PolicyZone,
                              clients: &Option<Arc<Prefixes>>,
                              judges_targets: bool,
                              is_list: bool| {
            let applies = (records || !zone.is_of_records()) && (lists || !is_list);
            let zone = (applies && applies_to(clients, client)).then_some(zone);
            Evaluated { zone, judges_targets, is_list }
        };
        let enforced = move |placed: &'a PlacedZone| {
            evaluated(&placed.zone, &placed.clients, placed.judges_targets, placed.is_list)
        };
        let place = evaluation.shadow.map_or(self.zones.len(), |shadow| self.place_of(shadow));
        let (before, after) = self.zones.split_at(place);
        let shadow = evaluation
            .shadow
            .map(|shadow| evaluated(&shadow.zone, &shadow.clients, shadow.judges_targets, shadow.is_list));
        before.iter().map(enforced).chain(shadow).chain(after.iter().map(enforced)).take(first)
    }

    /// How many enforced zones of this snapshot come before a shadow zone.
    pub fn place_of(&self, shadow: &Shadow) -> usize {
        shadow.after.min(self.zones.len())
    }

    /// Whether a shadow zone would block a query by its name. An exemption, a passthru and, over
    /// TCP, a truncate entry block nothing.
    pub fn would_block(
        &self,
        shadow: &Shadow,
        name: &Name,
        walk: &Walk,
        client: QueryClient,
    ) -> Option<ShadowMatch> {
        let decision = shadow.decide(name, walk, client)?;
        if decision.is_passthru() || shadow.is_list && self.excepts(name, walk, &decision) {
            return None;
        }
        let before = &self.zones[..self.place_of(shadow)];
        let is_decided = before.iter().any(|placed| {
            applies_to(&placed.clients, client.address) && placed.zone.decide(0, name, walk, client).is_some()
        });
        Some(ShadowMatch { action: decision.answer.action, rank: decision.rank, is_decided })
    }

    /// Every entry that covers `name`, in zone order, with the number of its zone; `None` for
    /// shadow zones.
    pub fn covering(&self, name: &Name) -> Vec<(Option<usize>, &PolicyZone, Found<'_>)> {
        let walk = Walk::new(name, SEED);
        let zones = self.configured();
        zones
            .flat_map(|(place, zone)| zone.covering(name, &walk).into_iter().map(move |f| (place, zone, f)))
            .collect()
    }

    /// All zones in configured order, with their number; `None` for shadow zones.
    fn configured(&self) -> impl Iterator<Item = (Option<usize>, &PolicyZone)> {
        (0..=self.zones.len()).flat_map(|place| {
            let shadows = self.shadows.iter().filter(move |shadow| shadow.after == place);
            let enforced = self.zones.get(place).map(|zone| (Some(place), &*zone.zone));
            shadows.map(|shadow| (None, &*shadow.zone)).chain(enforced)
        })
    }

    /// Every prefix that contains the address, or an IPv4 address that a NAT64 translator maps it
    /// to, as `covering`.
    pub fn covering_address(&self, address: IpAddr) -> Vec<(Option<usize>, &PolicyZone, Prefix, &Rule)> {
        let zones = self.configured();
        zones
            .flat_map(|(place, zone)| {
                let addresses = self.nat64.with_embedded(address);
                let holding = addresses.flat_map(move |address| zone.covering_address(address));
                holding.map(move |(prefix, rule)| (place, zone, prefix, rule))
            })
            .collect()
    }

    /// Every trigger for this address of a client, as `covering`; none of zones for other clients.
    pub fn covering_client(&self, client: IpAddr) -> Vec<(Option<usize>, &PolicyZone, Prefix, &Rule)> {
        let found = self.configured().filter_map(|(place, zone)| {
            let (prefix, found) = zone.find_client(client)?;
            Some((place, zone, prefix, found.rule))
        });
        found.collect()
    }

    /// Whether the answer for a blocked name may be NXDOMAIN: only if all names below are denied as
    /// well (RFC 8020 section 2). The records of a policy zone say it themselves.
    pub fn denies_all_below(&self, name: &Name, decision: &Decision<'_>) -> bool {
        if let Some(allowed) = self.allowed.as_ref().filter(|_| self.zones[decision.zone].is_list)
            && allowed.excepts(name, decision.hash, Denial::Later)
        {
            return false;
        }
        if decision.is_of_records {
            return decision.answer.action == Action::Nxdomain;
        }
        let denies = decision.answer.action == Action::Nxdomain && decision.scope != Match::Exact;
        denies && !self.has_exception_below(name, decision)
    }

    /// Whether an entry of this zone or of an earlier one exempts the name or a name below.
    fn has_exception_below(&self, name: &Name, decision: &Decision<'_>) -> bool {
        self.zones[..=decision.zone].iter().enumerate().any(|(place, PlacedZone { zone, .. })| {
            zone.excepts(name, decision.hash, Denial::of(place == decision.zone))
        })
    }

    /// The enforced zones.
    pub fn zones(&self) -> &[PlacedZone] {
        &self.zones
    }

    pub fn shadows(&self) -> &[Shadow] {
        &self.shadows
    }

    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// The names that the operator exempts from the zones of lists.
    pub fn allowed(&self) -> Option<&Arc<PolicyZone>> {
        self.allowed.as_ref()
    }

    /// See `digest_of`.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

/// A zone that is evaluated for a name or an address in a response.
struct Evaluated<'a> {
    /// `None`: it does not apply.
    zone: Option<&'a PolicyZone>,
    judges_targets: bool,
    is_list: bool,
}

/// Finds the names above exceptions of all zones where a denial depends on them, so that no query
/// waits for it.
fn prepare_denials(zones: &[PlacedZone], allowed: Option<&PolicyZone>) {
    if let Some(allowed) = allowed {
        allowed.prepare(Denial::Later);
    }
    for (place, PlacedZone { zone, .. }) in zones.iter().enumerate() {
        if zone.exceptions.may_deny_all {
            zone.prepare(Denial::Itself);
        }
        if zones[place + 1..].iter().any(|later| later.zone.exceptions.may_deny_all) {
            zone.prepare(Denial::Later);
        }
    }
}

impl Shadow {
    /// The decision of the zone about a query, if it were enforced.
    pub fn decide(&self, name: &Name, walk: &Walk, client: QueryClient) -> Option<Decision<'_>> {
        applies_to(&self.clients, client.address).then(|| self.zone.decide(0, name, walk, client)).flatten()
    }
}

impl PolicyZone {
    /// The decision of this zone about a query. The address of the client comes before the name (section
    /// 5.4 of the draft).
    pub fn decide(
        &self,
        place: usize,
        name: &Name,
        walk: &Walk,
        client: QueryClient,
    ) -> Option<Decision<'_>> {
        let by_client = self.decide_client(place, client);
        by_client.or_else(|| self.decide_name(place, name, walk, client.transport))
    }

    /// The same by the address of the client only.
    fn decide_client(&self, place: usize, client: QueryClient) -> Option<Decision<'_>> {
        let (_, found) = self.find_client(client.address)?;
        Decision::new((place, self), found, client.transport, 0)
    }

    /// The same by the name only.
    fn decide_name(
        &self,
        place: usize,
        name: &Name,
        walk: &Walk,
        transport: Transport,
    ) -> Option<Decision<'_>> {
        Decision::new((place, self), self.find(name, walk)?, transport, walk.hash(0))
    }

    fn prepare(&self, denial: Denial) {
        self.exceptions.prepare(denial, self.names.base(), &self.rules, self.ranges.is_some());
    }

    /// Whether the name with this hash or a name below is an exception from a denial.
    fn excepts(&self, name: &Name, hash: u64, denial: Denial) -> bool {
        let Some(above) = self.exceptions.above(denial) else { return false };
        let is_itself = || {
            let scope = self.names.may_hold(hash).then(|| self.scope_of(name, &Walk::new(name, SEED), 0));
            scope.flatten().is_some_and(|scope| self.rules.is_exception(&scope, denial))
        };
        // Few names are as deep as the name of a query, and the table of names above may be large.
        let (_, most) = self.names.labels();
        name.labels() < most && above.contain(hash) || name.labels() <= most && is_itself()
    }
}
