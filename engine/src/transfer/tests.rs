use std::path::Path;

use domain::base::name::Name as WireName;
use domain::rdata::{A, Cname};

use super::*;

/// A record to send: `SOA 5`, or owner and data. Owners are relative to the zone.
enum Sent {
    Soa(u32),
    Name(&'static str),
    Address(&'static str, u8),
}
use Sent::{Address, Name as Blocked, Soa as Start};

fn wire(text: &str) -> WireName<Vec<u8>> {
    text.parse().unwrap()
}

/// The response to a query, one message with all of these records.
fn response(query: &[u8], records: &[Sent]) -> Vec<u8> {
    let query = Message::from_octets(query[2..].to_vec()).unwrap();
    let mut answer = MessageBuilder::new_vec().start_answer(&query, Rcode::NOERROR).unwrap();
    let ttl = Ttl::from_secs(300);
    for record in records {
        match record {
            Start(serial) => {
                let time = Ttl::from_secs(60);
                let soa = Soa::new(wire("ns"), wire("admin"), Serial(*serial), time, time, time, time);
                answer.push((wire("rpz.example"), ttl, soa)).unwrap();
            }
            Blocked(name) => {
                let owner = wire(&format!("{name}.rpz.example"));
                answer.push((owner, ttl, Cname::new(WireName::root_vec()))).unwrap();
            }
            Address(name, byte) => {
                let owner = wire(&format!("{name}.rpz.example"));
                answer.push((owner, ttl, A::new([192, 0, 2, *byte].into()))).unwrap();
            }
        }
    }
    let message = answer.finish();
    [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat()
}

fn settings(folder: &Path, has_copy: bool) -> Settings {
    Settings {
        zone: Name::from_text(b"rpz.example").unwrap(),
        key: None,
        copy: has_copy.then(|| folder.join("copy")),
        into: folder.join("new"),
        max_records: 10,
        max_bytes: 10_000,
    }
}

/// Transfers in one message, and moves the new copy into place.
fn transfer(folder: &Path, wanted: Wanted, records: &[Sent]) -> Result<Kind, Failed> {
    let mut transfer = Transfer::new(settings(folder, wanted == Wanted::Changes));
    let query = transfer.query(wanted, None)?;
    // Byte by byte: messages arrive in pieces of any size.
    let response = response(&query, records);
    let mut is_complete = false;
    for byte in &response {
        is_complete = transfer.take(&[*byte])?;
    }
    if !is_complete {
        return Err(Failed::new("TRUNCATED", ""));
    }
    let kind = transfer.finish()?;
    if kind != Kind::Nothing {
        std::fs::rename(folder.join("new"), folder.join("copy")).unwrap();
    }
    Ok(kind)
}

/// The lines of the copy after the SOA record.
fn lines(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("copy")).unwrap();
    text.lines().skip(3).map(str::to_string).collect()
}

fn copy_of(records: &[Sent]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(transfer(folder.path(), Wanted::Whole, records).unwrap(), Kind::Whole);
    folder
}

#[test]
fn a_whole_zone_becomes_a_zone_file() {
    let folder =
        copy_of(&[Start(7), Blocked("A.example"), Address("*.b", 1), Blocked("a.example"), Start(7)]);
    let expected = ["a.example 300 CNAME .", "*.b 300 A 192.0.2.1", "a.example 300 CNAME ."];
    assert_eq!(lines(folder.path()), expected);
    let zone = Name::from_text(b"rpz.example").unwrap();
    assert_eq!(serial_of(&folder.path().join("copy"), &zone), Some(7));
    assert_eq!(serial_of(&folder.path().join("copy"), &Name::from_text(b"example").unwrap()), None);
}

#[test]
fn only_the_last_difference_about_a_record_counts() {
    let folder = copy_of(&[Start(1), Blocked("stays"), Blocked("goes"), Blocked("returns"), Start(1)]);
    let differences = [
        Start(3),
        // Serial 1 to 2.
        Start(1),
        Blocked("goes"),
        Blocked("returns"),
        Start(2),
        Blocked("short"),
        Address("new", 1),
        // Serial 2 to 3.
        Start(2),
        Blocked("short"),
        Start(3),
        Blocked("returns"),
        Start(3),
    ];
    assert_eq!(transfer(folder.path(), Wanted::Changes, &differences).unwrap(), Kind::Incremental);
    assert_eq!(lines(folder.path()), ["stays 300 CNAME .", "new 300 A 192.0.2.1", "returns 300 CNAME ."]);
}

#[test]
fn a_difference_that_does_not_fit_changes_nothing() {
    let folder = copy_of(&[Start(1), Blocked("a"), Start(1)]);
    let cases: [(&str, &[Sent]); 9] = [
        ("MISMATCH", &[Start(2), Start(1), Blocked("b"), Start(2), Start(2)]),
        ("MISMATCH", &[Start(2), Start(1), Start(2), Blocked("a"), Start(2)]),
        ("PROTOCOL", &[Start(3), Start(2), Start(3), Start(3)]),
        ("PROTOCOL", &[Start(3), Start(1), Start(5), Start(5), Start(3), Start(3)]),
        ("PROTOCOL", &[Start(3), Start(1), Start(2), Start(1), Start(3), Start(3)]),
        ("PROTOCOL", &[Start(2), Start(1), Start(2), Start(2), Blocked("b")]),
        ("PROTOCOL", &[Start(2), Start(2)]),
        ("SERIAL", &[Start(0), Start(1), Start(0), Start(0)]),
        ("TRUNCATED", &[Start(2), Start(1), Start(2)]),
    ];
    for (code, records) in cases {
        assert_eq!(transfer(folder.path(), Wanted::Changes, records).unwrap_err().code, code);
        assert_eq!(lines(folder.path()), ["a 300 CNAME ."]);
    }
    assert_eq!(transfer(folder.path(), Wanted::Changes, &[Start(1)]).unwrap(), Kind::Nothing);
    let whole = [Start(2), Blocked("b"), Start(2)];
    assert_eq!(transfer(folder.path(), Wanted::Changes, &whole).unwrap(), Kind::Whole);
    assert_eq!(lines(folder.path()), ["b 300 CNAME ."]);
}

#[test]
fn a_zone_that_is_older_than_announced_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    for (serial, is_taken) in [(7, false), (8, true), (9, true)] {
        let mut transfer = Transfer::new(settings(folder.path(), false));
        let query = transfer.query(Wanted::Whole, Some(8)).unwrap();
        let taken = transfer.take(&response(&query, &[Start(serial), Blocked("a"), Start(serial)]));
        assert_eq!(taken.is_ok_and(|is_complete| is_complete), is_taken, "{serial}");
    }
}

#[test]
fn a_zone_that_is_too_large_is_not_stored() {
    let folder = tempfile::tempdir().unwrap();
    let mut records = vec![Start(1)];
    records.extend((0..11).map(|byte| Address("a", byte)));
    records.push(Start(1));
    assert_eq!(transfer(folder.path(), Wanted::Whole, &records).unwrap_err().code, "TOO_LARGE");
    let mut transfer = Transfer::new(settings(folder.path(), false));
    transfer.query(Wanted::Whole, None).unwrap();
    // A message of 65,535 bytes.
    let failed = (0..10_000).find_map(|_| transfer.take(&[0xff; 2]).err());
    assert_eq!(failed.unwrap().code, "TOO_LARGE");
}

#[test]
fn names_of_any_bytes_are_read_again_as_they_were_sent() {
    let folder = tempfile::tempdir().unwrap();
    let owner = wire(r"a\;b\(c\ d\\e.rpz.example");
    let mut transfer = Transfer::new(settings(folder.path(), false));
    let query = transfer.query(Wanted::Whole, None).unwrap();
    let query = Message::from_octets(query[2..].to_vec()).unwrap();
    let mut answer = MessageBuilder::new_vec().start_answer(&query, Rcode::NOERROR).unwrap();
    let ttl = Ttl::from_secs(60);
    let soa = Soa::new(wire("ns"), wire("admin"), Serial(1), ttl, ttl, ttl, ttl);
    answer.push((wire("rpz.example"), ttl, soa.clone())).unwrap();
    answer.push((owner, ttl, Cname::new(wire(r"x\.y.example")))).unwrap();
    answer.push((wire("rpz.example"), ttl, soa)).unwrap();
    let message = answer.finish();
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    assert!(transfer.take(&[&length[..], &message].concat()).unwrap());
    assert_eq!(transfer.finish().unwrap(), Kind::Whole);
    std::fs::rename(folder.path().join("new"), folder.path().join("copy")).unwrap();
    assert_eq!(lines(folder.path()), [r"a\059b\040c\032d\092e 60 CNAME x\046y.example."]);
}
