//! Special-use names and locally served zones (RFC 6761, RFC 6303), which must not be forwarded.
//! They are answered after the policy.

use std::collections::HashMap;

use std::io::Write as _;
use std::net::IpAddr;

use crate::message::{CLASS_CH, Opt, Query, Section, Soa, Writer, put_soa, rcode, rtype};
use crate::name::Name;
use crate::policy::Snapshot;
use crate::prefix::Prefixes;

/// How a name and the names below it are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    /// RFC 6761 6.3: with the loopback addresses.
    Loopback,
    /// With NXDOMAIN.
    NxDomain,
    /// RFC 6303 3: as an empty zone, whose apex exists.
    EmptyZone,
    /// RFC 9462 4: a resolver that designates no other returns NODATA.
    Resolver,
}

/// The names in IANA's registry of special-use domain names that a resolver must not forward, and
/// the zones that BIND, Unbound and Knot Resolver serve themselves.
///
/// * RFC 6761 6.2 to 6.4, RFC 6762 22.1 (local), RFC 7686 2 (onion), RFC 8375 4 (home.arpa)
/// * RFC 9665 8.4 (service.arpa), RFC 9031 11 (6tisch.arpa), RFC 9140 5.6 (eap-noob.arpa)
/// * RFC 9965 (eap.arpa), RFC 7535 3.3 (empty.as112.arpa)
///
/// These are forwarded, as their RFCs require: `alt` (RFC 9476 3.2), `example` (RFC 6761 6.5), and
/// `ipv4only.arpa` with its reverse names (RFC 8880 7.1), by which clients detect NAT64.
const SPECIAL: [(&str, Treatment); 12] = [
    ("localhost", Treatment::Loopback),
    ("invalid", Treatment::NxDomain),
    ("test", Treatment::NxDomain),
    ("onion", Treatment::NxDomain),
    ("local", Treatment::NxDomain),
    ("home.arpa", Treatment::EmptyZone),
    ("service.arpa", Treatment::EmptyZone),
    ("6tisch.arpa", Treatment::NxDomain),
    ("eap.arpa", Treatment::NxDomain),
    ("eap-noob.arpa", Treatment::NxDomain),
    ("default.service.arpa", Treatment::NxDomain),
    ("empty.as112.arpa", Treatment::EmptyZone),
];

/// RFC 6303 4. `Local::new` adds the ranges of RFC 1918 and RFC 7793.
const REVERSE: [&str; 14] = [
    "0.in-addr.arpa",
    "10.in-addr.arpa",
    "127.in-addr.arpa",
    "254.169.in-addr.arpa",
    "168.192.in-addr.arpa",
    "2.0.192.in-addr.arpa",
    "100.51.198.in-addr.arpa",
    "113.0.203.in-addr.arpa",
    "255.255.255.255.in-addr.arpa",
    "8.b.d.0.1.0.0.2.ip6.arpa",
    "d.f.ip6.arpa",
    "8.e.f.ip6.arpa",
    "9.e.f.ip6.arpa",
    "a.e.f.ip6.arpa",
];

/// TTL of these answers: a changed setting takes effect within an hour.
const TTL: u32 = 3600;

/// RFC 8482 4.2 and 7: CPU `RFC8482`, OS empty.
const HINFO: [u8; 9] = *b"\x07RFC8482\0";

/// The configuration of these names.
#[derive(Clone, Copy, Default)]
pub struct Switches {
    pub special_names: bool,
    pub private_reverse: bool,
    /// `use-application-dns.net`: NXDOMAIN tells browsers to use the network's resolver.
    pub canary: bool,
}

/// The names that are answered locally.
#[derive(Clone, Default)]
pub struct Local {
    /// By name in wire format.
    treatments: HashMap<Box<[u8]>, Treatment>,
    /// Their top-level labels, to skip lookups of other names.
    top_labels: Vec<Box<[u8]>>,
    /// RDATA of a RESINFO record at `resolver.arpa` (RFC 9606).
    resinfo: Option<Box<[u8]>>,
    /// The clients that may ask which snapshot is in force.
    snapshot_clients: Prefixes,
}

impl Local {
    pub fn new(switches: Switches, resinfo: Option<Vec<u8>>, snapshot_clients: Prefixes) -> Local {
        let mut local = Local { resinfo: resinfo.map(Into::into), snapshot_clients, ..Local::default() };
        // RFC 9462 8: never forwarded, so there is no setting.
        local.add("resolver.arpa", Treatment::Resolver);
        if switches.special_names {
            SPECIAL.iter().for_each(|(name, treatment)| local.add(name, *treatment));
        }
        if switches.private_reverse {
            let private = (16..=31).map(|net| format!("{net}.172.in-addr.arpa"));
            let shared = (64..=127).map(|net| format!("{net}.100.in-addr.arpa"));
            let addresses = ["0", "1"].map(|last| format!("{last}.{}ip6.arpa", "0.".repeat(31)));
            let listed = REVERSE.iter().map(|name| name.to_string());
            let all =
                listed.chain(private).chain(shared).chain(addresses).chain(["b.e.f.ip6.arpa".to_string()]);
            all.for_each(|name| local.add(&name, Treatment::EmptyZone));
        }
        if switches.canary {
            local.add("use-application-dns.net", Treatment::NxDomain);
        }
        local
    }

    fn add(&mut self, name: &str, treatment: Treatment) {
        let name = Name::from_text(name.as_bytes()).expect("these names are valid");
        let top_label: Box<[u8]> = name.suffix(name.labels() - 1).into();
        if !self.top_labels.contains(&top_label) {
            self.top_labels.push(top_label);
        }
        self.treatments.insert(name.suffix(0).into(), treatment);
    }

    /// The treatment of a name, and the number of labels before the name that determines it.
    fn find(&self, name: &Name) -> Option<(Treatment, usize)> {
        let top_label = name.suffix(name.labels().checked_sub(1)?);
        if !self.top_labels.iter().any(|known| **known == *top_label) {
            return None;
        }
        (0..name.labels())
            .find_map(|skip| self.treatments.get(name.suffix(skip)).map(|treatment| (*treatment, skip)))
    }

    /// Answers a query for one of these names; returns the length. `None` for any other name.
    pub fn respond(&self, query: &Query, soa: &Soa, max_payload: u16, out: &mut [u8]) -> Option<usize> {
        let (treatment, skip) = self.find(&query.name)?;
        if treatment == Treatment::EmptyZone && skip == 0 && query.qtype == rtype::DS {
            // RFC 4035 3.1.4.1: the DS record, or the proof that there is none, is in the parent zone. A validating
            // client needs that proof to accept our empty zone.
            return None;
        }
        let rcode = match treatment {
            Treatment::NxDomain => rcode::NXDOMAIN,
            Treatment::EmptyZone if skip > 0 => rcode::NXDOMAIN,
            _ => rcode::NOERROR,
        };
        let mut writer = Writer::respond(&query.head, rcode, out)?;
        let wants = |rtype| query.qtype == rtype || query.qtype == rtype::ANY;
        let mut answers = 0;
        let mut put = |writer: &mut Writer<'_>, rtype, rdata: &[u8]| {
            answers += 1;
            writer.put_record(Section::Answer, 0, rtype, TTL, &[rdata])
        };
        if treatment == Treatment::Loopback && wants(rtype::A) {
            put(&mut writer, rtype::A, &[127, 0, 0, 1])?;
        }
        if treatment == Treatment::Loopback && wants(rtype::AAAA) {
            put(&mut writer, rtype::AAAA, &std::net::Ipv6Addr::LOCALHOST.octets())?;
        }
        if let Some(resinfo) = self.resinfo.as_ref().filter(|_| treatment == Treatment::Resolver && skip == 0)
            && wants(rtype::RESINFO)
        {
            put(&mut writer, rtype::RESINFO, resinfo)?;
        }
        if answers == 0 {
            put_soa(&mut writer, query.name.offset(skip), TTL, 1, soa)?;
        }
        Some(writer.finish(&query.head, &Opt::plain(max_payload, rcode)))
    }
}

/// The names for the snapshot in force, in class CH.
const SERIAL: &[u8] = b"\x06serial\x08dnsblock\0";
const DIGEST: &[u8] = b"\x06digest\x08dnsblock\0";

impl Local {
    /// Whether a client may ask for the snapshot in force.
    pub fn serves_snapshot_to(&self, client: IpAddr) -> bool {
        self.snapshot_clients.contains(client)
    }

    /// Answers a query of class CH for the snapshot in force. `None` for other names and clients.
    /// The TTL is 0: nobody is to cache it.
    pub fn respond_about(
        &self,
        query: &Query,
        client: IpAddr,
        snapshot: &Snapshot,
        max_payload: u16,
        out: &mut [u8],
    ) -> Option<usize> {
        if !self.serves_snapshot_to(client) {
            return None;
        }
        let mut text = [0; 1 + "sha256:".len() + 64];
        let mut rest = &mut text[1..];
        match query.name.suffix(0) {
            SERIAL => write!(rest, "{}", snapshot.serial()).ok()?,
            DIGEST => {
                write!(rest, "sha256:").ok()?;
                snapshot.digest().iter().try_for_each(|byte| write!(rest, "{byte:02x}")).ok()?;
            }
            _ => return None,
        }
        let left = rest.len();
        let length = text.len() - left;
        text[0] = (length - 1) as u8;
        let mut writer = Writer::respond(&query.head, rcode::NOERROR, out)?;
        writer.put_record_of_class(CLASS_CH, Section::Answer, 0, rtype::TXT, 0, &[&text[..length]])?;
        Some(writer.finish(&query.head, &Opt::plain(max_payload, rcode::NOERROR)))
    }
}

/// Answers ANY over UDP with one small record (RFC 8482 4.2), against amplification attacks.
pub fn respond_to_any(query: &Query, max_payload: u16, out: &mut [u8]) -> Option<usize> {
    if query.qtype != rtype::ANY || query.head.hop.transport.is_tcp() {
        return None;
    }
    let mut writer = Writer::respond(&query.head, rcode::NOERROR, out)?;
    writer.put_record(Section::Answer, 0, rtype::HINFO, TTL, &[&HINFO])?;
    Some(writer.finish(&query.head, &Opt::plain(max_payload, rcode::NOERROR)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(local: &Local, text: &str) -> Option<(Treatment, usize)> {
        local.find(&Name::from_text(text.as_bytes()).unwrap())
    }

    #[test]
    fn names_are_found_by_labels_if_they_are_enabled() {
        let all = Local::new(
            Switches { special_names: true, private_reverse: true, canary: true },
            None,
            Prefixes::default(),
        );
        for (text, found) in [
            ("localhost", Some((Treatment::Loopback, 0))),
            ("a.b.LocalHost", Some((Treatment::Loopback, 2))),
            ("notlocalhost", None),
            ("localhost.example", None),
            ("x.test", Some((Treatment::NxDomain, 1))),
            ("1.0.0.10.in-addr.arpa", Some((Treatment::EmptyZone, 3))),
            ("31.172.in-addr.arpa", Some((Treatment::EmptyZone, 0))),
            ("32.172.in-addr.arpa", None),
            ("100.100.in-addr.arpa", Some((Treatment::EmptyZone, 0))),
            ("128.100.in-addr.arpa", None),
            ("110.in-addr.arpa", None),
            ("_dns.resolver.arpa", Some((Treatment::Resolver, 1))),
            ("in-addr.arpa", None),
            ("printer.home.arpa", Some((Treatment::EmptyZone, 1))),
            ("home.arpa.example", None),
            ("ipv4only.arpa", None),
            ("x.alt", None),
            ("a.use-application-dns.net", Some((Treatment::NxDomain, 1))),
            ("example.net", None),
        ] {
            assert_eq!(find(&all, text), found, "{text}");
        }
        let loopback6 = format!("1.{}ip6.arpa", "0.".repeat(31));
        assert_eq!(find(&all, &loopback6), Some((Treatment::EmptyZone, 0)));
        let none = Local::new(Switches::default(), None, Prefixes::default());
        for text in ["localhost", "x.test", "1.10.in-addr.arpa", "use-application-dns.net"] {
            assert_eq!(find(&none, text), None, "{text}");
        }
        assert!(find(&none, "resolver.arpa").is_some());
        let root = Name::parse(b"\0", 0).unwrap().0;
        assert_eq!(all.find(&root), None);
    }
}
