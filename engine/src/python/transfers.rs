//! Zone transfers, for Python.

use std::path::PathBuf;

use pyo3::create_exception;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::{name, refused};
use crate::sys;
use crate::transfer::{self, Failed, Kind, Settings, SoaNumbers, Wanted};
use crate::tsig;

create_exception!(_engine, TransferFailed, PyRuntimeError);

fn failed(Failed { code, reason }: Failed) -> PyErr {
    TransferFailed::new_err((code, reason))
}

#[pyclass(frozen, module = "dnsblock._engine")]
pub struct TsigKey(pub tsig::Key);

#[pymethods]
impl TsigKey {
    #[new]
    fn new(name: &str, algorithm: &str, secret: &[u8]) -> PyResult<TsigKey> {
        tsig::key(name, algorithm, secret).map(TsigKey).ok_or_else(|| refused("a key", name))
    }
}

#[pyclass(frozen, get_all, module = "dnsblock._engine")]
pub struct Soa {
    serial: u32,
    refresh: u32,
    retry: u32,
    expire: u32,
}

impl From<SoaNumbers> for Soa {
    fn from(SoaNumbers { serial, refresh, retry, expire }: SoaNumbers) -> Soa {
        Soa { serial, refresh, retry, expire }
    }
}

/// The records that an incremental transfer removes and adds, as lines.
#[pyclass(frozen, module = "dnsblock._engine")]
pub struct RecordChanges(pub Vec<(bool, Vec<u8>)>);

#[pymethods]
impl RecordChanges {
    fn __len__(&self) -> usize {
        self.0.len()
    }
}

#[pyclass(module = "dnsblock._engine")]
pub struct Transfer(transfer::Transfer);

#[pymethods]
impl Transfer {
    #[new]
    #[pyo3(signature = (zone, *, key, copy, into, max_records, max_bytes))]
    fn new(
        zone: &str,
        key: Option<&TsigKey>,
        copy: Option<PathBuf>,
        into: PathBuf,
        max_records: u64,
        max_bytes: u64,
    ) -> PyResult<Transfer> {
        let key = key.map(|key| key.0.clone());
        let settings = Settings { zone: name(zone)?, key, copy, into, max_records, max_bytes };
        Ok(Transfer(transfer::Transfer::new(settings)))
    }

    #[getter]
    fn serial(&self) -> Option<u32> {
        self.0.serial()
    }

    #[getter]
    fn soa(&self) -> Option<Soa> {
        self.0.soa().map(Soa::from)
    }

    #[pyo3(signature = (rtype, least=None))]
    fn query(&mut self, py: Python<'_>, rtype: &str, least: Option<u32>) -> PyResult<Py<PyBytes>> {
        let wanted = match rtype {
            "SOA" => Wanted::Soa,
            "IXFR" => Wanted::Changes,
            "AXFR" => Wanted::Whole,
            other => return Err(refused("a type of query", other)),
        };
        let message = self.0.query(wanted, least).map_err(failed)?;
        Ok(PyBytes::new(py, &message).unbind())
    }

    fn take(&mut self, py: Python<'_>, received: &[u8]) -> PyResult<bool> {
        py.detach(|| self.0.take(received)).map_err(failed)
    }

    fn changes(&self, py: Python<'_>) -> Option<RecordChanges> {
        py.detach(|| self.0.changed_lines()).map(RecordChanges)
    }

    fn finish(&mut self, py: Python<'_>) -> PyResult<Option<&'static str>> {
        let finish = || {
            let kind = self.0.finish();
            sys::trim_heap();
            kind
        };
        Ok(match py.detach(finish).map_err(failed)? {
            Kind::Nothing => None,
            Kind::Incremental => Some("ixfr"),
            Kind::Whole => Some("axfr"),
        })
    }
}

/// Whether a serial is newer than another one (RFC 1982).
#[pyfunction]
pub fn is_newer(serial: u32, than: u32) -> bool {
    transfer::is_newer(serial, than)
}
