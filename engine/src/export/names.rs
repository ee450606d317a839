//! Zones as lists of names, for software that knows no actions.
//!
//! All decisions are those over TCP: a TCP-only entry blocks nothing there.

use std::collections::HashSet;
use std::io::{self, Write};
use std::net::IpAddr;

use super::{Output, Owner, check_memory, each_owner};
use crate::message::Transport::{Tcp, Udp};
use crate::policy::{Action, Answer, Decision, Snapshot};

/// Writes each name that is blocked with all names below it.
pub fn write_text<W: Write>(output: &mut Output<'_, W>) -> io::Result<()> {
    let snapshot = output.snapshot;
    let above_exceptions = above_exceptions(snapshot)?;
    each_owner(snapshot, 0, |owner| match blocked(snapshot, owner) {
        (true, true) if above_exceptions.contains(&owner.walk.hash(0)) => {
            output.leave_out("has an exception below", &owner.name)
        }
        (true, true) => {
            output.counts.entries += 1;
            output.counts.records += 1;
            writeln!(output.out, "{}", owner.name)
        }
        (true, false) => output.leave_out("without the names below", &owner.name),
        (false, true) => output.leave_out("only the names below", &owner.name),
        (false, false) => leave_out_others(output, owner),
    })?;
    leave_out_prefixes(output)
}

/// Writes each blocked name with its addresses. Names below it cannot be expressed.
pub fn write_hosts<W: Write>(output: &mut Output<'_, W>) -> io::Result<()> {
    let snapshot = output.snapshot;
    each_owner(snapshot, 0, |owner| {
        let levels = owner.levels(snapshot, Tcp);
        let Some(level) = levels.last() else { return Ok(()) };
        let is_wide = blocks(&level.below);
        let Some(decision) = level.at.as_ref().filter(|_| blocks(&level.at)) else {
            return match is_wide {
                true => output.leave_out("only the names below", &owner.name),
                false => leave_out_others(output, owner),
            };
        };
        output.counts.entries += 1;
        for address in addresses_of(decision.answer) {
            output.counts.records += 1;
            writeln!(output.out, "{address} {}", owner.name)?;
        }
        if is_wide {
            *output.counts.left_out.entry("the names below").or_insert(0) += 1;
        }
        Ok(())
    })?;
    leave_out_prefixes(output)
}

/// Whether a name is blocked, and whether all names below it are that no entry names.
fn blocked(snapshot: &Snapshot, owner: &Owner) -> (bool, bool) {
    let levels = owner.levels(snapshot, Tcp);
    levels.last().map_or((false, false), |level| (blocks(&level.at), blocks(&level.below)))
}

/// Counts an entry that does not block over TCP, but decides something.
fn leave_out_others<W: Write>(output: &mut Output<'_, W>, owner: &Owner) -> io::Result<()> {
    let levels = owner.levels(output.snapshot, Udp);
    let Some(level) = levels.last() else { return Ok(()) };
    let mut decisions = level.at.iter().chain(&level.below).filter(|decision| !decision.is_passthru());
    match (blocks(&level.at) || blocks(&level.below), decisions.next()) {
        (true, _) => output.leave_out("TCP-only", &owner.name),
        (false, Some(_)) => output.leave_out("local data", &owner.name),
        (false, None) => Ok(()),
    }
}

/// Those of a sinkhole; otherwise the unspecified ones, which no connection reaches.
fn addresses_of(answer: &Answer) -> Vec<IpAddr> {
    let ipv4 = answer.ipv4.iter().copied().map(IpAddr::from);
    let own: Vec<IpAddr> = ipv4.chain(answer.ipv6.iter().copied().map(IpAddr::from)).collect();
    match answer.action {
        Action::Sinkhole if !own.is_empty() => own,
        _ => vec![[0; 4].into(), [0; 16].into()],
    }
}

/// The hashes of all names above one that is not blocked, though names above it are.
fn above_exceptions(snapshot: &Snapshot) -> io::Result<HashSet<u64>> {
    let mut found = HashSet::new();
    let mut note = |owner: &Owner| {
        let levels = owner.levels(snapshot, Tcp);
        let Some(level) = levels.last().filter(|level| blocks(&level.inherited)) else { return Ok(()) };
        if !(blocks(&level.at) && blocks(&level.below)) {
            found.extend((1..owner.name.labels()).map(|skip| owner.walk.hash(skip)));
        }
        check_memory(found.len())
    };
    each_owner(snapshot, 0, &mut note)?;
    for name in snapshot.zones().iter().flat_map(|placed| placed.zone.names_between()) {
        note(&Owner::new(name))?;
    }
    Ok(found)
}

/// Whether a name is blocked. Local data, such as another address of a search engine, is no block.
fn blocks(decision: &Option<Decision<'_>>) -> bool {
    decision.as_ref().is_some_and(|decision| {
        let is_data =
            decision.answer.is_given && matches!(decision.answer.action, Action::Cname | Action::Data);
        !decision.is_passthru() && !is_data
    })
}

fn leave_out_prefixes<W: Write>(output: &mut Output<'_, W>) -> io::Result<()> {
    for placed in output.snapshot.zones() {
        for prefix in placed.zone.prefixes().iter() {
            output.leave_out("addresses", prefix)?;
        }
    }
    Ok(())
}
