"""Devices that are really there: Mesa's llvmpipe, which is a CPU, behind Vulkan; OpenBLAS. Correctness, not speed.

What was measured is printed.
"""
import json
import os
import pathlib
import re
import signal
import subprocess

import nodes
import streams
from chaos import texts

PROMPT, TOKENS = texts.PROMPTS[-1], 32   # its continuation is decided: devices round differently
DIFFERENCE_MAX = 5e-3
HANG_S = 600   # a graphics card that is two cores
BUILD = pathlib.Path(nodes.BINARY).parent


def start(here, model, device, *words, **more):
    """A node that computes on `device`; "cpu": on none."""
    return nodes.Node(here, "--listen", "127.0.0.1", "--net-port", "0", "--no-mdns", "--threads", "2", "-v", "--device",
                      device, *words, name=device, models=[model], api_port=here.free_port(), folder=here.folder,
                      at_end=here.at_end, **more)


def place(node):
    node.cli("place", "smollm2", "--wire", "f32", timeout=HANG_S)


def facts(node):
    return next(one for one in node.status()["nodes"] if one["self"])["device"]


def cpu_text(here, model):
    node = start(here, model, "cpu")
    place(node)
    answer = streams.ask(node, "smollm2", PROMPT, TOKENS)
    assert (answer.error, answer.finish) == ("", "length")
    assert facts(node)["offload"] is None
    node.kill()
    return answer.text


def test_device_lists_what_a_backend_sees(device):
    seen = json.loads(subprocess.run([nodes.BINARY, "device", "--json"], check=True, capture_output=True, text=True,
                                     timeout=HANG_S).stdout)["beside_cpu"]
    backend = next(one for one in seen if one["backend"] == device)
    assert backend["unknown"] is None and backend["devices"]
    print(json.dumps(backend))
    assert {"vulkan": "llvmpipe", "blas": "OpenBLAS"}[device].lower() in json.dumps(backend).lower()


def test_whole_models_are_computed_as_on_the_cpu(device):
    done = subprocess.run([BUILD / "src/offload/shoal_offload_test", "--gtest_filter=*RealDevice*"], timeout=4 * HANG_S,
                          env={**os.environ, "SHOAL_TEST_DEVICE": device, "SHOAL_BACKENDS": str(BUILD)},
                          capture_output=True, text=True)
    measured = re.findall(r".*mean KL.*", done.stdout)
    print("\n" + "\n".join(measured))
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum("layers on" in line for line in measured) == 8   # two models, as they are and as F16, whole and half
    assert sum("from F32" in line for line in measured) == (0 if device == "blas" else 8)   # the CPU and the device


def test_a_stage_computes_there_until_its_process_dies(here, smollm2, device):
    text = cpu_text(here, smollm2)
    node = start(here, smollm2, device)
    assert facts(node)["offload"]["use"] == "untried"
    place(node)
    said = re.search(r"computes what the CPU computes: they differ by (\S+), at most \S+ is allowed; (\d+) of (\d+) "
                     r"tokens are the same, clearly others 0", node.output())
    print(f"{device}, check at first use: {said[0]}")
    assert float(said[1]) <= DIFFERENCE_MAX and int(said[2]) <= int(said[3]) and int(said[3]) > 0
    if device == "blas":   # of a prompt; rows one by one are the CPU's, with other kernels
        assert float(said[1]) > 0, "BLAS computed nothing"
    got = streams.ask(node, "smollm2", PROMPT, TOKENS)
    assert (got.error, got.text) == ("", text)
    offload = facts(node)["offload"]
    assert (offload["device"], offload["layers"], offload["use"]) == (device, 0, "computes")
    assert "compute on " + device in node.cli("status").stdout

    asked = streams.Asking(node, "smollm2", PROMPT, TOKENS)
    nodes.wait_for("it has begun", lambda: asked.pieces() > 3, HANG_S)
    for child in processes_of(node):
        os.kill(child, signal.SIGKILL)
    got = asked.wait(HANG_S)
    assert (got.error, got.text, got.finish) == ("", text, "length")
    nodes.wait_for("it says so", lambda: facts(node)["offload"]["use"] == "failed")
    assert "signal 9" in facts(node)["offload"]["text"]
    assert f"the CPU computes, not {device}: smollm2: " in node.cli("status").stdout
    assert streams.ask(node, "smollm2", PROMPT, TOKENS).text == text
    assert not processes_of(node)


def processes_of(node):
    """The processes that a node made for its device."""
    folder = pathlib.Path(f"/proc/{node.process.pid}/task")
    children = {int(child) for task in folder.iterdir() for child in (task / "children").read_text().split()}
    return [child for child in children
            if b"offload-process" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes()]


def test_a_part_of_the_layers_computes_there(here, smollm2):
    text = cpu_text(here, smollm2)
    node = start(here, smollm2, "vulkan", "--device-layers", "10")
    place(node)
    assert "vulkan computes: Vulkan0" in node.output()
    assert streams.ask(node, "smollm2", PROMPT, TOKENS).text == text
    assert facts(node)["offload"]["layers"] == 10


def test_plans_are_of_the_speed_on_the_device(here, smollm2, device):
    speeds = {}
    for name in ("cpu", device):
        node = start(here, smollm2, name, "--speed-test", "auto")
        nodes.wait_for("stages are measured", lambda n=node: facts(n)["stage_speeds"], HANG_S)
        speeds[name] = facts(node)["stage_speeds"][0]
        kinds = facts(node)["speeds"]
        assert not kinds if name == device else kinds, "kinds of weights are measured on the CPU"
        place(node)
        assert node.placement("smollm2")["forecast"]["measured"]
        kept = json.loads((node.home / "speed.json").read_text())["stages"]
        assert [one.get("device", "").startswith(name) for one in kept] == [name == device]
        node.kill()
    for figure in ("one_row_bytes_s", "rows_bytes_s"):
        print(f"{device}, {figure}: {speeds[device][figure] / speeds['cpu'][figure]:.2f} times the CPU's")
