#!/usr/bin/env python3
"""What computing probable next tokens ahead brings to one answer alone, and that it changes no token.

Two clusters of two hosts, one core each, some milliseconds apart, the model cut in the middle: one with drafts
(src/schedule/drafts.h), one without (`shoal up --drafts off`); both are asked the same in turns. Texts are of kinds
that repeat themselves much and little. Then the same with all hosts on one core, where drafts have nothing to gain.
`--json` prints one object with its checks; ratios are of the same run. Needs Linux's network namespaces and two cores;
about seven minutes. Options: --model smollm2|gemma3, --rounds N.
"""
import argparse
import json
import os
import pathlib
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench/rpc"), str(ROOT / "tests/cluster")]

import lan as lans  # noqa: E402
import nodes  # noqa: E402
from subject import Pinned  # noqa: E402
from token_times import chat_answer, text_answer  # noqa: E402

LAYERS = {"smollm2": 30, "gemma3": 18}
TOKENS_MAX = 160
TOKENS_MIN = 24  # shorter answers say little about speed
DELAYS_MS = (1, 5)
CODE = """def mean(values):
    total = 0
    for value in values:
        total += value
    return total / len(value)

def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2 == 1:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2
"""
ARTICLE = ("A shoal is many small fish that move as one, with no leader. Each fish watches its neighbours and follows "
           "three rules: keep close, do not collide, go where the others go. From these rules the movement of the "
           "whole shoal appears. Predators find it hard to follow a single fish in a shoal.")
MESSAGES = {
    "story": "Write a short story about a fox who lives in the mountains.",
    "explanation": "Explain how a bicycle stays upright, in five sentences.",
    "list": "List ten countries of Europe, each with its capital, one a line.",
    "code": "Write a Python function that returns the n-th Fibonacci number, with a docstring, and a test for it.",
    "code again": f"Fix the bug and print all of the code again:\n\n{CODE}",
    "text again": f"Correct the spelling of this text and print it again:\n\n{ARTICLE}",
    "summary": f"Summarize this text in three sentences:\n\n{ARTICLE}",
    "records": "Write a JSON array of six persons with name, age and city.",
}
# Not in chat, which models of this size do not copy in: what a larger one does when it edits a text.
COPIES = {"copy of code": f"{CODE}\n\n{CODE[:60]}", "copy of text": f"{ARTICLE}\n\n{ARTICLE[:60]}"}


class Side:
    """A cluster of two nodes, each on its core."""

    def __init__(self, hosts, cpus, model, drafts):
        path = pathlib.Path(os.environ[f"SHOAL_TEST_{model.upper()}"])
        pinned = [Pinned(host, cpu) for host, cpu in zip(hosts, cpus, strict=True)]
        self.nodes = nodes.cluster_on(pinned, "--threads", 1, "--drafts", drafts, models=[path])
        self.model = path.stem
        middle = LAYERS[model] // 2
        self.nodes[0].cli("place", self.model, "--stages", f"0-{middle - 1},{middle}-{LAYERS[model] - 1}", "--nodes",
                          ",".join(node.name for node in self.nodes), "--standby", "off", timeout=60)
        nodes.wait_for("the placement is live", lambda: self.nodes[0].placement(self.model), 30)

    def chat(self, message):
        node = self.nodes[0]
        return chat_answer(node.host, node.api_port, self.model, message, TOKENS_MAX)

    def copy(self, text):
        node = self.nodes[0]
        return text_answer(node.host, node.api_port, self.model, text, TOKENS_MAX)

    def stop(self):
        for node in self.nodes:
            node.stop()


def seconds(answer):
    return answer.times[-1] - answer.times[0]


def compare(with_drafts, without, rounds):
    """By text: tokens, seconds with and without drafts (medians), and whether the tokens were the same each time."""
    for side in (with_drafts, without):
        side.chat("Say hello.")
    texts = {}
    asked = [(name, Side.chat, text) for name, text in MESSAGES.items()]
    asked += [(name, Side.copy, text) for name, text in COPIES.items()]
    for name, ask, text in asked:
        runs = [(ask(with_drafts, text), ask(without, text)) for _ in range(rounds)]
        same = all(a.tokens == b.tokens for a, b in runs)
        if len(runs[0][1].tokens) < TOKENS_MIN and same:
            continue
        texts[name] = {"tokens": len(runs[0][1].tokens), "same": same,
                       "with_s": statistics.median(seconds(a) for a, _ in runs),
                       "without_s": statistics.median(seconds(b) for _, b in runs)}
    return texts


def report(label, texts, bars, checks):
    ratios = {name: text["without_s"] / text["with_s"] for name, text in texts.items()}
    for name, text in texts.items():
        differs = "" if text["same"] else ", OTHER TOKENS"
        print(f"{label}: {name:<12} {text['tokens']:4} tokens, {ratios[name]:.2f} times as fast{differs}",
              file=sys.stderr)
    values = {"answers of the same tokens": sum(text["same"] for text in texts.values()) / len(texts),
              "speed of all texts, with drafts / without":
                  sum(t["without_s"] for t in texts.values()) / sum(t["with_s"] for t in texts.values()),
              "the text that gains most": max(ratios.values()), "the text that gains least": min(ratios.values())}
    for name, bar in bars.items():
        holds = values[name] >= bar
        checks.append({"name": f"{label}: {name}", "value": round(values[name], 3), "bar": bar, "holds": holds})
        print(f"{label}: {name:<45} {values[name]:.3f} >= {bar} {'holds' if holds else 'MISSED'}", file=sys.stderr)
    return {"label": label, "texts": {n: {**t, "ratio": round(ratios[n], 3)} for n, t in texts.items()}}


def run(options, lan, model, cpus, delays_ms, label, bars, checks):
    hosts = lan.add_hosts(4)
    sides = [Side(hosts[:2], cpus, model, "auto"), Side(hosts[2:], cpus, model, "off")]
    figures = []
    try:
        for delay_ms in delays_ms:
            lan.link("*", "*", delay_us=delay_ms * 1000)
            texts = compare(*sides, options.rounds)
            figures.append(report(f"{model}, {label}, {delay_ms} ms", texts, bars, checks))
    finally:
        lan.link("*", "*", delay_us=1000)
        for side in sides:
            side.stop()
    return figures


def main():
    parser = argparse.ArgumentParser(prog="./dev bench drafts", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="as it is: one JSON object on standard output")
    parser.add_argument("--model", choices=list(LAYERS), help="this one only")
    parser.add_argument("--rounds", type=int, default=2, help="each text is asked so often of both (2)")
    options = parser.parse_args()
    if reason := lans.why_not() or (os.cpu_count() or 1) < 2 and "two cores are needed":
        sys.exit(f"bench drafts: {reason}")
    checks, figures = [], []
    same = {"answers of the same tokens": 1.0}
    apart = same | {"speed of all texts, with drafts / without": 1.1, "the text that gains most": 1.4,
                    "the text that gains least": 0.97}
    together = same | {"speed of all texts, with drafts / without": 0.97}
    with lans.Lan(delay_us=1000) as lan:
        for model in [options.model] if options.model else LAYERS:
            figures += run(options, lan, model, ("0", "1"), DELAYS_MS, "a core each", apart, checks)
            figures += run(options, lan, model, ("0", "0"), DELAYS_MS[:1], "one core", together, checks)
    print(json.dumps({"bench": "drafts", "checks": checks, "figures": figures}, indent=2))


if __name__ == "__main__":
    main()
