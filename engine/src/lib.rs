//! The packet path of dnsblock.
//!
//! Read it along a query's way:
//!
//! * [`worker`] — one packet thread: wait, take, decide, answer or forward.
//! * [`transport`] — UDP and TCP towards clients, and the sockets of each listen address;
//!   it only moves bytes.
//! * [`message`], [`name`] — what a query may look like, and what we write.
//! * [`answer`] — `decide`: the verdict on one packet; pure. [`cookie`], [`prefix`]:
//!   who asks; [`nat64`]: IPv4 addresses within IPv6; [`local`]: names that nobody is asked about.
//! * [`limits`], [`failures`] — how much one client may ask, and what is not asked
//!   again at once.
//! * [`policy`], [`list`] — policy zones and snapshots: look up, and build; [`trial`]:
//!   what one more zone would block.
//! * [`cache`] — answers of upstreams, kept.
//! * [`upstream`] — forwarding: whom to ask, how, and what is believed.
//! * [`response`] — an upstream's message, read once; [`chain`]: where it leads; [`targets`]: what
//!   the policy says about that; [`relay`]: made into the client's.
//! * [`engine`] — what the control plane holds; [`shared`], [`counters`] — what it
//!   shares with the packet threads.
//! * [`sys`] — system calls; the only file with `unsafe`.
//! * `python` — the Python face, with the feature of that name.

pub mod answer;
pub mod cache;
pub mod chain;
pub mod cookie;
pub mod counters;
pub mod engine;
pub mod events;
pub mod failures;
pub mod limits;
pub mod list;
pub mod local;
pub mod message;
pub mod name;
pub mod nat64;
pub mod outcome;
pub mod policy;
pub mod prefix;
#[cfg(feature = "python")]
mod python;
pub mod relay;
pub mod response;
pub mod rules;
pub mod shared;
pub mod suffixes;
pub mod sys;
pub mod targets;
pub mod transport;
pub mod trial;
pub mod upstream;
pub mod worker;
