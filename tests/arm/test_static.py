"""The one file of `./dev build arm64-static`: it needs nothing of the system it runs on, and answers the same.

An empty folder is the emulated system's root for libraries: a program that asks for a loader or a library finds none.
"""
import os
import subprocess

import pytest

from test_devices import answer, compare, models, runs   # noqa: F401  (models is a fixture)


@pytest.fixture
def static(qemu, tmp_path):
    path = os.environ.get("SHOAL_ARM_STATIC_BINARY", "")
    if not os.path.exists(path):
        pytest.skip("no static program: ./dev build arm64-static")
    emulator, _, _, *cpu = qemu("cortex-a53")
    return [emulator, "-L", str(tmp_path), *cpu, path]


def test_it_asks_for_no_library(static):
    headers = subprocess.run(["readelf", "--dynamic", "--program-headers", static[-1]], capture_output=True, text=True,
                             check=True).stdout
    assert "INTERP" not in headers and "(NEEDED)" not in headers


def test_it_answers_what_this_machine_answers(static, models):   # noqa: F811
    path, here = models["Q4_0"]
    there, log = answer(static, path)
    assert "CPU kernels: built in" in log
    compare(here, there)


def test_it_finds_names(static):
    """Of hosts by the C library's own resolver, which has to do without its plugins."""
    done = runs(static, ["pull", "http://localhost:9/model.gguf"])
    assert done.returncode != 0 and "localhost" in done.stderr
    assert "refused" in done.stderr.lower() or "connect" in done.stderr.lower(), done.stderr
