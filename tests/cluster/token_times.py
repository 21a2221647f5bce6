"""When each token of streamed answers came, asked over HTTP with token ids for a prompt, as anybody could."""
import json
import re
import selectors
import socket
import time

import nodes

_TOKEN_IDS = re.compile(rb'"token_ids":\[([\d,]+)\]')


def token_times(host, port, model, prompts, tokens, on_first=None):
    """Of each prompt, a list of token ids, the monotonic seconds at which each of `tokens` came, all asked at once.

    on_first(): called when all answers have begun."""
    times = [[] for _ in prompts]
    with selectors.DefaultSelector() as ready:
        for prompt, own in zip(prompts, times, strict=True):
            connection = host.connect(port)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(_request(model, prompt, tokens))
            ready.register(connection, selectors.EVENT_READ, own)
        try:
            while ready.get_map():
                for key, _ in ready.select(60):
                    _read(ready, key)
                if on_first and all(times):
                    on_first()
                    on_first = None
        finally:
            for key in list(ready.get_map().values()):
                key.fileobj.close()
    assert all(len(own) == tokens for own in times), f"{[len(own) for own in times]} of {tokens} tokens"
    return times


def rate(times):
    """Tokens a second of all streams together, while all of them decode."""
    start, end = max(own[0] for own in times), min(own[-1] for own in times)
    return sum(sum(start < at <= end for at in own) for own in times) / (end - start)


def _read(ready, key):
    data = key.fileobj.recv(65536)
    now = time.monotonic()
    for ids in _TOKEN_IDS.findall(data):
        key.data.extend([now] * (ids.count(b",") + 1))
    if not data or b"data: [DONE]" in data:
        ready.unregister(key.fileobj)
        key.fileobj.close()


def _request(model, prompt, tokens):
    body = json.dumps({"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
                       "stream": True, "return_token_ids": True})
    return (f"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {nodes.KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode()
