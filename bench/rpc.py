"""shoal against llama.cpp's own RPC: two compute hosts, one core each, some milliseconds between them.

Both are built from the same llama.cpp source tree, cut the model at the same layer, use the same prompts, threads,
cores, KV type, flash attention and context, and take turns in one run. Figures are ratios; one JSON object is printed.
Options: --quick (1 ms only, one round, shorter prompts), --rounds N, --model smollm2|gemma3. Needs Linux's network
namespaces and two cores; about four minutes. What is compared is explained in docs/performance.md.
"""
import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench/rpc"), str(ROOT / "tests/cluster")]

import lan as lans  # noqa: E402
from opponent import Opponent, build_opponent  # noqa: E402
from subject import Subject  # noqa: E402

STREAMS = 8
WARM_UP_TOKENS = 8
OVERHEAD_RUNS = 5  # one of them alone is off by as much as the bar


@dataclasses.dataclass(frozen=True)
class Model:
    """`halves` balance a long prompt, `decode` balances many answers: there the output head weighs more."""
    name: str
    variable: str
    layers: int
    halves: int  # the first layer of the second host
    decode: int


MODELS = [Model("SmolLM2", "SHOAL_TEST_SMOLLM2", 30, 15, 22), Model("Gemma-3", "SHOAL_TEST_GEMMA3", 18, 9, 16)]


class Report:
    def __init__(self):
        self.checks, self.figures = [], []

    def check(self, name, value, bar, at_least):
        holds = value >= bar if at_least else value <= bar
        self.checks.append({"name": name, "value": round(value, 4), "bar": bar, "holds": holds})
        print(f"{name:<88} {value:8.3f} {'>=' if at_least else '<='} {bar:<6} {'holds' if holds else 'MISSED'}",
              file=sys.stderr)

    def ratio(self, name, bar, shoal, rpc):
        """Pairs of rates, taken in turn."""
        ratios = [a / b for a, b in zip(shoal, rpc, strict=True)]
        self.check(name, statistics.median(ratios), bar, at_least=True)
        self.figure(name, shoal_per_s=shoal, rpc_per_s=rpc, ratios=ratios)

    def figure(self, name, **values):
        rounded = {k: [round(x, 4) for x in v] if isinstance(v, list) else round(v, 4) for k, v in values.items()}
        self.figures.append({"name": name, **rounded})


class Bench:
    """One model at one delay after the other, on hosts that stay.

    Who asks is on the first host, with the first layers, or on a third that computes nothing."""

    def __init__(self, options, lan, report):
        self.options, self.lan, self.report = options, lan, report
        self.hosts = lan.add_hosts(3)
        models = [os.environ[m.variable] for m in options.models]
        self.subject = Subject(self.hosts, models)
        # Computes what RPC computes, and nothing ahead; one stream only.
        self.plain = Subject(lan.add_hosts(3), models, "--drafts", "off")
        self.asked = 0

    def run(self, model):
        path = os.environ[model.variable]
        for cut, measure in ((model.halves, self.halves), (model.decode, self.streams)):
            self.subject.place(path, [(0, cut - 1), (cut, model.layers - 1)])
            if measure == self.halves:
                self.plain.place(path, [(0, cut - 1), (cut, model.layers - 1)])
            for hosts, entry, label in ((self.hosts[:2], 0, "asked on the first host"),
                                        (self.hosts, 2, "asked on a third host")):
                with Opponent(hosts, path, cut) as self.opponent:
                    self.text = self.opponent.tokens(4096)
                    for delay_ms in self.options.delays_ms:
                        self.lan.link("*", "*", delay_us=delay_ms * 1000)
                        measure(f"{model.name}, {delay_ms} ms, {label}", entry, delay_ms)
                    self.lan.link("*", "*", delay_us=1000)

    def prompt(self, length):
        """Another one each time: an answer from the cache would measure nothing."""
        self.asked += 1
        start = 17 * self.asked % 1024
        return self.text[start:start + length]

    def halves(self, label, entry, delay_ms):
        for subject in (self.subject, self.plain):
            subject.decode([self.prompt(16)], WARM_UP_TOKENS, entry)
        self.decode(label, entry, 1, 64, 1.4)
        self.prefill(label, entry)
        if entry == 0:
            self.overhead(label, delay_ms)

    def streams(self, label, entry, _delay_ms):
        self.decode(label, entry, STREAMS, 32, 2.0)
        if entry == 0:
            run = self.subject.decode([self.prompt(32) for _ in range(STREAMS)], self.options.tokens, account=True)
            self.network(f"{label}: processor time of the network / compute, {STREAMS} streams", run)

    def decode(self, label, entry, streams, length, bar):
        n, shoal, rpc, plain = self.options.tokens, [], [], []
        for _ in range(self.options.rounds):
            prompts = [self.prompt(length) for _ in range(streams)]
            shoal.append(self.subject.decode(prompts, n, entry).rate())
            rpc.append(self.opponent.decode(streams, length, n))
            if streams == 1:
                plain.append(self.plain.decode(prompts, n, entry).rate())
        what = "1 stream" if streams == 1 else f"{streams} streams together"
        self.report.ratio(f"{label}: decode of {what}, shoal / RPC", bar, shoal, rpc)
        if plain:
            self.report.ratio(f"{label}: decode of {what}, shoal without drafts / RPC", bar, plain, rpc)

    def prefill(self, label, entry):
        length = self.options.prompt
        run = self.subject.prefill(self.prompt(length), entry)
        rpc = self.opponent.prefill(length)
        self.report.ratio(f"{label}: prefill of {length:,} tokens, shoal / RPC", 1.7, [length / run.seconds], [rpc])
        if entry == 0:
            payload = length * self.subject.n_embd * 2
            self.report.check(f"{label}: bytes on TCP / payload, micro-batches of 64", run.bytes_sent / payload, 1.05,
                              at_least=False)

    def overhead(self, label, delay_ms):
        """Against the ideal: what the stages compute, and twice the delay of a link. The median of some answers."""
        runs = [self.plain.decode([self.prompt(64)], self.options.tokens, account=True) for _ in range(OVERHEAD_RUNS)]
        token_ms = [run.seconds_per_token() * 1e3 for run in runs]
        compute_ms = [run.compute_s * 1e3 for run in runs]
        over_ms = [token - compute - 2 * delay_ms for token, compute in zip(token_ms, compute_ms, strict=True)]
        median = statistics.median(over_ms)
        self.report.check(f"{label}: ms a token over stage compute + delays, 1 stream", median, 0.5, at_least=False)
        self.report.figure(f"{label}: one token of one stream", ms=token_ms, compute_ms=compute_ms, over_ms=over_ms,
                           delays_ms=2.0 * delay_ms)
        self.network(f"{label}: processor time of the network / compute, 1 stream", runs[over_ms.index(median)])

    def network(self, name, run):
        self.report.check(name, run.network_cpu_s / run.compute_cpu_s, 0.05, at_least=False)
        self.report.figure(name, **{f"{thread}_us_a_token": us for thread, us in run.thread_us_per_token().items()})


def parse(arguments):
    parser = argparse.ArgumentParser(prog="./dev bench rpc", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="as it is: one JSON object on standard output")
    parser.add_argument("--quick", action="store_true", help="1 ms only, one round, a prompt of 512 tokens")
    parser.add_argument("--rounds", type=int, help="pairs of decode runs (2)")
    parser.add_argument("--model", choices=["smollm2", "gemma3"], help="this one only")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 2)
    options.tokens = 64
    options.prompt = 512 if options.quick else 2048
    options.delays_ms = [1] if options.quick else [1, 5]
    wanted = f"SHOAL_TEST_{options.model.upper()}" if options.model else ""
    options.models = [m for m in MODELS if wanted in m.variable]
    return options


def main():
    options = parse(sys.argv[1:])
    if lans.why_not() and lans.user_namespace_works() and not os.environ.get("SHOAL_INSIDE_USER_NAMESPACE"):
        os.environ["SHOAL_INSIDE_USER_NAMESPACE"] = "1"
        os.execvp("unshare", ["unshare", "-Urn", sys.executable, *sys.argv])
    if reason := lans.why_not() or (os.cpu_count() or 1) < 2 and "two cores are needed":
        sys.exit(f"bench rpc: {reason}")
    build_opponent()
    report = Report()
    with lans.Lan(delay_us=1000) as lan:
        bench = Bench(options, lan, report)
        for model in options.models:
            bench.run(model)
    print(json.dumps({"bench": "rpc", "checks": report.checks, "figures": report.figures}, indent=2))


if __name__ == "__main__":
    main()
