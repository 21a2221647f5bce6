"""Tokens that are computed before they are known change nothing but the time that an answer takes."""
import nodes

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


def placed(hosts, model, *words):
    """Two nodes with half of the model each; of the first."""
    members = nodes.cluster_on(hosts, "--threads", "1", *words, models=[model])
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
    drafting, plain = placed(hosts[:2], smollm2), placed(hosts[2:], smollm2, "--drafts", "off")
    for asked in ASKED:
        assert answer(drafting, asked) == answer(plain, asked)
    right, wrong = drafts(drafting)
    assert right > 30 and wrong > 0
    assert drafts(plain) == [0, 0]
    print(f"{right:.0f} drafts right, {wrong:.0f} wrong")
