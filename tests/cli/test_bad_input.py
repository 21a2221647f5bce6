"""Wrong flags, broken files, too little memory: a clear error and the documented exit code, never a crash."""
import json
import random

import pytest


def fails(done, code, *words):
    assert done.returncode == code, (done.returncode, done.stdout[-500:], done.stderr[-500:])
    assert done.stderr.strip() and "bug at" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


BAD_STAGES = ["0", "-1", "31", "0-9,9-29", "0-9,11-29", "0-8", "5-1", "x", "0-99999999999", "1-29"]


@pytest.mark.parametrize("stages", BAD_STAGES)
def test_stages(shoal, smollm2, stages):
    fails(shoal("run", smollm2, "-p", "x", f"--stages={stages}"), 2)


def test_flags(shoal, smollm2):
    fails(shoal("run"), 2)
    fails(shoal("fly"), 2)
    fails(shoal(), 2)
    fails(shoal("run", smollm2, "-p", "x", "--wire", "f64"), 2, "f64")
    fails(shoal("run", smollm2, "-p", "x", "--kv", "q2"), 2, "q2")
    fails(shoal("run", smollm2, "-p", "x", "--temperature", "-1"), 2, "temperature")
    fails(shoal("run", smollm2, "-p", "x", "--temperature", "nan"), 2, "temperature")
    fails(shoal("run", smollm2, "-p", "x", "--top-p", "7"), 2, "top_p")
    fails(shoal("run", smollm2, "-p", "x", "--ctx", "-4"), 2)
    fails(shoal("run", smollm2, "-p", "x", "--ctx", "999999"), 2)
    fails(shoal("run", smollm2, "-p", "x", "--slots", "0"), 2)
    fails(shoal("run", smollm2, "-p", "x", "--logit-bias", "oops"), 2)
    fails(shoal("run", smollm2, "-p", "x", "--cpus", "0/0/0"), 2)
    fails(shoal("run", smollm2, "-p", "x", "--grammar", "/nonexistent"), 2)
    fails(shoal("serve", "--model", smollm2, "--host", "no.such.host.invalid"), 5)


def test_a_server_and_a_device(shoal, monkeypatch):
    """A node has one device: --rpc is a way to write one of them."""
    fails(shoal("up", "--rpc", "alpha:50052", "--device", "vulkan"), 2, "--rpc", "--device")
    fails(shoal("up", "--rpc", "alpha"), 2, "rpc:alpha", "rpc:HOST:PORT")
    monkeypatch.setenv("SHOAL_DEVICE", "vulkan")
    fails(shoal("up", "--rpc", "alpha:50052"), 2, "--rpc", "--device")


def test_grammar_that_does_not_parse(shoal, smollm2, tmp_path):
    bad = tmp_path / "bad.gbnf"
    bad.write_text("root ::= (((")
    fails(shoal("run", smollm2, "-p", "x", "--raw", "-n", "4", "--grammar", bad), 2, "grammar")


def test_prompt_over_the_context(shoal, smollm2):
    fails(shoal("run", smollm2, "--raw", "--ctx", "64", input="word " * 500), 2, "64")


def test_empty_prompt(shoal, smollm2):
    done = shoal("run", smollm2, "--raw", "-n", "4", "-p", "")
    assert done.returncode in (0, 2) and "bug at" not in done.stderr


def test_invalid_utf8_prompt(binary, smollm2):
    import subprocess

    done = subprocess.run([binary, "run", smollm2, "--raw", "-n", "8", "--temperature", "0", "--json"],
                          input=b"\xff\xfe caf\xc3", capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout.decode("utf-8"))


def test_no_such_model_or_not_a_model(shoal, tmp_path):
    fails(shoal("run", "no-such-model", "-p", "x"), 3, "no-such-model")
    fails(shoal("model", tmp_path), 3)
    empty = tmp_path / "empty.gguf"
    empty.write_bytes(b"")
    fails(shoal("model", empty), 3)
    text = tmp_path / "text.gguf"
    text.write_text("hello, this is no model at all\n" * 10)
    fails(shoal("run", text, "-p", "x"), 3, "GGUF")


@pytest.mark.parametrize("keep", [4, 23, 24, 1000, 50_000, 1_500_000, 2_500_000, 50_000_000])
def test_truncated_model(shoal, smollm2, tmp_path, keep):
    short = tmp_path / "short.gguf"
    with open(smollm2, "rb") as whole:
        short.write_bytes(whole.read(keep))
    fails(shoal("run", short, "-p", "x", "-n", "1"), 3)


def test_corrupted_headers(shoal, smollm2, tmp_path):
    """Bytes of the metadata and the tensor table flipped at random: an error or a run, never a crash or a hang."""
    with open(smollm2, "rb") as whole:
        data = bytearray(whole.read())
    broken = tmp_path / "broken.gguf"
    for seed in range(16):
        rng = random.Random(seed)
        copy = bytearray(data)
        region = (0, 200) if seed % 2 == 0 else (0, 1_800_000)
        for _ in range(8):
            copy[rng.randrange(*region)] = rng.randrange(256)
        broken.write_bytes(copy)
        done = shoal("run", broken, "-p", "Hi", "-n", "2", "--raw", "--stages", "3")
        assert done.returncode in (0, 2, 3, 4), (seed, done.returncode, done.stderr[-500:])
        assert "bug at" not in done.stderr


def test_more_memory_than_allowed(shoal, smollm2):
    fails(shoal("run", smollm2, "-p", "x", "--memory", "20M", "--stages", "3"), 4, "MiB")


def test_model_shows_what_a_file_is(shoal, smollm2, gemma3):
    done = shoal("model", smollm2)
    assert done.returncode == 0 and "llama" in done.stdout and "before every layer" in done.stdout
    facts = json.loads(shoal("model", gemma3, "--json").stdout)
    assert facts["architecture"] == "gemma3" and facts["layers"] == 18 and facts["splittable"]
    assert len(facts["layer_bytes"]) == 18 and facts["kv_bytes_per_token"]["f16"] > 0
