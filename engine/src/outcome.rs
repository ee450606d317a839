//! How a query ended. `answer` and `worker` decide it; `counters` counts it.

use crate::policy::Action;

/// How a query ended, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By the zone at this place of the snapshot.
    Blocked {
        zone: usize,
        action: Action,
    },
    /// Answered with what an upstream said.
    Forwarded,
    /// Answered with what an upstream had said to somebody before.
    Cached,
    /// The same, past its time, since no upstream answers.
    Stale,
    /// A name that nobody is asked about, or a question for a cookie.
    Local,
    /// No upstream answered.
    Failed,
    Refused,
    Malformed,
    NotImplemented,
    BadVersion,
    /// Not answered: nobody to answer, or nothing to answer.
    Dropped,
    /// Not answered: it has waited until nobody waits for it any more.
    Late,
    /// More than its client may ask.
    Limited,
    /// More queries under way than allowed.
    Overloaded,
}

impl Outcome {
    /// Whether all that can be had by it is an error.
    pub fn is_error(self) -> bool {
        let errors = [Outcome::Refused, Outcome::Malformed, Outcome::NotImplemented, Outcome::BadVersion];
        errors.contains(&self)
    }
}
