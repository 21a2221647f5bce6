#!/usr/bin/env python3
"""What a transfer at full speed does to small round trips beside it, over a link of 25 MiB/s and 1 ms each way.

Two hosts in network namespaces behind the test switch; round trips of 16 KiB each way, alone and beside a transfer, by
every way that the transfer can take (bulk_peer.cc names them), alternating in one run. Two queues in front of the
link: one of a few milliseconds, as a good router has, and one of a tenth of a second, as many have. `--json` prints one
object with its checks; the ratio in each is of the same run.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/cluster"))

import lan as lans  # noqa: E402

PEER = pathlib.Path(os.environ.get("SHOAL_BINARY", ROOT / "build/release/shoal")).parent / "bench/shoal_bench_bulk_peer"
PORT = 47000
RATE = 25 << 20
DELAY_US = 1000
QUEUES = {"short": RATE // 200, "long": RATE // 10}  # 5 and 100 ms of the link


def measure(queue_bytes, seconds, rounds, offload=False):
    """By way: the medians over the rounds. Segments are as on a real wire: 1,514 bytes at most, unless `offload`."""
    with lans.Lan(ipv6=False, offload=offload, delay_us=DELAY_US) as lan:
        server, asker = lan.add_hosts(2)
        lan.between(server, asker, delay_us=DELAY_US, rate_bytes_per_s=RATE, queue_bytes_max=queue_bytes)
        serving = subprocess.Popen(server.command(PEER, "serve", PORT), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert serving.stdout.readline() == b"ready\n", "the bench's server did not start"
            told = asker.run(PEER, "ask", server.ipv4, PORT, seconds, rounds, timeout=60 + 30 * rounds * seconds)
        finally:
            serving.stdin.close()
            serving.wait(10)
    runs = json.loads(told.stdout)
    return {way: {name: statistics.median(run[name] for run in of) for name in of[0]} for way, of in runs.items()}


def check(name, value, bar, holds):
    return {"name": name, "value": round(value, 3), "bar": bar, "holds": bool(holds)}


def checks(found):
    out = []
    for queue, ways in found.items():
        alone, bulk = ways["alone"], ways["bulk"]
        p50, p95 = bulk["p50_ms"] / alone["p50_ms"], bulk["p95_ms"] / alone["p95_ms"]
        share = bulk["transfer_bytes_per_s"] / RATE
        out += [check(f"{queue} queue: p50 beside bulk / alone", p50, "<= 1.5", p50 <= 1.5),
                check(f"{queue} queue: p95 beside bulk / alone", p95, "<= 2", p95 <= 2),
                check(f"{queue} queue: share of the link that bulk had", share, ">= 0.6", share >= 0.6)]
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    reason = lans.why_not()
    if reason:
        sys.exit(f"bench bulk: {reason}")
    found = {queue: measure(size, options.seconds, options.rounds) for queue, size in QUEUES.items()}
    result = {"rate_bytes_per_s": RATE, "delay_us": DELAY_US, "queues": found, "checks": checks(found)}
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for queue, ways in found.items():
        print(f"{queue} queue ({QUEUES[queue] >> 10} KiB)")
        for way, of in ways.items():
            print(f"  {way:8} p50 {of['p50_ms']:7.2f} ms   p95 {of['p95_ms']:7.2f} ms   max {of['max_ms']:7.2f} ms   "
                  f"transfer {of['transfer_bytes_per_s'] / 2**20:6.2f} MiB/s")
    for one in result["checks"]:
        print(f"{'holds ' if one['holds'] else 'MISSED'} {one['name']}: {one['value']} (bar {one['bar']})")


if __name__ == "__main__":
    main()
