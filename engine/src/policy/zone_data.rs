//! The part of a compiled policy zone that lists do not have: the answers of its records, its triggers
//! of addresses, and its empty non-terminals.

use std::collections::BTreeSet;

use super::cursor::Cursor;
use super::given::{GivenTable, put_counted};
use crate::name::Name;

/// The last label of a trigger for addresses in responses (draft-vixie-dnsop-dns-rpz-00 section 4.3).
pub const RESPONSE_IP: &str = "rpz-ip";
/// The last label of a trigger for the addresses of clients (section 4.1).
pub const CLIENT_IP: &str = "rpz-client-ip";

#[derive(Default)]
pub struct ZoneData {
    pub given: GivenTable,
    /// The triggers of addresses, as names.
    pub triggers: BTreeSet<String>,
    /// Names below a wildcard without triggers: delegations, and names that have others below them. Such a
    /// name ends the wildcard (RFC 4592 2.2.2, 3.3.1).
    pub between: BTreeSet<String>,
}

impl ZoneData {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.given.to_bytes();
        for names in [&self.triggers, &self.between] {
            bytes.extend((names.len() as u32).to_le_bytes());
            names.iter().for_each(|name| put_counted(&mut bytes, name.as_bytes()));
        }
        bytes
    }

    pub fn read(bytes: &[u8]) -> Option<ZoneData> {
        let mut left = Cursor(bytes);
        let given = GivenTable::read(&mut left)?;
        let mut names = || {
            let text = |left: &mut Cursor<'_>| Some(std::str::from_utf8(left.counted()?).ok()?.to_string());
            (0..left.u32()?).map(|_| text(&mut left)).collect::<Option<BTreeSet<String>>>()
        };
        let (triggers, between) = (names()?, names()?);
        left.0.is_empty().then_some(ZoneData { given, triggers, between })
    }
}

/// Whether the last label of a name marks a trigger that is not a name.
pub fn is_trigger(name: &Name) -> bool {
    let last = name.labels().checked_sub(1).map(|skip| name.suffix(skip));
    last.and_then(|label| label.get(1..)).is_some_and(|label| label.starts_with(b"rpz-"))
}
