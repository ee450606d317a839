//! Rare events for the log. The engine's threads add them, and the daemon takes them once a second.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The size of the queue. When it is full, the oldest event is dropped.
const MAX_EVENTS: usize = 256;

#[derive(Default)]
pub struct Events(Mutex<VecDeque<String>>);

impl Events {
    pub fn push(&self, event: String) {
        let mut events = lock(&self.0);
        if events.len() == MAX_EVENTS {
            events.pop_front();
        }
        events.push_back(event);
    }

    pub fn take(&self) -> Vec<String> {
        lock(&self.0).drain(..).collect()
    }
}

/// Locks a mutex whose data stays valid even if a holder panics.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
