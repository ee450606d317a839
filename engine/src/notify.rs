//! NOTIFY messages (RFC 1996): a primary says that a policy zone has changed. They arrive where queries do.
//!
//! Only the zone's primaries may send them, with the zone's key if it has one. The control plane then asks
//! the primary for the zone's serial. Nothing that a NOTIFY says is trusted, apart from the zone's name.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use domain::base::iana::{Class, Opcode, OptRcode, Rcode, Rtype, TsigRcode};
use domain::base::message_builder::AdditionalBuilder;
use domain::base::name::ToName;
use domain::base::{Message, MessageBuilder};
use domain::tsig::ServerTransaction;
use rustix::event::{EventfdFlags, eventfd};

use crate::events::lock;
use crate::message::{flag, u16_at};
use crate::name::Name;
use crate::prefix::Prefixes;
use crate::tsig::{Key, now};

const NOTIFY: u16 = 4;

/// A zone that is received by transfer.
pub struct Zone {
    pub name: Name,
    /// The name of its policy zone.
    pub label: Arc<str>,
    /// The servers that may send NOTIFY.
    pub from: Prefixes,
    /// With which NOTIFY must be signed.
    pub key: Option<Key>,
}

/// The verdict on a NOTIFY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// For the zone with this index.
    Accepted(usize),
    Refused,
    BadSignature,
    Malformed,
}

/// Labels in the order of the variants of `Notify`.
pub const RESULTS: [&str; 4] = ["accepted", "refused", "bad_signature", "malformed"];

impl Notify {
    /// The place in `RESULTS`.
    pub fn index(self) -> usize {
        match self {
            Notify::Accepted(_) => 0,
            Notify::Refused => 1,
            Notify::BadSignature => 2,
            Notify::Malformed => 3,
        }
    }
}

/// Whether a message that is no response has the opcode NOTIFY.
pub fn is_notify(packet: &[u8]) -> bool {
    let flags = u16_at(packet, 2).unwrap_or(flag::QR);
    flags & flag::QR == 0 && flags & flag::OPCODE == NOTIFY << 11
}

/// All zones that are received by transfer.
#[derive(Default)]
pub struct Zones(pub Vec<Zone>);

impl Zones {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Judges a NOTIFY, and writes its response to `out`. Returns the length; 0: it gets none.
    pub fn respond(&self, packet: &[u8], client: IpAddr, out: &mut [u8]) -> (Notify, usize) {
        let Ok(mut message) = Message::from_octets(packet.to_vec()) else { return (Notify::Malformed, 0) };
        let (result, response) = self.judge(&mut message, client);
        let length = match response {
            Some(response) if response.len() <= out.len() => {
                out[..response.len()].copy_from_slice(&response);
                response.len()
            }
            _ => 0,
        };
        (result, length)
    }

    fn judge(&self, message: &mut Message<Vec<u8>>, client: IpAddr) -> (Notify, Option<Vec<u8>>) {
        let Some(name) = zone_of(message) else {
            return (Notify::Malformed, answer(message, Rcode::FORMERR).map(AdditionalBuilder::finish));
        };
        if message.opt().is_some_and(|opt| opt.version() > 0) {
            let response = answer(message, Rcode::NOERROR).and_then(|mut response| {
                let is_put = response.opt(|opt| {
                    opt.set_rcode(OptRcode::BADVERS);
                    Ok(())
                });
                is_put.ok().map(|()| response.finish())
            });
            return (Notify::Malformed, response);
        }
        let refused =
            |message: &_| (Notify::Refused, answer(message, Rcode::REFUSED).map(AdditionalBuilder::finish));
        // A zone has one entry for each policy zone that is made of it.
        let known = self.0.iter().position(|zone| zone.name == name && zone.from.contains(client));
        let Some(index) = known else { return refused(message) };
        let Some(key) = &self.0[index].key else {
            return (Notify::Accepted(index), answer(message, Rcode::NOERROR).map(AdditionalBuilder::finish));
        };
        match ServerTransaction::request(key, message, now()) {
            Ok(None) => refused(message),
            Ok(Some(transaction)) => {
                let signed = answer(message, Rcode::NOERROR).and_then(|mut response| {
                    transaction.answer(&mut response, now()).ok()?;
                    Some(response.finish())
                });
                (Notify::Accepted(index), signed)
            }
            Err(error) => {
                let is_bad_signature = error.error() == TsigRcode::FORMERR;
                let response = error.build_message(message, MessageBuilder::new_vec()).ok();
                let response = response.map(|response| {
                    let has_tsig = response.counts().arcount() > 0;
                    let mut response = response.finish();
                    if is_bad_signature && has_tsig {
                        put_bad_signature(&mut response);
                    }
                    response
                });
                (Notify::BadSignature, response)
            }
        }
    }
}

/// The crate says FORMERR for a wrong signature. RFC 8945 section 5.2.2 says BADSIG. The error is before the
/// empty last field of the TSIG record, which ends the message.
fn put_bad_signature(response: &mut [u8]) {
    let end = response.len();
    response[end - 4..end - 2].copy_from_slice(&TsigRcode::BADSIG.to_int().to_be_bytes());
}

/// The zone of a well-formed NOTIFY.
fn zone_of(message: &Message<Vec<u8>>) -> Option<Name> {
    if message.header().tc() {
        return None;
    }
    let mut questions = message.question();
    let question = questions.next()?.ok()?;
    if question.qtype() != Rtype::SOA || question.qclass() != Class::IN || questions.next().is_some() {
        return None;
    }
    let mut wire: Vec<u8> = Vec::new();
    question.qname().compose_canonical(&mut wire).ok()?;
    Name::parse(&wire, 0).ok().map(|(name, _)| name)
}

/// RFC 1996 4.7: the response repeats ID, opcode and question.
fn answer(message: &Message<Vec<u8>>, rcode: Rcode) -> Option<AdditionalBuilder<Vec<u8>>> {
    let mut response = MessageBuilder::new_vec();
    response.header_mut().set_id(message.header().id());
    response.header_mut().set_qr(true);
    response.header_mut().set_aa(rcode == Rcode::NOERROR);
    response.header_mut().set_opcode(Opcode::NOTIFY);
    response.header_mut().set_rcode(rcode);
    let mut response = response.question();
    if let Some(Ok(question)) = message.question().next() {
        response.push(question).ok()?;
    }
    Some(response.additional())
}

//------- For the control plane ----------------------------------------------

/// The zones of accepted NOTIFYs that the control plane has not taken yet, and who sent the last one.
pub struct Notified {
    zones: Mutex<BTreeMap<Arc<str>, IpAddr>>,
    /// Readable while there is one.
    wake: OwnedFd,
}

impl Notified {
    pub fn new() -> io::Result<Notified> {
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Notified { zones: Mutex::default(), wake })
    }

    /// A zone is kept once, however many come.
    pub fn note(&self, zone: &Arc<str>, from: IpAddr) {
        lock(&self.zones).insert(Arc::clone(zone), from);
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes()); // a full counter is readable, too
    }

    pub fn take(&self) -> Vec<(Arc<str>, IpAddr)> {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]); // before the zones, so that no wake is lost
        std::mem::take(&mut *lock(&self.zones)).into_iter().collect()
    }

    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use domain::tsig::ClientTransaction;

    use super::*;
    use crate::prefix::Prefix;
    use crate::tsig;

    const PRIMARY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn zones(key: Option<Key>) -> Zones {
        let from = Prefixes::new([Prefix::from_text("192.0.2.1").unwrap()]);
        Zones(vec![Zone { name: Name::from_text(b"rpz.example").unwrap(), label: "rpz".into(), from, key }])
    }

    fn notify(zone: &str, rtype: Rtype) -> AdditionalBuilder<Vec<u8>> {
        let mut message = MessageBuilder::new_vec();
        message.header_mut().set_id(7);
        message.header_mut().set_opcode(Opcode::NOTIFY);
        let mut message = message.question();
        let name: domain::base::Name<Vec<u8>> = zone.parse().unwrap();
        message.push((name, rtype)).unwrap();
        message.additional()
    }

    fn answered(zones: &Zones, packet: &[u8], client: IpAddr) -> (Notify, Message<Vec<u8>>) {
        assert!(is_notify(packet));
        let mut out = [0; 1232];
        let (result, length) = zones.respond(packet, client, &mut out);
        (result, Message::from_octets(out[..length].to_vec()).unwrap())
    }

    #[test]
    fn only_primaries_of_the_zone_are_heard() {
        let good = notify("RPZ.example", Rtype::SOA).finish();
        let (result, response) = answered(&zones(None), &good, PRIMARY);
        let header = response.header();
        assert_eq!(
            (result, header.rcode(), header.opcode()),
            (Notify::Accepted(0), Rcode::NOERROR, Opcode::NOTIFY)
        );
        assert_eq!((header.id(), header.qr(), response.header_counts().qdcount()), (7, true, 1));
        let other = notify("other.example", Rtype::SOA).finish();
        for (packet, client) in [(&good, STRANGER), (&other, PRIMARY)] {
            let (result, response) = answered(&zones(None), packet, client);
            assert_eq!((result, response.header().rcode()), (Notify::Refused, Rcode::REFUSED));
        }
        let (result, response) = answered(&zones(None), &notify("rpz.example", Rtype::A).finish(), PRIMARY);
        assert_eq!((result, response.header().rcode()), (Notify::Malformed, Rcode::FORMERR));
    }

    #[test]
    fn a_zone_with_a_key_hears_only_signed_messages() {
        let key = tsig::key("transfer", "hmac-sha256", b"secret").unwrap();
        let wrong = tsig::key("transfer", "hmac-sha256", b"other").unwrap();
        let unsigned = notify("rpz.example", Rtype::SOA).finish();
        assert_eq!(answered(&zones(Some(key.clone())), &unsigned, PRIMARY).0, Notify::Refused);
        for (with, expected) in [(&key, Notify::Accepted(0)), (&wrong, Notify::BadSignature)] {
            let mut message = notify("rpz.example", Rtype::SOA);
            let transaction = ClientTransaction::request(with.clone(), &mut message, now()).unwrap();
            let (result, mut response) = answered(&zones(Some(key.clone())), &message.finish(), PRIMARY);
            assert_eq!(result, expected);
            let is_signed = transaction.answer(&mut response, now()).is_ok();
            assert_eq!(is_signed, expected == Notify::Accepted(0));
            let rcode = if is_signed { Rcode::NOERROR } else { Rcode::NOTAUTH };
            assert_eq!(response.header().rcode(), rcode);
        }
    }

    #[test]
    fn no_notify_is_lost_and_none_is_kept_twice() {
        let notified = Notified::new().unwrap();
        let zone: Arc<str> = "rpz".into();
        (0..1000).for_each(|_| notified.note(&zone, STRANGER));
        notified.note(&zone, PRIMARY);
        assert_eq!(notified.take(), [(zone, PRIMARY)]);
        assert_eq!(notified.take(), []);
    }
}
