"""Fixtures that need no network of their own: this machine as a host, the test model."""
import os
import shutil
import tempfile

import pytest

import nodes


@pytest.fixture
def here():
    """A host that is this machine as it is, without a namespace."""
    folder = tempfile.mkdtemp(prefix="shoal-here-")
    host = nodes.Here(folder)
    yield host
    host.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def smollm2():
    path = nodes.model_path("SHOAL_TEST_SMOLLM2", "smollm2")
    if not os.path.exists(path):
        pytest.fail(f"{path} is absent: `./dev model smollm2` fetches it")
    return path
