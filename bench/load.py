#!/usr/bin/env python3
"""How long a model that is on this disk takes to load, against reading the same bytes with cat.

A model of random weights (shoal_random_model) is loaded whole by `shoal run`, once with its pages dropped from memory,
so that the disk bounds it, and once with its pages in memory. The ratio is that of the medians. `--json` prints one
object with its checks.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
SHOAL = os.environ.get("SHOAL_BINARY", str(ROOT / "build/release/shoal"))
TOKENIZER = os.environ.get("SHOAL_TEST_SMOLLM2", os.path.expanduser("~/.cache/shoal/models/smollm2.gguf"))


def drop_pages(path):
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cat(path):
    start = time.monotonic()
    with open(os.devnull, "wb") as out:
        subprocess.run(["cat", path], stdout=out, check=True)
    return time.monotonic() - start


def load(path):
    words = [SHOAL, "run", path, "--local", "--raw", "-p", "Once", "-n", "1", "--temperature", "0", "--ctx", "512",
             "--slots", "1", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["timings"]["load_s"]


def measure(path, cold, rounds):
    """Seconds of cat and of loading, in turns."""
    read, loaded = [], []
    for _ in range(rounds):
        for call, into in ((cat, read), (load, loaded)):
            if cold:
                drop_pages(path)
            else:
                cat(path)
            into.append(call(path))
    return {"cat_s": statistics.median(read), "load_s": statistics.median(loaded)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--shape", default="1B", choices=("1B", "3B", "8B"))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        path = pathlib.Path(folder) / "model.gguf"
        maker = ROOT / "build/release/tests/tools/shoal_random_model"
        subprocess.run([maker, options.shape, TOKENIZER, path], check=True)
        size = path.stat().st_size
        result = {"bytes": size, "from_disk": measure(path, True, options.rounds),
                  "from_memory": measure(path, False, options.rounds), "checks": []}
    for name in ("from_disk", "from_memory"):
        one = result[name]
        ratio = one["load_s"] / one["cat_s"]
        result["checks"].append({"name": f"loading {name.replace('_', ' ')} / cat", "value": round(ratio, 3),
                                 "bar": "<= 1.5", "holds": ratio <= 1.5})
    if options.json:
        print(json.dumps(result, indent=2))
        return
    print(f"{size / 1e6:.0f} MB")
    for name in ("from_disk", "from_memory"):
        print(f"{name:12} cat {result[name]['cat_s']:.2f} s, loaded in {result[name]['load_s']:.2f} s")
    for one in result["checks"]:
        print(f"{'holds ' if one['holds'] else 'MISSED'} {one['name']}: {one['value']} (bar {one['bar']})")


if __name__ == "__main__":
    main()
