//! A naive model of the records that stay in a response: those outside the chain are dropped if the
//! policy blocks their owner, target or address.

use std::net::IpAddr;

use crate::engine::{BADNETS, BADNETS_AT, POLICY};
use crate::parsing::{Record, Response, labels};
use crate::query::naive;
use crate::response::{Parsed, TYPE_DNAME, names_of_chain};

type Labels = Vec<Vec<u8>>;

/// Types of records with addresses.
const ADDRESSES: [u16; 4] = [1, 28, 64, 65];

pub fn is_bad(address: &IpAddr) -> bool {
    BADNETS.iter().any(|(net, length)| match (net, address) {
        (IpAddr::V4(net), IpAddr::V4(host)) => {
            net.octets().starts_with(&host.octets()[..*length as usize / 8])
        }
        (IpAddr::V6(net), IpAddr::V6(host)) => {
            net.octets().starts_with(&host.octets()[..*length as usize / 8])
        }
        _ => false,
    })
}

/// Whether the target of an HTTPS or SVCB record of the owner is the owner itself.
pub fn uses_itself(owner: &Labels, answers: &[Record]) -> bool {
    let is_itself = |record: &&Record| matches!(record.rtype, 64 | 65) && record.target == Some(vec![0]);
    answers.iter().filter(is_itself).any(|record| labels(&record.owner) == *owner)
}

/// Checks the records of a response that was relayed.
pub fn check_left(parsed: &Parsed, queried: Labels, over_tcp: bool, response: &[u8]) {
    let all = parsed.sections.iter().flatten();
    // Such data is copied unchanged, and the record may have moved.
    if response[2] & 2 != 0 || all.clone().any(|record| record.may_point) {
        return;
    }
    let judged = if parsed.is_failure() { Judged::default() } else { Judged::new(parsed, queried, over_tcp) };
    let stays = |place: &(usize, &Record)| judged.stays(parsed, *place, over_tcp);
    let left = Response::read(response);
    for (number, section) in parsed.sections.iter().enumerate() {
        let expected: Vec<Record> =
            section.iter().map(|record| (number, record)).filter(stays).map(|(_, r)| r.clone()).collect();
        assert_eq!(left.sections[number], expected, "section {number} of {response:02x?}");
    }
    let before = parsed.sections.iter().flatten().count();
    let is_whole = left.sections.iter().flatten().count() == before;
    assert!(is_whole || response[3] & 0x20 == 0, "AD although records were dropped");
}

/// The names of the chain, and the alternatives at its end; each with whether records of the
/// additional section count, too.
struct Judged {
    in_chain: Vec<(Labels, bool)>,
    /// Each with how many zones judge it.
    offered: Vec<(Labels, bool, usize)>,
    /// How many zones judge all other names.
    first: usize,
}

impl Default for Judged {
    fn default() -> Judged {
        Judged { in_chain: Vec::new(), offered: Vec::new(), first: usize::MAX }
    }
}

impl Judged {
    fn new(parsed: &Parsed, queried: Labels, over_tcp: bool) -> Judged {
        let answers = &parsed.sections[0];
        let both: Vec<Record> = answers.iter().chain(&parsed.sections[2]).cloned().collect();
        let chained = names_of_chain(queried, answers);
        let last = chained[chained.len() - 1].clone();
        let uses_itself = uses_itself(&last, answers);
        let (_, first) = exempted(&chained[1..], usize::MAX, over_tcp);
        let mut offered = vec![(last, uses_itself, first)];
        let mut in_chain: Vec<(Labels, bool)> = chained.into_iter().map(|name| (name, false)).collect();
        let mut next = 0;
        while let Some((owner, with_additional, first)) = offered.get(next).cloned() {
            next += 1;
            for record in if with_additional { &both } else { answers } {
                let target = record.target.as_deref().map(labels).filter(|name| !name.is_empty());
                let Some(target) = target.filter(|_| matches!(record.rtype, 64 | 65)) else { continue };
                if labels(&record.owner) != owner {
                    continue;
                }
                let followed_chain = names_of_chain(target, &both);
                let (followed, first) = exempted(&followed_chain, first, over_tcp);
                let last = followed_chain[followed_chain.len() - 1].clone();
                in_chain.extend(followed_chain.into_iter().take(followed).map(|name| (name, true)));
                let is_new = |before: &(Labels, bool, usize)| before.0 != last || before.2 < first;
                // A target that a passthru of the first zone exempts is not followed.
                if first > 0 && offered[1..].iter().all(is_new) {
                    offered.push((last, true, first));
                }
            }
        }
        Judged { in_chain, offered, first }
    }

    /// Whether a record of this section is relayed.
    fn stays(&self, parsed: &Parsed, (section, record): (usize, &Record), over_tcp: bool) -> bool {
        if self.was_judged(parsed, section, record) {
            return true;
        }
        let by_name = decides(&labels(&record.owner), self.first, over_tcp);
        let kind = kind(record);
        let same = |(number, other): &(usize, &Record)| {
            other.rtype == kind && other.owner == record.owner && !self.was_judged(parsed, *number, other)
        };
        let numbered = parsed.sections.iter().enumerate();
        let rrset: Vec<_> = numbered.flat_map(|(n, s)| s.iter().map(move |r| (n, r))).filter(same).collect();
        if !ADDRESSES.contains(&kind) || rrset.is_empty() {
            return !blocks(by_name);
        }
        !rrset.iter().any(|(_, other)| {
            let target = other.target.as_deref().map(labels).filter(|name| !name.is_empty());
            let by_target = target.and_then(|name| decides(&name, self.first, over_tcp));
            let by_names = by_name.into_iter().chain(by_target).min_by_key(|(zone, _)| *zone);
            match other.addresses.is_empty() {
                true => blocks(by_name),
                false => other.addresses.iter().any(|address| {
                    let is_listed = BADNETS_AT < self.first && is_bad(address);
                    let by_address = is_listed.then_some((BADNETS_AT, "nodata"));
                    blocks(by_names.into_iter().chain(by_address).min_by_key(|(zone, _)| *zone))
                }),
            }
        })
    }

    fn was_judged(&self, parsed: &Parsed, section: usize, record: &Record) -> bool {
        let kind = kind(record);
        let owner = labels(&record.owner);
        let holds = |(name, with_additional): &&(Labels, bool)| {
            *name == owner && (section == 0 || section == 2 && *with_additional)
        };
        let has_dname = parsed.sections.iter().flatten().any(|record| record.rtype == TYPE_DNAME);
        let is_above = |(name, with_additional): &(Labels, bool)| {
            let is_held = section == 0 || section == 2 && *with_additional;
            has_dname && is_held && name.len() > owner.len() && name.ends_with(&owner)
        };
        let is_in_chain = self.in_chain.iter().any(|name| holds(&name))
            || kind == TYPE_DNAME && self.in_chain.iter().any(is_above);
        self.offered.iter().any(|(name, both, _)| holds(&&(name.clone(), *both)))
            && ADDRESSES.contains(&record.rtype)
            || is_in_chain && !ADDRESSES.contains(&record.rtype)
            || section == 1 && matches!(kind, 6 | 47 | 50)
    }
}

/// The type, or for an RRSIG the type that it covers.
fn kind(record: &Record) -> u16 {
    const NAMES: [(&str, u16); 8] = [
        ("a", 1),
        ("aaaa", 28),
        ("svcb", 64),
        ("https", 65),
        ("soa", 6),
        ("nsec", 47),
        ("nsec3", 50),
        ("dname", TYPE_DNAME),
    ];
    let covered = record.data.split(' ').next().unwrap_or_default();
    let known = NAMES.iter().find(|(name, _)| *name == covered);
    match record.rtype {
        46 => known.map_or(0, |(_, number)| *number),
        other => other,
    }
}

/// How many of these names are judged, and how many zones judge later names. A passthru exempts them
/// from its own zone and from the zones after it. A passthru of the first zone ends the chain.
fn exempted(names: &[Labels], mut first: usize, over_tcp: bool) -> (usize, usize) {
    for (place, name) in names.iter().enumerate() {
        if let Some((zone, "passthru")) = decides(name, first, over_tcp) {
            first = zone;
            if first == 0 {
                return (place, first);
            }
        }
    }
    (names.len(), first)
}

/// The zone, among the first, that decides about a name as a target, and its action.
pub fn decides(name: &[Vec<u8>], first: usize, over_tcp: bool) -> Option<(usize, &'static str)> {
    let places =
        POLICY.into_iter().enumerate().map(|(place, zone)| (place + usize::from(place >= BADNETS_AT), zone));
    let mut judging = places.filter(|(place, (_, judges, _))| *judges && *place < first);
    judging
        .find_map(|(place, zone)| naive(name, &[zone], over_tcp).map(|(_, (_, action, _))| (place, action)))
}

fn blocks(decision: Option<(usize, &'static str)>) -> bool {
    decision.is_some_and(|(_, action)| action != "passthru")
}
