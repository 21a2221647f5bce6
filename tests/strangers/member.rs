//! What someone does who gets through the gate: streams over yamux, identify and ping, frames that break the rules.

use std::future::Future;
use std::io;
use std::pin::{pin, Pin};
use std::task::Poll;
use std::time::Duration;

use futures::future::{poll_fn, select, BoxFuture, Either};
use futures::stream::FuturesUnordered;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, FutureExt, StreamExt};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerExt};
use libp2p::core::upgrade::OutboundConnectionUpgrade;
use libp2p::yamux;
use tokio::time::timeout;

use crate::wire::{consent, drain, frame, late, propose, Dice, Secured, PATIENCE};

const CLOSES_WITHIN: Duration = Duration::from_secs(5);

/// A connection that the gate let through.
pub struct Connection {
    muxer: yamux::Muxer<Secured>,
    /// What the other end opened. A node answers no pings of a peer that answers none.
    theirs: FuturesUnordered<BoxFuture<'static, ()>>,
}

pub type Channel = <yamux::Muxer<Secured> as StreamMuxer>::Substream;

const PING: &str = "/ipfs/ping/1.0.0";

/// Answers pings; has no other protocol.
async fn serve(mut channel: Channel) {
    if consent(&mut channel, &[PING]).await.is_err() {
        return;
    }
    let mut bytes = [0; 32];
    while channel.read_exact(&mut bytes).await.is_ok() {
        if channel.write_all(&bytes).await.is_err() || channel.flush().await.is_err() {
            return;
        }
    }
}

fn varint(bytes: &mut &[u8]) -> Option<usize> {
    let mut value = 0;
    for shift in (0..28).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= ((first & 0x7f) as usize) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Field 6 of identify's one message: a length, then fields of protobuf, all of them with a length of their own.
fn agent_in(mut said: &[u8]) -> Option<Vec<u8>> {
    varint(&mut said)?;
    while !said.is_empty() {
        let (tag, len) = (varint(&mut said)?, varint(&mut said)?);
        let (field, rest) = said.split_at_checked(len)?;
        if tag == (6 << 3 | 2) {
            return Some(field.to_vec());
        }
        said = rest;
    }
    None
}

impl Connection {
    pub async fn over(mut socket: Secured) -> io::Result<Self> {
        propose(&mut socket, "/yamux/1.0.0").await?;
        let muxer = yamux::Config::default().upgrade_outbound(socket, "/yamux/1.0.0").await?;
        Ok(Connection { muxer, theirs: FuturesUnordered::new() })
    }

    /// Runs `work` while the connection moves.
    pub async fn while_open<T>(&mut self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let Connection { muxer, theirs } = self;
        let moving = poll_fn(|cx| loop {
            while let Poll::Ready(Some(())) = theirs.poll_next_unpin(cx) {}
            match muxer.poll_inbound_unpin(cx) {
                Poll::Ready(Ok(channel)) => theirs.push(serve(channel).boxed()),
                Poll::Ready(Err(e)) => return Poll::Ready(io::Error::other(e)),
                Poll::Pending => return Poll::Pending,
            }
        });
        match timeout(PATIENCE * 3, select(pin!(work), pin!(moving))).await {
            Ok(Either::Left((done, _))) => done,
            Ok(Either::Right((lost, _))) => Err(lost),
            Err(_) => Err(late()),
        }
    }

    pub async fn open(&mut self, protocol: &str) -> io::Result<Channel> {
        let mut channel = poll_fn(|cx| Pin::new(&mut self.muxer).poll_outbound(cx)).await?;
        self.while_open(async move {
            propose(&mut channel, protocol).await?;
            Ok(channel)
        })
        .await
    }

    /// The agent that identify names, after an echo by ping.
    pub async fn identify_and_ping(&mut self) -> io::Result<String> {
        let mut ping = self.open(PING).await?;
        let said: [u8; 32] = Dice::new(5).bytes(32).try_into().expect("32 bytes");
        let echo = self
            .while_open(async {
                ping.write_all(&said).await?;
                ping.flush().await?;
                let mut echo = [0; 32];
                ping.read_exact(&mut echo).await?;
                Ok(echo)
            })
            .await?;
        if echo != said {
            return Err(io::Error::other("ping brought back other bytes"));
        }
        let mut identify = self.open("/ipfs/id/1.0.0").await?;
        let (said, _) = self.while_open(async { Ok(drain(&mut identify, 1 << 16, CLOSES_WITHIN).await) }).await?;
        let agent = agent_in(&said);
        let agent = agent.ok_or_else(|| io::Error::other("identify names no agent"))?;
        Ok(String::from_utf8_lossy(&agent).into_owned())
    }
}

/// What one bad input led to.
pub struct Seen {
    pub protocol: &'static str,
    pub what: String,
    pub closed: bool,
    /// Random bytes may, by chance, be a message.
    pub may_stay: bool,
}

struct Case {
    what: String,
    bytes: Vec<u8>,
    /// Whether our side of the stream ends after the bytes: an incomplete frame is only wrong then.
    cut: bool,
    may_stay: bool,
}

fn header_with(change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = frame(6, 0, b"payload");
    change(&mut bytes);
    bytes
}

fn cases(kind: u8, dice: &mut Dice, random: usize) -> Vec<Case> {
    let whole = |what: &str, bytes| Case { what: what.into(), bytes, cut: false, may_stay: false };
    let cut = |what: &str, bytes| Case { what: what.into(), bytes, cut: true, may_stay: false };
    let mut list = vec![
        whole("noise", dice.bytes(512)),
        whole("another version", header_with(|b| b[4] = 2)),
        whole("another magic", header_with(|b| b[0] = b's')),
        whole("type 0", header_with(|b| b[5] = 0)),
        whole("type 15", header_with(|b| b[5] = 15)),
        whole("flags", header_with(|b| b[6] = 1)),
        whole("4 GiB", header_with(|b| b[8..12].fill(0xff))),
        whole("one byte over 64 MiB", header_with(|b| b[8..12].copy_from_slice(&((64u32 << 20) - 23).to_le_bytes()))),
        whole("a wrong checksum", {
            let mut bytes = frame(kind, 0, b"payload");
            bytes[12] ^= 1;
            bytes
        }),
        whole("no payload", frame(kind, 0, b"")),
        whole("another type", frame(if kind == 4 { 3 } else { 4 }, 0, b"payload")),
        cut("half a header", frame(kind, 0, b"payload")[..11].to_vec()),
        cut("half a payload", header_with(|b| b[8..12].copy_from_slice(&1_000_000u32.to_le_bytes()))),
        cut("nothing", vec![]),
    ];
    for i in 0..random {
        let len = dice.below(300);
        let payload = dice.bytes(len);
        list.push(Case { may_stay: true, ..whole(&format!("random payload {i}"), frame(kind, i as u64, &payload)) });
    }
    list
}

async fn send<T: AsyncRead + AsyncWrite + Unpin>(channel: &mut T, case: &Case) -> io::Result<bool> {
    // The other end may close before it has read everything: that is what is looked for.
    let sent = async {
        channel.write_all(&case.bytes).await?;
        if case.cut { channel.close().await } else { channel.flush().await }
    };
    let wait = if case.may_stay { Duration::from_millis(100) } else { CLOSES_WITHIN };
    if sent.await.is_err() {
        return Ok(true);
    }
    Ok(drain(channel, 1 << 20, wait).await.1)
}

/// Every malformed frame on every protocol, each on a stream of its own.
pub async fn break_rules(connection: &mut Connection, dice: &mut Dice, random: usize) -> io::Result<Vec<Seen>> {
    let mut seen = Vec::new();
    for (protocol, kind) in [
        ("/shoal/control/1", 6),
        ("/shoal/pipe/1", 7),
        ("/shoal/generate/1", 8),
        ("/shoal/keep/1", 11),
        ("/shoal/answer/1", 11),
        ("/shoal/weights/1", 12),
        ("/shoal/copy/1", 13),
    ] {
        for case in cases(kind, dice, random) {
            let mut channel = connection.open(protocol).await?;
            let closed = connection.while_open(async { send(&mut channel, &case).await }).await?;
            let Case { what, may_stay, .. } = case;
            // A question about weights that is none, say of another version, is refused in an answer.
            let may_stay = may_stay || (kind == 12 && what == "no payload");
            seen.push(Seen { protocol, what, closed, may_stay });
        }
    }
    Ok(seen)
}

/// Opens `streams` and promises a frame of nearly 64 MiB on each, sends none of it, and waits for `hold`.
pub async fn promise(connection: &mut Connection, streams: usize, hold: Duration) -> io::Result<()> {
    let header = header_with(|b| {
        b[5] = 7;
        b[8..12].copy_from_slice(&((64u32 << 20) - 24).to_le_bytes());
    });
    let mut held = Vec::new();
    for _ in 0..streams {
        let mut channel = connection.open("/shoal/pipe/1").await?;
        connection
            .while_open(async {
                channel.write_all(&header[..24]).await?;
                channel.flush().await
            })
            .await?;
        held.push(channel);
    }
    connection
        .while_open(async {
            tokio::time::sleep(hold).await;
            Ok(())
        })
        .await
}
