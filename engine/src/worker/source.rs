//! What a response to a client is made from: an upstream's response, a cached one, or the reason
//! why there is none.

use crate::cache::{Age, CachedResponse};
use crate::counters::Refused;
use crate::outcome::Outcome;
use crate::response::{Parser, Response};
use crate::upstream::{Heard, Led};

/// What a query is answered with.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// A response that an upstream has just sent.
    Upstream(Response<'a>),
    /// An upstream's message that is not well-formed.
    Malformed,
    /// The response does not fit over UDP, and cannot be had over TCP.
    TooLong,
    Cached(&'a CachedResponse, Age),
    /// No response, and how the query ends.
    Nothing(Outcome),
    /// The query was not sent: too many are outstanding.
    Refused(Refused),
}

impl<'a> Source<'a> {
    pub(super) fn of(heard: &'a Heard, parser: &'a mut Parser) -> Source<'a> {
        match heard {
            Heard::Answer(message) => parser.parse(message).map_or(Source::Malformed, Source::Upstream),
            Heard::TooLong => Source::TooLong,
            Heard::Nothing | Heard::Lost => Source::Nothing(Outcome::Failed),
        }
    }

    /// Whether an upstream has sent anything, now or before.
    pub(super) fn is_response(self) -> bool {
        matches!(self, Source::Upstream(_) | Source::Malformed | Source::Cached(..))
    }

    /// The parsed response; a cached one is parsed with `parser`.
    pub(super) fn response(self, parser: &'a mut Parser) -> Option<Response<'a>> {
        match self {
            Source::Upstream(response) => Some(response),
            Source::Cached(kept, _) => kept.parse(parser),
            Source::Malformed | Source::TooLong | Source::Nothing(_) | Source::Refused(_) => None,
        }
    }

    /// Whether all its targets have passed the policy of this generation already.
    pub(super) fn is_allowed_by(self, generation: u64) -> bool {
        matches!(self, Source::Cached(kept, _) if kept.is_allowed_by(generation))
    }

    /// The message to worker threads whose clients wait for the same response.
    pub(super) fn to_others(self) -> Heard {
        match self {
            Source::Upstream(response) => Heard::Answer(response.message().into()),
            Source::Cached(kept, _) => Heard::Answer(kept.message().into()),
            Source::TooLong => Heard::TooLong,
            Source::Malformed | Source::Nothing(_) | Source::Refused(_) => Heard::Nothing,
        }
    }

    /// A copy to keep while the target of our own CNAME is resolved.
    pub(super) fn to_led(self) -> Option<Led> {
        match self {
            Source::Upstream(response) => Some(Led::Now(response.message().into())),
            Source::Cached(kept, age) => Some(Led::Before(kept.clone(), age)),
            Source::Malformed | Source::TooLong | Source::Nothing(_) | Source::Refused(_) => None,
        }
    }

    pub(super) fn of_led(led: &'a Led, parser: &'a mut Parser) -> Source<'a> {
        match led {
            Led::Now(message) => parser.parse(message).map_or(Source::Malformed, Source::Upstream),
            Led::Before(kept, age) => Source::Cached(kept, *age),
        }
    }
}
