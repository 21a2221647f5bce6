"""llama.cpp's RPC on the hosts: its servers, and rpc_client (client.cc)."""
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/rpc"
TEXT = ROOT / "tests/golden/text.txt"
PORT = 50052
MICRO_BATCHES = (64, 512)  # shoal's, and llama.cpp's own default


def build_opponent():
    """Configures and builds what is compared with; nothing to do when that was done before."""
    for words in (["cmake", "-S", str(ROOT / "bench/rpc"), "-B", str(BUILD), "-G", "Ninja", "-Wno-dev",
                   "-DCMAKE_BUILD_TYPE=Release", *_source_tree()],
                  ["cmake", "--build", str(BUILD), "-j", os.environ.get("SHOAL_JOBS", str(os.cpu_count() or 1)),
                   "--target", "rpc_client", "ggml-rpc-server"]):
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            sys.exit(f"bench rpc: llama.cpp with RPC does not build\n{done.stdout[-4000:]}")


def _source_tree():
    """The llama.cpp that the shoal at hand was built from."""
    cache = pathlib.Path(os.environ["SHOAL_BINARY"]).parent / "CMakeCache.txt"
    found = [line for line in cache.read_text().splitlines() if line.startswith("SHOAL_LLAMA_CPP_DIR:")]
    return ["-D" + line for line in found]


class Opponent:
    """Loaded and ready for commands; a context manager.

    With two hosts the client has the first layers; with three, the first and the second run a server each, and the
    client on the third computes nothing."""

    def __init__(self, hosts, model, first_remote):
        self._processes, self._micro_batch = [], None
        try:
            self._start(hosts, model, first_remote)
        except BaseException:
            self.__exit__()
            raise

    def _start(self, hosts, model, first_remote):
        client = hosts[0] if len(hosts) == 2 else hosts[2]
        servers = [(host, cpu) for cpu, host in enumerate(hosts[:2]) if host is not client]
        for host, cpu in servers:
            self._processes.append(subprocess.Popen(
                host.command("taskset", "-c", cpu, BUILD / "ggml-rpc-server", "-H", host.ipv4, "-p", PORT, "-t", 1),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            self._await_server(client, host)
        endpoints = ",".join(f"{host.ipv4}:{PORT}" for host, _ in servers)
        pinned = ["taskset", "-c", 0] if len(servers) == 1 else []
        self._client = subprocess.Popen(
            client.command(*pinned, BUILD / "rpc_client", model, endpoints, first_remote, TEXT),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._processes.append(self._client)
        assert self._answer().get("ready"), "rpc_client did not start"

    @staticmethod
    def _await_server(near, far):
        deadline = time.monotonic() + 20
        while True:
            try:
                near.connect(PORT, far.ipv4).close()
                return
            except OSError:
                assert time.monotonic() < deadline, "ggml-rpc-server does not listen"
                time.sleep(0.1)

    def _answer(self, *words):
        if words:
            self._client.stdin.write(" ".join(map(str, words)) + "\n")
            self._client.stdin.flush()
        line = self._client.stdout.readline()
        assert line, "rpc_client has ended"
        return json.loads(line)

    def tokens(self, count):
        return self._answer("tokens", count)["tokens"]

    def decode(self, streams, prompt, tokens):
        """Tokens a second of all streams, from the first token of each on."""
        answer = self._answer("decode", streams, prompt, tokens)
        return answer["tokens"] / answer["seconds"]

    def prefill(self, length):
        """Prompt tokens a second, with the micro-batch that suits it best."""
        if self._micro_batch is None:
            trial = min(length, 512)
            self._micro_batch = min(MICRO_BATCHES, key=lambda n: self._answer("prefill", trial, n)["seconds"])
        return length / self._answer("prefill", length, self._micro_batch)["seconds"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self._processes):
            process.kill()
            process.wait()
            for end in (process.stdin, process.stdout):
                if end:
                    end.close()
