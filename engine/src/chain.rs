//! Follows an upstream's response from the queried name to its targets: along CNAME and DNAME to
//! another name, then by HTTPS and SVCB to further names and addresses.
//!
//! A response is refused if two clients could follow different chains, or an endless one.
//! Otherwise, a client could reach a blocked name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::message::{Section, rtype, u16_at};
use crate::name::Name;
use crate::policy::seed;
use crate::response::{Entry, Mark, Response};

/// Steps of one chain at most. Resolvers follow 8 to 16, so a longer chain is not from a resolver.
/// It is refused, since the next step may be a blocked name.
const MAX_STEPS: usize = 64;
/// Steps of all chains of one response: more than it can hold records. More are needed only if
/// many names share one long chain.
const MAX_TOTAL_STEPS: usize = 4096;
/// Records visited for all chains of one response. Without this limit, thousands of HTTPS records
/// that point to one name with as many records would cost seconds.
const MAX_TOTAL_VISITS: usize = 1 << 16;
/// CNAME and DNAME records of a response with a DNAME: as many as a chain may have.
const MAX_ALIASES: usize = 2 * MAX_STEPS;

/// Two chains lead from one name, or a chain is too long.
#[derive(Debug)]
pub struct AmbiguousChain;

/// The sections whose records are followed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sections {
    Answer,
    /// The additional section as well: clients may use its records about the target of an HTTPS
    /// or SVCB record (RFC 9460 4.1).
    Both,
}

impl Sections {
    fn include(self, entry: &Entry) -> bool {
        match entry.section {
            Section::Answer => true,
            Section::Authority => false,
            Section::Additional => self == Sections::Both,
        }
    }
}

/// The chains of one response.
pub struct Chains<'a> {
    response: Response<'a>,
    steps_left: usize,
    visits_left: usize,
}

impl<'a> Chains<'a> {
    pub fn new(response: Response<'a>) -> Result<Chains<'a>, AmbiguousChain> {
        check_dnames(response)?;
        Ok(Chains { response, steps_left: MAX_TOTAL_STEPS, visits_left: MAX_TOTAL_VISITS })
    }

    /// Follows CNAME (RFC 1034 3.6.2) and DNAME (RFC 6672 2.2) records from `name`, in any record
    /// order, until `judge` returns a decision about a name. Otherwise, `name` becomes the end of
    /// the chain. The first name is not judged.
    pub fn follow<D>(
        &mut self,
        sections: Sections,
        name: &mut Name,
        mut judge: impl FnMut(&Name) -> Option<D>,
    ) -> Result<Option<D>, AmbiguousChain> {
        // Hashes are enough to notice a loop, and shorter than names.
        let mut visited = [0; MAX_STEPS];
        for step in 0.. {
            let Some(next) = self.next_name(sections, name)? else { return Ok(None) };
            if let Some(decision) = judge(&next) {
                return Ok(Some(decision));
            }
            let hash = |name: &Name| xxh3_64_with_seed(name.suffix(0), seed());
            *visited.get_mut(step).ok_or(AmbiguousChain)? = hash(name);
            self.steps_left = self.steps_left.checked_sub(1).ok_or(AmbiguousChain)?;
            *name = next;
            if visited[..=step].contains(&hash(name)) {
                // A loop, and all of its names were judged.
                return Ok(None);
            }
        }
        unreachable!("the steps are counted");
    }

    /// The only name to which a CNAME or DNAME leads from `here`. The same record may occur twice
    /// (RFC 2181 5), but no other one (RFC 2181 10.1, RFC 6672 2.4).
    fn next_name(&mut self, sections: Sections, here: &Name) -> Result<Option<Name>, AmbiguousChain> {
        let response = self.response;
        let mut next: Option<Name> = None;
        for entry in response.owned_by(here.suffix(0)) {
            self.visits_left = self.visits_left.checked_sub(1).ok_or(AmbiguousChain)?;
            if !sections.include(entry) {
                continue;
            }
            entry.set(Mark::OnPath);
            if entry.rtype() == rtype::CNAME {
                set_only(&mut next, response.target(entry))?;
            }
        }
        let ancestors = if response.has_dname() { here.labels() } else { 0 };
        for skip in 1..=ancestors {
            for entry in response.owned_by(here.suffix(skip)) {
                self.visits_left = self.visits_left.checked_sub(1).ok_or(AmbiguousChain)?;
                if !sections.include(entry) {
                    continue;
                }
                if entry.covered_type(response.message()) == rtype::DNAME {
                    entry.set(Mark::OnPath);
                }
                if entry.rtype() == rtype::DNAME {
                    match here.replace(skip, &response.target(entry)) {
                        Some(name) => set_only(&mut next, name)?,
                        // A name that would be too long does not exist (RFC 6672 2.2: YXDOMAIN).
                        None if next.is_some() => return Err(AmbiguousChain),
                        None => {}
                    }
                }
            }
        }
        Ok(next)
    }
}

fn set_only(known: &mut Option<Name>, name: Name) -> Result<(), AmbiguousChain> {
    match known {
        Some(known) if *known != name => Err(AmbiguousChain),
        _ => {
            *known = Some(name);
            Ok(())
        }
    }
}

/// RFC 6672 2.4, 3.1: a name has one DNAME, no DNAME is below another, and every CNAME below a
/// DNAME is the one that it produces. Otherwise, clients follow different chains.
fn check_dnames(response: Response<'_>) -> Result<(), AmbiguousChain> {
    if !response.has_dname() {
        return Ok(());
    }
    let is_alias = |entry: &&Entry| matches!(entry.rtype(), rtype::CNAME | rtype::DNAME);
    let aliases = || response.entries().iter().filter(|entry| Sections::Both.include(entry)).filter(is_alias);
    if aliases().count() > MAX_ALIASES {
        return Err(AmbiguousChain);
    }
    for dname in aliases().filter(|entry| entry.rtype() == rtype::DNAME) {
        let (above, target) = (response.name(dname.owner), response.target(dname));
        for other in aliases() {
            let (owner, other_target) = (response.name(other.owner), response.target(other));
            let is_sound = match owner.labels().checked_sub(above.labels()) {
                Some(skip) if owner.suffix(skip) == above.suffix(0) => match other.rtype() {
                    rtype::DNAME => skip == 0 && other_target == target,
                    // A DNAME produces no CNAME for its own owner name.
                    _ => skip == 0 || owner.replace(skip, &target) == Some(other_target),
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

/// Whether all clients that query this name follow the response in the same way.
pub fn is_unambiguous(response: Response<'_>, queried: &Name) -> bool {
    let judge = |_: &Name| None::<()>;
    let follow = || {
        response.clear_marks();
        let mut chains = Chains::new(response)?;
        let mut last = queried.clone();
        chains.follow(Sections::Answer, &mut last, judge)?;
        let mut owners = Owners::new(response, last, usize::MAX);
        while let Some(owner) = owners.next() {
            for alternative in alternatives(response, &owner) {
                let Some(mut target) = alternative.target else { continue };
                chains.follow(Sections::Both, &mut target, judge)?;
                owners.add(target, usize::MAX);
            }
        }
        Ok::<(), AmbiguousChain>(())
    };
    // The records of a failure are not followed.
    response.is_failure() || !response.has_targets() || follow().is_ok()
}

/// A name whose records are alternatives.
pub struct Owner {
    name: Name,
    sections: Sections,
    /// The number of zones, from the first, that judge its records.
    pub zones: usize,
}

/// The names whose records are alternatives, each returned once: the end of the chain, then the
/// targets of its HTTPS and SVCB records, then theirs.
pub struct Owners<'a> {
    response: Response<'a>,
    /// The end of the chain, until it is returned. Usually there is no other name.
    first: Option<Name>,
    /// The number of zones that judge its records.
    zones: usize,
    /// The targets, and the number of zones for each.
    targets: Vec<(Name, usize)>,
    next: usize,
}

impl<'a> Owners<'a> {
    pub fn new(response: Response<'a>, first: Name, zones: usize) -> Owners<'a> {
        Owners { response, first: Some(first), zones, targets: Vec::new(), next: 0 }
    }

    /// The next name. `add` may be called in between, so this is not an iterator.
    #[allow(clippy::should_implement_trait, reason = "an iterator would borrow it")]
    pub fn next(&mut self) -> Option<Owner> {
        if let Some(name) = self.first.take() {
            // The addresses of a service at the owner name are in the additional section.
            let is_own_service = |entry: &Entry| {
                entry.section == Section::Answer
                    && is_service(entry)
                    && self.response.service_target(entry).is_none()
            };
            let has_own_service =
                self.response.has_targets() && self.response.owned_by(name.suffix(0)).any(is_own_service);
            let sections = if has_own_service { Sections::Both } else { Sections::Answer };
            return Some(Owner { name, sections, zones: self.zones });
        }
        self.next += 1;
        let (name, zones) = self.targets.get(self.next - 1).cloned()?;
        Some(Owner { name, sections: Sections::Both, zones })
    }

    /// Adds a target, unless it owns no records or at least as many zones judge it already.
    pub fn add(&mut self, name: Name, zones: usize) {
        let mut is_new = false;
        for entry in self.response.owned_by(name.suffix(0)) {
            is_new |= entry.refer(zones);
        }
        if is_new {
            self.targets.push((name, zones));
        }
    }
}

/// The targets that a client may use of one record at the end of the chain.
#[derive(Debug)]
pub struct Alternative<'a> {
    /// TargetName of HTTPS and SVCB; `None` for the owner name (RFC 9460 2.5), which was judged
    /// before.
    pub target: Option<Name>,
    /// Of A and AAAA, and the hints of HTTPS and SVCB.
    pub addresses: Addresses<'a>,
}

/// The alternatives that `owner` has. The order of records in an RRset has no meaning.
pub fn alternatives<'a>(response: Response<'a>, owner: &Owner) -> impl Iterator<Item = Alternative<'a>> {
    let sections = owner.sections;
    response.owned_by(owner.name.suffix(0)).filter(move |entry| sections.include(entry)).filter_map(
        move |entry| {
            let target = if is_service(entry) { response.service_target(entry) } else { None };
            entry.set(Mark::Alternative);
            Some(Alternative { target, addresses: addresses(response, entry)? })
        },
    )
}

pub fn is_service(entry: &Entry) -> bool {
    matches!(entry.rtype(), rtype::SVCB | rtype::HTTPS)
}

/// The addresses in a record; `None` for a type without addresses.
pub fn addresses<'a>(response: Response<'a>, entry: &Entry) -> Option<Addresses<'a>> {
    let none = Parameters(&[]);
    match entry.rtype() {
        rtype::A | rtype::AAAA => Some(Addresses {
            hints: none,
            rest: entry.record.rdata(response.message()),
            ipv6: entry.rtype() == rtype::AAAA,
        }),
        rtype::SVCB | rtype::HTTPS => {
            let hints = Parameters(response.service_parameters(entry));
            Some(Addresses { hints, rest: &[], ipv6: false })
        }
        _ => None,
    }
}

/// RFC 9460 14.3.2.
const IPV4HINT: u16 = 4;
const IPV6HINT: u16 = 6;

/// SvcParams (RFC 9460 2.2), up to the first truncated one.
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

/// The addresses in `rest`, then those of each hint. Incomplete addresses are skipped.
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
                true => split_array(&mut self.rest).map(|bytes: [u8; 16]| Ipv6Addr::from(bytes).into()),
                false => split_array(&mut self.rest).map(|bytes: [u8; 4]| Ipv4Addr::from(bytes).into()),
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

fn split_array<const LENGTH: usize>(rest: &mut &[u8]) -> Option<[u8; LENGTH]> {
    let (first, others) = rest.split_first_chunk()?;
    *rest = others;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::Parser;

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

    /// The names of the chain, and whether it is unambiguous.
    fn chain_of(records: &[(&[u8], u16, Vec<u8>)]) -> (Vec<String>, bool) {
        let mut names = Vec::new();
        let (response, mut parser) = (response(records), Parser::default());
        let Some(response) = parser.parse(&response) else { return (names, false) };
        let ended = Chains::new(response).and_then(|mut chains| {
            chains.follow(Sections::Answer, &mut name("www.example"), |name| {
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
        assert_eq!(chain_of(&ordered), (vec!["a.example".into(), "b.example".into()], true));
        let reversed = [ordered[1].clone(), ordered[0].clone()];
        assert_eq!(chain_of(&reversed), (vec!["a.example".into(), "b.example".into()], true));
        let stray = wire("stray.example");
        assert_eq!(chain_of(&[(&stray[..], 5, a.clone())]), (vec![], true));
        let upper = wire("www.example").to_ascii_uppercase();
        assert_eq!(chain_of(&[(&upper[..], 5, a.clone())]).0.len(), 1);
        let looped = [(QUESTION, 5, a.clone()), (&a[..], 5, wire("www.example"))];
        assert_eq!(chain_of(&looped), (vec!["a.example".into(), "www.example".into()], true));
    }

    #[test]
    fn a_dname_replaces_the_suffix_of_a_name() {
        let (owner, target) = (wire("example"), wire("blocked.test"));
        let produced = (QUESTION, 5, wire("www.blocked.test"));
        assert_eq!(chain_of(&[(&owner[..], 39, target.clone())]).0, ["www.blocked.test"]);
        assert_eq!(
            chain_of(&[(&owner[..], 39, target.clone()), produced]),
            (vec!["www.blocked.test".into()], true)
        );
        assert!(
            chain_of(&[(QUESTION, 39, target.clone())]).0.is_empty(),
            "a DNAME does not apply to its own owner name"
        );
        let other = wire("ample");
        assert!(chain_of(&[(&other[..], 39, target)]).0.is_empty());
    }

    #[test]
    fn malformed_and_ambiguous_responses_are_refused() {
        let forward = vec![0xc0, 0x40];
        for rdata in [forward, vec![], vec![0xc0, 0x02], [&wire("a.example")[..], b"x"].concat()] {
            assert!(!chain_of(&[(QUESTION, 5, rdata.clone())]).1, "{rdata:?}");
        }
        let whole = response(&[(QUESTION, 5, wire("a.example"))]);
        assert!(Parser::default().parse(&whole[..whole.len() - 1]).is_none());
        let ambiguous = [(QUESTION, 5, wire("a.example")), (QUESTION, 5, wire("b.example"))];
        assert!(!chain_of(&ambiguous).1);
        let names: Vec<Vec<u8>> = (0..100).map(|n| wire(&format!("n{n}.example"))).collect();
        for (length, is_sound) in [(MAX_STEPS - 1, true), (MAX_STEPS + 1, false)] {
            let steps = names[..length].windows(2).map(|pair| (&pair[0][..], 5, pair[1].clone()));
            let mut long: Vec<_> = [(QUESTION, 5, names[0].clone())].into_iter().chain(steps).collect();
            assert_eq!(chain_of(&long).1, is_sound, "{length} steps");
            long.reverse();
            assert_eq!(chain_of(&long).1, is_sound, "{length} steps reversed");
        }
    }

    #[test]
    fn all_targets_of_an_rrset_are_followed_however_many() {
        let names: Vec<Vec<u8>> = (0..=255).map(|n| wire(&format!("n{n}.example"))).collect();
        let record = |owner: usize| (&names[owner][..], 65, [&[0, 1][..], &names[owner + 1]].concat());
        let first = (QUESTION, 65, [&[0, 1][..], &names[0]].concat());
        for targets in [1, 16, 17, 254] {
            let records: Vec<_> = [first.clone()].into_iter().chain((0..targets).map(record)).collect();
            let response = response(&records);
            let mut parser = Parser::default();
            assert!(is_unambiguous(parser.parse(&response).unwrap(), &name("www.example")), "{targets}");
        }
        let looped = response(&[first.clone(), (&names[0][..], 65, [&[0, 1][..], &names[0]].concat())]);
        assert!(is_unambiguous(Parser::default().parse(&looped).unwrap(), &name("www.example")));
    }

    /// RFC 6672 2.4, 3.1; RFC 2181 5.
    #[test]
    fn a_chain_is_unique_or_refused() {
        let dname = |owner: &str, target: &str| (wire(owner), 39, wire(target));
        let cname = |owner: &str, target: &str| (wire(owner), 5, wire(target));
        let cases = [
            (
                "the CNAME that the DNAME produces",
                vec![dname("example", "a.test"), cname("www.example", "www.a.test")],
                true,
            ),
            ("a CNAME twice", vec![cname("www.example", "a.test"), cname("www.example", "A.test")], true),
            ("a DNAME twice", vec![dname("example", "a.test"), dname("example", "a.test")], true),
            ("another CNAME", vec![dname("example", "a.test"), cname("www.example", "b.test")], false),
            (
                "a CNAME of another owner",
                vec![dname("example", "a.test"), cname("x.example", "b.test")],
                false,
            ),
            (
                "a CNAME that the DNAME produces for another owner",
                vec![dname("example", "a.test"), cname("x.example", "x.a.test")],
                true,
            ),
            ("two DNAMEs of one owner", vec![dname("example", "a.test"), dname("example", "b.test")], false),
            ("DNAMEs at two levels", vec![dname("example", "a.test"), dname("www.example", "b.test")], false),
            (
                "a loop with a second exit",
                vec![
                    cname("www.example", "a.test"),
                    cname("a.test", "www.example"),
                    cname("a.test", "b.test"),
                ],
                false,
            ),
            (
                "a DNAME loop with a second exit",
                vec![dname("example", "test"), dname("test", "example"), cname("www.test", "b.test")],
                false,
            ),
            ("a DNAME loop", vec![dname("example", "test"), dname("test", "example")], true),
        ];
        for (what, records, is_sound) in cases {
            for is_reversed in [false, true] {
                let mut records: Vec<_> = records.iter().map(|(o, t, d)| (&o[..], *t, d.clone())).collect();
                if is_reversed {
                    records.reverse();
                }
                assert_eq!(chain_of(&records).1, is_sound, "{what}, reversed: {is_reversed}");
            }
        }
    }

    #[test]
    fn each_record_is_an_alternative() {
        let service = |target: &[u8], parameters: &[u8]| [&[0, 1], target, parameters].concat();
        let hints = b"\0\x01\0\x03\x02h2\0\x04\0\x08\xc0\0\x02\x01\xc0\0\x02\x02\0\x06\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01";
        let message = response(&[
            (QUESTION, 65, service(&wire("svc.example"), b"")),
            (QUESTION, 65, service(&[0], hints)),
            (QUESTION, 65, service(&[0], b"\0\x04\0\x04\xc0\0\x02")),
            (QUESTION, 1, vec![192, 0, 2, 7]),
            (&wire("stray.example"), 1, vec![192, 0, 2, 8]),
        ]);
        let mut parser = Parser::default();
        let response = parser.parse(&message).unwrap();
        let owner = Owners::new(response, name("www.example"), usize::MAX).next().unwrap();
        let alternatives: Vec<_> = alternatives(response, &owner).collect();
        let targets: Vec<_> = alternatives.iter().map(|alternative| alternative.target.clone()).collect();
        assert_eq!(targets, [Some(name("svc.example")), None, None, None]);
        let addresses: Vec<Vec<String>> = alternatives
            .into_iter()
            .map(|alternative| alternative.addresses.map(|a| a.to_string()).collect())
            .collect();
        assert_eq!(addresses[1], ["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
        assert_eq!((addresses[2].len(), &addresses[3][..]), (0, &["192.0.2.7".to_string()][..]));
    }
}
