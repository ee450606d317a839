//! Random changes to the messages of primaries: nothing panics, and an unsigned change is never accepted where
//! messages must be signed.

mod common;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use _engine::name::Name;
use _engine::notify::{Notify, Zone, Zones, is_notify};
use _engine::prefix::{Prefix, Prefixes};
use _engine::transfer::{Settings, Transfer, Wanted};
use _engine::tsig;
use common::Random;

const ROUNDS: usize = 20_000;
const PRIMARY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// `rpz.example SOA`, with pointers to the question, and `a.rpz.example CNAME .`.
const QUESTION: &[u8] = b"\x03rpz\x07example\0\0\xfc\0\x01";
const SOA: &[u8] =
    b"\xc0\x0c\0\x06\0\x01\0\0\x01\x2c\0\x16\0\0\0\0\0\x07\0\0\0\x3c\0\0\0\x3c\0\0\0\x3c\0\0\0\x3c";
const RECORD: &[u8] = b"\x01a\xc0\x0c\0\x05\0\x01\0\0\x01\x2c\0\x01\0";

/// Changes one to three bytes after `from`.
fn corrupt(random: &mut Random, message: &mut [u8], from: usize) {
    for _ in 0..=random.below(3) {
        let place = from + random.below(message.len() - from);
        let byte = [0, 1, 0x3f, 0xc0, 0xff, random.below(256) as u8][random.below(6)];
        message[place] = byte;
    }
}

fn transfer(folder: &Path, key: Option<tsig::Key>) -> Transfer {
    Transfer::new(Settings {
        zone: Name::from_text(b"rpz.example").unwrap(),
        key,
        copy: None,
        into: folder.join("new"),
        max_records: 100,
        max_bytes: 100_000,
    })
}

/// A whole zone with one record, as the response to this query.
fn response(query: &[u8]) -> Vec<u8> {
    let head = [query[2], query[3], 0x84, 0, 0, 1, 0, 3, 0, 0, 0, 0];
    let message = [&head[..], QUESTION, SOA, RECORD, SOA].concat();
    [&(message.len() as u16).to_be_bytes()[..], &message].concat()
}

#[test]
fn no_message_of_a_primary_breaks_anything() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(20170714);
    let mut complete = 0;
    for round in 0..ROUNDS {
        let mut transfer = transfer(folder.path(), None);
        let mut response = response(&transfer.query(Wanted::Whole, None).unwrap());
        if round > 0 {
            corrupt(&mut random, &mut response, 4);
        }
        let cut = random.below(response.len());
        let (first, rest) = response.split_at(cut);
        let taken = transfer.take(first).and_then(|is_complete| Ok(is_complete || transfer.take(rest)?));
        if matches!(taken, Ok(true)) && transfer.finish().is_ok() {
            complete += 1;
            let copy = std::fs::read(folder.path().join("new")).unwrap();
            assert_eq!(copy.iter().filter(|byte| **byte == b'\n').count(), 4, "{response:02x?}");
        }
    }
    assert!(complete > 0 && complete < ROUNDS);
}

#[test]
fn nothing_unsigned_is_accepted_where_a_key_is_configured() {
    let folder = tempfile::tempdir().unwrap();
    let key = tsig::key("transfer", "hmac-sha256", b"secret").unwrap();
    let mut random = Random(20170810);
    let from = Prefixes::new([Prefix { address: PRIMARY, length: 32 }]);
    let name = Name::from_text(b"rpz.example").unwrap();
    let zones = Zones(vec![Zone { name, label: "rpz".into(), from, key: Some(key.clone()) }]);
    for round in 0..ROUNDS {
        let mut transfer = transfer(folder.path(), Some(key.clone()));
        let query = transfer.query(Wanted::Whole, None).unwrap();
        let mut response = response(&query);
        // The query's own signature is none of the response.
        let mut notify = query[2..].to_vec();
        notify[2] = 0x20;
        if round > 0 {
            corrupt(&mut random, &mut response, 4);
            corrupt(&mut random, &mut notify, 2);
        }
        assert!(!transfer.take(&response).is_ok_and(|is_complete| is_complete), "{response:02x?}");
        if is_notify(&notify) {
            let mut out = [0; 1232];
            let (result, length) = zones.respond(&notify, PRIMARY, &mut out);
            assert!(!matches!(result, Notify::Accepted(_)), "{notify:02x?}");
            assert!(length == 0 || out[..2] == notify[..2] && out[2] & 0x80 != 0);
        }
    }
}
