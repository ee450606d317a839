//! Applies the policy to the records of an upstream's response: to its targets, which may block
//! the whole query, and to all other records, which may be dropped.

use crate::chain::{self, AmbiguousChain, Chains, Owners, Sections};
use crate::message::{Query, QueryClient, Section, rtype};
use crate::name::{Name, Walk};
use crate::policy::names::SEED;
use crate::policy::{Decision, Evaluation, Judges, Shadow, ShadowMatch, Snapshot};
use crate::response::{Entry, Mark, Response};

/// Returns the decision of a snapshot about the targets of a response, and the name in the chain that it
/// is about: for an address, its owner. Marks blocked records outside the chain as dropped.
///
/// On the CNAME and DNAME chain the
/// first blocked name decides (RPZ draft 5.1). A passthru exempts the rest of the chain from its
/// own zone and from those after it. HTTPS, SVCB and address records at the end are alternatives:
/// one blocked alternative blocks the query, and a passthru exempts only itself.
pub fn decide<'a>(
    query: &Query,
    response: Response<'_>,
    judges: Judges,
    snapshot: &'a Snapshot,
) -> Result<Option<(Decision<'a>, Name)>, AmbiguousChain> {
    // A client that asks for a CNAME or for ANY does not follow it: as in BIND, no record of a policy zone is
    // about the target.
    let is_followed = !matches!(query.qtype, rtype::CNAME | rtype::ANY);
    let judges = Judges { records: judges.records && is_followed, ..judges };
    let judges = Evaluation { judges, ..Evaluation::all(query.head.hop.client()) };
    response.clear_marks();
    if response.is_failure() {
        drop_blocked(response, snapshot, judges, Judged::Nothing);
        return Ok(None);
    }
    let (decision, judges) = judge_targets(query, response, snapshot, judges)?;
    if decision.is_none() {
        drop_blocked(response, snapshot, judges, Judged::Chain);
    }
    Ok(decision)
}

/// Whether a shadow zone would block a query because of a CNAME, DNAME, HTTPS or SVCB target. `None` if it
/// decides about the queried name itself. `allowed_by`: the enforced zones that judge after a passthru.
pub fn would_block_target(
    query: &Query,
    response: Response<'_>,
    allowed_by: Option<Judges>,
    snapshot: &Snapshot,
    shadow: &Shadow,
) -> Option<ShadowMatch> {
    let (client, place) = (query.head.hop.client(), snapshot.place_of(shadow));
    // The enforced zones before the one that exempts the name, and the shadow zone.
    let judges = match allowed_by {
        Some(judges) if judges.first < place => return None,
        Some(judges) => Judges { first: judges.first.saturating_add(1), ..judges },
        None => Judges::ALL,
    };
    let walk = Walk::new(&query.name, SEED);
    if response.is_failure() || shadow.decide(&query.name, &walk, client).is_some() {
        return None;
    }
    response.clear_marks();
    let judges = Evaluation { client, shadow: Some(shadow), judges };
    let (decision, _) = judge_targets(query, response, snapshot, judges).ok()?.0?;
    let found = ShadowMatch { action: decision.answer.action, rank: decision.rank, is_decided: false };
    (decision.zone == place).then_some(found)
}

/// The decision about the targets, and the zones that judge the other records.
fn judge_targets<'a>(
    query: &Query,
    response: Response<'_>,
    snapshot: &'a Snapshot,
    mut judges: Evaluation<'a>,
) -> Result<(Option<(Decision<'a>, Name)>, Evaluation<'a>), AmbiguousChain> {
    let (mut chains, mut last) = (Chains::new(response)?, query.name.clone());
    // The name that a zone of records lets pass.
    let mut passed = (!judges.judges.records).then(|| query.name.clone());
    let judge = |name: &Name| {
        let by_records = judges.judges.records;
        let decision = judge_name(name, snapshot, &mut judges);
        if by_records && !judges.judges.records {
            passed = Some(name.clone());
        }
        decision.map(|decision| (decision, name.clone()))
    };
    let by_name = chains.follow(Sections::Answer, &mut last, judge)?;
    if by_name.as_ref().is_some_and(|(decision, _)| decision.zone == 0) {
        return Ok((by_name.filter(|(decision, _)| !decision.is_passthru()), judges));
    }
    // The addresses of a name are judged together with it, so an earlier zone decides (section 5.2).
    let (end, evaluation) = match &by_name {
        Some((decision, name)) => (name.clone(), judges.before(decision.zone)),
        None if passed.as_ref() == Some(&last) => (last, judges.of_records()),
        None => (last, judges),
    };
    let by_address = judge_alternatives(&mut chains, response, end.clone(), snapshot, evaluation);
    match (by_address, by_name) {
        (Ok(Some(decision)), None) => {
            Ok((Some((decision, end)).filter(|(decision, _)| !decision.is_passthru()), judges))
        }
        // Only records of policy zones decide about a name and its addresses at once.
        (Ok(Some(decision)), Some(_)) if decision.is_of_records && decision.is_passthru() => {
            let judges = judges.after(&decision);
            Ok((None, judges))
        }
        (Ok(Some(decision)), Some(_)) if decision.is_of_records => Ok((Some((decision, end)), judges)),
        (_, Some(by_name)) => Ok((Some(by_name), judges)),
        (by_address, None) => by_address.map(|_| (None, judges)),
    }
}

/// The decision about a name on the chain, if it ends the chain: a block, or a passthru of the
/// first zone. After any other passthru, only the zones before its own judge the rest.
fn judge_name<'a>(name: &Name, snapshot: &'a Snapshot, judges: &mut Evaluation<'a>) -> Option<Decision<'a>> {
    let Some(decision) = snapshot.find_target(name, *judges) else {
        judges.judges = judges.judges.and(snapshot.judges_from(name));
        return None;
    };
    if decision.is_passthru() {
        judges.judges = judges.judges.and(Judges::after(&decision));
        if decision.zone > 0 {
            return None;
        }
    }
    Some(decision)
}

/// The decision about the alternatives at the end of the chain. If several are blocked, the first
/// zone decides (RPZ draft 5.2), not the first record: servers rotate RRsets. Within a zone, a name
/// decides before an address (5.4), then the longest prefix (5.6), then the smallest address (5.7).
fn judge_alternatives<'a>(
    chains: &mut Chains<'_>,
    response: Response<'_>,
    last: Name,
    snapshot: &'a Snapshot,
    judges: Evaluation<'a>,
) -> Result<Option<Decision<'a>>, AmbiguousChain> {
    let mut first: Option<Decision<'a>> = None;
    let mut owners = Owners::new(response, last, judges.judges.first);
    while let Some(owner) = owners.next() {
        for alternative in chain::alternatives(response, &owner) {
            let own = Judges { first: owner.zones, ..judges.judges };
            let mut judges = Evaluation { judges: own, ..judges };
            let mut by_target = None;
            if let Some(mut target) = alternative.target {
                by_target = judge_name(&target, snapshot, &mut judges);
                if by_target.is_none() {
                    let judge = |name: &Name| judge_name(name, snapshot, &mut judges);
                    by_target = chains.follow(Sections::Both, &mut target, judge)?;
                    if by_target.is_none() {
                        owners.add(target, judges.judges.first);
                    }
                }
            }
            let by_address =
                alternative.addresses.filter_map(|address| snapshot.find_address(address, judges));
            for decision in by_target.into_iter().chain(by_address) {
                // In a zone of records, the prefix that decides may also be a passthru. In other zones, a
                // passthru exempts its own target only.
                let decides = !decision.is_passthru() || decision.is_of_records && decision.prefix.is_some();
                let is_first = first.as_ref().is_none_or(|first| decision.precedence() < first.precedence());
                if decides && is_first {
                    first = Some(decision);
                }
            }
        }
    }
    Ok(first)
}

//------- Records outside the chain -------------------------------------------

/// The records that are not judged again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judged {
    /// None: the response was not followed.
    Nothing,
    /// The chain and the alternatives at its end.
    Chain,
    /// The chain from the target of our own CNAME, with its addresses.
    OwnTarget,
}

/// Drops blocked records outside the chain from the target of our own CNAME.
pub fn drop_outside_chain(
    response: Response<'_>,
    target: &Name,
    snapshot: &Snapshot,
    client: QueryClient,
) -> Result<(), AmbiguousChain> {
    response.clear_marks();
    if !response.is_failure() {
        Chains::new(response)?.follow(Sections::Answer, &mut target.clone(), |_| None::<()>)?;
    }
    drop_blocked(response, snapshot, Evaluation::all(client), Judged::OwnTarget);
    Ok(())
}

/// Drops RRsets in all sections if their owner name or one of their addresses is blocked, with
/// their signatures. The first zone that matches name or address decides.
fn drop_blocked(response: Response<'_>, snapshot: &Snapshot, judges: Evaluation<'_>, judged: Judged) {
    if judges.judges.first == 0 {
        return;
    }
    let is_judged = |entry: &Entry| match judged {
        Judged::Nothing => false,
        Judged::OwnTarget => entry.has(Mark::OnPath),
        Judged::Chain => {
            entry.has(Mark::Alternative) || entry.has(Mark::OnPath) && address_index(entry.rtype()).is_none()
        }
    };
    let is_exempt = |entry: &Entry| is_judged(entry) || proves_denial(response, entry);
    for entry in response.entries() {
        if entry.has(Mark::Visited) || is_exempt(entry) {
            continue;
        }
        let owner = response.name(entry.owner);
        let by_name = snapshot.find_target(&owner, judges);
        let judges = match &by_name {
            None => judges.from(snapshot.judges_from(&owner)),
            Some(_) => judges,
        };
        let name_is_blocked = by_name.as_ref().is_some_and(|decision| !decision.is_passthru());
        // For each address type, whether one of the owner's addresses is blocked.
        let mut is_blocked = [None; ADDRESS_TYPES.len()];
        for same in response.owned_by(owner.suffix(0)) {
            same.set(Mark::Visited);
            if let Some(index) = address_index(same.rtype()).filter(|_| !is_exempt(same)) {
                let blocked = has_blocked_address(response, same, by_name.as_ref(), snapshot, judges);
                is_blocked[index] = Some(blocked | is_blocked[index].unwrap_or(false));
            }
        }
        for same in response.owned_by(owner.suffix(0)).filter(|same| !is_exempt(same)) {
            let index = address_index(same.covered_type(response.message()));
            if index.and_then(|index| is_blocked[index]).unwrap_or(name_is_blocked) {
                response.drop_entry(same);
            }
        }
    }
}

/// The types whose records hold addresses.
const ADDRESS_TYPES: [u16; 4] = [rtype::A, rtype::AAAA, rtype::SVCB, rtype::HTTPS];

fn address_index(rtype: u16) -> Option<usize> {
    ADDRESS_TYPES.iter().position(|known| *known == rtype)
}

/// Whether a record of an address type holds a blocked address. Without addresses, its owner name
/// decides. The hints of HTTPS and SVCB are addresses of their target.
fn has_blocked_address(
    response: Response<'_>,
    entry: &Entry,
    by_name: Option<&Decision<'_>>,
    snapshot: &Snapshot,
    judges: Evaluation<'_>,
) -> bool {
    let target = if chain::is_service(entry) { response.service_target(entry) } else { None };
    let by_target = target.and_then(|target| snapshot.find_target(&target, judges));
    let is_blocked = |by_target: Option<&Decision<'_>>, by_address: Option<&Decision<'_>>| {
        let first = by_name.into_iter().chain(by_target).chain(by_address).min_by_key(|first| first.zone);
        first.is_some_and(|decision| !decision.is_passthru())
    };
    let mut addresses = chain::addresses(response, entry).into_iter().flatten().peekable();
    match addresses.peek() {
        None => is_blocked(None, None),
        Some(_) => addresses
            .any(|address| is_blocked(by_target.as_ref(), snapshot.find_address(address, judges).as_ref())),
    }
}

/// Whether the record proves a denial. Without its SOA record, a denial cannot be cached (RFC 2308
/// 5); without its proofs, it cannot be validated (RFC 4035 3.1.3). Neither points to a target.
fn proves_denial(response: Response<'_>, entry: &Entry) -> bool {
    let rtype = entry.covered_type(response.message());
    entry.section == Section::Authority && matches!(rtype, rtype::SOA | rtype::NSEC | rtype::NSEC3)
}
