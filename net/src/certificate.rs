//! What the cluster's key signs: membership certificates and revocations. Pure; one canonical encoding each.
//!
//! Little-endian. A certificate:
//!   0 "SHLC"   4 u8 version (1)   5 cluster key [32]   37 member key [32]   69 u64 serial   77 i64 issued_s
//!  85 i64 expires_s   93 u8 n   94 name [n]   94+n Ed25519 signature [64] of everything before it
//! A revocation:
//!   0 "SHLR"   4 u8 version (1)   5 cluster key [32]   37 member key [32]   69 u64 serial   77 i64 revoked_s
//!  85 Ed25519 signature [64]
//! The magic keeps one kind from passing for the other.

use crate::crypto::{self, Key, SIGNATURE_BYTES};

pub const NAME_BYTES_MAX: usize = 63;
pub const CERTIFICATE_BYTES_MAX: usize = 94 + NAME_BYTES_MAX + SIGNATURE_BYTES;

const CERTIFICATE_MAGIC: &[u8; 4] = b"SHLC";
const REVOCATION_MAGIC: &[u8; 4] = b"SHLR";
const VERSION: u8 = 1;
const REVOCATION_BYTES: usize = 85 + SIGNATURE_BYTES;

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Fault {
    /// Not such a document, or of another version.
    Format,
    /// The signature does not verify.
    Forged,
    /// Signed, but for another cluster than the one asked for.
    OtherCluster,
}

#[derive(Debug, PartialEq, Eq, Clone)]
pub struct Certificate {
    pub cluster: Key,
    pub member: Key,
    pub serial: u64,
    pub issued_s: i64,
    pub expires_s: i64,
    pub name: String,
}

#[derive(Debug, PartialEq, Eq, Clone)]
pub struct Revocation {
    pub cluster: Key,
    pub member: Key,
    pub serial: u64,
    pub revoked_s: i64,
}

/// 1 to 63 bytes, nothing that could forge a line on someone's terminal.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

impl Certificate {
    /// Signs; `cluster` is taken from the seed. Precondition: `is_name(name)`.
    pub fn issue(&self, cluster_seed: &Key) -> Vec<u8> {
        assert!(is_name(&self.name));
        let mut bytes = head(CERTIFICATE_MAGIC, &crypto::public_of(cluster_seed), &self.member, self.serial);
        bytes.extend_from_slice(&self.issued_s.to_le_bytes());
        bytes.extend_from_slice(&self.expires_s.to_le_bytes());
        bytes.push(self.name.len() as u8);
        bytes.extend_from_slice(self.name.as_bytes());
        signed(bytes, cluster_seed)
    }

    /// Verifies by the key of `cluster`, or, without one, by the key that the certificate names.
    pub fn verify(bytes: &[u8], cluster: Option<&Key>) -> Result<Self, Fault> {
        let mut reader = Reader::open(bytes, CERTIFICATE_MAGIC)?;
        let certificate = Certificate {
            cluster: reader.array()?,
            member: reader.array()?,
            serial: u64::from_le_bytes(reader.array()?),
            issued_s: i64::from_le_bytes(reader.array()?),
            expires_s: i64::from_le_bytes(reader.array()?),
            name: {
                let len = reader.array::<1>()?[0] as usize;
                let name = std::str::from_utf8(reader.take(len)?).map_err(|_| Fault::Format)?;
                if !is_name(name) {
                    return Err(Fault::Format);
                }
                name.to_owned()
            },
        };
        reader.finish(&certificate.cluster, cluster)?;
        Ok(certificate)
    }

    pub fn is_expired(&self, now_s: i64) -> bool {
        now_s >= self.expires_s
    }
}

impl Revocation {
    /// Signs; `cluster` is taken from the seed.
    pub fn issue(&self, cluster_seed: &Key) -> Vec<u8> {
        let mut bytes = head(REVOCATION_MAGIC, &crypto::public_of(cluster_seed), &self.member, self.serial);
        bytes.extend_from_slice(&self.revoked_s.to_le_bytes());
        signed(bytes, cluster_seed)
    }

    pub fn verify(bytes: &[u8], cluster: Option<&Key>) -> Result<Self, Fault> {
        if bytes.len() != REVOCATION_BYTES {
            return Err(Fault::Format);
        }
        let mut reader = Reader::open(bytes, REVOCATION_MAGIC)?;
        let revocation = Revocation {
            cluster: reader.array()?,
            member: reader.array()?,
            serial: u64::from_le_bytes(reader.array()?),
            revoked_s: i64::from_le_bytes(reader.array()?),
        };
        reader.finish(&revocation.cluster, cluster)?;
        Ok(revocation)
    }
}

fn head(magic: &[u8; 4], cluster: &Key, member: &Key, serial: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(CERTIFICATE_BYTES_MAX);
    bytes.extend_from_slice(magic);
    bytes.push(VERSION);
    bytes.extend_from_slice(cluster);
    bytes.extend_from_slice(member);
    bytes.extend_from_slice(&serial.to_le_bytes());
    bytes
}

fn signed(mut bytes: Vec<u8>, seed: &Key) -> Vec<u8> {
    let signature = crypto::sign(seed, &bytes);
    bytes.extend_from_slice(&signature);
    bytes
}

/// The fields in order; `finish` wants exactly the signature left over.
struct Reader<'a> {
    all: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn open(bytes: &'a [u8], magic: &[u8; 4]) -> Result<Self, Fault> {
        if bytes.len() > CERTIFICATE_BYTES_MAX {
            return Err(Fault::Format);
        }
        let mut reader = Reader { all: bytes, rest: bytes };
        let sound = reader.take(4)? == magic && reader.take(1)? == [VERSION];
        if sound { Ok(reader) } else { Err(Fault::Format) }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Fault::Format)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        Ok(self.take(N)?.try_into().expect("take gives N bytes"))
    }

    fn finish(self, signer: &Key, wanted: Option<&Key>) -> Result<(), Fault> {
        if self.rest.len() != SIGNATURE_BYTES {
            return Err(Fault::Format);
        }
        let body = &self.all[..self.all.len() - SIGNATURE_BYTES];
        if !crypto::verify(signer, body, self.rest) {
            return Err(Fault::Forged);
        }
        if wanted.is_some_and(|key| key != signer) { Err(Fault::OtherCluster) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: Key = [1; 32];

    fn certificate(name: &str) -> Certificate {
        Certificate {
            cluster: crypto::public_of(&CLUSTER),
            member: crypto::public_of(&[2; 32]),
            serial: 5,
            issued_s: -1,
            expires_s: 1_000,
            name: name.into(),
        }
    }

    fn revocation() -> Revocation {
        let c = certificate("x");
        Revocation { cluster: c.cluster, member: c.member, serial: u64::MAX, revoked_s: 77 }
    }

    #[test]
    fn a_certificate_survives_the_trip_and_has_the_length_written_down() {
        for name in ["a", "Küche", &"n".repeat(63)] {
            let bytes = certificate(name).issue(&CLUSTER);
            assert_eq!(bytes.len(), 94 + name.len() + 64);
            assert_eq!(Certificate::verify(&bytes, Some(&crypto::public_of(&CLUSTER))), Ok(certificate(name)));
            assert_eq!(Certificate::verify(&bytes, None), Ok(certificate(name)));
        }
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_refused() {
        let bytes = certificate("phone").issue(&CLUSTER);
        let cluster = crypto::public_of(&CLUSTER);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Certificate::verify(&changed, Some(&cluster)).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(Certificate::verify(&bytes[..len], None), Err(Fault::Format), "{len} bytes");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Certificate::verify(&longer, None), Err(Fault::Format));
        assert_eq!(Certificate::verify(&vec![0; 1 << 16], None), Err(Fault::Format));
    }

    #[test]
    fn another_clusters_signature_is_told_from_a_forged_one() {
        let theirs = certificate("phone").issue(&[9; 32]);
        assert_eq!(Certificate::verify(&theirs, Some(&crypto::public_of(&CLUSTER))), Err(Fault::OtherCluster));
        let mut forged = certificate("phone").issue(&[9; 32]);
        forged[5..37].copy_from_slice(&crypto::public_of(&CLUSTER));
        assert_eq!(Certificate::verify(&forged, Some(&crypto::public_of(&CLUSTER))), Err(Fault::Forged));
    }

    #[test]
    fn names_are_short_and_printable() {
        assert!(is_name("board 7 (küche)"));
        for bad in ["", "line\nbreak", "\u{1b}[2J", "nul\0", &"n".repeat(64)] {
            assert!(!is_name(bad), "{bad:?}");
        }
        // A name that `issue` would not sign is not accepted from someone who signs anything.
        let mut bytes = certificate("ab").issue(&CLUSTER);
        bytes[94] = b'\n';
        bytes.truncate(bytes.len() - SIGNATURE_BYTES);
        assert_eq!(Certificate::verify(&signed(bytes, &CLUSTER), None), Err(Fault::Format));
    }

    #[test]
    fn only_the_end_is_held_against_the_clock() {
        let c = certificate("x");
        assert!(!c.is_expired(-5_000_000_000));
        assert!(!c.is_expired(999));
        assert!(c.is_expired(1_000));
    }

    #[test]
    fn a_revocation_survives_the_trip_and_is_no_certificate() {
        let bytes = revocation().issue(&CLUSTER);
        assert_eq!(Revocation::verify(&bytes, Some(&crypto::public_of(&CLUSTER))), Ok(revocation()));
        assert_eq!(Certificate::verify(&bytes, None), Err(Fault::Format));
        assert_eq!(Revocation::verify(&certificate("x").issue(&CLUSTER), None), Err(Fault::Format));
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Revocation::verify(&changed, Some(&crypto::public_of(&CLUSTER))).is_err(), "bit {bit}");
        }
    }
}
