//! A policy zone that is exported alone: its own records, so that a server reads the same zone again.
//!
//! Written as decisions (`rpz.rs`), it would get records for names that its wildcards do not cover, and the
//! TTLs would be those of its answers.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{self, Write};

use super::Output;
use super::data::data_of;
use crate::name::{MAX_NAME, Name};
use crate::policy::zone_data::{CLIENT_IP, RESPONSE_IP};
use crate::policy::{Answer, PolicyZone};
use crate::prefix::Prefix;

/// Bytes of the label `*` in wire format.
const WILDCARD: usize = 2;

/// Writes the records of a zone, triggers of addresses included. Returns false, and writes nothing, if the
/// copy would not decide as the zone does.
pub fn write<W: Write>(output: &mut Output<'_, W>, zone: &PolicyZone, origin: &Name) -> io::Result<bool> {
    if !is_possible(zone, origin) {
        return Ok(false);
    }
    let mut result = Ok(());
    zone.each(
        |_, _| true,
        |_, text, scope| {
            let Ok(name) = std::str::from_utf8(text.as_bytes()) else { return };
            let name = written(name);
            let wildcard = if name.is_empty() { "*".to_string() } else { format!("*.{name}") };
            output.counts.entries += 1;
            for (owner, side) in [(&*name, scope.at), (&wildcard, scope.under)] {
                if let (Ok(()), Some((_, rule))) = (&result, side) {
                    result = put(output, owner, zone.given_answer(rule));
                }
            }
        },
    );
    result.map(|()| true)
}

/// Whether all names fit below `origin`, and names that end a wildcard have records below them. A delegation
/// has none: its NS records are not kept.
fn is_possible(zone: &PolicyZone, origin: &Name) -> bool {
    // The wire format of a name has two bytes more than its text; that of `origin` includes the root.
    let longest = (MAX_NAME - 1).saturating_sub(WILDCARD + origin.suffix(0).len());
    let mut between: HashSet<String> = zone.names_between().map(|name| name.to_string()).collect();
    let mut fits = true;
    zone.each(
        |_, _| true,
        |_, text, _| {
            fits &= text.length() <= longest;
            let mut above = std::str::from_utf8(text.as_bytes()).unwrap_or_default();
            while let Some((_, shorter)) = above.split_once('.').filter(|_| !between.is_empty()) {
                between.remove(shorter);
                above = shorter;
            }
        },
    );
    fits && between.is_empty()
}

/// The owner as RPZ writes it: a zone stores the prefixes of its triggers in another form.
fn written(name: &str) -> Cow<'_, str> {
    let trigger = name.rsplit_once('.').filter(|(_, kind)| [CLIENT_IP, RESPONSE_IP].contains(kind));
    let prefix = trigger.and_then(|(front, kind)| {
        let prefix = Prefix::from_trigger(&format!("{front}.{RESPONSE_IP}"))?;
        Some(format!("{}.{kind}", prefix.rpz_owner()))
    });
    prefix.map_or(Cow::Borrowed(name), Cow::Owned)
}

fn put<W: Write>(output: &mut Output<'_, W>, owner: &str, answer: Option<Answer>) -> io::Result<()> {
    for record in answer.iter().flat_map(|answer| data_of(answer, true).to_vec()) {
        output.counts.records += 1;
        writeln!(output.out, "{owner} {record}")?;
    }
    Ok(())
}
