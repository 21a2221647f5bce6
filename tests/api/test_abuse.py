"""Malformed, huge and slow requests to the real binary: a clear error each, and it serves on."""
import json
import socket
import time

import pytest


@pytest.fixture(autouse=True)
def still_serving(server):
    yield
    assert server.process.poll() is None, server.output()
    assert server.get("/health")[0] == 200


def post(server, body, path="/v1/chat/completions"):
    status, text, _ = server.request("POST", path, body, {"Content-Type": "application/json"})
    return status, json.loads(text)["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"nonsense", b"[]", b"\xff\xfe\x00", b"{\"messages\":[" + b"[" * 1_000_000,
                                  b"{\"messages\":[{\"role\":\"user\",\"content\":\"\xed\xa0\x80\"}]}",
                                  b"{\"a\":1e999}", b"{}", b"{\"messages\":7}"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_malformed(server, path, body):
    status, error = post(server, body, path)
    assert status == 400 and error["message"] and error["type"] == "invalid_request_error"


def test_the_position_is_told(server):
    assert "line 2, column" in post(server, b"{\n  oops")[1]["message"]


@pytest.mark.parametrize("text", ["a" * 200_000, "\n" * 500_000, "\U0001f41f" * 50_000, "9" * 100_000])
def test_prompts_over_the_context(server, text):
    status, error = post(server, json.dumps({"prompt": text, "max_tokens": 1}).encode(), "/v1/completions")
    assert status == 400 and error["code"] == "context_length_exceeded"


@pytest.mark.parametrize("text", ["\u0000" * 100, "\ufeff\u200b\u202e", "<|im_start|><|im_end|>", "", "\U0001f41f"])
def test_strange_prompts_are_prompts(server, text):
    status, body, _ = server.request("POST", "/v1/completions", json.dumps({"prompt": text, "max_tokens": 2}))
    assert status == 200 and json.loads(body)["usage"]["prompt_tokens"] >= 1


NOWHERE = {"$ref": "#/no/where"}
NO_PATTERN = {"type": "string", "pattern": "^($"}


def format_of(schema):
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}


def tool_of(schema):
    function = {"name": "f", "parameters": {"type": "object", "properties": {"x": schema}}}
    return {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}


@pytest.mark.parametrize("fields,param,word", [
    (format_of(NOWHERE), "response_format", "#/no/where"), (format_of(NO_PATTERN), "response_format", "^($"),
    (tool_of(NOWHERE), "tools", "#/no/where"), ({"grammar": "root ::= ("}, "grammar", "line 1"),
    ({"grammar": "leaf ::= [a-z]"}, "grammar", "root"), ({"logit_bias": {"99999999": 1}}, "logit_bias", "99999999")])
def test_what_cannot_be_followed(server, fields, param, word):
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1, **fields}
    status, error = post(server, json.dumps(body).encode())
    assert status == 400 and error["param"] == param and word in error["message"], error


def test_more_generations_than_ever_run_at_once(server):
    body = {"prompt": ["x"] * 50, "n": 2, "max_tokens": 1}
    status, error = post(server, json.dumps(body).encode(), "/v1/completions")
    assert status == 400 and error["param"] == "n" and "at once" in error["message"], error


@pytest.mark.parametrize("header,before,after", [(b"Content-Length: 104857600", b"", b""),
                                                 (b"Transfer-Encoding: chunked", b"100000\r\n", b"\r\n")])
def test_100_mb_body(server, header, before, after):
    before_bytes = server.rss_bytes()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer test-key\r\n" + header +
                     b"\r\n\r\n")
        try:
            for _ in range(100):
                sock.sendall(before + b"x" * (1 << 20) + after)
        except OSError:
            pass   # it need not read what it refused
        assert b" 413 " in sock.recv(4096)
    assert server.rss_bytes() - before_bytes < 32 << 20


@pytest.mark.parametrize("start", [b"GET /hea", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Slow: ",
                                   b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer test-key\r\n"
                                   b"Content-Length: 1000\r\n\r\n"])
def test_slow_loris(server, start):
    """A byte a second, each in time: the whole is not, and the connection ends after about ten seconds."""
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), timeout=1) as sock:
        sock.sendall(start)
        while True:
            try:
                answer = sock.recv(4096)
                break
            except TimeoutError:
                assert time.monotonic() - begin < 20, "a slow client keeps its connection"
            try:
                sock.sendall(b"a")
            except OSError:
                answer = b""
                break
    assert answer == b"" or b" 408 " in answer
    assert time.monotonic() - begin < 15


def test_slow_clients_leave_room_for_others(server):
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
    try:
        for sock in slow:
            sock.sendall(b"GET /health HT")
        begin = time.monotonic()
        assert server.get("/health")[0] == 200
        assert time.monotonic() - begin < 2
    finally:
        for sock in slow:
            sock.close()
