//! A Bloom filter for the names of a segment, with ten bits per name. It has a tenth of the size of
//! the names, so it stays in the processor's caches. Most looked-up suffixes are not listed.
//!
//! All bits of a name are in one word, so a lookup reads memory once. About one in fifty unlisted
//! names passes the filter.

const BITS_A_NAME: usize = 10;
/// Bits set per name.
const BITS_SET: u32 = 4;

/// The number of 64-bit words for a number of names.
pub fn words(names: usize) -> usize {
    names * BITS_A_NAME / u64::BITS as usize + 1
}

/// The bits of a name in its word, from the lowest 24 bits of its hash.
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
        let unlisted = (NAMES..2 * NAMES).map(hash).filter(may_hold).count() as u64;
        assert!(unlisted < NAMES / 25, "{unlisted} of {NAMES} that were not added");
    }
}
