#!/usr/bin/env python3
"""How long a model that is on this disk takes to load, against reading the same bytes with cat.

A model of random weights (shoal_random_model) is loaded whole by `shoal run`, once with its pages dropped from memory,
so that the disk bounds it, and once with its pages in memory. The ratio is that of the fastest runs of each: whatever
else happens only adds to them. `cat` throws away what it reads; loading keeps it, in another layout. So beside it
stands what keeping alone costs: dd, which reads the file into one piece of fresh memory on one core. `--json` prints
one object with its checks.

Memory that a virtual machine gave back to its host costs it many times as much to get again, so that a run measures
what ran before it. So each run is preceded by a process that takes as much memory, in huge pages, and lets it go; and
where the system says that it gives memory back (page_reporting_order), better switch that off for so long.
"""
import argparse
import json
import mmap
import os
import pathlib
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
SHOAL = os.environ.get("SHOAL_BINARY", str(ROOT / "build/release/shoal"))
TOKENIZER = os.environ.get("SHOAL_TEST_SMOLLM2", os.path.expanduser("~/.cache/shoal/models/smollm2.gguf"))
MIB = 1 << 20


def drop_pages(path):
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def warm_memory(bytes_wanted):
    child = os.fork()
    if child == 0:
        with mmap.mmap(-1, bytes_wanted) as memory:
            if hasattr(mmap, "MADV_HUGEPAGE"):
                memory.madvise(mmap.MADV_HUGEPAGE)
            for at in range(0, bytes_wanted, 2 * MIB):
                memory[at] = 1
        os._exit(0)
    os.waitpid(child, 0)


def timed(words):
    start = time.monotonic()
    subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.monotonic() - start


def cat(path):
    return timed(["cat", path])


def copy(path):
    return timed(["dd", f"if={path}", "of=/dev/null", f"bs={path.stat().st_size}", "count=1", "iflag=fullblock"])


def load(path):
    words = [SHOAL, "run", path, "--local", "--raw", "-p", "Once", "-n", "1", "--temperature", "0", "--ctx", "512",
             "--slots", "1", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["timings"]["load_s"]


def measure(path, cold, rounds):
    """Seconds of cat, of a copy into memory, and of loading, in turns."""
    calls = {"cat_s": cat, "copy_s": copy, "load_s": load}
    seconds = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            warm_memory(path.stat().st_size * (5 if cold else 3) // 2)
            if cold:
                drop_pages(path)
            else:
                cat(path)
            seconds[name].append(call(path))
    return {name: min(values) for name, values in seconds.items()} | {"all": seconds}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--shape", nargs="+", default=["1B"], choices=("1B", "3B", "8B"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the models, taken from there if they are there")
    options = parser.parse_args()
    result = {"shapes": {}, "checks": []}
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        for shape in options.shape:
            path = (options.keep or pathlib.Path(folder)) / f"{shape}.gguf"
            if not path.exists():
                subprocess.run([ROOT / "build/release/tests/tools/shoal_random_model", shape, TOKENIZER, path],
                               check=True)
            one = {"bytes": path.stat().st_size, "from_disk": measure(path, True, options.rounds),
                   "from_memory": measure(path, False, options.rounds)}
            result["shapes"][shape] = one
            for name in ("from_disk", "from_memory"):
                ratio = one[name]["load_s"] / one[name]["cat_s"]
                result["checks"].append({"name": f"{shape}: loading {name.replace('_', ' ')} / cat",
                                         "value": round(ratio, 3), "bar": "<= 1.5", "holds": ratio <= 1.5})
            if options.keep is None:
                path.unlink()
    if options.json:
        print(json.dumps(result, indent=2))
        return
    for shape, one in result["shapes"].items():
        print(f"{shape}, {one['bytes'] / 1e6:.0f} MB")
        for name in ("from_disk", "from_memory"):
            took = one[name]
            print(f"  {name:12} cat {took['cat_s']:.3f} s, copied into memory in {took['copy_s']:.3f} s, "
                  f"loaded in {took['load_s']:.3f} s")
    for one in result["checks"]:
        print(f"{'holds ' if one['holds'] else 'MISSED'} {one['name']}: {one['value']} (bar {one['bar']})")


if __name__ == "__main__":
    main()
