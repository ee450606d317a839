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

use master_file::{MasterFile, Record};
use rdata::Data;
pub use rdata::Soa;
use reading::Taken;
pub use reading::find_files;
use trigger::Trigger;
pub use zonemd::Verdict;

use super::compile::{Progress, expected_size};
use super::files::{Failure, ListFile};
use super::formats::addresses;
use super::report::Report;
use super::{Format, NameGuard, Reason, Repairs};
use crate::name::Name;
use crate::policy::compiler::{Compiled, Compiler, Destination, Origin};
use crate::policy::given::{Given, GivenAction};
use crate::policy::names::Names;
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
        super::files::head(file, 0)?;
    }
    let folder = match into {
        Destination::Memory => std::env::temp_dir(),
        Destination::Folder(folder) => Path::to_path_buf(folder),
    };
    let mut report = Report::default();
    let compiler = Compiler::of_records(expected_size(files)?, folder);
    let mut collector = Collector { compiler, settings, naming: vec![0; files.len()], has_zonemd: false };
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
}

impl Collector<'_> {
    /// Takes a record. `None`: it is about the zone. Otherwise, whether it is an exception. The outer error is
    /// one of the disk.
    fn take(
        &mut self,
        record: Record<'_>,
        place: reading::Place,
    ) -> io::Result<Result<Option<bool>, Reason>> {
        let Record { owner, ttl, data } = record;
        let action = match data {
            Data::Soa(..) if !owner.is_empty() => {
                return Ok(Err(Reason::Unsupported("a zone below this one")));
            }
            Data::Dnssec(_) => {
                self.has_zonemd |= owner.is_empty();
                return Ok(Ok(None));
            }
            _ if owner.is_empty() => return Ok(Ok(None)),
            Data::Soa(..) => return Ok(Ok(None)),
            Data::Ns(_) => return Ok(Err(Reason::Unsupported("a delegation below this zone"))),
            Data::Cname(target) => match action(&target, owner) {
                Ok(action) => action,
                Err(reason) => return Ok(Err(reason)),
            },
            Data::Other(mut record) => {
                record.ttl = ttl;
                GivenAction::Data(vec![record])
            }
        };
        let given = Given { action, ttl };
        let is_exception = given.is_passthru();
        let scope = match trigger::parse(owner).and_then(|trigger| self.walk(trigger, is_exception)) {
            Ok(scope) => scope,
            Err(reason) => return Ok(Err(reason)),
        };
        let rule = self.compiler.zone().given.place(given);
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
            Trigger::Client(prefix) => return self.walk_prefix(prefix, zone_data::CLIENT_IP, true),
        };
        let mut name = Name::root();
        if !text.is_empty() {
            name.read_text(text)?;
        }
        let Settings { guard, takes_wide, .. } = self.settings;
        if !is_exception && name.labels() < 2 && !takes_wide {
            return Err(Reason::TopLevel);
        }
        if !is_exception && name.labels() == 0 && guard.protects_any() {
            return Err(Reason::Protected);
        }
        let walk = self.compiler.walk(&name);
        // An exception harms nobody.
        match guard.reason(&name, walk, scope, false).filter(|_| !is_exception && name.labels() > 0) {
            Some(reason) => Err(reason),
            None => Ok(scope),
        }
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
mod tests {
    use super::*;
    use crate::message::{QueryClient, Transport};
    use crate::policy::records::Answers;
    use crate::policy::{Action, PlacedZone, PolicyZone, Snapshot};

    const HEAD: &str = "$TTL 300\n@ SOA localhost. root.localhost. 7 3600 600 86400 60\n@ NS localhost.\n";

    fn guard() -> NameGuard {
        NameGuard::new(
            &[Name::from_text(b"co.id").unwrap()],
            &[],
            &[],
            &[Name::from_text(b"isp.example").unwrap()],
        )
    }

    fn compiled_files(files: &[(&str, &str)], takes_wide: bool) -> CompiledZone {
        let folder = tempfile::tempdir().unwrap();
        let mut listed = Vec::new();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            listed.push(ListFile { label: path.to_str().unwrap().to_string(), path });
        }
        let guard = if takes_wide { NameGuard::new(&[], &[], &[], &[]) } else { guard() };
        let settings = Settings { name: "rpz.example", guard: &guard, takes_wide, max_bytes: u64::MAX };
        compile(&listed, &settings, Destination::Memory, None, &Progress::default()).unwrap()
    }

    fn compiled(text: &str) -> CompiledZone {
        compiled_files(&[("zone", text)], false)
    }

    fn snapshot(zones: Vec<CompiledZone>) -> Snapshot {
        let place = |zone: CompiledZone| {
            let answers = Answers::Given { max_ttl: 60, extended_error: None, structured: None };
            let zone = PolicyZone::of_records("z", Arc::new(zone.compiled.names), &answers).unwrap();
            let (next_change_at, clients) = (None, None);
            PlacedZone {
                zone: Arc::new(zone),
                next_change_at,
                judges_targets: true,
                is_shadow: false,
                clients,
            }
        };
        Snapshot::new(zones.into_iter().map(place).collect(), 1)
    }

    fn decided(snapshot: &Snapshot, name: &str) -> Option<Action> {
        let name = if name == "." { Name::root() } else { Name::from_text(name.as_bytes()).unwrap() };
        snapshot.find(&name, QueryClient::anybody(Transport::Udp)).map(|decision| decision.answer.action)
    }

    #[test]
    fn each_action_is_read() {
        let text = "nx CNAME .\nnodata CNAME *.\npass CNAME rpz-passthru.\nold CNAME old.x.\ndrop CNAME RPZ-DROP.\n\
                    tcp CNAME rpz-tcp-only.\nto CNAME landing.example.\nunder CNAME *.garden.example.\n\
                    data A 192.0.2.1\ndata A 192.0.2.2\ndata TXT \"why\"\n";
        let zone = compiled(&format!("{HEAD}$ORIGIN x.rpz.example.\n{text}"));
        assert_eq!((zone.report.accepted, zone.report.rejected, zone.report.exceptions), (11, 0, 2));
        assert_eq!(zone.soa, Some(Soa { serial: 7, minimum: 60 }));
        let snapshot = snapshot(vec![zone]);
        for (name, action) in [
            ("nx", Action::Nxdomain),
            ("nodata", Action::Nodata),
            ("pass", Action::Passthru),
            ("old", Action::Passthru),
            ("drop", Action::Drop),
            ("tcp", Action::Truncate),
            ("to", Action::Cname),
            ("under", Action::Cname),
            ("data", Action::Data),
        ] {
            assert_eq!(decided(&snapshot, &format!("{name}.x")), Some(action), "{name}");
        }
        let name = Name::from_text(b"data.x").unwrap();
        let decision = snapshot.find(&name, QueryClient::anybody(Transport::Udp)).unwrap();
        assert_eq!(decision.answer.data.len(), 3);
        assert!(decision.answer.data.iter().all(|record| record.ttl == 60), "capped");
    }

    /// RFC 4592, as BIND 9.18 looks up a policy zone.
    #[test]
    fn a_name_that_exists_ends_a_wildcard() {
        let blocked = |names: &str| {
            let records: String = names.split(' ').map(|name| format!("{name} CNAME .\n")).collect();
            snapshot(vec![compiled_files(&[("zone", &format!("{HEAD}{records}"))], true)])
        };
        for (zone, matching, others) in [
            (
                "*.example a.b.example",
                "y.example z.y.example a.b.example",
                "b.example x.b.example x.a.b.example example",
            ),
            ("*.example a.example", "a.example b.example", "x.a.example z.x.a.example example"),
            ("*.example *.a.example", "x.a.example z.x.a.example y.example", "a.example"),
            ("*.example *.b.a.example", "x.b.a.example y.example", "a.example b.a.example c.a.example"),
            ("*", "com example.com a.b.c.d", "."),
            ("* com", "com org x.org", "x.com"),
            ("* *.com", "x.com y.x.com org", "com"),
            ("a.example *.a.example", "a.example x.a.example", "example b.example"),
            ("*.example a.example *.a.example", "a.example x.a.example b.example", "example"),
        ] {
            let snapshot = blocked(zone);
            for name in matching.split(' ') {
                assert_eq!(decided(&snapshot, name), Some(Action::Nxdomain), "{name} in {zone}");
            }
            for name in others.split(' ') {
                assert_eq!(decided(&snapshot, name), None, "{name} in {zone}");
            }
        }
    }

    #[test]
    fn addresses_of_responses_and_clients_have_their_own_answers() {
        let text = "24.0.2.0.192.rpz-ip CNAME .\n32.1.2.0.192.rpz-ip CNAME rpz-passthru.\n\
                    32.7.2.0.192.RPZ-ip CNAME 32.7.2.0.192.\n8.0.0.0.127.rpz-client-ip CNAME *.\n\
                    *.x.example CNAME .\n1.0.0.0.127.rpz-ip.example A 192.0.2.1\n";
        let zone = compiled(&format!("{HEAD}{text}"));
        assert_eq!((zone.report.accepted, zone.report.rejected), (6, 0));
        let snapshot = snapshot(vec![zone]);
        let zone = &snapshot.zones()[0].zone;
        let by_address = |text: &str| {
            let found = zone.find_address(text.parse().unwrap());
            found.map(|(prefix, found)| (prefix.to_string(), found.rule.is(Action::Passthru)))
        };
        assert_eq!(by_address("192.0.2.9"), Some(("192.0.2.0/24".to_string(), false)));
        assert_eq!(by_address("192.0.2.1"), Some(("192.0.2.1/32".to_string(), true)));
        assert_eq!(by_address("192.0.2.7"), Some(("192.0.2.7/32".to_string(), true)));
        assert_eq!(by_address("192.0.3.1"), None);
        assert!(zone.find_client("127.0.0.9".parse().unwrap()).is_some());
        assert!(zone.find_client("192.0.2.1".parse().unwrap()).is_none());
        let client = QueryClient { address: "127.0.0.1".parse().unwrap(), transport: Transport::Udp };
        let name = Name::from_text(b"a.x.example").unwrap();
        assert_eq!(snapshot.find(&name, client).unwrap().answer.action, Action::Nodata);
        assert_eq!(decided(&snapshot, "24.0.2.0.192.rpz-ip"), None, "a trigger is no name");
    }

    #[test]
    fn a_bad_record_costs_itself() {
        let records = [
            "good.example CNAME .",
            "bad..example CNAME .",
            "24.1.2.0.192.rpz-ip CNAME .",
            "co.id CNAME .",
            "*.co.id CNAME rpz-passthru.",
            "isp.example CNAME .",
            "id CNAME .",
            "* CNAME .",
            "ns.x.example.rpz-nsdname CNAME .",
            "x.example CH TXT x",
            "x.example A 192.0.2",
            "good.example A 192.0.2.1",
            "good.example CNAME .",
            "x.example TXT (",
            "last.example CNAME .",
            "out.example. CNAME .",
            "x.example CNAME rpz-drop",
            "\\097.example CNAME .",
            "0.0.0.0.0.rpz-ip CNAME .",
            "$GENERATE 1-2 a$ CNAME .",
            "sub.example NS ns.example.\n",
        ];
        let text = records.join("\n");
        let zone = compiled(&format!("{HEAD}{text}"));
        let report = &zone.report;
        let rejected: Vec<_> = report.rejected_by.iter().map(|(code, count)| (*code, *count)).collect();
        let expected = [
            ("conflict", 1),
            ("empty_label", 1),
            ("host_bits", 1),
            ("not_this_format", 2),
            ("other_class", 1),
            ("outside_zone", 1),
            ("protected", 1),
            ("public_suffix", 1),
            ("too_wide", 1),
            ("top_level", 2),
        ];
        assert_eq!(rejected, expected);
        let other: Vec<_> = report.not_applicable_by.iter().map(|(code, count)| (*code, *count)).collect();
        assert_eq!(other, [("name_server_trigger", 1), ("unsupported", 2)]);
        assert_eq!((report.accepted, report.duplicate), (4, 1));
        assert_eq!(
            report.lines,
            report.accepted + report.duplicate + report.rejected + report.not_applicable
        );
        let snapshot = snapshot(vec![zone]);
        for name in ["good.example", "last.example", "a.example"] {
            assert_eq!(decided(&snapshot, name), Some(Action::Nxdomain), "{name}");
        }
        assert_eq!(decided(&snapshot, "x.co.id"), Some(Action::Passthru), "an exception harms nobody");
    }

    #[test]
    fn a_passthru_wins_against_another_record_of_its_owner() {
        for text in [
            "a.example CNAME .\na.example CNAME rpz-passthru.\n",
            "a.example CNAME rpz-passthru.\na.example A 192.0.2.1\n",
        ] {
            let zone = compiled(&format!("{HEAD}{text}"));
            assert_eq!((zone.report.accepted, zone.report.rejected), (1, 1));
            assert_eq!(zone.report.rejected_lines[0].line, 5);
            assert_eq!(decided(&snapshot(vec![zone]), "a.example"), Some(Action::Passthru));
        }
    }

    fn written(files: &[(&str, &str)]) -> (tempfile::TempDir, ListFile) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let path = folder.path().join(files[0].0);
        (folder, ListFile { label: "zone".to_string(), path })
    }

    #[test]
    fn a_file_may_include_others_of_its_folder() {
        let main = format!(
            "{HEAD}$INCLUDE one.zone sub.rpz.example.\nb.example CNAME .\n$include ./two.zone\nb.example A 192.0.2.1\n"
        );
        let one = "a CNAME .\n\n$INCLUDE two.zone\nbad..name CNAME .";
        let (_folder, file) = written(&[("zone", &main), ("one.zone", one), ("two.zone", "c CNAME *.\n")]);
        let files = find_files(file, u64::MAX).unwrap();
        let names: Vec<_> =
            files.iter().map(|file| file.path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["zone", "one.zone", "two.zone", "two.zone"]);
        // The labels do not matter: stored content has others.
        let files: Vec<ListFile> =
            (0..).zip(files).map(|(n, file)| ListFile { label: format!("{n}"), ..file }).collect();
        let guard = guard();
        let settings = Settings { name: "rpz.example", guard: &guard, takes_wide: true, max_bytes: u64::MAX };
        let zone = compile(&files, &settings, Destination::Memory, None, &Progress::default()).unwrap();
        let places: Vec<_> =
            zone.report.rejected_lines.iter().map(|one| (one.label.as_str(), one.line)).collect();
        assert_eq!(places, [("1", 4), ("0", 7)]);
        let snapshot = snapshot(vec![zone]);
        assert_eq!(decided(&snapshot, "a.sub"), Some(Action::Nxdomain));
        assert_eq!(decided(&snapshot, "c.sub"), Some(Action::Nodata));
        assert_eq!(decided(&snapshot, "c"), Some(Action::Nodata));
        assert_eq!(decided(&snapshot, "b.example"), Some(Action::Nxdomain));
    }

    #[test]
    fn a_file_outside_the_folder_is_not_included() {
        for path in ["/etc/hostname", "../other", "missing", "."] {
            let (_folder, file) = written(&[("zone", &format!("{HEAD}$INCLUDE {path}\n"))]);
            let Err(Failure::Unreadable(refused)) = find_files(file, u64::MAX) else { panic!("{path}") };
            assert!(refused.reason.starts_with("line 4: $INCLUDE"), "{}", refused.reason);
        }
        let (_folder, file) = written(&[("zone", &format!("{HEAD}$INCLUDE zone\n"))]);
        assert!(find_files(file, u64::MAX).is_err(), "it includes itself");
    }

    /// The same entries in another order, under another serial.
    #[test]
    fn the_digest_is_that_of_the_entries() {
        let digest = |text: &str| *compiled(&format!("{HEAD}{text}")).compiled.names.digest();
        let one =
            digest("a.example CNAME .\nb.example A 192.0.2.1\nb.example A 192.0.2.2\nc.example CNAME *.\n");
        assert_eq!(
            one,
            digest("c.example CNAME *.\nb.example A 192.0.2.2\nB.example A 192.0.2.1\na.example CNAME .\n")
        );
        assert_ne!(one, digest("a.example CNAME .\nb.example A 192.0.2.1\nc.example CNAME *.\n"));
    }

    #[test]
    fn a_difference_is_of_answers_not_of_their_numbers() {
        let before = Arc::new(
            compiled(&format!(
                "{HEAD}a.example CNAME .\nb.example CNAME *.\nc.example CNAME rpz-passthru.\n"
            ))
            .compiled
            .names,
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zone");
        std::fs::write(
            &path,
            format!("{HEAD}c.example CNAME .\nb.example CNAME *.\na.example CNAME .\nd.example CNAME .\n"),
        )
        .unwrap();
        let files = [ListFile { label: "zone".to_string(), path }];
        let guard = guard();
        let settings = Settings { name: "rpz", guard: &guard, takes_wide: false, max_bytes: u64::MAX };
        let zone =
            compile(&files, &settings, Destination::Memory, Some(before), &Progress::default()).unwrap();
        let difference = zone.compiled.difference.unwrap();
        assert_eq!((difference.added, difference.changed, difference.removed), (1, 1, 0));
        assert_eq!((difference.gained, difference.lost), (2, 0));
    }

    /// The examples of RFC 8976, appendix A.1 and A.2.
    #[test]
    fn the_digest_of_a_zone_is_verified() {
        let lines = [
            "example. 86400 IN SOA ns1 admin 2018031900 (",
            " 1800 900 604800 86400 )",
            " 86400 IN NS ns1",
            " 86400 IN NS ns2",
            " 86400 IN ZONEMD 2018031900 1 1 (",
            "  c68090d90a7aed71 6bc459f9340e3d7c",
            "  1370d4d24b7e2fc3 a1ddc0b9a87153b9",
            "  a9713b3c9ae5cc27 777f98b8e730044c )",
            "ns1 3600 IN A 203.0.113.63",
            "ns2 3600 IN AAAA 2001:db8::63\n",
        ];
        let simple = lines.join("\n");
        assert_eq!(compiled(&simple).zonemd, Verdict::Valid);
        assert_eq!(compiled(&simple.replace("113.63", "113.64")).zonemd, Verdict::Invalid);
        assert_eq!(
            compiled(&simple.replace("ZONEMD 2018031900 1 1", "ZONEMD 2018031900 1 9")).zonemd,
            Verdict::Unusable
        );
        assert_eq!(
            compiled(&simple.replace("SOA ns1 admin 2018031900", "SOA ns1 admin 2018031901")).zonemd,
            Verdict::Unusable
        );
        assert_eq!(compiled(HEAD).zonemd, Verdict::Absent);
    }
}
