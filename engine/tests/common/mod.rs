//! Random names, for tests that compare zones with a naive model.

const LABELS: [&str; 3] = ["a", "b", "cc"];

/// The same numbers in each run.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % bound
    }

    #[allow(dead_code, reason = "not every test needs names")]
    pub fn name(&mut self) -> String {
        let labels: Vec<_> = (0..1 + self.below(4)).map(|_| LABELS[self.below(3)]).collect();
        format!("{}.example", labels.join("."))
    }
}
