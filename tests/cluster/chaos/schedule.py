"""Which faults happen when: a pure function of the seed. Does nothing to anybody; faults.py does.

The rule that keeps enough nodes alive: at any moment at most `nodes - LIVE_MIN` nodes are disabled or have been until
SETTLE_S ago, and a node has one fault at a time. Disabled is who is killed (until it is started again), stopped,
frozen, unplugged, or cannot be heard by one other. Loss and jitter disable nobody, they come over all links of a node.
The process of an entry node, which clients ask, ends only while there is no other fault, and none comes until it is
back: what it answers is copied to one other node, and both at once are too much.
"""
import dataclasses
import random

LIVE_MIN = 2
SETTLE_S = 4.0                   # a node that was disabled counts as such for so long after
GAP_S = (2.0, 6.0)               # between one fault and the next
ENTRY_EVERY_S = 30.0             # from the start, or the end of one of an entry node's process, to the next
STEP_S = 0.1
FIRST_S, QUIET_S = 3.0, 5.0      # nothing before, and nothing new in the last seconds
# kind: how long it lasts in seconds, from and to.
LASTS_S = {"kill": (3.0, 8.0), "freeze": (20.0, 20.0), "cable": (5.0, 5.0), "one-way": (5.0, 10.0),
           "loss": (10.0, 10.0), "jitter": (10.0, 10.0), "restart": (0.0, 0.0)}
KINDS = tuple(LASTS_S)
ENDS_PROCESS = ("kill", "restart")
DISABLES = ("kill", "freeze", "cable", "one-way", "restart")


@dataclasses.dataclass(frozen=True)
class Fault:
    """`node` is a number from 0. `peer`: who does not hear it any more (one-way)."""
    at_s: float
    kind: str
    node: int
    lasts_s: float
    peer: int | None = None

    @property
    def end_s(self):
        return self.at_s + self.lasts_s

    def overlaps(self, other):
        """Whether both are there at some moment; a restart counts as one of SETTLE_S."""
        return max(self.at_s, other.at_s) < min(self.at_s + max(self.lasts_s, SETTLE_S),
                                                other.at_s + max(other.lasts_s, SETTLE_S))


def _free_nodes(faults, kind, at_s, lasts_s, nodes, entries):
    """Nodes that may have this fault at that time without breaking the rule."""
    until = at_s + lasts_s + SETTLE_S
    meets = [f for f in faults if f.at_s < until and at_s < f.end_s + SETTLE_S]
    free = sorted(set(range(nodes)) - {f.node for f in meets})
    if kind in ENDS_PROCESS:
        free = [node for node in free if node not in entries]
    disabled = {f.node for f in meets if f.kind in DISABLES}
    if kind in DISABLES and len(disabled) + 1 > nodes - LIVE_MIN:
        return []
    return free


def make(seed, seconds, nodes, entries=(), spared=False, kinds=KINDS):
    """The faults of a run of `seconds`, by time. `spared`: processes of entry nodes are never ended."""
    rng = random.Random(f"chaos {seed}")
    faults, bag = [], []
    at_s, entry_due_s = FIRST_S, float("inf") if spared or not entries else ENTRY_EVERY_S
    while at_s < seconds - QUIET_S:
        if at_s >= entry_due_s:
            at_s = max([at_s, *(fault.end_s + SETTLE_S + STEP_S for fault in faults)])
            if at_s >= seconds - QUIET_S:
                break
            kind = rng.choice(ENDS_PROCESS)
            faults.append(Fault(round(at_s, 2), kind, rng.choice(entries), round(rng.uniform(*LASTS_S[kind]), 2)))
            at_s = faults[-1].end_s + SETTLE_S + STEP_S
            entry_due_s = at_s + ENTRY_EVERY_S
            continue
        bag = bag or rng.sample(kinds, len(kinds))
        for kind in bag:  # the first one that the rule allows now
            lasts_s = round(rng.uniform(*LASTS_S[kind]), 2)
            lasts_s = min(lasts_s, round(seconds - at_s, 2))
            free = _free_nodes(faults, kind, at_s, lasts_s, nodes, entries)
            if not free:
                continue
            node = rng.choice(free)
            peer = rng.choice([other for other in range(nodes) if other != node]) if kind == "one-way" else None
            faults.append(Fault(round(at_s, 2), kind, node, lasts_s, peer))
            bag.remove(kind)
            break
        at_s += rng.uniform(*GAP_S)
    return faults


def overlapping(faults):
    """How many of the faults came while another one was there."""
    return sum(any(fault.overlaps(other) for other in faults[:i]) for i, fault in enumerate(faults))
