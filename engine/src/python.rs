//! The Python face: few calls, big arguments, no callbacks. Nothing but this and what is
//! in its folder names pyo3. Its types and documentation are in `dnsblock/_engine.pyi`.
//!
//! Whatever compiles, binds, joins or locks runs detached from the
//! interpreter; worker threads never attach to it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use pyo3::create_exception;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::cookie::Secrets;
use crate::limits::Rates;
use crate::local::{Local, Switches};
use crate::message::Transport;
use crate::name::{Name, Walk};
use crate::nat64::Nat64;
use crate::policy::names::SEED;
use crate::policy::{self, Action, Judges, Structured, Target};
use crate::prefix::{Prefix, Prefixes};
use crate::response::TtlBounds;
use crate::{cache, list, message, rules, suffixes, upstream};

mod counts;
mod lists;
mod privileges;
mod running;

create_exception!(_engine, ListRefused, PyValueError);
create_exception!(_engine, NotAName, PyValueError);

#[pymodule]
mod _engine {
    #[pymodule_export]
    use super::lists::{
        CompiledList, ListDifference, ListUnreadable, Names, NamesUnusable, NotCompiled, Progress,
        compile_list,
    };

    #[pymodule_export]
    use super::running::{Engine, Listening, Probe, Settings, Tally, Trial};

    #[pymodule_export]
    use super::privileges::{keep_capabilities, keep_net_bind_service};

    #[pymodule_export]
    use super::counts::{Counts, UpstreamCounts};

    #[pymodule_export]
    use super::{
        Answer, Covering, ListRefused, NotAName, PolicyZone, Rule, Rules, Snapshot, Suffixes, canonical_name,
    };

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "Python's own name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    const BUILD_PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

    #[pymodule_export]
    const MAX_ATTEMPTS: usize = super::upstream::MAX_TRIES;
}

fn refused(what: &str, value: &str) -> PyErr {
    PyValueError::new_err(format!("not {what}: '{value}'"))
}

fn name(text: &str) -> PyResult<Name> {
    Name::from_text(text.as_bytes()).map_err(|error| PyValueError::new_err(format!("'{text}': {error}")))
}

/// Lists are read by the same parser.
#[pyfunction]
fn canonical_name(text: &str) -> PyResult<String> {
    let name = list::canonical(text).map_err(|reason| NotAName::new_err(reason.to_string()))?;
    Ok(name.to_string())
}

//------- Answer, Rule -------------------------------------------------------

#[pyclass(frozen, module = "dnsblock._engine")]
struct Answer(Arc<policy::Answer>);

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
            return Err(PyValueError::new_err("a target belongs to action cname, and to no other"));
        }
        let (mut ipv4, mut ipv6) = (Vec::new(), Vec::new());
        for address in addresses {
            match address {
                IpAddr::V4(address) => ipv4.push(address),
                IpAddr::V6(address) => ipv6.push(address),
            }
        }
        Ok(Answer(Arc::new(policy::Answer { action, ttl, extended_error, ipv4, ipv6, target })))
    }
}

fn target_of(text: &str) -> PyResult<Target> {
    match text.strip_prefix("*.") {
        Some(parent) => name(parent).map(Target::Under),
        None => name(text).map(Target::Name),
    }
}

#[pyclass(frozen, module = "dnsblock._engine")]
struct Rule(policy::Rule);

#[pymethods]
impl Rule {
    #[new]
    #[pyo3(signature = (answer, reference="", structured=None))]
    fn new(answer: Option<&Answer>, reference: &str, structured: Option<(String, String)>) -> Rule {
        let structured = structured.map(|(whole, brief)| {
            Box::new(Structured { whole: whole.into_boxed_str(), brief: brief.into_boxed_str() })
        });
        Rule(match answer {
            Some(answer) => {
                let answer = Arc::clone(&answer.0);
                policy::Rule::Answer { answer, reference: reference.into(), structured }
            }
            None => policy::Rule::Hole,
        })
    }
}

//------- PolicyZone ---------------------------------------------------------

#[pyclass(frozen, module = "dnsblock._engine")]
struct PolicyZone(Arc<policy::PolicyZone>);

#[pymethods]
impl PolicyZone {
    /// A zone of compiled names: the first rule is that of what they list, the others are
    /// those of exceptions.
    #[staticmethod]
    fn from_names(name: &str, names: &lists::Names, rule: &Rule) -> PyResult<PolicyZone> {
        let rules = vec![rule.0.clone(), policy::Rule::Hole, policy::Rule::passthru()];
        let zone = policy::PolicyZone::new(name, Arc::clone(&names.0), rules, &list::RULES_ARE_EXCEPTIONS);
        let zone = zone.ok_or_else(|| PyValueError::new_err("these names need other rules"))?;
        Ok(PolicyZone(Arc::new(zone)))
    }

    /// A zone of a compiled list of addresses.
    #[staticmethod]
    fn from_triggers(py: Python<'_>, name: &str, names: &lists::Names, rule: &Rule) -> PyResult<PolicyZone> {
        let (names, rule) = (Arc::clone(&names.0), rule.0.clone());
        let zone = py.detach(|| policy::PolicyZone::of_triggers(name, rule, &names));
        let zone = zone.ok_or_else(|| PyValueError::new_err("these are names, not addresses"))?;
        Ok(PolicyZone(Arc::new(zone)))
    }

    #[staticmethod]
    fn from_addresses(py: Python<'_>, name: &str, data: &[u8], rule: &Rule) -> PyResult<PolicyZone> {
        let rule = rule.0.clone();
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

    /// One octet a line: 1 where the zone covers the name.
    fn lookup<'py>(&self, py: Python<'py>, names: &[u8]) -> Bound<'py, pyo3::types::PyBytes> {
        let zone = &self.0;
        let found: Vec<u8> = py.detach(|| {
            let covers = |line: &[u8]| {
                let name = Name::from_text(line).ok()?;
                zone.find(&name, &Walk::new(&name, SEED))
            };
            let names = names.strip_suffix(b"\n").unwrap_or(names);
            names.split(|&octet| octet == b'\n').map(|line| u8::from(covers(line).is_some())).collect()
        });
        pyo3::types::PyBytes::new(py, &found)
    }

    #[getter]
    fn name(&self) -> &str {
        self.0.name()
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

fn compiled(result: Result<policy::PolicyZone, list::ZoneError>) -> PyResult<PolicyZone> {
    match result {
        Ok(zone) => Ok(PolicyZone(Arc::new(zone))),
        Err(list::ZoneError::Lines { problems, total }) => {
            let told: Vec<_> = problems.into_iter().map(|p| (p.line, p.value, p.reason)).collect();
            Err(ListRefused::new_err((told, total)))
        }
        Err(list::ZoneError::NotCompiled(error)) => Err(lists::not_compiled(error)),
    }
}

fn digest_text(digest: &[u8; 32]) -> String {
    let mut text = String::from("sha256:");
    for octet in digest {
        let _ = write!(text, "{octet:02x}");
    }
    text
}

//------- Snapshot -----------------------------------------------------------

#[pyclass(frozen, module = "dnsblock._engine")]
struct Snapshot(Arc<policy::Snapshot>);

/// A zone, when it changes next, whether it judges targets, and whether it is in shadow.
type InPlace<'py> = (PyRef<'py, PolicyZone>, Option<u64>, bool, bool);

fn in_place(zones: &[InPlace<'_>]) -> Vec<policy::ZoneInPlace> {
    let place = |(zone, next_change_at, judges_targets, is_shadow): &InPlace<'_>| policy::ZoneInPlace {
        zone: Arc::clone(&zone.0),
        next_change_at: *next_change_at,
        judges_targets: *judges_targets,
        is_shadow: *is_shadow,
    };
    zones.iter().map(place).collect()
}

fn nat64_prefixes(prefixes: Vec<(IpAddr, u8)>) -> PyResult<Nat64> {
    let prefixes = prefixes.into_iter().map(|(address, length)| Prefix { address, length });
    Nat64::new(prefixes)
        .ok_or_else(|| PyValueError::new_err("a NAT64 prefix has 32, 40, 48, 56, 64 or 96 bits"))
}

/// An entry that covers a name.
#[pyclass(frozen, get_all, module = "dnsblock._engine")]
struct Covering {
    zone: String,
    entry: String,
    scope: String,
    action: Option<String>,
    reference: String,
    decides: bool,
    decides_over_tcp: bool,
    is_shadow: bool,
}

#[pymethods]
impl Snapshot {
    #[new]
    #[pyo3(signature = (zones, serial, nat64=Vec::new()))]
    fn new(
        py: Python<'_>,
        zones: Vec<InPlace<'_>>,
        serial: u32,
        nat64: Vec<(IpAddr, u8)>,
    ) -> PyResult<Snapshot> {
        let (zones, nat64) = (in_place(&zones), nat64_prefixes(nat64)?);
        Ok(Snapshot(Arc::new(py.detach(|| policy::Snapshot::with_nat64(zones, nat64, serial)))))
    }

    /// The digest that a snapshot of these zones has.
    #[staticmethod]
    #[pyo3(signature = (zones, nat64=Vec::new()))]
    fn digest_of(zones: Vec<InPlace<'_>>, nat64: Vec<(IpAddr, u8)>) -> PyResult<String> {
        Ok(digest_text(&policy::Snapshot::digest_of(&in_place(&zones), &nat64_prefixes(nat64)?)))
    }

    /// Every entry that covers the name, zones in order; at most one decides.
    fn covering(&self, text: &str) -> PyResult<Vec<Covering>> {
        let asked = name(text)?;
        let [over_udp, over_tcp] = Transport::ALL.map(|transport| {
            self.0.find(&asked, transport).map(|decision| (Some(decision.zone), decision.skip))
        });
        let covering = self.0.covering(&asked).into_iter().map(|(place, zone, found)| {
            let owner = Name::parse(asked.suffix(found.skip), 0).expect("a suffix of a name is a name").0;
            let here = Some((place, found.skip));
            let (decides, decides_over_tcp) = (over_udp == here, over_tcp == here);
            let entry = Covering::new(zone, owner.to_string(), found.scope.name(), found.rule);
            Covering { decides, decides_over_tcp, is_shadow: place.is_none(), ..entry }
        });
        Ok(covering.collect())
    }

    /// Every prefix that covers the address, zones in order; the first decides.
    fn covering_address(&self, address: IpAddr) -> Vec<Covering> {
        let [over_udp, over_tcp] = Transport::ALL.map(|transport| {
            let decision = self.0.find_address(address, Judges::all(transport));
            decision.map(|decision| decision.zone)
        });
        let mut decided = None;
        let covering = self.0.covering_address(address).into_iter().map(|(place, zone, prefix, rule)| {
            // Of a zone's prefixes, the first.
            let is_first = place.is_some() && decided != place;
            decided = place.or(decided);
            let (decides, decides_over_tcp) = (is_first && over_udp == place, is_first && over_tcp == place);
            let entry = Covering::new(zone, prefix.to_string(), "prefix", rule);
            Covering { decides, decides_over_tcp, is_shadow: place.is_none(), ..entry }
        });
        covering.collect()
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

impl Covering {
    fn new(zone: &policy::PolicyZone, entry: String, scope: &str, rule: &policy::Rule) -> Covering {
        let (action, reference) = match rule {
            policy::Rule::Hole => (None, ""),
            policy::Rule::Answer { answer, reference, .. } => {
                (Some(answer.action.name().to_string()), &**reference)
            }
        };
        Covering {
            zone: zone.name().to_string(),
            entry,
            scope: scope.to_string(),
            action,
            reference: reference.to_string(),
            decides: false,
            decides_over_tcp: false,
            is_shadow: false,
        }
    }
}

//------- Suffixes -----------------------------------------------------------

#[pyclass(frozen, module = "dnsblock._engine")]
struct Suffixes(Arc<suffixes::Suffixes>);

#[pymethods]
impl Suffixes {
    #[new]
    fn new(names: Vec<String>, parents: Vec<String>, exceptions: Vec<String>) -> PyResult<Suffixes> {
        let read = |texts: &[String]| texts.iter().map(|text| name(text)).collect::<PyResult<Vec<_>>>();
        let [names, parents, exceptions] = [read(&names)?, read(&parents)?, read(&exceptions)?];
        Ok(Suffixes(Arc::new(suffixes::Suffixes::new(&names, &parents, &exceptions))))
    }
}

//------- Rules --------------------------------------------------------------

#[pyclass(frozen, module = "dnsblock._engine")]
struct Rules(Arc<rules::Rules>);

#[pymethods]
impl Rules {
    #[new]
    #[allow(clippy::too_many_arguments, reason = "Python gives them by keyword")]
    #[pyo3(signature = (*, clients, drop_others, exempt, queries_per_second, errors_per_second, slip,
        amplification, secrets, max_payload, idle_timeout_ms, structured_option, soa, special_names,
        private_reverse, canary, resinfo, cache_octets, max_ttl, max_negative_ttl, max_stale, prefetch, suffixes))]
    fn new(
        clients: Vec<(IpAddr, u8)>,
        drop_others: bool,
        exempt: Vec<(IpAddr, u8)>,
        queries_per_second: u32,
        errors_per_second: u32,
        slip: u32,
        amplification: usize,
        secrets: Vec<[u8; 16]>,
        max_payload: u16,
        idle_timeout_ms: u64,
        structured_option: Option<u16>,
        soa: (String, String),
        special_names: bool,
        private_reverse: bool,
        canary: bool,
        resinfo: Option<Vec<u8>>,
        cache_octets: u64,
        max_ttl: u32,
        max_negative_ttl: u32,
        max_stale: u32,
        prefetch: bool,
        suffixes: &Suffixes,
    ) -> PyResult<Rules> {
        let prefixes = |given: Vec<(IpAddr, u8)>| {
            Prefixes::new(given.into_iter().map(|(address, length)| Prefix { address, length }))
        };
        if !(512..=crate::sys::DATAGRAM).contains(&(max_payload as usize)) || amplification > 1000 {
            return Err(PyValueError::new_err("rules out of bounds"));
        }
        Ok(Rules(Arc::new(rules::Rules {
            clients: prefixes(clients),
            drop_others,
            exempt: prefixes(exempt),
            rates: Rates { queries: queries_per_second, errors: errors_per_second, slip },
            amplification,
            secrets: Secrets(secrets),
            max_payload,
            // RFC 7828 3.4: 0 would ask for the end of the connection.
            keepalive: u16::try_from(idle_timeout_ms / 100).unwrap_or(u16::MAX).max(1),
            structured_option,
            soa: message::Soa(name(&soa.0)?, name(&soa.1)?),
            local: Local::new(Switches { special_names, private_reverse, canary }, resinfo),
            ttl_bounds: TtlBounds { max_ttl, max_negative_ttl },
            cache: cache::Settings { bytes: cache_octets, max_stale, prefetch },
            suffixes: Arc::clone(&suffixes.0),
        })))
    }
}
