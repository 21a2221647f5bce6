#!/usr/bin/env python3
"""Our plans against how others would split, by running them: devices of different speed are control groups' rations.

Real nodes in network namespaces 1 ms apart (needs root, two cores). exo splits by memory with the largest first;
llama.cpp's -ts splits by memory in the order given; prima.cpp's method gives the fastest as much as it holds, and
devices that only slow a token down leave. Ours are what `shoal place --goal` chooses before anything has run; then all
splits are placed by explicit ranges, each once however many would choose it, and asked the same, which is what plans
are made for: prompts of 512 tokens, of four streams at once and of one by itself. About seven minutes. `--json` prints
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
    """`ways`: by name, the stages [(node, first, last)]."""

    def __init__(self, rivalry, cluster):
        self.cluster = cluster
        self.ways = {}
        for goal in ("throughput", "latency"):
            placed = cluster.place("--goal", goal)
            self.ways[f"ours, {goal}"] = tuple((one["name"], one["first"], one["last"]) for one in placed["stages"])
        for name, stages in splits(rivalry).items():
            self.ways[name] = tuple((cluster.members[device].name, first, last) for device, first, last in stages)
        self.found = {stages: {"tokens_s": [], "request_s": []} for stages in self.ways.values()}

    def round(self):
        for stages, found in self.found.items():
            self.cluster.place("--stages", ",".join(f"{first}-{last}" for _, first, last in stages), "--nodes",
                               ",".join(name for name, _, _ in stages))
            self.cluster.answer(tokens=8, prompt=64)
            found["tokens_s"].append(self.cluster.answer(streams=STREAMS)[1])
            start = time.monotonic()
            self.cluster.answer(tokens=64)
            found["request_s"].append(time.monotonic() - start)

    def result(self):
        return {name: {"stages": stages, **{what: statistics.median(values)
                                            for what, values in self.found[stages].items()}}
                for name, stages in self.ways.items()}


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
    rows = []
    for number, one in enumerate(RIVALRIES, 1):
        if options.only in (None, number):
            rows.append(measure(one))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    checks = [one for row in rows for one in checks_of(row)]
    print(json.dumps({"bench": "rivals", "clusters": rows, "checks": checks}, indent=2) if options.json else "\n".join(
        f"{'holds ' if one['holds'] else 'MISSED'} {one['name']}: {one['value']} (bar {one['bar']})" for one in checks))
    return 0 if all(one["holds"] for one in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
