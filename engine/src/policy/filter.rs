//! Which names a policy zone certainly does not hold: a Bloom filter, ten bits for
//! each name. It takes a sixth of the octets of the table behind it, so that it stays
//! in the processor's caches where the table does not, and most suffixes that are
//! looked up are of names that nobody listed.
//!
//! All bits of a name are in one word: one look at the memory for each suffix. Of the
//! names that are not held, one in about fifty is looked up in the table all the same.

use super::zeros;
use crate::sys::prefetch;

const BITS_A_NAME: usize = 10;
/// Bits that are set for a name.
const BITS_SET: u32 = 4;

pub struct Filter {
    words: Vec<u64>,
}

impl Filter {
    /// A filter for so many names.
    pub fn new(names: usize) -> Filter {
        Filter { words: zeros(names * BITS_A_NAME / u64::BITS as usize + 1) }
    }

    pub fn add(&mut self, hash: u64) {
        let place = self.place(hash);
        self.words[place] |= bits(hash);
    }

    /// False only for what was not added.
    pub fn may_hold(&self, hash: u64) -> bool {
        let bits = bits(hash);
        self.words[self.place(hash)] & bits == bits
    }

    /// Asks for the memory that `may_hold` looks at.
    pub fn warm(&self, hash: u64) {
        prefetch(&self.words[self.place(hash)], size_of::<u64>());
    }

    /// By the lower half of the hash, scaled to the number of words.
    fn place(&self, hash: u64) -> usize {
        (((hash & u64::from(u32::MAX)) * self.words.len() as u64) >> 32) as usize
    }

    /// Octets of memory.
    pub fn memory(&self) -> usize {
        size_of_val(&self.words[..])
    }
}

/// By the upper half of the hash, six bits for each.
fn bits(hash: u64) -> u64 {
    (0..BITS_SET).fold(0, |bits, number| bits | 1 << ((hash >> (32 + 6 * number)) & 63))
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    fn hash(number: u64) -> u64 {
        xxh3_64(&number.to_le_bytes())
    }

    #[test]
    fn it_holds_all_that_was_added_and_little_else() {
        const NAMES: u64 = 100_000;
        let mut filter = Filter::new(NAMES as usize);
        (0..NAMES).for_each(|number| filter.add(hash(number)));
        assert!((0..NAMES).all(|number| filter.may_hold(hash(number))));
        let others = (NAMES..2 * NAMES).filter(|number| filter.may_hold(hash(*number))).count() as u64;
        assert!(others < NAMES / 25, "{others} of {NAMES} that were not added");
    }

    #[test]
    fn an_empty_one_holds_nothing() {
        let filter = Filter::new(0);
        assert!(!(0..1000).any(|number| filter.may_hold(hash(number))));
    }
}
