//! Which worker thread asks which question. A question is asked once, on whichever
//! threads its clients are: one claims it, and tells the others what was said.

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

/// Threads that claim at the same moment seldom want the same one of these.
const SHARDS: usize = 64;

/// The claims of all worker threads, and their mail.
pub struct Claims {
    /// By the turn of the question (`Key::coalescing_hash`).
    shards: [Mutex<Table>; SHARDS],
    mailboxes: Vec<Mailbox>,
}

type Table = HashMap<u64, Claimed, BuildHasherDefault<IdentityHasher>>;

struct Claimed {
    /// See `Flight::purges`.
    purges: u64,
    /// It was asked without RD, and another thread waits that asks with RD.
    awaits_recursion: bool,
    recursion: bool,
    /// The threads that want to hear.
    listeners: Vec<usize>,
}

struct Mailbox {
    letters: Mutex<Vec<Letter>>,
    /// Ends the wait of the thread that reads them.
    waker: Arc<OwnedFd>,
}

/// What one worker thread tells another about a question.
pub struct Letter {
    /// `Key::coalescing_hash` of the question.
    pub question: u64,
    /// Whether it was asked with RD.
    pub recursion: bool,
    pub heard: Heard,
    /// See `Flight::purges`: as it was when the question was asked.
    pub purges: u64,
}

/// What has become of a question that another thread asked.
#[derive(Clone)]
pub enum Heard {
    Answer(Arc<[u8]>),
    /// There is an answer, but it is too long for UDP and cannot be had over TCP.
    TooLong,
    /// No upstream has answered.
    Nothing,
    /// That thread asks no more, and has heard nothing.
    Lost,
}

/// Who asks a question.
pub enum Right {
    /// This thread, and it tells others what it hears.
    Ours(Claim),
    /// Another one, which will tell.
    Theirs,
    /// Another one asks, too, but has done so since before something was purged from the
    /// cache: what it hears may be what the purge was about.
    Apart,
}

/// The right to ask a question: others wait for who has it.
pub struct Claim {
    claims: Arc<Claims>,
    question: u64,
    recursion: bool,
    purges: u64,
    has_ended: bool,
}

impl Claims {
    /// For so many worker threads as there are wakers.
    pub fn new(wakers: Vec<Arc<OwnedFd>>) -> Claims {
        let mailbox = |waker| Mailbox { letters: Mutex::default(), waker };
        Claims {
            shards: std::array::from_fn(|_| Mutex::default()),
            mailboxes: wakers.into_iter().map(mailbox).collect(),
        }
    }

    /// Whether there is more than one thread.
    pub fn are_needed(&self) -> bool {
        self.mailboxes.len() > 1
    }

    /// Takes a question that nobody asks. `listener`, if any, is told what another thread
    /// hears that has it.
    pub fn claim(
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

    /// The letters to this thread.
    pub fn read(&self, thread: usize) -> Vec<Letter> {
        self.mailboxes
            .get(thread)
            .map(|mailbox| std::mem::take(&mut *lock(&mailbox.letters)))
            .unwrap_or_default()
    }

    fn shard(&self, question: u64) -> &Mutex<Table> {
        // Not the lowest bits: by these the table in the shard is ordered.
        &self.shards[(question >> 32) as usize % SHARDS]
    }
}

impl Claim {
    /// Ends the claim and tells those who wait for it, if there are any.
    pub fn tell(mut self, heard: impl FnOnce() -> Heard) {
        self.end(heard);
    }

    /// Whether another thread waits that asks with RD, where this was asked without.
    pub fn awaits_recursion(&self) -> bool {
        let claims = lock(self.claims.shard(self.question));
        claims.get(&self.question).is_some_and(|claimed| claimed.awaits_recursion)
    }

    fn end(&mut self, heard: impl FnOnce() -> Heard) {
        self.has_ended = true;
        let ended = lock(self.claims.shard(self.question)).remove(&self.question);
        let listeners = ended.map(|claimed| claimed.listeners).unwrap_or_default();
        if listeners.is_empty() {
            return;
        }
        let heard = heard();
        for mailbox in listeners.iter().filter_map(|&thread| self.claims.mailboxes.get(thread)) {
            let Claim { question, recursion, purges, .. } = *self;
            let letter = Letter { question, recursion, heard: heard.clone(), purges };
            lock(&mailbox.letters).push(letter);
            // A full counter wakes as well.
            let _ = rustix::io::write(&*mailbox.waker, &1u64.to_ne_bytes());
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.has_ended {
            self.end(|| Heard::Lost);
        }
    }
}

impl Upstreams {
    /// Takes the right to ask this question, or true where another worker thread has it,
    /// which tells this one if it `listens`. What an upstream says to one client is not
    /// told to others.
    pub(super) fn claim_for(&self, flight: &Flight, listens: bool) -> (Option<Claim>, bool) {
        if self.tells_client() || !self.claims.are_needed() {
            return (None, false);
        }
        let (key, listener) = (flight.first.key(), listens.then_some(self.thread));
        let question = (key.coalescing_hash(), key.asks_recursion());
        match self.claims.claim(question, flight.purges, listener) {
            Right::Ours(claim) => (Some(claim), false),
            Right::Theirs => (None, true),
            Right::Apart => (None, false),
        }
    }

    /// Takes what other worker threads have heard that asked for this one.
    pub fn hear(&mut self, now: Instant) -> Arrived<Heard> {
        let mut arrived = Vec::new();
        for letter in self.claims.read(self.thread) {
            let Some(key) = self.flight_that_hears(&letter) else { continue };
            let mut question = [0; MAX_QUESTION];
            let asked = self.flights[key].asked_question(&mut question);
            match letter.heard {
                Heard::Lost => self.ask_after_all(key, now),
                // Another question with the same hash.
                Heard::Answer(message) if !relay::answers(&message, asked) => self.ask_after_all(key, now),
                // It was this question's turn to wait, and is its turn to be asked.
                _ if !letter.recursion && self.flights[key].first.key().asks_recursion() => {
                    self.ask_after_all(key, now);
                }
                heard => {
                    self.flights[key].purges = letter.purges;
                    if let Heard::Answer(message) = &heard {
                        self.flights[key].parse(message, &mut self.parsers);
                    }
                    arrived.push((self.land(key), heard));
                }
            }
        }
        arrived
    }

    /// The flight that waits for this message. After a purge of the cache, a later flight may ask
    /// the same question again.
    fn flight_that_hears(&self, letter: &Letter) -> Option<usize> {
        let hears = |flight: &Flight| {
            flight.is_told && flight.question == letter.question && flight.purges == letter.purges
        };
        let latest = self.questions.find(letter.question).filter(|key| hears(&self.flights[*key]));
        if latest.is_some() || !self.questions.has_superseded() {
            return latest;
        }
        self.flights.iter().find(|(_, flight)| hears(flight)).map(|(key, _)| key)
    }

    /// Asks what the thread that had the right to will not tell.
    fn ask_after_all(&mut self, key: usize, now: Instant) {
        let (claim, is_told) = self.claim_for(&self.flights[key], true);
        let flight = &mut self.flights[key];
        (flight.claim, flight.is_told) = (claim, is_told);
        if !is_told {
            self.attempt(key, now);
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

    fn letters(claims: &Claims, thread: usize) -> Vec<(u64, Option<Vec<u8>>)> {
        let said = |heard| match heard {
            Heard::Answer(message) => Some(message.to_vec()),
            _ => None,
        };
        claims.read(thread).into_iter().map(|letter| (letter.question, said(letter.heard))).collect()
    }

    fn ours(right: Right) -> Option<Claim> {
        match right {
            Right::Ours(claim) => Some(claim),
            Right::Theirs | Right::Apart => None,
        }
    }

    #[test]
    fn one_asks_and_whoever_listens_is_told_once_and_woken() {
        let claims = claims(4);
        let claim = ours(claims.claim((7, true), 0, Some(0))).unwrap();
        for listener in [Some(1), Some(3), None] {
            assert!(matches!(claims.claim((7, true), 0, listener), Right::Theirs));
        }
        assert!(matches!(claims.claim((7, true), 1, Some(2)), Right::Apart), "something was purged since");
        assert!(ours(claims.claim((8, true), 0, Some(1))).is_some(), "another question");
        claim.tell(|| Heard::Answer(b"said".as_slice().into()));
        for thread in [1, 3] {
            assert_eq!(letters(&claims, thread), [(7, Some(b"said".to_vec()))]);
            assert_eq!(rustix::io::read(&*claims.mailboxes[thread].waker, &mut [0; 8]), Ok(8));
        }
        assert!((0..4).all(|thread| letters(&claims, thread).is_empty()));
        assert!(rustix::io::read(&*claims.mailboxes[0].waker, &mut [0; 8]).is_err());
    }

    #[test]
    fn nothing_is_made_to_be_told_where_nobody_listens() {
        let claims = claims(2);
        ours(claims.claim((7, true), 0, Some(0))).unwrap().tell(|| unreachable!());
        assert!(ours(claims.claim((7, true), 0, Some(1))).is_some(), "the question is free again");
    }

    #[test]
    fn a_claim_that_is_lost_frees_the_question_and_says_so() {
        let claims = claims(2);
        let claim = ours(claims.claim((7, true), 0, Some(0)));
        assert!(matches!(claims.claim((7, true), 0, Some(1)), Right::Theirs));
        drop(claim);
        assert!(matches!(claims.read(1)[..], [Letter { question: 7, heard: Heard::Lost, .. }]));
        let again = ours(claims.claim((7, true), 0, Some(1))).unwrap();
        assert!(matches!(claims.claim((7, true), 0, Some(0)), Right::Theirs));
        again.tell(|| Heard::Nothing);
        assert_eq!(claims.read(0).len(), 1);
    }
}
