#!/usr/bin/env python3
"""One of four hosts has a model's file; the others get the layers they run over links of 200 Mbit/s.

Real nodes in network namespaces; each host's own link is limited by the kernel's token bucket (tbf), so that what a
host sends to all others shares it. Four measurements: three hosts run a third of the layers each; one host gets the
whole model from one; three hosts get the same whole model at the same time and give it to each other; and one host
answers, alone and then while two others get half of the model each from it. `--json` prints one object with its checks.
The best possible time is that of the bytes alone over the link of who has to send them.
"""
import argparse
import concurrent.futures
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/cluster"))

import lan as lans  # noqa: E402
import nodes  # noqa: E402

MBIT = 200
RATE = MBIT * 1_000_000 / 8


def limit(host):
    host.run("tc", "qdisc", "replace", "dev", lans.DEVICE, "root", "tbf", "rate", f"{MBIT}mbit", "burst", "256k",
             "latency", "50ms")


def sent_bytes(host):
    (link,) = json.loads(host.run("ip", "-j", "-s", "link", "show", "dev", lans.DEVICE).stdout)
    return link["stats64"]["tx"]["bytes"]


def kept_bytes(node):
    blobs = node.home / "store" / "blobs"
    return sum(one.stat().st_size for one in blobs.iterdir()) if blobs.exists() else 0


def holds(node, names):
    own = next(one for one in node.status()["nodes"] if one["self"])
    return set(names) <= {model["name"] for model in own["models"]}


class Cluster:
    """Four hosts; the first has `copies` files of the model, equal but for their names."""

    def __init__(self, model, copies=1, others=()):
        """`others`: more files that the first host has, under names that the rest of the program knows."""
        self.lan = lans.Lan(ipv6=False, offload=True, delay_us=500)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="shoal-bench-"))
        self.names = [f"model-{i}" for i in range(copies)]
        files = [self.folder / f"{name}.gguf" for name in self.names]
        for file in files:
            file.symlink_to(model)
        files += others
        self.hosts = self.lan.add_hosts(4)
        first = nodes.Node(self.hosts[0], "--threads", 1, models=files)
        self.members = [first, *(nodes.join_on(host, first, "--threads", 1) for host in self.hosts[1:])]
        nodes.wait_for("all nodes see each other", lambda: nodes.all_alive(self.members), 20)
        # The source hashes its file when it is first asked: before the clock runs, as on a node that has run a while.
        nodes.wait_for("all know the model", lambda: all(holds(m, self.names) for m in self.members), 30)
        for host in self.hosts:
            limit(host)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lan.__exit__()
        shutil.rmtree(self.folder, ignore_errors=True)

    def place(self, name, members, stages):
        where = ",".join(member.name for member in members)
        self.members[0].cli("place", name, "--stages", stages, "--standby", "off", "--nodes", where, timeout=200)

    def timed(self, *calls):
        """Seconds until all of `calls` are done, run at the same time, and the bytes that all hosts sent."""
        before = sum(sent_bytes(host) for host in self.hosts)
        start = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
            for one in [pool.submit(self.place, *call) for call in calls]:
                one.result()
        return time.monotonic() - start, sum(sent_bytes(host) for host in self.hosts) - before


def thirds(model):
    with Cluster(model) as cluster:
        others = cluster.members[1:]
        seconds, wire = cluster.timed((cluster.names[0], others, 3))
        kept = [kept_bytes(member) for member in cluster.members]
        text = others[0].complete(cluster.names[0], "The capital of France is", 8)
        # Equal ranges, the tied embeddings of head and tail, can come from each other: the source sends them once.
        blobs = {one.name: one.stat().st_size for m in others for one in (m.home / "store" / "blobs").iterdir()}
    return {"seconds": seconds, "wire_bytes": wire, "kept_bytes": kept, "needed_bytes": sum(kept),
            "best_seconds": sum(blobs.values()) / RATE, "text": text}


def alone(model):
    with Cluster(model) as cluster:
        seconds, wire = cluster.timed((cluster.names[0], [cluster.members[1]], 1))
        return {"seconds": seconds, "wire_bytes": wire, "needed_bytes": kept_bytes(cluster.members[1])}


def swarm(model):
    with Cluster(model, copies=3) as cluster:
        calls = [(name, [member], 1) for name, member in zip(cluster.names, cluster.members[1:])]
        seconds, wire = cluster.timed(*calls)
        return {"seconds": seconds, "wire_bytes": wire,
                "needed_bytes": sum(kept_bytes(member) for member in cluster.members)}


def tokens_per_s(node, name):
    tokens = 96
    start = time.monotonic()
    node.complete(name, "Once upon a time there was", tokens)
    return tokens / (time.monotonic() - start)


def meanwhile(model, answering):
    with Cluster(model, others=[pathlib.Path(answering)]) as cluster:
        first, name = cluster.members[0], pathlib.Path(answering).stem
        cluster.place(name, [first], 1)
        tokens_per_s(first, name)  # warm
        calm = [tokens_per_s(first, name) for _ in range(5)]
        busy = []
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            placing = pool.submit(cluster.place, cluster.names[0], cluster.members[2:], 2)
            while True:
                speed = tokens_per_s(first, name)
                if placing.done():
                    break
                busy.append(speed)
            placing.result()
    return {"calm_tokens_per_s": statistics.median(calm), "answers": len(busy),
            "busy_tokens_per_s": statistics.median(busy) if busy else 0}


def check(name, value, bar, holds_it):
    return {"name": name, "value": round(value, 3), "bar": bar, "holds": bool(holds_it)}


def checks(third, one, three, answers):
    share = answers["busy_tokens_per_s"] / answers["calm_tokens_per_s"]
    wire = third["wire_bytes"] / third["needed_bytes"]
    late = third["seconds"] / third["best_seconds"]
    gain = 3 * one["seconds"] / three["seconds"]
    return [check("the cluster answers", len(third["text"]) > 0, "text", third["text"]),
            check("bytes kept by who has the file", third["kept_bytes"][0], "0", third["kept_bytes"][0] == 0),
            check("bytes on the wire / bytes needed", wire, "<= 1.1", wire <= 1.1),
            check("time / best possible for the links", late, "<= 1.25", late <= 1.25),
            check("speed of answers meanwhile / alone", share, ">= 0.9", share >= 0.9),
            check("three hosts, one after the other / at the same time", gain, ">= 2", gain >= 2)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--model", help="a GGUF file (else Gemma 3 270M)")
    options = parser.parse_args()
    reason = lans.why_not()
    if reason:
        sys.exit(f"bench fetch: {reason}")
    model = pathlib.Path(options.model or nodes.model_path("SHOAL_TEST_GEMMA3", "gemma3")).resolve()
    answering = nodes.model_path("SHOAL_TEST_SMOLLM2", "smollm2")
    found = thirds(model), alone(model), swarm(model), meanwhile(model, answering)
    result = dict(zip(("thirds", "alone", "swarm", "meanwhile"), found), rate_mbit=MBIT, checks=checks(*found))
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for name in ("thirds", "alone", "swarm"):
        one = result[name]
        print(f"{name:7} {one['seconds']:6.2f} s, {one['wire_bytes'] / 1e6:7.1f} MB sent, "
              f"{one['needed_bytes'] / 1e6:7.1f} MB needed")
    for one in result["checks"]:
        print(f"{'holds ' if one['holds'] else 'MISSED'} {one['name']}: {one['value']} (bar {one['bar']})")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"bench fetch: {error.cmd}: {error.stderr}")
