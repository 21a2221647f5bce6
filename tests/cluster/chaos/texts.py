"""Prompts whose greedy continuation is decided: the model repeats or goes on with what it has just seen.

Rows computed in other batch shapes round differently (a log-probability of SmolLM2 moves by up to 0.2 in these texts,
and a lead of 0.7 was seen to turn), and a resumed answer is computed in other shapes than an undisturbed one. So only
continuations are compared whose best token leads the next by MARGIN_MIN everywhere; what leads by less is cut off. A
token that is lost, doubled or taken from another stream still shows at once: every place of every text is different.
"""
MARGIN_MIN = 1.5
TOKENS_MIN = 40      # a shorter decided continuation is left out

_PASSAGES = (
    "The harbour wakes before the sun does. Gulls quarrel over the nets, the ice house opens its heavy doors, and the "
    "first trucks back down the ramp with their lights still on. By six the auction is over. Old Marten counts his "
    "boxes twice, folds the receipt into his cap and walks home along the wall, past the chandler, the bakery and the "
    "school, where nobody is awake yet. His daughter has left a lamp burning in the kitchen window.",
    "To repair a bicycle tyre, first turn the frame upside down and loosen the wheel. Press the valve until no air is "
    "left, then lift one edge of the rubber over the rim with two levers. Pull out the tube, pump it up a little and "
    "hold it under water: bubbles rise where the hole is. Dry the spot, roughen it with sand paper, spread the glue "
    "thinly, wait five minutes and press the patch on it with your thumb.",
    "In the spring of that year a committee of nine engineers met in a rented hall to decide how wide the tracks "
    "should be. Three of them wanted four feet, two wanted seven, and the rest had come for the lunch. After a week "
    "without result the chairman drew a line on the table with chalk, measured it with his own walking stick and "
    "declared the matter closed. The railway has used that measure ever since.",
    "Honey bees tell each other where flowers are by dancing. A worker that found a good meadow runs straight ahead "
    "on the comb while shaking her body, turns left, comes back, runs again and turns right. The angle of the run "
    "against the vertical is the angle of the meadow against the sun, and the longer she shakes, the farther it is. "
    "Her sisters follow in the dark, feel the dance with their antennae, and fly out.",
)
_COUNTS = (
    "".join(f"{i} and {i + 1} make {2 * i + 1}; " for i in range(1, 40)),
    "".join(f"Day {i}: the ship sailed on, the sea was calm and we ate bread.\n" for i in range(1, 30)),
)
PROMPTS = tuple(3 * (text + "\n\n") + text[:text.index(" ", 12)] for text in _PASSAGES) + _COUNTS


def decided(token_ids, top_logprobs):
    """How many of the tokens lead by MARGIN_MIN, up to the first that does not."""
    for at, top in enumerate(top_logprobs):
        best, second = sorted(top.values(), reverse=True)[:2]
        if best - second < MARGIN_MIN:
            return at
    return len(token_ids)
