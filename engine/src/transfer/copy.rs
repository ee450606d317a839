//! The copy of a zone: a zone file with one record per line, in the order of the transfer.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::records::{Line, ZoneSoa};
use super::{Failed, Grouped, Settings};
use crate::name::Name;

const BUFFER: usize = 1 << 20;
const FIRST: &str = "; A copy of this zone, received by zone transfer. dnsblock replaces it.\n";
/// The lines before the records: comment, origin, SOA record.
const HEAD: usize = 3;

/// Where a copy is written, and how large it may become.
#[derive(Clone)]
pub struct Limits {
    into: PathBuf,
    zone: String,
    pub records: u64,
    pub bytes: u64,
}

impl Limits {
    pub fn of(settings: &Settings) -> Limits {
        let (records, bytes) = (settings.max_records, settings.max_bytes);
        Limits { into: settings.into.clone(), zone: settings.zone.to_string(), records, bytes }
    }

    pub fn check_records(&self, records: u64) -> Result<(), Failed> {
        if records <= self.records {
            return Ok(());
        }
        let limit = Grouped(self.records);
        let reason = format!("more than {limit} records: if the zone has grown, raise `rpz.max_records`");
        Err(Failed::new("TOO_LARGE", reason))
    }

    fn check_bytes(&self, bytes: u64) -> Result<(), Failed> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let limit = Grouped(self.bytes);
        let reason =
            format!("its copy has more than {limit} bytes: if the zone has grown, raise `rpz.max_mb`");
        Err(Failed::new("TOO_LARGE", reason))
    }
}

/// A copy that is being written.
pub struct Copy {
    file: BufWriter<File>,
    limits: Limits,
    records: u64,
    bytes: u64,
}

impl Copy {
    /// Begins a copy, in a new file.
    pub fn create(limits: &Limits, soa: &ZoneSoa) -> Result<Copy, Failed> {
        match std::fs::remove_file(&limits.into) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        // Always created: never write through a link that somebody put there.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&limits.into)?;
        let file = BufWriter::with_capacity(BUFFER, file);
        let mut copy = Copy { file, limits: limits.clone(), records: 0, bytes: 0 };
        copy.write(&[FIRST.as_bytes()])?;
        copy.write(&[b"$ORIGIN ", limits.zone.as_bytes(), b".\n"])?;
        copy.write(&[b"@ ", soa.ttl.to_string().as_bytes(), b" ", &soa.data, b"\n"])?;
        Ok(copy)
    }

    pub fn add(&mut self, line: &Line) -> Result<(), Failed> {
        self.add_parts(&line.owner, line.ttl, &line.data)
    }

    pub fn add_parts(&mut self, owner: &[u8], ttl: u32, data: &[u8]) -> Result<(), Failed> {
        self.count()?;
        self.write(&[owner, b" ", ttl.to_string().as_bytes(), b" ", data, b"\n"])
    }

    /// Adds a line of another copy, with its line feed.
    fn add_line(&mut self, line: &[u8]) -> Result<(), Failed> {
        self.count()?;
        self.write(&[line])
    }

    fn count(&mut self) -> Result<(), Failed> {
        self.records += 1;
        self.limits.check_records(self.records)
    }

    fn write(&mut self, parts: &[&[u8]]) -> Result<(), Failed> {
        for part in parts {
            self.bytes += part.len() as u64;
            self.file.write_all(part)?;
        }
        self.limits.check_bytes(self.bytes)
    }

    /// Returns when the copy is on the disk.
    pub fn finish(self) -> Result<(), Failed> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(file.sync_all()?)
    }

    /// Adds the lines of another copy for which `keeps` is true. It gets owner and data.
    pub fn add_from(
        &mut self,
        before: &Path,
        mut keeps: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Failed> {
        let mut file = BufReader::with_capacity(BUFFER, File::open(before)?);
        let mut line = Vec::new();
        for number in 0.. {
            line.clear();
            if file.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if number < HEAD {
                continue;
            }
            let (owner, _, data) = parts(&line).ok_or_else(unusable)?;
            if keeps(owner, data) {
                self.add_line(&line)?;
            }
        }
        Ok(())
    }
}

fn unusable() -> Failed {
    Failed::new("MISMATCH", "the copy of the zone is corrupt, so that no difference can be applied to it")
}

/// Owner, TTL and data of a line.
fn parts(line: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let line = line.strip_suffix(b"\n")?;
    let (owner, rest) = cut(line)?;
    let (ttl, data) = cut(rest)?;
    Some((owner, ttl, data))
}

fn cut(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = memchr::memchr(b' ', text)?;
    Some((&text[..space], &text[space + 1..]))
}

/// The serial of a copy of this zone. `None` for any other file.
pub fn serial_of(copy: &Path, zone: &Name) -> Option<u32> {
    let mut file = BufReader::new(File::open(copy).ok()?);
    let mut lines = [const { String::new() }; HEAD];
    for line in &mut lines {
        file.read_line(line).ok()?;
    }
    let [first, origin, soa] = lines;
    if first != FIRST || origin != format!("$ORIGIN {zone}.\n") {
        return None;
    }
    let (owner, _, data) = parts(soa.as_bytes())?;
    let data = data.strip_prefix(b"SOA ").filter(|_| owner == b"@")?;
    let data = std::str::from_utf8(data).ok()?;
    data.split(' ').nth(2)?.parse().ok()
}
