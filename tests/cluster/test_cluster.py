"""Nodes that find each other, answer together, and lose each other: the real program on hosts 1 ms apart.

What a member of a cluster may rely on; docs/ says it in words.
"""
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time

import pytest

import nodes
import streams

PROMPT, TOKENS, LAYERS = "The capital of France is", 24, 30


def see_each_other(members):
    """Whether every member has all of them alive and a measured link between each two."""
    if not nodes.all_alive(members):
        return False
    ids = {member.node_id() for member in members}
    pairs = {(a, b) for a in ids for b in ids if a != b}
    return all(pairs <= {(link["from"], link["to"]) for link in member.status()["links"] if link["rtt_us"] > 0}
               for member in members)


def restart_all(members, *words, forget=False):
    """Ends all nodes and starts them again at the same time, as after a power cut; without what addresses they knew."""
    assert [member.stop() for member in members] == [0] * len(members)
    for member in members:
        if forget:
            (member.home / "peers.json").unlink(missing_ok=True)
        member.start(*words)


def unsplit(model):
    """The greedy answer of the model in one piece."""
    done = subprocess.run([nodes.BINARY, "run", model, "--raw", "--temperature", "0", "-n", str(TOKENS), "-p",
                           PROMPT, "--quiet"], capture_output=True, text=True, timeout=nodes.HANG_S)
    assert done.returncode == 0, done.stderr
    return done.stdout.rstrip("\n")


def place(node, stages=3, name="smollm2"):
    # f32 is exact: the same text as unsplit. No copies: a host then has its own layers only.
    node.cli("place", name, "--stages", stages, "--wire", "f32", "--standby", "off")
    return nodes.wait_for("the placement is live", lambda: node.placement(name))


def layers(placement):
    return sum(stage["last"] - stage["first"] + 1 for stage in placement["stages"])


@pytest.mark.parametrize("families", [{"ipv6": False}, {"ipv4": False}, {}], ids=["ipv4", "ipv6", "both"])
def test_three_hosts_find_each_other(make_lan, families):
    lan = make_lan(delay_us=1000, **families)
    members = nodes.cluster_on(lan.add_hosts(3))
    restart_all(members, forget=True)
    started = time.monotonic()
    nodes.wait_for("three nodes and their links", lambda: see_each_other(members))
    print(f"all see each other after {time.monotonic() - started:.2f} s")
    for link in members[0].status()["links"]:
        assert link["rtt_us"] >= 2000, "the wire alone takes 2 ms"


def test_multicast_is_dropped(lan):
    members = nodes.cluster_on(lan.add_hosts(3))
    lan.link("*", "*", drop_multicast=True)
    restart_all(members, forget=True)
    nodes.wait_for("found without multicast", lambda: see_each_other(members))
    lan.link("*", "*", drop_broadcast=True)
    restart_all(members)
    nodes.wait_for("found by remembered addresses", lambda: see_each_other(members))


def test_multicast_dns_alone_is_enough(make_lan):
    """Another program has the beacon's port on each host."""
    hosts = make_lan(ipv6=False).add_hosts(3)
    members = nodes.cluster_on(hosts)
    assert [member.stop() for member in members] == [0] * len(members)
    with contextlib.ExitStack() as taken:
        for host, member in zip(hosts, members):
            taken.enter_context(host.socket(socket.AF_INET6, socket.SOCK_DGRAM)).bind(("::", 48100))
            (member.home / "peers.json").unlink()
            member.start()
            assert "no beacon" in member.output()
        nodes.wait_for("found by mDNS", lambda: see_each_other(members))


def test_addresses_that_members_pass_on_are_enough(lan):
    hosts = lan.add_hosts(3)
    lan.link("*", "*", drop_multicast=True, drop_broadcast=True)
    first = nodes.Node(hosts[0])
    peer = f"{hosts[0].ipv4}:{first.net_port()}"
    members = [first, *(nodes.join_on(host, first, "--peer", peer) for host in hosts[1:])]
    nodes.wait_for("the other two, who know the first alone, have a link", lambda: see_each_other(members))


def test_joining_asks_again_who_did_not_answer(lan):
    """An attempt that is lost is not the last one, though no beacon comes through."""
    hosts = lan.add_hosts(2)
    lan.link("*", "*", drop_multicast=True, drop_broadcast=True)
    first = nodes.Node(hosts[0])
    words = ("join", first.invite()["code"], "--peer", f"{hosts[0].ipv4}:{first.net_port()}")
    lan.cut(hosts[:1], hosts[1:])
    joining = subprocess.Popen(hosts[1].command(nodes.BINARY, *words), stdin=subprocess.DEVNULL, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env={**os.environ, "SHOAL_HOME": str(lan.folder / "joiner")})
    time.sleep(7)   # more than an attempt takes
    assert joining.poll() is None
    lan.cut(hosts[:1], hosts[1:], cut=False)
    said, _ = joining.communicate(timeout=40)
    assert joining.returncode == 0, said


def test_a_device_changes_its_address(lan):
    hosts = lan.add_hosts(3)
    members = nodes.cluster_on(hosts)
    before = members[2].node_id()
    hosts[2].move(ipv4="10.77.0.93", ipv6="fd77::93")
    nodes.wait_for("all are seen after the move", lambda: see_each_other(members))
    assert members[2].node_id() == before
    assert len(members[0].status()["nodes"]) == 3, "it is no second node"


def test_an_answer_outlives_a_quick_change_of_address(lan, smollm2):
    """The other address is found before anybody is thought dead; what lay on the old one must not wait for it."""
    hosts = lan.add_hosts(2)
    members = nodes.cluster_on(hosts, models=[smollm2])
    place(members[0], stages=2)
    tokens = 400
    want = members[0].complete("smollm2", PROMPT, tokens)
    for entry in members:
        answer = streams.Asking(entry, "smollm2", PROMPT, tokens)
        nodes.wait_for("it answers", lambda: answer.pieces())
        hosts[1].move(ipv4=f"10.77.0.{93 + members.index(entry)}", ipv6=f"fd77::{93 + members.index(entry)}")
        stream = answer.wait(timeout_s=nodes.HANG_S)
        assert stream.text == want
        print(f"longest pause {max(length for _, length in stream.pauses()):.1f} s")


def test_a_copied_owner_takes_a_new_key_and_goes_on(lan):
    hosts = lan.add_hosts(3)
    members = nodes.cluster_on(hosts[:2])
    copy = lan.folder / "copy"
    shutil.copytree(members[0].home, copy, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
    twin = nodes.Node(hosts[2], home=copy, name="twin")
    nodes.wait_for("all three are members", lambda: see_each_other([*members, twin]))
    ids = {node.node_id() for node in [*members, twin]}
    assert len(ids) == 3
    # The later one, by their own clocks; of two that started at about the same time either.
    assert sum("takes a new key" in node.output() for node in (members[0], twin)) == 1


def test_status_shows_what_links_carry(lan):
    """Without any transfer: by small probes."""
    rate = 8 << 20
    hosts = lan.add_hosts(2)
    lan.between(*hosts, delay_us=1000, rate_bytes_per_s=rate)
    members = nodes.cluster_on(hosts)

    def measured():
        links = members[0].status()["links"]
        return len(links) == 2 and all(link["bytes_per_s"] > 0 for link in links) and links
    # A machine that is busy may send in bursts, or too little for a while; without the limit it is 100 MB/s and more.
    for link in nodes.wait_for("both directions are measured", measured, 90):
        assert link["bytes_per_s"] < 3 * rate, link


def started(here, name, *words):
    """One of several nodes of this machine."""
    return nodes.Node(here, *words, name=name, folder=here.folder, at_end=here.at_end, api_port=here.free_port())


def test_three_nodes_of_one_machine(here):
    first = started(here, "a")
    others = [nodes.join_on(here, first, name=name, folder=here.folder, at_end=here.at_end, api_port=here.free_port())
              for name in ("b", "c")]
    nodes.wait_for("three nodes on loopback", lambda: see_each_other([first, *others]))


def test_devices_that_were_started_before_anybody_was_invited(here):
    first, second, third = (started(here, name) for name in "abc")
    second.stop()
    second.start("--join", first.invite()["code"])
    nodes.wait_for("two are one cluster", lambda: see_each_other([first, second]))
    alone = third.status()["cluster"]
    refused = third.cli("join", "K7Q2-91WD-M3XT-8RZA", "--peer", f"127.0.0.1:{first.net_port()}", check=False)
    assert refused.returncode != 0 and "127.0.0.1" in refused.stderr, "a wrong code"
    assert third.status()["cluster"] == alone and third.process.poll() is None, "and it goes on as before"
    assert "starts anew" in third.cli("up", "--join", first.invite()["code"]).stdout, "as an invite says, while it runs"
    nodes.wait_for("all are one cluster", lambda: see_each_other([first, second, third]))
    assert third.status()["cluster"] == first.status()["cluster"] != alone
    refused = third.cli("join", first.invite()["code"], check=False)
    assert refused.returncode != 0 and "shoal leave" in refused.stderr, "no other one from here"
    second.stop()
    refused = second.cli("join", first.invite()["code"], check=False)
    assert refused.returncode != 0 and "shoal leave" in refused.stderr, "it has others now"
    second.cli("leave")
    assert "in no cluster" in second.cli("leave", check=False).stderr


def test_a_node_that_joins_while_it_runs_can_be_stopped_and_can_leave(here):
    first, second = started(here, "a"), started(here, "b")
    waiting = second.begun("join", "K7Q2-91WD-M3XT-8RZA")  # of nobody here: it asks for half a minute
    time.sleep(1)
    assert "joining already" in second.cli("join", first.invite()["code"], check=False).stderr
    second.stop()  # soon
    assert waiting.wait(nodes.HANG_S) != 0
    second.start()
    second.cli("join", first.invite()["code"])
    # It may be starting anew just now.
    nodes.wait_for("it has left", lambda: second.cli("leave", check=False).returncode == 0)
    nodes.wait_for("it ends", lambda: second.process.poll() is not None)
    assert "in no cluster" in second.cli("leave", check=False).stderr


def test_status_that_is_watched_shows_who_comes_until_it_is_interrupted(here):
    first = started(here, "a")
    lines, watched = first.begun("status", "--watch", "--json"), first.begun_in_a_terminal("status", "--watch")
    try:
        assert len(json.loads(lines.stdout.readline())["nodes"]) == 1
        assert "\033[H\033[J" in watched.read_until("a ")
        started(here, "b", "--join", first.invite()["code"])
        for _ in range(nodes.HANG_S):  # a line a second
            if len(json.loads(lines.stdout.readline())["nodes"]) == 2:
                break
        else:
            pytest.fail("the second node is never shown")
        watched.read_until("b ")
        for one in (lines, watched.process):
            one.send_signal(signal.SIGINT)
            assert one.wait(nodes.HANG_S) == 0
    finally:
        for one in (lines, watched.process):
            one.kill()
            one.wait()
        lines.stdout.close()
        watched.close()


def test_one_model_over_three_hosts(lan, smollm2):
    want = unsplit(smollm2)
    members = nodes.cluster_on(lan.add_hosts(3), models=[smollm2])
    idle = [member.rss_anon_bytes() for member in members]
    placement = place(members[1])
    assert layers(placement) == LAYERS and len(placement["stages"]) == 3
    assert [member.complete("smollm2", PROMPT, TOKENS) for member in members] == [want] * 3
    if nodes.PATIENCE > 1:
        return  # a sanitizer's memory would be measured
    facts = nodes.model_facts(smollm2)
    stages = {stage["name"]: stage for stage in placement["stages"]}
    for member, before in zip(members, idle, strict=True):
        first, last = stages[member.name]["first"], stages[member.name]["last"]
        grown = member.rss_anon_bytes() - before
        # Its layers, the output head of the last, K and V; and room for compute buffers and the vocabulary of an entry,
        # which is less than the other stages' layers are. (Embeddings are looked up in the file.)
        own = sum(facts["layer_bytes"][first:last + 1]) + facts["embedding_bytes"] * (last == LAYERS - 1) + \
            facts["kv_bytes_per_token"]["f16"] * 4096 * (last + 1 - first) // LAYERS
        assert grown < own + (32 << 20), f"{member.name} grew by {grown} bytes, {own} are its own"


def test_hosts_come_and_go_while_answers_run(lan, smollm2):
    want = unsplit(smollm2)
    members = nodes.cluster_on(lan.add_hosts(3), models=[smollm2])
    place(members[0])
    with nodes.asking(members[0].complete, "smollm2", PROMPT, TOKENS) as answers:
        fourth = nodes.join_on(lan.add_host(), members[0], models=[smollm2])
        nodes.wait_for("the fourth is seen", lambda: nodes.all_alive([*members, fourth]))
        members[2].cli("leave")
        nodes.wait_for("it has left", lambda: members[0].states().get(members[2].name) != "alive")
        stayed = nodes.wait_for("its layers moved", lambda: members[0].placement("smollm2"))
        assert members[2].name not in {stage["name"] for stage in stayed["stages"]} and layers(stayed) == LAYERS
        count = len(answers)
        nodes.wait_for("answers go on", lambda: len(answers) > count + 1)
    assert set(answers) == {want}


def test_status_holds_what_is_measured_against_what_was_expected(lan, smollm2):
    members = nodes.cluster_on(lan.add_hosts(2), models=[smollm2])
    place(members[0], stages=2)
    head = next(m for m in members if m.name == members[0].placement("smollm2")["stages"][0]["name"])
    other = next(m for m in members if m is not head)
    assert set(head.placement("smollm2")["observed"].values()) == {None}
    assert "measured: nothing yet" in head.cli("status").stdout
    # A prompt of more than a pass by itself, then its answer by itself; then two answers at once.
    prompt = " ".join(f"The capital of {land} is" for land in ("France", "Spain", "Italy", "Norway") * 6)

    def seen(node, *figures):
        return lambda: all(node.placement("smollm2")["observed"][figure] for figure in figures)
    with nodes.asking(head.complete, "smollm2", prompt, TOKENS):
        for node in members:
            nodes.wait_for("one stream is measured, and who is not the head hears of it",
                           seen(node, "tokens_s", "prompt_tokens_s"), timeout_s=180)
    ask = ("smollm2", PROMPT, TOKENS)
    with nodes.asking(head.complete, *ask), nodes.asking(other.complete, *ask):
        nodes.wait_for("two at once are measured", seen(head, "tokens_s_many"), timeout_s=180)
    assert 1 < head.placement("smollm2")["observed"]["streams"] < 2.01
    assert "measured: first token after" in other.cli("status").stdout


def test_a_frozen_node_is_missed_and_comes_back(lan):
    members = nodes.cluster_on(lan.add_hosts(3))
    members[2].pause()
    nodes.wait_for("its silence is noticed",
                   lambda: all(m.states()[members[2].name] in ("suspect", "dead") for m in members[:2]))
    members[2].resume()
    nodes.wait_for("it is back and accuses nobody", lambda: nodes.all_alive(members))


def test_parted_and_together_again(lan):
    hosts = lan.add_hosts(3)
    members = nodes.cluster_on(hosts)
    lan.cut(hosts[:1], hosts[1:])
    nodes.wait_for("both parts notice", lambda: members[0].states()[members[1].name] == "dead"
                   and members[1].states()[members[0].name] == "dead")
    assert members[1].states()[members[2].name] == "alive"
    lan.cut(hosts[:1], hosts[1:], cut=False)
    nodes.wait_for("one cluster again", lambda: see_each_other(members))


def test_a_revoked_node_is_out_for_good(lan):
    members = nodes.cluster_on(lan.add_hosts(3))
    members[0].cli("revoke", members[2].node_id())
    nodes.wait_for("nobody has it as alive",
                   lambda: all(m.states().get(members[2].name) != "alive" for m in members[:2]))
    members[2].process.kill()
    members[2].process.wait()
    members[2].start()
    time.sleep(3)
    assert all(m.states().get(members[2].name) != "alive" for m in members[:2])
    # Its key, that is. Whoever has the device again leaves and is invited as anybody else is.
    out = members[2].node_id()
    members[2].cli("leave")
    members[2].process.wait(10)
    members[2].start("--join", members[0].invite()["code"])
    again = members[2].node_id()
    assert again != out and "it takes a new one" in members[2].output()

    def has(member):
        return again in {node["id"] for node in member.status()["nodes"] if node["state"] == "alive"}

    nodes.wait_for("it is a member again", lambda: all(map(has, members)))
    # There are two of that name, one of them gone: the one that is here is meant.
    members[0].cli("revoke", members[2].name)
    nodes.wait_for("it is out again", lambda: not any(map(has, members[:2])))


def test_a_phone_that_was_lost_long_ago_is_thrown_out_by_its_name(lan):
    """The owner has restarted since, so its status no longer shows it; and the phone learns why nobody talks to it."""
    owner, other, phone = members = nodes.cluster_on(lan.add_hosts(3))
    phone.kill()
    nodes.wait_for("it is given up", lambda: other.states().get(phone.name) == "dead")
    assert owner.stop() == 0
    owner.start()
    nodes.wait_for("the two that are left see each other", lambda: owner.states().get(other.name) == "alive")
    assert phone.name not in owner.states()
    unknown = owner.cli("revoke", "tablet", check=False)
    assert unknown.returncode != 0 and phone.name in unknown.stderr, "the names that there are"
    owner.cli("revoke", phone.name)
    phone.start()
    nodes.wait_for("it is told why", lambda: "was revoked" in phone.output() and "`shoal leave`" in phone.output())
    assert all(member.states().get(phone.name) != "alive" for member in members[:2])
    owner.cli("revoke", ".." + other.node_id()[-12:])   # as `shoal status` shows it
    nodes.wait_for("the other is out as well", lambda: owner.states().get(other.name) != "alive")


def test_a_placement_has_so_many_stages_at_most(lan, smollm2):
    members = nodes.cluster_on(lan.add_hosts(2), models=[smollm2])
    for asked in members:   # whoever decides
        done = asked.cli("place", "smollm2", "--nodes", ",".join([members[0].name] * 129), check=False)
        assert done.returncode != 0 and "128" in done.stderr, done.stderr
    assert nodes.all_alive(members) and all(member.process.poll() is None for member in members)


@pytest.mark.unsanitized
def test_an_idle_node_is_small(lan):
    node = nodes.Node(lan.add_host())
    print(f"ready after {node.ready_s * 1000:.0f} ms, {node.rss_anon_bytes() >> 10} KiB")
    assert node.rss_anon_bytes() < 40 << 20
    assert node.stop() == 0
