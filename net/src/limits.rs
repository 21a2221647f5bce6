//! Keeps one address from taking all the places of those who are not authenticated yet.

use std::collections::HashMap;
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

#[derive(Debug)]
pub struct TooMany;

impl std::fmt::Display for TooMany {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "too many unauthenticated connections from this address")
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
pub struct PendingPerIp {
    limit: u32,
    gate: Arc<Gate>,
    pending: HashMap<ConnectionId, IpAddr>,
    count: HashMap<IpAddr, u32>,
}

impl PendingPerIp {
    pub fn new(limit: u32, gate: Arc<Gate>) -> Self {
        PendingPerIp { limit, gate, pending: HashMap::new(), count: HashMap::new() }
    }

    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    fn done(&mut self, id: ConnectionId) {
        let Some(ip) = self.pending.remove(&id) else { return };
        if let Some(count) = self.count.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.count.remove(&ip);
            }
        }
    }
}

impl NetworkBehaviour for PendingPerIp {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self, id: ConnectionId, _: &Multiaddr, remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let Some(ip) = ip_of(remote) else { return Ok(()) };
        let count = self.count.entry(ip).or_default();
        if *count >= self.limit && !ip.is_loopback() {
            self.gate.count_refused_inbound();
            return Err(ConnectionDenied::new(TooMany));
        }
        *count += 1;
        self.pending.insert(id, ip);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self, id: ConnectionId, _: PeerId, _: &Multiaddr, _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.done(id);
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self, _: ConnectionId, _: PeerId, _: &Multiaddr, _: Endpoint, _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
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

    fn limits(limit: u32) -> PendingPerIp {
        let queue = Arc::new(Queue::new().unwrap());
        PendingPerIp::new(limit, Arc::new(Gate::new([0; 32], [0; 32], 1, vec![], queue)))
    }

    fn comes(limits: &mut PendingPerIp, id: usize, from: &str) -> bool {
        let (local, remote) = ("/ip4/10.0.0.1/tcp/1".parse().unwrap(), from.parse().unwrap());
        limits.handle_pending_inbound_connection(ConnectionId::new_unchecked(id), &local, &remote).is_ok()
    }

    #[test]
    fn one_address_gets_its_share_and_no_more() {
        let mut limits = limits(2);
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
        assert!(limits.count.is_empty() && limits.pending.is_empty());
    }

    #[test]
    fn loopback_is_not_counted_out() {
        let mut limits = limits(1);
        assert!((0..50).all(|id| comes(&mut limits, id, "/ip4/127.0.0.1/tcp/9")));
    }
}
