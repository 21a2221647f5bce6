"""A phone's Termux imitated: a prefix and a home like Termux's, with the commands that Termux brings and its packages.

runit (runsvdir, runsv, sv), start-stop-daemon and the basic commands are Debian's own. termux-services' scripts around
them, pkg and the wake lock are stand-ins that do what Termux's do as far as shoal meets it; compilers are names alone.
They note what they were asked.
"""
import os
import pathlib
import shutil
import signal
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
HANG_S = 60
# Of what a fresh Termux has, what the scripts and the stand-ins use.
BASE = ["awk", "bash", "cat", "chmod", "cp", "cut", "dirname", "env", "grep", "head", "ls", "mkdir", "mv", "rm", "sed",
        "sh", "sleep", "sort", "start-stop-daemon", "touch", "tr", "uname"]
KEEP_CHANGED = "-o Dpkg::Options::=--force-confold"
# Every package that the scripts may ask for, under its name in Termux's package tree, and what the scripts look for in
# it. runit is what termux-services depends on.
PACKAGES = {
    "ccache": ["bin/ccache"],
    "clang": ["bin/clang++"],
    "cli11": ["include/CLI/CLI.hpp"],
    "cmake": ["bin/cmake"],
    "git": ["bin/git"],
    "googletest": ["include/gmock/gmock.h"],
    "libandroid-spawn": ["include/spawn.h"],
    "ninja": ["bin/ninja"],
    "openssl": ["include/openssl/ssl.h"],
    "python": ["bin/python", "bin/python3"],
    "python-pip": ["lib/pip"],
    "rust": ["bin/cargo"],
    "termux-api": ["bin/termux-battery-status"],
    "termux-services": ["bin/runsv", "bin/runsvdir", "bin/sv", "bin/sv-disable", "bin/sv-enable", "bin/service-daemon",
                        "etc/profile.d/start-services.sh"],
    "termux-tools": ["bin/termux-wake-lock", "bin/termux-wake-unlock", "bin/pkg"],
}


class Termux:
    """Below `folder`, whose path must be short: that of the control socket has room for about 100 bytes. `runit` is the
    folder of its programs. The session's environment is as before termux-services was installed: without SVDIR."""

    def __init__(self, folder, runit, packages=tuple(PACKAGES)):
        self.folder, self.runit = folder, runit
        self.prefix = folder / "com.termux" / "usr"
        self.home = folder / "home"
        self.calls = folder / "calls"
        self.wake_lock = folder / "wake-lock"
        self.log = self.home / ".shoal" / "shoal.log"
        self.services = self.prefix / "var" / "service"
        self.service = self.services / "shoal" / "run"
        self.env = {"PREFIX": str(self.prefix), "HOME": str(self.home), "LANG": "C.UTF-8",
                    "PATH": str(self.prefix / "bin"), "SHOAL_SPEED_TEST": "off"}
        for made in (self.prefix / "bin", self.prefix / "etc" / "profile.d", self.services, self.home):
            made.mkdir(parents=True)
        self.calls.touch()
        for name in BASE:
            (self.prefix / "bin" / name).symlink_to(shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin"))
        self.script(self.prefix / "bin" / "getconf", "echo 8")   # cores
        (self.prefix / "etc" / "profile").write_text('for part in "$PREFIX"/etc/profile.d/*.sh; do . "$part"; done\n')
        for package, names in PACKAGES.items():
            for name in names:
                self.put(folder / "packages" / package / name)
        for package in packages:
            shutil.copytree(folder / "packages" / package, self.prefix, symlinks=True, dirs_exist_ok=True)

    def script(self, path, text):
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def stub(self, name, text=""):
        """A stand-in in the prefix in place of what was there."""
        path = self.prefix / "bin" / name
        path.unlink(missing_ok=True)
        self.script(path, f'echo "{name} $*" >>{self.calls}\n{text}')

    def put(self, path):
        """One file of a package."""
        path.parent.mkdir(parents=True, exist_ok=True)
        needs_folder = '[ -n "$SVDIR" ] || { echo "SVDIR not set" >&2; exit 1; }\n'
        real = shutil.which("cmake")
        texts = {
            "cargo": "echo cargo 1.99.0",
            # Of what was asked for this machine's program is installed.
            "cmake": f"""[ "$1" = --install ] || exit 0
                [ "$2" = {ROOT}/build/phone ] || {{ echo "E: $2 was not built" >&2; exit 1; }}
                shift 2
                exec {real} --install {ROOT}/build/release "$@\"""",
            # An upgrade that asks about a changed configuration file waits for ever.
            "pkg": f"""case $1 in
                  upgrade) [ "$*" = "upgrade -y {KEEP_CHANGED}" ]; exit ;;
                  install) shift ;;
                  *) exit 0 ;;
                esac
                for name; do
                  [ "$name" != -y ] || continue
                  [ -d "{self.folder}/packages/$name" ] || {{ echo "E: Unable to locate package $name" >&2; exit 100; }}
                  cp -a "{self.folder}/packages/$name/." "{self.prefix}"
                done""",
            "python": f'[ "$2" != "import pip" ] || [ -e {self.prefix}/lib/pip ]',
            "service-daemon": f"""[ "$1" = start ] || exit 1
                cd {self.prefix} && mkdir -p var/run
                exec start-stop-daemon --start --background --make-pidfile --pidfile $PWD/var/run/runsvdir.pid \\
                  --exec $PWD/bin/runsvdir --chdir $PWD -- "$SVDIR\"""",
            "sv": f'exec {self.runit}/sv "$@"',
            "sv-disable": needs_folder + f'touch "$SVDIR/$1/down"; exec {self.runit}/sv down "$1"',
            "sv-enable": needs_folder + f'rm -f "$SVDIR/$1/down"; exec {self.runit}/sv up "$1"',
            "termux-wake-lock": f"touch {self.wake_lock}",
            "termux-wake-unlock": f"rm -f {self.wake_lock}",
        }
        if path.name in ("runsv", "runsvdir"):
            path.symlink_to(self.runit / path.name)
        elif path.name == "start-services.sh":
            path.write_text('export SVDIR="$PREFIX/var/service"\nservice-daemon start >/dev/null 2>&1 &\n')
        elif path.parent.name == "bin":
            self.script(path, f'echo "{path.name} $*" >>{self.calls}\n' + texts.get(path.name, ""))
        else:
            path.touch()

    def called(self):
        """What the stand-ins were asked, one line each."""
        return self.calls.read_text().splitlines()

    def run(self, *command, **more):
        more = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL, **more}
        return subprocess.run([str(word) for word in command], env=self.env, text=True, timeout=HANG_S, **more)

    def start_daemon(self):
        """As a new session does."""
        assert self.run(self.prefix / "bin" / "bash", "-c", ". $PREFIX/etc/profile; wait").returncode == 0
        assert self.daemon_pid()

    def daemon_pid(self):
        """Of runsvdir; None where it does not run."""
        path = self.prefix / "var" / "run" / "runsvdir.pid"
        if not path.exists() or not alive(int(path.read_text())):
            return None
        return int(path.read_text())

    def pid(self):
        """Of the service's process; None where it does not run."""
        path = self.services / "shoal" / "supervise" / "pid"
        text = path.read_text().strip() if path.exists() else ""
        return int(text) if text and alive(int(text)) else None

    def supervised(self):
        """Whether a runsv looks after the service: one that ended leaves the file, but nobody reads it."""
        try:
            os.close(os.open(self.services / "shoal" / "supervise" / "ok", os.O_WRONLY | os.O_NONBLOCK))
            return True
        except OSError:
            return False

    def await_node(self):
        """What `shoal status` of the home screen says once the node answers."""
        done = None

        def answers():
            nonlocal done
            done = self.run(self.home / ".shortcuts" / "shoal status", stderr=subprocess.PIPE)
            return bool(done.stdout.strip())

        await_true(answers, "the node does not answer", lambda: done.stderr + self.log.read_text())
        return done.stdout

    def end(self):
        """All that runs here: first what would start a runsv again."""
        if daemon := self.daemon_pid():
            os.kill(daemon, signal.SIGTERM)
            await_true(lambda: not self.daemon_pid(), "runsvdir goes on")
        if self.supervised():
            self.run(self.runit / "sv", "-w", str(HANG_S // 2), "shutdown", self.services / "shoal")
            await_true(lambda: not self.supervised(), "runsv goes on")


def alive(pid):
    """Whether it runs; not where it has ended and nobody has asked how."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def await_true(condition, else_say, details=lambda: ""):
    deadline = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < deadline, f"{else_say}: {details()}"
        time.sleep(0.05)
