//! NAT64: IPv4 addresses embedded in IPv6 addresses (RFC 6052). A listed IPv4 network is blocked in
//! this form as well, for clients that have only IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::prefix::Prefix;

/// The lengths of prefixes, in bits (RFC 6052 2.2).
const LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];
/// RFC 6052 2.1: 64:ff9b::/96.
const WELL_KNOWN: Prefix =
    Prefix { address: IpAddr::V6(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0)), length: 96 };

/// The prefixes of the translators: the configured ones, then the well-known one.
#[derive(Clone, Debug, PartialEq)]
pub struct Nat64(Vec<Prefix>);

impl Default for Nat64 {
    fn default() -> Nat64 {
        Nat64(vec![WELL_KNOWN])
    }
}

impl Nat64 {
    /// `None` if a prefix is of IPv4 or has an invalid length.
    pub fn new(configured: impl IntoIterator<Item = Prefix>) -> Option<Nat64> {
        let mut prefixes: Vec<Prefix> = configured.into_iter().collect();
        if prefixes.iter().any(|prefix| prefix.address.is_ipv4() || !LENGTHS.contains(&prefix.length)) {
            return None;
        }
        prefixes.retain(|prefix| *prefix != WELL_KNOWN);
        prefixes.sort_unstable_by_key(|prefix| (prefix.address, prefix.length));
        prefixes.dedup();
        prefixes.push(WELL_KNOWN);
        Some(Nat64(prefixes))
    }

    /// The configured prefixes.
    pub fn configured(&self) -> &[Prefix] {
        &self.0[..self.0.len() - 1]
    }

    /// The address itself, and the IPv4 addresses that are embedded in it.
    pub fn with_embedded(&self, address: IpAddr) -> impl Iterator<Item = IpAddr> + Clone {
        let embedded = self.0.iter().filter(move |prefix| prefix.contains(address));
        [address].into_iter().chain(embedded.filter_map(move |prefix| match address {
            IpAddr::V6(address) => Some(embedded_in(address, prefix.length).into()),
            IpAddr::V4(_) => None,
        }))
    }
}

/// RFC 6052 2.2: the 32 bits after the prefix, without bits 64 to 71.
fn embedded_in(address: Ipv6Addr, length: u8) -> Ipv4Addr {
    let mut bytes = [0; 4];
    let indexes = (usize::from(length) / 8..16).filter(|index| *index != 8);
    for (byte, index) in bytes.iter_mut().zip(indexes) {
        *byte = address.octets()[index];
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6052 2.4, table 2.
    #[test]
    fn the_ipv4_address_is_found_after_prefixes_of_each_length() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let examples = [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
        ];
        for (prefix, text) in examples {
            let nat64 = Nat64::new([Prefix::from_text(prefix).unwrap()]).unwrap();
            let found: Vec<IpAddr> = nat64.with_embedded(address(text)).collect();
            assert_eq!(found, [address(text), address("192.0.2.33")], "{prefix}");
        }
        let nat64 = Nat64::default();
        for text in ["192.0.2.33", "2001:db8::1", "64:ff9b:1::192.0.2.33"] {
            assert_eq!(nat64.with_embedded(address(text)).count(), 1, "{text}");
        }
        assert!(nat64.configured().is_empty());
        assert!(Nat64::new([Prefix::from_text("2001:db8::/33").unwrap()]).is_none());
        assert!(Nat64::new([Prefix::from_text("192.0.2.1").unwrap()]).is_none());
    }
}
