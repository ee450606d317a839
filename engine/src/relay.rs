//! Writes the client's response from an upstream's response. EDNS is hop by hop (RFC 6891 7):
//! the upstream's OPT record is removed, and ours is added.

use std::collections::BTreeMap;

use crate::message::{
    ExtendedError, HEADER, Opt, Query, Record, Section, Writer, flag, rcode, rtype, skip_name, u16_at,
};
use crate::name::Name;
use crate::response::{Entry, Layout, Mark, POINTER_RANGE, Response, pointer_at};

/// Whether `response` repeats the `question` that was sent: the same name in any case, the same
/// type and class (RFC 5452 9.1). Type and class are compared exactly: 65 and 97 differ only in
/// the bit that is the case of a letter.
pub fn answers(response: &[u8], question: &[u8]) -> bool {
    let Some(repeated) = response.get(HEADER..HEADER + question.len()) else {
        return false;
    };
    let name = question.len() - 4;
    let flags = u16_at(response, 2).unwrap_or(0);
    flags & (flag::QR | flag::OPCODE) == flag::QR
        && u16_at(response, 4) == Some(1)
        && repeated[..name].eq_ignore_ascii_case(&question[..name])
        && repeated[name..] == question[name..]
}

/// All twelve bits of the RCODE of a message that `Parser` refused; `None` if it is too malformed.
pub fn rcode(message: &[u8]) -> Option<u16> {
    let mut rcode = u16_at(message, 2)? & flag::RCODE;
    let mut at = skip_name(message, HEADER)? + 4;
    for section in Section::ALL {
        for _ in 0..u16_at(message, section as usize)? {
            let record = Record::parse(message, at)?;
            at = record.end;
            if record.rtype == rtype::OPT {
                rcode |= ((record.ttl >> 20) & 0xff0) as u16;
            }
        }
    }
    Some(rcode)
}

/// Writes the upstream's response with the client's ID, question and flags into `out`, truncated
/// if it does not fit. `None` if it cannot be passed on.
pub fn respond(response: Response<'_>, query: &Query, payload: u16, out: &mut [u8]) -> Option<usize> {
    let (head, rcode) = (&query.head, response.rcode());
    let mut writer = begin(query, rcode, flags_of(response), out)?;
    let whole = put_records(&mut writer, response, |entry| Some(entry.section));
    if response.is_truncated() || whole.is_none() {
        writer.truncate(head);
    }
    let (errors, count) = response.errors();
    let opt = Opt { payload, rcode, flags: response.edns_flags(), errors: &errors[..count] };
    writer.finish_whole(head, &opt)
}

/// The response's flags; AD only if no record was dropped.
pub fn flags_of(response: Response<'_>) -> u16 {
    let flags = u16_at(response.message(), 2).unwrap_or(0);
    if response.dropped() > 0 { flags & !flag::AD } else { flags }
}

/// Writes an empty response with TC: the upstream's response did not fit over UDP, and the
/// upstream did not answer over TCP.
pub fn respond_truncated(query: &Query, payload: u16, out: &mut [u8]) -> usize {
    let head = &query.head;
    let Some(mut writer) = Writer::respond(head, rcode::NOERROR, out) else { return 0 };
    writer.truncate(head);
    writer.finish(head, &Opt::plain(payload, rcode::NOERROR))
}

/// Begins a response with an upstream's RCODE and flags: AA, RA, and AD only for a client that
/// understands it (RFC 6840 5.8).
pub fn begin<'a>(query: &Query, rcode: u16, flags: u16, out: &'a mut [u8]) -> Option<Writer<'a>> {
    let head = &query.head;
    // An RCODE of more than four bits needs an OPT record.
    let needs_opt = rcode > flag::RCODE && head.edns.is_none();
    let mut writer = Writer::respond(head, if needs_opt { rcode::SERVFAIL } else { rcode }, out)?;
    let wants_ad = head.flags & flag::AD != 0 || head.edns.is_some_and(|edns| edns.dnssec_ok);
    let passed = flag::AA | flag::RA | if wants_ad { flag::AD } else { 0 };
    writer.set_flags(flags & passed);
    Some(writer)
}

/// Copies an upstream's message without its OPT record; `None` if it does not fit.
pub fn copy_without_opt<'a>(response: Response<'_>, out: &'a mut [u8]) -> Option<Writer<'a>> {
    let mut writer = Writer::copy(response.message().get(..response.question_end())?, out)?;
    put_records(&mut writer, response, |entry| Some(entry.section))?;
    Some(writer)
}

/// Writes a CNAME record from the queried name to `target`, then an upstream's answer about the
/// target. `chain`: the response whose chain leads to this name, which has the CNAME then. The CNAME
/// alone is sent if there is no usable answer: a block must not depend on the upstreams.
pub fn respond_with_cname(
    response: Option<Response<'_>>,
    chain: Option<(Response<'_>, &Name)>,
    query: &Query,
    target: &Name,
    ttl: u32,
    opt: (u16, &[ExtendedError<'_>]),
    out: &mut [u8],
) -> usize {
    let head = &query.head;
    let rcode = match response {
        Some(response) if response.rcode() == rcode::NXDOMAIN => rcode::NXDOMAIN,
        _ => rcode::NOERROR,
    };
    let Some(mut writer) = Writer::respond(head, rcode, out) else {
        return 0;
    };
    let mut whole = match chain {
        None => writer.put_record(Section::Answer, 0, rtype::CNAME, ttl, &[target.suffix(0)]),
        Some((response, name)) => put_chain(&mut writer, response, query, name, ttl).and_then(|_| {
            let owner = name.suffix(0);
            writer.put_record_of(Section::Answer, owner, rtype::CNAME, ttl, &[target.suffix(0)])
        }),
    };
    if let Some(response) = response.filter(|response| !response.is_failure()) {
        let section_of = |entry: &Entry| match (entry.section, entry.rtype()) {
            (Section::Answer, _) => Some(Section::Answer),
            (Section::Authority, rtype::SOA) => Some(Section::Authority),
            _ => None,
        };
        whole = whole.and_then(|()| put_records(&mut writer, response, section_of));
    }
    if whole.is_none() && response.is_some() && head.hop.transport.is_tcp() {
        return respond_with_cname(None, chain, query, target, ttl, opt, out);
    }
    if whole.is_none() {
        writer.truncate(head);
    }
    let (payload, errors) = opt;
    writer.finish(head, &Opt { payload, rcode, flags: 0, errors })
}

/// Adds the records of a response that lead from QNAME to `end`: CNAME, and DNAME before the CNAME that is made
/// of it (RFC 6672 3.1). Returns their number; `None` if they do not fit. No TTL exceeds `limit`.
pub fn put_chain(
    writer: &mut Writer<'_>,
    response: Response<'_>,
    query: &Query,
    end: &Name,
    limit: u32,
) -> Option<usize> {
    let (mut here, mut records) = (query.name.clone(), 0);
    let record_at = |owner: &[u8], wanted: u16| {
        let is_it = |entry: &&Entry| entry.section == Section::Answer && entry.rtype() == wanted;
        response.owned_by(owner).find(is_it)
    };
    // A chain has no more links than the response has records.
    for _ in response.entries() {
        if here == *end {
            break;
        }
        let Some(link) = record_at(here.suffix(0), rtype::CNAME) else { break };
        let mut put = |owner: &[u8], entry: &Entry| {
            let (target, ttl) = (response.target(entry), entry.record.ttl.min(limit));
            writer.put_record_of(Section::Answer, owner, entry.rtype(), ttl, &[target.suffix(0)])
        };
        if response.has_dname() {
            let above = (1..=here.labels()).map(|skip| here.suffix(skip));
            for (owner, dname) in above.filter_map(|owner| Some((owner, record_at(owner, rtype::DNAME)?))) {
                put(owner, dname)?;
                records += 1;
            }
        }
        put(here.suffix(0), link)?;
        (here, records) = (response.target(link), records + 1);
    }
    Some(records)
}

/// Adds the records that are not dropped to the sections that `section_of` returns. Records are
/// copied in one piece while their offsets stay the same; after that, pointers are rewritten.
pub fn put_records(
    writer: &mut Writer<'_>,
    response: Response<'_>,
    section_of: impl Fn(&Entry) -> Option<Section>,
) -> Option<()> {
    let (message, question_end) = (response.message(), response.question_end());
    let is_aligned = writer.written().len() == question_end;
    let (mut end, mut rest) = (question_end, response.entries());
    while let Some((entry, others)) = rest.split_first() {
        let is_in_place = is_aligned && entry.owner == end && !entry.has(Mark::Dropped);
        let Some(section) = section_of(entry).filter(|_| is_in_place) else { break };
        writer.count(section, 1);
        (end, rest) = (entry.record.end, others);
    }
    writer.put(&message[question_end..end])?;
    let mut mover = Mover { message, fixed: if is_aligned { end } else { 0 }, moved: BTreeMap::new() };
    for entry in rest.iter().filter(|entry| !entry.has(Mark::Dropped)) {
        if let Some(section) = section_of(entry) {
            mover.put_record(writer, entry)?;
            writer.count(section, 1);
        }
    }
    Some(())
}

/// Copies records to other offsets of another message.
struct Mover<'a> {
    message: &'a [u8],
    /// Everything before this offset has the same offset in both messages.
    fixed: usize,
    /// The old and new offsets of the names and suffixes that were copied.
    moved: BTreeMap<usize, usize>,
}

impl Mover<'_> {
    fn put_record(&mut self, writer: &mut Writer<'_>, entry: &Entry) -> Option<()> {
        let record = &entry.record;
        self.put_name(writer, entry.owner, true)?;
        // Type, class and TTL.
        writer.put(&self.message[record.rdata_start - 10..record.rdata_start - 2])?;
        writer.put_counted(|writer| {
            let mut at = record.rdata_start;
            if let Some(layout) = Layout::of(record.rtype) {
                let name = at + layout.prefix_length(record.rdata(self.message))?;
                writer.put(self.message.get(at..name)?)?;
                at = name;
                for _ in 0..layout.names {
                    self.put_name(writer, at, layout.is_compressible)?;
                    at = skip_name(self.message, at)?;
                }
            }
            writer.put(self.message.get(at..record.end)?)
        })
    }

    /// Copies a name in its original case. It uses pointers where the original does, if it may.
    fn put_name(&mut self, writer: &mut Writer<'_>, at: usize, may_compress: bool) -> Option<()> {
        let mut here = at;
        loop {
            let byte = *self.message.get(here)?;
            let offset = if here < self.fixed { Some(here) } else { self.moved.get(&here).copied() };
            match (byte, offset) {
                (0, _) => return writer.put(&[0]),
                (0xc0.., None) => here = pointer_at(self.message, here)?,
                (0xc0.., Some(_)) if !may_compress => here = pointer_at(self.message, here)?,
                (_, Some(offset)) if may_compress => {
                    return writer.put(&(0xc000 | u16::try_from(offset).ok()?).to_be_bytes());
                }
                _ => {
                    let written = writer.written().len();
                    if written < POINTER_RANGE {
                        self.moved.entry(here).or_insert(written);
                    }
                    let next = here + 1 + usize::from(byte);
                    writer.put(self.message.get(here..next)?)?;
                    here = next;
                }
            }
        }
    }
}
