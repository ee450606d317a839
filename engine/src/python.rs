//! The Python face: few calls, big arguments, no callbacks. The only file that
//! names pyo3. Its types and documentation are in `dnsblock/_engine.pyi`.
//!
//! Whatever compiles, binds, joins or locks runs detached from the
//! interpreter; packet threads never attach to it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pyo3::create_exception;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::cache::{Keeping, Purge};
use crate::cookie::Secrets;
use crate::counters::{Counters, LATENCY_BOUNDS, OUTCOMES, SLIPS};
use crate::engine::{self, EngineError};
use crate::limits::Rates;
use crate::local::{Local, Switches};
use crate::name::{Name, Walk};
use crate::policy::names::SEED;
use crate::policy::{self, Action, Structured, Target};
use crate::prefix::{Prefix, Prefixes};
use crate::upstream::health::PROBE_RESULTS;
use crate::{answer, list, shared, sys, tcp, trial, upstream};

mod lists;

create_exception!(_engine, ListRefused, PyValueError);

#[pymodule]
mod _engine {
    #[pymodule_export]
    use super::lists::{
        CompiledList, ListDifference, Names, NamesUnusable, NotCompiled, Progress, compile_list,
    };

    #[pymodule_export]
    use super::{
        Answer, Counts, Covering, Engine, ListRefused, PolicyZone, Probe, Rule, Rules, Settings, Snapshot,
        Tally, Trial, UpstreamCounts,
    };

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "Python's own name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    const BUILD_PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

    #[pymodule_export]
    const MAX_ATTEMPTS: usize = super::upstream::MAX_ATTEMPTS;
}

fn refused(what: &str, value: &str) -> PyErr {
    PyValueError::new_err(format!("not {what}: '{value}'"))
}

fn name(text: &str) -> PyResult<Name> {
    Name::from_text(text.as_bytes()).map_err(|error| PyValueError::new_err(format!("'{text}': {error}")))
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
    /// A zone of compiled names: the first rule is that of what they list, the second of
    /// what they except.
    #[staticmethod]
    fn from_names(name: &str, names: &lists::Names, rule: &Rule) -> PyResult<PolicyZone> {
        let rules = vec![rule.0.clone(), policy::Rule::Hole];
        let zone = policy::PolicyZone::new(name, Arc::clone(&names.0), rules, 0);
        let zone = zone.ok_or_else(|| PyValueError::new_err("these names need other rules"))?;
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
        self.0.entries()
    }

    #[getter]
    fn duplicates(&self) -> usize {
        self.0.duplicates()
    }

    #[getter]
    fn digest(&self) -> String {
        digest_text(self.0.digest())
    }

    #[getter]
    fn memory(&self) -> usize {
        self.0.memory()
    }
}

fn compiled(result: Result<policy::PolicyZone, list::Refused>) -> PyResult<PolicyZone> {
    match result {
        Ok(zone) => Ok(PolicyZone(Arc::new(zone))),
        Err(list::Refused::Lines { problems, total }) => {
            let told: Vec<_> = problems.into_iter().map(|p| (p.line, p.value, p.reason)).collect();
            Err(ListRefused::new_err((told, total)))
        }
        Err(list::Refused::NotCompiled(error)) => Err(lists::not_compiled(error)),
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

/// An entry that covers a name.
#[pyclass(frozen, get_all, module = "dnsblock._engine")]
struct Covering {
    zone: String,
    entry: String,
    scope: String,
    action: Option<String>,
    reference: String,
    decides: bool,
    is_shadow: bool,
}

#[pymethods]
impl Snapshot {
    #[new]
    fn new(py: Python<'_>, zones: Vec<InPlace<'_>>, serial: u32) -> Snapshot {
        let zones = in_place(&zones);
        Snapshot(Arc::new(py.detach(|| policy::Snapshot::new(zones, serial))))
    }

    /// The digest that a snapshot of these zones has.
    #[staticmethod]
    fn digest_of(zones: Vec<InPlace<'_>>) -> String {
        digest_text(&policy::Snapshot::digest_of(&in_place(&zones)))
    }

    /// Every entry that covers the name, zones in order; at most one decides.
    fn covering(&self, text: &str) -> PyResult<Vec<Covering>> {
        let asked = name(text)?;
        let decision = self.0.find(&asked);
        let decision = decision.map(|decision| (Some(decision.zone), decision.skip));
        let covering = self.0.covering(&asked).into_iter().map(|(place, zone, found)| {
            let owner = Name::parse(asked.suffix(found.skip), 0).expect("a suffix of a name is a name").0;
            let decides = decision == Some((place, found.skip));
            let entry = Covering::new(zone, owner.to_string(), found.scope.name(), found.rule);
            Covering { decides, is_shadow: place.is_none(), ..entry }
        });
        Ok(covering.collect())
    }

    /// Every prefix that covers the address, zones in order; the first decides.
    fn covering_address(&self, address: IpAddr) -> Vec<Covering> {
        let decision = self.0.find_address(address, None).map(|decision| decision.zone);
        let mut decided = false;
        let covering = self.0.covering_address(address).into_iter().map(|(place, zone, prefix, rule)| {
            let decides = !decided && place.is_some() && decision == place;
            decided |= decides;
            let entry = Covering::new(zone, prefix.to_string(), "prefix", rule);
            Covering { decides, is_shadow: place.is_none(), ..entry }
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
        self.0.zones().iter().map(|zone| zone.zone.entries()).sum()
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
            is_shadow: false,
        }
    }
}

//------- Rules --------------------------------------------------------------

#[pyclass(frozen, module = "dnsblock._engine")]
struct Rules(Arc<answer::Rules>);

#[pymethods]
impl Rules {
    #[new]
    #[allow(clippy::too_many_arguments, reason = "Python gives them by keyword")]
    #[pyo3(signature = (*, clients, drop_others, exempt, queries_per_second, errors_per_second, slip,
        amplification, secrets, max_payload, idle_timeout_ms, structured_option, soa, special_names,
        private_reverse, canary, resinfo, cache_octets, max_ttl, max_negative_ttl, max_stale, prefetch))]
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
    ) -> PyResult<Rules> {
        let prefixes = |given: Vec<(IpAddr, u8)>| {
            Prefixes::new(given.into_iter().map(|(address, length)| Prefix { address, length }))
        };
        if !(512..=crate::sys::DATAGRAM).contains(&(max_payload as usize)) || amplification > 1000 {
            return Err(PyValueError::new_err("rules out of bounds"));
        }
        Ok(Rules(Arc::new(answer::Rules {
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
            soa: answer::Soa(name(&soa.0)?, name(&soa.1)?),
            local: Local::new(Switches { special_names, private_reverse, canary }, resinfo),
            keeping: Keeping { octets: cache_octets, max_ttl, max_negative_ttl, max_stale, prefetch },
        })))
    }
}

//------- Engine -------------------------------------------------------------

#[pyclass(frozen, module = "dnsblock._engine")]
struct Settings(shared::Settings);

#[pymethods]
impl Settings {
    #[new]
    #[allow(clippy::too_many_arguments, reason = "Python gives them by keyword")]
    #[pyo3(signature = (*, listen, workers, max_payload, upstreams, choice, attempts, attempt_timeout_ms,
        max_outstanding, probe, tells, max_connections, max_connections_per_client, max_pipelined, idle_timeout_ms,
        read_timeout_ms))]
    fn new(
        listen: Vec<(IpAddr, u16)>,
        workers: usize,
        max_payload: u16,
        upstreams: Vec<(IpAddr, u16, u32, u32)>,
        choice: &str,
        attempts: usize,
        attempt_timeout_ms: u64,
        max_outstanding: usize,
        probe: Option<&Probe>,
        tells: TellsOption,
        max_connections: usize,
        max_connections_per_client: usize,
        max_pipelined: usize,
        idle_timeout_ms: u64,
        read_timeout_ms: u64,
    ) -> PyResult<Settings> {
        let sound = workers >= 1
            && (1..=upstream::MAX_UPSTREAMS).contains(&upstreams.len())
            && upstreams.iter().all(|(_, _, weight, _)| (1..=100).contains(weight))
            && (1..=upstream::MAX_ATTEMPTS).contains(&attempts)
            && (1..=32_768).contains(&max_outstanding)
            && (512..=crate::sys::DATAGRAM).contains(&(max_payload as usize));
        if !sound {
            return Err(PyValueError::new_err("settings out of bounds"));
        }
        let server = |(address, port, weight, order)| upstream::Server {
            address: SocketAddr::new(address, port),
            weight,
            order,
        };
        Ok(Settings(shared::Settings {
            listen: listen.into_iter().map(|(address, port)| SocketAddr::new(address, port)).collect(),
            workers,
            upstream: upstream::Settings {
                servers: upstreams.into_iter().map(server).collect(),
                choice: upstream::Choice::from_name(choice).ok_or_else(|| refused("a choice", choice))?,
                attempts,
                timeout: Duration::from_millis(attempt_timeout_ms),
                max_outstanding,
                payload: max_payload,
                tells: tells_of(tells)?,
                probe: probe.map(|probe| probe.0.clone()),
            },
            tcp: tcp::Limits {
                connections: max_connections,
                per_client: max_connections_per_client,
                pipelined: max_pipelined,
                idle: Duration::from_millis(idle_timeout_ms),
                read: Duration::from_millis(read_timeout_ms),
            },
        }))
    }
}

/// `none`, `proxy` or `subnet`; and of the last, bits of IPv4 and IPv6, and whether of
/// private addresses too.
type TellsOption = (String, Option<(u8, u8, bool)>);

fn tells_of((what, bounds): TellsOption) -> PyResult<upstream::Tells> {
    match (what.as_str(), bounds) {
        ("none", None) => Ok(upstream::Tells::Nothing),
        ("proxy", None) => Ok(upstream::Tells::Proxy),
        ("subnet", Some((ipv4, ipv6, private))) if ipv4 <= 32 && ipv6 <= 128 => {
            Ok(upstream::Tells::Subnet(upstream::asker::Bounds { ipv4, ipv6, private }))
        }
        _ => Err(refused("what upstreams can be told", &what)),
    }
}

#[pyclass(frozen, module = "dnsblock._engine")]
struct Probe(upstream::Probe);

#[pymethods]
impl Probe {
    #[new]
    #[pyo3(signature = (*, question, qtype, interval_ms, timeout_ms, failures, successes))]
    fn new(
        question: &str,
        qtype: u16,
        interval_ms: u64,
        timeout_ms: u64,
        failures: u32,
        successes: u32,
    ) -> PyResult<Probe> {
        let asked = if question == "." { Name::root() } else { name(question)? };
        let [interval, timeout] = [interval_ms, timeout_ms].map(Duration::from_millis);
        if failures == 0 || successes == 0 || interval.is_zero() || timeout.is_zero() {
            return Err(PyValueError::new_err("probe out of bounds"));
        }
        Ok(Probe(upstream::Probe::new(&asked, qtype, interval, timeout, (failures, successes))))
    }
}

#[pyclass(frozen, module = "dnsblock._engine")]
struct Engine(engine::Engine);

#[pymethods]
impl Engine {
    #[new]
    fn new(py: Python<'_>, settings: &Settings) -> PyResult<Engine> {
        let settings = settings.0.clone();
        py.detach(|| engine::Engine::bind(settings)).map(Engine).map_err(error)
    }

    fn start(&self, py: Python<'_>, snapshot: &Snapshot, rules: &Rules) -> PyResult<()> {
        let (snapshot, rules) = (Arc::clone(&snapshot.0), Arc::clone(&rules.0));
        py.detach(|| self.0.start(snapshot, rules)).map_err(error)
    }

    fn check(&self, py: Python<'_>, snapshot: &Snapshot) -> PyResult<()> {
        py.detach(|| self.0.check(&snapshot.0)).map_err(error)
    }

    fn publish(&self, py: Python<'_>, snapshot: &Snapshot, rules: &Rules) -> PyResult<()> {
        let (snapshot, rules) = (Arc::clone(&snapshot.0), Arc::clone(&rules.0));
        py.detach(|| self.0.publish(snapshot, rules)).map_err(error)
    }

    fn begin_trial(&self, py: Python<'_>, zone: &PolicyZone) -> PyResult<Trial> {
        py.detach(|| self.0.begin_trial(Arc::clone(&zone.0))).map(Trial).map_err(error)
    }

    fn end_trial(&self, py: Python<'_>) {
        py.detach(|| self.0.end_trial());
    }

    fn stop(&self, py: Python<'_>, patience_ms: u64) {
        py.detach(|| self.0.stop(Duration::from_millis(patience_ms)));
    }

    fn addresses(&self) -> Vec<(String, u16)> {
        self.0.addresses().iter().map(|address| (address.ip().to_string(), address.port())).collect()
    }

    fn running(&self) -> usize {
        self.0.running()
    }

    fn take_events(&self, py: Python<'_>) -> Vec<String> {
        py.detach(|| self.0.take_events())
    }

    fn counters(&self, py: Python<'_>) -> PyResult<Counts> {
        Counts::sum(py, &self.0)
    }

    fn purge(&self, py: Python<'_>, name: Option<&str>, below: bool) -> PyResult<usize> {
        let name = name.map(self::name).transpose()?;
        let purge = match &name {
            None => Purge::All,
            Some(name) if below => Purge::Subtree(name),
            Some(name) => Purge::Name(name),
        };
        Ok(py.detach(|| {
            let purged = self.0.cache().purge(&purge);
            sys::trim_heap();
            purged
        }))
    }
}

#[pyclass(frozen, module = "dnsblock._engine")]
struct Trial(Arc<trial::Trial>);

#[pymethods]
impl Trial {
    fn tally(&self, py: Python<'_>, top: usize) -> Tally {
        let trial::Tally { queries, blocked, decided, blocking_names, asked_names, top } =
            py.detach(|| self.0.tally(top));
        Tally { queries, blocked, decided, blocking_names, asked_names, top }
    }
}

/// What a trial has counted.
#[pyclass(frozen, get_all, module = "dnsblock._engine")]
struct Tally {
    queries: u64,
    blocked: u64,
    decided: u64,
    blocking_names: usize,
    asked_names: usize,
    top: Vec<(String, u64)>,
}

fn error(error: EngineError) -> PyErr {
    match error {
        EngineError::Bind(address, error) => {
            // The errno travels as OSError's own; the address says which one.
            PyOSError::new_err((error.raw_os_error().unwrap_or(0), error.to_string(), address.to_string()))
        }
        EngineError::Io(error) => error.into(),
        EngineError::TooManyZones => PyValueError::new_err("more than 64 zones"),
        EngineError::TooManyZoneNames => {
            PyValueError::new_err("more than 256 zone names since the start; restart the daemon")
        }
        EngineError::NotNow => PyRuntimeError::new_err("the engine is not in that state"),
    }
}

//------- Counts -------------------------------------------------------------

/// All packet threads' counters, summed.
#[pyclass(frozen, get_all, module = "dnsblock._engine")]
struct Counts {
    queries: HashMap<(&'static str, &'static str), u64>,
    blocked: HashMap<(String, &'static str), u64>,
    shadow_blocked: HashMap<(String, &'static str), u64>,
    upstreams: Vec<Py<UpstreamCounts>>,
    tcp_connections: u64,
    tcp_refused: u64,
    outstanding: u64,
    panics: u64,
    unsent: u64,
    truncated: u64,
    limited: HashMap<&'static str, u64>,
    joined: u64,
    prefetched: u64,
    cache_entries: usize,
    cache_octets: u64,
    cache_evictions: u64,
}

/// What was counted about one upstream.
#[pyclass(frozen, get_all, module = "dnsblock._engine")]
struct UpstreamCounts {
    address: (String, u16),
    udp_queries: u64,
    tcp_queries: u64,
    timeouts: u64,
    network_errors: u64,
    mismatches: u64,
    taken_over: u64,
    unwilling: u64,
    is_up: bool,
    outstanding: u32,
    probes: HashMap<&'static str, u64>,
    latency_buckets: Vec<(f64, u64)>,
    latency_seconds: f64,
}

impl Counts {
    fn sum(py: Python<'_>, engine: &engine::Engine) -> PyResult<Counts> {
        let workers = engine.counters();
        let total = |read: &dyn Fn(&Counters) -> u64| workers.iter().map(|c| read(c)).sum::<u64>();
        let mut queries = HashMap::new();
        for (transport, of) in ["udp", "tcp"].into_iter().enumerate() {
            for (place, outcome) in OUTCOMES.into_iter().enumerate() {
                queries.insert((of, outcome), total(&|c| c.queries[transport][place].get()));
            }
        }
        let (mut blocked, mut shadow_blocked) = (HashMap::new(), HashMap::new());
        for (zone, slot) in engine.zone_slots() {
            for (place, (_, action)) in Action::ALL.into_iter().enumerate() {
                let count = total(&|c| c.blocked(slot as usize, place));
                blocked.insert((zone.clone(), action), count);
                let count = total(&|c| c.shadow_blocked(slot as usize, place));
                shadow_blocked.insert((zone.clone(), action), count);
            }
        }
        let upstreams = engine.settings().upstream.servers.iter().enumerate();
        let upstreams = upstreams.map(|(place, server)| UpstreamCounts::sum(server.address, engine, place));
        let cache = engine.cache().size();
        Ok(Counts {
            queries,
            blocked,
            shadow_blocked,
            upstreams: upstreams.map(|counts| Py::new(py, counts)).collect::<PyResult<_>>()?,
            tcp_connections: total(&|c| c.tcp_connections.get()),
            tcp_refused: total(&|c| c.tcp_refused.get()),
            outstanding: total(&|c| c.outstanding.get()),
            panics: total(&|c| c.panics.get()),
            unsent: total(&|c| c.unsent.get()),
            truncated: total(&|c| c.truncated.get()),
            limited: SLIPS
                .into_iter()
                .enumerate()
                .map(|(i, how)| (how, total(&|c| c.limited[i].get())))
                .collect(),
            joined: total(&|c| c.joined.get()),
            prefetched: total(&|c| c.prefetched.get()),
            cache_entries: cache.0,
            cache_octets: cache.1,
            cache_evictions: cache.2,
        })
    }
}

impl UpstreamCounts {
    fn sum(address: SocketAddr, engine: &engine::Engine, place: usize) -> UpstreamCounts {
        let health = engine.health();
        let probes = PROBE_RESULTS.into_iter().enumerate();
        let all = || engine.counters().iter().map(|counters| &counters.upstreams[place]);
        let bounds = LATENCY_BOUNDS.into_iter().chain([f64::INFINITY]).enumerate();
        let bucket = |index: usize| all().map(|u| u.latency_buckets[index].get()).sum();
        UpstreamCounts {
            address: (address.ip().to_string(), address.port()),
            udp_queries: all().map(|u| u.udp_queries.get()).sum(),
            tcp_queries: all().map(|u| u.tcp_queries.get()).sum(),
            timeouts: all().map(|u| u.timeouts.get()).sum(),
            network_errors: all().map(|u| u.network_errors.get()).sum(),
            mismatches: all().map(|u| u.mismatches.get()).sum(),
            taken_over: all().map(|u| u.taken_over.get()).sum(),
            unwilling: all().map(|u| u.unwilling.get()).sum(),
            is_up: health.is_up(place),
            outstanding: health.outstanding(place),
            probes: probes.map(|(index, result)| (result, health.probes(place, index))).collect(),
            latency_buckets: bounds.map(|(index, bound)| (bound, bucket(index))).collect(),
            latency_seconds: all().map(|u| u.latency_nanoseconds.get()).sum::<u64>() as f64 / 1e9,
        }
    }
}
