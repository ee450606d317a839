//! Lets queries collect while the control plane works on an order and has no processor of its own.
//!
//! At half load, a worker thread reads some twenty queries at a time. On a shared processor, it interrupts the
//! control plane for each of these turns, ten thousand times a second. Then both lose what they had in the
//! processor's cache, and the worker thread needs three quarters of the time instead of three fifths.

use std::num::NonZeroU64;
use std::thread;
use std::time::{Duration, Instant};

use crate::sys::{self, BATCH};
use crate::way::Way;

/// How often queries are read then. They wait for it, and the control plane gains little from a longer time.
const EVERY: Duration = Duration::from_micros(400);
/// With fewer queries in a turn, a worker thread interrupts nobody for long.
const FEW: usize = 8;
/// Of the scheduler, if others want the processor.
const TURN: Duration = Duration::from_micros(100);
/// Not worth a system call.
const SHORT: Duration = Duration::from_micros(5);

/// The queries of one turn of a worker thread.
pub(super) struct Pace {
    began: Instant,
    queries: usize,
}

impl Pace {
    /// For the current thread.
    pub(super) fn new(now: Instant, way: &Way) -> Pace {
        if !way.is_free {
            // By default, a sleep may take 50 µs longer, and a thread that wakes up may have to wait for the end
            // of another's turn of some milliseconds. If these fail, the latency is worse, and nothing else.
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
            let _ = sys::shorten_turns(TURN);
        }
        Pace { began: now, queries: 0 }
    }

    /// Notes the start of a turn.
    pub(super) fn begin(&mut self, now: Instant) {
        (self.began, self.queries) = (now, 0);
    }

    /// Notes that queries were read.
    pub(super) fn read(&mut self, queries: usize) {
        self.queries += queries;
    }

    /// Lets queries collect before the next turn, if the control plane wants the processor.
    pub(super) fn rest(&self, way: &Way) {
        if self.is_busy()
            && let Some(rest) = self.time_to_rest(way, Instant::now())
        {
            thread::sleep(rest);
        }
    }

    /// After a full batch, more queries are waiting.
    fn is_busy(&self) -> bool {
        (FEW..BATCH).contains(&self.queries)
    }

    fn time_to_rest(&self, way: &Way, now: Instant) -> Option<Duration> {
        let left = (self.began + EVERY).saturating_duration_since(now);
        (self.is_busy() && left > SHORT && way.is_wanted(now)).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn micros(count: u64) -> Duration {
        Duration::from_micros(count)
    }

    fn way(is_free: bool) -> Way {
        Way { is_free, begun: Instant::now(), until: AtomicU64::new(0) }
    }

    #[test]
    fn a_busy_thread_makes_way_as_long_as_it_should() {
        let way = way(false);
        let now = way.begun + micros(100);
        let mut pace = Pace::new(now, &way);
        pace.read(FEW);
        assert_eq!(pace.time_to_rest(&way, now + micros(100)), None);
        way.make(MINUTE);
        way.make(micros(1));
        assert_eq!(pace.time_to_rest(&way, now + micros(100)), Some(EVERY - micros(100)));
        assert_eq!(pace.time_to_rest(&way, now + EVERY - SHORT), None, "nearly no time is left");
        assert_eq!(
            pace.time_to_rest(&way, now + micros(900)),
            None,
            "a long turn is followed by the next one"
        );
        pace.begin(now + 2 * MINUTE);
        pace.read(FEW);
        assert_eq!(pace.time_to_rest(&way, now + 2 * MINUTE), None, "the time is over");
    }

    #[test]
    fn a_thread_does_not_rest_with_few_queries_or_after_a_full_batch() {
        let way = way(false);
        way.make(MINUTE);
        let mut pace = Pace::new(way.begun, &way);
        for (more, rests) in [(0, false), (FEW - 1, false), (1, true), (BATCH - FEW - 1, true), (1, false)] {
            pace.read(more);
            let rest = pace.time_to_rest(&way, way.begun + micros(100));
            assert_eq!(rest.is_some(), rests, "{} queries", pace.queries);
        }
        pace.begin(way.begun);
        assert_eq!(pace.time_to_rest(&way, way.begun), None, "a new turn has read nothing");
    }

    #[test]
    fn nobody_is_in_the_way_of_a_control_plane_with_a_processor_of_its_own() {
        let way = way(true);
        way.make(MINUTE);
        let mut pace = Pace::new(way.begun, &way);
        pace.read(FEW);
        assert_eq!(pace.time_to_rest(&way, way.begun), None);
        assert!(!Way::new(usize::MAX).is_free, "more worker threads than processors");
    }
}
