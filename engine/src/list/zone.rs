//! Compiles a policy zone: its triggers, and the answers that their records give (RPZ,
//! draft-vixie-dnsop-dns-rpz-00).
//!
//! A list in RPZ format (`formats/rpz.rs`) has only names. Here, the records also say how they are answered.

mod master_file;
mod rdata;
mod reading;
mod trigger;
mod zonemd;

use std::io;
use std::path::Path;
use std::sync::Arc;

use master_file::{MasterFile, Record, Step};
use rdata::Data;
pub use rdata::Soa;
use reading::Taken;
pub use reading::find_files;
use trigger::Trigger;
pub use zonemd::Verdict;

use super::compile::{HEAD, Progress, expected_size};
use super::files::{Failure, ListFile};
use super::formats::addresses;
use super::report::Report;
use super::{Format, NameGuard, Reason, Repairs};
use crate::name::{Name, Walk};
use crate::policy::amended::RecordChange;
use crate::policy::compiler::{Compiled, Compiler, Destination, Origin};
use crate::policy::given::{Given, GivenAction, MOST_BYTES};
use crate::policy::names::{Names, SEED};
use crate::policy::{Match, zone_data};

/// How a zone is read.
pub struct Settings<'a> {
    /// Its name, for a file that does not say it.
    pub name: &'a str,
    /// Names that no list may block.
    pub guard: &'a NameGuard,
    /// Whether triggers of one label, `*`, and very large networks are enforced.
    pub takes_wide: bool,
    /// Limit for the size of all files together.
    pub max_bytes: u64,
}

/// A compiled zone, the report on its lines, and what it says about itself.
pub struct CompiledZone {
    pub compiled: Compiled,
    pub report: Report,
    pub soa: Option<Soa>,
    pub zonemd: Verdict,
}

/// Compiles a zone from its file, and those that it includes.
///
/// Invalid records are dropped and reported. The caller decides whether the rest is good enough.
pub fn compile(
    files: &[ListFile],
    settings: &Settings<'_>,
    into: Destination<'_>,
    compared_with: Option<Arc<Names>>,
    progress: &Progress,
) -> Result<CompiledZone, Failure> {
    for file in files {
        super::files::head(file, HEAD)?;
    }
    let folder = match into {
        Destination::Memory => std::env::temp_dir(),
        Destination::Folder(folder) => Path::to_path_buf(folder),
    };
    let mut report = Report::default();
    let compiler = Compiler::of_records(expected_size(files)?, folder);
    let mut collector = Collector {
        compiler,
        settings,
        naming: vec![0; files.len()],
        has_zonemd: false,
        last: LastCname::default(),
    };
    let mut last = (usize::MAX, 0);
    let mut take = |place: reading::Place, line: &[u8], taken: Taken<'_>| {
        if (place.file, place.line) != (last.0, last.1 + 1) {
            report.segments.push((place.number, place.file, place.line));
        }
        last = (place.file, place.line);
        let label = &files[place.file].label;
        match taken {
            Taken::Silent => report.silent += 1,
            Taken::Rejected(reason) => report.reject(label, place.line, line, reason),
            Taken::Unfinished(reason) => {
                report.silent -= 1; // it was counted as a part of the record
                report.reject(label, place.line, line, reason);
            }
            Taken::Record(record) => match collector.take(record, place)? {
                Ok(None) => report.silent += 1,
                Ok(Some(is_exception)) => {
                    report.exceptions += u64::from(is_exception);
                    report.accept(label, place.line, line, Repairs::NONE);
                }
                Err(reason) => report.reject(label, place.line, line, reason),
            },
        }
        Ok(())
    };
    let master = || MasterFile::new(settings.name.as_bytes());
    let read = reading::read(files, master(), settings.max_bytes, progress, &mut take)?;
    report.sources = files.iter().map(|file| file.label.clone()).zip(read.files).collect();
    report.formats = collector.naming.iter().map(|naming| (Format::Zone, *naming)).collect();
    let zonemd = match collector.has_zonemd {
        true => zonemd::verify(files, master(), settings.max_bytes)?,
        false => Verdict::Absent,
    };
    let compiled = collector.compiler.finish(&[], into, compared_with)?;
    report.add_compiled(&compiled);
    Ok(CompiledZone { compiled, report, soa: read.soa, zonemd })
}

/// Passes the triggers to the compiler.
struct Collector<'a> {
    compiler: Compiler<'static>,
    settings: &'a Settings<'a>,
    /// For each file, how many of its records are triggers.
    naming: Vec<u64>,
    has_zonemd: bool,
    last: LastCname,
}

/// The last CNAME and its answer. Most records of a zone are alike, and only their owners differ.
#[derive(Default)]
struct LastCname {
    target: Vec<u8>,
    ttl: u32,
    /// The number of the answer, and whether it is an exception.
    rule: Option<(u32, bool)>,
}

impl LastCname {
    /// The rule of the same record at another owner. `None`: it has to be read.
    fn rule_of(&self, record: &Record<'_>) -> Option<(u32, bool)> {
        let Data::Cname(target) = &record.data else { return None };
        let is_same = *target == self.target && record.ttl == self.ttl;
        self.rule.filter(|_| is_same && !record.owner.is_empty() && !may_name(target, record.owner))
    }
}

/// Whether a CNAME may point to its own owner, which is the old form of a passthru.
fn may_name(target: &[u8], owner: &[u8]) -> bool {
    !target.is_empty() && owner.get(..target.len()).is_some_and(|start| start.eq_ignore_ascii_case(target))
}

impl Collector<'_> {
    /// Takes a record. `None`: it is about the zone. Otherwise, whether it is an exception. The outer error is
    /// one of the disk.
    fn take(
        &mut self,
        record: Record<'_>,
        place: reading::Place,
    ) -> io::Result<Result<Option<bool>, Reason>> {
        let owner = record.owner;
        if let Some((rule, is_exception)) = self.last.rule_of(&record) {
            return self.add(owner, rule, is_exception, place);
        }
        let cname = match &record.data {
            Data::Cname(target) if !may_name(target, owner) => Some((target.clone(), record.ttl)),
            _ => None,
        };
        let given = match meaning(record) {
            Ok(Meaning::Zone { is_zonemd }) => {
                self.has_zonemd |= is_zonemd;
                return Ok(Ok(None));
            }
            Ok(Meaning::Delegation) => {
                // It exists, with the names above it, so that these end wildcards.
                if let Ok(name) = Name::from_text(owner) {
                    let name = name.to_string();
                    let above = name.match_indices('.').map(|(dot, _)| name[dot + 1..].to_string());
                    self.compiler.zone().between.extend(above);
                    self.compiler.zone().between.insert(name);
                }
                return Ok(Err(Reason::Unsupported("a delegation below this zone")));
            }
            Ok(Meaning::Answer(given)) => given,
            Err(reason) => return Ok(Err(reason)),
        };
        let is_exception = given.is_passthru();
        let rule = self.compiler.zone().given.place(given);
        if let Some((target, ttl)) = cname {
            self.last = LastCname { target, ttl, rule: Some((rule, is_exception)) };
        }
        self.add(owner, rule, is_exception, place)
    }

    fn add(
        &mut self,
        owner: &[u8],
        rule: u32,
        is_exception: bool,
        place: reading::Place,
    ) -> io::Result<Result<Option<bool>, Reason>> {
        let scope = match trigger::parse(owner).and_then(|trigger| self.walk(trigger, is_exception)) {
            Ok(scope) => scope,
            Err(reason) => return Ok(Err(reason)),
        };
        let origin = Origin { line: place.number, ..Origin::default() };
        self.compiler.add(scope, rule, origin)?;
        self.naming[place.file] += 1;
        Ok(Ok(Some(is_exception)))
    }

    /// Makes a trigger the current name of the compiler, if it may be enforced.
    fn walk(&mut self, trigger: Trigger<'_>, is_exception: bool) -> Result<Match, Reason> {
        let (text, scope) = match &trigger {
            Trigger::Name(name) => (*name, Match::Exact),
            Trigger::Below(name) => (*name, Match::Below),
            Trigger::Response(prefix) => {
                return self.walk_prefix(prefix, zone_data::RESPONSE_IP, is_exception);
            }
            Trigger::Client(prefix) => return self.walk_prefix(prefix, zone_data::CLIENT_IP, is_exception),
        };
        let name = name_of(text)?;
        let walk = self.compiler.walk(&name);
        self.settings.check(&name, walk, scope, is_exception).map(|()| scope)
    }

    fn walk_prefix(
        &mut self,
        prefix: &crate::prefix::Prefix,
        kind: &str,
        takes_wide: bool,
    ) -> Result<Match, Reason> {
        if let Some(reason) = addresses::too_wide(prefix).filter(|_| !takes_wide && !self.settings.takes_wide)
        {
            return Err(reason);
        }
        let text = prefix.trigger_of(kind);
        let name = Name::from_text(text.as_bytes())?;
        let is_new = !self.compiler.zone().triggers.contains(&text);
        self.compiler.walk(&name);
        if is_new {
            self.compiler.zone().triggers.insert(text);
        }
        Ok(Match::Exact)
    }
}

impl Settings<'_> {
    /// Whether a trigger may be enforced. An exception harms nobody.
    fn check(&self, name: &Name, walk: &Walk, scope: Match, is_exception: bool) -> Result<(), Reason> {
        if is_exception {
            return Ok(());
        }
        if name.labels() < 2 && !self.takes_wide {
            return Err(Reason::TopLevel);
        }
        if name.labels() == 0 {
            return if self.guard.protects_any() { Err(Reason::Protected) } else { Ok(()) };
        }
        self.guard.reason(name, walk, scope, false).map_or(Ok(()), Err)
    }
}

/// The name of a trigger; empty for `*`.
fn name_of(text: &[u8]) -> Result<Name, Reason> {
    let mut name = Name::root();
    if !text.is_empty() {
        name.read_text(text)?;
    }
    Ok(name)
}

/// The meaning of a record in a policy zone.
enum Meaning {
    /// It is about the zone.
    Zone {
        is_zonemd: bool,
    },
    Delegation,
    Answer(Given),
}

fn meaning(record: Record<'_>) -> Result<Meaning, Reason> {
    let Record { owner, ttl, data } = record;
    let action = match data {
        Data::Soa(..) if !owner.is_empty() => return Err(Reason::Unsupported("a zone below this one")),
        Data::Dnssec(_) => return Ok(Meaning::Zone { is_zonemd: owner.is_empty() }),
        _ if owner.is_empty() => return Ok(Meaning::Zone { is_zonemd: false }),
        Data::Soa(..) => return Ok(Meaning::Zone { is_zonemd: false }),
        Data::Ns(_) => return Ok(Meaning::Delegation),
        Data::Cname(target) => action(&target, owner)?,
        Data::Other(record) if record.rdata.len() > MOST_BYTES => {
            return Err(Reason::Unsupported("data that fits into no response"));
        }
        Data::Other(mut record) => {
            record.ttl = ttl;
            GivenAction::Data(vec![record])
        }
    };
    Ok(Meaning::Answer(Given { action, ttl }))
}

/// The changes of single records of a zone, as lines of its zone file: whether it is added, and the line.
/// `None`: the zone has to be compiled, since one of them is no trigger of a name, or not a valid one.
pub fn changes<'a>(
    lines: impl Iterator<Item = (bool, &'a [u8])>,
    settings: &Settings<'_>,
) -> Option<Vec<RecordChange>> {
    let mut file = MasterFile::new(settings.name.as_bytes());
    let origin = format!("$ORIGIN {}.", settings.name);
    for line in [origin.as_str(), "@ 0 SOA . . 0 0 0 0 0"] {
        file.take(line.as_bytes()).ok()?;
    }
    let mut changes = Vec::new();
    for (is_added, line) in lines {
        let Ok(Step::Record(record)) = file.take(line) else { return None };
        let owner = record.owner;
        let given = match meaning(record) {
            Ok(Meaning::Zone { is_zonemd: false }) => continue,
            Ok(Meaning::Answer(given)) => given,
            _ => return None,
        };
        let (text, scope) = match trigger::parse(owner) {
            Ok(Trigger::Name(name)) => (name, Match::Exact),
            Ok(Trigger::Below(name)) => (name, Match::Below),
            _ => return None,
        };
        let name = name_of(text).ok()?;
        settings.check(&name, &Walk::new(&name, SEED), scope, given.is_passthru()).ok()?;
        changes.push(RecordChange { name, scope, given, is_added });
    }
    Some(changes)
}

/// The action of a CNAME (section 3 of the draft).
fn action(target: &[u8], owner: &[u8]) -> Result<GivenAction, Reason> {
    let is = |name: &[u8]| target.eq_ignore_ascii_case(name);
    // In the first version of RPZ, a passthru was a CNAME to the name itself, or to the bare address.
    let dot = memchr::memrchr(b'.', owner);
    let bare = dot.map(|dot| (&owner[..dot], &owner[dot + 1..])).filter(|(_, last)| {
        [zone_data::RESPONSE_IP, zone_data::CLIENT_IP]
            .iter()
            .any(|kind| last.eq_ignore_ascii_case(kind.as_bytes()))
    });
    let bare = bare.map_or(owner, |(bare, _)| bare);
    if is(b"") {
        return Ok(GivenAction::Nxdomain);
    } else if is(b"*") {
        return Ok(GivenAction::Nodata);
    } else if is(b"rpz-passthru") || is(bare) && !owner.starts_with(b"*") {
        return Ok(GivenAction::Passthru);
    } else if is(b"rpz-drop") {
        return Ok(GivenAction::Drop);
    } else if is(b"rpz-tcp-only") {
        return Ok(GivenAction::TcpOnly);
    }
    let (wildcard, rest) = match target.strip_prefix(b"*.") {
        Some(rest) => ("*.", rest),
        None => ("", target),
    };
    let name = Name::from_text(rest)?;
    Ok(GivenAction::Cname(format!("{wildcard}{name}").into()))
}

#[cfg(test)]
mod tests;
