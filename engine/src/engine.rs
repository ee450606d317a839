//! The engine: owns sockets, worker threads and the current snapshot. The control plane calls it.
//!
//! `publish` swaps the snapshot with one atomic store. The control thread frees the previous snapshot once
//! no worker thread holds it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustix::event::EventfdFlags;

use crate::cache::Cache;
use crate::counters::{Counters, MAX_ZONE_SLOTS, MAX_ZONES};
use crate::dnstap::writer::Output;
use crate::dnstap::{self, Tap};
use crate::events::{Events, lock};
use crate::impact::ImpactRun;
use crate::limits::{ConnectionCounts, Limiter};
use crate::notify::Notified;
use crate::policy::{PolicyZone, Snapshot, seed};
use crate::query_counts::QueryCounts;
use crate::rules::Rules;
use crate::shared::{Serving, Settings, Shared};
use crate::transport::listeners::{self, Bound, Inherited, Listening, NotBound, is_among};
use crate::transport::tcp;
use crate::upstream::health::bit;
use crate::upstream::{self, Claims, Health, MAX_UPSTREAMS, reload, sockets, watch};
use crate::way::Way;
use crate::worker::{self, Thread};

/// TCP clients get one part in this many of the descriptors for clients and upstreams.
const CLIENTS_SHARE: usize = 2;
/// How long `publish` waits for the worker threads to apply new upstreams and listen addresses.
const APPLY_TIMEOUT: Duration = Duration::from_secs(2);
const APPLY_POLL: Duration = Duration::from_millis(1);
/// How long a dnstap output that is stopped may send what is left.
const DNSTAP_TIMEOUT: Duration = Duration::from_millis(250);

/// Why a call failed.
#[derive(Debug)]
pub enum EngineError {
    /// This address could not be bound.
    Bind(SocketAddr, io::Error),
    Io(io::Error),
    TooManyZones,
    /// More zone names since startup than there are counters.
    TooManyZoneNames,
    /// Too many upstreams, including removed ones with outstanding queries.
    TooManyUpstreams,
    /// `start` twice, `publish` before `start` or after `stop`, or a second impact run.
    NotNow,
}

pub struct Engine {
    shared: Arc<Shared>,
    counters: Vec<Arc<Counters>>,
    wakers: Vec<Arc<OwnedFd>>,
    watch_waker: Arc<OwnedFd>,
    control: Mutex<Control>,
}

/// The settings that a publish changes, apart from snapshot and rules.
#[derive(Default)]
pub struct Change {
    pub settings: Option<Settings>,
    /// The result of `listen`.
    pub listening: Option<Arc<Listening>>,
}

impl From<NotBound> for EngineError {
    fn from(NotBound(address, error): NotBound) -> EngineError {
        EngineError::Bind(address, error)
    }
}

/// The state of the control plane's calls, behind one lock.
#[derive(Default)]
struct Control {
    is_started: bool,
    threads: Vec<JoinHandle<()>>,
    /// The counter slot of each zone name.
    slots: HashMap<String, u16>,
    /// Snapshots that worker threads may still be reading.
    retired: Vec<Arc<Serving>>,
    /// The current upstreams, and previous ones that a thread may still query.
    upstreams: Vec<Arc<upstream::Settings>>,
    /// Removed listen addresses that may still send responses.
    closing: Vec<Weak<Bound>>,
    /// The dnstap output, and earlier ones that are ending.
    outputs: Vec<Output>,
}

impl Engine {
    /// Binds all sockets, or uses those of the previous process. No query is answered before `start`.
    pub fn bind(
        listen: &[SocketAddr],
        workers: usize,
        mut settings: Settings,
        inherited: Inherited,
    ) -> Result<Engine, EngineError> {
        let events = Arc::new(Events::default());
        let listening = listeners::bind(listen, workers, &[], inherited).map_err(EngineError::from)?;
        settings.tcp.connections = connection_limit(&settings.tcp, listening.len(), &events);
        let Some(_) = reload::assign(&mut settings.upstream.servers, &[], 0) else {
            return Err(EngineError::TooManyUpstreams);
        };
        // By place, which at startup is their order.
        let addresses: Vec<_> = settings.upstream.servers.iter().map(|server| server.address).collect();
        let health = Health::new(&addresses, settings.upstream.health_rules(), Arc::clone(&events));
        let nothing = Serving::nothing(settings, listening);
        let upstream = Arc::clone(&nothing.upstream);
        let wakers = (0..workers).map(|_| waker()).collect::<Result<Vec<_>, _>>()?;
        Ok(Engine {
            counters: (0..workers).map(|_| Arc::new(Counters::new(MAX_UPSTREAMS))).collect(),
            wakers: wakers.clone(),
            watch_waker: waker()?,
            shared: Arc::new(Shared {
                workers,
                serving: ArcSwap::from_pointee(nothing),
                events,
                health: Arc::new(health),
                limiter: Limiter::new(seed()),
                cache: Cache::default(),
                claims: Arc::new(Claims::new(wakers)),
                crowd: Arc::new(ConnectionCounts::new(seed())),
                notified: Notified::new().map_err(EngineError::Io)?,
                dnstap: Arc::default(),
                stop_at: OnceLock::new(),
                running: AtomicUsize::new(0),
                way: Way::new(workers),
            }),
            control: Mutex::new(Control { upstreams: vec![upstream], ..Control::default() }),
        })
    }

    /// Starts the worker threads with their first snapshot.
    pub fn start(&self, snapshot: Arc<Snapshot>, rules: Arc<Rules>) -> Result<(), EngineError> {
        let mut control = lock(&self.control);
        if std::mem::replace(&mut control.is_started, true) || self.shared.stop_deadline().is_some() {
            return Err(EngineError::NotNow);
        }
        self.swap(&mut control, snapshot, rules, Change::default())?;
        let (ready, begun) = mpsc::channel();
        for (number, (wake, counters)) in self.wakers.iter().zip(&self.counters).enumerate() {
            let (shared, counters, ready) = (Arc::clone(&self.shared), Arc::clone(counters), ready.clone());
            let thread = Thread { number, wake: Arc::clone(wake) };
            let run = move || {
                shared.running.fetch_add(1, Ordering::SeqCst);
                if let Err(error) = worker::run(Arc::clone(&shared), counters, thread, ready) {
                    shared.events.push(format!("worker thread {number} ended: {error}"));
                }
                shared.running.fetch_sub(1, Ordering::SeqCst);
            };
            let thread = thread::Builder::new().name(format!("packets-{number}")).spawn(run);
            control.threads.push(thread.map_err(EngineError::Io)?);
        }
        drop(ready);
        control.threads.push(self.watch().map_err(EngineError::Io)?);
        // On an error, the caller stops the engine with the threads that run.
        begun.iter().try_for_each(|result| result.map_err(EngineError::Io))
    }

    /// Starts the thread that watches the upstreams.
    fn watch(&self) -> io::Result<JoinHandle<()>> {
        let (shared, wake) = (Arc::clone(&self.shared), Arc::clone(&self.watch_waker));
        let wakers = self.wakers.clone();
        let run = move || {
            if let Err(error) = watch::run(&*shared, &wake, &wakers) {
                shared.events.push(format!("upstreams are not watched any more: {error}"));
            }
        };
        thread::Builder::new().name("upstreams".to_string()).spawn(run)
    }

    /// Binds new listen addresses. They are not served, and no other is closed, before `publish`.
    pub fn listen(&self, wanted: &[SocketAddr]) -> Result<Arc<Listening>, EngineError> {
        let control = lock(&self.control);
        let now = Arc::clone(&self.shared.serving.load().listening);
        let known: Vec<_> =
            now.iter().cloned().chain(control.closing.iter().filter_map(Weak::upgrade)).collect();
        let next = listeners::bind(wanted, self.shared.workers, &known, Inherited::default())?;
        Ok(if now.is_same(&next) { now } else { Arc::new(next) })
    }

    /// Serves another snapshot with these rules and settings. They judge every query that arrives after
    /// this returns. On an error, the previous ones remain in force.
    pub fn publish(
        &self,
        snapshot: Arc<Snapshot>,
        rules: Arc<Rules>,
        change: Change,
    ) -> Result<(), EngineError> {
        let mut control = lock(&self.control);
        if control.threads.is_empty() {
            return Err(EngineError::NotNow);
        }
        self.swap(&mut control, snapshot, rules, change)
    }

    /// Whether `publish` would accept the snapshot.
    pub fn check(&self, snapshot: &Snapshot) -> Result<(), EngineError> {
        Slots::of(&lock(&self.control).slots, snapshot).map(|_| ())
    }

    fn swap(
        &self,
        control: &mut Control,
        snapshot: Arc<Snapshot>,
        rules: Arc<Rules>,
        Change { settings, listening }: Change,
    ) -> Result<(), EngineError> {
        let Slots { known, enforced: slots, shadows: shadow_slots } = Slots::of(&control.slots, &snapshot)?;
        let now = self.shared.serving.load_full();
        let listening = listening.unwrap_or_else(|| Arc::clone(&now.listening));
        let (upstream, tcp) = match settings {
            Some(Settings { upstream, mut tcp }) => {
                tcp.connections = connection_limit(&tcp, listening.len(), &self.shared.events);
                (self.register(control, &now.upstream, upstream)?, tcp)
            }
            None => (Arc::clone(&now.upstream), now.tcp),
        };
        let dnstap = self.output(control, &now, rules.dnstap.as_ref())?;
        let is_changed = !Arc::ptr_eq(&upstream, &now.upstream)
            || !Arc::ptr_eq(&listening, &now.listening)
            || !is_same_output(&dnstap, &now.dnstap);
        let gone = now.listening.iter().filter(|bound| !is_among(bound, &listening));
        control.closing.extend(gone.map(Arc::downgrade));
        let is_served = |bound: &Weak<Bound>| listening.iter().any(|one| bound.as_ptr() == Arc::as_ptr(one));
        control.closing.retain(|bound| !is_served(bound));
        drop(now);
        control.slots = known;
        self.shared.cache.resize(rules.cache.bytes);
        self.serve(control, |before| {
            let generation = before.generation + 1;
            let is_same_for_addresses =
                Arc::ptr_eq(&rules, &before.rules) && snapshot.differs_only_in_names(&before.snapshot);
            let addresses_since = if is_same_for_addresses { before.addresses_since } else { generation };
            let (impact_run, query_counts) = (before.impact_run.clone(), before.query_counts.clone());
            Serving {
                snapshot,
                rules,
                slots,
                shadow_slots,
                generation,
                addresses_since,
                listening,
                upstream,
                tcp,
                dnstap: dnstap.clone(),
                impact_run,
                query_counts,
            }
        });
        let others = control.outputs.iter().filter(|output| !is_same_output(&Some(output.tap()), &dnstap));
        others.for_each(|output| output.stop(Instant::now() + DNSTAP_TIMEOUT));
        if is_changed {
            self.wait_until_applied(control);
        }
        Ok(())
    }

    /// Registers upstreams before a worker thread sees them. Returns `now` if they are the same.
    fn register(
        &self,
        control: &mut Control,
        now: &Arc<upstream::Settings>,
        mut wanted: upstream::Settings,
    ) -> Result<Arc<upstream::Settings>, EngineError> {
        let used = control.upstreams.iter().fold(0, |mask, upstreams| mask | upstreams.places());
        let new = reload::assign(&mut wanted.servers, &now.servers, used);
        let new = new.ok_or(EngineError::TooManyUpstreams)?;
        if wanted == **now {
            return Ok(Arc::clone(now));
        }
        for server in wanted.servers.iter().filter(|server| new & bit(server.place) != 0) {
            self.counters.iter().for_each(|counters| counters.upstreams[server.place].reset());
            self.shared.health.add(server.place, server.address);
        }
        self.shared.health.configure(wanted.health_rules());
        let wanted = Arc::new(wanted);
        control.upstreams.push(Arc::clone(&wanted));
        Ok(wanted)
    }

    /// The dnstap output with these options: the current one if they are the same, otherwise a new one.
    fn output(
        &self,
        control: &mut Control,
        now: &Serving,
        wanted: Option<&Arc<dnstap::Settings>>,
    ) -> Result<Option<Arc<Tap>>, EngineError> {
        if now.dnstap.as_ref().map(|tap| &tap.settings) == wanted.map(|wanted| &**wanted) {
            return Ok(now.dnstap.clone());
        }
        let Some(settings) = wanted.map(|wanted| (**wanted).clone()) else { return Ok(None) };
        let (counts, events) = (Arc::clone(&self.shared.dnstap), Arc::clone(&self.shared.events));
        let output = Output::start(settings, self.shared.workers, counts, events).map_err(EngineError::Io)?;
        let tap = output.tap();
        control.outputs.push(output);
        Ok(Some(tap))
    }

    /// Waits until all threads have stopped to query removed upstreams.
    fn wait_until_applied(&self, control: &mut Control) {
        for waker in self.wakers.iter().chain([&self.watch_waker]) {
            let _ = rustix::io::write(&**waker, &1u64.to_ne_bytes());
        }
        let deadline = Instant::now() + APPLY_TIMEOUT;
        let has_threads = !control.threads.is_empty();
        while self.free_unused(control) && has_threads && Instant::now() < deadline {
            thread::sleep(APPLY_POLL);
        }
    }

    /// Frees snapshots and settings that no thread holds. Returns whether a thread still holds removed
    /// upstreams.
    fn free_unused(&self, control: &mut Control) -> bool {
        free_unused(&mut control.retired);
        free_unused(&mut control.upstreams);
        control.closing.retain(|bound| bound.strong_count() > 0);
        control.outputs.retain(|output| !output.has_ended());
        self.shared
            .health
            .keep_only(control.upstreams.iter().fold(0, |mask, upstreams| mask | upstreams.places()));
        control.upstreams.len() > 1
    }

    fn serve(&self, control: &mut Control, next: impl FnOnce(&Serving) -> Serving) {
        let next = Arc::new(next(&self.shared.serving.load()));
        control.retired.push(self.shared.serving.swap(next));
        free_unused(&mut control.retired);
    }

    /// Starts counting what this zone would block if it came after all enforced zones. Later
    /// publishes do not end this; `end_impact_run` does.
    pub fn begin_impact_run(&self, zone: Arc<PolicyZone>) -> Result<Arc<ImpactRun>, EngineError> {
        let run = Arc::new(ImpactRun::new(zone, self.counters.clone()));
        let mut control = lock(&self.control);
        if control.threads.is_empty() || self.shared.serving.load().impact_run.is_some() {
            return Err(EngineError::NotNow);
        }
        // A new generation, so that the targets in cached responses are judged and counted again.
        self.serve(&mut control, |before| {
            let generation = before.generation + 1;
            let addresses_since = generation;
            Serving { impact_run: Some(Arc::clone(&run)), generation, addresses_since, ..before.clone() }
        });
        Ok(run)
    }

    /// Ends the impact run, if any.
    pub fn end_impact_run(&self) {
        let mut control = lock(&self.control);
        if self.shared.serving.load().impact_run.is_some() {
            self.serve(&mut control, |before| Serving { impact_run: None, ..before.clone() });
        }
    }

    /// For so long, worker threads let queries collect for 0.4 ms, unless there are few of
    /// them. On processors that it shares with them, the control plane then gets longer turns.
    pub fn make_way(&self, time: Duration) {
        self.shared.way.make(time);
    }

    /// Counts queried names in so many bytes from now on, or not any more. Counts so far are dropped.
    pub fn count_queries(&self, bytes: Option<usize>) {
        let query_counts = bytes.map(|bytes| Arc::new(QueryCounts::new(bytes)));
        self.serve(&mut lock(&self.control), |before| Serving { query_counts, ..before.clone() });
    }

    pub fn query_counts(&self) -> Option<Arc<QueryCounts>> {
        self.shared.serving.load().query_counts.clone()
    }

    /// Frees snapshots that no worker thread reads, and returns the events since the last call. The
    /// daemon calls this once a second.
    pub fn take_events(&self) -> Vec<String> {
        self.free_unused(&mut lock(&self.control));
        self.shared.events.take()
    }

    /// The zones whose primaries say that they have changed.
    pub fn notified(&self) -> &Notified {
        &self.shared.notified
    }

    pub fn cache(&self) -> &Cache {
        &self.shared.cache
    }

    /// The listen addresses, with real ports instead of 0.
    pub fn listening(&self) -> Arc<Listening> {
        Arc::clone(&self.shared.serving.load().listening)
    }

    pub fn dnstap(&self) -> &dnstap::Counts {
        &self.shared.dnstap
    }

    /// Whether the dnstap output is connected to its reader. `None`: there is no output.
    pub fn is_dnstap_connected(&self) -> Option<bool> {
        self.shared.serving.load().dnstap.as_ref().map(|tap| tap.is_connected.load(Ordering::Relaxed))
    }

    /// The number of running worker threads.
    pub fn running(&self) -> usize {
        self.shared.running.load(Ordering::SeqCst)
    }

    pub fn counters(&self) -> &[Arc<Counters>] {
        &self.counters
    }

    pub fn upstream(&self) -> Arc<upstream::Settings> {
        Arc::clone(&self.shared.serving.load().upstream)
    }

    pub fn health(&self) -> &Health {
        &self.shared.health
    }

    /// The names of all zones since startup, with their counter slots.
    pub fn zone_slots(&self) -> Vec<(String, u16)> {
        lock(&self.control).slots.iter().map(|(name, slot)| (name.clone(), *slot)).collect()
    }

    /// Stops reading queries, answers the outstanding ones within `timeout`, and waits for the worker
    /// threads. May be called again.
    pub fn stop(&self, timeout: Duration) {
        let _ = self.shared.stop_at.set(Instant::now() + timeout);
        for waker in self.wakers.iter().chain([&self.watch_waker]) {
            let _ = rustix::io::write(&**waker, &1u64.to_ne_bytes());
        }
        let threads = {
            let mut control = lock(&self.control);
            control.is_started = true;
            std::mem::take(&mut control.threads)
        };
        for thread in threads {
            // A panic outside the loop of a thread is not counted anywhere else.
            if thread.join().is_err() {
                self.shared.events.push("a worker thread panicked".to_string());
            }
        }
        let outputs = std::mem::take(&mut lock(&self.control).outputs);
        let at = self.shared.stop_deadline().unwrap_or_else(Instant::now);
        let at = at.min(Instant::now() + DNSTAP_TIMEOUT);
        outputs.iter().for_each(|output| output.stop(at));
        outputs.into_iter().for_each(Output::join);
        // Closes the sockets.
        self.serve(&mut lock(&self.control), |last| Serving { listening: Arc::default(), ..last.clone() });
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

/// The counter slots of zones.
struct Slots {
    /// Of all names, including those of the new snapshot.
    known: HashMap<String, u16>,
    /// Of the zones of the snapshot, in their order.
    enforced: Vec<u16>,
    /// Of its shadow zones.
    shadows: Vec<u16>,
}

impl Slots {
    fn of(known: &HashMap<String, u16>, snapshot: &Snapshot) -> Result<Slots, EngineError> {
        if snapshot.zones().len() + snapshot.shadows().len() > MAX_ZONES {
            return Err(EngineError::TooManyZones);
        }
        let mut known = known.clone();
        let mut slot = |zone: &PolicyZone| {
            let next = known.len() as u16;
            *known.entry(zone.name().to_string()).or_insert(next)
        };
        let enforced = snapshot.zones().iter().map(|zone| slot(&zone.zone)).collect();
        let shadows = snapshot.shadows().iter().map(|shadow| slot(&shadow.zone)).collect();
        if known.len() > MAX_ZONE_SLOTS {
            return Err(EngineError::TooManyZoneNames);
        }
        Ok(Slots { known, enforced, shadows })
    }
}

fn is_same_output(one: &Option<Arc<Tap>>, other: &Option<Arc<Tap>>) -> bool {
    one.as_ref().map(Arc::as_ptr) == other.as_ref().map(Arc::as_ptr)
}

/// Drops the values that nothing else holds.
fn free_unused<T>(retired: &mut Vec<Arc<T>>) {
    retired.retain(|one| Arc::strong_count(one) > 1);
}

/// An eventfd that wakes a thread.
fn waker() -> Result<Arc<OwnedFd>, EngineError> {
    let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
    let waker = rustix::event::eventfd(0, flags).map_err(|error| EngineError::Io(error.into()))?;
    Ok(Arc::new(waker))
}

/// Returns the limit of TCP connections per listen address. It leaves descriptors for upstreams, orders,
/// metrics and control.
fn connection_limit(limits: &tcp::Limits, listeners: usize, events: &Events) -> usize {
    let most = (sockets::descriptors() / CLIENTS_SHARE / listeners.max(1)).max(1);
    if most < limits.connections {
        events.push(format!(
            "tcp.max_connections: only {most} for each listen address, since this process may have few open \
             files: raise LimitNOFILE"
        ));
    }
    most.min(limits.connections)
}
