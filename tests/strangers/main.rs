//! A stranger: a libp2p client of its own that tries to get something out of a node of shoal, for
//! tests/cluster/test_strangers.py. It is not part of the product.
//!
//!   shoal_stranger issue --signer FILE [--names FILE] --member FILE --serial N --expires S --out FILE
//!   shoal_stranger id --key FILE                                     the peer id of a key
//!   shoal_stranger show ADDRESS --key FILE [--certificate FILE]      one gate message; what came back
//!   shoal_stranger malform ADDRESS --key FILE --certificate FILE --count N --seed N
//!   shoal_stranger flood ADDRESS --count N --wave N --hold-ms N --seed N
//!                                  [--from IP,IP] [--stall yes]
//!   shoal_stranger break-rules ADDRESS --key FILE --certificate FILE --count N --seed N
//!   shoal_stranger promise ADDRESS --key FILE --certificate FILE --count N --hold-ms N
//!   shoal_stranger listen ADDRESS --key FILE [--certificate FILE]    for whoever dials it first
//!
//! ADDRESS is IP:PORT. Key files hold 32-byte Ed25519 seeds, as node.key and cluster.key do. Each prints one line of
//! JSON. Exit code: 0 when it could try; what came of it is in the JSON. 2: could not even try.

mod flood;
mod member;
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::{env, fs, io, process};

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::identity::Keypair;

use wire::{Dice, PATIENCE};

struct Words(HashMap<String, String>);

impl Words {
    fn text(&self, name: &str) -> io::Result<&str> {
        let missing = || io::Error::other(format!("--{name} is missing"));
        self.0.get(name).map(String::as_str).ok_or_else(missing)
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> io::Result<T> {
        self.text(name)?.parse().map_err(|_| io::Error::other(format!("--{name} is no number")))
    }

    fn key(&self, name: &str) -> io::Result<Keypair> {
        Keypair::ed25519_from_bytes(fs::read(self.text(name)?)?).map_err(io::Error::other)
    }

    fn certificate(&self) -> io::Result<Vec<u8>> {
        self.0.get("certificate").map_or(Ok(vec![]), fs::read)
    }

    fn address(&self) -> io::Result<SocketAddr> {
        self.text("address")?.parse().map_err(io::Error::other)
    }

    fn dice(&self) -> io::Result<Dice> {
        Ok(Dice::new(self.number("seed")?))
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace(char::is_control, " "))
}

fn issue(words: &Words) -> io::Result<String> {
    let (signer, member) = (words.key("signer")?, words.key("member")?);
    let named = if words.0.contains_key("names") { wire::public(&words.key("names")?) } else { wire::public(&signer) };
    let (serial, expires_s) = (words.number("serial")?, words.number("expires")?);
    let certificate = wire::certificate(&signer, &named, &wire::public(&member), serial, expires_s);
    fs::write(words.text("out")?, certificate)?;
    Ok("{}".into())
}

/// What the other end said after it heard `message`: a hello's first bytes, a refusal, nothing.
struct Answer {
    bytes: Vec<u8>,
    closed: bool,
}

async fn tell(socket: &mut wire::Secured, message: &[u8], then_close: bool) -> io::Result<Answer> {
    socket.write_all(message).await?;
    socket.flush().await?;
    if then_close {
        let _ = socket.close().await;
    }
    let (bytes, closed) = wire::drain(socket, 1 << 16, PATIENCE).await;
    Ok(Answer { bytes, closed })
}

async fn show(words: &Words) -> io::Result<String> {
    let (key, certificate) = (words.key("key")?, words.certificate()?);
    let (peer, mut socket, heard) = wire::secure(words.address()?, &key).await?;
    socket.write_all(&wire::hello(&certificate)).await?;
    socket.flush().await?;
    let mut len = [0; 2];
    let mut body = vec![];
    let first = async {
        socket.read_exact(&mut len).await?;
        body.resize(u16::from_le_bytes(len) as usize, 0);
        socket.read_exact(&mut body).await
    };
    let _ = tokio::time::timeout(PATIENCE, first).await.map_err(|_| wire::late())?;
    if body.first() == Some(&1) {
        let mut connection = member::Connection::over(socket).await?;
        let agent = connection.identify_and_ping().await?;
        return Ok(format!("{{\"peer\":\"{peer}\",\"let_in\":true,\"agent\":{}}}", quoted(&agent)));
    }
    let (more, closed) = wire::drain(&mut socket, 1 << 16, PATIENCE).await;
    let said = [&len[..], &body, &more].concat();
    let reason = wire::refusal(&said).map_or("null".into(), |r| r.to_string());
    let heard = heard.load(Ordering::Relaxed);
    Ok(format!(
        "{{\"peer\":\"{peer}\",\"let_in\":false,\"reason\":{reason},\"plain_bytes\":{},\"wire_bytes\":{heard},\
         \"closed\":{closed}}}",
        said.len()
    ))
}

/// One message that is not a hello of this key; `true`: our side closes after it.
fn malformed(valid: &[u8], i: usize, dice: &mut Dice) -> (Vec<u8>, bool) {
    let body = &valid[2..];
    let changed = |at: usize, to: u8| {
        let mut bytes = valid.to_vec();
        bytes[at] = to;
        bytes
    };
    match i {
        0 => (vec![], true),
        1 => (vec![5], true),
        2 => (vec![0, 0], false),
        3 => (vec![0xff; 1500], false),
        4 => (wire::gate_message(&[1; 1023]), false),
        5 => (wire::gate_message(&[body, &vec![0; 1022 - body.len()]].concat()), false),
        6 => (changed(3, 2), false),
        7 => (changed(2, 9), false),
        8 => (changed(2, 3), false),
        9 => (changed(2, 4), false),
        10 => (wire::gate_message(&[&[2, 1][..], &dice.bytes(32), b"stranger"].concat()), false),
        11 => (wire::gate_message(&[&[2, 1][..], &dice.bytes(32), b"line\nfeed"].concat()), false),
        12 => (wire::gate_message(&[4, 1, 1]), false),
        13 => (valid[..valid.len() / 2].to_vec(), false), // and then silence
        14 => (vec![], false),
        _ => match i % 4 {
            0 => {
                let len = dice.below(1100);
                (dice.bytes(len), true)
            }
            1 => {
                // A flipped bit anywhere but in the two numbers, which may have any value.
                let at = [2 + dice.below(2), 20 + dice.below(valid.len() - 20)][dice.below(2)];
                (changed(at, valid[at] ^ (1 << dice.below(8))), false)
            }
            2 => (wire::gate_message(&body[..dice.below(body.len())]), false),
            _ => {
                let at = dice.below(body.len() + 1);
                (wire::gate_message(&[&body[..at], &dice.bytes(1), &body[at..]].concat()), false)
            }
        },
    }
}

async fn malform(words: &Words) -> io::Result<String> {
    let (key, valid) = (words.key("key")?, wire::hello(&words.certificate()?));
    let (to, mut dice, count) = (words.address()?, words.dice()?, words.number::<usize>("count")?);
    const AT_ONCE: usize = 4; // fewer than a node lets one address have in the handshake
    let (mut reasons, mut silent, mut wrong) = (BTreeMap::<u8, usize>::new(), 0, vec![]);
    for first in (0..count).step_by(AT_ONCE) {
        let tries = (first..count.min(first + AT_ONCE)).map(|i| {
            let ((message, then_close), key) = (malformed(&valid, i, &mut dice), &key);
            async move {
                let (_, mut socket, _) = wire::secure(to, key).await?;
                // A node that has heard enough closes, also while we still write.
                Ok::<_, io::Error>((i, message.clone(), tell(&mut socket, &message, then_close).await))
            }
        });
        for tried in futures::future::join_all(tries).await {
            let (i, message, answer) = tried?;
            match answer {
                Err(_) => silent += 1,
                Ok(Answer { bytes, closed: true }) if bytes.is_empty() => silent += 1,
                Ok(Answer { bytes, closed }) => match wire::refusal(&bytes) {
                    Some(reason) if closed => *reasons.entry(reason).or_default() += 1,
                    _ => wrong.push(quoted(&format!("{i}: {message:02x?} -> {bytes:02x?}, closed {closed}"))),
                },
            }
        }
    }
    let reasons: Vec<String> = reasons.iter().map(|(reason, n)| format!("\"{reason}\":{n}")).collect();
    Ok(format!(
        "{{\"tried\":{count},\"silent\":{silent},\"reasons\":{{{}}},\"wrong\":[{}]}}",
        reasons.join(","),
        wrong.join(",")
    ))
}

async fn flooded(words: &Words) -> io::Result<String> {
    let from = words.0.get("from").map_or("", String::as_str).split(',').filter(|ip| !ip.is_empty());
    let waves = flood::Waves {
        count: words.number("count")?,
        wave: words.number("wave")?,
        hold: Duration::from_millis(words.number("hold-ms")?),
        from: from.map(|ip| ip.parse().map_err(io::Error::other)).collect::<io::Result<_>>()?,
        only: words.0.contains_key("stall").then_some(flood::STALLED),
    };
    let sum = flood::flood(words.address()?, &waves, &mut words.dice()?).await;
    let flood::Flood { connected, failed, bytes_max } = sum;
    Ok(format!("{{\"connected\":{connected},\"failed\":{failed},\"bytes_max\":{bytes_max}}}"))
}

/// Through the gate, by a certificate that is good.
async fn enter(words: &Words) -> io::Result<member::Connection> {
    let (_, mut socket, _) = wire::secure(words.address()?, &words.key("key")?).await?;
    socket.write_all(&wire::hello(&words.certificate()?)).await?;
    socket.flush().await?;
    let mut len = [0; 2];
    socket.read_exact(&mut len).await?;
    let mut body = vec![0; u16::from_le_bytes(len) as usize];
    socket.read_exact(&mut body).await?;
    if body.first() != Some(&1) {
        return Err(io::Error::other("refused"));
    }
    member::Connection::over(socket).await
}

async fn break_rules(words: &Words) -> io::Result<String> {
    let mut connection = enter(words).await?;
    let seen = member::break_rules(&mut connection, &mut words.dice()?, words.number("count")?).await?;
    let closed = seen.iter().filter(|s| s.closed).count();
    let open = seen.iter().filter(|s| !s.closed && !s.may_stay).map(|s| quoted(&format!("{}: {}", s.protocol, s.what)));
    let open: Vec<String> = open.collect();
    Ok(format!("{{\"tried\":{},\"closed\":{closed},\"open\":[{}]}}", seen.len(), open.join(",")))
}

async fn promise(words: &Words) -> io::Result<String> {
    let mut connection = enter(words).await?;
    let hold = Duration::from_millis(words.number("hold-ms")?);
    member::promise(&mut connection, words.number("count")?, hold).await?;
    Ok("{}".into())
}

/// Dialled by a node: what it shows, and whether it goes on after our hello.
async fn listen(words: &Words) -> io::Result<String> {
    let (key, certificate) = (words.key("key")?, words.certificate()?);
    let listener = tokio::net::TcpListener::bind(words.address()?).await?;
    loop {
        let (socket, _) = listener.accept().await?;
        let Ok((peer, mut socket, _)) = wire::secured(socket, &key).await else { continue };
        let mut len = [0; 2];
        socket.read_exact(&mut len).await?;
        let mut body = vec![0; u16::from_le_bytes(len) as usize];
        socket.read_exact(&mut body).await?;
        let answer = tell(&mut socket, &wire::hello(&certificate), false).await?;
        return Ok(format!(
            "{{\"peer\":\"{peer}\",\"shown_bytes\":{},\"more_bytes\":{},\"closed\":{}}}",
            body.len(),
            answer.bytes.len(),
            answer.closed
        ));
    }
}

async fn run() -> io::Result<String> {
    let mut given = env::args().skip(1);
    let mode = given.next().unwrap_or_default();
    let mut words = HashMap::new();
    while let Some(word) = given.next() {
        match word.strip_prefix("--") {
            Some(name) => words.insert(name.to_owned(), given.next().unwrap_or_default()),
            None => words.insert("address".into(), word),
        };
    }
    let words = Words(words);
    match mode.as_str() {
        "issue" => issue(&words),
        "id" => Ok(format!("{{\"id\":\"{}\"}}", words.key("key")?.public().to_peer_id())),
        "show" => show(&words).await,
        "malform" => malform(&words).await,
        "flood" => flooded(&words).await,
        "break-rules" => break_rules(&words).await,
        "promise" => promise(&words).await,
        "listen" => listen(&words).await,
        _ => Err(io::Error::other("which mode? see the top of tests/strangers/main.rs")),
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match runtime.block_on(run()) {
        Ok(line) => println!("{line}"),
        Err(e) => {
            eprintln!("shoal_stranger: {e}");
            process::exit(2);
        }
    }
}
