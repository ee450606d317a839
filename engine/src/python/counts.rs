//! The counters of the worker threads, for Python.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use pyo3::prelude::*;

use crate::counters::{
    Counters, LATENCY_BOUNDS, ORDERS, OUTCOMES, RCODES, REFUSED, RESPONSE_BOUNDS, RESPONSE_SOURCES,
    ResponseTimes, SLIPS, TCP_REFUSED,
};
use crate::engine;
use crate::notify;
use crate::policy::Action;
use crate::upstream::health::CHECK_RESULTS;

/// Buckets by upper bound, and the sum of the observed times, in seconds.
type Histogram = (Vec<(f64, u64)>, f64);

/// The counters of all worker threads, summed.
#[pyclass(frozen, get_all, module = "dnsblock._engine")]
pub struct Counts {
    queries: HashMap<(&'static str, &'static str), u64>,
    blocked: HashMap<(String, &'static str), u64>,
    shadow_blocked: HashMap<(String, &'static str), u64>,
    /// By the counter of the order, without those that are zero.
    order_blocked: HashMap<u16, u64>,
    upstreams: Vec<Py<UpstreamCounts>>,
    tcp_connections: u64,
    tcp_refused: HashMap<&'static str, u64>,
    outstanding: u64,
    panics: u64,
    unsent: u64,
    truncated: u64,
    dropped_records: u64,
    limited: HashMap<&'static str, u64>,
    rcodes: HashMap<&'static str, u64>,
    /// Response times by origin.
    waited: HashMap<&'static str, Histogram>,
    joined: u64,
    prefetched: u64,
    notifies: HashMap<&'static str, u64>,
    refused: HashMap<&'static str, u64>,
    cache_entries: usize,
    cache_bytes: u64,
    cache_evictions: u64,
    dnstap_sent: u64,
    dnstap_failed_connections: u64,
    dnstap_dropped: HashMap<&'static str, u64>,
    is_dnstap_connected: Option<bool>,
}

/// The counters of one upstream.
#[pyclass(frozen, get_all, module = "dnsblock._engine")]
pub struct UpstreamCounts {
    address: (String, u16),
    udp_queries: u64,
    tcp_queries: u64,
    timeouts: u64,
    network_errors: u64,
    mismatches: u64,
    taken_over: u64,
    refused: u64,
    failures: u64,
    is_up: bool,
    is_without_edns: bool,
    is_suspected: bool,
    /// The Unix time of the last change to up or down, and its reason.
    changed: Option<(u64, String)>,
    outstanding: u32,
    health_checks: HashMap<&'static str, u64>,
    latency_buckets: Vec<(f64, u64)>,
    latency_seconds: f64,
}

impl Counts {
    pub fn sum(py: Python<'_>, engine: &engine::Engine) -> PyResult<Counts> {
        let workers = engine.counters();
        let total = |read: &dyn Fn(&Counters) -> u64| workers.iter().map(|c| read(c)).sum::<u64>();
        let labelled = |labels: &[&'static str], read: &dyn Fn(&Counters, usize) -> u64| {
            labels.iter().enumerate().map(|(place, label)| (*label, total(&|c| read(c, place)))).collect()
        };
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
        let asked = engine.upstream();
        let upstreams = asked.servers.iter();
        let upstreams = upstreams.map(|server| UpstreamCounts::sum(server.address, engine, server.place));
        let cache = engine.cache().size();
        Ok(Counts {
            queries,
            blocked,
            shadow_blocked,
            order_blocked: by_order(workers),
            upstreams: upstreams.map(|counts| Py::new(py, counts)).collect::<PyResult<_>>()?,
            tcp_connections: total(&|c| c.tcp_connections.get()),
            tcp_refused: labelled(&TCP_REFUSED, &|c, place| c.tcp_refused[place].get()),
            outstanding: total(&|c| c.outstanding.get()),
            panics: total(&|c| c.panics.get()),
            unsent: total(&|c| c.unsent.get()),
            truncated: total(&|c| c.truncated.get()),
            dropped_records: total(&|c| c.dropped_records.get()),
            limited: labelled(&SLIPS, &|c, place| c.limited[place].get()),
            rcodes: labelled(&RCODES, &|c, place| c.rcodes[place].get()),
            waited: waited_by_source(workers),
            joined: total(&|c| c.joined.get()),
            prefetched: total(&|c| c.prefetched.get()),
            notifies: labelled(&notify::RESULTS, &|c, place| c.notifies[place].get()),
            refused: labelled(&REFUSED, &|c, place| c.refused[place].get()),
            cache_entries: cache.0,
            cache_bytes: cache.1,
            cache_evictions: cache.2,
            dnstap_sent: engine.dnstap().sent.load(Relaxed),
            dnstap_failed_connections: engine.dnstap().failed_connections.load(Relaxed),
            dnstap_dropped: HashMap::from([
                ("queue_full", total(&|c| c.dnstap_dropped.get())),
                ("stopped", engine.dnstap().unsent.load(Relaxed)),
            ]),
            is_dnstap_connected: engine.is_dnstap_connected(),
        })
    }
}

/// Blocked queries by the counter of the order.
fn by_order(workers: &[Arc<Counters>]) -> HashMap<u16, u64> {
    let of = |counter: u16| workers.iter().map(|c| c.of_order(usize::from(counter))).sum::<u64>();
    (1..ORDERS as u16).map(|counter| (counter, of(counter))).filter(|(_, count)| *count > 0).collect()
}

/// The histograms of response times by origin.
fn waited_by_source(workers: &[Arc<Counters>]) -> HashMap<&'static str, Histogram> {
    RESPONSE_SOURCES.into_iter().enumerate().map(|(from, name)| (name, waited(workers, from))).collect()
}

/// The histogram of response times.
fn waited(workers: &[Arc<Counters>], from: usize) -> Histogram {
    let of = |read: &dyn Fn(&ResponseTimes) -> u64| {
        workers.iter().map(|c| read(&c.response_times[from])).sum::<u64>()
    };
    let bounds = RESPONSE_BOUNDS.into_iter().chain([f64::INFINITY]).enumerate();
    let buckets = bounds.map(|(place, bound)| (bound, of(&|waited| waited.buckets[place].get()))).collect();
    (buckets, of(&|waited| waited.nanoseconds.get()) as f64 / 1e9)
}

impl UpstreamCounts {
    fn sum(address: SocketAddr, engine: &engine::Engine, place: usize) -> UpstreamCounts {
        let health = engine.health();
        let results = CHECK_RESULTS.into_iter().enumerate();
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
            taken_over: all().map(|u| u.failed_over.get()).sum(),
            refused: all().map(|u| u.refused.get()).sum(),
            failures: all().map(|u| u.failures.get()).sum(),
            is_up: health.is_up(place),
            is_without_edns: health.has_refused_edns(place),
            is_suspected: health.is_suspected(place),
            changed: health.last_change(place),
            outstanding: health.outstanding(place),
            health_checks: results.map(|(index, result)| (result, health.checks(place, index))).collect(),
            latency_buckets: bounds.map(|(index, bound)| (bound, bucket(index))).collect(),
            latency_seconds: all().map(|u| u.latency_nanoseconds.get()).sum::<u64>() as f64 / 1e9,
        }
    }
}
