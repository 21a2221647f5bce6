"""64 clients at once, every tenth of them leaving early: all others answered, nothing left behind."""
import concurrent.futures
import time

import openai
import pytest

from conftest import ServerProcess

CLIENTS = 64
SLOTS = 8   # as many as there are unless told
RSS_GROWTH_MAX = 24 << 20   # between two waves; a leaked slot or session would show in the gauges first


def one_client(server, index):
    """A request of one of three kinds. Returns what became of it."""
    ask = [{"role": "user", "content": f"Say something about the number {index}."}]
    leaves = index % 10 == 9
    with server.client() as client:
        while True:
            try:
                if index % 3 == 0 and not leaves:
                    answer = client.chat.completions.create(model="default", messages=ask, max_tokens=12, seed=index)
                    assert answer.usage.completion_tokens > 0
                    return "answered"
                stream = client.chat.completions.create(model="default", messages=ask, seed=index, stream=True,
                                                        max_tokens=400 if leaves else 12)
                chunks = 0
                for _ in stream:
                    chunks += 1
                    if leaves and chunks == 3:
                        stream.close()
                        return "left"
                assert chunks > 1
                return "answered"
            except openai.RateLimitError as busy:   # allowed, when it says when to come back
                assert int(busy.response.headers["retry-after"]) >= 1


def wave(server):
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        outcomes = list(pool.map(lambda i: one_client(server, i), range(CLIENTS), timeout=300))
    assert outcomes.count("left") == CLIENTS // 10
    assert outcomes.count("answered") == CLIENTS - CLIENTS // 10
    server.wait_idle()
    assert server.metric("shoal_requests_in_flight") == 0
    # Nor does the model hold anything for one that has left.
    gauges = {"shoal_requests_running": 0, "shoal_requests_waiting": 0, "shoal_slots_free": SLOTS}
    deadline = time.monotonic() + 30
    while (held := {name: server.metric(name) for name in gauges}) != gauges:
        assert time.monotonic() < deadline, held
        time.sleep(0.05)


def test_crowds_leave_nothing_behind(server):
    wave(server)   # warms allocators and thread stacks up
    before_bytes = server.rss_bytes()
    wave(server)
    wave(server)
    assert server.rss_bytes() - before_bytes < RSS_GROWTH_MAX
    assert server.metric("shoal_client_disconnects_total") >= CLIENTS // 10
    with server.client() as client:   # every slot still answers
        answer = client.completions.create(model="default", prompt="One, two,", n=16, max_tokens=2)
        assert len(answer.choices) == 16


def refusals(server):
    """Answers of 429 so far."""
    return sum(float(line.split()[-1]) for line in server.get("/metrics")[1].splitlines()
               if line.startswith("shoal_") and 'status="429"' in line)


def test_who_is_one_too_many_is_told_when_to_come_back():
    """One slot and no queue: the package itself waits as it is told to, and is answered then."""
    server = ServerProcess("--slots", "1", "--queue-max", "0")
    ask = dict(model="default", prompt="One, two,", temperature=0)
    try:
        with server.client() as client:
            stream = client.completions.create(max_tokens=2000, stream=True, extra_body={"ignore_eos": True}, **ask)
            next(iter(stream))
            with pytest.raises(openai.RateLimitError) as error:
                client.completions.create(max_tokens=1, **ask)
            assert error.value.code == "rate_limit_exceeded"
            assert int(error.value.response.headers["retry-after"]) >= 1
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                refused = refusals(server)
                again = pool.submit(client.with_options(max_retries=5).completions.create, max_tokens=1, **ask)
                deadline = time.monotonic() + 30
                while refusals(server) == refused:
                    assert time.monotonic() < deadline and not again.done()
                    time.sleep(0.05)
                stream.close()
                assert again.result(60).usage.completion_tokens == 1
    finally:
        assert server.stop() == 0, server.output()
