"""The node that a client talks to is lost: another one goes on with the answer, from wherever the client was.

Also: one key is one generation whichever nodes are asked, and an answer that cannot go on is said at once."""
import http.client
import json
import threading

import openai
import pytest

import nodes

PROMPT, TOKENS = "Once upon a time, in a village by the sea,", 160
CHAT = [{"role": "user", "content": "Tell me a story of a village by the sea."}]


class Reader:
    """Reads server-sent events of a node as they are, in a thread: what a client has when its node dies."""

    def __init__(self, node, method, path, body=None, headers=None):
        self.node, self.status, self.events, self.error, self.done = node, 0, [], "", False
        self._connection = http.client.HTTPConnection("127.0.0.1", node.host.door(node.api_port), timeout=nodes.HANG_S)
        self._headers = {"Authorization": f"Bearer {nodes.KEY}", "Content-Type": "application/json", **(headers or {})}
        self._thread = threading.Thread(target=self._read, args=(method, path, body))
        self._thread.start()

    def _read(self, method, path, body):
        rest = b""
        try:
            self._connection.request(method, "/v1" + path, body and json.dumps(body), self._headers)
            answer = self._connection.getresponse()
            self.status = answer.status
            while piece := answer.read1():
                *events, rest = (rest + piece).split(b"\n\n")
                for event in events:
                    event = b"\n".join(line for line in event.split(b"\n") if not line.startswith(b":"))
                    if event == b"data: [DONE]":
                        self.done = True
                    elif event:
                        self.events.append(event.decode())
        except (OSError, http.client.HTTPException) as error:
            self.error = f"{type(error).__name__}: {error}"

    def wait(self, timeout_s=60):
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"no end within {timeout_s} s, after {len(self.events)} events"
        self._connection.close()
        return self

    def last_id(self):
        lines = self.events[-1].split("\n")
        return next(line[4:] for line in lines if line.startswith("id: "))

    def chunks(self):
        return [json.loads(event.split("\n")[0][6:]) for event in self.events]


def text_of(chunks):
    choices = [chunk["choices"][0] for chunk in chunks if chunk.get("choices")]
    return "".join(c["text"] if "text" in c else c["delta"].get("content") or "" for c in choices)


def deltas(chunks):
    """What an undisturbed answer and one that was gone on with have in common: all but its id and its time."""
    return [chunk["choices"] for chunk in chunks]


def cluster(lan, model, entry_has_a_stage=False):
    """Four nodes, smollm2 over three of them; the first is the one to be asked and lost."""
    members = nodes.cluster_on(lan.add_hosts(4), "--threads", "1", models=[model])
    stages = members[:3] if entry_has_a_stage else members[1:]
    members[0].cli("place", "smollm2", "--stages", "3", "--wire", "f32", "--nodes",
                   ",".join(member.name for member in stages))
    nodes.wait_for("all know the placement", lambda: all(m.placement("smollm2") for m in members))
    return members


@pytest.mark.parametrize("entry_has_a_stage", [False, True], ids=["apart", "head"])
def test_the_entry_dies_and_the_client_goes_on_at_another_node(lan, smollm2, entry_has_a_stage):
    entry, *others = cluster(lan, smollm2, entry_has_a_stage)
    for path, body in [("/completions", {"prompt": PROMPT}), ("/chat/completions", {"messages": CHAT})]:
        body = {**body, "model": "smollm2", "max_tokens": TOKENS, "temperature": 0, "stream": True, "seed": 5}
        want = Reader(others[0], "POST", path, body).wait()
        assert want.done and len(want.events) > TOKENS
        first = Reader(entry, "POST", path, body)
        nodes.wait_for("it has begun", lambda: len(first.events) > 30)
        entry.kill()
        first.wait()
        assert not first.done and len(first.events) < len(want.events)
        answer = first.chunks()[0]["id"]
        for node in others[:2]:  # the second one reads what the first one made
            rest = Reader(node, "GET", f"/stream/{answer}", headers={"Last-Event-ID": first.last_id()}).wait()
            assert rest.done, (rest.status, rest.error, rest.events)
            assert deltas(first.chunks() + rest.chunks()) == deltas(want.chunks())
            assert {chunk["id"] for chunk in rest.chunks()} == {answer}
        whole = Reader(others[2], "GET", f"/stream/{answer}").wait()
        assert deltas(whole.chunks()) == deltas(want.chunks())
        if path == "/completions":
            entry.start("--threads", "1")
            nodes.wait_for("it is back", lambda: nodes.all_alive([entry, *others]))


def test_the_same_call_with_its_key_gives_the_whole_answer_after_the_entry_died(lan, smollm2):
    entry, *others = cluster(lan, smollm2)
    ask = {"model": "smollm2", "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0}
    key = {"Idempotency-Key": "story-1"}
    with others[0].client() as client:
        want = client.completions.create(**ask)
    lost = []

    def call():
        try:
            with entry.client() as client:
                client.completions.create(**ask, extra_headers=key)
        except openai.APIConnectionError as error:
            lost.append(error)

    calling = threading.Thread(target=call)
    calling.start()
    nodes.wait_for("it is generating", lambda: tokens_of(entry) > 20)
    entry.kill()
    calling.join()
    assert lost
    computed = [tokens_of(node) for node in others]
    with others[1].client() as client:
        got = client.completions.create(**ask, extra_headers=key)
    assert (got.choices[0].text, got.choices[0].finish_reason) == (want.choices[0].text, "length")
    assert got.usage.completion_tokens == TOKENS
    more = sum(tokens_of(node) for node in others) - sum(computed)
    assert more < TOKENS - 15, "it went on, and did not begin anew"
    with others[2].client() as client:
        again = client.completions.create(**ask, extra_headers=key)
        assert again.id == got.id and again.choices[0].text == want.choices[0].text
        with pytest.raises(openai.UnprocessableEntityError, match="Idempotency-Key"):
            client.completions.create(**{**ask, "prompt": "Something else"}, extra_headers=key)


def tokens_of(node):
    """Tokens that its API has generated for clients."""
    return node.metrics().get("shoal_completion_tokens_total", 0)


def test_a_client_that_lost_only_its_connection(lan, smollm2):
    """It comes back through any node; its own node goes on meanwhile because it was asked to keep the answer."""
    entry, *others = cluster(lan, smollm2)
    body = {"model": "smollm2", "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "stream": True}
    want = Reader(others[0], "POST", "/completions", body).wait()
    first = Reader(entry, "POST", "/completions", body, headers={"Shoal-Keep": "true"})
    nodes.wait_for("it has begun", lambda: len(first.events) > 20)
    rest = Reader(others[1], "GET", f"/stream/{first.chunks()[0]['id']}", headers={"Last-Event-ID": "10"}).wait()
    first.wait()
    assert deltas(first.chunks()) == deltas(want.chunks())
    assert rest.chunks() == first.chunks()[10:]
    assert Reader(others[1], "GET", "/stream/cmpl-aaaaaaaaaaaaaaaaaaaaaaaa").wait().status == 404


def broken_off(entry, victim, tokens):
    """A stream at `entry` that ends as unavailable because `victim` is killed; and the error that it ends with."""
    body = {"model": "smollm2", "prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "stream": True}
    waiting = Reader(entry, "POST", "/completions", body)
    nodes.wait_for("it has begun", lambda: len(waiting.events) > 20)
    victim.kill()
    waiting.wait(40)
    error = waiting.chunks()[-1]["error"]
    assert not waiting.done and error["code"] == "unavailable", error
    return waiting, error


def test_when_the_model_no_longer_fits_it_is_said_and_service_resumes(lan, smollm2):
    """Two nodes that hold half of the model each at most: without one of them nothing can run."""
    hosts = lan.add_hosts(3)
    entry = nodes.Node(hosts[0], "--threads", "1", "--memory", "1M", models=[smollm2])
    members = [nodes.join_on(host, entry, "--threads", "1", "--memory", "130M", models=[smollm2]) for host in hosts[1:]]
    nodes.wait_for("all see each other", lambda: nodes.all_alive([entry, *members]))
    entry.cli("place", "smollm2", "--stages", "2", "--nodes", ",".join(m.name for m in members))
    waiting, error = broken_off(entry, members[1], 400)
    for part in ("smollm2", members[1].name, "missing", "1 device"):
        assert part in error["message"], error
    with entry.client() as client:
        with pytest.raises(openai.InternalServerError) as refused:
            client.completions.create(model="smollm2", prompt=PROMPT, max_tokens=4)
    assert refused.value.status_code == 503 and "missing" in str(refused.value)
    assert int(refused.value.response.headers["Retry-After"]) > 0

    members[1].start("--threads", "1", "--memory", "130M")
    nodes.wait_for("service resumes by itself", lambda: answers(entry))
    waiting.events.pop()
    rest = Reader(entry, "GET", f"/stream/{waiting.chunks()[0]['id']}", headers={"Last-Event-ID": waiting.last_id()})
    rest.wait()
    with members[0].client() as client:
        want = client.completions.create(model="smollm2", prompt=PROMPT, max_tokens=400, temperature=0)
    assert rest.done and text_of(waiting.chunks() + rest.chunks()) == want.choices[0].text


def answers(node):
    try:
        return node.complete("smollm2", PROMPT, 4)
    except openai.APIError:
        return None
