//! An upstream's response, parsed once, on receipt. A malformed message is no response.
//!
//! `Parser` checks every section and records where the records, their owner names and their
//! TTLs are. `chain` follows a response to its targets, `targets` drops records, `relay` writes
//! the client's response, and `cache` stores it. All of them use this result.

use std::cell::Cell;
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::message::{
    ExtendedError, HEADER, Record, Section, edns_flag, flag, is_truncated, option, options, rcode, rtype,
    skip_name, u16_at, u32_at,
};
use crate::name::{MAX_NAME, Name};
use crate::policy::seed;

/// Bytes of a message that a compression pointer can address (RFC 1035 4.1.4).
pub const POINTER_RANGE: usize = 0x4000;
/// Extended errors of an upstream that are passed on at most.
pub const MAX_ERRORS: usize = 4;

/// The configured limits for TTLs, in seconds. They apply to what is passed on and cached.
#[derive(Clone, Copy, Debug, Default)]
pub struct TtlBounds {
    pub max_ttl: u32,
    /// For NXDOMAIN and NODATA (RFC 2308 5).
    pub max_negative_ttl: u32,
}

/// Parses messages, and holds the result for the last one. Its memory is reused.
pub struct Parser {
    entries: Vec<Entry>,
    /// The hash of each record's owner name, and the record's index; sorted.
    owners: Vec<(u64, u16)>,
    /// The length of the name that begins at each offset, uncompressed; 0 if none does.
    names: Box<[u8; POINTER_RANGE]>,
    /// The options of the OPT record.
    options: Range<usize>,
    /// Whether the last message was well-formed.
    is_valid: bool,
    /// The end of the question section.
    question_end: usize,
    /// All twelve bits.
    rcode: u16,
    /// The flags of the OPT record that are in `edns_flag::PASSED`.
    edns_flags: u16,
    has_dname: bool,
    has_targets: bool,
    /// See `Response::lifetime`.
    lifetime: Option<u32>,
    dropped: Cell<usize>,
}

/// A record of a response other than the OPT record.
pub struct Entry {
    /// The offset of the owner name.
    pub owner: usize,
    pub section: Section,
    pub record: Record,
    marks: Cell<u8>,
    /// See `refer`: the number of zones plus one, or 0.
    referred_by: Cell<u16>,
}

/// A finding about a record.
#[derive(Clone, Copy)]
pub enum Mark {
    /// The chain from the queried name includes its owner name, so that name was judged.
    OnPath = 1,
    /// It is an alternative at the end of the chain and was judged as one.
    Alternative = 2,
    /// The records of its owner name were judged.
    Visited = 4,
    /// It is not passed on.
    Dropped = 8,
}

impl Entry {
    pub fn has(&self, mark: Mark) -> bool {
        self.marks.get() & mark as u8 != 0
    }

    pub fn set(&self, mark: Mark) {
        self.marks.set(self.marks.get() | mark as u8);
    }

    /// Records that an HTTPS or SVCB record points to the owner name, and how many zones judge
    /// that name. True if this is new, or more zones than before.
    pub fn refer(&self, zones: usize) -> bool {
        let zones = zones.saturating_add(1).min(usize::from(u16::MAX)) as u16;
        zones > self.referred_by.replace(self.referred_by.get().max(zones))
    }

    pub fn rtype(&self) -> u16 {
        self.record.rtype
    }

    /// The type of its RRset: for an RRSIG, the type that it covers (RFC 4034 3.1.1).
    pub fn covered_type(&self, message: &[u8]) -> u16 {
        match self.record.rtype {
            rtype::RRSIG => u16_at(message, self.record.rdata_start).unwrap_or(rtype::RRSIG),
            other => other,
        }
    }

    /// The offset of its TTL.
    pub fn ttl_at(&self) -> usize {
        self.record.rdata_start - 6
    }
}

impl Default for Parser {
    fn default() -> Parser {
        Parser {
            entries: Vec::new(),
            owners: Vec::new(),
            names: Box::new([0; POINTER_RANGE]),
            options: 0..0,
            is_valid: false,
            question_end: 0,
            rcode: 0,
            edns_flags: 0,
            has_dname: false,
            has_targets: false,
            lifetime: None,
            dropped: Cell::new(0),
        }
    }
}

impl Parser {
    /// Parses a message; `None` if it is malformed, or about our own OPT record or cookie.
    pub fn parse<'a>(&'a mut self, message: &'a [u8]) -> Option<Response<'a>> {
        self.is_valid = self.read(message).is_some();
        self.parsed(message)
    }

    /// Parses a cached message, whose extended RCODE is stored beside it.
    pub fn parse_cached<'a>(&'a mut self, message: &'a [u8], rcode: u16) -> Option<Response<'a>> {
        self.is_valid = self.read(message).is_some();
        self.rcode = rcode;
        self.parsed(message)
    }

    /// Brings the TTLs of the message that was parsed last within bounds; returns the response.
    pub fn bound_ttls<'a>(&'a mut self, message: &'a mut [u8], bounds: &TtlBounds) -> Option<Response<'a>> {
        if self.is_valid {
            self.lifetime = self.cap_ttls(message, bounds);
            for entry in &self.entries {
                message[entry.ttl_at()..][..4].copy_from_slice(&entry.record.ttl.to_be_bytes());
            }
        }
        self.parsed(message)
    }

    fn parsed<'a>(&'a self, message: &'a [u8]) -> Option<Response<'a>> {
        self.is_valid.then_some(Response { message, parsed: self })
    }

    fn read(&mut self, message: &[u8]) -> Option<()> {
        self.entries.clear();
        self.owners.clear();
        self.names[..message.len().min(POINTER_RANGE)].fill(0);
        (self.options, self.has_dname, self.has_targets, self.lifetime) = (0..0, false, false, None);
        self.dropped.set(0);
        self.edns_flags = 0;
        self.rcode = u16_at(message, 2)? & flag::RCODE;
        if u16_at(message, 4)? != 1 {
            return None;
        }
        self.question_end = self.name(message, HEADER)? + 4;
        let (mut at, mut has_opt) = (self.question_end, false);
        for section in Section::ALL {
            for _ in 0..u16_at(message, section as usize)? {
                let owner = at;
                let record = Record::after(message, self.name(message, owner)?)?;
                at = record.end;
                if record.rtype != rtype::OPT {
                    let (marks, referred_by) = (Cell::new(0), Cell::new(0));
                    self.add(message, Entry { owner, section, record, marks, referred_by })?;
                } else if has_opt || section != Section::Additional || message[owner] != 0 {
                    // RFC 6891 6.1.1: one, in the additional section, owned by the root.
                    return None;
                } else {
                    has_opt = true;
                    self.rcode |= ((record.ttl >> 20) & 0xff0) as u16;
                    self.edns_flags = record.ttl as u16 & edns_flag::PASSED;
                    self.options = record.rdata_start..record.end;
                }
            }
        }
        // A response about our own OPT record or cookie answers no client's question.
        let is_about_us = matches!(self.rcode, rcode::BADVERS | rcode::BADCOOKIE);
        let has_whole_options = extended_errors(&message[self.options.clone()]).all(|error| error.is_some());
        self.owners.sort_unstable();
        (message.len() >= self.question_end && has_whole_options && !is_about_us).then_some(())
    }

    fn add(&mut self, message: &[u8], entry: Entry) -> Option<()> {
        self.rdata(message, &entry.record)?;
        let index = u16::try_from(self.entries.len()).ok()?;
        let hash = match self.entries.last().zip(self.owners.last()) {
            // Records of one RRset usually have the same pointer.
            Some((previous, (hash, _)))
                if is_pointer(message, entry.owner)
                    && message[previous.owner..][..2] == message[entry.owner..][..2] =>
            {
                *hash
            }
            _ => {
                let mut wire = [0; MAX_NAME];
                let length = uncompress(message, entry.owner, &mut wire)?;
                hash_of(&wire[..length])
            }
        };
        self.has_dname |= entry.rtype() == rtype::DNAME;
        self.has_targets |= matches!(entry.rtype(), rtype::CNAME | rtype::DNAME | rtype::SVCB | rtype::HTTPS);
        self.owners.push((hash, index));
        self.entries.push(entry);
        Some(())
    }

    /// Checks the possibly compressed name at `at`; returns its end.
    ///
    /// A pointer must address the beginning of an earlier name or of one of its suffixes (RFC
    /// 1035 4.1.4: "a prior occurrence"). Thus it never points forward, to itself, into a label,
    /// the header or other data, or past the end.
    fn name(&mut self, message: &[u8], at: usize) -> Option<usize> {
        let mut here = at;
        let (rest, end) = loop {
            match *message.get(here)? {
                0 => break (1, here + 1),
                length @ 1..=63 => here += 1 + usize::from(length),
                0xc0..=0xff => {
                    let target = usize::from(u16_at(message, here)? & 0x3fff);
                    break (usize::from(self.names[target]), here + 2);
                }
                _ => return None,
            }
            if here - at >= MAX_NAME {
                return None;
            }
        };
        let length = here - at + rest;
        if rest == 0 || length > MAX_NAME {
            return None;
        }
        let mut label = at;
        while label <= here && label < POINTER_RANGE {
            self.names[label] = (length - (label - at)) as u8;
            label += 1 + usize::from(message[label]);
        }
        Some(end)
    }

    /// Checks the RDATA of types with names or addresses: these must fill it as the type
    /// specifies. RDATA of other types is opaque (RFC 3597).
    fn rdata(&mut self, message: &[u8], record: &Record) -> Option<()> {
        let length = record.end - record.rdata_start;
        match (record.rtype, record.class) {
            (rtype::A, 1) => return (length == 4).then_some(()),
            (rtype::AAAA, 1) => return (length == 16).then_some(()),
            _ => {}
        }
        let Some(Layout { prefix, names, suffix, .. }) = Layout::of(record.rtype) else { return Some(()) };
        let mut at = record.rdata_start + prefix.length(record.rdata(message))?;
        for _ in 0..names {
            // The name must not begin after the RDATA.
            at = (at < record.end).then(|| self.name(message, at))??;
        }
        match suffix {
            Some(bytes) => at + bytes == record.end,
            None => at <= record.end,
        }
        .then_some(())
    }

    /// Caps the parsed TTLs; returns the response's lifetime.
    fn cap_ttls(&mut self, message: &[u8], bounds: &TtlBounds) -> Option<u32> {
        let qtype = u16_at(message, self.question_end - 4)?;
        let (mut shortest, mut has_data, mut denial) = (bounds.max_ttl, false, None);
        for Entry { section, record, .. } in &mut self.entries {
            has_data |= *section == Section::Answer && (record.rtype == qtype || qtype == rtype::ANY);
            // RFC 8767 4: a TTL with the highest bit set is a large one. RFC 2181 8 took it as 0.
            record.ttl = record.ttl.min(bounds.max_ttl);
            if *section == Section::Authority && record.rtype == rtype::SOA {
                denial = Some(record);
            } else {
                shortest = shortest.min(record.ttl);
            }
        }
        let is_denial = !has_data || self.rcode == rcode::NXDOMAIN;
        match denial {
            Some(soa) => {
                if is_denial {
                    // RFC 2308 5: the lesser of the SOA's TTL and its MINIMUM field.
                    let minimum = u32_at(message, soa.end - 4)?;
                    soa.ttl = soa.ttl.min(minimum).min(bounds.max_negative_ttl);
                }
                Some(shortest.min(soa.ttl))
            }
            // RFC 2308 5: a denial without an SOA record has no lifetime.
            None => (!is_denial).then_some(shortest),
        }
    }
}

/// A well-formed message and its parsed records.
#[derive(Clone, Copy)]
pub struct Response<'a> {
    message: &'a [u8],
    parsed: &'a Parser,
}

impl<'a> Response<'a> {
    pub fn message(&self) -> &'a [u8] {
        self.message
    }

    /// The same response in a copy of its message.
    pub fn with_message(self, message: &'a [u8]) -> Response<'a> {
        Response { message, ..self }
    }

    /// All twelve bits.
    pub fn rcode(&self) -> u16 {
        self.parsed.rcode
    }

    /// The flags of the OPT record that are in `edns_flag::PASSED`; 0 for a cached message.
    pub fn edns_flags(&self) -> u16 {
        self.parsed.edns_flags
    }

    /// Whether the upstream failed. The records of such a response are not followed.
    pub fn is_failure(&self) -> bool {
        self.rcode() == rcode::SERVFAIL || self.rcode() > flag::RCODE
    }

    pub fn is_truncated(&self) -> bool {
        is_truncated(self.message)
    }

    pub fn has_dname(&self) -> bool {
        self.parsed.has_dname
    }

    /// Whether any record points to another name: CNAME, DNAME, HTTPS or SVCB.
    pub fn has_targets(&self) -> bool {
        self.parsed.has_targets
    }

    /// Whether this name, in lower case, is the only one: it owns all records, and none points elsewhere.
    pub fn is_only_about(&self, name: &Name) -> bool {
        !self.has_targets() && self.owned_by(name.suffix(0)).count() == self.entries().len()
    }

    /// The seconds for which it may be cached: its shortest TTL. `None` for a denial without an
    /// SOA record.
    pub fn lifetime(&self) -> Option<u32> {
        self.parsed.lifetime
    }

    /// The end of the question section.
    pub fn question_end(&self) -> usize {
        self.parsed.question_end
    }

    /// The records of all sections, without the OPT record.
    pub fn entries(&self) -> &'a [Entry] {
        &self.parsed.entries
    }

    /// The records with this owner name, in all sections. `name`: in wire format and lower case.
    pub fn owned_by<'n>(self, name: &'n [u8]) -> impl Iterator<Item = &'a Entry> + use<'a, 'n> {
        let (hash, parsed) = (hash_of(name), self.parsed);
        let first = parsed.owners.partition_point(|&(other, _)| other < hash);
        let same = parsed.owners[first..].iter().take_while(move |&&(other, _)| other == hash);
        same.map(|&(_, index)| &parsed.entries[usize::from(index)])
            .filter(move |entry| is_name(self.message, entry.owner, name))
    }

    /// The parsed name at this offset, in lower case.
    pub fn name(&self, at: usize) -> Name {
        let mut wire = [0; MAX_NAME];
        let length = uncompress(self.message, at, &mut wire).unwrap_or(1);
        Name::parse(&wire[..length], 0).map_or_else(|_| Name::root(), |(name, _)| name)
    }

    /// The name in the RDATA of a CNAME or DNAME record.
    pub fn target(&self, entry: &Entry) -> Name {
        self.name(entry.record.rdata_start)
    }

    /// TargetName of an HTTPS or SVCB record; `None` for the owner name itself (RFC 9460 2.5).
    pub fn service_target(&self, entry: &Entry) -> Option<Name> {
        Some(self.name(entry.record.rdata_start + 2)).filter(|name| name.labels() > 0)
    }

    /// SvcParams of an HTTPS or SVCB record (RFC 9460 2.2).
    pub fn service_parameters(&self, entry: &Entry) -> &'a [u8] {
        let end = skip_name(self.message, entry.record.rdata_start + 2);
        end.and_then(|end| self.message.get(end..entry.record.end)).unwrap_or_default()
    }

    /// Its extended errors, as many as are passed on, and their number.
    pub fn errors(&self) -> ([ExtendedError<'a>; MAX_ERRORS], usize) {
        let mut errors = [ExtendedError::default(); MAX_ERRORS];
        let mut count = 0;
        // A cached message has none: the cache stores them beside it.
        let options = self.message.get(self.parsed.options.clone()).unwrap_or_default();
        for error in extended_errors(options).flatten().take(MAX_ERRORS) {
            errors[count] = error;
            count += 1;
        }
        (errors, count)
    }

    pub fn clear_marks(&self) {
        self.entries().iter().for_each(|entry| {
            entry.marks.set(0);
            entry.referred_by.set(0);
        });
        self.parsed.dropped.set(0);
    }

    /// Excludes a record from what is passed on.
    pub fn drop_entry(&self, entry: &Entry) {
        if !entry.has(Mark::Dropped) {
            entry.set(Mark::Dropped);
            self.parsed.dropped.set(self.dropped() + 1);
        }
    }

    /// How many records are not passed on.
    pub fn dropped(&self) -> usize {
        self.parsed.dropped.get()
    }
}

/// Where the names are in the RDATA of a type.
pub struct Layout {
    prefix: Prefix,
    pub names: usize,
    /// Bytes after the last name; `None`: any number.
    suffix: Option<usize>,
    /// Whether the names may be compressed (RFC 3597 4: only in the types of RFC 1035).
    pub is_compressible: bool,
}

/// The fields before the first name.
#[derive(Clone, Copy)]
enum Prefix {
    Bytes(usize),
    /// The integers and character strings of a NAPTR record (RFC 3403 4.1).
    NaptrStrings,
}

impl Layout {
    pub fn of(rtype: u16) -> Option<Layout> {
        use Prefix::{Bytes, NaptrStrings};
        let (prefix, names, suffix) = match rtype {
            // NS, MD, MF, CNAME, MB, MG, MR, PTR, DNAME
            2..=5 | 7..=9 | 12 | 39 => (Bytes(0), 1, Some(0)),
            rtype::SOA => (Bytes(0), 2, Some(20)),
            // MINFO, RP, TALINK
            14 | 17 | 58 => (Bytes(0), 2, Some(0)),
            // MX, AFSDB, RT, KX, LP
            15 | 18 | 21 | 36 | 107 => (Bytes(2), 1, Some(0)),
            // PX, SRV, NAPTR
            26 => (Bytes(2), 2, Some(0)),
            33 => (Bytes(6), 1, Some(0)),
            35 => (NaptrStrings, 1, Some(0)),
            // SIG, RRSIG
            24 | rtype::RRSIG => (Bytes(18), 1, None),
            // NXT, NSEC
            30 | rtype::NSEC => (Bytes(0), 1, None),
            rtype::SVCB | rtype::HTTPS => (Bytes(2), 1, None),
            _ => return None,
        };
        let is_compressible = matches!(rtype, 2..=9 | 12 | 14 | 15);
        Some(Layout { prefix, names, suffix, is_compressible })
    }

    /// The length of the fields before the first name; `None` if `rdata` is too short.
    pub fn prefix_length(&self, rdata: &[u8]) -> Option<usize> {
        self.prefix.length(rdata)
    }
}

impl Prefix {
    fn length(self, rdata: &[u8]) -> Option<usize> {
        let string_end = |at: usize, _| rdata.get(at).map(|&length| at + 1 + usize::from(length));
        match self {
            Prefix::Bytes(bytes) => Some(bytes),
            Prefix::NaptrStrings => (0..3).try_fold(4, string_end),
        }
    }
}

/// The extended errors among the options of an OPT record. `None` for truncated options, and
/// for an error without a code.
pub fn extended_errors(rdata: &[u8]) -> impl Iterator<Item = Option<ExtendedError<'_>>> {
    options(rdata).filter_map(|found| match found {
        Some((option::EXTENDED_ERROR, data)) => {
            Some(u16_at(data, 0).map(|code| ExtendedError::new(code, &data[2..])))
        }
        Some(_) => None,
        None => Some(None),
    })
}

/// The labels of the name at this offset, without the root label: length octet and text.
/// It ends early at anything that `Parser::name` would refuse.
fn labels(message: &[u8], mut at: usize) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        while is_pointer(message, at) {
            at = pointer_at(message, at).filter(|&target| target < at)?;
        }
        let start = at;
        let length = message.get(at).copied().filter(|length| (1..=63).contains(length))?;
        at += 1 + usize::from(length);
        message.get(start..at)
    })
}

/// Writes the name at this offset in wire format and lower case; returns its length.
fn uncompress(message: &[u8], at: usize, wire: &mut [u8; MAX_NAME]) -> Option<usize> {
    let mut length = 0;
    for label in labels(message, at) {
        wire.get_mut(length..length + label.len())?.copy_from_slice(label);
        length += label.len();
    }
    // The lengths of labels are below 'A'.
    wire[..length].make_ascii_lowercase();
    *wire.get_mut(length)? = 0;
    Some(length + 1)
}

/// Whether the name at this offset is `name`, which is in wire format.
fn is_name(message: &[u8], at: usize, mut name: &[u8]) -> bool {
    for label in labels(message, at) {
        let Some((own, rest)) = name.split_at_checked(label.len()) else { return false };
        if !own.eq_ignore_ascii_case(label) {
            return false;
        }
        name = rest;
    }
    name == [0]
}

pub fn is_pointer(message: &[u8], at: usize) -> bool {
    message.get(at).is_some_and(|&byte| byte >= 0xc0)
}

pub fn pointer_at(message: &[u8], at: usize) -> Option<usize> {
    u16_at(message, at).map(|pointer| usize::from(pointer & 0x3fff))
}

/// With the seed of this process, so that nobody can choose names with equal hashes.
fn hash_of(name: &[u8]) -> u64 {
    xxh3_64_with_seed(name, seed())
}
