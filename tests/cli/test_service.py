"""`shoal service` and scripts/termux.sh in an imitated Termux (termux.py): a real runit runs what is written.

A test ends the node as Android's phantom process killer does. systemd and launchd are stand-ins that take their time.
"""
import os
import pathlib
import plistlib
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time

import pytest

from termux import KEEP_CHANGED, PACKAGES, Termux, await_true

ROOT = pathlib.Path(__file__).resolve().parents[2]
UP = ["--", "--name", "it's one", "--listen", "127.0.0.1", "--port", "0", "--net-port", "0", "--no-mdns"]


@pytest.fixture
def termux(runit):
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="sv") as folder:
        imitated = Termux(pathlib.Path(folder), runit)
        yield imitated
        imitated.end()


def files_of(termux):
    """What is there, but for the notes of the stand-ins and of runit."""
    return sorted(path for path in termux.folder.rglob("*")
                  if path.is_file() and path != termux.calls and path.parent.name != "run")


def state_of(termux):
    """What the node keeps, with the file that its end may add: addresses of others."""
    home = termux.home / ".shoal"
    return {path for path in files_of(termux) if home in path.parents} | {home / "peers.json"}


def test_a_phones_service_runs_dies_and_runs_again(termux, binary):
    done = termux.run(binary, "service", "install", *UP)
    assert done.returncode == 0 and "did not work" not in done.stdout, done.stdout
    assert "phantom" in done.stdout and "Termux:Boot" in done.stdout
    assert stat.S_IMODE(termux.service.stat().st_mode) == 0o755
    termux.await_node()
    assert termux.wake_lock.exists()
    name, node = re.findall(r"^ready name=(.+) id=(\S+)", termux.log.read_text(), re.M)[-1]
    assert name == "it's one"

    first = termux.pid()
    os.kill(first, signal.SIGKILL)   # the script became the node: this is its own process
    await_true(lambda: termux.pid() not in (None, first), "runit did not start it again")
    assert node[-12:] in termux.await_node(), "after a kill it is another node"

    second = termux.pid()
    shrunk = {min(os.sched_getaffinity(0))}   # Android: in the background only some cores are left
    for thread in os.listdir(f"/proc/{second}/task"):
        os.sched_setaffinity(int(thread), shrunk)
    assert node[-12:] in termux.await_node()


def test_installed_again_over_a_service_that_takes_long_to_stop(termux, binary):
    """Longer than the 7 s that sv waits by itself; runit runs already."""
    termux.service.parent.mkdir()
    termux.script(termux.service, "trap 'sleep 9; exit' TERM\nwhile :; do sleep 0.1; done")
    termux.start_daemon()
    await_true(termux.supervised, "runit does not see the service")
    await_true(termux.pid, "it does not run")
    earlier = termux.pid()
    time.sleep(2)  # sv takes one that began within this second for restarted
    done = termux.run(binary, "service", "install", *UP)
    assert done.returncode == 0 and "did not work" not in done.stdout, done.stdout
    assert termux.pid() not in (None, earlier)
    termux.await_node()


def test_shortcuts_and_boot_start_and_stop_it(termux, binary):
    """With the environment of the apps, in which nothing of the profile is set."""
    shortcuts = termux.home / ".shortcuts"
    assert termux.run(binary, "service", "install", *UP).returncode == 0
    assert termux.run(shortcuts / "shoal stop").returncode == 0
    assert termux.pid() is None and not termux.wake_lock.exists()
    assert termux.run(shortcuts / "shoal start").returncode == 0
    await_true(termux.pid, "the button started nothing")
    assert termux.wake_lock.exists()

    termux.end()   # the phone starts: runit's files are there, its processes are not
    assert termux.pid() is None
    assert termux.run(shortcuts / "shoal start").returncode == 0
    termux.await_node()
    termux.end()
    assert termux.run(termux.home / ".termux" / "boot" / "shoal").returncode == 0
    termux.await_node()


def test_what_was_installed_is_removed(termux, binary):
    before = files_of(termux)
    assert termux.run(binary, "service", "install", *UP).returncode == 0
    termux.await_node()
    node = termux.pid()
    state = state_of(termux)
    done = termux.run(binary, "service", "uninstall")
    assert done.returncode == 0 and "removed" in done.stdout and "did not work" not in done.stdout, done.stdout
    assert not pathlib.Path(f"/proc/{node}").exists()
    assert not termux.service.parent.exists() and not termux.wake_lock.exists()
    assert set(files_of(termux)) - state == set(before)
    assert termux.daemon_pid(), "runit is for other services too"
    assert "no service" in termux.run(binary, "service", "uninstall").stdout


def test_it_is_removed_where_runit_does_not_run(termux, binary):
    assert termux.run(binary, "service", "install", *UP).returncode == 0
    termux.end()
    done = termux.run(binary, "service", "uninstall")
    assert done.returncode == 0 and "did not work" not in done.stdout, done.stdout
    assert not termux.service.parent.exists()


def test_a_tool_that_is_missing_is_named(termux, binary):
    (termux.prefix / "bin" / "sv-enable").unlink()
    done = termux.run(binary, "service", "install", *UP)
    assert done.returncode == 1 and re.search("by hand: env SVDIR=.* sv-enable shoal", done.stdout)
    assert termux.service.exists()


def test_dry_run_writes_nothing(termux, binary):
    done = termux.run(binary, "service", "install", "--dry-run", "--kind", "systemd", *UP)
    assert done.returncode == 0 and "ExecStart=" in done.stdout and "systemctl --user enable" in done.stdout
    assert not (termux.home / ".config").exists() and termux.called() == []


def test_a_node_that_fails_at_start_fills_no_disk(binary, tmp_path):
    """A supervisor starts it again and again, here while another program has its port."""
    log = tmp_path / "shoal.log"
    log.write_bytes(b"x" * (1 << 20))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run([binary, "up", "--quiet", "--log-file", log, "--listen", "127.0.0.1", "--port",
                               str(taken.getsockname()[1]), "--net-port", "0", "--no-mdns"], timeout=60,
                              env={**os.environ, "SHOAL_HOME": str(tmp_path / "home")}, stdin=subprocess.DEVNULL)
    assert done.returncode != 0
    assert 0 < log.stat().st_size < 1 << 16 and (tmp_path / "shoal.log.1").stat().st_size == 1 << 20


def test_a_unit_that_stops_slowly_is_restarted(termux, binary):
    termux.stub("systemctl", 'case "$*" in *restart* | *--now*) sleep 4 ;; esac')
    done = termux.run(binary, "service", "install", "--kind", "systemd", *UP)
    assert done.returncode == 0 and "did not work" not in done.stdout, done.stdout
    done = termux.run(binary, "service", "uninstall", "--kind", "systemd")
    assert done.returncode == 0 and "did not work" not in done.stdout, done.stdout


def test_launchd_takes_a_new_definition(termux, binary):
    """A loaded label cannot be loaded again, and is loaded still while its process ends."""
    loaded, ending = termux.folder / "loaded", termux.folder / "ending"
    termux.stub("launchctl", f"""case $1 in
        bootstrap) [ ! -e {loaded} ] || exit 5; cp "$3" {loaded} ;;
        bootout)
          [ -e {loaded} ] || exit 3
          touch {ending}
          {{ sleep 4; rm {loaded} {ending}; }} >/dev/null & ;;
        *) exit 64 ;;
      esac""")
    assert termux.run(binary, "service", "install", "--kind", "launchd", "--", "--name", "one").returncode == 0
    done = termux.run(binary, "service", "install", "--kind", "launchd", "--", "--name", "two")
    assert done.returncode == 0 and "did not work" not in done.stdout, done.stdout
    assert "<string>two</string>" in loaded.read_text()
    assert termux.run(binary, "service", "uninstall", "--kind", "launchd").returncode == 0
    await_true(lambda: not loaded.exists(), "it is loaded still")


STRANGE = "it's <one> & 100% \"$HOME\" \\ %h"


def planned_file(binary, tmp_path, kind):
    done = subprocess.run([binary, "service", "install", "--dry-run", "--kind", kind, "--", "--name", STRANGE],
                          env={**os.environ, "SHOAL_HOME": str(tmp_path / "home")}, capture_output=True, text=True,
                          timeout=60, check=True)
    return re.search(r"^--- .*?\n(.*?)^run:", done.stdout, re.M | re.S).group(1)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here that could read it")
def test_systemd_reads_the_unit(binary, tmp_path):
    unit = tmp_path / "shoal.service"
    unit.write_text(planned_file(binary, tmp_path, "systemd"))

    def found():
        done = subprocess.run(["systemd-analyze", "verify", "--user", unit], capture_output=True, text=True, timeout=60,
                              env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)})
        return done.stdout + done.stderr if done.returncode == 0 else "failed: " + done.stderr

    assert found() == ""
    unit.write_text(unit.read_text().replace("Restart=always", "Restart=sometimes"))
    assert "Failed to parse service restart specifier" in found()


def test_the_property_list_of_launchd_says_what_was_asked(binary, tmp_path):
    told = plistlib.loads(planned_file(binary, tmp_path, "launchd").encode())
    assert told["Label"] == "shoal.node" and told["KeepAlive"] and told["RunAtLoad"]
    assert told["ProgramArguments"][:2] == [str(binary), "up"] and told["ProgramArguments"][-2:] == ["--name", STRANGE]
    assert told["EnvironmentVariables"]["SHOAL_HOME"] == str(tmp_path / "home")


@pytest.mark.parametrize("kind", ["launchd", "systemd"])
def test_homebrews_program_is_named_by_the_path_that_stays(binary, tmp_path, kind):
    cellar, opt = tmp_path / "Cellar" / "shoal" / "0.1.0", tmp_path / "opt" / "shoal"
    (cellar / "bin").mkdir(parents=True)
    try:
        os.link(binary, cellar / "bin" / "shoal")
    except OSError:   # another file system
        shutil.copy2(binary, cellar / "bin" / "shoal")

    def planned():
        return subprocess.run([cellar / "bin" / "shoal", "service", "install", "--dry-run", "--kind", kind],
                              env={**os.environ, "SHOAL_BACKENDS": str(pathlib.Path(binary).parent)},
                              capture_output=True, text=True, timeout=60, check=True).stdout

    assert f"{cellar}/bin/shoal" in planned()
    opt.parent.mkdir()
    opt.symlink_to(cellar)
    assert f"{opt}/bin/shoal" in planned() and f"{cellar}/bin/shoal" not in planned()


def test_the_script_installs_all_of_it(runit, binary):
    if pathlib.Path(binary).parent != ROOT / "build" / "release":
        pytest.skip("what is installed is build/release")
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="sv") as folder:
        termux = Termux(pathlib.Path(folder), runit, packages=["termux-tools"])
        try:
            script_on_a_fresh_phone(termux)
        finally:
            termux.end()


def script_on_a_fresh_phone(termux):
    script = ROOT / "scripts" / "termux.sh"
    done = termux.run(script, *UP)
    assert done.returncode == 0 and "did not work" not in done.stdout, done.stdout
    called = termux.called()
    packages = [line for line in called if line.startswith("pkg ")]
    assert packages[0] == f"pkg upgrade -y {KEEP_CHANGED}" and packages[1].startswith("pkg install -y clang ")
    assert packages[2:] == ["pkg install -y googletest"]   # ./dev asks for what only its tests need
    assert re.fullmatch("cmake --build --preset phone -j [12] --target shoal",
                        next(line for line in called if line.startswith("cmake --build")))
    assert f"cmake --build {ROOT}/build/phone --target sbom" in called
    installed = termux.prefix / "bin" / "shoal"
    assert str(installed) in termux.service.read_text()
    assert termux.run(installed, "--version").returncode == 0
    assert "wake lock" in done.stdout   # the doctor's table
    assert termux.wake_lock.exists() and "the app Termux:API" in done.stdout
    termux.await_node()

    service, first = termux.service.read_text(), termux.pid()   # an update keeps what the service was told
    termux.calls.write_text("")
    done = termux.run(script, "--no-build", "--no-packages")
    assert done.returncode == 0, done.stdout
    assert termux.service.read_text() == service and "sv restart shoal" in termux.called()
    assert termux.pid() not in (None, first)

    done = termux.run(script, "--uninstall")
    assert done.returncode == 0 and not installed.exists() and not termux.service.exists()
    assert (termux.home / ".shoal" / "models").is_dir()


def test_a_build_asks_termux_for_what_is_missing_and_no_more(runit):
    """Packages by the names that Termux has: `pkg` knows no others."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="sv") as folder:
        termux = Termux(pathlib.Path(folder), runit, packages=["termux-tools"])
        assert termux.run(ROOT / "dev", "build", "release", "shoal").returncode == 0
        asked = set(termux.called()[0].split()[3:])
        assert asked == set(PACKAGES) - {"termux-api", "termux-services", "termux-tools"}
        termux.calls.write_text("")
        assert termux.run(ROOT / "dev", "build", "release", "shoal").returncode == 0
        assert not [line for line in termux.called() if line.startswith("pkg")]
        assert termux.run("pkg", "install", "-y", "ninja-build").returncode == 100   # Debian's name


def test_the_wake_lock_of_a_build_is_given_back_unless_a_node_needs_it(termux, binary):
    script = ROOT / "scripts" / "termux.sh"
    termux.stub("cmake", f'case "$*" in *--build*) [ -e {termux.wake_lock} ] || echo unlocked; exit 3 ;; esac')
    done = termux.run(script, "--no-packages")
    assert done.returncode == 3 and "unlocked" not in done.stdout, done.stdout
    assert "termux-wake-lock " in termux.called() and not termux.wake_lock.exists()

    assert termux.run(binary, "service", "install", *UP).returncode == 0
    await_true(termux.wake_lock.exists, "the service took no wake lock")
    assert termux.run(script, "--no-packages").returncode == 3
    assert termux.wake_lock.exists() and termux.pid()


@pytest.mark.parametrize("program", ["gone", "broken"])
def test_the_script_removes_what_a_program_that_does_not_start_has_set_up(termux, binary, program):
    before = files_of(termux)
    assert termux.run(binary, "service", "install", *UP).returncode == 0
    termux.await_node()
    node = termux.pid()
    state = state_of(termux)
    if program == "broken":
        termux.script(termux.prefix / "bin" / "shoal", 'echo "CANNOT LINK EXECUTABLE" >&2; exit 1')
    done = termux.run(ROOT / "scripts" / "termux.sh", "--uninstall")
    assert done.returncode == 0 and "removed" in done.stdout, done.stdout
    assert not pathlib.Path(f"/proc/{node}").exists() and not termux.wake_lock.exists()
    assert not termux.service.parent.exists() and set(files_of(termux)) - state == set(before)


def test_the_script_is_for_termux_alone(termux):
    del termux.env["PREFIX"]
    done = termux.run(ROOT / "scripts" / "termux.sh")
    assert done.returncode == 1 and "this is for Termux" in done.stdout
