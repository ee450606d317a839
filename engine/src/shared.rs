//! The state that worker threads share: the current snapshot and its settings. They read it, and the
//! control thread writes it.

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

/// The settings of upstreams and TCP. A reload can change all of them.
#[derive(Clone)]
pub struct Settings {
    pub upstream: upstream::Settings,
    pub tcp: tcp::Limits,
}

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
    /// The number of running worker threads.
    pub running: AtomicUsize,
}

impl Shared {
    /// When a stopping engine stops waiting for responses. `None` while the engine runs.
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

/// The current snapshot and its settings.
#[derive(Clone)]
pub struct Serving {
    pub snapshot: Arc<Snapshot>,
    pub rules: Arc<Rules>,
    /// The counters' slot of each zone of the snapshot.
    pub slots: Vec<u16>,
    /// The same for its shadow zones.
    pub shadow_slots: Vec<u16>,
    /// A number that each change increases.
    pub generation: u64,
    /// Worker threads apply changes of these three when they see them.
    pub listening: Arc<Listening>,
    pub upstream: Arc<upstream::Settings>,
    pub tcp: tcp::Limits,
    /// Not part of the snapshot, so it goes on after a publish.
    pub trial: Option<Arc<Trial>>,
}

impl Serving {
    /// The state before the first snapshot.
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

    /// Whether any zone is counted but not enforced.
    pub fn has_shadows(&self) -> bool {
        self.trial.is_some() || !self.snapshot.shadows().is_empty()
    }

    /// Counts a query for each zone that would block it and is not enforced.
    pub fn count_shadows(&self, counters: &Counters, name: &Name, walk: &Walk, transport: Transport) {
        for (shadow, action) in self.snapshot.shadowed(name, walk, transport) {
            counters.count_shadow(self.shadow_slots[shadow], action);
        }
        if let Some(trial) = &self.trial {
            counters.tried.add(1);
            trial.count(name, walk, transport, &self.snapshot);
        }
    }

    /// Counts a response for each zone that would block one of its targets and is not enforced.
    /// Returns whether there was any.
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
