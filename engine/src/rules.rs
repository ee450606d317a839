//! The configuration that decides about a query, beside the snapshot: access control list,
//! rate limits, cookie secrets, locally served names, cache. `answer` and `worker` read it; the
//! engine swaps it atomically with the snapshot.

use std::sync::Arc;

use crate::cache;
use crate::cookie::Secrets;
use crate::limits::Rates;
use crate::local::Local;
use crate::message::Soa;
use crate::prefix::Prefixes;
use crate::response::TtlBounds;
use crate::suffixes::Suffixes;

/// What of the configuration a decision depends on, beside the snapshot. It is
/// exchanged together with it.
#[derive(Clone, Default)]
pub struct Rules {
    pub clients: Prefixes,
    /// Clients outside `clients` get silence instead of REFUSED.
    pub drop_others: bool,
    /// Clients that are not limited.
    pub exempt: Prefixes,
    pub rates: Rates,
    /// Octets of a UDP response for each octet of the query, to a client that
    /// is not known; 0: as many as it takes.
    pub amplification: usize,
    pub secrets: Secrets,
    /// Octets of a UDP response at most, and what our OPT announces.
    pub max_payload: u16,
    /// How long an idle TCP connection is kept, in units of 100 ms.
    pub keepalive: u16,
    /// The EDNS option by which a client asks for structured errors.
    pub structured_option: Option<u16>,
    /// MNAME and RNAME of the SOA in negative answers.
    pub soa: Soa,
    pub local: Local,
    pub ttl_bounds: TtlBounds,
    pub cache: cache::Settings,
    /// The public suffix list.
    pub suffixes: Arc<Suffixes>,
}
