"""py-libp2p, an independent implementation, as a member of a cluster: Noise, shoal's gate, then identify and ping.

  python py_libp2p.py MULTIADDR/p2p/PEER KEY_FILE [CERTIFICATE_FILE]

Needs the packages of requirements.txt beside it. Prints one line of JSON: what the gate answered ("let_in", or the
"reason" of a refusal), "agent" by identify, "round_trips" by ping. What is shoal's of this is GatedNoise: 30 lines.
"""
import io
import json
import struct
import sys

import multiaddr
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.host.ping import PingService
from libp2p.identity.identify.identify import ID as IDENTIFY, parse_identify_response
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID, Transport

HELLO, REFUSE, VERSION = 1, 4, 1
PATIENCE_S = 10


async def read_exactly(connection, count):
    data = io.BytesIO()
    while data.tell() < count:
        piece = await connection.read(count - data.tell())
        if not piece:
            raise EOFError(f"closed after {data.tell()} of {count} bytes")
        data.write(piece)
    return data.getvalue()


class Refused(Exception):
    pass


class GatedNoise(Transport):
    """Noise, and one message of the gate each way after it (docs/wire-format.md)."""

    def __init__(self, key_pair, certificate):
        super().__init__(key_pair, noise_privkey=create_new_x25519_key_pair().private_key)
        self._certificate = certificate
        self.answer = None

    async def secure_outbound(self, conn, peer_id):
        secured = await super().secure_outbound(conn, peer_id)
        body = struct.pack("<BBQQ", HELLO, VERSION, 1000, 77) + self._certificate
        await secured.write(struct.pack("<H", len(body)) + body)
        (count,) = struct.unpack("<H", await read_exactly(secured, 2))
        self.answer = await read_exactly(secured, count)
        if self.answer[0] != HELLO:
            await secured.close()
            raise Refused
        return secured


async def identify(host, peer):
    """The agent that the peer says it is."""
    stream = await host.new_stream(peer, [IDENTIFY])
    said = b""
    while piece := await stream.read(4096):
        said += piece
        try:
            return parse_identify_response(said).agent_version
        except Exception:  # not whole yet
            continue
    return parse_identify_response(said).agent_version


async def meet(address, seed, certificate):
    peer = info_from_p2p_addr(multiaddr.Multiaddr(address))
    key_pair = create_new_key_pair(seed)
    gate = GatedNoise(key_pair, certificate)
    host = new_host(key_pair=key_pair, sec_opt={PROTOCOL_ID: gate}, muxer_preference="YAMUX")
    async with host.run(listen_addrs=[]):
        try:
            await host.connect(peer)
        except Exception:
            if gate.answer is None or gate.answer[0] != REFUSE:
                raise
            return {"let_in": False, "reason": gate.answer[2]}
        agent = await identify(host, peer.peer_id)
        trips = await PingService(host).ping(peer.peer_id, 3)
        return {"let_in": True, "agent": agent, "round_trips": len(trips)}


async def main(address, key_file, certificate_file=None):
    with open(key_file, "rb") as file:
        seed = file.read()
    certificate = b""
    if certificate_file:
        with open(certificate_file, "rb") as file:
            certificate = file.read()
    with trio.fail_after(PATIENCE_S):
        print(json.dumps(await meet(address, seed, certificate)))


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
