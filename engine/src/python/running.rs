//! The engine for Python: start, publish, stop, and impact runs.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use super::counts::Counts;
use super::policy::{PolicyZone, Snapshot};
use super::query_counts::DayCounts;
use super::settings::{Rules, Settings};
use crate::cache::Purge;
use crate::engine::{self, EngineError};
use crate::query_counts::day::Day;
use crate::transport::listeners::{self, Bound, Inherited};
use crate::{impact, sys};

/// Bound listen addresses that are not served yet.
#[pyclass(frozen, module = "dnsblock._engine")]
pub struct Listening(Arc<listeners::Listening>);

fn addresses(listen: Vec<(IpAddr, u16)>) -> Vec<SocketAddr> {
    listen.into_iter().map(|(address, port)| SocketAddr::new(address, port)).collect()
}

#[pyclass(frozen, module = "dnsblock._engine")]
pub struct Engine(engine::Engine);

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (listen, workers, settings, inherited))]
    fn new(
        py: Python<'_>,
        listen: Vec<(IpAddr, u16)>,
        workers: usize,
        settings: &Settings,
        inherited: Vec<RawFd>,
    ) -> PyResult<Engine> {
        if workers == 0 {
            return Err(PyValueError::new_err("no worker threads"));
        }
        let inherited = inherited.into_iter().map(sys::duplicate).collect::<io::Result<_>>()?;
        let (listen, settings) = (addresses(listen), settings.0.clone());
        py.detach(|| engine::Engine::bind(&listen, workers, settings, Inherited::new(inherited)))
            .map(Engine)
            .map_err(error)
    }

    fn start(&self, py: Python<'_>, snapshot: &Snapshot, rules: &Rules) -> PyResult<()> {
        let (snapshot, rules) = (Arc::clone(&snapshot.0), Arc::clone(&rules.0));
        py.detach(|| self.0.start(snapshot, rules)).map_err(error)
    }

    fn check(&self, py: Python<'_>, snapshot: &Snapshot) -> PyResult<()> {
        py.detach(|| self.0.check(&snapshot.0)).map_err(error)
    }

    fn listen(&self, py: Python<'_>, listen: Vec<(IpAddr, u16)>) -> PyResult<Listening> {
        let listen = addresses(listen);
        py.detach(|| self.0.listen(&listen)).map(Listening).map_err(error)
    }

    #[pyo3(signature = (snapshot, rules, settings = None, listening = None))]
    fn publish(
        &self,
        py: Python<'_>,
        snapshot: &Snapshot,
        rules: &Rules,
        settings: Option<&Settings>,
        listening: Option<&Listening>,
    ) -> PyResult<()> {
        let (snapshot, rules) = (Arc::clone(&snapshot.0), Arc::clone(&rules.0));
        let change = engine::Change {
            settings: settings.map(|settings| settings.0.clone()),
            listening: listening.map(|listening| Arc::clone(&listening.0)),
        };
        py.detach(|| self.0.publish(snapshot, rules, change)).map_err(error)
    }

    fn begin_impact_run(&self, py: Python<'_>, zone: &PolicyZone) -> PyResult<ImpactRun> {
        py.detach(|| self.0.begin_impact_run(Arc::clone(&zone.0))).map(ImpactRun).map_err(error)
    }

    fn end_impact_run(&self, py: Python<'_>) {
        py.detach(|| self.0.end_impact_run());
    }

    fn count_queries(&self, py: Python<'_>, max_bytes: Option<usize>) {
        py.detach(|| self.0.count_queries(max_bytes));
    }

    fn make_way(&self, milliseconds: u64) {
        self.0.make_way(Duration::from_millis(milliseconds));
    }

    #[pyo3(signature = (*, hours, max_bytes, clears))]
    fn query_counts(&self, py: Python<'_>, hours: u32, max_bytes: usize, clears: bool) -> Option<DayCounts> {
        let table = self.0.query_counts()?;
        let day = py.detach(|| {
            let day = Day::of(&table.counted(clears), hours, max_bytes);
            sys::trim_heap();
            day
        });
        Some(DayCounts(day))
    }

    fn stop(&self, py: Python<'_>, timeout_ms: u64) {
        py.detach(|| self.0.stop(Duration::from_millis(timeout_ms)));
    }

    fn addresses(&self) -> Vec<(String, u16)> {
        let listening = self.0.listening();
        let configured = listening.configured().iter();
        configured.map(|bound| (bound.address.ip().to_string(), bound.address.port())).collect()
    }

    fn sockets(&self) -> Vec<((String, u16), Vec<RawFd>)> {
        let listening = self.0.listening();
        let sockets = |bound: &Arc<Bound>| {
            let address = (bound.address.ip().to_string(), bound.address.port());
            (address, bound.descriptors().map(|descriptor| descriptor.as_raw_fd()).collect())
        };
        listening.iter().map(sockets).collect()
    }

    fn running(&self) -> usize {
        self.0.running()
    }

    fn take_events(&self, py: Python<'_>) -> Vec<String> {
        py.detach(|| self.0.take_events())
    }

    fn notified_descriptor(&self) -> RawFd {
        self.0.notified().descriptor().as_raw_fd()
    }

    fn take_notified(&self) -> Vec<(String, IpAddr)> {
        self.0.notified().take().into_iter().map(|(zone, from)| (zone.to_string(), from)).collect()
    }

    fn counters(&self, py: Python<'_>) -> PyResult<Counts> {
        Counts::sum(py, &self.0)
    }

    fn purge(&self, py: Python<'_>, name: Option<&str>, below: bool) -> PyResult<usize> {
        let name = name.map(super::name).transpose()?;
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
pub struct ImpactRun(Arc<impact::ImpactRun>);

#[pymethods]
impl ImpactRun {
    fn counts(&self, py: Python<'_>, top: usize) -> ImpactCounts {
        let counts = py.detach(|| self.0.counts(top));
        let impact::ImpactCounts { queries, blocked, decided, blocking_names, queried_names, top } = counts;
        ImpactCounts { queries, blocked, decided, blocking_names, queried_names, top }
    }
}

/// The counts of an impact run.
#[pyclass(frozen, get_all, module = "dnsblock._engine")]
pub struct ImpactCounts {
    queries: u64,
    blocked: u64,
    decided: u64,
    blocking_names: usize,
    queried_names: usize,
    top: Vec<(String, u64)>,
}

fn error(error: EngineError) -> PyErr {
    match error {
        EngineError::Bind(address, error) => {
            // The arguments of OSError: errno, message and file name.
            PyOSError::new_err((error.raw_os_error().unwrap_or(0), error.to_string(), address.to_string()))
        }
        EngineError::Io(error) => error.into(),
        EngineError::TooManyZones => PyValueError::new_err("more than 64 zones"),
        EngineError::TooManyZoneNames => {
            PyValueError::new_err("more than 256 zone names since the start; restart the daemon")
        }
        EngineError::TooManyUpstreams => PyValueError::new_err(
            "more than 64 upstreams, with those that are being left: change them in two reloads",
        ),
        EngineError::NotNow => PyRuntimeError::new_err("the engine is not in that state"),
    }
}
