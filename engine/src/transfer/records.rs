//! Records of messages, as lines of a zone file.

use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use domain::base::iana::{Class, Rtype};
use domain::base::name::ToName;
use domain::base::rdata::ComposeRecordData;
use domain::base::{ParsedName, ParsedRecord};
use domain::rdata::{A, Aaaa, AllRecordData, Cname, Soa};

use super::Failed;
use crate::name::Name;

pub type Received<'a> = ParsedRecord<'a, Vec<u8>>;

/// The numbers of an SOA record (RFC 1035 3.3.13). Times are in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoaNumbers {
    pub serial: u32,
    pub refresh: u32,
    pub retry: u32,
    pub expire: u32,
}

/// The SOA record of the zone.
#[derive(Clone, Debug)]
pub struct ZoneSoa {
    pub numbers: SoaNumbers,
    pub ttl: u32,
    /// Type and data, as in a zone file.
    pub data: Vec<u8>,
}

/// A record of the zone, as in its zone file.
#[derive(Default)]
pub struct Line {
    /// Relative to the zone, `@` for its own name.
    pub owner: Vec<u8>,
    pub ttl: u32,
    /// Type and data.
    pub data: Vec<u8>,
    wire: Vec<u8>,
}

pub fn malformed<T>(_: T) -> Failed {
    Failed::protocol("a malformed record")
}

/// The name in lower case.
pub fn name_of(name: &impl ToName) -> Result<Name, Failed> {
    let mut wire: Vec<u8> = Vec::with_capacity(64);
    name.compose_canonical(&mut wire).map_err(malformed)?;
    Name::parse(&wire, 0).map(|(name, _)| name).map_err(malformed)
}

/// The SOA record of this zone; `None` for another record.
pub fn soa_of(record: &Received<'_>, zone: &Name) -> Result<Option<ZoneSoa>, Failed> {
    if record.rtype() != Rtype::SOA || record.class() != Class::IN || name_of(&record.owner())? != *zone {
        return Ok(None);
    }
    let Ok(Some(record)) = record.to_record::<Soa<ParsedName<_>>>() else { return Err(malformed(())) };
    let (ttl, soa) = (record.ttl().as_secs(), record.data());
    let numbers = SoaNumbers {
        serial: soa.serial().into_int(),
        refresh: soa.refresh().as_secs(),
        retry: soa.retry().as_secs(),
        expire: soa.expire().as_secs(),
    };
    let mut data = b"SOA ".to_vec();
    for name in [soa.mname(), soa.rname()] {
        put_name(&name_of(name)?, 0, &mut data);
        data.extend_from_slice(b". ");
    }
    let SoaNumbers { serial, refresh, retry, expire } = numbers;
    let minimum = soa.minimum().as_secs();
    let _ = write!(data, "{serial} {refresh} {retry} {expire} {minimum}");
    Ok(Some(ZoneSoa { numbers, ttl, data }))
}

impl Line {
    /// Takes a record of this zone.
    pub fn take(&mut self, record: &Received<'_>, zone: &Name) -> Result<(), Failed> {
        if record.class() != Class::IN {
            return Err(Failed::protocol(format!("a record of class {}", record.class())));
        }
        self.wire.clear();
        record.owner().compose_canonical(&mut self.wire).map_err(malformed)?;
        let (owner, _) = Name::parse(&self.wire, 0).map_err(malformed)?;
        let own = owner.labels().checked_sub(zone.labels());
        let own = own.filter(|own| owner.suffix(*own) == zone.suffix(0)).ok_or_else(|| {
            Failed::new("OUT_OF_ZONE", format!("the record of {owner}, which is not in the zone {zone}"))
        })?;
        self.owner.clear();
        match own {
            0 => self.owner.push(b'@'),
            own => put_name(&owner, owner.labels() - own, &mut self.owner),
        }
        self.ttl = record.ttl().as_secs();
        self.data.clear();
        self.put_data(record)
    }

    /// Common types are written as people write them, others by number (RFC 3597 section 5).
    fn put_data(&mut self, record: &Received<'_>) -> Result<(), Failed> {
        let data = &mut self.data;
        match record.rtype() {
            Rtype::CNAME => {
                let record = record.to_record::<Cname<ParsedName<_>>>().map_err(malformed)?;
                let target = name_of(record.ok_or_else(|| malformed(()))?.data().cname())?;
                data.extend_from_slice(b"CNAME ");
                if target.labels() > 0 {
                    put_name(&target, 0, data);
                }
                data.push(b'.');
            }
            Rtype::A => {
                let record = record.to_record::<A>().map_err(malformed)?.ok_or_else(|| malformed(()))?;
                let _ = write!(data, "A {}", Ipv4Addr::from(record.data().addr().octets()));
            }
            Rtype::AAAA => {
                let record = record.to_record::<Aaaa>().map_err(malformed)?.ok_or_else(|| malformed(()))?;
                let _ = write!(data, "AAAA {}", Ipv6Addr::from(record.data().addr().octets()));
            }
            rtype => {
                let record = record.to_any_record::<AllRecordData<_, ParsedName<_>>>().map_err(malformed)?;
                self.wire.clear();
                record.data().compose_canonical_rdata(&mut self.wire).map_err(malformed)?;
                let _ = write!(data, "TYPE{} \\# {}", rtype.to_int(), self.wire.len());
                if !self.wire.is_empty() {
                    data.push(b' ');
                }
                for byte in &self.wire {
                    let _ = write!(data, "{byte:02x}");
                }
            }
        }
        Ok(())
    }
}

/// Writes a name without its last `without` labels, and without a dot at its end. Bytes with a meaning in
/// zone files are written as `\DDD` (RFC 1035 section 5.1).
fn put_name(name: &Name, without: usize, out: &mut Vec<u8>) {
    let wire = name.suffix(0);
    let end = name.offset(name.labels() - without);
    let mut at = 0;
    while at < end {
        if at > 0 {
            out.push(b'.');
        }
        let next = at + 1 + usize::from(wire[at]);
        for &byte in &wire[at + 1..next] {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'*' => out.push(byte),
                byte => {
                    let _ = write!(out, "\\{byte:03}");
                }
            }
        }
        at = next;
    }
}
