//! Keys, hashes and seals: thin names over the libraries that libp2p brings anyway. Pure but for `random`.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::Mac;
use libp2p::identity::{ed25519, Keypair, PublicKey};
use libp2p::PeerId;
use sha2::Digest;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

pub const KEY_BYTES: usize = 32;
pub const SIGNATURE_BYTES: usize = 64;
pub const NONCE_BYTES: usize = 24;
/// By how much a seal makes a message longer: the nonce and the tag.
pub const SEAL_BYTES: usize = NONCE_BYTES + 16;

pub type Key = [u8; KEY_BYTES];

/// Fills `out` from the operating system's generator; false when it fails.
#[must_use]
pub fn random(out: &mut [u8]) -> bool {
    getrandom::fill(out).is_ok()
}

/// The key pair of a seed. Every 32 bytes are a seed.
pub fn ed25519_of(seed: &Key) -> ed25519::Keypair {
    let mut copy = *seed;
    let secret = ed25519::SecretKey::try_from_bytes(&mut copy[..]).expect("32 bytes are a seed");
    copy.zeroize();
    ed25519::Keypair::from(secret)
}

pub fn keypair_of(seed: &Key) -> Keypair {
    ed25519_of(seed).into()
}

pub fn public_of(seed: &Key) -> Key {
    ed25519_of(seed).public().to_bytes()
}

pub fn sign(seed: &Key, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
    let signature = ed25519_of(seed).sign(message);
    signature.try_into().expect("an Ed25519 signature has 64 bytes")
}

pub fn verify(public: &Key, message: &[u8], signature: &[u8]) -> bool {
    ed25519::PublicKey::try_from_bytes(public).is_ok_and(|key| key.verify(message, signature))
}

pub fn sha256(message: &[u8]) -> Key {
    sha2::Sha256::digest(message).into()
}

/// HMAC-SHA256 of the parts one after the other. The callers' parts are of fixed length but for the first, a label.
pub fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac = <hmac::Hmac<sha2::Sha256> as hmac::KeyInit>::new_from_slice(key).expect("HMAC takes any key");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// In time that depends on the lengths alone.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// Nonce, then ciphertext and tag. `None` when there is no randomness.
pub fn seal(key: &Key, context: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
    let mut nonce = [0u8; NONCE_BYTES];
    if !random(&mut nonce) {
        return None;
    }
    let cipher = XChaCha20Poly1305::new(key.into());
    let sealed = cipher.encrypt(XNonce::from_slice(&nonce), Payload { msg: plain, aad: context }).ok()?;
    Some([&nonce[..], &sealed].concat())
}

/// `None` when it was not sealed with this key and context.
pub fn unseal(key: &Key, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES)?;
    let cipher = XChaCha20Poly1305::new(key.into());
    cipher.decrypt(XNonce::from_slice(nonce), Payload { msg: sealed, aad: context }).ok()
}

/// The libp2p peer id of an Ed25519 public key; `None` when the bytes are no point of the curve.
pub fn peer_id(public: &Key) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(public).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// The Ed25519 key inside a peer id; `None` for other keys and for ids that are hashes.
pub fn public_of_peer(peer: &PeerId) -> Option<Key> {
    let hash = peer.as_ref();
    if hash.code() != 0 {
        return None;
    }
    let key = PublicKey::try_decode_protobuf(hash.digest()).ok()?;
    Some(key.try_into_ed25519().ok()?.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_match_published_values() {
        // FIPS 180-2 "abc"; RFC 4231 test case 2.
        assert_eq!(hex(&sha256(b"abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let mac = hmac_sha256(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(hex(&mac), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn signatures_match_rfc_8032_and_change_with_every_bit() {
        let seed = unhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let public = public_of(&seed);
        assert_eq!(hex(&public), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let mut signature = sign(&seed, b"");
        assert!(hex(&signature).starts_with("e5564300c360ac729086e2cc806e828a"));
        assert!(verify(&public, b"", &signature));
        assert!(!verify(&public, b"x", &signature));
        signature[63] ^= 1;
        assert!(!verify(&public, b"", &signature));
        assert!(!verify(&public, b"", &signature[..63]));
    }

    #[test]
    fn a_seal_opens_only_with_its_key_and_context() {
        let key = [7u8; 32];
        let sealed = seal(&key, b"context", b"plain").unwrap();
        assert_eq!(sealed.len(), 5 + SEAL_BYTES);
        assert_eq!(unseal(&key, b"context", &sealed).unwrap(), b"plain");
        assert!(unseal(&key, b"other", &sealed).is_none());
        assert!(unseal(&[8u8; 32], b"context", &sealed).is_none());
        assert!(unseal(&key, b"context", &sealed[..SEAL_BYTES - 1]).is_none());
        assert!(unseal(&key, b"context", &[]).is_none());
        assert_ne!(seal(&key, b"context", b"plain").unwrap(), sealed, "the nonce is new every time");
    }

    #[test]
    fn peer_ids_name_their_key() {
        let public = public_of(&[3; 32]);
        let peer = peer_id(&public).unwrap();
        assert!(peer.to_string().starts_with("12D3KooW"));
        assert_eq!(public_of_peer(&peer), Some(public));
        assert_eq!(public_of_peer(&"QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N".parse().unwrap()), None);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn unhex(text: &str) -> Key {
        let bytes: Vec<u8> = (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect();
        bytes.try_into().unwrap()
    }
}
