//! What the policy says about the records of an upstream's response: about where they lead,
//! which decides about the whole query, and about those beside that, which are dropped.

use crate::chain::{self, AmbiguousChain, Chains, End, Owners, Sections};
use crate::message::{Query, Section, Transport, rtype};
use crate::name::{Name, Walk};
use crate::policy::names::SEED;
use crate::policy::{Action, Decision, Judges, Snapshot, Supposed};
use crate::response::{Entry, Mark, Response};

/// What a snapshot says about where an upstream's response leads, as if the query's
/// own name were listed. Records that lead nowhere, but that no client may have, are
/// marked as dropped.
///
/// `first`: how many zones from the top judge. Along CNAME and DNAME the first name that is
/// blocked decides (RPZ draft 5.1); a passthru frees all that follows from its own zone and
/// those after it. What HTTPS, SVCB and address records offer at the end are alternatives: one
/// that is blocked blocks, and a passthru frees itself alone.
pub fn decide<'a>(
    query: &Query,
    response: Response<'_>,
    first: usize,
    snapshot: &'a Snapshot,
) -> Result<Option<Decision<'a>>, AmbiguousChain> {
    let judges = Judges { first, ..Judges::all(query.head.hop.transport) };
    response.clear_marks();
    if response.is_failure() {
        drop_listed(response, snapshot, judges, Beside::All);
        return Ok(None);
    }
    let (decision, judges) = led_to(query, response, snapshot, judges)?;
    if decision.is_none() {
        drop_listed(response, snapshot, judges, Beside::Judged);
    }
    Ok(decision)
}

/// How a zone would block a query for where its answer leads, if it were enforced as
/// well, and the rank of the entry by which; `None`, too, where it decides about the
/// queried name itself. `allowed_by`: the place of the enforced zone that lets the name pass.
pub fn would_block_target(
    query: &Query,
    response: Response<'_>,
    allowed_by: Option<usize>,
    snapshot: &Snapshot,
    supposed: Supposed<'_>,
) -> Option<(Action, u64)> {
    let transport = query.head.hop.transport;
    // Enforced zones that come before the one that lets the name pass, and the supposed one.
    let first = match allowed_by {
        Some(zone) if zone < supposed.after => return None,
        Some(zone) => zone + 1,
        None => usize::MAX,
    };
    let walk = Walk::new(&query.name, SEED);
    if response.is_failure() || supposed.zone.decide(0, &query.name, &walk, transport).is_some() {
        return None;
    }
    response.clear_marks();
    let judges = Judges { transport, supposed: Some(supposed), first };
    let decision = led_to(query, response, snapshot, judges).ok()?.0?;
    let is_its_own = decision.zone == supposed.after;
    is_its_own.then_some((decision.answer.action, decision.rank))
}

/// Who blocks a query for where its answer leads, and who judges the other records.
fn led_to<'a>(
    query: &Query,
    response: Response<'_>,
    snapshot: &'a Snapshot,
    mut judges: Judges<'a>,
) -> Result<(Option<Decision<'a>>, Judges<'a>), AmbiguousChain> {
    let mut chains = Chains::new(response)?;
    let end = chains.walk(Sections::Answer, &query.name, |name| judge_step(name, snapshot, &mut judges))?;
    let decision = match end {
        End::Judged(decision) => Some(decision).filter(|decision| !decision.is_passthru()),
        End::Name(last) => judge_offers(&mut chains, response, last, snapshot, judges)?,
    };
    Ok((decision, judges))
}

/// What is said about a name on the way, where it ends there: by a block, or by a passthru of
/// the very first zone. Any other passthru leaves the rest to the zones before its own.
fn judge_step<'a>(name: &Name, snapshot: &'a Snapshot, judges: &mut Judges<'a>) -> Option<Decision<'a>> {
    let decision = snapshot.find_target(name, *judges)?;
    if decision.is_passthru() {
        judges.first = decision.zone;
        if decision.zone > 0 {
            return None;
        }
    }
    Some(decision)
}

/// Of all that blocks among what is offered, the first zone decides, in whichever
/// order the records come (RPZ draft 5.2): servers turn RRsets around.
fn judge_offers<'a>(
    chains: &mut Chains<'_>,
    response: Response<'_>,
    last: Name,
    snapshot: &'a Snapshot,
    judges: Judges<'a>,
) -> Result<Option<Decision<'a>>, AmbiguousChain> {
    let mut first: Option<Decision<'a>> = None;
    let mut owners = Owners::new(response, last, judges.first);
    while let Some(owner) = owners.next() {
        for offer in chain::offers(response, &owner) {
            let mut judges = Judges { first: owner.judges, ..judges };
            let mut target = None;
            if let Some(name) = &offer.target {
                target = judge_step(name, snapshot, &mut judges);
                if target.is_none() {
                    match chains.walk(Sections::Both, name, |name| judge_step(name, snapshot, &mut judges))? {
                        End::Judged(decision) => target = Some(decision),
                        End::Name(last) => owners.add(last, judges.first),
                    }
                }
            }
            let addresses = offer.addresses.filter_map(|address| snapshot.find_address(address, judges));
            for decision in target.into_iter().chain(addresses) {
                let is_first = first.as_ref().is_none_or(|first| decision.zone < first.zone);
                if is_first && !decision.is_passthru() {
                    first = Some(decision);
                }
            }
        }
    }
    Ok(first)
}

//------- Records beside the way ---------------------------------------------

/// Which records were judged already, or are not to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    /// None: the response leads nowhere.
    All,
    /// Those on the way, and what they offer at its end.
    Judged,
    /// The way from a target of ours, addresses and all.
    Own,
}

/// Drops what no client may have beside the way from a target of our own CNAME.
pub fn drop_beside(
    response: Response<'_>,
    target: &Name,
    snapshot: &Snapshot,
    transport: Transport,
) -> Result<(), AmbiguousChain> {
    response.clear_marks();
    if !response.is_failure() {
        Chains::new(response)?.walk(Sections::Answer, target, |_| None::<()>)?;
    }
    drop_listed(response, snapshot, Judges::all(transport), Beside::Own);
    Ok(())
}

/// Drops, in all sections, the RRsets whose owner is blocked or that hold an address which is,
/// and the signatures of these. The first zone that matches, by name or by address, decides.
fn drop_listed(response: Response<'_>, snapshot: &Snapshot, judges: Judges<'_>, beside: Beside) {
    if judges.first == 0 {
        return;
    }
    let is_judged = |entry: &Entry| match beside {
        Beside::All => false,
        Beside::Own => entry.has(Mark::OnWay),
        Beside::Judged => {
            entry.has(Mark::Offered) || entry.has(Mark::OnWay) && address_kind(entry.rtype()).is_none()
        }
    };
    let stays = |entry: &Entry| is_judged(entry) || proves_denial(response, entry);
    for entry in response.entries() {
        if entry.has(Mark::Seen) || stays(entry) {
            continue;
        }
        let owner = response.name(entry.owner);
        let by_name = snapshot.find_target(&owner, judges);
        let name_is_blocked = by_name.as_ref().is_some_and(|decision| !decision.is_passthru());
        // By kind: whether one of the owner's addresses is not to be had; `None` where it has none.
        let mut is_blocked = [None; ADDRESS_TYPES.len()];
        for same in response.of(owner.suffix(0)) {
            same.set(Mark::Seen);
            if let Some(kind) = address_kind(same.rtype()).filter(|_| !stays(same)) {
                let blocked = holds_blocked(response, same, by_name.as_ref(), snapshot, judges);
                is_blocked[kind] = Some(blocked | is_blocked[kind].unwrap_or(false));
            }
        }
        for same in response.of(owner.suffix(0)).filter(|same| !stays(same)) {
            let kind = address_kind(same.belongs_to(response.message()));
            if kind.and_then(|kind| is_blocked[kind]).unwrap_or(name_is_blocked) {
                response.drop_entry(same);
            }
        }
    }
}

/// Types whose records hold addresses.
const ADDRESS_TYPES: [u16; 4] = [rtype::A, rtype::AAAA, rtype::SVCB, rtype::HTTPS];

fn address_kind(rtype: u16) -> Option<usize> {
    ADDRESS_TYPES.iter().position(|known| *known == rtype)
}

/// Whether a record of one of these types holds an address that no client may have, or, without
/// any, belongs to a name that is blocked. What HTTPS and SVCB hint at are their targets' addresses.
fn holds_blocked(
    response: Response<'_>,
    entry: &Entry,
    by_name: Option<&Decision<'_>>,
    snapshot: &Snapshot,
    judges: Judges<'_>,
) -> bool {
    let service = if chain::is_service(entry) { response.service(entry) } else { None };
    let by_target = service.and_then(|target| snapshot.find_target(&target, judges));
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

/// A denial cannot be cached without its SOA (RFC 2308 5), nor validated without its proofs (RFC
/// 4035 3.1.3); and whose zone it is from leads nowhere.
fn proves_denial(response: Response<'_>, entry: &Entry) -> bool {
    let kind = entry.belongs_to(response.message());
    entry.section == Section::Authority && matches!(kind, rtype::SOA | rtype::NSEC | rtype::NSEC3)
}
