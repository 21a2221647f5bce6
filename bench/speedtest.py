#!/usr/bin/env python3
"""How long a node measures itself before it can be planned with: memory, the model's type of weights, its stages.

A real node for each of a few devices, one after the other: all cores, one core, a quarter of a core. What it measured
and for how long is what its log says. Links are not in it: they are measured by what goes over them anyway. `--json`
prints one object with its checks.
"""
import argparse
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/cluster"))

import lan as lans  # noqa: E402
import nodes  # noqa: E402
import rations as rationing  # noqa: E402

MODELS = ("smollm2", "gemma3")
DEVICES = (("all cores", (), None), ("one core", ("taskset", "-c", "1"), None),
           ("a quarter of a core", ("taskset", "-c", "1"), 0.25))
SECONDS_MAX = 10


def measured(node):
    return {what: float(seconds) for what, seconds in re.findall(r"measured (.+) in ([0-9.]+) s$", node.output(), re.M)}


def measure(lan, model, before, share):
    path = pathlib.Path(nodes.model_path("SHOAL_TEST_" + model.upper(), model)).resolve()
    ration = rationing.Ration("speedtest") if share else None
    try:
        if ration:
            ration.give(share)
            before = (*ration.before(), *before)
        node = nodes.Node(lan.add_host(), "-v", "--speed-test", "auto", models=[path], before=list(before))
        nodes.wait_for("the node has measured itself", lambda: any("stages of" in what for what in measured(node)), 120)
        found = measured(node)
        node.kill()
        return found
    finally:
        if ration:
            ration.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows, checks = [], []
    with lans.Lan(ipv6=False) as lan:
        for model in MODELS:
            for device, before, share in DEVICES:
                took = measure(lan, model, before, share)
                rows.append({"model": model, "device": device, "seconds": took})
                total = sum(took.values())
                checks.append({"name": f"seconds of measuring: {model}, {device}", "value": round(total, 2),
                               "bar": f"< {SECONDS_MAX}", "holds": total < SECONDS_MAX})
    if options.json:
        print(json.dumps({"bench": "speedtest", "rows": rows, "checks": checks}, indent=1))
    else:
        for row in rows:
            print(f"{row['model']}, {row['device']}: " + ", ".join(f"{k} {v} s" for k, v in row["seconds"].items()))
    return 0 if all(check["holds"] for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
