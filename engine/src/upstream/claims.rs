//! Which packet thread asks which question. A question is asked once, on whichever
//! threads its clients are: one claims it, and tells the others what was said.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasherDefault;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use crate::cache::AsItIs;
use crate::shared::lock;

/// Threads that claim at the same moment seldom want the same one of these.
const SHARDS: usize = 64;

/// The claims of all packet threads, and their mail.
pub struct Claims {
    /// By the hash of the question: the threads that want to hear.
    shards: [Mutex<Table>; SHARDS],
    mailboxes: Vec<Mailbox>,
}

type Table = HashMap<u64, Vec<usize>, BuildHasherDefault<AsItIs>>;

struct Mailbox {
    letters: Mutex<Vec<Letter>>,
    /// Ends the wait of the thread that reads them.
    waker: Arc<OwnedFd>,
}

/// What one packet thread tells another about a question.
pub struct Letter {
    /// The hash of the question.
    pub question: u64,
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

/// The right to ask a question: others wait for who has it.
pub struct Claim {
    claims: Arc<Claims>,
    question: u64,
    purges: u64,
    has_ended: bool,
}

impl Claims {
    /// For so many packet threads as there are wakers.
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

    /// Takes a question; `None` where another thread has it. `listener`, if any, is
    /// told then what that has heard.
    pub fn claim(self: &Arc<Self>, question: u64, purges: u64, listener: Option<usize>) -> Option<Claim> {
        match lock(self.shard(question)).entry(question) {
            Entry::Vacant(free) => {
                free.insert(Vec::new());
                Some(Claim { claims: Arc::clone(self), question, purges, has_ended: false })
            }
            Entry::Occupied(mut taken) => {
                taken.get_mut().extend(listener);
                None
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

    fn end(&mut self, heard: impl FnOnce() -> Heard) {
        self.has_ended = true;
        let listeners = lock(self.claims.shard(self.question)).remove(&self.question).unwrap_or_default();
        if listeners.is_empty() {
            return;
        }
        let heard = heard();
        for mailbox in listeners.iter().filter_map(|&thread| self.claims.mailboxes.get(thread)) {
            let letter = Letter { question: self.question, heard: heard.clone(), purges: self.purges };
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

    #[test]
    fn one_asks_and_whoever_listens_is_told_once_and_woken() {
        let claims = claims(4);
        let claim = claims.claim(7, 0, Some(0)).unwrap();
        assert!(claims.claim(7, 0, Some(1)).is_none());
        assert!(claims.claim(7, 0, Some(3)).is_none());
        assert!(claims.claim(7, 0, None).is_none());
        assert!(claims.claim(8, 0, Some(1)).is_some(), "another question");
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
        claims.claim(7, 0, Some(0)).unwrap().tell(|| unreachable!());
        assert!(claims.claim(7, 0, Some(1)).is_some(), "the question is free again");
    }

    #[test]
    fn a_claim_that_is_lost_frees_the_question_and_says_so() {
        let claims = claims(2);
        let claim = claims.claim(7, 0, Some(0));
        assert!(claims.claim(7, 0, Some(1)).is_none());
        drop(claim);
        assert!(matches!(claims.read(1)[..], [Letter { question: 7, heard: Heard::Lost, .. }]));
        let again = claims.claim(7, 0, Some(1)).unwrap();
        assert!(claims.claim(7, 0, Some(0)).is_none());
        again.tell(|| Heard::Nothing);
        assert_eq!(claims.read(0).len(), 1);
    }
}
