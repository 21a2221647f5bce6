"""Does the faults of a schedule to nodes on a LAN, and takes each back when its time is over.

Knows how to break a node or its cable, not why. What a node printed before it was started again stays in its home.
"""
import collections
import shutil
import signal
import threading
import time

DELAY_US = 1000   # of every link, each way
LOSS, JITTER_US = 0.3, 200_000
STOP_MAX_S = 30   # of a node that is asked to end


class Injector:
    """`members` by the schedule's numbers; `words` start a node again. `happened`: (monotonic time, fault), by time."""

    def __init__(self, lan, members, words=()):
        self._lan, self._members, self._words = lan, members, words
        self.happened, self.errors = [], []
        self.away = collections.Counter()    # node number: how many faults keep its process away now
        self._lock = threading.Lock()
        self._starts = 0
        self._halt = threading.Event()
        self._undoing = []

    def play(self, faults):
        """Blocks until the last fault has been done and taken back; errors are in `errors`."""
        began = time.monotonic()
        for fault in faults:
            if self._halt.wait(max(0.0, began + fault.at_s - time.monotonic())):
                break
            thread = threading.Thread(target=self._guarded, args=(fault,), daemon=True)
            thread.start()
            self._undoing.append(thread)
        for thread in self._undoing:
            thread.join()

    def halt(self):
        """No more faults; those that are there are taken back now."""
        self._halt.set()

    def _guarded(self, fault):
        try:
            self._do(fault)
        except Exception as error:  # the run shows it
            self.errors.append(f"{fault}: {type(error).__name__}: {error}")

    def _do(self, fault):
        node = self._members[fault.node]
        self._mark(fault)
        if fault.kind in ("kill", "restart", "freeze"):
            self.away[fault.node] += 1
            try:
                self._process(fault, node)
            finally:
                self.away[fault.node] -= 1
        else:
            self._set(fault, node, True)
            self._halt.wait(fault.lasts_s)
            self._set(fault, node, False)

    def _mark(self, fault):
        with self._lock:
            self.happened.append((time.monotonic(), fault))

    def _process(self, fault, node):
        if fault.kind == "freeze":
            node.pause()
            self._halt.wait(fault.lasts_s)
            return node.resume()
        if fault.kind == "kill":
            node.kill()
            self._halt.wait(fault.lasts_s)
        else:
            node.process.send_signal(signal.SIGTERM)
            node.process.wait(STOP_MAX_S)
        with self._lock:
            self._starts += 1
            shutil.copy(node.home / "up.log", node.home / f"up.{self._starts}.log")
        node.start(*self._words)

    def _set(self, fault, node, bad):
        lan, host = self._lan, node.host
        others = [member.host for member in self._members if member is not node]
        if fault.kind == "cable":
            lan.cut([host], others, cut=bad)
        elif fault.kind == "one-way":
            lan.link(host, self._members[fault.peer].host, cut=bad)
        else:
            settings = {"loss": LOSS if bad else 0} if fault.kind == "loss" else {"jitter_us": JITTER_US if bad else 0}
            for other in others:
                lan.between(host, other, **settings)
