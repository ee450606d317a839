//! Compares a snapshot with the one before: some responses that were judged need not be judged again.

use std::sync::Arc;

use super::{PlacedZone, PolicyZone, Snapshot};

impl Snapshot {
    /// Whether all decisions about addresses in responses are those of another snapshot: its zones are the
    /// same, except for the names of zones that have no addresses.
    pub fn differs_only_in_names(&self, other: &Snapshot) -> bool {
        let has_names_only = |zone: &PolicyZone| !zone.is_of_records() && zone.addresses.is_empty();
        let is_alike = |(one, other): (&PlacedZone, &PlacedZone)| {
            let is_same_zone = Arc::ptr_eq(&one.zone, &other.zone)
                || has_names_only(&one.zone) && has_names_only(&other.zone);
            is_same_zone
                && one.judges_targets == other.judges_targets
                && one.is_list == other.is_list
                && is_same(&one.clients, &other.clients)
        };
        self.zones.len() == other.zones.len()
            && self.zones.iter().zip(&other.zones).all(is_alike)
            && self.shadows.is_empty()
            && other.shadows.is_empty()
            && self.nat64 == other.nat64
            && is_same(&self.allowed, &other.allowed)
    }
}

/// Whether both are the same object, or none.
fn is_same<T>(one: &Option<Arc<T>>, other: &Option<Arc<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list;
    use crate::nat64::Nat64;
    use crate::policy::{Action, Answer, Rule};
    use crate::prefix::{Prefix, Prefixes};

    fn rule() -> Rule {
        let answer = Arc::new(Answer::without_data(Action::Nxdomain, 60, None));
        Rule::Answer { answer, reference: "".into(), structured: None }
    }

    fn names(text: &str) -> Arc<PolicyZone> {
        Arc::new(list::entries("names", vec![rule()], text.as_bytes()).ok().unwrap())
    }

    fn addresses(prefix: &str) -> Arc<PolicyZone> {
        Arc::new(PolicyZone::of_addresses("addresses", rule(), vec![Prefix::from_text(prefix).unwrap()]))
    }

    fn place(zone: &Arc<PolicyZone>) -> PlacedZone {
        PlacedZone {
            zone: Arc::clone(zone),
            next_change_at: None,
            judges_targets: true,
            is_shadow: false,
            clients: None,
            is_list: false,
        }
    }

    fn snapshot(zones: Vec<PlacedZone>) -> Snapshot {
        Snapshot::new(zones, 1)
    }

    #[test]
    fn other_names_and_other_serials_change_no_decision_about_addresses() {
        let (one, other, networks) = (names("exact 0 a\n"), names("exact 0 b\n"), addresses("192.0.2.0/24"));
        let before = snapshot(vec![place(&one), place(&networks)]);
        let soon = PlacedZone { next_change_at: Some(7), ..place(&other) };
        for after in [
            Snapshot::new(vec![place(&one), place(&networks)], 2),
            snapshot(vec![place(&other), place(&networks)]),
            snapshot(vec![soon, place(&networks)]),
        ] {
            assert!(after.differs_only_in_names(&before) && before.differs_only_in_names(&after));
        }
    }

    #[test]
    fn any_other_difference_may_change_one() {
        let (one, networks) = (names("exact 0 a\n"), addresses("192.0.2.0/24"));
        let before = snapshot(vec![place(&one), place(&networks)]);
        let clients = Some(Arc::new(Prefixes::new([Prefix::from_text("192.0.2.1").unwrap()])));
        let allowed = Some(names("exact 0 c\n"));
        let nat64 = Nat64::new([Prefix::from_text("64:ff9b:1::/96").unwrap()]).unwrap();
        let same = || vec![place(&one), place(&networks)];
        for (what, after) in [
            ("fewer zones", snapshot(vec![place(&one)])),
            ("another order", snapshot(vec![place(&networks), place(&one)])),
            ("other addresses", snapshot(vec![place(&one), place(&addresses("192.0.2.0/25"))])),
            ("names instead of addresses", snapshot(vec![place(&one), place(&one)])),
            (
                "targets",
                snapshot(vec![PlacedZone { judges_targets: false, ..place(&one) }, place(&networks)]),
            ),
            ("a list", snapshot(vec![PlacedZone { is_list: true, ..place(&one) }, place(&networks)])),
            ("clients", snapshot(vec![PlacedZone { clients, ..place(&one) }, place(&networks)])),
            (
                "a shadow",
                snapshot(vec![place(&one), place(&networks), PlacedZone { is_shadow: true, ..place(&one) }]),
            ),
            ("NAT64", Snapshot::with_allowed(same(), nat64, None, 1)),
            ("allowed names", Snapshot::with_allowed(same(), Nat64::default(), allowed, 1)),
        ] {
            assert!(!after.differs_only_in_names(&before), "{what}");
            assert!(!before.differs_only_in_names(&after), "{what}");
        }
    }
}
