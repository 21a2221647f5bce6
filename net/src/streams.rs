//! Streams of our protocols, as a libp2p behaviour: which protocols a peer may open, and opening them at a peer.
//!
//! Two kinds of connection lead to a peer. The first carries control and activations. One for bulk comes with the first
//! bulk stream and goes when none was open for a while, so that what is queued for it is queued in its own TCP
//! connection and its own multiplexer. Both come through the same gate and the same port. The side that dialled the
//! first dials the other too, since it alone knows an address where the other listens; asked by the other side if need
//! be. Where no second connection can be had, bulk shares the first: slow neighbours are better than none.
//!
//! An opened stream comes out of the swarm as an event, so whoever does not poll the swarm holds back the peer that
//! opens more, and nobody else; none is lost, however many are opened at once. Knows no gate and no protocol's content.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use libp2p::core::transport::PortUse;
use libp2p::core::Endpoint;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{
    CloseConnection, ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler,
    Stream, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, StreamProtocol};

use crate::counted::{Socket, Sockets};
use crate::stream_handler::{Came, Handler, InUse, Order, Reply};
pub use crate::stream_handler::{OpenFault, Served};

/// How long a bulk stream waits for a connection of its own before it shares the first one.
const BULK_WAIT: Duration = Duration::from_secs(3);
/// How long a bulk connection stays without a stream.
const BULK_IDLE: Duration = Duration::from_secs(60);

/// A connection beside a later one is over when what was sent on it was sent again so often (after about 3 s) without an
/// answer: it is of an address that the peer no longer has. A pause of the whole link ends sooner, or with the peer.
const RESENT_MAX: u8 = 4;

/// SN_PRIORITY_* of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    Activations,
    Bulk,
}

/// A stream that a peer opened.
#[derive(Debug)]
pub struct Inbound {
    pub peer: PeerId,
    pub protocol: StreamProtocol,
    pub stream: Stream,
    pub in_use: InUse,
}

/// A connection.
struct Link {
    id: ConnectionId,
    priority: Priority,
    is_dialler: bool,
    /// Through another member: only until there is a direct one.
    is_relayed: bool,
    /// The peer's: where it listens, if we dialled.
    address: Multiaddr,
    socket: Socket,
    in_use: InUse,
    used: Instant,
}

/// Bulk streams that wait for their connection.
struct Waiting {
    since: Instant,
    opens: Vec<(StreamProtocol, Reply)>,
}

#[derive(Default)]
pub struct Streams {
    served: Served,
    sockets: Sockets,
    /// Oldest first. Of each priority, streams are opened on the latest direct one: an older one may lead to an address
    /// that the peer no longer has.
    links: HashMap<PeerId, Vec<Link>>,
    waiting: HashMap<PeerId, Waiting>,
    /// Connections for bulk that are being made.
    dials: HashMap<ConnectionId, PeerId>,
    todo: VecDeque<ToSwarm<Inbound, Order>>,
}

impl Streams {
    pub fn new(served: Served, sockets: Sockets) -> Self {
        Streams { served, sockets, ..Self::default() }
    }

    /// The receiver hears of the stream, or why there is none; it is cancelled when the connection goes first.
    pub fn open(
        &mut self, peer: PeerId, protocol: StreamProtocol, priority: Priority,
    ) -> oneshot::Receiver<Result<(Stream, InUse), OpenFault>> {
        let (reply, answer) = oneshot::channel();
        if priority == Priority::Activations || self.latest(peer, Priority::Bulk).is_some() {
            self.open_on_latest(peer, priority, protocol, reply);
        } else {
            self.wait_for_bulk(peer).opens.push((protocol, reply));
        }
        answer
    }

    /// Closes bulk connections that nobody uses and those that lead nowhere any more, and ends waits that took too long.
    /// Call often.
    pub fn keep_house(&mut self, now: Instant) {
        for (peer, links) in &mut self.links {
            let latest = links.iter().rev().find(|link| link.priority == Priority::Activations).map(|link| link.id);
            for link in links.iter().filter(|link| Some(link.id) != latest && link.socket.resent() >= RESENT_MAX) {
                self.todo.push_back(give_up(*peer, link));
            }
            for link in links.iter_mut().filter(|link| link.priority == Priority::Bulk) {
                let in_use = Arc::strong_count(&link.in_use) > 1;
                if !in_use && now.duration_since(link.used) >= BULK_IDLE {
                    self.todo.push_back(close(*peer, link.id));
                } else if !in_use {
                    continue;
                }
                link.used = now;
            }
        }
        let late = |waiting: &Waiting| now.duration_since(waiting.since) >= BULK_WAIT;
        let peers: Vec<PeerId> = self.waiting.iter().filter(|(_, w)| late(w)).map(|(peer, _)| *peer).collect();
        for peer in peers {
            self.open_waiting(peer, Priority::Activations);
        }
    }

    /// The connection leads nowhere any more. Its streams end at once, whatever becomes of what they sent.
    pub fn close_dead(&mut self, peer: PeerId, connection: ConnectionId) {
        let link = self.links.get(&peer).into_iter().flatten().find(|link| link.id == connection);
        self.todo.extend(link.map(|link| give_up(peer, link)));
    }

    /// Ends all streams to the peer, whose connections are about to be closed.
    pub fn lose(&self, peer: PeerId) {
        self.links.get(&peer).into_iter().flatten().for_each(|link| link.in_use.cancel());
    }

    /// A dial failed. True when it was for bulk: of no interest to anyone else.
    pub fn dial_failed(&mut self, connection: ConnectionId) -> bool {
        let Some(peer) = self.dials.remove(&connection) else { return false };
        self.open_waiting(peer, Priority::Activations);
        true
    }

    pub fn bulk_connections(&self) -> usize {
        self.links.values().flatten().filter(|link| link.priority == Priority::Bulk).count()
    }

    /// Bytes a second that were delivered to a peer at best lately, where that is known.
    pub fn bulk_rates(&self) -> impl Iterator<Item = (PeerId, u64)> + '_ {
        self.links.iter().filter_map(|(peer, links)| {
            let bulk = links.iter().filter(|link| link.priority == Priority::Bulk);
            let rates = bulk.map(|link| link.socket.delivered());
            rates.max().filter(|rate| *rate > 0).map(|rate| (*peer, rate))
        })
    }

    fn latest(&mut self, peer: PeerId, priority: Priority) -> Option<&mut Link> {
        let of_priority = self.links.get_mut(&peer)?.iter_mut().rev().filter(|link| link.priority == priority);
        of_priority.min_by_key(|link| link.is_relayed)
    }

    fn open_on_latest(&mut self, peer: PeerId, priority: Priority, protocol: StreamProtocol, reply: Reply) {
        let Some(link) = self.latest(peer, priority) else { return };
        link.used = Instant::now();
        let event = Order::Open { protocol, reply, in_use: link.in_use.clone() };
        let handler = NotifyHandler::One(link.id);
        self.todo.push_back(ToSwarm::NotifyHandler { peer_id: peer, handler, event });
    }

    /// Sees to it that a bulk connection comes up.
    fn wait_for_bulk(&mut self, peer: PeerId) -> &mut Waiting {
        if !self.waiting.contains_key(&peer) && !self.dials.values().any(|dialled| *dialled == peer) {
            self.dial_bulk(peer);
        }
        self.waiting.entry(peer).or_insert_with(|| Waiting { since: Instant::now(), opens: vec![] })
    }

    /// Or asks the peer to, where it is the one who dialled.
    fn dial_bulk(&mut self, peer: PeerId) {
        let links = self.links.get(&peer).map(Vec::as_slice).unwrap_or_default();
        let dialled = links.iter().rev().filter(|link| link.is_dialler).min_by_key(|link| link.is_relayed);
        if let Some(address) = dialled.map(|link| link.address.clone()) {
            let opts = DialOpts::peer_id(peer).condition(PeerCondition::Always).addresses(vec![address]);
            let opts = opts.allocate_new_port().build();
            self.dials.insert(opts.connection_id(), peer);
            self.todo.push_back(ToSwarm::Dial { opts });
        } else if let Some(link) = links.last() {
            let handler = NotifyHandler::One(link.id);
            self.todo.push_back(ToSwarm::NotifyHandler { peer_id: peer, handler, event: Order::AskBulk });
        }
    }

    fn open_waiting(&mut self, peer: PeerId, priority: Priority) {
        let Some(waiting) = self.waiting.remove(&peer) else { return };
        for (protocol, reply) in waiting.opens {
            self.open_on_latest(peer, priority, protocol, reply);
        }
    }

    fn is_up(
        &mut self, peer: PeerId, id: ConnectionId, is_dialler: bool, is_relayed: bool, address: &Multiaddr,
    ) -> Handler {
        let is_bulk = self.dials.remove(&id).is_some();
        let priority = if is_bulk { Priority::Bulk } else { Priority::Activations };
        let socket = self.sockets.find(address, is_dialler, is_bulk);
        let (address, in_use, used) = (address.clone(), Arc::default(), Instant::now());
        let link = Link { id, priority, is_dialler, is_relayed, address, socket, in_use, used };
        self.links.entry(peer).or_default().push(link);
        if is_bulk {
            self.open_waiting(peer, Priority::Bulk);
        }
        Handler::new(self.served.clone(), is_bulk)
    }

    /// The peer dialled this connection for bulk. Its only one stays what it is.
    fn is_bulk(&mut self, peer: PeerId, connection: ConnectionId) {
        let Some(links) = self.links.get_mut(&peer).filter(|links| links.len() > 1) else { return };
        if let Some(link) = links.iter_mut().find(|link| link.id == connection) {
            link.priority = Priority::Bulk;
            link.socket.mark_bulk();
            self.open_waiting(peer, Priority::Bulk);
        }
    }

    fn closed(&mut self, peer: PeerId, connection: ConnectionId) {
        let Some(links) = self.links.get_mut(&peer) else { return };
        links.retain(|link| {
            let stays = link.id != connection;
            if !stays {
                link.in_use.cancel();
            }
            stays
        });
        if links.is_empty() {
            self.links.remove(&peer);
            self.waiting.remove(&peer);
        } else if links.iter().all(|link| link.priority == Priority::Bulk) {
            // Without its first connection the peer counts as lost, and is dialled anew.
            self.todo.extend(links.iter().map(|link| close(peer, link.id)));
        }
    }
}

fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

fn close(peer_id: PeerId, connection: ConnectionId) -> ToSwarm<Inbound, Order> {
    ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(connection) }
}

fn give_up(peer: PeerId, link: &Link) -> ToSwarm<Inbound, Order> {
    link.in_use.cancel();
    close(peer, link.id)
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Inbound;

    fn handle_established_inbound_connection(
        &mut self, id: ConnectionId, peer: PeerId, local: &Multiaddr, from: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.is_up(peer, id, false, is_relayed(local), from))
    }

    fn handle_established_outbound_connection(
        &mut self, id: ConnectionId, peer: PeerId, address: &Multiaddr, _: Endpoint, _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.is_up(peer, id, true, is_relayed(address), address))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if let FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) = event {
            self.closed(peer_id, connection_id);
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            Came::Stream(protocol, stream) => {
                let links = self.links.get_mut(&peer).into_iter().flatten();
                let Some(link) = links.into_iter().find(|link| link.id == id) else { return };
                link.used = Instant::now();
                let inbound = Inbound { peer, protocol, stream, in_use: link.in_use.clone() };
                self.todo.push_back(ToSwarm::GenerateEvent(inbound));
            }
            Came::IsBulk => self.is_bulk(peer, id),
            Came::AskBulk if self.latest(peer, Priority::Bulk).is_none() => {
                self.wait_for_bulk(peer);
            }
            Came::AskBulk => {}
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // What fills `todo` are calls made by the swarm or by its owner, and both poll afterwards.
        self.todo.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
