//! The answers that the records of a policy zone give (RPZ, draft-vixie-dnsop-dns-rpz-00 section 3).
//!
//! A million names usually share a few answers, so a compiled zone has a table of the distinct ones.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use sha2::{Digest, Sha256};

use super::Scope;
use super::cursor::Cursor;
use crate::message::rtype;

/// Records of one owner, and bytes of their data. More would not fit into a response over TCP.
const MOST_RECORDS: usize = 100;
pub const MOST_BYTES: usize = 60_000;
/// Bytes of a record without its data and owner.
const RECORD: usize = 12;

/// Bytes of an answer that the history of a zone shows.
const SHOWN: usize = 160;

/// The meaning of the records of one owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    pub action: GivenAction,
    /// In seconds, of the CNAME. Records of data have their own.
    pub ttl: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GivenAction {
    Nxdomain,
    Nodata,
    Passthru,
    Drop,
    TcpOnly,
    /// A CNAME to this name, as text. With `*.` before it, QNAME is prepended.
    Cname(Box<str>),
    /// Sorted, without duplicates. Records of one type have one TTL.
    Data(Vec<DataRecord>),
}

/// A record of local data.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DataRecord {
    pub rtype: u16,
    pub rdata: Box<[u8]>,
    /// In seconds.
    pub ttl: u32,
}

impl DataRecord {
    /// The record without its owner: addresses as usual, other types as RFC 3597 section 5 has it.
    pub fn text(&self) -> String {
        let DataRecord { rtype, ttl, rdata } = self;
        if let (rtype::A, Ok(address)) = (*rtype, <[u8; 4]>::try_from(&**rdata)) {
            return format!("{ttl} A {}", Ipv4Addr::from(address));
        }
        if let (rtype::AAAA, Ok(address)) = (*rtype, <[u8; 16]>::try_from(&**rdata)) {
            return format!("{ttl} AAAA {}", Ipv6Addr::from(address));
        }
        let digits: String = rdata.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{ttl} TYPE{rtype} \\# {} {digits}", rdata.len())
    }
}

impl Given {
    /// The records without their owner, in one line. A long answer is shortened and has its digest, so that
    /// different answers have different texts.
    pub fn text(&self) -> String {
        let cname = |target: &str| format!("{} CNAME {target}", self.ttl);
        let mut text = match &self.action {
            GivenAction::Nxdomain => cname("."),
            GivenAction::Nodata => cname("*."),
            GivenAction::Passthru => cname("rpz-passthru."),
            GivenAction::Drop => cname("rpz-drop."),
            GivenAction::TcpOnly => cname("rpz-tcp-only."),
            GivenAction::Cname(target) => cname(&format!("{target}.")),
            GivenAction::Data(records) => {
                let mut text = String::new();
                for record in records {
                    let separator = if text.is_empty() { "" } else { "; " };
                    text.push_str(separator);
                    text.push_str(&record.text());
                    if text.len() > SHOWN {
                        break;
                    }
                }
                text
            }
        };
        if text.len() > SHOWN {
            text.truncate((0..=SHOWN).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0));
            let digits: String =
                Sha256::digest(self.to_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            text.push_str(&format!("... (sha256:{digits})"));
        }
        text
    }

    pub fn is_passthru(&self) -> bool {
        self.action == GivenAction::Passthru
    }

    /// The answer of one more record at the same owner; `None` if a zone cannot have both (RFC 1034
    /// 3.6.2). The smaller TTL wins (RFC 2181 5.2).
    pub fn with(&self, other: &Given) -> Option<Given> {
        let ttl = self.ttl.min(other.ttl);
        match (&self.action, &other.action) {
            (GivenAction::Data(own), GivenAction::Data(others)) => {
                let records = joined(own, others);
                let bytes: usize = records.iter().map(|record| RECORD + record.rdata.len()).sum();
                let is_possible = records.len() <= MOST_RECORDS && bytes <= MOST_BYTES;
                is_possible.then_some(Given { action: GivenAction::Data(records), ttl })
            }
            (own, others) => (own == others).then(|| Given { action: own.clone(), ttl }),
        }
    }

    /// The stored form: a byte for the action, the TTL, then what belongs to the action.
    fn to_bytes(&self) -> Vec<u8> {
        let code = match &self.action {
            GivenAction::Nxdomain => 0,
            GivenAction::Nodata => 1,
            GivenAction::Passthru => 2,
            GivenAction::Drop => 3,
            GivenAction::TcpOnly => 4,
            GivenAction::Cname(_) => 5,
            GivenAction::Data(_) => 6,
        };
        let mut bytes = vec![code];
        bytes.extend(self.ttl.to_le_bytes());
        match &self.action {
            GivenAction::Cname(target) => put_counted(&mut bytes, target.as_bytes()),
            GivenAction::Data(records) => {
                bytes.extend((records.len() as u32).to_le_bytes());
                for record in records {
                    bytes.extend(record.rtype.to_le_bytes());
                    bytes.extend(record.ttl.to_le_bytes());
                    put_counted(&mut bytes, &record.rdata);
                }
            }
            _ => {}
        }
        bytes
    }

    fn read(left: &mut Cursor<'_>) -> Option<Given> {
        let (code, ttl) = (left.u8()?, left.u32()?);
        let action = match code {
            0 => GivenAction::Nxdomain,
            1 => GivenAction::Nodata,
            2 => GivenAction::Passthru,
            3 => GivenAction::Drop,
            4 => GivenAction::TcpOnly,
            5 => GivenAction::Cname(std::str::from_utf8(left.counted()?).ok()?.into()),
            6 => {
                let count = left.u32()?;
                let record = |_| {
                    let (rtype, ttl) = (left.u16()?, left.u32()?);
                    Some(DataRecord { rtype, ttl, rdata: left.counted()?.into() })
                };
                GivenAction::Data((0..count).map(record).collect::<Option<Vec<DataRecord>>>()?)
            }
            _ => return None,
        };
        Some(Given { action, ttl })
    }
}

pub fn put_counted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
}

/// The records of both, in order.
fn joined(own: &[DataRecord], others: &[DataRecord]) -> Vec<DataRecord> {
    let mut records: Vec<DataRecord> = own.iter().chain(others).cloned().collect();
    let mut least: HashMap<u16, u32> = HashMap::new();
    for record in &records {
        let ttl = least.entry(record.rtype).or_insert(record.ttl);
        *ttl = record.ttl.min(*ttl);
    }
    records.iter_mut().for_each(|record| record.ttl = least[&record.rtype]);
    records.sort();
    records.dedup();
    // A name has one SOA record (RFC 2181 6.1): the first one stays.
    records.dedup_by(|next, previous| next.rtype == rtype::SOA && previous.rtype == rtype::SOA);
    records
}

/// Distinct answers, by number.
#[derive(Default)]
pub struct GivenTable {
    all: Vec<Given>,
    digests: Vec<[u8; 16]>,
    places: HashMap<Vec<u8>, u32>,
}

impl GivenTable {
    /// The number of an answer.
    pub fn place(&mut self, given: Given) -> u32 {
        let bytes = given.to_bytes();
        if let Some(place) = self.places.get(&bytes) {
            return *place;
        }
        let place = self.all.len() as u32;
        let whole: [u8; 32] = Sha256::digest(&bytes).into();
        self.digests.push(*whole.first_chunk().expect("16 of 32 bytes"));
        self.places.insert(bytes, place);
        self.all.push(given);
        place
    }

    /// Only the answers that these scopes have, with other numbers. Those of single records of an owner with
    /// several are not needed any more.
    pub fn used_by(&self, scopes: &mut [Scope]) -> GivenTable {
        let mut used = GivenTable::default();
        for scope in scopes {
            for (_, rule) in [&mut scope.at, &mut scope.under].into_iter().flatten() {
                *rule = used.place(self.all[*rule as usize].clone());
            }
        }
        used
    }

    pub fn all(&self) -> &[Given] {
        &self.all
    }

    /// A digest of each answer, which does not depend on its number.
    pub fn digests(&self) -> &[[u8; 16]] {
        &self.digests
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = (self.all.len() as u32).to_le_bytes().to_vec();
        self.all.iter().for_each(|given| bytes.extend(given.to_bytes()));
        bytes
    }

    pub fn read(left: &mut Cursor<'_>) -> Option<GivenTable> {
        let mut table = GivenTable::default();
        for place in 0..left.u32()? {
            if table.place(Given::read(left)?) != place {
                return None;
            }
        }
        Some(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8, ttl: u32) -> Given {
        let record = DataRecord { rtype: rtype::A, rdata: [192, 0, 2, last].into(), ttl };
        Given { action: GivenAction::Data(vec![record]), ttl }
    }

    #[test]
    fn records_of_one_owner_are_joined_in_any_order() {
        let [one, two, three] = [(1, 300), (2, 60), (3, 300)].map(|(last, ttl)| address(last, ttl));
        let both = one.with(&two).unwrap();
        assert_eq!(two.with(&one).as_ref(), Some(&both));
        assert_eq!(both.with(&one).as_ref(), Some(&both));
        let all = both.with(&three).unwrap();
        assert_eq!(three.with(&both).as_ref(), Some(&all));
        let GivenAction::Data(records) = &all.action else { panic!("data") };
        assert_eq!(records.len(), 3);
        assert!(records.iter().all(|record| record.ttl == 60), "one TTL per type");
        let many = (1..=101).try_fold(address(0, 1), |held, last| held.with(&address(last, 1)));
        assert_eq!(many, None, "more than fit into a response");
    }

    #[test]
    fn different_answers_have_different_texts_of_bounded_length() {
        let two = address(1, 60).with(&address(2, 60)).unwrap();
        assert_eq!(two.text(), "60 A 192.0.2.1; 60 A 192.0.2.2");
        let many =
            |last| (1..100).fold(address(last, 60), |held, next| held.with(&address(next, 60)).unwrap());
        let [one, other] = [many(200).text(), many(201).text()];
        assert_eq!(one[..SHOWN], other[..SHOWN]);
        assert_ne!(one, other);
        assert!(one.len() < SHOWN + 40, "{one}");
        let target = "\u{e9}".repeat(SHOWN);
        let unusual = Given { action: GivenAction::Cname(target.into()), ttl: 1 };
        assert!(unusual.text().starts_with("1 CNAME \u{e9}"), "it may not panic");
    }

    #[test]
    fn a_cname_has_no_other_data_beside_it() {
        let [blocked, passed] =
            [GivenAction::Nxdomain, GivenAction::Passthru].map(|action| Given { action, ttl: 30 });
        assert_eq!(blocked.with(&passed), None);
        assert_eq!(address(1, 30).with(&blocked), None);
        let shorter = Given { action: GivenAction::Nxdomain, ttl: 5 };
        assert_eq!(blocked.with(&shorter), Some(shorter));
    }

    #[test]
    fn the_stored_form_is_read_back() {
        let mut table = GivenTable::default();
        let actions = [
            GivenAction::Nxdomain,
            GivenAction::Nodata,
            GivenAction::Passthru,
            GivenAction::Drop,
            GivenAction::TcpOnly,
            GivenAction::Cname("*.garden.example".into()),
        ];
        for action in actions {
            table.place(Given { action, ttl: 7 });
        }
        table.place(address(1, 300));
        let bytes = table.to_bytes();
        let read = GivenTable::read(&mut Cursor(&bytes)).unwrap();
        assert_eq!((read.all(), read.digests()), (table.all(), table.digests()));
        for end in 0..bytes.len() {
            assert!(GivenTable::read(&mut Cursor(&bytes[..end])).is_none());
        }
    }
}
