//! Removes the identity of clients from events: the last bits of the address, and the port. Messages lose the
//! EDNS options by which they could be linked to a client.

use std::net::{IpAddr, SocketAddr};

use crate::message::{HEADER, Record, options, rtype, skip_name, u16_at};

/// How much of a client's address is sent, in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientPrefix {
    pub ipv4: u8,
    pub ipv6: u8,
}

impl ClientPrefix {
    fn length(self, address: IpAddr) -> (u8, u8) {
        match address {
            IpAddr::V4(_) => (self.ipv4.min(32), 32),
            IpAddr::V6(_) => (self.ipv6.min(128), 128),
        }
    }

    /// The number of bits of this address that are sent.
    pub fn of(self, address: IpAddr) -> u8 {
        self.length(address).0
    }

    /// Whether addresses of this family are truncated.
    pub fn truncates(self, address: IpAddr) -> bool {
        let (length, whole) = self.length(address);
        length < whole
    }

    /// The address with all bits after the prefix set to 0.
    pub fn truncate(self, address: IpAddr) -> IpAddr {
        let (length, whole) = self.length(address);
        let hidden = u32::from(whole - length);
        match address {
            IpAddr::V4(ip) => IpAddr::V4((ip.to_bits() & !low_bits(hidden) as u32).into()),
            IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & !low_bits(hidden)).into()),
        }
    }

    /// The same with its port, which is 0 if the address is truncated.
    pub fn truncate_socket(self, client: SocketAddr) -> SocketAddr {
        let port = if self.truncates(client.ip()) { 0 } else { client.port() };
        SocketAddr::new(self.truncate(client.ip()), port)
    }
}

fn low_bits(count: u32) -> u128 {
    1u128.checked_shl(count).map_or(u128::MAX, |bit| bit - 1)
}

/// EDNS options that tell nothing about the client: NSID, keepalive, padding, extended errors.
const KEPT_OPTIONS: [u16; 4] = [3, 11, 12, 15];

/// Appends a message without the EDNS options that could identify its client: cookie, client subnet, and all
/// that are not known to be harmless. A message that cannot be parsed ends before its first invalid record.
pub fn put_message(message: &[u8], out: &mut Vec<u8>) {
    let mut copied = 0;
    let mut at = HEADER;
    let count = |place| u16_at(message, place).unwrap_or(0);
    let mut walk = || {
        for _ in 0..count(4) {
            at = skip_name(message, at)? + 4;
            message.get(..at)?;
        }
        let records = [6, 8, 10].map(|place| usize::from(count(place))).iter().sum();
        for _ in 0..records {
            let record = Record::parse(message, at)?;
            if record.rtype == rtype::OPT {
                out.extend_from_slice(&message[copied..record.rdata_start]);
                put_options(record.rdata(message), out);
                copied = record.end;
            }
            at = record.end;
        }
        Some(())
    };
    // Nothing after the last valid record is copied.
    let _ = walk();
    if let Some(rest) = message.get(copied..at.min(message.len())) {
        out.extend_from_slice(rest);
    }
}

/// Appends the options that are kept, and changes RDLENGTH, which is before them.
fn put_options(rdata: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    for (code, data) in options(rdata).map_while(|option| option) {
        if KEPT_OPTIONS.contains(&code) {
            out.extend_from_slice(&code.to_be_bytes());
            out.extend_from_slice(&(data.len() as u16).to_be_bytes());
            out.extend_from_slice(data);
        }
    }
    let length = (out.len() - start) as u16;
    out[start - 2..start].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truncated(text: &str, prefix: ClientPrefix) -> String {
        prefix.truncate(text.parse().unwrap()).to_string()
    }

    #[test]
    fn addresses_are_truncated_to_their_prefix() {
        let usual = ClientPrefix { ipv4: 24, ipv6: 56 };
        assert_eq!(truncated("192.0.2.255", usual), "192.0.2.0");
        assert_eq!(truncated("2001:db8:1:2ff:ffff::1", usual), "2001:db8:1:200::");
        let nothing = ClientPrefix { ipv4: 0, ipv6: 0 };
        assert_eq!(truncated("192.0.2.255", nothing), "0.0.0.0");
        assert_eq!(truncated("2001:db8::1", nothing), "::");
        let whole = ClientPrefix { ipv4: 32, ipv6: 128 };
        assert_eq!(truncated("192.0.2.255", whole), "192.0.2.255");
        assert_eq!(truncated("2001:db8::1", whole), "2001:db8::1");
        let client: SocketAddr = "192.0.2.7:4711".parse().unwrap();
        assert_eq!(usual.truncate_socket(client).port(), 0);
        assert_eq!(whole.truncate_socket(client), client);
    }

    const QUESTION: &[u8] = b"\x03www\x07example\0\0\x01\0\x01";

    fn message(options: &[u8], after: &[u8]) -> Vec<u8> {
        let more = u8::from(!after.is_empty());
        let mut message = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1 + more];
        message.extend_from_slice(QUESTION);
        message.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\x80\0");
        message.extend_from_slice(&(options.len() as u16).to_be_bytes());
        message.extend_from_slice(options);
        message.extend_from_slice(after);
        message
    }

    fn copy(message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_message(message, &mut out);
        out
    }

    #[test]
    fn cookie_and_client_subnet_are_removed_and_extended_errors_stay() {
        let cookie = b"\0\x0a\0\x08abcdefgh";
        let subnet = b"\0\x08\0\x07\0\x01\x18\0\xc0\0\x02";
        let unknown = b"\xfd\xe9\0\x06\x02\0\0\0\0\x01";
        let error = b"\0\x0f\0\x04\0\x10no";
        let after = b"\0\0\x10\0\x01\0\0\0\0\0\x02\x01x";
        let options = [&cookie[..], error, subnet, unknown].concat();
        assert_eq!(copy(&message(&options, after)), message(error, after));
        assert_eq!(copy(&message(b"", b"")), message(b"", b""));
    }

    #[test]
    fn a_malformed_message_ends_before_its_invalid_record() {
        let whole = message(b"\0\x0a\0\x08abcdefgh", b"");
        for length in 0..whole.len() {
            let copied = copy(&whole[..length]);
            assert!(copied.len() <= length);
            assert!(!copied.windows(3).any(|bytes| bytes == b"abc"), "{length}");
        }
        // An option that is longer than its record.
        let lying = message(b"\0\x0a\0\x40abcdefgh", b"");
        assert_eq!(copy(&lying), message(b"", b""));
    }
}
