//! Two nodes on loopback: streams that are opened at the same moment, and those that have a
//! connection of their own.

use super::*;
use crate::certificate::Certificate;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

pub const CLUSTER: Key = [1; 32];
const WAIT: Duration = Duration::from_secs(20);

pub fn start(seed: Key, change: impl Fn(&mut Config)) -> Node {
    let member = crypto::public_of(&seed);
    let certificate =
        Certificate { cluster: [0; 32], member, serial: 1, issued_s: 0, expires_s: i64::MAX, name: "n".into() };
    let mut config = Config {
        seed: Zeroizing::new(seed),
        cluster: crypto::public_of(&CLUSTER),
        certificate: certificate.issue(&CLUSTER),
        agent: "test".into(),
        instance: seed[0].into(),
        mdns: false,
        idle: Duration::ZERO,
        pending_max: 32,
        pending_per_ip_max: 8,
        handshake: WAIT,
        relay: false,
        peers_max: 16,
        connections_per_peer_max: 4,
    };
    change(&mut config);
    Node::start(config).unwrap()
}

/// The next event of this kind; others are passed over.
pub fn next(node: &Node, kind: Kind) -> Event {
    let until = Instant::now() + WAIT;
    while Instant::now() < until {
        match node.queue.pop() {
            Some(event) if event.kind == kind => return event,
            Some(_) => {}
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    panic!("no event of kind {kind:?} came");
}

/// Both connected; the second serves `protocol`.
fn pair(protocol: &StreamProtocol) -> (Node, Node) {
    pair_with(protocol, |_| {})
}

fn pair_with(protocol: &StreamProtocol, change: impl Fn(&mut Config)) -> (Node, Node) {
    let (dialler, listener) = (start([2; 32], &change), start([3; 32], &change));
    assert!(listener.serve(protocol.clone()));
    assert!(!listener.serve(protocol.clone()), "served already");
    listener.command(Command::Listen("/ip4/127.0.0.1/tcp/0".parse().unwrap())).unwrap();
    let address = next(&listener, Kind::Listening).address;
    dialler.command(Command::Dial(address.parse().unwrap())).unwrap();
    next(&dialler, Kind::Connected);
    next(&listener, Kind::Connected);
    (dialler, listener)
}

type Answer = sync_mpsc::Receiver<Result<(OwnedFd, u64), OpenError>>;

fn open(node: &Node, peer: Key, protocol: &StreamProtocol, priority: Priority) -> Answer {
    let (reply, answer) = sync_mpsc::sync_channel(1);
    node.command(Command::Open { peer, protocol: protocol.clone(), priority, reply }).unwrap();
    answer
}

/// Opens a stream at `to` and returns both of its ends.
pub fn stream(from: &Node, to: &Node, protocol: &StreamProtocol, priority: Priority) -> (UnixStream, UnixStream) {
    let fd = match open(from, *to.gate.own(), protocol, priority).recv_timeout(WAIT) {
        Ok(Ok((fd, _))) => fd,
        Ok(Err(OpenError::Io(why) | OpenError::Unsupported(why))) => panic!("no stream was opened: {why}"),
        Ok(Err(OpenError::NotConnected)) => panic!("no stream was opened: not connected"),
        Err(e) => panic!("no stream was opened: {e}"),
    };
    let ends = (UnixStream::from(fd), UnixStream::from(next(to, Kind::Inbound).fd.unwrap()));
    for end in [&ends.0, &ends.1] {
        end.set_read_timeout(Some(WAIT)).unwrap();
    }
    ends
}

fn bulk_connections(node: &Node) -> u32 {
    std::thread::sleep(2 * HOUSEKEEPING);
    node.gauges.bulk_connections.load(Ordering::Relaxed)
}

/// Both come to have so many.
fn wait_for_bulk_connections(nodes: [&Node; 2], count: u32) {
    let until = Instant::now() + WAIT;
    while nodes.iter().any(|node| bulk_connections(node) != count) {
        assert!(Instant::now() < until, "they do not come to {count} connections for bulk");
    }
}

pub fn echo(ends: &mut (UnixStream, UnixStream), byte: u8) {
    let mut heard = [0];
    ends.0.write_all(&[byte]).unwrap();
    ends.1.read_exact(&mut heard).unwrap();
    ends.1.write_all(&heard).unwrap();
    ends.0.read_exact(&mut heard).unwrap();
    assert_eq!(heard, [byte]);
}

#[test]
fn bulk_has_a_connection_of_its_own_whoever_dialled_the_first() {
    let protocol = StreamProtocol::new("/shoal/test/1");
    for opened_by_dialler in [true, false] {
        let (dialler, listener) = pair(&protocol);
        assert!(dialler.serve(protocol.clone()));
        let (from, to) = if opened_by_dialler { (&dialler, &listener) } else { (&listener, &dialler) };
        let mut act = stream(from, to, &protocol, Priority::Activations);
        assert_eq!(bulk_connections(from), 0, "none before it is needed");
        let mut bulk = stream(from, to, &protocol, Priority::Bulk);
        let mut back = stream(to, from, &protocol, Priority::Bulk);
        for (i, ends) in [&mut act, &mut bulk, &mut back].into_iter().enumerate() {
            echo(ends, i as u8);
        }
        wait_for_bulk_connections([from, to], 1); // one for both directions
        // Nobody reads: what is stuck is stuck there, and only there.
        let stuck = &mut bulk.0;
        stuck.set_nonblocking(true).unwrap();
        let until = Instant::now() + WAIT;
        let mut sent = 0;
        let mut idle = 0;
        while idle < 20 {
            assert!(Instant::now() < until, "no back-pressure after {sent} bytes");
            match stuck.write(&[0; 1 << 16]) {
                Ok(n) => (sent, idle) = (sent + n, 0),
                Err(_) => {
                    std::thread::sleep(Duration::from_millis(10));
                    idle += 1;
                }
            }
        }
        echo(&mut act, 9);
        // Whose first connection goes is lost, bulk connection or not.
        from.command(Command::Disconnect(crypto::peer_id(to.gate.own()).unwrap())).unwrap();
        next(from, Kind::Disconnected);
        next(to, Kind::Disconnected);
        wait_for_bulk_connections([from, to], 0);
        dialler.stop(Duration::from_secs(1));
        listener.stop(Duration::from_secs(1));
    }
}

#[test]
fn bulk_shares_the_first_connection_where_there_is_no_second() {
    let protocol = StreamProtocol::new("/shoal/test/1");
    let (dialler, listener) = pair_with(&protocol, |config| config.connections_per_peer_max = 1);
    let mut bulk = stream(&dialler, &listener, &protocol, Priority::Bulk);
    echo(&mut bulk, 1);
    assert_eq!(bulk_connections(&dialler), 0);
    assert!(dialler.queue.pop().is_none(), "a failed dial for bulk is nobody's news");
    dialler.stop(Duration::from_secs(1));
    listener.stop(Duration::from_secs(1));
}

#[test]
fn streams_of_one_protocol_opened_at_once_all_arrive() {
    const STREAMS: usize = 32;
    let protocol = StreamProtocol::new("/shoal/test/1");
    let (dialler, listener) = pair(&protocol);
    let peer = crypto::public_of(&[3; 32]);
    for _round in 0..8 {
        let answers: Vec<Answer> = (0..STREAMS).map(|_| open(&dialler, peer, &protocol, Priority::Activations)).collect();
        let mut ends = Vec::new();
        for (i, answer) in answers.into_iter().enumerate() {
            let Ok(Ok((fd, _))) = answer.recv_timeout(WAIT) else { panic!("stream {i} was not opened") };
            let mut end = UnixStream::from(fd);
            end.write_all(&[i as u8]).unwrap();
            ends.push(end);
        }
        let mut said = HashSet::new();
        for _ in 0..STREAMS {
            let event = next(&listener, Kind::Inbound);
            assert_eq!((event.text.as_str(), event.peer), ("/shoal/test/1", crypto::public_of(&[2; 32])));
            let mut stream = UnixStream::from(event.fd.unwrap());
            stream.set_read_timeout(Some(WAIT)).unwrap();
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            said.insert(byte[0]);
            stream.write_all(&byte).unwrap();
        }
        assert_eq!(said.len(), STREAMS);
        for (i, mut end) in ends.into_iter().enumerate() {
            end.set_read_timeout(Some(WAIT)).unwrap();
            let mut byte = [0];
            end.read_exact(&mut byte).unwrap();
            assert_eq!(byte[0] as usize, i, "each stream has its own other end");
        }
    }
    dialler.stop(Duration::from_secs(1));
    listener.stop(Duration::from_secs(1));
}

#[test]
fn a_protocol_is_served_to_connections_that_were_up_before() {
    let (first, second) = (StreamProtocol::new("/shoal/test/1"), StreamProtocol::new("/shoal/test/2"));
    let (dialler, listener) = pair(&first);
    let peer = crypto::public_of(&[3; 32]);
    let refused = open(&dialler, peer, &second, Priority::Activations).recv_timeout(WAIT).unwrap();
    // Agreement is optimistic: a refusal may also show as the end of a stream that seemed open.
    if let Ok((fd, _)) = refused {
        let mut end = UnixStream::from(fd);
        end.set_read_timeout(Some(WAIT)).unwrap();
        assert_eq!(end.read(&mut [0]).unwrap(), 0);
    }
    assert!(listener.serve(second.clone()));
    assert!(open(&dialler, peer, &second, Priority::Activations).recv_timeout(WAIT).unwrap().is_ok());
    assert_eq!(next(&listener, Kind::Inbound).text, "/shoal/test/2");
    let stranger = crypto::public_of(&[9; 32]);
    assert!(matches!(open(&dialler, stranger, &first, Priority::Bulk).recv_timeout(WAIT), Ok(Err(OpenError::NotConnected))));
    dialler.stop(Duration::from_secs(1));
    listener.stop(Duration::from_secs(1));
}
