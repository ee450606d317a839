//! What an upstream sent, made into what the client gets. EDNS is hop by hop
//! (RFC 6891 7): the upstream's OPT is taken off, ours put on.

use std::ops::Range;

use crate::message::{
    ExtendedError, HEADER, Opt, Query, Record, Section, Writer, edns_flag, flag, is_truncated, option,
    options, rcode, rtype, skip_name, u16_at,
};
use crate::name::{MAX_NAME, Name};

/// Extended errors of an upstream that are passed on at most.
pub const ERRORS_PASSED: usize = 4;

/// Whether `response` answers `question`, which we asked: same name, letters
/// in any case, same type and class (RFC 5452 9.1). Type and class are compared
/// octet by octet: 65 and 97 differ by what is a letter's case in a name.
pub fn answers(response: &[u8], question: &[u8]) -> bool {
    let Some(asked) = response.get(HEADER..HEADER + question.len()) else {
        return false;
    };
    let name = question.len() - 4;
    let flags = u16_at(response, 2).unwrap_or(0);
    flags & (flag::QR | flag::OPCODE) == flag::QR
        && u16_at(response, 4) == Some(1)
        && asked[..name].eq_ignore_ascii_case(&question[..name])
        && asked[name..] == question[name..]
}

/// An upstream's message, walked through once.
struct Parts<'a> {
    rcode: u16,
    /// Those of `edns_flag::PASSED` that its OPT has.
    edns_flags: u16,
    /// From the answer section to the OPT, or to the end.
    records: Range<usize>,
    /// Records of each section among these.
    counts: [u16; 3],
    /// Additional records behind the OPT, and how many they are.
    behind: Range<usize>,
    behind_count: usize,
    errors: [ExtendedError<'a>; ERRORS_PASSED],
    error_count: usize,
}

impl<'a> Parts<'a> {
    /// `None` for a message whose records cannot be walked through.
    fn parse(response: &'a [u8]) -> Option<Parts<'a>> {
        let start = skip_name(response, HEADER)? + 4;
        let mut parts = Parts {
            rcode: u16_at(response, 2)? & flag::RCODE,
            edns_flags: 0,
            records: start..start,
            counts: [0; 3],
            behind: start..start,
            behind_count: 0,
            errors: [ExtendedError::default(); ERRORS_PASSED],
            error_count: 0,
        };
        let (mut at, mut has_opt) = (start, false);
        for section in 0..3 {
            for _ in 0..u16_at(response, 6 + 2 * section)? {
                let record = Record::parse(response, at)?;
                at = record.end;
                if record.rtype == rtype::OPT {
                    if section != 2 || has_opt {
                        return None;
                    }
                    has_opt = true;
                    parts.rcode |= ((record.ttl >> 20) & 0xff0) as u16;
                    parts.edns_flags = record.ttl as u16 & edns_flag::PASSED;
                    parts.take_errors(record.rdata(response))?;
                    parts.behind = at..at;
                } else if has_opt {
                    parts.behind.end = at;
                    parts.behind_count += 1;
                } else {
                    parts.records.end = at;
                    parts.counts[section] += 1;
                }
            }
        }
        Some(parts)
    }

    fn take_errors(&mut self, rdata: &'a [u8]) -> Option<()> {
        for error in extended_errors(rdata) {
            let error = error?;
            if self.error_count < ERRORS_PASSED {
                self.errors[self.error_count] = error;
                self.error_count += 1;
            }
        }
        Some(())
    }

    /// Whether this is about our own OPT or our own cookie, and so no answer to
    /// anybody's question.
    fn is_about_us(&self) -> bool {
        matches!(self.rcode, rcode::BADVERS | rcode::BADCOOKIE)
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

/// All twelve bits of a message's RCODE; `None` where its records cannot be walked through.
pub fn rcode(response: &[u8]) -> Option<u16> {
    Parts::parse(response).map(|parts| parts.rcode)
}

/// Whether an upstream's message can be passed on at all.
pub fn is_usable(response: &[u8]) -> bool {
    Parts::parse(response).is_some_and(|parts| !parts.is_about_us())
}

/// Writes the client's response into `out`: the upstream's answer with the
/// client's id, question and flags, cut with TC where it does not fit. `None`
/// where the upstream's message makes no sense.
pub fn relay(response: &[u8], query: &Query, payload: u16, out: &mut [u8]) -> Option<usize> {
    let parts = Parts::parse(response).filter(|parts| !parts.is_about_us())?;
    let head = &query.head;
    let mut writer = begin(query, parts.rcode, u16_at(response, 2)?, out)?;
    let whole = put_records(&mut writer, response, &parts);
    if is_truncated(response) || whole.is_none() {
        writer.truncate(head);
    }
    let errors = &parts.errors[..parts.error_count];
    let length = writer.finish(head, &Opt { payload, rcode: parts.rcode, flags: parts.edns_flags, errors });
    // RFC 7766 5: what is cut off over TCP could be had in no other way.
    (!head.hop.over_tcp || !is_truncated(out)).then_some(length)
}

/// An empty answer with TC: the upstream's own did not fit over UDP, and could
/// not be had over TCP; the client may try.
pub fn truncated(query: &Query, payload: u16, out: &mut [u8]) -> usize {
    let head = &query.head;
    let Some(mut writer) = Writer::respond(head, rcode::NOERROR, out) else { return 0 };
    writer.truncate(head);
    writer.finish(head, &Opt::plain(payload, rcode::NOERROR))
}

/// Begins a response that passes on what an upstream said, by its RCODE and its
/// flags: AA and RA; AD only to a client that understands it (RFC 6840 5.8).
pub fn begin<'a>(query: &Query, rcode: u16, flags: u16, out: &'a mut [u8]) -> Option<Writer<'a>> {
    let head = &query.head;
    // An RCODE of more than four bits cannot be said without an OPT.
    let is_unspeakable = rcode > flag::RCODE && head.edns.is_none();
    let mut writer = Writer::respond(head, if is_unspeakable { rcode::SERVFAIL } else { rcode }, out)?;
    let wants_ad = head.flags & flag::AD != 0 || head.edns.is_some_and(|edns| edns.dnssec_ok);
    let passed = flag::AA | flag::RA | if wants_ad { flag::AD } else { 0 };
    writer.set_flags(flags & passed);
    Some(writer)
}

/// Puts the records of all sections, but for the OPT.
fn put_records(writer: &mut Writer<'_>, response: &[u8], parts: &Parts<'_>) -> Option<()> {
    writer.put(&response[parts.records.clone()])?;
    let sections = [Section::Answer, Section::Authority, Section::Additional];
    for (section, count) in sections.into_iter().zip(parts.counts) {
        writer.count(section, count);
    }
    // Where the OPT stood in between, what is behind it moves, and pointers
    // with it.
    splice(writer, response, parts.behind.start, parts.behind_count, |_, _| Some(Section::Additional))
}

/// An upstream's message without its OPT.
pub struct Bare<'a> {
    pub length: usize,
    /// Where the question ends.
    pub body: usize,
    /// All twelve bits.
    pub rcode: u16,
    /// Those of `edns_flag::PASSED` that its OPT had.
    pub edns_flags: u16,
    errors: [ExtendedError<'a>; ERRORS_PASSED],
    error_count: usize,
}

impl<'a> Bare<'a> {
    pub fn errors(&self) -> &[ExtendedError<'a>] {
        &self.errors[..self.error_count]
    }
}

/// Writes an upstream's message without its OPT; `None` for one that is not to be
/// passed on, or that is not whole.
pub fn strip<'a>(response: &'a [u8], out: &mut [u8]) -> Option<Bare<'a>> {
    let parts = Parts::parse(response).filter(|parts| !parts.is_about_us() && !is_truncated(response))?;
    let body = parts.records.start;
    let mut writer = Writer::copy(response.get(..body)?, out)?;
    put_records(&mut writer, response, &parts)?;
    let Parts { rcode, edns_flags, errors, error_count, .. } = parts;
    Some(Bare { length: writer.written().len(), body, rcode, edns_flags, errors, error_count })
}

/// Writes a CNAME from the query's name to `target`, followed by what an
/// upstream said about the target. Without a usable answer the CNAME stands
/// alone: a blocked name is answered whether an upstream lives or not.
pub fn follow(
    response: Option<&[u8]>,
    query: &Query,
    target: &Name,
    ttl: u32,
    opt: (u16, &[ExtendedError<'_>]),
    out: &mut [u8],
) -> usize {
    let head = &query.head;
    let parts = response.and_then(|response| Parts::parse(response).map(|parts| (response, parts)));
    let rcode = match &parts {
        Some((_, parts)) if parts.rcode == rcode::NXDOMAIN => rcode::NXDOMAIN,
        _ => rcode::NOERROR,
    };
    let Some(mut writer) = Writer::respond(head, rcode, out) else {
        return 0;
    };
    let mut whole = writer.put_record(Section::Answer, 0, rtype::CNAME, ttl, &[target.suffix(0)]);
    if let Some((response, parts)) = parts.filter(|(_, parts)| parts.rcode != rcode::SERVFAIL) {
        let [answers, authorities, _] = parts.counts.map(usize::from);
        let kept = |place: usize, record: &Record| match record.rtype {
            _ if place < answers => Some(Section::Answer),
            rtype::SOA => Some(Section::Authority),
            _ => None,
        };
        let start = parts.records.start;
        whole = whole.and_then(|()| splice(&mut writer, response, start, answers + authorities, kept));
    }
    if whole.is_none() && response.is_some() && head.hop.over_tcp {
        return follow(None, query, target, ttl, opt, out);
    }
    if whole.is_none() {
        writer.truncate(head);
    }
    let (payload, errors) = opt;
    writer.finish(head, &Opt { payload, rcode, flags: 0, errors })
}

/// Copies `records` records from `at` on into the sections that `kept` gives
/// them, with all names written out: their pointers fit another message.
fn splice(
    writer: &mut Writer<'_>,
    response: &[u8],
    mut at: usize,
    records: usize,
    kept: impl Fn(usize, &Record) -> Option<Section>,
) -> Option<()> {
    for place in 0..records {
        let record = Record::parse(response, at)?;
        if let Some(section) = kept(place, &record) {
            let (owner, _) = expand(response, at)?;
            writer.put(owner.suffix(0))?;
            writer.put(&record.rtype.to_be_bytes())?;
            writer.put(&record.class.to_be_bytes())?;
            writer.put(&record.ttl.to_be_bytes())?;
            writer.put_counted(|writer| put_rdata(writer, response, &record))?;
            writer.count(section, 1);
        }
        at = record.end;
    }
    Some(())
}

/// Writes RDATA; names in the types that may be compressed (RFC 3597 4, RFC
/// 1035 3.3) are written out, everything else is opaque.
fn put_rdata(writer: &mut Writer<'_>, response: &[u8], record: &Record) -> Option<()> {
    let (before, names) = match record.rtype {
        2..=5 | 7..=9 | 12 | 39 => (0, 1),
        6 | 14 | 17 => (0, 2),
        15 | 18 | 21 | 36 => (2, 1),
        26 => (2, 2),
        33 => (6, 1),
        // RFC 3597 4: these too, since RFC 2535 and RFC 2915 let them.
        24 => (18, 1),
        30 => (0, 1),
        35 => (naptr_texts(record.rdata(response))?, 1),
        _ => return writer.put(record.rdata(response)),
    };
    let mut at = record.rdata_start + before;
    writer.put(response.get(record.rdata_start..at)?)?;
    for _ in 0..names {
        let (name, end) = expand(response, at)?;
        writer.put(name.suffix(0))?;
        at = end;
    }
    writer.put(response.get(at..record.end)?)
}

/// Octets of a NAPTR record's numbers and texts, which stand before its name (RFC
/// 3403 4.1).
fn naptr_texts(rdata: &[u8]) -> Option<usize> {
    (0..3).try_fold(4, |at, _| rdata.get(at).map(|&length| at + 1 + usize::from(length)))
}

/// Reads a possibly compressed name; returns it in lower case, and where it
/// ends. Pointers must lead strictly backwards (RFC 1035 4.1.4: to a prior
/// occurrence), so the walk ends.
pub fn expand(message: &[u8], at: usize) -> Option<(Name, usize)> {
    let end = skip_name(message, at)?;
    let mut wire = [0; MAX_NAME];
    let mut length = 0;
    let mut here = at;
    let mut lowest = at;
    loop {
        match *message.get(here)? {
            0 => break,
            label @ 1..=63 => {
                let next = here + 1 + label as usize;
                let octets = message.get(here..next)?;
                wire.get_mut(length..length + octets.len())?.copy_from_slice(octets);
                length += octets.len();
                here = next;
            }
            high @ 0xc0..=0xff => {
                here = (usize::from(high & 0x3f) << 8) | usize::from(*message.get(here + 1)?);
                // Nothing in the header is a name, and behind another header it
                // would be another one.
                if here >= lowest || here < HEADER {
                    return None;
                }
                lowest = here;
            }
            _ => return None,
        }
    }
    // The root label is the zero that the buffer was filled with.
    Name::parse(wire.get(..length + 1)?, 0).ok().map(|(name, _)| (name, end))
}
