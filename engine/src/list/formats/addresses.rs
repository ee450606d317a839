//! One address or prefix per line, with comments:
//!
//! ```text
//! 192.0.2.1
//! 198.51.100.0/24   # a network
//! 2001:db8::/32     ; another one
//! ```
//!
//! An entry is compiled as the name of its RPZ trigger (`24.0.100.51.198.rpz-ip`), so that lists
//! of addresses are stored, compared and recorded like lists of names.

use std::net::{IpAddr, Ipv4Addr};

use crate::list::{Reason, tokens};
use crate::prefix::{InvalidPrefix, Prefix};

/// A shorter prefix is a mistake: a large provider has one /8, and registries give out at most a
/// /19 of IPv6.
const MIN_LENGTH_IPV4: u8 = 8;
const MIN_LENGTH_IPV6: u8 = 19;

/// The prefix of a line. `None` for a blank line or a comment.
pub fn parse(line: &[u8]) -> Result<Option<Prefix>, Reason> {
    let line = tokens::without_comment(line).trim_ascii();
    if line.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(line).map_err(|_| Reason::NotAnAddress(OTHER))?;
    let prefix = Prefix::read(text).map_err(|invalid| match invalid {
        InvalidPrefix::HostBits => Reason::HostBits,
        InvalidPrefix::Mapped => Reason::NotAnAddress("an IPv4 address written as IPv6: write it as IPv4"),
        InvalidPrefix::Other => Reason::NotAnAddress(mistake(text)),
    })?;
    match too_wide(&prefix) {
        Some(reason) => Err(reason),
        None => Ok(Some(prefix)),
    }
}

/// Why a prefix is a mistake, if it is shorter than any network that one could mean.
pub fn too_wide(prefix: &Prefix) -> Option<Reason> {
    let min_length = if prefix.address.is_ipv4() { MIN_LENGTH_IPV4 } else { MIN_LENGTH_IPV6 };
    (prefix.length < min_length).then_some(Reason::TooWide(min_length))
}

const OTHER: &str = "not an address, nor a prefix such as 192.0.2.0/24 or 2001:db8::/32";

/// The likely mistake in a line that is not an address.
fn mistake(text: &str) -> &'static str {
    let (address, length) =
        text.split_once('/').map_or((text, None), |(before, after)| (before, Some(after)));
    if address.parse::<IpAddr>().is_ok() {
        return match length {
            Some(length) if length.parse::<Ipv4Addr>().is_ok() => {
                "a netmask: write the number of bits, as in /24"
            }
            _ => "the number of bits is not one that the address has",
        };
    }
    let ends: Vec<&str> = text.split(|c: char| c.is_whitespace() || ",;-".contains(c)).collect();
    let is_prefix = |text: &&str| !text.is_empty() && Prefix::read(text).is_ok();
    if ends.iter().filter(|text| is_prefix(text)).count() > 1 {
        return match text.contains('-') {
            true => "a range: write it as prefixes",
            false => "two addresses on one line: write one per line",
        };
    }
    let numbers: Vec<&str> = address.split('.').collect();
    if !numbers.iter().all(|number| !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit())) {
        let is_name =
            text.contains('.') && text.bytes().all(|c| c.is_ascii_alphanumeric() || b".-_".contains(&c));
        return if is_name { "a name, not an address: list it in a zone with `list`" } else { OTHER };
    }
    match numbers.len() {
        ..4 => "an IPv4 address has four numbers: is this one truncated?",
        4 if numbers.iter().any(|number| number.len() > 1 && number.starts_with('0')) => {
            "a number with a leading zero, which some programs read as octal: write it without"
        }
        4 => "a number above 255",
        _ => "an IPv4 address has four numbers: are these two addresses run together?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_prefixes_and_comments() {
        for (line, expected) in [
            ("192.0.2.1", Some("192.0.2.1/32")),
            (" 198.51.100.0/24\t# a network", Some("198.51.100.0/24")),
            ("1.10.16.0/20 ; SBL256894", Some("1.10.16.0/20")),
            ("2001:DB8::/32", Some("2001:db8::/32")),
            ("", None),
            ("# 192.0.2.1", None),
            ("; 192.0.2.1", None),
        ] {
            let prefix = parse(line.as_bytes()).unwrap_or_else(|reason| panic!("{line}: {reason}"));
            assert_eq!(prefix.map(|prefix| prefix.to_string()).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn the_reason_names_the_likely_mistake() {
        for (line, code, words) in [
            ("192.0.2.085", "not_an_address", "leading zero"),
            ("225.223.48", "not_an_address", "four numbers: is this one truncated"),
            ("172.104.128.199.108.166", "not_an_address", "run together"),
            ("192.0.2.1192.0.2.2", "not_an_address", "run together"),
            ("192.0.2.1 192.0.2.2", "not_an_address", "two addresses on one line"),
            ("192.0.2.1,2001:db8::1", "not_an_address", "two addresses on one line"),
            ("192.0.2.1-192.0.2.9", "not_an_address", "a range"),
            ("192.0.2.256", "not_an_address", "above 255"),
            ("192.0.2.0/255.255.255.0", "not_an_address", "netmask"),
            ("192.0.2.0/33", "not_an_address", "number of bits"),
            ("www.bad.example", "not_an_address", "a name"),
            ("http://192.0.2.1/", "not_an_address", "not an address, nor a prefix"),
            ("::ffff:192.0.2.1", "not_an_address", "write it as IPv4"),
            ("\u{fe}", "not_an_address", "not an address, nor a prefix"),
            ("192.0.2.1/24", "host_bits", "after the prefix"),
            ("0.0.0.0/0", "too_wide", "TOO_WIDE"),
            ("2000::/3", "too_wide", "at least 19 bits"),
        ] {
            let reason = parse(line.as_bytes()).expect_err(line);
            assert_eq!(reason.code(), code, "{line}");
            assert!(reason.to_string().contains(words), "{line}: {reason}");
        }
    }
}
