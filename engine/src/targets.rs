//! What the policy says about the records of an upstream's response: about where they lead,
//! which decides about the whole query, and about those beside that, which are dropped.

use crate::answer::{Judgement, Rules, carry_out};
use crate::chain::{self, Chains, End, Owners, Sections, Unreadable};
use crate::message::{Query, Section, rtype};
use crate::name::{Name, Walk};
use crate::policy::names::SEED;
use crate::policy::{Action, Decision, Snapshot, Supposed};
use crate::response::{Entry, Mark, Response};

/// What a snapshot says about where an upstream's response leads, as if the query's
/// own name were listed. Records that lead nowhere, but that no client may have, are
/// marked as dropped.
///
/// Along CNAME and DNAME the first name decides that a zone matches, a passthru
/// too (RPZ draft 5.1). What HTTPS, SVCB and address records offer at the end are
/// alternatives: one that is blocked blocks, and a passthru frees itself alone.
pub fn judge_targets<'a>(
    query: &Query,
    response: Response<'_>,
    snapshot: &'a Snapshot,
    rules: &Rules,
    now: u64,
    out: &mut [u8],
) -> Judgement<'a> {
    let over_tcp = query.head.hop.over_tcp;
    response.clear_marks();
    if response.is_failure() {
        drop_listed(response, snapshot, over_tcp, Beside::All);
        return Judgement::Pass;
    }
    match led_to(query, response, snapshot, None) {
        Ok(Some(decision)) => carry_out(query, decision, snapshot, rules, now, out),
        Ok(None) => {
            drop_listed(response, snapshot, over_tcp, Beside::Judged);
            Judgement::Pass
        }
        Err(Unreadable) => Judgement::Unreadable,
    }
}

/// How a zone would block a query for where its answer leads, if it were enforced as
/// well, and the rank of the entry by which; `None`, too, where it decides about the
/// queried name itself.
pub fn would_block_target(
    query: &Query,
    response: Response<'_>,
    snapshot: &Snapshot,
    supposed: Supposed<'_>,
) -> Option<(Action, u64)> {
    let over_tcp = query.head.hop.over_tcp;
    let walk = Walk::new(&query.name, SEED);
    let own = supposed.zone.decide(0, &query.name, &walk).filter(|own| !own.lets_pass_over_tcp(over_tcp));
    if response.is_failure() || own.is_some() && !snapshot.decides(&query.name, &walk, supposed.after) {
        return None;
    }
    response.clear_marks();
    let decision = led_to(query, response, snapshot, Some(supposed)).ok()??;
    let is_its_own = decision.zone == supposed.after && decision.blocks(over_tcp);
    is_its_own.then_some((decision.answer.action, decision.rank))
}

/// Who decides about a query for where its answer leads.
fn led_to<'a>(
    query: &Query,
    response: Response<'_>,
    snapshot: &'a Snapshot,
    supposed: Option<Supposed<'a>>,
) -> Result<Option<Decision<'a>>, Unreadable> {
    let over_tcp = query.head.hop.over_tcp;
    let listed =
        |name: &Name| snapshot.find_target(name, supposed).filter(|d| !d.lets_pass_over_tcp(over_tcp));
    let mut chains = Chains::new(response)?;
    match chains.walk(Sections::Answer, &query.name, listed)? {
        End::Judged(decision) => Ok(Some(decision)),
        End::Name(last) => judge_offers(&mut chains, response, last, over_tcp, snapshot, supposed),
    }
}

/// Of all that blocks among what is offered, the first zone decides, in whichever
/// order the records come (RPZ draft 5.2): servers turn RRsets around.
fn judge_offers<'a>(
    chains: &mut Chains<'_>,
    response: Response<'_>,
    last: Name,
    over_tcp: bool,
    snapshot: &'a Snapshot,
    supposed: Option<Supposed<'a>>,
) -> Result<Option<Decision<'a>>, Unreadable> {
    let mut first: Option<Decision<'a>> = None;
    let mut owners = Owners::new(response, last);
    let listed =
        |name: &Name| snapshot.find_target(name, supposed).filter(|d| !d.lets_pass_over_tcp(over_tcp));
    while let Some(owner) = owners.next() {
        for offer in chain::offers(response, &owner) {
            let mut target = offer.target.as_ref().and_then(listed);
            if let (None, Some(name)) = (&target, &offer.target) {
                match chains.walk(Sections::Both, name, listed)? {
                    End::Judged(decision) => target = Some(decision),
                    End::Name(last) => owners.add(last),
                }
            }
            let is_freed = target.as_ref().is_some_and(|decision| decision.answer.action == Action::Passthru);
            let addresses = offer.addresses.filter_map(|address| snapshot.find_address(address, supposed));
            for decision in target.into_iter().chain(addresses.take_while(|_| !is_freed)) {
                let is_first = first.as_ref().is_none_or(|first| decision.zone < first.zone);
                if is_first && decision.blocks(over_tcp) {
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
    over_tcp: bool,
) -> Result<(), Unreadable> {
    response.clear_marks();
    if !response.is_failure() {
        Chains::new(response)?.walk(Sections::Answer, target, |_| None::<()>)?;
    }
    drop_listed(response, snapshot, over_tcp, Beside::Own);
    Ok(())
}

/// Drops, in all sections, the RRsets whose owner is blocked or that hold an address which is,
/// and the signatures of these. The first zone that matches, by name or by address, decides.
fn drop_listed(response: Response<'_>, snapshot: &Snapshot, over_tcp: bool, beside: Beside) {
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
        let by_name = snapshot.find_target(&owner, None);
        let name_is_blocked = by_name.as_ref().is_some_and(|decision| decision.blocks(over_tcp));
        // By kind: whether one of the owner's addresses is not to be had; `None` where it has none.
        let mut is_blocked = [None; ADDRESS_TYPES.len()];
        for same in response.of(owner.suffix(0)) {
            same.set(Mark::Seen);
            if let Some(kind) = address_kind(same.rtype()).filter(|_| !stays(same)) {
                let blocked = holds_blocked(response, same, by_name.as_ref(), snapshot, over_tcp);
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
    over_tcp: bool,
) -> bool {
    let service = if chain::is_service(entry) { response.service(entry) } else { None };
    let by_target = service.and_then(|target| snapshot.find_target(&target, None));
    let is_blocked = |by_target: Option<&Decision<'_>>, by_address: Option<&Decision<'_>>| {
        let first = by_name.into_iter().chain(by_target).chain(by_address).min_by_key(|first| first.zone);
        first.is_some_and(|decision| decision.blocks(over_tcp))
    };
    let mut addresses = chain::addresses(response, entry).into_iter().flatten().peekable();
    match addresses.peek() {
        None => is_blocked(None, None),
        Some(_) => addresses
            .any(|address| is_blocked(by_target.as_ref(), snapshot.find_address(address, None).as_ref())),
    }
}

/// A denial cannot be cached without its SOA (RFC 2308 5), nor validated without its proofs (RFC
/// 4035 3.1.3); and whose zone it is from leads nowhere.
fn proves_denial(response: Response<'_>, entry: &Entry) -> bool {
    let kind = entry.belongs_to(response.message());
    entry.section == Section::Authority && matches!(kind, rtype::SOA | rtype::NSEC | rtype::NSEC3)
}
