//! The C border (include/shoal_net.h says what every function does). Here pointers become values and panics become
//! SN_EPANIC; everything else is in the modules.

mod certificate;
mod counted;
mod crypto;
mod digest;
mod events;
mod gate;
mod gate_messages;
mod invite;
mod limits;
mod local_end;
mod node;
mod pace;
mod pump;
mod stream_handler;
mod streams;
#[cfg(feature = "wan")]
mod wan;

use std::ffi::{c_char, c_int, CStr, CString};
use std::os::fd::IntoRawFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::mpsc as sync_mpsc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{ptr, slice};

use libp2p::{Multiaddr, StreamProtocol};
use zeroize::Zeroizing;

use certificate::{is_name, Certificate, Fault, Revocation};
use crypto::{Key, KEY_BYTES, SIGNATURE_BYTES};
use gate_messages::{Message, Reason, BODY_BYTES_MAX};
use node::{Command, Config, JoinError, Node, OpenError};
use streams::Priority;

const OK: c_int = 0;
const EINVAL: c_int = -1;
const ETIMEOUT: c_int = -2;
const ECLOSED: c_int = -3;
const EUNSUPPORTED: c_int = -4;
const EIO: c_int = -5;
const EPANIC: c_int = -6;
const ESPACE: c_int = -7;
const EFORMAT: c_int = -8;
const EFORGED: c_int = -9;
const EEXPIRED: c_int = -10;
const EREFUSED: c_int = -11;

const NAME_CAP: usize = 64;
const CERTIFICATE_CAP: usize = 512;
const EXTRAS_MAX: usize = 480;
const SECRET_MIN: usize = 10;
const SECRET_MAX: usize = 64;
const INVITE_MS_MAX: u32 = 3_600_000;
const QR_TEXT_MAX: usize = 512;
/// Both sides may dial at once, each first connection and bulk; and as many again for each address that the peer no
/// longer has, until pings find those dead.
const CONNECTIONS_PER_PEER_MAX: u32 = 16;
const FLAG_MDNS: u32 = 1;
const FLAG_RELAY: u32 = 2;

fn guarded<T: From<i8>>(call: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| T::from(EPANIC as i8))
}

// The pointer rules of the header are the safety condition of everything below: what is not NULL is valid for its
// stated length during the call.

unsafe fn bytes<'a>(at: *const u8, len: usize) -> Option<&'a [u8]> {
    if len == 0 {
        return Some(&[]);
    }
    (!at.is_null() && len <= isize::MAX as usize).then(|| slice::from_raw_parts(at, len))
}

unsafe fn key(at: *const u8) -> Option<Key> {
    bytes(at, KEY_BYTES)?.try_into().ok()
}

unsafe fn text<'a>(at: *const c_char) -> Option<&'a str> {
    if at.is_null() { None } else { CStr::from_ptr(at).to_str().ok() }
}

unsafe fn put(out: *mut u8, value: &[u8]) -> c_int {
    if out.is_null() {
        return EINVAL;
    }
    ptr::copy_nonoverlapping(value.as_ptr(), out, value.len());
    OK
}

/// As many bytes as written, or SN_ESPACE.
unsafe fn put_sized(out: *mut u8, cap: usize, value: &[u8]) -> i64 {
    if value.len() > cap {
        return ESPACE.into();
    }
    if value.is_empty() { 0 } else if put(out, value) == OK { value.len() as i64 } else { EINVAL.into() }
}

/// Cut where it does not fit, always with a NUL.
unsafe fn put_text(out: *mut c_char, cap: usize, value: &str) {
    if out.is_null() || cap == 0 {
        return;
    }
    let mut len = value.len().min(cap - 1);
    while !value.is_char_boundary(len) {
        len -= 1;
    }
    ptr::copy_nonoverlapping(value.as_ptr(), out.cast(), len);
    *out.add(len) = 0;
}

// ---- Pure functions -------------------------------------------------------------------------------------------------

#[no_mangle]
pub unsafe extern "C" fn sn_random(out: *mut u8, len: usize) -> c_int {
    guarded(|| {
        if len == 0 {
            return OK;
        }
        if out.is_null() {
            return EINVAL;
        }
        if crypto::random(slice::from_raw_parts_mut(out, len)) { OK } else { EIO }
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_key_generate(seed: *mut u8) -> c_int {
    sn_random(seed, KEY_BYTES)
}

#[no_mangle]
pub unsafe extern "C" fn sn_key_public(seed: *const u8, public_key: *mut u8) -> c_int {
    guarded(|| key(seed).map_or(EINVAL, |seed| put(public_key, &crypto::public_of(&Zeroizing::new(seed)))))
}

#[no_mangle]
pub unsafe extern "C" fn sn_sign(seed: *const u8, message: *const u8, len: usize, out: *mut u8) -> c_int {
    guarded(|| match (key(seed).map(Zeroizing::new), bytes(message, len)) {
        (Some(seed), Some(message)) => put(out, &crypto::sign(&seed, message)),
        _ => EINVAL,
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_verify(public: *const u8, message: *const u8, len: usize, signature: *const u8) -> c_int {
    guarded(|| match (key(public), bytes(message, len), bytes(signature, SIGNATURE_BYTES)) {
        (Some(public), Some(message), Some(signature)) => {
            if crypto::verify(&public, message, signature) { OK } else { EFORGED }
        }
        _ => EINVAL,
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_peer_id(public: *const u8, out: *mut c_char, cap: usize) -> c_int {
    guarded(|| {
        let Some(public) = key(public) else { return EINVAL };
        let Some(peer) = crypto::peer_id(&public) else { return EFORMAT };
        let peer = peer.to_string();
        if peer.len() >= cap {
            return ESPACE;
        }
        put_text(out, cap, &peer);
        OK
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_peer_id_parse(peer: *const c_char, public: *mut u8) -> c_int {
    guarded(|| {
        let parsed = text(peer).and_then(|t| t.parse().ok()).and_then(|p| crypto::public_of_peer(&p));
        parsed.map_or(EFORMAT, |key| put(public, &key))
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_sha256(message: *const u8, len: usize, out: *mut u8) -> c_int {
    guarded(|| bytes(message, len).map_or(EINVAL, |message| put(out, &crypto::sha256(message))))
}

#[no_mangle]
pub unsafe extern "C" fn sn_hmac_sha256(
    key: *const u8, key_len: usize, message: *const u8, len: usize, out: *mut u8,
) -> c_int {
    guarded(|| match (bytes(key, key_len), bytes(message, len)) {
        (Some(key), Some(message)) => put(out, &crypto::hmac_sha256(key, &[message])),
        _ => EINVAL,
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_equal(a: *const u8, b: *const u8, len: usize) -> c_int {
    guarded(|| match (bytes(a, len), bytes(b, len)) {
        (Some(a), Some(b)) => c_int::from(crypto::equal(a, b)),
        _ => 0,
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_seal(
    sealing_key: *const u8, context: *const u8, context_len: usize, plain: *const u8, len: usize, out: *mut u8,
    cap: usize,
) -> i64 {
    guarded(|| {
        let given = (key(sealing_key).map(Zeroizing::new), bytes(context, context_len), bytes(plain, len));
        let (Some(sealing_key), Some(context), Some(plain)) = given else { return EINVAL.into() };
        crypto::seal(&sealing_key, context, plain).map_or(EIO.into(), |sealed| put_sized(out, cap, &sealed))
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_unseal(
    sealing_key: *const u8, context: *const u8, context_len: usize, sealed: *const u8, len: usize, out: *mut u8,
    cap: usize,
) -> i64 {
    guarded(|| {
        let given = (key(sealing_key).map(Zeroizing::new), bytes(context, context_len), bytes(sealed, len));
        let (Some(sealing_key), Some(context), Some(sealed)) = given else { return EINVAL.into() };
        if sealed.len() < crypto::SEAL_BYTES {
            return EFORMAT.into();
        }
        crypto::unseal(&sealing_key, context, sealed).map_or(EFORGED.into(), |plain| put_sized(out, cap, &plain))
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_qr(content: *const c_char, out: *mut c_char, cap: usize) -> i64 {
    guarded(|| {
        let Some(content) = text(content).filter(|t| t.len() <= QR_TEXT_MAX) else { return EINVAL.into() };
        let Ok(code) = qrcode::QrCode::new(content) else { return EINVAL.into() };
        use qrcode::render::unicode::Dense1x2;
        // Light modules are what is drawn: terminals are mostly dark, readers want dark on light.
        let mut drawn =
            code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).quiet_zone(true).build();
        drawn.push('\n');
        if drawn.len() >= cap {
            return ESPACE.into();
        }
        put_text(out, cap, &drawn);
        drawn.len() as i64
    })
}

#[repr(C)]
pub struct CCertificate {
    cluster: [u8; KEY_BYTES],
    member: [u8; KEY_BYTES],
    serial: u64,
    issued_s: i64,
    expires_s: i64,
    name: [c_char; NAME_CAP],
}

#[repr(C)]
pub struct CRevocation {
    cluster: [u8; KEY_BYTES],
    member: [u8; KEY_BYTES],
    serial: u64,
    revoked_s: i64,
}

fn fault_code(fault: Fault) -> c_int {
    match fault {
        Fault::Format => EFORMAT,
        Fault::Forged | Fault::OtherCluster => EFORGED,
    }
}

#[no_mangle]
pub unsafe extern "C" fn sn_certificate_issue(
    seed: *const u8, fields: *const CCertificate, out: *mut u8, cap: usize,
) -> i64 {
    guarded(|| {
        let (Some(seed), false) = (key(seed).map(Zeroizing::new), fields.is_null()) else { return EINVAL.into() };
        let fields = &*fields;
        let name = CStr::from_bytes_until_nul(slice::from_raw_parts(fields.name.as_ptr().cast(), NAME_CAP));
        let Some(name) = name.ok().and_then(|n| n.to_str().ok()).filter(|n| is_name(n)) else { return EINVAL.into() };
        let certificate = Certificate {
            cluster: crypto::public_of(&seed),
            member: fields.member,
            serial: fields.serial,
            issued_s: fields.issued_s,
            expires_s: fields.expires_s,
            name: name.to_owned(),
        };
        put_sized(out, cap, &certificate.issue(&seed))
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_certificate_verify(
    document: *const u8, len: usize, cluster: *const u8, now_s: i64, out: *mut CCertificate,
) -> c_int {
    guarded(|| {
        let (Some(document), false) = (bytes(document, len), out.is_null()) else { return EINVAL };
        let certificate = match Certificate::verify(document, key(cluster).as_ref()) {
            Ok(certificate) => certificate,
            Err(fault) => return fault_code(fault),
        };
        let out = &mut *out;
        (out.cluster, out.member, out.serial) = (certificate.cluster, certificate.member, certificate.serial);
        (out.issued_s, out.expires_s) = (certificate.issued_s, certificate.expires_s);
        put_text(out.name.as_mut_ptr(), NAME_CAP, &certificate.name);
        if now_s != 0 && certificate.is_expired(now_s) { EEXPIRED } else { OK }
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_revocation_issue(
    seed: *const u8, fields: *const CRevocation, out: *mut u8, cap: usize,
) -> i64 {
    guarded(|| {
        let (Some(seed), false) = (key(seed).map(Zeroizing::new), fields.is_null()) else { return EINVAL.into() };
        let CRevocation { member, serial, revoked_s, .. } = *fields;
        let revocation = Revocation { cluster: crypto::public_of(&seed), member, serial, revoked_s };
        put_sized(out, cap, &revocation.issue(&seed))
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_revocation_verify(
    document: *const u8, len: usize, cluster: *const u8, out: *mut CRevocation,
) -> c_int {
    guarded(|| {
        let (Some(document), false) = (bytes(document, len), out.is_null()) else { return EINVAL };
        match Revocation::verify(document, key(cluster).as_ref()) {
            Ok(Revocation { cluster, member, serial, revoked_s }) => {
                *out = CRevocation { cluster, member, serial, revoked_s };
                OK
            }
            Err(fault) => fault_code(fault),
        }
    })
}

// ---- A node ---------------------------------------------------------------------------------------------------------

pub struct SnNode {
    node: Node,
    // What the last event's pointers point to.
    last: Mutex<(CString, CString, Vec<u8>)>,
}

#[repr(C)]
pub struct CConfig {
    seed: *const u8,
    cluster: *const u8,
    certificate: *const u8,
    certificate_len: usize,
    agent: *const c_char,
    instance: u64,
    flags: u32,
    idle_ms: u32,
    pending_max: u32,
    pending_per_ip_max: u32,
    handshake_ms: u32,
    peers_max: u32,
}

#[repr(C)]
pub struct CEvent {
    kind: u32,
    fd: i32,
    id: u64,
    peer: [u8; KEY_BYTES],
    dialer: u8,
    lost: u8,
    by_peer: u8,
    later: u8,
    reason: u8,
    address: *const c_char,
    text: *const c_char,
    data: *const u8,
    data_len: usize,
}

#[repr(C)]
pub struct CInvite {
    cluster_seed: *const u8,
    secret: *const u8,
    secret_len: usize,
    valid_ms: u32,
    serial: u64,
    expires_s: i64,
    extras: *const u8,
    extras_len: usize,
}

#[repr(C)]
pub struct CGrant {
    cluster: [u8; KEY_BYTES],
    inviter: [u8; KEY_BYTES],
    certificate: [u8; CERTIFICATE_CAP],
    certificate_len: usize,
    extras: [u8; EXTRAS_MAX],
    extras_len: usize,
}

#[repr(C)]
pub struct CStats {
    bytes_sent: u64,
    bytes_received: u64,
    cpu_ns: u64,
    events_dropped: u64,
    refused_inbound: u64,
    connections: u32,
    bulk_connections: u32,
    pending_inbound: u32,
    streams: u32,
}

fn or(value: u32, default: u32) -> u32 {
    if value == 0 { default } else { value }
}

unsafe fn read_config(config: &CConfig) -> Option<Config> {
    let certificate = bytes(config.certificate, config.certificate_len).filter(|c| c.len() <= CERTIFICATE_CAP)?;
    Some(Config {
        seed: Zeroizing::new(key(config.seed)?),
        cluster: key(config.cluster)?,
        certificate: certificate.to_vec(),
        agent: text(config.agent)?.to_owned(),
        instance: config.instance,
        mdns: config.flags & FLAG_MDNS != 0,
        relay: config.flags & FLAG_RELAY != 0,
        idle: Duration::from_millis(config.idle_ms.into()),
        pending_max: or(config.pending_max, 32),
        pending_per_ip_max: or(config.pending_per_ip_max, 8),
        handshake: Duration::from_millis(or(config.handshake_ms, 3000).into()),
        peers_max: or(config.peers_max, 256),
        connections_per_peer_max: CONNECTIONS_PER_PEER_MAX,
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_start(
    config: *const CConfig, out: *mut *mut SnNode, error: *mut c_char, error_cap: usize,
) -> c_int {
    guarded(|| {
        if config.is_null() || out.is_null() {
            return EINVAL;
        }
        let Some(config) = read_config(&*config) else { return EINVAL };
        match Node::start(config) {
            Ok(node) => {
                *out = Box::into_raw(Box::new(SnNode { node, last: Mutex::default() }));
                OK
            }
            Err(e) => {
                put_text(error, error_cap, &e);
                EIO
            }
        }
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_stop(node: *mut SnNode, deadline_ms: u32) {
    let _ = catch_unwind(AssertUnwindSafe(|| {
        if !node.is_null() {
            Box::from_raw(node).node.stop(Duration::from_millis(deadline_ms.into()));
        }
    }));
}

fn sent(result: Result<(), bool>) -> c_int {
    match result {
        Ok(()) => OK,
        Err(true) => ESPACE,
        Err(false) => ECLOSED,
    }
}

unsafe fn with_address(node: *mut SnNode, address: *const c_char, make: fn(Multiaddr) -> Command) -> c_int {
    guarded(|| match (node.as_ref(), text(address).and_then(|t| t.parse().ok())) {
        (Some(node), Some(address)) => sent(node.node.command(make(address))),
        _ => EINVAL,
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_listen(node: *mut SnNode, address: *const c_char) -> c_int {
    with_address(node, address, Command::Listen)
}

#[no_mangle]
pub unsafe extern "C" fn sn_dial(node: *mut SnNode, address: *const c_char) -> c_int {
    with_address(node, address, Command::Dial)
}

#[no_mangle]
pub unsafe extern "C" fn sn_disconnect(node: *mut SnNode, peer: *const u8) -> c_int {
    guarded(|| match (node.as_ref(), key(peer).and_then(|key| crypto::peer_id(&key))) {
        (Some(node), Some(peer)) => sent(node.node.command(Command::Disconnect(peer))),
        _ => EINVAL,
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_set_certificate(node: *mut SnNode, certificate: *const u8, len: usize) -> c_int {
    guarded(|| match (node.as_ref(), bytes(certificate, len).filter(|c| c.len() <= CERTIFICATE_CAP)) {
        (Some(node), Some(certificate)) => {
            node.node.gate.set_certificate(certificate.to_vec());
            OK
        }
        _ => EINVAL,
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_revoke(node: *mut SnNode, revocation: *const u8, len: usize) -> c_int {
    guarded(|| {
        let (Some(node), Some(document)) = (node.as_ref(), bytes(revocation, len)) else { return EINVAL };
        let revocation = match Revocation::verify(document, Some(node.node.gate.cluster())) {
            Ok(revocation) => revocation,
            Err(fault) => return fault_code(fault),
        };
        if !node.node.gate.revoke(&revocation) {
            return ESPACE;
        }
        sent(node.node.command(Command::DropUnwelcome))
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_invite_open(node: *mut SnNode, invite: *const CInvite) -> i64 {
    guarded(|| {
        let (Some(node), Some(invite)) = (node.as_ref(), invite.as_ref()) else { return EINVAL.into() };
        let secret = bytes(invite.secret, invite.secret_len).filter(|s| (SECRET_MIN..=SECRET_MAX).contains(&s.len()));
        let extras = bytes(invite.extras, invite.extras_len).filter(|e| e.len() <= EXTRAS_MAX);
        let given = (key(invite.cluster_seed).map(Zeroizing::new), secret, extras);
        let (Some(cluster_seed), Some(secret), Some(extras)) = given else { return EINVAL.into() };
        let valid = (1..=INVITE_MS_MAX).contains(&invite.valid_ms);
        if !valid || crypto::public_of(&cluster_seed) != *node.node.gate.cluster() {
            return EINVAL.into();
        }
        let opened = node.node.gate.invites.add(invite::Invite {
            cluster_seed,
            secret: Zeroizing::new(secret.to_vec()),
            closes: Instant::now() + Duration::from_millis(invite.valid_ms.into()),
            serial: invite.serial,
            expires_s: invite.expires_s,
            extras: Zeroizing::new(extras.to_vec()),
        });
        opened.unwrap_or(ESPACE.into())
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_invite_close(node: *mut SnNode, id: i64) -> c_int {
    guarded(|| {
        let Some(node) = node.as_ref() else { return EINVAL };
        node.node.gate.invites.remove(id);
        OK
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_join(
    seed: *const u8, name: *const c_char, address: *const c_char, secret: *const u8, secret_len: usize,
    timeout_ms: u32, out: *mut CGrant, reason: *mut u8, error: *mut c_char, error_cap: usize,
) -> c_int {
    guarded(|| {
        let given = (key(seed).map(Zeroizing::new), text(name).filter(|n| is_name(n)));
        let address = text(address).and_then(|t| t.parse::<Multiaddr>().ok());
        let secret = bytes(secret, secret_len).filter(|s| (SECRET_MIN..=SECRET_MAX).contains(&s.len()));
        let ((Some(seed), Some(name)), Some(address), Some(secret), Some(out)) = (given, address, secret, out.as_mut())
        else {
            return EINVAL;
        };
        let join = gate::Join {
            own: crypto::public_of(&seed),
            name: name.to_owned(),
            secret: Zeroizing::new(secret.to_vec()),
            granted: Mutex::default(),
        };
        let granted = match node::join(&seed, join, &address, Duration::from_millis(timeout_ms.into())) {
            Ok(granted) => granted,
            Err(JoinError::Timeout) => return ETIMEOUT,
            Err(JoinError::Unreachable(text)) => {
                put_text(error, error_cap, &text);
                return EIO;
            }
            Err(JoinError::Refused(why, by_peer)) => {
                put_text(error, error_cap, why.text());
                if let Some(reason) = reason.as_mut() {
                    *reason = why as u8;
                }
                return if why == Reason::JoinUnproved && !by_peer { EFORGED } else { EREFUSED };
            }
        };
        if granted.certificate.len() > CERTIFICATE_CAP || granted.extras.len() > EXTRAS_MAX {
            return EFORMAT;
        }
        (out.cluster, out.inviter) = (granted.cluster, granted.inviter);
        out.certificate[..granted.certificate.len()].copy_from_slice(&granted.certificate);
        out.certificate_len = granted.certificate.len();
        out.extras[..granted.extras.len()].copy_from_slice(&granted.extras);
        out.extras_len = granted.extras.len();
        OK
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_serve(node: *mut SnNode, protocol: *const c_char) -> c_int {
    guarded(|| {
        let protocol = text(protocol).and_then(|t| StreamProtocol::try_from_owned(t.to_owned()).ok());
        let (Some(node), Some(protocol)) = (node.as_ref(), protocol) else { return EINVAL };
        if node.node.serve(protocol) { OK } else { EINVAL }
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_open(
    node: *mut SnNode, peer: *const u8, protocol: *const c_char, priority: u32, timeout_ms: u32, id: *mut u64,
    error: *mut c_char, error_cap: usize,
) -> c_int {
    guarded(|| {
        let protocol = text(protocol).and_then(|t| StreamProtocol::try_from_owned(t.to_owned()).ok());
        let priority = match priority {
            0 => Priority::Activations,
            1 => Priority::Bulk,
            _ => return EINVAL,
        };
        let (Some(node), Some(peer), Some(protocol)) = (node.as_ref(), key(peer), protocol) else { return EINVAL };
        let (reply, answer) = sync_mpsc::sync_channel(1);
        let asked = sent(node.node.command(Command::Open { peer, protocol, priority, reply }));
        if asked != OK {
            return asked;
        }
        match answer.recv_timeout(Duration::from_millis(timeout_ms.into())) {
            Ok(Ok((fd, stream))) => {
                if let Some(id) = id.as_mut() {
                    *id = stream;
                }
                fd.into_raw_fd()
            }
            Ok(Err(OpenError::NotConnected)) => {
                put_text(error, error_cap, "the peer is not connected");
                ECLOSED
            }
            Ok(Err(OpenError::Unsupported(e))) => {
                put_text(error, error_cap, &e);
                EUNSUPPORTED
            }
            Ok(Err(OpenError::Io(e))) => {
                put_text(error, error_cap, &e);
                EIO
            }
            Err(sync_mpsc::RecvTimeoutError::Timeout) => ETIMEOUT,
            Err(sync_mpsc::RecvTimeoutError::Disconnected) => ECLOSED,
        }
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_event_fd(node: *const SnNode) -> c_int {
    guarded(|| node.as_ref().map_or(EINVAL, |node| node.node.queue.fd()))
}

#[no_mangle]
pub unsafe extern "C" fn sn_next_event(node: *mut SnNode, out: *mut CEvent) -> c_int {
    guarded(|| {
        let (Some(node), Some(out)) = (node.as_ref(), out.as_mut()) else { return EINVAL };
        let Some(event) = node.node.queue.pop() else { return 0 };
        let mut last = node.last.lock().unwrap_or_else(PoisonError::into_inner);
        // A NUL inside can only come from a peer's words: then there are none.
        *last = (CString::new(event.address).unwrap_or_default(), CString::new(event.text).unwrap_or_default(), event.data);
        *out = CEvent {
            kind: event.kind as u32,
            fd: event.fd.map_or(-1, IntoRawFd::into_raw_fd),
            id: event.id,
            peer: event.peer,
            dialer: event.dialer.into(),
            lost: event.lost.into(),
            by_peer: event.by_peer.into(),
            later: event.later.into(),
            reason: event.reason,
            address: last.0.as_ptr(),
            text: last.1.as_ptr(),
            data: last.2.as_ptr(),
            data_len: last.2.len(),
        };
        1
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_get_stats(node: *const SnNode, out: *mut CStats) -> c_int {
    guarded(|| {
        let (Some(node), Some(out)) = (node.as_ref(), out.as_mut()) else { return EINVAL };
        let node = &node.node;
        *out = CStats {
            bytes_sent: node.counters.sent.load(Ordering::Relaxed),
            bytes_received: node.counters.received.load(Ordering::Relaxed),
            cpu_ns: node.gauges.cpu_ns.load(Ordering::Relaxed),
            events_dropped: node.queue.dropped(),
            refused_inbound: node.gate.refused_inbound(),
            connections: node.gauges.connections.load(Ordering::Relaxed),
            bulk_connections: node.gauges.bulk_connections.load(Ordering::Relaxed),
            pending_inbound: node.gauges.pending.load(Ordering::Relaxed),
            streams: node.streams.load(Ordering::Relaxed),
        };
        OK
    })
}

#[repr(C)]
pub struct CBulkRate {
    peer: [u8; KEY_BYTES],
    bytes_per_s: u64,
}

#[no_mangle]
pub unsafe extern "C" fn sn_bulk_rates(node: *const SnNode, out: *mut CBulkRate, cap: usize) -> i64 {
    guarded(|| {
        let Some(node) = node.as_ref().filter(|_| !out.is_null() || cap == 0) else { return EINVAL.into() };
        let rates = node.node.gauges.bulk_rates.lock().unwrap_or_else(PoisonError::into_inner);
        for (i, (peer, bytes_per_s)) in rates.iter().take(cap).enumerate() {
            out.add(i).write(CBulkRate { peer: *peer, bytes_per_s: *bytes_per_s });
        }
        rates.len().min(cap) as i64
    })
}

#[no_mangle]
pub unsafe extern "C" fn sn_gate_message_check(body: *const u8, len: usize, out: *mut u8, cap: usize) -> i64 {
    guarded(|| {
        let Some(body) = bytes(body, len) else { return EINVAL.into() };
        let message = Some(body).filter(|b| b.len() <= BODY_BYTES_MAX).and_then(Message::decode);
        message.map_or(EFORMAT.into(), |message| put_sized(out, cap, &message.encode()[2..]))
    })
}
