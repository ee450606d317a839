//! The end of compiling: looks every entry of a segment up through the code that answers
//! queries, compares with the list before, and writes. Runs on a thread of its own, one
//! segment behind the one that makes them.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use sha2::{Digest, Sha256};

use super::Scope;
use super::compiler::{CompileError, Into};
use super::difference::{Comparison, Difference};
use super::names::{Foot, Names, SEED, Unusable};
use super::segment::{Head, Hit, Rest, Segment};
use super::sorter::Sorted;
use super::symbols::Symbols;
use crate::name::{Name, Text, Walk};

/// One in so many names is used to ask for names that are not listed.
const ASKED: usize = 64;
const ASKED_AT_MOST: usize = 1 << 16;

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
    digest: Sha256,
    said: Option<u32>,
    written: u64,
    entries: usize,
    pub heads: Vec<Head>,
    comparison: Option<Comparison>,
    /// Listed names, by which names that are not are asked for in the end.
    asked: Vec<Vec<u8>>,
}

enum Sink<'a> {
    Memory(Vec<u8>),
    File(tempfile::NamedTempFile, &'a Path),
}

impl<'a> Writer<'a> {
    pub fn new(
        symbols: &'a Symbols,
        bits: u32,
        into: &Into<'a>,
        before: Option<Arc<Names>>,
    ) -> Result<Writer<'a>, CompileError> {
        let sink = match into {
            Into::Memory => Sink::Memory(Vec::new()),
            Into::Folder(folder) => Sink::File(half_written(folder)?, folder),
        };
        Ok(Writer {
            symbols,
            bits,
            sink,
            sha256: Sha256::new(),
            digest: Sha256::new(),
            said: None,
            written: 0,
            entries: 0,
            heads: Vec::new(),
            comparison: before.map(Comparison::with),
            asked: Vec::new(),
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
        let mut text = Text::default();
        for (rank, record) in batch.sorted.records().enumerate() {
            text.take(record.text);
            let rest = Rest::of(record.hash, self.bits);
            let found =
                segment.may_hold(rest).then(|| segment.find(rest, |c| self.symbols.spell(c, &text, 0)));
            if found.flatten() != Some(Hit { scope: record.scope, rank: rank as u32 }) {
                return Err(CompileError::Lost);
            }
            let scope = &batch.scopes[record.scope as usize];
            if self.said.replace(record.scope) != Some(record.scope) {
                self.digest.update([0]);
                self.digest.update(scope.to_octets());
            }
            self.digest.update([record.text.len() as u8]);
            self.digest.update(record.text);
            if let Some(comparison) = &mut self.comparison {
                comparison.take(record.hash, &text, scope);
            }
            if self.entries.is_multiple_of(ASKED) && self.asked.len() < ASKED_AT_MOST {
                self.asked.push(record.text.to_vec());
            }
            self.entries += 1;
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
        foot.digest = std::mem::take(&mut self.digest).finalize().into();
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
        ask_for_others(&names, &self.asked)?;
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

/// Names that cannot be listed are not found: neither by their own hash nor by that of a
/// listed name, where only the comparison of the names themselves is left.
fn ask_for_others(names: &Names, listed: &[Vec<u8>]) -> Result<(), CompileError> {
    let (mut walk, mut other) = (Walk::new(&Name::root(), SEED), Text::default());
    for text in listed {
        for place in [0, text.len() / 2, text.len() - 1] {
            // No list holds an octet like this one, but a client may ask for it.
            let mut octets = text.clone();
            octets[place] = if octets[place] == b'.' { b'.' } else { b'!' };
            other.take(&octets);
            let Ok(own) = Name::from_text(text) else { return Err(CompileError::Lost) };
            walk.take(&own, SEED);
            let is_itself = octets == *text;
            let found = names.find(walk.hash(0), &other, 0).is_some();
            if found != is_itself {
                return Err(CompileError::Lost);
            }
        }
    }
    Ok(())
}
