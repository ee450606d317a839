//! Any bytes as a list of addresses. Either all invalid lines are counted, or exactly those responses
//! are blocked that have an address in a listed prefix. Called by `list` for the same bytes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::engine::{self, Listed};
use crate::list::{reversed, words};

/// Prefixes of a list that are queried.
const MAX_QUERIED: usize = 16;

pub fn check(text: &[u8]) {
    let lines = words(text).map(without_comment).filter(|line| !line.is_empty());
    let read: Vec<Option<String>> = lines.map(naive_prefix).collect();
    let invalid = read.iter().filter(|prefix| prefix.is_none()).count();
    let listed = match engine::addresses(text) {
        Ok(listed) if invalid == 0 => listed,
        Err(total) => return assert_eq!(total, invalid, "lines that are not a prefix"),
        Ok(_) => panic!("an invalid line was accepted"),
    };
    let prefixes: BTreeSet<String> = read.into_iter().flatten().collect();
    assert_eq!(listed.entries, prefixes.len());
    for address in prefixes.iter().take(MAX_QUERIED).flat_map(|prefix| neighbours(prefix)) {
        let unmapped = unmapped(&address);
        let expected = prefixes.iter().any(|prefix| unmapped.starts_with(prefix.as_str()));
        assert_eq!(is_blocked(&listed, &address), expected, "{address}");
    }
    let backwards = engine::addresses(&reversed(text)).map(|listed| listed.digest);
    assert_eq!(backwards, Ok(listed.digest), "the order of lines");
}

/// In a list of addresses, `;` and `//` start a comment, too.
fn without_comment(line: &[u8]) -> &[u8] {
    let is_mark = |at: usize| line[at] == b';' || line[at..].starts_with(b"//");
    let starts = |at: &usize| is_mark(*at) && (*at == 0 || line[*at - 1].is_ascii_whitespace());
    let end = (0..line.len()).find(starts).unwrap_or(line.len());
    line[..end].trim_ascii()
}

/// A naive parser: `4` or `6`, then the bits of the prefix as text.
fn naive_prefix(word: &[u8]) -> Option<String> {
    let word = std::str::from_utf8(word).ok()?;
    let (address, length) = word.split_once('/').map_or((word, None), |(a, b)| (a, Some(b)));
    let (family, bits, widest) = match address.parse().ok()? {
        IpAddr::V4(address) => ("4", format!("{:032b}", address.to_bits()), 8),
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => return None,
        IpAddr::V6(address) => ("6", format!("{:0128b}", address.to_bits()), 19),
    };
    let length = match length {
        Some(length) if length.starts_with('+') => return None,
        Some(length) => length.parse::<u8>().ok()?.into(),
        None => bits.len(),
    };
    let (prefix, hosts) = bits.split_at_checked(length)?;
    (length >= widest && !hosts.contains('1')).then(|| family.to_string() + prefix)
}

/// The first and the last address of the prefix, and those of its sibling.
fn neighbours(prefix: &str) -> Vec<String> {
    let bits = if prefix.starts_with('4') { 33 } else { 129 };
    let (above, last) = prefix.split_at(prefix.len() - 1);
    let sibling = above.to_string() + if last == "0" { "1" } else { "0" };
    let ends = |prefix: &str| [format!("{prefix:0<bits$}"), format!("{prefix:1<bits$}")];
    [ends(prefix), ends(&sibling)].concat()
}

/// `::ffff:192.0.2.1` is an IPv4 address, and so not in an IPv6 prefix.
fn unmapped(address: &str) -> String {
    let mapped = format!("6{}{}", "0".repeat(80), "1".repeat(16));
    address.strip_prefix(&mapped).map_or(address.to_string(), |ipv4| format!("4{ipv4}"))
}

/// Whether a response with this address is blocked.
fn is_blocked(listed: &Listed, bits: &str) -> bool {
    let bits = bits.as_bytes()[1..].chunks(8);
    let byte = |bits: &[u8]| bits.iter().fold(0, |byte, bit| byte << 1 | (bit - b'0'));
    let rdata: Vec<u8> = bits.map(byte).collect();
    let rtype = if rdata.len() == 4 { 1 } else { 28 };
    let question = [&b"\x04free\x07example\0\0"[..], &[rtype, 0, 1]].concat();
    let query = [&b"\0\x01\x01\0\0\x01\0\0\0\0\0\0"[..], &question].concat();
    let mut response = [&b"\0\x01\x81\x80\0\x01\0\x01\0\0\0\0"[..], &question].concat();
    response.extend_from_slice(&[0xc0, 12, 0, rtype, 0, 1, 0, 0, 1, 44, 0, rdata.len() as u8]);
    response.extend_from_slice(&rdata);
    listed.blocks(&query, &response)
}
