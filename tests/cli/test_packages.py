"""Packages of the build that is tested: the same bytes whenever they are made, and a list of all that is inside.

Nothing is built here: cpack packs what SHOAL_BINARY lies beside; Termux's recipe configures, and says what it would
build and install.
"""
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HANG_S = 300
EPOCH = 1700000000
# Crates of which only names are linked: what the standard library is made of.
STANDARD_LIBRARY = {"addr2line", "adler2", "alloc", "cfg_if", "compiler_builtins", "core", "gimli", "hashbrown", "libc",
                    "memchr", "miniz_oxide", "object", "panic_unwind", "rustc_demangle", "rustc_std_workspace_alloc",
                    "rustc_std_workspace_core", "std", "std_detect", "unwind"}


@pytest.fixture(scope="module")
def build(binary):
    return pathlib.Path(binary).parent


@pytest.fixture(scope="module")
def inside(build):
    """Names in the list of what is inside, and the list."""
    done = subprocess.run([sys.executable, ROOT / "scripts" / "sbom.py", "1.2.3", build], capture_output=True,
                          text=True, timeout=HANG_S, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)})
    told = json.loads(done.stdout)
    return {one["name"] for one in told["packages"]}, told


def pack(build, folder):
    """SHA-256 of each package by name."""
    subprocess.run(["cpack", "-G", "DEB;TGZ", "-B", folder], cwd=build, capture_output=True, text=True, timeout=HANG_S,
                   check=True, env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)}, stdin=subprocess.DEVNULL)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.iterdir() if path.suffix in (".deb", ".gz")}


@pytest.mark.skipif(not shutil.which("cpack") or sys.platform != "linux", reason="cpack makes them on Linux")
def test_the_same_build_gives_the_same_packages_at_another_time(build, tmp_path):
    first = pack(build, tmp_path / "1")
    assert {pathlib.Path(name).suffix for name in first} == {".deb", ".gz"}
    assert pack(build, tmp_path / "2") == first
    with tarfile.open(next((tmp_path / "1").glob("*.tar.gz"))) as archive:
        assert {member.mtime for member in archive} == {EPOCH}
        assert any(member.name.endswith("bin/shoal") for member in archive.getmembers())


def test_every_crate_that_is_linked_is_listed(build, inside):
    """What the linker was given, by the names of its object files, against what cargo says."""
    archive = next(build.glob("cargo/**/release/libshoal_net.a"))
    told = subprocess.run(["ar", "t", archive], capture_output=True, text=True, timeout=HANG_S, check=True).stdout
    linked = set(re.findall(r"^([a-z]\w*)-[0-9a-f]{16}\.", told, re.MULTILINE)) - STANDARD_LIBRARY - {"shoal_net"}
    assert len(linked) > 100 and linked <= {name.replace("-", "_") for name in inside[0]}
    assert "rust-standard-library" in inside[0]


def test_every_library_that_is_compiled_in_is_listed(build, inside):
    """What the compiler read outside of this repository and of llama.cpp's own folders, against the list."""
    if not shutil.which("ninja") or not (build / ".ninja_deps").exists():
        pytest.skip("built without ninja: nothing says what the compiler read")
    read = subprocess.run(["ninja", "-t", "deps"], cwd=build, capture_output=True, text=True, timeout=HANG_S,
                          check=True).stdout
    vendored = set(re.findall(r"/vendor/([^/\s]+)/", read))
    assert "nlohmann" in vendored   # else this looks at nothing
    assert vendored <= {"nlohmann", "cpp-httplib"} and {"nlohmann-json", "cpp-httplib", "llama.cpp"} <= inside[0]
    assert ("/CLI/" in read) <= ("CLI11" in inside[0])
    assert ("/kai/ukernels/" in read) <= ("KleidiAI" in inside[0])


def test_the_list_is_whole(inside):
    """Each with a version and a licence, the crates with the hashes of Cargo.lock; the time is the commit's."""
    told = inside[1]
    assert told["creationInfo"]["created"] == "2023-11-14T22:13:20Z"
    assert len({one["SPDXID"] for one in told["packages"]}) == len(told["packages"])
    for one in told["packages"]:
        assert one["versionInfo"] != "unknown" and one["licenseDeclared"] != "NOASSERTION", one
    contained = {line["relatedSpdxElement"] for line in told["relationships"]}
    assert contained == {one["SPDXID"] for one in told["packages"]}
    llama = next(one for one in told["packages"] if one["name"] == "llama.cpp")
    assert llama["checksums"][0]["checksumValue"] in (ROOT / "cmake" / "llama_cpp.txt").read_text()


def test_the_build_makes_the_list_for_whoever_installs_it(build, inside, tmp_path):
    """The target sbom, and where an install puts what it made."""
    if not (build / "build.ninja").exists():
        pytest.skip("built without ninja")
    made = build / "sbom.spdx.json"
    subprocess.run(["cmake", "--build", build, "--target", "sbom"], capture_output=True, timeout=HANG_S, check=True)
    installed = tmp_path / "share/doc/shoal/sbom.spdx.json"
    subprocess.run(["cmake", "--install", build, "--prefix", tmp_path, "--component", "shoal"], capture_output=True,
                   timeout=HANG_S, check=True)
    made.unlink()  # other tests pack what is there without it
    told = json.loads(installed.read_text())
    assert {one["name"] for one in told["packages"]} == inside[0]


def test_the_version_has_the_stamp_that_it_was_built_with(build, shoal):
    cache = (build / "CMakeCache.txt").read_text()
    version = re.search(r"^CMAKE_PROJECT_VERSION:STATIC=(.*)$", cache, re.MULTILINE)[1]
    stamp = re.search(r"^SHOAL_STAMP:STRING=(.*)$", cache, re.MULTILINE)[1]
    assert shoal("--version").stdout == f"shoal {version}{stamp and '+' + stamp}\n"


# As Termux's package tree runs a recipe, for this machine: its option of the RUNPATH, then the recipe's own. Its CMake
# has no RUNPATH for Android: what the linker is told by LDFLAGS is all.
TERMUX_RECIPE = """
set -eu
termux_setup_rust() { CARGO_TARGET_NAME=$(rustc -vV | sed -n 's/^host: //p'); }
export LDFLAGS=-L$TERMUX_PKG_BUILDDIR/prefix/lib
TERMUX_PREFIX=$TERMUX_PKG_BUILDDIR/prefix TERMUX_PKG_MAKE_PROCESSES=1 TERMUX_ARCH=$(uname -m)
. "$TERMUX_PKG_SRCDIR/packaging/termux/build.sh"
"""
TERMUX_CONFIGURE = """
termux_step_pre_configure
cmake -S "$TERMUX_PKG_SRCDIR" -B "$TERMUX_PKG_BUILDDIR" -G Ninja -DCMAKE_BUILD_TYPE=Release \\
  -DCMAKE_INSTALL_PREFIX="$TERMUX_PREFIX" -DCMAKE_SKIP_INSTALL_RPATH=ON $TERMUX_PKG_EXTRA_CONFIGURE_ARGS >&2
cmake() { ninja -C "$TERMUX_PKG_BUILDDIR" -t commands "${@: -1}"; }   # the last word: the target
termux_step_make
"""


@pytest.mark.skipif(not all(map(shutil.which, ("bash", "cc", "cmake", "ninja", "readelf", "rustc"))) or
                    sys.platform != "linux", reason="the recipe's tools are not installed")
def test_termuxs_recipe_builds_what_it_installs_and_programs_find_it(tmp_path):
    """What its build would link are empty stand-ins, linked with the same RUNPATH; the installation is the real one."""

    def recipe(step):
        done = subprocess.run(["bash", "-c", TERMUX_RECIPE + step], capture_output=True, text=True, timeout=HANG_S,
                              env={**os.environ, "TERMUX_PKG_SRCDIR": str(ROOT), "TERMUX_PKG_BUILDDIR": str(tmp_path)})
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    commands = recipe(TERMUX_CONFIGURE)
    assert "-o shoal " in commands and "/bench/" not in commands
    (tmp_path / "empty.c").write_text("int main(void) { return 0; }")
    for command in commands.splitlines():
        linked = re.search(r" -o (shoal|\S+\.so[.\d]*) ", command)
        if linked:
            assert f" -Wl,-rpath={tmp_path}/prefix/lib/shoal " in command
            shared = [] if linked[1] == "shoal" else ["-shared"]
            runpath = re.findall(r"-Wl,-rpath,\S+", command)
            subprocess.run(["cc", *shared, "-o", linked[1], "empty.c", *runpath], cwd=tmp_path, timeout=HANG_S,
                           check=True)
        elif "cmake_symlink_library" in command:
            subprocess.run(["sh", "-c", command], cwd=tmp_path, timeout=HANG_S, check=True)
    recipe("termux_step_make_install >&2")   # fails where something was not built

    def runpath_of(path):
        told = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, timeout=HANG_S, check=True)
        return re.findall(r"\((?:RUNPATH|RPATH)\)[^\[]*\[(.*)\]", told.stdout)

    libraries = tmp_path / "prefix" / "lib" / "shoal"
    assert runpath_of(tmp_path / "prefix" / "bin" / "shoal") == ["$ORIGIN:$ORIGIN/../lib/shoal"]
    assert {path.name.split(".so")[0] for path in libraries.iterdir()} > {"libggml", "libggml-base"}
    assert {tuple(runpath_of(path)) for path in libraries.iterdir()} == {("$ORIGIN",)}
