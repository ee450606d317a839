//! The part of a record after its owner: `[TTL] [CLASS] TYPE DATA`.

use bytes::Bytes;
use domain::base::iana::{Class, Rtype};
use domain::base::name::Name as WireName;
use domain::base::rdata::ComposeRecordData;
use domain::zonefile::inplace::{Entry, Zonefile};

use crate::list::Reason;
use crate::list::tokens::word;
use crate::message::rtype;
use crate::name::Name;
use crate::policy::DataRecord;

const EXPECTED: &str = "records of a zone file, as in `ads.example CNAME .`";
const ONE_NAME: &str = "one name after CNAME";
/// Types whose records are only about the zone, whatever their owner is.
const DNSSEC: [(&[u8], u16); 8] = [
    (b"DNSKEY", 48),
    (b"RRSIG", 46),
    (b"NSEC", 47),
    (b"NSEC3", 50),
    (b"NSEC3PARAM", 51),
    (b"CDS", 59),
    (b"CDNSKEY", 60),
    (b"ZONEMD", 63),
];
/// Begins data that is written by number (RFC 3597 section 5).
const BY_NUMBER: &[u8] = b"\\#";

/// The numbers of the zone's SOA record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Soa {
    pub serial: u32,
    /// In seconds.
    pub minimum: u32,
}

pub enum Data {
    Soa(Soa, DataRecord),
    /// Signatures, keys, and proofs: they are about the zone. `None`: not read.
    Dnssec(Option<DataRecord>),
    /// A delegation.
    Ns(DataRecord),
    /// The target of a CNAME, absolute, without its last dot; `None` if it is a special name that lacks it.
    Cname(Vec<u8>),
    Other(DataRecord),
}

/// The text of a record, without its owner.
pub struct Fields<'a> {
    /// In seconds.
    pub ttl: Option<u32>,
    pub rtype: &'a [u8],
    /// Not empty.
    pub data: &'a [u8],
}

/// TTL and class are optional, in either order (RFC 1035 section 5.1).
pub fn fields(text: &[u8]) -> Result<Fields<'_>, Reason> {
    let (mut first, mut rest) = word(text);
    let mut found = None;
    for _ in 0..2 {
        if found.is_none() && first.first().is_some_and(u8::is_ascii_digit) {
            found = Some(ttl(first).ok_or(Reason::NotThisFormat(EXPECTED))?);
        } else if first.eq_ignore_ascii_case(b"IN") {
        } else if [&b"CH"[..], b"HS", b"CS"].iter().any(|class| first.eq_ignore_ascii_case(class)) {
            return Err(Reason::OtherClass);
        } else {
            break;
        }
        (first, rest) = word(rest);
    }
    let data = rest.trim_ascii();
    if first.is_empty() || data.is_empty() {
        return Err(Reason::NotThisFormat(EXPECTED));
    }
    Ok(Fields { ttl: found, rtype: first, data })
}

/// Seconds, or a number with units such as `1h30m`, as other servers read it.
pub fn ttl(word: &[u8]) -> Option<u32> {
    let (mut whole, mut number) = (0u64, None);
    for byte in word {
        match byte {
            b'0'..=b'9' => {
                number = Some(number.unwrap_or(0u64).checked_mul(10)?.checked_add(u64::from(byte - b'0'))?);
            }
            _ => {
                let unit = match byte.to_ascii_lowercase() {
                    b's' => 1,
                    b'm' => 60,
                    b'h' => 3600,
                    b'd' => 86_400,
                    b'w' => 604_800,
                    _ => return None,
                };
                whole = whole.checked_add(number.take()?.checked_mul(unit)?)?;
            }
        }
    }
    u32::try_from(whole.checked_add(number.unwrap_or(0))?).ok().filter(|_| !word.is_empty())
}

/// Whether a word is the type of a record.
pub fn is_type(word: &[u8]) -> bool {
    let known = std::str::from_utf8(word).is_ok_and(|word| word.parse::<Rtype>().is_ok());
    known && !word[0].is_ascii_digit()
}

/// Reads the data of a record. `is_complete`: also of the types that are only about the zone.
pub fn parse(fields: &Fields<'_>, origin: &[u8], is_complete: bool) -> Result<Data, Reason> {
    let is = |name: &[u8]| fields.rtype.eq_ignore_ascii_case(name);
    let ttl = fields.ttl.unwrap_or(0);
    let is_by_number = fields.data.starts_with(BY_NUMBER);
    if is(b"CNAME") && !is_complete && !is_by_number {
        let (target, after) = word(fields.data);
        if !after.trim_ascii().is_empty() {
            return Err(Reason::NotThisFormat(ONE_NAME));
        }
        let is_special = target.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"rpz-"));
        if is_special && !target.contains(&b'.') {
            return Err(match target.eq_ignore_ascii_case(b"rpz-passthru") {
                true => Reason::LostException("rpz-passthru without its trailing dot is a name in the zone"),
                false => Reason::NotThisFormat("a dot after the special names of RPZ, such as `rpz-drop.`"),
            });
        }
        return Ok(Data::Cname(absolute(target, origin)?));
    }
    if is(b"A") && !is_by_number {
        let text = std::str::from_utf8(fields.data).ok();
        let address = text.and_then(|text| text.parse::<std::net::Ipv4Addr>().ok());
        let address = address.ok_or(Reason::NotThisFormat("an IPv4 address after A"))?;
        return Ok(Data::Other(DataRecord { rtype: rtype::A, rdata: address.octets().into(), ttl }));
    }
    if !is_complete && DNSSEC.into_iter().any(|(name, _)| is(name)) {
        return Ok(Data::Dnssec(None));
    }
    let record = read(fields, origin).ok_or(Reason::NotThisFormat(EXPECTED))?;
    Ok(match record.rtype {
        rtype::SOA => {
            let numbers: Option<[u8; 20]> = record.rdata.last_chunk().copied();
            let numbers = numbers.ok_or(Reason::NotThisFormat(EXPECTED))?;
            let number = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|byte| numbers[at + byte]));
            Data::Soa(Soa { serial: number(0), minimum: number(16) }, record)
        }
        rtype::NS => Data::Ns(record),
        rtype if DNSSEC.into_iter().any(|(_, number)| number == rtype) => Data::Dnssec(Some(record)),
        rtype::CNAME if !is_complete => {
            let (target, _) = Name::parse(&record.rdata, 0).map_err(|_| Reason::NotThisFormat(ONE_NAME))?;
            match target.labels() {
                0 => Data::Cname(Vec::new()),
                _ => Data::Cname(target.to_string().into_bytes()),
            }
        }
        _ => Data::Other(record),
    })
}

/// Reads the data of any type, in canonical form (RFC 4034 section 6.2).
fn read(fields: &Fields<'_>, origin: &[u8]) -> Option<DataRecord> {
    let text = [b". 0 IN ", fields.rtype, b" ", fields.data, b"\n"].concat();
    let mut file = Zonefile::from(&text[..]).allow_invalid();
    file.set_default_class(Class::IN);
    let origin = [origin, b"."].concat();
    let origin: WireName<Bytes> = std::str::from_utf8(&origin).ok()?.parse().ok()?;
    file.set_origin(origin);
    let Ok(Some(Entry::Record(record))) = file.next_entry() else { return None };
    if !matches!(file.next_entry(), Ok(None)) {
        return None;
    }
    let mut rdata: Vec<u8> = Vec::new();
    record.data().compose_canonical_rdata(&mut rdata).ok()?;
    let ttl = fields.ttl.unwrap_or(0);
    (rdata.len() <= usize::from(u16::MAX)).then(|| DataRecord {
        rtype: record.rtype().to_int(),
        rdata: rdata.into(),
        ttl,
    })
}

/// The absolute name without its last dot and without escapes. `@` is the origin, the root is empty.
pub fn absolute(name: &[u8], origin: &[u8]) -> Result<Vec<u8>, Reason> {
    if name == b"@" {
        return Ok(origin.to_vec());
    }
    if name == b"." {
        return Ok(Vec::new());
    }
    let (name, is_absolute) = if memchr::memchr(b'\\', name).is_some() {
        unescaped(name)?
    } else {
        let whole = name.strip_suffix(b".");
        (whole.unwrap_or(name).to_vec(), whole.is_some())
    };
    Ok(match is_absolute || origin.is_empty() {
        true => name,
        false => [&name, origin].join(&b'.'),
    })
}

/// A name without its last dot and without escapes (`\DDD` and `\X`), and whether it had that dot.
fn unescaped(name: &[u8]) -> Result<(Vec<u8>, bool), Reason> {
    let mut plain = Vec::with_capacity(name.len());
    let mut is_absolute = false;
    let mut rest = name;
    while let Some((&byte, after)) = rest.split_first() {
        is_absolute = byte == b'.' && after.is_empty();
        let (byte, after) = match (byte, after) {
            (b'\\', [a @ b'0'..=b'2', b @ b'0'..=b'9', c @ b'0'..=b'9', after @ ..]) => {
                let value = 100 * u32::from(a - b'0') + 10 * u32::from(b - b'0') + u32::from(c - b'0');
                (u8::try_from(value).map_err(|_| Reason::BadByte(b'\\'))?, after)
            }
            (b'\\', [byte, after @ ..]) if !byte.is_ascii_digit() => (*byte, after),
            (b'\\', _) => return Err(Reason::BadByte(b'\\')),
            _ => {
                if !is_absolute {
                    plain.push(byte);
                }
                rest = after;
                continue;
            }
        };
        if byte == b'.' {
            return Err(Reason::BadByte(b'\\')); // a dot within a label
        }
        plain.push(byte);
        rest = after;
    }
    Ok((plain, is_absolute))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, seconds) in [("0", 0), ("300", 300), ("1h30m", 5400), ("2W1d", 1_296_000), ("5s10", 15)] {
            assert_eq!(ttl(text.as_bytes()), Some(seconds), "{text}");
        }
        for text in ["", "h", "1x", "99999999999", "-1", "1h m"] {
            assert_eq!(ttl(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn escapes_stand_for_characters() {
        let absolute =
            |name: &str| absolute(name.as_bytes(), b"rpz").map(|name| String::from_utf8(name).unwrap());
        assert_eq!(absolute(r"\097.example."), Ok("a.example".to_string()));
        assert_eq!(absolute(r"\a\-b"), Ok("a-b.rpz".to_string()));
        assert_eq!(absolute("@"), Ok("rpz".to_string()));
        assert_eq!(absolute("."), Ok(String::new()));
        for name in [r"a\.b", r"a\046b", r"a\256", r"a\25", r"a\"] {
            assert_eq!(absolute(name), Err(Reason::BadByte(b'\\')), "{name}");
        }
    }

    #[test]
    fn the_data_of_any_type_is_read() {
        let read = |text: &str| {
            let fields = fields(text.as_bytes()).unwrap();
            match parse(&fields, b"rpz.example", false) {
                Ok(Data::Other(record)) => (record.rtype, record.rdata.to_vec()),
                Ok(_) => panic!("{text}"),
                Err(reason) => panic!("{text}: {reason}"),
            }
        };
        assert_eq!(read("300 IN A 192.0.2.1"), (1, vec![192, 0, 2, 1]));
        assert_eq!(read("IN 5m AAAA ::1").1[15], 1);
        assert_eq!(read("TXT \"a b\" c"), (16, b"\x03a b\x01c".to_vec()));
        assert_eq!(read("MX 10 mail"), (15, b"\0\x0a\x04mail\x03rpz\x07example\0".to_vec()));
        assert_eq!(read(r"TYPE65280 \# 2 0102"), (65280, vec![1, 2]));
        assert_eq!(read("SRV 1 2 3 a.example.").0, 33);
        assert_eq!(read("HTTPS 1 . alpn=h2").0, 65);
        for text in ["A 192.0.2", "AAAA 192.0.2.1", "MX mail", "BLAH x", "TXT \"x", "A 192.0.2.1 192.0.2.2"] {
            let fields = fields(text.as_bytes()).unwrap();
            assert!(parse(&fields, b"", false).is_err(), "{text}");
        }
    }
}
