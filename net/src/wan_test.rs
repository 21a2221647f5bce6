//! Three members on loopback, of which one only reaches the others through the third.

use crate::certificate::Revocation;
use crate::crypto;
use crate::events::Kind;
use crate::gate_messages::Reason;
use crate::node::tests::{echo, next, start, stream, CLUSTER};
use crate::node::{Command, Node};
use crate::streams::Priority;
use libp2p::StreamProtocol;
use std::time::Duration;

const PROTOCOL: StreamProtocol = StreamProtocol::new("/shoal/test/1");

fn listen(node: &Node, address: &str) -> String {
    node.command(Command::Listen(address.parse().unwrap())).unwrap();
    next(node, Kind::Listening).address
}

fn id(node: &Node) -> String {
    crypto::peer_id(node.gate.own()).unwrap().to_string()
}

/// A relay, a member that listens through it only, and the address of that one.
fn hidden() -> (Node, Node, String) {
    let relay = start([2; 32], |config| config.relay = true);
    let hidden = start([3; 32], |_| {});
    assert!(hidden.serve(PROTOCOL));
    let at = listen(&relay, "/ip4/127.0.0.1/tcp/0");
    let through = format!("{at}/p2p/{}/p2p-circuit", id(&relay));
    listen(&hidden, &through);
    let address = format!("{through}/p2p/{}", id(&hidden));
    (relay, hidden, address)
}

fn stop(nodes: impl IntoIterator<Item = Node>) {
    nodes.into_iter().for_each(|node| node.stop(Duration::from_secs(1)));
}

#[test]
fn members_talk_through_a_third() {
    let (relay, hidden, address) = hidden();
    let other = start([4; 32], |_| {});
    other.command(Command::Dial(address.parse().unwrap())).unwrap();
    let mut connected = next(&other, Kind::Connected);
    if connected.peer == *relay.gate.own() {
        connected = next(&other, Kind::Connected);
    }
    assert_eq!(connected.peer, *hidden.gate.own());
    assert_eq!(connected.data, hidden.gate.certificate(), "the gate was passed end to end");
    for (i, priority) in [Priority::Activations, Priority::Bulk].into_iter().enumerate() {
        let mut ends = stream(&other, &hidden, &PROTOCOL, priority);
        for byte in 0..50 {
            echo(&mut ends, byte + i as u8);
        }
    }
    stop([other, hidden, relay]);
}

#[test]
fn the_gate_is_at_the_end_of_a_circuit_too() {
    let (relay, hidden, address) = hidden();
    // The relay does not know of it yet and carries the bytes; the other end lets nobody in.
    let thrown_out = start([5; 32], |_| {});
    let revocation = Revocation {
        cluster: crypto::public_of(&CLUSTER),
        member: *thrown_out.gate.own(),
        serial: u64::MAX,
        revoked_s: 0,
    };
    assert!(hidden.gate.revoke(&revocation));
    thrown_out.command(Command::Dial(address.parse().unwrap())).unwrap();
    let refused = next(&thrown_out, Kind::Refused);
    assert_eq!((refused.reason, refused.by_peer), (Reason::Revoked as u8, true));
    stop([thrown_out, hidden, relay]);
}

#[test]
fn a_stranger_gets_no_circuit() {
    let (relay, hidden, address) = hidden();
    let stranger = start([6; 32], |config| config.certificate.clear());
    stranger.command(Command::Dial(address.parse().unwrap())).unwrap();
    // The relay's gate closes the connection before a circuit can be asked for.
    let refused = next(&stranger, Kind::Refused);
    assert_eq!(refused.reason, Reason::NoCertificate as u8);
    std::thread::sleep(Duration::from_millis(300));
    while let Some(event) = hidden.queue.pop() {
        assert!(event.kind != Kind::Connected || event.peer == *relay.gate.own());
    }
    stop([stranger, hidden, relay]);
}
