//! The last step of compiling: verifies every entry of a segment with the lookup that answers
//! queries, compares the list with the previous one, and writes it. It runs on its own thread, one
//! segment behind the compiler.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use sha2::{Digest, Sha256};

use super::CanonicalRule;
use super::between::between;
use super::difference::{Comparison, Difference, ScopeFacts};
use super::names::{EntriesDigest, Footer, Names, SEED, Unusable};
use super::ranges::{Ranges, RangesMaker};
use super::segment::{Hit, LocalHash, Segment, SegmentHeader};
use super::sorter::Sorted;
use super::symbols::Symbols;
use super::zone_data::ZoneData;
use crate::name::{Name, Text, Walk};

/// Every Nth name of a long list also verifies that three unlisted names are not found.
const ASKED: usize = 32;
const ALL_ASKED: usize = 1 << 16;
/// Maximum number of unlisted names that are also looked up by their own hash.
const OTHERS: usize = 1 << 16;

/// The destination of a compiled list.
pub enum Destination<'a> {
    Memory,
    /// A file named after its SHA-256.
    Folder(&'a Path),
}

/// Why entries could not be compiled.
#[derive(Debug)]
pub enum CompileError {
    Io(io::Error),
    /// Names were chosen for their hashes.
    HashFlood,
    /// Too many names of a policy zone have only names below them.
    TooDeep,
    /// The compiled list does not find its own names, or finds others.
    NotVerified,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CompileError::Io(error) => write!(f, "cannot be written: {error}"),
            CompileError::HashFlood => f.write_str(
                "holds names that were chosen so that a table of them becomes slow: refused as an attack",
            ),
            CompileError::TooDeep => f.write_str(
                "more than a million names below wildcards have only names below them: refused as an attack",
            ),
            CompileError::NotVerified => f.write_str(
                "what was compiled does not find all of its own names and no unlisted: a fault of dnsblock",
            ),
        }
    }
}

impl From<io::Error> for CompileError {
    fn from(error: io::Error) -> CompileError {
        CompileError::Io(error)
    }
}

/// A segment, and the entries that it must contain.
pub struct Batch {
    pub sorted: Sorted,
    pub header: SegmentHeader,
    pub segment: Vec<u8>,
    /// The scopes after those of the batches before.
    pub scopes: Vec<ScopeFacts>,
}

pub struct Writer<'a> {
    symbols: &'a Symbols,
    bits: u32,
    sink: Sink<'a>,
    sha256: Sha256,
    digest: EntriesDigest,
    ranges: Option<RangesMaker<'a>>,
    written: u64,
    entries: usize,
    pub headers: Vec<SegmentHeader>,
    scopes: Vec<ScopeFacts>,
    comparison: Option<Comparison>,
    /// Unlisted names with their hashes, to be looked up in the end.
    unlisted: Vec<(u64, Vec<u8>)>,
}

enum Sink<'a> {
    Memory(Vec<u8>),
    File(tempfile::NamedTempFile, &'a Path),
}

impl<'a> Writer<'a> {
    pub fn new(
        symbols: &'a Symbols,
        bits: u32,
        into: &Destination<'a>,
        before: Option<Arc<Names>>,
        rules: Option<&'a [CanonicalRule]>,
    ) -> Result<Writer<'a>, CompileError> {
        let sink = match into {
            Destination::Memory => Sink::Memory(Vec::new()),
            Destination::Folder(folder) => Sink::File(temporary_file(folder)?, folder),
        };
        Ok(Writer {
            symbols,
            bits,
            sink,
            sha256: Sha256::new(),
            digest: EntriesDigest::default(),
            ranges: rules.map(RangesMaker::new),
            written: 0,
            entries: 0,
            headers: Vec::new(),
            scopes: Vec::new(),
            comparison: before.map(Comparison::with),
            unlisted: Vec::new(),
        })
    }

    pub fn run(mut self, receive: Receiver<Batch>) -> Result<Writer<'a>, CompileError> {
        for mut batch in receive {
            self.scopes.append(&mut batch.scopes);
            self.verify(&batch)?;
            batch.header.offset = self.written;
            self.headers.push(batch.header);
            self.write(&batch.segment)?;
        }
        Ok(self)
    }

    /// Verifies that each entry is found with its scope.
    fn verify(&mut self, batch: &Batch) -> Result<(), CompileError> {
        let segment = Segment::new(&batch.header, &batch.segment);
        let (mut text, mut walk) = (Text::default(), Walk::new(&Name::root(), SEED));
        for (rank, record) in batch.sorted.records().enumerate() {
            text.take(record.text);
            let local = LocalHash::of(record.hash, self.bits);
            let found =
                segment.may_hold(local).then(|| segment.find(local, |c| self.symbols.spell(c, &text, 0)));
            if found.flatten() != Some(Hit { scope: record.scope, rank: rank as u32 }) {
                return Err(CompileError::NotVerified);
            }
            let facts = &self.scopes[record.scope as usize];
            match &mut self.ranges {
                Some(ranges) => ranges.add(record.hash, record.text, &facts.scope),
                None => self.digest.add(record.text, facts.scope, &facts.bytes()),
            }
            if let Some(comparison) = &mut self.comparison {
                comparison.take(record.hash, &text, facts);
            }
            self.entries += 1;
            if self.entries > ALL_ASKED && !self.entries.is_multiple_of(ASKED) {
                continue;
            }
            for other in unlisted(record.text) {
                text.take(&other);
                let found =
                    segment.may_hold(local).then(|| segment.find(local, |c| self.symbols.spell(c, &text, 0)));
                if found.flatten().is_some() {
                    return Err(CompileError::NotVerified);
                }
                if self.unlisted.len() < OTHERS {
                    walk.take(&asked(&other).ok_or(CompileError::NotVerified)?, SEED);
                    self.unlisted.push((walk.hash(0), other));
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CompileError> {
        self.sha256.update(bytes);
        self.written += bytes.len() as u64;
        match &mut self.sink {
            Sink::Memory(memory) => memory.extend_from_slice(bytes),
            Sink::File(file, _) => file.write_all(bytes)?,
        }
        Ok(())
    }

    /// Appends the footer, of a policy zone with its data. A file gets its name only when it is complete.
    pub fn finish(
        mut self,
        mut footer: Footer,
        zone: Option<ZoneData>,
    ) -> Result<(Names, Option<Difference>, Ranges), CompileError> {
        footer.digest = std::mem::take(&mut self.digest).finish();
        if let Some(mut zone) = zone {
            zone.between.extend(self.between(footer.clone())?);
            footer.zone = Some(Arc::new(zone));
        }
        self.write(&footer.to_bytes())?;
        let sha256: [u8; 32] = std::mem::take(&mut self.sha256).finalize().into();
        let names = match self.sink {
            Sink::Memory(bytes) => Names::in_memory(bytes),
            Sink::File(file, folder) => {
                let path = folder.join(file_name(&sha256));
                file.as_file().sync_all()?;
                file.persist(&path).map_err(|error| error.error)?;
                File::open(folder)?.sync_all()?;
                Names::of_file(&path, sha256)
            }
        };
        let names = names.map_err(|unusable| match unusable {
            Unusable::Unreadable(error) => CompileError::Io(error),
            Unusable::Corrupt | Unusable::Foreign => CompileError::NotVerified,
        })?;
        verify_unlisted(&names, self.unlisted)?;
        let ranges = self.ranges.map(RangesMaker::finish).unwrap_or_default();
        Ok((names, self.comparison.map(Comparison::finish), ranges))
    }
}

impl Writer<'_> {
    /// The empty non-terminals of the zone whose segments are written.
    fn between(&mut self, footer: Footer) -> Result<BTreeSet<String>, CompileError> {
        let found = match &mut self.sink {
            Sink::Memory(memory) => {
                let names = Names::unfinished(std::mem::take(memory), footer);
                let found = between(&names);
                *memory = names.into_bytes();
                found
            }
            Sink::File(file, _) => {
                file.flush()?;
                between(&Names::unfinished_file(file.path(), footer)?)
            }
        };
        found.ok_or(CompileError::TooDeep)
    }
}

/// The file name of a compiled list.
pub fn file_name(sha256: &[u8; 32]) -> String {
    let digits: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{digits}.names")
}

/// A temporary file, removed unless it is renamed.
fn temporary_file(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new().prefix("half-").suffix(".tmp").tempfile_in(folder)
}

/// Names that no list contains but a client may query: the listed name with another byte at its
/// beginning, in its middle or at its end.
fn unlisted(listed: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let places = [0, listed.len() / 2, listed.len().saturating_sub(1)].into_iter();
    // The root has no characters.
    places.filter(|&place| listed.get(place).is_some_and(|&byte| byte != b'.')).map(|place| {
        let mut other = listed.to_vec();
        other[place] = b'!';
        other
    })
}

/// The QNAME of a query for this name.
fn asked(text: &[u8]) -> Option<Name> {
    let label = |label: &[u8]| [&[label.len() as u8], label].concat();
    let wire: Vec<u8> = text.split(|&byte| byte == b'.').flat_map(label).chain([0]).collect();
    Name::parse(&wire, 0).ok().map(|(name, _)| name)
}

/// Verifies that unlisted names are not found by their own hash. It releases the memory of each
/// segment: until the list is enforced, the memory of the previous one is still needed.
fn verify_unlisted(names: &Names, mut unlisted: Vec<(u64, Vec<u8>)>) -> Result<(), CompileError> {
    unlisted.sort_unstable();
    let mut text = Text::default();
    for same in unlisted.chunk_by(|a, b| names.segment_of(a.0) == names.segment_of(b.0)) {
        for (hash, other) in same {
            text.take(other);
            if names.find(*hash, &text, 0).is_some() {
                return Err(CompileError::NotVerified);
            }
        }
        names.release_memory();
    }
    Ok(())
}
