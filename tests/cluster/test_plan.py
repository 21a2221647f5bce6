"""`shoal plan` on a running cluster: for the memory and the nodes that `shoal place` would take."""
import json

import nodes

MODEL = "smollm2"
BUDGET = 100 << 20  # of each node: the model, 98 MB and its K and V, needs two of them


FOR = ("--objective", "spread", "--streams", "4", "--ctx", "1024", "--json")


def planned(member):
    return json.loads(member.cli("plan", MODEL, *FOR).stdout)


def memory(stages):
    return sum(stage["memory_bytes"] for stage in stages)


def test_what_a_node_may_give_and_what_others_leave_of_it(lan, smollm2, tmp_path):
    first, second = hosts = lan.add_hosts(2)
    members = [nodes.Node(first, "--memory", "100M", models=[smollm2])]
    members.append(nodes.join_on(second, members[0], "--memory", "100M", models=[smollm2]))
    nodes.wait_for("both nodes see each other", lambda: nodes.all_alive(members), 10)
    plan = planned(members[0])
    assert len(plan["stages"]) == len(hosts) and all(stage["memory_bytes"] <= BUDGET for stage in plan["stages"])
    assert 0 < plan["stages"][0]["kv_bytes"] < plan["stages"][0]["memory_bytes"]

    members[0].cli("place", MODEL, "--standby", "off", "--slots", 4, "--ctx", 1024)
    placement = nodes.wait_for("the placement is live", lambda: members[0].placement(MODEL))
    assert memory(plan["stages"]) == memory(placement["stages"]), "counted alike"

    # Planned anew, its own stages make room; for another model they do not.
    assert memory(planned(members[1])["stages"]) == memory(placement["stages"])
    other = tmp_path / "other.gguf"
    other.symlink_to(smollm2)
    done = members[1].cli("plan", other, *FOR, check=False)
    assert done.returncode == 4 and "missing" in done.stderr
