//! Parses messages without the engine: by their own lengths, by hickory-proto, and by NLnet Labs'
//! domain. These share no code with the engine or with each other.

use std::fmt;
use std::net::IpAddr;

use domain::base::iana::Rtype;
use domain::base::name::ToName;
use domain::base::opt::AllOptData;
use domain::base::{Message, ParsedName, UnknownRecordData};
use domain::rdata::AllRecordData;
use domain::rdata::svcb::{
    SvcParams,
    value::{Ipv4Hint, Ipv6Hint},
};
use hickory_proto::rr::RData;

/// Answer, authority and additional section, without the OPT record.
pub type Sections = [Vec<Record>; 3];

/// A record as domain presents it, in lower case: decompressed names may have another case.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub owner: Vec<u8>,
    pub class: u16,
    pub ttl: u32,
    pub rtype: u16,
    pub data: String,
    /// The target of CNAME, DNAME, HTTPS and SVCB, in wire format.
    pub target: Option<Vec<u8>>,
    /// The addresses of A and AAAA, and the hints of HTTPS and SVCB.
    pub addresses: Vec<IpAddr>,
    /// Whether its data may have a compression pointer where none is allowed.
    pub may_point: bool,
}

/// Types whose names may not be compressed (RFC 3597 4), although a library may accept that:
/// IPSECKEY, RRSIG, NSEC, SVCB, HTTPS, TSIG, ANAME. The engine copies such data unchanged, so that a
/// pointer in it then points elsewhere.
const UNCOMPRESSED: [u16; 7] = [45, 46, 47, 64, 65, 250, 65305];

/// A message that a client must be able to parse.
pub struct Response<'a> {
    pub bytes: &'a [u8],
    pub hickory: hickory_proto::op::Message,
    pub sections: Sections,
    /// The INFO-CODEs of its extended errors.
    pub errors: Vec<u16>,
}

impl<'a> Response<'a> {
    /// Panics if one of the three parsers rejects the message.
    pub fn read(bytes: &'a [u8]) -> Response<'a> {
        assert!(is_well_formed(bytes), "by its own lengths: {bytes:02x?}");
        let hickory = hickory(bytes).unwrap_or_else(|error| panic!("hickory: {error} in {bytes:02x?}"));
        let (sections, errors) =
            domain(bytes).unwrap_or_else(|error| panic!("domain: {error} in {bytes:02x?}"));
        Response { bytes, hickory, sections, errors }
    }

    pub fn rcode(&self) -> u16 {
        self.hickory.metadata.response_code.into()
    }

    pub fn is_truncated(&self) -> bool {
        self.hickory.metadata.truncation
    }
}

/// Whether the record lengths add up to the length of the message.
pub fn is_well_formed(message: &[u8]) -> bool {
    end(message) == Some(message.len())
}

fn end(message: &[u8]) -> Option<usize> {
    let mut at = 12;
    for _ in 0..word(message, 4)? {
        at = name_end(message, at)? + 4;
    }
    for _ in 0..[6, 8, 10].into_iter().map(|count| word(message, count)).sum::<Option<usize>>()? {
        let fixed = name_end(message, at)?;
        at = fixed + 10 + word(message, fixed + 8)?;
    }
    Some(at)
}

fn name_end(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            label @ 1..=63 => at += 1 + usize::from(label),
            // A pointer into the header does not point to a name.
            0xc0.. => return (word(message, at)? & 0x3fff >= 12).then_some(at + 2),
            _ => return None,
        }
    }
}

pub fn word(message: &[u8], at: usize) -> Option<usize> {
    let pair = message.get(at..at + 2)?;
    Some(usize::from(pair[0]) << 8 | usize::from(pair[1]))
}

/// The bytes of the question. `None` unless there is exactly one.
pub fn question(message: &[u8]) -> Option<&[u8]> {
    if word(message, 4)? != 1 {
        return None;
    }
    message.get(12..name_end(message, 12)? + 4)
}

/// Types whose names may be compressed (RFC 3597 4), and are decompressed if the record moves. A
/// library that does not know the type then sees different bytes.
fn may_be_decompressed(rtype: u16) -> bool {
    matches!(rtype, 2..=9 | 12 | 14 | 15 | 17 | 18 | 21 | 26 | 33 | 36 | 39)
}

/// Owner, type, class, TTL and data, as far as the engine may not change them.
pub fn constant(records: &[hickory_proto::rr::Record]) -> Vec<impl PartialEq + fmt::Debug> {
    let data = |record: &hickory_proto::rr::Record| match &record.data {
        RData::Unknown { code, .. } if may_be_decompressed((*code).into()) => None,
        known => Some(known.clone()),
    };
    let constant =
        |r: &hickory_proto::rr::Record| (r.name.clone(), r.record_type(), r.dns_class, r.ttl, data(r));
    records.iter().map(constant).collect()
}

pub fn hickory(message: &[u8]) -> Result<hickory_proto::op::Message, String> {
    hickory_proto::op::Message::from_vec(message).map_err(|error| error.to_string())
}

/// Parses everything: the data of each record, and each EDNS option.
pub fn domain(message: &[u8]) -> Result<(Sections, Vec<u16>), String> {
    let text = |error: domain::base::wire::ParseError| error.to_string();
    let message = Message::from_slice(message).map_err(|error| error.to_string())?;
    for question in message.question() {
        question.map_err(text)?;
    }
    let mut sections = Sections::default();
    let parts = [message.answer(), message.authority(), message.additional()];
    for (section, part) in sections.iter_mut().zip(parts) {
        for record in part.map_err(text)? {
            let record = record.map_err(text)?;
            if record.rtype() == Rtype::OPT {
                continue;
            }
            let rtype = record.rtype().to_int();
            let raw = record.to_record::<UnknownRecordData<_>>().map_err(text)?;
            let points = |raw: &[u8]| raw.iter().any(|&byte| byte >= 0xc0);
            let may_point = UNCOMPRESSED.contains(&rtype) && raw.is_some_and(|raw| points(raw.data().data()));
            let record = record.to_any_record::<AllRecordData<_, ParsedName<_>>>().map_err(text)?;
            let target = match record.data() {
                AllRecordData::Cname(data) => Some(wire(data.cname())),
                AllRecordData::Dname(data) => Some(wire(data.dname())),
                AllRecordData::Https(data) => Some(wire(data.target())),
                AllRecordData::Svcb(data) => Some(wire(data.target())),
                _ => None,
            };
            let addresses = match record.data() {
                AllRecordData::A(data) => vec![IpAddr::V4(data.addr())],
                AllRecordData::Aaaa(data) => vec![IpAddr::V6(data.addr())],
                AllRecordData::Https(data) => hints(data.params()),
                AllRecordData::Svcb(data) => hints(data.params()),
                _ => Vec::new(),
            };
            let is_known = !matches!(record.data(), AllRecordData::Unknown(_));
            let data = (is_known || !may_be_decompressed(rtype)).then(|| record.data().to_string());
            section.push(Record {
                addresses,
                owner: wire(record.owner()),
                class: record.class().to_int(),
                ttl: record.ttl().as_secs(),
                rtype,
                data: data.unwrap_or_default().to_ascii_lowercase(),
                target,
                may_point,
            });
        }
    }
    let mut errors = Vec::new();
    if let Some(opt) = message.opt() {
        for option in opt.opt().iter::<AllOptData<_, _>>() {
            if let AllOptData::ExtendedError(error) = option.map_err(text)? {
                errors.push(error.code().to_int());
            }
        }
    }
    Ok((sections, errors))
}

/// The address hints in SvcParams (RFC 9460 7.3).
fn hints(params: &SvcParams<&[u8]>) -> Vec<IpAddr> {
    let ipv4 = params.first::<Ipv4Hint<_>>();
    let ipv6 = params.first::<Ipv6Hint<_>>();
    let ipv4 = ipv4.iter().flat_map(|hint| hint.iter().map(IpAddr::V4));
    ipv4.chain(ipv6.iter().flat_map(|hint| hint.iter().map(IpAddr::V6))).collect()
}

fn wire(name: impl ToName) -> Vec<u8> {
    name.to_vec().as_slice().to_ascii_lowercase()
}

/// The labels of a name in wire format, without the root.
pub fn labels(mut wire: &[u8]) -> Vec<Vec<u8>> {
    let mut labels = Vec::new();
    while let Some((&length @ 1..=63, rest)) = wire.split_first() {
        let (label, rest) = rest.split_at(usize::from(length));
        labels.push(label.to_ascii_lowercase());
        wire = rest;
    }
    labels
}
