//! The counts of a day as bytes: what the control plane keeps in files.
//!
//! It is text in gzip format (RFC 1952), whose CRC-32 is checked. The first line has the version and the
//! totals. Each further line has a count and a name, in the order of the names.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Take, Write};
use std::sync::Arc;

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use triomphe::ThinArc;

use super::SHOWN_FROM;
use crate::name::{MAX_TEXT, Name};

const FORMAT: &str = "dnsblock-query-counts 1";
/// The most bytes of text that are read.
const MAX_BYTES: u64 = 256 << 20;
/// A line: a count, a space, a name and a line feed. The first line is shorter.
const MAX_LINE: u64 = 20 + 1 + MAX_TEXT as u64 + 1;
/// After a cut that was too small, the next one leaves this share of what should fit, in percent.
const CUT_PERCENT: usize = 95;
const BUFFER: usize = 16 << 10;

/// The counts of a table.
#[derive(Default)]
pub struct Counted {
    /// All queries.
    pub queries: u64,
    /// For each name, the queries that are missing in its count are at most this many. So are the queries of
    /// a name that is missing.
    pub bound: u64,
    /// Sorted by name.
    pub names: Vec<(ThinArc<(), u8>, u64)>,
}

/// The counts of a day.
#[derive(Clone)]
pub struct Day {
    pub head: Head,
    /// The number of its names, and the sum of their counts.
    pub names: usize,
    pub listed: u64,
    data: Arc<[u8]>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// See `Counted`.
    pub queries: u64,
    pub bound: u64,
    /// A bit for each hour of the day in which queries were counted.
    pub hours: u32,
}

/// The bytes are not those of a day.
#[derive(Debug)]
pub struct Corrupt(String);

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Corrupt {
    fn from(error: io::Error) -> Corrupt {
        Corrupt(error.to_string())
    }
}

impl Day {
    /// The counts of a table in at most `max_bytes`, for these hours.
    pub fn of(counted: &Counted, hours: u32, max_bytes: usize) -> Day {
        let head = Head { queries: counted.queries, bound: counted.bound, hours };
        let names = counted.names.iter().map(|(name, count)| (&name.slice, *count)).collect();
        Day::encode(head, names, max_bytes)
    }

    /// Reads and checks all of it.
    pub fn read(data: &[u8]) -> Result<Day, Corrupt> {
        let data: Arc<[u8]> = data.into();
        let mut lines = Lines::open(&data)?;
        let (mut names, mut listed) = (0, 0u64);
        while lines.advance()? {
            names += 1;
            listed = listed.saturating_add(lines.count);
        }
        if listed > lines.head.queries {
            return Err(Corrupt("more queries for names than in total".into()));
        }
        Ok(Day { head: lines.head, names, listed, data })
    }

    /// The sum of two parts of one day, in at most `max_bytes`.
    pub fn and(&self, other: &Day, max_bytes: usize) -> Result<Day, Corrupt> {
        let mut sums: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        for day in [self, other] {
            let mut lines = day.lines()?;
            while lines.advance()? {
                let sum = sums.entry(lines.name.clone()).or_default();
                *sum = sum.saturating_add(lines.count);
            }
        }
        let head = Head {
            queries: self.head.queries.saturating_add(other.head.queries),
            bound: self.head.bound.saturating_add(other.head.bound),
            hours: self.head.hours | other.head.hours,
        };
        let names = sums.iter().map(|(name, count)| (name.as_slice(), *count)).collect();
        Ok(Day::encode(head, names, max_bytes))
    }

    /// If the names do not fit, those with the fewest queries are left out.
    fn encode(mut head: Head, mut names: Vec<(&[u8], u64)>, max_bytes: usize) -> Day {
        let bound = head.bound;
        loop {
            let data = compress(&head, &names);
            if data.len() <= max_bytes || names.is_empty() {
                let listed = names.iter().fold(0u64, |sum, (_, count)| sum.saturating_add(*count));
                return Day { head, names: names.len(), listed, data: data.into() };
            }
            let fitting = names.len() as u128 * max_bytes as u128 / data.len() as u128;
            let left = fitting as usize * CUT_PERCENT / 100;
            names.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
            // Less than all: `fitting` is less than the number of names.
            head.bound = bound.saturating_add(names[left].1);
            names.truncate(left);
            names.sort_unstable();
        }
    }

    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Its names and counts, one after the other.
    pub fn lines(&self) -> Result<Lines<'_>, Corrupt> {
        Lines::open(&self.data)
    }
}

fn compress(head: &Head, names: &[(&[u8], u64)]) -> Vec<u8> {
    let mut text = Vec::new();
    let Head { queries, bound, hours } = head;
    text.extend(format!("{FORMAT} {queries} {bound} {hours}\n").into_bytes());
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut is_written = true;
    for (name, count) in names {
        text.extend(count.to_string().into_bytes());
        text.push(b' ');
        text.extend_from_slice(name);
        text.push(b'\n');
        if text.len() >= BUFFER {
            is_written &= encoder.write_all(&text).is_ok();
            text.clear();
        }
    }
    is_written &= encoder.write_all(&text).is_ok();
    let data = encoder.finish();
    assert!(is_written, "writing to a vector does not fail");
    data.expect("writing to a vector does not fail")
}

/// Reads a day name by name, in little memory.
pub struct Lines<'a> {
    pub head: Head,
    /// The current name and its count, after `advance` has returned true.
    pub name: Vec<u8>,
    pub count: u64,
    reader: BufReader<Take<GzDecoder<&'a [u8]>>>,
    line: Vec<u8>,
}

impl<'a> Lines<'a> {
    fn open(data: &'a [u8]) -> Result<Lines<'a>, Corrupt> {
        let reader = BufReader::with_capacity(BUFFER, GzDecoder::new(data).take(MAX_BYTES));
        let (head, name, line) = (Head::default(), Vec::new(), Vec::new());
        let mut lines = Lines { head, name, count: 0, reader, line };
        lines.next_line()?;
        let text = std::str::from_utf8(&lines.line).unwrap_or("");
        let numbers = text.strip_prefix(FORMAT).and_then(|rest| rest.strip_prefix(' '));
        let numbers = numbers.ok_or_else(|| Corrupt("not in the format of this version".into()))?;
        let numbers: Vec<u64> = numbers.split(' ').filter_map(|number| number.parse().ok()).collect();
        let [queries, bound, hours] = numbers[..] else {
            return Err(Corrupt("invalid first line".into()));
        };
        let hours = u32::try_from(hours).ok().filter(|hours| *hours < 1 << 24);
        let hours = hours.ok_or_else(|| Corrupt("invalid hours".into()))?;
        lines.head = Head { queries, bound, hours };
        Ok(lines)
    }

    /// Reads the next name; false at the end, once all checks are done.
    pub fn advance(&mut self) -> Result<bool, Corrupt> {
        if !self.next_line()? {
            return Ok(false);
        }
        let (count, name) = self.parsed().ok_or_else(|| Corrupt("invalid line".into()))?;
        let (count, name) = (count, name.to_vec());
        if name <= self.name {
            return Err(Corrupt("names out of order".into()));
        }
        (self.count, self.name) = (count, name);
        Ok(true)
    }

    fn parsed(&self) -> Option<(u64, &[u8])> {
        let space = self.line.iter().position(|&byte| byte == b' ')?;
        let (count, name) = (&self.line[..space], &self.line[space + 1..]);
        let count: u64 = std::str::from_utf8(count).ok()?.parse().ok()?;
        let is_valid = count >= u64::from(SHOWN_FROM)
            && !name.ends_with(b".")
            && !name.iter().any(u8::is_ascii_uppercase)
            && Name::from_text(name).is_ok();
        is_valid.then_some((count, name))
    }

    /// Reads a line without its line feed; false at the end.
    fn next_line(&mut self) -> Result<bool, Corrupt> {
        self.line.clear();
        let read = (&mut self.reader).take(MAX_LINE).read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(false);
        }
        match self.line.pop() {
            Some(b'\n') => Ok(true),
            _ => Err(Corrupt("a line is too long, or incomplete".into())),
        }
    }
}
