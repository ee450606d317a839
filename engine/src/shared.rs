//! The state that worker threads share: the current snapshot and its settings. They read it, and the
//! control thread writes it.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwap;

use crate::cache::Cache;
use crate::counters::Counters;
use crate::dnstap::{self, Tap};
use crate::events::Events;
use crate::impact::ImpactRun;
use crate::limits::{ConnectionCounts, Limiter};
use crate::message::{Query, QueryClient};
use crate::name::{Name, Walk};
use crate::notify::Notified;
use crate::policy::{Judges, LookupStep, Shadow, ShadowMatch, Snapshot};
use crate::query_counts::QueryCounts;
use crate::response::Response;
use crate::rules::Rules;
use crate::targets::would_block_target;
use crate::transport::listeners::Listening;
use crate::transport::tcp;
use crate::upstream;
use crate::upstream::{Claims, Health};
use crate::way::Way;

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
    /// Zones whose primaries say that they have changed.
    pub notified: Notified,
    /// Counts of all dnstap outputs.
    pub dnstap: Arc<dnstap::Counts>,
    pub stop_at: OnceLock<Instant>,
    /// The number of running worker threads.
    pub running: AtomicUsize,
    pub way: Way,
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
    /// The generation since which only names of zones have changed: decisions about addresses are the same.
    pub addresses_since: u64,
    /// Worker threads apply changes of these four when they see them.
    pub listening: Arc<Listening>,
    pub upstream: Arc<upstream::Settings>,
    pub tcp: tcp::Limits,
    pub dnstap: Option<Arc<Tap>>,
    /// Beside the snapshot, so that no publish ends it.
    pub impact_run: Option<Arc<ImpactRun>>,
    /// Counts queried names, if that is configured.
    pub query_counts: Option<Arc<QueryCounts>>,
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
            addresses_since: 0,
            listening: Arc::new(listening),
            upstream: Arc::new(settings.upstream),
            tcp: settings.tcp,
            dnstap: None,
            impact_run: None,
            query_counts: None,
        }
    }

    /// The shadow zones of the snapshot and of the impact run, and where each is counted.
    fn shadows(&self) -> impl Iterator<Item = (&Shadow, ShadowCounts<'_>)> {
        let zones = self.snapshot.shadows().iter().zip(&self.shadow_slots);
        let zones = zones.map(|(shadow, slot)| (shadow, ShadowCounts::Zone(*slot)));
        zones.chain(self.impact_run.as_deref().map(|run| (run.shadow(), ShadowCounts::Entries(run))))
    }

    /// Whether any zone is counted and not enforced.
    pub fn has_shadows(&self) -> bool {
        self.impact_run.is_some() || !self.snapshot.shadows().is_empty()
    }

    /// Counts a decided query for each shadow zone that would block its name.
    pub fn count_shadows(&self, counters: &Counters, name: &Name, walk: &Walk, client: QueryClient) {
        if self.impact_run.is_some() {
            counters.impact_queries.add(1);
        }
        for (shadow, counts) in self.shadows() {
            if let Some(found) = self.snapshot.would_block(shadow, name, walk, client) {
                counts.add(counters, found);
            }
        }
    }

    /// Counts a response for each shadow zone that would block it because of where it leads.
    /// Returns whether there was any.
    pub fn count_shadow_targets(
        &self,
        counters: &Counters,
        query: &Query,
        response: Response<'_>,
        allowed_by: Option<Judges>,
    ) -> bool {
        let mut is_counted = false;
        for (shadow, counts) in self.shadows() {
            if let Some(found) = would_block_target(query, response, allowed_by, &self.snapshot, shadow) {
                counts.add(counters, found);
                is_counted = true;
            }
        }
        is_counted
    }

    /// See `PolicyZone::warm`.
    pub fn warm(&self, name: &Name, walk: &Walk, step: LookupStep) {
        self.snapshot.warm(name, walk, step);
        if let Some(run) = &self.impact_run {
            run.shadow().zone.warm(name.labels(), walk, step);
        }
    }
}

/// Where the matches of a shadow zone are counted.
enum ShadowCounts<'a> {
    /// By action, in the counters' slot of a zone.
    Zone(u16),
    /// By entry.
    Entries(&'a ImpactRun),
}

impl ShadowCounts<'_> {
    fn add(self, counters: &Counters, found: ShadowMatch) {
        match self {
            ShadowCounts::Zone(_) if found.is_decided => {}
            ShadowCounts::Zone(slot) => counters.count_shadow(slot, found.action),
            ShadowCounts::Entries(run) => run.count(found),
        }
    }
}
