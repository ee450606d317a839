//! A resource record without its owner, in presentation format: `[TTL] [CLASS] TYPE DATA` (RFC 1035
//! 5.1). Zone files and Unbound's local data contain them.

use crate::list::tokens::word;

pub struct Record<'a> {
    pub kind: Kind,
    /// Not empty.
    pub data: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Soa,
    /// DNSSEC records are about the zone, whatever their owner is.
    Dnssec,
    /// A delegation or DNAME: another zone or tree starts here.
    Cut,
    Cname,
    /// Data that an answer may have.
    Data,
}

const DNSSEC: [&[u8]; 9] =
    [b"DNSKEY", b"RRSIG", b"NSEC", b"NSEC3", b"NSEC3PARAM", b"DS", b"CDS", b"CDNSKEY", b"ZONEMD"];
const DATA: [&[u8]; 17] = [
    b"A", b"AAAA", b"TXT", b"MX", b"SRV", b"PTR", b"HTTPS", b"SVCB", b"CAA", b"NAPTR", b"SPF", b"HINFO",
    b"LOC", b"TLSA", b"SSHFP", b"URI", b"RP",
];

/// Parses the text after an owner. `None` if it is not a record of class IN.
///
/// TTL and class are optional, in either order (RFC 1035 5.1).
pub fn parse(text: &[u8]) -> Option<Record<'_>> {
    let (mut first, mut rest) = word(text);
    for _ in 0..2 {
        if is_ttl_or_class(first) {
            (first, rest) = word(rest);
        }
    }
    let data = rest.trim_ascii();
    if data.is_empty() {
        return None;
    }
    Some(Record { kind: kind(first)?, data })
}

/// A TTL is a number, often with units (`1h30m`).
fn is_ttl_or_class(word: &[u8]) -> bool {
    let is_ttl = word.first().is_some_and(u8::is_ascii_digit)
        && word.iter().all(|byte| byte.is_ascii_digit() || b"smhdwSMHDW".contains(byte));
    is_ttl || word.eq_ignore_ascii_case(b"IN")
}

fn kind(word: &[u8]) -> Option<Kind> {
    let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
    // RFC 3597 5: unknown types are written as TYPE and a number.
    let is_numbered = word.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"TYPE"))
        && word.len() > 4
        && word[4..].iter().all(u8::is_ascii_digit);
    if is(b"CNAME") {
        Some(Kind::Cname)
    } else if is(b"SOA") {
        Some(Kind::Soa)
    } else if is(b"NS") || is(b"DNAME") {
        Some(Kind::Cut)
    } else if DNSSEC.into_iter().any(is) {
        Some(Kind::Dnssec)
    } else if is_numbered || DATA.into_iter().any(is) {
        Some(Kind::Data)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttl_and_class_are_optional_and_in_either_order() {
        for text in ["CNAME .", "300 cname .", "IN CNAME .", "300 IN CNAME .", " in 1h30m  CNAME\t. "] {
            let record = parse(text.as_bytes()).unwrap();
            assert_eq!((record.kind, record.data), (Kind::Cname, &b"."[..]), "{text}");
        }
    }

    #[test]
    fn other_text_is_not_a_record() {
        for text in ["", "CNAME", "IN 300", "CH TXT x", "300 300 300 A x", "BLAH x", "TYPE x", "x CNAME ."] {
            assert!(parse(text.as_bytes()).is_none(), "{text}");
        }
        assert_eq!(parse(b"TYPE65534 \\# 0").unwrap().kind, Kind::Data);
    }
}
