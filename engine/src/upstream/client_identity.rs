//! Client identity forwarding: what an upstream learns about the client. Nothing, a PROXY protocol
//! header before the message, or a client subnet in the OPT record.

use std::net::{IpAddr, SocketAddr};

use crate::message::{Transport, option};

/// Bytes of a header with IPv6 addresses.
pub const MAX_HEADER: usize = 16 + 36;
/// Bytes of a client subnet option with a whole IPv6 address.
const MAX_SUBNET: usize = 4 + 4 + 16;

/// The information about the client that upstreams receive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientIdentity {
    #[default]
    None,
    /// Address and port, by PROXY protocol version 2.
    Proxy,
    /// The network, by EDNS Client Subnet (RFC 7871).
    Subnet(PrefixLimits),
}

/// The longest prefixes that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixLimits {
    pub ipv4: u8,
    pub ipv6: u8,
    /// Whether private addresses are sent, too.
    pub private: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct ClientAddresses {
    pub client: SocketAddr,
    /// The address of ours that the client queried.
    pub server: SocketAddr,
}

/// PROXY protocol 2.2: no DNS message begins with these bytes.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

impl ClientIdentity {
    /// Writes a PROXY protocol header (version 2.2, binary) if one is wanted. Returns its length.
    /// Without addresses, the query is one of our own.
    ///
    /// The transport in the header is the one to the upstream. Servers differ in whether they accept
    /// another; they use the address.
    pub fn write_header(
        self,
        client: Option<&ClientAddresses>,
        transport: Transport,
        out: &mut [u8],
    ) -> usize {
        const LOCAL: u8 = 0x20;
        const PROXY: u8 = 0x21;
        if self != ClientIdentity::Proxy {
            return 0;
        }
        let protocol = match transport {
            Transport::Tcp => 1,
            Transport::Udp => 2,
        };
        let mut length = 0;
        let mut put = |bytes: &[u8]| append(out, &mut length, bytes);
        put(SIGNATURE);
        let Some(ClientAddresses { client, server }) = client else {
            put(&[LOCAL, 0, 0, 0]);
            return length;
        };
        match (client.ip(), server.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                put(&[PROXY, 0x10 | protocol, 0, 12]);
                put(&source.octets());
                put(&destination.octets());
            }
            (source, destination) => {
                put(&[PROXY, 0x20 | protocol, 0, 36]);
                put(&mapped(source));
                put(&mapped(destination));
            }
        }
        put(&client.port().to_be_bytes());
        put(&server.port().to_be_bytes());
        length
    }
}

fn append(out: &mut [u8], length: &mut usize, bytes: &[u8]) {
    out[*length..*length + bytes.len()].copy_from_slice(bytes);
    *length += bytes.len();
}

/// An address as IPv6.
pub fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// A client subnet option (RFC 7871, section 6) for an OPT record.
#[derive(Clone, Copy)]
pub struct Subnet {
    bytes: [u8; MAX_SUBNET],
    length: usize,
}

impl Subnet {
    pub const NONE: Subnet = Subnet { bytes: [0; MAX_SUBNET], length: 0 };

    /// `wanted` is the SOURCE PREFIX-LENGTH in the client's own option. Its address is never
    /// believed, but a shorter prefix is respected (RFC 7871, section 7.1.2). With 0, no server may
    /// send the client's address on.
    pub fn of(client: IpAddr, wanted: Option<u8>, limits: PrefixLimits) -> Subnet {
        let (family, max) = match client {
            IpAddr::V4(_) => (1, limits.ipv4),
            IpAddr::V6(_) => (2, limits.ipv6),
        };
        let prefix = wanted.map_or(max, |wanted| wanted.min(max));
        if prefix > 0 && !limits.private && !is_global(client) {
            return Subnet::NONE;
        }
        let Subnet { mut bytes, mut length } = Subnet::NONE;
        let whole = usize::from(prefix.div_ceil(8));
        let mut put = |part: &[u8]| append(&mut bytes, &mut length, part);
        put(&option::CLIENT_SUBNET.to_be_bytes());
        put(&(4 + whole as u16).to_be_bytes());
        put(&[0, family, prefix, 0]);
        match client {
            IpAddr::V4(ip) => put(&ip.octets()[..whole]),
            IpAddr::V6(ip) => put(&ip.octets()[..whole]),
        }
        // RFC 7871, section 6: as few octets as hold the prefix, and zero bits after it.
        if !prefix.is_multiple_of(8) {
            bytes[length - 1] &= 0xff << (8 - prefix % 8);
        }
        Subnet { bytes, length }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Whether an address has a meaning on the Internet. A private subnet would tell the Internet how
/// this network is structured, and no server could use it (RFC 7871, section 10).
fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let is_shared = first == 100 && second & 0xc0 == 64; // RFC 6598
            !(ip.is_loopback() || ip.is_private() || ip.is_link_local() || is_shared)
        }
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(client: &str, server: &str, transport: Transport) -> Vec<u8> {
        let addresses = ClientAddresses { client: client.parse().unwrap(), server: server.parse().unwrap() };
        let mut out = [0; MAX_HEADER];
        let length = ClientIdentity::Proxy.write_header(Some(&addresses), transport, &mut out);
        out[..length].to_vec()
    }

    /// PROXY protocol 2.2: signature, version and command, family and transport,
    /// length, then source and destination address, source and destination port.
    #[test]
    fn a_proxy_header_has_the_addresses_of_client_and_server() {
        let over_udp = header("192.0.2.1:4660", "198.51.100.2:53", Transport::Udp);
        assert_eq!(over_udp[..12], [13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10]);
        assert_eq!(over_udp[12..], [0x21, 0x12, 0, 12, 192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x34, 0, 53]);
        assert_eq!(header("192.0.2.1:1", "198.51.100.2:53", Transport::Tcp)[12..14], [0x21, 0x11]);
        let six = header("[2001:db8::1]:4660", "[2001:db8::2]:53", Transport::Udp);
        assert_eq!((six.len(), &six[12..16]), (MAX_HEADER, &[0x21, 0x22, 0, 36][..]));
        assert_eq!((&six[16..20], six[31], six[47]), (&[0x20, 1, 0x0d, 0xb8][..], 1, 2));
        assert_eq!(six[48..], [0x12, 0x34, 0, 53]);
        assert_eq!(header("[::1]:1", "[::1]:53", Transport::Tcp)[13], 0x21);
    }

    #[test]
    fn a_query_of_our_own_is_local() {
        let mut out = [0; MAX_HEADER];
        assert_eq!(ClientIdentity::Proxy.write_header(None, Transport::Udp, &mut out), 16);
        assert_eq!(out[12..16], [0x20, 0, 0, 0]);
    }

    fn subnet(client: &str, wanted: Option<u8>, ipv4: u8, ipv6: u8) -> Vec<u8> {
        let limits = PrefixLimits { ipv4, ipv6, private: false };
        Subnet::of(client.parse().unwrap(), wanted, limits).bytes().to_vec()
    }

    /// RFC 7871, section 6: OPTION-CODE, OPTION-LENGTH, FAMILY, SOURCE and SCOPE PREFIX-LENGTH,
    /// ADDRESS in as few octets as the prefix needs.
    #[test]
    fn a_subnet_has_at_most_the_configured_prefix() {
        assert_eq!(subnet("203.0.113.77", None, 24, 56), [0, 8, 0, 7, 0, 1, 24, 0, 203, 0, 113]);
        assert_eq!(subnet("203.0.113.77", None, 20, 56), [0, 8, 0, 7, 0, 1, 20, 0, 203, 0, 112]);
        assert_eq!(subnet("203.0.113.77", None, 32, 56), [0, 8, 0, 8, 0, 1, 32, 0, 203, 0, 113, 77]);
        let six = [0, 8, 0, 11, 0, 2, 56, 0, 0x20, 1, 0x0d, 0xb8, 0, 0xff, 0xee];
        assert_eq!(subnet("2001:db8:ff:eedd::1", None, 24, 56), six);
        assert_eq!(subnet("2001:db8:ff:eedd::1", None, 24, 128).len(), MAX_SUBNET);
    }

    #[test]
    fn a_client_can_shorten_the_prefix_and_not_extend_it() {
        assert_eq!(subnet("203.0.113.77", Some(32), 24, 56)[6], 24);
        assert_eq!(subnet("203.0.113.77", Some(9), 24, 56), [0, 8, 0, 6, 0, 1, 9, 0, 203, 0]);
        assert_eq!(subnet("203.0.113.77", Some(0), 24, 56), [0, 8, 0, 4, 0, 1, 0, 0]);
        assert_eq!(subnet("127.0.0.1", Some(0), 24, 56), [0, 8, 0, 4, 0, 1, 0, 0]);
    }

    #[test]
    fn private_addresses_are_not_sent_by_default() {
        for client in ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.0.1", "100.64.0.1"] {
            assert!(subnet(client, None, 24, 56).is_empty(), "{client}");
        }
        for client in ["::1", "fd00::1", "fe80::1"] {
            assert!(subnet(client, None, 24, 56).is_empty(), "{client}");
        }
        let limits = PrefixLimits { ipv4: 24, ipv6: 56, private: true };
        let sent = Subnet::of("100.64.1.2".parse().unwrap(), None, limits);
        assert_eq!(sent.bytes(), [0, 8, 0, 7, 0, 1, 24, 0, 100, 64, 1]);
    }
}
