"""Names of the hub, URLs and names of the store wherever a command wants a model."""
import json
import pathlib
import subprocess
import time

import pytest

from hub import FILE, REPOSITORY

NAME = FILE.removesuffix(".gguf")
DEVICES = {
    "devices": [
        {"name": "phone", "memory_gib": 7, "decode_gb_s": 40, "prefill_gb_s": 6},
        {"name": "laptop", "memory_gib": 7, "decode_gb_s": 30, "prefill_gb_s": 9},
    ],
    "link": {"latency_ms": 2, "mb_s": 40},
}


@pytest.fixture
def home(tmp_path, hub):
    return hub.environment(tmp_path / "home")


@pytest.fixture
def devices(tmp_path):
    file = tmp_path / "devices.json"
    file.write_text(json.dumps(DEVICES))
    return file


def asked_bytes(hub):
    """Of the host that has the files."""
    asked = [line for line in hub.log() if line.startswith(str(hub.bytes_port)) and "bytes=" in line]
    ends = [line.split('range="bytes=')[1].split('"')[0].split("-") for line in asked]
    return sum(int(last) + 1 - int(first) for first, last in ends)


def kept_bytes(home):
    store = pathlib.Path(home["SHOAL_HOME"], "store")
    return sum(one.stat().st_size for one in store.rglob("*") if one.is_file())


def test_a_plan_reads_the_header_alone(shoal, home, hub, smollm2, devices):
    hub.start()
    want = json.loads(shoal("plan", smollm2, "--devices", devices, "--json", env=home).stdout)
    url = f"http://127.0.0.1:{hub.bytes_port}/files/{NAME}.gguf"
    for name, origin in ((f"hf:{REPOSITORY}:Q4_1", f"hf:{REPOSITORY}:Q4_1"), (url, url)):
        before = asked_bytes(hub) if hub.log() else 0
        done = shoal("plan", name, "--devices", devices, "--json", env=home)
        assert done.returncode == 0, done.stderr
        plan = json.loads(done.stdout)
        assert plan["model"]["origin"] == origin and plan["model"]["name"] == NAME
        assert [plan[key] for key in ("stages", "cost", "tokens_s")] == [want[key]
                                                                         for key in ("stages", "cost", "tokens_s")]
        assert 0 < plan["model"]["metadata_bytes"] < plan["model"]["bytes"] / 5
        assert asked_bytes(hub) - before < 3 * plan["model"]["metadata_bytes"] + (1 << 20), "no weights were asked for"
        assert kept_bytes(home) == 0
    text = shoal("plan", f"hf:{REPOSITORY}:Q4_1", "--devices", devices, env=home).stdout
    assert "no weights" in text and "Expected:" in text
    facts = json.loads(shoal("model", f"hf:{REPOSITORY}:Q4_1", "--json", env=home).stdout)
    assert facts["layers"] == 30 and facts["splittable"]


def test_the_file_is_chosen_for_the_devices_of_the_plan(shoal, home, hub, content, devices):
    for kind in ("Q4_K_M", "Q5_K_M"):
        hub.add("owner/two", f"two-{kind}.gguf", content)
    hub.start()
    plan = json.loads(shoal("plan", "hf:owner/two", "--devices", devices, "--json", env=home).stdout)
    assert plan["model"]["origin"] == "hf:owner/two:Q5_K_M" and "2 devices" in plan["model"]["chosen"]
    small = json.loads(json.dumps(DEVICES))
    for device in small["devices"]:
        device["memory_gib"] = 1
    devices.write_text(json.dumps(small))
    plan = json.loads(shoal("plan", "hf:owner/two", "--devices", devices, "--json", env=home).stdout)
    assert plan["model"]["origin"] == "hf:owner/two:Q4_K_M"


def test_a_plan_of_a_model_of_the_store(shoal, home, smollm2, devices, tmp_path):
    want = json.loads(shoal("plan", smollm2, "--devices", devices, "--json", env=home).stdout)
    split = json.loads(shoal("split", smollm2, "--stages", "3", "--out", tmp_path / "parts", "--json", env=home).stdout)
    other = {**home, "SHOAL_HOME": str(tmp_path / "other")}
    assert shoal("pull", split["stages"][1]["file"], "--name", "mine", env=other).returncode == 0
    # No server runs, and a third of the layers is here: the manifest tells what a plan needs.
    done = shoal("plan", "mine", "--devices", devices, "--json", env=other)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["stages"] == want["stages"] and plan["model"]["name"] == "mine" and plan["model"]["origin"] == ""
    unknown = shoal("plan", "yours", "--devices", devices, env=other)
    assert unknown.returncode == 3 and "there is no model 'yours'" in unknown.stderr and "shoal pull" in unknown.stderr


@pytest.fixture
def node(binary, shoal, home, hub):
    """A node that runs in `home`."""
    with subprocess.Popen([binary, "up", "--name", "alpha", "--listen", "127.0.0.1", "--net-port", "0", "--port", "0",
                           "--no-mdns", "--speed-test", "off"], env=home, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(300):
                if shoal("status", env=home).returncode == 0:
                    break
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait(60)


WORDS = ("--raw", "-p", "Once upon a time", "-n", 6, "--temperature", 0, "--json")


def test_run_pulls_what_is_missing_and_goes_on(shoal, home, hub, smollm2):
    want = json.loads(shoal("run", smollm2, *WORDS, env=home).stdout)["tokens"]
    hub.start()
    done = shoal("run", "-hf", f"{REPOSITORY}:Q4_1", *WORDS, env=home)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tokens"] == want, "stdout has the answer alone"
    assert f"fetching hf:{REPOSITORY}:Q4_1" in done.stderr
    # What is here is used as it is, by whatever words it is named, though the hub is away.
    hub.stop()
    for words in (["-hf", REPOSITORY], ["-hf", f"{REPOSITORY}:q4_1"], [f"hf:{REPOSITORY}:latest"], ["-m", NAME],
                  ["--model", f"hf:{REPOSITORY}:Q4_1"]):
        again = shoal("run", *words, *WORDS, env=home)
        assert again.returncode == 0 and json.loads(again.stdout)["tokens"] == want, (words, again.stderr)
        assert "fetching" not in again.stderr


def test_serve_pulls_too_and_quietly_where_asked(binary, home, hub):
    hub.start()
    with subprocess.Popen([binary, "serve", "-hf", REPOSITORY, "-hff", NAME + ".gguf", "--port", "0", "-q"], env=home,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        ready = server.stdout.readline()
        server.terminate()
        said = server.communicate(timeout=60)[1]
    assert f"shoal serves {NAME} at http" in ready and said == ""
    assert kept_bytes(home) > 50_000_000


def test_place_and_run_on_a_cluster(shoal, home, hub, node):
    hub.start()
    done = shoal("place", f"hf:{REPOSITORY}:Q4_1", "--json", env=home)
    assert done.returncode == 0, done.stderr
    placed = json.loads(done.stdout)
    assert placed["model"] == NAME and placed["state"] == "live"
    asked = asked_bytes(hub)
    for words in ([f"hf:{REPOSITORY}:Q4_1"], ["-hf", REPOSITORY], [NAME]):
        answer = shoal("run", *words, *WORDS, env=home)
        assert answer.returncode == 0, answer.stderr
        assert len(json.loads(answer.stdout)["tokens"]) == 6 and asked_bytes(hub) == asked
    absent = shoal("run", "hf:owner/nothing", *WORDS, env=home)
    assert absent.returncode == 3 and "no repository 'owner/nothing'" in absent.stderr


def test_variants_of_a_quantization(shoal, home, hub, content):
    for name in ("big-Q4_K_XL.gguf", "big-UD-Q4_K_XL.gguf"):
        hub.add("owner/variants", name, content)
    hub.start()
    for wanted, name in (("UD-Q4_K_XL", "big-UD-Q4_K_XL"), ("ud-q4_k_xl", "big-UD-Q4_K_XL"),
                         ("Q4_K_XL", "big-Q4_K_XL")):
        done = shoal("pull", "-hf", f"owner/variants:{wanted}", "--metadata-only", "--json", env=home)
        assert done.returncode == 0, done.stderr
        model = json.loads(done.stdout)
        assert model["name"] == name and model["origin"] == f"hf:owner/variants:{wanted.upper()}"


@pytest.mark.parametrize("words", [["run"], ["run", "a", "-hf", "owner/repo"], ["serve"], ["plan"], ["model"],
                                   ["pull", "-hff", "x.gguf"], ["run", "-hf", "repo"]], ids=" ".join)
def test_no_model_or_two(shoal, home, words):
    assert shoal(*words, env=home, timeout=20).returncode == 2


def test_without_a_node_place_fetches_nothing(shoal, home, hub):
    hub.start()
    done = shoal("place", f"hf:{REPOSITORY}:Q4_1", env=home)
    assert done.returncode == 5 and "no node runs here" in done.stderr and hub.log() == []
