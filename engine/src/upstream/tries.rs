//! The tries of one flight: where it was sent, and where a response is still accepted.

use std::time::Instant;

use super::health::{Mask, bit};

/// The most tries that can be configured.
pub const MAX_TRIES: usize = 4;

#[derive(Default)]
pub(super) struct Tries {
    pub(super) count: usize,
    /// The upstreams that were tried.
    pub(super) upstreams: Mask,
    /// The upstreams that may have refused the OPT record. They get the query without it.
    pub(super) without_opt: Mask,
    pub(super) routes: [Option<Route>; MAX_TRIES],
}

/// One transmission. A late response to an earlier one is accepted too.
#[derive(Clone, Copy)]
pub(super) struct Route {
    pub(super) channel: Channel,
    pub(super) upstream: usize,
    pub(super) id: u16,
    pub(super) has_opt: bool,
    pub(super) sent_at: Instant,
}

/// A socket or a connection to an upstream, by its key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    Socket(usize),
    Stream(usize),
}

impl Tries {
    pub(super) fn add(&mut self, upstream: usize) {
        self.count += 1;
        self.upstreams |= bit(upstream);
    }

    pub(super) fn has_routes(&self) -> bool {
        self.routes.iter().any(Option::is_some)
    }

    pub(super) fn route_over(&self, channel: Channel) -> Option<&Route> {
        self.routes.iter().flatten().find(|route| route.channel == channel)
    }

    /// Stores a route, and returns the one that it replaces: one over the same channel, or the first
    /// if none is free.
    pub(super) fn add_route(&mut self, route: Route) -> Option<Route> {
        let is_same = |other: &Option<Route>| other.is_some_and(|other| other.channel == route.channel);
        let free = || self.routes.iter().position(Option::is_none);
        let index = self.routes.iter().position(is_same).or_else(free).unwrap_or(0);
        self.routes[index].replace(route)
    }

    pub(super) fn take_route(&mut self, matches: impl Fn(&Route) -> bool) -> Option<Route> {
        self.routes.iter_mut().find_map(|route| route.take_if(|route| matches(route)))
    }

    /// Whether nothing was sent after this route.
    pub(super) fn end_with(&self, route: &Route) -> bool {
        self.routes.iter().flatten().all(|other| other.sent_at <= route.sent_at)
    }
}
