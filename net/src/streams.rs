//! Streams of our protocols, as a libp2p behaviour: which protocols a peer may open, and opening them at a peer.
//!
//! An opened stream comes out of the swarm as an event, so whoever does not poll the swarm holds back the peer that
//! opens more, and nobody else; none is lost, however many are opened at once. Knows no gate and no protocol's content.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::{ready, Ready};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::channel::oneshot;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::Endpoint;
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, Stream, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol};

/// Why a stream was not opened.
#[derive(Debug)]
pub enum OpenFault {
    Unsupported(StreamProtocol),
    Io(io::Error),
}

type Reply = oneshot::Sender<Result<Stream, OpenFault>>;

/// The protocols that peers may open. Shared: connections that are up learn of additions.
#[derive(Clone, Default)]
pub struct Served(Arc<Mutex<Vec<StreamProtocol>>>);

impl Served {
    /// False when it is served already.
    pub fn add(&self, protocol: StreamProtocol) -> bool {
        let mut served = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = !served.contains(&protocol);
        if new {
            served.push(protocol);
        }
        new
    }

    fn list(&self) -> Vec<StreamProtocol> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A stream that a peer opened.
#[derive(Debug)]
pub struct Inbound {
    pub peer: PeerId,
    pub protocol: StreamProtocol,
    pub stream: Stream,
}

#[derive(Default)]
pub struct Streams {
    served: Served,
    /// Oldest first: the first is the one that streams are opened on.
    connections: HashMap<PeerId, Vec<ConnectionId>>,
    todo: VecDeque<ToSwarm<Inbound, Open>>,
}

impl Streams {
    pub fn new(served: Served) -> Self {
        Streams { served, ..Self::default() }
    }

    /// The receiver hears of the stream, or why there is none; it is cancelled when the connection goes first.
    pub fn open(&mut self, peer: PeerId, protocol: StreamProtocol) -> oneshot::Receiver<Result<Stream, OpenFault>> {
        let (reply, answer) = oneshot::channel();
        if let Some(connection) = self.connections.get(&peer).and_then(|list| list.first()) {
            let (handler, event) = (NotifyHandler::One(*connection), Open { protocol, reply });
            self.todo.push_back(ToSwarm::NotifyHandler { peer_id: peer, handler, event });
        }
        answer
    }

    fn is_up(&mut self, peer: PeerId, connection: ConnectionId) -> Handler {
        self.connections.entry(peer).or_default().push(connection);
        Handler { served: self.served.clone(), asked: VecDeque::new(), opened: VecDeque::new() }
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Inbound;

    fn handle_established_inbound_connection(
        &mut self, id: ConnectionId, peer: PeerId, _: &Multiaddr, _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.is_up(peer, id))
    }

    fn handle_established_outbound_connection(
        &mut self, id: ConnectionId, peer: PeerId, _: &Multiaddr, _: Endpoint, _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.is_up(peer, id))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        let (peer, connection) = match event {
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => (peer_id, connection_id),
            _ => return,
        };
        if let Some(list) = self.connections.get_mut(&peer) {
            list.retain(|c| *c != connection);
            if list.is_empty() {
                self.connections.remove(&peer);
            }
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        let (protocol, stream) = event;
        self.todo.push_back(ToSwarm::GenerateEvent(Inbound { peer, protocol, stream }));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // What fills `todo` are calls made by the swarm or by its owner, and both poll afterwards.
        self.todo.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Asks a connection to open a stream.
#[derive(Debug)]
pub struct Open {
    protocol: StreamProtocol,
    reply: Reply,
}

/// One connection's part.
pub struct Handler {
    served: Served,
    asked: VecDeque<Open>,
    /// Short: the connection takes from it before it negotiates another stream.
    opened: VecDeque<(StreamProtocol, Stream)>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = (StreamProtocol, Stream);
    type InboundProtocol = OneOf;
    type OutboundProtocol = OneOf;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = (StreamProtocol, Reply);

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        SubstreamProtocol::new(OneOf(self.served.list()), ())
    }

    fn poll(
        &mut self, _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        if let Some(opened) = self.opened.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(opened));
        }
        let Some(Open { protocol, reply }) = self.asked.pop_front() else { return Poll::Pending };
        let protocol = SubstreamProtocol::new(OneOf(vec![protocol.clone()]), (protocol, reply));
        Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
    }

    fn on_behaviour_event(&mut self, open: Open) {
        self.asked.push_back(open);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            Self::InboundProtocol, Self::OutboundProtocol, Self::InboundOpenInfo, Self::OutboundOpenInfo,
        >,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (protocol, stream), .. }) => {
                self.opened.push_back((protocol, stream));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info: (_, reply) }) => {
                let _ = reply.send(Ok(protocol.1));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info: (protocol, reply) }) => {
                let fault = match error {
                    StreamUpgradeError::NegotiationFailed => OpenFault::Unsupported(protocol),
                    StreamUpgradeError::Timeout => OpenFault::Io(io::ErrorKind::TimedOut.into()),
                    StreamUpgradeError::Io(e) => OpenFault::Io(e),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = reply.send(Err(fault));
            }
            _ => {}
        }
    }
}

/// Agreement on one of these protocols; nothing is sent beyond it.
pub struct OneOf(Vec<StreamProtocol>);

impl UpgradeInfo for OneOf {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for OneOf {
    type Output = (StreamProtocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, stream: Stream, protocol: Self::Info) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}

impl OutboundUpgrade<Stream> for OneOf {
    type Output = (StreamProtocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, stream: Stream, protocol: Self::Info) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}
