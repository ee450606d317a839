//! Prefixes as triggers of an RPZ zone.

use std::io::{self, Write};

use super::Output;
use super::data::data_of;
use crate::name::MAX_NAME;
use crate::policy::{PrefixTable, Rule};
use crate::prefix::Prefix;

/// The prefixes of zones of addresses, as triggers. In one policy zone the longest prefix decides, so those
/// within a prefix of an earlier zone are left out.
pub fn write_prefixes<W: Write>(output: &mut Output<'_, W>, origin: usize) -> io::Result<()> {
    let snapshot = output.snapshot;
    for (place, placed) in snapshot.zones().iter().enumerate() {
        let before = &snapshot.zones()[..place];
        let rules = placed.zone.rules().all();
        for (prefix, rule) in placed.zone.prefix_table().iter() {
            if !before.iter().any(|earlier| earlier.zone.prefixes().include(prefix)) {
                write_trigger(output, origin, (prefix, "rpz-ip"), &rules[rule as usize])?;
            }
        }
        for (prefix, rule) in placed.zone.client_prefixes().into_iter().flat_map(PrefixTable::iter) {
            match place {
                0 => write_trigger(output, origin, (prefix, "rpz-client-ip"), &rules[rule as usize])?,
                // In one policy zone, it would decide before the names of earlier zones.
                _ => output.leave_out("client address, not in the first zone", prefix)?,
            }
        }
    }
    Ok(())
}

fn write_trigger<W: Write>(
    output: &mut Output<'_, W>,
    origin: usize,
    (prefix, kind): (&Prefix, &str),
    rule: &Rule,
) -> io::Result<()> {
    let Rule::Answer { answer, .. } = rule else { return Ok(()) };
    let owner = format!("{}.{kind}", prefix.rpz_owner());
    if owner.len() + 1 + origin > MAX_NAME {
        return output.leave_out("too long below the name of the zone", prefix);
    }
    output.counts.entries += 1;
    for record in data_of(answer, true).iter() {
        output.counts.records += 1;
        writeln!(output.out, "{owner} {record}")?;
    }
    Ok(())
}
