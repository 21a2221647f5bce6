//! A socket that counts its bytes and, when it carries bulk, keeps to a pace.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{ready, Context, Poll};
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::connection::ConnectedPoint;
use libp2p::core::transport::PortUse;
use libp2p::tcp::tokio::TcpStream;
use libp2p::Multiaddr;

use crate::pace::{Pace, Seen};

/// After so long without an answer a connection is over. Longer than a member is thought alive without a word.
const SILENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Counters {
    pub sent: AtomicU64,
    pub received: AtomicU64,
}

/// What a socket and the connection over it tell each other.
struct Shared {
    fd: AtomicI32, // -1: closed. All of this is the network thread's.
    is_bulk: AtomicBool,
    delivered: AtomicU64,
}

/// The socket under a connection, for as long as there is one.
#[derive(Default)]
pub struct Socket(Weak<Shared>);

impl Socket {
    /// It carries bulk.
    pub fn mark_bulk(&self) {
        if let Some(shared) = self.0.upgrade() {
            shared.is_bulk.store(true, Ordering::Relaxed);
        }
    }

    /// What it delivered at best lately, bytes a second; 0 when that is not known.
    pub fn delivered(&self) -> u64 {
        self.0.upgrade().map_or(0, |shared| shared.delivered.load(Ordering::Relaxed))
    }

    /// How often in a row what was sent was sent again without an answer; 0 when that is not known.
    pub fn resent(&self) -> u8 {
        let fd = self.0.upgrade().map_or(-1, |shared| shared.fd.load(Ordering::Relaxed));
        if fd < 0 { 0 } else { kernel::resent(fd) }
    }
}

/// The sockets in use. Those dialled for bulk are dialled from a new port and so know it from the start; those accepted
/// are told later.
#[derive(Clone, Default)]
pub struct Sockets(Arc<Mutex<HashMap<Place, Weak<Shared>>>>);

/// Where a socket leads. Two that are dialled to one address are told apart by what they are for.
#[derive(PartialEq, Eq, Hash)]
enum Place {
    Dialled { to: Multiaddr, for_bulk: bool },
    Accepted { from: Multiaddr },
}

impl Sockets {
    /// The latest one that leads there.
    pub fn find(&self, address: &Multiaddr, is_dialler: bool, for_bulk: bool) -> Socket {
        let address = address.clone();
        let place = if is_dialler { Place::Dialled { to: address, for_bulk } } else { Place::Accepted { from: address } };
        Socket(self.lock().get(&place).cloned().unwrap_or_default())
    }

    fn add(&self, point: &ConnectedPoint, fd: RawFd) -> Arc<Shared> {
        let (place, is_bulk) = match point {
            ConnectedPoint::Dialer { address, port_use, .. } => {
                let for_bulk = *port_use == PortUse::New;
                (Place::Dialled { to: address.clone(), for_bulk }, for_bulk)
            }
            ConnectedPoint::Listener { send_back_addr, .. } => (Place::Accepted { from: send_back_addr.clone() }, false),
        };
        let shared =
            Arc::new(Shared { fd: fd.into(), is_bulk: is_bulk.into(), delivered: AtomicU64::default() });
        let mut sockets = self.lock();
        sockets.retain(|_, socket| socket.strong_count() > 0);
        sockets.insert(place, Arc::downgrade(&shared));
        shared
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Weak<Shared>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Counted {
    socket: TcpStream,
    fd: RawFd, // of `socket`, and no longer than that
    counters: Arc<Counters>,
    shared: Arc<Shared>,
    pace: Option<Pace>,
}

impl Counted {
    pub fn new(socket: TcpStream, point: &ConnectedPoint, counters: Arc<Counters>, sockets: &Sockets) -> Self {
        let fd = socket.0.as_raw_fd();
        kernel::expect_answers(fd);
        Counted { socket, fd, counters, shared: sockets.add(point, fd), pace: None }
    }

    fn before_write(&mut self) {
        if !self.shared.is_bulk.load(Ordering::Relaxed) {
            return;
        }
        let now = Instant::now();
        if self.pace.is_none() {
            kernel::begin(self.fd);
        }
        let pace = self.pace.get_or_insert_default();
        if pace.is_due(now) && kernel::look(self.fd).is_some_and(|seen| pace.tick(now, seen)) {
            kernel::limit(self.fd, pace.rate());
            self.shared.delivered.store(pace.delivered(), Ordering::Relaxed);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.fd.store(-1, Ordering::Relaxed);
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.socket).poll_read(cx, into))?;
        self.counters.received.fetch_add(n as u64, Ordering::Relaxed);
        Poll::Ready(Ok(n))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.before_write();
        let n = ready!(Pin::new(&mut self.socket).poll_write(cx, bytes))?;
        self.counters.sent.fetch_add(n as u64, Ordering::Relaxed);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.before_write();
        let n = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, parts))?;
        self.counters.sent.fetch_add(n as u64, Ordering::Relaxed);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}

/// What Linux says of a TCP connection and lets one set. What fails changes nothing: then TCP alone decides.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod kernel {
    use super::*;

    /// Of what is written and not sent: small, so that a rate takes effect soon.
    const UNSENT_BYTES_MAX: u32 = 256 << 10;
    /// asm-generic/socket.h; the crate libc has it for Linux, not for Android.
    const SO_MAX_PACING_RATE: libc::c_int = 47;
    /// Background, for Wi-Fi's queues and for routers: DSCP CS1 (RFC 8325).
    const BACKGROUND: u32 = 8 << 2;

    fn set<T>(fd: RawFd, level: libc::c_int, option: libc::c_int, value: T) {
        // SAFETY: a descriptor that is open as long as its `Counted`, and a pointer to one T.
        unsafe {
            libc::setsockopt(fd, level, option, (&raw const value).cast(), size_of::<T>() as libc::socklen_t);
        }
    }

    /// Ends a connection whose peer answers nothing any more, whether something was sent or not: after many minutes TCP
    /// would do it by itself.
    pub fn expect_answers(fd: RawFd) {
        set(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, SILENCE.as_millis() as u32);
        set(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1u32);
        set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, SILENCE.as_secs() as u32 / 2);
        set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, SILENCE.as_secs() as u32 / 4);
    }

    pub fn begin(fd: RawFd) {
        set(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, UNSENT_BYTES_MAX);
        set(fd, libc::IPPROTO_IP, libc::IP_TOS, BACKGROUND);
        set(fd, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, BACKGROUND);
    }

    pub fn limit(fd: RawFd, bytes_per_s: u64) {
        // Kernels before 4.20 take 32 bits and no more.
        set(fd, libc::SOL_SOCKET, SO_MAX_PACING_RATE, bytes_per_s.min(u64::from(u32::MAX - 1)) as u32);
    }

    /// `struct tcp_info` of linux/tcp.h, which only ever grows, and how much of it there is; libc's own ends before what
    /// is needed.
    fn info(fd: RawFd) -> ([u8; 256], usize) {
        let mut info = [0u8; 256];
        let mut len = info.len() as libc::socklen_t;
        // SAFETY: as above; at most `len` bytes are written.
        let got = unsafe {
            libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut len)
        };
        (info, if got == 0 { len as usize } else { 0 })
    }

    pub fn resent(fd: RawFd) -> u8 {
        info(fd).0[2]
    }

    pub fn look(fd: RawFd) -> Option<Seen> {
        let (info, len) = info(fd);
        if len < 152 {
            return None;
        }
        let u32_at = |at: usize| u32::from_ne_bytes(info[at..at + 4].try_into().expect("4 bytes"));
        let acked_bytes = u64::from_ne_bytes(info[120..128].try_into().expect("8 bytes"));
        Some(Seen { acked_bytes, unsent_bytes: u32_at(144), rtt_us: u32_at(68), rtt_min_us: u32_at(148) })
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod kernel {
    use super::*;

    pub fn expect_answers(_: RawFd) {} // pings find out
    pub fn resent(_: RawFd) -> u8 {
        0
    }
    pub fn begin(_: RawFd) {}
    pub fn limit(_: RawFd, _: u64) {}
    pub fn look(_: RawFd) -> Option<Seen> {
        None
    }
}
