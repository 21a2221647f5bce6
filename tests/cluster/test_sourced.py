"""A model of the hub on a cluster none of whose nodes could hold it: each fetches its own layers from where it lies."""
import hashlib
import json
import os
import pathlib
import sys

import pytest

import lan as lans
import nodes
from test_cluster import PROMPT, TOKENS, unsplit
from test_weights import fetching, kept_bytes, needed_bytes

sys.path.append(str(lans.ROOT / "tests" / "cli"))

import hub as hubs  # noqa: E402

NAME = hubs.FILE.removesuffix(".gguf")
STAGES = "0-9,10-19,20-29"
QUOTA = "60M"  # the model has 98 MB


@pytest.fixture
def make_hub(lan, tmp_path, smollm2, monkeypatch):
    """make_hub(rate="0"): a hub on a host of its own of the LAN, which all nodes are told of."""
    if not hubs.NGINX:
        pytest.skip("nginx is not installed (Debian: apt-get install nginx-light)")
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name == "HF_TOKEN":
            monkeypatch.delenv(name)
    content = pathlib.Path(smollm2).read_bytes()

    def make(rate="0"):
        hub = hubs.Hub(tmp_path / "hub", host=lan.add_host("hub"), rate=rate)
        hub.add(hubs.REPOSITORY, hubs.FILE, content, hashlib.sha256(content).hexdigest())
        hub.start()
        lan.at_end(hub.stop)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        return hub

    return make


def place_words(members, name=f"hf:{hubs.REPOSITORY}:Q4_1"):
    return ("place", name, "--stages", STAGES, "--wire", "f32", "--standby", "off", "--nodes",
            ",".join(member.name for member in members))


def test_each_node_fetches_its_own_layers_from_the_hub(lan, smollm2, make_hub):
    members = nodes.cluster_on(lan.add_hosts(3), "--store", QUOTA)
    hub = make_hub()
    members[0].cli(*place_words(members), timeout=120)
    placement = members[1].placement(NAME)
    for member in members:
        needed = needed_bytes(smollm2, member, placement)
        assert needed <= kept_bytes(member) < 1.02 * needed + 100_000, member.name
    model_bytes = pathlib.Path(smollm2).stat().st_size
    nodes.wait_for("the hub has written down what it sent", lambda: hub.sent() > 0.95 * model_bytes)
    assert hub.sent() < 1.1 * model_bytes, "what two nodes need, one of them fetches"
    want = unsplit(smollm2)
    for member in members:
        assert member.complete(NAME, PROMPT, TOKENS) == want, member.name

    # What has come once is verified, kept, and fetched no more.
    before = hub.sent()
    members[2].cli("unplace", NAME)
    members[2].cli(*place_words(members), timeout=120)
    assert hub.sent() - before < 1_000_000
    verified = json.loads(members[1].cli("verify", NAME, "--json").stdout)
    assert verified["damaged"] == [] and verified["verified_bytes"] == kept_bytes(members[1])


def test_a_killed_node_goes_on_where_it_was(lan, smollm2, make_hub):
    members = nodes.cluster_on(lan.add_hosts(3), "--store", QUOTA)
    hub = make_hub(rate="256k")  # so slow that no node has all of its layers when one is killed
    target = members[2]
    with members[0].begun(*place_words(members)) as asked:
        nodes.wait_for("some layers have come", lambda: kept_bytes(target) > 2_000_000)
        target.kill()
        before = kept_bytes(target)
        asked.communicate(timeout=120)
    target.start(*("--store", QUOTA))
    nodes.wait_for("it is back", lambda: nodes.all_alive(members))
    hub.set_rate("0")
    members[0].cli(*place_words(members), timeout=120)
    assert kept_bytes(target) > before > 0
    # The header once, the model once, and what was under way when the placement ended: less than a chunk of each of
    # four connections of three nodes.
    assert hub.sent() < pathlib.Path(smollm2).stat().st_size + (4 + 12) * (1 << 20)
    assert members[0].complete(NAME, PROMPT, TOKENS) == unsplit(smollm2)


def test_a_file_that_changes_is_said_and_then_taken_anew(lan, smollm2, make_hub):
    members = nodes.cluster_on(lan.add_hosts(3), "--store", QUOTA)
    hub = make_hub(rate="256k")  # it lasts much longer than anybody takes to notice
    with members[0].begun(*place_words(members)) as asked:
        nodes.wait_for("something comes", lambda: any(fetching(members[0], member) for member in members))
        changed = bytearray(pathlib.Path(smollm2).read_bytes())
        changed[-1] ^= 1
        hub.stop()
        hub.add(hubs.REPOSITORY, hubs.FILE, bytes(changed), hashlib.sha256(changed).hexdigest())
        hub.start()
        said, _ = asked.communicate(timeout=120)
    assert asked.returncode != 0 and "has changed" in said, said
    hub.set_rate("0")
    members[0].cli(*place_words(members), timeout=120)
    assert members[1].complete(NAME, PROMPT, TOKENS)


def test_one_node_that_has_it_all_holds_it_against_the_hubs_hash(lan, smollm2, make_hub):
    (member,) = nodes.cluster_on(lan.add_hosts(1))
    hub = make_hub()
    done = json.loads(member.cli("run", f"hf:{hubs.REPOSITORY}:Q4_1", "--raw", "-p", PROMPT, "-n", TOKENS,
                                 "--temperature", 0, "--json", timeout=120).stdout)
    assert len(done["tokens"]) == TOKENS
    assert list((member.home / "store" / "sums").glob("*.whole"))
    member.cli("unplace", NAME)
    member.cli("rm", NAME)

    spoilt = bytearray(pathlib.Path(smollm2).read_bytes())
    spoilt[-100] ^= 1
    (hub.folder / "files" / hubs.FILE).write_bytes(spoilt)
    refused = member.cli("place", f"hf:{hubs.REPOSITORY}:Q4_1", check=False, timeout=120)
    assert refused.returncode != 0 and "is not what the hub says" in refused.stderr, refused.stderr
    verified = member.cli("verify", NAME, check=False)
    assert verified.returncode == 3 and "is not what the hub says" in verified.stderr, verified


@pytest.mark.parametrize("who_may", ["a member", "nobody"])
def test_who_may_not_ask_the_hub_gets_it_through_a_member(lan, smollm2, make_hub, monkeypatch, who_may):
    """The model's place wants a token, which not all nodes have."""
    hosts = lan.add_hosts(3)
    hub = make_hub()
    url = f"{hub.url}/private/{hubs.FILE}"
    monkeypatch.setenv("HF_TOKEN", "right" if who_may == "a member" else "")
    first = nodes.Node(hosts[0])
    monkeypatch.setenv("HF_TOKEN", "")
    members = [first, *(nodes.join_on(host, first) for host in hosts[1:])]
    nodes.wait_for("all nodes see each other", lambda: nodes.all_alive(members))
    monkeypatch.setenv("HF_TOKEN", "right")
    words = ("place", url, "--stages", "0-14,15-29", "--standby", "off", "--nodes",
             f"{members[1].name},{members[2].name}")
    if who_may == "nobody":
        refused = first.cli(*words, check=False, timeout=120)
        assert refused.returncode != 0, refused.stdout
        for said in ("set HF_TOKEN", "layer", "The same goes for", f"'{first.name}'"):
            assert said in refused.stderr, refused.stderr
        first.cli("pull", url, timeout=120)
    first.cli(*words, timeout=120)
    placement = first.placement(NAME)
    for member in members[1:]:
        needed = needed_bytes(smollm2, member, placement)
        assert needed <= kept_bytes(member) < 1.02 * needed + 100_000, member.name
    assert first.complete(NAME, PROMPT, 4)
    assert all("right" not in member.output() for member in members), "no log tells the token"
