//! What the packet threads share: settings, the snapshot in service, rare events
//! for the log. They read; the control thread writes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;

use crate::answer::Rules;
use crate::cache::Cache;
use crate::limits::{Crowd, Limiter};
use crate::policy::Snapshot;
use crate::upstream::Health;
use crate::{tcp, upstream};

/// Events kept until somebody takes them.
const EVENTS_KEPT: usize = 256;

#[derive(Clone)]
pub struct Settings {
    /// Where the engine listens; ports that are 0 become real ones as it binds.
    pub listen: Vec<SocketAddr>,
    pub workers: usize,
    pub upstream: upstream::Settings,
    pub tcp: tcp::Limits,
}

/// What the packet threads share.
pub struct Shared {
    pub settings: Settings,
    pub serving: ArcSwap<Serving>,
    pub events: Arc<Events>,
    pub health: Arc<Health>,
    pub limiter: Limiter,
    pub cache: Cache,
    /// Open TCP connections by client, and by the place of the listener.
    pub crowd: Arc<Crowd>,
    pub connections: Arc<[AtomicUsize]>,
    pub stop_at: OnceLock<Instant>,
    /// Packet threads that are alive.
    pub running: AtomicUsize,
}

impl Shared {
    /// Until when answers may be waited for; `None` while the engine runs.
    pub fn stop_deadline(&self) -> Option<Instant> {
        self.stop_at.get().copied()
    }
}

/// A snapshot in service, and the rules that go with it.
pub struct Serving {
    pub snapshot: Arc<Snapshot>,
    pub rules: Arc<Rules>,
    /// The counters' slot of each zone of the snapshot.
    pub slots: Vec<u16>,
    /// Counts what was served so far.
    pub generation: u64,
}

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
