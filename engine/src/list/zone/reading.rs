//! Reads all records of a zone: from its file and from those that it includes.

use std::io;
use std::path::{Path, PathBuf};

use super::master_file::{Include, MasterFile, Record, Step};
use super::rdata::Soa;
use crate::list::Reason;
use crate::list::compile::Progress;
use crate::list::files::{self, Failure, FileSummary, ListFile, Unreadable};

/// Files that include each other.
const MAX_DEPTH: usize = 8;
/// Files that a zone may include, and how often it may include any.
const MAX_FILES: usize = 100;
const MAX_INCLUDES: usize = 1000;
const INCLUDE: &[u8] = b"$INCLUDE";

/// Where a line is.
#[derive(Clone, Copy)]
pub struct Place {
    /// Index of the file.
    pub file: usize,
    /// Counted from 1 in its file.
    pub line: u32,
    /// Counted from 1 over all lines that were read.
    pub number: u32,
}

/// The content of a line.
pub enum Taken<'a> {
    Silent,
    Record(Record<'a>),
    Rejected(Reason),
    /// The record of a line that was silent has no end.
    Unfinished(Reason),
}

/// A function that takes each line. Its error is one of the disk.
pub type Take<'a> = dyn FnMut(Place, &[u8], Taken<'_>) -> io::Result<()> + 'a;

/// The facts about a zone that was read.
pub struct Read {
    /// In the order of the files.
    pub files: Vec<FileSummary>,
    pub soa: Option<Soa>,
    /// The name of the zone, absolute, without its last dot.
    pub apex: Vec<u8>,
}

struct Reader<'a> {
    files: Vec<ListFile>,
    /// The paths of the files after the first one, as `$INCLUDE` names them.
    included: Vec<String>,
    /// Where files are looked for that are not in `files` yet.
    folder: Option<PathBuf>,
    summaries: Vec<Option<FileSummary>>,
    master: MasterFile,
    progress: &'a Progress,
    remaining: u64,
    number: u32,
    depth: usize,
    includes: usize,
    /// Why an included file could not be read.
    failure: Option<Failure>,
}

/// Reads the first file, and the others where it includes them: the first one that is included is the
/// second of `files`, and so on.
pub fn read(
    files: &[ListFile],
    master: MasterFile,
    max_bytes: u64,
    progress: &Progress,
    take: &mut Take<'_>,
) -> Result<Read, Failure> {
    let mut reader = Reader::new(files.to_vec(), None, master, max_bytes, progress);
    reader.read_all(take)?;
    for (file, summary) in files.iter().zip(&mut reader.summaries).filter(|(_, summary)| summary.is_none()) {
        // Nothing includes it any more, but its content belongs to the digest.
        *summary = Some(files::read(file, reader.remaining, files::MAX_LINE_OF_ZONE, |_, _| Ok(()), |_| ())?);
    }
    let files = reader.summaries.into_iter().flatten().collect();
    Ok(Read { files, soa: reader.master.soa, apex: reader.master.into_apex() })
}

/// The files of a zone: its own, and those that it includes, in the order of `read`. All are in its folder.
pub fn find_files(file: ListFile, max_bytes: u64) -> Result<Vec<ListFile>, Failure> {
    let mut has_includes = false;
    let look = |_, line: Option<&[u8]>| {
        // Most lines have no `$`.
        let line = line.filter(|line| memchr::memchr(b'$', line).is_some()).unwrap_or_default();
        has_includes |= line.to_ascii_uppercase().windows(INCLUDE.len()).any(|part| part == INCLUDE);
        Ok(())
    };
    files::read(&file, max_bytes, files::MAX_LINE_OF_ZONE, look, |_| ())?;
    if !has_includes {
        return Ok(vec![file]); // nearly always
    }
    let folder = file.path.parent().unwrap_or(Path::new("")).canonicalize()?;
    let progress = Progress::default();
    let mut reader = Reader::new(vec![file], Some(folder), MasterFile::new(b""), max_bytes, &progress);
    reader.read_all(&mut |_, _, _| Ok(()))?;
    Ok(reader.files)
}

impl<'a> Reader<'a> {
    fn new(
        files: Vec<ListFile>,
        folder: Option<PathBuf>,
        master: MasterFile,
        max_bytes: u64,
        progress: &'a Progress,
    ) -> Reader<'a> {
        let summaries = files.iter().map(|_| None).collect();
        let (included, failure) = (Vec::new(), None);
        let (remaining, number, depth, includes) = (max_bytes, 0, 0, 0);
        Reader {
            files,
            included,
            folder,
            summaries,
            master,
            progress,
            remaining,
            number,
            depth,
            includes,
            failure,
        }
    }

    fn read_all(&mut self, take: &mut Take<'_>) -> Result<(), Failure> {
        let read = self.read_file(0, take);
        read.map_err(|failure| self.failure.take().unwrap_or(failure))
    }

    fn read_file(&mut self, file: usize, take: &mut Take<'_>) -> Result<(), Failure> {
        let (list_file, progress, remaining, mut last) =
            (self.files[file].clone(), self.progress, self.remaining, 0);
        let take_line = |line, text: Option<&[u8]>| {
            last = line;
            self.take_line(file, line, text, take)
        };
        let summary = files::read(&list_file, remaining, files::MAX_LINE_OF_ZONE, take_line, |bytes| {
            progress.add(bytes)
        })?;
        if self.master.is_incomplete() {
            let place = Place { file, line: last, number: self.number };
            take(place, b"", Taken::Unfinished(Reason::NotThisFormat("an end to each parenthesis")))?;
        }
        self.remaining = self.remaining.saturating_sub(summary.bytes);
        self.summaries[file] = Some(summary);
        Ok(())
    }

    fn take_line(
        &mut self,
        file: usize,
        line: u32,
        text: Option<&[u8]>,
        take: &mut Take<'_>,
    ) -> io::Result<()> {
        self.number = self.number.saturating_add(1);
        let place = Place { file, line, number: self.number };
        let Some(text) = text else {
            self.master.skip();
            return take(place, b"", Taken::Rejected(Reason::LineTooLong));
        };
        let include = match self.master.take(text) {
            Ok(Step::Nothing | Step::Part) => return take(place, text, Taken::Silent),
            Ok(Step::Record(record)) => return take(place, text, Taken::Record(record)),
            Err(Reason::NotIncluded) => {
                let path = String::from_utf8_lossy(text).trim().to_string();
                let failure = self.refused(place, &format!("{path}: {}", Reason::NotIncluded));
                self.failure.get_or_insert(failure);
                return Err(io::Error::other("an included file"));
            }
            Err(reason) => return take(place, text, Taken::Rejected(reason)),
            Ok(Step::Include(include)) => include,
        };
        take(place, text, Taken::Silent)?;
        let read = self.find(&include, place).and_then(|included| {
            let origin = self.master.enter(include.origin);
            self.depth += 1;
            let read = self.read_file(included, take);
            self.depth -= 1;
            self.master.leave(origin);
            read
        });
        read.map_err(|failure| {
            self.failure.get_or_insert(failure);
            io::Error::other("an included file")
        })
    }

    /// The included file. One that is missing costs the whole zone: nobody knows what it would have said.
    fn find(&mut self, include: &Include, place: Place) -> Result<usize, Failure> {
        let refused =
            |this: &Self, why: &str| this.refused(place, &format!("$INCLUDE {}: {why}", include.path));
        self.includes += 1;
        if self.includes > MAX_INCLUDES {
            return Err(refused(self, "files are included more than a thousand times"));
        }
        if self.depth == MAX_DEPTH {
            return Err(refused(self, "files include each other more than eight times"));
        }
        if let Some(known) = self.included.iter().position(|path| *path == include.path) {
            return Ok(known + 1);
        }
        if self.included.len() == MAX_FILES {
            return Err(refused(self, "more than a hundred files"));
        }
        if let Some(folder) = &self.folder {
            let path = folder.join(&include.path).canonicalize();
            let path = path.map_err(|error| refused(self, &format!("cannot be read: {error}")))?;
            if !path.starts_with(folder) || !path.is_file() {
                return Err(refused(self, "not a file in the folder of the zone"));
            }
            self.files.push(ListFile { label: path.to_string_lossy().into_owned(), path });
            self.summaries.push(None);
        }
        self.included.push(include.path.clone());
        match self.included.len() < self.files.len() {
            true => Ok(self.included.len()),
            false => Err(refused(self, "it was not there when the zone was read")),
        }
    }

    fn refused(&self, place: Place, why: &str) -> Failure {
        let label = self.files[place.file].label.clone();
        let reason = format!("line {}: {why}", place.line);
        Failure::Unreadable(Unreadable { label, code: "UNREADABLE", reason })
    }
}
