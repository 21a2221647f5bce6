//! The gate between two ends of a pipe: every certificate that must not pass, invites, clones.

use super::*;
use crate::invite::Invite;
use futures::executor::block_on;
use std::time::Duration;
use tokio_util::compat::TokioAsyncReadCompatExt;
use zeroize::Zeroizing;

const CLUSTER: Key = [1; 32];
const A: Key = [2; 32];
const B: Key = [3; 32];

fn certificate(cluster: &Key, seed: &Key, serial: u64, expires_s: i64) -> Vec<u8> {
    let member = crypto::public_of(seed);
    Certificate { cluster: [0; 32], member, serial, issued_s: 0, expires_s, name: "n".into() }.issue(cluster)
}

fn gate(seed: &Key, certificate: Vec<u8>, instance: u64) -> Gate {
    let queue = Arc::new(Queue::new().unwrap());
    Gate::new(crypto::public_of(seed), crypto::public_of(&CLUSTER), instance, certificate, queue)
}

fn member(seed: &Key, instance: u64) -> Gate {
    gate(seed, certificate(&CLUSTER, seed, 7, i64::MAX), instance)
}

/// Both ends of one exchange; keys as Noise would have proved them.
fn meet(dialler: &Gate, listener: &Gate) -> (Result<(), Closed>, Result<(), Closed>) {
    let (a, b) = tokio::io::duplex(4096);
    let (mut a, mut b) = (a.compat(), b.compat());
    block_on(async { futures::join!(dialler.dial(&mut a, *listener.own()), listener.listen(&mut b, *dialler.own())) })
}

fn reason(result: &Result<(), Closed>) -> Option<(Reason, bool)> {
    match result {
        Err(Closed::Refused { reason, by_peer, .. }) => Some((*reason, *by_peer)),
        _ => None,
    }
}

#[test]
fn members_pass_and_are_remembered() {
    let (a, b) = (member(&A, 1), member(&B, 2));
    let (dialled, listened) = meet(&a, &b);
    assert!(dialled.is_ok() && listened.is_ok());
    assert!(a.is_welcome(b.own()) && b.is_welcome(a.own()));
    assert_eq!(b.certificate_of(a.own()), certificate(&CLUSTER, &A, 7, i64::MAX));
    let now = Instant::now();
    b.forget_all_but(now, |_| false);
    assert!(b.is_welcome(a.own()), "it is on its way from the gate to a connection");
    b.forget_all_but(now + 2 * UPGRADE_MAX, |_| false);
    assert!(!b.is_welcome(a.own()));
}

#[test]
fn a_bad_certificate_is_refused_in_either_role() {
    let mut scratched = certificate(&CLUSTER, &A, 7, i64::MAX);
    scratched[80] ^= 1;
    let cases = [
        (vec![], Reason::NoCertificate),
        (scratched, Reason::Forged),
        (vec![9; 100], Reason::Forged),
        (certificate(&CLUSTER, &B, 7, i64::MAX), Reason::Forged), // someone else's
        (certificate(&[9; 32], &A, 7, i64::MAX), Reason::OtherCluster),
        (certificate(&CLUSTER, &A, 7, now_s()), Reason::Expired),
    ];
    for (shown, expected) in cases {
        let (stranger, node) = (gate(&A, shown, 1), member(&B, 2));
        let (dialled, listened) = meet(&stranger, &node);
        assert_eq!(reason(&dialled), Some((expected, true)));
        assert_eq!(reason(&listened), Some((expected, false)));
        assert_eq!(reason(&meet(&node, &stranger).0), Some((expected, false)));
        assert!(!node.is_welcome(stranger.own()));
    }
}

#[test]
fn a_revocation_voids_old_certificates_and_not_newer_ones() {
    let (a, b) = (member(&A, 1), member(&B, 2));
    assert!(meet(&a, &b).1.is_ok());
    let (cluster, member) = (*b.cluster(), *a.own());
    assert!(b.revoke(&Revocation { cluster, member, serial: 7, revoked_s: 0 }));
    assert!(!b.is_welcome(a.own()));
    assert_eq!(reason(&meet(&a, &b).1), Some((Reason::Revoked, false)));
    a.set_certificate(certificate(&CLUSTER, &A, 8, i64::MAX));
    assert!(meet(&a, &b).1.is_ok());
    // An older revocation that comes late takes nothing back.
    assert!(b.revoke(&Revocation { cluster, member, serial: u64::MAX, revoked_s: 0 }));
    assert!(b.revoke(&Revocation { cluster, member, serial: 1, revoked_s: 0 }));
    assert_eq!(reason(&meet(&a, &b).1), Some((Reason::Revoked, false)));
}

#[test]
fn the_list_of_revoked_members_is_bounded() {
    let b = member(&B, 2);
    let revocation = |i: u64| {
        let mut member = [0; 32];
        member[..8].copy_from_slice(&i.to_le_bytes());
        Revocation { cluster: *b.cluster(), member, serial: 1, revoked_s: 0 }
    };
    for i in 0..REVOKED_MAX as u64 {
        assert!(b.revoke(&revocation(i)));
    }
    assert!(!b.revoke(&revocation(REVOKED_MAX as u64)));
    assert!(b.revoke(&revocation(0)), "one more time is no more room");
}

#[test]
fn a_node_tells_itself_from_a_clone_and_both_agree_who_is_later() {
    let (one, same) = (member(&A, 5), member(&A, 5));
    let (dialled, listened) = meet(&one, &same);
    assert_eq!((reason(&dialled), reason(&listened)), (Some((Reason::Own, false)), Some((Reason::Own, false))));

    let (one, other) = (member(&A, 5), member(&A, 6));
    for (dialler, listener) in [(&one, &other), (&other, &one)] {
        match meet(dialler, listener) {
            (Err(Closed::Clone { later: x }), Err(Closed::Clone { later: y })) => assert_ne!(x, y),
            other => panic!("{other:?}"),
        }
    }
    let young = one.own_key(&Message::Hello { uptime_ms: 1_000, instance: 5, certificate: vec![] }, 60_000, 1);
    assert!(matches!(young, Closed::Clone { later: true }));
    let old = one.own_key(&Message::Hello { uptime_ms: 60_000, instance: 5, certificate: vec![] }, 1_000, 99);
    assert!(matches!(old, Closed::Clone { later: false }));
}

fn joiner(secret: &[u8]) -> Join {
    let secret = Zeroizing::new(secret.to_vec());
    Join { own: crypto::public_of(&B), name: "phone".into(), secret, granted: Mutex::default() }
}

fn join(joiner: &Join, inviter: &Gate) -> (Result<(), Closed>, Result<(), Closed>) {
    let (a, b) = tokio::io::duplex(4096);
    let (mut a, mut b) = (a.compat(), b.compat());
    block_on(async { futures::join!(joiner.dial(&mut a, *inviter.own()), inviter.listen(&mut b, joiner.own)) })
}

fn open_invite(gate: &Gate) -> i64 {
    let invite = Invite {
        cluster_seed: Zeroizing::new(CLUSTER),
        secret: Zeroizing::new(b"0123456789".to_vec()),
        closes: Instant::now() + Duration::from_secs(60),
        serial: 3,
        expires_s: i64::MAX,
        extras: Zeroizing::new(vec![5; 480]),
    };
    gate.invites.add(invite).unwrap()
}

#[test]
fn a_joiner_with_the_code_gets_a_certificate_that_lets_it_in() {
    let inviter = member(&A, 1);
    assert_eq!(reason(&join(&joiner(b"0123456789"), &inviter).0), Some((Reason::JoinClosed, true)));
    let id = open_invite(&inviter);
    assert_eq!(reason(&join(&joiner(b"0123456780"), &inviter).0), Some((Reason::JoinWrong, true)));

    let right = joiner(b"0123456789");
    let (dialled, listened) = join(&right, &inviter);
    assert!(matches!((dialled, listened), (Err(Closed::Done), Err(Closed::Done))));
    let granted = right.take().unwrap();
    assert_eq!((granted.cluster, granted.inviter, granted.extras), (*inviter.cluster(), *inviter.own(), vec![5; 480]));
    let event = inviter.queue.pop().unwrap();
    assert_eq!((event.kind, event.id, event.peer), (Kind::Joined, id as u64, right.own));
    assert!(meet(&gate(&B, granted.certificate, 2), &inviter).1.is_ok());
    assert_eq!(reason(&join(&right, &inviter).0), Some((Reason::JoinClosed, true)), "an invite is for one");
}

#[test]
fn who_was_thrown_out_for_good_cannot_use_an_invite() {
    let inviter = member(&A, 1);
    open_invite(&inviter);
    let member = crypto::public_of(&B);
    inviter.revoke(&Revocation { cluster: *inviter.cluster(), member, serial: 7, revoked_s: 0 });
    assert_eq!(reason(&join(&joiner(b"0123456789"), &inviter).0), Some((Reason::Revoked, true)));
}

#[test]
fn noise_on_the_line_is_refused_at_once() {
    let listener = member(&A, 1);
    for garbage in [&[0xff_u8; 64][..], &[3, 0, 9, 1, 1], &[3, 0, 4, 1, 1]] {
        let (a, b) = tokio::io::duplex(4096);
        let (mut a, mut b) = (a.compat(), b.compat());
        let listened = block_on(async {
            futures::AsyncWriteExt::write_all(&mut a, garbage).await.unwrap();
            listener.listen(&mut b, [8; 32]).await
        });
        assert_eq!(reason(&listened), Some((Reason::Malformed, false)));
        assert_eq!(block_on(messages::read(&mut a)).unwrap(), Some(Message::Refuse(Reason::Malformed)));
    }
}
