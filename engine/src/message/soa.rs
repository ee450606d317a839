//! The SOA record of our own negative answers. Used by `answer` and `local`.

use super::{Section, Writer, rtype};
use crate::name::Name;

/// MNAME and RNAME.
#[derive(Clone)]
pub struct Soa(pub Name, pub Name);

impl Default for Soa {
    fn default() -> Soa {
        Soa(Name::root(), Name::root())
    }
}

/// Adds an SOA record to the authority section, so that the denial is cached (RFC 2308 3) for as
/// long as a block. Its owner is the entry that matched: the suffix of QNAME at this offset.
pub fn put_soa(writer: &mut Writer<'_>, owner: usize, ttl: u32, serial: u32, soa: &Soa) -> Option<()> {
    let (Soa(mname, rname), numbers) = (soa, numbers(serial, ttl));
    let rdata = [mname.suffix(0), rname.suffix(0), &numbers];
    writer.put_record(Section::Authority, owner, rtype::SOA, ttl, &rdata)
}

/// The same for an owner in wire format.
pub fn put_soa_of(writer: &mut Writer<'_>, owner: &[u8], ttl: u32, serial: u32, soa: &Soa) -> Option<()> {
    let (Soa(mname, rname), numbers) = (soa, numbers(serial, ttl));
    let rdata = [mname.suffix(0), rname.suffix(0), &numbers];
    writer.put_record_of(Section::Authority, owner, rtype::SOA, ttl, &rdata)
}

fn numbers(serial: u32, ttl: u32) -> [u8; 20] {
    const REFRESH_RETRY_EXPIRE: [u32; 3] = [3600, 600, 86400];
    let [refresh, retry, expire] = REFRESH_RETRY_EXPIRE;
    let mut numbers = [0; 20];
    for (index, number) in [serial, refresh, retry, expire, ttl].into_iter().enumerate() {
        numbers[index * 4..index * 4 + 4].copy_from_slice(&number.to_be_bytes());
    }
    numbers
}
