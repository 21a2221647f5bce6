"""The harness itself: what the switch is told to do to frames is what programs on the hosts see."""
import socket
import threading
import time

import pytest

COUNT = 200


def echo(host, family=socket.AF_INET, port=7007):
    """A UDP echo on `host` in a thread, until the LAN ends."""
    server = host.socket(family, socket.SOCK_DGRAM)
    server.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
    server.settimeout(0.1)
    done = threading.Event()

    def serve():
        while not done.is_set():
            try:
                data, sender = server.recvfrom(65536)
            except TimeoutError:
                continue
            server.sendto(data, sender)
        server.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    host.lan.at_end(thread.join)
    host.lan.at_end(done.set)


def round_trips_ms(host, address, count=COUNT, port=7007, wait_s=0.3):
    """Round trips of single datagrams; None where no answer came."""
    times = []
    with host.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(wait_s)
        for i in range(count):
            start = time.perf_counter()
            client.sendto(i.to_bytes(4, "big"), (address, port))
            try:
                while client.recv(64) != i.to_bytes(4, "big"):
                    pass  # a duplicate of an earlier one
                times.append((time.perf_counter() - start) * 1000)
            except TimeoutError:
                times.append(None)
    return times


def quick(values):
    """The round trip that one in ten beat. On a busy machine the programs at both ends often wait for a core: that is
    not the switch, whose own lateness on_time() looks at."""
    return sorted(values)[len(values) // 10]


def on_time(lan, before):
    """Fails when frames left the switch late since its links were as `before`."""
    for pair, link in lan.links().items():
        frames = link.frames - (before[pair].frames if pair in before else 0)
        late_ns = link.late_ns - (before[pair].late_ns if pair in before else 0)
        assert late_ns <= frames * 200_000, f"late by {late_ns / frames / 1000:.0f} us a frame"


def in_a_calm_moment(check, tries=12):
    """check() holds once: what is always wrong fails, a machine that is busy now and then does not."""
    for left in reversed(range(tries)):
        try:
            return check()
        except AssertionError:
            if not left:
                raise
            time.sleep(0.2)


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_delay(make_lan, family):
    lan = make_lan()
    a, b = lan.add_hosts(2)
    address = getattr(b, family)
    echo(b, socket.AF_INET6 if family == "ipv6" else socket.AF_INET)

    def between(least, most):
        def check():
            before = lan.links()
            assert least <= quick(round_trips_ms(a, address, 50)) < most
            on_time(lan, before)
        in_a_calm_moment(check)

    between(0, 0.8)
    lan.link(a, b, delay_us=1000)
    between(1.0, 1.8)
    lan.link(b, a, delay_us=4000)
    between(5.0, 6.0)


def test_delay_of_each_pair(lan):
    a, b, c = lan.add_hosts(3)
    echo(b)
    echo(c)
    lan.between(a, c, delay_us=10_000)

    def check():
        before = lan.links()
        assert 2.0 <= quick(round_trips_ms(a, b.ipv4, 50)) < 3.0
        assert 20.0 <= quick(round_trips_ms(a, c.ipv4, 20)) < 21.5
        on_time(lan, before)

    in_a_calm_moment(check)
    assert min(round_trips_ms(a, c.ipv4, 20, wait_s=5)) >= 20.0, "no frame comes early"


def test_jitter_keeps_the_order(make_lan):
    lan = make_lan()
    a, b = lan.add_hosts(2)
    lan.link(a, b, delay_us=3000, jitter_us=2000)
    with a.socket(kind=socket.SOCK_DGRAM) as sender, b.socket(kind=socket.SOCK_DGRAM) as receiver:
        receiver.bind((b.ipv4, 7008))
        receiver.settimeout(2)
        for i in range(COUNT):
            sender.sendto(i.to_bytes(4, "big"), (b.ipv4, 7008))
        assert [int.from_bytes(receiver.recv(64), "big") for _ in range(COUNT)] == list(range(COUNT))
        lan.link(a, b, reorder=0.2, reorder_us=4000)
        for i in range(COUNT):
            sender.sendto(i.to_bytes(4, "big"), (b.ipv4, 7008))
        got = [int.from_bytes(receiver.recv(64), "big") for _ in range(COUNT)]
    assert got != sorted(got) and sorted(got) == list(range(COUNT))
    assert lan.links()["h1", "h2"].reordered > COUNT / 10


def test_loss_and_duplicates(make_lan):
    lan = make_lan()
    a, b = lan.add_hosts(2)
    echo(b)
    round_trips_ms(a, b.ipv4, 1)
    lan.link(a, b, loss=0.25)
    before = lan.links()["h1", "h2"].lost
    missed = round_trips_ms(a, b.ipv4, COUNT, wait_s=0.02).count(None)
    lost = lan.links()["h1", "h2"].lost - before
    assert 0.13 * COUNT < lost < 0.37 * COUNT
    assert missed > 0.1 * COUNT, "most of what was lost are round trips"
    lan.link(a, b, loss=0, duplicate=1)
    with a.socket(kind=socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        client.sendto(b"once", (b.ipv4, 7007))
        assert [client.recv(64), client.recv(64)] == [b"once", b"once"]


def test_cut_one_direction_and_heal(lan):
    a, b = lan.add_hosts(2)
    echo(b)
    assert None not in round_trips_ms(a, b.ipv4, 3)
    lan.link(b, a, cut=True)
    before = lan.links()["h1", "h2"].frames
    assert round_trips_ms(a, b.ipv4, 3, wait_s=0.05) == [None] * 3
    assert lan.links()["h1", "h2"].frames >= before + 3, "only the way back is cut"
    lan.link(b, a, cut=False)
    assert None not in round_trips_ms(a, b.ipv4, 3)


def heard(sender, receiver, address, options=()):
    """Whether a datagram to a group or broadcast address arrives."""
    with sender.socket(kind=socket.SOCK_DGRAM) as out, receiver.socket(kind=socket.SOCK_DGRAM) as into:
        into.bind(("0.0.0.0", 7009))
        group = socket.inet_aton("239.7.7.7") + socket.inet_aton(receiver.ipv4)
        into.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        into.settimeout(0.3)
        out.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(sender.ipv4))
        out.sendto(b"hello", (address, 7009))
        try:
            return into.recv(64) == b"hello"
        except TimeoutError:
            return False


def test_access_point_that_drops_multicast(lan):
    a, b = lan.add_hosts(2)
    multicast, broadcast = "239.7.7.7", "10.77.0.255"
    assert heard(a, b, multicast) and heard(a, b, broadcast)
    lan.link("*", "*", drop_multicast=True)
    assert not heard(a, b, multicast) and heard(a, b, broadcast)
    lan.link("*", "*", drop_broadcast=True)
    assert not heard(a, b, multicast) and not heard(a, b, broadcast)
    for host in (a, b):
        host.run("ip", "neigh", "flush", "all")
    echo(b)
    echo(b, socket.AF_INET6, 7010)
    assert None not in round_trips_ms(a, b.ipv4, 3), "neighbours are still found by ARP"
    assert None not in round_trips_ms(a, b.ipv6, 3, 7010), "and by IPv6 neighbour discovery"


def transfer(a, b, size):
    """Seconds for `size` bytes over TCP from a to b."""
    listener = b.socket()
    listener.bind((b.ipv4, 7011))
    listener.listen(1)
    got = []

    def receive():
        connection, _ = listener.accept()
        with connection:
            buffer = bytearray(1 << 20)
            total = 0
            while count := connection.recv_into(buffer):
                total += count
            got.append(total)

    thread = threading.Thread(target=receive)
    thread.start()
    start = time.perf_counter()
    with a.connect(7011, b.ipv4) as out:
        data = bytes(1 << 20)
        for _ in range(size >> 20):
            out.sendall(data)
    thread.join()
    listener.close()
    assert got == [size >> 20 << 20]
    return time.perf_counter() - start


def test_carries_100_megabytes_a_second(lan):
    a, b = lan.add_hosts(2)
    for host in (a, b):
        host.run("sh", "-c", "echo '4096 1048576 33554432' >/proc/sys/net/ipv4/tcp_wmem;"
                             "echo '4096 1048576 33554432' >/proc/sys/net/ipv4/tcp_rmem")

    def check():
        cpu = lan.switch.cpu_s()
        elapsed = transfer(a, b, 200 << 20)
        cpu = lan.switch.cpu_s() - cpu
        print(f"{200 / elapsed:.0f} MiB/s, the switch took {cpu:.2f} s of processor time for 200 MiB")
        assert 200 / elapsed > 50  # 100 and more on an idle machine
        assert cpu < 2

    in_a_calm_moment(check)


@pytest.mark.parametrize("offload", [True, False])
def test_rate(make_lan, offload):
    lan = make_lan(offload=offload)
    a, b = lan.add_hosts(2)
    lan.link(a, b, rate_bytes_per_s=10_000_000)

    def check():
        assert 0.95 < transfer(a, b, 10 << 20) < 1.6

    in_a_calm_moment(check)
    longest = 1514 if not offload else 65536
    link = lan.links()["h1", "h2"]
    assert link.bytes / link.frames <= longest


def test_idle_switch_sleeps(lan):
    lan.add_hosts(3)
    cpu = lan.switch.cpu_s()
    time.sleep(1)
    assert lan.switch.cpu_s() - cpu < 0.1


def test_host_that_goes_away_and_bad_commands(lan):
    a, b, c = lan.add_hosts(3)
    c.close()
    del lan.hosts["h3"]
    echo(b)
    assert None not in round_trips_ms(a, b.ipv4, 3)
    cpu = lan.switch.cpu_s()
    time.sleep(0.5)
    assert lan.switch.cpu_s() - cpu < 0.1, "a device that is gone is not asked again and again"
    for words in ({"op": "link", "from": "h1", "to": "h2", "loss": 2}, {"op": "link", "from": "h1", "to": "nobody"},
                  {"op": "link", "from": "h1", "to": "h2", "speed": 1}, {"op": "sing"}, {},
                  {"op": "link", "from": "h1", "to": "h2", "delay_us": "x"}):
        with pytest.raises((AssertionError, KeyError)):
            lan.switch.command(**words)
    assert None not in round_trips_ms(a, b.ipv4, 3)


def test_nothing_is_left_behind(make_lan):
    lan = make_lan()
    host = lan.add_host()
    holder, switch = host._holder, lan.switch.process
    lan.__exit__()
    assert holder.poll() is not None and switch.poll() == 0
    assert not lan.folder.exists()
    lan.hosts.clear()
