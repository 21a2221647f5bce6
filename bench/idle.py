#!/usr/bin/env python3
"""What a node costs while nobody asks: processor time and wake-ups of three nodes with a placed model.

Real nodes in network namespaces, 1 ms apart. After the model has answered once and the cluster is calm, each node's
user and system time and its voluntary context switches are read from /proc, by thread. `--json` prints one object with
its checks.
"""
import argparse
import collections
import json
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/cluster"))

import lan as lans  # noqa: E402
import nodes  # noqa: E402

MODEL = "smollm2"
CALM_S = 12  # after the answer: what follows a placement is over
CORE_SHARE_MAX = 0.01


def switches_of(task):
    for line in (task / "status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches"):
            return int(line.split()[1])
    return 0


def usage(pid):
    """Seconds of processor time of the process; by thread name: (nanoseconds on a CPU, wake-ups)."""
    seconds = lans.cpu_s(pid)
    threads = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            name = (task / "comm").read_text().strip()
            ran = int((task / "schedstat").read_text().split()[0])
            threads[task.name] = (name, ran, switches_of(task))
        except OSError:  # it ended
            continue
    return seconds, threads


def between(before, after, seconds):
    """Share of a core, wake-ups a second, and both by thread name, the busiest first."""
    by_name = collections.defaultdict(lambda: [0.0, 0.0])
    for tid, (name, ran, woken) in after[1].items():
        _, ran_before, woken_before = before[1].get(tid, (name, 0, 0))
        by_name[name][0] += (ran - ran_before) / 1e9 / seconds
        by_name[name][1] += (woken - woken_before) / seconds
    threads = {name: {"core_share": round(share, 5), "wakeups_s": round(woken, 1)}
               for name, (share, woken) in sorted(by_name.items(), key=lambda one: -one[1][0])}
    return {"core_share": round((after[0] - before[0]) / seconds, 5),
            "wakeups_s": round(sum(woken for _, woken in by_name.values()), 1), "threads": threads}


def measure(seconds, threads):
    with lans.Lan(ipv6=False, delay_us=1000) as lan:
        hosts = lan.add_hosts(3)
        words = ("--threads", str(threads)) if threads else ()
        members = nodes.cluster_on(hosts, *words, models=[nodes.model_path("SHOAL_TEST_SMOLLM2", MODEL)])
        members[0].cli("place", MODEL, "--stages", "3")
        nodes.wait_for("the placement is live", lambda: members[0].placement(MODEL))
        members[0].complete(MODEL, "The sea is", 16)
        time.sleep(CALM_S)
        begin = time.monotonic()
        before = [usage(member.process.pid) for member in members]
        time.sleep(seconds)
        took = time.monotonic() - begin
        after = [usage(member.process.pid) for member in members]
        return {member.name: between(b, a, took) for member, b, a in zip(members, before, after)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--threads", type=int, default=2, help="of each stage (0: the node chooses)")
    options = parser.parse_args()
    if lans.why_not():
        sys.exit("this bench needs network namespaces: " + lans.why_not())
    found = measure(options.seconds, options.threads)
    worst = max(one["core_share"] for one in found.values())
    checks = [{"name": "share of a core, of the busiest node", "value": worst, "bar": f"< {CORE_SHARE_MAX}",
               "holds": worst < CORE_SHARE_MAX}]
    report = {"bench": "idle", "seconds": options.seconds, "nodes": found, "checks": checks}
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        for name, one in found.items():
            print(f"{name}: {100 * one['core_share']:.2f} % of a core, {one['wakeups_s']} wake-ups a second")
        for one in checks:
            print(f"{'holds ' if one['holds'] else 'MISSED'} {one['name']}: {one['value']} (bar {one['bar']})")
    return 0 if all(one["holds"] for one in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
