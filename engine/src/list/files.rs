//! Reads the files of a list line by line, in little memory. Files compressed with gzip are
//! decompressed, whatever their name is.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::file_type;
use crate::policy::compiler::CompileError;

/// Bytes of the buffer for lines.
const BUFFER: usize = 1 << 20;
/// Bytes of the buffer for compressed data.
const BUFFER_COMPRESSED: usize = 64 << 10;
/// Bytes of a line of a list. No format needs more for the names that a line can have.
pub const MAX_LINE: usize = 16 << 10;
/// The same for a zone file: data of 64 KiB, written in hexadecimal.
pub const MAX_LINE_OF_ZONE: usize = 160 << 10;

/// One file of a list, and its name in reports.
#[derive(Clone)]
pub struct ListFile {
    pub label: String,
    pub path: PathBuf,
}

/// The facts about a file that was read.
#[derive(Clone)]
pub struct FileSummary {
    /// Uncompressed.
    pub bytes: u64,
    pub lines: u32,
    /// Of the file as stored.
    pub sha256: [u8; 32],
    /// Also true for an empty file.
    pub ends_with_line_feed: bool,
}

/// A file that is not a readable list.
#[derive(Debug)]
pub struct Unreadable {
    pub label: String,
    /// A word for programs.
    pub code: &'static str,
    /// The kind of file, and what to do with it.
    pub reason: String,
}

/// Why a list was not compiled.
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

impl ListFile {
    fn unreadable(&self, code: &'static str, reason: impl Into<String>) -> Failure {
        Failure::Unreadable(Unreadable { label: self.label.clone(), code, reason: reason.into() })
    }
}

/// The first bytes of a file, uncompressed, to recognise its format. An error if it is not text.
pub fn head(file: &ListFile, length: usize) -> Result<Vec<u8>, Failure> {
    let mut content = Content::open(file)?;
    let mut head = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match content.read(file, &mut head[filled..])? {
            0 => break,
            got => filled += got,
        }
    }
    head.truncate(filled);
    match file_type::not_a_list(&head) {
        Some(advice) => Err(file.unreadable("NOT_TEXT", advice)),
        None => Ok(head),
    }
}

pub fn is_gzip(file: &ListFile) -> io::Result<bool> {
    has_gzip_magic(&open(file)?)
}

/// RFC 1952 2.3.1: ID1 and ID2.
fn has_gzip_magic(file: &File) -> io::Result<bool> {
    let mut magic = [0; 2];
    Ok(file.read_at(&mut magic, 0)? == 2 && magic == *b"\x1f\x8b")
}

/// The bytes of a file as stored, counted and hashed.
struct Stored {
    file: File,
    hasher: Sha256,
    bytes: u64,
}

impl io::Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read(buffer)?;
        self.hasher.update(&buffer[..got]);
        self.bytes += got as u64;
        Ok(got)
    }
}

/// The uncompressed content of a file.
enum Content {
    Plain(Stored),
    Gzip(Box<MultiGzDecoder<BufReader<Stored>>>),
}

impl Content {
    fn open(file: &ListFile) -> io::Result<Content> {
        let file = open(file)?;
        let is_gzip = has_gzip_magic(&file)?;
        let stored = Stored { file, hasher: Sha256::new(), bytes: 0 };
        Ok(match is_gzip {
            true => {
                let buffered = BufReader::with_capacity(BUFFER_COMPRESSED, stored);
                Content::Gzip(Box::new(MultiGzDecoder::new(buffered)))
            }
            false => Content::Plain(stored),
        })
    }

    fn stored_bytes(&self) -> u64 {
        match self {
            Content::Plain(stored) => stored.bytes,
            Content::Gzip(decoder) => decoder.get_ref().get_ref().bytes,
        }
    }

    fn read(&mut self, file: &ListFile, buffer: &mut [u8]) -> Result<usize, Failure> {
        match self {
            Content::Plain(stored) => Ok(stored.read(buffer)?),
            Content::Gzip(decoder) => decoder.read(buffer).map_err(|error| corrupt(file, error)),
        }
    }

    fn sha256(self) -> [u8; 32] {
        let stored = match self {
            Content::Plain(stored) => stored,
            Content::Gzip(decoder) => decoder.into_inner().into_inner(),
        };
        stored.hasher.finalize().into()
    }
}

/// An error of gzip. An error of the disk is returned as it is.
fn corrupt(file: &ListFile, error: io::Error) -> Failure {
    if error.raw_os_error().is_some() {
        return error.into();
    }
    let what = match error.kind() {
        io::ErrorKind::UnexpectedEof => "a gzip file that ends in the middle".to_string(),
        _ => format!("a corrupt gzip file ({error})"),
    };
    file.unreadable("CORRUPT", format!("{what}: fetch or copy it again, and test it (`gzip -t`)"))
}

/// Opens a regular file only: a pipe could block, and a device has no end.
fn open(file: &ListFile) -> io::Result<File> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&file.path)?;
    match opened.metadata()?.is_file() {
        true => Ok(opened),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// Reads a file to its end, or until its uncompressed size exceeds `max_bytes`.
///
/// `take` gets each line with its number from 1 and without its line feed, or `None` if the line is
/// too long. `progress` gets how many bytes of the stored file were read.
pub fn read(
    file: &ListFile,
    max_bytes: u64,
    max_line: usize,
    mut take: impl FnMut(u32, Option<&[u8]>) -> io::Result<()>,
    mut progress: impl FnMut(usize),
) -> Result<FileSummary, Failure> {
    let mut content = Content::open(file)?;
    let mut stored = 0;
    let mut summary = FileSummary { bytes: 0, lines: 0, sha256: [0; 32], ends_with_line_feed: true };
    let mut buffer = vec![0; BUFFER];
    // Bytes at the start of the buffer: the start of a line whose end was not read yet.
    let mut partial = 0;
    let mut is_too_long = false;
    loop {
        let got = content.read(file, &mut buffer[partial..])?;
        progress((content.stored_bytes() - stored) as usize);
        stored = content.stored_bytes();
        if got == 0 {
            break;
        }
        summary.bytes += got as u64;
        if summary.bytes > max_bytes {
            let reason = "larger than `source.max_mb` after decompression: is it the list?";
            return Err(file.unreadable("UNREADABLE", reason));
        }
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &buffer[partial..partial + got]) {
            let line = &buffer[start..partial + end];
            summary.lines = summary.lines.saturating_add(1);
            take(summary.lines, (!is_too_long && line.len() <= max_line).then_some(line))?;
            (start, is_too_long) = (partial + end + 1, false);
        }
        let end = partial + got;
        summary.ends_with_line_feed = start == end;
        if end - start > max_line {
            (start, is_too_long) = (end, true);
        }
        buffer.copy_within(start..end, 0);
        partial = end - start;
    }
    if partial > 0 || is_too_long {
        summary.lines = summary.lines.saturating_add(1);
        summary.ends_with_line_feed = false;
        take(summary.lines, (!is_too_long).then_some(&buffer[..partial]))?;
    }
    summary.sha256 = content.sha256();
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn lines(text: &[u8]) -> (Vec<Option<String>>, FileSummary) {
        let stored = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&stored, text).unwrap();
        let file = ListFile { label: "list".to_string(), path: stored.path().to_path_buf() };
        let mut lines = Vec::new();
        let mut progress = 0;
        let take = |number, line: Option<&[u8]>| {
            assert_eq!(number as usize, lines.len() + 1);
            lines.push(line.map(|line| String::from_utf8(line.to_vec()).unwrap()));
            Ok(())
        };
        let read = read(&file, u64::MAX, MAX_LINE, take, |got| progress += got).unwrap();
        assert_eq!((progress, read.lines as usize), (text.len(), lines.len()));
        assert_eq!(read.sha256, <[u8; 32]>::from(Sha256::digest(text)));
        (lines, read)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn failure(content: &[u8], max_bytes: u64) -> (&'static str, String) {
        let stored = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&stored, content).unwrap();
        let file = ListFile { label: "list".to_string(), path: stored.path().to_path_buf() };
        match read(&file, max_bytes, MAX_LINE, |_, _| Ok(()), |_| ()) {
            Err(Failure::Unreadable(unreadable)) => (unreadable.code, unreadable.reason),
            Err(Failure::NotCompiled(error)) => ("", error.to_string()),
            Ok(_) => ("", String::new()),
        }
    }

    #[test]
    fn a_gzip_file_is_decompressed() {
        let text = "name.example\n".repeat(300_000);
        let (got, read) = lines(&gzip(text.as_bytes()));
        assert_eq!((got.len(), read.bytes), (300_000, text.len() as u64));
        // RFC 1952 2.2: a file may have several members.
        let (got, read) = lines(&[gzip(b"a.example\nb.ex"), gzip(b"ample")].concat());
        assert_eq!(got, [Some("a.example".to_string()), Some("b.example".to_string())]);
        assert!(!read.ends_with_line_feed);
        assert!(lines(&gzip(b"")).0.is_empty());
    }

    #[test]
    fn a_gzip_file_that_is_corrupt_anywhere_is_rejected() {
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
    fn a_decompression_bomb_is_read_up_to_the_limit() {
        let bomb = gzip(&vec![b'\n'; 64 << 20]);
        assert!(bomb.len() < 1 << 20);
        assert_eq!(failure(&bomb, 1 << 20).0, "UNREADABLE");
        assert_eq!(failure(b"a.example\n", 10).0, "");
        assert_eq!(failure(b"a.example\n", 9).0, "UNREADABLE");
    }

    #[test]
    fn lines_may_span_two_reads() {
        let text: Vec<String> = (0..200_000).map(|n| format!("name{n}.example")).collect();
        let (got, read) = lines((text.join("\n") + "\n").as_bytes());
        assert!(got.iter().map(|line| line.as_deref().unwrap()).eq(text.iter().map(String::as_str)));
        assert!(read.ends_with_line_feed);
    }

    #[test]
    fn a_missing_line_feed_at_the_end_is_reported() {
        assert!(lines(b"").1.ends_with_line_feed && lines(b"").0.is_empty());
        assert!(lines(b"a\n").1.ends_with_line_feed);
        let (got, read) = lines(b"a\nb");
        assert_eq!((got.len(), read.ends_with_line_feed), (2, false));
    }

    #[test]
    fn an_endless_line_takes_no_memory_and_no_other_line_with_it() {
        let long = "x".repeat(3 * BUFFER);
        let (got, _) = lines(format!("a\n{long}\nb\n").as_bytes());
        assert_eq!(got, [Some("a".to_string()), None, Some("b".to_string())]);
        assert_eq!(lines(long.as_bytes()).0, [None]);
        let most = "x".repeat(MAX_LINE);
        assert_eq!(lines(format!("{most}\n{most}y\n").as_bytes()).0, [Some(most), None]);
    }
}
