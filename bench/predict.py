#!/usr/bin/env python3
"""What `shoal place` forecasts against what real generations then take, on six different clusters on this machine.

Real nodes in network namespaces, on cores of their own or with processor time rationed by a control group (needs root,
two cores). Every node measures itself as it would anywhere; then the model is placed, the forecast read, and answers
of 128 tokens to prompts of 512 are timed over HTTP. Each setup is built --times times, from nothing and in turns: a
machine's speed changes from minute to minute, and a forecast is of the minute before. A check is of the median of their
ratios. About five minutes each time; --only N M ... runs some setups. `--json` prints one object with its checks.
"""
import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import statistics
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/cluster"))

import lan as lans  # noqa: E402
import nodes  # noqa: E402
import rations as rationing  # noqa: E402
from token_times import rate, token_times  # noqa: E402

PROMPT, ANSWER = 512, 128  # of the request that a forecast is of
ROUNDS = 3
WITHIN = 0.15


@dataclasses.dataclass(frozen=True)
class Device:
    cpus: str = "0"
    share: float = 1.0  # of a core

    @property
    def threads(self):
        return 1 if len(self.cpus) == 1 else 2


@dataclasses.dataclass(frozen=True)
class Setup:
    name: str
    model: str
    devices: tuple
    delay_us: int = 1000


SETUPS = (
    Setup("SmolLM2, one core", "smollm2", (Device("1"),)),
    Setup("Gemma-3, two cores", "gemma3", (Device("0,1"),)),
    Setup("SmolLM2, half of a core", "smollm2", (Device("1", 0.5),)),
    Setup("SmolLM2, two devices, 1 ms", "smollm2", (Device("0"), Device("1"))),
    Setup("Gemma-3, two devices, 5 ms", "gemma3", (Device("0"), Device("1")), 5000),
    Setup("SmolLM2, a device and one with 40 %, 2 ms", "smollm2", (Device("0"), Device("1", 0.4)), 2000),
)


class Cluster:
    """The nodes of a setup, measured, with the model placed on all of them."""

    def __init__(self, setup, lan, rations):
        self.setup = setup
        self.model = pathlib.Path(nodes.model_path("SHOAL_TEST_" + setup.model.upper(), setup.model)).resolve()
        self.members = []
        for number, device in enumerate(setup.devices):
            before = ["taskset", "-c", device.cpus]
            if device.share < 1:
                ration = rationing.Ration(str(number))
                rations.append(ration)
                ration.give(device.share)
                before = ration.before() + before
            words = ("--threads", device.threads, "--speed-test", "auto")
            where = {"models": [self.model], "before": before}
            host = lan.add_host()
            self.members.append(nodes.join_on(host, self.members[0], *words, **where) if self.members
                                else nodes.Node(host, *words, **where))
            # One after the other: devices of one machine share a cache, and would measure each other.
            nodes.wait_for(f"device {number + 1} has measured the model's stages", self._measured, 120)
        self.entry = self.members[0]
        nodes.wait_for("all see each other", lambda: nodes.all_alive(self.members))
        nodes.wait_for("all have measured their links", self._links_measured, 120)

    def _measured(self):
        time.sleep(2)  # whoever asks takes the time of whoever measures
        known = [node["device"]["stage_speeds"] for node in self.members[0].status()["nodes"]]
        return len(known) == len(self.members) and all(known)

    def _links_measured(self):
        time.sleep(1)
        return nodes.links_measured(self.members)

    def place(self, *words):
        name = self.model.stem
        self.entry.cli("place", name, "--standby", "off", "--slots", 4, *words)
        return nodes.wait_for("the placement is live", lambda: self.entry.placement(name))

    def answer(self, streams=1, tokens=ANSWER, prompt=PROMPT):
        """(seconds to the first token, tokens a second after it). Prompts are never the same twice."""
        prompts = [[random.randrange(100, 5000) for _ in range(prompt)] for _ in range(streams)]
        start = time.monotonic()
        times = token_times(self.entry.host, self.entry.api_port, self.model.stem, prompts, tokens)
        return min(own[0] for own in times) - start, rate(times)


def cores_beside(setup):
    """Those of which no device has all; of one that has none left, all."""
    everything = os.sched_getaffinity(0)
    taken = {int(cpu) for device in setup.devices if device.share == 1 for cpu in device.cpus.split(",")}
    return everything - taken or everything


@contextlib.contextmanager
def cluster_of(setup):
    """A Cluster, for a with statement. Clients and the wire are no device: they keep off cores of one, if they can."""
    rations, everything = [], os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores_beside(setup))
    try:
        with lans.Lan(ipv6=False, delay_us=setup.delay_us) as lan:
            yield Cluster(setup, lan, rations)
    finally:
        os.sched_setaffinity(0, everything)
        for ration in rations:
            ration.close()


def measure(setup):
    with cluster_of(setup) as cluster:
        placed = cluster.place("--stages", len(setup.devices))
        forecast = placed["forecast"]
        cluster.answer(tokens=8)
        answers = [cluster.answer() for _ in range(ROUNDS)]
    first_s = statistics.median(first for first, _ in answers)
    return {"setup": setup.name, "stages": [[one["first"], one["last"]] for one in placed["stages"]],
            "measured_speeds": forecast["measured"],
            "decode": {"forecast": forecast["tokens_s"], "measured": statistics.median(per_s for _, per_s in answers)},
            "prefill": {"forecast": PROMPT / forecast["first_token_s"], "measured": PROMPT / first_s}}


def check(name, rows, what):
    ratios = [round(row[what]["forecast"] / row[what]["measured"], 3) for row in rows]
    ratio = statistics.median(ratios)
    return {"name": f"{name}: {what}, forecast / measured", "value": ratio, "of": ratios,
            "bar": f"{1 - WITHIN:.2f} to {1 + WITHIN:.2f}", "holds": abs(ratio - 1) <= WITHIN}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", type=int, metavar="N", nargs="+", help="these setups alone, numbered from 1")
    parser.add_argument("--times", type=int, metavar="N", default=3, help="how often each setup is built (3)")
    options = parser.parse_args()
    if (reason := lans.why_not()) or os.geteuid() != 0 or (os.cpu_count() or 1) < 2:
        sys.exit(f"bench predict needs root, network namespaces and two cores{': ' + reason if reason else ''}")
    random.seed(1)
    chosen = [setup for number, setup in enumerate(SETUPS, 1) if not options.only or number in options.only]
    rows = []
    for setup in chosen * options.times:
        rows.append(measure(setup))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    checks = [check(setup.name, [row for row in rows if row["setup"] == setup.name], what)
              for setup in chosen for what in ("decode", "prefill")]
    print(json.dumps({"bench": "predict", "setups": rows, "checks": checks}, indent=2) if options.json else "\n".join(
        f"{'holds ' if one['holds'] else 'MISSED'} {one['name']}: {one['value']} of {one['of']} (bar {one['bar']})"
        for one in checks))
    return 0 if all(one["holds"] for one in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
