//! The policy in an event: which entry of which zone decided a query, and what it did.

use std::net::IpAddr;

use crate::message::QueryClient;
use crate::name::{Name, Walk};
use crate::policy::names::SEED;
use crate::policy::zone_data::{CLIENT_IP, RESPONSE_IP};
use crate::policy::{Action, Decision, Match, PolicyZone, Snapshot};

use super::redaction::ClientPrefix;

/// The feature of a query or its response that matched, as the enumeration `Match` of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    Qname = 1,
    ClientIp = 2,
    ResponseIp = 3,
}

/// The message `Policy` of the schema, and the zone and order for the annotation of the event.
#[derive(Debug, PartialEq, Eq)]
pub struct Policy<'a> {
    /// ORDERS, LIST or RPZ.
    pub kind: &'static str,
    /// The owner name of the entry in wire format, relative to the zone. Empty: not sent.
    pub rule: Vec<u8>,
    pub action: Action,
    pub trigger: Trigger,
    /// The name in wire format, or the address.
    pub value: Vec<u8>,
    pub zone: &'a str,
    /// The number of the order; empty for other zones.
    pub order: &'a str,
}

impl<'a> Policy<'a> {
    /// `name`: the name that was judged, which is QNAME or a name in the response's chain. `action`: what was
    /// done, which may differ from the entry's action: a sinkhole without an address of this type is NODATA.
    pub fn new(
        snapshot: &'a Snapshot,
        decision: &Decision<'a>,
        name: &Name,
        client: QueryClient,
        action: Action,
        prefixes: ClientPrefix,
    ) -> Option<Policy<'a>> {
        let zone = &*snapshot.zones().get(decision.zone)?.zone;
        let (trigger, rule, value) =
            if let (Some(prefix), Some(address)) = (decision.prefix, decision.address) {
                let owner = format!("{}.{RESPONSE_IP}", prefix.rpz_owner());
                (Trigger::ResponseIp, wire(&owner), bytes_of(address))
            } else if decision.is_of_name() {
                (Trigger::Qname, owner(zone, name), name.suffix(0).to_vec())
            } else {
                let rule = client_rule(zone, client.address, prefixes);
                (Trigger::ClientIp, rule, bytes_of(prefixes.truncate(client.address)))
            };
        let kind = kind(zone);
        Some(Policy { kind, rule, action, trigger, value, zone: zone.name(), order: decision.reference })
    }
}

fn kind(zone: &PolicyZone) -> &'static str {
    match (zone.is_of_records(), zone.is_of_orders()) {
        (true, _) => "RPZ",
        (_, true) => "ORDERS",
        _ => "LIST",
    }
}

/// The owner of the entry that covers the name. One that covers only names below is a wildcard. In a zone of
/// records, where a name and its wildcard with the same answer are one entry, so is each one above the name.
fn owner(zone: &PolicyZone, name: &Name) -> Vec<u8> {
    let Some(found) = zone.find(name, &Walk::new(name, SEED)) else { return Vec::new() };
    let suffix = name.suffix(found.skip);
    let is_wildcard = found.scope == Match::Below || zone.is_of_records() && found.skip > 0;
    if is_wildcard { [b"\x01*", suffix].concat() } else { suffix.to_vec() }
}

/// The trigger for a client. It is not sent if it holds more of the address than an event may.
fn client_rule(zone: &PolicyZone, client: IpAddr, prefixes: ClientPrefix) -> Vec<u8> {
    match zone.find_client(client) {
        Some((prefix, _)) if prefix.length <= prefixes.of(prefix.address) => {
            wire(&format!("{}.{CLIENT_IP}", prefix.rpz_owner()))
        }
        _ => Vec::new(),
    }
}

fn wire(name: &str) -> Vec<u8> {
    Name::from_text(name.as_bytes()).map_or(Vec::new(), |name| name.suffix(0).to_vec())
}

fn bytes_of(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
