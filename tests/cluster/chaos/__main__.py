"""`./dev chaos`: faults for so many seconds; load without faults (--soak); or kill after kill (--takeover N).

The exit code is 0 only when every check holds. See docs/reliability.md.
"""
import argparse
import json
import sys

import lan as lans
from chaos import run, soak, takeover


def say(text):
    """News for whoever watches."""
    print(text, file=sys.stderr, flush=True)


def main():
    """Parses the words and prints one report."""
    parser = argparse.ArgumentParser(prog="./dev chaos", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same faults")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--keep-logs", action="store_true", help="also when every check holds")
    parser.add_argument("--soak", action="store_true", help="mixed load without faults: does anything grow?")
    parser.add_argument("--takeover", type=int, metavar="N", help="N kills of the middle stage: how long a pause?")
    parser.add_argument("--pause", type=float, default=0.2, help="with --soak: mean seconds between two requests")
    options = parser.parse_args()
    lans.enter_user_namespace("-m", "chaos", *sys.argv[1:])
    if lans.why_not():
        sys.exit("chaos needs a LAN of network namespaces: " + lans.why_not())
    if options.soak:
        report = soak.play(options.seconds, options.seed, options.pause, say)
    elif options.takeover:
        report = takeover.play(options.takeover, say)
    else:
        report = run.play(options.seconds, options.seed, say, options.keep_logs)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        show(report)
    return 0 if all(one["holds"] for one in report["checks"]) else 1


def show(report):
    """The report for a person."""
    for name, value in report.items():
        if isinstance(value, dict):
            print(name + ":", *(f"\n  {key}: {json.dumps(inner)}" for key, inner in value.items()))
        elif name not in ("checks", "violations"):
            print(f"{name}: {value}")
    for violation in report.get("violations", ()):
        print(f"VIOLATION: {violation['kind']}: {violation['what']}")
    for one in report["checks"]:
        print(f"{'holds ' if one['holds'] else 'MISSED'} {one['name']}: {one['value']} (bar {one['bar']})")


if __name__ == "__main__":
    sys.exit(main())
