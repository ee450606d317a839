//! Tables with hashes of names as keys.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Mixes a hash with random keys: that of a name is the same everywhere, so names can be chosen for
/// it.
#[derive(Clone)]
pub struct Keyed([u64; 2]);

impl Default for Keyed {
    fn default() -> Keyed {
        let random = RandomState::new();
        Keyed([random.hash_one(0), random.hash_one(1) | 1])
    }
}

impl BuildHasher for Keyed {
    type Hasher = Mixed;

    fn build_hasher(&self) -> Mixed {
        Mixed { keys: self.0, hash: 0 }
    }
}

pub struct Mixed {
    keys: [u64; 2],
    hash: u64,
}

impl Hasher for Mixed {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes of names are keys");
    }

    fn write_u64(&mut self, hash: u64) {
        let product = u128::from(hash ^ self.keys[0]) * u128::from(self.keys[1]);
        self.hash = product as u64 ^ (product >> 64) as u64;
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}
