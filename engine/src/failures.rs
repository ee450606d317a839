//! Questions that no upstream answered a moment ago. Clients ask again at once,
//! and each would be sent on as often as there are attempts: RFC 9520 wants a
//! failure remembered for a second at least. The time does not grow: who is back
//! is noticed within a second.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::time::{Duration, Instant};

use crate::cache::{IdentityHasher, Key};

/// RFC 9520 3.2.
const KEPT: Duration = Duration::from_secs(1);
/// Questions remembered at most; the oldest make room.
const MOST: usize = 16_384;

/// The failures of one worker thread.
#[derive(Default)]
pub struct Failures {
    until: HashMap<u64, Instant, BuildHasherDefault<IdentityHasher>>,
    /// In order of time, since each is kept as long.
    order: VecDeque<(Instant, u64)>,
}

impl Failures {
    pub fn insert(&mut self, key: Key<'_>, now: Instant) {
        self.forget(now);
        if self.order.len() == MOST
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.until.remove(&oldest);
        }
        let key = key.hash();
        self.order.push_back((now + KEPT, key));
        self.until.insert(key, now + KEPT);
    }

    /// Two questions with one hash cost a SERVFAIL for a second, no more.
    pub fn contains(&self, key: Key<'_>, now: Instant) -> bool {
        let until = || self.until.get(&key.hash());
        !self.until.is_empty() && until().is_some_and(|until| *until > now)
    }

    fn forget(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            let Some((until, key)) = self.order.pop_front() else { return };
            if self.until.get(&key) == Some(&until) {
                self.until.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does with the question about this name what is to be done.
    fn with<T>(text: &str, run: impl FnOnce(Key<'_>) -> T) -> T {
        let packet = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
        let query = crate::message::Query::parse(&packet, crate::message::Transport::Udp).unwrap();
        run(Key::new(&query.head, &crate::name::Name::from_text(text.as_bytes()).unwrap(), query.qtype))
    }

    #[test]
    fn a_failure_is_known_for_a_second_and_in_bounds() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        let fail = |failures: &mut Failures, text: &str, at| with(text, |key| failures.insert(key, at));
        let knows = |failures: &Failures, text: &str, at| with(text, |key| failures.contains(key, at));
        fail(&mut failures, "lost", start);
        assert!(knows(&failures, "LOST", start + KEPT / 2));
        assert!(!knows(&failures, "last", start) && !knows(&failures, "lost", start + KEPT));
        for number in 0..MOST + 100 {
            fail(&mut failures, &format!("n{number}"), start);
        }
        assert!(failures.order.len() <= MOST && failures.until.len() <= MOST);
        assert!(!knows(&failures, "n50", start) && knows(&failures, "n200", start));
        fail(&mut failures, "later", start + KEPT);
        assert_eq!(failures.until.len(), 1);
    }
}
