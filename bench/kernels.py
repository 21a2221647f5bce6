"""Whether the CPU kernels and threads that a portable build computes with are the fastest here, by type of weights.

Every backend beside the program that this CPU can run is measured in a process of its own: bytes of weights a second,
one row (answers) and 64 rows (prompts). Then `shoal device --bench` chooses a backend and threads for a whole request,
and what it chose is measured against what ggml takes by itself, in turns.
usage: kernels.py [--json] [--rounds N]; needs ./dev build portable. Prints one JSON object with its checks.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAM = pathlib.Path(os.environ.get("SHOAL_PORTABLE", ROOT / "build" / "portable" / "shoal"))
QUANTIZATIONS = ("Q4_0", "Q4_K_M", "Q8_0")
BAR = 0.98   # of the fastest


def measure(variant, quantization, threads=len(os.sched_getaffinity(0))):
    """(one row, 64 rows) in bytes a second; None where this CPU cannot run it."""
    done = subprocess.run([str(PROGRAM), "kernel-speed", quantization.replace("_K_M", "_K"), str(threads)],
                          capture_output=True, text=True, env={**os.environ, "SHOAL_CPU_VARIANT": variant})
    if done.returncode:
        return None
    one, many, _ = done.stdout.split()
    return float(one), float(many)


def request_s(speeds):
    """A prompt of 512 tokens and an answer of 128, in seconds a byte of weights."""
    return 8 / speeds[1] + 128 / speeds[0]


def choose(quantization):
    """What `shoal device --bench` finds, in a home of its own."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run([str(PROGRAM), "device", "--bench", "--quantization", quantization, "--json"],
                              capture_output=True, text=True, check=True, env={**os.environ, "SHOAL_HOME": home})
    return json.loads(done.stdout)["kernel_choice"]


def chosen_against_default(choice, quantization, rounds):
    """How fast a request is with the choice, against what ggml takes by itself: the best of each, measured in turns."""
    sides = [choice["trials"][choice["best"]], choice["trials"][0]]
    if choice["best"] == 0:
        return 1.0
    times = [[], []]
    for _ in range(rounds):
        for side, seconds in zip(sides, times):
            seconds.append(request_s(measure(side["variant"], quantization, side["threads"])))
    return min(times[1]) / min(times[0])


def fastest(variants, quantization, rounds):
    """The best of `rounds` for each backend, measured in turn so that a slow moment meets all of them."""
    best = {}
    for _ in range(rounds):
        for variant in variants:
            measured = measure(variant, quantization)
            if measured:
                before = best.get(variant, (0, 0))
                best[variant] = tuple(max(pair) for pair in zip(before, measured))
    return best


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if not PROGRAM.exists():
        sys.exit(f"{PROGRAM} is not there: ./dev build portable shoal")
    chosen = json.loads(subprocess.run([str(PROGRAM), "device", "--json"], capture_output=True, text=True,
                                       check=True).stdout)["kernels"]["variant"]
    variants = [match[1] or "base" for file in sorted(PROGRAM.parent.glob("libggml-cpu*.so"))
                if (match := re.fullmatch(r"libggml-cpu(?:-(.+))?\.so", file.name))]
    checks, table, choices = [], {}, {}
    for quantization in QUANTIZATIONS:
        best = fastest(variants, quantization, options.rounds)
        table[quantization] = {v: {"one_row_bytes_s": one, "rows_bytes_s": many} for v, (one, many) in best.items()}
        for index, what in enumerate(("one row", "64 rows")):
            ratio = best[chosen][index] / max(speeds[index] for speeds in best.values())
            checks.append({"name": f"{quantization}, {what}: {chosen} against the fastest", "value": ratio, "bar": BAR,
                           "holds": ratio >= BAR})
        choices[quantization] = choice = choose(quantization)
        ratio = chosen_against_default(choice, quantization, options.rounds + 2)
        checks.append({"name": f"{quantization}: {choice['why']}", "value": ratio, "bar": BAR, "holds": ratio >= BAR})
    print(json.dumps({"benchmark": "kernels", "chosen": chosen, "speeds": table, "choices": choices,
                      "checks": checks}))


main()
