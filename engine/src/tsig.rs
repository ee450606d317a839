//! Keys for signed messages between DNS servers: TSIG (RFC 8945).

use std::sync::Arc;

use domain::base::name::Name as WireName;
pub use domain::rdata::tsig::Time48;
use domain::tsig::{self, Algorithm};

/// A shared key. Its secret is never shown.
pub type Key = Arc<tsig::Key>;

/// The key of that name. `algorithm` is as in BIND: `hmac-sha256`. `None` if a name is invalid, or if the
/// algorithm is not one of SHA-2.
pub fn key(name: &str, algorithm: &str, secret: &[u8]) -> Option<Key> {
    let algorithm: Algorithm = algorithm.parse().ok().filter(|one| *one != Algorithm::Sha1)?;
    let name: WireName<Vec<u8>> = name.to_ascii_lowercase().parse().ok()?;
    let name = WireName::from_octets(name.as_slice().try_into().ok()?).ok()?;
    tsig::Key::new(algorithm, secret, name, None, None).ok().map(Arc::new)
}

/// The time by which signatures are made and verified.
pub fn now() -> Time48 {
    Time48::now()
}
