//! Questions that no upstream answered a moment ago. Clients ask again at once,
//! and each would be sent on as often as there are attempts: RFC 9520 wants a
//! failure remembered for a second at least. The time does not grow: who is back
//! is noticed within a second.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::message::{Head, flag};
use crate::name::Name;

/// RFC 9520 3.2.
const KEPT: Duration = Duration::from_secs(1);
/// Questions remembered at most; the oldest make room.
const MOST: usize = 16_384;

/// The failures of one packet thread.
pub struct Failures {
    seed: u64,
    until: HashMap<u64, Instant>,
    /// In order of time, since each is kept as long.
    order: VecDeque<(Instant, u64)>,
}

impl Failures {
    pub fn new(seed: u64) -> Failures {
        Failures { seed, until: HashMap::new(), order: VecDeque::new() }
    }

    pub fn remember(&mut self, head: &Head, name: &Name, qtype: u16, now: Instant) {
        self.forget(now);
        if self.order.len() == MOST
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.until.remove(&oldest);
        }
        let key = self.key(head, name, qtype);
        self.order.push_back((now + KEPT, key));
        self.until.insert(key, now + KEPT);
    }

    pub fn knows(&self, head: &Head, name: &Name, qtype: u16, now: Instant) -> bool {
        let until = || self.until.get(&self.key(head, name, qtype));
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

    /// What makes a question another one for an upstream: name, type, CD and DO.
    /// Two questions with one hash cost a SERVFAIL for a second, no more.
    fn key(&self, head: &Head, name: &Name, qtype: u16) -> u64 {
        let checking = u8::from(head.flags & flag::CD != 0);
        let signed = u8::from(head.edns.is_some_and(|edns| edns.dnssec_ok));
        let [high, low] = qtype.to_be_bytes();
        let kind = xxh3_64_with_seed(&[high, low, checking, signed], self.seed);
        xxh3_64_with_seed(name.suffix(0), kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        let packet = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
        crate::message::Query::parse(&packet, false)
            .map(|query| query.head)
            .unwrap_or_else(|_| panic!("plain"))
    }

    fn name(text: &str) -> Name {
        Name::from_text(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_failure_is_known_for_a_second_and_in_bounds() {
        let (mut failures, start, head) = (Failures::new(1), Instant::now(), head());
        failures.remember(&head, &name("lost"), 1, start);
        let knows =
            |failures: &Failures, text: &str, qtype, at| failures.knows(&head, &name(text), qtype, at);
        assert!(knows(&failures, "LOST", 1, start + KEPT / 2));
        assert!(!knows(&failures, "lost", 28, start) && !knows(&failures, "last", 1, start));
        assert!(!knows(&failures, "lost", 1, start + KEPT));
        for number in 0..MOST + 100 {
            failures.remember(&head, &name(&format!("n{number}")), 1, start);
        }
        assert!(failures.order.len() <= MOST && failures.until.len() <= MOST);
        assert!(!knows(&failures, "n50", 1, start) && knows(&failures, "n200", 1, start));
        failures.remember(&head, &name("later"), 1, start + KEPT);
        assert_eq!(failures.until.len(), 1);
    }
}
