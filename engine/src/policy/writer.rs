//! The end of compiling: looks every entry of a segment up through the code that answers
//! queries, compares with the list before, and writes. Runs on a thread of its own, one
//! segment behind the one that makes them.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use sha2::{Digest, Sha256};

use super::Scope;
use super::difference::{Comparison, Difference};
use super::names::{EntriesDigest, Foot, Names, SEED, Unusable};
use super::segment::{Head, Hit, Rest, Segment};
use super::sorter::Sorted;
use super::symbols::Symbols;
use crate::name::{Name, Text, Walk};

/// One in so many names is used to ask for three names that are not listed, by its own
/// hash: about a million of ten million, and a name of a short list is used anyhow.
const ASKED: usize = 32;
const ALL_ASKED: usize = 1 << 16;
/// Names that are not listed and are asked for by their own hash, at most.
const OTHERS: usize = 1 << 16;

/// Where a compiled list is put.
pub enum Destination<'a> {
    Memory,
    /// As a file whose name is its SHA-256.
    Folder(&'a Path),
}

/// Why entries did not become a list.
#[derive(Debug)]
pub enum CompileError {
    Io(io::Error),
    /// Names that were chosen for their hashes.
    Crowded,
    /// What was compiled does not find its own entries, or finds others.
    Lost,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CompileError::Io(error) => write!(f, "cannot be written: {error}"),
            CompileError::Crowded => f.write_str(
                "holds names that were chosen so that a table of them becomes slow: refused as an attack",
            ),
            CompileError::Lost => f.write_str(
                "what was compiled does not find all of its own names and no others: a fault of dnsblock",
            ),
        }
    }
}

impl From<io::Error> for CompileError {
    fn from(error: io::Error) -> CompileError {
        CompileError::Io(error)
    }
}

/// A segment that was made, and what it must hold.
pub struct Batch {
    pub sorted: Sorted,
    pub head: Head,
    pub segment: Vec<u8>,
    pub scopes: Vec<Scope>,
}

pub struct Writer<'a> {
    symbols: &'a Symbols,
    bits: u32,
    sink: Sink<'a>,
    sha256: Sha256,
    digest: EntriesDigest,
    written: u64,
    entries: usize,
    pub heads: Vec<Head>,
    comparison: Option<Comparison>,
    /// Names that are not listed, by their hash, to be asked for in the end.
    others: Vec<(u64, Vec<u8>)>,
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
    ) -> Result<Writer<'a>, CompileError> {
        let sink = match into {
            Destination::Memory => Sink::Memory(Vec::new()),
            Destination::Folder(folder) => Sink::File(half_written(folder)?, folder),
        };
        Ok(Writer {
            symbols,
            bits,
            sink,
            sha256: Sha256::new(),
            digest: EntriesDigest::default(),
            written: 0,
            entries: 0,
            heads: Vec::new(),
            comparison: before.map(Comparison::with),
            others: Vec::new(),
        })
    }

    pub fn run(mut self, receive: Receiver<Batch>) -> Result<Writer<'a>, CompileError> {
        for mut batch in receive {
            self.look_up(&batch)?;
            batch.head.offset = self.written;
            self.heads.push(batch.head);
            self.write(&batch.segment)?;
        }
        Ok(self)
    }

    /// Every entry is there, and says what it should.
    fn look_up(&mut self, batch: &Batch) -> Result<(), CompileError> {
        let segment = Segment::new(&batch.head, &batch.segment);
        let (mut text, mut walk) = (Text::default(), Walk::new(&Name::root(), SEED));
        for (rank, record) in batch.sorted.records().enumerate() {
            text.take(record.text);
            let rest = Rest::of(record.hash, self.bits);
            let found =
                segment.may_hold(rest).then(|| segment.find(rest, |c| self.symbols.spell(c, &text, 0)));
            if found.flatten() != Some(Hit { scope: record.scope, rank: rank as u32 }) {
                return Err(CompileError::Lost);
            }
            let scope = &batch.scopes[record.scope as usize];
            self.digest.add(record.text, *scope);
            if let Some(comparison) = &mut self.comparison {
                comparison.take(record.hash, &text, scope);
            }
            self.entries += 1;
            if self.entries > ALL_ASKED && !self.entries.is_multiple_of(ASKED) {
                continue;
            }
            for other in others(record.text) {
                text.take(&other);
                let found =
                    segment.may_hold(rest).then(|| segment.find(rest, |c| self.symbols.spell(c, &text, 0)));
                if found.flatten().is_some() {
                    return Err(CompileError::Lost);
                }
                if self.others.len() < OTHERS {
                    walk.take(&asked(&other).ok_or(CompileError::Lost)?, SEED);
                    self.others.push((walk.hash(0), other));
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), CompileError> {
        self.sha256.update(octets);
        self.written += octets.len() as u64;
        match &mut self.sink {
            Sink::Memory(memory) => memory.extend_from_slice(octets),
            Sink::File(file, _) => file.write_all(octets)?,
        }
        Ok(())
    }

    /// Puts the foot behind the segments; on the disk the file is there whole, or not at all.
    pub fn finish(mut self, mut foot: Foot) -> Result<(Names, Option<Difference>), CompileError> {
        foot.digest = std::mem::take(&mut self.digest).finish();
        self.write(&foot.to_octets())?;
        let sha256: [u8; 32] = std::mem::take(&mut self.sha256).finalize().into();
        let names = match self.sink {
            Sink::Memory(octets) => Names::in_memory(octets),
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
            Unusable::Corrupt | Unusable::Foreign => CompileError::Lost,
        })?;
        ask_for_others(&names, self.others)?;
        Ok((names, self.comparison.map(Comparison::finish)))
    }
}

/// What a compiled list is called in its folder.
pub fn file_name(sha256: &[u8; 32]) -> String {
    let digits: String = sha256.iter().map(|octet| format!("{octet:02x}")).collect();
    format!("{digits}.names")
}

/// A file that goes away by itself unless it is given its name.
fn half_written(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new().prefix("half-").suffix(".tmp").tempfile_in(folder)
}

/// Names that no list holds, but a client may ask for: a listed one with another octet at
/// its beginning, in its middle and at its end.
fn others(listed: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let places = [0, listed.len() / 2, listed.len() - 1].into_iter();
    places.filter(|&place| listed[place] != b'.').map(|place| {
        let mut other = listed.to_vec();
        other[place] = b'!';
        other
    })
}

/// The name that a client asks for who asks for this one.
fn asked(text: &[u8]) -> Option<Name> {
    let label = |label: &[u8]| [&[label.len() as u8], label].concat();
    let wire: Vec<u8> = text.split(|&octet| octet == b'.').flat_map(label).chain([0]).collect();
    Name::parse(&wire, 0).ok().map(|(name, _)| name)
}

/// Names that are not listed are not found by their own hash either. Segment by segment,
/// and what was read of one goes before the next: until it is enforced, a list takes no
/// memory that the one before it has.
fn ask_for_others(names: &Names, mut others: Vec<(u64, Vec<u8>)>) -> Result<(), CompileError> {
    others.sort_unstable();
    let mut text = Text::default();
    for same in others.chunk_by(|a, b| names.segment_of(a.0) == names.segment_of(b.0)) {
        for (hash, other) in same {
            text.take(other);
            if names.find(*hash, &text, 0).is_some() {
                return Err(CompileError::Lost);
            }
        }
        names.give_back();
    }
    Ok(())
}
