"""A device low on battery, or one that stays hot at rest, gives its layers to others, stays a client, and takes layers
again when it is charged, or cooler.

Its battery and its sensors are a folder that stands in for /sys.
"""
import pytest

import nodes
import rations
from sensors import Battery, Thermometer

MODEL = "smollm2"


def device_of(seen_by, name):
    return next(node["device"] for node in seen_by.status()["nodes"] if node["name"] == name)


def stages_of(node):
    placed = node.placement(MODEL)
    return placed and {stage["name"] for stage in placed["stages"]}


def both_with_layers(lan, root):
    """Two nodes, each with a stage; the second has looked at its sensors, which are in `root`."""
    hosts = lan.add_hosts(2)
    model = nodes.model_path("SHOAL_TEST_SMOLLM2", MODEL)
    first = nodes.Node(hosts[0], "--threads", "1", models=[model])
    phone = nodes.join_on(hosts[1], first, "--threads", "1", "--system-root", root, models=[model])
    nodes.wait_for("they see each other", lambda: nodes.all_alive([first, phone]))
    first.cli("place", MODEL, "--stages", "2", "--standby", "off")
    nodes.wait_for("both have layers", lambda: stages_of(first) == {first.name, phone.name})
    nodes.wait_for("the battery is told", lambda: device_of(first, phone.name)["battery_percent"] == 80)
    return first, phone


def test_a_low_battery_gives_layers_away_until_it_is_charged(lan, tmp_path):
    battery = Battery(tmp_path)
    first, phone = both_with_layers(lan, battery.root)
    want = phone.complete(MODEL, "The sea is", 8)

    battery.set(9, charging=False)
    nodes.wait_for("its layers have moved", lambda: stages_of(first) == {first.name})
    assert "battery is at 9 %" in device_of(first, phone.name)["draining"]
    assert "takes no layers: its battery is at 9 %" in first.cli("status").stdout
    assert phone.complete(MODEL, "The sea is", 8) == want  # it still serves its own clients

    battery.set(12, charging=True)
    nodes.wait_for("it takes layers again", lambda: device_of(first, phone.name)["draining"] is None)
    first.cli("place", MODEL, "--stages", "2", "--standby", "off")
    assert stages_of(first) == {first.name, phone.name}


def test_a_device_that_stays_hot_at_rest_gives_layers_away_until_it_is_cooler(lan, tmp_path):
    thermometer, battery = Thermometer(tmp_path), Battery(tmp_path)
    first, phone = both_with_layers(lan, battery.root)
    want = phone.complete(MODEL, "The sea is", 8)

    thermometer.set(97)
    nodes.wait_for("its layers have moved", lambda: stages_of(first) == {first.name}, timeout_s=120)
    assert "stays hot although it rests: 97 degrees" in device_of(first, phone.name)["draining"]
    assert "takes no layers: it stays hot although it rests" in first.cli("status").stdout
    assert phone.complete(MODEL, "The sea is", 8) == want  # it still serves its own clients

    thermometer.set(80)
    nodes.wait_for("it takes layers again", lambda: device_of(first, phone.name)["draining"] is None, timeout_s=120)
    first.cli("place", MODEL, "--stages", "2", "--standby", "off")
    assert stages_of(first) == {first.name, phone.name}


def test_a_quota_that_changes_while_it_runs_is_told(lan):
    try:
        ration = rations.Ration("told")
        ration.give(0.8)
    except OSError as error:
        pytest.skip(f"no control group of processor time can be made: {error}")
    watching, rationed = None, None
    try:
        hosts = lan.add_hosts(2)
        watching = nodes.Node(hosts[0], "--threads", "1", *nodes.SPEED_TEST_OFF)
        rationed = nodes.join_on(hosts[1], watching, "--threads", "1", *nodes.SPEED_TEST_OFF, before=ration.before())
        nodes.wait_for("they see each other", lambda: nodes.all_alive([watching, rationed]))

        def told(share):
            return abs(device_of(watching, rationed.name)["ration"] - share) < 0.001

        nodes.wait_for("its quota is told", lambda: told(0.8))
        ration.give(0.5)
        nodes.wait_for("the new one is", lambda: told(0.5))
    finally:
        for node in (rationed, watching):
            if node:
                node.kill()
        ration.close()
