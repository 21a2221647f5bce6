//! Ten thousand connections that never become one: idle, garbage, handshakes that stall.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::wire::{word, Dice};

const CONNECT: Duration = Duration::from_secs(3);

#[derive(Default)]
pub struct Flood {
    pub connected: usize,
    pub failed: usize,
    /// The most that one connection was told.
    pub bytes_max: usize,
}

/// Ways to begin and fall silent; `STALLED` begins as everybody does.
const OPENINGS: usize = 6;
pub const STALLED: usize = 2;

fn opening(kind: usize, dice: &mut Dice) -> Vec<u8> {
    let noise = || [word("/multistream/1.0.0"), word("/noise")].concat();
    match kind {
        0 => vec![],
        1 => {
            let len = 1 + dice.below(1500);
            dice.bytes(len)
        }
        2 => noise(),
        // A first message of the handshake: any 32 bytes are a key. The answer is never heard.
        3 => [noise(), vec![0, 32], dice.bytes(32)].concat(),
        4 => vec![19],
        _ => [noise(), vec![0xff, 0xff], dice.bytes(700)].concat(),
    }
}

async fn connect(from: Option<IpAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(from) = from {
        socket.bind((from, 0).into())?;
    }
    socket.connect(to).await
}

/// Connections in waves, each held for a while and then dropped, every other connection by reset.
pub struct Waves {
    pub count: usize,
    pub wave: usize,
    pub hold: Duration,
    /// The addresses to come from, in turn; none: whatever the system takes.
    pub from: Vec<IpAddr>,
    /// The only opening to use; none: all of them in turn.
    pub only: Option<usize>,
}

pub async fn flood(to: SocketAddr, waves: &Waves, dice: &mut Dice) -> Flood {
    let Waves { count, wave, hold, from, only } = waves;
    let mut sum = Flood::default();
    for first in (0..*count).step_by(*wave) {
        let connecting = (first..*count.min(&(first + wave))).map(|i| {
            let opening = opening(only.unwrap_or(i % OPENINGS), dice);
            let from = from.get(i % from.len().max(1)).copied();
            async move {
                let mut socket = timeout(CONNECT, connect(from, to)).await.ok()?.ok()?;
                let _ = socket.write_all(&opening).await;
                Some(socket)
            }
        });
        let made = join_all(connecting).await;
        tokio::time::sleep(*hold).await;
        for (i, socket) in made.into_iter().enumerate() {
            let Some(mut socket) = socket else {
                sum.failed += 1;
                continue;
            };
            sum.connected += 1;
            let mut told = vec![0; 4096];
            let got = timeout(Duration::ZERO, socket.read(&mut told)).await;
            sum.bytes_max = sum.bytes_max.max(got.ok().and_then(Result::ok).unwrap_or(0));
            if i % 2 == 0 {
                let _ = socket.set_zero_linger();
            }
        }
    }
    sum
}
