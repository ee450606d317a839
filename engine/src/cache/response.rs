//! A cached response of an upstream, and the responses to clients that are written from it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use triomphe::ThinArc;

use super::Key;
use crate::message::{
    ExtendedError, HEADER, MAX_MESSAGE, Opt, Query, Record, Section, Writer, ede, flag, rcode, u16_at, u32_at,
};
use crate::relay;
use crate::response::{MAX_ERRORS, Parser, Response, extended_errors};
use crate::sys::prefetch;

/// Seconds for which SERVFAIL and other failures are cached (RFC 9520 3.2: at least one).
const FAILURE_LIFETIME: u32 = 1;
/// TTL of the records of a stale response (RFC 8767 4).
const STALE_TTL: u32 = 30;
/// A response that is queried in the last tenth of its lifetime is prefetched, as in Unbound.
const PREFETCH_PART: u32 = 10;

/// Bytes of a response of typical size, with its metadata.
const TYPICAL_SIZE: usize = 192;

/// Bytes for a message and the offsets of its TTLs: a record has eleven bytes or more.
pub const BUFFER: usize = MAX_MESSAGE + MAX_MESSAGE / 11 * 2;

/// The configuration of the cache.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Bytes of memory, for all worker threads; 0: nothing is cached.
    pub bytes: u64,
    /// Seconds after its TTL for which a stale answer may be given when no upstream
    /// answers (RFC 8767); 0: never.
    pub max_stale: u32,
    /// Refresh records that are queried shortly before they expire.
    pub prefetch: bool,
}

/// The age of a cached response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Seconds since it was received.
    Fresh(u32),
    /// Its TTL has expired, but it may be served if there is no other response.
    Stale,
    Expired,
}

/// A response of an upstream, in one allocation: to serve it costs little more than to wait for
/// that memory.
///
/// The bytes are the message, the offsets of its TTLs (two bytes each), and its extended errors as
/// options of an OPT record. The message has no OPT record, and its TTLs are within bounds.
#[derive(Clone)]
pub struct CachedResponse(ThinArc<Metadata, u8>);

/// The policy that allows all of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The generation of rules and snapshot.
    pub generation: u64,
    /// Whether all zones allow it, and it contains no name but the queried one: names of zones that change
    /// afterwards do not concern it.
    pub is_of_addresses: bool,
}

struct Metadata {
    received_at: Instant,
    /// See `Allowed`: the generation times two, plus one for `is_of_addresses`.
    allowed_by: AtomicU64,
    /// Seconds.
    lifetime: u32,
    /// All twelve bits.
    rcode: u16,
    /// The upstream's flags that are in `edns_flag::PASSED`.
    edns_flags: u16,
    /// The end of the question section.
    question_end: u16,
    /// The length of the message.
    length: usize,
    records: u16,
    /// See `Key`.
    flags: u8,
    is_prefetched: AtomicBool,
}

impl CachedResponse {
    /// Copies a response whose TTLs are within bounds; `None` if it may not be cached. `buffer`
    /// has `BUFFER` bytes.
    pub fn new(
        response: Response<'_>,
        key: Key<'_>,
        now: Instant,
        buffer: &mut [u8],
    ) -> Option<CachedResponse> {
        let lifetime = match response.rcode() {
            rcode::NOERROR | rcode::NXDOMAIN => response.lifetime()?,
            _ => FAILURE_LIFETIME,
        };
        if lifetime == 0 || response.is_truncated() {
            return None;
        }
        let mut writer = relay::copy_without_opt(response, buffer)?;
        let (length, mut at) = (writer.written().len(), response.question_end());
        if length > MAX_MESSAGE {
            return None;
        }
        let mut records = 0;
        while at < length {
            let record = Record::parse(writer.written(), at)?;
            writer.put(&u16::try_from(record.rdata_start - 6).ok()?.to_be_bytes())?;
            (at, records) = (record.end, records + 1);
        }
        let (errors, count) = response.errors();
        writer.put_errors(&errors[..count], |error| error.text)?;
        let metadata = Metadata {
            received_at: now,
            allowed_by: AtomicU64::new(0),
            lifetime,
            rcode: response.rcode(),
            edns_flags: response.edns_flags(),
            question_end: response.question_end() as u16,
            length,
            records,
            flags: key.flags(),
            is_prefetched: AtomicBool::new(false),
        };
        Some(CachedResponse(ThinArc::from_header_and_slice(metadata, writer.written())))
    }

    fn metadata(&self) -> &Metadata {
        &self.0.header.header
    }

    fn bytes(&self) -> &[u8] {
        &self.0.slice
    }

    /// Prefetches its memory, which will be read soon.
    pub fn prefetch_memory(&self) {
        prefetch(self.0.heap_ptr(), TYPICAL_SIZE);
    }

    /// Whether it is the response to this question.
    pub fn answers(&self, key: Key<'_>) -> bool {
        let name = key.name();
        self.metadata().flags == key.flags()
            && self.question().len() == name.len() + 4
            && self.name().eq_ignore_ascii_case(name)
            && u16_at(self.question(), name.len()) == Some(key.qtype())
    }

    pub fn is_same(&self, other: &CachedResponse) -> bool {
        self.0.heap_ptr() == other.0.heap_ptr()
    }

    fn question(&self) -> &[u8] {
        &self.bytes()[HEADER..usize::from(self.metadata().question_end)]
    }

    /// QNAME in wire format and in any case.
    pub fn name(&self) -> &[u8] {
        let question = self.question();
        &question[..question.len() - 4]
    }

    pub fn age(&self, now: Instant, settings: &Settings) -> Age {
        let age = now.saturating_duration_since(self.metadata().received_at).as_secs();
        let lifetime = u64::from(self.metadata().lifetime);
        if age < lifetime {
            Age::Fresh(age as u32)
        } else if !self.is_failure() && age < lifetime + u64::from(settings.max_stale) {
            Age::Stale
        } else {
            Age::Expired
        }
    }

    /// Whether the upstream failed to answer.
    pub fn is_failure(&self) -> bool {
        !matches!(self.metadata().rcode, rcode::NOERROR | rcode::NXDOMAIN)
    }

    /// Whether it should be prefetched now; true only once.
    pub fn claim_prefetch(&self, now: Instant, settings: &Settings) -> bool {
        let lifetime = Duration::from_secs(u64::from(self.metadata().lifetime));
        let left = (self.metadata().received_at + lifetime).saturating_duration_since(now);
        settings.prefetch
            && !self.is_failure()
            && left < lifetime / PREFETCH_PART
            && !self.metadata().is_prefetched.swap(true, Relaxed)
    }

    /// The last policy that allows all of the response.
    pub fn allowed(&self) -> Allowed {
        let allowed_by = self.metadata().allowed_by.load(Relaxed);
        Allowed { generation: allowed_by >> 1, is_of_addresses: allowed_by & 1 == 1 }
    }

    pub fn mark_allowed(&self, by: Allowed) {
        if self.allowed() != by {
            self.metadata().allowed_by.store(by.generation << 1 | u64::from(by.is_of_addresses), Relaxed);
        }
    }

    /// The message with its original TTLs.
    pub fn message(&self) -> &[u8] {
        &self.bytes()[..self.metadata().length]
    }

    /// Copies the message, with the TTLs that are left; `None` if it does not fit.
    pub fn copy_aged(&self, age: Age, out: &mut [u8]) -> Option<usize> {
        let message = self.message();
        out.get_mut(..message.len())?.copy_from_slice(message);
        self.set_ttls(age, out)?;
        Some(message.len())
    }

    pub fn parse<'a>(&'a self, parser: &'a mut Parser) -> Option<Response<'a>> {
        parser.parse_cached(self.message(), self.metadata().rcode)
    }

    /// Writes the response to a query of the same question; `None` if it does not fit.
    pub fn respond(&self, query: &Query, age: Age, payload: u16, out: &mut [u8]) -> Option<usize> {
        let (message, rcode) = (self.message(), self.metadata().rcode);
        // RFC 1035 4.1.1: a cached answer is not authoritative.
        let flags = u16_at(message, 2)? & !flag::AA;
        let mut writer = relay::begin(query, rcode, flags, out)?;
        writer.put(&message[usize::from(self.metadata().question_end)..])?;
        for section in Section::ALL {
            writer.count(section, u16_at(message, section as usize)?);
        }
        self.set_ttls(age, writer.written())?;
        self.finish(writer, query, age, payload)
    }

    /// As `respond`, without the records that are dropped. `response`: this message, parsed.
    /// `buffer`: for a copy of it.
    pub fn respond_without_dropped(
        &self,
        query: &Query,
        age: Age,
        payload: u16,
        response: Response<'_>,
        buffer: &mut [u8],
        out: &mut [u8],
    ) -> Option<usize> {
        let length = self.copy_aged(age, buffer)?;
        let flags = relay::flags_of(response) & !flag::AA;
        let mut writer = relay::begin(query, self.metadata().rcode, flags, out)?;
        let response = response.with_message(&buffer[..length]);
        if relay::put_records(&mut writer, response, |entry| Some(entry.section)).is_none() {
            writer.truncate(&query.head);
        }
        self.finish(writer, query, age, payload)
    }

    fn finish(&self, writer: Writer<'_>, query: &Query, age: Age, payload: u16) -> Option<usize> {
        let (errors, count) = self.errors(age);
        let Metadata { rcode, edns_flags: flags, .. } = *self.metadata();
        writer.finish_whole(&query.head, &Opt { payload, rcode, flags, errors: &errors[..count] })
    }

    fn errors(&self, age: Age) -> ([ExtendedError<'_>; MAX_ERRORS + 1], usize) {
        let mut errors = [ExtendedError::default(); MAX_ERRORS + 1];
        let mut count = 0;
        if age == Age::Stale {
            let is_nxdomain = self.metadata().rcode == rcode::NXDOMAIN;
            errors[0] = ExtendedError::new(if is_nxdomain { ede::STALE_NXDOMAIN } else { ede::STALE }, b"");
            count = 1;
        }
        let options = &self.bytes()[self.metadata().length + 2 * usize::from(self.metadata().records)..];
        for error in extended_errors(options).flatten().take(MAX_ERRORS) {
            errors[count] = error;
            count += 1;
        }
        (errors, count)
    }

    fn set_ttls(&self, age: Age, message: &mut [u8]) -> Option<()> {
        let offsets = &self.bytes()[self.metadata().length..][..2 * usize::from(self.metadata().records)];
        for offset in offsets.chunks_exact(2) {
            let at = usize::from(u16::from_be_bytes([offset[0], offset[1]]));
            let ttl = match age {
                Age::Fresh(seconds) => u32_at(message, at)?.saturating_sub(seconds),
                Age::Stale | Age::Expired => STALE_TTL,
            };
            message[at..at + 4].copy_from_slice(&ttl.to_be_bytes());
        }
        Some(())
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        size_of::<Metadata>() + 2 * size_of::<usize>() + self.bytes().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Transport;
    use crate::name::Name;
    use crate::response::TtlBounds;

    const BOUNDS: TtlBounds = TtlBounds { max_ttl: 86_400, max_negative_ttl: 3600 };
    const SETTINGS: Settings = Settings { bytes: 1 << 20, max_stale: 60, prefetch: true };

    fn name(text: &str) -> Vec<u8> {
        Name::from_text(text.as_bytes()).unwrap().suffix(0).to_vec()
    }

    /// A record of the question's name.
    fn record(rtype: u16, ttl: u32, rdata: &[u8]) -> Vec<u8> {
        let mut record = vec![0xc0, 0x0c];
        record.extend([rtype.to_be_bytes(), [0, 1]].concat());
        record.extend(ttl.to_be_bytes());
        record.extend((rdata.len() as u16).to_be_bytes());
        record.extend(rdata);
        record
    }

    fn soa(ttl: u32, minimum: u32) -> Vec<u8> {
        record(6, ttl, &[&name("a")[..], &name("b"), &[0; 16], &minimum.to_be_bytes()].concat())
    }

    /// A response about `www.example` of type A, with the records of its sections.
    fn response(rcode: u8, sections: [&[Vec<u8>]; 3]) -> Vec<u8> {
        let counts = sections.map(|records| records.len() as u8);
        let mut message = vec![0, 7, 0x85, 0xa0 | rcode, 0, 1, 0, counts[0], 0, counts[1], 0, counts[2]];
        message.extend(name("www.example"));
        message.extend([0, 1, 0, 1]);
        message.extend(sections.concat().concat());
        message
    }

    fn cached_at(response: &[u8], now: Instant) -> Option<CachedResponse> {
        let query = query(false);
        let key = Key::new(&query.head, &query.name, query.qtype);
        let (mut parser, mut response) = (Parser::default(), response.to_vec());
        parser.parse(&response);
        let response = parser.bound_ttls(&mut response, &BOUNDS)?;
        CachedResponse::new(response, key, now, &mut [0; BUFFER])
    }

    fn lifetime(response: &[u8]) -> Option<u32> {
        cached_at(response, Instant::now()).map(|cached| cached.metadata().lifetime)
    }

    fn query(edns: bool) -> Query {
        let mut packet = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
        packet.extend(name("www.example").to_ascii_uppercase());
        packet.extend([0, 1, 0, 1]);
        packet.extend_from_slice(if edns { &[0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0] } else { &[] });
        let mut query = Query::parse(&packet, Transport::Udp).unwrap();
        query.head.hop.limit = 1232;
        query
    }

    const ADDRESS: &[u8] = &[192, 0, 2, 1];

    #[test]
    fn the_shortest_ttl_within_bounds_is_the_lifetime() {
        let answer = |ttl| record(1, ttl, ADDRESS);
        assert_eq!(lifetime(&response(0, [&[answer(300)], &[], &[]])), Some(300));
        assert_eq!(lifetime(&response(0, [&[answer(300), answer(20)], &[], &[answer(5)]])), Some(5));
        assert_eq!(lifetime(&response(0, [&[answer(900_000)], &[], &[]])), Some(86_400));
        assert_eq!(lifetime(&response(0, [&[answer(u32::MAX)], &[], &[]])), Some(86_400), "RFC 8767 4");
        assert_eq!(lifetime(&response(0, [&[answer(0)], &[], &[]])), None);
        assert_eq!(lifetime(&response(2, [&[], &[], &[]])), Some(1), "RFC 9520 3.2");
    }

    #[test]
    fn the_soa_record_gives_the_lifetime_of_a_denial() {
        assert_eq!(lifetime(&response(3, [&[], &[soa(900, 60)], &[]])), Some(60));
        assert_eq!(lifetime(&response(0, [&[], &[soa(40, 60)], &[]])), Some(40));
        assert_eq!(lifetime(&response(3, [&[], &[soa(90_000, 90_000)], &[]])), Some(3600));
        assert_eq!(lifetime(&response(3, [&[], &[], &[]])), None, "RFC 2308 5");
        let alias = record(5, 20, &name("other.example"));
        assert_eq!(
            lifetime(&response(0, [&[alias], &[soa(900, 60)], &[]])),
            Some(20),
            "NODATA at the end of a chain"
        );
    }

    #[test]
    fn malformed_and_truncated_responses_are_not_cached() {
        let whole = response(0, [&[record(1, 300, ADDRESS)], &[], &[]]);
        assert!(lifetime(&whole[..whole.len() - 1]).is_none());
        let mut truncated = whole.clone();
        truncated[2] |= 2;
        assert!(lifetime(&truncated).is_none());
    }

    #[test]
    fn a_cached_response_has_the_clients_question_and_the_ttl_that_is_left() {
        let mut sent = response(0, [&[record(1, 300, ADDRESS)], &[], &[]]);
        sent[11] = 1;
        sent.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\x08\0\x0f\0\x04\0\x16no");
        let now = Instant::now();
        let cached = cached_at(&sent, now).unwrap();
        let mut out = [0; 1232];
        let age = cached.age(now + Duration::from_secs(20), &SETTINGS);
        let length = cached.respond(&query(true), age, 1232, &mut out).unwrap();
        assert_eq!(out[..2], [0xab, 0xcd]);
        assert_eq!(out[2..4], [0x81, 0x80], "RD and RA, and no AA or AD");
        assert_eq!(out[HEADER + 1..HEADER + 4], *b"WWW");
        let answer = HEADER + query(true).head.question().len();
        assert_eq!(out[answer..answer + 16], record(1, 280, ADDRESS));
        assert_eq!(&out[length - 19..length], b"\0\0\x29\x04\xd0\0\0\0\0\0\x08\0\x0f\0\x04\0\x16no");
        let mut other = query(false);
        assert!(cached.answers(Key::new(&other.head, &other.name, 1)));
        assert!(!cached.answers(Key::new(&other.head, &other.name, 28)));
        other.head.flags ^= flag::CD;
        assert!(!cached.answers(Key::new(&other.head, &other.name, 1)));
        let length = cached.respond(&query(false), age, 1232, &mut out).unwrap();
        assert_eq!((length, out[11]), (answer + 16, 0), "no OPT record for a client without EDNS");
    }

    #[test]
    fn an_expired_response_is_stale_until_the_limit() {
        let now = Instant::now();
        let cached = cached_at(&response(3, [&[], &[soa(40, 40)], &[]]), now).unwrap();
        let after = |seconds| cached.age(now + Duration::from_secs(seconds), &SETTINGS);
        assert_eq!(
            (after(39), after(40), after(99), after(100)),
            (Age::Fresh(39), Age::Stale, Age::Stale, Age::Expired)
        );
        let mut out = [0; 1232];
        let length = cached.respond(&query(true), Age::Stale, 1232, &mut out).unwrap();
        assert_eq!(out[length - 6..length], [0, 15, 0, 2, 0, 19]);
        let soa = HEADER + query(true).head.question().len();
        assert_eq!(u32_at(&out, soa + 6), Some(STALE_TTL));
        let never = Settings { max_stale: 0, ..SETTINGS };
        assert_eq!(cached.age(now + Duration::from_secs(40), &never), Age::Expired);
    }

    #[test]
    fn it_is_prefetched_once_in_the_last_tenth() {
        let now = Instant::now();
        let cached = cached_at(&response(0, [&[record(1, 100, ADDRESS)], &[], &[]]), now).unwrap();
        let prefetches = |seconds, settings: &Settings| {
            cached.claim_prefetch(now + Duration::from_secs(seconds), settings)
        };
        assert!(!prefetches(89, &SETTINGS) && !prefetches(95, &Settings { prefetch: false, ..SETTINGS }));
        assert!(prefetches(95, &SETTINGS) && !prefetches(96, &SETTINGS));
    }
}
