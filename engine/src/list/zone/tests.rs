//! Tests of whole zones: what is read, what is refused, and how names are decided.

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
        let zone = PolicyZone::of_records("z", Arc::new(zone.compiled.names), answers).unwrap();
        let (next_change_at, clients) = (None, None);
        PlacedZone {
            zone: Arc::new(zone),
            next_change_at,
            judges_targets: true,
            is_shadow: false,
            clients,
            is_list: false,
        }
    };
    Snapshot::new(zones.into_iter().map(place).collect(), 1)
}

fn decided(snapshot: &Snapshot, name: &str) -> Option<Action> {
    let name = if name == "." { Name::root() } else { Name::from_text(name.as_bytes()).unwrap() };
    snapshot.find(&name, QueryClient::anybody(Transport::Udp)).map(|decision| decision.answer.action)
}

#[test]
fn the_same_target_means_something_else_at_its_own_name() {
    let text =
        "a CNAME b.x.\nb CNAME b.x.\nc CNAME b.x.\nb.rpz-ip CNAME b.\nd CNAME .\ne CNAME .\ne.f CNAME .\n";
    for text in [text.to_string(), text.lines().rev().map(|line| format!("{line}\n")).collect()] {
        let zone = compiled(&format!("{HEAD}$ORIGIN x.rpz.example.\n{text}"));
        let snapshot = snapshot(vec![zone]);
        let decided = ["a", "b", "c", "d", "e", "e.f"].map(|name| decided(&snapshot, &format!("{name}.x")));
        let (cname, nx) = (Some(Action::Cname), Some(Action::Nxdomain));
        assert_eq!(decided, [cname, Some(Action::Passthru), cname, nx, nx, nx]);
    }
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
    assert_eq!(report.lines, report.accepted + report.duplicate + report.rejected + report.not_applicable);
    let snapshot = snapshot(vec![zone]);
    for name in ["good.example", "last.example", "a.example"] {
        assert_eq!(decided(&snapshot, name), Some(Action::Nxdomain), "{name}");
    }
    assert_eq!(decided(&snapshot, "x.co.id"), Some(Action::Passthru), "an exception harms nobody");
}

/// Neither may the text of one record become another one, nor a record get the owner of another one.
#[test]
fn nothing_is_enforced_because_of_a_line_that_cannot_be_read() {
    let long = format!("long.example TXT \"{}\"\n CNAME .", "x".repeat(20_000));
    for (text, open) in [
        ("x.example CH TXT x\n CNAME .", "a.example"),
        ("x.example 1x CNAME .\n CNAME .", "a.example"),
        ("x.example TXT \"x\n CNAME .", "a.example"),
        ("x.example TXT ) x\n CNAME .", "a.example"),
        (&long, "a.example"),
        ("$ORIGIN a b\nb CNAME .", "b"),
        ("$ORIGIN a..b\nb.example CNAME .", "b.example"),
        ("x.example TXT ( first\nb.example CNAME .\n)", "b.example"),
        ("x.example TXT (\nb.example CNAME .\nc.example CNAME .\n)\nd.example CNAME .", "c.example"),
        ("x.example TXT (\nb.example CNAME .\n)\n CNAME .", "a.example"),
        ("$ORIGIN bad\\.x.\n$ORIGIN com\ngoogle CNAME .", "google.com"),
        ("x.example TYPE46 \\# 1 00", "x.example"),
        ("x.example TYPE47 \\# 1 00", "x.example"),
        ("*.example CNAME .\nsub.x.example NS ns.example.", "b.sub.x.example"),
        ("*.example CNAME .\nsub.x.example NS ns.example.", "x.example"),
        ("*.example CNAME .\nsub.x.example NS ns.example.", "c.x.example"),
    ] {
        let zone = compiled_files(&[("zone", &format!("{HEAD}a.example CNAME *.\n{text}\n"))], true);
        let snapshot = snapshot(vec![zone]);
        let expected = (open == "a.example").then_some(Action::Nodata);
        assert_eq!(decided(&snapshot, open), expected, "{text}");
    }
}

/// As BIND writes zones, and as `dig AXFR` prints them.
#[test]
fn names_may_be_relative_to_any_origin() {
    let dumped = "$ORIGIN .\n$TTL 300\nrpz.example IN SOA localhost. root.localhost. (\n\t1 ; serial\n\t2 3 4 5 )\n\
                  \t\tNS localhost.\n$ORIGIN rpz.example.\n$ORIGIN example.rpz.example.\na CNAME .\n*.a CNAME *.\n\
                  $ORIGIN 2.0.192.rpz-ip.rpz.example.\n24.0 CNAME .\n$ORIGIN .\nb.example.rpz.example CNAME .\n";
    let transferred = "rpz.example. 5 IN SOA localhost. root.localhost. 1 2 3 4 5\nrpz.example. 300 IN NS localhost.\n\
                       a.example.rpz.example. 300 IN CNAME .\n*.a.example.rpz.example. 300 IN CNAME *.\n\
                       24.0.2.0.192.rpz-ip.rpz.example. 300 IN CNAME .\nb.example.rpz.example. 300 IN CNAME .\n\
                       rpz.example. 5 IN SOA localhost. root.localhost. 1 2 3 4 5\n";
    let [dumped, transferred] = [dumped, transferred].map(compiled);
    assert_eq!((dumped.report.accepted, dumped.report.rejected), (4, 0), "{:?}", dumped.report.rejected_by);
    assert_eq!(dumped.compiled.names.digest(), transferred.compiled.names.digest());
    let snapshot = snapshot(vec![dumped]);
    for (name, action) in
        [("a.example", Action::Nxdomain), ("x.a.example", Action::Nodata), ("b.example", Action::Nxdomain)]
    {
        assert_eq!(decided(&snapshot, name), Some(action), "{name}");
    }
}

#[test]
fn a_line_that_is_no_record_does_not_name_the_zone() {
    let text = "some words\nrpz.vendor. 30 SOA localhost. root.localhost. 7 1 1 1 1\nrpz.vendor. NS localhost.\n\
                a.example.rpz.vendor. CNAME .\n";
    let zone = compiled(text);
    assert_eq!((zone.report.accepted, zone.report.rejected), (1, 1));
    assert_eq!(decided(&snapshot(vec![zone]), "a.example"), Some(Action::Nxdomain));
}

#[test]
fn an_unclosed_parenthesis_is_reported_for_each_line_and_ends() {
    let lines: String = (0..150).map(|n| format!("n{n}.example CNAME .\n")).collect();
    let zone = compiled(&format!("{HEAD}x.example TXT (\n{lines}"));
    assert_eq!((zone.report.rejected, zone.report.accepted), (100, 50));
    assert_eq!(decided(&snapshot(vec![zone]), "n149.example"), Some(Action::Nxdomain));
}

#[test]
fn a_type_may_be_written_by_number() {
    let text = "a.example TYPE5 \\# 1 00\nb.example A \\# 4 c0000201\nc.example CNAME \\# 1 00\n\
                d.example TYPE1 \\# 4 c0000201\n";
    let snapshot = snapshot(vec![compiled(&format!("{HEAD}{text}"))]);
    for (name, action) in
        [("a", Action::Nxdomain), ("b", Action::Data), ("c", Action::Nxdomain), ("d", Action::Data)]
    {
        assert_eq!(decided(&snapshot, &format!("{name}.example")), Some(action), "{name}");
    }
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
    let names: Vec<_> = files.iter().map(|file| file.path.file_name().unwrap().to_str().unwrap()).collect();
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
    for path in ["/etc/hostname", "../other", "missing", ".", "", "a b c"] {
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
    let one = digest("a.example CNAME .\nb.example A 192.0.2.1\nb.example A 192.0.2.2\nc.example CNAME *.\n");
    assert_eq!(
        one,
        digest("c.example CNAME *.\nb.example A 192.0.2.2\nB.example A 192.0.2.1\na.example CNAME .\n")
    );
    assert_ne!(one, digest("a.example CNAME .\nb.example A 192.0.2.1\nc.example CNAME *.\n"));
}

#[test]
fn a_difference_is_of_answers_not_of_their_numbers() {
    let before = Arc::new(
        compiled(&format!("{HEAD}a.example CNAME .\nb.example CNAME *.\nc.example CNAME rpz-passthru.\n"))
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
    let zone = compile(&files, &settings, Destination::Memory, Some(before), &Progress::default()).unwrap();
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
