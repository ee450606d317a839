//! Shares of what may be outstanding: once half of it is in use, one domain and one client
//! may each have at most a quarter. So random names below one zone that does not answer, or
//! one client, leave room for everybody else (as `fetches-per-zone` in BIND).
//!
//! Nothing is counted below half: what each has is counted once when half is reached, kept
//! up to date from then on, and forgotten when less than three eighths are in use.

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

/// By hashes with the process's own seed: nobody can choose with whom to share.
type Counts = HashMap<u64, usize, BuildHasherDefault<IdentityHasher>>;

/// Whose query it is. CachedResponse no longer than the query.
#[derive(Clone, Copy)]
pub struct Share {
    domain: u64,
    /// `None` for queries of our own, and of clients that are not limited.
    client: Option<u64>,
}

impl Share {
    fn of(waiter: &Waiter, client: Option<IpAddr>, suffixes: &Suffixes) -> Share {
        let domain = xxh3_64_with_seed(suffixes.domain(waiter.name()), seed());
        Share { domain, client: client.map(|address| client_hash(address, seed())) }
    }
}

/// What each domain and each client has outstanding; nothing while little is.
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
        take_one(&mut self.domains, share.domain);
        if let Some(client) = share.client {
            take_one(&mut self.clients, client);
        }
    }
}

fn take_one(counts: &mut Counts, key: u64) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

impl Upstreams {
    /// Whether half of what may be outstanding is: no time for what nobody waits for.
    pub fn is_busy(&self) -> bool {
        self.flights.len() >= self.settings.max_outstanding.div_ceil(2)
    }

    /// Whether one more question may be asked. `client_of`: the client's address, where it
    /// has a share.
    pub fn admit(
        &mut self,
        waiter: &mut Waiter,
        suffixes: &Suffixes,
        client_of: impl Fn(&Origin) -> Option<IpAddr>,
    ) -> Result<(), Refused> {
        let most = self.settings.max_outstanding;
        if self.flights.len() >= most {
            return Err(Refused::Full);
        }
        if !self.shares.are_counted {
            if !self.is_busy() {
                return Ok(());
            }
            self.shares.are_counted = true;
            for (_, flight) in &mut self.flights {
                let share = Share::of(&flight.first, client_of(&flight.first.origin), suffixes);
                flight.share = Some(share);
                self.shares.add(share);
            }
        }
        let share = Share::of(waiter, client_of(&waiter.origin), suffixes);
        let quarter = (most / 4).max(1);
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

    /// Counts a flight that goes out.
    pub(super) fn enter_share(&mut self, flight: &mut Flight) {
        flight.share = flight.first.share.take();
        if let (true, Some(share)) = (self.shares.are_counted, flight.share) {
            self.shares.add(share);
        }
    }

    /// Counts a flight that has been taken out.
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
