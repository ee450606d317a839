//! Rare events for the log. The engine's threads add them; the daemon takes them once a second.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Events kept until somebody takes them.
const EVENTS_KEPT: usize = 256;

/// Rare events for the log: bounded, the oldest make room.
#[derive(Default)]
pub struct Events(Mutex<VecDeque<String>>);

impl Events {
    pub fn push(&self, event: String) {
        let mut events = lock(&self.0);
        if events.len() == EVENTS_KEPT {
            events.pop_front();
        }
        events.push_back(event);
    }

    pub fn take(&self) -> Vec<String> {
        lock(&self.0).drain(..).collect()
    }
}

/// A lock whose data stays sound even if a holder panicked.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
