//! Counts of queried names for Python: those of a day, and those that a zone would have blocked.

use std::sync::Arc;

use pyo3::create_exception;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::policy::{PolicyZone, Snapshot};
use crate::query_counts::day::Day;
use crate::query_counts::past;

create_exception!(_engine, DayCorrupt, PyValueError);

/// Name, match, and queries at least and at most.
type Entry = (String, &'static str, u64, u64);

#[pyclass(frozen, module = "dnsblock._engine")]
pub struct DayCounts(pub Day);

#[pymethods]
impl DayCounts {
    #[staticmethod]
    fn read(py: Python<'_>, data: &[u8]) -> PyResult<DayCounts> {
        let day = py.detach(|| Day::read(data));
        day.map(DayCounts).map_err(|error| DayCorrupt::new_err(error.to_string()))
    }

    fn plus(&self, py: Python<'_>, other: &DayCounts, max_bytes: usize) -> PyResult<DayCounts> {
        let day = py.detach(|| self.0.and(&other.0, max_bytes));
        day.map(DayCounts).map_err(|error| DayCorrupt::new_err(error.to_string()))
    }

    #[getter]
    fn data(&self) -> &[u8] {
        self.0.data()
    }

    #[getter]
    fn queries(&self) -> u64 {
        self.0.head.queries
    }

    #[getter]
    fn listed(&self) -> u64 {
        self.0.listed
    }

    #[getter]
    fn bound(&self) -> u64 {
        self.0.head.bound
    }

    #[getter]
    fn hours(&self) -> u32 {
        self.0.head.hours
    }

    #[getter]
    fn names(&self) -> usize {
        self.0.names
    }
}

#[pyclass(frozen, get_all, module = "dnsblock._engine")]
pub struct PastImpact {
    queries: u64,
    listed: u64,
    bound: u64,
    blocked: u64,
    blocked_at_most: u64,
    decided: u64,
    blocking_entries: usize,
    queried_entries: usize,
    blocked_by_day: Vec<u64>,
    entries: Vec<Entry>,
    names: Vec<(String, u64)>,
}

/// Raises `DayCorrupt`.
#[pyfunction]
#[pyo3(signature = (zone, snapshot, days, *, top))]
pub fn past_impact(
    py: Python<'_>,
    zone: &PolicyZone,
    snapshot: &Snapshot,
    days: Vec<PyRef<'_, DayCounts>>,
    top: usize,
) -> PyResult<PastImpact> {
    let (zone, snapshot) = (Arc::clone(&zone.0), Arc::clone(&snapshot.0));
    let days: Vec<Day> = days.iter().map(|day| day.0.clone()).collect();
    let impact = py.detach(|| past::past_impact(zone, &snapshot, &days, top));
    let impact = impact.map_err(|error| DayCorrupt::new_err(error.to_string()))?;
    let entry = |one: past::PastEntry| (one.name, one.covers.name(), one.queries, one.at_most);
    Ok(PastImpact {
        queries: impact.queries,
        listed: impact.listed,
        bound: impact.bound,
        blocked: impact.blocked,
        blocked_at_most: impact.blocked_at_most,
        decided: impact.decided,
        blocking_entries: impact.blocking_entries,
        queried_entries: impact.queried_entries,
        blocked_by_day: impact.blocked_by_day,
        entries: impact.entries.into_iter().map(entry).collect(),
        names: impact.names,
    })
}
