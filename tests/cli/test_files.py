"""`shoal quantize` and `shoal split`: files made from the test models."""
import json
import os
import pathlib
import shutil

import pytest


@pytest.fixture
def home(tmp_path):
    return {**os.environ, "SHOAL_HOME": str(tmp_path / "home")}


def test_quantize_says_sizes_before_it_writes(shoal, smollm2, tmp_path):
    words = ["quantize", smollm2, "Q8_0", "--from-quantized", "--json"]
    dry = shoal(*words, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    out = tmp_path / "small.Q8_0.gguf"
    done = shoal("quantize", smollm2, "Q8_0", out, "--from-quantized", "--json", timeout=300)
    assert done.returncode == 0, done.stderr
    expected, written = json.loads(dry.stdout), json.loads(done.stdout)
    assert written["written"] and not expected["written"]
    assert abs(expected["bytes_after"] - written["bytes_after"]) < 20_000
    assert 0 <= out.stat().st_size - written["bytes_after"] < 4_000_000   # header and tokenizer
    model = json.loads(shoal("model", out, "--json").stdout)
    assert model["quantization"] == "Q8_0" and model["layers"] == 30
    answer = shoal("run", out, "--local", "--raw", "-p", "Once upon a time", "-n", 4, "--json")
    assert len(json.loads(answer.stdout)["tokens"]) == 4
    assert [p.name for p in tmp_path.iterdir()] == [out.name], "nothing half done is left"


def test_what_cannot_be_quantized(shoal, smollm2, tmp_path):
    twice = shoal("quantize", smollm2, "Q4_0", tmp_path / "x.gguf")
    assert twice.returncode == 2 and "--from-quantized" in twice.stderr
    unknown = shoal("quantize", smollm2, "Q9_9", tmp_path / "x.gguf")
    assert unknown.returncode == 2 and "Q4_K_M" in unknown.stderr
    (tmp_path / "y.gguf").write_text("mine")
    there = shoal("quantize", smollm2, "Q8_0", tmp_path / "y.gguf", "--from-quantized")
    assert there.returncode == 2 and (tmp_path / "y.gguf").read_text() == "mine"
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF, but not really")
    assert shoal("quantize", broken, "Q4_0", tmp_path / "x.gguf").returncode == 3
    assert not (tmp_path / "x.gguf").exists()


def test_split_gives_each_stage_its_part(shoal, home, smollm2, tmp_path):
    done = shoal("split", smollm2, "--stages", "0-9,10-19,20-29", "--out", tmp_path / "parts", "--json", env=home)
    assert done.returncode == 0, done.stderr
    split = json.loads(done.stdout)
    size = pathlib.Path(smollm2).stat().st_size
    assert all(stage["bytes"] < size * 0.7 for stage in split["stages"])
    # All parts together are the whole model: copied into one store, it runs there without the file.
    other = {**os.environ, "SHOAL_HOME": str(tmp_path / "other")}
    for stage in split["stages"]:
        taken = shoal("pull", stage["file"], "--json", env=other)
        assert taken.returncode == 0, taken.stderr
    verified = json.loads(shoal("verify", split["model"], "--json", env=other).stdout)
    assert verified["damaged"] == [] and verified["verified_bytes"] > 0.97 * size
    answer = shoal("run", split["model"], "--local", "--raw", "-p", "Once upon a time", "-n", 4, "--temperature", 0,
                   "--json", env=other)
    assert answer.returncode == 0, answer.stderr
    # One part alone says what it has.
    shutil.rmtree(tmp_path / "other" / "store")
    assert "10-19 of 30" in shoal("pull", split["stages"][1]["file"], env=other).stdout
    models = json.loads(shoal("models", "--json", env=other).stdout)["models"]
    assert models[0]["layers_held"] == list(range(10, 20)) and not models[0]["whole"]
    alone = shoal("run", split["model"], "--local", "-p", "x", env=other)
    assert alone.returncode == 3 and "10-19 of 30" in alone.stderr
