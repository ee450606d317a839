//! Reads the records of a zone file (a master file, RFC 1035 section 5.1), line by line.
//!
//! A record that is invalid is an error of its own: the next line is read as if it had not been there.

use super::rdata::{self, Data, Soa};
use crate::list::Reason;
use crate::list::tokens::{strip_parent, word};
use crate::name::Name;

const EXPECTED: &str = "records of a zone file, as in `ads.example CNAME .`";
const CLOSED: &str = "an end to each parenthesis; this may be a record, or text within an open one";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Lines and bytes of one record. Without these limits, an unclosed parenthesis would swallow the rest.
const MAX_LINES: usize = 100;
const MAX_BYTES: usize = 256 << 10;
/// RFC 2181 section 8.
const MAX_TTL: u32 = i32::MAX as u32;

/// A line, or several in parentheses.
pub enum Step<'a> {
    /// Blank, a comment, `$TTL`, `$ORIGIN`, or the begin of a record whose end is on another line.
    Nothing,
    /// A line of a record that has begun before.
    Part,
    Record(Record<'a>),
    /// `$INCLUDE`: this file follows here.
    Include(Include),
}

/// A record of class IN.
pub struct Record<'a> {
    /// Relative to the zone, without escapes; empty at its apex.
    pub owner: &'a [u8],
    /// In seconds.
    pub ttl: u32,
    pub data: Data,
}

pub struct Include {
    pub path: String,
    /// Absolute, without its last dot.
    pub origin: Option<Vec<u8>>,
}

/// The state around an included file.
pub struct Around {
    origin: Option<Vec<u8>>,
    owner: Result<Vec<u8>, Reason>,
}

/// The state between lines. Names are absolute, without their last dot.
pub struct MasterFile {
    /// The origin if the file names none.
    zone: Vec<u8>,
    origin: Option<Vec<u8>>,
    apex: Option<Vec<u8>>,
    /// The owner of the last record, relative to the zone. A line that begins with white space has the same.
    owner: Result<Vec<u8>, Reason>,
    /// Of `$TTL`.
    default_ttl: Option<u32>,
    last_ttl: Option<u32>,
    pub soa: Option<Soa>,
    /// The lines of a record whose parenthesis is open.
    open: Vec<u8>,
    lines: usize,
    /// One of them looks like a record of its own. It may be one, if the parenthesis was never closed.
    is_doubtful: bool,
    /// After an invalid `$ORIGIN`: nobody knows which names are meant.
    is_lost: bool,
    /// Whether every record is read in full, with those that are only about the zone.
    is_complete: bool,
}

impl MasterFile {
    /// `zone`: the name of the zone, for a file that does not say it.
    pub fn new(zone: &[u8]) -> MasterFile {
        MasterFile {
            zone: zone.strip_suffix(b".").unwrap_or(zone).to_vec(),
            origin: None,
            apex: None,
            owner: Err(Reason::NotThisFormat("an owner in its first record")),
            default_ttl: None,
            last_ttl: None,
            soa: None,
            open: Vec::new(),
            lines: 0,
            is_doubtful: false,
            is_lost: false,
            is_complete: false,
        }
    }

    /// Reads the records that are only about the zone in full, too.
    pub fn complete(self) -> MasterFile {
        MasterFile { is_complete: true, ..self }
    }

    /// Reads a line without its line feed.
    pub fn take(&mut self, line: &[u8]) -> Result<Step<'_>, Reason> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        let is_part = self.lines > 0;
        if !is_part && is_plain(line) {
            return self.take_whole(line);
        }
        self.is_doubtful = is_part && (self.is_doubtful || starts_record(line));
        match self.join(line) {
            Err(reason) => {
                self.lines = 0;
                self.take_owner();
                Err(reason)
            }
            // No record is lost without a report, and none is made of the text of another one.
            Ok(is_closed) if self.is_doubtful => {
                if is_closed {
                    self.take_owner();
                }
                Err(Reason::NotThisFormat(CLOSED))
            }
            Ok(false) => Ok(if is_part { Step::Part } else { Step::Nothing }),
            Ok(true) => {
                let text = std::mem::take(&mut self.open);
                self.take_whole(&text)
            }
        }
    }

    /// Notes that a line was too long to be read.
    pub fn skip(&mut self) {
        self.owner = Err(Reason::LineTooLong);
        self.lines = 0;
    }

    /// The owner of a record that cannot be read, for those that follow without one.
    fn take_owner(&mut self) {
        let text = std::mem::take(&mut self.open);
        if text.first().is_some_and(|byte| !byte.is_ascii_whitespace() && *byte != b'$') {
            self.owner = match self.apex {
                Some(_) => self.relative(word(&text).0, false),
                None => Err(Reason::NotThisFormat(EXPECTED)),
            };
        }
    }

    /// Whether the last line belongs to a record that has no end.
    pub fn is_incomplete(&self) -> bool {
        self.lines > 0
    }

    /// The name of the zone.
    pub fn into_apex(self) -> Vec<u8> {
        self.apex.or(self.origin).unwrap_or(self.zone)
    }

    /// Enters an included file. Afterwards, origin and owner are as before (RFC 1035 section 5.1).
    pub fn enter(&mut self, origin: Option<Vec<u8>>) -> Around {
        let around = Around { origin: self.origin.clone(), owner: self.owner.clone() };
        self.origin = origin.or_else(|| around.origin.clone());
        around
    }

    pub fn leave(&mut self, around: Around) {
        (self.origin, self.owner) = (around.origin, around.owner);
        (self.lines, self.is_lost) = (0, false);
    }

    /// Adds a line without its comment and parentheses to `open`. True if the record is complete.
    fn join(&mut self, line: &[u8]) -> Result<bool, Reason> {
        let mut is_open = self.lines > 0;
        if !is_open {
            self.open.clear();
        }
        let mut is_quoted = false;
        let mut bytes = line.iter().copied();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\\' => {
                    self.open.push(byte);
                    self.open.extend(bytes.next());
                }
                b'"' => {
                    is_quoted = !is_quoted;
                    self.open.push(byte);
                }
                _ if is_quoted => self.open.push(byte),
                b';' => break,
                b'(' | b')' if is_open == (byte == b'(') => return Err(Reason::NotThisFormat(EXPECTED)),
                b'(' | b')' => {
                    is_open = !is_open;
                    self.open.push(b' ');
                }
                _ => self.open.push(byte),
            }
        }
        self.lines = if is_open { self.lines + 1 } else { 0 };
        if is_quoted || self.lines > MAX_LINES || self.open.len() > MAX_BYTES {
            return Err(Reason::NotThisFormat(EXPECTED));
        }
        self.open.push(b' ');
        Ok(!is_open)
    }

    fn take_whole(&mut self, text: &[u8]) -> Result<Step<'_>, Reason> {
        let text = text.trim_ascii_end();
        if text.is_empty() {
            return Ok(Step::Nothing);
        }
        if text.starts_with(b"$") {
            return self.take_directive(text);
        }
        let is_same = text.starts_with(b" ") || text.starts_with(b"\t");
        if is_same && word(text).0.eq_ignore_ascii_case(b"$INCLUDE") {
            return Err(Reason::NotIncluded);
        }
        let (owner, rest) = if is_same { (&b""[..], text) } else { word(text) };
        let fields = rdata::fields(rest);
        if !is_same {
            self.owner = match (&fields, &self.apex) {
                (Ok(fields), _) => self.relative(owner, fields.rtype.eq_ignore_ascii_case(b"SOA")),
                (Err(_), Some(_)) => self.relative(owner, false),
                // A line that is no record does not name the zone.
                (Err(reason), None) => Err(*reason),
            };
        }
        let fields = fields?;
        if self.is_lost {
            return Err(Reason::OutsideZone);
        }
        let origin = self.origin.as_deref().unwrap_or_default();
        let data = rdata::parse(&fields, origin, self.is_complete)?;
        if let Data::Soa(soa, _) = &data {
            // RFC 2308 section 4: without `$TTL`, records had the minimum of the SOA record as TTL.
            self.soa.get_or_insert(*soa);
        }
        let ttl = fields.ttl.map(|ttl| if ttl > MAX_TTL { 0 } else { ttl });
        self.last_ttl = ttl.or(self.last_ttl);
        let ttl = ttl.or(self.default_ttl).or(self.last_ttl);
        let ttl = ttl.or(self.soa.map(|soa| soa.minimum)).unwrap_or(0);
        match &self.owner {
            Ok(owner) => Ok(Step::Record(Record { owner, ttl, data })),
            Err(reason) => Err(*reason),
        }
    }

    fn take_directive(&mut self, text: &[u8]) -> Result<Step<'_>, Reason> {
        let (directive, rest) = word(text);
        let (argument, after) = word(rest);
        let is = |name: &[u8]| directive.eq_ignore_ascii_case(name);
        let is_alone = !argument.is_empty() && after.trim_ascii().is_empty();
        if is(b"$TTL") {
            let ttl =
                rdata::ttl(argument).filter(|_| is_alone).ok_or(Reason::NotThisFormat("`$TTL SECONDS`"))?;
            self.default_ttl = Some(ttl.min(MAX_TTL));
        } else if is(b"$ORIGIN") {
            let is_relative = !argument.ends_with(b".");
            let was_lost = std::mem::replace(&mut self.is_lost, true);
            if !is_alone || was_lost && is_relative {
                return Err(Reason::NotThisFormat("`$ORIGIN NAME`"));
            }
            let origin = self.absolute(argument)?;
            if !origin.is_empty() {
                Name::from_text(&origin).map_err(Reason::from)?;
            }
            (self.origin, self.is_lost) = (Some(origin), false);
        } else if is(b"$INCLUDE") {
            let (origin, after) = word(after);
            if argument.is_empty() || !after.trim_ascii().is_empty() || self.is_lost {
                return Err(Reason::NotIncluded);
            }
            let origin = match origin {
                b"" => None,
                origin => Some(self.absolute(origin).map_err(|_| Reason::NotIncluded)?),
            };
            let path = String::from_utf8_lossy(argument).trim_matches('"').to_string();
            return Ok(Step::Include(Include { path, origin }));
        } else {
            return Err(Reason::Unsupported("a directive other than $ORIGIN, $TTL and $INCLUDE"));
        }
        Ok(Step::Nothing)
    }

    /// The owner relative to the apex. The first record says which name that is: the owner of its SOA
    /// record, otherwise the origin.
    fn relative(&mut self, owner: &[u8], is_soa: bool) -> Result<Vec<u8>, Reason> {
        if self.apex.is_none() {
            if self.origin.is_none() && !(is_soa && owner.ends_with(b".")) {
                self.origin = Some(self.zone.clone());
            }
            let apex = if is_soa { self.absolute(owner)? } else { self.origin.clone().unwrap_or_default() };
            self.origin.get_or_insert_with(|| apex.clone());
            self.apex = Some(apex);
        }
        let is_plain = !owner.ends_with(b".") && memchr::memchr(b'\\', owner).is_none();
        if is_plain && self.origin == self.apex {
            // As in nearly all records.
            return Ok(if owner == b"@" { Vec::new() } else { owner.to_vec() });
        }
        let absolute = self.absolute(owner)?;
        let apex = self.apex.as_deref().unwrap_or_default();
        strip_parent(&absolute, apex).map(<[u8]>::to_vec).ok_or(Reason::OutsideZone)
    }

    /// The absolute name, without escapes.
    fn absolute(&self, name: &[u8]) -> Result<Vec<u8>, Reason> {
        let origin = self.origin.as_deref().unwrap_or(&self.zone);
        rdata::absolute(name, origin)
    }
}

/// Whether a line has no comment, parenthesis, quote or escape.
fn is_plain(line: &[u8]) -> bool {
    memchr::memchr3(b';', b'(', b'"', line).is_none() && memchr::memchr2(b')', b'\\', line).is_none()
}

/// Whether a line starts a record, with its owner. Lines in parentheses (numbers, keys, text) do not look
/// like this.
fn starts_record(line: &[u8]) -> bool {
    let (owner, rest) = word(line);
    let is_owner = owner.first().is_some_and(|byte| !b" \t\"();$".contains(byte));
    let is_indented = line.starts_with(b" ") || line.starts_with(b"\t");
    is_owner && !is_indented && rdata::fields(rest).is_ok_and(|fields| rdata::is_type(fields.rtype))
}
