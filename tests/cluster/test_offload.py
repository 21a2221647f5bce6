"""Stages that compute on a device which may crash: a server of ggml's RPC, a backend that is made to fail.

Whatever becomes of the device, the node serves on its CPU, and answers that were under way go on.
"""
import contextlib
import json
import os
import pathlib
import subprocess

import pytest

import nodes
import streams
from chaos import texts

# One whose continuation is decided: devices and batch shapes round differently.
PROMPT, TOKENS = texts.PROMPTS[-1], 64
TOOLS = pathlib.Path(nodes.BINARY).parent / "tests/tools"


@contextlib.contextmanager
def rpc_server(host, port):
    """Upstream's server, unmodified, on its CPU: its process."""
    program = TOOLS / "ggml-rpc-server"
    if not program.exists():
        pytest.skip(f"{program} is not there (SHOAL_RPC=OFF)")
    with open(os.path.join(host.lan.folder, "rpc-server.log"), "w") as log:
        server = subprocess.Popen(host.command(program, "-H", "127.0.0.1", "-p", port, "-t", "1"), stdout=log,
                                  stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield server
    finally:
        server.kill()
        server.wait()


def device_of(seen_by, node):
    return next(one for one in seen_by.status()["nodes"] if one["name"] == node.name)["device"]


def processor_time(process):
    """Clock ticks that the process computed, all threads together."""
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_half_a_stage_is_computed_by_an_rpc_server_which_dies(lan, smollm2):
    hosts = lan.add_hosts(2)
    with rpc_server(hosts[1], 50052) as server:
        alpha = nodes.Node(hosts[0], "--threads", "1", models=[smollm2])
        beta = nodes.join_on(hosts[1], alpha, "--threads", "1", "-v", "--rpc", "127.0.0.1:50052",
                             "--device-layers", "7", models=[smollm2])
        nodes.wait_for("both see each other", lambda: nodes.all_alive([alpha, beta]))
        # 14 layers on beta: half of them on the server.
        place = ("place", "smollm2", "--stages", "0-15,16-29", "--wire", "f32", "--nodes", f"{alpha.name},{beta.name}")
        alpha.cli(*place, "--standby", "off")
        assert "rpc:127.0.0.1:50052 computes" in beta.output()
        offload = nodes.wait_for("alpha has heard of it", lambda: (
            told := device_of(alpha, beta)["offload"])["use"] == "computes" and told)
        assert (offload["device"], offload["layers"]) == ("rpc:127.0.0.1:50052", 7)
        before = processor_time(server)
        offloaded = streams.ask(alpha, "smollm2", PROMPT, TOKENS)
        assert offloaded.finish == "length" and not offloaded.error
        assert processor_time(server) > before, "the server computed nothing"

        asked = [streams.Asking(alpha, "smollm2", PROMPT, TOKENS) for _ in range(3)]
        nodes.wait_for("they have begun", lambda: all(one.pieces() > 5 for one in asked))
        server.kill()
        for one in asked:
            got = one.wait(120)
            assert (got.error, got.text, got.finish) == ("", offloaded.text, "length")
    assert "is lost, its stage goes on without it" in beta.output()
    assert {s["name"] for s in alpha.placement("smollm2")["stages"]} == {alpha.name, beta.name}
    failed = device_of(beta, beta)["offload"]
    assert failed["use"] == "failed" and failed["text"], failed
    # The CPU alone says the same.
    assert streams.ask(alpha, "smollm2", PROMPT, TOKENS).text == offloaded.text
    print(f"longest pause {max(length for one in asked for _, length in one.stream.pauses()):.2f} s")


def on_faulty(here, smollm2, folder, fault, *more):
    """A node on the backend that fails; the words it was started with; the file that makes it fail."""
    library = TOOLS / "libggml-faulty.so"
    if not library.exists():
        pytest.skip(f"{library} is not there")
    (folder / library.name).symlink_to(library)
    failing = folder / "now"
    words = ("--threads", "1", "-v", "--device", "faulty", "--net-port", here.free_port(), *more)
    node = nodes.Node(here, *words, models=[smollm2], api_port=here.free_port(), folder=here.folder, at_end=here.at_end,
                      before=("env", f"SHOAL_BACKENDS={folder}", f"SHOAL_TEST_FAULT={fault}",
                              f"SHOAL_TEST_FAULT_FILE={failing}"))
    return node, words, failing


@pytest.mark.parametrize("fault", ["start", "wrong", "compute"])
def test_a_backend_that_fails_leaves_the_node_serving(here, smollm2, tmp_path, fault):
    node, words, failing = on_faulty(here, smollm2, tmp_path, fault)
    node.cli("place", "smollm2", "--wire", "f32")
    asked = streams.Asking(node, "smollm2", PROMPT, TOKENS)
    nodes.wait_for("it has begun", lambda: asked.pieces() > 5)
    failing.touch()
    got = asked.wait(120)
    assert (got.error, got.finish) == ("", "length")
    assert node.process.poll() is None
    said = {"start": "faulty is not used, the CPU computes smollm2: the process of faulty was ended by signal 11",
            "wrong": "does not compute what the CPU computes",
            "compute": "faulty is lost, its stage goes on without it: the process of faulty was ended by signal 11"}
    assert said[fault] in node.output()
    assert "the CPU computes, not faulty: smollm2: " in node.cli("status").stdout
    if fault != "compute":
        return
    # It is remembered: the next start does not try again.
    assert node.stop() == 0
    node.start(*words)
    node.cli("place", "smollm2", "--wire", "f32")
    assert "faulty is not used, the CPU computes smollm2: it failed while it computed" in node.output()
    assert streams.ask(node, "smollm2", PROMPT, TOKENS).text == got.text


@pytest.mark.limit(480)
def test_plans_are_of_the_device_that_computes(here, smollm2, tmp_path):
    node, _, failing = on_faulty(here, smollm2, tmp_path, "compute", "--speed-test", "auto")
    nodes.wait_for("stages are measured there", lambda: device_of(node, node)["stage_speeds"], 120)
    kept = json.loads((node.home / "speed.json").read_text())["stages"]
    assert [one["device"].split()[0] for one in kept] == ["faulty"]
    assert not device_of(node, node)["speeds"]   # of the CPU
    node.cli("place", "smollm2", "--wire", "f32")
    assert node.placement("smollm2")["forecast"]["measured"]
    failing.touch()
    assert not streams.ask(node, "smollm2", PROMPT, TOKENS).error
    # Of the CPU from then on: what is known of the weights' kind at once, of stages when they were measured again.
    nodes.wait_for("the device has failed", lambda: device_of(node, node)["offload"]["use"] == "failed")
    nodes.wait_for("it plans with the CPU", lambda: (
        facts := device_of(node, node))["speeds"] and facts["stage_speeds"], 120)
    kept = json.loads((node.home / "speed.json").read_text())["stages"]
    assert ["device" in one for one in kept] == [True, False]
