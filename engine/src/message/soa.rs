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

/// RFC 2308 3: an SOA in the authority section, so that the denial is cached,
/// for as long as the block is; its owner is the entry that matched.
pub fn put_soa(writer: &mut Writer<'_>, owner: usize, ttl: u32, serial: u32, soa: &Soa) -> Option<()> {
    const REFRESH_RETRY_EXPIRE: [u32; 3] = [3600, 600, 86400];
    let [refresh, retry, expire] = REFRESH_RETRY_EXPIRE;
    let mut numbers = [0; 20];
    for (place, number) in [serial, refresh, retry, expire, ttl].into_iter().enumerate() {
        numbers[place * 4..place * 4 + 4].copy_from_slice(&number.to_be_bytes());
    }
    let Soa(mname, rname) = soa;
    writer.put_record(
        Section::Authority,
        owner,
        rtype::SOA,
        ttl,
        &[mname.suffix(0), rname.suffix(0), &numbers],
    )
}
