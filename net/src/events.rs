//! What the network has to tell, queued until C++ asks: bounded, with a descriptor that is readable while it holds
//! something. Knows nothing of where events come from.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::crypto::Key;

/// Beyond this, hints are dropped.
pub const HINTS_MAX: usize = 1024;
/// Beyond this, no new stream is handed over.
pub const STREAMS_MAX: usize = 2048;
/// Beyond this, the network waits for C++ (`Queue::has_room`).
pub const EVENTS_MAX: usize = 4096;

/// SN_EVENT_* of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum Kind {
    #[default]
    Listening = 1,
    ListenFailed,
    NotListening,
    Connected,
    Disconnected,
    DialFailed,
    Refused,
    Clone,
    Inbound,
    StreamEnd,
    Discovered,
    Expired,
    Joined,
    InviteClosed,
    Notice,
    Fatal,
}

#[derive(Debug, Default)]
pub struct Event {
    pub kind: Kind,
    pub fd: Option<OwnedFd>,
    pub id: u64,
    pub peer: Key,
    pub dialer: bool,
    pub lost: bool,
    pub by_peer: bool,
    pub later: bool,
    pub reason: u8,
    pub address: String,
    pub text: String,
    pub data: Vec<u8>,
}

impl Event {
    pub fn new(kind: Kind) -> Self {
        Event { kind, ..Default::default() }
    }

    fn limit(&self) -> usize {
        match self.kind {
            Kind::Discovered | Kind::Expired | Kind::DialFailed | Kind::Refused | Kind::Clone => HINTS_MAX,
            Kind::Inbound => STREAMS_MAX,
            Kind::StreamEnd => EVENTS_MAX,
            // Few: they come from polling the network, which stops at EVENTS_MAX.
            _ => usize::MAX,
        }
    }
}

pub struct Queue {
    events: Mutex<VecDeque<Event>>,
    signal: UnixStream,
    readable: UnixStream,
    dropped: AtomicU64,
    taken: Notify,
}

impl Queue {
    pub fn new() -> io::Result<Self> {
        let (readable, signal) = UnixStream::pair()?;
        readable.set_nonblocking(true)?;
        signal.set_nonblocking(true)?;
        Ok(Queue { events: Mutex::default(), signal, readable, dropped: AtomicU64::new(0), taken: Notify::new() })
    }

    /// Queues, or drops what its kind's limit does not let in (a stream so dropped reads as ended).
    pub fn push(&self, event: Event) {
        let mut events = self.lock();
        if events.len() >= event.limit() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        events.push_back(event);
        if events.len() == 1 {
            // Cannot fail but by a full buffer, and then the other end is readable, which is all we want.
            let _ = (&self.signal).write(&[1]);
        }
    }

    pub fn pop(&self) -> Option<Event> {
        let mut events = self.lock();
        let event = events.pop_front()?;
        if events.is_empty() {
            let mut sink = [0u8; 16];
            while matches!((&self.readable).read(&mut sink), Ok(n) if n > 0) {}
        }
        self.taken.notify_one();
        Some(event)
    }

    pub fn has_room(&self) -> bool {
        self.lock().len() < EVENTS_MAX
    }

    /// Returns after the next `pop`, or at once if there was one since the last call.
    pub async fn popped(&self) {
        self.taken.notified().await;
    }

    pub fn fd(&self) -> RawFd {
        self.readable.as_raw_fd()
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_readable(fd: RawFd) -> bool {
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&mut poll, 1, 0) == 1 }
    }

    #[test]
    fn the_descriptor_is_readable_exactly_while_something_waits() {
        let queue = Queue::new().unwrap();
        assert!(!is_readable(queue.fd()));
        for _ in 0..3 {
            queue.push(Event::new(Kind::Connected));
        }
        for left in (0..3).rev() {
            assert!(is_readable(queue.fd()));
            assert!(queue.pop().is_some());
            assert_eq!(is_readable(queue.fd()), left > 0);
        }
        assert!(queue.pop().is_none());
        queue.push(Event::new(Kind::Fatal));
        assert!(is_readable(queue.fd()));
    }

    #[test]
    fn hints_give_way_to_facts_and_all_is_bounded() {
        let queue = Queue::new().unwrap();
        for _ in 0..HINTS_MAX + 5 {
            queue.push(Event::new(Kind::Refused));
        }
        assert_eq!(queue.dropped(), 5);
        for _ in 0..EVENTS_MAX {
            queue.push(Event::new(Kind::Inbound));
        }
        assert_eq!(queue.lock().len(), STREAMS_MAX);
        assert!(queue.has_room());
        for _ in 0..EVENTS_MAX {
            queue.push(Event::new(Kind::StreamEnd));
        }
        assert_eq!(queue.lock().len(), EVENTS_MAX);
        assert!(!queue.has_room());
        queue.push(Event::new(Kind::Disconnected));
        assert_eq!(queue.lock().back().unwrap().kind, Kind::Disconnected);
    }
}
