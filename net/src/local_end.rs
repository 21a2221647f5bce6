//! Our end of a socketpair. Waits for bytes at all times, for room to write only while there is none: sockets of tokio
//! are woken by both, so that each read at the other end would wake the network's thread, on the way of every token. A
//! write without room takes a second descriptor until there is some.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{ready, Context, Poll};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

pub struct LocalEnd {
    socket: AsyncFd<UnixStream>,
    room: Option<AsyncFd<UnixStream>>, // since the last write found none
}

impl LocalEnd {
    /// `socket` must not block. Inside the runtime only.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        Ok(LocalEnd { socket: wait_for(socket, Interest::READABLE)?, room: None })
    }
}

fn wait_for(socket: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    // SAFETY: a UnixStream owns its descriptor, which stays open and the same until it is dropped, with the AsyncFd.
    unsafe { AsyncFd::register_with_interest(socket, interest) }.map_err(io::Error::from)
}

impl AsyncRead for LocalEnd {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(cx))?;
            let unfilled = into.initialize_unfilled();
            let space = unfilled.len();
            let Ok(read) = ready.try_io(|socket| socket.get_ref().read(unfilled)) else { continue };
            let n = read?;
            if 0 < n && n < space {
                ready.clear_ready(); // that was all: more wakes us again
            }
            into.advance(n);
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for LocalEnd {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            if let Some(room) = &this.room {
                drop(ready!(room.poll_write_ready(cx))?);
                this.room = None;
            }
            match this.socket.get_ref().write(bytes) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
            // A descriptor can be waited on once.
            this.room = Some(wait_for(this.socket.get_ref().try_clone()?, Interest::WRITABLE)?);
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.socket.get_ref().shutdown(Shutdown::Write) {
            Err(e) if e.kind() == ErrorKind::NotConnected => Poll::Ready(Ok(())), // the other end has closed, on macOS
            done => Poll::Ready(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::Arc;
    use std::task::{Wake, Waker};
    use std::thread;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const MANY: usize = 5 << 20; // far more than the kernel holds

    fn pair() -> (LocalEnd, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (LocalEnd::new(ours).unwrap(), theirs)
    }

    fn bytes() -> Vec<u8> {
        (0..MANY).map(|i| (i * 31 % 251) as u8).collect()
    }

    /// Reads to the end, by small pieces and with pauses.
    fn read_slowly(mut from: UnixStream) -> Vec<u8> {
        let (mut all, mut piece) = (Vec::new(), vec![0; 100_000]);
        loop {
            let n = from.read(&mut piece).unwrap();
            all.extend_from_slice(&piece[..n]);
            if n == 0 {
                return all;
            }
            thread::sleep(Duration::from_micros(200));
        }
    }

    #[tokio::test]
    async fn who_reads_slowly_gets_all_of_it() {
        let (mut ours, theirs) = pair();
        let reader = thread::spawn(move || read_slowly(theirs));
        ours.write_all(&bytes()).await.unwrap();
        ours.shutdown().await.unwrap();
        assert!(reader.join().unwrap() == bytes());
    }

    #[tokio::test]
    async fn both_ways_at_once() {
        let (ours, theirs) = pair();
        let mut writing = theirs.try_clone().unwrap();
        let writer = thread::spawn(move || {
            for piece in bytes().chunks(70_000) {
                writing.write_all(piece).unwrap();
            }
            writing.shutdown(Shutdown::Write).unwrap();
        });
        let reader = thread::spawn(move || read_slowly(theirs));
        let (mut from, mut to) = tokio::io::split(ours);
        let echoed = tokio::io::copy(&mut from, &mut to).await.unwrap();
        to.shutdown().await.unwrap();
        assert_eq!(echoed, MANY as u64);
        assert!(reader.join().unwrap() == bytes());
        writer.join().unwrap();
    }

    #[tokio::test]
    async fn a_write_that_waits_ends_with_the_other_side() {
        let (mut ours, theirs) = pair();
        let closer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            drop(theirs);
        });
        let failed = ours.write_all(&bytes()).await.unwrap_err();
        assert!(matches!(failed.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{failed}");
        closer.join().unwrap();
    }

    /// Why this is not a socket of tokio's.
    #[tokio::test]
    async fn nobody_wakes_when_the_other_side_has_read() {
        struct Woken(AtomicUsize);
        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let (mut ours, mut theirs) = pair();
        let woken = Arc::new(Woken(AtomicUsize::new(0)));
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        let mut space = [0; 16];
        ours.write_all(b"shoal").await.unwrap();
        assert!(Pin::new(&mut ours).poll_read(&mut cx, &mut ReadBuf::new(&mut space)).is_pending());
        theirs.read_exact(&mut [0; 5]).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        theirs.write_all(b"fish").unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(woken.0.load(Ordering::SeqCst), 1, "but when it has written");
    }

    #[tokio::test]
    async fn small_words_come_one_by_one() {
        let (mut ours, mut theirs) = pair();
        let other = thread::spawn(move || {
            let mut word = [0; 4];
            for _ in 0..1000 {
                theirs.read_exact(&mut word).unwrap();
                theirs.write_all(&word).unwrap();
            }
        });
        for i in 0..1000u32 {
            ours.write_all(&i.to_be_bytes()).await.unwrap();
            let mut word = [0; 4];
            ours.read_exact(&mut word).await.unwrap();
            assert_eq!(word, i.to_be_bytes());
        }
        other.join().unwrap();
        assert_eq!(ours.read(&mut [0; 4]).await.unwrap(), 0, "the other side has ended");
    }
}
