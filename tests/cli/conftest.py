"""Where the binary and the models are: SHOAL_BINARY, SHOAL_TEST_SMOLLM2, SHOAL_TEST_GEMMA3, else the usual places."""
import hashlib
import json
import os
import pathlib
import shutil
import subprocess

import pytest

import hub as hubs

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("SHOAL_CACHE_DIR", pathlib.Path.home() / ".cache" / "shoal"))

os.environ["SHOAL_SPEED_TEST"] = "off"   # all processor time is the test's


def model_path(variable, name):
    path = os.environ.get(variable, str(CACHE / "models" / f"{name}.gguf"))
    if not os.path.exists(path):
        pytest.fail(f"{path} is absent: `./dev model {name}` fetches it")
    return path


@pytest.fixture(scope="session")
def binary():
    return os.environ.get("SHOAL_BINARY", str(ROOT / "build" / "release" / "shoal"))


@pytest.fixture(scope="session")
def smollm2():
    return model_path("SHOAL_TEST_SMOLLM2", "smollm2")


@pytest.fixture(scope="session")
def gemma3():
    return model_path("SHOAL_TEST_GEMMA3", "gemma3")


@pytest.fixture(scope="session")
def runit():
    """The folder of runsvdir, runsv and sv: the system's, or Debian's as `./dev test` unpacks it into the cache."""
    found = shutil.which("runsvdir") or shutil.which("runsvdir", path=CACHE / "runit" / "usr" / "bin")
    if not found or not shutil.which("start-stop-daemon", path="/usr/sbin:/sbin"):
        pytest.skip("runit or start-stop-daemon is absent (Debian: `./dev test --label cli` unpacks runit)")
    return pathlib.Path(found).parent


@pytest.fixture
def shoal(binary):
    """Runs the program to its end: shoal("model", path) -> CompletedProcess with text."""

    def run(*words, timeout=120, **kwargs):
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        if "input" in kwargs:
            kwargs.pop("stdin")
        return subprocess.run([binary, *map(str, words)], capture_output=True, text=True, timeout=timeout, **kwargs)

    return run


@pytest.fixture
def answer(shoal):
    """`shoal run MODEL … --json` as a dictionary."""

    def run(model, *words, **kwargs):
        done = shoal("run", model, "--json", *words, **kwargs)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def content(smollm2):
    return pathlib.Path(smollm2).read_bytes()


@pytest.fixture
def hub(tmp_path, content):
    """A hub with one model, smollm2."""
    if not hubs.NGINX:
        pytest.skip("nginx is not installed (Debian: apt-get install nginx-light)")
    server = hubs.Hub(tmp_path / "hub")
    server.add(hubs.REPOSITORY, hubs.FILE, content, hashlib.sha256(content).hexdigest())
    yield server
    server.stop()
