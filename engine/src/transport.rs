//! The sockets of the worker threads: UDP and TCP towards clients, and how a thread waits for
//! all of them. This module moves bytes; it does not read messages. Used by `worker` and
//! `engine`; `upstream` opens its sockets with the same functions.

pub mod listeners;
pub mod poll;
pub mod sockets;
pub mod tcp;
pub mod udp;
