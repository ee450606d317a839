//! What the worker threads share: the snapshot in service and its settings. They read; the
//! control thread writes.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwap;

use crate::cache::Cache;
use crate::counters::Counters;
use crate::events::Events;
use crate::limits::{ConnectionCounts, Limiter};
use crate::message::{Query, Transport};
use crate::name::{Name, Walk};
use crate::policy::{Part, Snapshot};
use crate::response::Response;
use crate::rules::Rules;
use crate::targets::would_block_target;
use crate::transport::listeners::Listening;
use crate::transport::tcp;
use crate::trial::Trial;
use crate::upstream;
use crate::upstream::{Claims, Health};

/// How queries are taken and forwarded; a reload may change all of it.
#[derive(Clone)]
pub struct Settings {
    pub upstream: upstream::Settings,
    pub tcp: tcp::Limits,
}

/// What the worker threads share.
pub struct Shared {
    pub workers: usize,
    pub serving: ArcSwap<Serving>,
    pub events: Arc<Events>,
    pub health: Arc<Health>,
    pub limiter: Limiter,
    pub cache: Cache,
    pub claims: Arc<Claims>,
    /// Open TCP connections, by client and by network.
    pub crowd: Arc<ConnectionCounts>,
    pub stop_at: OnceLock<Instant>,
    /// Worker threads that are alive.
    pub running: AtomicUsize,
}

impl Shared {
    /// Until when answers may be waited for; `None` while the engine runs.
    pub fn stop_deadline(&self) -> Option<Instant> {
        self.stop_at.get().copied()
    }
}

impl upstream::watch::Shared for Shared {
    fn settings(&self) -> Arc<upstream::Settings> {
        Arc::clone(&self.serving.load().upstream)
    }

    fn health(&self) -> &Health {
        &self.health
    }

    fn events(&self) -> &Events {
        &self.events
    }

    fn is_stopping(&self) -> bool {
        self.stop_deadline().is_some()
    }
}

/// A snapshot in service, and what goes with it.
#[derive(Clone)]
pub struct Serving {
    pub snapshot: Arc<Snapshot>,
    pub rules: Arc<Rules>,
    /// The counters' slot of each zone of the snapshot.
    pub slots: Vec<u16>,
    /// And of each of its zones in shadow.
    pub shadow_slots: Vec<u16>,
    /// Counts what was served so far.
    pub generation: u64,
    /// Worker threads take these over when they meet them, each once: where they listen, whom
    /// they ask, and what TCP clients may have.
    pub listening: Arc<Listening>,
    pub upstream: Arc<upstream::Settings>,
    pub tcp: tcp::Limits,
    /// Beside the snapshot, so that one that is published meanwhile is tried as well.
    pub trial: Option<Arc<Trial>>,
}

impl Serving {
    /// What is served before the first snapshot.
    pub fn nothing(settings: Settings, listening: Listening) -> Serving {
        Serving {
            snapshot: Arc::new(Snapshot::new(Vec::new(), 0)),
            rules: Arc::default(),
            slots: Vec::new(),
            shadow_slots: Vec::new(),
            generation: 0,
            listening: Arc::new(listening),
            upstream: Arc::new(settings.upstream),
            tcp: settings.tcp,
            trial: None,
        }
    }

    /// Whether there is anything that is counted and not enforced.
    pub fn has_shadows(&self) -> bool {
        self.trial.is_some() || !self.snapshot.shadows().is_empty()
    }

    /// Counts a query that was decided, for all that would block it and is not enforced.
    pub fn count_shadows(&self, counters: &Counters, name: &Name, walk: &Walk, transport: Transport) {
        for (shadow, action) in self.snapshot.shadowed(name, walk, transport) {
            counters.count_shadow(self.shadow_slots[shadow], action);
        }
        if let Some(trial) = &self.trial {
            counters.tried.add(1);
            trial.count(name, walk, transport, &self.snapshot);
        }
    }

    /// Counts an answer that a client gets, for all that would block it for where it
    /// leads and is not enforced; whether there was any.
    pub fn count_shadow_targets(
        &self,
        counters: &Counters,
        query: &Query,
        response: Response<'_>,
        allowed_by: Option<usize>,
    ) -> bool {
        let mut is_counted = false;
        for (shadow, slot) in self.snapshot.shadows().iter().zip(&self.shadow_slots) {
            let supposed = shadow.supposed();
            let blocked = would_block_target(query, response, allowed_by, &self.snapshot, supposed);
            if let Some((action, _)) = blocked {
                counters.count_shadow(*slot, action);
                is_counted = true;
            }
        }
        let trial = self.trial.as_ref();
        is_counted
            | trial.is_some_and(|trial| trial.count_target(query, response, allowed_by, &self.snapshot))
    }

    /// See `PolicyZone::warm`.
    pub fn warm(&self, name: &Name, walk: &Walk, part: Part) {
        self.snapshot.warm(name, walk, part);
        if let Some(trial) = &self.trial {
            trial.zone().warm(name.labels(), walk, part);
        }
    }
}
