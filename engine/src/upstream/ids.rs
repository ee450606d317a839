//! The IDs of outstanding queries on one socket or connection, and their flights.
//!
//! There are few, because a socket is replaced after 128 queries. A linear search is cheaper than a
//! hash table, and lists all flights of a failed socket.

use rand::RngExt;
use rand::rngs::StdRng;

#[derive(Default)]
pub struct Ids {
    ids: Vec<u16>,
    /// The flight of each id.
    flights: Vec<u32>,
}

impl Ids {
    /// Adds a flight under a random ID that is free here (RFC 5452, section 9.2).
    pub fn draw(&mut self, flight: usize, random: &mut StdRng) -> u16 {
        // There are at most 32,768 flights, with one ID each per channel. At least half of the IDs
        // are free, so the loop ends.
        let id = loop {
            let id = random.random::<u16>();
            if self.index(id).is_none() {
                break id;
            }
        };
        self.ids.push(id);
        self.flights.push(u32::try_from(flight).expect("at most 32,768 flights"));
        id
    }

    pub fn find(&self, id: u16) -> Option<usize> {
        self.index(id).map(|index| self.flights[index] as usize)
    }

    pub fn remove(&mut self, id: u16) {
        if let Some(index) = self.index(id) {
            self.ids.swap_remove(index);
            self.flights.swap_remove(index);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// All flights with their IDs.
    pub fn all(&self) -> Vec<(u16, usize)> {
        self.ids.iter().copied().zip(self.flights.iter().map(|flight| *flight as usize)).collect()
    }

    fn index(&self, id: u16) -> Option<usize> {
        // A run without early exit takes a few vector instructions.
        const RUN: usize = 32;
        let run =
            self.ids.chunks(RUN).position(|run| run.iter().fold(false, |found, &own| found | (own == id)))?;
        self.ids[run * RUN..].iter().position(|&own| own == id).map(|index| run * RUN + index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::SeedableRng;

    use super::*;

    #[test]
    fn ids_are_found_as_in_a_map() {
        let (mut random, mut ids, mut twin) = (StdRng::seed_from_u64(1), Ids::default(), HashMap::new());
        for flight in 0..2000 {
            let id = ids.draw(flight, &mut random);
            assert_eq!(twin.insert(id, flight), None, "an ID is drawn once");
            if flight % 3 == 0 {
                let gone = *twin.keys().next().unwrap();
                ids.remove(gone);
                twin.remove(&gone);
            }
        }
        assert_eq!(ids.all().len(), twin.len());
        assert!((0..=u16::MAX).all(|id| ids.find(id) == twin.get(&id).copied()));
        assert!(ids.all().iter().all(|(id, flight)| twin[id] == *flight));
    }
}
