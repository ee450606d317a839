//! Until when worker threads make way for the control plane: `worker::pace` does it.

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

/// The time until then.
pub struct Way {
    /// Whether the control plane has a processor of its own, so that nobody is in its way.
    pub is_free: bool,
    pub begun: Instant,
    /// In microseconds since `begun`.
    pub until: AtomicU64,
}

impl Way {
    pub fn new(workers: usize) -> Way {
        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Way { is_free: workers < processors, begun: Instant::now(), until: AtomicU64::new(0) }
    }

    /// Worker threads make way for so long from now on.
    pub fn make(&self, time: Duration) {
        let until = self.begun.elapsed().saturating_add(time).as_micros();
        self.until.fetch_max(u64::try_from(until).unwrap_or(u64::MAX), Relaxed);
    }

    pub fn is_wanted(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.begun).as_micros();
        !self.is_free && since < u128::from(self.until.load(Relaxed))
    }
}
