//! The name parser: text becomes a name, or is refused with a reason. Lists, orders,
//! settings and commands all use it, so they agree on what a name is.

use std::net::IpAddr;

use idna::AsciiDenyList;

use super::{Reason, Repairs};
use crate::name::{Name, NameError};

/// Several characters may map to one, but UTS 46 is slow on long text.
const LONGEST_OTHER_SCRIPT: usize = 1024;

/// Reads a name as people write it, where a web address may stand for its host.
/// Tells what had to be put right, whether that is allowed or not.
pub fn read_loose(name: &mut Name, text: &[u8]) -> Result<Repairs, Reason> {
    let reason = match read(name, text) {
        Ok(repairs) => return Ok(repairs),
        Err(Reason::Address) => return Err(Reason::Address),
        Err(reason) => reason,
    };
    let (host, repairs) = host(text);
    if repairs.is_empty() { Err(reason) } else { Ok(read(name, host)? | repairs) }
}

/// Reads a name from a format in which `/`, `:` and `,` have meanings of their own. A list
/// names no top-level domain.
pub fn read(name: &mut Name, text: &[u8]) -> Result<Repairs, Reason> {
    let repairs = parse(name, text)?;
    if name.labels() < 2 { Err(Reason::TopLevel) } else { Ok(repairs) }
}

/// Reads a name, a top-level domain as well: what orders, settings and commands name.
pub fn canonical(text: &str) -> Result<Name, Reason> {
    let mut name = Name::root();
    parse(&mut name, text.as_bytes())?;
    Ok(name)
}

fn parse(name: &mut Name, text: &[u8]) -> Result<Repairs, Reason> {
    if !text.is_ascii() {
        return parse_other_script(name, text);
    }
    name.read_text(text).map_err(|error| fault(error, text))?;
    if let Some(reason) = number_at_end(name) {
        return Err(reason);
    }
    let mut repairs = Repairs::NONE;
    // Every octet is looked at, which the processor does many at a time.
    if text.iter().fold(false, |any, octet| any | octet.is_ascii_uppercase()) {
        repairs.add(Repairs::CASE);
    }
    if text.ends_with(b".") {
        repairs.add(Repairs::DOT);
    }
    Ok(repairs)
}

/// UTS 46, non-transitional: what browsers ask for. What of ASCII may stand in
/// a name is for `Name` to say, which knows underscores.
fn parse_other_script(name: &mut Name, text: &[u8]) -> Result<Repairs, Reason> {
    std::str::from_utf8(text).map_err(|_| Reason::NotUtf8)?;
    if text.len() > LONGEST_OTHER_SCRIPT {
        return Err(Reason::NameTooLong);
    }
    let ascii = idna::domain_to_ascii_cow(text, AsciiDenyList::EMPTY).map_err(|_| Reason::NotAName)?;
    // The mapping folds case itself, so case is no repair beside it.
    Ok(parse(name, ascii.as_bytes())? | Repairs::IDN)
}

fn fault(error: NameError, text: &[u8]) -> Reason {
    if matches!(error, NameError::BadByte(b':' | b'[' | b'/')) && is_address(text) {
        return Reason::Address;
    }
    error.into()
}

/// `2001:db8::1`, also in brackets; an address before a `/` is a prefix.
fn is_address(text: &[u8]) -> bool {
    let text = text.split(|&octet| octet == b'/').next().unwrap_or(text);
    let text = text.strip_prefix(b"[").unwrap_or(text);
    let text = text.split(|&octet| octet == b']').next().unwrap_or(text);
    let mut name = Name::root();
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<IpAddr>().is_ok())
        || name.read_text(text).is_ok() && number_at_end(&name) == Some(Reason::Address)
}

/// No top-level domain is a number (RFC 1123 2.1), and to a browser such a host is an
/// address or nothing ("ends in a number", WHATWG URL 3.5). Two to four numbers are an
/// address: also cut off, padded or too large.
pub fn number_at_end(name: &Name) -> Option<Reason> {
    let label = |skip: usize| {
        let wire = name.suffix(skip);
        wire.get(1..=usize::from(*wire.first()?))
    };
    let last = label(name.labels().checked_sub(1)?)?;
    // Seen at once for nearly all.
    if !last.first()?.is_ascii_digit() || !is_number(last) {
        return None;
    }
    let is_address = matches!(name.labels(), 2..=4) && (0..name.labels()).filter_map(label).all(is_number);
    Some(if is_address { Reason::Address } else { Reason::EndsInNumber })
}

/// Decimal or, as inet_aton(3) has it, hexadecimal.
fn is_number(label: &[u8]) -> bool {
    let hexadecimal = label.strip_prefix(b"0x").unwrap_or(b".");
    label.iter().all(u8::is_ascii_digit) || hexadecimal.iter().all(u8::is_ascii_hexdigit)
}

/// The host in what may be a web address, and what had to go for it.
fn host(text: &[u8]) -> (&[u8], Repairs) {
    let mut repairs = Repairs::NONE;
    let mut host = text;
    if let Some(before) = host.strip_suffix(b",") {
        (host, repairs) = (before.trim_ascii_end(), repairs | Repairs::COMMA);
    }
    if let Some(after) = without_scheme(host) {
        (host, repairs) = (after, repairs | Repairs::SCHEME);
    }
    if let Some(end) = host.iter().position(|octet| b"/?".contains(octet)) {
        (host, repairs) = (&host[..end], repairs | Repairs::PATH);
    }
    if let Some(before) = without_port(host) {
        (host, repairs) = (before, repairs | Repairs::PORT);
    }
    (host, repairs)
}

/// RFC 3986 3.1: a letter, then letters, digits and three signs.
fn without_scheme(text: &[u8]) -> Option<&[u8]> {
    let at = text.windows(3).position(|three| three == b"://")?;
    let scheme = &text[..at];
    let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|octet| octet.is_ascii_alphanumeric() || b"+-.".contains(octet));
    is_scheme.then(|| &text[at + 3..])
}

fn without_port(text: &[u8]) -> Option<&[u8]> {
    let at = text.iter().rposition(|&octet| octet == b':')?;
    let port = std::str::from_utf8(&text[at + 1..]).ok()?;
    let is_port = port.bytes().all(|octet| octet.is_ascii_digit()) && port.parse::<u16>().is_ok();
    is_port.then(|| &text[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loose(text: &str) -> Result<(String, String), &'static str> {
        let mut name = Name::root();
        let repairs = read_loose(&mut name, text.as_bytes()).map_err(Reason::code)?;
        Ok((name.to_string(), repairs.to_string()))
    }

    #[test]
    fn what_is_put_right_is_told() {
        for (text, name, repairs) in [
            ("a.example", "a.example", ""),
            ("_dmarc.a-.-b.example", "_dmarc.a-.-b.example", ""),
            ("xn--invalid.example", "xn--invalid.example", ""),
            ("A.Example", "a.example", "case"),
            ("a.example.", "a.example", "dot"),
            ("a.example,", "a.example", "comma"),
            ("https://a.example", "a.example", "scheme"),
            ("a.example:8443", "a.example", "port"),
            ("a.example/x?y", "a.example", "path"),
            ("a.example?y", "a.example", "path"),
            ("HTTP://A.example.:80/x:1,", "a.example", "case, dot, scheme, port, path, comma"),
            ("bücher.example", "xn--bcher-kva.example", "idn"),
            ("Straße.example", "xn--strae-oqa.example", "idn"),
            ("☕.example", "xn--53h.example", "idn"),
            ("1.2.3.in-addr.arpa", "1.2.3.in-addr.arpa", ""),
            ("163.com", "163.com", ""),
            ("a.3x", "a.3x", ""),
            ("a.0xyz", "a.0xyz", ""),
            ("россия。рф.", "xn--h1alffa9f.xn--p1ai", "dot, idn"),
            ("_x.bücher.example:1", "_x.xn--bcher-kva.example", "port, idn"),
        ] {
            assert_eq!(loose(text), Ok((name.to_string(), repairs.to_string())), "{text}");
        }
    }

    #[test]
    fn a_top_level_domain_is_a_name_that_no_list_names() {
        assert_eq!(canonical("COM.").map(|name| name.to_string()), Ok("com".to_string()));
        assert_eq!(read(&mut Name::root(), b"COM."), Err(Reason::TopLevel));
    }

    #[test]
    fn what_is_no_name_is_refused_by_reason() {
        let long = "ü".repeat(LONGEST_OTHER_SCRIPT);
        for (text, code) in [
            ("com", "top_level"),
            ("https://com/", "top_level"),
            ("192.0.2.1", "address"),
            ("999.0.2.01.", "address"),
            ("192.0.2.0/24", "address"),
            ("192.0.2.1:53", "address"),
            ("192.0.2.085/24", "address"),
            ("225.223.48", "address"),
            ("127.1", "address"),
            ("0x7f.0.0.0x1", "address"),
            ("172.104.128.199.108.166", "ends_in_number"),
            ("0000350_2025.29.08", "ends_in_number"),
            ("a.example.0x1F.", "ends_in_number"),
            ("a.example.0x", "ends_in_number"),
            ("192.0.2.1-192.0.2.9", "ends_in_number"),
            ("bücher.２", "ends_in_number"),
            ("42", "ends_in_number"),
            ("2001:db8::1", "address"),
            ("2001:db8::/32", "address"),
            ("https://[2001:db8::1]:443/x", "address"),
            ("a..example", "empty_label"),
            ("a.example..", "empty_label"),
            ("a b.example", "bad_character"),
            ("user@a.example", "bad_character"),
            ("a.example#x", "bad_character"),
            ("a.example:99999", "bad_character"),
            ("a.example:+1", "bad_character"),
            ("://a.example", "bad_character"),
            ("/a.example", "not_a_name"),
            ("a.example,,", "bad_character"),
            ("bü cher.example", "bad_character"),
            ("bücher.example／x", "bad_character"),
            ("\u{fffd}.example", "not_a_name"),
            (&long, "name_too_long"),
        ] {
            assert_eq!(loose(text), Err(code), "{text}");
        }
        assert_eq!(read(&mut Name::root(), b"b\xfccher.example"), Err(Reason::NotUtf8));
        assert_eq!(read(&mut Name::root(), b"a.example:80"), Err(Reason::BadOctet(b':')));
    }
}
