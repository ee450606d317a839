//! Other upstreams by a reload: each worker thread takes them over by itself, when it meets
//! the new settings.

use std::sync::Arc;
use std::time::Instant;

use super::choice::{Chooser, Server};
use super::health::{MAX_UPSTREAMS, Mask, bit};
use super::{MAX_ATTEMPTS, Settings, Upstreams, sockets};

/// Gives each upstream its place: the one that its address has had, else a free one.
/// `used`: places that some thread may still use. Returns the places that are new; `None`
/// where there are not enough.
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

    /// Goes by these settings from now on. Queries that wait for an upstream that is not
    /// among them are sent to another at once, and that is no attempt.
    pub fn adopt(&mut self, settings: &Arc<Settings>, now: Instant) {
        self.flush(now);
        let before = std::mem::replace(&mut self.settings, Arc::clone(settings));
        self.chooser = Chooser::new(settings.choice, &settings.servers);
        let (servers, pools) = (settings.servers.len(), settings.servers.len() * self.workers);
        self.most_streams = Upstreams::most_streams(servers, sockets::share(pools));
        if before.tells != settings.tells {
            // A connection begins with what it tells, or with nothing.
            self.stream_of.fill(None);
        }
        let gone = before.places() & !settings.places();
        let stranded = self.leave_upstreams(gone);
        self.pool.adopt(&settings.servers, pools);
        for key in stranded {
            self.attempt(key, now);
        }
        self.flush(now);
    }

    /// Waits for nothing any more from these upstreams; returns the flights whose latest
    /// attempt went there.
    fn leave_upstreams(&mut self, gone: Mask) -> Vec<usize> {
        let mut stranded = Vec::new();
        let flights: Vec<usize> = self.flights.iter().map(|(key, _)| key).collect();
        for key in flights {
            let mut left: Mask = 0;
            for place in 0..MAX_ATTEMPTS {
                let route = &mut self.flights[key].routes[place];
                if let Some(route) = route.take_if(|route| gone & bit(route.upstream) != 0) {
                    left |= bit(route.upstream);
                    self.leave(&route);
                }
            }
            let flight = &mut self.flights[key];
            flight.attempts = flight.attempts.saturating_sub(left.count_ones() as usize);
            flight.asked &= !gone;
            flight.without_opt &= !gone;
            if flight.blame.take_if(|upstream| gone & bit(*upstream) != 0).is_some() {
                stranded.push(key);
            }
        }
        let is_lost = |upstream: usize| gone & bit(upstream) != 0;
        let streams = self.streams.iter().filter(|(_, stream)| is_lost(stream.upstream));
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
    fn an_upstream_keeps_its_place_and_a_new_one_gets_one_that_nobody_uses() {
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
