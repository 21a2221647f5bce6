"""What can be said about Android without its headers: net/ and our C++ are type-checked for it.

net/ against Rust's standard library for Android, whose libc lacks some of what Linux's crate `libc` names; its C parts
are not compiled. Our C++ with clang for aarch64-linux-android24, Termux's target, and libc++'s headers, which are
Android's as well (SHOAL_ANDROID_LIBCXX names their folder; libstdc++'s without), and with glibc's in place of bionic's,
less what Android 7 has not and what kills an app (android/). No more than types: nothing is linked or run.
"""
import concurrent.futures
import json
import os
import pathlib
import shlex
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = "aarch64-linux-android"
HEADERS = "/usr/aarch64-linux-gnu/include"
OURS = pathlib.Path(__file__).with_name("android")
CLANG_MIN, CLANG_MAX = 16, 30


def test_the_crate_compiles_for_android(tmp_path):
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip()
    if not os.path.isdir(f"{sysroot}/lib/rustlib/{TARGET}"):
        pytest.skip(f"Rust's library for it is not installed: rustup target add {TARGET}")
    if not shutil.which("aarch64-linux-gnu-gcc"):
        pytest.skip("no aarch64-linux-gnu-gcc")
    compiler = pathlib.Path(__file__).with_name("empty_object_cc.sh")
    done = subprocess.run(
        ["cargo", "check", "--release", "--locked", "--quiet", "--target", TARGET, "--target-dir",
         os.environ.get("SHOAL_ANDROID_CHECK_DIR", str(tmp_path)), "--no-default-features", "--features", "mdns"],
        cwd=ROOT / "net", capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env={**os.environ, "CC_aarch64_linux_android": str(compiler),
             "AR_aarch64_linux_android": "aarch64-linux-gnu-ar"})
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def check():
    """check(file, words): what clang says of a file for Android, with the words of its compilation; "" if nothing."""
    names = (f"clang++-{version}" for version in range(CLANG_MAX, CLANG_MIN - 1, -1))
    clang = next(filter(None, map(shutil.which, names)), None)
    if not clang or not os.path.isdir(HEADERS):
        pytest.skip(f"no clang {CLANG_MIN} or newer (Debian: clang-19), or no {HEADERS} (libc6-dev-arm64-cross)")
    libcxx = os.environ.get("SHOAL_ANDROID_LIBCXX", "")
    libstdcxx = max(pathlib.Path(HEADERS, "c++").iterdir(), key=lambda folder: int(folder.name))
    standard = ["-isystem", libcxx, "-isystem", OURS] if libcxx else \
        ["-isystem", libstdcxx, "-isystem", libstdcxx / "aarch64-linux-gnu"]

    def run(file, words=("-std=c++20",)):
        done = subprocess.run(
            [clang, "--target=aarch64-linux-android24", "-fsyntax-only", "-w", "-nostdinc++", *standard,
             "-idirafter", HEADERS, "-include", OURS / "android_24.h", *words, file],
            capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert (done.returncode == 0) == (not done.stderr)
        return done.stderr

    run.libcxx = bool(libcxx)
    return run


def test_the_check_for_android_is_one(check, tmp_path):
    file = tmp_path / "file.cc"
    file.write_text("#ifndef __ANDROID__\n#error\n#endif\nint main() { return memfd_create(\"x\", 0); }\n")
    assert "Android has it from API 30 on" in check(file)
    file.write_text("#include <stdlib.h>\nint main() { free(aligned_alloc(64, 64)); return 0; }\n")
    assert "Android has it from API 28 on" in check(file)
    file.write_text("#include <sys/timex.h>\nint main() { timex state{}; return adjtimex(&state); }\n")
    assert "Android kills an app for it" in check(file)
    file.write_text("#include <version>\n#ifndef _LIBCPP_VERSION\n#error\n#endif\n")
    assert bool(check(file)) != check.libcxx


def test_our_c_plus_plus_compiles_for_android(check):
    commands = ROOT / "build" / "arm64" / "compile_commands.json"
    if not commands.exists():
        pytest.skip("./dev build arm64 says how each file is compiled")
    ours = {}
    for entry in json.loads(commands.read_text()):
        path = pathlib.Path(entry["file"])
        if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in ("src", "apps") and \
                not path.stem.endswith(("_test", "_fuzz")):
            words = shlex.split(entry["command"])
            ours[path] = [word for at, word in enumerate(words)
                          if word.startswith(("-I", "-D", "-std")) or "-isystem" in (word, words[at - 1])]
    assert len(ours) > 200
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        said = dict(zip(ours, pool.map(check, ours, ours.values())))
    wrong = {str(path.relative_to(ROOT)): text for path, text in said.items() if text}
    print(f"{len(ours)} files, {'libc++' if check.libcxx else 'libstdc++'}")
    assert not wrong, "\n".join(wrong.values())
