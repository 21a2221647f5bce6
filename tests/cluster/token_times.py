"""Streamed answers and when each of their tokens came, asked over HTTP as anybody could."""
import dataclasses
import json
import re
import selectors
import socket
import time

import nodes

_TOKEN_IDS = re.compile(rb'"token_ids":\[([\d,]+)\]')


@dataclasses.dataclass
class Answer:
    times: list = dataclasses.field(default_factory=list)  # [tokens], monotonic seconds
    tokens: list = dataclasses.field(default_factory=list)
    end: bytes = b""  # of all that came


def token_times(host, port, model, prompts, tokens, on_first=None):
    """Of each prompt, a list of token ids, the times of the `tokens` that followed, all asked at once.

    on_first(): called when all answers have begun."""
    answers = _ask(host, port, [_completion(model, prompt, tokens) for prompt in prompts], on_first)
    assert all(len(own.times) == tokens for own in answers), f"{[len(own.times) for own in answers]} of {tokens} tokens"
    return [own.times for own in answers]


def chat_answer(host, port, model, message, tokens_max):
    """What the model says to a message, without chance, to its own end or `tokens_max`."""
    body = {"model": model, "messages": [{"role": "user", "content": message}], "max_tokens": tokens_max,
            "temperature": 0, "stream": True, "return_token_ids": True}
    return _ask(host, port, [_request("/v1/chat/completions", body)])[0]


def text_answer(host, port, model, text, tokens):
    """How a text goes on, without chance or end."""
    answer = _ask(host, port, [_completion(model, text, tokens)])[0]
    assert len(answer.tokens) == tokens, f"{len(answer.tokens)} of {tokens} tokens"
    return answer


def _ask(host, port, requests, on_first=None):
    answers = [Answer() for _ in requests]
    with selectors.DefaultSelector() as ready:
        for request, own in zip(requests, answers, strict=True):
            connection = host.connect(port)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(request)
            ready.register(connection, selectors.EVENT_READ, own)
        try:
            while ready.get_map():
                for key, _ in ready.select(60):
                    _read(ready, key)
                if on_first and all(own.times for own in answers):
                    on_first()
                    on_first = None
        finally:
            for key in list(ready.get_map().values()):
                key.fileobj.close()
    for own in answers:
        assert b"data: [DONE]" in own.end, own.end.decode(errors="replace")
    return answers


def rate(times):
    """Tokens a second of all streams together, while all of them decode."""
    start, end = max(own[0] for own in times), min(own[-1] for own in times)
    return sum(sum(start < at <= end for at in own) for own in times) / (end - start)


def _read(ready, key):
    data = key.fileobj.recv(65536)
    now = time.monotonic()
    key.data.end = (key.data.end + data)[-1000:]
    for ids in _TOKEN_IDS.findall(data):
        key.data.tokens.extend(int(token) for token in ids.split(b","))
        key.data.times.extend([now] * (ids.count(b",") + 1))
    if not data or b"data: [DONE]" in key.data.end:
        ready.unregister(key.fileobj)
        key.fileobj.close()


def _completion(model, prompt, tokens):
    return _request("/v1/completions", {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0,
                                        "ignore_eos": True, "stream": True, "return_token_ids": True})


def _request(path, body):
    body = json.dumps(body)
    return (f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {nodes.KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode()
