"""`shoal quantize` and `shoal split`: files made from the test models."""
import json
import os
import pathlib
import shutil
import struct

import pytest

from gguf_parts import ALIGNMENT, STRING, Reader, pad


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


def test_a_model_of_the_store_is_quantized(shoal, home, smollm2, tmp_path):
    words = ("Q4_0", "--from-quantized")
    want = tmp_path / "want.gguf"
    assert shoal("quantize", smollm2, words[0], want, words[1], timeout=300).returncode == 0
    split = json.loads(shoal("split", smollm2, "--stages", "1", "--out", tmp_path / "parts", "--json", env=home).stdout)
    other = {**home, "SHOAL_HOME": str(tmp_path / "other")}
    assert shoal("pull", split["stages"][0]["file"], "--name", "stored", env=other).returncode == 0
    made = tmp_path / "made"
    made.mkdir()
    dry = shoal("quantize", "stored", *words, "--dry-run", "--json", env={**other, "TMPDIR": str(made)})
    assert dry.returncode == 0 and json.loads(dry.stdout)["bytes_after"] > 50_000_000, dry.stderr
    assert list(made.iterdir()) == []
    done = shoal("quantize", "stored", words[0], made / "have.gguf", words[1], env=other, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [p.name for p in made.iterdir()] == ["have.gguf"], "no copy is left"
    assert (made / "have.gguf").read_bytes() == want.read_bytes()
    absent = shoal("quantize", "nothing", "Q4_0", made / "x.gguf", env=other)
    assert absent.returncode == 3 and "there is no model 'nothing'" in absent.stderr


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


def tensor(path, name):
    """The data of one tensor of a GGUF file, from its first byte on."""
    content = pathlib.Path(path).read_bytes()
    reader = Reader(content)
    reader.at = 8
    tensors, keys = reader.take("Q"), reader.take("Q")
    for _ in range(keys):
        reader.skip_string()
        reader.skip_value(reader.take("I"))
    found = None
    for _ in range(tensors):
        length = reader.take("Q")
        called = content[reader.at:reader.at + length].decode()
        reader.at += length
        dimensions = reader.take("I")
        reader.at += 8 * dimensions + 4
        offset = reader.take("Q")
        found = offset if called == name else found
    return content[reader.at + -reader.at % ALIGNMENT + found:]


def values(data, count, form):
    """The first `count` values of Q4_0 ("e") or Q4_1 ("ee") blocks."""
    out = []
    head = struct.calcsize("<" + form)
    for at in range(0, count // 32 * (head + 16), head + 16):
        scale, *least = struct.unpack_from("<" + form, data, at)
        quants = data[at + head:at + head + 16]
        halves = [q & 15 for q in quants] + [q >> 4 for q in quants]
        out += [scale * q + least[0] if least else scale * (q - 8) for q in halves]
    return out


def legacy_matrix(name, sums):
    """As llama.cpp's older tools write it: entries of a name, how often it was counted, sums."""
    return (struct.pack("<ii", 1, len(name)) + name.encode() + struct.pack("<ii", 3, len(sums)) +
            struct.pack(f"<{len(sums)}f", *sums))


def gguf_matrix(name, sums):
    """As its newer ones do: a GGUF file with sums and counts."""
    described, body = b"", b""
    for called, numbers in ((name + ".in_sum2", sums), (name + ".counts", [3])):
        described += struct.pack("<Q", len(called)) + called.encode()
        described += struct.pack("<IQIQ", 1, len(numbers), 0, len(body))
        body = pad(body + struct.pack(f"<{len(numbers)}f", *numbers))
    kind = struct.pack("<Q12sIQ7s", 12, b"general.type", STRING, 7, b"imatrix")
    return pad(b"GGUF" + struct.pack("<IQQ", 3, 2, 1) + kind + described) + body


@pytest.mark.parametrize("written", [legacy_matrix, gguf_matrix])
def test_an_importance_matrix_is_obeyed(shoal, smollm2, tmp_path, written):
    name, width, rows = "blk.0.attn_q.weight", 576, 64
    # One column of each block counts four hundred times as much as the others.
    weights = [400 if column % 32 == 5 else 1 for column in range(width)]
    matrix = tmp_path / "matrix"
    matrix.write_bytes(written(name, [3 * weight for weight in weights]))
    plain, weighed = tmp_path / "plain.gguf", tmp_path / "weighed.gguf"
    for out, words in ((plain, ()), (weighed, ("--imatrix", matrix))):
        done = shoal("quantize", smollm2, "Q4_0", out, "--from-quantized", *words, timeout=300)
        assert done.returncode == 0, done.stderr
    exact = values(tensor(smollm2, name), width * rows, "ee")

    def error(path):
        have = values(tensor(path, name), width * rows, "e")
        return sum(weights[i % width] * (a - b) ** 2 for i, (a, b) in enumerate(zip(have, exact)))

    assert error(weighed) < 0.5 * error(plain), (error(weighed), error(plain))
    # Only what the matrix tells of is another.
    other = "blk.1.attn_q.weight"
    assert tensor(plain, other)[:width * rows // 32 * 18] == tensor(weighed, other)[:width * rows // 32 * 18]


def test_what_is_no_importance_matrix(shoal, smollm2, tmp_path):
    matrix = tmp_path / "matrix"
    for content in (b"", b"text", struct.pack("<ii", 1, -5), struct.pack("<ii", 1, 1 << 30),
                    legacy_matrix("blk.0.attn_q.weight", [1.0] * 576)[:-9],
                    legacy_matrix("blk.0.attn_q.weight", [1.0] * 577)):
        matrix.write_bytes(content)
        done = shoal("quantize", smollm2, "Q4_0", tmp_path / "x.gguf", "--from-quantized", "--imatrix", matrix)
        assert done.returncode in (2, 3) and "matrix" in done.stderr, (content[:16], done.stderr)
        assert not (tmp_path / "x.gguf").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["matrix"], "nothing half done is left"
