//! Limits per domain and per client: once half of `max_outstanding` is in use, each may have at most
//! a quarter. So a flood of random names below one dead zone, or one client, leaves room for the
//! others (as `fetches-per-zone` in BIND).
//!
//! Below half, nothing is counted. All flights are counted when half is reached, and the counts are
//! dropped when less than three eighths are in use.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::net::IpAddr;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Flight, Origin, Upstreams, Waiter};
use crate::cache::IdentityHasher;
use crate::counters::Refused;
use crate::limits::client_hash;
use crate::policy::seed;
use crate::suffixes::Suffixes;

/// By hashes with a seed of this process, so that nobody can provoke collisions.
type Counts = HashMap<u64, usize, BuildHasherDefault<IdentityHasher>>;

/// The domain and the client that a query is counted for. It lives as long as the query.
#[derive(Clone, Copy)]
pub struct Share {
    domain: u64,
    /// `None` for prefetches, and for clients that are not limited.
    client: Option<u64>,
}

impl Share {
    fn of(waiter: &Waiter, client: Option<IpAddr>, suffixes: &Suffixes) -> Share {
        let domain = xxh3_64_with_seed(suffixes.domain(waiter.name()), seed());
        Share { domain, client: client.map(|address| client_hash(address, seed())) }
    }
}

/// Outstanding queries per domain and per client; empty while few are outstanding.
#[derive(Default)]
pub struct Shares {
    are_counted: bool,
    domains: Counts,
    clients: Counts,
}

impl Shares {
    fn add(&mut self, share: Share) {
        *self.domains.entry(share.domain).or_default() += 1;
        if let Some(client) = share.client {
            *self.clients.entry(client).or_default() += 1;
        }
    }

    fn remove(&mut self, share: Share) {
        subtract_one(&mut self.domains, share.domain);
        if let Some(client) = share.client {
            subtract_one(&mut self.clients, client);
        }
    }
}

fn subtract_one(counts: &mut Counts, key: u64) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

impl Upstreams {
    /// Whether half of `max_outstanding` is in use. Then nothing is prefetched.
    pub fn is_busy(&self) -> bool {
        self.flights.len() >= self.settings.max_outstanding.div_ceil(2)
    }

    /// Whether one more question may be sent. `client_of` returns the client's address if the client
    /// is limited.
    pub fn admit(
        &mut self,
        waiter: &mut Waiter,
        suffixes: &Suffixes,
        client_of: impl Fn(&Origin) -> Option<IpAddr>,
    ) -> Result<(), Refused> {
        let max = self.settings.max_outstanding;
        if self.flights.len() >= max {
            return Err(Refused::Full);
        }
        if !self.shares.are_counted {
            if !self.is_busy() {
                return Ok(());
            }
            self.shares.are_counted = true;
            for (_, flight) in self.flights.iter_mut() {
                let share = Share::of(&flight.first, client_of(&flight.first.origin), suffixes);
                flight.share = Some(share);
                self.shares.add(share);
            }
        }
        let share = Share::of(waiter, client_of(&waiter.origin), suffixes);
        let quarter = (max / 4).max(1);
        let has = |counts: &Counts, key: u64| counts.get(&key).copied().unwrap_or(0);
        if has(&self.shares.domains, share.domain) >= quarter {
            return Err(Refused::Domain);
        }
        if share.client.is_some_and(|client| has(&self.shares.clients, client) >= quarter) {
            return Err(Refused::Client);
        }
        waiter.share = Some(share);
        Ok(())
    }

    /// Counts a new flight.
    pub(super) fn enter_share(&mut self, flight: &mut Flight) {
        flight.share = flight.first.share.take();
        if let (true, Some(share)) = (self.shares.are_counted, flight.share) {
            self.shares.add(share);
        }
    }

    /// Stops counting a flight that was removed.
    pub(super) fn leave_share(&mut self, flight: &Flight) {
        if !self.shares.are_counted {
            return;
        }
        if let Some(share) = flight.share {
            self.shares.remove(share);
        }
        if self.flights.len() < self.settings.max_outstanding * 3 / 8 {
            self.shares = Shares::default();
        }
    }
}
