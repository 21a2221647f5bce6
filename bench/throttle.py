#!/usr/bin/env python3
"""One of three devices becomes three times slower while four streams run: how soon it is planned anew, what it brings.

Real nodes in network namespaces, 1 ms apart, each with processor time rationed by a control group (needs root). What
the new plan reaches is compared with placements around it, placed by hand under the same rations. With --alternate S
the ration changes every half minute for S seconds instead, and the moves are counted. `--json` prints one object with
its checks.
"""
import argparse
import json
import os
import pathlib
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/cluster"))

import lan as lans  # noqa: E402
import nodes  # noqa: E402
import rations as rationing  # noqa: E402
import streams  # noqa: E402

MODEL = "smollm2"
SHARE = 0.45  # of a core for each device: 1.35 of two, the rest for clients and the network
SLOWER = 3
STREAMS, TOKENS = 4, 200
RECOVERS_S = 8  # the prompts and answers of four streams are computed again where layers have moved
RATE_S = 12  # of each stream, at least, in whole answers
CALM_S = 12  # without a move: what stages take under their rations is known
MOVES_MAX = 6  # in ten minutes: the rests between moves grow (docs/planning.md)
PROMPTS = [f"{number}. A long story about {what}:" for number, what in enumerate(("ships", "owls", "bread", "rain"))]


class Load:
    """Streams without end: each is followed by another."""

    def __init__(self, node):
        self._node, self._done = node, threading.Event()
        self.streams = [[] for _ in range(STREAMS)]
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(STREAMS)]
        for thread in self._threads:
            thread.start()

    def _run(self, number):
        while not self._done.is_set():
            stream = streams.Stream(self._node.name, PROMPTS[number], time.monotonic())
            self.streams[number].append(stream)
            streams.ask(self._node, MODEL, PROMPTS[number], TOKENS, stream)

    def rate(self, seconds):
        """Tokens a second of all together, over whole answers that begin from now on and take so long or longer: an
        answer is fast at its beginning, where there is little to look back on, and slow at its end."""
        now = time.monotonic()
        return sum(nodes.wait_for("a stream has gone on for so long", lambda own=own: self._rate_of(own, now, seconds),
                                  300) for own in self.streams)

    @staticmethod
    def _rate_of(answers, since, seconds):
        begun = [answer for answer in list(answers) if answer.started >= since]
        for number, answer in enumerate(begun):
            took = answer.ended - begun[0].started
            if answer.ended and took >= seconds:
                return sum(len(one.pieces) for one in begun[:number + 1]) / took
        return None

    def stop(self):
        """Ends after the streams that run; those that were not whole."""
        self._done.set()
        for thread in self._threads:
            thread.join()
        return [stream.error or "cut short" for each in self.streams for stream in each
                if stream.error or stream.finish not in ("length", "stop")]


def ranges_of(placement):
    return [(stage["first"], stage["last"] + 1) for stage in placement["stages"]]


def differ(one, other):
    """Whether some node has other layers."""
    layers = [{(stage["name"], stage["first"], stage["last"]) for stage in placed["stages"]} for placed in (one, other)]
    return layers[0] != layers[1]


def measured(members):
    time.sleep(2)  # whoever asks takes the time of whoever measures
    return all(len(node["device"]["stage_speeds"]) > 0 for member in members for node in member.status()["nodes"])


def calm(entry, timeout_s=120):
    """The placement once its ranges have stayed the same for CALM_S."""
    end = time.monotonic() + timeout_s
    placed, since = entry.placement(MODEL), time.monotonic()
    while time.monotonic() - since < CALM_S and time.monotonic() < end:
        time.sleep(0.5)
        now = entry.placement(MODEL)
        if now and (not placed or differ(now, placed)):
            placed, since = now, time.monotonic()
    return placed


def around(ranges, throttled):
    """The cuts themselves, and those that give the throttled stage one layer less and one more."""
    counts = [last - first for first, last in ranges]
    for change in (0, -1, 1):
        changed = list(counts)
        changed[throttled] += change
        other = max((i for i in range(len(counts)) if i != throttled), key=lambda i: -change * counts[i])
        changed[other] -= change
        if min(changed) < 1:
            continue
        firsts = [sum(changed[:i]) for i in range(len(changed))]
        yield ",".join(f"{first}-{first + count - 1}" for first, count in zip(firsts, changed))


def start(lan, rations):
    hosts = lan.add_hosts(3)
    model = nodes.model_path("SHOAL_TEST_SMOLLM2", MODEL)
    words = ("--threads", "1", "--speed-test", "auto")
    for ration in rations:
        ration.give(SHARE)
    first = nodes.Node(hosts[0], *words, models=[model], before=rations[0].before())
    members = [first] + [nodes.join_on(host, first, *words, models=[model], before=ration.before())
                         for host, ration in zip(hosts[1:], rations[1:])]
    nodes.wait_for("all see each other", lambda: nodes.all_alive(members))
    nodes.wait_for("all have measured their speed", lambda: measured(members), 180)
    first.cli("place", MODEL, "--stages", "3", "--slots", "4", "--standby", "off")
    placed = nodes.wait_for("the placement is live", lambda: first.placement(MODEL))
    return members, placed


def throttle(members, rations, placed):
    entry = members[0]
    load = Load(entry)
    while True:  # a move that has nothing to do with the change would spoil the measurement
        placed = calm(entry)
        before = load.rate(RATE_S)
        if not differ(entry.placement(MODEL) or placed, placed):
            break
    rations[2].give(SHARE / SLOWER)
    begin = time.monotonic()
    anew = nodes.wait_for("it is placed anew", lambda: (now := entry.placement(MODEL)) and
                          differ(now, placed) and now)
    took = time.monotonic() - begin
    time.sleep(RECOVERS_S)
    after = load.rate(RATE_S)
    errors = load.stop()
    victim = next(i for i, stage in enumerate(anew["stages"]) if stage["name"] == members[2].name)
    by_hand = {}
    for stages in around(ranges_of(anew), victim):
        entry.cli("place", MODEL, "--stages", stages, "--slots", "4", "--standby", "off", "--nodes",
                  ",".join(stage["name"] for stage in anew["stages"]))
        hand = Load(entry)
        by_hand[stages] = hand.rate(RATE_S)
        hand.stop()
    best = max(by_hand.values())
    return {"stages_before": ranges_of(placed), "stages_after": ranges_of(anew), "tokens_s_before": before,
            "tokens_s_after": after, "by_hand": by_hand, "replanned_s": took, "errors": errors,
            "forecast": anew.get("forecast")}, [
        {"name": "seconds from the change to other ranges", "value": round(took, 2), "bar": "<= 20",
         "holds": took <= 20},
        {"name": "speed after / best by hand", "value": round(after / best, 3), "bar": ">= 0.9",
         "holds": after >= 0.9 * best},
        {"name": "broken streams", "value": len(errors), "bar": "0", "holds": not errors}]


def alternate(members, rations, placed, seconds):
    entry, epochs = members[0], [placed["epoch"]]
    load = Load(entry)
    end = time.monotonic() + seconds
    slow = False
    while time.monotonic() < end:
        slow = not slow
        rations[2].give(SHARE / SLOWER if slow else SHARE)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            time.sleep(1)
            now = entry.placement(MODEL)
            if now and now["epoch"] not in epochs:
                epochs.append(now["epoch"])
    errors = load.stop()
    return {"moves": len(epochs) - 1, "errors": errors}, [
        {"name": "moves in that time", "value": len(epochs) - 1, "bar": f"<= {MOVES_MAX}",
         "holds": len(epochs) - 1 <= MOVES_MAX},
        {"name": "broken streams", "value": len(errors), "bar": "0", "holds": not errors}]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--alternate", type=int, metavar="S", default=0)
    options = parser.parse_args()
    if lans.why_not() or os.geteuid() != 0:
        sys.exit("this bench needs root and network namespaces: " + str(lans.why_not() or "not root"))
    rations = [rationing.Ration(name) for name in "abc"]
    try:
        with lans.Lan(ipv6=False, delay_us=1000) as lan:
            members, placed = start(lan, rations)
            found, checks = (alternate(members, rations, placed, options.alternate) if options.alternate
                             else throttle(members, rations, placed))
    finally:
        for ration in rations:
            ration.close()
    report = {"bench": "throttle", **found, "checks": checks}
    print(json.dumps(report, indent=2) if options.json else "\n".join(
        f"{'holds ' if one['holds'] else 'MISSED'} {one['name']}: {one['value']} (bar {one['bar']})" for one in checks))
    return 0 if all(one["holds"] for one in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
