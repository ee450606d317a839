//! Where an upstream's answer leads the client: along CNAME and DNAME to another
//! name, and from there by HTTPS and SVCB to further names and addresses.
//!
//! What is relevant for that and cannot be read is never passed over: a client
//! might read it, and be led where it must not go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::message::{HEADER, Record, flag, rcode, rtype, skip_name, u16_at};
use crate::name::Name;
use crate::relay::expand;

/// Names to which HTTPS and SVCB records of one response lead, at most.
const LED: usize = 16;
/// Steps of a chain at most. Resolvers follow 8 to 16, so an answer with more is
/// none of theirs; it is refused, since one step further may be a blocked name.
const STEPS: usize = 64;

/// The answer section holds a name that cannot be read, two ways from one name, or
/// a chain without end.
#[derive(Debug)]
pub struct Unreadable;

/// Where a chain ends.
pub enum End<D> {
    /// At a name that `judge` had something to say about.
    Judged(D),
    /// At this name.
    Name(Name),
}

/// Walks from the queried name along CNAME (RFC 1034 3.6.2) and DNAME (RFC 6672
/// 2.2), in whichever order they stand, and asks `judge` about each name on the
/// way, but the queried one.
pub fn walk<D>(
    response: &[u8],
    queried: &Name,
    judge: impl FnMut(&Name) -> Option<D>,
) -> Result<End<D>, Unreadable> {
    walk_in(Sections::Answer, response, queried, judge)
}

/// The same from where an HTTPS or SVCB record leads to: what stands in the additional
/// section about that may be used as well (RFC 9460 4.1).
pub fn walk_on<D>(
    response: &[u8],
    target: &Name,
    judge: impl FnMut(&Name) -> Option<D>,
) -> Result<End<D>, Unreadable> {
    walk_in(Sections::Both, response, target, judge)
}

fn walk_in<D>(
    sections: Sections,
    response: &[u8],
    queried: &Name,
    mut judge: impl FnMut(&Name) -> Option<D>,
) -> Result<End<D>, Unreadable> {
    let mut here = queried.clone();
    // The names left behind, each with the record that led on from it.
    let mut left: Vec<(Name, usize)> = Vec::new();
    loop {
        let before = left.len();
        for record in records(response, sections) {
            let (owner, record) = record?;
            if is_second_way(response, owner, &record, &left)? {
                return Err(Unreadable);
            }
            let Some(next) = step(response, owner, &record, &here)? else { continue };
            if let Some(judged) = judge(&next) {
                return Ok(End::Judged(judged));
            }
            if next == *queried || left.iter().any(|(name, _)| *name == next) {
                // It goes round, and all of it was judged.
                return Ok(End::Name(next));
            }
            left.push((std::mem::replace(&mut here, next), owner));
            if left.len() > STEPS {
                return Err(Unreadable);
            }
        }
        if left.len() == before {
            return Ok(End::Name(here));
        }
    }
}

/// Whether all that a response about this name leads to can be read.
pub fn is_readable(response: &[u8], queried: &Name) -> bool {
    let judge = |_: &Name| None::<()>;
    let follow = || {
        let mut owners = match walk(response, queried, judge)? {
            End::Name(last) => Owners::from(last),
            End::Judged(()) => return Ok(()),
        };
        while let Some(owner) = owners.next() {
            for offer in offers(response, &owner) {
                let Some(target) = offer?.target else { continue };
                if let End::Name(last) = walk_on(response, &target, judge)? {
                    owners.add(last)?;
                }
            }
        }
        Ok::<(), Unreadable>(())
    };
    follow().is_ok()
}

/// A name whose records are looked at, and where.
pub struct Owner {
    name: Name,
    sections: Sections,
}

/// Names whose records are looked at, one after the other, each once: first that where a
/// chain ends, then those to which its HTTPS and SVCB records lead, and so on.
pub struct Owners {
    /// Apart: most often it is the only one.
    first: Option<Name>,
    led_to: Vec<Name>,
    next: usize,
}

impl From<Name> for Owners {
    fn from(first: Name) -> Owners {
        Owners { first: Some(first), led_to: Vec::new(), next: 0 }
    }
}

impl Owners {
    /// Not an iterator, since names are added meanwhile.
    #[allow(clippy::should_implement_trait, reason = "names are added while this goes on")]
    pub fn next(&mut self) -> Option<Owner> {
        if let Some(name) = self.first.take() {
            return Some(Owner { name, sections: Sections::Answer });
        }
        self.next += 1;
        let name = self.led_to.get(self.next - 1).cloned()?;
        Some(Owner { name, sections: Sections::Both })
    }

    pub fn add(&mut self, name: Name) -> Result<(), Unreadable> {
        if !self.led_to.contains(&name) {
            if self.led_to.len() == LED {
                return Err(Unreadable);
            }
            self.led_to.push(name);
        }
        Ok(())
    }
}

/// RFC 2181 10.1: a name has one CNAME. With two a client may take the other one.
fn is_second_way(
    response: &[u8],
    owner: usize,
    record: &Record,
    left: &[(Name, usize)],
) -> Result<bool, Unreadable> {
    if record.rtype != rtype::CNAME {
        return Ok(false);
    }
    for (name, used) in left {
        if *used != owner && is_name(response, owner, name)? && !is_made(response, *used) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the record at `owner` is a DNAME: the CNAME made from it stands beside
/// it (RFC 6672 3.1).
fn is_made(response: &[u8], owner: usize) -> bool {
    Record::parse(response, owner).is_some_and(|record| record.rtype == rtype::DNAME)
}

/// Where the record leads from `here`, if it does.
fn step(response: &[u8], owner: usize, record: &Record, here: &Name) -> Result<Option<Name>, Unreadable> {
    match record.rtype {
        rtype::CNAME if is_name(response, owner, here)? => {
            target(response, record, record.rdata_start).map(Some)
        }
        rtype::DNAME => {
            let (owner, _) = expand(response, owner).ok_or(Unreadable)?;
            let Some(skip) = here.labels().checked_sub(owner.labels()).filter(|&skip| skip > 0) else {
                return Ok(None);
            };
            if here.suffix(skip) != owner.suffix(0) {
                return Ok(None);
            }
            // A name that gets too long is none (RFC 6672 2.2: YXDOMAIN).
            Ok(here.replace(skip, &target(response, record, record.rdata_start)?))
        }
        _ => Ok(None),
    }
}

/// The name at `at`, which ends the record's data.
fn target(response: &[u8], record: &Record, at: usize) -> Result<Name, Unreadable> {
    let (name, end) = expand(response, at).ok_or(Unreadable)?;
    if end == record.end { Ok(name) } else { Err(Unreadable) }
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
pub fn offers<'a>(
    response: &'a [u8],
    owner: &'a Owner,
) -> impl Iterator<Item = Result<Offer<'a>, Unreadable>> {
    records(response, owner.sections).filter_map(move |record| match record {
        Err(unreadable) => Some(Err(unreadable)),
        Ok((at, record)) => offer(response, at, &record, &owner.name).transpose(),
    })
}

fn offer<'a>(
    response: &'a [u8],
    at: usize,
    record: &Record,
    owner: &Name,
) -> Result<Option<Offer<'a>>, Unreadable> {
    let is_service = matches!(record.rtype, rtype::SVCB | rtype::HTTPS);
    let is_address = matches!(record.rtype, rtype::A | rtype::AAAA);
    if !(is_service || is_address) || !is_name(response, at, owner)? {
        return Ok(None);
    }
    let rdata = record.rdata(response);
    if is_address {
        let ipv6 = record.rtype == rtype::AAAA;
        let addresses = Addresses { hints: Parameters(&[]), rest: rdata, ipv6 };
        return Ok(Some(Offer { target: None, addresses }));
    }
    // RFC 9460 2.2: SvcPriority, TargetName, SvcParams.
    let (name, end) = expand(response, record.rdata_start + 2).ok_or(Unreadable)?;
    let hints = response.get(end..record.end).ok_or(Unreadable)?;
    let addresses = Addresses { hints: Parameters(hints), rest: &[], ipv6: false };
    Ok(Some(Offer { target: Some(name).filter(|name| name.labels() > 0), addresses }))
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

/// Where records are looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sections {
    Answer,
    /// In the additional section, too.
    Both,
}

/// The records of these sections, each with where its owner begins. None of an answer
/// that failed: what does not validate stays SERVFAIL, whatever it holds.
fn records(response: &[u8], sections: Sections) -> impl Iterator<Item = Result<(usize, Record), Unreadable>> {
    let failed = u16_at(response, 2).unwrap_or(0) & flag::RCODE == rcode::SERVFAIL;
    let count = |place| usize::from(u16_at(response, place).unwrap_or(0));
    let [answers, authorities, additional] = [6, 8, 10].map(count);
    let records = match sections {
        _ if failed => 0,
        Sections::Answer => answers,
        Sections::Both => answers + authorities + additional,
    };
    let mut next = skip_name(response, HEADER).map_or(response.len(), |end| end + 4);
    let mut place = 0;
    std::iter::from_fn(move || {
        loop {
            if place >= records {
                return None;
            }
            let (owner, is_authority) = (next, (answers..answers + authorities).contains(&place));
            place += 1;
            let Some(record) = Record::parse(response, owner) else {
                place = records;
                return Some(Err(Unreadable));
            };
            next = record.end;
            if !is_authority {
                return Some(Ok((owner, record)));
            }
        }
    })
}

/// Whether the possibly compressed name at `at` is `name`.
fn is_name(message: &[u8], at: usize, name: &Name) -> Result<bool, Unreadable> {
    // The question's own, most often, and then nothing has to be written out.
    let is_question = message.get(at..at + 2) == Some(&[0xc0, HEADER as u8]);
    let (at, mut rest) = (if is_question { HEADER } else { at }, name.suffix(0));
    if is_question || message.get(at).is_some_and(|&length| length < 64) {
        let mut here = at;
        while let (Some(&length), Some(&wanted)) = (message.get(here), rest.first()) {
            if length >= 64 {
                break;
            }
            let end = 1 + usize::from(length);
            let label = message.get(here..here + end).ok_or(Unreadable)?;
            if length != wanted || !rest[..end].eq_ignore_ascii_case(label) {
                return Ok(false);
            }
            if length == 0 {
                return Ok(true);
            }
            (here, rest) = (here + end, &rest[end..]);
        }
    }
    expand(message, at).map(|(found, _)| found == *name).ok_or(Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let ended = walk(&response(records), &name("www.example"), |name| {
            names.push(name.to_string());
            None::<()>
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
        assert!(walk(&cut[..cut.len() - 1], &name("www.example"), |_| None::<()>).is_err());
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
    fn what_leads_on_too_often_is_not_readable() {
        let names: Vec<Vec<u8>> = (0..=LED).map(|n| wire(&format!("n{n}.example"))).collect();
        let record = |owner: usize| (&names[owner][..], 65, [&[0, 1][..], &names[owner + 1]].concat());
        let first = (QUESTION, 65, [&[0, 1][..], &names[0]].concat());
        for (led, is_read) in [(1, true), (LED - 1, true), (LED, false)] {
            let records: Vec<_> = [first.clone()].into_iter().chain((0..led).map(record)).collect();
            assert_eq!(is_readable(&response(&records), &name("www.example")), is_read, "{led}");
        }
        let goes_round = [first.clone(), (&names[0][..], 65, [&[0, 1][..], &names[0]].concat())];
        assert!(is_readable(&response(&goes_round), &name("www.example")));
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
        let owner = Owners::from(name("www.example")).next().unwrap();
        let offers: Vec<_> = offers(&message, &owner).map(|offer| offer.unwrap()).collect();
        let targets: Vec<_> = offers.iter().map(|offer| offer.target.clone()).collect();
        assert_eq!(targets, [Some(name("svc.example")), None, None, None]);
        let addresses: Vec<Vec<String>> =
            offers.into_iter().map(|offer| offer.addresses.map(|a| a.to_string()).collect()).collect();
        assert_eq!(addresses[1], ["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
        assert_eq!((addresses[2].len(), &addresses[3][..]), (0, &["192.0.2.7".to_string()][..]));
    }
}
