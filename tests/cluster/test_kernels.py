"""A node finds out by itself which CPU kernels and how many threads are the fastest here, while nothing runs.

A machine that computes something else meanwhile is told, and it tries again later: both are right, neither is luck."""
import json
import pathlib

import pytest

import nodes

BUSY = "are not measured yet: something else computed meanwhile"


@pytest.mark.unsanitized
def test_it_is_measured_by_itself_told_and_used_by_the_next_start(tmp_path):
    here = nodes.Here(tmp_path)
    try:
        node = nodes.Node(here, "--net-port", "0", "--no-mdns", "--listen", "127.0.0.1", "--speed-test", "auto", "-v",
                          name="alone", api_port=here.free_port(), folder=tmp_path, at_end=here.at_end)

        def found():   # costs nothing: a command would disturb what is measured
            return (node.home / "kernels.json").exists() or BUSY in node.output()

        nodes.wait_for("kernels are measured, or the machine is busy", found, 120)
        if not (node.home / "kernels.json").exists():
            assert node.status()["kernels"]["choices"] == [], "what others disturbed is not kept"
            return
        choices = nodes.wait_for("it is told", lambda: node.status()["kernels"]["choices"])
        assert len(choices) == 1 and choices[0]["threads"] >= 1 and choices[0]["why"]
        assert f"{choices[0]['quantization']}: {choices[0]['why']}" in node.cli("status").stdout
        assert "CPU kernels for " + choices[0]["quantization"] in node.output()
        kept = json.loads(pathlib.Path(node.home / "kernels.json").read_text())
        assert [choice["quantization"] for choice in kept["choices"]] == [choices[0]["quantization"]]
        node.stop()
        node.start("--net-port", "0", "--no-mdns", "--listen", "127.0.0.1")
        assert node.status()["kernels"]["choices"] == choices
        # Another chip, another ggml: what is kept says nothing of this one.
        kept["device"] = "another one"
        node.stop()
        (node.home / "kernels.json").write_text(json.dumps(kept))
        node.start("--net-port", "0", "--no-mdns", "--listen", "127.0.0.1")
        kernels = node.status()["kernels"]
        assert kernels["choices"] == [] and kernels["state"].startswith("not measured by itself")
    finally:
        here.close()
