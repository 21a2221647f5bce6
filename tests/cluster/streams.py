"""Clients that stream greedy completions and keep when each piece came: what a person at the other end would notice."""
import dataclasses
import threading
import time


@dataclasses.dataclass
class Stream:
    """One streamed answer, complete or not. `pieces` are (monotonic seconds, text)."""
    node: str
    prompt: str
    started: float
    pieces: list = dataclasses.field(default_factory=list)
    finish: str = ""
    error: str = ""
    ended: float = 0.0

    @property
    def text(self):
        return "".join(text for _, text in self.pieces)

    def pauses(self):
        """Seconds between one piece and the next, with the time at which each of these pauses began."""
        times = [self.started, *(at for at, _ in self.pieces)]
        return [(begin, end - begin) for begin, end in zip(times, times[1:])]


def ask(node, model, prompt, tokens, stream=None, **more):
    """Streams the greedy continuation from the API of `node`, unless `more` of the request says else; never raises:
    what failed is in `error`."""
    stream = stream or Stream(node.name, prompt, time.monotonic())
    try:
        with node.client().with_options(timeout=180) as client:
            for chunk in client.completions.create(model=model, prompt=prompt, max_tokens=tokens, stream=True,
                                                   **{"temperature": 0, **more}):
                choice = chunk.choices[0]
                if choice.text:
                    stream.pieces.append((time.monotonic(), choice.text))
                stream.finish = choice.finish_reason or stream.finish
    except Exception as error:  # whatever it is, the test shows it
        stream.error = f"{type(error).__name__}: {error}"
    stream.ended = time.monotonic()
    return stream


class Asking:
    """One stream in a thread of its own."""

    def __init__(self, node, model, prompt, tokens, **more):
        self.stream = Stream(node.name, prompt, time.monotonic())
        self._thread = threading.Thread(target=ask, args=(node, model, prompt, tokens, self.stream), kwargs=more)
        self._thread.start()

    def pieces(self):
        return len(self.stream.pieces)

    def wait(self, timeout_s):
        """The stream, ended."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), f"no end within {timeout_s} s, after {self.pieces()} pieces"
        return self.stream
