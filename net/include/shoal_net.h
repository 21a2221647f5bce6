// The C border of the network: keys, certificates and a libp2p node. The only header of net/.
//
// Rules for every function
//   - May be called from any thread, also at the same time. The exceptions: sn_stop (nobody may use the node any
//     more) and sn_next_event (one thread at a time).
//   - Returns SN_OK (or a count, an id, a descriptor >= 0) or one of the negative SN_E codes. No panic and no exception
//     crosses; a bug inside comes out as SN_EPANIC.
//   - No callback: nothing of the caller ever runs on a thread of the network. Events are pulled, streams are
//     descriptors of connected local sockets.
//   - Pointers are read or written only during the call. Text is UTF-8 and ends in NUL.
//   - Only functions that say so block.
//
// Knows nothing of frames, placements or models. What it does know of a cluster: who may talk (certificates,
// revocations, invites).
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  SN_OK = 0,
  SN_EINVAL = -1,       /* an argument breaks its stated form */
  SN_ETIMEOUT = -2,     /* the time given was not enough */
  SN_ECLOSED = -3,      /* the node has stopped, or the peer is not connected */
  SN_EUNSUPPORTED = -4, /* the peer does not serve this protocol, or this build lacks the feature */
  SN_EIO = -5,          /* the operating system or the network refused */
  SN_EPANIC = -6,       /* a bug inside; the node may be unusable */
  SN_ESPACE = -7,       /* the buffer given is too small, or a stated limit is reached */
  SN_EFORMAT = -8,      /* bytes or text that are not what they should be */
  SN_EFORGED = -9,      /* a signature, a seal or a proof does not verify */
  SN_EEXPIRED = -10,    /* a certificate past its time */
  SN_EREFUSED = -11     /* the other side refused */
};

enum {
  SN_KEY_BYTES = 32,         /* an Ed25519 seed, an Ed25519 public key, an HMAC, a SHA-256, a sealing key */
  SN_SIGNATURE_BYTES = 64,
  SN_PEER_ID_CAP = 64,       /* enough for a peer id as text with its NUL (53) */
  SN_SEAL_BYTES = 40,        /* by which sn_seal makes a message longer: nonce 24, tag 16 */
  SN_NAME_CAP = 64,          /* a member's name: at most 63 bytes of UTF-8 and a NUL */
  SN_CERTIFICATE_BYTES_MAX = 512,
  SN_REVOCATION_BYTES_MAX = 256,
  SN_EXTRAS_BYTES_MAX = 480, /* what an invite hands to the one that joins */
  SN_SECRET_BYTES_MAX = 64,
  SN_GATE_MESSAGE_BYTES_MAX = 1022, /* without its length */
  SN_ERROR_CAP = 256,        /* a good size for the error texts below */
  SN_INVITES_MAX = 8         /* open at the same time */
};

/* ---- Pure functions: keys, hashes, seals ------------------------------------------------------------------------ */

/* `len` bytes from the operating system's generator. SN_EIO when it fails. */
int sn_random(uint8_t *out, size_t len);

/* A new Ed25519 seed (the private key). */
int sn_key_generate(uint8_t seed[SN_KEY_BYTES]);
/* The public key of a seed: the identity of a node or of a cluster. */
int sn_key_public(const uint8_t seed[SN_KEY_BYTES], uint8_t public_key[SN_KEY_BYTES]);
int sn_sign(const uint8_t seed[SN_KEY_BYTES], const uint8_t *message, size_t len, uint8_t out[SN_SIGNATURE_BYTES]);
/* SN_OK, or SN_EFORGED. */
int sn_verify(const uint8_t public_key[SN_KEY_BYTES], const uint8_t *message, size_t len,
              const uint8_t signature[SN_SIGNATURE_BYTES]);

/* The libp2p peer id of a public key as text ("12D3Koo..."). `cap` >= SN_PEER_ID_CAP. */
int sn_peer_id(const uint8_t public_key[SN_KEY_BYTES], char *out, size_t cap);
/* And back. SN_EFORMAT for what is no peer id of an Ed25519 key. */
int sn_peer_id_parse(const char *text, uint8_t public_key[SN_KEY_BYTES]);

int sn_sha256(const uint8_t *message, size_t len, uint8_t out[SN_KEY_BYTES]);
/* SHA-256 of what comes piece by piece. `finish` writes the digest (NULL: none) and frees the state. One thread. */
typedef struct Sha256 sn_sha256_state;
sn_sha256_state *sn_sha256_new(void);
int sn_sha256_update(sn_sha256_state *state, const uint8_t *message, size_t len);
void sn_sha256_finish(sn_sha256_state *state, uint8_t out[SN_KEY_BYTES]);
int sn_hmac_sha256(const uint8_t *key, size_t key_len, const uint8_t *message, size_t len, uint8_t out[SN_KEY_BYTES]);
/* 1 when equal, else 0; the time taken depends on `len` alone. */
int sn_equal(const uint8_t *a, const uint8_t *b, size_t len);

/* XChaCha20-Poly1305 with a random nonce in front: `len` + SN_SEAL_BYTES bytes into `out`. `context` is authenticated
 * but not contained; NULL with 0 for none. Returns the number of bytes written; SN_ESPACE. `out` overlaps nothing. */
int64_t sn_seal(const uint8_t key[SN_KEY_BYTES], const uint8_t *context, size_t context_len, const uint8_t *plain,
                size_t len, uint8_t *out, size_t cap);
/* The plain bytes (`len` - SN_SEAL_BYTES of them) into `out`; returns their number. SN_EFORMAT (too short),
 * SN_EFORGED (another key, another context, changed bytes), SN_ESPACE. */
int64_t sn_unseal(const uint8_t key[SN_KEY_BYTES], const uint8_t *context, size_t context_len, const uint8_t *sealed,
                  size_t len, uint8_t *out, size_t cap);

/* `text` (at most 512 bytes) as a QR code for a terminal: lines of half blocks, dark on light with a quiet zone, each
 * ending in '\n', then a NUL. Returns the number of bytes without the NUL. SN_ESPACE (16 KiB is always enough). */
int64_t sn_qr(const char *text, char *out, size_t cap);

/* ---- Pure functions: certificates and revocations ---------------------------------------------------------------- */

/* "The cluster says: this member is one of us." One canonical encoding (docs/wire-format.md). */
typedef struct {
  uint8_t cluster[SN_KEY_BYTES]; /* the cluster's public key: also its id */
  uint8_t member[SN_KEY_BYTES];  /* the member's public key: also its peer id */
  uint64_t serial;               /* higher in every later certificate of the same member */
  int64_t issued_s;              /* Unix time; informative, since boards without a clock live in the past */
  int64_t expires_s;             /* Unix time; not valid from then on; INT64_MAX: never */
  char name[SN_NAME_CAP];        /* 1..63 bytes of UTF-8 without control characters, NUL-terminated */
} sn_certificate;

/* "The cluster says: certificates of this member up to this serial are void." UINT64_MAX: for good. */
typedef struct {
  uint8_t cluster[SN_KEY_BYTES];
  uint8_t member[SN_KEY_BYTES];
  uint64_t serial;
  int64_t revoked_s; /* Unix time; informative */
} sn_revocation;

/* Signs `fields` (whose `cluster` is filled in from the seed). Returns the number of bytes, at most
 * SN_CERTIFICATE_BYTES_MAX. SN_EINVAL (the name), SN_ESPACE. */
int64_t sn_certificate_issue(const uint8_t cluster_seed[SN_KEY_BYTES], const sn_certificate *fields, uint8_t *out,
                             size_t cap);
/* Parses and verifies. `cluster` NULL: by the key that the certificate itself names (then compare out->cluster).
 * `now_s` 0: does not look at the clock. SN_EFORMAT, SN_EFORGED (also: of another cluster), SN_EEXPIRED; `out` is
 * filled in for SN_OK and SN_EEXPIRED. */
int sn_certificate_verify(const uint8_t *bytes, size_t len, const uint8_t cluster[SN_KEY_BYTES], int64_t now_s,
                          sn_certificate *out);

int64_t sn_revocation_issue(const uint8_t cluster_seed[SN_KEY_BYTES], const sn_revocation *fields, uint8_t *out,
                            size_t cap);
int sn_revocation_verify(const uint8_t *bytes, size_t len, const uint8_t cluster[SN_KEY_BYTES], sn_revocation *out);

/* Reads a message of the gate (docs/wire-format.md), without its length, and writes it again: what it was, if it was
 * one. For tests; the gate itself needs no help. The number of bytes; SN_EFORMAT, SN_ESPACE. */
int64_t sn_gate_message_check(const uint8_t *body, size_t len, uint8_t *out, size_t cap);

/* ---- A node ------------------------------------------------------------------------------------------------------ */

typedef struct sn_node sn_node;

enum {
  SN_FLAG_MDNS = 1, /* announce and discover by multicast DNS (feature mdns; else ignored) */
  SN_FLAG_RELAY = 2 /* members may reach each other through this node (feature wan; else ignored) */
};

typedef struct {
  const uint8_t *seed;        /* 32 bytes: the node's key */
  const uint8_t *cluster;     /* 32 bytes: the cluster's public key */
  const uint8_t *certificate; /* shown to every peer as it is; they verify it. NULL: none, so nobody lets us in */
  size_t certificate_len;
  const char *agent;           /* identify's agent version, say "shoal/0.1" */
  uint64_t instance;           /* the same for the nodes of one process, random otherwise; tells a clone of our key */
  uint32_t flags;              /* SN_FLAG_* */
  uint32_t idle_ms;            /* closes a connection without streams after so long; 0: never */
  uint32_t pending_max;        /* inbound connections not yet authenticated, those from where a member was seen
                                  excepted; 0: 32 */
  uint32_t pending_per_ip_max; /* of them from one address, loopback excepted; 0: 8 */
  uint32_t handshake_ms;       /* from accept to authenticated; 0: 3000 */
  uint32_t peers_max;          /* members connected; 0: 256 */
} sn_config;

enum {
  SN_EVENT_LISTENING = 1, /* address: one of ours, with port */
  SN_EVENT_LISTEN_FAILED, /* address: as asked; text: why */
  SN_EVENT_NOT_LISTENING, /* address: one of ours that is gone (an interface went down) */
  SN_EVENT_CONNECTED,     /* peer, address, dialer, data: its certificate. Once per peer, however many connections */
  SN_EVENT_DISCONNECTED,  /* peer, text: why. Its last connection is gone */
  SN_EVENT_DIAL_FAILED,   /* address: as given to sn_dial; text: why; peer if it was named. Not for refusals */
  SN_EVENT_REFUSED,       /* reason, address, dialer, peer: the gate closed a connection; by_peer tells who said no */
  SN_EVENT_CLONE,         /* address: someone else is alive with our key; later: 1 when we started after them */
  SN_EVENT_INBOUND,       /* peer, text: protocol, fd, id: a stream the peer opened; the receiver closes fd */
  SN_EVENT_STREAM_END,    /* peer, id, lost: 0 when both sides ended it, 1 when the connection broke; text */
  SN_EVENT_DISCOVERED,    /* peer, address: mDNS saw it. Unauthenticated: a hint whom to dial */
  SN_EVENT_EXPIRED,       /* peer, address: mDNS no longer sees it */
  SN_EVENT_JOINED,        /* peer, id: the invite, now used up; data: the certificate we issued */
  SN_EVENT_INVITE_CLOSED, /* id: the invite ran out of time; text: why */
  SN_EVENT_NOTICE,        /* text: something people should know */
  SN_EVENT_FATAL          /* text: the network task died; the node does nothing any more */
};

/* Why the gate closed a connection. On the wire as one byte. */
enum {
  SN_REASON_NONE = 0,
  SN_REASON_NO_CERTIFICATE = 1, /* none was shown */
  SN_REASON_FORGED = 2,         /* not a certificate of the cluster's key, or not of the key that Noise proved */
  SN_REASON_OTHER_CLUSTER = 3,  /* a sound certificate of another cluster */
  SN_REASON_EXPIRED = 4,
  SN_REASON_REVOKED = 5,
  SN_REASON_JOIN_CLOSED = 6,    /* a join, but no invite is open here */
  SN_REASON_JOIN_WRONG = 7,     /* a join with a wrong secret */
  SN_REASON_MALFORMED = 8,      /* not a message of the gate, too long, or of another version */
  SN_REASON_SELF = 9,           /* we dialled ourselves */
  SN_REASON_JOIN_UNPROVED = 10  /* the inviter did not prove that it knows the secret */
};

typedef struct {
  uint32_t kind;              /* SN_EVENT_* */
  int32_t fd;                 /* INBOUND, else -1 */
  uint64_t id;                /* stream (INBOUND, STREAM_END) or invite (JOINED, INVITE_CLOSED) */
  uint8_t peer[SN_KEY_BYTES]; /* public key; zeros when unknown */
  uint8_t dialer;             /* 1: we dialled, 0: they did */
  uint8_t lost;               /* STREAM_END */
  uint8_t by_peer;            /* REFUSED: 1 when the peer refused us, 0 when we refused it */
  uint8_t later;              /* CLONE */
  uint8_t reason;             /* REFUSED: SN_REASON_* */
  const char *address;        /* a multiaddr or ""; these three live until the next sn_next_event */
  const char *text;
  const uint8_t *data;
  size_t data_len;
} sn_event;

/* Starts the network thread. `error` (may be NULL) gets a text when the result is not SN_OK. */
int sn_start(const sn_config *config, sn_node **out, char *error, size_t error_cap);
/* Sends what streams still hold, closes connections in order, ends the thread, frees the node. Blocks for at most
 * deadline_ms + 300 ms. Descriptors of streams stay the caller's; they read as ended. NULL is allowed. */
void sn_stop(sn_node *node, uint32_t deadline_ms);

/* Asks; the answer is an event. Multiaddrs of TCP: /ip4/1.2.3.4/tcp/48100, /ip6/.../tcp/..., with /p2p/ID for a dial
 * that should reach that peer and no other. No names: resolve before. SN_EINVAL, SN_ECLOSED, SN_ESPACE (256 waiting).
 * Port 0 listens on any free one; 0.0.0.0 and :: on every interface, also later ones. */
int sn_listen(sn_node *node, const char *multiaddr);
/* DIAL_FAILED, REFUSED or CONNECTED follows, also where the peer is connected already. */
int sn_dial(sn_node *node, const char *multiaddr);
/* Closes the connections of a peer at once, without waiting for the network; its streams end as lost. */
int sn_disconnect(sn_node *node, const uint8_t peer[SN_KEY_BYTES]);

/* The certificate to show from now on; live connections stay. */
int sn_set_certificate(sn_node *node, const uint8_t *certificate, size_t len);
/* From now on the gate refuses this member; a live connection that the revocation covers is closed. SN_EFORMAT,
 * SN_EFORGED (not of our cluster). SN_ESPACE beyond 4096 revoked members. Repeats are fine. */
int sn_revoke(sn_node *node, const uint8_t *revocation, size_t len);

typedef struct {
  const uint8_t *cluster_seed; /* 32 bytes: the signing key; kept in memory while the invite is open */
  const uint8_t *secret;       /* 10..SN_SECRET_BYTES_MAX bytes: what the invite's code stands for */
  size_t secret_len;
  uint32_t valid_ms;       /* 1..3600000 */
  uint64_t serial;         /* of the certificate that will be issued */
  int64_t expires_s;       /* of that certificate; INT64_MAX: never */
  const uint8_t *extras;   /* handed to the joiner, sealed; at most SN_EXTRAS_BYTES_MAX */
  size_t extras_len;
} sn_invite;

/* Lets in one joiner that proves the secret. Closes itself after that, or after valid_ms.
 * Returns the invite's id (> 0). SN_EINVAL (the seed is not our cluster's), SN_ESPACE (SN_INVITES_MAX are open). */
int64_t sn_invite_open(sn_node *node, const sn_invite *invite);
/* SN_OK also when it is closed already. */
int sn_invite_close(sn_node *node, int64_t id);

typedef struct {
  uint8_t cluster[SN_KEY_BYTES];
  uint8_t inviter[SN_KEY_BYTES];
  uint8_t certificate[SN_CERTIFICATE_BYTES_MAX];
  size_t certificate_len;
  uint8_t extras[SN_EXTRAS_BYTES_MAX];
  size_t extras_len;
} sn_grant;

/* Joins without a node: dials, proves the secret, checks the inviter's proof and the certificate. Blocks for at most
 * timeout_ms. SN_EINVAL, SN_ETIMEOUT, SN_EIO (nobody there), SN_EREFUSED (`reason` says why), SN_EFORGED (the inviter
 * does not know the secret). `reason` and `error` may be NULL. */
int sn_join(const uint8_t seed[SN_KEY_BYTES], const char *name, const char *multiaddr, const uint8_t *secret,
            size_t secret_len, uint32_t timeout_ms, sn_grant *out, uint8_t *reason, char *error, size_t error_cap);

/* From now on peers may open streams of `protocol` ("/shoal/control/1"); each comes as an INBOUND event. SN_EINVAL
 * (not a protocol name, or served already). */
int sn_serve(sn_node *node, const char *protocol);
enum {
  SN_PRIORITY_ACTIVATIONS = 0, /* control, activations, tokens: small and urgent */
  SN_PRIORITY_BULK = 1         /* layers: as much as the link carries, on a connection of its own */
};

/* Opens a stream to a connected peer. Blocks for at most timeout_ms: a round trip; for bulk the first time a few, since
 * its connection is made with the first stream and closed a minute after the last one. Where no second connection can
 * be made within 3 s, a bulk stream shares the first. Returns a descriptor that the
 * caller closes: a blocking stream socket. shutdown(SHUT_WR) ends our direction; a read of 0 means that the peer ended
 * its own OR was lost: only the protocol inside can tell for sure. `id` names the stream in STREAM_END.
 * SN_ECLOSED (not connected), SN_EUNSUPPORTED, SN_ETIMEOUT, SN_EIO. */
int sn_open(sn_node *node, const uint8_t peer[SN_KEY_BYTES], const char *protocol, uint32_t priority,
            uint32_t timeout_ms, uint64_t *id, char *error, size_t error_cap);

/* Readable (POLLIN) while an event waits; never read it yourself. Valid until sn_stop. */
int sn_event_fd(const sn_node *node);
/* 1 and an event, or 0 when none waits. At most 4096 wait: hints (DISCOVERED, DIAL_FAILED, REFUSED) are dropped before
 * that, then the network stops accepting and dialling until events are taken. */
int sn_next_event(sn_node *node, sn_event *out);

typedef struct {
  uint64_t bytes_sent; /* on TCP, encryption and all, since the start */
  uint64_t bytes_received;
  uint64_t cpu_ns;          /* processor time of the network thread */
  uint64_t events_dropped;
  uint64_t refused_inbound; /* closed by the gate or by its limits */
  uint32_t connections;      /* peers that are connected */
  uint32_t bulk_connections; /* second connections to them */
  uint32_t pending_inbound;
  uint32_t streams;
} sn_stats;
int sn_get_stats(const sn_node *node, sn_stats *out);

/* What bulk streams to a peer delivered at best in the last two seconds of sending: what the link to it carries, if it
 * was asked for that much. */
typedef struct {
  uint8_t peer[SN_KEY_BYTES];
  uint64_t bytes_per_s;
} sn_bulk_rate;
/* Of the peers with a bulk connection of which it is known (on Linux; elsewhere of none). The number written. */
int64_t sn_bulk_rates(const sn_node *node, sn_bulk_rate *out, size_t cap);

#ifdef __cplusplus
}
#endif
