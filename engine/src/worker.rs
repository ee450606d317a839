//! The loop of a worker thread: wait for events, serve queries, handle responses and timeouts.
//!
//! Worker threads share the current snapshot, which they only read, the cache, and claims on
//! outstanding questions. They never run Python code.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use slab::Slab;

use crate::answer::Client;
use crate::cache::BUFFER;
use crate::counters::{Counters, ResponseFrom};
use crate::dnstap::Queue;
use crate::failures::Failures;
use crate::message::{MAX_MESSAGE, Transport};
use crate::outcome::Outcome;
use crate::shared::Shared;
use crate::sys::{Batch, Datagram};
use crate::transport::DatagramIo;
use crate::transport::listeners::Listening;
use crate::transport::poll::{Event, Poll, Token};
use crate::transport::tcp;
use crate::transport::udp::Listener;
use crate::upstream::{Origin, Upstreams};

mod arrivals;
mod clients;
mod deliver;
mod forward;
mod listening;
mod pace;
mod respond;
mod serve;
mod source;
mod tap;

use arrivals::Pending;
use listening::Accepting;
use pace::Pace;
use serve::{Message, Messages, Queries};

/// Longest wait for events when no deadline is near.
const TICK: Duration = Duration::from_millis(500);
/// How often connections are checked for timeouts.
const SWEEP: Duration = Duration::from_millis(100);
/// Batches read from a socket that is being closed. Its buffer holds no more.
const DRAIN_ROUNDS: usize = 128;

/// One of the worker threads.
pub struct Thread {
    pub number: usize,
    /// Becomes readable when a control thread has published, or another worker thread has a result.
    pub wake: Arc<OwnedFd>,
}

/// Runs until the engine stops. Sends to `ready` whether the thread could start.
pub fn run(
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    thread: Thread,
    ready: Sender<io::Result<()>>,
) -> io::Result<()> {
    let mut worker = match Worker::new(shared, counters, thread) {
        Ok(worker) => worker,
        Err(error) => {
            // `Engine::start` waits for it, and handles the error.
            let _ = ready.send(Err(error));
            return Ok(());
        }
    };
    let _ = ready.send(Ok(()));
    drop(ready);
    let mut buffers = Buffers { batch: Batch::empty(), message: Vec::new(), queries: Queries::new() };
    loop {
        let turn = catch_unwind(AssertUnwindSafe(|| worker.turn(&mut buffers)));
        match turn {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => worker.counters.panics.add(1),
        }
    }
}

/// Buffers that are reused in each turn. They are not part of `Worker`, so that its methods can
/// borrow both.
struct Buffers {
    batch: Batch,
    /// The current message of a TCP client.
    message: Vec<u8>,
    queries: Queries,
}

/// A batch of datagrams that clients have sent.
struct Datagrams<'a> {
    listener: usize,
    datagrams: &'a [Datagram],
    read_at: Instant,
}

impl Messages for Datagrams<'_> {
    fn count(&self) -> usize {
        self.datagrams.len()
    }

    fn get(&self, index: usize) -> Option<Message<'_>> {
        let Datagram { data, length, peer, local } = &self.datagrams[index];
        let address = peer.socket_addr()?;
        Some(Message {
            packet: &data[..*length],
            client: Client { address: address.ip(), port: address.port(), transport: Transport::Udp },
            origin: Origin::Udp {
                listener: self.listener,
                peer: *peer,
                local: *local,
                read_at: self.read_at,
            },
        })
    }
}

struct Worker {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    poll: Rc<Poll>,
    /// The number of this worker thread.
    thread: usize,
    wake: Arc<OwnedFd>,
    /// The addresses that this thread has opened.
    listening: Arc<Listening>,
    listeners: Slab<Listener>,
    accepting: Slab<Accepting>,
    /// When to accept connections again after a failure.
    accept_at: Option<Instant>,
    /// Logged once, until a connection is accepted again.
    has_accept_failed: bool,
    clients: tcp::Service,
    /// Connections that may have further whole messages.
    resumable: Vec<usize>,
    swept_at: Instant,
    upstreams: Upstreams,
    /// Responses to many coalesced queries; each turn sends a part of them.
    pending: VecDeque<Pending>,
    failures: Failures,
    /// `Health::returns` when `failures` was last cleared.
    returns: u64,
    /// Queries above their client's rate limit, counted to answer every Nth of them.
    limited: u32,
    /// Responses of this turn to queries that were read in the same turn.
    immediate: u64,
    pace: Pace,
    now: Instant,
    /// The same by the clock, and in seconds of Unix time.
    clock: SystemTime,
    unix: u64,
    /// The response that is being written, unless it is written to a listener's slot.
    scratch: Box<[u8; MAX_MESSAGE]>,
    /// An upstream's or a cached message that is being changed.
    message: Box<[u8; BUFFER]>,
    /// The queue of the dnstap output, if there is one.
    tap: Option<Box<Queue>>,
    stopping: bool,
}

impl Worker {
    fn new(shared: Arc<Shared>, counters: Arc<Counters>, thread: Thread) -> io::Result<Worker> {
        let claims = (Arc::clone(&shared.claims), thread.number);
        let poll = Rc::new(Poll::new()?);
        poll.add(&*thread.wake, Token::Wake, true, false)?;
        let serving = shared.serving.load_full();
        let health = Arc::clone(&shared.health);
        let now = Instant::now();
        let pace = Pace::new(now, &shared.way);
        let mut worker = Worker {
            clients: tcp::Service::new(serving.tcp, Arc::clone(&shared.crowd)),
            upstreams: Upstreams::new(
                Arc::clone(&serving.upstream),
                shared.workers,
                claims,
                health,
                Rc::clone(&poll),
                Arc::clone(&counters),
            ),
            shared,
            counters,
            poll,
            thread: thread.number,
            wake: thread.wake,
            listening: Arc::default(),
            listeners: Slab::new(),
            accepting: Slab::new(),
            accept_at: None,
            has_accept_failed: false,
            resumable: Vec::new(),
            swept_at: now,
            pending: VecDeque::new(),
            failures: Failures::default(),
            returns: 0,
            limited: 0,
            immediate: 0,
            pace,
            now,
            clock: UNIX_EPOCH,
            unix: 0,
            scratch: Box::new([0; MAX_MESSAGE]),
            message: Box::new([0; BUFFER]),
            tap: None,
            stopping: false,
        };
        for bound in serving.listening.iter() {
            worker.open(bound)?;
        }
        worker.listening = Arc::clone(&serving.listening);
        Ok(worker)
    }

    /// Waits for events and handles them. Returns false once the worker has stopped.
    fn turn(&mut self, buffers: &mut Buffers) -> io::Result<bool> {
        if !self.has_work() {
            self.pace.rest(&self.shared.way);
        }
        let events = self.poll.wait(self.poll_timeout())?;
        (self.now, self.clock) = (Instant::now(), SystemTime::now());
        self.pace.begin(self.now);
        self.unix = self.clock.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.apply_reload(buffers);
        for event in events {
            // A panic costs one packet, or at most its connection. The other events are handled.
            if catch_unwind(AssertUnwindSafe(|| self.handle(event, buffers))).is_err() {
                self.counters.panics.add(1);
                if let Token::Client(key, _) = event.token {
                    self.clients.remove(key);
                }
            }
        }
        self.expire();
        for key in std::mem::take(&mut self.resumable) {
            if catch_unwind(AssertUnwindSafe(|| self.serve_stream(key, buffers))).is_err() {
                self.counters.panics.add(1);
                self.clients.remove(key);
            }
        }
        self.upstreams.flush(self.now);
        for (_, listener) in &mut self.listeners {
            self.counters.unsent.add(listener.flush() as u64);
        }
        if self.immediate > 0 {
            // One reading of the clock for all of them, since they were all sent just now.
            let responses = std::mem::take(&mut self.immediate);
            self.counters.count_response_times(ResponseFrom::Here, self.now.elapsed(), responses);
        }
        self.sweep();
        self.counters.outstanding.set(self.upstreams.outstanding() as u64);
        self.counters.tcp_connections.set(self.clients.count() as u64);
        self.check_stop(buffers)
    }

    fn handle(&mut self, event: Event, buffers: &mut Buffers) {
        match event.token {
            Token::Wake => self.handle_wakeup(),
            Token::Udp(place) if self.listeners.contains(place) => drop(self.serve_udp(place, buffers)),
            Token::Accept(place) if self.accepting.contains(place) => self.accept(place),
            // Closed in this turn.
            Token::Udp(_) | Token::Accept(_) => {}
            Token::Client(key, _) if self.is_current(event.token) => self.serve_client(key, event, buffers),
            Token::Client(..) => {}
            Token::Upstream(key) => self.receive_datagrams(key, buffers),
            Token::Stream(key) => self.receive_stream(key, event),
        }
    }

    /// Whether something is to be done that no event announces.
    fn has_work(&self) -> bool {
        !self.resumable.is_empty() || !self.pending.is_empty()
    }

    fn poll_timeout(&self) -> Duration {
        if self.has_work() {
            return Duration::ZERO;
        }
        let busy = self.clients.count() > 0
            || self.accept_at.is_some()
            || self.stopping
            || self.has_closing_listeners();
        let tick = if busy { SWEEP } else { TICK };
        match self.upstreams.next_deadline() {
            Some(at) => at.saturating_duration_since(Instant::now()).min(tick),
            None => tick,
        }
    }

    fn handle_wakeup(&mut self) {
        let mut count = [0; 8];
        // An error is ignored: the events themselves are stored elsewhere.
        let _ = rustix::io::read(&*self.wake, &mut count);
        self.receive_results();
    }

    //--- UDP

    /// Receives and serves one batch. Returns false if there was none.
    fn serve_udp(&mut self, listener: usize, buffers: &mut Buffers) -> bool {
        let Ok((received, late)) = self.listeners[listener].receive(&mut buffers.batch) else {
            // The socket is empty after all, or reports an ICMP error about some client.
            return false;
        };
        self.pace.read(received);
        (0..late).for_each(|_| self.counters.count(Transport::Udp, Outcome::Late, &[]));
        // Loaded after the batch was received: a query that was sent after `publish` returned is
        // never judged by the previous snapshot.
        let serving = self.shared.serving.load();
        self.apply_upstreams(&serving);
        self.apply_dnstap(&serving);
        let datagrams = &buffers.batch.datagrams[..received];
        let received = Datagrams { listener, datagrams, read_at: self.now };
        self.serve(&received, &serving, &mut buffers.queries);
        self.counters.unsent.add(self.listeners[listener].flush() as u64);
        self.upstreams.flush(self.now);
        true
    }

    fn sweep(&mut self) {
        if self.now.saturating_duration_since(self.swept_at) < SWEEP {
            return;
        }
        self.swept_at = self.now;
        self.upstreams.tidy(self.now);
        self.remove_closed();
        for key in self.clients.expired(self.now) {
            self.clients.remove(key);
        }
        if self.accept_at.is_some_and(|at| at <= self.now) {
            self.accept_at = None;
            for (place, listener) in &self.accepting {
                let _ = self.poll.add(listener.socket(), Token::Accept(place), true, false);
            }
        }
    }

    //--- Stopping

    /// Once the engine stops, reads no new queries, and answers the outstanding ones until the
    /// deadline. Returns false when the worker is done.
    fn check_stop(&mut self, buffers: &mut Buffers) -> io::Result<bool> {
        let Some(deadline) = self.shared.stop_deadline() else { return Ok(true) };
        if !self.stopping {
            self.stopping = true;
            self.close_accepting();
            let open = self.listeners.iter().filter(|(_, listener)| !listener.is_closing);
            for place in open.map(|(place, _)| place).collect::<Vec<_>>() {
                self.drain(place, buffers, deadline);
                self.poll.remove_busy(Token::Udp(place));
                self.listeners[place].enlarge_buffer();
            }
        }
        let is_outstanding =
            !self.pending.is_empty() || self.upstreams.has_waiting_clients() || self.clients.unsent() > 0;
        Ok(is_outstanding && self.now < deadline)
    }

    /// Serves the queries in the socket's buffer. The rounds are limited, since more may arrive.
    fn drain(&mut self, place: usize, buffers: &mut Buffers, deadline: Instant) {
        for _ in 0..DRAIN_ROUNDS {
            if !self.serve_udp(place, buffers) || Instant::now() >= deadline {
                return;
            }
        }
    }
}
