//! One libp2p node: a thread with one tokio runtime and one swarm, told what to do by commands, telling by events.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc as sync_mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::core::upgrade::Version;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{DialError, FromSwarm, ListenError, NetworkBehaviour, NewListenAddr, SwarmEvent};
use libp2p::{connection_limits, identify, noise, ping, tcp, yamux};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, Transport, TransportError};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::counted::{Counted, Counters, Sockets};
use crate::crypto::{self, Key};
use crate::events::{Event, Kind, Queue};
use crate::gate::{Closed, Gate, GateUpgrade, Join, JoinUpgrade};
use crate::limits::Pending;
use crate::pump::Pumps;
use crate::streams::{Inbound, OpenFault, Priority, Served, Streams};

const COMMANDS_MAX: usize = 256;
const HOUSEKEEPING: Duration = Duration::from_millis(250);
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
const NEVER: Duration = Duration::from_secs(u32::MAX as u64);
/// Anyone on the LAN can say anything by mDNS, and it would be kept for as long as it asks for.
const MDNS_ADDRESSES_MAX: usize = 1024;
/// How long mDNS rests when it was more.
const MDNS_REST: Duration = Duration::from_secs(300);
/// Of one connection in its last moments: how often stopping looks whether all is sent.
const DRAIN_POLL: Duration = Duration::from_millis(2);

pub struct Config {
    pub seed: Zeroizing<Key>,
    pub cluster: Key,
    pub certificate: Vec<u8>,
    pub agent: String,
    pub instance: u64,
    pub mdns: bool,
    pub idle: Duration, // zero: never
    pub pending_max: u32,
    pub pending_per_ip_max: u32,
    pub handshake: Duration,
    /// Members may reach others through this node (feature wan).
    pub relay: bool,
    pub peers_max: u32,
    pub connections_per_peer_max: u32,
}

/// Why a stream could not be opened.
pub enum OpenError {
    NotConnected,
    Unsupported(String),
    Io(String),
}

pub type OpenReply = sync_mpsc::SyncSender<Result<(OwnedFd, u64), OpenError>>;

pub enum Command {
    Listen(Multiaddr),
    Dial(Multiaddr),
    Disconnect(PeerId),
    DropUnwelcome,
    Open { peer: Key, protocol: StreamProtocol, priority: Priority, reply: OpenReply },
    Stop(Duration),
}

#[cfg(feature = "mdns")]
type Mdns = libp2p::mdns::tokio::Behaviour;
#[cfg(not(feature = "mdns"))]
type Mdns = libp2p::swarm::dummy::Behaviour;

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    pending: Pending,
    streams: Streams,
    ping: ping::Behaviour,
    identify: identify::Behaviour,
    mdns: Toggle<Mdns>,
    #[cfg(feature = "wan")]
    wan: crate::wan::Wan,
}

/// What any thread may read while the node runs.
#[derive(Default)]
pub struct Gauges {
    pub connections: AtomicU32,
    pub bulk_connections: AtomicU32,
    pub pending: AtomicU32,
    pub cpu_ns: AtomicU64,
    /// By peer: bytes a second that bulk was delivered with.
    pub bulk_rates: Mutex<Vec<(Key, u64)>>,
}

pub struct Node {
    pub gate: Arc<Gate>,
    pub queue: Arc<Queue>,
    pub counters: Arc<Counters>,
    pub gauges: Arc<Gauges>,
    pub streams: Arc<AtomicU32>,
    served: Served,
    commands: mpsc::Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    pub fn start(config: Config) -> Result<Self, String> {
        if config.relay && !cfg!(feature = "wan") {
            return Err("this build cannot be a relay: it was made without SHOAL_NET_FEATURES=mdns,wan".into());
        }
        let queue = Arc::new(Queue::new().map_err(|e| e.to_string())?);
        let own = crypto::public_of(&config.seed);
        let gate = Gate::new(own, config.cluster, config.instance, config.certificate.clone(), queue.clone());
        let gate = Arc::new(gate);
        let counters = Arc::new(Counters::default());
        let gauges = Arc::new(Gauges::default());
        let running = Arc::new(AtomicU32::new(0));
        let pumps = Pumps { queue: queue.clone(), running: running.clone() };

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let entered = runtime.enter();
        let served = Served::default();
        let swarm = build(&config, &gate, &counters, served.clone())?;
        drop(entered);
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let task = Task {
            swarm,
            relay: config.relay,
            mdns_rests: None,
            gate: gate.clone(),
            queue: queue.clone(),
            gauges: gauges.clone(),
            pumps,
            next_id: 1,
        };
        let fatal = queue.clone();
        let thread = std::thread::Builder::new()
            .name("shoal-net".into())
            .spawn(move || {
                let run = std::panic::AssertUnwindSafe(|| runtime.block_on(task.run(receiver)));
                if std::panic::catch_unwind(run).is_err() {
                    fatal.push(Event { text: "the network task died".into(), ..Event::new(Kind::Fatal) });
                }
                runtime.shutdown_timeout(Duration::from_millis(100));
            })
            .map_err(|e| e.to_string())?;
        Ok(Node { gate, queue, counters, gauges, streams: running, served, commands, thread: Some(thread) })
    }

    /// `Err(true)`: too many wait; `Err(false)`: the node has stopped.
    pub fn command(&self, command: Command) -> Result<(), bool> {
        self.commands.try_send(command).map_err(|e| matches!(e, mpsc::error::TrySendError::Full(_)))
    }

    /// False when the protocol is served already.
    pub fn serve(&self, protocol: StreamProtocol) -> bool {
        self.served.add(protocol)
    }

    pub fn stop(mut self, deadline: Duration) {
        // A full channel means a task that has long stopped reading: then dropping our end is all there is.
        let _ = self.commands.try_send(Command::Stop(deadline));
        let (dead, _) = mpsc::channel(1);
        self.commands = dead;
        if let Some(thread) = self.thread.take() {
            let until = Instant::now() + deadline + Duration::from_millis(250);
            while !thread.is_finished() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

fn tcp_transport() -> tcp::tokio::Transport {
    tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
}

fn build(
    config: &Config, gate: &Arc<Gate>, counters: &Arc<Counters>, served: Served,
) -> Result<Swarm<Behaviour>, String> {
    let keypair = crypto::keypair_of(&config.seed);
    let public = keypair.public();
    let peer = public.to_peer_id();
    let noise = noise::Config::new(&keypair).map_err(|e| e.to_string())?;
    let (counters, sockets) = (counters.clone(), Sockets::default());
    let of_streams = sockets.clone();
    let transport = tcp_transport().map(move |socket, point| Counted::new(socket, &point, counters, &sockets));
    #[cfg(feature = "wan")]
    let (transport, wan) = crate::wan::extend(transport, peer, config.relay);
    let transport = transport
        .upgrade(Version::V1Lazy)
        .authenticate(GateUpgrade { noise, gate: gate.clone() })
        .multiplex(yamux::Config::default())
        .inbound_timeout(config.handshake)
        .outbound_timeout(DIAL_TIMEOUT)
        .boxed();

    let limits = connection_limits::ConnectionLimits::default()
        .with_max_established_per_peer(Some(config.connections_per_peer_max))
        .with_max_established(Some(config.peers_max.saturating_mul(2)));
    let identify = identify::Config::new("/shoal/1".into(), public).with_agent_version(config.agent.clone());
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        pending: Pending::new(config.pending_per_ip_max, config.pending_max, gate.clone()),
        streams: Streams::new(served, of_streams),
        ping: ping::Behaviour::default(),
        identify: identify::Behaviour::new(identify),
        mdns: Toggle::from(config.mdns.then(|| mdns(peer)).flatten()),
        #[cfg(feature = "wan")]
        wan,
    };
    let idle = if config.idle.is_zero() { NEVER } else { config.idle };
    let swarm_config = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(idle);
    Ok(Swarm::new(transport, behaviour, peer, swarm_config))
}

/// Where multicast or netlink is forbidden there is none; other ways of finding each other remain.
#[cfg(feature = "mdns")]
fn mdns(own: PeerId) -> Option<Mdns> {
    Mdns::new(Default::default(), own).ok()
}

#[cfg(not(feature = "mdns"))]
fn mdns(_own: PeerId) -> Option<Mdns> {
    None
}

/// Whether it says that nobody answers, not that the peer has no use for pings. After the first ping without an answer
/// none even finds a stream.
fn is_silence(failure: &ping::Failure) -> bool {
    match failure {
        ping::Failure::Timeout => true,
        ping::Failure::Other { error } => {
            error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
        }
        ping::Failure::Unsupported => false,
    }
}

struct Task {
    swarm: Swarm<Behaviour>,
    relay: bool,
    /// Until when mDNS rests.
    mdns_rests: Option<Instant>,
    gate: Arc<Gate>,
    queue: Arc<Queue>,
    gauges: Arc<Gauges>,
    pumps: Pumps,
    next_id: u64,
}

impl Task {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        loop {
            let room = self.queue.has_room();
            tokio::select! {
                command = commands.recv() => match command {
                    None => return,
                    Some(Command::Stop(deadline)) => return self.stop(deadline).await,
                    Some(command) => self.obey(command),
                },
                _ = housekeeping.tick() => self.keep_house(),
                () = self.queue.popped(), if !room => {}
                event = self.swarm.select_next_some(), if room => self.tell(event),
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Listen(address) => {
                if let Err(e) = self.swarm.listen_on(address.clone()) {
                    self.push(Event { address: address.to_string(), text: e.to_string(), ..Event::new(Kind::ListenFailed) });
                }
            }
            Command::Dial(address) => match self.swarm.dial(DialOpts::from(address.clone())) {
                Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
                Err(e) => self.dial_failed(&address, &e.to_string(), None),
            },
            Command::Disconnect(peer) => {
                self.swarm.behaviour_mut().streams.lose(peer);
                let _ = self.swarm.disconnect_peer_id(peer);
            }
            Command::DropUnwelcome => self.drop_unwelcome(),
            Command::Open { peer, protocol, priority, reply } => self.open(peer, protocol, priority, reply),
            Command::Stop(_) => unreachable!("handled by run"),
        }
    }

    fn open(&mut self, peer: Key, protocol: StreamProtocol, priority: Priority, reply: OpenReply) {
        let id = self.take_id();
        let Some(peer_id) = crypto::peer_id(&peer).filter(|p| self.swarm.is_connected(p)) else {
            let _ = reply.try_send(Err(OpenError::NotConnected));
            return;
        };
        let opening = self.swarm.behaviour_mut().streams.open(peer_id, protocol, priority);
        let pumps = self.pumps.clone();
        tokio::spawn(async move {
            let opened = match opening.await {
                Ok(Ok((stream, in_use))) => match pumps.start(stream, in_use, id, peer) {
                    Ok(fd) => Ok((fd, id)),
                    Err(e) => Err(OpenError::Io(e.to_string())),
                },
                Ok(Err(OpenFault::Unsupported(p))) => Err(OpenError::Unsupported(p.to_string())),
                Ok(Err(OpenFault::Io(e))) => Err(OpenError::Io(e.to_string())),
                Err(_) => Err(OpenError::Io("the connection went before the stream was opened".into())),
            };
            // Nobody waits any more: the descriptor closes, and with it the stream.
            let _ = reply.try_send(opened);
        });
    }

    fn hand_over(&mut self, Inbound { peer, stream, protocol, in_use }: Inbound) {
        let Some(peer) = crypto::public_of_peer(&peer).filter(|key| self.gate.is_welcome(key)) else { return };
        let id = self.take_id();
        match self.pumps.start(stream, in_use, id, peer) {
            Ok(fd) => self.push(Event { fd: Some(fd), id, peer, text: protocol.to_string(), ..Event::new(Kind::Inbound) }),
            // Out of descriptors: the peer sees a stream that ends at once.
            Err(e) => self.push(Event { id, peer, lost: true, text: e.to_string(), ..Event::new(Kind::StreamEnd) }),
        }
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    fn push(&self, event: Event) {
        self.queue.push(event);
    }

    fn keep_house(&mut self) {
        for id in self.gate.invites.expire(Instant::now()) {
            self.push(Event { id: id as u64, text: "its time is over".into(), ..Event::new(Kind::InviteClosed) });
        }
        self.drop_unwelcome();
        if self.mdns_rests.is_some_and(|until| until <= Instant::now()) {
            self.wake_mdns();
        }
        self.swarm.behaviour_mut().streams.keep_house(Instant::now());
        let swarm = &self.swarm;
        let is_connected = |key: &Key| crypto::peer_id(key).is_some_and(|peer| swarm.is_connected(&peer));
        self.gate.forget_all_but(Instant::now(), is_connected);
        let pending = self.swarm.behaviour().pending.pending() as u32;
        self.gauges.pending.store(pending, Ordering::Relaxed);
        let bulk = self.swarm.behaviour().streams.bulk_connections() as u32;
        self.gauges.bulk_connections.store(bulk, Ordering::Relaxed);
        let rates = self.swarm.behaviour().streams.bulk_rates().filter_map(|(peer, rate)| {
            crypto::public_of_peer(&peer).map(|key| (key, rate))
        });
        *self.gauges.bulk_rates.lock().unwrap_or_else(PoisonError::into_inner) = rates.collect();
        self.gauges.connections.store(self.swarm.network_info().num_peers() as u32, Ordering::Relaxed);
        self.gauges.cpu_ns.store(thread_cpu_ns(), Ordering::Relaxed);
    }

    /// What was heard is forgotten, and nothing more is.
    #[cfg(feature = "mdns")]
    fn rest_mdns(&mut self) {
        self.swarm.behaviour_mut().mdns = Toggle::from(None);
        self.mdns_rests = Some(Instant::now() + MDNS_REST);
        let minutes = MDNS_REST.as_secs() / 60;
        let text = format!("more than {MDNS_ADDRESSES_MAX} addresses by mDNS: someone floods it. It rests for {minutes} minutes");
        self.push(Event { text, ..Event::new(Kind::Notice) });
    }

    fn wake_mdns(&mut self) {
        self.mdns_rests = None;
        let Some(mut fresh) = mdns(*self.swarm.local_peer_id()) else {
            self.mdns_rests = Some(Instant::now() + MDNS_REST);
            return;
        };
        for addr in self.swarm.listeners() {
            let listener_id = ListenerId::next();  // not looked at
            fresh.on_swarm_event(FromSwarm::NewListenAddr(NewListenAddr { listener_id, addr }));
        }
        self.swarm.behaviour_mut().mdns = Toggle::from(Some(fresh));
    }

    /// Those whose certificate ended or was revoked while they were connected.
    fn drop_unwelcome(&mut self) {
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            if !crypto::public_of_peer(&peer).is_some_and(|key| self.gate.is_welcome(&key)) {
                let _ = self.swarm.disconnect_peer_id(peer);
            }
        }
    }

    fn tell(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                if self.relay {
                    self.swarm.add_external_address(address.clone()); // a relay says where it is
                }
                self.push(Event { address: address.to_string(), ..Event::new(Kind::Listening) });
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.push(Event { address: address.to_string(), ..Event::new(Kind::NotListening) });
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                for address in addresses {
                    self.push(Event { address: address.to_string(), ..Event::new(Kind::NotListening) });
                }
                if let Err(e) = reason {
                    self.push(Event { text: e.to_string(), ..Event::new(Kind::ListenFailed) });
                }
            }
            // Each of them: a new one beside an old one may be all that is left of a peer that changed its address.
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => {
                let Some(peer) = crypto::public_of_peer(&peer_id) else { return };
                if !self.gate.is_welcome(&peer) {
                    let _ = self.swarm.disconnect_peer_id(peer_id);
                } else {
                    let address = endpoint.get_remote_address().to_string();
                    let (dialer, data) = (endpoint.is_dialer(), self.gate.certificate_of(&peer));
                    self.push(Event { peer, address, dialer, data, ..Event::new(Kind::Connected) });
                }
            }
            SwarmEvent::ConnectionClosed { peer_id, cause, num_established: 0, .. } => {
                let Some(peer) = crypto::public_of_peer(&peer_id) else { return };
                let text = cause.map(|e| e.to_string()).unwrap_or_default();
                self.push(Event { peer, text, ..Event::new(Kind::Disconnected) });
            }
            SwarmEvent::OutgoingConnectionError { peer_id, error, connection_id } => {
                if !self.swarm.behaviour_mut().streams.dial_failed(connection_id) {
                    self.outgoing_failed(peer_id, &error);
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                let found = match &error {
                    ListenError::Transport(TransportError::Other(e)) => closed_in(e),
                    _ => None,
                };
                self.incoming_failed(&send_back_addr, found);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Streams(inbound)) => self.hand_over(inbound),
            // Left over from an address that the peer no longer has; it would count as one of its connections.
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { peer, connection, result: Err(failure) }))
                if is_silence(&failure) =>
            {
                self.swarm.behaviour_mut().streams.close_dead(peer, connection);
            }
            #[cfg(feature = "mdns")]
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(event)) => {
                let (kind, list) = match event {
                    libp2p::mdns::Event::Discovered(list) => (Kind::Discovered, list),
                    libp2p::mdns::Event::Expired(list) => (Kind::Expired, list),
                };
                for (peer, address) in list {
                    if let Some(peer) = crypto::public_of_peer(&peer) {
                        self.push(Event { peer, address: address.to_string(), ..Event::new(kind) });
                    }
                }
                let known = self.swarm.behaviour().mdns.as_ref().map_or(0, |mdns| mdns.discovered_nodes().len());
                if known > MDNS_ADDRESSES_MAX {
                    self.rest_mdns();
                }
            }
            _ => {}
        }
    }

    fn dial_failed(&self, address: &Multiaddr, text: &str, peer: Option<PeerId>) {
        let peer = peer.and_then(|p| crypto::public_of_peer(&p)).unwrap_or_default();
        self.push(Event { peer, address: address.to_string(), text: text.into(), ..Event::new(Kind::DialFailed) });
    }

    fn outgoing_failed(&self, peer: Option<PeerId>, error: &DialError) {
        let DialError::Transport(attempts) = error else {
            let address = match error {
                DialError::WrongPeerId { address, .. } | DialError::LocalPeerId { address } => address.clone(),
                _ => Multiaddr::empty(),
            };
            return self.dial_failed(&address, &error.to_string(), peer);
        };
        for (address, error) in attempts {
            let found = match error {
                TransportError::Other(e) => closed_in(e),
                TransportError::MultiaddrNotSupported(_) => None,
            };
            match found {
                Some(Closed::Refused { reason, by_peer, peer }) => self.push(Event {
                    peer: *peer,
                    address: address.to_string(),
                    reason: *reason as u8,
                    text: reason.text().into(),
                    by_peer: *by_peer,
                    dialer: true,
                    ..Event::new(Kind::Refused)
                }),
                Some(Closed::Clone { later }) => {
                    let address = address.to_string();
                    self.push(Event { address, later: *later, dialer: true, ..Event::new(Kind::Clone) });
                }
                _ => self.dial_failed(address, &error.to_string(), peer),
            }
        }
    }

    fn incoming_failed(&self, from: &Multiaddr, found: Option<&Closed>) {
        let address = from.to_string();
        match found {
            Some(Closed::Refused { reason, by_peer, peer }) => {
                self.gate.count_refused_inbound();
                let (peer, text, reason, by_peer) = (*peer, reason.text().into(), *reason as u8, *by_peer);
                self.push(Event { peer, address, text, reason, by_peer, ..Event::new(Kind::Refused) });
            }
            Some(Closed::Clone { later }) => {
                self.push(Event { address, later: *later, ..Event::new(Kind::Clone) });
            }
            // A scan, a hang-up, a joiner that is done: nothing to tell.
            _ => {}
        }
    }

    /// Streams first send what C++ has written, then connections close.
    async fn stop(mut self, deadline: Duration) {
        let drain = async {
            for peer in self.swarm.connected_peers().copied().collect::<Vec<_>>() {
                if self.pumps.running.load(Ordering::Acquire) == 0 {
                    let _ = self.swarm.disconnect_peer_id(peer);
                }
            }
            while self.pumps.running.load(Ordering::Acquire) > 0 {
                tokio::select! { _ = self.swarm.select_next_some() => {}, () = tokio::time::sleep(DRAIN_POLL) => {} }
            }
            for peer in self.swarm.connected_peers().copied().collect::<Vec<_>>() {
                let _ = self.swarm.disconnect_peer_id(peer);
            }
            while self.swarm.network_info().num_peers() > 0 {
                self.swarm.select_next_some().await;
            }
        };
        let _ = tokio::time::timeout(deadline, drain).await;
    }
}

fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid pointer.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What the gate said, somewhere inside the errors that the transport wrapped around it.
fn closed_in(error: &io::Error) -> Option<&Closed> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(closed) = error.downcast_ref::<Closed>() {
            return Some(closed);
        }
        // The source of an io::Error is its content's source: the content itself would be skipped.
        next = match error.downcast_ref::<io::Error>() {
            Some(wrapper) => wrapper.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static)),
            None => error.source(),
        };
    }
    None
}

pub enum JoinError {
    Timeout,
    Unreachable(String),
    Refused(crate::gate_messages::Reason, bool),
}

/// Dials, joins, hangs up. Blocks.
pub fn join(seed: &Zeroizing<Key>, join: Join, address: &Multiaddr, timeout: Duration) -> Result<crate::gate::Granted, JoinError> {
    let unreachable = |e: &dyn std::fmt::Display| JoinError::Unreachable(e.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| unreachable(&e))?;
    let noise = noise::Config::new(&crypto::keypair_of(seed)).map_err(|e| unreachable(&e))?;
    let join = Arc::new(join);
    let _entered = runtime.enter();
    let mut transport = tcp_transport()
        .upgrade(Version::V1Lazy)
        .authenticate(JoinUpgrade { noise, join: join.clone() })
        .multiplex(yamux::Config::default())
        .boxed();
    let options = libp2p::core::transport::DialOpts {
        role: libp2p::core::Endpoint::Dialer,
        port_use: libp2p::core::transport::PortUse::New,
    };
    let dialing = transport.dial(address.clone(), options).map_err(|e| unreachable(&e))?;
    let ended = runtime.block_on(async { tokio::time::timeout(timeout, dialing).await });
    let Err(error) = ended.map_err(|_| JoinError::Timeout)? else {
        return Err(JoinError::Unreachable("the peer let us in without an invite".into()));
    };
    match (join.take(), closed_in(&error)) {
        (Some(granted), _) => Ok(granted),
        (None, Some(Closed::Refused { reason, by_peer, .. })) => Err(JoinError::Refused(*reason, *by_peer)),
        _ => Err(unreachable(&error)),
    }
}

#[cfg(test)]
#[path = "node_test.rs"]
pub mod tests;
