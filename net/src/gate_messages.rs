//! The four messages of the gate, as bytes. Pure.
//!
//! Each is a u16 (little-endian) with the number of bytes that follow, at most 1022, then
//!   u8 kind   u8 version (1)   and
//!   1 hello   u64 uptime_ms   u64 instance   certificate (the rest; may be empty)
//!   2 join    proof [32]   name (the rest)
//!   3 grant   proof [32]   u16 n   certificate [n]   sealed extras (the rest)
//!   4 refuse  u8 reason
//! docs/wire-format.md says who sends which when.

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use std::io;

use crate::certificate::CERTIFICATE_BYTES_MAX;
use crate::crypto::{self, Key};

pub const MESSAGE_BYTES_MAX: usize = 1024;
pub const BODY_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 2;
const VERSION: u8 = 1;
const HELLO: u8 = 1;
const JOIN: u8 = 2;
const GRANT: u8 = 3;
const REFUSE: u8 = 4;

/// Why the gate closes a connection; SN_REASON_* of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    NoCertificate = 1,
    Forged = 2,
    OtherCluster = 3,
    Expired = 4,
    Revoked = 5,
    JoinClosed = 6,
    JoinWrong = 7,
    Malformed = 8,
    Own = 9,
    JoinUnproved = 10,
}

impl Reason {
    /// A reason from the wire; one that we do not know is as good as malformed.
    fn from_wire(byte: u8) -> Self {
        use Reason::*;
        [NoCertificate, Forged, OtherCluster, Expired, Revoked, JoinClosed, JoinWrong, Malformed, Own, JoinUnproved]
            .into_iter()
            .find(|r| *r as u8 == byte)
            .unwrap_or(Malformed)
    }

    pub fn text(self) -> &'static str {
        match self {
            Reason::NoCertificate => "no certificate was shown",
            Reason::Forged => "the certificate is not one of this key from this cluster",
            Reason::OtherCluster => "the certificate is of another cluster",
            Reason::Expired => "the certificate has expired",
            Reason::Revoked => "the certificate was revoked",
            Reason::JoinClosed => "no invite is open",
            Reason::JoinWrong => "the invite's code is wrong",
            Reason::Malformed => "not a message of this protocol",
            Reason::Own => "this is our own node",
            Reason::JoinUnproved => "the inviter does not know the code",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Hello { uptime_ms: u64, instance: u64, certificate: Vec<u8> },
    Join { proof: Key, name: String },
    Grant { proof: Key, certificate: Vec<u8>, extras: Vec<u8> },
    Refuse(Reason),
}

impl Message {
    /// With the length in front.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0, 0];
        match self {
            Message::Hello { uptime_ms, instance, certificate } => {
                bytes.extend_from_slice(&[HELLO, VERSION]);
                bytes.extend_from_slice(&uptime_ms.to_le_bytes());
                bytes.extend_from_slice(&instance.to_le_bytes());
                bytes.extend_from_slice(certificate);
            }
            Message::Join { proof, name } => {
                bytes.extend_from_slice(&[JOIN, VERSION]);
                bytes.extend_from_slice(proof);
                bytes.extend_from_slice(name.as_bytes());
            }
            Message::Grant { proof, certificate, extras } => {
                bytes.extend_from_slice(&[GRANT, VERSION]);
                bytes.extend_from_slice(proof);
                bytes.extend_from_slice(&(certificate.len() as u16).to_le_bytes());
                bytes.extend_from_slice(certificate);
                bytes.extend_from_slice(extras);
            }
            Message::Refuse(reason) => bytes.extend_from_slice(&[REFUSE, VERSION, *reason as u8]),
        }
        assert!(bytes.len() <= MESSAGE_BYTES_MAX);
        let body = (bytes.len() - 2) as u16;
        bytes[..2].copy_from_slice(&body.to_le_bytes());
        bytes
    }

    /// The body, without the length. `None` for whatever `encode` does not make.
    pub fn decode(body: &[u8]) -> Option<Self> {
        let (&[kind, VERSION], rest) = body.split_first_chunk::<2>()? else { return None };
        match kind {
            HELLO => {
                let (uptime, rest) = rest.split_first_chunk::<8>()?;
                let (instance, certificate) = rest.split_first_chunk::<8>()?;
                Some(Message::Hello {
                    uptime_ms: u64::from_le_bytes(*uptime),
                    instance: u64::from_le_bytes(*instance),
                    certificate: within(certificate, CERTIFICATE_BYTES_MAX)?,
                })
            }
            JOIN => {
                let (proof, name) = rest.split_first_chunk::<32>()?;
                let name = std::str::from_utf8(name).ok().filter(|n| crate::certificate::is_name(n))?;
                Some(Message::Join { proof: *proof, name: name.to_owned() })
            }
            GRANT => {
                let (proof, rest) = rest.split_first_chunk::<32>()?;
                let (len, rest) = rest.split_first_chunk::<2>()?;
                let (certificate, extras) = rest.split_at_checked(u16::from_le_bytes(*len) as usize)?;
                let certificate = within(certificate, CERTIFICATE_BYTES_MAX)?;
                Some(Message::Grant { proof: *proof, certificate, extras: extras.to_vec() })
            }
            REFUSE => match rest {
                [reason] => Some(Message::Refuse(Reason::from_wire(*reason))),
                _ => None,
            },
            _ => None,
        }
    }
}

fn within(bytes: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    (bytes.len() <= bytes_max).then(|| bytes.to_vec())
}

/// What a joiner sends to show that it knows the secret, useless on any other connection.
pub fn join_proof(secret: &[u8], joiner: &Key, inviter: &Key) -> Key {
    crypto::hmac_sha256(secret, &[b"shoal-join", joiner, inviter])
}

/// What the inviter answers, over everything it grants.
pub fn grant_proof(secret: &[u8], joiner: &Key, inviter: &Key, cluster: &Key, certificate: &[u8]) -> Key {
    let digest = crypto::sha256(certificate);
    crypto::hmac_sha256(secret, &[b"shoal-grant", joiner, inviter, cluster, &digest])
}

/// The key under which the extras travel.
pub fn extras_key(secret: &[u8], joiner: &Key, inviter: &Key, cluster: &Key) -> Key {
    crypto::hmac_sha256(secret, &[b"shoal-extras", joiner, inviter, cluster])
}

pub async fn write<T: AsyncWrite + Unpin>(socket: &mut T, message: &Message) -> io::Result<()> {
    socket.write_all(&message.encode()).await?;
    socket.flush().await
}

/// `Ok(None)`: what came is no message of ours. Never reads beyond it, nor more than MESSAGE_BYTES_MAX.
pub async fn read<T: AsyncRead + Unpin>(socket: &mut T) -> io::Result<Option<Message>> {
    let mut len = [0u8; 2];
    socket.read_exact(&mut len).await?;
    let len = u16::from_le_bytes(len) as usize;
    if len > BODY_BYTES_MAX {
        return Ok(None);
    }
    let mut body = vec![0u8; len];
    socket.read_exact(&mut body).await?;
    Ok(Message::decode(&body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Vec<Message> {
        vec![
            Message::Hello { uptime_ms: 1, instance: u64::MAX, certificate: vec![] },
            Message::Hello { uptime_ms: 2, instance: 3, certificate: vec![4; CERTIFICATE_BYTES_MAX] },
            Message::Join { proof: [5; 32], name: "Küche".into() },
            Message::Grant { proof: [6; 32], certificate: vec![7; 200], extras: vec![8; 520] },
            Message::Grant { proof: [6; 32], certificate: vec![], extras: vec![] },
            Message::Refuse(Reason::Expired),
        ]
    }

    #[test]
    fn messages_survive_the_trip() {
        for message in examples() {
            let bytes = message.encode();
            assert_eq!(u16::from_le_bytes([bytes[0], bytes[1]]) as usize, bytes.len() - 2);
            assert_eq!(Message::decode(&bytes[2..]), Some(message));
        }
    }

    #[test]
    fn any_bytes_decode_to_what_encodes_to_them_or_to_nothing() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        for round in 0..20_000 {
            let mut bytes = examples()[round % 6].encode();
            for _ in 0..1 + next() % 4 {
                let at = next() % bytes.len();
                match next() % 3 {
                    0 => bytes[at] ^= 1 << (next() % 8),
                    1 => bytes.truncate(at.max(2)),
                    _ => bytes.insert(at, next() as u8),
                }
            }
            if let Some(message) = Message::decode(&bytes[2..]) {
                if bytes.len() <= MESSAGE_BYTES_MAX && !matches!(message, Message::Refuse(_)) {
                    assert_eq!(&message.encode()[2..], &bytes[2..]);
                }
            }
        }
    }

    #[test]
    fn unknown_versions_kinds_and_tails_are_refused() {
        for bad in [&[][..], &[1], &[1, 2], &[9, 1], &[4, 1], &[4, 1, 1, 1], &[2, 1], &[3, 1, 0], &[1, 1, 0]] {
            assert_eq!(Message::decode(bad), None, "{bad:?}");
        }
        assert_eq!(Message::decode(&[4, 1, 200]), Some(Message::Refuse(Reason::Malformed)));
    }

    #[test]
    fn proofs_depend_on_every_party() {
        let (s, a, b, c) = (&b"secret"[..], &[1; 32], &[2; 32], &[3; 32]);
        let proof = join_proof(s, a, b);
        assert_ne!(proof, join_proof(b"secreu", a, b));
        assert_ne!(proof, join_proof(s, b, a));
        let grant = grant_proof(s, a, b, c, b"certificate");
        assert_ne!(grant, grant_proof(s, a, b, c, b"other"));
        assert_ne!(grant, grant_proof(s, a, b, a, b"certificate"));
        assert_ne!(grant, extras_key(s, a, b, c));
    }

    #[test]
    fn reading_stops_at_the_limit_and_at_a_cut() {
        futures::executor::block_on(async {
            let mut long = futures::io::Cursor::new([0xffu8; 4096]);
            assert_eq!(read(&mut long).await.unwrap(), None);
            assert_eq!(long.position(), 2);
            let whole = examples()[3].encode();
            let mut cut = futures::io::Cursor::new(&whole[..whole.len() - 1]);
            assert_eq!(read(&mut cut).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        });
    }
}
