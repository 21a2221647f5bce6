"""A package in a fresh Debian 12 of its kind: it installs, answers what this machine answers, and goes.

`./dev test --package` makes both and sets SHOAL_PACKAGE (the .deb) and SHOAL_PACKAGE_DEBIAN (the system, a tar file);
the kernel runs the programs of an arm64 one by an emulator. It needs root, and the network: apt fetches what the
package depends on.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from test_devices import PROMPT, runs

TOKENS = 8
HANG_S = 1800


@pytest.fixture(scope="module")
def package():
    path = os.environ.get("SHOAL_PACKAGE") or pytest.skip("./dev test --package makes the package")
    return pathlib.Path(path)


@pytest.fixture(scope="module")
def inside(package, smollm2, tmp_path_factory):
    """Runs words in the fresh system: inside("shoal", "--version"). Its /proc is mounted for that run alone."""
    debian = os.environ.get("SHOAL_PACKAGE_DEBIAN") or pytest.skip("./dev test --package makes the system")
    if os.geteuid() != 0:
        pytest.skip("only root can enter another system")
    root = tmp_path_factory.mktemp("debian")
    subprocess.run(["tar", "--numeric-owner", "-xpf", debian, "-C", root], check=True, timeout=HANG_S)
    for file in (package, smollm2):
        shutil.copy(file, root / "tmp")

    def run(*words):
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"', root,
             "env", "DEBIAN_FRONTEND=noninteractive", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", *words],
            capture_output=True, text=True, timeout=HANG_S, stdin=subprocess.DEVNULL)

    run.root = root
    yield run
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def installed(inside):
    done = inside("sh", "-c", "apt-get -qq update && apt-get -qq install -y --no-install-recommends /tmp/shoal_*.deb")
    assert done.returncode == 0, done.stdout + done.stderr
    return inside


def test_it_is_the_version_that_it_says(installed, package):
    version, kind = re.fullmatch(r"shoal_(.*)_(.*)\.deb", package.name).groups()
    assert installed("uname", "-m").stdout.strip() == {"arm64": "aarch64", "amd64": "x86_64"}[kind]
    assert installed("shoal", "--version").stdout == f"shoal {version}\n"
    assert installed("dpkg-query", "-W", "-f", "${Version}", "shoal").stdout == version


def test_it_lists_what_is_inside(installed, package):
    told = json.loads((installed.root / "usr/share/doc/shoal/sbom.spdx.json").read_text())
    names = {one["name"] for one in told["packages"]}
    assert {"llama.cpp", "CLI11", "libp2p", "rust-standard-library"} <= names
    backends = [path.name for path in (installed.root / "usr/lib/shoal").glob("libggml-cpu-*.so")]
    assert f"libggml-cpu-{'armv8.6_0' if 'arm64' in package.name else 'haswell'}.so" in backends
    assert ("KleidiAI" in names) == any("kleidiai" in name for name in backends)


def test_it_names_no_folder_of_the_builder(installed):
    home = os.path.expanduser("~").encode()
    root = str(pathlib.Path(__file__).resolve().parents[2]).encode()
    for path in [installed.root / "usr/bin/shoal", *(installed.root / "usr/lib/shoal").glob("*.so*")]:
        for folder in (root + b"/", home + b"/.cargo", home + b"/.cache"):
            assert folder not in path.read_bytes(), f"{path.name} names {folder.decode()}"


def test_it_answers_what_this_machine_answers(installed, smollm2):
    question = ["--local", "--raw", "--temperature", "0", "-n", str(TOKENS), "--ctx", "128", "--json", "-p", PROMPT]
    there = installed("shoal", "run", "/tmp/" + os.path.basename(smollm2), *question)
    assert there.returncode == 0, there.stderr
    here = runs([os.environ["SHOAL_BINARY"]], ["run", smollm2, *question], check=True)
    assert json.loads(there.stdout)["tokens"] == json.loads(here.stdout)["tokens"]


def test_it_goes_without_a_trace(installed):
    done = installed("apt-get", "-qq", "purge", "--yes", "shoal")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (installed.root / "usr/bin/shoal").exists() and not (installed.root / "usr/lib/shoal").exists()
