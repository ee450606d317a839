//! A reload that changes the upstreams. Each worker thread adopts the new settings on its own.

use std::sync::Arc;
use std::time::Instant;

use super::choice::{Chooser, Server};
use super::health::{MAX_UPSTREAMS, Mask, bit};
use super::{Settings, Upstreams, sockets};

/// Gives each upstream its place: its previous one if the address is the same, otherwise a free
/// one. Places in `used` are not free, because a thread may still use them. Returns the new places,
/// or `None` if there are not enough.
pub fn assign(servers: &mut [Server], before: &[Server], used: Mask) -> Option<Mask> {
    let (mut taken, mut new): (Mask, Mask) = (0, 0);
    let mut unplaced = Vec::new();
    for server in servers {
        let same = |other: &&Server| other.address == server.address && taken & bit(other.place) == 0;
        match before.iter().find(same) {
            Some(known) => {
                server.place = known.place;
                taken |= bit(known.place);
            }
            None => unplaced.push(server),
        }
    }
    for server in unplaced {
        server.place = (0..MAX_UPSTREAMS).find(|&place| (taken | used) & bit(place) == 0)?;
        taken |= bit(server.place);
        new |= bit(server.place);
    }
    Some(new)
}

impl Upstreams {
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Adopts new settings. Queries whose upstream is removed are sent to another one immediately,
    /// which does not count as a try.
    pub fn adopt(&mut self, settings: &Arc<Settings>, now: Instant) {
        self.flush(now);
        let before = std::mem::replace(&mut self.settings, Arc::clone(settings));
        self.chooser = Chooser::new(settings.choice, &settings.servers);
        let (servers, pools) = (settings.servers.len(), settings.servers.len() * self.workers);
        self.max_streams = Upstreams::max_streams(servers, sockets::share(pools));
        if before.client_identity != settings.client_identity {
            // A connection begins with the client's identity, or has none.
            self.stream_of.fill(None);
        }
        let removed = before.places() & !settings.places();
        let stranded = self.leave_upstreams(removed);
        self.pool.adopt(&settings.servers, pools);
        for key in stranded {
            self.try_next(key, now);
        }
        self.flush(now);
    }

    /// Accepts no responses from these upstreams any more. Returns the flights that were last sent
    /// to them.
    fn leave_upstreams(&mut self, removed: Mask) -> Vec<usize> {
        let is_removed = |upstream: usize| removed & bit(upstream) != 0;
        let mut stranded = Vec::new();
        for key in self.flights.keys(|_| true) {
            let mut left: Mask = 0;
            while let Some(route) = self.flights[key].tries.take_route(|route| is_removed(route.upstream)) {
                left |= bit(route.upstream);
                self.close_route(&route);
            }
            let flight = &mut self.flights[key];
            flight.tries.count = flight.tries.count.saturating_sub(left.count_ones() as usize);
            flight.tries.upstreams &= !removed;
            flight.tries.without_opt &= !removed;
            if flight.end_try(is_removed).is_some() {
                stranded.push(key);
            }
        }
        let streams = self.streams.iter().filter(|(_, stream)| is_removed(stream.upstream));
        for key in streams.map(|(key, _)| key).collect::<Vec<_>>() {
            self.drop_stream(key);
        }
        stranded
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn servers(hosts: &[u8]) -> Vec<Server> {
        let server = |host: &u8| Server {
            address: SocketAddr::from(([192, 0, 2, *host], 53)),
            weight: 1,
            order: 0,
            place: 0,
        };
        hosts.iter().map(server).collect()
    }

    fn places(servers: &[Server]) -> Vec<usize> {
        servers.iter().map(|server| server.place).collect()
    }

    #[test]
    fn an_upstream_keeps_its_place_and_a_new_one_gets_a_free_place() {
        let mut first = servers(&[1, 2, 3]);
        assert_eq!(assign(&mut first, &[], 0), Some(0b111));
        let mut next = servers(&[3, 4, 1]);
        assert_eq!(assign(&mut next, &first, 0b111), Some(0b1000));
        assert_eq!(places(&next), [2, 3, 0]);
        let mut last = servers(&[5, 3]);
        assert_eq!(assign(&mut last, &next, 0b1101), Some(0b10), "the place of the second is free again");
        assert_eq!(places(&last), [1, 2]);
    }

    #[test]
    fn more_new_upstreams_than_free_places_are_refused() {
        let all: Vec<u8> = (0..64).collect();
        let mut first = servers(&all);
        assert_eq!(assign(&mut first, &[], 0), Some(Mask::MAX));
        assert_eq!(assign(&mut servers(&[100]), &first, Mask::MAX), None);
        assert_eq!(assign(&mut servers(&all), &first, Mask::MAX), Some(0));
    }
}
