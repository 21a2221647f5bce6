//! What a stranger knows of shoal's wire: docs/wire-format.md and libp2p's specifications, written down once more.
//! Shares no code with the node.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p::identity::Keypair;
use libp2p::{noise, PeerId};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

/// Longer than a node lets a handshake take.
pub const PATIENCE: Duration = Duration::from_secs(6);

/// Numbers that a seed repeats.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

/// Counts what comes in from the network.
pub struct Heard<T> {
    inner: T,
    bytes: Arc<AtomicU64>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Heard<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let got = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if let Poll::Ready(Ok(n)) = got {
            self.bytes.fetch_add(n as u64, Ordering::Relaxed);
        }
        got
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Heard<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

pub type Secured = noise::Output<Heard<Compat<TcpStream>>>;

pub fn late() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

fn other(e: impl std::fmt::Display) -> io::Error {
    io::Error::other(e.to_string())
}

/// One word of multistream-select: a varint length, the text, a line feed.
pub fn word(text: &str) -> Vec<u8> {
    let mut bytes = vec![text.len() as u8 + 1]; // all of ours are short
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(b'\n');
    bytes
}

async fn read_word<T: AsyncRead + Unpin>(socket: &mut T) -> io::Result<String> {
    let mut len = [0];
    socket.read_exact(&mut len).await?;
    if len[0] == 0 || len[0] >= 128 {
        return Err(other("not a word of multistream"));
    }
    let mut text = vec![0; len[0] as usize];
    socket.read_exact(&mut text).await?;
    String::from_utf8(text).map_err(other).map(|t| t.trim_end_matches('\n').to_owned())
}

const HEADER: &str = "/multistream/1.0.0";

/// Proposes one protocol; an error when the other end does not speak it.
pub async fn propose<T: AsyncRead + AsyncWrite + Unpin>(socket: &mut T, protocol: &str) -> io::Result<()> {
    socket.write_all(&[word(HEADER), word(protocol)].concat()).await?;
    socket.flush().await?;
    for expected in [HEADER, protocol] {
        let said = read_word(socket).await?;
        if said != expected {
            return Err(other(format!("{expected} was answered by {said}")));
        }
    }
    Ok(())
}

/// Takes whatever of `protocols` the other end proposes.
pub async fn consent<T: AsyncRead + AsyncWrite + Unpin>(socket: &mut T, protocols: &[&str]) -> io::Result<String> {
    if read_word(socket).await? != HEADER {
        return Err(other("not multistream"));
    }
    socket.write_all(&word(HEADER)).await?;
    loop {
        socket.flush().await?;
        let proposed = read_word(socket).await?;
        let known = protocols.contains(&proposed.as_str());
        socket.write_all(&word(if known { &proposed } else { "na" })).await?;
        if known {
            socket.flush().await?;
            return Ok(proposed);
        }
    }
}

fn listening_to(socket: TcpStream) -> (Heard<Compat<TcpStream>>, Arc<AtomicU64>) {
    let bytes = Arc::new(AtomicU64::new(0));
    (Heard { inner: socket.compat(), bytes: bytes.clone() }, bytes)
}

/// Connects and runs Noise: who the other end proved to be, the channel, the bytes heard from the network so far on.
pub async fn secure(to: SocketAddr, own: &Keypair) -> io::Result<(PeerId, Secured, Arc<AtomicU64>)> {
    let greeting = async {
        let (mut socket, heard) = listening_to(TcpStream::connect(to).await?);
        propose(&mut socket, "/noise").await?;
        let noise = noise::Config::new(own).map_err(other)?;
        let (peer, socket) = noise.upgrade_outbound(socket, "/noise").await.map_err(other)?;
        Ok((peer, socket, heard))
    };
    timeout(PATIENCE, greeting).await.map_err(|_| late())?
}

/// The other role: someone has dialled us.
pub async fn secured(socket: TcpStream, own: &Keypair) -> io::Result<(PeerId, Secured, Arc<AtomicU64>)> {
    let greeting = async {
        let (mut socket, heard) = listening_to(socket);
        consent(&mut socket, &["/noise"]).await?;
        let noise = noise::Config::new(own).map_err(other)?;
        let (peer, socket) = noise.upgrade_inbound(socket, "/noise").await.map_err(other)?;
        Ok((peer, socket, heard))
    };
    timeout(PATIENCE, greeting).await.map_err(|_| late())?
}

/// Everything that still comes, at most `bytes_max`; and whether the other end closed.
pub async fn drain<T: AsyncRead + Unpin>(socket: &mut T, bytes_max: usize, wait: Duration) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let mut chunk = [0; 4096];
    let until = tokio::time::Instant::now() + wait;
    loop {
        match tokio::time::timeout_at(until, socket.read(&mut chunk)).await {
            Err(_) => return (all, false),
            Ok(Ok(0) | Err(_)) => return (all, true),
            Ok(Ok(n)) => all.extend_from_slice(&chunk[..n]),
        }
        if all.len() > bytes_max {
            return (all, false);
        }
    }
}

/// A message of the gate: its length goes in front.
pub fn gate_message(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u16).to_le_bytes(), body].concat()
}

pub fn hello(certificate: &[u8]) -> Vec<u8> {
    gate_message(&[&[1, 1][..], &1_000u64.to_le_bytes(), &77u64.to_le_bytes(), certificate].concat())
}

/// The reason in a refusal, when `bytes` are exactly one refusal.
pub fn refusal(bytes: &[u8]) -> Option<u8> {
    match bytes {
        [3, 0, 4, 1, reason] => Some(*reason),
        _ => None,
    }
}

pub fn public(key: &Keypair) -> [u8; 32] {
    key.public().try_into_ed25519().expect("made from a seed").to_bytes()
}

/// A membership certificate, signed by whatever key this is.
pub fn certificate(cluster: &Keypair, named: &[u8; 32], member: &[u8; 32], serial: u64, expires_s: i64) -> Vec<u8> {
    let mut bytes = b"SHLC\x01".to_vec();
    bytes.extend_from_slice(named);
    bytes.extend_from_slice(member);
    bytes.extend_from_slice(&serial.to_le_bytes());
    bytes.extend_from_slice(&0i64.to_le_bytes());
    bytes.extend_from_slice(&expires_s.to_le_bytes());
    bytes.extend_from_slice(b"\x08stranger");
    let signature = cluster.sign(&bytes).expect("Ed25519 signs anything");
    [bytes, signature].concat()
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0x82F6_3B78 * (c & 1)));
    !bytes.iter().fold(!0, step)
}

/// A frame (docs/wire-format.md) of any type, with a right checksum.
pub fn frame(kind: u8, epoch: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = b"SHL1\x01".to_vec();
    bytes.extend_from_slice(&[kind, 0, 0]);
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32c(payload).to_le_bytes());
    bytes.extend_from_slice(&epoch.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}
