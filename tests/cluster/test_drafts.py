"""Tokens that are computed before they are known change nothing but the time that an answer takes."""
import pytest

import nodes
from sensors import Battery

FISH = ("A shoal is many small fish that move as one. Each fish watches its neighbours and follows three rules: keep "
        "close, do not collide, go where the others go.")
ASKED = [
    # A text begun again: what follows is guessed right nearly always.
    {"prompt": f"{FISH}\n\n{FISH[:40]}", "max_tokens": 60, "temperature": 0},
    # Drawn, and penalties that look back on every token: guesses are right and wrong.
    {"prompt": "One fish, two fish, red fish,", "max_tokens": 80, "temperature": 0.7, "seed": 5,
     "frequency_penalty": 0.2},
    {"prompt": "Fish:", "max_tokens": 80, "temperature": 0.5, "seed": 2,
     "extra_body": {"grammar": 'root ::= line+\nline ::= "\\n" ("red" | "blue") " fish " ("swims" | "sleeps")'}},
]


def placed(members):
    """Two nodes with half of the model each; of the first."""
    members[0].cli("place", "smollm2", "--stages", "0-14,15-29", "--standby", "off", "--nodes",
                   ",".join(member.name for member in members))
    nodes.wait_for("the placement is live", lambda: members[0].placement("smollm2"))
    return members[0]


def answer(node, asked):
    with node.client() as client:
        choice = client.completions.create(model="smollm2", logprobs=2, **asked).choices[0]
    return choice.text, choice.finish_reason, choice.logprobs.token_logprobs


def drafts(node):
    metrics = node.metrics()
    return [metrics[f'shoal_drafts{{was="{was}"}}'] for was in ("right", "wrong")]


def test_drafts_change_no_token_and_no_digit(lan, smollm2):
    hosts = lan.add_hosts(4)
    lan.link("*", "*", delay_us=3000)
    drafting = placed(nodes.cluster_on(hosts[:2], "--threads", "1", models=[smollm2]))
    plain = placed(nodes.cluster_on(hosts[2:], "--threads", "1", "--drafts", "off", models=[smollm2]))
    for asked in ASKED:
        assert answer(drafting, asked) == answer(plain, asked)
    right, wrong = drafts(drafting)
    assert right > 30 and wrong > 0
    assert drafts(plain) == [0, 0]
    print(f"{right:.0f} drafts right, {wrong:.0f} wrong")


@pytest.mark.unsanitized
def test_a_device_on_its_battery_asks_for_surer_guesses(lan, smollm2, tmp_path):
    battery = Battery(tmp_path)
    lan.link("*", "*", delay_us=10_000)  # so that drafts pay on busy machines too
    first, second = lan.add_hosts(2)
    head = nodes.Node(first, "--threads", "1", models=[smollm2])
    phone = nodes.join_on(second, head, "--threads", "1", "--system-root", battery.root, models=[smollm2])
    nodes.wait_for("they see each other", lambda: nodes.all_alive([head, phone]))
    placed([head, phone])

    def sent(charging):
        """Drafts that went out for a text whose guesses are often wrong, asked thrice."""
        battery.set(80, charging)
        nodes.wait_for("the battery is told", lambda: any(
            node["device"]["on_battery"] for node in head.status()["nodes"]) != charging)
        answer(head, ASKED[1])  # it is told a moment before it counts
        before = sum(drafts(head))
        texts = {answer(head, ASKED[1])[0] for _ in range(3)}
        assert len(texts) == 1
        return sum(drafts(head)) - before

    plugged, unplugged, plugged_again = sent(True), sent(False), sent(True)
    print(f"{plugged:.0f} drafts plugged in, {unplugged:.0f} on the battery, {plugged_again:.0f} plugged in again")
    assert plugged > 0 and plugged_again > 0
    assert unplugged < min(plugged, plugged_again)
