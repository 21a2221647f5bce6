"""One arm64 node, emulated as a Snapdragon without SVE, and two of this machine's kind: one model over all three.

Nodes of different CPUs compute the same within a tolerance, never to the bit. So a text is compared that the model is
sure of; and where it is not, the distributions of the next token, by their KL divergence.
"""
import contextlib
import math
import os
import tempfile

import nodes
import streams

PROMPT = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,"   # a text that the model is sure of
TOKENS = 16
OPEN_ENDED = ("The best thing about rivers is", "Once upon a time there was a", "In the morning she went to the",
              "My favourite colour is", "Scientists have found that", "He opened the box and saw",
              "The price of bread is", "They talked about")   # the next token could be many
ALTERNATIVES = 20
KL_MAX = 2e-2        # of one prompt
KL_MEAN_MAX = 1e-2   # over all prompts; between two layouts of the weights on one x86 machine it is 5e-3


@contextlib.contextmanager
def three_nodes(qemu, arm_binary, model):
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="arm") as folder:
        here = nodes.Here(folder)
        with contextlib.closing(here):
            def start(name, *words, **more):
                return nodes.Node(here, "--listen", "127.0.0.1", "--net-port", "0", "--no-mdns", *words, name=name,
                                  models=[model], api_port=here.free_port(), folder=here.folder, at_end=here.at_end,
                                  **more)
            alpha = start("alpha")
            started = [alpha]
            emulated = {"before": qemu("max,sve=off,sme=off"), "binary": arm_binary, "hang_s": 600}
            for name, more in [("phone", emulated), ("beta", {})]:
                invite = alpha.invite()
                address = next(a for a in invite["addresses"] if "127.0.0.1" in a)
                started.append(start(name, "--join", invite["code"], "--peer", address, **more))
            nodes.wait_for("all see three", lambda: all(sorted(n.states().values()) == ["alive"] * 3 for n in started),
                           180)
            yield started


def next_tokens(node, model):
    """For each open-ended prompt the log-probabilities of the likeliest next tokens, by the API of `node`."""
    with node.client().with_options(timeout=600) as client:
        told = [client.completions.create(model=model, prompt=prompt, max_tokens=1, temperature=0,
                                          logprobs=ALTERNATIVES) for prompt in OPEN_ENDED]
    return [one.choices[0].logprobs.top_logprobs[0] for one in told]


def divergence(here, there):
    """KL of two distributions, known where both tell a token's probability; all others count as one token."""
    both = here.keys() & there.keys()
    parts = [(math.exp(here[t]), math.exp(there[t])) for t in both]
    parts.append(tuple(max(1 - sum(column), 1e-9) for column in zip(*parts)))
    return sum(p * math.log(p / q) for p, q in parts)


def check_divergence(here, there):
    each = [divergence(p, q) for p, q in zip(here, there, strict=True)]
    print(f"KL of the next token: mean {sum(each) / len(each):.1e}, largest {max(each):.1e}")
    assert all(len(p.keys() & q.keys()) > ALTERNATIVES / 2 for p, q in zip(here, there, strict=True))
    assert max(each) < KL_MAX and sum(each) / len(each) < KL_MEAN_MAX


def test_a_phone_and_two_pcs_answer_and_go_on_without_the_phone(qemu, arm_binary, smollm2):
    name = os.path.basename(smollm2).removesuffix(".gguf")
    with three_nodes(qemu, arm_binary, smollm2) as (alpha, phone, beta):
        arch = {n["name"]: n["device"]["arch"] for n in alpha.status()["nodes"]}
        assert arch["phone"].startswith("aarch64") and not arch["alpha"].startswith("aarch64")
        alpha.cli("place", name, "--stages", "1", "--nodes", "alpha", "--standby", "off", timeout=600)
        expected, expected_next = alpha.complete(name, PROMPT, TOKENS), next_tokens(alpha, name)
        alpha.cli("place", name, "--stages", "3", "--nodes", "alpha,phone,beta", "--standby", "off", timeout=600)
        assert [stage["name"] for stage in alpha.placement(name)["stages"]] == ["alpha", "phone", "beta"]
        assert streams.ask(alpha, name, PROMPT, TOKENS).text == expected
        check_divergence(expected_next, next_tokens(alpha, name))
        begun = streams.Asking(beta, name, PROMPT, TOKENS)
        nodes.wait_for("it answers", lambda: begun.pieces() > 0, 300)
        phone.kill()
        ended = begun.wait(600)
        assert (ended.text, ended.error) == (expected, "")
        nodes.wait_for("the phone is missed", lambda: alpha.states()["phone"] == "dead", 120)
        assert streams.ask(beta, name, PROMPT, TOKENS).text == expected
        stages = alpha.placement(name)["stages"]
        assert "phone" not in {stage["name"] for stage in stages}
