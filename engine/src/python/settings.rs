//! The options of the engine: `Rules` decide queries beside the snapshot, `Settings` are
//! for receiving and forwarding them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::transfers::TsigKey;
use super::{name, refused};
use crate::cookie::Secrets;
use crate::limits::Rates;
use crate::local::{Local, Switches};
use crate::name::Name;
use crate::prefix::{Prefix, Prefixes};
use crate::response::TtlBounds;
use crate::sys::DATAGRAM;
use crate::transport::tcp;
use crate::{cache, dnstap, message, notify, rules, shared, suffixes, tsig, upstream};

/// A network: an address and the length of its prefix.
type Network = (IpAddr, u8);

fn prefixes(networks: Vec<Network>) -> Prefixes {
    Prefixes::new(networks.into_iter().map(|(address, length)| Prefix { address, length }))
}

fn is_payload_size(bytes: u16) -> bool {
    (512..=DATAGRAM).contains(&usize::from(bytes))
}

//------- Rules --------------------------------------------------------------

#[pyclass(frozen, module = "dnsblock._engine")]
pub struct Suffixes(Arc<suffixes::Suffixes>);

#[pymethods]
impl Suffixes {
    #[new]
    fn new(names: Vec<String>, parents: Vec<String>, exceptions: Vec<String>) -> PyResult<Suffixes> {
        let read = |texts: &[String]| texts.iter().map(|text| name(text)).collect::<PyResult<Vec<_>>>();
        let [names, parents, exceptions] = [read(&names)?, read(&parents)?, read(&exceptions)?];
        Ok(Suffixes(Arc::new(suffixes::Suffixes::new(&names, &parents, &exceptions))))
    }
}

#[pyclass(frozen, module = "dnsblock._engine")]
pub struct AccessControl {
    allow: Prefixes,
    drops_others: bool,
}

#[pymethods]
impl AccessControl {
    #[new]
    #[pyo3(signature = (*, allow, drops_others))]
    fn new(allow: Vec<Network>, drops_others: bool) -> AccessControl {
        AccessControl { allow: prefixes(allow), drops_others }
    }
}

#[pyclass(frozen, module = "dnsblock._engine")]
pub struct RateLimits {
    rates: Rates,
    amplification: usize,
    exempt: Prefixes,
}

#[pymethods]
impl RateLimits {
    #[new]
    #[pyo3(signature = (*, queries_per_second, errors_per_second, slip, amplification, exempt))]
    fn new(
        queries_per_second: u32,
        errors_per_second: u32,
        slip: u32,
        amplification: usize,
        exempt: Vec<Network>,
    ) -> PyResult<RateLimits> {
        if amplification > 1000 {
            return Err(PyValueError::new_err("amplification out of range"));
        }
        let rates = Rates { queries: queries_per_second, errors: errors_per_second, slip };
        Ok(RateLimits { rates, amplification, exempt: prefixes(exempt) })
    }
}

#[pyclass(frozen, module = "dnsblock._engine")]
pub struct CacheOptions {
    settings: cache::Settings,
    ttl_bounds: TtlBounds,
}

#[pymethods]
impl CacheOptions {
    #[new]
    #[pyo3(signature = (*, cache_bytes, max_ttl, max_negative_ttl, max_stale, prefetch))]
    fn new(
        cache_bytes: u64,
        max_ttl: u32,
        max_negative_ttl: u32,
        max_stale: u32,
        prefetch: bool,
    ) -> CacheOptions {
        CacheOptions {
            settings: cache::Settings { bytes: cache_bytes, max_stale, prefetch },
            ttl_bounds: TtlBounds { max_ttl, max_negative_ttl },
        }
    }
}

#[pyclass(frozen, module = "dnsblock._engine")]
pub struct LocalZones {
    switches: Switches,
    resinfo: Option<Vec<u8>>,
    snapshot_clients: Prefixes,
}

#[pymethods]
impl LocalZones {
    #[new]
    #[pyo3(signature = (*, special_names, private_reverse, canary, resinfo, snapshot_clients))]
    fn new(
        special_names: bool,
        private_reverse: bool,
        canary: bool,
        resinfo: Option<Vec<u8>>,
        snapshot_clients: Vec<Network>,
    ) -> LocalZones {
        let switches = Switches { special_names, private_reverse, canary };
        LocalZones { switches, resinfo, snapshot_clients: prefixes(snapshot_clients) }
    }
}

impl LocalZones {
    fn local(&self) -> Local {
        Local::new(self.switches, self.resinfo.clone(), self.snapshot_clients.clone())
    }
}

/// A zone that is received by transfer.
#[pyclass(frozen, module = "dnsblock._engine")]
pub struct TransferredZone {
    zone: String,
    label: String,
    from: Vec<Network>,
    key: Option<tsig::Key>,
}

#[pymethods]
impl TransferredZone {
    #[new]
    #[pyo3(signature = (zone, label, *, notify_from, key))]
    fn new(zone: String, label: String, notify_from: Vec<Network>, key: Option<&TsigKey>) -> TransferredZone {
        TransferredZone { zone, label, from: notify_from, key: key.map(|key| key.0.clone()) }
    }
}

impl TransferredZone {
    fn zone(&self) -> PyResult<notify::Zone> {
        let (name, label) = (name(&self.zone)?, self.label.as_str().into());
        Ok(notify::Zone { name, label, from: prefixes(self.from.clone()), key: self.key.clone() })
    }
}

#[pyclass(frozen, module = "dnsblock._engine")]
pub struct Rules(pub Arc<rules::Rules>);

#[pymethods]
impl Rules {
    #[new]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments in Python")]
    #[pyo3(signature = (*, access_control, rate_limits, cache, local_zones, cookie_secrets, max_payload,
        idle_timeout_ms, structured_option, soa, suffixes, transferred, dnstap))]
    fn new(
        access_control: &AccessControl,
        rate_limits: &RateLimits,
        cache: &CacheOptions,
        local_zones: &LocalZones,
        cookie_secrets: Vec<[u8; 16]>,
        max_payload: u16,
        idle_timeout_ms: u64,
        structured_option: Option<u16>,
        soa: (String, String),
        suffixes: &Suffixes,
        transferred: Vec<PyRef<'_, TransferredZone>>,
        dnstap: Option<&Dnstap>,
    ) -> PyResult<Rules> {
        if !is_payload_size(max_payload) {
            return Err(PyValueError::new_err("max_payload out of range"));
        }
        let zones = transferred.iter().map(|zone| zone.zone()).collect::<PyResult<_>>()?;
        Ok(Rules(Arc::new(rules::Rules {
            transferred: Arc::new(notify::Zones(zones)),
            clients: access_control.allow.clone(),
            drop_others: access_control.drops_others,
            exempt: rate_limits.exempt.clone(),
            rates: rate_limits.rates,
            amplification: rate_limits.amplification,
            secrets: Secrets(cookie_secrets),
            max_payload,
            // RFC 7828 3.4: 0 would request the end of the connection.
            keepalive: u16::try_from(idle_timeout_ms / 100).unwrap_or(u16::MAX).max(1),
            structured_option,
            soa: message::Soa(name(&soa.0)?, name(&soa.1)?),
            local: local_zones.local(),
            ttl_bounds: cache.ttl_bounds,
            cache: cache.settings,
            suffixes: Arc::clone(&suffixes.0),
            dnstap: dnstap.map(|dnstap| Arc::clone(&dnstap.0)),
        })))
    }
}

/// The dnstap output.
#[pyclass(frozen, module = "dnsblock._engine")]
pub struct Dnstap(Arc<dnstap::Settings>);

#[pymethods]
impl Dnstap {
    #[new]
    #[pyo3(signature = (*, socket, tcp, messages, identity, version, client_prefix))]
    fn new(
        socket: Option<PathBuf>,
        tcp: Option<(IpAddr, u16)>,
        messages: &str,
        identity: Option<String>,
        version: Option<String>,
        client_prefix: (u8, u8),
    ) -> PyResult<Dnstap> {
        let reader = match (socket, tcp) {
            (Some(path), None) => dnstap::Reader::Unix(path),
            (None, Some((address, port))) => dnstap::Reader::Tcp(SocketAddr::new(address, port)),
            _ => return Err(PyValueError::new_err("either socket or tcp")),
        };
        let (ipv4, ipv6) = client_prefix;
        if ipv4 > 32 || ipv6 > 128 {
            return Err(PyValueError::new_err("prefix length out of range"));
        }
        Ok(Dnstap(Arc::new(dnstap::Settings {
            reader,
            messages: dnstap::Messages::from_name(messages)
                .ok_or_else(|| refused("a choice of messages", messages))?,
            identity: identity.map(String::into_bytes),
            version: version.map(String::into_bytes),
            client_prefix: dnstap::redaction::ClientPrefix { ipv4, ipv6 },
        })))
    }
}

//------- Settings -----------------------------------------------------------

#[pyclass(frozen, module = "dnsblock._engine")]
pub struct Upstream(upstream::Server);

#[pymethods]
impl Upstream {
    #[new]
    #[pyo3(signature = (address, port, *, weight, order))]
    fn new(address: IpAddr, port: u16, weight: u32, order: u32) -> PyResult<Upstream> {
        if !(1..=100).contains(&weight) {
            return Err(PyValueError::new_err("weight out of range"));
        }
        Ok(Upstream(upstream::Server { address: SocketAddr::new(address, port), weight, order, place: 0 }))
    }
}

#[pyclass(frozen, module = "dnsblock._engine")]
pub struct HealthCheck(upstream::HealthCheck);

#[pymethods]
impl HealthCheck {
    #[new]
    #[pyo3(signature = (*, qname, qtype, interval_ms, timeout_ms, failures, successes))]
    fn new(
        qname: &str,
        qtype: u16,
        interval_ms: u64,
        timeout_ms: u64,
        failures: u32,
        successes: u32,
    ) -> PyResult<HealthCheck> {
        let qname = if qname == "." { Name::root() } else { name(qname)? };
        let [interval, timeout] = [interval_ms, timeout_ms].map(Duration::from_millis);
        if failures == 0 || successes == 0 || interval.is_zero() || timeout.is_zero() {
            return Err(PyValueError::new_err("health check out of range"));
        }
        Ok(HealthCheck(upstream::HealthCheck::new(&qname, qtype, interval, timeout, (failures, successes))))
    }
}

#[pyclass(frozen, module = "dnsblock._engine")]
pub struct ClientIdentity(upstream::ClientIdentity);

#[pymethods]
impl ClientIdentity {
    /// A PROXY protocol header before each query.
    #[staticmethod]
    fn proxy() -> ClientIdentity {
        ClientIdentity(upstream::ClientIdentity::Proxy)
    }

    /// EDNS Client Subnet (RFC 7871).
    #[staticmethod]
    #[pyo3(signature = (*, ipv4_prefix, ipv6_prefix, sends_private))]
    fn ecs(ipv4_prefix: u8, ipv6_prefix: u8, sends_private: bool) -> PyResult<ClientIdentity> {
        if ipv4_prefix > 32 || ipv6_prefix > 128 {
            return Err(PyValueError::new_err("prefix length out of range"));
        }
        let bounds = upstream::client_identity::PrefixLimits {
            ipv4: ipv4_prefix,
            ipv6: ipv6_prefix,
            private: sends_private,
        };
        Ok(ClientIdentity(upstream::ClientIdentity::Subnet(bounds)))
    }
}

#[pyclass(frozen, module = "dnsblock._engine")]
pub struct Forwarding(upstream::Settings);

#[pymethods]
impl Forwarding {
    #[new]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments in Python")]
    #[pyo3(signature = (upstreams, *, selection, tries, timeout_ms, max_outstanding, health_check,
        client_identity, max_payload))]
    fn new(
        upstreams: Vec<PyRef<'_, Upstream>>,
        selection: &str,
        tries: usize,
        timeout_ms: u64,
        max_outstanding: usize,
        health_check: Option<&HealthCheck>,
        client_identity: Option<&ClientIdentity>,
        max_payload: u16,
    ) -> PyResult<Forwarding> {
        let is_valid = (1..=upstream::MAX_UPSTREAMS).contains(&upstreams.len())
            && (1..=upstream::MAX_TRIES).contains(&tries)
            && (1..=32_768).contains(&max_outstanding)
            && is_payload_size(max_payload);
        if !is_valid {
            return Err(PyValueError::new_err("forwarding options out of range"));
        }
        Ok(Forwarding(upstream::Settings {
            servers: upstreams.iter().map(|upstream| upstream.0).collect(),
            choice: upstream::Choice::from_name(selection)
                .ok_or_else(|| refused("a selection", selection))?,
            tries,
            timeout: Duration::from_millis(timeout_ms),
            max_outstanding,
            payload: max_payload,
            client_identity: client_identity.map_or(upstream::ClientIdentity::None, |identity| identity.0),
            health_check: health_check.map(|check| check.0.clone()),
        }))
    }
}

#[pyclass(frozen, module = "dnsblock._engine")]
pub struct TcpLimits(tcp::Limits);

#[pymethods]
impl TcpLimits {
    #[new]
    #[pyo3(signature = (*, max_connections, max_connections_per_client, max_connections_per_network,
        max_pipelined, idle_timeout_ms, read_timeout_ms))]
    fn new(
        max_connections: usize,
        max_connections_per_client: usize,
        max_connections_per_network: Option<usize>,
        max_pipelined: usize,
        idle_timeout_ms: u64,
        read_timeout_ms: u64,
    ) -> TcpLimits {
        TcpLimits(tcp::Limits {
            connections: max_connections,
            per_client: max_connections_per_client,
            per_network: max_connections_per_network,
            pipelined: max_pipelined,
            idle: Duration::from_millis(idle_timeout_ms),
            read: Duration::from_millis(read_timeout_ms),
        })
    }
}

#[pyclass(frozen, module = "dnsblock._engine")]
pub struct Settings(pub shared::Settings);

#[pymethods]
impl Settings {
    #[new]
    fn new(forwarding: &Forwarding, tcp: &TcpLimits) -> Settings {
        Settings(shared::Settings { upstream: forwarding.0.clone(), tcp: tcp.0 })
    }
}
