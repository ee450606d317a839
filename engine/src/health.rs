//! Which upstream is asked: the first in configured order that answers.
//!
//! Health is learnt from real traffic. After a few failures in a row an
//! upstream rests; then one query tries it again, and the others need not wait.

use std::time::{Duration, Instant};

/// Failures in a row after which an upstream rests.
const FAILURES: u32 = 3;
/// How long it rests before one query tries it again.
const REST: Duration = Duration::from_secs(2);

/// What one packet thread knows of its upstreams, by place.
pub struct Health {
    upstreams: Vec<State>,
}

#[derive(Clone, Default)]
struct State {
    failures: u32,
    rest_until: Option<Instant>,
}

impl State {
    fn is_awake(&self, now: Instant) -> bool {
        self.failures < FAILURES || self.rest_until.is_none_or(|until| now >= until)
    }
}

impl Health {
    pub fn new(upstreams: usize) -> Health {
        Health { upstreams: vec![State::default(); upstreams] }
    }

    /// The first upstream that is awake and is not in `asked` (a bit each);
    /// else one that is awake; else one that was not asked; else the first.
    pub fn choose(&mut self, asked: u64, now: Instant) -> usize {
        let fresh = |place: &usize| asked & (1 << place) == 0;
        let awake = |place: &usize| self.upstreams[*place].is_awake(now);
        let all = || 0..self.upstreams.len();
        let chosen = all().find(|place| fresh(place) && awake(place));
        let chosen = chosen.or_else(|| all().find(awake)).or_else(|| all().find(fresh)).unwrap_or(0);
        let state = &mut self.upstreams[chosen];
        if state.failures >= FAILURES {
            state.rest_until = Some(now + REST);
        }
        chosen
    }

    /// Notes an answer; true if the upstream had been resting.
    pub fn answered(&mut self, place: usize) -> bool {
        std::mem::take(&mut self.upstreams[place]).failures >= FAILURES
    }

    /// Notes a failure; true if the upstream rests from now on.
    pub fn failed(&mut self, place: usize, now: Instant) -> bool {
        let state = &mut self.upstreams[place];
        state.failures = state.failures.saturating_add(1);
        if state.failures == FAILURES {
            state.rest_until = Some(now + REST);
        }
        state.failures == FAILURES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_that_fails_rests_and_is_tried_again_by_one_query() {
        let (mut health, start) = (Health::new(2), Instant::now());
        assert_eq!(health.choose(0, start), 0);
        assert!(!health.failed(0, start) && !health.failed(0, start) && health.failed(0, start));
        assert_eq!(health.choose(0, start), 1);
        assert_eq!(health.choose(0b10, start), 1, "a resting one is worse than one that was asked");
        let rested = start + REST;
        assert_eq!((health.choose(0, rested), health.choose(0, rested)), (0, 1));
        assert!(health.answered(0) && !health.answered(0));
        assert_eq!(health.choose(0, rested), 0);
    }

    #[test]
    fn with_all_upstreams_resting_each_is_asked_all_the_same() {
        let (mut health, now) = (Health::new(2), Instant::now());
        for place in [0, 1, 0, 1, 0, 1] {
            health.failed(place, now);
        }
        assert_eq!((health.choose(0, now), health.choose(0b01, now), health.choose(0b11, now)), (0, 1, 0));
    }
}
