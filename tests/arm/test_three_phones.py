"""Three phones, as their owner begins with them: the one file of `./dev build arm64-static` on each, under an emulator,
in networks of their own, all called "localhost" by their system; only the first has a model.

Every command is the program's own, and what it prints is read as a person would.
"""
import json
import os
import re
import subprocess

import pytest

import lan
import nodes

CODE = re.compile(r"\b[0-9A-Z]{4}(?:-[0-9A-Z]{4}){3}\b")
SLOW_S = 300   # an emulator is


class Phone:
    """A host, and a SHOAL_HOME on it."""

    def __init__(self, host, emulator, models=()):
        self.host, self._emulator = host, emulator
        self.home = host.lan.folder / f"home-{host.name}"
        (self.home / "models").mkdir(parents=True)
        for model in models:
            (self.home / "models" / os.path.basename(model)).symlink_to(model)
        self._log = self.home / "up.log"
        host.lan.at_end(self.switch_off)
        self._up = None

    def _command(self, *words):
        named = ("unshare", "--uts", "sh", "-c", 'hostname localhost; exec "$@"', "sh")
        return self.host.command(*named, *self._emulator, *words)

    def up(self, *words):
        environment = {**os.environ, "SHOAL_HOME": str(self.home)}
        with open(self._log, "w") as log:
            self._up = subprocess.Popen(self._command("up", *nodes.SPEED_TEST_OFF, *words), stdin=subprocess.DEVNULL,
                                        stdout=log, stderr=log, env=environment)
        nodes.wait_for("it is ready", lambda: "ready name=" in self.output(), SLOW_S)

    def output(self):
        return self._log.read_text(errors="replace")

    def __call__(self, *words):
        """What that command of the program prints."""
        done = subprocess.run(self._command(*words), capture_output=True, text=True, timeout=SLOW_S,
                              stdin=subprocess.DEVNULL, env={**os.environ, "SHOAL_HOME": str(self.home)})
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}\n{self.output()}"
        return done.stdout

    def members(self):
        return {node["name"]: node["state"] for node in json.loads(self("status", "--json"))["nodes"]}

    def switch_off(self):
        if self._up:
            self._up.kill()
            self._up.wait()


@pytest.fixture
def phones(qemu, smollm2, tmp_path):
    program = os.environ.get("SHOAL_ARM_STATIC_BINARY", "")
    if not os.path.exists(program):
        pytest.skip("no static program: ./dev build arm64-static")
    if reason := lan.why_not():
        pytest.skip(reason)
    emulator, _, _, *cpu = qemu("cortex-a76")
    with lan.Lan(delay_us=2000) as network:
        yield [Phone(host, (emulator, "-L", tmp_path, *cpu, program), models)
               for host, models in zip(network.add_hosts(3), ([smollm2], [], []), strict=True)]


def test_they_find_each_other_and_answer_together(phones, smollm2):
    first, second, third = phones
    model = os.path.basename(smollm2).removesuffix(".gguf")
    first.up()
    for other in (second, third):
        code = CODE.search(first("invite"))
        assert code, "invite shows no code"
        other.up("--join", code[0])
    nodes.wait_for("each sees three", lambda: all(list(p.members().values()) == ["alive"] * 3 for p in phones), SLOW_S)
    names = set(third.members())
    assert len(names) == 3 and all(re.search(r"-[0-9a-f]{4}$", name) for name in names), names
    assert all(name in second("status") for name in names)
    placed = first("place", model, "--stages", "3")
    assert all(name in placed for name in names), placed
    for phone in phones:
        assert "13, 14" in phone("run", model, "--raw", "-p", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,", "-n", "8",
                                 "--temperature", "0")
    # One goes out of reach: the others go on.
    third.switch_off()
    assert "13, 14" in second("run", model, "--raw", "-p", "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,", "-n", "8",
                              "--temperature", "0")
