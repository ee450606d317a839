//! Triggers: the owner names of a policy zone (draft-vixie-dnsop-dns-rpz-00 section 4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::list::Reason;
use crate::policy::zone_data::{CLIENT_IP, RESPONSE_IP};
use crate::prefix::{InvalidPrefix, Prefix};

#[derive(Debug, PartialEq)]
pub enum Trigger<'a> {
    /// A queried name.
    Name(&'a [u8]),
    /// All names below it; all names if it is empty.
    Below(&'a [u8]),
    /// An address in a response.
    Response(Prefix),
    /// The address of a client.
    Client(Prefix),
}

/// Parses an owner relative to its zone, which is not empty.
pub fn parse(owner: &[u8]) -> Result<Trigger<'_>, Reason> {
    if owner == b"*" {
        return Ok(Trigger::Below(b""));
    }
    let dot = memchr::memrchr(b'.', owner);
    let (front, last) = dot.map_or((&b""[..], owner), |dot| (&owner[..dot], &owner[dot + 1..]));
    if !last.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"rpz-")) {
        return Ok(match owner.strip_prefix(b"*.") {
            Some(name) => Trigger::Below(name),
            None => Trigger::Name(owner),
        });
    }
    let is = |kind: &str| last.eq_ignore_ascii_case(kind.as_bytes());
    if is(RESPONSE_IP) {
        prefix(front).map(Trigger::Response)
    } else if is(CLIENT_IP) {
        prefix(front).map(Trigger::Client)
    } else if is("rpz-nsdname") || is("rpz-nsip") {
        Err(Reason::NameServerTrigger)
    } else {
        Err(Reason::Unsupported("a trigger of an unknown kind"))
    }
}

/// `24.0.2.0.192`, or `32.zz.db8.2001` in IPv6. Like BIND, this takes only the canonical form.
fn prefix(text: &[u8]) -> Result<Prefix, Reason> {
    const EXPECTED: &str = "not an address such as `24.0.2.0.192` for 192.0.2.0/24 or `32.zz.db8.2001`";
    let text = std::str::from_utf8(text).map_err(|_| Reason::NotAnAddress(EXPECTED))?.to_ascii_lowercase();
    let mut labels: Vec<&str> = text.split('.').collect();
    labels.reverse();
    let (length, parts) = labels.split_last().ok_or(Reason::NotAnAddress(EXPECTED))?;
    let address = match parts {
        [_, _, _, _] if !parts.contains(&"zz") => parts
            .join(".")
            .parse::<Ipv4Addr>()
            .map(IpAddr::from)
            .map_err(|_| Reason::NotAnAddress(EXPECTED))?,
        _ => ipv6(parts).map(IpAddr::from).ok_or(Reason::NotAnAddress(EXPECTED))?,
    };
    let prefix = Prefix::read(&format!("{address}/{length}")).map_err(|invalid| match invalid {
        InvalidPrefix::HostBits => Reason::HostBits,
        InvalidPrefix::Mapped => Reason::NotAnAddress("an IPv4 address written as IPv6: write it as IPv4"),
        InvalidPrefix::Other => Reason::NotAnAddress("the number of bits is not one that the address has"),
    })?;
    if prefix.length == 0 {
        return Err(Reason::TooWide(1));
    }
    match prefix.rpz_owner() == text {
        true => Ok(prefix),
        false => Err(Reason::NotAnAddress(
            "not in its canonical form: no leading zeros, and `zz` for the longest run of zero parts",
        )),
    }
}

/// Parts of an IPv6 address from the left, with at most one `zz` for several zero parts.
fn ipv6(parts: &[&str]) -> Option<Ipv6Addr> {
    let zeros = parts.iter().filter(|part| **part == "zz").count();
    let given = parts.len() - zeros;
    if zeros > 1 || zeros == 0 && given != 8 || given > 8 {
        return None;
    }
    let mut numbers = [0; 8];
    let mut at = 0;
    for part in parts {
        if *part == "zz" {
            at += 8 - given;
        } else {
            *numbers.get_mut(at)? = u16::from_str_radix(part, 16).ok().filter(|_| part.len() <= 4)?;
            at += 1;
        }
    }
    Some(Ipv6Addr::from(numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_wildcards_and_addresses_are_distinguished() {
        let address = |text| Prefix::from_text(text).unwrap();
        for (owner, expected) in [
            ("a.example", Trigger::Name(b"a.example")),
            ("*.a.example", Trigger::Below(b"a.example")),
            ("com", Trigger::Name(b"com")),
            ("*", Trigger::Below(b"")),
            ("32.1.2.0.192.rpz-ip", Trigger::Response(address("192.0.2.1"))),
            ("24.0.2.0.192.RPZ-IP", Trigger::Response(address("192.0.2.0/24"))),
            ("32.zz.DB8.2001.rpz-client-ip", Trigger::Client(address("2001:db8::/32"))),
            ("128.1.zz.rpz-ip", Trigger::Response(address("::1"))),
            ("128.1.0.0.1.zz.db8.2001.rpz-ip", Trigger::Response(address("2001:db8:0:0:1:0:0:1"))),
            ("rpz-ip.example", Trigger::Name(b"rpz-ip.example")),
        ] {
            assert_eq!(parse(owner.as_bytes()), Ok(expected), "{owner}");
        }
    }

    #[test]
    fn a_prefix_that_other_servers_ignore_is_rejected() {
        for (owner, code) in [
            ("24.1.2.0.192.rpz-ip", "host_bits"),
            ("64.1.zz.db8.2001.rpz-ip", "host_bits"),
            ("33.1.2.0.192.rpz-ip", "not_an_address"),
            ("129.1.zz.rpz-ip", "not_an_address"),
            ("024.0.2.0.192.rpz-ip", "not_an_address"),
            ("24.0.02.0.192.rpz-ip", "not_an_address"),
            ("24.0.2.256.192.rpz-ip", "not_an_address"),
            ("128.1.0.0.0.0.0.db8.2001.rpz-ip", "not_an_address"),
            ("128.1.zz.1.zz.rpz-ip", "not_an_address"),
            ("32.zz.0db8.2001.rpz-ip", "not_an_address"),
            ("rpz-ip", "not_an_address"),
            ("*.rpz-ip", "not_an_address"),
            ("a.example.rpz-ip", "not_an_address"),
            ("0.0.0.0.0.rpz-client-ip", "too_wide"),
            ("0.zz.rpz-ip", "too_wide"),
            ("ns.a.example.rpz-nsdname", "name_server_trigger"),
            ("32.1.2.0.192.rpz-nsip", "name_server_trigger"),
            ("a.rpz-other", "unsupported"),
        ] {
            assert_eq!(parse(owner.as_bytes()).unwrap_err().code(), code, "{owner}");
        }
    }
}
