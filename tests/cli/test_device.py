"""`shoal device` and `shoal doctor`: on this machine, and on a recorded one."""
import fcntl
import json
import os
import pathlib
import signal
import subprocess

import pytest

RECORDED = pathlib.Path(__file__).resolve().parents[1] / "device"


def unpack(name, folder):
    """Writes the files of a recorded tree below folder; what cannot be read there is left out."""
    out = None
    for line in (RECORDED / f"{name}.tree").read_text().splitlines(keepends=True):
        if line.startswith("== "):
            path = folder / line[3:].strip().lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            out = path.open("w")
        elif line.startswith("!! "):
            out = None
        elif out:
            out.write(line)
            out.flush()
    return folder


def test_this_machine(shoal):
    done = shoal("device", "--json")
    assert done.returncode == 0, done.stderr
    device = json.loads(done.stdout)
    assert device["cores"] and device["memory"]["total_bytes"] > 0
    assert device["advice"]["decode_cpus"]
    assert "CPU variant" in shoal("device").stdout


def test_a_recorded_phone(shoal, tmp_path):
    root = unpack("snapdragon-8-gen-3", tmp_path)
    device = json.loads(shoal("device", "--root", str(root), "--json").stdout)
    assert device["advice"]["variant"] == "armv8.6_0"
    assert device["advice"]["decode_cpus"] == [7, 2, 3, 4, 5, 6]
    assert device["memory"]["total_bytes"] is None and device["advice"]["quantization"] is None
    assert device["speed"] is None


def test_bench_is_kept(shoal, tmp_path, monkeypatch):
    monkeypatch.setenv("SHOAL_HOME", str(tmp_path))
    assert json.loads(shoal("device", "--json", "--quantization", "Q4_0").stdout)["speed"] is None
    bench = json.loads(shoal("device", "--bench", "--quantization", "Q4_0", "--json", timeout=300).stdout)
    measured, choice = bench["speed"], bench["kernel_choices"][0]
    tried = {(trial["variant"], trial["threads"]) for trial in choice["trials"]}
    assert len(tried) == len(choice["trials"]) and choice["why"], "each once"
    assert measured["one_row_bytes_s"] > 0 and measured["rows_bytes_s"] > 0 and measured["groups"]
    assert json.loads(shoal("device", "--json", "--quantization", "Q4_0").stdout)["speed"] == measured
    wrong = shoal("device", "--bench", "--quantization", "Q9_Z")
    assert wrong.returncode == 2 and "Q9_Z" in wrong.stderr and wrong.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [("device", "--bench"), ("bench",)])
def test_bench_waits_for_whoever_measures(binary, tmp_path, words):
    """The file that nodes lock while they measure, in a folder for temporary files of its own."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "SHOAL_HOME": str(tmp_path / "home")}
    with open(tmp_path / f"shoal-speed-{os.getuid()}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with subprocess.Popen([binary, *words, "--quantization", "Q4_0"], env=environment, stderr=subprocess.PIPE,
                              stdout=subprocess.DEVNULL, text=True) as bench:
            try:
                assert "waiting until it has" in bench.stderr.readline()
                bench.send_signal(signal.SIGINT)
                assert bench.wait(60) == 130
            finally:
                bench.kill()
    assert not (tmp_path / "home/kernels.json").exists() and not (tmp_path / "home/speed.json").exists()


def test_doctor_says_what_to_do(shoal, tmp_path):
    done = shoal("doctor", "--json")
    checks = json.loads(done.stdout)["checks"]
    assert len(checks) >= 10 and {c["state"] for c in checks} <= {"ok", "problem", "unknown"}
    assert done.returncode == (1 if any(c["state"] == "problem" for c in checks) else 0)
    phone = unpack("snapdragon-8-gen-2", tmp_path)   # a background process, kept to the slow cores
    done = shoal("doctor", "--root", str(phone), "--json")
    cores = next(c for c in json.loads(done.stdout)["checks"] if c["name"] == "cores")
    assert done.returncode == 1 and cores["state"] == "problem" and "3-7" in cores["found"]
