"""Real nodes: `shoal up` on a host of a LAN, or on this machine as it is, with a SHOAL_HOME of its own.

What the program prints is kept in files. Every wait is bounded; only processes that were started here are ended.
"""
import contextlib
import http.client
import json
import os
import pathlib
import pty
import re
import select
import signal
import socket
import subprocess
import threading
import time

import openai

from lan import ROOT

BINARY = os.environ.get("SHOAL_BINARY", str(ROOT / "build/release/shoal"))
KEY = "test-key"
PATIENCE = int(os.environ.get("SHOAL_TEST_PATIENCE", "1"))   # how many times as long a program may take
HANG_S = 60 * PATIENCE   # what takes longer will never happen: no bound on how fast anything is
SPEED_TEST_OFF = ("--speed-test", "off")  # all processor time is the test's, unless it says else
API_PORT = 8080


def model_path(variable, name):
    cache = os.environ.get("SHOAL_CACHE_DIR", os.path.expanduser("~/.cache/shoal"))
    return os.environ.get(variable, os.path.join(cache, "models", name + ".gguf"))


def wait_for(what, check, timeout_s=HANG_S):
    """The first true result of check(), asked again and again; fails with `what` and the last result or error."""
    deadline = time.monotonic() + timeout_s * (PATIENCE if timeout_s < HANG_S else 1)
    last = None
    while True:
        try:
            last = check()
            if last:
                return last
        except (OSError, AssertionError, ValueError) as error:
            last = error
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}; last: {last}"
        time.sleep(0.05)


class InTerminal:
    """A process whose standard streams are a terminal."""

    def __init__(self, command, environment):
        self._ours, theirs = pty.openpty()
        try:
            self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        finally:
            os.close(theirs)
        self.shown = ""

    def read_until(self, text):
        """All that was shown, once `text` is in what is new."""
        seen, deadline = len(self.shown), time.monotonic() + HANG_S
        while text not in self.shown[seen:]:
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self._ours], [], [], left)[0], f"no {text!r} in {self.shown!r}"
            self.shown += os.read(self._ours, 65536).decode(errors="replace")
        return self.shown

    def close(self):
        os.close(self._ours)


class Here:
    """This machine as a host: its own network, no namespace. Same uses as lan.Host."""

    name = "here"

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self._closing = []

    def command(self, *words):
        return [str(word) for word in words]

    def door(self, port):
        return port

    def free_port(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    def at_end(self, call):
        self._closing.append(call)

    def close(self):
        for call in reversed(self._closing):
            call()


class Node:
    """One `shoal up`. Ended, at the latest, when the LAN or the machine-as-host that it was started on is closed."""

    def __init__(self, host, *words, home=None, name=None, models=(), api_port=API_PORT, folder=None, at_end=None,
                 before=(), binary=None, hang_s=HANG_S):
        """`before`: words in front of the program's name, of a program that runs it; `binary`: another program for the
        node than for its commands; `hang_s`: what its start never takes."""
        self.host, self.name, self.api_port, self._before = host, name or host.name, api_port, before
        self._binary, self._hang_s = binary or BINARY, hang_s
        self.home = pathlib.Path(home or (folder or host.lan.folder) / self.name)
        (self.home / "models").mkdir(parents=True, exist_ok=True)
        for model in models:
            link = self.home / "models" / pathlib.Path(model).name
            if not link.exists():
                link.symlink_to(model)
        self.process, self._log = None, self.home / "up.log"
        (at_end or host.lan.at_end)(self.kill)
        self.start(*words)

    def _environment(self):
        return {**os.environ, "SHOAL_HOME": str(self.home)}

    def start(self, *words):
        """Starts it, again too; blocks until it is ready. Sets `ready_s`, how long that took."""
        self._words = words
        started = time.monotonic()
        speed_test = () if "--speed-test" in words else SPEED_TEST_OFF
        with open(self._log, "w") as log:
            self.process = subprocess.Popen(
                self.host.command(*self._before, self._binary, "up", "--name", self.name, "--host", "127.0.0.1",
                                  "--port", self.api_port, "--api-key", KEY, *speed_test, *words),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment())
        wait_for(f"{self.name} is ready", self._is_ready, self._hang_s)
        self.ready_s = time.monotonic() - started

    def _is_ready(self):
        if self.process.poll() is not None:  # no AssertionError: there is nothing to wait for
            raise RuntimeError(f"{self.name} ended with {self.process.returncode}:\n{self.output()}")
        return "ready" in self.output()

    def output(self):
        return self._log.read_text(errors="replace")

    def cli(self, *words, check=True, timeout=HANG_S):
        """Runs another command of the program in this node's SHOAL_HOME."""
        done = subprocess.run(self.host.command(BINARY, *words), capture_output=True, text=True, timeout=timeout,
                              env=self._environment(), stdin=subprocess.DEVNULL)
        assert not check or done.returncode == 0, f"{self.name}: {words}: {done.stdout}{done.stderr}"
        return done

    def begun(self, *words):
        """Another command in this node's SHOAL_HOME, that runs; what it prints is to be read from it."""
        return subprocess.Popen(self.host.command(BINARY, *words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True, env=self._environment(), stdin=subprocess.DEVNULL)

    def begun_in_a_terminal(self, *words):
        """The same in a terminal of its own, which shows what it prints."""
        return InTerminal(self.host.command(BINARY, *words), self._environment())

    def status(self):
        return json.loads(self.cli("status", "--json").stdout)

    def node_id(self):
        return self.status()["self"]

    def net_port(self):
        """The TCP port of its network, from its own list of multiaddresses."""
        own = next(one for one in self.status()["nodes"] if one["self"])
        return next(int(a.split("/tcp/")[1].split("/")[0]) for a in own["addresses"] if "/tcp/" in a)

    def invite(self):
        return json.loads(self.cli("invite", "--json").stdout)

    def states(self):
        """State by name of every node it knows."""
        return {node["name"]: node["state"] for node in self.status()["nodes"]}

    def placement(self, model):
        """The live placement of `model`; None when there is none."""
        live = [p for p in self.status()["placements"] if p["model"] == model and p["state"] == "live"]
        assert len(live) < 2, f"two live placements of one model: {live}"
        return live[0] if live else None

    def rss_anon_bytes(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no RssAnon")

    def client(self):
        return openai.OpenAI(base_url=f"http://127.0.0.1:{self.host.door(self.api_port)}/v1", api_key=KEY,
                             max_retries=0, timeout=HANG_S)

    def complete(self, model, prompt, tokens):
        """The greedy continuation of `prompt` by the completions API of this node."""
        with self.client() as client:
            answer = client.completions.create(model=model, prompt=prompt, max_tokens=tokens, temperature=0)
        return answer.choices[0].text

    def metrics(self):
        """What its API's /metrics says, by name with labels."""
        connection = http.client.HTTPConnection("127.0.0.1", self.host.door(self.api_port), timeout=10)
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {KEY}"})
        text = connection.getresponse().read().decode()
        connection.close()
        return {name: float(value) for name, value in re.findall(r"^(shoal_\S+) (\S+)$", text, re.M)}

    def stop(self):
        """Asks it to end; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def all_alive(nodes):
    """Whether every node sees every node alive."""
    want = {node.name: "alive" for node in nodes}
    return all({n: s for n, s in node.states().items() if s != "left"} == want for node in nodes)


def links_measured(nodes):
    """Whether the first node knows round trip and throughput of the links between all of them, in both directions."""
    links = nodes[0].status()["links"]
    return len(links) >= len(nodes) * (len(nodes) - 1) and all(one["rtt_us"] and one["bytes_per_s"] for one in links)


def join_on(host, inviter, *words, **options):
    """A new node on `host` that joins the cluster of `inviter` by an invite, without any address."""
    return Node(host, "--join", inviter.invite()["code"], *words, **options)


def cluster_on(hosts, *words, **options):
    """A node on each host, all in the cluster of the first; returns when every node sees every node."""
    first = Node(hosts[0], *words, **options)
    nodes = [first, *(join_on(host, first, *words, **options) for host in hosts[1:])]
    wait_for("all nodes see each other", lambda: all_alive(nodes))
    return nodes


def model_facts(model):
    done = subprocess.run([BINARY, "model", model, "--json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@contextlib.contextmanager
def asking(call, *arguments):
    """Runs call(*arguments) over and over in a thread for the length of the block; yields the list of its results.

    A failed call ends the asking and the block's end raises it."""
    results, errors, done = [], [], threading.Event()

    def ask():
        while not done.is_set():
            try:
                results.append(call(*arguments))
            except Exception as error:  # whatever it is, the test shows it
                errors.append(error)
                return

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield results
    finally:
        done.set()
        thread.join()
    if errors:
        raise errors[0]
