//! DNS messages on the wire: parses queries, writes responses.
//!
//! A query is refused before anything is decided. The checks have a fixed order, and each names
//! its RFC. Writing never overruns: a response that does not fit is truncated.

use std::net::{IpAddr, Ipv4Addr};

use crate::cookie::{self, Cookie};
use crate::name::{MAX_NAME, Name};

mod soa;
mod writer;
pub use soa::{Soa, put_soa, put_soa_of};
pub use writer::{ExtendedError, Opt, Section, Writer};

pub const HEADER: usize = 12;
/// The longest message, over TCP (RFC 1035 4.2.2).
pub const MAX_MESSAGE: usize = 65_535;
/// QNAME, QTYPE and QCLASS at most.
pub const MAX_QUESTION: usize = MAX_NAME + 4;
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

/// Flags of an OPT record (RFC 6891 6.1.3).
pub mod edns_flag {
    /// RFC 3225 3.
    pub const DO: u16 = 0x8000;
    /// Compact Answers OK (RFC 9824 5.1).
    pub const CO: u16 = 0x4000;
    /// Delegation Extensions (draft-ietf-dnsop-delext).
    pub const DE: u16 = 0x2000;
    /// The flags that are passed between client and upstream. An upstream that understands them
    /// answers differently, and repeats them.
    pub const PASSED: u16 = CO | DE;
}

pub mod rtype {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const HINFO: u16 = 13;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const DNAME: u16 = 39;
    pub const OPT: u16 = 41;
    pub const DS: u16 = 43;
    pub const RRSIG: u16 = 46;
    pub const NSEC: u16 = 47;
    pub const NSEC3: u16 = 50;
    pub const SVCB: u16 = 64;
    pub const HTTPS: u16 = 65;
    pub const AXFR: u16 = 252;
    pub const ANY: u16 = 255;
    pub const RESINFO: u16 = 261;
}

pub mod rcode {
    pub const NOERROR: u16 = 0;
    pub const FORMERR: u16 = 1;
    pub const SERVFAIL: u16 = 2;
    pub const NXDOMAIN: u16 = 3;
    pub const NOTIMP: u16 = 4;
    pub const REFUSED: u16 = 5;
    pub const YXDOMAIN: u16 = 6;
    /// RFC 6891 9: needs an OPT for its upper eight bits.
    pub const BADVERS: u16 = 16;
    /// RFC 7873 8.
    pub const BADCOOKIE: u16 = 23;
}

/// Bytes of an OPT record without options.
const OPT_HEADER: usize = 11;

/// The EDNS options that are interpreted.
pub mod option {
    /// RFC 7871 6.
    pub const CLIENT_SUBNET: u16 = 8;
    /// RFC 7873 4.
    pub const COOKIE: u16 = 10;
    /// RFC 7828 3.1.
    pub const TCP_KEEPALIVE: u16 = 11;
    /// RFC 8914 2.
    pub const EXTENDED_ERROR: u16 = 15;
}

/// The extended DNS errors that the engine sends itself (RFC 8914 4).
pub mod ede {
    pub const OTHER: u16 = 0;
    pub const STALE: u16 = 3;
    pub const FORGED_ANSWER: u16 = 4;
    pub const CACHED_ERROR: u16 = 13;
    pub const PROHIBITED: u16 = 18;
    pub const STALE_NXDOMAIN: u16 = 19;
    pub const NO_REACHABLE_AUTHORITY: u16 = 22;
}

//------- Query --------------------------------------------------------------

/// A valid query: opcode QUERY, one question of class IN.
#[derive(Clone)]
pub struct Query {
    pub head: Head,
    /// QNAME in lower case.
    pub name: Name,
    pub qtype: u16,
}

/// The parts of a query that a response repeats, and how it may be sent.
#[derive(Clone)]
pub struct Head {
    pub id: u16,
    /// The flags of the header.
    pub flags: u16,
    pub edns: Option<Edns>,
    pub hop: Hop,
    question: [u8; MAX_QUESTION],
    question_length: u16,
}

/// A client's OPT record (RFC 6891 6.1). Its options are not forwarded: EDNS is hop by hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    pub payload: u16,
    pub dnssec_ok: bool,
    /// The flags in `edns_flag::PASSED` that are set.
    pub passed: u16,
    pub cookie: Option<Cookie>,
    /// It asks for the idle timeout of its connection (RFC 7828 3.2.1).
    pub keepalive: bool,
    /// SOURCE PREFIX-LENGTH of its client subnet: how much of its address may be sent upstream
    /// (RFC 7871 7.1.2). 0 if the option is malformed.
    pub subnet: Option<u8>,
}

/// How a message is carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    #[default]
    Udp,
    Tcp,
}

impl Transport {
    pub const ALL: [Transport; 2] = [Transport::Udp, Transport::Tcp];

    pub fn is_tcp(self) -> bool {
        self == Transport::Tcp
    }
}

/// The client of a query, as far as a decision depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryClient {
    pub transport: Transport,
    pub address: IpAddr,
}

impl QueryClient {
    /// A client to which no rule for certain clients applies.
    pub fn anybody(transport: Transport) -> QueryClient {
        QueryClient { transport, address: IpAddr::V4(Ipv4Addr::UNSPECIFIED) }
    }
}

/// How the response may be sent to the client; `answer::check_client` sets it.
#[derive(Clone, Copy)]
pub struct Hop {
    pub transport: Transport,
    /// The client's address. It is kept only until the query is answered.
    pub address: IpAddr,
    /// Its source address is not spoofed, as a valid cookie or a connection proves, or it is
    /// exempt from that proof.
    pub is_verified: bool,
    /// The maximum size of the response.
    pub limit: usize,
    pub cookie: Option<[u8; cookie::LENGTH]>,
    /// It sent a server cookie that is not ours, or has expired.
    pub has_invalid_cookie: bool,
    /// Units of 100 ms.
    pub keepalive: Option<u16>,
    /// It asks for structured errors, in JSON.
    pub wants_structured_errors: bool,
}

impl Default for Hop {
    fn default() -> Hop {
        Hop {
            transport: Transport::Udp,
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            is_verified: false,
            limit: 0,
            cookie: None,
            has_invalid_cookie: false,
            keepalive: None,
            wants_structured_errors: false,
        }
    }
}

impl Hop {
    pub fn client(&self) -> QueryClient {
        QueryClient { transport: self.transport, address: self.address }
    }
}

/// Why a packet is not a valid query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No response: it could feed a reflection loop, or have no receiver.
    Drop,
    /// A response without records, with this RCODE.
    Error(u16),
    /// A query for TXT of class CH, by which servers are identified (RFC 4892 2). `name` is
    /// set. A name that the server does not know is refused.
    Chaos,
}

const CLASS_IN: u16 = 1;
pub const CLASS_CH: u16 = 3;

impl Query {
    /// A query to be overwritten by `read`.
    pub fn blank() -> Query {
        let (edns, hop, question) = (None, Hop::default(), [0; MAX_QUESTION]);
        let head = Head { id: 0, flags: 0, edns, hop, question, question_length: 0 };
        Query { head, name: Name::root(), qtype: 0 }
    }

    /// Parses a packet into a new query.
    pub fn parse(packet: &[u8], transport: Transport) -> Result<Query, Refusal> {
        let mut query = Query::blank();
        query.read(packet, transport).map(|()| query)
    }

    /// Parses a packet in place. After `Refusal::Error`, `head` is what the response repeats.
    pub fn read(&mut self, packet: &[u8], transport: Transport) -> Result<(), Refusal> {
        let flags = match u16_at(packet, 2) {
            Some(flags) if packet.len() >= HEADER => flags,
            _ => return Err(Refusal::Drop),
        };
        // RFC 1035 4.1.1: QR marks a response. Two servers that answer each other's errors
        // never stop.
        if flags & flag::QR != 0 {
            return Err(Refusal::Drop);
        }
        let head = &mut self.head;
        (head.id, head.flags) = (u16_at(packet, 0).expect("the header is complete"), flags);
        head.hop = Hop { transport, ..Hop::default() };
        (head.edns, head.question_length) = (None, 0);
        let body = Body::parse(packet, &mut self.name, transport);
        if let Ok(body) = &body {
            head.edns = body.edns;
            head.set_question(&packet[HEADER..body.question_end]);
        }
        let rcode = match body {
            _ if flags & flag::TC != 0 => rcode::FORMERR,
            _ if flags & flag::OPCODE != 0 => rcode::NOTIMP,
            Err(()) => rcode::FORMERR,
            Ok(body) if body.version > 0 => rcode::BADVERS,
            Ok(body) if !body.has_valid_opt => rcode::FORMERR,
            // RFC 7873 5.4: a query only for a cookie.
            Ok(body) if head.question_length == 0 => match body.edns.and_then(|edns| edns.cookie) {
                Some(_) => rcode::NOERROR,
                None => rcode::FORMERR,
            },
            Ok(body) if body.qclass == CLASS_CH && matches!(body.qtype, rtype::TXT | rtype::ANY) => {
                return Err(Refusal::Chaos);
            }
            Ok(body) if is_refused(&body) => rcode::REFUSED,
            Ok(body) => {
                self.qtype = body.qtype;
                return Ok(());
            }
        };
        Err(Refusal::Error(rcode))
    }

    /// Writes the query that is sent upstream; returns its length. It has the client's question
    /// in the client's case, and our own OPT record (payload and options) or none. The client's
    /// options are not forwarded (RFC 6891 6.1.1, RFC 7871 7.1.2).
    ///
    /// AD is always set (RFC 6840 5.7), so that one upstream query serves all clients. `relay`
    /// decides whether a client gets it.
    pub fn write_upstream(
        &self,
        id: u16,
        question: &[u8],
        opt: Option<(u16, &[u8])>,
        out: &mut [u8],
    ) -> Option<usize> {
        let mut writer = Writer::new(out);
        let flags = self.head.flags & (flag::RD | flag::CD) | flag::AD;
        for word in [id, flags, 1, 0, 0, u16::from(opt.is_some())] {
            writer.put(&word.to_be_bytes())?;
        }
        writer.put(question)?;
        let Some((payload, options)) = opt else { return Some(writer.written().len()) };
        let dnssec_ok = self.head.edns.is_some_and(|edns| edns.dnssec_ok);
        let passed = self.head.edns.map_or(0, |edns| edns.passed);
        writer.put_opt_header(&Opt { flags: passed, ..Opt::plain(payload, 0) }, dnssec_ok)?;
        writer.put_counted(|writer| writer.put(options))?;
        Some(writer.written().len())
    }
}

impl Head {
    /// QNAME, QTYPE and QCLASS, unchanged.
    pub fn question(&self) -> &[u8] {
        &self.question[..self.question_length as usize]
    }

    fn set_question(&mut self, question: &[u8]) {
        self.question[..question.len()].copy_from_slice(question);
        self.question_length = question.len() as u16;
    }

    /// The client's UDP payload size, at least 512 (RFC 6891 6.2.3) and at most `max_payload`.
    pub fn payload_limit(&self, max_payload: u16) -> usize {
        let requested = self.edns.map_or(PLAIN_PAYLOAD, |edns| edns.payload);
        requested.clamp(PLAIN_PAYLOAD, max_payload.max(PLAIN_PAYLOAD)) as usize
    }
}

/// Whether it is of a class other than IN, a zone transfer, or of another meta type that is only used between servers.
fn is_refused(body: &Body) -> bool {
    let qtype_is_meta = matches!(body.qtype, rtype::OPT | 249..=rtype::AXFR | 253 | 254);
    body.qclass != CLASS_IN || qtype_is_meta
}

/// A query without its header.
struct Body {
    question_end: usize,
    qtype: u16,
    qclass: u16,
    edns: Option<Edns>,
    version: u8,
    has_valid_opt: bool,
}

impl Body {
    /// RFC 9619: one question, or none. RFC 6891 6.1.1: at most one OPT, owned
    /// by the root. ARCOUNT 2 leaves room for a TSIG or SIG(0), which is not
    /// checked.
    fn parse(packet: &[u8], name: &mut Name, transport: Transport) -> Result<Body, ()> {
        let count = |at| u16_at(packet, at).ok_or(());
        let questions = count(4)?;
        if questions > 1 || (count(6)?, count(8)?) != (0, 0) || count(10)? > 2 {
            return Err(());
        }
        let mut body = match questions {
            0 => Body::without_question(),
            _ => {
                let name_end = name.read(packet, HEADER).map_err(|_| ())?;
                let qtype = u16_at(packet, name_end).ok_or(())?;
                let qclass = u16_at(packet, name_end + 2).ok_or(())?;
                Body { question_end: name_end + 4, qtype, qclass, ..Body::without_question() }
            }
        };
        let mut at = body.question_end;
        for _ in 0..count(10)? {
            let record = Record::parse(packet, at).ok_or(())?;
            if record.rtype == rtype::OPT {
                body.add_opt(packet, &record, packet[at] == 0, transport);
            }
            at = record.end;
        }
        if at != packet.len() { Err(()) } else { Ok(body) }
    }

    fn without_question() -> Body {
        let (question_end, qtype, qclass) = (HEADER, 0, 0);
        Body { question_end, qtype, qclass, edns: None, version: 0, has_valid_opt: true }
    }

    /// RFC 6891 6.1.3: the version is checked before the rest of the OPT record.
    fn add_opt(&mut self, packet: &[u8], record: &Record, owner_is_root: bool, transport: Transport) {
        self.version = self.version.max((record.ttl >> 16) as u8);
        let mut edns = Edns {
            payload: record.class,
            dnssec_ok: record.ttl as u16 & edns_flag::DO != 0,
            passed: record.ttl as u16 & edns_flag::PASSED,
            cookie: None,
            keepalive: false,
            subnet: None,
        };
        let has_valid_options = edns.read_options(record.rdata(packet), transport).is_some();
        self.has_valid_opt &= owner_is_root && self.edns.is_none() && has_valid_options;
        self.edns = Some(edns);
    }
}

impl Edns {
    /// `None` for malformed options: truncated ones, cookies of an invalid length (RFC 7873
    /// 5.2.2), and a keepalive with a timeout over TCP (RFC 7828 3.2.1; ignored over UDP).
    fn read_options(&mut self, rdata: &[u8], transport: Transport) -> Option<()> {
        for found in options(rdata) {
            match found? {
                // RFC 7873 5.2: the first of several cookies counts.
                (option::COOKIE, data) if self.cookie.is_none() => self.cookie = Some(Cookie::parse(data)?),
                (option::CLIENT_SUBNET, data) if self.subnet.is_none() => {
                    self.subnet = Some(if data.len() < 4 { 0 } else { data[2] });
                }
                (option::TCP_KEEPALIVE, data) if transport.is_tcp() => {
                    if !data.is_empty() {
                        return None;
                    }
                    self.keepalive = true;
                }
                _ => {}
            }
        }
        Some(())
    }
}

/// Whether the OPT record of a parsed query has this option, with or without data.
pub fn has_option(packet: &[u8], question: &[u8], code: u16) -> bool {
    let mut at = HEADER + question.len();
    while let Some(record) = Record::parse(packet, at) {
        if record.rtype == rtype::OPT {
            return options(record.rdata(packet)).any(|found| found.is_some_and(|(known, _)| known == code));
        }
        at = record.end;
    }
    false
}

/// The options of an OPT record (RFC 6891 6.1.2); ends with `None` if the last is truncated.
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

impl Hop {
    /// Bytes of its options in a response.
    fn options_length(&self) -> usize {
        self.cookie.map_or(0, |cookie| 4 + cookie.len()) + self.keepalive.map_or(0, |_| 4 + 2)
    }
}

//------- Record -------------------------------------------------------------

/// A resource record, with its offsets in the message.
#[derive(Clone, Copy)]
pub struct Record {
    pub rtype: u16,
    pub class: u16,
    pub ttl: u32,
    pub rdata_start: usize,
    pub end: usize,
}

impl Record {
    /// Parses the record whose owner name begins at `at`.
    pub fn parse(message: &[u8], at: usize) -> Option<Record> {
        Record::after(message, skip_name(message, at)?)
    }

    /// Parses the record whose owner name ends at `head`.
    pub fn after(message: &[u8], head: usize) -> Option<Record> {
        let rdata_start = head + 10;
        let end = rdata_start + u16_at(message, head + 8)? as usize;
        message.get(rdata_start..end)?;
        let (rtype, class) = (u16_at(message, head)?, u16_at(message, head + 2)?);
        Some(Record { rtype, class, ttl: u32_at(message, head + 4)?, rdata_start, end })
    }

    pub fn rdata<'a>(&self, message: &'a [u8]) -> &'a [u8] {
        &message[self.rdata_start..self.end]
    }
}

/// The end of a possibly compressed name. A pointer into the header is invalid: the same name
/// would be another one after another header.
pub fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + length as usize,
            0xc0..=0xff => {
                let target = usize::from(u16_at(message, at)? & 0x3fff);
                return (target >= HEADER).then_some(at + 2);
            }
            _ => return None,
        }
    }
}

/// Whether TC is set.
pub fn is_truncated(message: &[u8]) -> bool {
    u16_at(message, 2).unwrap_or(0) & flag::TC != 0
}

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_be_bytes(*chunk))
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_be_bytes(*chunk))
}
