"""One arm64 node, emulated as a Snapdragon without SVE, and two of this machine's kind: one model over all three.

Nodes of different CPUs compute the same within a tolerance, never to the bit; the text is one that the model is sure
of.
"""
import contextlib
import json
import os
import subprocess
import tempfile

import nodes

PROMPT = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,"   # a text that the model is sure of
TOKENS = 16


@contextlib.contextmanager
def three_nodes(qemu, arm_binary, model):
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="arm") as folder:
        here = nodes.Here(folder)
        with contextlib.closing(here):
            def start(name, *words, **more):
                return nodes.Node(here, "--listen", "127.0.0.1", "--net-port", "0", "--no-mdns", *words, name=name,
                                  models=[model], api_port=here.free_port(), folder=here.folder, at_end=here.at_end,
                                  **more)
            alpha = start("alpha")
            started = [alpha]
            for name, more in [("phone", {"before": qemu("max,sve=off"), "binary": arm_binary}), ("beta", {})]:
                invite = alpha.invite()
                address = next(a for a in invite["addresses"] if "127.0.0.1" in a)
                started.append(start(name, "--join", invite["code"], "--peer", address, **more))
            nodes.wait_for("all see three", lambda: all(sorted(n.states().values()) == ["alive"] * 3 for n in started),
                           180)
            yield started


def answer(node, model, timeout=600):
    done = node.cli("run", model, "--raw", "--temperature", "0", "-n", TOKENS, "--json", "-p", PROMPT, timeout=timeout)
    return json.loads(done.stdout)["text"]


def test_a_phone_and_two_pcs_answer_and_go_on_without_the_phone(qemu, arm_binary, smollm2):
    name = os.path.basename(smollm2).removesuffix(".gguf")
    with three_nodes(qemu, arm_binary, smollm2) as (alpha, phone, beta):
        arch = {n["name"]: n["device"]["arch"] for n in alpha.status()["nodes"]}
        assert arch["phone"].startswith("aarch64") and not arch["alpha"].startswith("aarch64")
        expected = answer_alone(smollm2)
        alpha.cli("place", name, "--stages", "3", "--nodes", "alpha,phone,beta", "--standby", "off", timeout=600)
        assert answer(alpha, name) == expected
        phone.kill()
        nodes.wait_for("the phone is missed", lambda: alpha.states()["phone"] == "dead", 120)
        assert answer(beta, name) == expected
        stages = alpha.placement(name)["stages"]
        assert "phone" not in {stage["name"] for stage in stages}


def answer_alone(model):
    done = subprocess.run([nodes.BINARY, "run", model, "--local", "--raw", "--temperature", "0", "-n", str(TOKENS),
                           "--json", "-p", PROMPT], capture_output=True, text=True, timeout=300, check=True,
                          stdin=subprocess.DEVNULL)
    return json.loads(done.stdout)["text"]
