//! One connection's part of streams.rs: agrees on protocols, stream by stream.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{ready, Ready};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::channel::oneshot;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, Stream, StreamUpgradeError, SubstreamProtocol};
use libp2p::StreamProtocol;
use tokio_util::sync::CancellationToken;

/// Opened by whoever dialled a connection for bulk, before anything else: both ends then know what it is for.
const IS_BULK: StreamProtocol = StreamProtocol::new("/shoal/bulk/1");
/// "Dial me once more, for bulk", from a peer that knows no address to dial.
const ASK_BULK: StreamProtocol = StreamProtocol::new("/shoal/bulk-ask/1");

/// Why a stream was not opened.
#[derive(Debug)]
pub enum OpenFault {
    Unsupported(StreamProtocol),
    Io(io::Error),
}

/// Counts the streams of a connection that are open: clones of one `Arc`. Cancelled when the connection is over, of which
/// yamux tells its streams either nothing or that they ended in order.
pub type InUse = Arc<CancellationToken>;

pub type Reply = oneshot::Sender<Result<(Stream, InUse), OpenFault>>;

/// The protocols that peers may open. Shared: connections that are up learn of additions.
#[derive(Clone, Default)]
pub struct Served(Arc<Mutex<Vec<StreamProtocol>>>);

impl Served {
    /// False when it is served already.
    pub fn add(&self, protocol: StreamProtocol) -> bool {
        let mut served = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = !served.contains(&protocol) && protocol != IS_BULK && protocol != ASK_BULK;
        if new {
            served.push(protocol);
        }
        new
    }

    /// These, and what connections say to each other.
    fn list(&self) -> Vec<StreamProtocol> {
        let served = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        served.iter().cloned().chain([IS_BULK, ASK_BULK]).collect()
    }
}

/// What a connection is to do.
#[derive(Debug)]
pub enum Order {
    Open { protocol: StreamProtocol, reply: Reply, in_use: InUse },
    SayBulk,
    AskBulk,
}

impl Order {
    fn protocol(&self) -> StreamProtocol {
        match self {
            Order::Open { protocol, .. } => protocol.clone(),
            Order::SayBulk => IS_BULK,
            Order::AskBulk => ASK_BULK,
        }
    }

    fn answer(self, result: Result<Stream, OpenFault>) {
        if let Order::Open { reply, in_use, .. } = self {
            let _ = reply.send(result.map(|stream| (stream, in_use)));
        }
    }
}

/// What came over a connection.
#[derive(Debug)]
pub enum Came {
    Stream(StreamProtocol, Stream),
    IsBulk,
    AskBulk,
}

pub struct Handler {
    served: Served,
    orders: VecDeque<Order>,
    /// Short: the connection takes from it before it negotiates another stream.
    came: VecDeque<Came>,
}

impl Handler {
    pub fn new(served: Served, is_bulk: bool) -> Self {
        let orders = if is_bulk { VecDeque::from([Order::SayBulk]) } else { VecDeque::new() };
        Handler { served, orders, came: VecDeque::new() }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Order;
    type ToBehaviour = Came;
    type InboundProtocol = OneOf;
    type OutboundProtocol = OneOf;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Order;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, Self::InboundOpenInfo> {
        SubstreamProtocol::new(OneOf(self.served.list()), ())
    }

    fn poll(
        &mut self, _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        if let Some(came) = self.came.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(came));
        }
        let Some(order) = self.orders.pop_front() else { return Poll::Pending };
        let protocol = SubstreamProtocol::new(OneOf(vec![order.protocol()]), order);
        Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
    }

    fn on_behaviour_event(&mut self, order: Order) {
        self.orders.push_back(order);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            Self::InboundProtocol, Self::OutboundProtocol, Self::InboundOpenInfo, Self::OutboundOpenInfo,
        >,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (protocol, stream), .. }) => {
                self.came.push_back(match protocol {
                    p if p == IS_BULK => Came::IsBulk,
                    p if p == ASK_BULK => Came::AskBulk,
                    p => Came::Stream(p, stream),
                });
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info: order }) => {
                order.answer(Ok(protocol.1));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info: order }) => {
                let fault = match error {
                    StreamUpgradeError::NegotiationFailed => OpenFault::Unsupported(order.protocol()),
                    StreamUpgradeError::Timeout => OpenFault::Io(io::ErrorKind::TimedOut.into()),
                    StreamUpgradeError::Io(e) => OpenFault::Io(e),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                order.answer(Err(fault));
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
