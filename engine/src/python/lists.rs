//! Compiled lists, for Python.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use pyo3::create_exception;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::{digest_text, hex, name, refused};
use crate::list::zone::{self, CompiledZone, Verdict};
use crate::list::{
    self, Exceptions, Failure, Finding, Format, ListFile, NameGuard, Repairs, Report, Settings,
};
use crate::name::{Name, Walk};
use crate::policy::Match;
use crate::policy::compiler::{CompileError, Compiled, Destination};
use crate::policy::difference::{Difference, ScopeFacts};
use crate::policy::names::{self, SEED, Unusable};
use crate::sys;

create_exception!(_engine, NotCompiled, PyRuntimeError);
create_exception!(_engine, NamesUnusable, PyValueError);
create_exception!(_engine, ListUnreadable, PyValueError);

pub fn not_compiled(error: CompileError) -> PyErr {
    match error {
        CompileError::Io(error) => PyErr::from(error),
        error => NotCompiled::new_err(error.to_string()),
    }
}

//------- Names --------------------------------------------------------------

#[pyclass(frozen, module = "dnsblock._engine")]
pub struct Names(pub Arc<names::Names>);

#[pymethods]
impl Names {
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf, sha256: &str) -> PyResult<Names> {
        let expected = sha256_of(sha256).ok_or_else(|| refused("a SHA-256", sha256))?;
        match py.detach(|| names::Names::open(&path, &expected)) {
            Ok(names) => Ok(Names(Arc::new(names))),
            Err(Unusable::Unreadable(error)) => Err(PyErr::from(error)),
            Err(Unusable::Corrupt) => {
                Err(NamesUnusable::new_err("its content has another SHA-256 than requested"))
            }
            Err(Unusable::Foreign) => Err(NamesUnusable::new_err("not a compiled list of this version")),
        }
    }

    fn scope(&self, text: &str) -> PyResult<Option<String>> {
        let name = name(text)?;
        let walk = Walk::new(&name, SEED);
        let found = self.0.find(walk.hash(0), walk.text(), 0);
        Ok(found.map(|(scope, _)| match self.0.zone() {
            Some(zone) => ScopeFacts::of_zone(*scope, &zone.given).word(),
            None => scope.word(),
        }))
    }

    #[getter]
    fn is_corrupt(&self) -> bool {
        self.0.is_corrupt()
    }

    fn release_memory(&self, py: Python<'_>) {
        py.detach(|| self.0.release_memory());
    }

    fn populate(&self, py: Python<'_>) {
        py.detach(|| self.0.populate());
    }

    /// Names with exceptions only are not counted. In a policy zone, all triggers are.
    #[getter]
    fn entries(&self) -> usize {
        if self.0.zone().is_some() {
            return self.0.entries();
        }
        self.0.listed(|rule| list::RULES_ARE_EXCEPTIONS.get(rule as usize) == Some(&true))
    }

    #[getter]
    fn digest(&self) -> String {
        digest_text(self.0.digest())
    }

    #[getter]
    fn sha256(&self) -> String {
        hex(self.0.sha256())
    }
}

fn sha256_of(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(bytes)
}

#[pyclass(frozen, get_all, module = "dnsblock._engine")]
pub struct ListDifference {
    added: u64,
    removed: u64,
    changed: u64,
    lost: u64,
    gained: u64,
    lines: Option<Py<PyBytes>>,
}

impl ListDifference {
    fn new(py: Python<'_>, difference: Difference) -> ListDifference {
        let Difference { added, removed, changed, lost, gained, lines, .. } = difference;
        let lines = lines.map(|lines| PyBytes::new(py, &lines).unbind());
        ListDifference { added, removed, changed, lost, gained, lines }
    }
}

//------- Compiling ----------------------------------------------------------

#[pyclass(frozen, module = "dnsblock._engine")]
#[derive(Default)]
pub struct Progress(list::Progress);

#[pymethods]
impl Progress {
    #[new]
    fn new() -> Progress {
        Progress::default()
    }

    #[getter]
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }
}

/// File, line, value, code and text.
type FindingTuple = (String, u32, String, String, String);

#[pyclass(frozen, get_all, module = "dnsblock._engine")]
pub struct CompiledList {
    names: Py<Names>,
    difference: Option<Py<ListDifference>>,
    /// For each file: its format, and the number of lines with names.
    formats: Vec<(&'static str, u64)>,
    is_recognised: bool,
    /// For each file: label, bytes, SHA-256, whether it ends with a line feed.
    sources: Vec<(String, u64, String, bool)>,
    lines: u64,
    accepted: u64,
    repaired: u64,
    duplicate: u64,
    not_applicable: u64,
    rejected: u64,
    exceptions: u64,
    apexless: usize,
    silent: u64,
    rejected_by: HashMap<&'static str, u64>,
    not_applicable_by: HashMap<&'static str, u64>,
    repaired_by: HashMap<&'static str, u64>,
    rejected_lines: Vec<FindingTuple>,
    repaired_lines: Vec<FindingTuple>,
    duplicate_lines: Vec<FindingTuple>,
    left_out_lines: Vec<FindingTuple>,
    not_applicable_lines: Vec<FindingTuple>,
    lost_exception_lines: Vec<FindingTuple>,
    /// Of a policy zone: the serial of its SOA record, and the verdict on its ZONEMD record.
    serial: Option<u32>,
    zonemd: &'static str,
}

impl CompiledList {
    fn new(py: Python<'_>, compiled: Compiled, report: Report) -> PyResult<CompiledList> {
        let tuples = |lines: Vec<Finding>| {
            lines.into_iter().map(|one| (one.label, one.line, one.value, one.code, one.text)).collect()
        };
        let source = |(label, file): (String, list::FileSummary)| {
            (label, file.bytes, hex(&file.sha256), file.ends_with_line_feed)
        };
        let apexless = py.detach(|| compiled.names.apexless());
        Ok(CompiledList {
            names: Py::new(py, Names(Arc::new(compiled.names)))?,
            difference: compiled.difference.map(|d| Py::new(py, ListDifference::new(py, d))).transpose()?,
            formats: report.formats.into_iter().map(|(format, naming)| (format.name(), naming)).collect(),
            is_recognised: report.is_recognised,
            sources: report.sources.into_iter().map(source).collect(),
            lines: report.lines,
            accepted: report.accepted,
            repaired: report.repaired,
            duplicate: report.duplicate,
            not_applicable: report.not_applicable,
            rejected: report.rejected,
            exceptions: report.exceptions,
            apexless,
            silent: report.silent,
            rejected_by: report.rejected_by.into_iter().collect(),
            not_applicable_by: report.not_applicable_by.into_iter().collect(),
            repaired_by: report.repaired_by.into_iter().collect(),
            rejected_lines: tuples(report.rejected_lines),
            repaired_lines: tuples(report.repaired_lines),
            duplicate_lines: tuples(report.duplicate_lines),
            left_out_lines: tuples(report.left_out_lines),
            not_applicable_lines: tuples(report.not_applicable_lines),
            lost_exception_lines: tuples(report.lost_exception_lines),
            serial: None,
            zonemd: Verdict::Absent.name(),
        })
    }
}

#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "Python gives them by keyword")]
#[pyo3(signature = (files, *, format, scope, column, separator, repairs, exceptions, max_bytes, suffixes,
    suffix_parents, suffix_exceptions, protected, folder, before, progress))]
pub fn compile_list(
    py: Python<'_>,
    files: Vec<(String, PathBuf)>,
    format: Option<&str>,
    scope: Option<&str>,
    column: usize,
    separator: char,
    repairs: Vec<String>,
    exceptions: &str,
    max_bytes: u64,
    suffixes: Vec<String>,
    suffix_parents: Vec<String>,
    suffix_exceptions: Vec<String>,
    protected: Vec<String>,
    folder: Option<PathBuf>,
    before: Option<&Names>,
    progress: &Progress,
) -> PyResult<CompiledList> {
    let files: Vec<ListFile> = files.into_iter().map(|(label, path)| ListFile { label, path }).collect();
    let format =
        format.map(|name| Format::from_name(name).ok_or_else(|| refused("a format", name))).transpose()?;
    let scope =
        scope.map(|name| Match::from_name(name).ok_or_else(|| refused("a match", name))).transpose()?;
    let mut allowed = Repairs::NONE;
    for repair in &repairs {
        allowed = allowed | Repairs::from_name(repair).ok_or_else(|| refused("a repair", repair))?;
    }
    let separator = u8::try_from(separator).map_err(|_| refused("a separator", &separator.to_string()))?;
    let exceptions =
        Exceptions::from_name(exceptions).ok_or_else(|| refused("what exceptions do", exceptions))?;
    let (format_later, repairs, max_bytes) = (Format::Plain, allowed, max_bytes);
    let settings =
        Settings { format: format_later, scope, column, separator, repairs, exceptions, max_bytes };
    let guard = guard_of(&suffixes, &suffix_parents, &suffix_exceptions, &protected)?;
    let before = before.map(|names| Arc::clone(&names.0));
    let compile = || {
        let into = folder.as_deref().map_or(Destination::Memory, Destination::Folder);
        let compiled = list::compile(&files, settings, format, &guard, into, before, &progress.0);
        sys::trim_heap();
        compiled
    };
    let (compiled, report) = py.detach(compile).map_err(failed)?;
    CompiledList::new(py, compiled, report)
}

fn failed(failure: Failure) -> PyErr {
    match failure {
        Failure::NotCompiled(error) => not_compiled(error),
        Failure::Unreadable(unreadable) => {
            ListUnreadable::new_err((unreadable.label, unreadable.code, unreadable.reason))
        }
    }
}

#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "Python gives them by keyword")]
#[pyo3(signature = (files, *, name, takes_wide, max_bytes, suffixes, suffix_parents, suffix_exceptions,
    protected, folder, before, progress))]
pub fn compile_zone(
    py: Python<'_>,
    files: Vec<(String, PathBuf)>,
    name: &str,
    takes_wide: bool,
    max_bytes: u64,
    suffixes: Vec<String>,
    suffix_parents: Vec<String>,
    suffix_exceptions: Vec<String>,
    protected: Vec<String>,
    folder: Option<PathBuf>,
    before: Option<&Names>,
    progress: &Progress,
) -> PyResult<CompiledList> {
    let files: Vec<ListFile> = files.into_iter().map(|(label, path)| ListFile { label, path }).collect();
    let guard = guard_of(&suffixes, &suffix_parents, &suffix_exceptions, &protected)?;
    let settings = zone::Settings { name, guard: &guard, takes_wide, max_bytes };
    let before = before.map(|names| Arc::clone(&names.0));
    let compile = || {
        let into = folder.as_deref().map_or(Destination::Memory, Destination::Folder);
        let compiled = zone::compile(&files, &settings, into, before, &progress.0);
        sys::trim_heap();
        compiled
    };
    let CompiledZone { compiled, report, soa, zonemd } = py.detach(compile).map_err(failed)?;
    let list = CompiledList::new(py, compiled, report)?;
    Ok(CompiledList { serial: soa.map(|soa| soa.serial), zonemd: zonemd.name(), apexless: 0, ..list })
}

#[pyfunction]
pub fn zone_files(py: Python<'_>, path: PathBuf, max_bytes: u64) -> PyResult<Vec<String>> {
    let file = ListFile { label: path.to_string_lossy().into_owned(), path };
    let files = py.detach(|| zone::find_files(file, max_bytes)).map_err(failed)?;
    Ok(files.into_iter().map(|file| file.label).collect())
}

pub fn guard_of(
    suffixes: &[String],
    parents: &[String],
    exceptions: &[String],
    protected: &[String],
) -> PyResult<NameGuard> {
    let names = |texts: &[String]| texts.iter().map(|text| name(text)).collect::<PyResult<Vec<Name>>>();
    Ok(NameGuard::new(&names(suffixes)?, &names(parents)?, &names(exceptions)?, &names(protected)?))
}
