//! The ids under way on one socket or connection, and whose they are.
//!
//! There are few: a socket is replaced after 128 queries. Looking through them is
//! cheaper than hashing, and what a socket that fails takes with it is at hand.

use rand::RngExt;
use rand::rngs::StdRng;

#[derive(Default)]
pub struct Ids {
    ids: Vec<u16>,
    /// The flight of each id.
    flights: Vec<u32>,
}

impl Ids {
    /// Enters a flight under an id that is free here, drawn at random (RFC 5452 9.2).
    pub fn draw(&mut self, flight: usize, random: &mut StdRng) -> u16 {
        // One id a flight and channel, and at most 32,768 flights: half of the ids at
        // least are free, and the draw ends.
        let id = loop {
            let id = random.random::<u16>();
            if self.place(id).is_none() {
                break id;
            }
        };
        self.ids.push(id);
        self.flights.push(u32::try_from(flight).expect("at most 32,768 flights"));
        id
    }

    pub fn find(&self, id: u16) -> Option<usize> {
        self.place(id).map(|place| self.flights[place] as usize)
    }

    pub fn remove(&mut self, id: u16) {
        if let Some(place) = self.place(id) {
            self.ids.swap_remove(place);
            self.flights.swap_remove(place);
        }
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Every flight under way, with its id.
    pub fn all(&self) -> Vec<(u16, usize)> {
        self.ids.iter().copied().zip(self.flights.iter().map(|flight| *flight as usize)).collect()
    }

    fn place(&self, id: u16) -> Option<usize> {
        // A run without an early end is compared in a few instructions.
        const RUN: usize = 32;
        let run =
            self.ids.chunks(RUN).position(|run| run.iter().fold(false, |found, &own| found | (own == id)))?;
        self.ids[run * RUN..].iter().position(|&own| own == id).map(|place| run * RUN + place)
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
            assert_eq!(twin.insert(id, flight), None, "an id is drawn once");
            if flight % 3 == 0 {
                let gone = *twin.keys().next().unwrap();
                ids.remove(gone);
                twin.remove(&gone);
            }
        }
        assert_eq!(ids.len(), twin.len());
        assert!((0..=u16::MAX).all(|id| ids.find(id) == twin.get(&id).copied()));
        assert!(ids.all().iter().all(|(id, flight)| twin[id] == *flight));
    }
}
