//! Policy for Python: answers, rules, zones and snapshots.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::transfers::RecordChanges;
use super::{ListRefused, digest_text, lists, name, refused};
use crate::counters::ORDERS;
use crate::export::{self, data::data_of};
use crate::list;
use crate::message::{QueryClient, Transport};
use crate::name::Name;
use crate::nat64::Nat64;
use crate::policy::amended::Amended;
use crate::policy::records::Answers;
use crate::policy::{self, Action, Evaluation, Reference, Structured, Target};
use crate::prefix::{Prefix, Prefixes};
use crate::sys;

/// Bytes of an export that are written at once.
const BUFFER: usize = 64 << 10;

//------- Answer, Rule -------------------------------------------------------

#[pyclass(frozen, module = "dnsblock._engine")]
pub struct Answer(Arc<policy::Answer>);

#[pymethods]
impl Answer {
    #[new]
    #[pyo3(signature = (action, *, ttl, extended_error=None, addresses=Vec::new(), target=None))]
    fn new(
        action: &str,
        ttl: u32,
        extended_error: Option<u16>,
        addresses: Vec<IpAddr>,
        target: Option<&str>,
    ) -> PyResult<Answer> {
        let action = Action::from_name(action).ok_or_else(|| refused("an action", action))?;
        let target = target.map(target_of).transpose()?;
        if (action == Action::Cname) != target.is_some() {
            return Err(PyValueError::new_err("the action cname needs a target; no other action has one"));
        }
        let (mut ipv4, mut ipv6) = (Vec::new(), Vec::new());
        for address in addresses {
            match address {
                IpAddr::V4(address) => ipv4.push(address),
                IpAddr::V6(address) => ipv6.push(address),
            }
        }
        let answer = policy::Answer::without_data(action, ttl, extended_error);
        Ok(Answer(Arc::new(policy::Answer { ipv4, ipv6, target, ..answer })))
    }
}

fn target_of(text: &str) -> PyResult<Target> {
    match text.strip_prefix("*.") {
        Some(parent) => name(parent).map(Target::Under),
        None => name(text).map(Target::Name),
    }
}

fn boxed(structured: Option<(String, String)>) -> Option<Box<Structured>> {
    structured.map(|(whole, brief)| {
        Box::new(Structured { whole: whole.into_boxed_str(), brief: brief.into_boxed_str() })
    })
}

#[pyclass(frozen, module = "dnsblock._engine")]
pub struct Rule(policy::CanonicalRule);

#[pymethods]
impl Rule {
    #[new]
    #[pyo3(signature = (answer, reference="", structured=None, counter=0))]
    fn new(
        answer: Option<&Answer>,
        reference: &str,
        structured: Option<(String, String)>,
        counter: u16,
    ) -> PyResult<Rule> {
        if usize::from(counter) >= ORDERS {
            return Err(refused("the counter of an order", &counter.to_string()));
        }
        let structured = boxed(structured);
        let rule = match answer {
            Some(answer) => {
                let answer = Arc::clone(&answer.0);
                policy::Rule::Answer { answer, reference: Reference::new(reference, counter), structured }
            }
            None => policy::Rule::Exemption,
        };
        Ok(Rule(rule.into()))
    }
}

//------- PolicyZone ---------------------------------------------------------

#[pyclass(frozen, module = "dnsblock._engine")]
pub struct PolicyZone(pub Arc<policy::PolicyZone>);

#[pymethods]
impl PolicyZone {
    /// The first rule applies to listed names, the others to exceptions.
    #[staticmethod]
    fn from_names(name: &str, names: &lists::Names, rule: &Rule) -> PyResult<PolicyZone> {
        let rules = vec![policy::Rule::clone(&rule.0), policy::Rule::Exemption, policy::Rule::passthru()];
        let zone = policy::PolicyZone::new(name, Arc::clone(&names.0), rules, &list::RULES_ARE_EXCEPTIONS);
        let zone = zone.ok_or_else(|| PyValueError::new_err("these names need other rules"))?;
        Ok(PolicyZone(Arc::new(zone)))
    }

    /// A zone with the answers of its records; with a rule, that is the answer of all of them.
    #[staticmethod]
    #[pyo3(signature = (name, names, *, rule=None, max_ttl=0, extended_error=None, structured=None))]
    fn from_records(
        py: Python<'_>,
        name: &str,
        names: &lists::Names,
        rule: Option<&Rule>,
        max_ttl: u32,
        extended_error: Option<u16>,
        structured: Option<(String, String)>,
    ) -> PyResult<PolicyZone> {
        let answers = match rule {
            Some(rule) => Answers::Override(policy::Rule::clone(&rule.0)),
            None => Answers::Given { max_ttl, extended_error, structured: boxed(structured) },
        };
        let names = Arc::clone(&names.0);
        let zone = py.detach(|| policy::PolicyZone::of_records(name, names, answers));
        let zone = zone.ok_or_else(|| PyValueError::new_err("not the names of a policy zone"))?;
        Ok(PolicyZone(Arc::new(zone)))
    }

    fn find_empty(&self, py: Python<'_>) {
        py.detach(|| self.0.find_empty());
    }

    /// Also how many owners cover less and more.
    #[pyo3(signature = (changes, *, zone, takes_wide, suffixes, suffix_parents, suffix_exceptions, protected))]
    #[allow(clippy::too_many_arguments, reason = "Python gives them by keyword")]
    fn amended(
        &self,
        py: Python<'_>,
        changes: &RecordChanges,
        zone: &str,
        takes_wide: bool,
        suffixes: Vec<String>,
        suffix_parents: Vec<String>,
        suffix_exceptions: Vec<String>,
        protected: Vec<String>,
    ) -> PyResult<Option<(PolicyZone, u64, u64)>> {
        let guard = lists::guard_of(&suffixes, &suffix_parents, &suffix_exceptions, &protected)?;
        let settings = list::zone::Settings { name: zone, guard: &guard, takes_wide, max_bytes: 0 };
        let lines = changes.0.iter().map(|(is_added, line)| (*is_added, line.as_slice()));
        let amend = || self.0.amended(&list::zone::changes(lines, &settings)?);
        let amended = py.detach(amend);
        Ok(amended.map(|Amended { zone, lost, gained }| (PolicyZone(Arc::new(zone)), lost, gained)))
    }

    #[staticmethod]
    fn from_triggers(py: Python<'_>, name: &str, names: &lists::Names, rule: &Rule) -> PyResult<PolicyZone> {
        let (names, rule) = (Arc::clone(&names.0), policy::Rule::clone(&rule.0));
        let zone = py.detach(|| policy::PolicyZone::of_triggers(name, rule, &names));
        let zone = zone.ok_or_else(|| PyValueError::new_err("a list of names, not of addresses"))?;
        Ok(PolicyZone(Arc::new(zone)))
    }

    #[staticmethod]
    fn from_addresses(py: Python<'_>, name: &str, data: &[u8], rule: &Rule) -> PyResult<PolicyZone> {
        let rule = policy::Rule::clone(&rule.0);
        compiled(py.detach(|| list::addresses(name, data, rule)))
    }

    #[staticmethod]
    fn from_entries(
        py: Python<'_>,
        name: &str,
        rules: Vec<PyRef<'_, Rule>>,
        data: &[u8],
    ) -> PyResult<PolicyZone> {
        let rules = rules.iter().map(|rule| rule.0.clone()).collect();
        compiled(py.detach(|| list::entries(name, rules, data)))
    }

    #[staticmethod]
    fn from_parts(
        py: Python<'_>,
        name: &str,
        rules: Vec<PyRef<'_, Rule>>,
        parts: Vec<(String, u32, String)>,
    ) -> PyResult<PolicyZone> {
        let rules = rules.iter().map(|rule| rule.0.clone()).collect();
        compiled(py.detach(|| list::entries(name, rules, &lines_of(parts))))
    }

    fn with_changes(
        &self,
        py: Python<'_>,
        rules: Vec<PyRef<'_, Rule>>,
        parts: Vec<(String, u32, String)>,
    ) -> PyResult<Option<PolicyZone>> {
        let rules = rules.iter().map(|rule| rule.0.clone()).collect();
        match py.detach(|| list::with_changes(&self.0, rules, &lines_of(parts))) {
            Ok(zone) => Ok(zone.map(|zone| PolicyZone(Arc::new(zone)))),
            Err(refused) => compiled(Err(refused)).map(Some),
        }
    }

    #[getter]
    fn is_grown(&self) -> bool {
        self.0.is_grown()
    }

    fn compiled_again(&self, py: Python<'_>) -> PyResult<PolicyZone> {
        compiled(py.detach(|| list::compiled_again(&self.0)))
    }

    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    #[getter]
    fn opens_for_clients(&self) -> bool {
        self.0.opens_for_clients()
    }

    #[getter]
    fn entries(&self) -> usize {
        self.0.listed()
    }

    #[getter]
    fn digest(&self) -> String {
        digest_text(self.0.digest())
    }
}

/// The entries of all parts, one per line.
fn lines_of(parts: Vec<(String, u32, String)>) -> Vec<u8> {
    let mut lines = String::new();
    for (scope, rule, names) in parts {
        let begin = format!("{scope} {rule} ");
        for name in names.split('\n') {
            lines.extend([&begin, name, "\n"]);
        }
    }
    lines.into_bytes()
}

fn compiled(result: Result<policy::PolicyZone, list::ZoneError>) -> PyResult<PolicyZone> {
    match result {
        Ok(zone) => Ok(PolicyZone(Arc::new(zone))),
        Err(list::ZoneError::InvalidLines { lines, total }) => {
            let lines: Vec<_> =
                lines.into_iter().map(|line| (line.number, line.value, line.reason)).collect();
            Err(ListRefused::new_err((lines, total)))
        }
        Err(list::ZoneError::NotCompiled(error)) => Err(lists::not_compiled(error)),
    }
}

//------- Snapshot -----------------------------------------------------------

/// A zone and its options in a snapshot.
#[pyclass(frozen, module = "dnsblock._engine")]
pub struct PlacedZone {
    #[pyo3(get)]
    zone: Py<PolicyZone>,
    next_change_at: Option<u64>,
    judges_targets: bool,
    is_shadow: bool,
    clients: Option<Arc<Prefixes>>,
    is_list: bool,
}

#[pymethods]
impl PlacedZone {
    #[new]
    #[pyo3(signature = (zone, *, next_change_at, judges_targets, is_shadow, is_list, clients=None))]
    fn new(
        zone: Py<PolicyZone>,
        next_change_at: Option<u64>,
        judges_targets: bool,
        is_shadow: bool,
        is_list: bool,
        clients: Option<Vec<(IpAddr, u8)>>,
    ) -> PlacedZone {
        let prefix = |(address, length)| Prefix { address, length };
        let clients = clients.map(|clients| Arc::new(Prefixes::new(clients.into_iter().map(prefix))));
        PlacedZone { zone, next_change_at, judges_targets, is_shadow, clients, is_list }
    }
}

fn placed(zones: &[PyRef<'_, PlacedZone>]) -> Vec<policy::PlacedZone> {
    let place = |placed: &PyRef<'_, PlacedZone>| policy::PlacedZone {
        zone: Arc::clone(&placed.zone.get().0),
        next_change_at: placed.next_change_at,
        judges_targets: placed.judges_targets,
        is_shadow: placed.is_shadow,
        clients: placed.clients.clone(),
        is_list: placed.is_list,
    };
    zones.iter().map(place).collect()
}

fn nat64_prefixes(prefixes: Vec<(IpAddr, u8)>) -> PyResult<Nat64> {
    let prefixes = prefixes.into_iter().map(|(address, length)| Prefix { address, length });
    Nat64::new(prefixes)
        .ok_or_else(|| PyValueError::new_err("a NAT64 prefix has 32, 40, 48, 56, 64 or 96 bits"))
}

#[pyclass(frozen, module = "dnsblock._engine")]
pub struct Snapshot(pub Arc<policy::Snapshot>);

#[pymethods]
impl Snapshot {
    #[new]
    #[pyo3(signature = (zones, serial, nat64=Vec::new(), allowed=None))]
    fn new(
        py: Python<'_>,
        zones: Vec<PyRef<'_, PlacedZone>>,
        serial: u32,
        nat64: Vec<(IpAddr, u8)>,
        allowed: Option<&PolicyZone>,
    ) -> PyResult<Snapshot> {
        let (zones, nat64) = (placed(&zones), nat64_prefixes(nat64)?);
        let allowed = allowed.map(|zone| Arc::clone(&zone.0));
        let make = || policy::Snapshot::with_allowed(zones, nat64, allowed, serial);
        Ok(Snapshot(Arc::new(py.detach(make))))
    }

    #[staticmethod]
    #[pyo3(signature = (zones, nat64=Vec::new(), allowed=None))]
    fn digest_of(
        zones: Vec<PyRef<'_, PlacedZone>>,
        nat64: Vec<(IpAddr, u8)>,
        allowed: Option<&PolicyZone>,
    ) -> PyResult<String> {
        let allowed = allowed.map(|zone| &*zone.0);
        Ok(digest_text(&policy::Snapshot::digest_of(&placed(&zones), &nat64_prefixes(nat64)?, allowed)))
    }

    #[pyo3(signature = (target, client=None))]
    fn covering(&self, target: NameOrAddress, client: Option<IpAddr>) -> PyResult<Vec<Covering>> {
        let clients = Transport::ALL.map(|transport| match client {
            Some(address) => QueryClient { transport, address },
            None => QueryClient::anybody(transport),
        });
        match target {
            NameOrAddress::Name(text) => Ok(self.covering_name(&name(&text)?, clients)),
            NameOrAddress::Address(address) => Ok(self.covering_address(address, clients)),
        }
    }

    /// Writes the enforced zones to a file or a pipe. Returns entries, records, and what was left out.
    fn export(
        &self,
        py: Python<'_>,
        descriptor: RawFd,
        kind: &str,
        head: &str,
        origin: &str,
    ) -> PyResult<(u64, u64, BTreeMap<&'static str, u64>)> {
        let format = export::Format::from_name(kind).ok_or_else(|| refused("a format", kind))?;
        let (origin, file) = (name(origin)?, File::from(sys::duplicate(descriptor)?));
        let out = BufWriter::with_capacity(BUFFER, file);
        let exported = py.detach(|| export::write(&self.0, format, head, &origin, out))?;
        Ok((exported.entries, exported.records, exported.left_out))
    }

    #[getter]
    fn serial(&self) -> u32 {
        self.0.serial()
    }

    #[getter]
    fn digest(&self) -> String {
        digest_text(self.0.digest())
    }

    #[getter]
    fn entries(&self) -> usize {
        self.0.zones().iter().map(|zone| zone.zone.listed()).sum()
    }
}

#[derive(FromPyObject)]
enum NameOrAddress {
    Name(String),
    Address(IpAddr),
}

impl Snapshot {
    fn covering_name(&self, name: &Name, clients: [QueryClient; 2]) -> Vec<Covering> {
        // The zone and the entry that decide; `None` as entry: the address of the client.
        let [over_udp, over_tcp] = clients.map(|client| {
            let decision = self.0.find(name, client);
            decision.map(|decision| (Some(decision.zone), decision.is_of_name().then_some(decision.skip)))
        });
        let decides = |here| [over_udp == Some(here), over_tcp == Some(here)];
        let by_client = self.covering_client(clients[0].address, |place| decides((place, None)));
        let by_name = self.0.covering(name).into_iter().map(|(place, zone, found)| {
            let owner = Name::parse(name.suffix(found.skip), 0).expect("a suffix of a name is a name").0;
            let entry = (owner.to_string(), found.scope.name());
            Covering::new(place, zone, entry, found.rule, decides((place, Some(found.skip))))
        });
        by_client.into_iter().chain(by_name).collect()
    }

    fn covering_client(&self, client: IpAddr, decides: impl Fn(Option<usize>) -> [bool; 2]) -> Vec<Covering> {
        let covering = self.0.covering_client(client).into_iter().map(|(place, zone, prefix, rule)| {
            Covering::new(place, zone, (prefix.to_string(), "client"), rule, decides(place))
        });
        covering.collect()
    }

    fn covering_address(&self, address: IpAddr, clients: [QueryClient; 2]) -> Vec<Covering> {
        // The zone that decides, and whether it does so by the address of the client.
        let [over_udp, over_tcp] = clients.map(|client| {
            let (by_client, mut evaluation) = (self.0.find_client(client), Evaluation::all(client));
            if let Some(decision) = &by_client {
                if !decision.is_passthru() {
                    return Some((Some(decision.zone), true));
                }
                evaluation = evaluation.after(decision);
            }
            let by_address = self.0.find_address(address, evaluation);
            let by_address = by_address.map(|decision| (Some(decision.zone), false));
            by_address.or_else(|| by_client.map(|decision| (Some(decision.zone), true)))
        });
        let decides = |here| [over_udp == Some(here), over_tcp == Some(here)];
        let by_client = self.covering_client(clients[0].address, |place| decides((place, true)));
        let mut last = None;
        let covering = self.0.covering_address(address).into_iter().map(|(place, zone, prefix, rule)| {
            // The longest prefix of a zone comes first, and decides.
            let is_first = place.is_some() && last != place;
            last = place.or(last);
            let decides = decides((place, false)).map(|decides| decides && is_first);
            Covering::new(place, zone, (prefix.to_string(), "prefix"), rule, decides)
        });
        by_client.into_iter().chain(covering).collect()
    }
}

/// An entry that covers a name or an address.
#[pyclass(frozen, get_all, module = "dnsblock._engine")]
pub struct Covering {
    zone: String,
    entry: String,
    scope: String,
    action: Option<String>,
    /// Of a policy zone whose records give the answers: these, without their owner.
    records: Vec<String>,
    decides: bool,
    decides_over_tcp: bool,
    is_shadow: bool,
}

impl Covering {
    fn new(
        place: Option<usize>,
        zone: &policy::PolicyZone,
        (entry, scope): (String, &str),
        rule: &policy::Rule,
        [decides, decides_over_tcp]: [bool; 2],
    ) -> Covering {
        let action = match rule {
            policy::Rule::Exemption => None,
            policy::Rule::Answer { answer, .. } => Some(answer.action.name().to_string()),
        };
        let records = match rule {
            policy::Rule::Answer { answer, .. } if answer.is_given => data_of(answer, true).to_vec(),
            _ => Vec::new(),
        };
        Covering {
            zone: zone.name().to_string(),
            entry,
            scope: scope.to_string(),
            action,
            records,
            decides,
            decides_over_tcp,
            is_shadow: place.is_none(),
        }
    }
}
