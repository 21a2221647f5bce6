#!/usr/bin/env python3
"""Asks a running `shoal serve` one question and prints the answer as it comes: ask.py BASE_URL QUESTION.

The same request any OpenAI client sends; only the standard library, so that a demonstration needs nothing installed.
"""
import json
import sys
import urllib.error
import urllib.request

TIMEOUT_S = 120


def ask(base_url, question):
    """Streams one chat completion to stdout; returns how many pieces came."""
    body = {"model": "default", "messages": [{"role": "user", "content": question}], "stream": True,
            "temperature": 0, "max_tokens": 64}
    request = urllib.request.Request(base_url.rstrip("/") + "/chat/completions", data=json.dumps(body).encode(),
                                     headers={"Content-Type": "application/json"})
    # A proxy of the environment has no business between two ends of one machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    pieces = 0
    with opener.open(request, timeout=TIMEOUT_S) as response:
        for line in response:
            text = line.decode("utf-8").strip()
            if not text.startswith("data:") or text == "data: [DONE]":
                continue
            event = json.loads(text[len("data:"):])
            if "error" in event:
                raise SystemExit(f"ask: {event['error'].get('message', event['error'])}")
            for choice in event.get("choices", []):
                piece = choice.get("delta", {}).get("content")
                if piece:
                    pieces += 1
                    print(piece, end="", flush=True)
    print()
    return pieces


def main():
    if len(sys.argv) != 3:
        raise SystemExit(f"usage: {sys.argv[0]} BASE_URL QUESTION")
    try:
        pieces = ask(sys.argv[1], sys.argv[2])
    except urllib.error.HTTPError as error:
        raise SystemExit(f"ask: {error}: {error.read().decode('utf-8', 'replace')}") from error
    except OSError as error:
        raise SystemExit(f"ask: {sys.argv[1]}: {error}") from error
    if pieces == 0:
        raise SystemExit("ask: the answer was empty")


if __name__ == "__main__":
    main()
