//! DNS cookies, the server's side (RFC 7873): proof that a client receives what
//! is sent to the address it claims. Cookies are made as RFC 9018 says, so all
//! machines of an anycast service that share a secret know each other's.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;

/// Octets of the client's part and of ours.
const CLIENT: usize = 8;
const SERVER: usize = 16;
/// What a response's COOKIE option holds: the client's part, and ours.
pub const FULL: usize = CLIENT + SERVER;
/// RFC 9018 4.3: how old a cookie may be, and how far ahead of our clock, in
/// seconds.
const MAX_AGE: i32 = 3600;
const MAX_AHEAD: i32 = 300;

/// A secret that cookies are signed with (RFC 9018 4.4).
pub type Secret = [u8; 16];

/// What a client's COOKIE option says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    client: [u8; CLIENT],
    /// The part it got from us, if it can be: others make longer or shorter
    /// ones.
    server: Option<[u8; SERVER]>,
    has_server_part: bool,
}

impl Cookie {
    /// RFC 7873 5.2.2: 8 octets of the client's own, then nothing or 8 to 32
    /// octets of the server's. Anything else is a format error.
    pub fn parse(data: &[u8]) -> Option<Cookie> {
        let (client, server) = data.split_first_chunk::<CLIENT>()?;
        if !matches!(server.len(), 0 | 8..=32) {
            return None;
        }
        let has_server_part = !server.is_empty();
        Some(Cookie { client: *client, server: server.try_into().ok(), has_server_part })
    }

    /// Whether it claims to have been here before.
    pub fn has_server_part(&self) -> bool {
        self.has_server_part
    }
}

/// The secrets of this service: the first signs, all of them verify, so that
/// they can be changed without forgetting any client.
#[derive(Clone, Default)]
pub struct Secrets(pub Vec<Secret>);

impl Secrets {
    /// Whether the client at `address` got this cookie from us, lately.
    pub fn prove(&self, cookie: &Cookie, address: IpAddr, now: u64) -> bool {
        let Some(server) = cookie.server else { return false };
        // RFC 9018 4.3: compared as serial numbers (RFC 1982), so that the
        // year 2106 is no special one.
        let made_at = u32::from_be_bytes([server[4], server[5], server[6], server[7]]);
        let age = (now as u32).wrapping_sub(made_at) as i32;
        (-MAX_AHEAD..=MAX_AGE).contains(&age)
            && self.0.iter().any(|secret| {
                // A difference in time tells a guesser little of a hash that
                // changes with every second.
                sign(secret, &cookie.client, &server[..8], address) == server[8..]
            })
    }

    /// The COOKIE option for the client's next queries; `None` without secrets.
    pub fn bake(&self, cookie: &Cookie, address: IpAddr, now: u64) -> Option<[u8; FULL]> {
        let secret = self.0.first()?;
        let mut full = [0; FULL];
        full[..CLIENT].copy_from_slice(&cookie.client);
        // RFC 9018 4.1, 4.2: version 1, three octets of zero.
        full[CLIENT] = 1;
        full[12..16].copy_from_slice(&(now as u32).to_be_bytes());
        let hash = sign(secret, &cookie.client, &full[CLIENT..16], address);
        full[16..].copy_from_slice(&hash);
        Some(full)
    }
}

/// RFC 9018 4.4: SipHash-2-4 over client cookie, version, reserved, timestamp
/// and address.
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

    fn octets(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn secret(hex: &str) -> Secret {
        octets(hex).try_into().unwrap()
    }

    /// RFC 9018, appendix A.
    #[test]
    fn the_vectors_of_the_rfc_hold() {
        let secrets = Secrets(vec![secret("e5e973e5a6b2a43f48e7dc849e37bfcf")]);
        let address: IpAddr = "198.51.100.100".parse().unwrap();
        // A.1: a client learns its first cookie; A.2: half an hour later it is renewed.
        let first = Cookie::parse(&octets("2464c4abcf10c957")).unwrap();
        let learnt = secrets.bake(&first, address, 1_559_731_985).unwrap();
        assert_eq!(learnt[..], octets("2464c4abcf10c957010000005cf79f111f8130c3eee29480"));
        let again = Cookie::parse(&learnt).unwrap();
        assert!(secrets.prove(&again, address, 1_559_734_385));
        let renewed = secrets.bake(&again, address, 1_559_734_385).unwrap();
        assert_eq!(renewed[..], octets("2464c4abcf10c957010000005cf7a871d4a564a1442aca77"));
        // A.4: IPv6, and a secret that was the last one.
        let before = secret("dd3bdf9344b678b185a6f5cb60fca715");
        let now = secret("445536bcd2513298075a5d379663c962");
        let address: IpAddr = "2001:db8:220:1:59de:d0f4:8769:82b8".parse().unwrap();
        let old = Cookie::parse(&octets("22681ab97d52c298010000005cf7c57926556bd0934c72f8")).unwrap();
        assert!(Secrets(vec![now, before]).prove(&old, address, 1_559_741_961));
        assert!(!Secrets(vec![now]).prove(&old, address, 1_559_741_961));
        let renewed = Secrets(vec![now, before]).bake(&old, address, 1_559_741_961).unwrap();
        assert_eq!(renewed[..], octets("22681ab97d52c298010000005cf7c609a6bb79d16625507a"));
    }

    #[test]
    fn a_cookie_proves_one_address_for_an_hour() {
        let secrets = Secrets(vec![[7; 16]]);
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let bare = Cookie::parse(&[1; 8]).unwrap();
        let now = 1_800_000_000;
        let full = Cookie::parse(&secrets.bake(&bare, address, now).unwrap()).unwrap();
        let proves = |address: &str, at| secrets.prove(&full, address.parse().unwrap(), at);
        assert!(
            proves("192.0.2.1", now) && proves("192.0.2.1", now + 3600) && proves("192.0.2.1", now - 300)
        );
        assert!(!proves("192.0.2.1", now + 3601) && !proves("192.0.2.1", now - 301));
        assert!(!proves("192.0.2.2", now) && proves("::ffff:192.0.2.1", now));
        assert!(!secrets.prove(&bare, address, now));
        assert!(Secrets::default().bake(&bare, address, now).is_none());
    }

    #[test]
    fn lengths_that_no_cookie_has_are_refused() {
        for length in (0..50).filter(|length| !matches!(length, 8 | 16..=40)) {
            assert_eq!(Cookie::parse(&vec![0; length]), None, "{length}");
        }
        assert!(Cookie::parse(&[0; 16]).is_some_and(|cookie| cookie.has_server_part()));
        assert!(Cookie::parse(&[0; 8]).is_some_and(|cookie| !cookie.has_server_part()));
    }
}
