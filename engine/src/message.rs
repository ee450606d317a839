//! DNS messages on the wire: read a query, write a response.
//!
//! Reading refuses in a fixed order, before anything is decided; each refusal
//! names the RFC that asks for it. Writing never overruns: what does not fit
//! turns into a truncated answer.

use crate::name::Name;

pub const HEADER: usize = 12;
/// The longest message, over TCP (RFC 1035 4.2.2).
pub const MAX_MESSAGE: usize = 65_535;
/// QNAME, QTYPE and QCLASS at most.
pub const MAX_QUESTION: usize = 255 + 4;
/// UDP payload of a client that sent no OPT (RFC 1035 2.3.4).
pub const PLAIN_PAYLOAD: u16 = 512;

pub mod flag {
    pub const QR: u16 = 0x8000;
    pub const OPCODE: u16 = 0x7800;
    pub const AA: u16 = 0x0400;
    pub const TC: u16 = 0x0200;
    pub const RD: u16 = 0x0100;
    pub const RA: u16 = 0x0080;
    pub const AD: u16 = 0x0020;
    pub const CD: u16 = 0x0010;
    pub const RCODE: u16 = 0x000f;
}

pub mod rtype {
    pub const A: u16 = 1;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const AAAA: u16 = 28;
    pub const DNAME: u16 = 39;
    pub const OPT: u16 = 41;
    pub const SVCB: u16 = 64;
    pub const HTTPS: u16 = 65;
    pub const AXFR: u16 = 252;
}

pub mod rcode {
    pub const NOERROR: u16 = 0;
    pub const FORMERR: u16 = 1;
    pub const SERVFAIL: u16 = 2;
    pub const NXDOMAIN: u16 = 3;
    pub const NOTIMP: u16 = 4;
    pub const REFUSED: u16 = 5;
    /// RFC 6891 9: needs an OPT for its upper eight bits.
    pub const BADVERS: u16 = 16;
}

/// Octets of an OPT record without options.
const OPT_HEAD: usize = 11;

/// EDNS option code of an extended error (RFC 8914 2).
pub const OPTION_EXTENDED_ERROR: u16 = 15;

/// Extended DNS errors that the engine itself says (RFC 8914 4).
pub mod ede {
    pub const FORGED_ANSWER: u16 = 4;
    pub const PROHIBITED: u16 = 18;
    pub const NO_REACHABLE_AUTHORITY: u16 = 22;
}

//------- Query --------------------------------------------------------------

/// A query that may be answered: opcode QUERY, one question of class IN.
#[derive(Clone)]
pub struct Query {
    pub id: u16,
    /// The header's flags as they came.
    pub flags: u16,
    /// QNAME in lower case, to match with.
    pub name: Name,
    pub qtype: u16,
    pub edns: Option<Edns>,
    question: [u8; MAX_QUESTION],
    question_length: u16,
}

/// What a client's OPT record says to us (RFC 6891 6.1). Its options are its
/// own: EDNS is hop by hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    pub payload: u16,
    pub dnssec_ok: bool,
}

/// A packet that is not decided about.
pub enum Refusal {
    /// Nothing is sent: an answer could feed a reflection loop, or nobody
    /// would receive it.
    Silence,
    /// An error response with this RCODE.
    Error { rcode: u16, head: Head },
}

/// What of a query an error response repeats.
pub struct Head {
    pub id: u16,
    pub flags: u16,
    pub edns: Option<Edns>,
    question: [u8; MAX_QUESTION],
    question_length: u16,
}

const CLASS_IN: u16 = 1;

impl Query {
    /// Reads a packet; refuses in the order of the checks.
    pub fn parse(packet: &[u8]) -> Result<Query, Refusal> {
        let flags = match u16_at(packet, 2) {
            Some(flags) if packet.len() >= HEADER => flags,
            _ => return Err(Refusal::Silence),
        };
        // RFC 1035 4.1.1: QR marks a response. Two servers that answer each
        // other's errors never stop, so a response gets nothing.
        if flags & flag::QR != 0 {
            return Err(Refusal::Silence);
        }
        let id = u16_at(packet, 0).expect("twelve octets are there");
        let body = Body::parse(packet);
        let error = match &body {
            _ if flags & flag::TC != 0 => rcode::FORMERR,
            _ if flags & flag::OPCODE != 0 => rcode::NOTIMP,
            Err(()) => rcode::FORMERR,
            Ok(body) if body.version > 0 => rcode::BADVERS,
            Ok(body) if is_refused(body) => rcode::REFUSED,
            Ok(body) => return Ok(body.query(packet, id, flags)),
        };
        let mut head = Head { id, flags, edns: None, question: [0; MAX_QUESTION], question_length: 0 };
        if let Ok(body) = &body {
            head.edns = body.edns;
            (head.question, head.question_length) = body.question(packet);
        }
        Err(Refusal::Error { rcode: error, head })
    }

    /// QNAME, QTYPE and QCLASS, byte for byte as they came.
    pub fn question(&self) -> &[u8] {
        &self.question[..self.question_length as usize]
    }

    pub fn head(&self) -> Head {
        Head {
            id: self.id,
            flags: self.flags,
            edns: self.edns,
            question: self.question,
            question_length: self.question_length,
        }
    }

    /// Octets that a UDP response to this client may have.
    pub fn payload_limit(&self, max_payload: u16) -> usize {
        self.head().payload_limit(max_payload)
    }

    /// Writes the query as it is sent upstream: same question in the client's
    /// case, our own OPT always, none of the client's options (RFC 6891 6.1.1,
    /// RFC 7871 7.1.2). Returns its length.
    pub fn write_upstream(&self, id: u16, question: &[u8], payload: u16, out: &mut [u8]) -> Option<usize> {
        let mut writer = Writer { out, at: 0 };
        let flags = self.flags & (flag::RD | flag::CD | flag::AD);
        for word in [id, flags, 1, 0, 0, 1] {
            writer.put(&word.to_be_bytes())?;
        }
        writer.put(question)?;
        let opt = Opt { payload, rcode: 0, errors: &[] };
        writer.put_opt(&opt, self.edns.is_some_and(|edns| edns.dnssec_ok), true)?;
        Some(writer.at)
    }
}

impl Head {
    pub fn question(&self) -> &[u8] {
        &self.question[..self.question_length as usize]
    }

    /// RFC 6891 6.2.3: less than 512 is taken as 512.
    pub fn payload_limit(&self, max_payload: u16) -> usize {
        let wished = self.edns.map_or(PLAIN_PAYLOAD, |edns| edns.payload);
        wished.clamp(PLAIN_PAYLOAD, max_payload.max(PLAIN_PAYLOAD)) as usize
    }
}

/// Classes other than IN (CH with `version.bind` among them), zone transfers
/// and the other meta types that only make sense between servers.
fn is_refused(body: &Body) -> bool {
    let qtype_is_meta = matches!(body.qtype, rtype::OPT | 249..=rtype::AXFR | 253 | 254);
    body.qclass != CLASS_IN || qtype_is_meta
}

/// What follows the header of a query.
struct Body {
    name: Name,
    question_end: usize,
    qtype: u16,
    qclass: u16,
    edns: Option<Edns>,
    version: u8,
}

impl Body {
    /// RFC 9619: one question. RFC 6891 6.1.1: at most one OPT, owned by the
    /// root. ARCOUNT 2 leaves room for a TSIG or SIG(0), which is not checked.
    fn parse(packet: &[u8]) -> Result<Body, ()> {
        let count = |at| u16_at(packet, at).ok_or(());
        if (count(4)?, count(6)?, count(8)?) != (1, 0, 0) || count(10)? > 2 {
            return Err(());
        }
        let (name, name_end) = Name::parse(packet, HEADER).map_err(|_| ())?;
        let qtype = u16_at(packet, name_end).ok_or(())?;
        let qclass = u16_at(packet, name_end + 2).ok_or(())?;
        let mut body = Body { name, question_end: name_end + 4, qtype, qclass, edns: None, version: 0 };
        let mut at = body.question_end;
        for _ in 0..count(10)? {
            let record = Record::parse(packet, at).ok_or(())?;
            if record.rtype == rtype::OPT {
                if body.edns.is_some() || packet[at] != 0 || !options_are_whole(record.rdata(packet)) {
                    return Err(());
                }
                body.edns = Some(Edns { payload: record.class, dnssec_ok: record.ttl & 0x8000 != 0 });
                body.version = (record.ttl >> 16) as u8;
            }
            at = record.end;
        }
        if at != packet.len() { Err(()) } else { Ok(body) }
    }

    fn question(&self, packet: &[u8]) -> ([u8; MAX_QUESTION], u16) {
        let wire = &packet[HEADER..self.question_end];
        let mut question = [0; MAX_QUESTION];
        question[..wire.len()].copy_from_slice(wire);
        (question, wire.len() as u16)
    }

    fn query(&self, packet: &[u8], id: u16, flags: u16) -> Query {
        let (question, question_length) = self.question(packet);
        let name = self.name.clone();
        Query { id, flags, name, qtype: self.qtype, edns: self.edns, question, question_length }
    }
}

/// RFC 6891 6.1.2: OPTION-CODE, OPTION-LENGTH, data; nothing left over.
fn options_are_whole(rdata: &[u8]) -> bool {
    options(rdata).all(|option| option.is_some())
}

/// The options of an OPT record; `None` once for what is cut off.
pub fn options(mut rdata: &[u8]) -> impl Iterator<Item = Option<(u16, &[u8])>> {
    std::iter::from_fn(move || {
        if rdata.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut rdata);
        let option = || {
            let length = u16_at(rest, 2)? as usize;
            Some((u16_at(rest, 0)?, rest.get(4..4 + length)?, rest.get(4 + length..)?))
        };
        Some(option().map(|(code, data, after)| {
            rdata = after;
            (code, data)
        }))
    })
}

//------- Record -------------------------------------------------------------

/// Where a resource record stands in a message.
#[derive(Clone, Copy)]
pub struct Record {
    pub rtype: u16,
    pub class: u16,
    pub ttl: u32,
    pub rdata_start: usize,
    pub end: usize,
}

impl Record {
    /// Reads the record whose owner name begins at `at`.
    pub fn parse(message: &[u8], at: usize) -> Option<Record> {
        let head = skip_name(message, at)?;
        let rdata_start = head + 10;
        let end = rdata_start + u16_at(message, head + 8)? as usize;
        message.get(rdata_start..end)?;
        let ttl = (u32::from(u16_at(message, head + 4)?) << 16) | u32::from(u16_at(message, head + 6)?);
        Some(Record {
            rtype: u16_at(message, head)?,
            class: u16_at(message, head + 2)?,
            ttl,
            rdata_start,
            end,
        })
    }

    pub fn rdata<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        &message[self.rdata_start..self.end]
    }
}

/// Where a possibly compressed name ends.
pub fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + length as usize,
            0xc0..=0xff => return message.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
}

pub fn u16_at(octets: &[u8], at: usize) -> Option<u16> {
    let pair = octets.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

//------- Writer -------------------------------------------------------------

/// Appends to a message under construction; `None` where it would overrun.
pub struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

/// Which of the header's counts a record is counted in.
#[derive(Clone, Copy)]
pub enum Section {
    Answer = 6,
    Authority = 8,
    Additional = 10,
}

/// An extended DNS error: INFO-CODE and EXTRA-TEXT (RFC 8914 2).
pub type ExtendedError<'a> = (u16, &'a [u8]);

/// What goes into the OPT record of a response.
pub struct Opt<'a> {
    /// Octets of UDP that we take ourselves; never an echo of the client's.
    pub payload: u16,
    /// All twelve bits (RFC 6891 6.1.3).
    pub rcode: u16,
    pub errors: &'a [ExtendedError<'a>],
}

impl<'a> Writer<'a> {
    /// Begins a response of our own: QR, RA, the client's opcode, RD and CD;
    /// never AA or AD, which nobody here can vouch for (RFC 6840 5.7, 5.8).
    pub fn respond(head: &Head, rcode: u16, out: &'a mut [u8]) -> Option<Writer<'a>> {
        let copied = head.flags & (flag::OPCODE | flag::RD | flag::CD);
        let flags = flag::QR | flag::RA | copied | (rcode & flag::RCODE);
        let questions = u16::from(head.question_length > 0);
        let mut writer = Writer { out, at: 0 };
        for word in [head.id, flags, questions, 0, 0, 0] {
            writer.put(&word.to_be_bytes())?;
        }
        writer.put(head.question())?;
        Some(writer)
    }

    pub fn put(&mut self, octets: &[u8]) -> Option<()> {
        let end = self.at + octets.len();
        self.out.get_mut(self.at..end)?.copy_from_slice(octets);
        self.at = end;
        Some(())
    }

    /// Adds a record of class IN whose owner is `owner` octets into the
    /// question's name, by compression pointer.
    pub fn put_record(
        &mut self,
        section: Section,
        owner: usize,
        rtype: u16,
        ttl: u32,
        rdata: &[&[u8]],
    ) -> Option<()> {
        let pointer = 0xc000 | (HEADER + owner) as u16;
        let length: usize = rdata.iter().map(|part| part.len()).sum();
        for word in [pointer, rtype, CLASS_IN] {
            self.put(&word.to_be_bytes())?;
        }
        self.put(&ttl.to_be_bytes())?;
        self.put(&u16::try_from(length).ok()?.to_be_bytes())?;
        for part in rdata {
            self.put(part)?;
        }
        self.count(section, 1);
        Some(())
    }

    /// Adds an OPT record (RFC 6891 6.1.2); the errors' text only if `tell`.
    fn put_opt(&mut self, opt: &Opt<'_>, dnssec_ok: bool, tell: bool) -> Option<()> {
        self.put(&[0, 0, rtype::OPT as u8])?;
        self.put(&opt.payload.to_be_bytes())?;
        self.put(&[(opt.rcode >> 4) as u8, 0, if dnssec_ok { 0x80 } else { 0 }, 0])?;
        let told = |text: &'_ [u8]| if tell { text.len() } else { 0 };
        let length: usize = opt.errors.iter().map(|(_, text)| 6 + told(text)).sum();
        self.put(&u16::try_from(length).ok()?.to_be_bytes())?;
        for (code, text) in opt.errors {
            for word in [OPTION_EXTENDED_ERROR, 2 + told(text) as u16, *code] {
                self.put(&word.to_be_bytes())?;
            }
            self.put(&text[..told(text)])?;
        }
        Some(())
    }

    /// Puts what `write` puts behind a length of two octets.
    pub fn put_counted(&mut self, write: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        let start = self.at + 2;
        self.put(&[0, 0])?;
        write(self)?;
        let length = u16::try_from(self.at - start).ok()?;
        self.out[start - 2..start].copy_from_slice(&length.to_be_bytes());
        Some(())
    }

    /// Replaces AA, RA and AD.
    pub fn set_flags(&mut self, flags: u16) {
        const SET: u16 = flag::AA | flag::RA | flag::AD;
        let before = u16_at(self.out, 2).unwrap_or(0);
        self.out[2..4].copy_from_slice(&((before & !SET) | (flags & SET)).to_be_bytes());
    }

    pub fn count(&mut self, section: Section, records: u16) {
        let at = section as usize;
        let before = u16_at(self.out, at).unwrap_or(0);
        self.out[at..at + 2].copy_from_slice(&(before + records).to_be_bytes());
    }

    /// Ends a response within `limit` octets (RFC 2181 9, RFC 6891 6.2.5): the
    /// errors' text is left out first, and what still does not fit becomes an
    /// empty answer with TC. Returns its length.
    pub fn finish(mut self, head: &Head, opt: &Opt<'_>, limit: usize) -> usize {
        let Some(edns) = head.edns else {
            if self.at > limit {
                self.truncate(head);
            }
            return self.at;
        };
        let text: usize = opt.errors.iter().map(|(_, text)| text.len()).sum();
        let bare = OPT_HEAD + 6 * opt.errors.len();
        let tell = self.at + bare + text <= limit;
        if self.at + bare > limit {
            self.truncate(head);
        }
        let before = self.at;
        match self.put_opt(opt, edns.dnssec_ok, tell) {
            Some(()) => self.count(Section::Additional, 1),
            None => self.at = before,
        }
        self.at
    }

    /// Keeps header and question, sets TC.
    pub fn truncate(&mut self, head: &Head) {
        self.at = HEADER + head.question_length as usize;
        self.out[2] |= (flag::TC >> 8) as u8;
        self.out[6..HEADER].fill(0);
    }
}
