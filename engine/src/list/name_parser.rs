//! The name parser: text becomes a name, or is rejected with a reason. Lists, orders, settings and
//! commands all use it, so that they agree on what a name is.

use std::net::IpAddr;

use idna::AsciiDenyList;

use super::{Reason, Repairs};
use crate::name::{Name, NameError};

/// Bytes of a name in another script. Several characters may map to one, but UTS 46 is slow on long
/// text.
const MAX_OTHER_SCRIPT: usize = 1024;

/// Parses a name, or the host of a web address. Returns the necessary repairs, allowed or not.
pub fn parse_url(name: &mut Name, text: &[u8]) -> Result<Repairs, Reason> {
    let reason = match parse(name, text) {
        Ok(repairs) => return Ok(repairs),
        Err(Reason::Address) => return Err(Reason::Address),
        Err(reason) => reason,
    };
    let (host, repairs) = host(text);
    if repairs.is_empty() { Err(reason) } else { Ok(parse(name, host)? | repairs) }
}

/// Parses a name. For formats where `/`, `:` and `,` have a meaning of their own. A list has no
/// top-level domains.
pub fn parse(name: &mut Name, text: &[u8]) -> Result<Repairs, Reason> {
    let repairs = parse_any(name, text)?;
    if name.labels() < 2 { Err(Reason::TopLevel) } else { Ok(repairs) }
}

/// Parses a name of an order, setting or command, which may be a top-level domain.
pub fn canonical(text: &str) -> Result<Name, Reason> {
    let mut name = Name::root();
    parse_any(&mut name, text.as_bytes())?;
    Ok(name)
}

fn parse_any(name: &mut Name, text: &[u8]) -> Result<Repairs, Reason> {
    if !text.is_ascii() {
        return parse_other_script(name, text);
    }
    name.read_text(text).map_err(|error| reason_of(error, text))?;
    if let Some(reason) = number_at_end(name) {
        return Err(reason);
    }
    let mut repairs = Repairs::NONE;
    // Without an early exit, so that the compiler can vectorise it.
    if text.iter().fold(false, |any, byte| any | byte.is_ascii_uppercase()) {
        repairs.add(Repairs::CASE);
    }
    if text.ends_with(b".") {
        repairs.add(Repairs::DOT);
    }
    Ok(repairs)
}

/// UTS 46, non-transitional, like browsers. `Name` decides which ASCII characters are allowed,
/// because it accepts underscores.
fn parse_other_script(name: &mut Name, text: &[u8]) -> Result<Repairs, Reason> {
    std::str::from_utf8(text).map_err(|_| Reason::NotUtf8)?;
    if text.len() > MAX_OTHER_SCRIPT {
        return Err(Reason::NameTooLong);
    }
    let ascii = idna::domain_to_ascii_cow(text, AsciiDenyList::EMPTY).map_err(|_| Reason::NotAName)?;
    // UTS 46 maps to lower case, so that case is not a repair of its own.
    Ok(parse_any(name, ascii.as_bytes())? | Repairs::IDN)
}

fn reason_of(error: NameError, text: &[u8]) -> Reason {
    if matches!(error, NameError::BadByte(b':' | b'[' | b'/')) && is_address(text) {
        return Reason::Address;
    }
    error.into()
}

/// `2001:db8::1`, also in brackets, or a prefix with `/`.
fn is_address(text: &[u8]) -> bool {
    let text = text.split(|&byte| byte == b'/').next().unwrap_or(text);
    let text = text.strip_prefix(b"[").unwrap_or(text);
    let text = text.split(|&byte| byte == b']').next().unwrap_or(text);
    let mut name = Name::root();
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<IpAddr>().is_ok())
        || name.read_text(text).is_ok() && number_at_end(&name) == Some(Reason::Address)
}

/// Rejects a name whose last label is a number. No top-level domain is one (RFC 1123 2.1), and
/// browsers take such a host for an address or reject it ("ends in a number", WHATWG URL 3.5).
/// Two to four numbers are an address, also if it is truncated, padded or out of range.
fn number_at_end(name: &Name) -> Option<Reason> {
    let label = |skip: usize| {
        let wire = name.suffix(skip);
        wire.get(1..=usize::from(*wire.first()?))
    };
    let last = label(name.labels().checked_sub(1)?)?;
    // Nearly all names end here.
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

/// The host of a web address, and the repairs that removed the rest.
fn host(text: &[u8]) -> (&[u8], Repairs) {
    let mut repairs = Repairs::NONE;
    let mut host = text;
    if let Some(before) = host.strip_suffix(b",") {
        (host, repairs) = (before.trim_ascii_end(), repairs | Repairs::COMMA);
    }
    if let Some(after) = without_scheme(host) {
        (host, repairs) = (after, repairs | Repairs::SCHEME);
    }
    if let Some(end) = host.iter().position(|byte| b"/?".contains(byte)) {
        (host, repairs) = (&host[..end], repairs | Repairs::PATH);
    }
    if let Some(before) = without_port(host) {
        (host, repairs) = (before, repairs | Repairs::PORT);
    }
    (host, repairs)
}

/// RFC 3986 3.1: a scheme is a letter, then letters, digits, `+`, `-` and `.`.
fn without_scheme(text: &[u8]) -> Option<&[u8]> {
    let at = text.windows(3).position(|three| three == b"://")?;
    let scheme = &text[..at];
    let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    is_scheme.then(|| &text[at + 3..])
}

fn without_port(text: &[u8]) -> Option<&[u8]> {
    let at = text.iter().rposition(|&byte| byte == b':')?;
    let port = std::str::from_utf8(&text[at + 1..]).ok()?;
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    is_port.then(|| &text[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(String, String), &'static str> {
        let mut name = Name::root();
        let repairs = parse_url(&mut name, text.as_bytes()).map_err(Reason::code)?;
        Ok((name.to_string(), repairs.to_string()))
    }

    #[test]
    fn repairs_are_reported() {
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
            assert_eq!(parsed(text), Ok((name.to_string(), repairs.to_string())), "{text}");
        }
    }

    #[test]
    fn a_top_level_domain_is_a_name_but_not_in_lists() {
        assert_eq!(canonical("COM.").map(|name| name.to_string()), Ok("com".to_string()));
        assert_eq!(parse(&mut Name::root(), b"COM."), Err(Reason::TopLevel));
    }

    #[test]
    fn the_reason_says_why_text_is_not_a_name() {
        let long = "ü".repeat(MAX_OTHER_SCRIPT);
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
            assert_eq!(parsed(text), Err(code), "{text}");
        }
        assert_eq!(parse(&mut Name::root(), b"b\xfccher.example"), Err(Reason::NotUtf8));
        assert_eq!(parse(&mut Name::root(), b"a.example:80"), Err(Reason::BadByte(b':')));
    }
}
