//! The records of an answer in an RPZ zone.

use std::rc::Rc;

use crate::policy::{Action, Answer, DataRecord, Target};

/// The records of an answer without their owner; several for addresses and local data.
pub type Data = Rc<[String]>;

/// The records of an answer. `denies`: the name is denied with all names below it.
pub fn data_of(answer: &Answer, denies: bool) -> Data {
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
        Action::Data if answer.data.is_empty() => cname("*."),
        Action::Data => answer.data.iter().map(DataRecord::text).collect(),
    }
}
