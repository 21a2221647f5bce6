#!/usr/bin/env python3
"""Our plans against how others would split, by running them: devices of different speed are control groups' rations.

Real nodes in network namespaces 1 ms apart (needs root, two cores). exo splits by memory with the largest first;
llama.cpp's -ts splits by memory in the order given; prima.cpp's method gives the fastest as much as it holds, and
devices that only slow a token down leave. Their splits are placed by explicit ranges, ours by `--goal`; all of them are
asked the same: four streams at once, and one request with a prompt of 512 tokens. About three minutes. `--json` prints
one object with its checks.
"""
import argparse
import dataclasses
import json
import os
import statistics
import sys
import time

from predict import Device, Setup, cluster_of, lans

STREAMS = 4
ROUNDS = 2
NOISE = 0.03  # between two runs of the same


@dataclasses.dataclass(frozen=True)
class Rivalry:
    setup: Setup
    layers: int
    memory: tuple  # of each device, in relation to each other: all could hold the whole model


RIVALRIES = (
    Rivalry(Setup("SmolLM2 on three devices of 100, 50 and 25 %, equal memory", "smollm2",
                  (Device("0"), Device("1", 0.5), Device("1", 0.25))), 30, (1, 1, 1)),
    Rivalry(Setup("Gemma-3 on two devices of 40 and 100 %, memory 3 to 2", "gemma3",
                  (Device("0", 0.4), Device("1"))), 18, (3, 2)),
)


def proportional(layers, order, weights):
    """[(device, first, last)] by largest remainders; a device without a layer has no stage."""
    stages, until, first = [], 0.0, 0
    for number, device in enumerate(order):
        until += weights[device] / sum(weights) * layers
        last = layers if number + 1 == len(order) else round(until)
        if last > first:
            stages.append((device, first, last - 1))
        first = max(first, last)
    return stages


def splits(rivalry):
    devices = range(len(rivalry.memory))
    largest_first = sorted(devices, key=lambda one: -rivalry.memory[one])
    fastest = max(devices, key=lambda one: rivalry.setup.devices[one].share)
    return {"exo": proportional(rivalry.layers, largest_first, rivalry.memory),
            "llama.cpp -ts": proportional(rivalry.layers, list(devices), rivalry.memory),
            "prima.cpp": [(fastest, 0, rivalry.layers - 1)]}


class Race:
    def __init__(self, rivalry, cluster):
        self.cluster = cluster
        self.ways = {"ours, throughput": ("--goal", "throughput"), "ours, latency": ("--goal", "latency")}
        for name, stages in splits(rivalry).items():
            self.ways[name] = ("--stages", ",".join(f"{first}-{last}" for _, first, last in stages), "--nodes",
                               ",".join(cluster.members[device].name for device, _, _ in stages))
        self.found = {name: {"stages": [], "tokens_s": [], "request_s": []} for name in self.ways}

    def round(self):
        for name, words in self.ways.items():
            placed = self.cluster.place(*words)
            found = self.found[name]
            found["stages"] = [[one["name"], one["first"], one["last"]] for one in placed["stages"]]
            self.cluster.answer(tokens=8, prompt=64)
            found["tokens_s"].append(self.cluster.answer(streams=STREAMS, tokens=96, prompt=32)[1])
            start = time.monotonic()
            self.cluster.answer(tokens=64)
            found["request_s"].append(time.monotonic() - start)

    def result(self):
        return {name: {"stages": found["stages"], "tokens_s": statistics.median(found["tokens_s"]),
                       "request_s": statistics.median(found["request_s"])} for name, found in self.found.items()}


def measure(rivalry):
    with cluster_of(rivalry.setup) as cluster:
        race = Race(rivalry, cluster)
        for _ in range(ROUNDS):
            race.round()
    return {"setup": rivalry.setup.name, "ways": race.result()}


def checks_of(row):
    ways = row["ways"]
    for name, found in ways.items():
        if name.startswith("ours"):
            continue
        for what, ratio in ((f"tokens/s of {STREAMS} streams, ours / {name}",
                             ways["ours, throughput"]["tokens_s"] / found["tokens_s"]),
                            (f"seconds of a request, {name} / ours",
                             found["request_s"] / ways["ours, latency"]["request_s"])):
            yield {"name": f"{row['setup']}: {what}", "value": round(ratio, 3), "bar": f">= {1 - NOISE}",
                   "holds": ratio >= 1 - NOISE}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", type=int, metavar="N", help="the N-th cluster alone, from 1")
    options = parser.parse_args()
    if (reason := lans.why_not()) or os.geteuid() != 0 or (os.cpu_count() or 1) < 2:
        sys.exit(f"bench rivals needs root, network namespaces and two cores{': ' + reason if reason else ''}")
    rows = [measure(one) for number, one in enumerate(RIVALRIES, 1) if options.only in (None, number)]
    checks = [one for row in rows for one in checks_of(row)]
    print(json.dumps({"bench": "rivals", "clusters": rows, "checks": checks}, indent=2) if options.json else "\n".join(
        f"{'holds ' if one['holds'] else 'MISSED'} {one['name']}: {one['value']} (bar {one['bar']})" for one in checks))
    return 0 if all(one["holds"] for one in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
