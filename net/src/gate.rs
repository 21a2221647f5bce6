//! Who may talk: one message each way inside the connection upgrade, after Noise has proved the peer's key and before
//! yamux. What it refuses never becomes a connection of the swarm.
//!
//! The dialler speaks first: a listener shows strangers nothing but a refusal. Whoever is dialled learns the
//! dialler's certificate, which holds a name and public keys.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{fmt, io};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::{noise, PeerId};

use crate::certificate::{Certificate, Fault, Revocation};
use crate::crypto::{self, Key};
use crate::events::{Event, Kind, Queue};
use crate::gate_messages::{self as messages, join_proof, Message, Reason};
use crate::invite::{accept_grant, Invites};

pub const REVOKED_MAX: usize = 4096;

/// Why an upgrade ended at the gate. Found again among the sources of the swarm's errors.
#[derive(Debug)]
pub enum Closed {
    Refused { reason: Reason, by_peer: bool, peer: Key },
    /// Someone else is alive with our key; `later`: we started after them.
    Clone { later: bool },
    /// An invite was used, or we joined: done, nothing wrong.
    Done,
    Noise(noise::Error),
    Io(io::Error),
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Closed::Refused { reason, by_peer: true, .. } => write!(f, "refused by the peer: {}", reason.text()),
            Closed::Refused { reason, .. } => write!(f, "refused: {}", reason.text()),
            Closed::Clone { .. } => write!(f, "another node has the same key"),
            Closed::Done => write!(f, "joined"),
            Closed::Noise(e) => write!(f, "the handshake failed: {e}"),
            Closed::Io(e) => write!(f, "{e}"),
        }
    }
}

impl std::error::Error for Closed {}

impl From<noise::Error> for Closed {
    fn from(e: noise::Error) -> Self {
        Closed::Noise(e)
    }
}

impl From<io::Error> for Closed {
    fn from(e: io::Error) -> Self {
        Closed::Io(e)
    }
}

/// A peer that the gate let through.
#[derive(Debug, Clone)]
pub struct Admitted {
    pub certificate: Vec<u8>,
    pub serial: u64,
    pub expires_s: i64,
    pub at: Instant,
}

/// From the gate to a connection of the swarm there are still round trips to go; longer than any of them may take.
const UPGRADE_MAX: Duration = Duration::from_secs(30);

/// What every connection's gate consults. Locks are held for look-ups only.
pub struct Gate {
    own: Key,
    cluster: Key,
    instance: u64,
    certificate: Mutex<Vec<u8>>,
    revoked: Mutex<HashMap<Key, u64>>,
    admitted: Mutex<HashMap<Key, Admitted>>,
    pub invites: Invites,
    queue: Arc<Queue>,
    refused_inbound: AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

/// Since this process first used the network, by a clock that nobody sets.
fn uptime_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64
}

impl Gate {
    pub fn new(own: Key, cluster: Key, instance: u64, certificate: Vec<u8>, queue: Arc<Queue>) -> Self {
        uptime_ms();
        Gate {
            own,
            cluster,
            instance,
            certificate: Mutex::new(certificate),
            revoked: Mutex::default(),
            admitted: Mutex::default(),
            invites: Invites::default(),
            queue,
            refused_inbound: AtomicU64::new(0),
        }
    }

    #[cfg(test)]
    pub fn own(&self) -> &Key {
        &self.own
    }

    #[cfg(all(test, feature = "wan"))]
    pub fn certificate(&self) -> Vec<u8> {
        locked(&self.certificate).clone()
    }

    pub fn cluster(&self) -> &Key {
        &self.cluster
    }

    pub fn set_certificate(&self, certificate: Vec<u8>) {
        *locked(&self.certificate) = certificate;
    }

    /// False when the list is full.
    pub fn revoke(&self, revocation: &Revocation) -> bool {
        let mut revoked = locked(&self.revoked);
        if revoked.len() >= REVOKED_MAX && !revoked.contains_key(&revocation.member) {
            return false;
        }
        let serial = revoked.entry(revocation.member).or_default();
        *serial = revocation.serial.max(*serial);
        true
    }

    pub fn is_revoked(&self, member: &Key, serial: u64) -> bool {
        locked(&self.revoked).get(member).is_some_and(|up_to| serial <= *up_to)
    }

    /// Whether the peer, let through before, would still be.
    pub fn is_welcome(&self, peer: &Key) -> bool {
        let admitted = locked(&self.admitted).get(peer).map(|a| (a.serial, a.expires_s));
        admitted.is_some_and(|(serial, expires_s)| !self.is_revoked(peer, serial) && now_s() < expires_s)
    }

    pub fn certificate_of(&self, peer: &Key) -> Vec<u8> {
        locked(&self.admitted).get(peer).map(|a| a.certificate.clone()).unwrap_or_default()
    }

    /// Forgets whom `is_connected` does not name, unless it may still be on its way from the gate.
    pub fn forget_all_but(&self, now: Instant, is_connected: impl Fn(&Key) -> bool) {
        let is_coming = |admitted: &Admitted| now.saturating_duration_since(admitted.at) < UPGRADE_MAX;
        locked(&self.admitted).retain(|peer, admitted| is_coming(admitted) || is_connected(peer));
    }

    pub fn refused_inbound(&self) -> u64 {
        self.refused_inbound.load(Ordering::Relaxed)
    }

    pub fn count_refused_inbound(&self) {
        self.refused_inbound.fetch_add(1, Ordering::Relaxed);
    }

    fn hello(&self) -> Message {
        let certificate = locked(&self.certificate).clone();
        Message::Hello { uptime_ms: uptime_ms(), instance: self.instance, certificate }
    }

    /// Checks what a peer showed; remembers it when it is good.
    fn admit(&self, peer: &Key, certificate: &[u8]) -> Result<(), Reason> {
        if certificate.is_empty() {
            return Err(Reason::NoCertificate);
        }
        let parsed = Certificate::verify(certificate, Some(&self.cluster)).map_err(|fault| match fault {
            Fault::OtherCluster => Reason::OtherCluster,
            Fault::Format | Fault::Forged => Reason::Forged,
        })?;
        if parsed.member != *peer {
            return Err(Reason::Forged);
        }
        if parsed.is_expired(now_s()) {
            return Err(Reason::Expired);
        }
        if self.is_revoked(peer, parsed.serial) {
            return Err(Reason::Revoked);
        }
        let (serial, expires_s, at) = (parsed.serial, parsed.expires_s, Instant::now());
        let admitted = Admitted { certificate: certificate.to_vec(), serial, expires_s, at };
        locked(&self.admitted).insert(*peer, admitted);
        Ok(())
    }

    /// The listener's side: hears the dialler, answers.
    async fn listen<T: AsyncRead + AsyncWrite + Unpin>(&self, socket: &mut T, peer: Key) -> Result<(), Closed> {
        let verdict = match messages::read(socket).await? {
            Some(Message::Hello { uptime_ms, instance, .. }) if peer == self.own => {
                let ours = self.hello();
                messages::write(socket, &ours).await?;
                return Err(self.own_key(&ours, uptime_ms, instance));
            }
            Some(Message::Hello { certificate, .. }) => self.admit(&peer, &certificate),
            Some(Message::Join { proof, name }) => match self.invite(&peer, &proof, &name) {
                Ok(grant) => {
                    messages::write(socket, &grant).await?;
                    return Err(Closed::Done);
                }
                Err(reason) => Err(reason),
            },
            _ => Err(Reason::Malformed),
        };
        match verdict {
            Ok(()) => Ok(messages::write(socket, &self.hello()).await?),
            Err(reason) => {
                messages::write(socket, &Message::Refuse(reason)).await?;
                Err(Closed::Refused { reason, by_peer: false, peer })
            }
        }
    }

    /// The dialler's side: shows its certificate, hears the listener.
    async fn dial<T: AsyncRead + AsyncWrite + Unpin>(&self, socket: &mut T, peer: Key) -> Result<(), Closed> {
        let ours = self.hello();
        messages::write(socket, &ours).await?;
        let verdict = match messages::read(socket).await? {
            Some(Message::Hello { uptime_ms, instance, .. }) if peer == self.own => {
                return Err(self.own_key(&ours, uptime_ms, instance));
            }
            Some(Message::Hello { certificate, .. }) => self.admit(&peer, &certificate),
            Some(Message::Refuse(reason)) => return Err(Closed::Refused { reason, by_peer: true, peer }),
            _ => Err(Reason::Malformed),
        };
        verdict.map_err(|reason| Closed::Refused { reason, by_peer: false, peer })
    }

    /// The peer has our own key: ourselves by another address, or a copy of our identity on another machine. Both
    /// sides compare the same two pairs of numbers, so they agree who started later.
    fn own_key(&self, ours: &Message, uptime_ms: u64, instance: u64) -> Closed {
        let Message::Hello { uptime_ms: our_uptime_ms, .. } = *ours else { unreachable!() };
        if instance == self.instance {
            return Closed::Refused { reason: Reason::Own, by_peer: false, peer: self.own };
        }
        const CLOSE_CALL_MS: u64 = 5_000; // the numbers were taken at most a handshake apart
        let later = if our_uptime_ms.abs_diff(uptime_ms) < CLOSE_CALL_MS {
            self.instance > instance
        } else {
            our_uptime_ms < uptime_ms
        };
        Closed::Clone { later }
    }

    fn invite(&self, joiner: &Key, proof: &Key, name: &str) -> Result<Message, Reason> {
        // A key that was thrown out stays out, whatever is issued later: whoever is let in again takes another.
        if locked(&self.revoked).contains_key(joiner) {
            return Err(Reason::Revoked);
        }
        let granted = self.invites.answer(joiner, &self.own, proof, name, Instant::now(), now_s())?;
        let (id, data) = (granted.invite as u64, granted.certificate);
        self.queue.push(Event { id, peer: *joiner, data, ..Event::new(Kind::Joined) });
        Ok(granted.message)
    }
}

/// The upgrade of a member's connections: Noise, then the gate.
#[derive(Clone)]
pub struct GateUpgrade {
    pub noise: noise::Config,
    pub gate: Arc<Gate>,
}

/// The upgrade of a joiner's one connection: Noise, then a join; always ends in an error, `Closed::Done` if all went
/// well, with the grant in `granted`.
#[derive(Clone)]
pub struct JoinUpgrade {
    pub noise: noise::Config,
    pub join: Arc<Join>,
}

pub struct Join {
    pub own: Key,
    pub name: String,
    pub secret: zeroize::Zeroizing<Vec<u8>>,
    pub granted: Mutex<Option<Granted>>,
}

pub struct Granted {
    pub inviter: Key,
    pub cluster: Key,
    pub certificate: Vec<u8>,
    pub extras: Vec<u8>,
}

impl Join {
    async fn dial<T: AsyncRead + AsyncWrite + Unpin>(&self, socket: &mut T, inviter: Key) -> Result<(), Closed> {
        let proof = join_proof(&self.secret, &self.own, &inviter);
        messages::write(socket, &Message::Join { proof, name: self.name.clone() }).await?;
        let refused = |reason, by_peer| Closed::Refused { reason, by_peer, peer: inviter };
        match messages::read(socket).await? {
            Some(Message::Grant { proof, certificate, extras }) => {
                let (parsed, extras) = accept_grant(&self.secret, &self.own, &inviter, &proof, &certificate, &extras)
                    .map_err(|reason| refused(reason, false))?;
                let granted = Granted { inviter, cluster: parsed.cluster, certificate, extras };
                *locked(&self.granted) = Some(granted);
                Err(Closed::Done)
            }
            Some(Message::Refuse(reason)) => Err(refused(reason, true)),
            _ => Err(refused(Reason::Malformed, false)),
        }
    }

    pub fn take(&self) -> Option<Granted> {
        locked(&self.granted).take()
    }
}

/// The key that Noise proved. Only Ed25519 keys are members.
fn proved(peer: &PeerId) -> Result<Key, Closed> {
    let unknown = Closed::Refused { reason: Reason::Forged, by_peer: false, peer: [0; 32] };
    crypto::public_of_peer(peer).ok_or(unknown)
}

type Upgraded<T> = (PeerId, noise::Output<T>);
type Upgrading<T> = Pin<Box<dyn Future<Output = Result<Upgraded<T>, Closed>> + Send>>;

impl UpgradeInfo for GateUpgrade {
    type Info = <noise::Config as UpgradeInfo>::Info;
    type InfoIter = <noise::Config as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.noise.protocol_info()
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> InboundConnectionUpgrade<T> for GateUpgrade {
    type Output = Upgraded<T>;
    type Error = Closed;
    type Future = Upgrading<T>;

    fn upgrade_inbound(self, socket: T, info: Self::Info) -> Self::Future {
        Box::pin(async move {
            let (peer, mut socket) = self.noise.upgrade_inbound(socket, info).await?;
            self.gate.listen(&mut socket, proved(&peer)?).await?;
            Ok((peer, socket))
        })
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> OutboundConnectionUpgrade<T> for GateUpgrade {
    type Output = Upgraded<T>;
    type Error = Closed;
    type Future = Upgrading<T>;

    fn upgrade_outbound(self, socket: T, info: Self::Info) -> Self::Future {
        Box::pin(async move {
            let (peer, mut socket) = self.noise.upgrade_outbound(socket, info).await?;
            self.gate.dial(&mut socket, proved(&peer)?).await?;
            Ok((peer, socket))
        })
    }
}

impl UpgradeInfo for JoinUpgrade {
    type Info = <noise::Config as UpgradeInfo>::Info;
    type InfoIter = <noise::Config as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.noise.protocol_info()
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> InboundConnectionUpgrade<T> for JoinUpgrade {
    type Output = Upgraded<T>;
    type Error = Closed;
    type Future = Upgrading<T>;

    /// A joiner does not listen.
    fn upgrade_inbound(self, _: T, _: Self::Info) -> Self::Future {
        Box::pin(async { Err(Closed::Io(io::ErrorKind::Unsupported.into())) })
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> OutboundConnectionUpgrade<T> for JoinUpgrade {
    type Output = Upgraded<T>;
    type Error = Closed;
    type Future = Upgrading<T>;

    fn upgrade_outbound(self, socket: T, info: Self::Info) -> Self::Future {
        Box::pin(async move {
            let (peer, mut socket) = self.noise.upgrade_outbound(socket, info).await?;
            self.join.dial(&mut socket, proved(&peer)?).await?;
            Ok((peer, socket))
        })
    }
}

#[cfg(test)]
#[path = "gate_test.rs"]
mod tests;
