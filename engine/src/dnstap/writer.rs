//! The thread that sends frames to the reader: connects, agrees on the content type, and writes what the
//! worker threads have queued. It connects again when the connection is lost, until it is stopped.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rtrb::Consumer;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::time::Timespec;
use socket2::{Domain, SockAddr, Socket, Type};

use super::frames::{self, Control, Invalid};
use super::{Counts, Reader, Settings, Tap};
use crate::events::Events;

/// How long the connection and the reader's answer to it may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The pause after a failed connection. It doubles up to the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often the queues are read while they are empty. Worker threads need not wake this thread, and a queue
/// holds the frames of a much longer time.
const INTERVAL: Duration = Duration::from_millis(20);

/// A running output.
pub struct Output {
    tap: Arc<Tap>,
    stop: Arc<Stop>,
    thread: JoinHandle<()>,
}

/// When the thread must have ended. It is woken when that is set.
struct Stop {
    at: OnceLock<Instant>,
    wake: OwnedFd,
}

impl Output {
    /// Starts the thread. It connects on its own.
    pub fn start(
        settings: Settings,
        workers: usize,
        counts: Arc<Counts>,
        events: Arc<Events>,
    ) -> io::Result<Output> {
        let (tap, queues) = Tap::new(settings, workers);
        let wake = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let stop = Arc::new(Stop { at: OnceLock::new(), wake });
        let mut writer = Writer {
            tap: Arc::clone(&tap),
            queues,
            stop: Arc::clone(&stop),
            counts,
            events,
            frames: Vec::new(),
            written: 0,
            sent: 0,
        };
        let thread = thread::Builder::new().name("dnstap".to_string()).spawn(move || writer.run())?;
        Ok(Output { tap, stop, thread })
    }

    /// Tells the thread to send what is left, to say goodbye to the reader, and to end, all until `at`.
    pub fn stop(&self, at: Instant) {
        let _ = self.stop.at.set(at);
        self.tap.close();
        let _ = rustix::io::write(&self.stop.wake, &1u64.to_ne_bytes());
    }

    pub fn tap(&self) -> Arc<Tap> {
        Arc::clone(&self.tap)
    }

    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the thread. Call `stop` first.
    pub fn join(self) {
        let _ = self.thread.join();
    }
}

/// Why a connection is over.
enum End {
    /// As the output was stopped.
    Stopped,
    Failed(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        End::Failed(error)
    }
}

impl From<Invalid> for End {
    fn from(why: Invalid) -> End {
        End::Failed(io::Error::other(match why {
            Invalid::NotAControlFrame => "it does not speak Frame Streams",
            Invalid::OtherContentType => "it does not accept protobuf:dnstap.Dnstap",
        }))
    }
}

struct Writer {
    tap: Arc<Tap>,
    queues: Vec<Consumer<u8>>,
    stop: Arc<Stop>,
    counts: Arc<Counts>,
    events: Arc<Events>,
    /// Whole frames from the queues that the socket has not taken completely.
    frames: Vec<u8>,
    /// The bytes of `frames` that this connection's socket has taken.
    written: usize,
    /// The bytes of those frames that it has taken as a whole.
    sent: usize,
}

impl Writer {
    fn run(&mut self) {
        let (mut pause, mut is_failing) = (FIRST_PAUSE, false);
        while self.stop.at.get().is_none() {
            let end = self.session();
            let was_connected = self.tap.is_connected.swap(false, Relaxed);
            if was_connected {
                (pause, is_failing) = (FIRST_PAUSE, false);
            }
            let End::Failed(error) = end else { break };
            if self.stop.at.get().is_some() {
                break;
            }
            self.counts.failed_connections.fetch_add(1, Relaxed);
            // Logged once, not for each attempt.
            if !std::mem::replace(&mut is_failing, true) {
                let what = if was_connected { "lost" } else { "failed" };
                let reader = &self.tap.settings.reader;
                self.events.push(format!("dnstap: connection to {reader} {what}: {error}; trying again"));
            }
            if self.wait(None, PollFlags::empty(), Instant::now() + pause).is_err() {
                break;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.drop_all();
    }

    /// One connection, until it fails or the output is stopped.
    fn session(&mut self) -> End {
        match self.connect().and_then(|socket| self.serve(&socket)) {
            Ok(()) => End::Stopped,
            Err(end) => end,
        }
    }

    fn connect(&self) -> Result<Socket, End> {
        let (domain, address) = match &self.tap.settings.reader {
            Reader::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
            Reader::Tcp(address) => (Domain::for_address(*address), SockAddr::from(*address)),
        };
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let deadline = Instant::now() + HANDSHAKE;
        match socket.connect(&address) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                self.wait(Some(&socket), PollFlags::OUT, deadline)?;
                if let Some(error) = socket.take_error()? {
                    return Err(error.into());
                }
            }
            Err(error) => return Err(error.into()),
        }
        self.write_control(&socket, Control::Ready, deadline)?;
        if self.read_control(&socket, deadline)? != Control::Accept {
            return Err(Invalid::NotAControlFrame.into());
        }
        self.write_control(&socket, Control::Start, deadline)?;
        Ok(socket)
    }

    fn serve(&mut self, socket: &Socket) -> Result<(), End> {
        self.tap.is_connected.store(true, Relaxed);
        self.events.push(format!("dnstap: connected to {}", self.tap.settings.reader));
        loop {
            self.collect();
            if self.frames.is_empty() {
                let is_last = self.stop.at.get().is_some() && self.queues.iter().all(Consumer::is_abandoned);
                // Again: the last frames may have come before a queue was abandoned.
                if is_last && self.queues.iter().all(Consumer::is_empty) {
                    return self.finish(socket);
                }
                match self.wait(Some(socket), PollFlags::IN, Instant::now() + INTERVAL) {
                    Ok(()) => return Err(refused(socket)),
                    Err(End::Failed(error)) if error.kind() == io::ErrorKind::TimedOut => continue,
                    Err(end) => return Err(end),
                }
            }
            self.write_frames(socket)?;
        }
    }

    /// Takes all whole frames from the queues, if there are none left.
    fn collect(&mut self) {
        if !self.frames.is_empty() {
            return;
        }
        for queue in &mut self.queues {
            let slots = queue.slots();
            let Ok(chunk) = queue.read_chunk(slots) else { continue };
            let (front, back) = chunk.as_slices();
            self.frames.extend_from_slice(front);
            self.frames.extend_from_slice(back);
            chunk.commit_all();
        }
    }

    fn write_frames(&mut self, socket: &Socket) -> Result<(), End> {
        (self.written, self.sent) = (0, 0);
        let result = self.write_all(socket);
        // A frame that was cut is sent again as a whole on the next connection.
        self.frames.drain(..self.sent);
        result
    }

    fn write_all(&mut self, socket: &Socket) -> Result<(), End> {
        while self.written < self.frames.len() {
            match socket.send_with_flags(&self.frames[self.written..], libc::MSG_NOSIGNAL) {
                Ok(count) => {
                    self.written += count;
                    self.count_sent();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // However long that takes: meanwhile, the queues fill.
                    let no_deadline = Instant::now() + Duration::from_secs(3600);
                    match self.wait(Some(socket), PollFlags::OUT, no_deadline) {
                        Err(End::Failed(error)) if error.kind() == io::ErrorKind::TimedOut => {}
                        result => result?,
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn count_sent(&mut self) {
        let mut count = 0;
        while let Some(end) = frame_end(&self.frames, self.sent).filter(|end| *end <= self.written) {
            self.sent = end;
            count += 1;
        }
        self.counts.sent.fetch_add(count, Relaxed);
    }

    /// Ends the stream. The reader confirms that it has read it to its end.
    fn finish(&self, socket: &Socket) -> Result<(), End> {
        let deadline = Instant::now() + HANDSHAKE;
        self.write_control(socket, Control::Stop, deadline)?;
        self.read_control(socket, deadline)?;
        Ok(())
    }

    fn write_control(&self, socket: &Socket, control: Control, deadline: Instant) -> Result<(), End> {
        let frame = control.frame();
        let mut rest = &frame[..];
        while !rest.is_empty() {
            match socket.send_with_flags(rest, libc::MSG_NOSIGNAL) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(Some(socket), PollFlags::OUT, deadline)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn read_control(&self, mut socket: &Socket, deadline: Instant) -> Result<Control, End> {
        let (mut bytes, mut part) = (Vec::new(), [0; 64]);
        loop {
            if let Some((control, _)) = frames::parse(&bytes)? {
                return Ok(control);
            }
            match socket.read(&mut part) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(count) => bytes.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(Some(socket), PollFlags::IN, deadline)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for the socket. It is an error if the time is over, also that of `Output::stop`. Without a
    /// socket, waits for the time.
    fn wait(&self, socket: Option<&Socket>, wanted: PollFlags, until: Instant) -> Result<(), End> {
        loop {
            let stop_at = self.stop.at.get().copied();
            let now = Instant::now();
            let deadline = stop_at.map_or(until, |at| at.min(until));
            if socket.is_none() && stop_at.is_some() || stop_at.is_some_and(|at| at <= now) {
                return Err(End::Stopped);
            }
            if deadline <= now {
                return match socket {
                    Some(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
                    None => Ok(()),
                };
            }
            let timeout = timespec(deadline - now);
            let mut waiting = Vec::with_capacity(2);
            waiting.extend(socket.map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), wanted)));
            if stop_at.is_none() {
                waiting.push(PollFd::new(&self.stop.wake, PollFlags::IN));
            }
            match poll(&mut waiting, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
            if socket.is_some() && !waiting[0].revents().is_empty() {
                return Ok(());
            }
        }
    }

    /// Counts the frames that are not sent any more.
    fn drop_all(&mut self) {
        loop {
            let (mut at, mut count) = (0, 0);
            while let Some(end) = frame_end(&self.frames, at) {
                (at, count) = (end, count + 1);
            }
            self.counts.unsent.fetch_add(count, Relaxed);
            self.frames.clear();
            self.collect();
            if self.frames.is_empty() {
                return;
            }
        }
    }
}

/// The end of the frame at `at`.
fn frame_end(frames: &[u8], at: usize) -> Option<usize> {
    let length = frames.get(at..)?.first_chunk().map(|four| u32::from_be_bytes(*four))?;
    Some(at + 4 + length as usize).filter(|end| *end <= frames.len())
}

/// Why a reader that had nothing to say became readable.
fn refused(mut socket: &Socket) -> End {
    match socket.read(&mut [0; 64]) {
        Ok(0) => End::Failed(io::Error::other("the reader has closed it")),
        Ok(_) => Invalid::NotAControlFrame.into(),
        Err(error) => error.into(),
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}
