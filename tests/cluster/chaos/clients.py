"""Clients that stream greedy completions and keep when each token came: what somebody at the other end would notice.

They speak HTTP by themselves, for what the openai package hides: token ids, event ids, and going on elsewhere. A
client whose node ends goes on at another one by `GET /v1/stream/{id}` when the answers carry event ids.
"""
import contextlib
import dataclasses
import http.client
import json
import random
import threading
import time
import uuid

import nodes

ANSWER_TIMEOUT_S = 180   # for one piece of an answer: longer than anything may take, so that only a hang meets it
RETRY_S = 0.2
RECONNECT_S = 60         # how long a client tries to go on elsewhere


def request(node, method, path, body=None, headers=None, timeout_s=ANSWER_TIMEOUT_S):
    """Sends one HTTP request to the API of `node` from its own host. Returns (connection, response)."""
    connection = http.client.HTTPConnection("127.0.0.1", node.api_port)
    connection.sock = node.host.connect(node.api_port)
    connection.sock.settimeout(timeout_s)
    words = {"Authorization": "Bearer " + nodes.KEY, **(headers or {})}
    if body is not None:
        body, words["Content-Type"] = json.dumps(body), "application/json"
    try:
        connection.request(method, path, body, words)
        return connection, connection.getresponse()
    except BaseException:
        connection.close()
        raise


def call(node, path, body=None, timeout_s=ANSWER_TIMEOUT_S):
    """The JSON that `path` answers; ValueError with the status when that is not 200."""
    connection, response = request(node, "GET" if body is None else "POST", path, body, timeout_s=timeout_s)
    with contextlib.closing(connection):
        text = response.read()
        if response.status != 200:
            raise ValueError(f"{response.status}: {text[:300]!r}")
        return json.loads(text)


def metrics(node, timeout_s=2):
    """Every sample of /metrics: {name with labels: value}."""
    connection, response = request(node, "GET", "/metrics", timeout_s=timeout_s)
    with contextlib.closing(connection):
        lines = response.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[:1] not in ("#", ""))}


def events(response):
    """(event id, data) of every server-sent event; the end of the connection ends them."""
    number, data = "", []
    for raw in response:
        line = raw.decode().rstrip("\r\n")
        if line.startswith("id:"):
            number = line[3:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].strip())
        elif not line and data:
            yield number, "\n".join(data)
            data = []


@dataclasses.dataclass(frozen=True)
class Task:
    """A prompt, and the tokens and the text that follow it when nobody disturbs."""
    model: str
    prompt: str
    tokens: tuple
    text: str = ""

    def body(self, **more):
        return {"model": self.model, "prompt": self.prompt, "max_tokens": len(self.tokens), "temperature": 0,
                "ignore_eos": True, "return_token_ids": True, **more}


@dataclasses.dataclass
class Stream:
    """One streamed answer. `arrivals` has the monotonic time and the token ids of every event."""
    task: Task
    entries: list                                    # names of the nodes it came from, in order
    started: float
    arrivals: list = dataclasses.field(default_factory=list)
    text: str = ""
    finish: str = ""
    error: str = ""
    ended: float = 0.0
    id: str = ""
    event_id: str = ""

    @property
    def tokens(self):
        return [token for _, ids in self.arrivals for token in ids]

    def gaps(self):
        """(begin, end) between one event with tokens and the next, in monotonic seconds; the first from the start."""
        times = [self.started, *(at for at, ids in self.arrivals if ids)]
        return list(zip(times, times[1:]))

    def violation(self):
        """What is wrong with it by kind (error, incomplete, doubled, lost, different), and words; None if nothing."""
        got, want = self.tokens, list(self.task.tokens)
        at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
        where = f"{'>'.join(self.entries)}, after {at} of {len(want)} tokens: "
        if at < len(got):
            follows = got[at:at + 6]
            places = [i for i in range(len(want)) if want[i:i + len(follows)] == follows]
            if at == len(want) or any(i < at for i in places):
                return "doubled", where + f"got {follows}"
            return ("lost" if places else "different"), where + f"got {follows} for {want[at:at + 6]}"
        if self.error:
            return "error", where + self.error
        if at < len(want) or self.finish != "length":
            return "incomplete", where + f"finish is '{self.finish}'"
        if self.text != self.task.text:
            return "different", where + f"the text is {self.text!r}, not {self.task.text!r}"
        return None


class Lost(Exception):
    """The connection ended before the answer did."""


class NotNow(Exception):
    """503: the node knows no placement yet, or is ending; the client is told to ask again."""


def read(stream, coming):
    """Takes up what events() gives until [DONE]; raises Lost or ValueError (an error event)."""
    for stream.event_id, data in coming:
        if data == "[DONE]":
            return
        chunk = json.loads(data)
        if "error" in chunk:
            raise ValueError(json.dumps(chunk["error"]))
        stream.id = chunk.get("id", stream.id)
        for choice in chunk.get("choices", ()):
            stream.arrivals.append((time.monotonic(), choice.get("token_ids") or []))
            stream.text += choice.get("text") or ""
            stream.finish = choice.get("finish_reason") or stream.finish
    raise Lost("the connection ended")


class Client(threading.Thread):
    """Streams one task after the other until stop(). `choose(preferred)` names the node to ask now; `resumes`: answers
    outlive their node, and a lost one is asked for at the next."""

    def __init__(self, number, seed, tasks, choose, resumes):
        super().__init__(name=f"client {number}", daemon=True)
        self.streams = []
        self.reconnects = self.not_now = 0
        self._rng = random.Random(f"client {number} {seed}")
        self._tasks, self._choose, self._preferred, self._resumes = tasks, choose, number, resumes
        self._done = threading.Event()
        self.start()

    def stop(self):
        """No new stream is begun."""
        self._done.set()

    def run(self):
        while not self._done.is_set():
            node = self._choose(self._preferred)
            stream = Stream(self._rng.choice(self._tasks), [node.name], time.monotonic())
            self.streams.append(stream)
            try:
                self._ask(stream, node)
            except Exception as error:  # whatever it is, it is a violation and shown
                stream.error = f"{type(error).__name__}: {error}"
                self._done.wait(RETRY_S)
            stream.ended = time.monotonic()

    def _ask(self, stream, node):
        headers = {"Idempotency-Key": str(uuid.UUID(int=self._rng.getrandbits(128)))}
        deadline = time.monotonic() + RECONNECT_S
        while True:
            try:
                if not stream.event_id:
                    return self._once(stream, node, "POST", "/v1/completions", stream.task.body(stream=True), headers)
                self.reconnects += 1
                return self._once(stream, node, "GET", "/v1/stream/" + stream.id, None,
                                  {**headers, "Last-Event-ID": stream.event_id})
            except NotNow:
                if time.monotonic() > deadline:
                    raise
                self.not_now += 1
            except (Lost, OSError, http.client.HTTPException):
                if not self._resumes or time.monotonic() > deadline:
                    raise
            time.sleep(RETRY_S)
            node = self._choose(self._preferred)
            stream.entries.append(node.name)

    def _once(self, stream, node, method, path, body, headers):
        connection, response = request(node, method, path, body, headers)
        with contextlib.closing(connection):
            if response.status == 503:
                raise NotNow(response.read()[:300])
            if response.status != 200:
                raise ValueError(f"{response.status}: {response.read()[:300]!r}")
            read(stream, events(response))
