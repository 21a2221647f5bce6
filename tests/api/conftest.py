"""Starts the real binary on the real SmolLM2 in three stages, once a session; tests get its address and metrics."""
import http.client
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import time

import openai
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("SHOAL_BINARY", str(ROOT / "build/release/shoal"))
KEY = "test-key"
START_TIMEOUT_S = 120
os.environ["SHOAL_SPEED_TEST"] = "off"   # all processor time is the test's


def model_path():
    if "SHOAL_TEST_SMOLLM2" in os.environ:
        return os.environ["SHOAL_TEST_SMOLLM2"]
    cache = os.environ.get("SHOAL_CACHE_DIR", os.path.expanduser("~/.cache/shoal"))
    return os.path.join(cache, "models", "smollm2.gguf")


class ServerProcess:
    """One `shoal serve`. Its output is kept in a file, so that no pipe fills up."""

    def __init__(self, *extra, stages=3, before=()):
        """`before`: words of a program that starts it."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")
        self.process = subprocess.Popen(
            [*before, BINARY, "serve", "--model", model_path(), "--stages", str(stages), "--host", "127.0.0.1",
             "--port", str(self.port), "--api-key", KEY, *extra], stdout=self.log, stderr=self.log)
        self._wait_ready()

    def _wait_ready(self):
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "the server ended:\n" + self.output()
            try:
                if self.get("/health")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        self.stop()
        raise AssertionError("the server is not ready:\n" + self.output())

    def output(self):
        return pathlib.Path(self.log.name).read_text(errors="replace")

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {"Authorization": "Bearer " + KEY, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.headers
        finally:
            connection.close()

    def get(self, path):
        return self.request("GET", path)

    def metric(self, name):
        """The value of a metric without labels."""
        text = self.get("/metrics")[1]
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        assert found, f"{name} is not in\n{text}"
        return float(found.group(1))

    def rss_bytes(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def client(self, **options):
        url = f"http://127.0.0.1:{self.port}/v1"
        return openai.OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=120, **options)

    def wait_idle(self, timeout_s=10):
        """Until no generation runs or waits. Fails when some stay."""
        deadline = time.monotonic() + timeout_s
        while self.metric("shoal_requests_in_flight") > 0:
            assert time.monotonic() < deadline, "requests are stuck:\n" + self.get("/metrics")[1]
            time.sleep(0.05)

    def stop(self):
        self.process.terminate()
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@pytest.fixture(scope="session")
def server():
    process = ServerProcess()
    yield process
    assert process.process.poll() is None, "the server died:\n" + process.output()
    assert process.stop() == 0, process.output()


@pytest.fixture
def client(server):
    with server.client() as c:
        yield c
