"""SHOAL_HOME survives what happens to disks: kill -9 at any instant, files that are broken, no room, no right to write.

Whatever happened, the next start either works or says which file is wrong; it never crashes."""
import os
import pathlib
import random
import resource
import shutil
import subprocess
import time

import pytest

import nodes

SEED = int(os.environ.get("SHOAL_TEST_SEED", "7"))
QUIET = ("--listen", "127.0.0.1", "--port", "0", "--no-mdns", "--speed-test", "off")


class Homes:
    """Starts the program in homes of its own; ends what it started."""

    def __init__(self, folder):
        self.folder, self._running = pathlib.Path(folder), []

    def run(self, home, *words, timeout=30):
        return subprocess.run([nodes.BINARY, *words], capture_output=True, text=True, timeout=timeout,
                              stdin=subprocess.DEVNULL, env={**os.environ, "SHOAL_HOME": str(home)})

    def spawn(self, home, *words):
        log = open(self.folder / (pathlib.Path(home).name + ".log"), "w+")
        process = subprocess.Popen([nodes.BINARY, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   env={**os.environ, "SHOAL_HOME": str(home)})
        process.log = log
        self._running.append(process)
        return process

    def output(self, process):
        return pathlib.Path(process.log.name).read_text(errors="replace")

    def up(self, home, *words):
        """`shoal up`, which must become ready."""
        process = self.spawn(home, "up", *QUIET, *words)
        assert self.settles(process) == "ready", f"{process.poll()}: {self.output(process)}"
        return process

    def settles(self, process, timeout_s=20):
        """"ready", or the exit code."""
        def state():
            return "ready" if "ready " in self.output(process) else process.poll()
        return nodes.wait_for("it is ready or has ended", lambda: (state(),) if state() is not None else None,
                              timeout_s)[0]

    @staticmethod
    def end(process):
        if process.poll() is None:
            process.kill()
        process.wait()
        process.log.close()

    def close(self):
        for process in self._running:
            if not process.log.closed:
                self.end(process)


@pytest.fixture
def homes(tmp_path):
    made = Homes(tmp_path)
    yield made
    made.close()


def kill_after(homes, process, seconds):
    time.sleep(seconds)
    homes.end(process)


@pytest.mark.unsanitized
def test_killed_at_any_instant_it_starts_again(homes, tmp_path):
    rng = random.Random(SEED)
    owner, member = tmp_path / "owner", tmp_path / "member"
    started = time.monotonic()
    homes.end(homes.up(owner))
    start_s = time.monotonic() - started
    shutil.rmtree(owner)
    for _ in range(15):  # the very first starts, and later ones
        kill_after(homes, homes.spawn(owner, "up", *QUIET), rng.uniform(0, 1.2 * start_s))
        if rng.random() < 0.4:
            shutil.rmtree(owner, ignore_errors=True)
    running = homes.up(owner)
    known = (owner / "node.key").read_bytes()

    for _ in range(12):  # joining, then leaving, both cut short
        invite = homes.run(owner, "invite", "--json")
        assert invite.returncode == 0, invite.stderr
        code = invite.stdout.split('"code"')[1].split('"')[1]
        address = invite.stdout.split('"addresses"')[1].split('"')[1]
        kill_after(homes, homes.spawn(member, "join", code, "--peer", address), rng.uniform(0, 0.25))
        homes.end(homes.up(member))
        kill_after(homes, homes.spawn(member, "leave"), rng.uniform(0, 0.1))
        homes.end(homes.up(member))

    for _ in range(8):  # throwing somebody out: the word of it is whole, or was not said
        invite = homes.run(owner, "invite", "--json")
        other = homes.folder / f"other-{rng.random()}"
        code = invite.stdout.split('"code"')[1].split('"')[1]
        address = invite.stdout.split('"addresses"')[1].split('"')[1]
        assert homes.run(other, "join", code, "--peer", address).returncode == 0
        guest = homes.up(other, "--peer", address)
        guest_id = homes.output(guest).split(" id=")[1].split()[0]
        revoking = homes.spawn(owner, "revoke", guest_id)
        kill_after(homes, running, rng.uniform(0, 0.15))
        homes.end(revoking)
        homes.end(guest)
        running = homes.up(owner)
    assert (owner / "node.key").read_bytes() == known, "it is still the same node"
    assert not list(owner.glob("*.new")) or homes.settles(running) == "ready"


def damages(path):
    whole = path.read_bytes()

    def folder():
        path.unlink()
        path.mkdir()

    return {
        "cut": lambda: path.write_bytes(whole[: len(whole) // 2]),
        "empty": lambda: path.write_bytes(b""),
        "other": lambda: path.write_bytes(random.Random(SEED).randbytes(max(len(whole), 40))),
        "huge": lambda: path.write_bytes(b"7" * (4 << 20)),
        "a folder": folder,
        "gone": path.unlink,
    }


def test_a_broken_file_is_named_or_mended(homes, tmp_path):
    owner, guest, sound = tmp_path / "owner", tmp_path / "guest", tmp_path / "sound"
    running = homes.up(owner)
    invite = homes.run(owner, "invite", "--json")
    code = invite.stdout.split('"code"')[1].split('"')[1]
    address = invite.stdout.split('"addresses"')[1].split('"')[1]
    assert homes.run(guest, "join", code, "--peer", address).returncode == 0
    second = homes.up(guest, "--peer", address)
    nodes.wait_for("both know each other",
                   lambda: homes.run(owner, "status", "--json").stdout.count('"alive"') == 2)
    guest_id = homes.output(second).split(" id=")[1].split()[0]
    assert homes.run(owner, "revoke", guest_id).returncode == 0
    running.terminate()
    running.wait(15)
    homes.end(running)
    files = sorted(p.name for p in owner.iterdir() if p.is_file())
    assert {"node.key", "cluster.key", "certificate", "cluster.secret", "revocations", "incarnation", "serial",
            "lock"} <= set(files), files
    shutil.copytree(owner, sound, ignore=lambda _, names: [n for n in names if n.endswith(".sock")])
    seen = {}
    for name in files:
        if name.endswith(".log") or name == "control.sock":
            continue
        for damage, apply in damages(sound / name).items():
            shutil.rmtree(owner)
            shutil.copytree(sound, owner)
            damages(owner / name)[damage]()
            process = homes.spawn(owner, "up", *QUIET)
            result, said = homes.settles(process), homes.output(process)
            homes.end(process)
            seen[name, damage] = result
            if result == "ready":
                continue
            assert result > 0 and result < 128, f"{name}, {damage}: {result}: {said}"
            assert name in said, f"{name}, {damage}: {said}"
    for name in ("node.key", "certificate", "cluster.secret"):
        assert all(seen[name, damage] != "ready" for damage in ("cut", "empty", "other")), seen
    for name in ("lock", "peers.json"):
        kinds = [result for (file, damage), result in seen.items() if file == name and damage != "a folder"]
        assert all(result == "ready" for result in kinds), seen


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(folder)],
                          capture_output=True, text=True)
    if made.returncode:
        pytest.skip("no file system can be mounted here: " + made.stderr.strip())
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    filler = os.open(folder / "filler", os.O_WRONLY | os.O_CREAT)
    try:
        while os.write(filler, b"x" * 4096):
            pass
    except OSError:
        pass
    os.close(filler)


def test_a_full_disk_is_said_and_loses_nothing(homes, small_disk):
    home = small_disk / "home"
    fill(small_disk)
    process = homes.spawn(home, "up", *QUIET)
    assert homes.settles(process) not in ("ready", 0)
    assert "No space left" in homes.output(process) and "free some space" in homes.output(process)
    homes.end(process)
    (small_disk / "filler").unlink()
    homes.end(homes.up(home))
    before = {p.name: p.read_bytes() for p in home.iterdir() if p.is_file()}
    fill(small_disk)
    process = homes.spawn(home, "up", *QUIET)
    assert homes.settles(process) not in ("ready", 0)
    assert "No space left" in homes.output(process)
    homes.end(process)
    (small_disk / "filler").unlink()
    after = {p.name: p.read_bytes() for p in home.iterdir() if p.is_file()}
    assert {n: b for n, b in after.items() if n != "lock"} == {n: b for n, b in before.items() if n != "lock"}
    homes.end(homes.up(home))


def test_a_disk_that_cannot_be_written_is_said(homes, small_disk):
    home = small_disk / "home"
    homes.end(homes.up(home))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    process = homes.spawn(home, "up", *QUIET)
    assert homes.settles(process) not in ("ready", 0)
    assert "Read-only file system" in homes.output(process) and "SHOAL_HOME" in homes.output(process)
    homes.end(process)


@pytest.fixture
def node_with_model(homes, tmp_path, smollm2):
    """A node that holds a copy of the model, which a test may break; its home, the copy, the process."""
    home, models = tmp_path / "node", tmp_path / "models"
    models.mkdir()
    copy = models / "smollm2.gguf"
    shutil.copyfile(smollm2, copy)
    process = homes.up(home, "--models", str(models))
    return home, copy, process


def place_fails(homes, home, *parts):
    done = homes.run(home, "place", "smollm2", "--stages", "1", timeout=60)
    assert done.returncode not in (0, None) and done.returncode > 0, done.stdout + done.stderr
    said = done.stderr.lower()
    assert any(part in said for part in parts), done.stderr
    status = homes.run(home, "status", "--json")
    assert status.returncode == 0 and '"live"' not in status.stdout, "nothing is half loaded"


@pytest.mark.parametrize("damage", ["cut", "gone", "other", "zeros"])
def test_a_model_file_that_breaks_before_it_is_loaded(homes, node_with_model, smollm2, damage):
    """The node knows it by its header; what is there when it loads is another matter. It says so, and goes on."""
    home, copy, process = node_with_model
    whole = copy.stat().st_size
    {"cut": lambda: os.truncate(copy, whole // 2), "gone": copy.unlink,
     "other": lambda: copy.write_bytes(b"GGUF" + b"\x07" * 1000),
     "zeros": lambda: copy.write_bytes(b"\0" * whole)}[damage]()
    place_fails(homes, home, "smollm2")
    assert process.poll() is None, homes.output(process)
    shutil.copyfile(smollm2, copy)
    nodes.wait_for("it is placed once its file is whole again",
                   lambda: homes.run(home, "place", "smollm2", "--stages", "1", timeout=60).returncode == 0)


@pytest.mark.unsanitized
def test_memory_that_ends_while_a_stage_loads(homes, node_with_model):
    home, _, process = node_with_model
    pages = int(pathlib.Path(f"/proc/{process.pid}/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + (60 << 20)  # for threads and buffers, not for a stage
    resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    place_fails(homes, home, "memory", "allocat")
    assert process.poll() is None, homes.output(process)
    resource.prlimit(process.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    done = homes.run(home, "place", "smollm2", "--stages", "1", timeout=60)
    assert done.returncode == 0, done.stderr
