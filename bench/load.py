#!/usr/bin/env python3
"""How long a model that is on this disk takes to its first token, against reading the same bytes with cat.

A node that knows a model of random weights (shoal_random_model) is told to place it and asked at once: the time from
the start of `shoal place` to the first token. Besides, the same model is loaded by `shoal run`. Both once with the
file's pages dropped from memory, so that the disk bounds it, and once with its pages in memory. The ratio is that of
the fastest runs of each: whatever else happens only adds to them. `cat` throws away what it reads; loading keeps it,
in another layout. So beside it stands what keeping alone costs: dd, which reads the file into one piece of fresh memory
on one core. `--json` prints one object with its checks.

Memory that a virtual machine gave back to its host costs it many times as much to get again, so that a run measures
what ran before it. So each run is preceded by a process that takes as much memory, in huge pages, and lets it go; and
where the system says that it gives memory back (page_reporting_order), better switch that off for so long.
"""
import argparse
import contextlib
import json
import mmap
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/cluster"))

import nodes  # noqa: E402

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


class Placing:
    """A node of this machine that knows the model."""

    def __init__(self, path, folder):
        self._name = path.stem
        self._host = nodes.Here(folder)
        self._node = nodes.Node(self._host, folder=self._host.folder, at_end=self._host.at_end, models=[path],
                                api_port=self._host.free_port())
        self.first_token(path)  # the file is hashed by then

    def first_token(self, _path):
        """Seconds from the start of `shoal place`; nothing is loaded before or after."""
        start = time.monotonic()
        self._node.cli("place", self._name, "--ctx", 512, "--slots", 1, "--standby", "off", timeout=600)
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._node.api_port}/v1/completions",
            json.dumps({"model": self._name, "prompt": "Once", "max_tokens": 1, "stream": True}).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {nodes.KEY}"})
        with urllib.request.urlopen(request, timeout=600) as answer:
            first = answer.readline()
            took = time.monotonic() - start
            assert first.startswith(b"data: {"), first
        self._node.cli("unplace", self._name)
        nodes.wait_for("its memory is free", lambda: self._resident() < 200 * MIB)
        return took

    def _resident(self):
        pages = int(pathlib.Path(f"/proc/{self._node.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")

    def close(self):
        self._host.close()


def measure(path, cold, rounds, placing):
    """Seconds of cat, of a copy into memory, of loading, and of placing to the first token, in turns."""
    calls = {"cat_s": cat, "copy_s": copy, "load_s": load, "first_token_s": placing.first_token}
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
            with contextlib.closing(Placing(path, pathlib.Path(folder) / shape)) as placing:
                one = {"bytes": path.stat().st_size, "from_disk": measure(path, True, options.rounds, placing),
                       "from_memory": measure(path, False, options.rounds, placing)}
            result["shapes"][shape] = one
            for name in ("from_disk", "from_memory"):
                for what, seconds in (("loading", "load_s"), ("first token after place", "first_token_s")):
                    ratio = one[name][seconds] / one[name]["cat_s"]
                    result["checks"].append({"name": f"{shape}: {what}, {name.replace('_', ' ')} / cat",
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
                  f"loaded in {took['load_s']:.3f} s, first token {took['first_token_s']:.3f} s after place")
    for one in result["checks"]:
        print(f"{'holds ' if one['holds'] else 'MISSED'} {one['name']}: {one['value']} (bar {one['bar']})")


if __name__ == "__main__":
    main()
