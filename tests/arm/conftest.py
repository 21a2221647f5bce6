"""Where the arm64 program, an emulator and the models are. `./dev test --arm` builds the first and sets the rest.

SHOAL_ARM_BINARY: the program of build/arm64; SHOAL_QEMU: qemu-aarch64 of any age (11 knows more CPUs than Debian 12's
7); SHOAL_BINARY: the one of this machine, for comparison; SHOAL_ARM_SME_BACKENDS: a folder with all backends and those
with SME, which another compiler has built.
"""
import os
import pathlib
import shutil
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "cluster"))

LIBRARIES = os.environ.get("SHOAL_ARM_LIBRARIES", "/usr/aarch64-linux-gnu")


@pytest.fixture(scope="session")
def arm_binary():
    path = os.environ.get("SHOAL_ARM_BINARY", str(ROOT / "build" / "arm64" / "shoal"))
    if not os.path.exists(path):
        pytest.skip(f"{path} is not there: ./dev build arm64")
    return path


@pytest.fixture(scope="session")
def qemu():
    """qemu("cortex-a76"): the words in front of an arm64 program."""
    program = os.environ.get("SHOAL_QEMU") or shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if not program:
        pytest.skip("no qemu-aarch64 (Debian: qemu-user-static)")
    return lambda cpu: (program, "-L", LIBRARIES, "-cpu", cpu)


@pytest.fixture(scope="session")
def smollm2():
    return os.environ.get("SHOAL_TEST_SMOLLM2", os.path.expanduser("~/.cache/shoal/models/smollm2.gguf"))
