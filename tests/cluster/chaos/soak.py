"""Mixed load without faults on three nodes: what they hold (memory, file descriptors, threads) must stay as it was.

Every number is from /proc. What counts is the first quarter of the time after warm-up against the last one: the mean of
the memory, and the least number of descriptors and threads, which a leak raises while connections only come and go.
"""
import collections
import contextlib
import http.client
import json
import os
import random
import statistics
import threading
import time

import nodes
from chaos import clients, run, texts

HOSTS, STAGES, CLIENTS = 3, 3, 4
SAMPLE_EVERY_S = 2.0
WARM_UP_SHARE, WARM_UP_MAX_S = 0.4, 660  # answers are kept for ten minutes (src/api/answers.h): then it is level
SERIES = 15               # means of the whole time that the report shows
MEMORY_BAR = 0.02
COUNT_BAR = 2            # descriptors or threads more, of a node
CANCEL_AFTER = 5         # events
LONG_LINES = 90          # of a long prompt: some 1,500 tokens
SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
          "required": ["name", "age"], "additionalProperties": False}


def _chat(rng, **more):
    question = rng.choice(("Name a fruit.", "What is a lighthouse?", "Why does bread rise?", "Say hello to Ada."))
    return "/v1/chat/completions", {"model": run.MODEL, "messages": [{"role": "user", "content": question}],
                                    "max_tokens": 48, "seed": rng.randrange(1 << 30), **more}


def _completion(rng, **more):
    return "/v1/completions", {"model": run.MODEL, "prompt": rng.choice(texts.PROMPTS), "max_tokens": 32,
                               "temperature": 0, **more}


def _long(rng):
    lines = "".join(f"Entry {rng.randrange(10_000)}: wind from the west.\n" for _ in range(LONG_LINES))
    return "/v1/completions", {"model": run.MODEL, "prompt": lines, "max_tokens": 8, "temperature": 0}


# kind: (share, request of it)
KINDS = {
    "chat": (3, lambda rng: _chat(rng)),
    "chat streamed": (3, lambda rng: _chat(rng, stream=True)),
    "completion streamed": (3, lambda rng: _completion(rng, stream=True)),
    "completion": (2, lambda rng: _completion(rng)),
    "long prompt": (1, _long),
    "cancelled": (3, lambda rng: _completion(rng, stream=True, max_tokens=400)),
    "JSON schema": (2, lambda rng: _chat(rng, response_format={
        "type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": SCHEMA}})),
}


class Caller(threading.Thread):
    """Sends one request after the other, each to the next node, with a pause between."""

    def __init__(self, number, members, pause_s, seed):
        super().__init__(daemon=True)
        self.answered, self.errors = collections.Counter(), []
        self._members, self._pause_s, self._turn = members, pause_s, number
        self._rng = random.Random(f"soak {number} {seed}")
        self._done = threading.Event()
        self.start()

    def stop(self):
        """No new request is begun."""
        self._done.set()

    def run(self):
        names = list(KINDS)
        while not self._done.is_set():
            kind = self._rng.choices(names, [KINDS[name][0] for name in names])[0]
            self._turn += 1
            node = self._members[self._turn % len(self._members)]
            try:
                self._ask(node, kind)
                self.answered[kind] += 1
            except Exception as error:  # whatever it is, the report shows it
                self.errors.append(f"{time.strftime('%T')} {kind} at {node.name}: {type(error).__name__}: {error}")
            self._done.wait(self._rng.uniform(0, 2 * self._pause_s))

    def _ask(self, node, kind):
        path, body = KINDS[kind][1](self._rng)
        connection, response = clients.request(node, "POST", path, body)
        with contextlib.closing(connection):
            if response.status != 200:
                raise ValueError(f"{response.status}: {response.read()[:200]!r}")
            if not body.get("stream"):
                answer = json.loads(response.read())
                if kind == "JSON schema" and answer["choices"][0]["finish_reason"] == "stop":
                    person = json.loads(answer["choices"][0]["message"]["content"])
                    if set(person) != {"name", "age"}:
                        raise ValueError(f"not after the schema: {person}")
                return
            for count, (_, data) in enumerate(clients.events(response)):
                if data == "[DONE]" or (kind == "cancelled" and count == CANCEL_AFTER):
                    return
                if "error" in json.loads(data):
                    raise ValueError(data)
            raise http.client.IncompleteRead(b"")


def look(node):
    """What the process of `node` holds now."""
    folder = f"/proc/{node.process.pid}"
    with open(folder + "/status") as lines:
        fields = dict(line.split(":", 1) for line in lines)
    return {"anonymous_kib": int(fields["RssAnon"].split()[0]), "resident_kib": int(fields["VmRSS"].split()[0]),
            "threads": int(fields["Threads"]), "descriptors": len(os.listdir(folder + "/fd"))}


def grown(samples, key, measure):
    """measure(first quarter), measure(last quarter) of a list of look()."""
    quarter = max(1, len(samples) // 4)
    return measure([one[key] for one in samples[:quarter]]), measure([one[key] for one in samples[-quarter:]])


def play(seconds, seed, pause_s, say=lambda _: None):
    """Runs it; the JSON object."""
    with run.cluster(HOSTS, STAGES, seed=seed) as (lan, members):
        callers = [Caller(i, members, pause_s, seed) for i in range(CLIENTS)]
        warm_s = min(WARM_UP_MAX_S, seconds * WARM_UP_SHARE)
        say(f"{seconds} s of mixed load, the first {warm_s:.0f} s to warm up")
        samples = {member.name: [] for member in members}
        warm = 0  # samples of that time
        start = time.monotonic()
        while time.monotonic() < start + seconds:
            for member in members:
                samples[member.name].append(look(member))
            time.sleep(SAMPLE_EVERY_S)
            warm += time.monotonic() < start + warm_s
        for caller in callers:
            caller.stop()
        for caller in callers:
            caller.join(clients.ANSWER_TIMEOUT_S)
        report = report_of(seconds, seed, pause_s, samples, warm, callers, nodes.all_alive(members))
        if not all(one["holds"] for one in report["checks"]):
            report["logs"] = str(run.keep_logs(lan))
        return report


def report_of(seconds, seed, pause_s, samples, warm, callers, all_alive):
    """Figures of the nodes, and the checks. The first `warm` samples do not count."""
    figures, checks = {}, []
    for name, every in samples.items():
        taken, step = every[warm:], max(1, len(every) // SERIES)
        parts = [every[i:i + step] for i in range(0, len(every), step)]
        figures[name] = {"anonymous_kib_over_time":
                         [round(statistics.fmean(one["anonymous_kib"] for one in part)) for part in parts]}
        for key, measure in (("anonymous_kib", statistics.fmean), ("resident_kib", statistics.fmean),
                             ("descriptors", min), ("threads", min)):
            first, last = grown(taken, key, measure)
            figures[name][key] = {"first_quarter": round(first, 1), "last_quarter": round(last, 1),
                                  "max": max(one[key] for one in taken)}
            if key == "anonymous_kib":
                change = round(last / first - 1, 4)
                checks.append(run.check(f"memory of {name}, change", change, MEMORY_BAR, abs(change) <= MEMORY_BAR))
            elif key != "resident_kib":
                checks.append(run.check(f"{key} of {name}, more", last - first, COUNT_BAR, last - first <= COUNT_BAR))
    answered = sum((caller.answered for caller in callers), collections.Counter())
    errors = [error for caller in callers for error in caller.errors]
    checks.append(run.check("requests that failed", len(errors), 0, not errors))
    checks.append(run.check("kinds of requests without an answer", len(set(KINDS) - set(answered)), 0,
                            set(KINDS) == set(answered)))
    checks.append(run.check("all nodes alive at the end", int(all_alive), 1, all_alive))
    return {"chaos": "soak", "seconds": seconds, "seed": seed, "hosts": HOSTS, "clients": CLIENTS, "pause_s": pause_s,
            "answered": dict(sorted(answered.items())), "requests": sum(answered.values()), "errors": errors[:20],
            "nodes": figures, "checks": checks}
