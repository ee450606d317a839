//! The configuration that decides about a query, beside the snapshot: access control list,
//! rate limits, cookie secrets, locally served names, cache. `answer` and `worker` read it; the
//! engine swaps it atomically with the snapshot.

use std::sync::Arc;

use crate::cache;
use crate::cookie::Secrets;
use crate::dnstap;
use crate::limits::Rates;
use crate::local::Local;
use crate::message::Soa;
use crate::notify;
use crate::prefix::Prefixes;
use crate::response::TtlBounds;
use crate::suffixes::Suffixes;

#[derive(Clone, Default)]
pub struct Rules {
    pub clients: Prefixes,
    /// Clients outside `clients` get no response instead of REFUSED.
    pub drop_others: bool,
    /// Clients without rate limit.
    pub exempt: Prefixes,
    pub rates: Rates,
    /// The longest UDP response, as a multiple of the query's length, for a client whose address may be
    /// spoofed. 0: no limit.
    pub amplification: usize,
    pub secrets: Secrets,
    /// The longest UDP response in bytes, which our OPT announces.
    pub max_payload: u16,
    /// The timeout of an idle TCP connection, in units of 100 ms.
    pub keepalive: u16,
    /// The EDNS option by which a client requests structured errors.
    pub structured_option: Option<u16>,
    /// MNAME and RNAME of the SOA in negative answers.
    pub soa: Soa,
    pub local: Local,
    /// Zones that are received by transfer: who may say that they have changed.
    pub transferred: Arc<notify::Zones>,
    pub ttl_bounds: TtlBounds,
    pub cache: cache::Settings,
    /// Copies of messages for a reader outside of this process.
    pub dnstap: Option<Arc<dnstap::Settings>>,
    /// The public suffix list.
    pub suffixes: Arc<Suffixes>,
}
