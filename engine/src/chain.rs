//! Where an upstream's response leads the client: along CNAME and DNAME to another
//! name, and from there by HTTPS and SVCB to further names and addresses.
//!
//! Where two clients could go different ways, or without end, none is passed over: a
//! client might be led where it must not go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::message::{Section, rtype, u16_at};
use crate::name::Name;
use crate::policy::seed;
use crate::response::{Entry, Mark, Response};

/// Steps of one chain at most. Resolvers follow 8 to 16, so a response with more is
/// none of theirs; it is refused, since one step further may be a blocked name.
const STEPS: usize = 64;
/// Steps of all chains of one response together: more than it can hold records, so only
/// one whose names all lead through the same long chain needs more.
const STEPS_IN_ALL: usize = 4096;
/// Records looked at for all chains of one response together: a chain of no step costs looks, too. A response of
/// thousands of HTTPS records that all lead to one name with as many records would cost seconds.
const LOOKS_IN_ALL: usize = 1 << 16;
/// CNAME and DNAME records of a response that holds a DNAME: what a chain may have.
const WAYS: usize = 2 * STEPS;

/// There are two ways from one name, or a chain without end.
#[derive(Debug)]
pub struct AmbiguousChain;

/// Where a chain ends.
pub enum End<D> {
    /// At a name that `judge` had something to say about.
    Judged(D),
    /// At this name.
    Name(Name),
}

/// Where the ways begin that are looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sections {
    Answer,
    /// In the additional section, too: what stands there about a name to which an HTTPS or SVCB
    /// record leads may be used as well (RFC 9460 4.1).
    Both,
}

impl Sections {
    fn hold(self, entry: &Entry) -> bool {
        match entry.section {
            Section::Answer => true,
            Section::Authority => false,
            Section::Additional => self == Sections::Both,
        }
    }
}

/// All the chains of one response.
pub struct Chains<'a> {
    response: Response<'a>,
    steps_left: usize,
    looks_left: usize,
}

impl<'a> Chains<'a> {
    pub fn new(response: Response<'a>) -> Result<Chains<'a>, AmbiguousChain> {
        check_dnames(response)?;
        Ok(Chains { response, steps_left: STEPS_IN_ALL, looks_left: LOOKS_IN_ALL })
    }

    /// Walks from a name along CNAME (RFC 1034 3.6.2) and DNAME (RFC 6672 2.2), in whichever
    /// order they stand, and asks `judge` about each name on the way, but the first.
    pub fn walk<D>(
        &mut self,
        sections: Sections,
        from: &Name,
        mut judge: impl FnMut(&Name) -> Option<D>,
    ) -> Result<End<D>, AmbiguousChain> {
        let mut here = from.clone();
        // Names are long, and hashes of them enough to see that it goes round.
        let mut left = [0; STEPS];
        for step in 0.. {
            let Some(next) = self.way(sections, &here)? else { return Ok(End::Name(here)) };
            if let Some(judged) = judge(&next) {
                return Ok(End::Judged(judged));
            }
            let hash = |name: &Name| xxh3_64_with_seed(name.suffix(0), seed());
            *left.get_mut(step).ok_or(AmbiguousChain)? = hash(&here);
            self.steps_left = self.steps_left.checked_sub(1).ok_or(AmbiguousChain)?;
            if left[..=step].contains(&hash(&next)) {
                // It goes round, and all of it was judged.
                return Ok(End::Name(next));
            }
            here = next;
        }
        unreachable!("the steps are counted");
    }

    /// The one way that leads on from a name. The same record twice is one (RFC 2181 5); of
    /// others there can be no second (RFC 2181 10.1, RFC 6672 2.4).
    fn way(&mut self, sections: Sections, here: &Name) -> Result<Option<Name>, AmbiguousChain> {
        let response = self.response;
        let mut next: Option<Name> = None;
        for entry in response.of(here.suffix(0)) {
            self.looks_left = self.looks_left.checked_sub(1).ok_or(AmbiguousChain)?;
            if !sections.hold(entry) {
                continue;
            }
            entry.set(Mark::OnWay);
            if entry.rtype() == rtype::CNAME {
                take_only(&mut next, response.target(entry))?;
            }
        }
        let ancestors = if response.has_dname() { here.labels() } else { 0 };
        for skip in 1..=ancestors {
            for entry in response.of(here.suffix(skip)) {
                self.looks_left = self.looks_left.checked_sub(1).ok_or(AmbiguousChain)?;
                if !sections.hold(entry) {
                    continue;
                }
                if entry.belongs_to(response.message()) == rtype::DNAME {
                    entry.set(Mark::OnWay);
                }
                if entry.rtype() == rtype::DNAME {
                    match here.replace(skip, &response.target(entry)) {
                        Some(made) => take_only(&mut next, made)?,
                        // A name that gets too long is none (RFC 6672 2.2: YXDOMAIN).
                        None if next.is_some() => return Err(AmbiguousChain),
                        None => {}
                    }
                }
            }
        }
        Ok(next)
    }
}

fn take_only(known: &mut Option<Name>, name: Name) -> Result<(), AmbiguousChain> {
    match known {
        Some(known) if *known != name => Err(AmbiguousChain),
        _ => {
            *known = Some(name);
            Ok(())
        }
    }
}

/// RFC 6672 2.4, 3.1: a name has one DNAME, there is none below it, and every CNAME below it
/// is the one that the DNAME makes. With anything else, clients go different ways.
fn check_dnames(response: Response<'_>) -> Result<(), AmbiguousChain> {
    if !response.has_dname() {
        return Ok(());
    }
    let ways = || response.entries().iter().filter(|e| Sections::Both.hold(e) && is_way(e.rtype()));
    if ways().count() > WAYS {
        return Err(AmbiguousChain);
    }
    for dname in ways().filter(|entry| entry.rtype() == rtype::DNAME) {
        let (above, target) = (response.name(dname.owner), response.target(dname));
        for other in ways() {
            let (owner, leads_to) = (response.name(other.owner), response.target(other));
            let is_sound = match owner.labels().checked_sub(above.labels()) {
                Some(skip) if owner.suffix(skip) == above.suffix(0) => match other.rtype() {
                    rtype::DNAME => skip == 0 && leads_to == target,
                    // A CNAME of the DNAME's owner itself is none that it makes.
                    _ => skip == 0 || owner.replace(skip, &target) == Some(leads_to),
                },
                _ => true,
            };
            if !is_sound {
                return Err(AmbiguousChain);
            }
        }
    }
    Ok(())
}

fn is_way(rtype: u16) -> bool {
    matches!(rtype, rtype::CNAME | rtype::DNAME)
}

/// Whether there is one way through all that a response about this name leads to.
pub fn is_unambiguous(response: Response<'_>, queried: &Name) -> bool {
    let judge = |_: &Name| None::<()>;
    let follow = || {
        response.clear_marks();
        let mut chains = Chains::new(response)?;
        let mut owners = match chains.walk(Sections::Answer, queried, judge)? {
            End::Name(last) => Owners::new(response, last, usize::MAX),
            End::Judged(()) => return Ok(()),
        };
        while let Some(owner) = owners.next() {
            for offer in offers(response, &owner) {
                let Some(target) = offer.target else { continue };
                if let End::Name(last) = chains.walk(Sections::Both, &target, judge)? {
                    owners.add(last, usize::MAX);
                }
            }
        }
        Ok::<(), AmbiguousChain>(())
    };
    // What failed leads nowhere.
    response.is_failure() || follow().is_ok()
}

/// A name whose records are looked at, and where.
pub struct Owner {
    name: Name,
    sections: Sections,
    /// How many zones from the top judge its records.
    pub judges: usize,
}

/// Names whose records are looked at, one after the other, each once: first that where a
/// chain ends, then those to which its HTTPS and SVCB records lead, and so on.
pub struct Owners<'a> {
    response: Response<'a>,
    /// Apart: most often it is the only one.
    first: Option<Name>,
    /// How many zones judge the first one's records.
    judges: usize,
    /// And those of these.
    led_to: Vec<(Name, usize)>,
    next: usize,
}

impl<'a> Owners<'a> {
    pub fn new(response: Response<'a>, first: Name, judges: usize) -> Owners<'a> {
        Owners { response, first: Some(first), judges, led_to: Vec::new(), next: 0 }
    }

    /// Not an iterator, since names are added meanwhile.
    #[allow(clippy::should_implement_trait, reason = "names are added while this goes on")]
    pub fn next(&mut self) -> Option<Owner> {
        if let Some(name) = self.first.take() {
            // A service that is the owner itself has its addresses in the additional section.
            let is_itself = |entry: &Entry| {
                entry.section == Section::Answer
                    && is_service(entry)
                    && self.response.service(entry).is_none()
            };
            let uses_itself = self.response.of(name.suffix(0)).any(is_itself);
            return Some(Owner {
                name,
                sections: if uses_itself { Sections::Both } else { Sections::Answer },
                judges: self.judges,
            });
        }
        self.next += 1;
        let (name, judges) = self.led_to.get(self.next - 1).cloned()?;
        Some(Owner { name, sections: Sections::Both, judges })
    }

    /// A name about which the message says nothing needs no look, and one that as many zones
    /// judge already no second one.
    pub fn add(&mut self, name: Name, judges: usize) {
        let mut new = false;
        for entry in self.response.of(name.suffix(0)) {
            new |= entry.lead_to(judges);
        }
        if new {
            self.led_to.push((name, judges));
        }
    }
}

/// What one record at the end of the chain offers.
#[derive(Debug)]
pub struct Offer<'a> {
    /// TargetName of HTTPS and SVCB; `None` where it is the owner itself (RFC
    /// 9460 2.5), which was judged before.
    pub target: Option<Name>,
    /// Of A and AAAA, and those that HTTPS and SVCB hint at.
    pub addresses: Addresses<'a>,
}

/// What the records of `owner` offer, one by one: records of one RRset are
/// alternatives, and their order means nothing.
pub fn offers<'a>(response: Response<'a>, owner: &Owner) -> impl Iterator<Item = Offer<'a>> {
    let sections = owner.sections;
    response.of(owner.name.suffix(0)).filter(move |entry| sections.hold(entry)).filter_map(move |entry| {
        let target = if is_service(entry) { response.service(entry) } else { None };
        entry.set(Mark::Offered);
        Some(Offer { target, addresses: addresses(response, entry)? })
    })
}

pub fn is_service(entry: &Entry) -> bool {
    matches!(entry.rtype(), rtype::SVCB | rtype::HTTPS)
}

/// The addresses in a record; `None` of a type that has none.
pub fn addresses<'a>(response: Response<'a>, entry: &Entry) -> Option<Addresses<'a>> {
    let none = Parameters(&[]);
    match entry.rtype() {
        rtype::A | rtype::AAAA => Some(Addresses {
            hints: none,
            rest: entry.record.rdata(response.message()),
            ipv6: entry.rtype() == rtype::AAAA,
        }),
        rtype::SVCB | rtype::HTTPS => {
            Some(Addresses { hints: Parameters(response.parameters(entry)), rest: &[], ipv6: false })
        }
        _ => None,
    }
}

/// RFC 9460 14.3.2.
const IPV4HINT: u16 = 4;
const IPV6HINT: u16 = 6;

/// SvcParams (RFC 9460 2.2), up to what is cut off.
#[derive(Debug)]
struct Parameters<'a>(&'a [u8]);

impl<'a> Iterator for Parameters<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let rest = std::mem::take(&mut self.0);
        let end = 4 + usize::from(u16_at(rest, 2)?);
        let parameter = (u16_at(rest, 0)?, rest.get(4..end)?);
        self.0 = &rest[end..];
        Some(parameter)
    }
}

/// Addresses one behind the other, without a rest of octets that is none; first
/// those of `rest`, then those of each hint.
#[derive(Debug)]
pub struct Addresses<'a> {
    hints: Parameters<'a>,
    rest: &'a [u8],
    ipv6: bool,
}

impl Iterator for Addresses<'_> {
    type Item = IpAddr;

    fn next(&mut self) -> Option<IpAddr> {
        loop {
            let address = match self.ipv6 {
                true => take(&mut self.rest).map(|octets: [u8; 16]| Ipv6Addr::from(octets).into()),
                false => take(&mut self.rest).map(|octets: [u8; 4]| Ipv4Addr::from(octets).into()),
            };
            if address.is_some() {
                return address;
            }
            let (key, value) = self.hints.next()?;
            self.ipv6 = key == IPV6HINT;
            self.rest = if matches!(key, IPV4HINT | IPV6HINT) { value } else { &[] };
        }
    }
}

fn take<const LENGTH: usize>(rest: &mut &[u8]) -> Option<[u8; LENGTH]> {
    let (octets, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::Reader;

    fn name(text: &str) -> Name {
        Name::from_text(text.as_bytes()).unwrap()
    }

    fn wire(text: &str) -> Vec<u8> {
        name(text).suffix(0).to_vec()
    }

    /// A response about `www.example` with these records (owner, type, RDATA).
    fn response(records: &[(&[u8], u16, Vec<u8>)]) -> Vec<u8> {
        let mut message = vec![0, 1, 0x81, 0x80, 0, 1, 0, records.len() as u8, 0, 0, 0, 0];
        message.extend(wire("www.example"));
        message.extend([0, 1, 0, 1]);
        for (owner, rtype, rdata) in records {
            message.extend(*owner);
            message.extend(rtype.to_be_bytes());
            message.extend([0, 1, 0, 0, 1, 0]);
            message.extend((rdata.len() as u16).to_be_bytes());
            message.extend(rdata);
        }
        message
    }

    /// The names on the way, and whether the walk came to an end.
    fn way(records: &[(&[u8], u16, Vec<u8>)]) -> (Vec<String>, bool) {
        let mut names = Vec::new();
        let (response, mut reader) = (response(records), Reader::default());
        let Some(response) = reader.read(&response) else { return (names, false) };
        let ended = Chains::new(response).and_then(|mut chains| {
            chains.walk(Sections::Answer, &name("www.example"), |name| {
                names.push(name.to_string());
                None::<()>
            })
        });
        (names, ended.is_ok())
    }

    const QUESTION: &[u8] = &[0xc0, 0x0c];

    #[test]
    fn a_chain_is_followed_in_any_order_and_by_its_owners() {
        let (a, b) = (wire("a.example"), wire("b.example"));
        let ordered = [(QUESTION, 5, a.clone()), (&a[..], 5, b.clone())];
        assert_eq!(way(&ordered), (vec!["a.example".into(), "b.example".into()], true));
        let turned = [ordered[1].clone(), ordered[0].clone()];
        assert_eq!(way(&turned), (vec!["a.example".into(), "b.example".into()], true));
        let stray = wire("stray.example");
        assert_eq!(way(&[(&stray[..], 5, a.clone())]), (vec![], true));
        let upper = wire("www.example").to_ascii_uppercase();
        assert_eq!(way(&[(&upper[..], 5, a.clone())]).0.len(), 1);
        let goes_round = [(QUESTION, 5, a.clone()), (&a[..], 5, wire("www.example"))];
        assert_eq!(way(&goes_round), (vec!["a.example".into(), "www.example".into()], true));
    }

    #[test]
    fn a_dname_leads_to_the_name_with_its_end_exchanged() {
        let (owner, target) = (wire("example"), wire("blocked.test"));
        let made = (QUESTION, 5, wire("www.blocked.test"));
        assert_eq!(way(&[(&owner[..], 39, target.clone())]).0, ["www.blocked.test"]);
        assert_eq!(way(&[(&owner[..], 39, target.clone()), made]), (vec!["www.blocked.test".into()], true));
        assert!(way(&[(QUESTION, 39, target.clone())]).0.is_empty(), "of the name itself nothing is below");
        let other = wire("ample");
        assert!(way(&[(&other[..], 39, target)]).0.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_never_passed_over() {
        let forward = vec![0xc0, 0x40];
        for rdata in [forward, vec![], vec![0xc0, 0x02], [&wire("a.example")[..], b"x"].concat()] {
            assert!(!way(&[(QUESTION, 5, rdata.clone())]).1, "{rdata:?}");
        }
        let cut = response(&[(QUESTION, 5, wire("a.example"))]);
        assert!(Reader::default().read(&cut[..cut.len() - 1]).is_none());
        let two_ways = [(QUESTION, 5, wire("a.example")), (QUESTION, 5, wire("b.example"))];
        assert!(!way(&two_ways).1);
        let names: Vec<Vec<u8>> = (0..100).map(|n| wire(&format!("n{n}.example"))).collect();
        for (length, is_read) in [(STEPS - 1, true), (STEPS + 1, false)] {
            let steps = names[..length].windows(2).map(|pair| (&pair[0][..], 5, pair[1].clone()));
            let mut long: Vec<_> = [(QUESTION, 5, names[0].clone())].into_iter().chain(steps).collect();
            assert_eq!(way(&long).1, is_read, "{length} steps");
            long.reverse();
            assert_eq!(way(&long).1, is_read, "{length} steps backwards");
        }
    }

    #[test]
    fn all_targets_of_an_rrset_are_followed_however_many() {
        let names: Vec<Vec<u8>> = (0..=255).map(|n| wire(&format!("n{n}.example"))).collect();
        let record = |owner: usize| (&names[owner][..], 65, [&[0, 1][..], &names[owner + 1]].concat());
        let first = (QUESTION, 65, [&[0, 1][..], &names[0]].concat());
        for led in [1, 16, 17, 254] {
            let records: Vec<_> = [first.clone()].into_iter().chain((0..led).map(record)).collect();
            let response = response(&records);
            let mut reader = Reader::default();
            assert!(is_unambiguous(reader.read(&response).unwrap(), &name("www.example")), "{led}");
        }
        let goes_round = response(&[first.clone(), (&names[0][..], 65, [&[0, 1][..], &names[0]].concat())]);
        assert!(is_unambiguous(Reader::default().read(&goes_round).unwrap(), &name("www.example")));
    }

    /// RFC 6672 2.4, 3.1; RFC 2181 5.
    #[test]
    fn there_is_one_way_or_none() {
        let dname = |owner: &str, target: &str| (wire(owner), 39, wire(target));
        let cname = |owner: &str, target: &str| (wire(owner), 5, wire(target));
        let cases = [
            (
                "the CNAME that is made",
                vec![dname("example", "a.test"), cname("www.example", "www.a.test")],
                true,
            ),
            ("twice", vec![cname("www.example", "a.test"), cname("www.example", "A.test")], true),
            ("a DNAME twice", vec![dname("example", "a.test"), dname("example", "a.test")], true),
            ("another CNAME", vec![dname("example", "a.test"), cname("www.example", "b.test")], false),
            ("of another owner", vec![dname("example", "a.test"), cname("x.example", "b.test")], false),
            (
                "of an owner that the DNAME has",
                vec![dname("example", "a.test"), cname("x.example", "x.a.test")],
                true,
            ),
            ("two of one owner", vec![dname("example", "a.test"), dname("example", "b.test")], false),
            ("at two levels", vec![dname("example", "a.test"), dname("www.example", "b.test")], false),
            (
                "a loop with a second way out",
                vec![
                    cname("www.example", "a.test"),
                    cname("a.test", "www.example"),
                    cname("a.test", "b.test"),
                ],
                false,
            ),
            (
                "and by a DNAME",
                vec![dname("example", "test"), dname("test", "example"), cname("www.test", "b.test")],
                false,
            ),
            ("a loop", vec![dname("example", "test"), dname("test", "example")], true),
        ];
        for (what, records, is_read) in cases {
            for turned in [false, true] {
                let mut records: Vec<_> = records.iter().map(|(o, t, d)| (&o[..], *t, d.clone())).collect();
                if turned {
                    records.reverse();
                }
                assert_eq!(way(&records).1, is_read, "{what}, turned: {turned}");
            }
        }
    }

    #[test]
    fn each_record_is_an_offer_of_its_own() {
        let service = |target: &[u8], parameters: &[u8]| [&[0, 1], target, parameters].concat();
        let hints = b"\0\x01\0\x03\x02h2\0\x04\0\x08\xc0\0\x02\x01\xc0\0\x02\x02\0\x06\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01";
        let message = response(&[
            (QUESTION, 65, service(&wire("svc.example"), b"")),
            (QUESTION, 65, service(&[0], hints)),
            (QUESTION, 65, service(&[0], b"\0\x04\0\x04\xc0\0\x02")),
            (QUESTION, 1, vec![192, 0, 2, 7]),
            (&wire("stray.example"), 1, vec![192, 0, 2, 8]),
        ]);
        let mut reader = Reader::default();
        let response = reader.read(&message).unwrap();
        let owner = Owners::new(response, name("www.example"), usize::MAX).next().unwrap();
        let offers: Vec<_> = offers(response, &owner).collect();
        let targets: Vec<_> = offers.iter().map(|offer| offer.target.clone()).collect();
        assert_eq!(targets, [Some(name("svc.example")), None, None, None]);
        let addresses: Vec<Vec<String>> =
            offers.into_iter().map(|offer| offer.addresses.map(|a| a.to_string()).collect()).collect();
        assert_eq!(addresses[1], ["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
        assert_eq!((addresses[2].len(), &addresses[3][..]), (0, &["192.0.2.7".to_string()][..]));
    }
}
