//! The packet path of dnsblock.
//!
//! Read the modules in the order in which a query passes through them:
//!
//! * [`worker`]: one worker thread: wait, receive, decide, respond or forward.
//! * [`transport`]: UDP and TCP towards clients, and the sockets of each listen address. It only
//!   moves bytes.
//! * [`message`], [`name`]: parse queries, write responses.
//! * [`answer`]: `decide`, the verdict on one packet; pure. [`rules`] is the configuration that it
//!   decides by, [`outcome`] is how a query ended. [`cookie`] and [`prefix`] identify clients;
//!   [`nat64`] finds IPv4 addresses within IPv6; [`local`] answers special-use names.
//! * [`limits`]: rate limits and connection limits. [`failures`]: questions that failed a moment
//!   ago and are not sent again. [`suffixes`]: the public suffix list.
//! * [`policy`], [`list`]: policy zones and snapshots, their lookup and their compiler. [`impact`]:
//!   counts what one more zone would block, and [`query_counts`] what it would have blocked. [`export`]
//!   writes zones for other software.
//! * [`cache`]: cached responses of upstreams.
//! * [`upstream`]: forwarding: choice of an upstream, health, timeouts, coalescing.
//! * [`response`]: an upstream's response, parsed once. [`chain`] follows it to its targets,
//!   [`targets`] judges them by policy, and [`relay`] rewrites it for the client.
//! * [`dnstap`]: sends copies of messages to a reader outside of this process.
//! * [`engine`]: the interface to the control plane. [`shared`], [`counters`], [`events`] and [`way`] are
//!   shared with the worker threads.
//! * [`sealed`], [`digests`]: hashes of the ledger's lines, and of files; the packet path does not use them.
//! * [`sys`]: system calls; the only file with `unsafe`.
//! * `python`: the Python bindings, with the feature of that name.
//!
//! A module uses only modules in layers below its own: tests/unit/test_engine_source.py lists the layers.

pub mod answer;
pub mod cache;
pub mod chain;
pub mod cookie;
pub mod counters;
pub mod digests;
pub mod dnstap;
pub mod engine;
pub mod events;
pub mod export;
pub mod failures;
pub mod impact;
pub mod limits;
pub mod list;
pub mod local;
pub mod message;
pub mod name;
pub mod nat64;
pub mod notify;
pub mod outcome;
pub mod policy;
pub mod prefix;
#[cfg(feature = "python")]
mod python;
pub mod query_counts;
pub mod relay;
pub mod response;
pub mod rules;
pub mod sealed;
pub mod shared;
pub mod suffixes;
pub mod sys;
pub mod targets;
pub mod transfer;
pub mod transport;
pub mod tsig;
pub mod upstream;
pub mod way;
pub mod worker;
