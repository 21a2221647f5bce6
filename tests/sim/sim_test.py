"""The simulator's fixed budget: sim_test.py SHOAL_SIM. Many seeds without a violation, a larger cluster, a seed that
runs the same twice; and rules broken on purpose, which have to be caught with the seed's name. Standard library only.
"""
import json
import re
import subprocess
import sys

LIMIT_S = 300


def run(sim, *options):
    """Exit code, the JSON object, stderr."""
    done = subprocess.run([sim, "--json", *options], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    return done.returncode, json.loads(done.stdout), done.stderr


def expect(condition, what, detail=""):
    """Ends the test with what does not hold."""
    if not condition:
        sys.exit(f"FAILED: {what}\n{detail}")
    print(f"ok: {what}", flush=True)


def clean(sim, what, *options):
    """Runs histories that must have no violation, and in which something happened."""
    code, report, stderr = run(sim, *options)
    expect(code == 0 and not report["violations"], f"{what}: {report['seeds']} seeds without a violation", stderr)
    expect(report["generations_complete"] > report["seeds"] and report["placements"] > report["seeds"],
           f"{what}: {report['generations_complete']} whole answers, {report['placements']} placements")
    expect(report["stages_taken_over"] > 0 and
           report["row_layers_recovered"] < report["row_layers_from_nothing"],
           f"{what}: {report['stages_taken_over']} stages went on in a later epoch")
    expect(report["copies_that_knew"] > 0 and report["row_layers_spared_by_copies"] > 0,
           f"{what}: {report['copies_that_knew']} copies took over that knew something, which spared "
           f"{report['row_layers_spared_by_copies']} row-layers")
    expect(0 < report["drafts_right"] < report["drafts"],
           f"{what}: {report['drafts']} drafts, {report['drafts_right']} of them right")
    return report


def caught(sim, rule, invariant, seeds):
    """A rule broken on purpose is seen, and the seed that is named shows it again, alone."""
    code, report, stderr = run(sim, "--break", rule, "--seeds", str(seeds))
    expect(code == 1 and report["violations"], f"--break {rule} is caught within {seeds} seeds")
    violation = report["violations"][0]
    expect(invariant in violation["invariant"], f"--break {rule} breaks: {violation['invariant']}", stderr)
    expect(re.search(rf"seed {violation['seed']}\b", stderr) and f"./dev sim --seed {violation['seed']}" in stderr,
           "the seed and the command that replays it are printed", stderr)
    options = violation["replay"].split()[2:]
    code, again, stderr = run(sim, *options)
    expect(code == 1 and again["violations"] == report["violations"], "the replay breaks in the same place", stderr)


def main():
    """All of it."""
    sim = sys.argv[1]
    report = clean(sim, "2 to 12 nodes", "--seeds", "60", "-j", "2")
    gone_on, lost = report["entries_lost_gone_on"], report["entries_lost"]
    expect(gone_on > lost / 2 and gone_on > 10, f"{gone_on} of {lost} answers whose node was lost were gone on with")
    code, _, stderr = run(sim, "--strict", "--seeds", "1", "--minutes", "1")
    expect(code == 1 and "seeds run, at least" in stderr, "--strict fails where a bar is missed", stderr)
    clean(sim, "40 nodes", "--seeds", "2", "--nodes", "40", "--minutes", "2")
    once, twice, other = (run(sim, "--seed", seed)[1] for seed in ("7", "7", "8"))
    expect(once["trace"] == twice["trace"] and once["events"] == twice["events"], "one seed is one history")
    expect(once["trace"] != other["trace"], "another seed is another history")
    caught(sim, "epoch-tag", "same epoch", 200)
    caught(sim, "stale-epoch", "stale epoch", 200)
    caught(sim, "resume", "one token per position", 50)
    caught(sim, "copy-rewind", "one-node run", 50)
    caught(sim, "event-id", "one token per position", 50)
    caught(sim, "copy-found", "a node in reach has", 50)
    caught(sim, "draft", "one-node run", 50)


if __name__ == "__main__":
    main()
