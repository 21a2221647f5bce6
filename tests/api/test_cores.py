"""Threads run on the cores that were asked for, and go on where the system takes cores away or does not let it choose.

Seen from outside: /proc/PID/task.
"""
import os
import pathlib
import sys
import time

import pytest

from conftest import ROOT, ServerProcess

HANG_S = 60
CPUSET = pathlib.Path("/sys/fs/cgroup/cpuset")
WITHOUT_AFFINITY = [sys.executable, str(ROOT / "tests/cluster/without_affinity.py")]

CORES = sorted(os.sched_getaffinity(0))
pytestmark = pytest.mark.skipif(len(CORES) < 2, reason="this machine has one core only")


def answer(server):
    with server.client() as client:
        return client.completions.create(model="smollm2", prompt="The sea is", max_tokens=16, temperature=0,
                                         seed=1).choices[0].text


def threads(server):
    """(id, name, allowed cores, core it was last on) of each thread."""
    found = []
    for task in pathlib.Path(f"/proc/{server.process.pid}/task").iterdir():
        try:
            name = (task / "comm").read_text().strip()
            allowed = os.sched_getaffinity(int(task.name))
            last = int((task / "stat").read_text().rsplit(")", 1)[1].split()[36])
        except (OSError, ProcessLookupError):  # it ended
            continue
        found.append((int(task.name), name, allowed, last))
    return found


def places(server):
    """Of the compute threads."""
    return sorted(sorted(allowed) for _, name, allowed, _ in threads(server) if name == "shoal-compute")


def place_all(server, cores):
    for task in pathlib.Path(f"/proc/{server.process.pid}/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), cores)
        except ProcessLookupError:
            pass


def wait_for(what, server, check):
    """Answers until check() holds: what the system allows is looked at once a second, while it computes; and for a
    while it computes with fewer threads, where something else uses a core."""
    deadline = time.monotonic() + HANG_S
    while True:
        answer(server)
        if check():
            return
        assert time.monotonic() < deadline, f"{what}: {threads(server)}\n{server.output()}"
        time.sleep(0.2)


def share_of_a_core(server, seconds):
    def used():
        fields = pathlib.Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    before = used()
    time.sleep(seconds)
    return (used() - before) / seconds


@pytest.fixture
def start():
    started = []

    def begin(*words, **options):
        started.append(ServerProcess(*words, **options))
        return started[-1]

    yield begin
    for server in started:
        if server.process.poll() is None:
            server.stop()


def test_each_stage_on_its_core(start):
    first, second = CORES[:2]
    server = start("--cpus", f"{first}/{second}", "--threads", "1", stages=2)
    answer(server)
    assert places(server) == [[first], [second]]
    for _, name, allowed, last in threads(server):
        assert last in allowed, name


def test_each_thread_on_its_core_until_cores_are_taken_away(start):
    first, second = CORES[:2]
    server = start("--cpus", f"{first},{second}", "--threads", "2", stages=1)

    def computing():
        """The compute thread, and the worker of ggml, which is named as who made it: the main thread, then that one."""
        found = threads(server)
        names = {name for tid, name, _, _ in found if tid == server.process.pid} | {"shoal-compute"}
        return sorted(sorted(allowed) for tid, name, allowed, _ in found
                      if tid != server.process.pid and name in names)

    text = answer(server)
    wait_for("two compute", server, lambda: computing() == [[first], [second]])
    place_all(server, {first})
    wait_for("one thread computes, on what is left", server, lambda: computing() == [[first]])
    assert answer(server) == text
    assert share_of_a_core(server, 2) < 0.5, "it is busy while nobody asks"
    place_all(server, {first, second})
    wait_for("two compute again", server, lambda: computing() == [[first], [second]])
    assert answer(server) == text


def test_a_cpuset_that_shrinks(start):
    group = CPUSET / f"shoal-test-{os.getpid()}"
    first, second = CORES[:2]
    try:
        group.mkdir()
        (group / "cpuset.mems").write_text((CPUSET / "cpuset.mems").read_text())
        (group / "cpuset.cpus").write_text(f"{first},{second}")
    except OSError as error:
        pytest.skip(f"no control group of cores can be made here: {error}")
    server = start("--threads", "2", stages=1,
                   before=["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"])
    try:
        text = answer(server)
        (group / "cpuset.cpus").write_text(str(second))
        wait_for("all of it is on what is left", server,
                 lambda: all(allowed == {second} for _, _, allowed, _ in threads(server)))
        assert answer(server) == text
        assert share_of_a_core(server, 2) < 0.5, "it is busy while nobody asks"
    finally:
        server.stop()
        deadline = time.monotonic() + HANG_S
        while (group / "cgroup.procs").read_text().strip() and time.monotonic() < deadline:
            time.sleep(0.05)
        group.rmdir()


def test_a_system_that_does_not_let_it_choose(start):
    first, second = CORES[:2]
    server = start("--cpus", f"{first},{second}", "--threads", "2", stages=1, before=WITHOUT_AFFINITY)
    assert answer(server)
    # One, or two where the pool was made anew because something else used a core: workers are named as who made them.
    assert places(server) in ([CORES], [CORES, CORES])
    assert "it computes where the system puts it" in server.output()
    assert share_of_a_core(server, 2) < 0.5, "it is busy while nobody asks"
