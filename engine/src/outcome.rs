//! The outcome of a query. `answer` and `worker` decide it, and `counters` counts it.

use crate::policy::{Action, Decision};

/// The outcome of a query, as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `zone` is an index into the zones of the snapshot; `order` is the counter of the order, or 0.
    Blocked {
        zone: usize,
        action: Action,
        order: u16,
    },
    /// Answered with a new response of an upstream.
    Forwarded,
    /// Answered from the cache.
    Cached,
    /// Answered with an expired response from the cache, because no upstream answered.
    Stale,
    /// A locally served name, or a query for a cookie only.
    Local,
    /// SERVFAIL, because no upstream answered.
    Failed,
    Refused,
    Malformed,
    NotImplemented,
    BadVersion,
    /// Not answered: not a query, or its client may not query.
    Dropped,
    /// Not answered: it has waited in the socket for too long.
    Late,
    /// Above its client's rate limit.
    Limited,
    /// SERVFAIL, because too many queries are outstanding.
    Overloaded,
}

impl Outcome {
    /// The outcome of a decision of the policy, with the action of the response.
    pub fn blocked(decision: &Decision<'_>, action: Action) -> Outcome {
        Outcome::Blocked { zone: decision.zone, action, order: decision.reference.counter }
    }

    /// Whether the response is an error, for which a separate rate limit applies.
    pub fn is_error(self) -> bool {
        matches!(self, Outcome::Refused | Outcome::Malformed | Outcome::NotImplemented | Outcome::BadVersion)
    }
}
