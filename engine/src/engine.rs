//! The engine: owns sockets, packet threads and the current snapshot.
//!
//! Called by the control plane only. `publish` swaps the snapshot with one
//! atomic store; the one before is freed here, on a control thread, once no
//! packet thread holds it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustix::event::EventfdFlags;

use crate::answer::Rules;
use crate::cache::Cache;
use crate::counters::{Counters, MAX_ZONE_SLOTS, MAX_ZONES};
use crate::limits::{Crowd, Limiter};
use crate::policy::{PolicyZone, Snapshot, seed};
use crate::shared::{Events, Serving, Settings, Shared, lock};
use crate::trial::Trial;
use crate::upstream::{Claims, Health, sockets, watch};
use crate::worker::{self, Sockets};
use crate::{tcp, udp};

/// Ports tried when any free port will do for UDP but is taken for TCP.
const PORTS_TRIED: usize = 32;

/// Of the descriptors for clients and upstreams, the part for TCP clients.
const CLIENTS_SHARE: usize = 2;

/// Why the engine does not do what it was told.
#[derive(Debug)]
pub enum EngineError {
    /// An address that cannot be listened on.
    Bind(SocketAddr, io::Error),
    Io(io::Error),
    TooManyZones,
    /// More zone names since the start than can be counted apart.
    TooManyZoneNames,
    /// `start` twice, `publish` before `start` or after `stop`, a trial while there is one.
    NotNow,
}

pub struct Engine {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    counters: Vec<Arc<Counters>>,
    wakers: Vec<Arc<OwnedFd>>,
    watch_waker: Arc<OwnedFd>,
    control: Mutex<Control>,
}

/// What changes over the engine's life; behind one lock.
struct Control {
    sockets: Vec<Sockets>,
    threads: Vec<JoinHandle<()>>,
    /// Names of zones by counter slot.
    slots: HashMap<String, u16>,
    /// Snapshots that packet threads may still be reading.
    retired: Vec<Arc<Serving>>,
}

impl Engine {
    /// Binds all sockets; nothing is answered before `start`.
    pub fn bind(mut settings: Settings) -> Result<Engine, EngineError> {
        let events = Arc::new(Events::default());
        leave_descriptors(&mut settings, &events);
        let mut addresses = Vec::new();
        let mut udp_sockets: Vec<Vec<_>> = (0..settings.workers).map(|_| Vec::new()).collect();
        let mut tcp_sockets: Vec<Vec<_>> = (0..settings.workers).map(|_| Vec::new()).collect();
        for &wanted in &settings.listen {
            let failed = |error| EngineError::Bind(wanted, error);
            let (address, udp, tcp) = bind_all(wanted, settings.workers).map_err(failed)?;
            addresses.push(address);
            udp_sockets.iter_mut().zip(udp).for_each(|(all, socket)| all.push(socket));
            tcp_sockets.iter_mut().zip(tcp).for_each(|(all, socket)| all.push(socket));
        }
        let mut sockets = Vec::new();
        for (udp, tcp) in udp_sockets.into_iter().zip(tcp_sockets) {
            sockets.push(Sockets { thread: sockets.len(), udp, tcp, wake: waker()? });
        }
        settings.listen.clone_from(&addresses);
        let upstream = &settings.upstream;
        let probes = upstream.probe.as_ref().map(|probe| (probe.failures, probe.interval));
        let health = Health::new(&upstream.addresses(), probes, Arc::clone(&events));
        let counters =
            (0..settings.workers).map(|_| Arc::new(Counters::new(settings.upstream.servers.len())));
        let nothing = Serving {
            snapshot: Arc::new(Snapshot::new(Vec::new(), 0)),
            rules: Arc::default(),
            slots: Vec::new(),
            shadow_slots: Vec::new(),
            generation: 0,
            trial: None,
        };
        let connections = settings.listen.iter().map(|_| AtomicUsize::new(0)).collect();
        let wakers: Vec<_> = sockets.iter().map(|sockets| Arc::clone(&sockets.wake)).collect();
        Ok(Engine {
            counters: counters.collect(),
            wakers: wakers.clone(),
            watch_waker: waker()?,
            addresses,
            shared: Arc::new(Shared {
                settings,
                serving: ArcSwap::from_pointee(nothing),
                events,
                health: Arc::new(health),
                limiter: Limiter::new(seed()),
                cache: Cache::default(),
                claims: Arc::new(Claims::new(wakers)),
                crowd: Arc::new(Crowd::new(seed())),
                connections,
                stop_at: OnceLock::new(),
                running: AtomicUsize::new(0),
            }),
            control: Mutex::new(Control {
                sockets,
                threads: Vec::new(),
                slots: HashMap::new(),
                retired: Vec::new(),
            }),
        })
    }

    /// Starts the packet threads with their first snapshot.
    pub fn start(&self, snapshot: Arc<Snapshot>, rules: Arc<Rules>) -> Result<(), EngineError> {
        let mut control = lock(&self.control);
        if control.sockets.is_empty() {
            return Err(EngineError::NotNow);
        }
        self.swap(&mut control, snapshot, rules)?;
        let sockets = std::mem::take(&mut control.sockets);
        let (ready, begun) = mpsc::channel();
        for (number, (sockets, counters)) in sockets.into_iter().zip(&self.counters).enumerate() {
            let (shared, counters, ready) = (Arc::clone(&self.shared), Arc::clone(counters), ready.clone());
            let run = move || {
                shared.running.fetch_add(1, Ordering::SeqCst);
                if let Err(error) = worker::run(Arc::clone(&shared), counters, sockets, ready) {
                    shared.events.push(format!("packet thread {number} ended: {error}"));
                }
                shared.running.fetch_sub(1, Ordering::SeqCst);
            };
            let thread = thread::Builder::new().name(format!("packets-{number}")).spawn(run);
            control.threads.push(thread.map_err(EngineError::Io)?);
        }
        drop(ready);
        control.threads.push(self.watch().map_err(EngineError::Io)?);
        // On an error the caller stops the engine, and with it those that run.
        begun.iter().try_for_each(|result| result.map_err(EngineError::Io))
    }

    /// Starts the thread that watches the upstreams.
    fn watch(&self) -> io::Result<JoinHandle<()>> {
        let (shared, wake) = (Arc::clone(&self.shared), Arc::clone(&self.watch_waker));
        let wakers = self.wakers.clone();
        let run = move || {
            if let Err(error) = watch::run(&shared, &wake, &wakers) {
                shared.events.push(format!("upstreams are not watched any more: {error}"));
            }
        };
        thread::Builder::new().name("upstreams".to_string()).spawn(run)
    }

    /// Serves another snapshot, by these rules: every query that comes after this
    /// returns is judged by them. On an error those that were served stay.
    pub fn publish(&self, snapshot: Arc<Snapshot>, rules: Arc<Rules>) -> Result<(), EngineError> {
        let mut control = lock(&self.control);
        if control.threads.is_empty() {
            return Err(EngineError::NotNow);
        }
        self.swap(&mut control, snapshot, rules)
    }

    /// Whether `publish` would take the snapshot; changes nothing.
    pub fn check(&self, snapshot: &Snapshot) -> Result<(), EngineError> {
        Slots::of(&lock(&self.control).slots, snapshot).map(|_| ())
    }

    fn swap(
        &self,
        control: &mut Control,
        snapshot: Arc<Snapshot>,
        rules: Arc<Rules>,
    ) -> Result<(), EngineError> {
        let Slots { known, enforced: slots, shadows: shadow_slots } = Slots::of(&control.slots, &snapshot)?;
        control.slots = known;
        self.shared.cache.resize(rules.keeping.octets);
        self.serve(control, |before| {
            let (generation, trial) = (before.generation + 1, before.trial.clone());
            Serving { snapshot, rules, slots, shadow_slots, generation, trial }
        });
        Ok(())
    }

    fn serve(&self, control: &mut Control, next: impl FnOnce(&Serving) -> Serving) {
        let next = Arc::new(next(&self.shared.serving.load()));
        control.retired.push(self.shared.serving.swap(next));
        free_unused(&mut control.retired);
    }

    /// Counts from now on what this zone would block if it stood behind all others.
    /// Whatever is published meanwhile, this goes on until `end_trial`.
    pub fn begin_trial(&self, zone: Arc<PolicyZone>) -> Result<Arc<Trial>, EngineError> {
        let trial = Arc::new(Trial::new(zone, self.counters.clone()));
        let mut control = lock(&self.control);
        if control.threads.is_empty() || self.shared.serving.load().trial.is_some() {
            return Err(EngineError::NotNow);
        }
        // A new generation: where kept answers lead is looked at once more.
        self.serve(&mut control, |before| {
            let generation = before.generation + 1;
            Serving { trial: Some(Arc::clone(&trial)), generation, ..before.clone() }
        });
        Ok(trial)
    }

    /// Takes the trial away, if there is one.
    pub fn end_trial(&self) {
        let mut control = lock(&self.control);
        if self.shared.serving.load().trial.is_some() {
            self.serve(&mut control, |before| Serving { trial: None, ..before.clone() });
        }
    }

    /// Frees snapshots that no packet thread reads any more, and returns what
    /// has happened since the last call. Meant to be called once a second.
    pub fn take_events(&self) -> Vec<String> {
        free_unused(&mut lock(&self.control).retired);
        self.shared.events.take()
    }

    /// What is kept of upstreams' answers.
    pub fn cache(&self) -> &Cache {
        &self.shared.cache
    }

    /// Where the engine listens; ports that were 0 have become real ones.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Packet threads that are alive.
    pub fn running(&self) -> usize {
        self.shared.running.load(Ordering::SeqCst)
    }

    pub fn counters(&self) -> &[Arc<Counters>] {
        &self.counters
    }

    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// What is known of the upstreams.
    pub fn health(&self) -> &Health {
        &self.shared.health
    }

    /// Names of the zones that were ever served, with their counters' slots.
    pub fn zone_slots(&self) -> Vec<(String, u16)> {
        lock(&self.control).slots.iter().map(|(name, slot)| (name.clone(), *slot)).collect()
    }

    /// Stops: no new query is taken, what was asked is answered within
    /// `patience`. Returns when the packet threads have ended; may be called
    /// again.
    pub fn stop(&self, patience: Duration) {
        let _ = self.shared.stop_at.set(Instant::now() + patience);
        for waker in self.wakers.iter().chain([&self.watch_waker]) {
            let _ = rustix::io::write(&**waker, &1u64.to_ne_bytes());
        }
        let threads = {
            let mut control = lock(&self.control);
            control.sockets.clear();
            std::mem::take(&mut control.threads)
        };
        for thread in threads {
            // A panic that got this far was counted by nobody else.
            if thread.join().is_err() {
                self.shared.events.push("a packet thread panicked".to_string());
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

/// Where zones are counted.
struct Slots {
    /// Of all names, those of a new snapshot added.
    known: HashMap<String, u16>,
    /// Of the zones of the snapshot, in their order.
    enforced: Vec<u16>,
    /// And of those in shadow.
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

/// Keeps those that somebody else still holds.
fn free_unused(retired: &mut Vec<Arc<Serving>>) {
    retired.retain(|serving| Arc::strong_count(serving) > 1);
}

/// What ends the wait of a thread.
fn waker() -> Result<Arc<OwnedFd>, EngineError> {
    let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
    let waker = rustix::event::eventfd(0, flags).map_err(|error| EngineError::Io(error.into()))?;
    Ok(Arc::new(waker))
}

/// Bounds the connections of clients so that there are descriptors left for
/// upstreams, orders, metrics and control, whoever connects.
fn leave_descriptors(settings: &mut Settings, events: &Events) {
    let descriptors = sockets::descriptors();
    let most = (descriptors / CLIENTS_SHARE / settings.listen.len().max(1)).max(1);
    if most < settings.tcp.connections {
        settings.tcp.connections = most;
        events.push(format!(
            "tcp.max_connections: only {most} for each listen address, since this process may have few open \
             files: raise LimitNOFILE"
        ));
    }
}

type Bound = (SocketAddr, Vec<std::net::UdpSocket>, Vec<std::net::TcpListener>);

/// Binds one UDP and one TCP socket per packet thread, on one port.
fn bind_all(wanted: SocketAddr, workers: usize) -> io::Result<Bound> {
    let mut tries = 0;
    loop {
        tries += 1;
        let address = match wanted.port() {
            // Drawn without sharing: with it, the kernel may draw a port that
            // another daemon of the same user shares already.
            0 => udp::free_port(wanted.ip())?,
            _ => wanted,
        };
        let bound = || -> io::Result<_> {
            udp::probe(address)?;
            tcp::probe(address)?;
            let udp = (0..workers).map(|_| udp::bind(address)).collect::<io::Result<Vec<_>>>()?;
            let tcp = (0..workers).map(|_| tcp::listen(address)).collect::<io::Result<Vec<_>>>()?;
            Ok((address, udp, tcp))
        };
        match bound() {
            Err(_) if wanted.port() == 0 && tries < PORTS_TRIED => {}
            result => return result,
        }
    }
}
