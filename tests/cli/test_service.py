"""`shoal service` and scripts/termux.sh where Termux's folders and tools are imitated: what is written really runs.

The stand-ins note what they were asked. `run` is what runit starts on a phone; here the test does, and ends it as
Android's phantom process killer does.
"""
import os
import pathlib
import re
import signal
import stat
import subprocess
import tempfile
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ["pkg", "termux-wake-lock", "termux-wake-unlock", "sv", "sv-enable", "sv-disable", "service-daemon"]
HANG_S = 60


class Termux:
    """A prefix like Termux's below `folder`, with stand-ins for its tools, and a home."""

    def __init__(self, folder):
        # Short: the path of the control socket has room for about 100 bytes.
        self.prefix = folder / "com.termux" / "usr"
        self.home = folder / "home"
        self.calls = folder / "calls"
        (self.prefix / "bin").mkdir(parents=True)
        (self.prefix / "etc").mkdir()
        self.home.mkdir()
        self.calls.touch()
        for tool in TOOLS:
            path = self.prefix / "bin" / tool
            path.write_text(f'#!/bin/sh\necho "{tool} $*" >> "{self.calls}"\n')
            path.chmod(0o755)
        (self.prefix / "bin" / "sh").symlink_to("/bin/sh")
        (self.prefix / "etc" / "profile").write_text(f'echo "profile" >> "{self.calls}"\n')
        self.env = {"PREFIX": str(self.prefix), "HOME": str(self.home), "LANG": "C.UTF-8",
                    "PATH": f"{self.prefix}/bin:/usr/bin:/bin"}
        self.log = self.home / ".shoal" / "shoal.log"
        self.service = self.prefix / "var" / "service" / "shoal" / "run"

    def called(self):
        return self.calls.read_text().splitlines()

    def run(self, *command, **more):
        done = subprocess.run([str(word) for word in command], env=self.env, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=HANG_S, **more)
        return done

    def start(self):
        return subprocess.Popen([str(self.service)], env=self.env, stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def await_ready(self, process, count=1):
        """The name and id of the count-th `ready` line of the log."""
        deadline = time.monotonic() + HANG_S
        while time.monotonic() < deadline:
            lines = re.findall(r"^ready name=(.+) id=(\S+)", self.log.read_text(), re.M) if self.log.exists() else []
            if len(lines) >= count:
                return lines[count - 1]
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        raise AssertionError("the service did not become ready")


@pytest.fixture
def termux():
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="sv") as folder:
        yield Termux(pathlib.Path(folder))


UP = ["--", "--name", "it's one", "--listen", "127.0.0.1", "--port", "0", "--net-port", "0", "--no-mdns"]


def test_a_phones_service_runs_dies_and_runs_again(termux, binary):
    done = termux.run(binary, "service", "install", *UP)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "phantom" in done.stdout and "Termux:Boot" in done.stdout
    assert termux.called() == ["service-daemon start", "sv-enable shoal", "sv restart shoal"]
    assert stat.S_IMODE(termux.service.stat().st_mode) == 0o755

    first = termux.start()
    name, node = termux.await_ready(first)
    assert name == "it's one" and "termux-wake-lock " in termux.called()
    first.send_signal(signal.SIGKILL)   # the script became the node: this is its own process
    first.wait(HANG_S)
    second = termux.start()
    assert termux.await_ready(second, 2)[1] == node, "after a kill it is another node"

    shrunk = {min(os.sched_getaffinity(0))}   # Android: in the background only some cores are left
    for thread in os.listdir(f"/proc/{second.pid}/task"):
        os.sched_setaffinity(int(thread), shrunk)
    status = termux.run(termux.home / ".shortcuts" / "shoal status")
    assert node[-12:] in status.stdout, status.stdout + status.stderr
    second.terminate()
    assert second.wait(HANG_S) == 0


def test_boot_and_shortcuts_call_the_tools_of_termux(termux, binary):
    assert termux.run(binary, "service", "install", *UP).returncode == 0
    termux.calls.write_text("")
    assert termux.run(termux.home / ".termux" / "boot" / "shoal").returncode == 0
    assert termux.run(termux.home / ".shortcuts" / "shoal start").returncode == 0
    assert termux.run(termux.home / ".shortcuts" / "shoal stop").returncode == 0
    assert termux.called() == ["termux-wake-lock ", "profile", "termux-wake-lock ", "sv up shoal", "sv down shoal",
                               "termux-wake-unlock "]


def test_what_was_installed_is_removed(termux, binary):
    before = sorted(p for p in termux.home.parent.rglob("*") if p.is_file() and p != termux.calls)
    assert termux.run(binary, "service", "install", *UP).returncode == 0
    done = termux.run(binary, "service", "uninstall")
    assert done.returncode == 0 and "removed" in done.stdout
    assert sorted(p for p in termux.home.parent.rglob("*") if p.is_file() and p != termux.calls) == before
    assert "sv down shoal" in termux.called()
    assert "no service" in termux.run(binary, "service", "uninstall").stdout


def test_a_tool_that_is_missing_is_named(termux, binary):
    (termux.prefix / "bin" / "sv-enable").unlink()
    done = termux.run(binary, "service", "install", *UP)
    assert done.returncode == 1 and "by hand: sv-enable shoal" in done.stdout
    assert termux.service.exists()


def test_dry_run_writes_nothing(termux, binary):
    done = termux.run(binary, "service", "install", "--dry-run", "--kind", "systemd", *UP)
    assert done.returncode == 0 and "ExecStart=" in done.stdout and "systemctl --user enable" in done.stdout
    assert not (termux.home / ".config").exists() and termux.called() == []


def test_the_script_installs_all_of_it(termux, binary):
    build = pathlib.Path(binary).parent
    if build != ROOT / "build" / "release":
        pytest.skip("the script installs build/release")
    done = termux.run(ROOT / "scripts" / "termux.sh", "--no-build", *UP)
    assert done.returncode == 0, done.stdout + done.stderr
    called = termux.called()
    assert called[0] == "pkg upgrade -y" and called[1].startswith("pkg install -y clang ")
    assert "termux-services" in called[1] and "sv-enable shoal" in called
    installed = termux.prefix / "bin" / "shoal"
    assert str(installed) in termux.service.read_text()
    assert termux.run(installed, "--version").returncode == 0
    assert "wake lock" in done.stdout   # the doctor's table

    service = termux.service.read_text()   # an update keeps what the service was told
    termux.calls.write_text("")
    done = termux.run(ROOT / "scripts" / "termux.sh", "--no-build", "--no-packages")
    assert done.returncode == 0, done.stdout + done.stderr
    assert termux.service.read_text() == service and termux.called() == ["sv restart shoal"]

    done = termux.run(ROOT / "scripts" / "termux.sh", "--uninstall")
    assert done.returncode == 0 and not installed.exists() and not termux.service.exists()
    assert (termux.home / ".shoal" / "models").is_dir()


def test_the_script_is_for_termux_alone(termux):
    del termux.env["PREFIX"]
    done = termux.run(ROOT / "scripts" / "termux.sh")
    assert done.returncode == 1 and "this is for Termux" in done.stderr
