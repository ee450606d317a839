//! The source of a response to a client: an upstream's response, a cached one, or a reason for SERVFAIL.

use crate::cache::{Age, Allowed, CachedResponse};
use crate::counters::Refused;
use crate::outcome::Outcome;
use crate::policy::Judges;
use crate::response::{Parser, Response};
use crate::shared::Serving;
use crate::upstream::{ChainStart, ClaimResult};

/// The source of a response.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// A response that an upstream has just sent.
    Upstream(Response<'a>),
    /// An upstream's message that is not well-formed.
    Malformed,
    /// The response does not fit over UDP, and TCP to the upstream failed.
    TooLong,
    Cached(&'a CachedResponse, Age),
    /// No response, and how the query ends.
    Nothing(Outcome),
    /// The query was not sent: too many are outstanding.
    Refused(Refused),
}

impl<'a> Source<'a> {
    pub(super) fn of(result: &'a ClaimResult, parser: &'a mut Parser) -> Source<'a> {
        match result {
            ClaimResult::Response(message) => {
                parser.parse(message).map_or(Source::Malformed, Source::Upstream)
            }
            ClaimResult::TooLong => Source::TooLong,
            ClaimResult::NoResponse | ClaimResult::Abandoned => Source::Nothing(Outcome::Failed),
        }
    }

    /// Whether it is an upstream's message.
    pub(super) fn is_response(self) -> bool {
        matches!(self, Source::Upstream(_) | Source::Malformed | Source::Cached(..))
    }

    /// The parsed response; a cached one is parsed with `parser`.
    pub(super) fn response(self, parser: &'a mut Parser) -> Option<Response<'a>> {
        match self {
            Source::Upstream(response) => Some(response),
            Source::Cached(cached, _) => cached.parse(parser),
            Source::Malformed | Source::TooLong | Source::Nothing(_) | Source::Refused(_) => None,
        }
    }

    /// Whether all its targets have already passed the current policy, which these zones judge.
    pub(super) fn is_allowed(self, judges: Judges, serving: &Serving) -> bool {
        let Source::Cached(cached, _) = self else { return false };
        let Allowed { generation, is_of_addresses } = cached.allowed();
        generation == serving.generation
            || is_of_addresses && judges == Judges::ALL && generation >= serving.addresses_since
    }

    /// The result for worker threads whose clients wait for the same response.
    pub(super) fn to_others(self) -> ClaimResult {
        match self {
            Source::Upstream(response) => ClaimResult::Response(response.message().into()),
            Source::Cached(cached, _) => ClaimResult::Response(cached.message().into()),
            Source::TooLong => ClaimResult::TooLong,
            Source::Malformed | Source::Nothing(_) | Source::Refused(_) => ClaimResult::NoResponse,
        }
    }

    /// A copy for the time until the target of our own CNAME is resolved.
    pub(super) fn to_chain_start(self) -> Option<ChainStart> {
        match self {
            Source::Upstream(response) => Some(ChainStart::Received(response.message().into())),
            Source::Cached(cached, age) => Some(ChainStart::Cached(cached.clone(), age)),
            Source::Malformed | Source::TooLong | Source::Nothing(_) | Source::Refused(_) => None,
        }
    }

    pub(super) fn of_chain_start(chain_start: &'a ChainStart, parser: &'a mut Parser) -> Source<'a> {
        match chain_start {
            ChainStart::Received(message) => {
                parser.parse(message).map_or(Source::Malformed, Source::Upstream)
            }
            ChainStart::Cached(cached, age) => Source::Cached(cached, *age),
        }
    }
}
