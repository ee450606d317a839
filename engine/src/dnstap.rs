//! dnstap: copies of DNS messages, and the policy that decided, for a reader outside of this process.
//!
//! A worker thread encodes an event (`event`, `redaction`, `protobuf`) and puts the frame into its own queue.
//! One thread (`writer`) takes the frames from all queues and sends them as Frame Streams (`frames`). No worker
//! thread waits for it: if the queue is full, the frame is dropped and counted.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use rtrb::{Producer, RingBuffer};

use crate::events::lock;

pub mod event;
mod frames;
pub mod policy;
mod protobuf;
pub mod redaction;
pub mod writer;

use event::{Encoder, Event};
use redaction::ClientPrefix;

/// The size of a worker thread's queue in bytes. Its memory is used only as frames fill it.
const QUEUE: usize = 2 << 20;

/// The options of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub reader: Reader,
    pub messages: Messages,
    /// The identity and version of this server in each event.
    pub identity: Option<Vec<u8>>,
    pub version: Option<Vec<u8>>,
    pub client_prefix: ClientPrefix,
}

/// The address of the program that receives the events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reader {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// The messages that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Messages {
    /// Responses that a policy zone decided, and queries that it dropped.
    Policy,
    /// All responses to clients, and queries that a policy zone dropped.
    Responses,
    /// All queries and responses.
    All,
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reader::Unix(path) => path.display().fmt(f),
            Reader::Tcp(address) => address.fmt(f),
        }
    }
}

impl Messages {
    const ALL: [(Messages, &str); 3] =
        [(Messages::Policy, "policy"), (Messages::Responses, "responses"), (Messages::All, "all")];

    pub fn from_name(name: &str) -> Option<Messages> {
        Messages::ALL.iter().find(|(_, known)| *known == name).map(|(messages, _)| *messages)
    }
}

/// Counts since startup, over all outputs that a reload has started.
#[derive(Default)]
pub struct Counts {
    pub sent: AtomicU64,
    /// Frames that were left when an output was stopped.
    pub unsent: AtomicU64,
    /// Connections that failed, that the reader ended, or on which it did not speak Frame Streams.
    pub failed_connections: AtomicU64,
}

/// An output as worker threads see it.
pub struct Tap {
    pub settings: Settings,
    /// By worker thread, until it takes its own.
    queues: Mutex<Vec<Option<Producer<u8>>>>,
    pub is_connected: AtomicBool,
}

impl Tap {
    /// An output for this number of worker threads, and the other ends of their queues.
    fn new(settings: Settings, workers: usize) -> (Arc<Tap>, Vec<rtrb::Consumer<u8>>) {
        let (producers, consumers) = (0..workers)
            .map(|_| {
                let (producer, consumer) = RingBuffer::new(QUEUE);
                (Some(producer), consumer)
            })
            .unzip();
        let (queues, is_connected) = (Mutex::new(producers), AtomicBool::new(false));
        (Arc::new(Tap { settings, queues, is_connected }), consumers)
    }

    /// Queues that no worker thread has taken are abandoned.
    fn close(&self) {
        lock(&self.queues).clear();
    }
}

/// The queue of a worker thread.
pub struct Queue {
    tap: Arc<Tap>,
    frames: Producer<u8>,
    encoder: Encoder,
}

impl Queue {
    /// The queue for this worker thread; `None` after the output was stopped.
    pub fn of(tap: &Arc<Tap>, thread: usize) -> Option<Queue> {
        let frames = lock(&tap.queues).get_mut(thread)?.take()?;
        Some(Queue { tap: Arc::clone(tap), frames, encoder: Encoder::default() })
    }

    pub fn is_of(&self, tap: &Arc<Tap>) -> bool {
        Arc::ptr_eq(&self.tap, tap)
    }

    pub fn settings(&self) -> &Settings {
        &self.tap.settings
    }

    /// Queues an event. Returns false if it was dropped, because the queue is full or no longer read.
    pub fn put(&mut self, event: &Event<'_>) -> bool {
        if self.frames.is_abandoned() {
            return false;
        }
        let frame = self.encoder.encode(event, &self.tap.settings);
        self.frames.push_entire_slice(frame).is_ok()
    }
}
