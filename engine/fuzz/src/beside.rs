//! The naive twin of what is left of a response whose way was judged: its records beside
//! the way without those that the policy blocks.

use std::net::IpAddr;

use crate::query::naive;
use crate::reading::{Record, Response, labels};
use crate::response::{Read, TYPE_DNAME, way};
use crate::world::{BADNETS, BADNETS_AT, POLICY};

type Labels = Vec<Vec<u8>>;

/// Types whose records hold addresses.
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

/// Whether an HTTPS or SVCB record of the owner is about the owner itself.
pub fn uses_itself(owner: &Labels, answers: &[Record]) -> bool {
    let is_itself = |record: &&Record| matches!(record.rtype, 64 | 65) && record.target == Some(vec![0]);
    answers.iter().filter(is_itself).any(|record| labels(&record.owner) == *owner)
}

/// Checks what is relayed of a response that passed.
pub fn check_left(said: &Read, queried: Labels, over_tcp: bool, response: &[u8]) {
    let all = said.sections.iter().flatten();
    // Such data is copied as it is, and the record may have moved.
    if response[2] & 2 != 0 || all.clone().any(|record| record.may_point) {
        return;
    }
    let judged = if said.is_failure() { Judged::default() } else { Judged::new(said, queried, over_tcp) };
    let stays = |place: &(usize, &Record)| judged.stays(said, *place, over_tcp);
    let left = Response::read(response);
    for (number, section) in said.sections.iter().enumerate() {
        let expected: Vec<Record> =
            section.iter().map(|record| (number, record)).filter(stays).map(|(_, r)| r.clone()).collect();
        assert_eq!(left.sections[number], expected, "section {number} of {response:02x?}");
    }
    let before = said.sections.iter().flatten().count();
    let is_whole = left.sections.iter().flatten().count() == before;
    assert!(is_whole || response[3] & 0x20 == 0, "AD although records were dropped");
}

/// Names on the way, and names whose records were offered at its end; each with whether those
/// of the additional section count, too.
struct Judged {
    on_way: Vec<(Labels, bool)>,
    /// And how many zones judge them.
    offered: Vec<(Labels, bool, usize)>,
    /// How many zones judge all others.
    first: usize,
}

impl Default for Judged {
    fn default() -> Judged {
        Judged { on_way: Vec::new(), offered: Vec::new(), first: usize::MAX }
    }
}

impl Judged {
    fn new(said: &Read, queried: Labels, over_tcp: bool) -> Judged {
        let answers = &said.sections[0];
        let both: Vec<Record> = answers.iter().chain(&said.sections[2]).cloned().collect();
        let chained = way(queried, answers);
        let last = chained[chained.len() - 1].clone();
        let uses_itself = uses_itself(&last, answers);
        let (_, first) = freed(&chained[1..], usize::MAX, over_tcp);
        let mut offered = vec![(last, uses_itself, first)];
        let mut on_way: Vec<(Labels, bool)> = chained.into_iter().map(|name| (name, false)).collect();
        let mut next = 0;
        while let Some((owner, with_additional, first)) = offered.get(next).cloned() {
            next += 1;
            for record in if with_additional { &both } else { answers } {
                let target = record.target.as_deref().map(labels).filter(|name| !name.is_empty());
                let Some(target) = target.filter(|_| matches!(record.rtype, 64 | 65)) else { continue };
                if labels(&record.owner) != owner {
                    continue;
                }
                let led = way(target, &both);
                let (followed, first) = freed(&led, first, over_tcp);
                let last = led[led.len() - 1].clone();
                on_way.extend(led.into_iter().take(followed).map(|name| (name, true)));
                let is_new = |before: &(Labels, bool, usize)| before.0 != last || before.2 < first;
                // One that a passthru of the first zone frees is not followed.
                if first > 0 && offered[1..].iter().all(is_new) {
                    offered.push((last, true, first));
                }
            }
        }
        Judged { on_way, offered, first }
    }

    /// Whether a record of this section is passed on.
    fn stays(&self, said: &Read, (section, record): (usize, &Record), over_tcp: bool) -> bool {
        if self.was_judged(said, section, record) {
            return true;
        }
        let by_name = decides(&labels(&record.owner), self.first, over_tcp);
        let kind = kind(record);
        let same = |(number, other): &(usize, &Record)| {
            other.rtype == kind && other.owner == record.owner && !self.was_judged(said, *number, other)
        };
        let numbered = said.sections.iter().enumerate();
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

    fn was_judged(&self, said: &Read, section: usize, record: &Record) -> bool {
        let kind = kind(record);
        let owner = labels(&record.owner);
        let holds = |(name, with_additional): &&(Labels, bool)| {
            *name == owner && (section == 0 || section == 2 && *with_additional)
        };
        let has_dname = said.sections.iter().flatten().any(|record| record.rtype == TYPE_DNAME);
        let is_above = |(name, with_additional): &(Labels, bool)| {
            let is_held = section == 0 || section == 2 && *with_additional;
            has_dname && is_held && name.len() > owner.len() && name.ends_with(&owner)
        };
        let is_on_way = self.on_way.iter().any(|name| holds(&name))
            || kind == TYPE_DNAME && self.on_way.iter().any(is_above);
        self.offered.iter().any(|(name, both, _)| holds(&&(name.clone(), *both)))
            && ADDRESSES.contains(&record.rtype)
            || is_on_way && !ADDRESSES.contains(&record.rtype)
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

/// How many of these names are looked at, and how many zones judge what comes then: a passthru
/// frees from its own zone and those after it, and one of the first zone ends the way.
fn freed(names: &[Labels], mut first: usize, over_tcp: bool) -> (usize, usize) {
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

/// By which of the first zones, and how, a name is decided about as a target.
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
