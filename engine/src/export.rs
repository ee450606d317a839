//! Writes policy zones as a file for other software: an RPZ zone file, a list of names, or a hosts file.
//!
//! The zones are combined to one, whose entries decide as these zones do in their order. So this is no
//! union: an entry that an earlier zone covers is left out, and an exemption is written as the decision of
//! the next zone. Entries that a format cannot express are left out and counted: what the file blocks, these
//! zones block too.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::message::Transport;
use crate::name::{Name, Walk};
use crate::policy::names::SEED;
use crate::policy::zone_data::is_trigger;
use crate::policy::{Decision, PlacedZone, PolicyZone, Snapshot};

mod copy;
pub mod data;
mod levels;
mod names;
mod prefixes;
mod rpz;

use levels::Level;

/// The entries that are named of those that were left out.
const NAMED: u64 = 1000;
/// Names that are kept in memory at most.
const MOST_NAMES: usize = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A response policy zone (draft-vixie-dnsop-dns-rpz-00).
    Rpz,
    /// One name per line. It stands for itself and for all names below.
    Text,
    /// Addresses and names, as in hosts(5). A name stands only for itself.
    Hosts,
}

impl Format {
    pub const ALL: [(Format, &str); 3] =
        [(Format::Rpz, "rpz"), (Format::Text, "text"), (Format::Hosts, "hosts")];

    pub fn from_name(name: &str) -> Option<Format> {
        Format::ALL.iter().find(|(_, known)| *known == name).map(|(format, _)| *format)
    }
}

/// The counts of a file that was written.
#[derive(Debug, Default, PartialEq)]
pub struct Exported {
    /// Names with an entry of their own; for RPZ also prefixes.
    pub entries: u64,
    /// Lines or records of these.
    pub records: u64,
    /// Entries that the format cannot express, by the reason.
    pub left_out: BTreeMap<&'static str, u64>,
}

/// The zones to write, and where. The first entries that are left out become comments.
struct Output<'a, W> {
    snapshot: &'a Snapshot,
    out: W,
    comment: &'static str,
    counts: Exported,
    named: u64,
}

/// Writes the zones of a snapshot. `head` is lines for the top of the file; `origin` the name of an RPZ zone.
///
/// The last line is a comment with the counts: a file without it is incomplete.
pub fn write(
    snapshot: &Snapshot,
    format: Format,
    head: &str,
    origin: &Name,
    out: impl Write,
) -> io::Result<Exported> {
    check_clients(snapshot, format)?;
    let comment = if format == Format::Rpz { ";" } else { "#" };
    let mut output = Output { snapshot, out, comment, counts: Exported::default(), named: 0 };
    output.out.write_all(head.as_bytes())?;
    match format {
        Format::Rpz => write_rpz(&mut output, origin)?,
        Format::Text => names::write_text(&mut output)?,
        Format::Hosts => names::write_hosts(&mut output)?,
    }
    let Exported { entries, records, ref left_out } = output.counts;
    let reasons: Vec<String> =
        left_out.iter().map(|(reason, count)| format!("\"{reason}\":{count}")).collect();
    let reasons = reasons.join(",");
    writeln!(
        output.out,
        "{comment} end: {{\"entries\":{entries},\"records\":{records},\"left_out\":{{{reasons}}}}}"
    )?;
    output.out.flush()?;
    Ok(output.counts)
}

/// Writes a policy zone that gives its answers itself as it is, if it is alone; otherwise all decisions.
fn write_rpz<W: Write>(output: &mut Output<'_, W>, origin: &Name) -> io::Result<()> {
    if let [alone] = output.snapshot.zones()
        && alone.zone.gives_answers()
        && output.snapshot.allowed().is_none()
        && copy::write(output, &alone.zone, origin)?
    {
        return Ok(());
    }
    rpz::write(output, origin)
}

/// Refuses zones in which some clients may see more than others, unless the format has this.
fn check_clients(snapshot: &Snapshot, format: Format) -> io::Result<()> {
    for (place, PlacedZone { zone, clients, .. }) in snapshot.zones().iter().enumerate() {
        if clients.is_some() || zone.opens_for_clients() && (format != Format::Rpz || place > 0) {
            let name = zone.name();
            return Err(io::Error::other(format!(
                "zone {name} opens names for some clients, which this file cannot express: name the other zones"
            )));
        }
    }
    Ok(())
}

impl<W: Write> Output<'_, W> {
    fn leave_out(&mut self, reason: &'static str, entry: impl std::fmt::Display) -> io::Result<()> {
        *self.counts.left_out.entry(reason).or_insert(0) += 1;
        self.named += 1;
        match self.named {
            ..=NAMED => writeln!(self.out, "{} left out ({reason}): {entry}", self.comment),
            _ => Ok(()),
        }
    }
}

/// Calls `take` once with every owner name, zone by zone, those that are allowed first. Stops at the first
/// error.
///
/// In a zone, names are in the order of their hashes, so a change of an entry changes few lines. Names with
/// at most `shorter` bytes of text are left out; none with 0.
fn each_owner(
    snapshot: &Snapshot,
    shorter: usize,
    mut take: impl FnMut(&Owner) -> io::Result<()>,
) -> io::Result<()> {
    let mut result = Ok(());
    let allowed = snapshot.allowed().map(|zone| &**zone);
    let zones: Vec<&PolicyZone> =
        allowed.into_iter().chain(snapshot.zones().iter().map(|placed| &*placed.zone)).collect();
    for (place, zone) in zones.iter().enumerate() {
        let earlier = &zones[..place];
        zone.each(
            |_, _| true,
            |_, text, _| {
                if result.is_err() || text.length() <= shorter {
                    return;
                }
                let Ok(name) = Name::from_text(text.as_bytes()) else { return };
                if zone.is_of_records() && is_trigger(&name) {
                    return;
                }
                let owner = Owner::new(name);
                if earlier.iter().all(|zone| zone.entries_at(&owner.name, &owner.walk, 0).is_none()) {
                    result = take(&owner);
                }
            },
        );
    }
    result
}

/// A name with its hashes.
struct Owner {
    name: Name,
    walk: Walk,
}

impl Owner {
    fn new(name: Name) -> Owner {
        let walk = Walk::new(&name, SEED);
        Owner { name, walk }
    }

    fn levels<'a>(&self, snapshot: &'a Snapshot, over: Transport) -> Vec<Level<'a>> {
        levels::levels(snapshot, &self.name, &self.walk, over)
    }

    /// The name without its first `skip` labels, which are not all of them.
    fn above(&self, skip: usize) -> Name {
        Name::parse(self.name.suffix(skip), 0).expect("a suffix of a name is a name").0
    }
}

/// Whether a decision blocks. Nothing is blocked without one, and by a passthru.
fn blocks(decision: &Option<Decision<'_>>) -> bool {
    decision.as_ref().is_some_and(|decision| !decision.is_passthru())
}

/// Exceptions need memory for the names above them, so their number is limited.
fn check_memory(names: usize) -> io::Result<()> {
    match names > MOST_NAMES {
        true => Err(io::Error::other("too many exceptions below entries for an export")),
        false => Ok(()),
    }
}
