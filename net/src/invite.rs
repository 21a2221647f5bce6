//! Open invites: who proves the secret of one gets a certificate, once. Pure but for the clock it is given.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use zeroize::Zeroizing;

use crate::certificate::Certificate;
use crate::crypto::{self, Key};
use crate::gate_messages::{extras_key, grant_proof, join_proof, Message, Reason};

pub const INVITES_MAX: usize = 8;

pub struct Invite {
    pub cluster_seed: Zeroizing<Key>,
    pub secret: Zeroizing<Vec<u8>>,
    pub closes: Instant,
    pub serial: u64,
    pub expires_s: i64,
    pub extras: Zeroizing<Vec<u8>>,
}

struct Open {
    id: i64,
    invite: Invite,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Granted {
    pub invite: i64,
    pub certificate: Vec<u8>,
    pub message: Message,
}

#[derive(Default)]
pub struct Invites {
    open: Mutex<Vec<Open>>,
    last_id: AtomicI64,
}

impl Invites {
    /// The invite's id; `None` when too many are open.
    pub fn add(&self, invite: Invite) -> Option<i64> {
        let mut open = self.lock();
        if open.len() >= INVITES_MAX {
            return None;
        }
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        open.push(Open { id, invite });
        Some(id)
    }

    pub fn remove(&self, id: i64) {
        self.lock().retain(|open| open.id != id);
    }

    /// Removes and names those whose time is over.
    pub fn expire(&self, now: Instant) -> Vec<i64> {
        let mut closed = Vec::new();
        self.lock().retain(|open| {
            let keep = now < open.invite.closes;
            if !keep {
                closed.push(open.id);
            }
            keep
        });
        closed
    }

    /// Answers a join. An invite that grants is used up. Wrong proofs change nothing: a secret of 80 bits cannot be
    /// guessed, and strangers must not be able to close an invite.
    pub fn answer(
        &self, joiner: &Key, inviter: &Key, proof: &Key, name: &str, now: Instant, now_s: i64,
    ) -> Result<Granted, Reason> {
        let mut open = self.lock();
        let valid = |o: &Open| now < o.invite.closes;
        if !open.iter().any(valid) {
            return Err(Reason::JoinClosed);
        }
        let at = open
            .iter()
            .position(|o| valid(o) && crypto::equal(&join_proof(&o.invite.secret, joiner, inviter), proof))
            .ok_or(Reason::JoinWrong)?;
        // Without randomness the extras cannot be sealed: the invite stays open for another try.
        let granted = grant(&open[at], joiner, inviter, name, now_s).ok_or(Reason::JoinClosed)?;
        open.remove(at);
        Ok(granted)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn grant(open: &Open, joiner: &Key, inviter: &Key, name: &str, now_s: i64) -> Option<Granted> {
    let invite = &open.invite;
    let cluster = crypto::public_of(&invite.cluster_seed);
    let certificate = Certificate {
        cluster,
        member: *joiner,
        serial: invite.serial,
        issued_s: now_s,
        expires_s: invite.expires_s,
        name: name.to_owned(),
    }
    .issue(&invite.cluster_seed);
    let extras = crypto::seal(&extras_key(&invite.secret, joiner, inviter, &cluster), &certificate, &invite.extras)?;
    let proof = grant_proof(&invite.secret, joiner, inviter, &cluster, &certificate);
    let message = Message::Grant { proof, certificate: certificate.clone(), extras };
    Some(Granted { invite: open.id, certificate, message })
}

/// What the joiner makes of a grant: certificate, cluster key, extras.
pub fn accept_grant(
    secret: &[u8], joiner: &Key, inviter: &Key, proof: &Key, certificate: &[u8], extras: &[u8],
) -> Result<(Certificate, Vec<u8>), Reason> {
    let parsed = Certificate::verify(certificate, None).map_err(|_| Reason::Forged)?;
    if !crypto::equal(&grant_proof(secret, joiner, inviter, &parsed.cluster, certificate), proof) {
        return Err(Reason::JoinUnproved);
    }
    if parsed.member != *joiner {
        return Err(Reason::Forged);
    }
    let key = extras_key(secret, joiner, inviter, &parsed.cluster);
    let extras = crypto::unseal(&key, certificate, extras).ok_or(Reason::JoinUnproved)?;
    Ok((parsed, extras))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn invite(secret: &[u8], closes: Instant) -> Invite {
        Invite {
            cluster_seed: Zeroizing::new([1; 32]),
            secret: Zeroizing::new(secret.to_vec()),
            closes,
            serial: 4,
            expires_s: i64::MAX,
            extras: Zeroizing::new(b"extras".to_vec()),
        }
    }

    fn keys() -> (Key, Key) {
        (crypto::public_of(&[2; 32]), crypto::public_of(&[3; 32]))
    }

    #[test]
    fn the_right_proof_gets_one_certificate() {
        let (invites, now, (joiner, inviter)) = (Invites::default(), Instant::now(), keys());
        let id = invites.add(invite(b"0123456789", now + Duration::from_secs(1))).unwrap();
        let proof = join_proof(b"0123456789", &joiner, &inviter);
        let granted = invites.answer(&joiner, &inviter, &proof, "phone", now, 50).unwrap();
        assert_eq!(granted.invite, id);
        let Message::Grant { proof: theirs, certificate, extras } = granted.message else { panic!() };
        let (parsed, extras) = accept_grant(b"0123456789", &joiner, &inviter, &theirs, &certificate, &extras).unwrap();
        assert_eq!((parsed.name.as_str(), parsed.member, parsed.serial, parsed.issued_s), ("phone", joiner, 4, 50));
        assert_eq!(extras, b"extras");
        let again = invites.answer(&joiner, &inviter, &proof, "phone", now, 50);
        assert_eq!(again, Err(Reason::JoinClosed), "used up");
    }

    #[test]
    fn an_inviter_that_does_not_know_the_secret_is_found_out() {
        let (invites, now, (joiner, inviter)) = (Invites::default(), Instant::now(), keys());
        invites.add(invite(b"another secret", now + Duration::from_secs(1))).unwrap();
        let stolen = join_proof(b"another secret", &joiner, &inviter);
        let granted = invites.answer(&joiner, &inviter, &stolen, "x", now, 0).unwrap();
        let Message::Grant { proof, certificate, mut extras } = granted.message else { panic!() };
        let ours = accept_grant(b"our secret", &joiner, &inviter, &proof, &certificate, &extras);
        assert_eq!(ours.unwrap_err(), Reason::JoinUnproved);
        extras[30] ^= 1;
        let changed = accept_grant(b"another secret", &joiner, &inviter, &proof, &certificate, &extras);
        assert_eq!(changed.unwrap_err(), Reason::JoinUnproved);
    }

    #[test]
    fn time_closes_it_and_wrong_proofs_do_not() {
        let (invites, now, (joiner, inviter)) = (Invites::default(), Instant::now(), keys());
        let closes = now + Duration::from_secs(1);
        let proof = join_proof(b"0123456789", &joiner, &inviter);
        let id = invites.add(invite(b"0123456789", closes)).unwrap();
        for _ in 0..1000 {
            assert_eq!(invites.answer(&joiner, &inviter, &[0; 32], "x", now, 0).unwrap_err(), Reason::JoinWrong);
        }
        assert_eq!(invites.answer(&joiner, &inviter, &proof, "x", now, 0).unwrap().invite, id);

        let id = invites.add(invite(b"0123456789", closes)).unwrap();
        assert_eq!(invites.answer(&joiner, &inviter, &proof, "x", closes, 0).unwrap_err(), Reason::JoinClosed);
        assert!(invites.expire(now).is_empty());
        assert_eq!(invites.expire(closes), vec![id]);
    }

    #[test]
    fn a_few_may_be_open_at_once() {
        let (invites, now, (joiner, inviter)) = (Invites::default(), Instant::now(), keys());
        let closes = now + Duration::from_secs(1);
        let ids: Vec<_> = (0..INVITES_MAX as u8).map(|i| invites.add(invite(&[i; 10], closes)).unwrap()).collect();
        assert!(invites.add(invite(b"one too many", closes)).is_none());
        invites.remove(ids[3]);
        let removed = join_proof(&[3; 10], &joiner, &inviter);
        assert_eq!(invites.answer(&joiner, &inviter, &removed, "x", now, 0).unwrap_err(), Reason::JoinWrong);
        let open = join_proof(&[4; 10], &joiner, &inviter);
        assert_eq!(invites.answer(&joiner, &inviter, &open, "x", now, 0).unwrap().invite, ids[4]);
    }
}
