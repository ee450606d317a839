//! Address prefixes: in the access control list, in `limits.exempt`, and in lists of blocked
//! addresses.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// The addresses that share their first `length` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    pub address: IpAddr,
    pub length: u8,
}

/// Why a text is not a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidPrefix {
    /// A bit is set after the prefix, so address or length is a mistake.
    HostBits,
    /// An IPv4 address in IPv6 notation.
    Mapped,
    Other,
}

/// The name above all IP triggers of RPZ (draft-vixie-dnsop-dns-rpz-00 section 4.3).
const TRIGGERS: &str = "rpz-ip";

impl Prefix {
    /// Parses `192.0.2.1`, `192.0.2.0/24` or `2001:db8::/32`.
    pub fn from_text(text: &str) -> Option<Prefix> {
        Prefix::read(text).ok()
    }

    /// As `from_text`, with the reason of a failure.
    pub fn read(text: &str) -> Result<Prefix, InvalidPrefix> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| InvalidPrefix::Other)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let length: u8 = match length {
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().map_err(|_| InvalidPrefix::Other)?
            }
            Some(_) => return Err(InvalidPrefix::Other),
            None => bits,
        };
        if length > bits {
            return Err(InvalidPrefix::Other);
        }
        // Lookups of ::ffff:192.0.2.1 are lookups of the IPv4 address.
        if address.to_canonical().is_ipv4() != address.is_ipv4() {
            return Err(InvalidPrefix::Mapped);
        }
        let prefix = Prefix { address, length };
        if prefix.range().0 == integer(address) { Ok(prefix) } else { Err(InvalidPrefix::HostBits) }
    }

    /// The prefix as the name of an RPZ trigger, but without `zz`: `24.0.2.0.192.rpz-ip`.
    pub fn trigger(&self) -> String {
        self.trigger_of(TRIGGERS)
    }

    /// The same with another last label.
    pub fn trigger_of(&self, kind: &str) -> String {
        let mut text = self.length.to_string();
        match self.address {
            IpAddr::V4(address) => {
                address.octets().iter().rev().for_each(|byte| text += &format!(".{byte}"));
            }
            IpAddr::V6(address) => {
                address.segments().iter().rev().for_each(|part| text += &format!(".{part:x}"));
            }
        }
        text + "." + kind
    }

    /// The owner of an RPZ trigger without its last label, as other software writes it: in IPv6, the first
    /// longest run of at least two zero parts is `zz`.
    pub fn rpz_owner(&self) -> String {
        let mut parts: Vec<String> = match self.address {
            IpAddr::V4(address) => address.octets().iter().map(u8::to_string).collect(),
            IpAddr::V6(address) => {
                let mut parts: Vec<String> =
                    address.segments().iter().map(|part| format!("{part:x}")).collect();
                let (first, length) = longest_zeros(address);
                if length > 1 {
                    parts.splice(first..first + length, [String::from("zz")]);
                }
                parts
            }
        };
        parts.push(self.length.to_string());
        parts.reverse();
        parts.join(".")
    }

    /// The inverse of `trigger`.
    pub fn from_trigger(name: &str) -> Option<Prefix> {
        let mut labels: Vec<&str> = name.strip_suffix(TRIGGERS)?.strip_suffix('.')?.split('.').collect();
        labels.reverse();
        let (length, parts) = labels.split_last()?;
        let text = parts.join(if parts.len() == 4 { "." } else { ":" });
        let prefix = Prefix::from_text(&format!("{text}/{length}"))?;
        (prefix.trigger() == name).then_some(prefix)
    }

    /// Its length as IPv6, by which RPZ compares both families (draft-vixie-dnsop-dns-rpz-00 section 5.6).
    pub fn rpz_length(&self) -> u8 {
        if self.address.is_ipv4() { self.length + 96 } else { self.length }
    }

    /// Its first address as IPv6 (section 5.7).
    pub fn rpz_address(&self) -> u128 {
        match self.address {
            IpAddr::V4(address) => u128::from(address.to_ipv6_mapped()),
            IpAddr::V6(address) => address.to_bits(),
        }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let (first, last) = self.range();
        address.is_ipv4() == self.address.is_ipv4() && (first..=last).contains(&integer(address))
    }

    /// The first and last address, as integers.
    pub fn range(&self) -> (u128, u128) {
        let bits = if self.address.is_ipv4() { 32 } else { 128 };
        let host_bits = bits - u32::from(self.length).min(bits);
        let hosts = 1u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1);
        let first = integer(self.address) & !hosts;
        (first, first | hosts)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

fn longest_zeros(address: Ipv6Addr) -> (usize, usize) {
    let parts = address.segments();
    let length = |first: usize| parts[first..].iter().take_while(|part| **part == 0).count();
    (0..parts.len())
        .map(|first| (first, length(first)))
        .rev()
        .max_by_key(|(_, length)| *length)
        .unwrap_or((0, 0))
}

fn integer(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// A set of prefixes. A lookup is a binary search.
#[derive(Clone, Debug, Default)]
pub struct Prefixes {
    /// The original prefixes, without duplicates.
    given: Vec<Prefix>,
    /// Disjoint ranges in order.
    ipv4: Vec<(u128, u128)>,
    ipv6: Vec<(u128, u128)>,
}

impl Prefixes {
    pub fn new(prefixes: impl IntoIterator<Item = Prefix>) -> Prefixes {
        let mut given: Vec<Prefix> = prefixes.into_iter().collect();
        given.sort_unstable_by_key(|prefix| (prefix.address, prefix.length));
        given.dedup();
        let ranges = |ipv4: bool| {
            let of_family = given.iter().filter(|prefix| prefix.address.is_ipv4() == ipv4);
            let mut ranges: Vec<_> = of_family.map(Prefix::range).collect();
            // Prefixes nest or are disjoint: one that begins within the previous one is in it.
            ranges.sort_unstable_by_key(|&(first, last)| (first, u128::MAX - last));
            ranges.dedup_by(|next, previous| next.0 <= previous.1);
            ranges
        };
        Prefixes { ipv4: ranges(true), ipv6: ranges(false), given }
    }

    /// Whether any prefix contains the address. An IPv4-mapped address, as from a dual-stack
    /// socket, counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let ranges = if address.is_ipv4() { &self.ipv4 } else { &self.ipv6 };
        let integer = integer(address);
        let after = ranges.partition_point(|&(first, _)| first <= integer);
        after > 0 && integer <= ranges[after - 1].1
    }

    /// Whether one of the prefixes contains this whole prefix.
    pub fn include(&self, prefix: &Prefix) -> bool {
        let ranges = if prefix.address.is_ipv4() { &self.ipv4 } else { &self.ipv6 };
        let (first, last) = prefix.range();
        let after = ranges.partition_point(|&(begin, _)| begin <= first);
        after > 0 && last <= ranges[after - 1].1
    }

    /// The prefixes that contain the address, longest first.
    pub fn covering(&self, address: IpAddr) -> Vec<Prefix> {
        let mut covering: Vec<Prefix> =
            self.given.iter().filter(|prefix| prefix.contains(address)).copied().collect();
        covering.sort_unstable_by_key(|prefix| std::cmp::Reverse(prefix.length));
        covering
    }

    /// The original prefixes, in order of address and length.
    pub fn all(&self) -> &[Prefix] {
        &self.given
    }

    /// The same in turn.
    pub fn iter(&self) -> impl Iterator<Item = &Prefix> {
        self.given.iter()
    }

    pub fn len(&self) -> usize {
        self.given.len()
    }

    pub fn is_empty(&self) -> bool {
        self.given.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        Prefix::from_text(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn invalid_prefixes_are_refused() {
        for text in [
            "",
            "/",
            "1.2.3",
            "1.2.3.4/33",
            "1.2.3.4/24",
            "::/129",
            "2001:db8::1/32",
            "1.2.3.4/+8",
            "::ffff:192.0.2.0/120",
        ] {
            assert_eq!(Prefix::from_text(text), None, "{text}");
        }
        assert_eq!(prefix("192.0.2.0/24").to_string(), "192.0.2.0/24");
        assert_eq!(prefix("2001:db8::1").length, 128);
    }

    #[test]
    fn triggers_are_written_and_parsed() {
        for (text, name) in [
            ("192.0.2.0/24", "24.0.2.0.192.rpz-ip"),
            ("198.51.100.7", "32.7.100.51.198.rpz-ip"),
            ("2001:db8::/32", "32.0.0.0.0.0.0.db8.2001.rpz-ip"),
            ("::1", "128.1.0.0.0.0.0.0.0.rpz-ip"),
        ] {
            assert_eq!(prefix(text).trigger(), name);
            assert_eq!(Prefix::from_trigger(name), Some(prefix(text)));
        }
        for name in [
            "",
            "rpz-ip",
            ".rpz-ip",
            "24.2.0.192.rpz-ip",
            "24.1.2.0.192.rpz-ip",
            "024.0.2.0.192.rpz-ip",
            "32.zz.db8.2001.rpz-ip",
            "24.0.2.0.192.example",
        ] {
            assert_eq!(Prefix::from_trigger(name), None, "{name}");
        }
    }

    #[test]
    fn a_prefix_is_written_in_the_only_form_that_others_accept() {
        let text = |text: &str| prefix(text).rpz_owner();
        assert_eq!(text("192.0.2.0/24"), "24.0.2.0.192");
        assert_eq!(text("2001:db8::/32"), "32.zz.db8.2001");
        assert_eq!(text("2001:db8:0:1:1:1:1:1"), "128.1.1.1.1.1.0.db8.2001");
        assert_eq!(text("2001:db8:0:0:1:0:0:1"), "128.1.0.0.1.zz.db8.2001");
        assert_eq!(text("::1"), "128.1.zz");
    }

    /// Compared with a naive model that checks each prefix.
    #[test]
    fn a_set_contains_the_addresses_of_its_prefixes() {
        let texts = [
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.2.0/24",
            "192.0.2.1",
            "192.0.2.2",
            "198.51.100.0/31",
            "255.255.255.255",
            "2001:db8::/32",
            "2001:db8:1::/48",
            "::1",
            "fe80::/10",
        ]; // nested, neighbours, ends of the range
        let set = Prefixes::new(texts.map(prefix));
        let addresses = [
            "9.255.255.255",
            "10.0.0.0",
            "10.1.2.3",
            "10.255.255.255",
            "11.0.0.0",
            "192.0.2.0",
            "192.0.2.1",
            "192.0.2.3",
            "198.51.100.1",
            "198.51.100.2",
            "255.255.255.255",
            "0.0.0.0",
            "::",
            "::1",
            "::2",
            "2001:db8::",
            "2001:db9::",
            "2001:db7:ffff::",
            "febf::1",
            "ffff::",
        ];
        for text in addresses {
            let address: IpAddr = text.parse().unwrap();
            let naive = texts.iter().filter(|text| prefix(text).contains(address)).count();
            assert_eq!(set.contains(address), naive > 0, "{text}");
            assert_eq!(set.covering(address).len(), naive, "{text}");
        }
        assert!(set.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!Prefixes::default().contains("::1".parse().unwrap()));
        assert!(Prefixes::new([prefix("0.0.0.0/0")]).contains("255.1.2.3".parse().unwrap()));
        assert!(Prefixes::new([prefix("::/0")]).contains("ffff::1".parse().unwrap()));
        assert_eq!(set.covering("10.1.2.3".parse().unwrap())[0], prefix("10.1.2.0/24"));
    }
}
