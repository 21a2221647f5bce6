//! Two nodes on loopback: streams that are opened at the same moment.

use super::*;
use crate::certificate::Certificate;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

const CLUSTER: Key = [1; 32];
const WAIT: Duration = Duration::from_secs(20);

fn start(seed: Key) -> Node {
    let member = crypto::public_of(&seed);
    let certificate =
        Certificate { cluster: [0; 32], member, serial: 1, issued_s: 0, expires_s: i64::MAX, name: "n".into() };
    let config = Config {
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
        peers_max: 16,
    };
    Node::start(config).unwrap()
}

/// The next event of this kind; others are passed over.
fn next(node: &Node, kind: Kind) -> Event {
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
    let (dialler, listener) = (start([2; 32]), start([3; 32]));
    assert!(listener.serve(protocol.clone()));
    assert!(!listener.serve(protocol.clone()), "served already");
    listener.command(Command::Listen("/ip4/127.0.0.1/tcp/0".parse().unwrap())).unwrap();
    let address = next(&listener, Kind::Listening).address;
    dialler.command(Command::Dial(address.parse().unwrap())).unwrap();
    next(&dialler, Kind::Connected);
    (dialler, listener)
}

type Answer = sync_mpsc::Receiver<Result<(OwnedFd, u64), OpenError>>;

fn open(node: &Node, peer: Key, protocol: &StreamProtocol) -> Answer {
    let (reply, answer) = sync_mpsc::sync_channel(1);
    node.command(Command::Open { peer, protocol: protocol.clone(), reply }).unwrap();
    answer
}

#[test]
fn streams_of_one_protocol_opened_at_once_all_arrive() {
    const STREAMS: usize = 32;
    let protocol = StreamProtocol::new("/shoal/test/1");
    let (dialler, listener) = pair(&protocol);
    let peer = crypto::public_of(&[3; 32]);
    for _round in 0..8 {
        let answers: Vec<Answer> = (0..STREAMS).map(|_| open(&dialler, peer, &protocol)).collect();
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
    let refused = open(&dialler, peer, &second).recv_timeout(WAIT).unwrap();
    // Agreement is optimistic: a refusal may also show as the end of a stream that seemed open.
    if let Ok((fd, _)) = refused {
        let mut end = UnixStream::from(fd);
        end.set_read_timeout(Some(WAIT)).unwrap();
        assert_eq!(end.read(&mut [0]).unwrap(), 0);
    }
    assert!(listener.serve(second.clone()));
    assert!(open(&dialler, peer, &second).recv_timeout(WAIT).unwrap().is_ok());
    assert_eq!(next(&listener, Kind::Inbound).text, "/shoal/test/2");
    let stranger = crypto::public_of(&[9; 32]);
    assert!(matches!(open(&dialler, stranger, &first).recv_timeout(WAIT), Ok(Err(OpenError::NotConnected))));
    dialler.stop(Duration::from_secs(1));
    listener.stop(Duration::from_secs(1));
}
