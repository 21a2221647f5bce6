"""Whether the CPU kernels and threads that a portable build computes with are the fastest here, by type of weights.

Every backend beside the program that this CPU can run is measured in a process of its own, its threads pinned: bytes of
weights a second, one row (answers) and 64 rows (prompts). Then `shoal device --bench` chooses a backend and threads for
a whole request, in a home of its own, and what it chose is measured against upstream's default, in turns in the same
run: the backend that ggml loads by itself, with as many threads as llama.cpp takes by itself, the physical cores.
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
BAR = 0.98    # of the fastest, and of upstream's default
SHARES = []   # of the processor time that each measurement got: far below 1 on a machine that is busy


def measure(variant, quantization, threads=len(os.sched_getaffinity(0))):
    """(one row, 64 rows) in bytes a second; None where this CPU cannot run it."""
    environment = {**os.environ, **({"SHOAL_CPU_VARIANT": variant} if variant != "built in" else {})}
    done = subprocess.run([str(PROGRAM), "kernel-speed", quantization.replace("_K_M", "_K"), str(threads), "normal"],
                          capture_output=True, text=True, env=environment)
    if done.returncode:
        return None
    one, many, _, got = done.stdout.split()
    SHARES.append(float(got))
    return float(one), float(many)


def request_s(speeds):
    """A prompt of 512 tokens and an answer of 128, in seconds a byte of weights."""
    return 8 / speeds[1] + 128 / speeds[0]


def choose(quantization):
    """What `shoal device --bench` finds, in a home of its own."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run([str(PROGRAM), "device", "--bench", "--quantization", quantization, "--json"],
                              capture_output=True, text=True, check=True, env={**os.environ, "SHOAL_HOME": home})
    return json.loads(done.stdout)["kernel_choices"][-1]


def physical_cores():
    """As llama.cpp counts them for its number of threads: CPUs that do not share their core."""
    siblings = pathlib.Path("/sys/devices/system/cpu").glob("cpu[0-9]*/topology/thread_siblings")
    return len({file.read_text() for file in siblings}) or os.cpu_count()


def chosen_against_default(choice, default, quantization, rounds):
    """How fast a request is with the choice against `default` (backend, threads), the best of each, measured in turns;
    and both speeds. What is the same is measured all the same, and is as fast."""
    best = choice["trials"][choice["best"]]
    sides = [(best["variant"], best["threads"]), default]
    speeds = [(0, 0), (0, 0)]
    for _ in range(rounds):
        for i, (variant, threads) in enumerate(sides):
            measured = measure(variant, quantization, threads)
            speeds[i] = min(speeds[i], measured, key=lambda s: request_s(s) if all(s) else float("inf"))
    ratio = 1.0 if sides[0] == sides[1] else request_s(speeds[1]) / request_s(speeds[0])
    described = [{"variant": v, "threads": t, "one_row_bytes_s": s[0], "rows_bytes_s": s[1]}
                 for (v, t), s in zip(sides, speeds)]
    return ratio, {"chosen": described[0], "upstream_default": described[1]}


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
    default = (chosen, min(physical_cores(), len(os.sched_getaffinity(0))))
    checks, table, choices, against = [], {}, {}, {}
    for quantization in QUANTIZATIONS:
        best = fastest(variants, quantization, options.rounds)
        table[quantization] = {v: {"one_row_bytes_s": one, "rows_bytes_s": many} for v, (one, many) in best.items()}
        for index, what in enumerate(("one row", "64 rows")):
            ratio = best[chosen][index] / max(speeds[index] for speeds in best.values())
            checks.append({"name": f"{quantization}, {what}: {chosen} against the fastest", "value": ratio, "bar": BAR,
                           "holds": ratio >= BAR})
        choices[quantization] = choice = choose(quantization)
        ratio, against[quantization] = chosen_against_default(choice, default, quantization, options.rounds + 2)
        taken = against[quantization]["chosen"]
        checks.append({"name": f"{quantization}: a request with {taken['variant']} and {taken['threads']} threads "
                               f"against upstream's default, {default[0]} and {default[1]}",
                       "value": ratio, "bar": BAR, "holds": ratio >= BAR, "why": choice["why"]})
    print(json.dumps({"benchmark": "kernels", "chosen": chosen, "upstream_default": default, "speeds": table,
                      "choices": choices, "chosen_against_default": against, "processor_share_min": min(SHARES),
                      "checks": checks}))


main()
