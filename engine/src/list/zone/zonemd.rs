//! Verifies the digest of a zone (ZONEMD, RFC 8976).

use std::io;

use sha2::{Digest, Sha384, Sha512};

use super::master_file::MasterFile;
use super::rdata::Data;
use super::reading::{self, Taken};
use crate::list::Reason;
use crate::list::compile::Progress;
use crate::list::files::{Failure, ListFile};
use crate::message::rtype;
use crate::policy::DataRecord;

const ZONEMD: u16 = 63;
/// Scheme SIMPLE, and its hash algorithms (RFC 8976 section 5).
const SIMPLE: u8 = 1;
const SHA384: u8 = 1;
const SHA512: u8 = 2;
const CLASS_IN: u16 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Absent,
    /// No digest has a scheme and a hash that are known, or is for the serial of the zone.
    Unusable,
    Valid,
    Invalid,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Absent => "absent",
            Verdict::Unusable => "unusable",
            Verdict::Valid => "valid",
            Verdict::Invalid => "invalid",
        }
    }
}

/// Reads the zone again, in full, and compares its digest. It is held in memory, to be sorted.
pub fn verify(files: &[ListFile], master: MasterFile, max_bytes: u64) -> Result<Verdict, Failure> {
    let (mut records, mut digests) = (Vec::new(), Vec::new());
    let mut has_all = true;
    let mut take = |_: reading::Place, _: &[u8], taken: Taken<'_>| -> io::Result<()> {
        match taken {
            Taken::Silent => {}
            // It does not belong to the zone.
            Taken::Rejected(Reason::OutsideZone) => {}
            Taken::Rejected(_) | Taken::Unfinished(_) => has_all = false,
            Taken::Record(record) => {
                let is_apex = record.owner.is_empty();
                let (Data::Soa(_, data) | Data::Dnssec(Some(data)) | Data::Ns(data) | Data::Other(data)) =
                    record.data
                else {
                    has_all = false;
                    return Ok(());
                };
                if is_apex && data.rtype == ZONEMD {
                    digests.push(data.rdata);
                } else if !(is_apex && covers_digest(&data)) {
                    records.push((record.owner.to_vec(), record.ttl, data));
                }
            }
        }
        Ok(())
    };
    let read = reading::read(files, master.complete(), max_bytes, &Progress::default(), &mut take)?;
    let Some(soa) = read.soa else { return Ok(Verdict::Unusable) };
    let usable = digests.iter().filter(|digest| {
        digest.len() > 6
            && digest[..4] == soa.serial.to_be_bytes()
            && digest[4] == SIMPLE
            && matches!(digest[5], SHA384 | SHA512)
    });
    let usable: Vec<_> = usable.collect();
    if usable.is_empty() {
        return Ok(Verdict::Unusable);
    }
    let canonical =
        |(owner, ttl, data): &(Vec<u8>, u32, DataRecord)| canonical(owner, &read.apex, *ttl, data);
    let Some(mut records) = records.iter().map(canonical).collect::<Option<Vec<Sortable>>>() else {
        return Ok(Verdict::Invalid);
    };
    records.sort();
    records.dedup();
    let is_valid = |digest: &[u8]| match digest[5] {
        SHA384 => digest_of::<Sha384>(&records) == digest[6..],
        _ => digest_of::<Sha512>(&records) == digest[6..],
    };
    // RFC 8976 section 4: one digest that matches is enough.
    let is_valid = has_all && usable.into_iter().any(|digest| is_valid(digest));
    Ok(if is_valid { Verdict::Valid } else { Verdict::Invalid })
}

/// A record to be sorted: the labels of its owner from the root, then its type and data, then all of it in
/// wire format.
type Sortable = (Vec<Vec<u8>>, u16, Box<[u8]>, Vec<u8>);

fn digest_of<H: Digest>(records: &[Sortable]) -> Vec<u8> {
    let mut hasher = H::new();
    records.iter().for_each(|(.., wire)| hasher.update(wire));
    hasher.finalize().to_vec()
}

/// An RRSIG for ZONEMD records is left out (RFC 8976 section 3.3.1).
fn covers_digest(data: &DataRecord) -> bool {
    data.rtype == rtype::RRSIG && data.rdata.first_chunk() == Some(&ZONEMD.to_be_bytes())
}

/// `None` if the owner has characters that this does not read.
fn canonical(owner: &[u8], apex: &[u8], ttl: u32, data: &DataRecord) -> Option<Sortable> {
    let text = [owner, apex].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(&b'.');
    let labels: Vec<Vec<u8>> = text
        .split(|&byte| byte == b'.')
        .map(<[u8]>::to_ascii_lowercase)
        .filter(|label| !label.is_empty())
        .collect();
    let mut wire = Vec::new();
    for label in &labels {
        wire.push(u8::try_from(label.len()).ok().filter(|length| *length < 64)?);
        wire.extend(label);
    }
    wire.push(0);
    wire.extend(data.rtype.to_be_bytes());
    wire.extend(CLASS_IN.to_be_bytes());
    wire.extend(ttl.to_be_bytes());
    wire.extend((data.rdata.len() as u16).to_be_bytes());
    wire.extend(&data.rdata);
    let from_root = labels.into_iter().rev().collect();
    Some((from_root, data.rtype, data.rdata.clone(), wire))
}
