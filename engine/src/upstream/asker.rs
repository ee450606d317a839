//! What an upstream is told of who asks: nothing, a PROXY protocol header in front
//! of the message, or a client subnet in its OPT record.

use std::net::{IpAddr, SocketAddr};

use crate::message::{Transport, option};

/// Octets of a header with IPv6 addresses.
pub const MAX_HEADER: usize = 16 + 36;
/// Octets of a client subnet option with a whole IPv6 address.
const MAX_SUBNET: usize = 4 + 4 + 16;

/// What upstreams are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tells {
    Nothing,
    /// Address and port, by PROXY protocol version 2.
    Proxy,
    /// The network, by EDNS Client Subnet (RFC 7871).
    Subnet(Bounds),
}

/// Bits of an address that are told at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub ipv4: u8,
    pub ipv6: u8,
    /// Whether addresses that mean nothing on the Internet are told, too.
    pub private: bool,
}

/// Who asks, and at which address of ours.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    pub client: SocketAddr,
    pub asked_at: SocketAddr,
}

/// PROXY protocol 2.2: what no DNS message begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Writes a PROXY protocol header (version 2.2, binary); `None` for a query of our
/// own. Returns its length.
///
/// The transport in it is that of this hop, where servers differ in whether they
/// believe another; the address is what they go by.
pub fn write_proxy(asker: Option<&Asker>, transport: Transport, out: &mut [u8]) -> usize {
    const LOCAL: u8 = 0x20;
    const PROXY: u8 = 0x21;
    let protocol = match transport {
        Transport::Tcp => 1,
        Transport::Udp => 2,
    };
    let mut header = Octets { out, length: 0 };
    header.put(SIGNATURE);
    let Some(Asker { client, asked_at }) = asker else {
        header.put(&[LOCAL, 0, 0, 0]);
        return header.length;
    };
    match (client.ip(), asked_at.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header.put(&[PROXY, 0x10 | protocol, 0, 12]);
            header.put(&source.octets());
            header.put(&destination.octets());
        }
        (source, destination) => {
            header.put(&[PROXY, 0x20 | protocol, 0, 36]);
            for ip in [source, destination] {
                let ip = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                header.put(&ip.octets());
            }
        }
    }
    header.put(&client.port().to_be_bytes());
    header.put(&asked_at.port().to_be_bytes());
    header.length
}

/// A client subnet option (RFC 7871 6), ready for an OPT record.
#[derive(Clone, Copy)]
pub struct Subnet {
    octets: [u8; MAX_SUBNET],
    length: usize,
}

impl Subnet {
    pub const NONE: Subnet = Subnet { octets: [0; MAX_SUBNET], length: 0 };

    /// `wished`: SOURCE PREFIX-LENGTH of the client's own option. Its address is
    /// never believed, but a shorter prefix is what it wants said (RFC 7871 7.1.2),
    /// and 0 asks for nothing to be said by anybody further on.
    pub fn of(client: IpAddr, wished: Option<u8>, bounds: Bounds) -> Subnet {
        let (family, most) = match client {
            IpAddr::V4(_) => (1, bounds.ipv4),
            IpAddr::V6(_) => (2, bounds.ipv6),
        };
        let prefix = wished.map_or(most, |wished| wished.min(most));
        if prefix > 0 && !bounds.private && !is_global(client) {
            return Subnet::NONE;
        }
        let mut subnet = Subnet::NONE;
        let mut out = Octets { out: &mut subnet.octets, length: 0 };
        let whole = usize::from(prefix.div_ceil(8));
        out.put(&option::CLIENT_SUBNET.to_be_bytes());
        out.put(&(4 + whole as u16).to_be_bytes());
        out.put(&[0, family, prefix, 0]);
        match client {
            IpAddr::V4(ip) => out.put(&ip.octets()[..whole]),
            IpAddr::V6(ip) => out.put(&ip.octets()[..whole]),
        }
        let length = out.length;
        // RFC 7871 6: bits beyond the prefix are 0, in as few octets as hold it.
        if !prefix.is_multiple_of(8) {
            subnet.octets[length - 1] &= 0xff << (8 - prefix % 8);
        }
        Subnet { length, ..subnet }
    }

    pub fn octets(&self) -> &[u8] {
        &self.octets[..self.length]
    }
}

/// Whether an address means something beyond this network. A subnet of others would
/// tell the Internet how this network is laid out, and nobody could use it (RFC 7871
/// 10).
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

/// What is written one after the other.
struct Octets<'a> {
    out: &'a mut [u8],
    length: usize,
}

impl Octets<'_> {
    fn put(&mut self, octets: &[u8]) {
        let end = self.length + octets.len();
        self.out[self.length..end].copy_from_slice(octets);
        self.length = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(client: &str, asked_at: &str, transport: Transport) -> Vec<u8> {
        let asker = Asker { client: client.parse().unwrap(), asked_at: asked_at.parse().unwrap() };
        let mut out = [0; MAX_HEADER];
        let length = write_proxy(Some(&asker), transport, &mut out);
        out[..length].to_vec()
    }

    /// PROXY protocol 2.2: signature, version and command, family and transport,
    /// length, then source and destination address, source and destination port.
    #[test]
    fn a_proxy_header_says_who_asks_and_where() {
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
        assert_eq!(write_proxy(None, Transport::Udp, &mut out), 16);
        assert_eq!(out[12..16], [0x20, 0, 0, 0]);
    }

    fn subnet(client: &str, wished: Option<u8>, ipv4: u8, ipv6: u8) -> Vec<u8> {
        let bounds = Bounds { ipv4, ipv6, private: false };
        Subnet::of(client.parse().unwrap(), wished, bounds).octets().to_vec()
    }

    /// RFC 7871 6: OPTION-CODE, OPTION-LENGTH, FAMILY, SOURCE and SCOPE PREFIX-LENGTH,
    /// ADDRESS in as few octets as the prefix needs.
    #[test]
    fn a_subnet_is_cut_to_its_bounds() {
        assert_eq!(subnet("203.0.113.77", None, 24, 56), [0, 8, 0, 7, 0, 1, 24, 0, 203, 0, 113]);
        assert_eq!(subnet("203.0.113.77", None, 20, 56), [0, 8, 0, 7, 0, 1, 20, 0, 203, 0, 112]);
        assert_eq!(subnet("203.0.113.77", None, 32, 56), [0, 8, 0, 8, 0, 1, 32, 0, 203, 0, 113, 77]);
        let six = [0, 8, 0, 11, 0, 2, 56, 0, 0x20, 1, 0x0d, 0xb8, 0, 0xff, 0xee];
        assert_eq!(subnet("2001:db8:ff:eedd::1", None, 24, 56), six);
        assert_eq!(subnet("2001:db8:ff:eedd::1", None, 24, 128).len(), MAX_SUBNET);
    }

    #[test]
    fn a_client_may_wish_for_less_and_never_for_more() {
        assert_eq!(subnet("203.0.113.77", Some(32), 24, 56)[6], 24);
        assert_eq!(subnet("203.0.113.77", Some(9), 24, 56), [0, 8, 0, 6, 0, 1, 9, 0, 203, 0]);
        assert_eq!(subnet("203.0.113.77", Some(0), 24, 56), [0, 8, 0, 4, 0, 1, 0, 0]);
        assert_eq!(subnet("127.0.0.1", Some(0), 24, 56), [0, 8, 0, 4, 0, 1, 0, 0]);
    }

    #[test]
    fn what_means_nothing_on_the_internet_is_not_told() {
        for client in ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.0.1", "100.64.0.1"] {
            assert!(subnet(client, None, 24, 56).is_empty(), "{client}");
        }
        for client in ["::1", "fd00::1", "fe80::1"] {
            assert!(subnet(client, None, 24, 56).is_empty(), "{client}");
        }
        let bounds = Bounds { ipv4: 24, ipv6: 56, private: true };
        let told = Subnet::of("100.64.1.2".parse().unwrap(), None, bounds);
        assert_eq!(told.octets(), [0, 8, 0, 7, 0, 1, 24, 0, 100, 64, 1]);
    }
}
