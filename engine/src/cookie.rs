//! Server cookies (RFC 7873): proof that a client's source address is not spoofed. They are
//! interoperable (RFC 9018): all servers of an anycast service that share a secret accept them.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;

/// The lengths of the client cookie and of the server cookie.
const CLIENT: usize = 8;
const SERVER: usize = 16;
/// The length of a response's COOKIE option: both cookies.
pub const LENGTH: usize = CLIENT + SERVER;
/// RFC 9018 4.3: how old a cookie may be, and how far ahead of our clock, in seconds.
const MAX_AGE: i32 = 3600;
const MAX_AHEAD: i32 = 300;

/// A secret that cookies are signed with (RFC 9018 4.4).
pub type Secret = [u8; 16];

/// A query's COOKIE option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    client: [u8; CLIENT],
    /// The server cookie, if it has the length of ours.
    server: Option<[u8; SERVER]>,
    has_server_cookie: bool,
}

impl Cookie {
    /// RFC 7873 5.2.2: a client cookie of 8 octets, then no server cookie or one of 8 to 32
    /// octets. Anything else is a format error.
    pub fn parse(data: &[u8]) -> Option<Cookie> {
        let (client, server) = data.split_first_chunk::<CLIENT>()?;
        if !matches!(server.len(), 0 | 8..=32) {
            return None;
        }
        let has_server_cookie = !server.is_empty();
        Some(Cookie { client: *client, server: server.try_into().ok(), has_server_cookie })
    }

    pub fn has_server_cookie(&self) -> bool {
        self.has_server_cookie
    }
}

/// The secrets of this service. The first one signs, all of them verify: so a secret can be
/// replaced while its cookies remain valid.
#[derive(Clone, Default)]
pub struct Secrets(pub Vec<Secret>);

impl Secrets {
    /// Whether the client at `address` got this cookie from this service, within the last hour.
    pub fn verify(&self, cookie: &Cookie, address: IpAddr, now: u64) -> bool {
        let Some(server) = cookie.server else { return false };
        // RFC 9018 4.3: timestamps are serial numbers (RFC 1982), so they may wrap in 2106.
        let timestamp = u32::from_be_bytes([server[4], server[5], server[6], server[7]]);
        let age = (now as u32).wrapping_sub(timestamp) as i32;
        (-MAX_AHEAD..=MAX_AGE).contains(&age)
            && self.0.iter().any(|secret| {
                // Not in constant time: the hash changes every second, so timing reveals little.
                sign(secret, &cookie.client, &server[..8], address) == server[8..]
            })
    }

    /// The COOKIE option of the response; `None` without secrets.
    pub fn create(&self, cookie: &Cookie, address: IpAddr, now: u64) -> Option<[u8; LENGTH]> {
        let secret = self.0.first()?;
        let mut option = [0; LENGTH];
        option[..CLIENT].copy_from_slice(&cookie.client);
        // RFC 9018 4.1, 4.2: version 1, and three reserved octets.
        option[CLIENT] = 1;
        option[12..16].copy_from_slice(&(now as u32).to_be_bytes());
        let hash = sign(secret, &cookie.client, &option[CLIENT..16], address);
        option[16..].copy_from_slice(&hash);
        Some(option)
    }
}

/// RFC 9018 4.4: SipHash-2-4 over client cookie, version, reserved, timestamp and address.
fn sign(secret: &Secret, client: &[u8], head: &[u8], address: IpAddr) -> [u8; 8] {
    let mut message = [0; CLIENT + 8 + 16];
    message[..CLIENT].copy_from_slice(client);
    message[CLIENT..16].copy_from_slice(head);
    let length = match address.to_canonical() {
        IpAddr::V4(address) => {
            message[16..20].copy_from_slice(&address.octets());
            20
        }
        IpAddr::V6(address) => {
            message[16..32].copy_from_slice(&address.octets());
            32
        }
    };
    let mut hasher = SipHasher24::new_with_key(secret);
    hasher.write(&message[..length]);
    hasher.finish().to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn secret(hex: &str) -> Secret {
        bytes(hex).try_into().unwrap()
    }

    /// RFC 9018, appendix A.
    #[test]
    fn the_test_vectors_of_rfc_9018_are_reproduced() {
        let secrets = Secrets(vec![secret("e5e973e5a6b2a43f48e7dc849e37bfcf")]);
        let address: IpAddr = "198.51.100.100".parse().unwrap();
        // A.1: a client gets its first cookie. A.2: half an hour later it is renewed.
        let first = Cookie::parse(&bytes("2464c4abcf10c957")).unwrap();
        let created = secrets.create(&first, address, 1_559_731_985).unwrap();
        assert_eq!(created[..], bytes("2464c4abcf10c957010000005cf79f111f8130c3eee29480"));
        let again = Cookie::parse(&created).unwrap();
        assert!(secrets.verify(&again, address, 1_559_734_385));
        let renewed = secrets.create(&again, address, 1_559_734_385).unwrap();
        assert_eq!(renewed[..], bytes("2464c4abcf10c957010000005cf7a871d4a564a1442aca77"));
        // A.4: IPv6, and the previous secret.
        let previous = secret("dd3bdf9344b678b185a6f5cb60fca715");
        let now = secret("445536bcd2513298075a5d379663c962");
        let address: IpAddr = "2001:db8:220:1:59de:d0f4:8769:82b8".parse().unwrap();
        let old = Cookie::parse(&bytes("22681ab97d52c298010000005cf7c57926556bd0934c72f8")).unwrap();
        assert!(Secrets(vec![now, previous]).verify(&old, address, 1_559_741_961));
        assert!(!Secrets(vec![now]).verify(&old, address, 1_559_741_961));
        let renewed = Secrets(vec![now, previous]).create(&old, address, 1_559_741_961).unwrap();
        assert_eq!(renewed[..], bytes("22681ab97d52c298010000005cf7c609a6bb79d16625507a"));
    }

    #[test]
    fn a_cookie_is_valid_for_one_address_and_an_hour() {
        let secrets = Secrets(vec![[7; 16]]);
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let bare = Cookie::parse(&[1; 8]).unwrap();
        let now = 1_800_000_000;
        let cookie = Cookie::parse(&secrets.create(&bare, address, now).unwrap()).unwrap();
        let is_valid = |address: &str, at| secrets.verify(&cookie, address.parse().unwrap(), at);
        assert!(
            is_valid("192.0.2.1", now)
                && is_valid("192.0.2.1", now + 3600)
                && is_valid("192.0.2.1", now - 300)
        );
        assert!(!is_valid("192.0.2.1", now + 3601) && !is_valid("192.0.2.1", now - 301));
        assert!(!is_valid("192.0.2.2", now) && is_valid("::ffff:192.0.2.1", now));
        assert!(!secrets.verify(&bare, address, now));
        assert!(Secrets::default().create(&bare, address, now).is_none());
    }

    #[test]
    fn invalid_lengths_are_refused() {
        for length in (0..50).filter(|length| !matches!(length, 8 | 16..=40)) {
            assert_eq!(Cookie::parse(&vec![0; length]), None, "{length}");
        }
        assert!(Cookie::parse(&[0; 16]).is_some_and(|cookie| cookie.has_server_cookie()));
        assert!(Cookie::parse(&[0; 8]).is_some_and(|cookie| !cookie.has_server_cookie()));
    }
}
