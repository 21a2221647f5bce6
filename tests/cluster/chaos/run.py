"""One run of chaos: four nodes, clients that stream all the time, faults by a schedule, and what came of it in figures.
"""
import collections
import contextlib
import dataclasses
import pathlib
import shutil
import threading
import time

import lan as lans
import nodes
from chaos import clients, faults, schedule, texts

HOSTS, STAGES, CLIENTS = 4, 3, 4
ENTRIES = (0, 1)       # the nodes that clients ask, while they are there
MODEL = "smollm2"
WORDS = ("--threads", "1", "--verbose")   # the machine is shared by all nodes
TOKENS = 110          # of an answer, at most
SETTLE_MAX_S = 60      # until everybody sees everybody, after the faults
FINISH_MAX_S = 120     # until the streams that run have ended, after the faults
METRICS_EVERY_S = 1.0


def make_tasks(node, model, prompts=texts.PROMPTS, tokens=TOKENS):
    """The undisturbed greedy text of each prompt, as far as it is decided."""
    tasks = []
    for prompt in prompts:
        answer = clients.call(node, "/v1/completions", clients.Task(model, prompt, (0,) * tokens).body(logprobs=2))
        choice = answer["choices"][0]
        decided = texts.decided(choice["token_ids"], choice["logprobs"]["top_logprobs"])
        if decided >= texts.TOKENS_MIN:
            task = clients.Task(model, prompt, tuple(choice["token_ids"][:decided]))
            text = clients.call(node, "/v1/completions", task.body())["choices"][0]["text"]
            tasks.append(dataclasses.replace(task, text=text))
    assert tasks, "no prompt has a decided continuation"
    return tasks


@contextlib.contextmanager
def cluster(hosts=HOSTS, stages=STAGES, words=WORDS, seed=1):
    """(lan, nodes) with the model placed over `stages` of them. Where something raises, the nodes' homes are kept."""
    model = nodes.model_path("SHOAL_TEST_SMOLLM2", MODEL)
    with lans.Lan(delay_us=faults.DELAY_US, seed=seed) as lan:
        try:
            members = nodes.cluster_on(lan.add_hosts(hosts), *words, models=[model])
            members[0].cli("place", MODEL, "--stages", stages, "--wire", "f32")
            nodes.wait_for("the placement is live", lambda: members[0].placement(MODEL), 60)
            yield lan, members
        except BaseException as error:
            error.add_note(f"logs are kept in {keep_logs(lan)}") if hasattr(error, "add_note") else keep_logs(lan)
            raise


def keep_logs(lan):
    """Copies what the nodes printed to a folder that stays; its path."""
    kept = pathlib.Path(f"{lan.folder}-kept")
    for log in lan.folder.glob("*/*.log"):
        to = kept / log.parent.name
        to.mkdir(parents=True, exist_ok=True)
        shutil.copy(log, to)
    return kept


class Counters(threading.Thread):
    """Adds up counters of /metrics over all nodes and all their starts: a killed node's last second is missing."""

    def __init__(self, members):
        super().__init__(daemon=True)
        self._members = members
        self._last = {}                       # (node, pid): samples
        self._done = threading.Event()
        self.start()

    def run(self):
        while not self._done.wait(METRICS_EVERY_S):
            self._look()

    def _look(self):
        for member in self._members:
            with contextlib.suppress(OSError, ValueError, clients.http.client.HTTPException):
                self._last[member.name, member.process.pid] = clients.metrics(member, timeout_s=0.5)

    def totals(self):
        """{name: sum} of all counters; the thread ends."""
        self._done.set()
        self.join()
        self._look()
        sums = collections.Counter()
        for samples in self._last.values():
            sums.update(samples)
        return sums


def percentile(values, share):
    """The smallest of them that at least this share do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)] if ordered else None


def pauses(streams, happened):
    """[(seconds, label, words)]: of each stream and each fault that it met, the longest gap that belongs to the fault.

    A gap belongs to the first fault within it; a gap without one to the last fault before it. The label "KIND (entry)"
    is for faults of the node that the client was asking."""
    longest = {}
    for number, stream in enumerate(streams):
        for begin, end in stream.gaps():
            within = [i for i, (at, _) in enumerate(happened) if begin <= at < end]
            before = [i for i, (at, _) in enumerate(happened) if at < begin]
            if not within and not before:
                continue
            key = (number, within[0] if within else before[-1])
            longest[key] = max(longest.get(key, (0.0,)), (end - begin, begin, len(within)))
    found = []
    for (number, index), (length, begin, within) in longest.items():
        at, fault = happened[index]
        node, entries = f"h{fault.node + 1}", streams[number].entries
        words = f"asked {'>'.join(entries)}; {fault.kind} of {node} came {at - begin:+.2f} s after its begin"
        found.append((length, fault.kind + (" (entry)" if node in entries else ""),
                      words + (f", and {within - 1} more within" if within > 1 else "")))
    return found


def check(name, value, bar, holds):
    """One line of `checks`."""
    return {"name": name, "value": value, "bar": bar, "holds": bool(holds)}


def pause_figures(found):
    """count, p50, p95, max of each label, in seconds; and the longest in words."""
    by_label = collections.defaultdict(list)
    for length, label, _ in found:
        by_label[label].append(length)
    figures = {label: {"count": len(all_of), **{f"p{p}_s": round(percentile(all_of, p), 3) for p in (50, 95)},
                       "max_s": round(max(all_of), 3)} for label, all_of in sorted(by_label.items())}
    return {"pauses": figures,
            "longest_pauses": [f"{length:.2f} s: {words}" for length, _, words in sorted(found, reverse=True)[:8]]}


def resumable(node, task):
    """Whether answers carry event ids, by which a client goes on at another node."""
    stream = clients.Stream(task, [node.name], time.monotonic())
    connection, response = clients.request(node, "POST", "/v1/completions", task.body(stream=True, max_tokens=4))
    with contextlib.closing(connection):
        clients.read(stream, clients.events(response))
    return bool(stream.event_id)


def play(seconds, seed, say=lambda _: None, keep=False):
    """Runs it; the JSON object. `keep`: what the nodes printed stays also when every check holds."""
    with cluster(seed=seed) as (lan, members):
        tasks = make_tasks(members[0], MODEL)
        resumes = resumable(members[0], tasks[0])
        plan = schedule.make(seed, seconds, HOSTS, ENTRIES, not resumes)
        injector, counters = faults.Injector(lan, members, WORDS), Counters(members)

        def choose(preferred):
            """The preferred entry node, or the other one when its process is away."""
            order = [ENTRIES[(preferred + i) % len(ENTRIES)] for i in range(len(ENTRIES))]
            return members[next((n for n in order if not injector.away[n]), order[0])]

        say(f"{len(tasks)} prompts, {len(plan)} faults in {seconds} s, seed {seed}")
        crowd = [clients.Client(i, seed, tasks, choose, resumes) for i in range(CLIENTS)]
        began = time.monotonic()
        injector.play(plan)
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        for client in crowd:
            client.stop()
        deadline = time.monotonic() + FINISH_MAX_S
        for client in crowd:
            client.join(max(0.0, deadline - time.monotonic()))
        settle_s = settled(members)
        report = report_of(seconds, seed, plan, crowd, injector, resumes)
        report["settled_s"] = settle_s
        report["checks"].append(check("seconds until all nodes agree after the faults", settle_s, SETTLE_MAX_S,
                                      settle_s is not None))
        report["counters"] = {name: value for name, value in sorted(counters.totals().items())
                              if name.startswith(("shoal_generations", "shoal_recovery"))}
        failed = not all(one["holds"] for one in report["checks"])
        if failed or keep:
            report["logs"] = str(keep_logs(lan))
            say(f"{'FAILED with ' if failed else ''}seed {seed}; logs are in {report['logs']}")
        return report


def settled(members):
    """Seconds until everybody sees everybody and one placement is live; None when that does not come."""
    began = time.monotonic()
    with contextlib.suppress(AssertionError, RuntimeError):
        nodes.wait_for("all agree", lambda: nodes.all_alive(members) and all(m.placement(MODEL) for m in members),
                       SETTLE_MAX_S)
        return round(time.monotonic() - began, 1)
    return None


def report_of(seconds, seed, plan, crowd, injector, resumes):
    """Figures of streams and faults, and the checks that they allow."""
    streams = [stream for client in crowd for stream in client.streams]
    hung = [client.name for client in crowd if client.is_alive()]
    found = [found for found in (stream.violation() for stream in streams if stream.ended) if found]
    found += [("incomplete", f"{name} still waits") for name in hung]
    kinds = collections.Counter(fault.kind for _, fault in injector.happened)
    of_kind = collections.Counter(kind for kind, _ in found)
    checks = [check(f"streams with tokens {kind}" if kind in ("lost", "doubled") else f"streams: {kind}", of_kind[kind],
                    0, of_kind[kind] == 0) for kind in ("error", "incomplete", "doubled", "lost", "different")]
    checks.append(check("faults done as planned", len(injector.happened), len(plan),
                        len(injector.happened) == len(plan) and not injector.errors))
    absent = sorted(set(schedule.KINDS) - set(kinds))
    checks.append(check("kinds of faults that did not happen", len(absent), 0, not absent))
    checks.append(check("whole streams of each client, at least",
                        min(sum(1 for s in client.streams if not s.violation()) for client in crowd), 1,
                        all(any(not s.violation() for s in client.streams) for client in crowd)))
    return {
        "chaos": "faults", "seconds": seconds, "seed": seed, "hosts": HOSTS, "stages": STAGES, "clients": CLIENTS,
        "entry_nodes": [f"h{n + 1}" for n in ENTRIES], "entry_nodes_spared_from_kills": not resumes,
        "entry_nodes_ended": sum(fault.kind in schedule.ENDS_PROCESS and fault.node in ENTRIES
                                 for _, fault in injector.happened),
        "faults": dict(sorted(kinds.items())), "faults_in_all": len(injector.happened),
        "faults_overlapping": schedule.overlapping(plan),
        "streams": len(streams), "tokens": sum(len(stream.tokens) for stream in streams),
        "reconnects": sum(client.reconnects for client in crowd),
        "asked_again_after_503": sum(client.not_now for client in crowd),
        "violations": [{"kind": kind, "what": what} for kind, what in found],
        "fault_errors": injector.errors,
        **pause_figures(pauses(streams, injector.happened)),
        "checks": checks,
    }
