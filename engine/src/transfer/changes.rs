//! The differences of an incremental transfer, and how they change the copy of the zone.

use std::collections::HashMap;

use xxhash_rust::xxh3::Xxh3DefaultBuilder;

use super::Failed;
use super::copy::{Copy, Limits};
use super::records::Line;

/// Bytes in memory. Beyond this, the whole zone is transferred, which is written to the disk.
const MOST_BYTES: usize = 256 << 20;
/// Bytes of a change besides its text.
const OVERHEAD: usize = 96;

/// The change of one record.
struct Change {
    /// Whether the copy has it before the first difference.
    was_there: bool,
    /// Its TTL after the last difference; `None`: it is removed.
    ttl: Option<u32>,
    /// Whether the copy had it.
    is_found: bool,
}

/// All differences together: only the last one about a record counts.
pub struct Changes {
    /// By owner and data.
    records: HashMap<Box<[u8]>, Change, Xxh3DefaultBuilder>,
    limits: Limits,
    bytes: usize,
    key: Vec<u8>,
}

impl Changes {
    pub fn new(limits: &Limits) -> Changes {
        Changes { records: HashMap::default(), limits: limits.clone(), bytes: 0, key: Vec::new() }
    }

    pub fn remove(&mut self, line: &Line) -> Result<(), Failed> {
        self.note(line, None)
    }

    pub fn add(&mut self, line: &Line) -> Result<(), Failed> {
        self.note(line, Some(line.ttl))
    }

    fn note(&mut self, line: &Line, ttl: Option<u32>) -> Result<(), Failed> {
        put_key(&line.owner, &line.data, &mut self.key);
        if let Some(change) = self.records.get_mut(&self.key[..]) {
            change.ttl = ttl;
            return Ok(());
        }
        self.limits.check_records(self.records.len() as u64 + 1)?;
        self.bytes += self.key.len() + OVERHEAD;
        if self.bytes > MOST_BYTES {
            return Err(Failed::new("MISMATCH", "more changes than an incremental transfer may have"));
        }
        let change = Change { was_there: ttl.is_none(), ttl, is_found: false };
        self.records.insert(self.key.as_slice().into(), change);
        Ok(())
    }

    /// The records that are removed and added, as lines of a zone file without a line feed. Removed ones come
    /// first; one that only gets another TTL is in both.
    pub fn lines(&self) -> Vec<(bool, Vec<u8>)> {
        let mut lines: Vec<(bool, Vec<u8>)> = Vec::with_capacity(self.records.len());
        for (key, change) in &self.records {
            let space = memchr::memchr(b' ', key).unwrap_or(key.len());
            let (owner, data) = key.split_at(space);
            let line = |ttl: u32| [owner, b" ", ttl.to_string().as_bytes(), data].concat();
            lines.extend(change.was_there.then(|| (false, line(0))));
            lines.extend(change.ttl.map(|ttl| (true, line(ttl))));
        }
        lines.sort_unstable();
        lines
    }

    /// Writes the copy after the differences. They must fit the copy before them exactly: if they do not,
    /// the copy is not what the primary had then, and the whole zone has to be transferred.
    pub fn apply(mut self, before: &std::path::Path, mut after: Copy) -> Result<(), Failed> {
        let Changes { records, key, .. } = &mut self;
        let mut surplus = 0u64;
        after.add_from(before, |owner, data| {
            put_key(owner, data, key);
            match records.get_mut(&key[..]) {
                None => true,
                Some(change) => {
                    change.is_found = true;
                    surplus += u64::from(!change.was_there);
                    false
                }
            }
        })?;
        let missing = records.values().filter(|change| change.was_there && !change.is_found).count();
        if missing > 0 || surplus > 0 {
            let reason = format!("{missing} records to remove are not in the copy, {surplus} to add are");
            return Err(Failed::new("MISMATCH", reason));
        }
        // In a fixed order, so that the same difference gives the same file.
        let mut added: Vec<_> =
            records.iter().filter_map(|(key, change)| change.ttl.map(|ttl| (key, ttl))).collect();
        added.sort_unstable();
        for (key, ttl) in added {
            let space = memchr::memchr(b' ', key).unwrap_or(key.len() - 1);
            after.add_parts(&key[..space], ttl, &key[space + 1..])?;
        }
        after.finish()
    }
}

fn put_key(owner: &[u8], data: &[u8], key: &mut Vec<u8>) {
    key.clear();
    key.extend_from_slice(owner);
    key.push(b' ');
    key.extend_from_slice(data);
}
