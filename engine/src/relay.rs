//! What an upstream sent, made into what the client gets. EDNS is hop by hop
//! (RFC 6891 7): the upstream's OPT is taken off, ours put on.

use std::collections::BTreeMap;

use crate::message::{
    ExtendedError, HEADER, Opt, Query, Record, Section, Writer, flag, is_truncated, rcode, rtype, skip_name,
    u16_at,
};
use crate::name::Name;
use crate::response::{Entry, Layout, Mark, REACH, Response, pointer_at};

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

/// All twelve bits of a message's RCODE; `None` where its records cannot be walked through.
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

/// Writes the client's response into `out`: the upstream's response with the
/// client's id, question and flags, cut with TC where it does not fit. `None`
/// where it cannot be passed on.
pub fn relay(response: Response<'_>, query: &Query, payload: u16, out: &mut [u8]) -> Option<usize> {
    let (head, rcode) = (&query.head, response.rcode());
    let mut writer = begin(query, rcode, flags_of(response), out)?;
    let whole = put_records(&mut writer, response, |entry| Some(entry.section));
    if response.is_truncated() || whole.is_none() {
        writer.truncate(head);
    }
    let (errors, count) = response.errors();
    let length =
        writer.finish(head, &Opt { payload, rcode, flags: response.edns_flags(), errors: &errors[..count] });
    // RFC 7766 5: what is cut off over TCP could be had in no other way.
    (!head.hop.transport.is_tcp() || !is_truncated(out)).then_some(length)
}

/// The flags that a response comes with; AD says that all of it is there.
pub fn flags_of(response: Response<'_>) -> u16 {
    let flags = u16_at(response.message(), 2).unwrap_or(0);
    if response.dropped() > 0 { flags & !flag::AD } else { flags }
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

/// Writes an upstream's message without its OPT; returns its length. `None` where it does not fit.
pub fn strip(response: Response<'_>, out: &mut [u8]) -> Option<usize> {
    let mut writer = Writer::copy(response.message().get(..response.body())?, out)?;
    put_records(&mut writer, response, |entry| Some(entry.section))?;
    Some(writer.written().len())
}

/// Writes a CNAME from the query's name to `target`, followed by what an
/// upstream said about the target. Without a usable answer the CNAME stands
/// alone: a blocked name is answered whether an upstream lives or not.
pub fn follow(
    response: Option<Response<'_>>,
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
    let mut whole = writer.put_record(Section::Answer, 0, rtype::CNAME, ttl, &[target.suffix(0)]);
    if let Some(response) = response.filter(|response| !response.is_failure()) {
        let kept = |entry: &Entry| match (entry.section, entry.rtype()) {
            (Section::Answer, _) => Some(Section::Answer),
            (Section::Authority, rtype::SOA) => Some(Section::Authority),
            _ => None,
        };
        whole = whole.and_then(|()| put_records(&mut writer, response, kept));
    }
    if whole.is_none() && response.is_some() && head.hop.transport.is_tcp() {
        return follow(None, query, target, ttl, opt, out);
    }
    if whole.is_none() {
        writer.truncate(head);
    }
    let (payload, errors) = opt;
    writer.finish(head, &Opt { payload, rcode, flags: 0, errors })
}

/// Puts the records that are not dropped into the sections that `kept` gives them. As long as
/// each is where it was, they are copied as they are; behind that, their pointers are changed.
pub fn put_records(
    writer: &mut Writer<'_>,
    response: Response<'_>,
    kept: impl Fn(&Entry) -> Option<Section>,
) -> Option<()> {
    let (message, start) = (response.message(), writer.written().len());
    let mut end = response.body();
    let mut rest = response.entries();
    while let Some((entry, behind)) = rest.split_first() {
        let is_in_place = entry.owner == end && start == response.body() && !entry.has(Mark::Dropped);
        let Some(section) = kept(entry).filter(|_| is_in_place) else { break };
        writer.count(section, 1);
        (end, rest) = (entry.record.end, behind);
    }
    writer.put(&message[response.body()..end])?;
    let fixed = if start == response.body() { end } else { 0 };
    let mut mover = Mover { message, fixed, moved: BTreeMap::new() };
    for entry in rest.iter().filter(|entry| !entry.has(Mark::Dropped)) {
        if let Some(section) = kept(entry) {
            mover.put_record(writer, entry)?;
            writer.count(section, 1);
        }
    }
    Some(())
}

/// Copies records to another place of another message.
struct Mover<'a> {
    message: &'a [u8],
    /// What stands before stays where it is.
    fixed: usize,
    /// Where names, and the rests of names, that were copied began, and begin now.
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
                let before = at + layout.before(record.rdata(self.message))?;
                writer.put(self.message.get(at..before)?)?;
                at = before;
                for _ in 0..layout.names {
                    self.put_name(writer, at, layout.is_compressible)?;
                    at = skip_name(self.message, at)?;
                }
            }
            writer.put(self.message.get(at..record.end)?)
        })
    }

    /// Copies a name; letters as they came, and compressed as far as it was, and may be.
    fn put_name(&mut self, writer: &mut Writer<'_>, at: usize, may_point: bool) -> Option<()> {
        let mut here = at;
        loop {
            let octet = *self.message.get(here)?;
            let now_at = if here < self.fixed { Some(here) } else { self.moved.get(&here).copied() };
            match (octet, now_at) {
                (0, _) => return writer.put(&[0]),
                (0xc0.., None) => here = pointer_at(self.message, here)?,
                (0xc0.., Some(_)) if !may_point => here = pointer_at(self.message, here)?,
                (_, Some(now_at)) if may_point => {
                    return writer.put(&(0xc000 | u16::try_from(now_at).ok()?).to_be_bytes());
                }
                _ => {
                    let place = writer.written().len();
                    if place < REACH {
                        self.moved.entry(here).or_insert(place);
                    }
                    let next = here + 1 + usize::from(octet);
                    writer.put(self.message.get(here..next)?)?;
                    here = next;
                }
            }
        }
    }
}
