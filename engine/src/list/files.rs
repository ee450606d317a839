//! The files that a list comes from, line by line, in little memory. A file that is compressed
//! with gzip is read as what was compressed, whatever its name.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::file_type;
use crate::policy::compiler::CompileError;

/// Octets that are read at a time; no line may be longer.
const READ: usize = 1 << 20;
/// Octets of a compressed file that are read at a time.
const READ_RAW: usize = 64 << 10;
/// Octets of a line at most: no format needs more for the names that one line can hold.
pub const LONGEST_LINE: usize = 16 << 10;

/// One file of a list, and what it is called in reports.
pub struct ListFile {
    pub label: String,
    pub path: PathBuf,
}

/// What was noticed about a file while it was read.
#[derive(Clone)]
pub struct Read {
    /// Of text.
    pub octets: u64,
    pub lines: u32,
    /// Of the file as it is.
    pub sha256: [u8; 32],
    /// An empty file ends as it should, too.
    pub ends_with_line_feed: bool,
}

/// A file that is no list in text.
#[derive(Debug)]
pub struct Unreadable {
    pub label: String,
    /// A word for programs.
    pub code: &'static str,
    /// What was found, and what to do.
    pub reason: String,
}

/// Why a list is not read to its end.
#[derive(Debug)]
pub enum Failure {
    Unreadable(Unreadable),
    NotCompiled(CompileError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::NotCompiled(error.into())
    }
}

impl From<CompileError> for Failure {
    fn from(error: CompileError) -> Failure {
        Failure::NotCompiled(error)
    }
}

/// The first octets of a file's text, by which its format is recognised. An error where it is
/// no text.
pub fn head(source: &ListFile, octets: usize) -> Result<Vec<u8>, Failure> {
    let mut text = Text::open(source)?;
    let mut head = vec![0; octets];
    let mut length = 0;
    while length < octets {
        match text.read(source, &mut head[length..])? {
            0 => break,
            got => length += got,
        }
    }
    head.truncate(length);
    match file_type::not_a_list(&head) {
        Some(what) => Err(Failure::Unreadable(Unreadable {
            label: source.label.clone(),
            code: "NOT_TEXT",
            reason: what.to_string(),
        })),
        None => Ok(head),
    }
}

pub fn is_gzip(source: &ListFile) -> io::Result<bool> {
    has_magic(&open(source)?)
}

/// RFC 1952 2.3.1: ID1 and ID2.
fn has_magic(file: &File) -> io::Result<bool> {
    let mut magic = [0; 2];
    Ok(file.read_at(&mut magic, 0)? == 2 && magic == *b"\x1f\x8b")
}

/// A file's octets as they are, counted and hashed.
struct Raw {
    file: File,
    hasher: Sha256,
    octets: u64,
}

impl io::Read for Raw {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read(buffer)?;
        self.hasher.update(&buffer[..got]);
        self.octets += got as u64;
        Ok(got)
    }
}

/// A file's text.
enum Text {
    Plain(Raw),
    Gzip(Box<MultiGzDecoder<BufReader<Raw>>>),
}

impl Text {
    fn open(source: &ListFile) -> io::Result<Text> {
        let file = open(source)?;
        let is_gzip = has_magic(&file)?;
        let raw = Raw { file, hasher: Sha256::new(), octets: 0 };
        Ok(match is_gzip {
            true => Text::Gzip(Box::new(MultiGzDecoder::new(BufReader::with_capacity(READ_RAW, raw)))),
            false => Text::Plain(raw),
        })
    }

    fn raw(&self) -> &Raw {
        match self {
            Text::Plain(raw) => raw,
            Text::Gzip(decoder) => decoder.get_ref().get_ref(),
        }
    }

    fn read(&mut self, source: &ListFile, buffer: &mut [u8]) -> Result<usize, Failure> {
        match self {
            Text::Plain(raw) => Ok(raw.read(buffer)?),
            Text::Gzip(decoder) => decoder.read(buffer).map_err(|error| corrupt(source, error)),
        }
    }

    fn sha256(self) -> [u8; 32] {
        let raw = match self {
            Text::Plain(raw) => raw,
            Text::Gzip(decoder) => decoder.into_inner().into_inner(),
        };
        raw.hasher.finalize().into()
    }
}

/// What is wrong with a file of gzip; the disk's own errors stay what they are.
fn corrupt(source: &ListFile, error: io::Error) -> Failure {
    if error.raw_os_error().is_some() {
        return error.into();
    }
    let what = match error.kind() {
        io::ErrorKind::UnexpectedEof => "a gzip file that ends in the middle".to_string(),
        _ => format!("a corrupt gzip file ({error})"),
    };
    let reason = format!("{what}: fetch or copy it again, and test it (`gzip -t`)");
    Failure::Unreadable(Unreadable { label: source.label.clone(), code: "CORRUPT", reason })
}

/// Waits for nothing that has taken the place of a file, and reads no device without end.
fn open(source: &ListFile) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&source.path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// Reads a file to its end, or until there are more octets of text than `most`. `take` gets every
/// line with its number from 1 and without its line feed, or `None` for one that is too long;
/// `progress` how many octets of the file were read.
pub fn read(
    source: &ListFile,
    most: u64,
    mut take: impl FnMut(u32, Option<&[u8]>) -> io::Result<()>,
    mut progress: impl FnMut(usize),
) -> Result<Read, Failure> {
    let mut text = Text::open(source)?;
    let mut told = 0;
    let mut read = Read { octets: 0, lines: 0, sha256: [0; 32], ends_with_line_feed: true };
    let mut buffer = vec![0; READ];
    // What is left of the line that the octets before did not end.
    let mut held = 0;
    let mut is_too_long = false;
    loop {
        let got = text.read(source, &mut buffer[held..])?;
        progress((text.raw().octets - told) as usize);
        told = text.raw().octets;
        if got == 0 {
            break;
        }
        read.octets += got as u64;
        if read.octets > most {
            return Err(too_large(source));
        }
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &buffer[held..held + got]) {
            let line = &buffer[start..held + end];
            read.lines = read.lines.saturating_add(1);
            take(read.lines, (!is_too_long && line.len() <= LONGEST_LINE).then_some(line))?;
            (start, is_too_long) = (held + end + 1, false);
        }
        let end = held + got;
        read.ends_with_line_feed = start == end;
        if end - start > LONGEST_LINE {
            (start, is_too_long) = (end, true);
        }
        buffer.copy_within(start..end, 0);
        held = end - start;
    }
    if held > 0 || is_too_long {
        read.lines = read.lines.saturating_add(1);
        read.ends_with_line_feed = false;
        take(read.lines, (!is_too_long).then_some(&buffer[..held]))?;
    }
    read.sha256 = text.sha256();
    Ok(read)
}

fn too_large(source: &ListFile) -> Failure {
    let reason = "larger than `source.max_mb` once it is decompressed: is it the list?".to_string();
    Failure::Unreadable(Unreadable { label: source.label.clone(), code: "UNREADABLE", reason })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn lines(text: &[u8]) -> (Vec<Option<String>>, Read) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, text).unwrap();
        let source = ListFile { label: "list".to_string(), path: file.path().to_path_buf() };
        let mut lines = Vec::new();
        let mut octets = 0;
        let take = |number, line: Option<&[u8]>| {
            assert_eq!(number as usize, lines.len() + 1);
            lines.push(line.map(|line| String::from_utf8(line.to_vec()).unwrap()));
            Ok(())
        };
        let read = read(&source, u64::MAX, take, |got| octets += got).unwrap();
        assert_eq!((octets, read.lines as usize), (text.len(), lines.len()));
        assert_eq!(read.sha256, <[u8; 32]>::from(Sha256::digest(text)));
        (lines, read)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn failure(octets: &[u8], most: u64) -> (&'static str, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, octets).unwrap();
        let source = ListFile { label: "list".to_string(), path: file.path().to_path_buf() };
        match read(&source, most, |_, _| Ok(()), |_| ()) {
            Err(Failure::Unreadable(unreadable)) => (unreadable.code, unreadable.reason),
            Err(Failure::NotCompiled(error)) => ("", error.to_string()),
            Ok(_) => ("", String::new()),
        }
    }

    #[test]
    fn a_gzip_file_is_read_as_what_was_compressed() {
        let text = "name.example\n".repeat(300_000);
        let (got, read) = lines(&gzip(text.as_bytes()));
        assert_eq!((got.len(), read.octets), (300_000, text.len() as u64));
        // RFC 1952 2.2: members one after the other.
        let (got, read) = lines(&[gzip(b"a.example\nb.ex"), gzip(b"ample")].concat());
        assert_eq!(got, [Some("a.example".to_string()), Some("b.example".to_string())]);
        assert!(!read.ends_with_line_feed);
        assert!(lines(&gzip(b"")).0.is_empty());
    }

    #[test]
    fn a_damaged_gzip_file_is_no_list_wherever_the_damage_is() {
        let text: String = (0..1000).map(|n| format!("name{n}.example\n")).collect();
        let whole = gzip(text.as_bytes());
        for end in [3, 10, whole.len() / 2, whole.len() - 8, whole.len() - 1] {
            let (code, reason) = failure(&whole[..end], u64::MAX);
            assert_eq!(code, "CORRUPT", "{end}");
            assert!(reason.contains("ends in the middle"), "{end}: {reason}");
        }
        for at in [whole.len() / 2, whole.len() - 8, whole.len() - 1] {
            let mut wrong = whole.clone();
            wrong[at] ^= 0x55;
            assert_eq!(failure(&wrong, u64::MAX).0, "CORRUPT", "{at}");
        }
        assert_eq!(failure(&[&whole[..], b"garbage"].concat(), u64::MAX).0, "CORRUPT");
    }

    #[test]
    fn a_bomb_is_read_as_far_as_the_limit() {
        let bomb = gzip(&vec![b'\n'; 64 << 20]);
        assert!(bomb.len() < 1 << 20);
        assert_eq!(failure(&bomb, 1 << 20).0, "UNREADABLE");
        assert_eq!(failure(b"a.example\n", 10).0, "");
        assert_eq!(failure(b"a.example\n", 9).0, "UNREADABLE");
    }

    #[test]
    fn lines_are_those_of_the_file_wherever_a_read_ends() {
        let text: Vec<String> = (0..200_000).map(|n| format!("name{n}.example")).collect();
        let (got, read) = lines((text.join("\n") + "\n").as_bytes());
        assert!(got.iter().map(|line| line.as_deref().unwrap()).eq(text.iter().map(String::as_str)));
        assert!(read.ends_with_line_feed);
    }

    #[test]
    fn the_end_is_looked_at() {
        assert!(lines(b"").1.ends_with_line_feed && lines(b"").0.is_empty());
        assert!(lines(b"a\n").1.ends_with_line_feed);
        let (got, read) = lines(b"a\nb");
        assert_eq!((got.len(), read.ends_with_line_feed), (2, false));
    }

    #[test]
    fn a_line_without_end_costs_no_memory_and_no_other_line() {
        let long = "x".repeat(3 * READ);
        let (got, _) = lines(format!("a\n{long}\nb\n").as_bytes());
        assert_eq!(got, [Some("a".to_string()), None, Some("b".to_string())]);
        assert_eq!(lines(long.as_bytes()).0, [None]);
        let most = "x".repeat(LONGEST_LINE);
        assert_eq!(lines(format!("{most}\n{most}y\n").as_bytes()).0, [Some(most), None]);
    }
}
