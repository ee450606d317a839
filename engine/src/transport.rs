//! The sockets of the worker threads towards clients, UDP and TCP, and how a thread waits for all
//! of them. This module moves bytes and reads no messages. `worker` and `engine` use it; `upstream`
//! opens its sockets with the same functions.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;

use crate::sys::{Batch, Datagram};

pub mod listeners;
pub mod poll;
pub mod sockets;
pub mod tcp;
pub mod udp;

/// Receives and sends datagrams in batches.
pub trait DatagramIo {
    /// Receives a batch without waiting. Returns how many datagrams it holds, and how many more were
    /// dropped because they had waited too long.
    fn receive(&mut self, batch: &mut Batch) -> io::Result<(usize, usize)>;

    /// The buffer for the next response.
    fn slot(&mut self) -> &mut Datagram;

    /// Queues the response in the slot, and sends the queue if it is full. Returns how many
    /// responses were lost.
    fn push(&mut self) -> usize;

    /// Sends the queue. Returns how many responses were lost.
    fn flush(&mut self) -> usize;
}

/// The bytes of a connection, in both directions, without waiting.
pub trait Wire: Read + Write {
    /// The socket whose events tell when the connection can be read or written.
    fn socket(&self) -> impl AsFd;

    /// The address that the client connected to.
    fn local_address(&self) -> io::Result<SocketAddr>;
}
