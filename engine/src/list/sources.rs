//! The files that a list comes from, line by line, in little memory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

/// Octets that are read at a time; no line may be longer.
const READ: usize = 1 << 20;
/// Octets of a line at most: no format needs more for the names that one line can hold.
pub const LONGEST_LINE: usize = 16 << 10;

/// One file of a list, and what it is called in reports.
pub struct Source {
    pub label: String,
    pub path: PathBuf,
}

/// What was noticed about a file while it was read.
#[derive(Clone)]
pub struct Read {
    pub octets: u64,
    pub lines: u32,
    pub sha256: [u8; 32],
    /// An empty file ends as it should, too.
    pub ends_with_line_feed: bool,
}

/// The first octets of a file, by which its format is recognised.
pub fn head(source: &Source, octets: u64) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    open(source)?.take(octets).read_to_end(&mut head)?;
    Ok(head)
}

/// Waits for nothing that has taken the place of a file, and reads no device without end.
fn open(source: &Source) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&source.path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// Reads a file to its end. `take` gets every line with its number from 1 and without its
/// line feed, or `None` for one that is too long; `progress` how many octets were read.
pub fn read(
    source: &Source,
    mut take: impl FnMut(u32, Option<&[u8]>) -> io::Result<()>,
    mut progress: impl FnMut(usize),
) -> io::Result<Read> {
    let mut file = open(source)?;
    let mut hasher = Sha256::new();
    let mut read = Read { octets: 0, lines: 0, sha256: [0; 32], ends_with_line_feed: true };
    let mut buffer = vec![0; READ];
    // What is left of the line that the octets before did not end.
    let mut held = 0;
    let mut is_too_long = false;
    loop {
        let got = file.read(&mut buffer[held..])?;
        if got == 0 {
            break;
        }
        hasher.update(&buffer[held..held + got]);
        read.octets += got as u64;
        progress(got);
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &buffer[held..held + got]) {
            let line = &buffer[start..held + end];
            read.lines += 1;
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
        read.lines += 1;
        read.ends_with_line_feed = false;
        take(read.lines, (!is_too_long).then_some(&buffer[..held]))?;
    }
    read.sha256 = hasher.finalize().into();
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> (Vec<Option<String>>, Read) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, text).unwrap();
        let source = Source { label: "list".to_string(), path: file.path().to_path_buf() };
        let mut lines = Vec::new();
        let mut octets = 0;
        let take = |number, line: Option<&[u8]>| {
            assert_eq!(number as usize, lines.len() + 1);
            lines.push(line.map(|line| String::from_utf8(line.to_vec()).unwrap()));
            Ok(())
        };
        let read = read(&source, take, |got| octets += got).unwrap();
        assert_eq!((read.octets, read.lines as usize), (octets as u64, lines.len()));
        assert_eq!(read.sha256, <[u8; 32]>::from(Sha256::digest(text)));
        (lines, read)
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
