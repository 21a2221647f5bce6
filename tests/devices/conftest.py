"""Fixtures of the tests with real devices beside the CPU.

`./dev test --devices` builds the program with its backends and sets SHOAL_BINARY to it.
"""
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cluster"))
import nodes
from on_this_machine import here, smollm2  # noqa: F401


@pytest.fixture(params=["vulkan", "blas"])
def device(request):
    library = pathlib.Path(nodes.BINARY).parent / f"libggml-{request.param}.so"
    if not library.exists():
        pytest.skip(f"{library} is not there")
    return request.param
