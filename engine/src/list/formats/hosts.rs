//! Lines of a hosts file, hosts(5):
//!
//! ```text
//! 0.0.0.0 ads.example tracker.example  # comment
//! ```
//!
//! The address is ignored: the zone decides what clients get.

use std::net::IpAddr;

use super::{Entry, TakeEntry};
use crate::list::Reason;
use crate::list::tokens::{split_once, word};
use crate::policy::Match;

const EXPECTED: &str = "an address and names, as in `0.0.0.0 ads.example`";

pub fn parse(line: &[u8], scope: Match, take: &mut impl TakeEntry) -> Result<(), Reason> {
    // In hosts files, `#` starts a comment even in the middle of a word.
    let line = split_once(line, b'#').map_or(line, |(before, _)| before);
    let (address, mut rest) = word(line);
    if address.is_empty() {
        return Ok(());
    }
    if !is_address(address) || rest.trim_ascii().is_empty() {
        return Err(Reason::NotThisFormat(EXPECTED));
    }
    loop {
        let (name, after) = word(rest);
        if name.is_empty() {
            return Ok(());
        }
        // Lists made from a system's own file contain `0.0.0.0 0.0.0.0`.
        if name != address && !is_system_name(name) {
            take(Entry::wildcard(name, scope))?;
        }
        rest = after;
    }
}

/// Some systems append the network interface: `fe80::1%lo0`.
pub fn is_address(word: &[u8]) -> bool {
    let word = split_once(word, b'%').map_or(word, |(before, _)| before);
    std::str::from_utf8(word).is_ok_and(|word| word.parse::<IpAddr>().is_ok())
}

/// Names that every hosts file has for the system itself. They are not names of the DNS.
fn is_system_name(name: &[u8]) -> bool {
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    let is_ipv6 = name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"ip6-"));
    (is_ipv6 && !name.contains(&b'.'))
        || ["localhost", "localhost.localdomain", "local", "broadcasthost"].into_iter().any(is)
}

#[cfg(test)]
mod tests {
    use crate::list::Format;
    use crate::list::reader::tests::{code, listed};

    #[test]
    fn a_line_may_have_several_names() {
        let listed = |line| listed(Format::Hosts, line);
        assert_eq!(listed("0.0.0.0 a.example"), "exact a.example");
        assert_eq!(listed("::1\ta.example  b.example # c.example"), "exact a.example, exact b.example");
        assert_eq!(listed("fe80::1%lo0 a.example#why"), "exact a.example");
        assert_eq!(listed("203.0.113.7 a.example"), "exact a.example");
    }

    #[test]
    fn names_of_the_system_itself_are_ignored() {
        for line in [
            "127.0.0.1 localhost localhost.localdomain local",
            "255.255.255.255 broadcasthost",
            "ff02::1 IP6-allnodes",
            "0.0.0.0 0.0.0.0",
            "# 0.0.0.0 a.example",
        ] {
            assert_eq!(listed(Format::Hosts, line), "", "{line}");
        }
        assert_eq!(listed(Format::Hosts, "::1 localhost ip6-a.example"), "exact ip6-a.example");
    }

    #[test]
    fn other_lines_are_rejected() {
        let code = |line| code(Format::Hosts, line);
        for line in ["a.example", "0.0.0.0", "0.0.0 a.example", "<html> a.example"] {
            assert_eq!(code(line), "not_this_format", "{line}");
        }
        assert_eq!(code("0.0.0.0 192.0.2.1"), "address");
        assert_eq!(code("127.0.1.1 my-machine"), "top_level");
        assert_eq!(code("0.0.0.0 a.example b..example"), "empty_label");
    }
}
