//! One answer of an upstream as it is kept, and as it is given again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use triomphe::ThinArc;

use super::Key;
use crate::message::{
    ExtendedError, HEADER, Opt, Query, Record, Section, Writer, ede, flag, is_truncated, option, rcode,
    u16_at,
};
use crate::relay;
use crate::response::{ERRORS_PASSED, Reader, Response, extended_errors, u32_at};
use crate::sys::prefetch;

/// Seconds for which an answer without success is kept: SERVFAIL and the like (RFC
/// 9520 3.2 asks for one at least).
const FAILURE: u32 = 1;
/// TTL of all records of a stale answer (RFC 8767 4).
const STALE_TTL: u32 = 30;
/// Of its life, the last part in which an answer that is asked for is asked for
/// anew: a tenth, as Unbound does.
const LAST_PART: u32 = 10;

/// Octets of an answer of usual size, with what stands before it.
const USUAL: usize = 192;

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

/// How old a kept answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Seconds since it came.
    Fresh(u32),
    /// Its TTL is over, but it will do where nothing else is to be had.
    Stale,
    Expired,
}

/// An answer of an upstream. In one piece of memory: to give it costs little more
/// than to wait for that.
#[derive(Clone)]
pub struct CachedResponse(ThinArc<Head, u8>);

/// What stands before the octets: the message as it came, but without OPT and with
/// its TTLs within bounds; the places of its TTLs, two octets each; its extended
/// errors, as options of an OPT.
struct Head {
    came_at: Instant,
    /// The latest generation of what is served that lets all pass to which this
    /// answer leads.
    passed_by: AtomicU64,
    /// Seconds.
    life: u32,
    /// All twelve bits.
    rcode: u16,
    /// What the upstream said of `edns_flag::PASSED`.
    edns_flags: u16,
    /// Where the question ends.
    body: u16,
    /// Where the message ends.
    message: usize,
    ttls: u16,
    /// See `Key`.
    flags: u8,
    is_asked_anew: AtomicBool,
}

impl CachedResponse {
    /// Keeps what an upstream said to this question, whose TTLs are within bounds; `None` for
    /// what is not to be kept. `room` takes a whole message.
    pub fn new(
        response: Response<'_>,
        key: Key<'_>,
        now: Instant,
        room: &mut [u8],
    ) -> Option<CachedResponse> {
        let life = match response.rcode() {
            rcode::NOERROR | rcode::NXDOMAIN => response.life()?,
            _ => FAILURE,
        };
        if life == 0 || response.is_truncated() {
            return None;
        }
        let message = relay::strip(response, room)?;
        let mut octets = room[..message].to_vec();
        let (mut at, mut ttls) = (response.body(), 0);
        while at < message {
            let record = Record::parse(&room[..message], at)?;
            octets.extend(u16::try_from(record.rdata_start - 6).ok()?.to_be_bytes());
            (at, ttls) = (record.end, ttls + 1);
        }
        let (errors, told) = response.errors();
        put_errors(&errors[..told], &mut octets);
        let head = Head {
            came_at: now,
            passed_by: AtomicU64::new(0),
            life,
            rcode: response.rcode(),
            edns_flags: response.edns_flags(),
            body: response.body() as u16,
            message,
            ttls,
            flags: key.flags(),
            is_asked_anew: AtomicBool::new(false),
        };
        Some(CachedResponse(ThinArc::from_header_and_slice(head, &octets)))
    }

    fn head(&self) -> &Head {
        &self.0.header.header
    }

    fn octets(&self) -> &[u8] {
        &self.0.slice
    }

    /// Asks for its memory, which is about to be read, without touching it.
    pub fn warm(&self) {
        prefetch(self.0.heap_ptr(), USUAL);
    }

    /// Whether this is the answer to that question.
    pub fn answers(&self, key: Key<'_>) -> bool {
        let name = key.name();
        self.head().flags == key.flags()
            && self.question().len() == name.len() + 4
            && self.name().eq_ignore_ascii_case(name)
            && u16_at(self.question(), name.len()) == Some(key.qtype())
    }

    /// Whether both are one.
    pub fn is(&self, other: &CachedResponse) -> bool {
        self.0.heap_ptr() == other.0.heap_ptr()
    }

    fn question(&self) -> &[u8] {
        &self.octets()[HEADER..usize::from(self.head().body)]
    }

    /// The name that was asked for, in wire format; letters in any case.
    pub fn name(&self) -> &[u8] {
        let question = self.question();
        &question[..question.len() - 4]
    }

    pub fn age(&self, now: Instant, settings: &Settings) -> Age {
        let age = now.saturating_duration_since(self.head().came_at).as_secs();
        let life = u64::from(self.head().life);
        if age < life {
            Age::Fresh(age as u32)
        } else if !self.is_failure() && age < life + u64::from(settings.max_stale) {
            Age::Stale
        } else {
            Age::Expired
        }
    }

    /// Whether all that it says is that there is no answer.
    pub fn is_failure(&self) -> bool {
        !matches!(self.head().rcode, rcode::NOERROR | rcode::NXDOMAIN)
    }

    /// Whether it should be asked for anew before it is over: true once.
    pub fn claim_prefetch(&self, now: Instant, settings: &Settings) -> bool {
        let life = Duration::from_secs(u64::from(self.head().life));
        let left = (self.head().came_at + life).saturating_duration_since(now);
        settings.prefetch
            && !self.is_failure()
            && left < life / LAST_PART
            && !self.head().is_asked_anew.swap(true, Relaxed)
    }

    /// Whether what is served, by its generation, lets pass all to which this leads.
    pub fn is_allowed_by(&self, generation: u64) -> bool {
        self.head().passed_by.load(Relaxed) == generation
    }

    pub fn mark_allowed_by(&self, generation: u64) {
        if !self.is_allowed_by(generation) {
            self.head().passed_by.store(generation, Relaxed);
        }
    }

    /// The whole message, with the TTLs that it came with.
    pub fn message(&self) -> &[u8] {
        &self.octets()[..self.head().message]
    }

    /// The whole message, with its TTLs as they are now; `None` if it does not fit.
    pub fn copy_aged(&self, age: Age, out: &mut [u8]) -> Option<usize> {
        let message = self.message();
        out.get_mut(..message.len())?.copy_from_slice(message);
        self.set_ttls(age, out);
        Some(message.len())
    }

    /// Reads it like a message that has just come.
    pub fn read<'a>(&'a self, reader: &'a mut Reader) -> Option<Response<'a>> {
        reader.read_cached(self.message(), self.head().rcode)
    }

    /// Writes the response to a client that asks the same; `None` if it does not fit.
    pub fn respond(&self, query: &Query, age: Age, payload: u16, out: &mut [u8]) -> Option<usize> {
        let (message, rcode) = (self.message(), self.head().rcode);
        // RFC 1035 4.1.1: nobody here is an authority for what it remembers.
        let flags = u16_at(message, 2)? & !flag::AA;
        let mut writer = relay::begin(query, rcode, flags, out)?;
        writer.put(&message[usize::from(self.head().body)..])?;
        for section in [Section::Answer, Section::Authority, Section::Additional] {
            writer.count(section, u16_at(message, section as usize)?);
        }
        self.set_ttls(age, writer.written());
        let length = self.finish(writer, query, age, payload);
        // RFC 7766 5: what is cut off over TCP could be had in no other way.
        (!query.head.hop.transport.is_tcp() || !is_truncated(out)).then_some(length)
    }

    /// The same without the records that are dropped. `response` is this message, `room` takes a
    /// copy of it.
    pub fn respond_without_dropped(
        &self,
        query: &Query,
        age: Age,
        payload: u16,
        response: Response<'_>,
        room: &mut [u8],
        out: &mut [u8],
    ) -> Option<usize> {
        let length = self.copy_aged(age, room)?;
        let mut writer = relay::begin(query, self.head().rcode, relay::flags_of(response) & !flag::AA, out)?;
        let response = response.over(&room[..length]);
        if relay::put_records(&mut writer, response, |entry| Some(entry.section)).is_none() {
            writer.truncate(&query.head);
        }
        let length = self.finish(writer, query, age, payload);
        (!query.head.hop.transport.is_tcp() || !is_truncated(out)).then_some(length)
    }

    fn finish(&self, writer: Writer<'_>, query: &Query, age: Age, payload: u16) -> usize {
        let (errors, told) = self.errors(age);
        writer.finish(
            &query.head,
            &Opt {
                payload,
                rcode: self.head().rcode,
                flags: self.head().edns_flags,
                errors: &errors[..told],
            },
        )
    }

    fn errors(&self, age: Age) -> ([ExtendedError<'_>; ERRORS_PASSED + 1], usize) {
        let mut errors = [ExtendedError::default(); ERRORS_PASSED + 1];
        let mut told = 0;
        if age == Age::Stale {
            let is_denial = self.head().rcode == rcode::NXDOMAIN;
            errors[0] = ExtendedError::new(if is_denial { ede::STALE_NXDOMAIN } else { ede::STALE }, b"");
            told = 1;
        }
        let options = &self.octets()[self.head().message + 2 * usize::from(self.head().ttls)..];
        for error in extended_errors(options).flatten().take(ERRORS_PASSED) {
            errors[told] = error;
            told += 1;
        }
        (errors, told)
    }

    fn set_ttls(&self, age: Age, message: &mut [u8]) {
        let places = &self.octets()[self.head().message..][..2 * usize::from(self.head().ttls)];
        for place in places.chunks_exact(2) {
            let at = usize::from(u16::from_be_bytes([place[0], place[1]]));
            let ttl = match age {
                Age::Fresh(seconds) => u32_at(message, at).saturating_sub(seconds),
                Age::Stale | Age::Expired => STALE_TTL,
            };
            message[at..at + 4].copy_from_slice(&ttl.to_be_bytes());
        }
    }

    /// Octets of memory that it holds.
    pub fn memory(&self) -> usize {
        size_of::<Head>() + 2 * size_of::<usize>() + self.octets().len()
    }
}

/// Puts extended errors as options of an OPT.
fn put_errors(errors: &[ExtendedError<'_>], options: &mut Vec<u8>) {
    for error in errors {
        options.extend(option::EXTENDED_ERROR.to_be_bytes());
        options.extend((2 + error.text.len() as u16).to_be_bytes());
        options.extend(error.code.to_be_bytes());
        options.extend(error.text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{MAX_MESSAGE, Transport};
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

    fn kept_at(response: &[u8], now: Instant) -> Option<CachedResponse> {
        let query = query(false);
        let key = Key::new(&query.head, &query.name, query.qtype);
        let (mut reader, mut response) = (Reader::default(), response.to_vec());
        let response = reader.read_bounded(&mut response, &BOUNDS)?;
        CachedResponse::new(response, key, now, &mut [0; MAX_MESSAGE])
    }

    fn life(response: &[u8]) -> Option<u32> {
        kept_at(response, Instant::now()).map(|kept| kept.head().life)
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
    fn an_answer_lives_as_long_as_its_shortest_ttl_within_bounds() {
        let answer = |ttl| record(1, ttl, ADDRESS);
        assert_eq!(life(&response(0, [&[answer(300)], &[], &[]])), Some(300));
        assert_eq!(life(&response(0, [&[answer(300), answer(20)], &[], &[answer(5)]])), Some(5));
        assert_eq!(life(&response(0, [&[answer(900_000)], &[], &[]])), Some(86_400));
        assert_eq!(life(&response(0, [&[answer(u32::MAX)], &[], &[]])), Some(86_400), "RFC 8767 4");
        assert_eq!(life(&response(0, [&[answer(0)], &[], &[]])), None);
        assert_eq!(life(&response(2, [&[], &[], &[]])), Some(1), "RFC 9520 3.2");
    }

    #[test]
    fn a_denial_lives_as_its_soa_says() {
        assert_eq!(life(&response(3, [&[], &[soa(900, 60)], &[]])), Some(60));
        assert_eq!(life(&response(0, [&[], &[soa(40, 60)], &[]])), Some(40));
        assert_eq!(life(&response(3, [&[], &[soa(90_000, 90_000)], &[]])), Some(3600));
        assert_eq!(life(&response(3, [&[], &[], &[]])), None, "RFC 2308 5");
        let alias = record(5, 20, &name("other.example"));
        assert_eq!(life(&response(0, [&[alias], &[soa(900, 60)], &[]])), Some(20), "NODATA at its end");
    }

    #[test]
    fn what_is_not_whole_is_not_kept() {
        let whole = response(0, [&[record(1, 300, ADDRESS)], &[], &[]]);
        assert!(life(&whole[..whole.len() - 1]).is_none());
        let mut truncated = whole.clone();
        truncated[2] |= 2;
        assert!(life(&truncated).is_none());
    }

    #[test]
    fn what_is_given_again_is_the_clients_own_with_less_time() {
        let mut said = response(0, [&[record(1, 300, ADDRESS)], &[], &[]]);
        said[11] = 1;
        said.extend(b"\0\0\x29\x04\xd0\0\0\0\0\0\x08\0\x0f\0\x04\0\x16no");
        let now = Instant::now();
        let kept = kept_at(&said, now).unwrap();
        let mut out = [0; 1232];
        let age = kept.age(now + Duration::from_secs(20), &SETTINGS);
        let length = kept.respond(&query(true), age, 1232, &mut out).unwrap();
        assert_eq!(out[..2], [0xab, 0xcd]);
        assert_eq!(out[2..4], [0x81, 0x80], "RD and RA, and no AA or AD");
        assert_eq!(out[HEADER + 1..HEADER + 4], *b"WWW");
        let answer = HEADER + query(true).head.question().len();
        assert_eq!(out[answer..answer + 16], record(1, 280, ADDRESS));
        assert_eq!(&out[length - 19..length], b"\0\0\x29\x04\xd0\0\0\0\0\0\x08\0\x0f\0\x04\0\x16no");
        let mut asked = query(false);
        assert!(kept.answers(Key::new(&asked.head, &asked.name, 1)));
        assert!(!kept.answers(Key::new(&asked.head, &asked.name, 28)));
        asked.head.flags ^= flag::CD;
        assert!(!kept.answers(Key::new(&asked.head, &asked.name, 1)));
        let length = kept.respond(&query(false), age, 1232, &mut out).unwrap();
        assert_eq!((length, out[11]), (answer + 16, 0), "no OPT for a client that has none");
    }

    #[test]
    fn past_its_time_it_is_stale_and_then_nothing() {
        let now = Instant::now();
        let kept = kept_at(&response(3, [&[], &[soa(40, 40)], &[]]), now).unwrap();
        let after = |seconds| kept.age(now + Duration::from_secs(seconds), &SETTINGS);
        assert_eq!(
            (after(39), after(40), after(99), after(100)),
            (Age::Fresh(39), Age::Stale, Age::Stale, Age::Expired)
        );
        let mut out = [0; 1232];
        let length = kept.respond(&query(true), Age::Stale, 1232, &mut out).unwrap();
        assert_eq!(out[length - 6..length], [0, 15, 0, 2, 0, 19]);
        let soa = HEADER + query(true).head.question().len();
        assert_eq!(u32_at(&out, soa + 6), STALE_TTL);
        let never = Settings { max_stale: 0, ..SETTINGS };
        assert_eq!(kept.age(now + Duration::from_secs(40), &never), Age::Expired);
    }

    #[test]
    fn it_is_asked_anew_once_in_the_last_tenth() {
        let now = Instant::now();
        let kept = kept_at(&response(0, [&[record(1, 100, ADDRESS)], &[], &[]]), now).unwrap();
        let is_due =
            |seconds, settings: &Settings| kept.claim_prefetch(now + Duration::from_secs(seconds), settings);
        assert!(!is_due(89, &SETTINGS) && !is_due(95, &Settings { prefetch: false, ..SETTINGS }));
        assert!(is_due(95, &SETTINGS) && !is_due(96, &SETTINGS));
    }
}
