"""An answer goes on where it was when a node of its placement is lost: nothing is missing, nothing comes twice."""
import re
import time

import pytest

import nodes
import streams
from chaos import texts

# One whose continuation is decided: what goes on elsewhere is computed in other batch shapes, and rounds differently.
PROMPT, TOKENS = texts.PROMPTS[-1], 160


def cluster_of_four(lan, model):
    """Four nodes; smollm2 over the last three, so that the first is only asked. Returns them in the order of stages."""
    members = nodes.cluster_on(lan.add_hosts(4), "--threads", "1", models=[model])
    members[0].cli("place", "smollm2", "--stages", "3", "--wire", "f32", "--nodes",
                   ",".join(member.name for member in members[1:]))
    placed = nodes.wait_for("the placement is live", lambda: members[0].placement("smollm2"))
    by_name = {member.name: member for member in members}
    return members[0], [by_name[stage["name"]] for stage in placed["stages"]]


@pytest.mark.parametrize(("stage", "fault"), [(0, "kill"), (0, "freeze"), (0, "cut"),
                                               (1, "kill"), (1, "freeze"), (1, "cut"), (1, "deaf")])
def test_a_node_is_lost_while_it_answers(lan, smollm2, stage, fault):
    entry, members = cluster_of_four(lan, smollm2)
    want = streams.ask(entry, "smollm2", PROMPT, TOKENS)
    assert want.finish == "length" and not want.error
    victim = members[stage]
    nodes.wait_for("copies of every stage", lambda: victim.name in entry.placement("smollm2")["survives"])
    asking = streams.Asking(entry, "smollm2", PROMPT, TOKENS)
    nodes.wait_for("it has begun", lambda: asking.pieces() > 20)
    others = [host for host in lan.hosts.values() if host is not victim.host]
    {"kill": victim.kill, "freeze": victim.pause, "cut": lambda: lan.cut([victim.host], others),
     "deaf": lambda: lan.link(members[0].host, victim.host, cut=True)}[fault]()  # of all, the head alone, one way
    got = asking.wait(150)
    assert not got.error
    assert (got.text, got.finish) == (want.text, want.finish)
    left = {s["name"] for s in entry.placement("smollm2")["stages"]}
    assert victim.name not in left or (fault == "deaf" and members[0].name not in left)
    print(f"{fault} of the {'head' if stage == 0 else 'middle'}: "
          f"longest pause {max(length for _, length in got.pauses()):.2f} s")
    if fault == "freeze":
        woken = time.monotonic()
        victim.resume()
        nodes.wait_for("it is back", lambda: nodes.all_alive([entry, *members]))
        print(f"back after {time.monotonic() - woken:.2f} s")


@pytest.mark.parametrize("stage", [0, 1])
def test_grammar_draws_penalties_and_stop_string_go_on(lan, smollm2, stage):
    """Each line is drawn, so other rounding may draw another fish; but the grammar counts the lines over the loss."""
    entry, members = cluster_of_four(lan, smollm2)
    line = '"The " ("red" | "blue" | "green" | "old") " fish " ("swims" | "sleeps") " in the sea.\\n"'
    asked = {"temperature": 2, "top_p": 1, "seed": 11, "frequency_penalty": 0.5, "stop": ["The end"],
             "extra_body": {"top_k": 0, "min_p": 0,
                            "grammar": f'root ::= {" ".join(["line"] * 24)} "The end of it."\nline ::= {line}'}}
    nodes.wait_for("copies of every stage", lambda: members[stage].name in entry.placement("smollm2")["survives"])
    asking = streams.Asking(entry, "smollm2", "A poem:\n", 600, **asked)
    nodes.wait_for("it has begun", lambda: asking.pieces() > 20)
    members[stage].kill()
    got = asking.wait(150)
    assert (got.error, got.finish) == ("", "stop")
    lines = got.text.splitlines()
    assert len(lines) == 24
    for one in lines:
        assert re.fullmatch(r"The (red|blue|green|old) fish (swims|sleeps) in the sea\.", one), one
    assert len(set(lines)) > 2, "draws and penalties vary them"


def test_a_node_is_told_to_end_while_it_answers(lan, smollm2):
    entry, members = cluster_of_four(lan, smollm2)
    want = streams.ask(entry, "smollm2", PROMPT, TOKENS)
    asking = streams.Asking(entry, "smollm2", PROMPT, TOKENS)
    nodes.wait_for("it has begun", lambda: asking.pieces() > 20)
    assert members[1].stop() == 0
    got = asking.wait(150)
    assert (got.error, got.text, got.finish) == ("", want.text, want.finish)
    assert entry.states()[members[1].name] == "left"
    print(f"SIGTERM of the middle: longest pause {max(length for _, length in got.pauses()):.2f} s")
    members[1].start()
    nodes.wait_for("it is back", lambda: nodes.all_alive([entry, *members]))
