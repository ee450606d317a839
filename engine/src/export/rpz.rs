//! Zones as records of one response policy zone.
//!
//! Its wildcards follow RFC 4592 (as in BIND): `*.example` covers no name that has records, no name below
//! such a name, and no empty non-terminal. So each of these below a wildcard gets records of its own.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::rc::Rc;

use super::data::{Data, data_of};
use super::levels::{Level, everything};
use super::prefixes::write_prefixes;
use super::{Output, Owner, blocks, check_memory, each_owner};
use crate::message::Transport::{Tcp, Udp};
use crate::name::{MAX_NAME, Name};
use crate::policy::{Action, Answer, Decision, Match};

/// Bytes of the label `*` in wire format, and of the longest label.
const WILDCARD: usize = 2;
const LABEL: usize = 64;
/// Names with such a last label are triggers of other kinds. No entry of ours means one.
const RESERVED: &[u8] = b"rpz-";
const PASSTHRU: &str = "60 CNAME rpz-passthru.";

pub fn write<W: Write>(output: &mut Output<'_, W>, origin: &Name) -> io::Result<()> {
    let snapshot = output.snapshot;
    let mut writer = Records {
        origin: origin.suffix(0).len(),
        known: HashMap::new(),
        passthru: Rc::from([PASSTHRU.to_string()]),
        between: BTreeSet::new(),
        opened: BTreeSet::new(),
        written: BTreeSet::new(),
    };
    each_owner(snapshot, writer.longest(), |owner| writer.note_too_long(output, owner))?;
    each_owner(snapshot, 0, |owner| writer.take(output, owner))?;
    for name in writer.missing() {
        let owner = Owner::new(Name::from_text(name.as_bytes()).expect("a suffix of a name is a name"));
        let levels = owner.levels(snapshot, Udp);
        let Some(level) = levels.last() else { continue };
        let effects = writer.effects(output, &owner, level);
        writer.put(output, &owner, &effects)?;
    }
    if let Some(decision) = everything(snapshot, Udp) {
        output.counts.entries += 1;
        for record in writer.data(&decision, true).iter() {
            output.counts.records += 1;
            writeln!(output.out, "* {record}")?;
        }
    }
    write_prefixes(output, writer.origin)
}

/// The records of a name, those of the names below it, and those that it would inherit.
struct Effects {
    at: Option<Data>,
    below: Option<Data>,
    inherited: Option<Data>,
    /// Whether an entry of exactly this name decides.
    has_own: bool,
    /// Whether the name stays open, since longer names below it must.
    is_cut: bool,
}

impl Effects {
    /// Whether a wildcard above would not do the same.
    fn differ(&self) -> bool {
        self.at != self.inherited || self.below != self.inherited
    }
}

struct Records {
    /// Bytes of the zone's name.
    origin: usize,
    /// The records of each answer, for a name that is denied with all names below and for others.
    known: HashMap<(*const Answer, bool), Data>,
    passthru: Data,
    /// Names between an entry and the next one above, which the records of the entry make empty non-terminals.
    between: BTreeSet<String>,
    /// Names with an exception below whose own name is too long. They and all names below them are open.
    ///
    /// BIND takes labels off a queried name until it fits, and then looks up the rest as if it were queried.
    opened: BTreeSet<String>,
    /// Of these, the names that have their records already.
    written: BTreeSet<String>,
}

impl Records {
    /// Notes an exception that is too long for this zone: otherwise a wildcard would block it.
    fn note_too_long<W: Write>(&mut self, output: &mut Output<'_, W>, owner: &Owner) -> io::Result<()> {
        if self.fits(&owner.name) {
            return Ok(());
        }
        let levels = owner.levels(output.snapshot, Udp);
        let is_passthru =
            |decision: &Option<Decision<'_>>| decision.as_ref().is_some_and(Decision::is_passthru);
        let is_exception = levels.last().is_some_and(|level| {
            let opens = blocks(&level.inherited) || is_passthru(&level.at) || is_passthru(&level.below);
            opens && !(blocks(&level.at) && blocks(&level.below))
        });
        let mut above = (1..owner.name.labels()).map(|skip| owner.above(skip));
        if let Some(above) = above.find(|above| self.fits(above)).filter(|_| is_exception) {
            let above = Owner::new(above);
            self.opened.insert(above.name.to_string());
            self.note_between(output, &above);
        }
        check_memory(self.opened.len())
    }

    fn fits(&self, name: &Name) -> bool {
        name.suffix(0).len() + self.origin - 1 + WILDCARD <= MAX_NAME
    }

    /// Whether a name right below this one may be too long.
    fn may_be_cut_to(&self, name: &Name) -> bool {
        name.suffix(0).len() + self.origin - 1 + LABEL > MAX_NAME
    }

    /// Bytes of text of the longest name that fits. Its wire format has two more.
    fn longest(&self) -> usize {
        (MAX_NAME - 1).saturating_sub(WILDCARD + self.origin)
    }

    fn note_between<W: Write>(&mut self, output: &mut Output<'_, W>, owner: &Owner) {
        let levels = owner.levels(output.snapshot, Udp);
        let between = self.between(output, owner, &levels);
        self.note(owner, &between);
    }

    fn note(&mut self, owner: &Owner, between: &[usize]) {
        self.between.extend(between.iter().map(|skip| owner.above(*skip).to_string()));
    }

    /// Writes the records of an owner of a zone, if it needs any.
    fn take<W: Write>(&mut self, output: &mut Output<'_, W>, owner: &Owner) -> io::Result<()> {
        let levels = owner.levels(output.snapshot, Udp);
        let Some(level) = levels.last() else { return Ok(()) };
        let effects = self.effects(output, owner, level);
        if effects.is_cut {
            output.leave_out("too long below the name of the zone", &owner.name)?;
        }
        if effects.at.is_none() && effects.below.is_none() && effects.inherited.is_none() {
            return if effects.is_cut {
                Ok(())
            } else {
                output.leave_out("exception without effect", &owner.name)
            };
        }
        if !effects.has_own && !effects.differ() {
            return Ok(());
        }
        let between = self.between(output, owner, &levels);
        if !effects.differ() && !between.is_empty() {
            return Ok(()); // without it, a wildcard covers all of these names
        }
        if !self.put(output, owner, &effects)? {
            return Ok(());
        }
        self.note(owner, &between);
        if self.is_opened(&owner.name) {
            self.written.insert(owner.name.to_string());
        }
        check_memory(self.between.len())?;
        let mut sides = level.at.iter().chain(&level.below);
        if sides.any(|decision| decision.answer.action == Action::Truncate) {
            let levels = owner.levels(output.snapshot, Tcp);
            if levels.last().is_some_and(|level| blocks(&level.at) || blocks(&level.below)) {
                return output.leave_out("over TCP: another entry", &owner.name);
            }
        }
        Ok(())
    }

    /// The names that still need records.
    fn missing(&mut self) -> BTreeSet<String> {
        let mut missing = std::mem::take(&mut self.between);
        missing.extend(self.opened.difference(&self.written).cloned());
        missing
    }

    fn effects<W: Write>(&mut self, output: &Output<'_, W>, owner: &Owner, level: &Level<'_>) -> Effects {
        let is_own = |decision: &Option<Decision<'_>>| {
            decision.as_ref().is_some_and(|decision| decision.skip == level.skip)
        };
        let wide = |decision: &Decision<'_>| decision.is_of_records || decision.scope != Match::Exact;
        let name = if level.skip == 0 { None } else { Some(owner.above(level.skip)) };
        let name = name.as_ref().unwrap_or(&owner.name);
        let inherited = level.inherited.as_ref().map(|decision| self.data(decision, wide(decision)));
        // Under a wildcard, only a passthru keeps a name open.
        let open = inherited.as_ref().map(|_| Rc::clone(&self.passthru));
        let at = level.at.as_ref().map(|decision| {
            let denies = output.snapshot.denies_all_below(name, decision);
            self.data(decision, denies)
        });
        let below = level.below.as_ref().map(|decision| self.data(decision, wide(decision)));
        let has_own = is_own(&level.at) || is_own(&level.below);
        let is_opened = self.is_opened(name);
        let is_cut = !is_opened && blocks(&level.at) && !blocks(&level.below) && self.may_be_cut_to(name);
        let [mut at, mut below] = [at, below].map(|side| side.or(open.clone()));
        if is_opened {
            at = Some(Rc::clone(&self.passthru));
            below.clone_from(&at);
        } else if is_cut {
            at = open;
        }
        // A passthru opens addresses, too.
        let passthru = |is_allowed: bool| is_allowed.then(|| Rc::clone(&self.passthru));
        at = at.or(passthru(level.is_allowed[0]));
        below = below.or(passthru(level.is_allowed[1]));
        Effects { at, below, inherited, has_own, is_cut }
    }

    fn is_opened(&self, name: &Name) -> bool {
        !self.opened.is_empty() && self.opened.contains(&name.to_string())
    }

    fn data(&mut self, decision: &Decision<'_>, denies: bool) -> Data {
        if decision.is_passthru() {
            return Rc::clone(&self.passthru);
        }
        let answer = decision.answer;
        let key = (std::ptr::from_ref(answer), denies);
        Rc::clone(self.known.entry(key).or_insert_with(|| data_of(answer, denies)))
    }

    /// Writes the records of an owner. Returns false if it can have none.
    fn put<W: Write>(
        &self,
        output: &mut Output<'_, W>,
        owner: &Owner,
        effects: &Effects,
    ) -> io::Result<bool> {
        let last = owner.above(owner.name.labels() - 1);
        if last.suffix(0)[1..].starts_with(RESERVED) {
            return output.leave_out("reserved by RPZ", &owner.name).map(|()| false);
        }
        if !self.fits(&owner.name) {
            return output.leave_out("too long below the name of the zone", &owner.name).map(|()| false);
        }
        output.counts.entries += 1;
        for (wildcard, side) in [("", &effects.at), ("*.", &effects.below)] {
            for record in side.iter().flat_map(|data| data.iter()) {
                output.counts.records += 1;
                writeln!(output.out, "{wildcard}{} {record}", owner.name)?;
            }
        }
        Ok(true)
    }

    /// The names above an entry that need records because of it: as empty non-terminals, no wildcard would
    /// cover them any more. The result is the number of labels before each.
    fn between<W: Write>(
        &mut self,
        output: &Output<'_, W>,
        owner: &Owner,
        levels: &[Level<'_>],
    ) -> Vec<usize> {
        let mut found = Vec::new();
        // From the top: an entry that changes nothing has records only if all names above it have some.
        for level in levels.iter().filter(|level| level.skip > 0) {
            if level.inherited.is_none() {
                found.clear(); // no wildcard covers it
                continue;
            }
            let effects = level.has_entry.then(|| self.effects(output, owner, level));
            match effects.is_some_and(|effects| effects.differ() || effects.has_own && found.is_empty()) {
                true => found.clear(),
                false => found.push(level.skip),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use super::*;
    use crate::export::{Exported, Format};
    use crate::list;
    use crate::message::QueryClient;
    use crate::nat64::Nat64;
    use crate::policy::{PlacedZone, PolicyZone, Rule, Snapshot, Target};
    use crate::prefix::Prefix;

    fn name(text: &str) -> Name {
        Name::from_text(text.as_bytes()).unwrap()
    }

    fn rule(action: Action) -> Rule {
        let target = (action == Action::Cname).then(|| Target::Under(name("landing.isp.example")));
        let ipv4 = if action == Action::Sinkhole { vec![[192, 0, 2, 1].into()] } else { vec![] };
        let answer = Answer { ipv4, target, ..Answer::without_data(action, 30, None) };
        Rule::Answer { answer: Arc::new(answer), reference: "".into(), structured: None }
    }

    fn snapshot(zones: Vec<PolicyZone>) -> Snapshot {
        Snapshot::new(zones.into_iter().map(|zone| placed(zone, false)).collect(), 7)
    }

    fn placed(zone: PolicyZone, is_list: bool) -> PlacedZone {
        PlacedZone {
            zone: Arc::new(zone),
            next_change_at: None,
            judges_targets: true,
            is_shadow: false,
            clients: None,
            is_list,
        }
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

    /// Random zones with every action and match, names in and around their entries, and names that the
    /// operator exempts from some of the zones.
    #[test]
    fn a_server_that_reads_the_zone_decides_as_these_zones() {
        let mut random = 7u64;
        let mut draw = |below: usize| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) as usize % below
        };
        let mut blocked = 0;
        for round in 0..400 {
            let mut zone = |rules: Vec<Rule>, most: usize| {
                let mut lines = String::new();
                for _ in 0..1 + draw(most) {
                    let labels: Vec<&str> = (0..1 + draw(4)).map(|_| ["a", "b", "cc"][draw(3)]).collect();
                    let scope = Match::ALL[draw(3)].0.name();
                    lines += &format!("{scope} {} {}\n", draw(rules.len()), labels.join("."));
                }
                let zone = list::entries("z", rules, lines.trim_end().as_bytes()).ok().unwrap();
                (zone, draw(2) == 0)
            };
            let mut rules = vec![Rule::Exemption, Rule::passthru()];
            rules.extend(Action::ALL.map(|(action, _)| rule(action)));
            let zones = (0..1 + round % 3).map(|_| zone(rules.clone(), 8));
            let zones = zones.map(|(zone, is_list)| placed(zone, is_list)).collect();
            let (allowed, is_used) = zone(vec![Rule::passthru()], 3);
            let allowed = is_used.then(|| Arc::new(allowed));
            let snapshot = Snapshot::with_allowed(zones, Nat64::default(), allowed, 7);
            let (lines, _) = exported(&snapshot, Format::Rpz);
            let zone = Zone::read(&lines);
            for _ in 0..200 {
                let labels: Vec<&str> = (0..1 + draw(6)).map(|_| ["a", "b", "cc", "d"][draw(4)]).collect();
                let (queried, text) = (name(&labels.join(".")), labels.join("."));
                let decision = snapshot.find(&queried, QueryClient::anybody(Udp));
                let decision = decision.filter(|decision| !decision.is_passthru());
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

    /// In RPZ, `8.0.0.0.127.rpz-client-ip` blocks a whole network.
    #[test]
    fn a_name_that_is_a_trigger_of_another_kind_is_left_out() {
        let entries = b"subtree 0 8.0.0.0.127.rpz-client-ip\nexact 0 16.0.0.51.198.rpz-ip\nbelow 0 rpz-nsip";
        let zone = list::entries("z", vec![rule(Action::Drop)], entries).ok().unwrap();
        let (lines, counts) = exported(&snapshot(vec![zone]), Format::Rpz);
        assert!(lines.iter().all(|line| line.starts_with(';')), "{lines:?}");
        assert_eq!(counts.left_out, BTreeMap::from([("reserved by RPZ", 3)]));
    }

    /// Otherwise the targets and addresses in its response would be judged.
    #[test]
    fn a_passthru_is_written_although_no_entry_would_block_the_name() {
        let zone = list::entries("z", vec![rule(Action::Passthru)], b"exact 0 good.example").ok().unwrap();
        let (lines, _) = exported(&snapshot(vec![zone]), Format::Rpz);
        assert_eq!(lines[0], "good.example 60 CNAME rpz-passthru.");
    }

    /// BIND takes labels off a queried name that is too long, and looks up the rest.
    #[test]
    fn an_exception_that_is_too_long_opens_the_names_around_it() {
        let label = "x".repeat(60);
        let deep = format!("{label}.{label}.{label}.{label}.t.me");
        let cut = format!("{label}.{label}.{label}.t.me");
        let rules = vec![Rule::Exemption, rule(Action::Nodata), rule(Action::Drop)];
        for own in ["", "\nsubtree 2 CUT", "\nsubtree 2 CUT\nexact 0 a.CUT\nexact 0 b.CUT\nexact 0 c.CUT"] {
            let entries = format!("subtree 1 t.me\nexact 0 {deep}{}", own.replace("CUT", &cut));
            let zone = list::entries("z", rules.clone(), entries.as_bytes()).ok().unwrap();
            let (lines, _) = exported(&snapshot(vec![zone]), Format::Rpz);
            let records =
                |owner: &str| lines.iter().filter(|line| line.starts_with(owner)).collect::<Vec<_>>();
            for owner in [format!("{cut} "), format!("*.{cut} ")] {
                assert_eq!(records(&owner), [&format!("{owner}{PASSTHRU}")], "{lines:#?}");
            }
            assert_eq!(records(&format!("*.{label}.{label}.t.me ")).len(), 1, "{lines:#?}");
        }
    }

    /// A name below may be too long, is cut to this one, and must stay open.
    #[test]
    fn a_long_name_is_not_blocked_if_the_names_below_it_are_open() {
        let label = "x".repeat(60);
        let (long, short) = (format!("{label}.{label}.{label}.me"), format!("{label}.{label}.me"));
        let rules = vec![rule(Action::Nodata), rule(Action::Passthru)];
        let entries =
            format!("exact 0 {long}\nexact 0 {short}\nsubtree 0 y{long}\nbelow 1 z{long}\nexact 0 z{long}");
        let zone = list::entries("z", rules, entries.as_bytes()).ok().unwrap();
        let (lines, counts) = exported(&snapshot(vec![zone]), Format::Rpz);
        let mut records: Vec<_> = lines.iter().filter(|line| !line.starts_with(';')).cloned().collect();
        records.sort();
        let mut expected = vec![
            format!("{short} 30 CNAME *."),
            format!("y{long} 30 CNAME *."),
            format!("*.y{long} 30 CNAME *."),
            format!("*.z{long} {PASSTHRU}"),
        ];
        expected.sort();
        assert_eq!(records, expected);
        assert_eq!(counts.left_out, BTreeMap::from([("too long below the name of the zone", 2)]));
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
    fn a_prefix_within_one_of_an_earlier_zone_is_left_out() {
        let longer = rule(Action::Drop);
        let first = PolicyZone::of_addresses("a", longer, vec![Prefix::from_text("192.0.2.0/24").unwrap()]);
        let within = ["192.0.2.1", "198.51.100.0/24"].map(|text| Prefix::from_text(text).unwrap());
        let second = PolicyZone::of_addresses("b", rule(Action::Nxdomain), within.to_vec());
        let (lines, _) = exported(&snapshot(vec![first, second]), Format::Rpz);
        let expected = ["24.0.2.0.192.rpz-ip 30 CNAME rpz-drop.", "24.0.100.51.198.rpz-ip 30 CNAME ."];
        assert_eq!(lines[..2], expected);
    }
}
