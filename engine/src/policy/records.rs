//! Policy zones whose answers are given by their records, looked up as a DNS server looks up a zone: RPZ
//! (draft-vixie-dnsop-dns-rpz-00) as BIND implements it.
//!
//! Zones of orders and lists have the longest owner instead, at any depth. Here, a name that exists in the
//! zone ends each wildcard above it (RFC 4592 2.2.2, 3.3.1), whether it has records or only names below it.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};

use super::given::Given;
use super::names::Names;
use super::zone_data::{CLIENT_IP, RESPONSE_IP, is_trigger};
use super::{Answer, Found, Match, PolicyZone, PrefixTable, Rule, RuleTable, Structured, ZoneNames};
use crate::name::{Name, Text, Walk};
use crate::prefix::Prefix;

/// The part of a zone of records that other zones do not have.
#[derive(Clone)]
pub struct RecordsZone {
    /// The triggers for the addresses of clients.
    clients: Arc<PrefixTable>,
    /// Names without triggers that exist below a wildcard, as text, and their most labels.
    between: Arc<HashSet<Box<[u8]>>>,
    deepest: usize,
    /// More of them, by changes since the zone was compiled.
    pub(super) since: Between,
    pub(super) above: AboveEmpty,
    pub(super) answers: Arc<Answers>,
    /// The answers of records, in the sequence of the rules.
    pub(super) given: Vec<Given>,
}

/// Names that exist in a zone although they have no records, since the zone was compiled.
#[derive(Clone, Default)]
pub struct Between {
    /// Those below a wildcard, as text.
    pub names: HashSet<Box<[u8]>>,
    /// The hashes of all names above such a name, whether a wildcard is there or not.
    pub(super) above: HashSet<u64>,
    pub deepest: usize,
}

/// The hashes of all names above a name that exists without records, in order. Shared by a zone and those that
/// are made of it, since finding them takes long.
pub type AboveEmpty = Arc<OnceLock<Box<[u64]>>>;

/// The answers of a zone of records.
pub enum Answers {
    /// Those of its records. No TTL exceeds `max_ttl`, in seconds.
    Given { max_ttl: u32, extended_error: Option<u16>, structured: Option<Box<Structured>> },
    /// One for all of them.
    Override(Rule),
}

impl Answers {
    /// The answer of these records. `None` if a target is not a name.
    pub(super) fn rule(&self, given: &Given) -> Option<Rule> {
        match self {
            Answers::Override(rule) => Some(rule.clone()),
            Answers::Given { max_ttl, extended_error, structured } => {
                let answer = Arc::new(Answer::given(given, *max_ttl, *extended_error)?);
                Some(Rule::Answer { answer, reference: "".into(), structured: structured.clone() })
            }
        }
    }
}

impl RecordsZone {
    /// The same with more answers, and with other names that end wildcards.
    pub(super) fn with(&self, given: Vec<Given>, since: Between) -> RecordsZone {
        RecordsZone { given, since, ..self.clone() }
    }

    /// Whether this name has no records and ends a wildcard.
    pub(super) fn is_between(&self, text: &[u8]) -> bool {
        self.between.contains(text) || self.since.names.contains(text)
    }
}

impl PolicyZone {
    /// A zone of compiled records; `None` if the names are those of a list.
    pub fn of_records(name: &str, names: Arc<Names>, answers: Answers) -> Option<PolicyZone> {
        let zone = Arc::clone(names.zone()?);
        let rules: Option<Vec<Rule>> = zone.given.all().iter().map(|given| answers.rule(given)).collect();
        let rules = RuleTable::from(rules?);
        let (mut addresses, mut clients) = (Vec::new(), Vec::new());
        let mut text = Text::default();
        for trigger in &zone.triggers {
            text.take(trigger.as_bytes());
            let (scope, _) = names.find(Names::hash_of(&text), &text, 0)?;
            let (_, rule) = scope.at?;
            match trigger.rsplit_once('.')? {
                (front, CLIENT_IP) => {
                    clients.push((Prefix::from_trigger(&format!("{front}.{RESPONSE_IP}"))?, rule))
                }
                _ => addresses.push((Prefix::from_trigger(trigger)?, rule)),
            }
        }
        let mut hasher = Sha256::new();
        hasher.update("records\n");
        hasher.update(names.digest());
        // The digest of the names has the answers as the records give them.
        match &answers {
            Answers::Override(rule) => hasher.update(rule.canonical()),
            Answers::Given { max_ttl, extended_error, structured } => {
                hasher.update(format!("ttl={max_ttl} ede={extended_error:?} structured={structured:?}"));
            }
        }
        let digest = hasher.finalize().into();
        let listed = names.entries();
        let between = zone.between.iter().map(|name| name.as_bytes().into()).collect();
        let deepest = zone.between.iter().map(|name| name.split('.').count()).max().unwrap_or(0);
        let records = RecordsZone {
            clients: Arc::new(PrefixTable::with_rules(clients)),
            between: Arc::new(between),
            deepest,
            since: Between::default(),
            above: AboveEmpty::default(),
            answers: Arc::new(answers),
            given: zone.given.all().to_vec(),
        };
        let addresses = PrefixTable::with_rules(addresses);
        let zone = PolicyZone::of(name, ZoneNames::from(names), rules, None, addresses, listed, digest);
        Some(PolicyZone { records: Some(records), ..zone })
    }

    /// The entry for a QNAME: that of the name itself, or of the wildcard at its closest encloser.
    pub(super) fn find_record(&self, records: &RecordsZone, name: &Name, walk: &Walk) -> Option<Found<'_>> {
        let (fewest, most) = self.names.labels();
        let labels = name.labels();
        for skip in labels.saturating_sub(most.max(records.deepest).max(records.since.deepest))
            ..(labels + 1).saturating_sub(fewest)
        {
            let from = name.offset(skip).min(walk.text().length());
            match self.names.find(walk.hash(skip), walk.text(), from) {
                Some((scope, rank)) => {
                    let (scope, rule) = if skip == 0 { scope.at? } else { scope.under? };
                    let found = Found { skip, scope, rule: &self.rules.all()[rule as usize], rank };
                    // Triggers of addresses are stored as names, too.
                    return (!is_trigger(name)).then_some(found);
                }
                None if records.is_between(&walk.text().as_bytes()[from..]) => return None,
                None => {}
            }
        }
        None
    }

    /// Whether the suffix after `skip` labels exists in a zone of records, so that no wildcard above covers
    /// it and the names below.
    pub fn ends_wildcards(&self, name: &Name, walk: &Walk, skip: usize) -> bool {
        let Some(records) = &self.records else { return false };
        let from = name.offset(skip).min(walk.text().length());
        self.names.find(walk.hash(skip), walk.text(), from).is_some()
            || records.is_between(&walk.text().as_bytes()[from..])
    }

    /// The empty non-terminals that end a wildcard.
    pub fn names_between(&self) -> impl Iterator<Item = Name> {
        let between =
            self.records.iter().flat_map(|records| records.between.iter().chain(&records.since.names));
        between.filter_map(|name| Name::from_text(name).ok())
    }

    /// The triggers for the addresses of clients.
    pub fn client_prefixes(&self) -> Option<&PrefixTable> {
        self.records.as_ref().map(|records| &*records.clients)
    }

    /// The entry for the address of a client, and its prefix.
    pub fn find_client(&self, client: IpAddr) -> Option<(Prefix, Found<'_>)> {
        self.records.as_ref().and_then(|records| self.found(&records.clients, client))
    }

    /// The entry for an address in a response, and its prefix.
    pub fn find_address(&self, address: IpAddr) -> Option<(Prefix, Found<'_>)> {
        self.found(&self.addresses, address)
    }

    fn found(&self, table: &PrefixTable, address: IpAddr) -> Option<(Prefix, Found<'_>)> {
        let (prefix, rule) = table.find(address)?;
        let rule = &self.rules.all()[rule as usize];
        Some((prefix, Found { skip: 0, scope: Match::Exact, rule, rank: 0 }))
    }

    /// Whether a trigger for the addresses of clients lets names pass that others do not get.
    pub fn opens_for_clients(&self) -> bool {
        let rules = self.rules.all();
        let mut triggers = self.client_prefixes().into_iter().flat_map(PrefixTable::iter);
        triggers.any(|(_, rule)| !rules[rule as usize].blocks())
    }

    /// Whether the answers are given by its records, with the response codes of RPZ.
    pub fn is_of_records(&self) -> bool {
        self.records.is_some()
    }

    /// Whether the answers are those of its records, and no profile overrides them.
    pub fn gives_answers(&self) -> bool {
        self.records.as_ref().is_some_and(|records| matches!(*records.answers, Answers::Given { .. }))
    }

    /// The answer of a rule as its records give it, with their own TTLs.
    pub fn given_answer(&self, rule: u32) -> Option<Answer> {
        let records = self.records.as_ref()?;
        Answer::given(records.given.get(rule as usize)?, u32::MAX, None)
    }

    /// Whether an address of a client may decide.
    pub fn has_client_triggers(&self) -> bool {
        self.client_prefixes().is_some_and(|clients| !clients.is_empty())
    }
}
