"""Parents: which texts a round starts from: those that are best on some instance, not one leader.

GEPA's candidate selection (Agrawal et al., arXiv 2507.19457, section 3.2) with the race's seeds as instances.
It depends only on the results and on the round's number.
"""

import random
from collections import Counter
from collections.abc import Sequence

from lab.proposers.briefing import Briefing, Part, Rated
from lab.proposers.writing import Assignment

TURNS = 4
"""Every fourth text of a study is a turn text: most of what a text says is in the system text."""


def assignments(briefing: Briefing, count: int, round_number: int) -> list[Assignment]:
    """The `count` texts to write in a round; the first starts from the best text."""
    texts, rng = briefing.texts, random.Random(round_number)
    shares = front(texts)
    names = list(shares)
    chosen = [0, *rng.choices(names, [shares[name] for name in names], k=count)][:count]
    found = list[Assignment]()
    for place, parent in enumerate(chosen):
        part: Part = "turn" if (place + count * (round_number - 1)) % TURNS == TURNS - 1 else "system"
        partner = partner_of(texts, parent) if place % 2 else None  # every other text merges two parents
        found.append(Assignment(briefing, texts[parent], partner, part))
    return found


def front(texts: Sequence[Rated]) -> Counter[int]:
    """The number of instances on which each text, by place, is the best; of equal ones the first is."""
    best = dict[int, int]()
    for place, rated in enumerate(texts):
        for seed, value in rated.values.items():
            if seed not in best or value > texts[best[seed]].values[seed]:
                best[seed] = place
    return Counter(best.values()) or Counter([0])


def partner_of(texts: Sequence[Rated], parent: int) -> Rated | None:
    """The text that is furthest ahead of a parent on one instance; None if none is."""
    own = texts[parent].values
    leads = [
        (value - own[seed], -place)
        for place, rated in enumerate(texts)
        for seed, value in rated.values.items()
        if seed in own and value > own[seed]
    ]
    return texts[-max(leads)[1]] if leads else None
