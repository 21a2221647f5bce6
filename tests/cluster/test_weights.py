"""One node has the model's file; the others get the layers they run, and nothing else, from whoever has them."""
import json
import os
import pathlib
import shutil

import nodes
from test_cluster import PROMPT, TOKENS, unsplit
from test_entry import answers, broken_off

MODEL = "smollm2"


def kept_bytes(member):
    """What a node keeps of layers on its disk."""
    blobs = member.home / "store" / "blobs"
    return sum(one.stat().st_size for one in blobs.iterdir()) if blobs.exists() else 0


def holds_model(member):
    own = next(one for one in member.status()["nodes"] if one["self"])
    return any(model["name"] == MODEL for model in own["models"])


def holders(member):
    """Which node holds which layers, as this one knows."""
    shown = json.loads(member.cli("models", "--json").stdout)
    model = next(one for one in shown["models"] + shown["files"] if one["name"] == MODEL)
    assert model["nodes"] == [one["node"] for one in model["holders"]]
    return {one["node"]: one["held"] for one in model["holders"]}


def cluster_with_one_file(hosts, model, *words):
    first = nodes.Node(hosts[0], *words, models=[model])
    members = [first, *(nodes.join_on(host, first, *words) for host in hosts[1:])]
    nodes.wait_for("all nodes see each other", lambda: nodes.all_alive(members), 10)
    return members


def fetching(seen_by, member):
    return next(node for node in seen_by.status()["nodes"] if node["name"] == member.name)["fetching"]


def needed_bytes(smollm2, member, placement):
    """Of weights, by the stage of the placement that the node has."""
    facts = nodes.model_facts(smollm2)
    stage = next(s for s in placement["stages"] if s["name"] == member.name)
    needed = sum(facts["layer_bytes"][stage["first"]:stage["last"] + 1])
    if stage["first"] == 0 or stage["last"] == facts["layers"] - 1:
        needed += facts["embedding_bytes"]  # looked up by the head; the last stage's output too, being tied to it
    return needed


def test_what_another_process_brings_or_takes_is_told_at_once(lan, smollm2):
    members = nodes.cluster_on(lan.add_hosts(2))

    def told(member):
        """What the member knows of the first one's disk."""
        first = next(one for one in member.status()["nodes"] if one["name"] == members[0].name)
        return {model["name"]: model["held_bytes"] for model in first["models"] if model["held_bytes"]}

    members[0].cli("pull", smollm2, "--name", MODEL)
    assert list(told(members[0])) == [MODEL], "before `pull` ends"
    nodes.wait_for("the other one was told", lambda: list(told(members[1])) == [MODEL])
    members[0].cli("rm", MODEL)
    assert told(members[0]) == {}
    nodes.wait_for("the other one was told", lambda: told(members[1]) == {})


def test_each_host_gets_its_layers_and_no_more(lan, smollm2):
    members = cluster_with_one_file(lan.add_hosts(4), smollm2)
    nodes.wait_for("all know the model", lambda: all(holds_model(member) for member in members), 20)
    plan = json.loads(members[2].cli("plan", MODEL, "--json").stdout)
    assert {stage["device"] for stage in plan["stages"]} <= {member.name for member in members}
    assert sum(kept_bytes(member) for member in members) == 0, "knowing a model and planning for it costs no weights"
    members[3].cli("place", MODEL, "--stages", 3, "--wire", "f32", "--standby", "off", "--nodes",
                   ",".join(member.name for member in members[1:]))
    facts = nodes.model_facts(smollm2)
    placement = members[0].placement(MODEL)
    for member in members[1:]:
        needed = needed_bytes(smollm2, member, placement)
        assert needed <= kept_bytes(member) < 1.02 * needed + 100_000, member.name
    assert kept_bytes(members[0]) == 0, "who has the file keeps no copy"
    held = {stage["name"]: [{"first": stage["first"], "last": stage["last"]}] for stage in placement["stages"]}
    held[members[0].name] = [{"first": 0, "last": facts["layers"] - 1}]
    for member in members:
        nodes.wait_for(f"{member.name} knows who holds what", lambda one=member: holders(one) == held)
    rows = [line.split() for line in members[2].cli("models").stdout.splitlines()]
    for stage in placement["stages"]:
        layers = f"{stage['first']}-{stage['last']}"
        assert any(row[:5] == [stage["name"], MODEL, layers, "of", str(facts["layers"])] for row in rows), rows
    want = unsplit(smollm2)
    for member in members:
        assert member.complete(MODEL, PROMPT, TOKENS) == want, member.name


def test_who_has_just_joined_gets_layers_at_once(lan, smollm2):
    members = cluster_with_one_file(lan.add_hosts(3), smollm2)
    members[2].cli("place", MODEL, "--standby", "off")
    placement = members[1].placement(MODEL)
    assert {stage["name"] for stage in placement["stages"]} == {member.name for member in members}
    assert members[2].complete(MODEL, PROMPT, 4)


def test_what_was_fetched_stays_and_the_file_may_go(lan, smollm2):
    members = cluster_with_one_file(lan.add_hosts(3), smollm2)
    others = ",".join(member.name for member in members[1:])
    cut = ("place", MODEL, "--stages", "0-14,15-29", "--standby", "off", "--nodes", others)
    members[0].cli(*cut)
    kept = [kept_bytes(member) for member in members]
    assert members[0].stop() == 0
    nodes.wait_for("the others go on alone",
                   lambda: members[1].states()[members[0].name] in ("dead", "left"), 20)
    assert members[2].complete(MODEL, PROMPT, 4)
    members[1].cli("unplace", MODEL)
    members[1].cli(*cut)
    assert members[2].complete(MODEL, PROMPT, 4)
    assert [kept_bytes(member) for member in members[1:]] == kept[1:], "nothing was fetched again"


def test_when_the_last_copy_of_layers_is_lost_it_is_said_and_service_resumes(lan, smollm2):
    """Each half of the model is on one node alone; the others know it and have room, and none of it."""
    first, entry, *members = cluster_with_one_file(lan.add_hosts(4), smollm2, "--threads", "1")
    cut = ("place", MODEL, "--stages", "0-14,15-29", "--wire", "f32", "--standby", "off", "--nodes")
    first.cli(*cut, ",".join(member.name for member in members))
    assert first.stop() == 0
    nodes.wait_for("it is seen to be gone", lambda: entry.states()[first.name] in ("dead", "left"), 20)
    _, error = broken_off(entry, members[1], 1000)
    for part in ("layers 15-29", "output head", "embeddings", f"'{members[1].name}'", "not here now"):
        assert (part in error["message"]) == (part != "embeddings"), error  # those are on the other one too
    refused = entry.cli("place", MODEL, check=False)
    assert refused.returncode == 3 and "layers 15-29" in refused.stderr, refused
    members[1].start("--threads", "1")
    nodes.wait_for("service resumes by itself", lambda: answers(entry))
    assert entry.complete(MODEL, PROMPT, TOKENS) == unsplit(smollm2)


def test_a_layer_that_the_disk_spoils_is_fetched_again(lan, smollm2):
    members = cluster_with_one_file(lan.add_hosts(3), smollm2)
    cut = ("place", MODEL, "--stages", "0-14,15-29", "--wire", "f32", "--standby", "off", "--nodes",
           ",".join(member.name for member in members[1:]))
    members[0].cli(*cut)
    kept = [kept_bytes(member) for member in members]
    members[0].cli("unplace", MODEL)
    flipped, cut_short = members[1:]
    for member in members[1:]:
        assert member.stop() == 0
        blobs = sorted((member.home / "store" / "blobs").iterdir(), key=lambda one: one.stat().st_size)
        if member is flipped:
            with open(blobs[-1], "r+b") as file:
                file.seek(blobs[-1].stat().st_size // 2)
                byte = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte[0] ^ 1]))
        else:
            os.truncate(blobs[-1], blobs[-1].stat().st_size - 1)
        member.start()
    nodes.wait_for("all nodes see each other", lambda: nodes.all_alive(members), 20)
    members[0].cli(*cut)
    assert members[0].complete(MODEL, PROMPT, TOKENS) == unsplit(smollm2)
    assert [kept_bytes(member) for member in members] == kept
    for member in (flipped, cut_short):
        assert "was damaged on this disk" in member.output(), member.output()


def test_a_file_that_breaks_is_as_if_it_were_not_there(lan, smollm2, tmp_path):
    hosts = lan.add_hosts(2)
    copy = tmp_path / pathlib.Path(smollm2).name
    shutil.copyfile(smollm2, copy)
    first = nodes.Node(hosts[0], models=[smollm2])
    second = nodes.join_on(hosts[1], first, models=[copy])
    nodes.wait_for("both see each other", lambda: nodes.all_alive([first, second]), 10)
    os.truncate(copy, copy.stat().st_size // 2)
    first.cli("place", MODEL, "--stages", "0-14,15-29", "--wire", "f32", "--standby", "off", "--nodes",
              f"{second.name},{first.name}")
    assert second.complete(MODEL, PROMPT, TOKENS) == unsplit(smollm2)
    assert kept_bytes(second) > 0, "its layers came from the other one"


def test_a_killed_fetch_goes_on(lan, smollm2):
    members = cluster_with_one_file(lan.add_hosts(2), smollm2)
    lan.link("*", "*", rate_bytes_per_s=20_000_000)
    target = members[1]
    words = ("place", MODEL, "--stages", 1, "--standby", "off", "--nodes", target.name)
    with members[0].begun(*words) as asked:
        nodes.wait_for("some layers have come", lambda: kept_bytes(target) > 5_000_000, 30)
        (seen,) = nodes.wait_for("others see them come", lambda: fetching(members[0], target), 30)
        assert seen["model"] == MODEL and 0 < seen["bytes_done"] <= seen["bytes_total"]
        target.kill()
        before = kept_bytes(target)
        asked.wait(60)
    target.start()
    nodes.wait_for("it is back", lambda: nodes.all_alive(members), 20)
    members[0].cli("place", MODEL, "--stages", 1, "--nodes", target.name, timeout=90)
    assert kept_bytes(target) > before > 0
    assert members[0].complete(MODEL, PROMPT, 4)
