//! An upstream's message, read once: well-formed as a whole, or no response at all.
//!
//! `Reader` checks every section and notes where the records, their owners and their TTLs
//! are. What a response leads to (`chain`), which records are dropped (`targets`), what a
//! client gets (`relay`) and what is cached (`cache`) all work on that.

use std::cell::Cell;
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::message::{
    ExtendedError, HEADER, Record, Section, edns_flag, flag, is_truncated, option, options, rcode, rtype,
    skip_name, u16_at,
};
use crate::name::{MAX_NAME, Name};
use crate::policy::seed;

/// Octets of a message that a compression pointer can reach (RFC 1035 4.1.4).
pub const REACH: usize = 0x4000;
/// Extended errors of an upstream that are passed on at most.
pub const ERRORS_PASSED: usize = 4;

/// The longest TTLs of records that are passed on and cached; of the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct TtlBounds {
    /// Seconds.
    pub max_ttl: u32,
    /// Seconds; of answers that there is no such name or no such record (RFC 2308 5).
    pub max_negative_ttl: u32,
}

/// Room for what is read from one message after another.
pub struct Reader {
    entries: Vec<Entry>,
    /// The hash of each record's owner, and the record's place, in order.
    owners: Vec<(u64, u16)>,
    /// Where a name begins that a pointer may lead to: its length, written out. Otherwise 0.
    names: Box<[u8; REACH]>,
    /// The options of the OPT record.
    options: Range<usize>,
    /// Where the question ends.
    body: usize,
    /// All twelve bits.
    rcode: u16,
    /// Those of `edns_flag::PASSED` that its OPT has.
    edns_flags: u16,
    has_dname: bool,
    /// See `Response::life`.
    life: Option<u32>,
    dropped: Cell<usize>,
}

/// A record of a response; the OPT is none.
pub struct Entry {
    /// Where its owner begins.
    pub owner: usize,
    pub section: Section,
    pub record: Record,
    marks: Cell<u8>,
    /// How many zones, and one, are to judge it since an HTTPS or SVCB record leads to its owner.
    led_to: Cell<u16>,
}

/// What was found out about a record.
#[derive(Clone, Copy)]
pub enum Mark {
    /// Its owner stands on the way from the queried name, so it was judged there.
    OnWay = 1,
    /// Where it leads, as one of those at the end of a chain, was judged.
    Offered = 2,
    /// Its owner's records were looked at.
    Seen = 4,
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

    /// Notes that an HTTPS or SVCB record leads to its owner, and how many zones judge it then;
    /// whether that is new, or more than before.
    pub fn lead_to(&self, judges: usize) -> bool {
        let judges = judges.saturating_add(1).min(usize::from(u16::MAX)) as u16;
        let is_more = self.led_to.get() < judges;
        if is_more {
            self.led_to.set(judges);
        }
        is_more
    }

    pub fn rtype(&self) -> u16 {
        self.record.rtype
    }

    /// The type to whose RRset it belongs: for an RRSIG the type that it covers (RFC 4034 3.1.1).
    pub fn belongs_to(&self, message: &[u8]) -> u16 {
        match self.record.rtype {
            rtype::RRSIG => u16_at(message, self.record.rdata_start).unwrap_or(rtype::RRSIG),
            other => other,
        }
    }

    /// Where its TTL stands.
    pub fn ttl_at(&self) -> usize {
        self.record.rdata_start - 6
    }
}

impl Default for Reader {
    fn default() -> Reader {
        Reader {
            entries: Vec::new(),
            owners: Vec::new(),
            names: Box::new([0; REACH]),
            options: 0..0,
            body: 0,
            rcode: 0,
            edns_flags: 0,
            has_dname: false,
            life: None,
            dropped: Cell::new(0),
        }
    }
}

impl Reader {
    /// Reads a message; `None` where it is not well-formed, or not about a client's question.
    pub fn read<'a>(&'a mut self, message: &'a [u8]) -> Option<Response<'a>> {
        self.parse(message)?;
        Some(Response { message, read: self })
    }

    /// The same, and brings its TTLs within bounds.
    pub fn read_bounded<'a>(&'a mut self, message: &'a mut [u8], bounds: &TtlBounds) -> Option<Response<'a>> {
        self.parse(message)?;
        self.life = self.bound_ttls(message, bounds);
        for entry in &self.entries {
            message[entry.ttl_at()..][..4].copy_from_slice(&entry.record.ttl.to_be_bytes());
        }
        Some(Response { message, read: self })
    }

    /// Reads a message whose TTLs another worker thread has brought within bounds.
    pub fn read_told<'a>(&'a mut self, message: &'a [u8], bounds: &TtlBounds) -> Option<Response<'a>> {
        self.parse(message)?;
        self.life = self.bound_ttls(message, bounds);
        Some(Response { message, read: self })
    }

    /// Reads a cached message: all twelve bits of its RCODE are kept beside it.
    pub fn read_cached<'a>(&'a mut self, message: &'a [u8], rcode: u16) -> Option<Response<'a>> {
        self.parse(message)?;
        self.rcode = rcode;
        Some(Response { message, read: self })
    }

    fn parse(&mut self, message: &[u8]) -> Option<()> {
        self.entries.clear();
        self.owners.clear();
        self.names[..message.len().min(REACH)].fill(0);
        (self.options, self.has_dname, self.life) = (0..0, false, None);
        self.dropped.set(0);
        self.edns_flags = 0;
        self.rcode = u16_at(message, 2)? & flag::RCODE;
        if u16_at(message, 4)? != 1 {
            return None;
        }
        self.body = self.name(message, HEADER)? + 4;
        let (mut at, mut has_opt) = (self.body, false);
        for section in Section::ALL {
            for _ in 0..u16_at(message, section as usize)? {
                let owner = at;
                let record = Record::after(message, self.name(message, owner)?)?;
                at = record.end;
                if record.rtype != rtype::OPT {
                    self.take(
                        message,
                        Entry { owner, section, record, marks: Cell::new(0), led_to: Cell::new(0) },
                    )?;
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
        // What is about our own OPT or our own cookie answers nobody's question.
        let is_about_us = matches!(self.rcode, rcode::BADVERS | rcode::BADCOOKIE);
        let has_whole_options = extended_errors(&message[self.options.clone()]).all(|error| error.is_some());
        self.owners.sort_unstable();
        (message.len() >= self.body && has_whole_options && !is_about_us).then_some(())
    }

    fn take(&mut self, message: &[u8], entry: Entry) -> Option<()> {
        self.data(message, &entry.record)?;
        let place = u16::try_from(self.entries.len()).ok()?;
        let hash = match self.entries.last().zip(self.owners.last()) {
            // Of one RRset, most often: the same pointer.
            Some((before, (hash, _)))
                if is_pointer(message, entry.owner)
                    && message[before.owner..][..2] == message[entry.owner..][..2] =>
            {
                *hash
            }
            _ => hash_of(read_name(message, entry.owner).suffix(0)),
        };
        self.has_dname |= entry.record.rtype == rtype::DNAME;
        self.owners.push((hash, place));
        self.entries.push(entry);
        Some(())
    }

    /// Reads the possibly compressed name at `at`; returns where it ends. A pointer must lead to
    /// where a name, or the rest of one, began before (RFC 1035 4.1.4: "a prior occurrence"): so
    /// never forwards, to itself, into a label, the header or other data, or past the end.
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
        while label <= here && label < REACH {
            self.names[label] = (length - (label - at)) as u8;
            label += 1 + usize::from(message[label]);
        }
        Some(end)
    }

    /// Reads the names in a record's data, and checks that they and addresses fill it as their
    /// types say. Data of other types is nobody's business here (RFC 3597).
    fn data(&mut self, message: &[u8], record: &Record) -> Option<()> {
        let length = record.end - record.rdata_start;
        match (record.rtype, record.class) {
            (rtype::A, 1) => return (length == 4).then_some(()),
            (rtype::AAAA, 1) => return (length == 16).then_some(()),
            _ => {}
        }
        let Some(Layout { before, names, behind, .. }) = Layout::of(record.rtype) else { return Some(()) };
        let mut at = record.rdata_start + before.length(record.rdata(message))?;
        for _ in 0..names {
            // The name must not begin behind the data.
            at = (at < record.end).then(|| self.name(message, at))??;
        }
        match behind {
            Some(octets) => at + octets == record.end,
            None => at <= record.end,
        }
        .then_some(())
    }

    /// Brings the TTLs that were read within bounds; returns for how many seconds it may be kept:
    /// its shortest TTL. `None` where that cannot be told.
    fn bound_ttls(&mut self, message: &[u8], bounds: &TtlBounds) -> Option<u32> {
        let qtype = u16_at(message, self.body - 4)?;
        let (mut shortest, mut has_data, mut denial) = (bounds.max_ttl, false, None);
        for Entry { section, record, .. } in &mut self.entries {
            has_data |= *section == Section::Answer && (record.rtype == qtype || qtype == rtype::ANY);
            // RFC 8767 4: with its highest bit set, too (RFC 2181 8 took that as 0).
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
                    // RFC 2308 5: a denial is kept for the lesser of the SOA's TTL and MINIMUM.
                    let minimum = u32_at(message, soa.end - 4);
                    soa.ttl = soa.ttl.min(minimum).min(bounds.max_negative_ttl);
                }
                Some(shortest.min(soa.ttl))
            }
            // RFC 2308 5: without an SOA, nobody says for how long.
            None => (!is_denial).then_some(shortest),
        }
    }
}

/// A message that is well-formed, with what was read of it.
#[derive(Clone, Copy)]
pub struct Response<'a> {
    message: &'a [u8],
    read: &'a Reader,
}

impl<'a> Response<'a> {
    pub fn message(&self) -> &'a [u8] {
        self.message
    }

    /// The same response in another copy of its message.
    pub fn over(self, message: &'a [u8]) -> Response<'a> {
        Response { message, ..self }
    }

    /// All twelve bits.
    pub fn rcode(&self) -> u16 {
        self.read.rcode
    }

    /// Those of `edns_flag::PASSED` that its OPT has; of a cached message they are kept beside it.
    pub fn edns_flags(&self) -> u16 {
        self.read.edns_flags
    }

    /// Whether it says that there is no answer because something failed: then its records lead
    /// nowhere.
    pub fn is_failure(&self) -> bool {
        self.rcode() == rcode::SERVFAIL || self.rcode() > flag::RCODE
    }

    pub fn is_truncated(&self) -> bool {
        is_truncated(self.message)
    }

    pub fn has_dname(&self) -> bool {
        self.read.has_dname
    }

    /// For how many seconds it may be kept; `None` where that cannot be told.
    pub fn life(&self) -> Option<u32> {
        self.read.life
    }

    /// Where the question ends.
    pub fn body(&self) -> usize {
        self.read.body
    }

    /// The records of all sections, without the OPT.
    pub fn entries(&self) -> &'a [Entry] {
        &self.read.entries
    }

    /// The records that this name owns, in whichever section; `name` in wire format and lower case.
    pub fn of<'n>(self, name: &'n [u8]) -> impl Iterator<Item = &'a Entry> + use<'a, 'n> {
        let (hash, read) = (hash_of(name), self.read);
        let first = read.owners.partition_point(|&(other, _)| other < hash);
        let same = read.owners[first..].iter().take_while(move |&&(other, _)| other == hash);
        same.map(|&(_, place)| &read.entries[usize::from(place)])
            .filter(move |entry| read_name(self.message, entry.owner).suffix(0) == name)
    }

    /// The name at `at`, which was read; in lower case.
    pub fn name(&self, at: usize) -> Name {
        read_name(self.message, at)
    }

    /// The name in the data of a CNAME or DNAME.
    pub fn target(&self, entry: &Entry) -> Name {
        self.name(entry.record.rdata_start)
    }

    /// TargetName of an HTTPS or SVCB record; `None` where it is the owner itself (RFC 9460 2.5).
    pub fn service(&self, entry: &Entry) -> Option<Name> {
        Some(self.name(entry.record.rdata_start + 2)).filter(|name| name.labels() > 0)
    }

    /// SvcParams of an HTTPS or SVCB record (RFC 9460 2.2).
    pub fn parameters(&self, entry: &Entry) -> &'a [u8] {
        let end = skip_name(self.message, entry.record.rdata_start + 2);
        end.and_then(|end| self.message.get(end..entry.record.end)).unwrap_or_default()
    }

    /// Its extended errors, as many as are passed on, and their number.
    pub fn errors(&self) -> ([ExtendedError<'a>; ERRORS_PASSED], usize) {
        let mut errors = [ExtendedError::default(); ERRORS_PASSED];
        let mut count = 0;
        // A cached message has none: they are kept beside it.
        let options = self.message.get(self.read.options.clone()).unwrap_or_default();
        for error in extended_errors(options).flatten().take(ERRORS_PASSED) {
            errors[count] = error;
            count += 1;
        }
        (errors, count)
    }

    pub fn clear_marks(&self) {
        self.entries().iter().for_each(|entry| {
            entry.marks.set(0);
            entry.led_to.set(0);
        });
        self.read.dropped.set(0);
    }

    /// Leaves a record out of what is passed on.
    pub fn drop_entry(&self, entry: &Entry) {
        if !entry.has(Mark::Dropped) {
            entry.set(Mark::Dropped);
            self.read.dropped.set(self.dropped() + 1);
        }
    }

    /// How many records are not passed on.
    pub fn dropped(&self) -> usize {
        self.read.dropped.get()
    }
}

/// Where the names in a type's data stand.
pub struct Layout {
    before: Before,
    pub names: usize,
    /// Octets behind the last name; `None`: any.
    behind: Option<usize>,
    /// Whether the names may be compressed (RFC 3597 4: only in the types of RFC 1035).
    pub is_compressible: bool,
}

/// What stands before the first name.
#[derive(Clone, Copy)]
enum Before {
    Octets(usize),
    /// The numbers and texts of a NAPTR record (RFC 3403 4.1).
    NaptrTexts,
}

impl Layout {
    pub fn of(rtype: u16) -> Option<Layout> {
        use Before::{NaptrTexts, Octets};
        let (before, names, behind) = match rtype {
            // NS, MD, MF, CNAME, MB, MG, MR, PTR, DNAME
            2..=5 | 7..=9 | 12 | 39 => (Octets(0), 1, Some(0)),
            rtype::SOA => (Octets(0), 2, Some(20)),
            // MINFO, RP, TALINK
            14 | 17 | 58 => (Octets(0), 2, Some(0)),
            // MX, AFSDB, RT, KX, LP
            15 | 18 | 21 | 36 | 107 => (Octets(2), 1, Some(0)),
            // PX, SRV, NAPTR
            26 => (Octets(2), 2, Some(0)),
            33 => (Octets(6), 1, Some(0)),
            35 => (NaptrTexts, 1, Some(0)),
            // SIG, RRSIG
            24 | rtype::RRSIG => (Octets(18), 1, None),
            // NXT, NSEC
            30 | rtype::NSEC => (Octets(0), 1, None),
            rtype::SVCB | rtype::HTTPS => (Octets(2), 1, None),
            _ => return None,
        };
        let is_compressible = matches!(rtype, 2..=9 | 12 | 14 | 15);
        Some(Layout { before, names, behind, is_compressible })
    }

    /// Octets before the first name, as far as they are there.
    pub fn before(&self, rdata: &[u8]) -> Option<usize> {
        self.before.length(rdata)
    }
}

impl Before {
    fn length(self, rdata: &[u8]) -> Option<usize> {
        let text_end = |at: usize, _| rdata.get(at).map(|&length| at + 1 + usize::from(length));
        match self {
            Before::Octets(octets) => Some(octets),
            Before::NaptrTexts => (0..3).try_fold(4, text_end),
        }
    }
}

/// The extended errors among the options of an OPT; `None` for options that are cut
/// off, and for an error without a code.
pub fn extended_errors(rdata: &[u8]) -> impl Iterator<Item = Option<ExtendedError<'_>>> {
    options(rdata).filter_map(|found| match found {
        Some((option::EXTENDED_ERROR, data)) => {
            Some(u16_at(data, 0).map(|code| ExtendedError::new(code, &data[2..])))
        }
        Some(_) => None,
        None => Some(None),
    })
}

/// The name at `at`, in lower case. The root for one that `Reader::name` has not read.
fn read_name(message: &[u8], at: usize) -> Name {
    let (mut wire, mut length, mut here) = ([0; MAX_NAME], 0, at);
    while let Some(&octet) = message.get(here) {
        match octet {
            // The root label is the zero that the buffer was filled with.
            0 => return Name::parse(&wire[..=length], 0).map_or_else(|_| Name::root(), |(name, _)| name),
            1..=63 => {
                let label = message.get(here..=here + usize::from(octet)).unwrap_or_default();
                let Some(room) = wire[..MAX_NAME - 1].get_mut(length..length + label.len()) else { break };
                room.copy_from_slice(label);
                length += label.len();
                here += 1 + usize::from(octet);
            }
            _ => {
                let target = pointer_at(message, here).filter(|&target| target < here);
                let Some(target) = target else { break };
                here = target;
            }
        }
    }
    Name::root()
}

pub fn is_pointer(message: &[u8], at: usize) -> bool {
    message.get(at).is_some_and(|&octet| octet >= 0xc0)
}

pub fn pointer_at(message: &[u8], at: usize) -> Option<usize> {
    u16_at(message, at).map(|pointer| usize::from(pointer & 0x3fff))
}

pub fn u32_at(message: &[u8], at: usize) -> u32 {
    message[at..at + 4].iter().fold(0, |number, octet| number << 8 | u32::from(*octet))
}

/// With the process's own seed: who chooses names cannot choose which of them have one hash.
fn hash_of(name: &[u8]) -> u64 {
    xxh3_64_with_seed(name, seed())
}
