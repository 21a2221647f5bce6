//! One task per stream: copies between a libp2p stream and our end of a socketpair, whose other end C++ holds.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use tokio_util::compat::FuturesAsyncReadCompatExt;

use crate::crypto::Key;
use crate::events::{Event, Kind, Queue};
use crate::local_end::LocalEnd;
use crate::stream_handler::InUse;

/// What the kernel may hold of one direction between C++ and the pump: enough for a few micro-batches, so that a stage
/// computes while its last output is on its way, and little enough that a slow reader is felt.
const SOCKET_BUFFER_BYTES: libc::c_int = 1 << 20;
const COPY_BUFFER_BYTES: usize = 64 << 10;

/// What all pumps of a node share.
#[derive(Clone)]
pub struct Pumps {
    pub queue: Arc<Queue>,
    pub running: Arc<AtomicU32>,
}

/// Counts itself for as long as it lives.
struct Running(Arc<AtomicU32>);

impl Running {
    fn new(count: &Arc<AtomicU32>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Running(count.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Pumps {
    /// Starts the pump of `stream`; returns the end for C++. Inside the runtime only.
    pub fn start(&self, stream: libp2p::Stream, in_use: InUse, id: u64, peer: Key) -> io::Result<OwnedFd> {
        let (ours, theirs) = UnixStream::pair()?;
        for socket in [&ours, &theirs] {
            for option in [libc::SO_SNDBUF, libc::SO_RCVBUF] {
                let size = SOCKET_BUFFER_BYTES;
                // SAFETY: a live socket and a pointer to one int. Failing leaves a smaller buffer, which is fine.
                unsafe {
                    let value = (&raw const size).cast();
                    libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, size_of_val(&size) as u32);
                }
            }
        }
        ours.set_nonblocking(true)?;
        let ours = LocalEnd::new(ours)?;
        let counted = (Running::new(&self.running), in_use);
        tokio::spawn(self.clone().run(stream, ours, id, peer, counted));
        Ok(theirs.into())
    }

    async fn run(
        self, stream: libp2p::Stream, mut local: LocalEnd, id: u64, peer: Key, (_running, in_use): (Running, InUse),
    ) {
        let mut stream = stream.compat();
        let copy = tokio::io::copy_bidirectional_with_sizes(&mut stream, &mut local, COPY_BUFFER_BYTES, COPY_BUFFER_BYTES);
        let ended = tokio::select! {
            ended = copy => ended.map(|_| ()),
            () = in_use.cancelled() => Err(io::Error::new(io::ErrorKind::ConnectionReset, "the connection is gone")),
        };
        let (lost, text) = match ended {
            Ok(()) => (false, String::new()),
            Err(e) => (true, e.to_string()),
        };
        self.queue.push(Event { id, peer, lost, text, ..Event::new(Kind::StreamEnd) });
    }
}
