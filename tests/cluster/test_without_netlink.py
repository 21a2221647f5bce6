"""Nodes that may not use netlink, as on Android since 11: they start, find each other and are found after a move."""
import sys

import pytest

import lan as lans
import nodes

WITHOUT_NETLINK = [sys.executable, lans.ROOT / "tests/cluster/without_netlink.py"]


def see_each_other(members):
    return nodes.all_alive(members)


@pytest.mark.parametrize("families", ["ipv4", "ipv6", "both"])
def test_hosts_without_netlink_find_each_other(make_lan, families):
    lan = make_lan(ipv4=families != "ipv6", ipv6=families != "ipv4", delay_us=1000)
    members = nodes.cluster_on(lan.add_hosts(2), before=WITHOUT_NETLINK)
    nodes.wait_for("they see each other", lambda: see_each_other(members))


def test_a_device_without_netlink_changes_its_address(lan):
    hosts = lan.add_hosts(2)
    first = nodes.Node(hosts[0])
    members = [first, nodes.join_on(hosts[1], first, before=WITHOUT_NETLINK)]
    nodes.wait_for("they see each other", lambda: see_each_other(members))
    hosts[1].move(ipv4="10.77.0.93", ipv6="fd77::93")
    nodes.wait_for("they see each other after the move", lambda: see_each_other(members))

    def tells_the_new_address():
        own = next(node for node in members[1].status()["nodes"] if node["self"])
        return any("10.77.0.93" in address for address in own["addresses"])
    nodes.wait_for("it listens where it is now", tells_the_new_address)
