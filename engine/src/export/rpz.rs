//! Zones as records of one response policy zone.
//!
//! Its wildcards follow RFC 4592 (as in BIND): `*.example` covers no name that has records, no name below
//! such a name, and no empty non-terminal. So each of these below a wildcard gets records of its own.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

use super::{Output, Owner, blocks, each_owner};
use crate::message::Transport::{Tcp, Udp};
use crate::name::Name;
use crate::policy::{Action, Answer, Decision, Match, Rule, Target};
use crate::prefix::Prefix;

/// Bytes of a name in wire format (RFC 1035 2.3.4).
const MAX_NAME: usize = 255;

/// Names that get records only since an entry is below them, at most. More would need too much memory.
const MAX_BETWEEN: usize = 1_000_000;

pub fn write<W: Write>(output: &mut Output<'_, W>, origin: &Name) -> io::Result<()> {
    let snapshot = output.snapshot;
    let mut writer = Records { origin: origin.suffix(0).len(), known: HashMap::new() };
    let mut all_between = BTreeSet::new();
    each_owner(snapshot, |owner| {
        let effects = writer.effects(output, owner);
        if effects.is_idle_exception {
            return output.leave_out("exception without effect", &owner.name);
        }
        if !effects.has_own && !effects.differ {
            return Ok(());
        }
        let between = writer.between(output, owner);
        if !effects.differ && !between.is_empty() {
            return Ok(()); // without it, a wildcard covers all of these names
        }
        writer.put(output, owner, &effects)?;
        all_between.extend(between);
        if all_between.len() > MAX_BETWEEN {
            return Err(io::Error::other("too many names between entries and exceptions below them"));
        }
        match effects.is_tcp_only && (blocks(&owner.at(snapshot, Tcp)) || blocks(&owner.below(snapshot, Tcp)))
        {
            true => output.leave_out("over TCP: another entry", &owner.name),
            false => Ok(()),
        }
    })?;
    for name in all_between {
        let owner = Owner::new(Name::from_text(name.as_bytes()).expect("a suffix of a name is a name"));
        let effects = writer.effects(output, &owner);
        writer.put(output, &owner, &effects)?;
    }
    write_prefixes(output, &mut writer)
}

/// The records of an answer without their owner; several for addresses.
type Data = Rc<[String]>;

/// The effects on a name, on the names below it, and what it would be without records.
struct Effects {
    at: Option<Data>,
    below: Option<Data>,
    is_inherited: bool,
    /// Whether an entry of exactly this name blocks.
    has_own: bool,
    /// Whether they differ from those without records.
    differ: bool,
    is_idle_exception: bool,
    is_tcp_only: bool,
}

struct Records {
    /// Bytes of the zone's name.
    origin: usize,
    /// The records of each answer, for a name that is denied with all names below and for others.
    known: HashMap<(*const Answer, bool), Data>,
}

impl Records {
    fn effects<W: Write>(&mut self, output: &mut Output<'_, W>, owner: &Owner) -> Effects {
        let snapshot = output.snapshot;
        let (at, below) = (owner.at(snapshot, Udp), owner.below(snapshot, Udp));
        let inherited = owner.inherited(snapshot, Udp);
        let mut sides = at.iter().chain(&below);
        let is_tcp_only = sides.any(|decision| decision.answer.action == Action::Truncate);
        let is_own = |decision: &Option<Decision<'_>>| {
            blocks(decision) && decision.as_ref().is_some_and(|decision| decision.skip == 0)
        };
        let has_own = is_own(&at) || is_own(&below);
        let is_inherited = blocks(&inherited);
        let denies = at.as_ref().is_some_and(|decision| snapshot.denies_all_below(&owner.name, decision));
        let at = at.and_then(|decision| self.data(&decision, denies));
        let below = below.and_then(|decision| self.data(&decision, decision.scope != Match::Exact));
        let inherited = inherited.and_then(|decision| self.data(&decision, decision.scope != Match::Exact));
        Effects {
            has_own,
            differ: at != inherited || below != inherited,
            is_idle_exception: at.is_none() && below.is_none() && !is_inherited,
            at,
            below,
            is_inherited,
            is_tcp_only,
        }
    }

    /// The records of a decision; `None` for a passthru.
    fn data(&mut self, decision: &Decision<'_>, denies: bool) -> Option<Data> {
        if decision.is_passthru() {
            return None;
        }
        let answer = decision.answer;
        let data =
            self.known.entry((std::ptr::from_ref(answer), denies)).or_insert_with(|| data_of(answer, denies));
        Some(Rc::clone(data))
    }

    /// Writes the records of an owner. A side that nothing blocks gets a passthru if a wildcard would cover it.
    fn put<W: Write>(&self, output: &mut Output<'_, W>, owner: &Owner, effects: &Effects) -> io::Result<()> {
        if owner.name.suffix(0).len() + self.origin + 1 > MAX_NAME {
            return output.leave_out("too long below the name of the zone", &owner.name);
        }
        let passthru = [String::from("60 CNAME rpz-passthru.")];
        output.counts.entries += 1;
        for (wildcard, side) in [("", &effects.at), ("*.", &effects.below)] {
            let data: &[String] = match side {
                Some(data) => data,
                None if effects.is_inherited => &passthru,
                None => &[],
            };
            for record in data {
                output.counts.records += 1;
                writeln!(output.out, "{wildcard}{} {record}", owner.name)?;
            }
        }
        Ok(())
    }

    /// The names above an entry that need records because of it: as empty non-terminals, no wildcard would
    /// cover them any more.
    fn between<W: Write>(&mut self, output: &mut Output<'_, W>, owner: &Owner) -> Vec<String> {
        let above = (1..owner.name.labels()).map_while(|skip| owner.above(skip));
        // Only as far up as a wildcard may cover them.
        let covered: Vec<Owner> =
            above.take_while(|above| blocks(&above.inherited(output.snapshot, Udp))).collect();
        let mut found = Vec::new();
        // From the top: an entry that changes nothing has records only if all names above it have some.
        for above in covered.into_iter().rev() {
            let effects = self.effects(output, &above);
            let mut zones = output.snapshot.zones().iter();
            let is_owner = zones.any(|placed| placed.zone.owns(&above.name, &above.walk));
            match is_owner && (effects.differ || effects.has_own && found.is_empty()) {
                true => found.clear(),
                false => found.push(above.name.to_string()),
            }
        }
        found
    }
}

/// The records of an answer. `denies`: the name is denied with all names below it.
fn data_of(answer: &Answer, denies: bool) -> Data {
    let ttl = answer.ttl;
    let cname = |target: &str| Rc::from([format!("{ttl} CNAME {target}")]);
    match answer.action {
        Action::Passthru => cname("rpz-passthru."),
        Action::Nxdomain if denies => cname("."),
        // An answer NXDOMAIN would deny the names below, too (RFC 8020). RPZ has no REFUSED.
        Action::Nxdomain | Action::Nodata | Action::Refused => cname("*."),
        Action::Drop => cname("rpz-drop."),
        Action::Truncate => cname("rpz-tcp-only."),
        Action::Cname => match &answer.target {
            Some(Target::Name(name)) => cname(&format!("{name}.")),
            Some(Target::Under(name)) => cname(&format!("*.{name}.")),
            None => cname("*."),
        },
        Action::Sinkhole if answer.ipv4.is_empty() && answer.ipv6.is_empty() => cname("*."),
        Action::Sinkhole => {
            let ipv4 = answer.ipv4.iter().map(|address| format!("{ttl} A {address}"));
            ipv4.chain(answer.ipv6.iter().map(|address| format!("{ttl} AAAA {address}"))).collect()
        }
    }
}

/// The prefixes of zones of addresses, as triggers. In one policy zone the longest prefix decides, so those
/// within a prefix of an earlier zone are left out.
fn write_prefixes<W: Write>(output: &mut Output<'_, W>, writer: &mut Records) -> io::Result<()> {
    let snapshot = output.snapshot;
    for (place, placed) in snapshot.zones().iter().enumerate() {
        let Some(rule) = placed.zone.rules().all().first() else { continue };
        let Rule::Answer { answer, .. } = &**rule else { continue };
        for prefix in placed.zone.prefixes() {
            let is_within =
                |earlier: &Prefix| earlier.length <= prefix.length && earlier.contains(prefix.address);
            let before = &snapshot.zones()[..place];
            if before.iter().any(|earlier| earlier.zone.prefixes().any(is_within)) {
                continue;
            }
            let data = writer
                .known
                .entry((std::ptr::from_ref(&**answer), true))
                .or_insert_with(|| data_of(answer, true));
            output.counts.entries += 1;
            for record in data.iter() {
                output.counts.records += 1;
                writeln!(output.out, "{} {record}", trigger(prefix))?;
            }
        }
    }
    Ok(())
}

/// The owner name of a prefix. In IPv6, the first longest run of at least two zero parts is `zz`: other
/// software refuses another form.
fn trigger(prefix: &Prefix) -> String {
    let IpAddr::V6(address) = prefix.address else { return prefix.trigger() };
    let (first, length) = longest_zeros(address);
    let mut parts: Vec<String> = address.segments().iter().map(|part| format!("{part:x}")).collect();
    if length > 1 {
        parts.splice(first..first + length, [String::from("zz")]);
    }
    parts.reverse();
    format!("{}.{}.rpz-ip", prefix.length, parts.join("."))
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use super::*;
    use crate::export::{Exported, Format};
    use crate::list;
    use crate::policy::{PlacedZone, PolicyZone, Snapshot};

    fn name(text: &str) -> Name {
        Name::from_text(text.as_bytes()).unwrap()
    }

    fn rule(action: Action) -> Rule {
        let target = (action == Action::Cname).then(|| Target::Under(name("landing.isp.example")));
        let ipv4 = if action == Action::Sinkhole { vec![[192, 0, 2, 1].into()] } else { vec![] };
        let answer = Answer { action, ttl: 30, extended_error: None, ipv4, ipv6: vec![], target };
        Rule::Answer { answer: Arc::new(answer), reference: "".into(), structured: None }
    }

    fn snapshot(zones: Vec<PolicyZone>) -> Snapshot {
        let place = |zone| PlacedZone {
            zone: Arc::new(zone),
            next_change_at: None,
            judges_targets: true,
            is_shadow: false,
        };
        Snapshot::new(zones.into_iter().map(place).collect(), 7)
    }

    fn exported(snapshot: &Snapshot, format: Format) -> (Vec<String>, Exported) {
        let mut out = Vec::new();
        let counts = crate::export::write(snapshot, format, "", &name("rpz.example"), &mut out).unwrap();
        (String::from_utf8(out).unwrap().lines().map(String::from).collect(), counts)
    }

    /// The records of a policy zone by owner, as a server finds them (RFC 4592).
    struct Zone(BTreeMap<String, Vec<String>>, BTreeSet<String>);

    impl Zone {
        fn read(lines: &[String]) -> Zone {
            let mut zone = Zone(BTreeMap::new(), BTreeSet::new());
            for line in lines.iter().filter(|line| !line.starts_with(';')) {
                let (owner, record) = line.split_once(' ').unwrap();
                zone.0.entry(owner.to_string()).or_default().push(record.to_string());
                let mut node = owner;
                zone.1.insert(node.to_string());
                while let Some((_, above)) = node.split_once('.') {
                    zone.1.insert(above.to_string());
                    node = above;
                }
            }
            zone
        }

        /// `None`: nothing is found, or a passthru.
        fn find(&self, queried: &str) -> Option<Vec<String>> {
            let mut found = self.0.get(queried);
            if !self.1.contains(queried) {
                let mut above = queried;
                while let Some((_, next)) = above.split_once('.') {
                    above = next;
                    if self.1.contains(above) {
                        found = self.0.get(&format!("*.{above}"));
                        break;
                    }
                }
            }
            found.filter(|records| *records != &["60 CNAME rpz-passthru."]).cloned()
        }
    }

    /// Random zones with every action and match, and names in and around their entries.
    #[test]
    fn a_server_that_reads_the_zone_decides_as_these_zones() {
        let mut random = 7u64;
        let mut draw = |below: usize| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) as usize % below
        };
        let mut blocked = 0;
        for _ in 0..400 {
            let zones = (0..1 + draw(3)).map(|place| {
                let mut rules = vec![Rule::Exemption, Rule::passthru()];
                let actions =
                    [Action::Nxdomain, Action::Nodata, Action::Drop, Action::Sinkhole, Action::Cname];
                rules.extend(actions.map(rule));
                let mut lines = String::new();
                for _ in 0..1 + draw(8) {
                    let labels: Vec<&str> = (0..1 + draw(4)).map(|_| ["a", "b", "cc"][draw(3)]).collect();
                    let scope = Match::ALL[draw(3)].0.name();
                    lines += &format!("{scope} {} {}\n", draw(rules.len()), labels.join("."));
                }
                list::entries(&format!("z{place}"), rules, lines.trim_end().as_bytes()).ok().unwrap()
            });
            let snapshot = snapshot(zones.collect());
            let (lines, _) = exported(&snapshot, Format::Rpz);
            let zone = Zone::read(&lines);
            for _ in 0..200 {
                let labels: Vec<&str> = (0..1 + draw(6)).map(|_| ["a", "b", "cc", "d"][draw(4)]).collect();
                let (queried, text) = (name(&labels.join(".")), labels.join("."));
                let decision = snapshot.find(&queried, Udp).filter(|decision| !decision.is_passthru());
                let expected = decision.map(|decision| {
                    let denies = snapshot.denies_all_below(&queried, &decision);
                    data_of(decision.answer, denies).to_vec()
                });
                blocked += usize::from(expected.is_some());
                assert_eq!(zone.find(&text), expected, "{text} in {lines:#?}");
            }
        }
        assert!(blocked > 10_000);
    }

    #[test]
    fn a_zone_without_exceptions_is_a_pair_of_records_for_each_name() {
        let zone = list::entries("z", vec![rule(Action::Nxdomain)], b"subtree 0 t.me\nexact 0 x.example");
        let (lines, counts) = exported(&snapshot(vec![zone.ok().unwrap()]), Format::Rpz);
        let mut records = lines[..lines.len() - 1].to_vec();
        records.sort();
        assert_eq!(records, ["*.t.me 30 CNAME .", "t.me 30 CNAME .", "x.example 30 CNAME *."]);
        assert_eq!(lines.last().unwrap(), "; end: {\"entries\":2,\"records\":3,\"left_out\":{}}");
        assert_eq!((counts.entries, counts.records), (2, 3));
    }

    /// With `a.b.t.me`, the name `b.t.me` would be an empty non-terminal, and need records of its own.
    #[test]
    fn an_entry_that_a_wildcard_covers_is_written_if_it_makes_no_name_empty() {
        let rules = vec![rule(Action::Nxdomain), rule(Action::Drop)];
        let entries = b"subtree 0 t.me\nsubtree 0 www.t.me\nsubtree 0 a.b.t.me\nsubtree 0 x.a.b.t.me\n\
                        subtree 1 c.d.t.me";
        let zone = list::entries("z", rules, entries).ok().unwrap();
        let (lines, _) = exported(&snapshot(vec![zone]), Format::Rpz);
        let mut records: Vec<_> =
            lines[..lines.len() - 1].iter().filter(|line| !line.starts_with('*')).collect();
        records.sort();
        let expected =
            ["c.d.t.me 30 CNAME rpz-drop.", "d.t.me 30 CNAME *.", "t.me 30 CNAME *.", "www.t.me 30 CNAME ."];
        assert_eq!(records, expected);
    }

    #[test]
    fn an_exception_without_effect_is_left_out_and_named() {
        let rules = vec![Rule::Exemption, rule(Action::Nxdomain)];
        let zone =
            list::entries("z", rules, b"subtree 1 t.example\nsubtree 0 cdn.t.example\nexact 0 u.example");
        let (lines, counts) = exported(&snapshot(vec![zone.ok().unwrap()]), Format::Rpz);
        assert!(lines.contains(&"; left out (exception without effect): u.example".to_string()));
        assert!(lines.contains(&"*.cdn.t.example 60 CNAME rpz-passthru.".to_string()));
        // NXDOMAIN for this name would deny the exception.
        assert!(lines.contains(&"t.example 30 CNAME *.".to_string()));
        assert_eq!(counts.left_out, BTreeMap::from([("exception without effect", 1)]));
    }

    #[test]
    fn a_list_of_names_never_covers_more_than_the_zones() {
        let rules = vec![Rule::Exemption, rule(Action::Sinkhole), rule(Action::Truncate)];
        let entries = b"subtree 1 t.example\nsubtree 0 cdn.t.example\nexact 1 e.example\nbelow 1 b.example\n\
                        subtree 1 u.example\nsubtree 2 tcp.example";
        let zone = list::entries("z", rules, entries).ok().unwrap();
        let snapshot = snapshot(vec![zone]);
        let (lines, counts) = exported(&snapshot, Format::Text);
        assert_eq!(lines.iter().filter(|line| !line.starts_with('#')).collect::<Vec<_>>(), ["u.example"]);
        let reasons =
            ["TCP-only", "has an exception below", "only the names below", "without the names below"];
        assert_eq!(counts.left_out.into_iter().collect::<Vec<_>>(), reasons.map(|reason| (reason, 1)));
        let (lines, counts) = exported(&snapshot, Format::Hosts);
        let mut names: Vec<_> = lines.iter().filter(|line| !line.starts_with('#')).collect();
        names.sort();
        assert_eq!(names, ["192.0.2.1 e.example", "192.0.2.1 t.example", "192.0.2.1 u.example"]);
        assert_eq!(counts.left_out.get("the names below"), Some(&2));
    }

    #[test]
    fn a_prefix_is_written_in_the_only_form_that_others_accept() {
        let text = |prefix: &str| trigger(&Prefix::from_text(prefix).unwrap());
        assert_eq!(text("192.0.2.0/24"), "24.0.2.0.192.rpz-ip");
        assert_eq!(text("2001:db8::/32"), "32.zz.db8.2001.rpz-ip");
        assert_eq!(text("2001:db8:0:1:1:1:1:1"), "128.1.1.1.1.1.0.db8.2001.rpz-ip");
        assert_eq!(text("2001:db8:0:0:1:0:0:1"), "128.1.0.0.1.zz.db8.2001.rpz-ip");
        assert_eq!(text("::1"), "128.1.zz.rpz-ip");
        let longer = rule(Action::Drop);
        let first = PolicyZone::of_addresses("a", longer, vec![Prefix::from_text("192.0.2.0/24").unwrap()]);
        let within = ["192.0.2.1", "198.51.100.0/24"].map(|text| Prefix::from_text(text).unwrap());
        let second = PolicyZone::of_addresses("b", rule(Action::Nxdomain), within.to_vec());
        let (lines, _) = exported(&snapshot(vec![first, second]), Format::Rpz);
        let expected = ["24.0.2.0.192.rpz-ip 30 CNAME rpz-drop.", "24.0.100.51.198.rpz-ip 30 CNAME ."];
        assert_eq!(lines[..2], expected);
    }
}
