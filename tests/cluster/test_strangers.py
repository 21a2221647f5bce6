"""What someone without a right to it gets out of a node, and what a member gets by breaking the rules: the real program
against shoal_stranger, a libp2p client of its own that shares no code with it (tests/strangers/).

docs/security.md says in words what is shown here.
"""
import contextlib
import http.client
import json
import os
import pathlib
import selectors
import socket
import statistics
import sys
import threading
import time

import pytest

import lan as lans
import nodes
import streams

NO_CERTIFICATE, FORGED, OTHER_CLUSTER, EXPIRED, REVOKED, JOIN_CLOSED, MALFORMED = 1, 2, 3, 4, 5, 6, 8
HANDSHAKE_BYTES_MAX = 1024  # what Noise itself and a refusal take on the wire, with room
GROWTH_BYTES_MAX = 20 << 20
FLOOD = 10_000
PY_LIBP2P = lans.ROOT / "tests/strangers/py_libp2p.py"


def stranger_program():
    """The stranger that was built with the shoal that is tested; SHOAL_TEST_STRANGER names another."""
    beside = pathlib.Path(nodes.BINARY).parent / "cargo/release/examples/shoal_stranger"
    return os.environ.get("SHOAL_TEST_STRANGER", str(beside))


class Stranger:
    """shoal_stranger on a host, with keys and certificates in a folder of its own."""

    def __init__(self, host, folder):
        self.host, self.folder = host, pathlib.Path(folder)
        self.folder.mkdir()
        self.key = self.new_key("stranger")

    def new_key(self, name):
        path = self.folder / f"{name}.key"
        path.write_bytes(os.urandom(32))
        return path

    def __call__(self, mode, *address, timeout=60, **words):
        given = [word for name, value in words.items() for word in ("--" + name.replace("_", "-"), value)]
        done = self.host.run(stranger_program(), mode, *address, *given, timeout=timeout)
        return json.loads(done.stdout)

    def issue(self, name, **words):
        """A certificate, by default for this stranger's key, that the caller's `signer` signs."""
        path = self.folder / name
        words = {"member": self.key, "serial": 1 << 40, "expires": 1 << 40, **words}
        self("issue", out=path, **words)
        return path


class Cluster:
    """Two members on two hosts, a third host for the stranger, and what the stranger could have come by."""

    def __init__(self, lan, model):
        self.lan = lan
        first, second, third = lan.add_hosts(3)
        self.members = nodes.cluster_on([first, second], models=[model])
        self.owner, self.other = self.members
        self.port = self.owner.net_port()
        self.address = f"{first.ipv4}:{self.port}"
        self.stranger = Stranger(third, lan.folder / "stranger")

    def join_by_hand(self, name):
        """The home of a member that never runs."""
        home = self.lan.folder / name
        code = self.owner.invite()["code"]
        self.stranger.host.run(nodes.BINARY, "join", code, "--peer", self.address, "--name", name,
                               env={**os.environ, "SHOAL_HOME": str(home)})
        return home

    def show(self, certificate=None, key=None):
        words = {"certificate": certificate} if certificate else {}
        return self.stranger("show", self.address, key=key or self.stranger.key, **words)

    def flood(self, seed):
        """A flood that has not begun yet, and what the stranger saw of it in the end."""
        seen = {}
        return threading.Thread(target=lambda: seen.update(
            self.stranger("flood", self.address, count=FLOOD, wave=500, hold_ms=50, seed=seed))), seen

    def well(self):
        return all(node.process.poll() is None for node in self.members) and nodes.all_alive(self.members)


def descriptors(node):
    return len(os.listdir(f"/proc/{node.process.pid}/fd"))


@pytest.fixture(scope="module")
def cluster(namespaces, smollm2):
    if not os.access(stranger_program(), os.X_OK):
        pytest.fail(f"{stranger_program()} is absent: the build makes it with the tests")
    with lans.Lan(delay_us=1000) as lan:
        yield Cluster(lan, smollm2)


@pytest.fixture(autouse=True)
def both_members_are_well_afterwards(cluster):
    before = [node.process.pid for node in cluster.members]
    yield
    nodes.wait_for("both members are alive and see each other", cluster.well)
    assert [node.process.pid for node in cluster.members] == before


def assert_refused(seen, reason):
    assert not seen["let_in"]
    assert seen["reason"] == reason and seen["closed"], seen
    assert seen["plain_bytes"] == 5, "the refusal and not a byte more"
    assert seen["wire_bytes"] < HANDSHAKE_BYTES_MAX, "no more than a handshake"


def test_a_good_certificate_lets_in(cluster):
    """What keeps the refusals below from meaning nothing: the same client, given a certificate, is served."""
    home = cluster.join_by_hand("guest")
    seen = cluster.show(home / "certificate", home / "node.key")
    assert seen["let_in"] and "shoal" in seen["agent"]
    assert seen["peer"] == cluster.owner.node_id()


def test_an_independent_libp2p_is_served_with_a_certificate_and_refused_without(cluster):
    python = os.environ.get("SHOAL_TEST_LIBP2P_PYTHON")
    if not python:
        pytest.skip("SHOAL_TEST_LIBP2P_PYTHON names no python with py-libp2p; ./dev test installs one")
    home = cluster.join_by_hand("snake")
    address = f"/ip4/{cluster.owner.host.ipv4}/tcp/{cluster.port}/p2p/{cluster.owner.node_id()}"

    def meet(*files):
        return json.loads(cluster.stranger.host.run(python, PY_LIBP2P, address, *files).stdout)

    seen = meet(home / "node.key", home / "certificate")
    assert seen["let_in"] and seen["round_trips"] == 3 and "shoal" in seen["agent"]
    assert meet(home / "node.key") == {"let_in": False, "reason": NO_CERTIFICATE}


def test_bad_certificates_are_refused(cluster):
    stranger, owner_key = cluster.stranger, cluster.owner.home / "cluster.key"
    forger = stranger.new_key("forger")
    assert_refused(cluster.show(), NO_CERTIFICATE)
    assert_refused(cluster.show(stranger.issue("forged", signer=forger, names=owner_key)), FORGED)
    assert_refused(cluster.show(stranger.issue("another-cluster", signer=forger)), OTHER_CLUSTER)
    expired = stranger.issue("expired", signer=owner_key, expires=int(time.time()) - 1)
    assert_refused(cluster.show(expired), EXPIRED)
    stolen = cluster.other.home / "certificate"  # members show theirs to whom they dial: no secret
    assert_refused(cluster.show(stolen), FORGED)


def test_a_revoked_key_is_refused_everywhere(cluster):
    home = cluster.join_by_hand("lost")
    lost = {"certificate": home / "certificate", "key": home / "node.key"}
    seen = cluster.show(**lost)
    assert seen["let_in"]
    known = cluster.stranger("id", key=home / "node.key")["id"]
    cluster.owner.cli("revoke", known)
    assert_refused(cluster.show(**lost), REVOKED)
    there = f"{cluster.other.host.ipv4}:{cluster.other.net_port()}"
    nodes.wait_for("the other member has heard of it",
                   lambda: not cluster.stranger("show", there, **lost)["let_in"])


@pytest.mark.parametrize("who", ["stranger", "member"])
def test_malformed_gate_messages_are_refused(cluster, who):
    if who == "member":  # each byte but the one that is wrong would do
        home = cluster.join_by_hand("clumsy")
        key, certificate = home / "node.key", home / "certificate"
    else:
        key, certificate = cluster.stranger.key, cluster.other.home / "certificate"
    seen = cluster.stranger("malform", cluster.address, key=key, certificate=certificate, count=160, seed=7)
    assert seen["wrong"] == []
    reasons = {int(reason): count for reason, count in seen["reasons"].items()}
    assert set(reasons) <= {NO_CERTIFICATE, FORGED, OTHER_CLUSTER, EXPIRED, JOIN_CLOSED, MALFORMED}
    assert reasons[MALFORMED] > 20 and reasons[FORGED] > 20
    assert seen["silent"] + sum(reasons.values()) == seen["tried"]


class Recorder:
    """Carries one connection between a dialler and a node, and keeps in what order each side said what."""

    def __init__(self, host, target):
        self.said = []  # (whether the dialler said it, bytes)
        self._target, self._host = target, host
        self._listener = host.socket()
        self._listener.bind((host.ipv4, 0))
        self._listener.listen(8)
        self.address = f"{host.ipv4}:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def _carry(self):
        with contextlib.suppress(OSError):
            dialler, _ = self._listener.accept()
            with dialler, self._host.connect(self._target[1], self._target[0]) as node:
                with selectors.DefaultSelector() as ready:
                    ready.register(dialler, selectors.EVENT_READ, node)
                    ready.register(node, selectors.EVENT_READ, dialler)
                    while ready.get_map():
                        for key, _ in ready.select(5):
                            data = key.fileobj.recv(65536)
                            if not data:
                                return
                            self.said.append((key.fileobj is dialler, data))
                            key.data.sendall(data)

    def close(self):
        self._thread.join(10)
        self._listener.close()


def replay(connection, said):
    """Says again what the dialler said, hearing the node out between; returns the node's new words."""
    heard = b""
    for by_dialler, data in said:
        with contextlib.suppress(OSError, socket.timeout):
            if by_dialler:
                connection.sendall(data)
            else:
                heard += connection.recv(65536)
    connection.settimeout(5)
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(65536):
            heard += data
    return heard


def test_a_recording_opens_nothing(cluster):
    """The whole exchange of a member that was let in, played again, byte by byte."""
    home = cluster.join_by_hand("recorded")
    recorder = Recorder(cluster.stranger.host, cluster.address.split(":")[0:1] + [cluster.port])
    seen = cluster.stranger("show", recorder.address, key=home / "node.key", certificate=home / "certificate")
    recorder.close()
    assert seen["let_in"], "what is recorded is a success"
    answers = b"".join(data for by_dialler, data in recorder.said if not by_dialler)
    assert len(answers) > 500
    with cluster.stranger.host.connect(cluster.port, cluster.owner.host.ipv4, timeout_s=0.5) as connection:
        heard = replay(connection, recorder.said)
    assert len(heard) < HANDSHAKE_BYTES_MAX and len(heard) < len(answers)


def test_a_stranger_that_is_dialled_gets_a_certificate_and_no_more(cluster):
    """A node that is told a wrong address shows who it is and closes when it hears who is there."""
    host = cluster.stranger.host
    misled = nodes.join_on(cluster.other.host, cluster.owner, name="misled", folder=cluster.lan.folder,
                           at_end=cluster.lan.at_end, api_port=8081)
    assert misled.stop() == 0
    caught = {}
    at = f"{host.ipv4}:47999"
    thread = threading.Thread(target=lambda: caught.update(
        cluster.stranger("listen", at, key=cluster.stranger.key, timeout=30)))
    thread.start()
    misled.start("--peer", at)
    thread.join(30)
    misled.cli("leave")
    assert caught["shown_bytes"] < 256 and caught["more_bytes"] == 0 and caught["closed"]


class Health:
    """Asks a node's API whether it is well, over one connection from its own host."""

    def __init__(self, node):
        self._http = http.client.HTTPConnection("127.0.0.1", node.api_port)
        self._http.sock = node.host.connect(node.api_port)

    def seconds(self):
        started = time.monotonic()
        self._http.request("GET", "/health")
        answer = self._http.getresponse()
        answer.read()
        assert answer.status == 200
        return time.monotonic() - started

    def close(self):
        self._http.close()


def round_trip_us(member, other):
    """What `member` has measured to `other` on their control link."""
    status = member.status()
    there = next(node["id"] for node in status["nodes"] if node["name"] == other.name)
    return next(link["rtt_us"] for link in status["links"]
                if link["from"] == status["self"] and link["to"] == there)


def medians(cluster, until):
    """Medians of the health answer and of the measured round trip, asked until `until()`."""
    health, answers, trips = Health(cluster.owner), [], []
    while not answers or not until():
        answers.append(health.seconds())
        if len(answers) % 20 == 0:
            trips.append(round_trip_us(cluster.other, cluster.owner))
            assert cluster.other.states()[cluster.owner.name] == "alive"
        time.sleep(0.01)
    health.close()
    return statistics.median(answers), statistics.median(trips), len(answers)


def test_a_flood_slows_nothing(cluster):
    for _ in range(2):  # what the first strangers make it load stays loaded
        cluster.show()
    start = time.monotonic()
    calm = medians(cluster, lambda: time.monotonic() - start > 3)
    rss, fds = cluster.owner.rss_anon_bytes(), descriptors(cluster.owner)
    flood, seen = cluster.flood(seed=3)
    flood.start()
    busy = medians(cluster, lambda: not flood.is_alive())
    flood.join()
    peak = cluster.owner.rss_anon_bytes()
    print(f"{seen}; calm {calm}, under the flood {busy}; RSS {rss >> 10} KiB, then {peak >> 10} KiB; {fds} descriptors")
    assert seen["connected"] > FLOOD * 0.5, seen
    assert seen["bytes_max"] < HANDSHAKE_BYTES_MAX
    nodes.wait_for("the descriptors are back", lambda: descriptors(cluster.owner) <= fds + 2)
    assert cluster.owner.rss_anon_bytes() < rss + GROWTH_BYTES_MAX
    # On the same cores as the flood itself. Behind a queue of strangers it would be hundreds of times as long.
    assert busy[0] < calm[0] * 20, "the API answers as before"
    assert busy[1] < calm[1] * 20, "the control link runs as before"


def test_a_flood_of_multicast_dns_is_not_remembered(cluster):
    """Who answers for thousands of addresses, each for years to come: mDNS rests, and all else goes on."""
    rss = cluster.owner.rss_anon_bytes()
    host = cluster.stranger.host
    host.run(sys.executable, lans.ROOT / "tests/strangers/mdns_flood.py", host.ipv4, "3000")
    for member in cluster.members:
        nodes.wait_for("it heard the flood", lambda: "by mDNS" in member.output())   # noqa: B023: asked here
        assert member.output().count("It rests") == 1
    assert cluster.owner.rss_anon_bytes() < rss + GROWTH_BYTES_MAX


def test_an_answer_of_two_hosts_goes_on_under_a_flood(cluster):
    cluster.owner.cli("place", "smollm2", "--stages", 2, "--standby", "off")
    nodes.wait_for("the placement is live", lambda: cluster.other.placement("smollm2"))

    def answer():
        stream = streams.ask(cluster.other, "smollm2", "One, two, three,", 64)
        assert not stream.error
        return stream

    flood, seen = cluster.flood(seed=5)
    try:
        answer()
        calm = answer()
        flood.start()
        busy = [answer()]
        while flood.is_alive():
            busy.append(answer())
    finally:
        if flood.ident:
            flood.join()
        cluster.owner.cli("unplace", "smollm2")
    took = statistics.median(stream.ended - stream.started for stream in busy) / (calm.ended - calm.started)
    pause = max(pause for stream in busy for _, pause in stream.pauses())
    print(f"{seen}; {len(busy)} answers under the flood took {took:.2f} times as long; longest pause {pause:.2f} s")
    assert seen["connected"] > FLOOD * 0.5, seen
    assert {stream.text for stream in busy} == {calm.text}
    assert took < 20   # on the same cores as the flood itself


def test_strangers_of_many_addresses_do_not_keep_members_out(cluster):
    """They can take all places of strangers in the handshake, but none of those who were seen to be members."""
    home = cluster.join_by_hand("regular")
    good = {"key": home / "node.key", "certificate": home / "certificate"}
    there = Stranger(cluster.other.host, cluster.lan.folder / "regular-files")
    assert there("show", cluster.address, **good)["let_in"]
    addresses = [f"10.77.0.{100 + i}" for i in range(12)]
    for address in addresses:
        cluster.stranger.host.run("ip", "addr", "add", address + "/24", "dev", lans.DEVICE)
    words = {"count": 400, "wave": 200, "hold_ms": 2500, "stall": "yes", "seed": 4, "from": ",".join(addresses)}
    flood = threading.Thread(target=lambda: cluster.stranger("flood", cluster.address, **words))
    flood.start()
    time.sleep(0.5)
    outcomes = []
    while flood.is_alive() and len(outcomes) < 10:
        outcomes.append(there("show", cluster.address, **good)["let_in"])
    flood.join()
    print(f"{len(outcomes)} asked during the flood")
    assert outcomes and all(outcomes)


def test_a_member_that_breaks_rules_harms_nobody(cluster):
    home = cluster.join_by_hand("rude")
    entry = {"key": home / "node.key", "certificate": home / "certificate"}
    seen = cluster.stranger("break-rules", cluster.address, **entry, count=20, seed=11)
    assert seen["open"] == [] and seen["closed"] >= 7 * 14 - 1
    assert cluster.show(home / "certificate", home / "node.key")["let_in"], "and it is served when it behaves"


@pytest.mark.unsanitized
def test_promised_bytes_take_no_memory(cluster):
    """Headers that announce 64 MiB each, with nothing behind them."""
    home = cluster.join_by_hand("boaster")
    before, fds = cluster.owner.rss_anon_bytes(), descriptors(cluster.owner)
    done = threading.Thread(target=lambda: cluster.stranger(
        "promise", cluster.address, key=home / "node.key", certificate=home / "certificate", count=24, hold_ms=1500))
    done.start()
    peak = 0
    while done.is_alive():
        peak = max(peak, cluster.owner.rss_anon_bytes())
        time.sleep(0.02)
    print(f"RSS {before >> 10} KiB, at most {peak >> 10} KiB")
    assert peak < before + GROWTH_BYTES_MAX
    nodes.wait_for("the descriptors are back", lambda: descriptors(cluster.owner) <= fds + 2)
