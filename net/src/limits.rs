//! How many may be in the handshake at a time: few from one address, few from all addresses together at which no
//! member was seen. So whoever takes all places of strangers, from however many addresses, takes none of members.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use libp2p::core::transport::PortUse;
use libp2p::core::Endpoint;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{
    dummy, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use crate::gate::Gate;

/// Addresses of members that are remembered; the one seen first is forgotten first.
const KNOWN_MAX: usize = 256;

#[derive(Debug)]
pub struct TooMany;

impl std::fmt::Display for TooMany {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "too many unauthenticated connections")
    }
}

impl std::error::Error for TooMany {}

pub fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)),
        _ => None,
    }
}

/// Inbound connections in the handshake, by where they come from.
pub struct Pending {
    per_ip_max: u32,
    strangers_max: u32,
    gate: Arc<Gate>,
    pending: HashMap<ConnectionId, Place>,
    count: HashMap<IpAddr, u32>,
    strangers: u32,
    known: HashSet<IpAddr>,
    known_order: VecDeque<IpAddr>,
}

/// What one of them takes.
struct Place {
    ip: IpAddr,
    of_strangers: bool,
}

impl Pending {
    pub fn new(per_ip_max: u32, strangers_max: u32, gate: Arc<Gate>) -> Self {
        Pending {
            per_ip_max,
            strangers_max,
            gate,
            pending: HashMap::new(),
            count: HashMap::new(),
            strangers: 0,
            known: HashSet::new(),
            known_order: VecDeque::new(),
        }
    }

    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    fn done(&mut self, id: ConnectionId) {
        let Some(Place { ip, of_strangers }) = self.pending.remove(&id) else { return };
        self.strangers -= u32::from(of_strangers);
        if let Some(count) = self.count.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.count.remove(&ip);
            }
        }
    }

    /// A member is at this address.
    fn know(&mut self, address: &Multiaddr) {
        let Some(ip) = ip_of(address) else { return };
        if !self.known.insert(ip) {
            return;
        }
        self.known_order.push_back(ip);
        if self.known_order.len() > KNOWN_MAX {
            if let Some(oldest) = self.known_order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

impl NetworkBehaviour for Pending {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self, id: ConnectionId, _: &Multiaddr, remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let Some(ip) = ip_of(remote) else { return Ok(()) };
        let of_strangers = !self.known.contains(&ip);
        let here = self.count.get(&ip).copied().unwrap_or(0);
        if (here >= self.per_ip_max && !ip.is_loopback()) || (of_strangers && self.strangers >= self.strangers_max) {
            self.gate.count_refused_inbound();
            return Err(ConnectionDenied::new(TooMany));
        }
        self.count.insert(ip, here + 1);
        self.strangers += u32::from(of_strangers);
        self.pending.insert(id, Place { ip, of_strangers });
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self, id: ConnectionId, _: PeerId, _: &Multiaddr, remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.done(id);
        self.know(remote);
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self, _: ConnectionId, _: PeerId, remote: &Multiaddr, _: Endpoint, _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.know(remote);
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if let FromSwarm::ListenFailure(failure) = event {
            self.done(failure.connection_id);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Queue;

    fn limits(per_ip_max: u32, strangers_max: u32) -> Pending {
        let queue = Arc::new(Queue::new().unwrap());
        Pending::new(per_ip_max, strangers_max, Arc::new(Gate::new([0; 32], [0; 32], 1, vec![], queue)))
    }

    fn comes(limits: &mut Pending, id: usize, from: &str) -> bool {
        let (local, remote) = ("/ip4/10.0.0.1/tcp/1".parse().unwrap(), from.parse().unwrap());
        limits.handle_pending_inbound_connection(ConnectionId::new_unchecked(id), &local, &remote).is_ok()
    }

    #[test]
    fn one_address_gets_its_share_and_no_more() {
        let mut limits = limits(2, 32);
        assert!(comes(&mut limits, 1, "/ip4/10.0.0.9/tcp/1"));
        assert!(comes(&mut limits, 2, "/ip4/10.0.0.9/tcp/2"));
        assert!(!comes(&mut limits, 3, "/ip4/10.0.0.9/tcp/3"));
        assert!(!comes(&mut limits, 4, "/ip6/::ffff:10.0.0.9/tcp/3"), "the same address in other words");
        assert!(comes(&mut limits, 5, "/ip4/10.0.0.8/tcp/3"));
        limits.done(ConnectionId::new_unchecked(1));
        assert!(comes(&mut limits, 6, "/ip4/10.0.0.9/tcp/4"));
        assert_eq!(limits.pending(), 3);
        for id in 0..10 {
            limits.done(ConnectionId::new_unchecked(id));
        }
        assert!(limits.count.is_empty() && limits.pending.is_empty() && limits.strangers == 0);
    }

    #[test]
    fn strangers_of_many_addresses_leave_members_their_places() {
        let mut limits = limits(2, 4);
        let member = "/ip4/10.0.0.50/tcp/1".parse().unwrap();
        assert!((0..4).all(|id| comes(&mut limits, id, &format!("/ip4/10.0.1.{id}/tcp/1"))));
        assert!(!comes(&mut limits, 4, "/ip4/10.0.1.4/tcp/1"), "all places of strangers are taken");
        assert!(!comes(&mut limits, 5, "/ip4/10.0.0.50/tcp/1"), "not known to be a member's yet");
        limits.know(&member);
        assert!(comes(&mut limits, 6, "/ip4/10.0.0.50/tcp/1") && comes(&mut limits, 7, "/ip4/10.0.0.50/tcp/2"));
        assert!(!comes(&mut limits, 8, "/ip4/10.0.0.50/tcp/3"), "known addresses have their own limit");
        limits.done(ConnectionId::new_unchecked(6));
        assert!(!comes(&mut limits, 9, "/ip4/10.0.1.9/tcp/1"), "a member's place is not a stranger's");
        limits.done(ConnectionId::new_unchecked(0));
        assert!(comes(&mut limits, 10, "/ip4/10.0.1.10/tcp/1"));
        for i in 0..KNOWN_MAX {
            limits.know(&format!("/ip4/10.1.{}.{}/tcp/1", i / 256, i % 256).parse().unwrap());
        }
        assert_eq!((limits.known.len(), limits.known_order.len()), (KNOWN_MAX, KNOWN_MAX));
        assert!(!limits.known.contains(&ip_of(&member).unwrap()), "the oldest is forgotten");
    }

    #[test]
    fn loopback_is_not_counted_out() {
        let mut limits = limits(1, 100);
        assert!((0..50).all(|id| comes(&mut limits, id, "/ip4/127.0.0.1/tcp/9")));
    }
}
