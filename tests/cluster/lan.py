"""A LAN on one machine: hosts are network namespaces, the wire between them is shoal_test_switch.

A namespace lives as long as a small process that waits for its standard input to end, and so does the switch: when this
process dies, however it dies, nothing of the LAN stays. Knows nothing of shoal but the path of the switch; nodes.py
starts nodes on hosts.
"""
import contextlib
import ctypes
import dataclasses
import itertools
import json
import os
import pathlib
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEVICE = "eth0"
CLONE_NEWNET = 0x40000000
INSIDE = "SHOAL_INSIDE_USER_NAMESPACE"
_libc = ctypes.CDLL(None, use_errno=True)


def switch_program():
    """The switch that was built with the shoal that is tested; SHOAL_TEST_SWITCH names another."""
    shoal = pathlib.Path(os.environ.get("SHOAL_BINARY", ROOT / "build/release/shoal"))
    return os.environ.get("SHOAL_TEST_SWITCH", str(shoal.parent / "tests/cluster/shoal_test_switch"))


def cpu_s(pid):
    """The processor time that a process took so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def why_not():
    """Why no LAN can be made here; None when it can."""
    for tool in ("ip", "unshare", "nsenter"):
        if not shutil.which(tool):
            return f"the program {tool} is not installed"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun is absent or forbidden"
    tried = subprocess.run(["unshare", "--net", "ip", "tuntap", "add", "t0", "mode", "tap"], capture_output=True,
                           text=True)
    if tried.returncode:
        return "no network namespace with a device of its own can be made: " + tried.stderr.strip()
    return None


def user_namespace_works():
    """Whether someone who is not root could be root in a namespace of their own."""
    tried = subprocess.run(["unshare", "-Urn", "sh", "-c", "unshare --net ip tuntap add t0 mode tap"],
                           capture_output=True)
    return tried.returncode == 0


def enter_user_namespace(*words, before=None):
    """Who is not root but may make user namespaces: runs `python words` in place of this program, as root in one.

    Calls `before` when it does that."""
    if why_not() is None or INSIDE in os.environ or not user_namespace_works():
        return
    if before:
        before()
    os.environ[INSIDE] = "1"
    os.execvp("unshare", ["unshare", "-Urn", sys.executable, *words])


def _enter(path):
    with open(path) as namespace:
        if _libc.setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns " + path)


class Switch:
    """The process between the hosts."""

    def __init__(self, folder, seed=1):
        program = switch_program()
        self.path = str(pathlib.Path(folder) / "switch.sock")
        self.process = subprocess.Popen([program, self.path, str(seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"ready\n", f"{program} did not start"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        self._socket.connect(self.path)
        self._lines = self._socket.makefile("rw")
        self._lock = threading.Lock()

    def command(self, **words):
        with self._lock:
            self._lines.write(json.dumps(words) + "\n")
            self._lines.flush()
            answer = json.loads(self._lines.readline())
        assert answer.pop("ok"), f"{words}: {answer['error']}"
        return answer

    def cpu_s(self):
        """The processor time it took so far."""
        return cpu_s(self.process.pid)

    def close(self):
        self._lines.close()
        self._socket.close()
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclasses.dataclass
class Link:
    """What one directed link carried and dropped."""
    frames: int
    bytes: int
    lost: int
    cut: int
    multicast: int
    full: int
    duplicated: int
    reordered: int
    queued_bytes: int
    late_ns: int


class Host:
    """A network namespace with one device on the switch. `ipv4` and `ipv6` are None where it has no such address."""

    def __init__(self, lan, name, ipv4, ipv6):
        self.lan, self.name, self.ipv4, self.ipv6 = lan, name, ipv4, ipv6
        self._holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo ready; exec cat"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdout.readline() == b"ready\n", "unshare --net failed"
        self._doors = []

    @property
    def netns(self):
        return f"/proc/{self._holder.pid}/ns/net"

    def plug(self, offload):
        """Connects the device and sets the addresses."""
        self.run("ip", "link", "set", "lo", "up")
        sysctl = "/proc/sys/net/ipv6/conf"
        if pathlib.Path(sysctl).exists():
            # An address is of use at once, without a second of asking whether somebody else has it.
            self.run("sh", "-c", f"echo 0 >{sysctl}/default/accept_dad; echo 0 >{sysctl}/default/dad_transmits")
            if not self.ipv6:
                self.run("sh", "-c", f"echo 1 >{sysctl}/default/disable_ipv6")
        self.lan.switch.command(op="add_port", name=self.name, netns=self.netns, device=DEVICE, offload=offload)
        self.run("ip", "link", "set", DEVICE, "up")
        if self.ipv4:
            self.run("ip", "addr", "add", self.ipv4 + "/24", "brd", "+", "dev", DEVICE)
        if self.ipv6:
            self.run("ip", "addr", "add", self.ipv6 + "/64", "dev", DEVICE, "nodad")

    def move(self, ipv4=None, ipv6=None):
        """Gives the device other addresses, as a phone that roams; an address that is left out goes away."""
        self.run("ip", "addr", "flush", "dev", DEVICE, "scope", "global")
        if ipv4:
            self.run("ip", "addr", "add", ipv4 + "/24", "brd", "+", "dev", DEVICE)
        if ipv6:
            self.run("ip", "addr", "add", ipv6 + "/64", "dev", DEVICE, "nodad")
        self.ipv4, self.ipv6 = ipv4, ipv6

    def command(self, *words):
        """The words that run `words` on this host."""
        return ["nsenter", f"--net={self.netns}", "--", *map(str, words)]

    def run(self, *words, check=True, timeout=60, **options):
        """Runs a program on this host to its end."""
        done = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=timeout, **options)
        assert not check or done.returncode == 0, f"{self.name}: {words}: {done.stdout}{done.stderr}"
        return done

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM):
        """A socket of this host's network that this process may use."""
        made = []

        def make():
            try:
                _enter(self.netns)
                made.append(socket.socket(family, kind))
            except OSError as error:
                made.append(error)

        thread = threading.Thread(target=make)  # the namespace is a thread's, and goes with it
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        return made[0]

    def connect(self, port, address="127.0.0.1", timeout_s=10):
        """A TCP connection from this host."""
        connection = self.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        connection.settimeout(timeout_s)
        try:
            connection.connect((address, port))
        except OSError:
            connection.close()
            raise
        return connection

    def door(self, port):
        """A port of 127.0.0.1 of this process's own network that leads to that port of 127.0.0.1 on this host."""
        door = Door(self, port)
        self._doors.append(door)
        return door.port

    def close(self):
        for door in self._doors:
            door.close()
        self._holder.stdin.close()
        self._holder.wait(5)
        self._holder.stdout.close()


class Door:
    """Carries connections from this process's network into a host's; for clients that make their own sockets."""

    def __init__(self, host, port):
        self._host, self._to = host, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                outside, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(outside,), daemon=True).start()

    def _carry(self, outside):
        with contextlib.suppress(OSError), outside, self._host.connect(self._to) as inside:
            inside.settimeout(None)
            for end in (outside, inside):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with selectors.DefaultSelector() as ready:
                ready.register(outside, selectors.EVENT_READ, inside)
                ready.register(inside, selectors.EVENT_READ, outside)
                while ready.get_map():
                    for key, _ in ready.select():
                        data = key.fileobj.recv(65536)
                        if data:
                            key.data.sendall(data)
                            continue
                        ready.unregister(key.fileobj)
                        if key.fileobj is inside:
                            return  # nobody is left to answer
                        inside.shutdown(socket.SHUT_WR)

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class Lan:
    """Hosts on one switch. A context manager: at its end everything it started is gone."""

    def __init__(self, ipv4=True, ipv6=True, offload=True, delay_us=0, seed=1):
        """`offload`: TCP's segments of up to 64 KiB pass as one frame; without it frames have at most 1,514 bytes."""
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="shoal-lan-"))
        self.hosts, self._closing = {}, []
        self._ipv4, self._ipv6, self._offload = ipv4, ipv6, offload
        self._numbers = itertools.count(1)
        try:
            self.switch = Switch(self.folder, seed)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        if delay_us:
            self.link("*", "*", delay_us=delay_us)

    def add_host(self, name=None, ipv4=None, ipv6=None):
        number = next(self._numbers)
        name = name or f"h{number}"
        host = Host(self, name, (ipv4 or f"10.77.0.{number}") if self._ipv4 else None,
                    (ipv6 or f"fd77::{number}") if self._ipv6 else None)
        self.hosts[name] = host
        host.plug(self._offload)
        return host

    def add_hosts(self, count):
        return [self.add_host() for _ in range(count)]

    def link(self, a, b, **settings):
        """Changes the link from a to b, hosts or "*". Settings: LinkSettings of switch/fabric.h."""
        self.switch.command(op="link", **{"from": getattr(a, "name", a), "to": getattr(b, "name", b)}, **settings)

    def between(self, a, b, **settings):
        """Changes the link of both directions."""
        self.link(a, b, **settings)
        self.link(b, a, **settings)

    def cut(self, some, others, cut=True):
        """Parts the hosts in `some` from those in `others`; cut=False joins them again."""
        for a in some:
            for b in others:
                self.between(a, b, cut=cut)

    def links(self):
        """Link counters by the names (from, to)."""
        found = self.switch.command(op="stats")["links"]
        return {(link.pop("from"), link.pop("to")): Link(**link) for link in found}

    def at_end(self, call):
        """Calls `call` before the hosts go."""
        self._closing.append(call)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        errors = []
        for close in [*reversed(self._closing), *(host.close for host in self.hosts.values()), self.switch.close]:
            try:
                close()
            except (OSError, subprocess.SubprocessError) as error:
                errors.append(error)
        shutil.rmtree(self.folder, ignore_errors=True)
        if errors:
            raise errors[0]
