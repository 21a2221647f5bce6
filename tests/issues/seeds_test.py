"""Plays every history of seeds.txt again: seeds_test.py SHOAL_SIM. None may break anything any more. Standard library
only.
"""
import pathlib
import subprocess
import sys

LIMIT_S = 300


def main():
    """All of them, each with the line that replays it alone."""
    lines = pathlib.Path(__file__).with_name("seeds.txt").read_text(encoding="utf-8").splitlines()
    histories = [line.split(maxsplit=3) for line in lines if line and not line.startswith("#")]
    failed = not histories
    for seed, nodes, minutes, what in histories:
        words = [sys.argv[1], "--seed", seed, "--nodes", nodes, "--minutes", minutes]
        done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        print("ok" if done.returncode == 0 else "FAILED", "seed", seed, "-", what, done.stderr, flush=True)
        failed = failed or done.returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
