"""How long an answer pauses when the node in the middle is killed, over and over: detection, takeover, the next token.

Four nodes: the first is asked, the other three have a stage each. Every repetition has a prompt of its own of some
1,000 tokens, kills the middle stage while the answer streams, compares the answer with the same one asked again in
peace, starts the victim again and places the model as before.
"""
import contextlib
import time

import nodes
from chaos import clients, run

LINES, TOKENS, BEFORE = 48, 64, 16       # of the prompt; of the answer; of those, before the kill
PAUSE_BAR_S = 1.5
WORK_BAR = 3.0                           # times less than to compute everything again
CALM_S = 5.0                             # after everything is whole: detectors have learnt the links
WAIT_S = 60


def task_of(number):
    """A prompt that no earlier one shares a beginning with; how it goes on is decided."""
    first = 1 + 100 * number
    prompt = "".join(f"Day {first + i}: the ship sailed on, the sea was calm and we ate bread.\n" for i in range(LINES))
    return clients.Task(run.MODEL, prompt, (0,) * TOKENS)


def place(members):
    """Places the model on all but the first; the node of the middle stage."""
    names = [member.name for member in members[1:]]
    members[0].cli("place", run.MODEL, "--stages", 3, "--wire", "f32", "--nodes", ",".join(names))

    def placed():
        placement = members[0].placement(run.MODEL)
        return placement and {s["name"] for s in placement["stages"]} == set(names) and placement

    middle = nodes.wait_for("the placement is live", placed, WAIT_S)["stages"][1]["name"]
    return next(member for member in members if member.name == middle)


def work_of(members):
    """Layers run for one row each, by the heads' account: {"run", "from_nothing"}, of all losses so far."""
    sums = {"run": 0, "from_nothing": 0}
    for member in members:
        for name, value in clients.metrics(member, timeout_s=10).items():
            for kind in sums:
                if name.startswith("shoal_recovery_row_layers") and f'work="{kind}"' in name:
                    sums[kind] += int(value)
    return sums


def once(members, number):
    """What one kill came to."""
    victim, task = place(members), task_of(number)
    nodes.wait_for("a copy of every stage of the victim",
                   lambda: victim.name in members[0].placement(run.MODEL).get("survives", [victim.name]), WAIT_S)
    time.sleep(CALM_S)
    survivors = [member for member in members if member is not victim]
    before = work_of(survivors)
    stream = clients.Stream(task, [members[0].name], time.monotonic())
    killed = []

    def arrived(events):
        for event in events:
            if len(stream.tokens) >= BEFORE and not killed:
                killed.append(time.monotonic())
                victim.kill()
            yield event

    connection, response = clients.request(members[0], "POST", "/v1/completions", task.body(stream=True))
    with contextlib.closing(connection):
        clients.read(stream, arrived(clients.events(response)))
    pause_s = max(end - begin for begin, end in stream.gaps() if end > killed[0])
    work = {kind: count - before[kind] for kind, count in work_of(survivors).items()}
    again = clients.call(members[0], "/v1/completions", task.body())
    choice = again["choices"][0]
    stream.task = clients.Task(task.model, task.prompt, tuple(choice["token_ids"]), choice["text"])
    victim.start(*run.WORDS)
    nodes.wait_for("the victim is back", lambda: nodes.all_alive(members), WAIT_S)
    return {"pause_s": round(pause_s, 3), "context_tokens": again["usage"]["prompt_tokens"] + BEFORE,
            "row_layers": work, "violation": stream.violation()}


def play(repetitions, say=lambda _: None):
    """Runs it; the JSON object."""
    with run.cluster() as (_, members):
        found = []
        for number in range(repetitions):
            found.append(once(members, number))
            say(f"{number + 1} of {repetitions}: {found[-1]}")
    pauses = [one["pause_s"] for one in found]
    broken = [one["violation"] for one in found if one["violation"]]
    p95 = run.percentile(pauses, 95)
    done, nothing = (sum(one["row_layers"][kind] for one in found) for kind in ("run", "from_nothing"))
    less = round(nothing / max(done, 1), 2)  # a copy that knows all computes nothing again
    return {"chaos": "takeover", "repetitions": repetitions, "delay_ms": 1,
            "context_tokens": [min(one["context_tokens"] for one in found),
                               max(one["context_tokens"] for one in found)],
            "pause_p50_s": run.percentile(pauses, 50), "pause_p95_s": p95, "pause_max_s": max(pauses),
            "pauses_s": pauses, "violations": broken,
            "row_layers_run": done, "row_layers_from_nothing": nothing,
            "checks": [run.check("answers that are not whole and equal", len(broken), 0, not broken),
                       run.check("pause after kill -9 of the middle stage, p95, seconds", p95, PAUSE_BAR_S,
                                 p95 < PAUSE_BAR_S),
                       run.check("times less work than to compute everything again", less, WORK_BAR,
                                 less >= WORK_BAR)]}
