//! Questions that failed within the last second. Clients retry immediately, and each retry would
//! cost all tries at the upstreams. RFC 9520 requires that failures are cached for at least one
//! second. It is not longer, so that a recovered upstream is used within a second.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::time::{Duration, Instant};

use crate::cache::{IdentityHasher, Key};

/// RFC 9520 3.2.
const LIFETIME: Duration = Duration::from_secs(1);
/// The oldest questions are removed above this number.
const MAX_QUESTIONS: usize = 16_384;

/// The failures of one worker thread.
#[derive(Default)]
pub struct Failures {
    until: HashMap<u64, Instant, BuildHasherDefault<IdentityHasher>>,
    /// In order of expiry, since all lifetimes are equal.
    order: VecDeque<(Instant, u64)>,
}

impl Failures {
    pub fn insert(&mut self, key: Key<'_>, now: Instant) {
        self.expire(now);
        if self.order.len() == MAX_QUESTIONS
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.until.remove(&oldest);
        }
        let key = key.hash();
        self.order.push_back((now + LIFETIME, key));
        self.until.insert(key, now + LIFETIME);
    }

    /// Questions with equal hashes are confused. That costs only a SERVFAIL for a second.
    pub fn contains(&self, key: Key<'_>, now: Instant) -> bool {
        let until = || self.until.get(&key.hash());
        !self.until.is_empty() && until().is_some_and(|until| *until > now)
    }

    fn expire(&mut self, now: Instant) {
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

    /// Runs a closure with the key of a question about this name.
    fn with<T>(text: &str, run: impl FnOnce(Key<'_>) -> T) -> T {
        let packet = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
        let query = crate::message::Query::parse(&packet, crate::message::Transport::Udp).unwrap();
        run(Key::new(&query.head, &crate::name::Name::from_text(text.as_bytes()).unwrap(), query.qtype))
    }

    #[test]
    fn a_failure_is_cached_for_a_second_in_bounded_memory() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        let fail = |failures: &mut Failures, text: &str, at| with(text, |key| failures.insert(key, at));
        let contains = |failures: &Failures, text: &str, at| with(text, |key| failures.contains(key, at));
        fail(&mut failures, "lost", start);
        assert!(contains(&failures, "LOST", start + LIFETIME / 2));
        assert!(!contains(&failures, "last", start) && !contains(&failures, "lost", start + LIFETIME));
        for number in 0..MAX_QUESTIONS + 100 {
            fail(&mut failures, &format!("n{number}"), start);
        }
        assert!(failures.order.len() <= MAX_QUESTIONS && failures.until.len() <= MAX_QUESTIONS);
        assert!(!contains(&failures, "n50", start) && contains(&failures, "n200", start));
        fail(&mut failures, "later", start + LIFETIME);
        assert_eq!(failures.until.len(), 1);
    }
}
