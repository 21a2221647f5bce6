"""Chaos for a minute by a fixed seed, and the rule by which its faults are chosen. `./dev chaos` goes on for longer."""
import itertools

import pytest

from chaos import clients, run, schedule

SECONDS, SEED = 60, 2


def disabled_at(faults, at_s):
    return {f.node for f in faults if f.kind in schedule.DISABLES and f.at_s <= at_s < f.end_s + schedule.SETTLE_S}


@pytest.mark.parametrize("seed", range(20))
def test_a_seed_is_a_schedule_that_leaves_enough_nodes(seed):
    faults = schedule.make(seed, 600, 4, (0, 1))
    assert faults == schedule.make(seed, 600, 4, (0, 1)) != schedule.make(seed + 1, 600, 4, (0, 1))
    assert {fault.kind for fault in faults} == set(schedule.KINDS)
    assert len(faults) > 60 and schedule.overlapping(faults) > 20
    ends = [fault for fault in faults if fault.kind in schedule.ENDS_PROCESS and fault.node in (0, 1)]
    assert ends and not any(fault.overlaps(other) for fault in ends for other in faults if other is not fault)
    assert not [fault for fault in schedule.make(seed, 600, 4, (0, 1), True)
                if fault.kind in schedule.ENDS_PROCESS and fault.node in (0, 1)]
    assert all(len(disabled_at(faults, fault.at_s)) <= 4 - schedule.LIVE_MIN for fault in faults)
    for node in range(4):
        own = [fault for fault in faults if fault.node == node]
        assert all(one.end_s <= other.at_s for one, other in itertools.pairwise(own)), "one at a time"


@pytest.mark.parametrize("got, finish, kind", [
    ((1, 2, 3, 4, 5, 6, 7, 8), "length", None),
    ((1, 2, 3, 3, 4, 5, 6, 7, 8), "length", "doubled"),
    ((1, 2, 3, 4, 5, 6, 7, 8, 1), "length", "doubled"),
    ((1, 2, 4, 5, 6, 7, 8), "length", "lost"),
    ((1, 2, 9, 4, 5, 6, 7, 8), "length", "different"),
    ((1, 2, 3), "", "incomplete"),
    ((1, 2, 3, 4, 5, 6, 7, 8), "", "incomplete"),
])
def test_a_stream_that_is_not_as_it_should_be_is_seen(got, finish, kind):
    stream = clients.Stream(clients.Task("m", "p", (1, 2, 3, 4, 5, 6, 7, 8)), ["h1"], 0.0, finish=finish)
    stream.arrivals = [(float(token), [token]) for token in got]
    violation = stream.violation()
    assert (violation and violation[0]) == kind


def test_a_text_that_is_not_that_of_its_tokens_is_seen():
    stream = clients.Stream(clients.Task("m", "p", (1, 2), "ab"), ["h1"], 0.0, finish="length", text="ab")
    stream.arrivals = [(1.0, [1]), (2.0, [2])]
    assert stream.violation() is None
    stream.text = "aab"
    assert stream.violation()[0] == "different"


@pytest.mark.limit(SECONDS + 240)
def test_every_stream_survives(namespaces, smollm2):
    report = run.play(SECONDS, SEED, print)
    print(report)
    missed = [one for one in report["checks"] if not one["holds"]]
    assert not missed, f"seed {SEED}: {missed}; {report['violations']}; logs: {report.get('logs')}"
