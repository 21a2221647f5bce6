"""net/ is type-checked for Android, whose libc lacks some of what Linux's crate `libc` names.

Its C parts are not compiled: that would need Android's headers. No more than types: nothing is linked or run.
"""
import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = "aarch64-linux-android"


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
