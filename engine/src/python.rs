//! The Python bindings: few calls with large arguments, and no callbacks. Only this file and
//! its folder use pyo3. `dnsblock/_engine.pyi` documents the types.
//!
//! Everything that compiles, binds, joins or locks runs detached from the interpreter. Worker
//! threads never attach to it.

use std::borrow::Cow;
use std::path::PathBuf;

use pyo3::create_exception;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::name::Name;
use crate::{digests, list, sealed};

mod counts;
mod lists;
mod policy;
mod privileges;
mod query_counts;
mod running;
mod settings;
mod transfers;

create_exception!(_engine, ListRefused, PyValueError);
create_exception!(_engine, NotAName, PyValueError);

#[pymodule]
mod _engine {
    #[pymodule_export]
    use super::lists::{
        CompiledList, ListDifference, ListUnreadable, Names, NamesUnusable, NotCompiled, Progress,
        compile_list, compile_zone, zone_files,
    };

    #[pymodule_export]
    use super::policy::{Answer, Covering, PlacedZone, PolicyZone, Rule, Snapshot};

    #[pymodule_export]
    use super::settings::{
        AccessControl, CacheOptions, ClientIdentity, Dnstap, Forwarding, HealthCheck, LocalZones, RateLimits,
        Rules, Settings, Suffixes, TcpLimits, TransferredZone, Upstream,
    };

    #[pymodule_export]
    use super::running::{Engine, ImpactCounts, ImpactRun, Listening};

    #[pymodule_export]
    use super::query_counts::{DayCorrupt, DayCounts, PastImpact, past_impact};

    #[pymodule_export]
    use super::transfers::{RecordChanges, Soa, Transfer, TransferFailed, TsigKey, is_newer};

    #[pymodule_export]
    use super::privileges::{keep_capabilities, keep_net_bind_service};

    #[pymodule_export]
    use super::counts::{Counts, UpstreamCounts};

    #[pymodule_export]
    use super::{ListRefused, NotAName, canonical_name, file_digests, sealed_lines, tree_parents};

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "the name in Python")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    const BUILD_PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

    #[pymodule_export]
    const SHOWN_FROM: u32 = crate::query_counts::SHOWN_FROM;

    #[pymodule_export]
    const MAX_TRIES: usize = crate::upstream::MAX_TRIES;
}

fn refused(what: &str, value: &str) -> PyErr {
    PyValueError::new_err(format!("not {what}: '{value}'"))
}

fn name(text: &str) -> PyResult<Name> {
    Name::from_text(text.as_bytes()).map_err(|error| PyValueError::new_err(format!("'{text}': {error}")))
}

fn digest_text(digest: &[u8; 32]) -> String {
    format!("sha256:{}", hex(digest))
}

fn hex(bytes: &[u8; 32]) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Uses the parser of lists.
#[pyfunction]
fn canonical_name(text: &str) -> PyResult<String> {
    let name = list::canonical(text).map_err(|reason| NotAName::new_err(reason.to_string()))?;
    Ok(name.to_string())
}

/// The data, the hash in hexadecimal, the leaf hash, and whether the digest is right, of each line.
#[pyfunction]
fn sealed_lines<'a>(py: Python<'_>, data: &'a [u8]) -> Vec<SealedLine<'a>> {
    let as_tuple = |line: sealed::Line<'a>| {
        (line.data.into(), hex(&line.hash), line.leaf.to_vec().into(), line.is_sealed)
    };
    py.detach(|| sealed::lines(data).into_iter().map(as_tuple).collect())
}

/// The parents of these hashes in a Merkle tree.
#[pyfunction]
fn tree_parents(hashes: &[u8]) -> Cow<'static, [u8]> {
    sealed::tree_parents(hashes).into()
}

type SealedLine<'a> = (Cow<'a, [u8]>, String, Cow<'static, [u8]>, bool);

/// The digest of each file in hexadecimal; none for a file that `digests::of_file` does not read.
#[pyfunction]
fn file_digests(py: Python<'_>, paths: Vec<PathBuf>, max_bytes: u64) -> Vec<Option<String>> {
    let digest = |path: &PathBuf| digests::of_file(path, max_bytes).map(|digest| hex(&digest));
    py.detach(|| paths.iter().map(digest).collect())
}
