//! One event as a data frame: the message `Dnstap` of the schema (dnstap.proto of dnstap.info).

use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Settings;
use super::policy::Policy;
use super::protobuf::{put_bytes, put_fixed32, put_number};
use super::redaction::put_message;
use crate::message::Transport;
use crate::policy::Action;

/// The type of a message, as the enumeration `Message.Type` of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ClientQuery = 5,
    ClientResponse = 6,
}

/// A message from or to a client.
pub struct Event<'a> {
    pub kind: Kind,
    pub transport: Transport,
    pub client: SocketAddr,
    /// The address of ours that the client queried.
    pub server: SocketAddr,
    pub queried_at: SystemTime,
    /// Set for a response.
    pub responded_at: Option<SystemTime>,
    /// The query or the response.
    pub message: &'a [u8],
    pub policy: Option<Policy<'a>>,
}

/// Buffers that are reused for each event.
#[derive(Default)]
pub struct Encoder {
    frame: Vec<u8>,
    message: Vec<u8>,
    policy: Vec<u8>,
    redacted: Vec<u8>,
}

/// Bytes of the length before each frame.
const FRAME_HEAD: usize = 4;

impl Encoder {
    /// The frame with its length. It has no more of the client than the settings allow.
    pub fn encode(&mut self, event: &Event<'_>, settings: &Settings) -> &[u8] {
        self.encode_message(event, settings);
        let frame = &mut self.frame;
        frame.clear();
        frame.extend_from_slice(&[0; FRAME_HEAD]);
        for (field, text) in [(1, &settings.identity), (2, &settings.version)] {
            if let Some(text) = text {
                put_bytes(frame, field, text);
            }
        }
        if let Some(Policy { zone, order, .. }) = &event.policy {
            self.policy.clear();
            self.policy.extend_from_slice(b"zone=");
            self.policy.extend_from_slice(zone.as_bytes());
            if !order.is_empty() {
                self.policy.extend_from_slice(b" order=");
                self.policy.extend_from_slice(order.as_bytes());
            }
            put_bytes(frame, 3, &self.policy);
        }
        put_bytes(frame, 14, &self.message);
        put_number(frame, 15, 1); // MESSAGE
        let length = (frame.len() - FRAME_HEAD) as u32;
        frame[..FRAME_HEAD].copy_from_slice(&length.to_be_bytes());
        frame
    }

    fn encode_message(&mut self, event: &Event<'_>, settings: &Settings) {
        let client = settings.client_prefix.truncate_socket(event.client);
        let out = &mut self.message;
        out.clear();
        put_number(out, 1, event.kind as u64);
        put_number(out, 2, if client.is_ipv4() { 1 } else { 2 });
        put_number(out, 3, if event.transport.is_tcp() { 2 } else { 1 });
        put_address(out, 4, client.ip());
        put_address(out, 5, event.server.ip());
        put_number(out, 6, u64::from(client.port()));
        put_number(out, 7, u64::from(event.server.port()));
        put_time(out, 8, event.queried_at);
        if let Some(at) = event.responded_at {
            put_time(out, 12, at);
        }
        let message = match settings.client_prefix.truncates(event.client.ip()) {
            false => event.message,
            true => {
                self.redacted.clear();
                put_message(event.message, &mut self.redacted);
                &self.redacted
            }
        };
        let field = match event.kind {
            Kind::ClientQuery => 10,
            Kind::ClientResponse => 14,
        };
        put_bytes(out, field, message);
        if let Some(policy) = &event.policy {
            self.policy.clear();
            put_policy(&mut self.policy, policy);
            put_bytes(out, 15, &self.policy);
        }
    }
}

fn put_policy(out: &mut Vec<u8>, policy: &Policy<'_>) {
    put_bytes(out, 1, policy.kind.as_bytes());
    if !policy.rule.is_empty() {
        put_bytes(out, 2, &policy.rule);
    }
    if let Some(action) = action_number(policy.action) {
        put_number(out, 3, action);
    }
    put_number(out, 4, policy.trigger as u64);
    put_bytes(out, 5, &policy.value);
}

/// The enumeration `Policy.Action` of the schema, which has no REFUSED.
fn action_number(action: Action) -> Option<u64> {
    match action {
        Action::Nxdomain => Some(1),
        Action::Nodata => Some(2),
        Action::Passthru => Some(3),
        Action::Drop => Some(4),
        Action::Truncate => Some(5),
        Action::Sinkhole | Action::Cname | Action::Data => Some(6),
        Action::Refused => None,
    }
}

fn put_address(out: &mut Vec<u8>, field: u32, address: IpAddr) {
    match address {
        IpAddr::V4(ip) => put_bytes(out, field, &ip.octets()),
        IpAddr::V6(ip) => put_bytes(out, field, &ip.octets()),
    }
}

/// Seconds, and nanoseconds in the next field.
fn put_time(out: &mut Vec<u8>, field: u32, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    put_number(out, field, since.as_secs());
    put_fixed32(out, field + 1, since.subsec_nanos());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::super::policy::Trigger;
    use super::super::redaction::ClientPrefix;
    use super::super::{Messages, Reader};
    use super::*;

    /// The value of a field: a number, or bytes.
    #[derive(Clone, Debug, PartialEq)]
    enum Value {
        Number(u64),
        Bytes(Vec<u8>),
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (first, rest) = bytes.split_first().expect("a whole number");
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return value;
            }
        }
        panic!("a number of more than 64 bits")
    }

    /// A naive decoder: the fields of a message, each at most once.
    fn decode(mut bytes: &[u8]) -> BTreeMap<u64, Value> {
        let mut fields = BTreeMap::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let value = match key & 7 {
                0 => Value::Number(varint(&mut bytes)),
                5 => {
                    let (four, rest) = bytes.split_first_chunk().expect("four bytes");
                    bytes = rest;
                    Value::Number(u32::from_le_bytes(*four).into())
                }
                2 => {
                    let length = varint(&mut bytes) as usize;
                    let (front, rest) = bytes.split_at(length);
                    bytes = rest;
                    Value::Bytes(front.to_vec())
                }
                kind => panic!("wire type {kind}"),
            };
            assert_eq!(fields.insert(key >> 3, value), None, "field {}", key >> 3);
        }
        fields
    }

    fn bytes(of: &BTreeMap<u64, Value>, field: u64) -> &[u8] {
        match &of[&field] {
            Value::Bytes(bytes) => bytes,
            Value::Number(number) => panic!("{number} instead of bytes"),
        }
    }

    fn random(rng: &mut StdRng, most: usize) -> Vec<u8> {
        let length = rng.random_range(0..=most);
        (0..length).map(|_| rng.random()).collect()
    }

    fn policy(rng: &mut StdRng) -> Policy<'static> {
        Policy {
            kind: "ORDERS",
            rule: random(rng, 255),
            action: Action::ALL[rng.random_range(0..Action::ALL.len())].0,
            trigger: [Trigger::Qname, Trigger::ClientIp, Trigger::ResponseIp][rng.random_range(0..3)],
            value: random(rng, 255),
            zone: "ministry",
            order: ["", "12/2026"][rng.random_range(0..2)],
        }
    }

    fn check(event: &Event<'_>, settings: &Settings, frame: &[u8]) {
        let (length, body) = frame.split_at(4);
        assert_eq!(u32::from_be_bytes(length.try_into().unwrap()) as usize, body.len());
        let dnstap = decode(body);
        assert_eq!(dnstap[&15], Value::Number(1));
        assert_eq!(dnstap.get(&1).cloned(), settings.identity.clone().map(Value::Bytes));
        let message = decode(bytes(&dnstap, 14));
        assert_eq!(message[&1], Value::Number(event.kind as u64));
        assert_eq!(message[&6], Value::Number(event.client.port().into()));
        assert_eq!(message[&7], Value::Number(event.server.port().into()));
        let since = event.queried_at.duration_since(UNIX_EPOCH).unwrap();
        assert_eq!(message[&8], Value::Number(since.as_secs()));
        assert_eq!(message[&9], Value::Number(since.subsec_nanos().into()));
        assert_eq!(message.contains_key(&12), event.responded_at.is_some());
        let field = if event.kind == Kind::ClientQuery { 10 } else { 14 };
        assert_eq!(bytes(&message, field), event.message);
        let Some(policy) = &event.policy else {
            return assert!(!message.contains_key(&15) && !dnstap.contains_key(&3));
        };
        let decoded = decode(bytes(&message, 15));
        assert_eq!(bytes(&decoded, 1), policy.kind.as_bytes());
        assert_eq!(decoded.contains_key(&2), !policy.rule.is_empty());
        assert_eq!(decoded.get(&3).cloned(), action_number(policy.action).map(Value::Number));
        assert_eq!(decoded[&4], Value::Number(policy.trigger as u64));
        assert_eq!(bytes(&decoded, 5), policy.value);
        let order = if policy.order.is_empty() { "" } else { " order=12/2026" };
        assert_eq!(bytes(&dnstap, 3), format!("zone=ministry{order}").as_bytes());
    }

    #[test]
    fn random_events_are_decoded_as_they_were() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut encoder = Encoder::default();
        for _ in 0..2000 {
            let identity = rng.random::<bool>().then(|| random(&mut rng, 300));
            let settings = Settings {
                reader: Reader::Tcp("192.0.2.1:1".parse().unwrap()),
                messages: Messages::All,
                identity,
                version: None,
                client_prefix: ClientPrefix { ipv4: 32, ipv6: 128 },
            };
            let message = random(&mut rng, 70_000);
            let time = UNIX_EPOCH + Duration::from_nanos(rng.random::<u64>() >> 1);
            let event = Event {
                kind: [Kind::ClientQuery, Kind::ClientResponse][rng.random_range(0..2)],
                transport: Transport::ALL[rng.random_range(0..2)],
                client: SocketAddr::new(IpAddr::V4(rng.random::<u32>().into()), rng.random()),
                server: SocketAddr::new(IpAddr::V6(rng.random::<u128>().into()), rng.random()),
                queried_at: time,
                responded_at: rng.random::<bool>().then_some(time),
                message: &message,
                policy: rng.random::<bool>().then(|| policy(&mut rng)),
            };
            check(&event, &settings, encoder.encode(&event, &settings));
        }
    }
}
