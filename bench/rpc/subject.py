"""shoal on the hosts: a cluster of three nodes, stages on the first two, one core each. `words`: more for `shoal up`.

Asked over HTTP, as anybody would. `entry` is the index of the node that is asked: 0 has the first stage, 2 has none."""
import dataclasses
import json
import pathlib
import re
import time

import nodes
import token_times

NETWORK_THREADS = ("shoal-net", "shoal-net-event", "shoal-results")
COMPUTE_THREAD = "shoal-compute"


class Pinned:
    """A host of which one core may be used."""

    def __init__(self, host, cpu):
        self._host, self._cpu = host, cpu

    def __getattr__(self, name):
        return getattr(self._host, name)

    def command(self, *words):
        return self._host.command("taskset", "-c", self._cpu, *words)


@dataclasses.dataclass
class Usage:
    """What the nodes used since they started: seconds of stages by activity, processor time by thread name."""
    stages: dict
    batches: float
    threads: dict
    bytes_sent: float

    def __sub__(self, other):
        return Usage({k: v - other.stages.get(k, 0) for k, v in self.stages.items()}, self.batches - other.batches,
                     {k: v - other.threads.get(k, 0) for k, v in self.threads.items()},
                     self.bytes_sent - other.bytes_sent)


@dataclasses.dataclass
class Decoded:
    """Times of every token of every stream; with `used`, what the nodes used from the first token on."""
    times: list
    used: Usage | None = None

    def rate(self):
        """Tokens a second of all streams together, while all of them decode."""
        return token_times.rate(self.times)

    def seconds_per_token(self):
        """Of a single stream; the first tokens were spent on taking notes."""
        times = self.times[0][8:]
        return (times[-1] - times[0]) / (len(times) - 1)

    def tokens(self):
        return sum(len(t) - 1 for t in self.times)

    @property
    def compute_s(self):
        """Of all stages, for one micro-batch."""
        return sum(s for (_, activity), s in self.used.stages.items() if activity == "compute") / self.used.batches

    @property
    def network_cpu_s(self):
        return sum(self.used.threads.get(name, 0) for name in NETWORK_THREADS)

    @property
    def compute_cpu_s(self):
        return self.used.threads[COMPUTE_THREAD]

    def thread_us_per_token(self):
        return {name: 1e6 * s / self.tokens() for name, s in sorted(self.used.threads.items()) if s > 0}


@dataclasses.dataclass
class Prefilled:
    seconds: float
    bytes_sent: float


class Subject:
    def __init__(self, hosts, models, *words):
        pinned = [Pinned(host, cpu) for host, cpu in zip(hosts, ("0", "1", "0,1"), strict=True)]
        self.nodes = nodes.cluster_on(pinned, "--threads", 1, *words, models=models)
        nodes.wait_for("all links are measured: the probe's bytes are no activations",
                       lambda: nodes.links_measured(self.nodes), 120)

    def place(self, path, ranges):
        self.model = pathlib.Path(path).stem
        head = self.nodes[0]
        if head.placement(self.model):
            head.cli("unplace", self.model)
            nodes.wait_for("the model is gone", lambda: not head.placement(self.model), 20)
        stages = ",".join(f"{first}-{last}" for first, last in ranges)
        names = ",".join(node.name for node in self.nodes[:2])
        head.cli("place", self.model, "--stages", stages, "--nodes", names, "--standby", "off", timeout=60)
        nodes.wait_for("the placement is live", lambda: head.placement(self.model), 30)
        described = json.loads(head.cli("model", path, "--json").stdout)
        self.n_embd = described["embedding_length"]

    def prefill(self, prompt, entry):
        before = self._bytes_sent()
        start = time.monotonic()
        times = self._stream([prompt], 1, entry)
        return Prefilled(times[0][0] - start, self._bytes_sent() - before)

    def decode(self, prompts, tokens, entry=0, account=False):
        first = []
        times = self._stream(prompts, tokens, entry, (lambda: first.append(self._usage())) if account else None)
        return Decoded(times, self._usage() - first[0] if account else None)

    def _stream(self, prompts, tokens, entry, on_first=None):
        node = self.nodes[entry]
        return token_times.token_times(node.host, node.api_port, self.model, prompts, tokens, on_first)

    def _bytes_sent(self):
        return self.nodes[0].metrics()["shoal_network_bytes_sent"]

    def _usage(self):
        metrics = self.nodes[0].metrics()
        stages, batches = {}, 0.0
        for name, value in metrics.items():
            if f'model="{self.model}"' not in name:
                continue
            labels = dict(re.findall(r'(\w+)="([^"]*)"', name))
            if name.startswith("shoal_stage_seconds{"):
                stages[labels["stage"], labels["activity"]] = value
            elif name.startswith("shoal_stage_micro_batches{"):
                batches = value
        return Usage(stages, batches, self._thread_seconds(), metrics["shoal_network_bytes_sent"])

    def _thread_seconds(self):
        seconds = {}
        for node in self.nodes[:2]:
            for task in pathlib.Path(f"/proc/{node.process.pid}/task").iterdir():
                name = (task / "comm").read_text().strip()
                ran_ns = int((task / "schedstat").read_text().split()[0])
                seconds[name] = seconds.get(name, 0) + ran_ns / 1e9
        return seconds
