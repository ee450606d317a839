//! Coalescing across worker threads. The first thread that gets a question claims it, and sends the
//! result to the other threads that have clients for it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasherDefault;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::{Arrived, Flight, Upstreams};
use crate::cache::IdentityHasher;
use crate::events::lock;
use crate::message::MAX_QUESTION;
use crate::relay;

/// So many that threads rarely wait for each other's lock.
const SHARDS: usize = 64;

/// The claims of all worker threads, and the messages between them.
pub struct Claims {
    /// By `Key::coalescing_hash` of the question.
    shards: [Mutex<Table>; SHARDS],
    mailboxes: Vec<Mailbox>,
}

type Table = HashMap<u64, Claimed, BuildHasherDefault<IdentityHasher>>;

struct Claimed {
    /// See `Flight::purges`.
    purges: u64,
    /// The question was sent without RD, and another thread has a query with RD.
    awaits_recursion: bool,
    recursion: bool,
    /// The threads that wait for the result.
    listeners: Vec<usize>,
}

struct Mailbox {
    messages: Mutex<Vec<Message>>,
    /// Wakes the thread that reads them.
    waker: Arc<OwnedFd>,
}

/// A message from the thread with the claim to another worker thread.
struct Message {
    /// `Key::coalescing_hash` of the question.
    question: u64,
    /// Whether it was sent with RD.
    recursion: bool,
    result: ClaimResult,
    /// See `Flight::purges`.
    purges: u64,
}

/// The result of a question that another thread had claimed.
#[derive(Clone)]
pub enum ClaimResult {
    Response(Arc<[u8]>),
    /// The response is truncated over UDP, and cannot be had over TCP.
    TooLong,
    NoResponse,
    /// The thread gave up the claim before there was a result.
    Abandoned,
}

/// Whether this thread may send a question.
pub enum Right {
    /// It may, and it sends the result to the others.
    Ours(Claim),
    /// It may not: another thread has the claim, and sends the result.
    Theirs,
    /// It may, without a claim. Another thread has one from before a cache purge, and its result
    /// may be what was purged.
    Apart,
}

/// The right to send a question for all threads.
pub struct Claim {
    claims: Arc<Claims>,
    question: u64,
    recursion: bool,
    purges: u64,
    has_ended: bool,
}

impl Claims {
    /// There is one waker for each worker thread.
    pub fn new(wakers: Vec<Arc<OwnedFd>>) -> Claims {
        let mailbox = |waker| Mailbox { messages: Mutex::default(), waker };
        Claims {
            shards: std::array::from_fn(|_| Mutex::default()),
            mailboxes: wakers.into_iter().map(mailbox).collect(),
        }
    }

    /// Whether there is more than one thread.
    fn are_needed(&self) -> bool {
        self.mailboxes.len() > 1
    }

    /// Claims a question. If another thread has it, `listener` is a thread that gets its result.
    fn claim(
        self: &Arc<Self>,
        (question, recursion): (u64, bool),
        purges: u64,
        listener: Option<usize>,
    ) -> Right {
        match lock(self.shard(question)).entry(question) {
            Entry::Vacant(free) => {
                free.insert(Claimed { purges, awaits_recursion: false, recursion, listeners: Vec::new() });
                let (claims, has_ended) = (Arc::clone(self), false);
                Right::Ours(Claim { claims, question, recursion, purges, has_ended })
            }
            Entry::Occupied(taken) if taken.get().purges != purges => Right::Apart,
            Entry::Occupied(mut taken) => {
                let claimed = taken.get_mut();
                claimed.listeners.extend(listener);
                claimed.awaits_recursion |= recursion && !claimed.recursion;
                Right::Theirs
            }
        }
    }

    /// Takes the messages to this thread.
    fn take_messages(&self, thread: usize) -> Vec<Message> {
        let mailbox = self.mailboxes.get(thread);
        mailbox.map(|mailbox| std::mem::take(&mut *lock(&mailbox.messages))).unwrap_or_default()
    }

    fn shard(&self, question: u64) -> &Mutex<Table> {
        // The table in the shard uses the lowest bits.
        &self.shards[(question >> 32) as usize % SHARDS]
    }
}

impl Claim {
    /// Ends the claim. The result is only made if another thread waits for it.
    pub fn end(mut self, result: impl FnOnce() -> ClaimResult) {
        self.send(result);
    }

    /// Whether another thread has a query with RD, and the question was sent without RD.
    pub fn awaits_recursion(&self) -> bool {
        let claims = lock(self.claims.shard(self.question));
        claims.get(&self.question).is_some_and(|claimed| claimed.awaits_recursion)
    }

    fn send(&mut self, result: impl FnOnce() -> ClaimResult) {
        self.has_ended = true;
        let ended = lock(self.claims.shard(self.question)).remove(&self.question);
        let listeners = ended.map(|claimed| claimed.listeners).unwrap_or_default();
        if listeners.is_empty() {
            return;
        }
        let result = result();
        for mailbox in listeners.iter().filter_map(|&thread| self.claims.mailboxes.get(thread)) {
            let Claim { question, recursion, purges, .. } = *self;
            lock(&mailbox.messages).push(Message { question, recursion, result: result.clone(), purges });
            // An eventfd whose counter is full wakes the thread, too.
            let _ = rustix::io::write(&*mailbox.waker, &1u64.to_ne_bytes());
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.has_ended {
            self.send(|| ClaimResult::Abandoned);
        }
    }
}

impl Upstreams {
    /// Claims a question for this thread. If another thread has it, this one gets the result if it
    /// `listens`. There are no claims if a response is for one client only.
    pub(super) fn claim_for(&self, flight: &Flight, listens: bool) -> Right {
        if self.sends_identity() || !self.claims.are_needed() {
            return Right::Apart;
        }
        let (key, listener) = (flight.first.key(), listens.then_some(self.thread));
        self.claims.claim((key.coalescing_hash(), key.asks_recursion()), flight.purges, listener)
    }

    /// Finishes the flights that waited for results of other worker threads.
    pub fn take_claim_results(&mut self, now: Instant) -> Arrived<ClaimResult> {
        let mut arrived = Vec::new();
        for Message { question, recursion, result, purges } in self.claims.take_messages(self.thread) {
            let Some(key) = self.flights.waiting_for(question, purges) else { continue };
            let flight = &mut self.flights[key];
            let is_useless = match &result {
                ClaimResult::Abandoned => true,
                // It may be another question with the same hash.
                ClaimResult::Response(message)
                    if !relay::answers(message, flight.wire_question(&mut [0; MAX_QUESTION])) =>
                {
                    true
                }
                _ => !recursion && flight.first.key().asks_recursion(),
            };
            if is_useless {
                self.claim_again(key, now);
                continue;
            }
            flight.purges = purges;
            if let ClaimResult::Response(message) = &result {
                flight.parse(message, || self.parsers.pop());
            }
            arrived.push((self.finish(key), result));
        }
        arrived
    }

    /// Sends a question for which the other thread has no usable result, unless a third thread has
    /// claimed it.
    fn claim_again(&mut self, key: usize, now: Instant) {
        let right = self.claim_for(&self.flights[key], true);
        let is_ours = !matches!(right, Right::Theirs);
        self.flights[key].set_right(right);
        if is_ours {
            self.try_next(key, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn claims(threads: usize) -> Arc<Claims> {
        let waker = |_| Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        Arc::new(Claims::new((0..threads).map(waker).collect()))
    }

    fn messages(claims: &Claims, thread: usize) -> Vec<(u64, Option<Vec<u8>>)> {
        let content = |result| match result {
            ClaimResult::Response(message) => Some(message.to_vec()),
            _ => None,
        };
        let messages = claims.take_messages(thread).into_iter();
        messages.map(|message| (message.question, content(message.result))).collect()
    }

    fn ours(right: Right) -> Option<Claim> {
        match right {
            Right::Ours(claim) => Some(claim),
            Right::Theirs | Right::Apart => None,
        }
    }

    #[test]
    fn each_listener_gets_the_result_once_and_is_woken() {
        let claims = claims(4);
        let claim = ours(claims.claim((7, true), 0, Some(0))).unwrap();
        for listener in [Some(1), Some(3), None] {
            assert!(matches!(claims.claim((7, true), 0, listener), Right::Theirs));
        }
        assert!(matches!(claims.claim((7, true), 1, Some(2)), Right::Apart), "something was purged since");
        assert!(ours(claims.claim((8, true), 0, Some(1))).is_some(), "another question");
        claim.end(|| ClaimResult::Response(b"response".as_slice().into()));
        for thread in [1, 3] {
            assert_eq!(messages(&claims, thread), [(7, Some(b"response".to_vec()))]);
            assert_eq!(rustix::io::read(&*claims.mailboxes[thread].waker, &mut [0; 8]), Ok(8));
        }
        assert!((0..4).all(|thread| messages(&claims, thread).is_empty()));
        assert!(rustix::io::read(&*claims.mailboxes[0].waker, &mut [0; 8]).is_err());
    }

    #[test]
    fn no_result_is_made_without_listeners() {
        let claims = claims(2);
        ours(claims.claim((7, true), 0, Some(0))).unwrap().end(|| unreachable!());
        assert!(ours(claims.claim((7, true), 0, Some(1))).is_some(), "the question is free again");
    }

    #[test]
    fn a_dropped_claim_frees_the_question_and_is_reported_as_abandoned() {
        let claims = claims(2);
        let claim = ours(claims.claim((7, true), 0, Some(0)));
        assert!(matches!(claims.claim((7, true), 0, Some(1)), Right::Theirs));
        drop(claim);
        let messages = claims.take_messages(1);
        assert!(matches!(messages[..], [Message { question: 7, result: ClaimResult::Abandoned, .. }]));
        let again = ours(claims.claim((7, true), 0, Some(1))).unwrap();
        assert!(matches!(claims.claim((7, true), 0, Some(0)), Right::Theirs));
        again.end(|| ClaimResult::NoResponse);
        assert_eq!(claims.take_messages(0).len(), 1);
    }
}
