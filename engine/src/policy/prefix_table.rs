//! Prefixes with rules: the longest one that contains an address decides.

use std::net::IpAddr;

use crate::prefix::{Prefix, Prefixes};

/// A lookup is a binary search.
#[derive(Clone, Default)]
pub struct PrefixTable {
    /// In order, without duplicates.
    all: Prefixes,
    /// The rule of each prefix, in the same order.
    rules: Vec<u32>,
    /// Disjoint ranges in order, with the place of the longest prefix that contains them.
    ranges: Vec<(u128, u128, u32)>,
    /// The number of ranges of IPv4, which come first.
    ipv4: usize,
}

impl PrefixTable {
    /// All prefixes with one rule, the first one.
    pub fn of(prefixes: Vec<Prefix>) -> PrefixTable {
        PrefixTable::with_rules(prefixes.into_iter().map(|prefix| (prefix, 0)).collect())
    }

    /// Of equal prefixes, the first one counts.
    pub fn with_rules(mut given: Vec<(Prefix, u32)>) -> PrefixTable {
        given.sort_by_key(|(prefix, _)| (prefix.address, prefix.length));
        given.dedup_by(|next, previous| next.0 == previous.0);
        let all = Prefixes::new(given.iter().map(|(prefix, _)| *prefix));
        let mut ranges = Vec::with_capacity(given.len());
        let is_ipv6 = |(prefix, _): &(Prefix, u32)| prefix.address.is_ipv6();
        let first_ipv6 = given.partition_point(|one| !is_ipv6(one));
        flatten(&given[..first_ipv6], 0, &mut ranges);
        let ipv4 = ranges.len();
        flatten(&given[first_ipv6..], first_ipv6 as u32, &mut ranges);
        PrefixTable { all, rules: given.into_iter().map(|(_, rule)| rule).collect(), ranges, ipv4 }
    }

    /// The longest prefix that contains the address, and its rule. An IPv4-mapped address counts as IPv4.
    pub fn find(&self, address: IpAddr) -> Option<(Prefix, u32)> {
        let address = address.to_canonical();
        let (ipv4, ipv6) = self.ranges.split_at(self.ipv4);
        let (ranges, number) = match address {
            IpAddr::V4(address) => (ipv4, u128::from(address.to_bits())),
            IpAddr::V6(address) => (ipv6, address.to_bits()),
        };
        let after = ranges.partition_point(|&(first, ..)| first <= number);
        let &(_, last, place) = ranges.get(after.checked_sub(1)?)?;
        (number <= last).then(|| (self.all.all()[place as usize], self.rules[place as usize]))
    }

    /// Every prefix that contains the address, longest first, with its rule.
    pub fn covering(&self, address: IpAddr) -> Vec<(Prefix, u32)> {
        let rule = |prefix: Prefix| {
            let place = self.all.iter().position(|other| *other == prefix);
            (prefix, place.map_or(0, |place| self.rules[place]))
        };
        self.all.covering(address).into_iter().map(rule).collect()
    }

    pub fn prefixes(&self) -> &Prefixes {
        &self.all
    }

    /// The prefixes and their rules, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Prefix, u32)> {
        self.all.iter().zip(self.rules.iter().copied())
    }

    pub fn len(&self) -> usize {
        self.rules.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

/// Adds the ranges of prefixes in order of address and length: those that contain others are cut.
/// `place`: that of the first prefix.
fn flatten(given: &[(Prefix, u32)], place: u32, ranges: &mut Vec<(u128, u128, u32)>) {
    // The prefixes that contain the current address: the last address of each, and its place.
    let mut open: Vec<(u128, u32)> = Vec::new();
    // The first address without a range yet; `None` after the last one.
    let mut next = Some(0);
    for (own, (prefix, _)) in (place..).zip(given) {
        let (first, last) = prefix.range();
        while let Some(ended) = open.pop_if(|(last, _)| *last < first) {
            close(ended, &mut next, ranges);
        }
        if let (Some(&(_, outer)), Some(start)) = (open.last(), next.filter(|next| *next < first)) {
            ranges.push((start, first - 1, outer));
        }
        next = Some(first);
        open.push((last, own));
    }
    while let Some(ended) = open.pop() {
        close(ended, &mut next, ranges);
    }
}

/// Adds the rest of a prefix.
fn close((last, own): (u128, u32), next: &mut Option<u128>, ranges: &mut Vec<(u128, u128, u32)>) {
    if let Some(start) = next.filter(|next| *next <= last) {
        ranges.push((start, last, own));
        *next = last.checked_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compared with a naive model that checks each prefix.
    #[test]
    fn the_longest_prefix_decides() {
        let texts = [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.2.0/24",
            "10.1.2.3",
            "10.1.3.0/24",
            "192.0.2.1",
            "255.255.255.255",
            "2001:db8::/32",
            "2001:db8::1",
            "2001:db8:1::/48",
            "::/0",
            "ffff::/16",
        ];
        for skipped in 0..=texts.len() {
            let own = texts.iter().enumerate().filter(|(place, _)| *place != skipped);
            let given: Vec<(Prefix, u32)> =
                own.map(|(place, text)| (Prefix::from_text(text).unwrap(), place as u32)).collect();
            let table = PrefixTable::with_rules(given.clone());
            for text in [
                "0.0.0.0",
                "9.255.255.255",
                "10.0.0.0",
                "10.1.1.255",
                "10.1.2.2",
                "10.1.2.3",
                "10.1.2.4",
                "10.1.3.0",
                "10.1.4.0",
                "10.255.255.255",
                "11.0.0.0",
                "192.0.2.1",
                "192.0.2.2",
                "255.255.255.254",
                "255.255.255.255",
                "::",
                "2001:db7:ffff::",
                "2001:db8::",
                "2001:db8::1",
                "2001:db8::2",
                "2001:db8:1::",
                "2001:db8:2::",
                "2001:db9::",
                "ffff::1",
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "::ffff:10.1.2.3",
            ] {
                let address: IpAddr = text.parse().unwrap();
                let holding = given.iter().filter(|(prefix, _)| prefix.contains(address.to_canonical()));
                let longest = holding.max_by_key(|(prefix, _)| prefix.length).copied();
                assert_eq!(table.find(address), longest, "{text} without {skipped}");
                assert_eq!(table.covering(address.to_canonical()).first().copied(), longest);
            }
        }
    }
}
