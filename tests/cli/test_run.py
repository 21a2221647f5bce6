"""`shoal run` on real models: the same text for any cut, what JSON promises, signals, pipes."""
import contextlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import time

import pytest

RAW = ["-p", "The capital of France is", "--raw", "-n", "24", "--temperature", "0", "--wire", "f32"]


def test_json_has_what_scripts_rely_on(answer, smollm2):
    got = answer(smollm2, *RAW, "--stages", "3")
    assert got["text"].strip().startswith("Paris")
    assert len(got["tokens"]) == 24 and all(isinstance(t, int) for t in got["tokens"])
    assert got["prompt_tokens"] == 5 and got["finish"] == "length"
    assert got["timings"]["decode_tokens_per_s"] > 0
    assert [s["layers"] for s in got["stages"]][0].startswith("0-") and len(got["stages"]) == 3
    assert all(s["weight_bytes"] > 0 and s["kv_bytes"] > 0 and s["batches"] > 0 for s in got["stages"])


def test_same_tokens_for_any_cut_of_both_models(answer, smollm2, gemma3):
    for model in (smollm2, gemma3):
        whole = answer(model, *RAW)["tokens"]
        for stages in ("2", "3", "6"):
            assert answer(model, *RAW, "--stages", stages)["tokens"] == whole, stages


def test_the_prompt_may_stand_behind_the_model(answer, shoal, smollm2):
    want = answer(smollm2, *RAW)["tokens"]
    assert answer(smollm2, "The capital of France is", *RAW[2:])["tokens"] == want
    assert answer(smollm2, *RAW[2:], "The", "capital", "of", "France", "is")["tokens"] == want
    both = shoal("run", smollm2, "one", "-p", "other")
    assert both.returncode == 2 and "prompt" in both.stderr, both.stderr


def test_cut_as_written(answer, smollm2):
    got = answer(smollm2, *RAW, "--stages", "0-3,4-20,21-29")
    assert [s["layers"] for s in got["stages"]] == ["0-3", "4-20", "21-29"]
    assert got["tokens"] == answer(smollm2, *RAW)["tokens"]


def test_seed_decides(answer, smollm2):
    seeded = ["-p", "Once upon a time", "--raw", "-n", "24", "--temperature", "1", "--wire", "f32"]
    first = answer(smollm2, *seeded, "--seed", "11", "--stages", "3")
    assert first["tokens"] == answer(smollm2, *seeded, "--seed", "11")["tokens"] and first["seed"] == 11
    assert first["tokens"] != answer(smollm2, *seeded, "--seed", "12")["tokens"]


def test_every_wire_type_answers(answer, smollm2):
    whole = answer(smollm2, *RAW)["text"]
    for wire in ("f16", "bf16"):
        assert answer(smollm2, *RAW[:-2], "--wire", wire, "--stages", "3")["text"].strip().startswith("Paris"), wire
    assert whole.strip().startswith("Paris")


def test_chat_template_and_stop(answer, smollm2):
    greedy = ["--temperature", "0", "-n", "30", "--wire", "f32"]
    chat = answer(smollm2, "-p", "What is the capital of France?", "--system", "Be brief.", *greedy, "--stages", "2")
    prompt = ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is the capital of France?<|im_end|>\n"
              "<|im_start|>assistant\n")
    raw = answer(smollm2, "--raw", "-p", prompt, *greedy)
    assert chat["tokens"] == raw["tokens"] and chat["prompt_tokens"] == raw["prompt_tokens"]
    assert "Paris" in chat["text"] and chat["finish"] in ("stop", "length")
    stopped = answer(smollm2, "-p", "Count: one two three", "--raw", "-n", "60", "--temperature", "0",
                     "--stop", " five")
    assert " five" not in stopped["text"]


def test_json_schema(answer, smollm2):
    schema = json.dumps({"type": "object", "required": ["city", "big"],
                         "properties": {"city": {"type": "string", "maxLength": 12}, "big": {"type": "boolean"}}})
    got = answer(smollm2, "-p", "Name a city.", "--json-schema", schema, "-n", "512", "--seed", "3", "--stages", "3")
    value = json.loads(got["text"])
    assert set(value) == {"city", "big"} and isinstance(value["big"], bool)


def test_logprobs(answer, smollm2):
    got = answer(smollm2, *RAW, "--logprobs", "3")
    assert len(got["logprobs"]) == 24
    for token in got["logprobs"]:
        assert token["logprob"] <= 0 and len(token["alternatives"]) == 3
        assert token["alternatives"][0]["token"] == token["token"]


def test_prompt_from_stdin_and_plain_output(shoal, smollm2):
    done = shoal("run", smollm2, "--raw", "-n", "8", "--temperature", "0", "--stages", "3",
                 input="The capital of France is")
    assert done.returncode == 0 and "Paris" in done.stdout
    assert "stage" in done.stderr and "compute" in done.stderr
    quiet = shoal("run", smollm2, "--raw", "-q", "-n", "8", "--temperature", "0", input="The capital of France is")
    assert quiet.stderr == ""


def read_for(pipe, seconds):
    """What comes from the pipe until then."""
    got, deadline = b"", time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and select.select([pipe], [], [], left)[0]:
        piece = os.read(pipe.fileno(), 4096)
        if not piece:
            break
        got += piece
    return got


@contextlib.contextmanager
def conversation(*command, stderr=subprocess.DEVNULL):
    """The process and the terminal that it reads from; ends the conversation as a person does."""
    master, slave = pty.openpty()
    process = subprocess.Popen([*command, "--temperature", "0"], stdin=slave, stdout=subprocess.PIPE, stderr=stderr)
    os.close(slave)
    try:
        yield process, master
        os.write(master, b"\n")
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_conversation_stops_an_answer_on_ctrl_c_and_goes_on(binary, smollm2):
    with conversation(binary, "run", smollm2, "--stages", "2", "--ctx", "2048") as (process, master):
        os.write(master, b"Write a very long story about the sea.\n")
        seen = b""
        deadline = time.monotonic() + 60
        while len(seen) < 60 and time.monotonic() < deadline:
            seen += os.read(process.stdout.fileno(), 4096)
        process.send_signal(signal.SIGINT)
        time.sleep(1.5)
        assert process.poll() is None, "one Ctrl-C must not end the program"
        ends = len(seen) + len(read_for(process.stdout, 0.5))
        assert read_for(process.stdout, 1.5) == b"", "the answer went on"
        os.write(master, b"Say yes.\n")
        deadline = time.monotonic() + 30
        while not (more := read_for(process.stdout, 0.5)) and time.monotonic() < deadline:
            pass
        assert more, f"no answer to another question, after {ends} bytes of the first"


def test_a_conversation_that_fills_its_context_begins_anew(binary, smollm2, tmp_path):
    def say(process, master, line, awaited):
        begin = len((tmp_path / "stderr").read_text())
        os.write(master, line.encode() + b"\n")
        got = b""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            got += read_for(process.stdout, 0.2)
            if awaited(got.decode(), (tmp_path / "stderr").read_text()[begin:]):
                return
        raise AssertionError(f"{line}: {got}, {(tmp_path / 'stderr').read_text()}")

    with open(tmp_path / "stderr", "wb") as errors, \
            conversation(binary, "run", smollm2, "--ctx", "160", stderr=errors) as talk:
        say(*talk, "Write a very long story about the sea.", lambda _, told: "the context is full" in told)
        say(*talk, "And then?", lambda _, told: "/new" in told)
        say(*talk, "/new", lambda _, told: "a new conversation" in told)
        say(*talk, "Say yes.", lambda text, _: text.strip("> \n"))


@pytest.mark.parametrize("words", [["--stop", "zzz"], ["--logit-bias", "5=-1"], ["--stop", "[never]", "--stop", "zzz"]])
def test_options_that_may_be_repeated_take_one_value_each(shoal, answer, smollm2, words):
    plain = ["--raw", "-n", "8", "--temperature", "0"]
    asked = shoal("run", *words, smollm2, "--json", *plain, *words, "The capital of", "France is")
    assert json.loads(asked.stdout)["text"] == answer(smollm2, *plain, "-p", "The capital of France is")["text"]


def test_a_stop_string_in_brackets(answer, smollm2):
    plain = ["--raw", "-n", "8", "--temperature", "0", "-p", "The capital of France is"]
    assert answer(smollm2, *plain, "--stop", "[Paris]")["text"] == answer(smollm2, *plain)["text"]


COMPLETE = """
{ "$1" completions bash; } > words.sh || exit 1
. ./words.sh
COMP_WORDS=(shoal $2) COMP_CWORD=$(($# > 2 ? $3 : 1))
_shoal
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize("words,at,expected", [
    ("pl", 1, ["place", "plan"]), ("place --st", 2, ["--stages", "--standby"]), ("up --no-m", 2, ["--no-mdns"]),
    ("run nam", 2, ["named.gguf"])])
def test_bash_completes(binary, tmp_path, words, at, expected):
    (tmp_path / "named.gguf").touch()
    done = subprocess.run(["bash", "-c", COMPLETE, "bash", binary, words, str(at)], cwd=tmp_path, capture_output=True,
                          text=True, timeout=30, check=True)
    assert done.stdout.split() == expected


@pytest.mark.parametrize("shell,check", [("zsh", ["zsh", "-n"]), ("fish", ["fish", "--no-execute"])])
def test_completions_parse(binary, tmp_path, shell, check):
    done = subprocess.run([binary, "completions", shell], capture_output=True, text=True, timeout=30, check=True)
    script = done.stdout
    assert "place" in script and "--no-mdns" in script.replace("-l no-mdns", "--no-mdns")
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(script)
    subprocess.run([*check, str(tmp_path / "script")], check=True, timeout=30)


def test_ctrl_c_twice_ends_the_program(binary, smollm2):
    process = subprocess.Popen([binary, "run", smollm2, "--raw", "-p", "Once upon a time", "-n", "2000"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        process.stdout.read(20)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130, process.stderr.read()
    finally:
        process.kill()
        process.wait()


def test_completions_know_the_commands(shoal):
    for shell in ("bash", "zsh", "fish"):
        done = shoal("completions", shell)
        assert done.returncode == 0
        for word in ("serve", "run", "model", "stages", "rpc"):
            assert word in done.stdout
    checked = subprocess.run(["bash", "-n"], input=shoal("completions", "bash").stdout, text=True, timeout=20)
    assert checked.returncode == 0
