//! Ways between members that cannot dial each other: through a third member that both reach, and from there, where
//! their routers let it happen, a direct one (hole punching, libp2p's DCUtR).
//!
//! A relay is a member like any other. It carries bytes that it cannot read: the two ends do Noise and the gate with
//! each other, over the circuit, as over TCP. A relay of strangers is never used, since the gate opens no connection
//! without a certificate, and a relay knows who talks to whom and when.

use std::time::Duration;

use futures::future::Either;
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::transport::{Boxed, Transport};
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::NetworkBehaviour;
use libp2p::{dcutr, relay, PeerId};

/// Circuits at a time: of one member to each other one, both for activations and for bulk.
const CIRCUITS_PER_PEER_MAX: usize = 32;
const CIRCUITS_MAX: usize = 256;
const RESERVATIONS_MAX: usize = 256;

#[derive(NetworkBehaviour)]
pub struct Wan {
    client: relay::client::Behaviour,
    server: Toggle<relay::Behaviour>,
    dcutr: dcutr::Behaviour,
}

/// Either end of a connection: of TCP or of a circuit.
pub type Socket<T> = Either<relay::client::Connection, T>;

/// `direct` and circuits; `serves`: members may use this node as a relay.
pub fn extend<T>(direct: T, own: PeerId, serves: bool) -> (Boxed<Socket<T::Output>>, Wan)
where
    T: Transport + Send + Unpin + 'static,
    T::Output: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T::Error: Send + Sync + 'static,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
{
    let (circuits, client) = relay::client::new(own);
    let server = serves.then(|| relay::Behaviour::new(own, limits()));
    let wan = Wan { client, server: server.into(), dcutr: dcutr::Behaviour::new(own) };
    (circuits.or_transport(direct).boxed(), wan)
}

/// Of members one need not fear that they use a relay for long.
fn limits() -> relay::Config {
    relay::Config {
        max_reservations: RESERVATIONS_MAX,
        max_circuits: CIRCUITS_MAX,
        max_circuits_per_peer: CIRCUITS_PER_PEER_MAX,
        max_circuit_duration: Duration::from_secs(u32::MAX.into()),
        max_circuit_bytes: 0, // no limit
        reservation_rate_limiters: vec![],
        circuit_src_rate_limiters: vec![],
        ..relay::Config::default()
    }
}

#[cfg(test)]
#[path = "wan_test.rs"]
mod tests;
