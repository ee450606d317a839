//! Which names a segment certainly does not hold: a Bloom filter, ten bits for each
//! name. It takes a tenth of the octets of what is behind it, so that it stays in the
//! processor's caches where that does not, and most suffixes that are looked up are of
//! names that nobody listed.
//!
//! All bits of a name are in one word: one look at the memory for each suffix. Of the
//! names that are not held, one in about fifty is looked up all the same.

const BITS_A_NAME: usize = 10;
/// Bits that are set for a name.
const BITS_SET: u32 = 4;

/// Words of 64 bits for so many names.
pub fn words(names: usize) -> usize {
    names * BITS_A_NAME / u64::BITS as usize + 1
}

/// The bits of a name in its word, by the lowest 24 of its hash.
pub fn bits(hash: u64) -> u64 {
    (0..BITS_SET).fold(0, |bits, number| bits | 1 << ((hash >> (6 * number)) & 63))
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    #[test]
    fn of_names_that_were_not_added_few_look_as_if_they_were() {
        const NAMES: u64 = 100_000;
        let hash = |number: u64| xxh3_64(&number.to_le_bytes());
        let mut filter = vec![0; words(NAMES as usize)];
        let place = |hash: u64| (((hash >> 32) * words(NAMES as usize) as u64) >> 32) as usize;
        (0..NAMES).map(hash).for_each(|hash| filter[place(hash)] |= bits(hash));
        let may_hold = |hash: &u64| filter[place(*hash)] & bits(*hash) == bits(*hash);
        assert!((0..NAMES).map(hash).all(|hash| may_hold(&hash)));
        let others = (NAMES..2 * NAMES).map(hash).filter(may_hold).count() as u64;
        assert!(others < NAMES / 25, "{others} of {NAMES} that were not added");
    }
}
