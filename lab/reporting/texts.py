"""The episodes of a study with their texts, as far as the report has room for them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from lab.agent.episode import Ending, Episode
from lab.agent.step import Step
from lab.storage.keys import EpisodeKey
from lab.storage.record import Record

MOST = 1_500_000
"""Number of characters of episodes after which the texts of further candidates are left out."""

Endings = Mapping[str, Mapping[int, Ending]]
"""How episodes ended, by the candidate's digest and by seed."""


def endings_of(record: Record) -> Endings:
    """How each candidate's episodes ended, in the order of seeds."""
    found = defaultdict[str, dict[int, Ending]](dict)
    for (digest, seed), ending in sorted(record.ended.items(), key=lambda one: one[0][1]):
        found[digest][seed] = ending
    return dict(found)


def texts_of(record: Record, endings: Endings, digests: Sequence[str]) -> dict[EpisodeKey, Episode]:
    """The completed episodes of these candidates, in this order, until there is no more room."""
    texts, left, room, amount = dict[EpisodeKey, Episode](), list(dict.fromkeys(digests)), MOST, 1
    while left and room >= 0:
        # Ever more at once: few queries, and none for much more than there is room for.
        some, left, amount = left[:amount], left[amount:], 2 * amount
        found = record.all_episodes_of(some)
        for digest in some:
            mine = [(digest, seed) for seed in endings.get(digest, {}) if (digest, seed) in found]
            texts |= {key: found[key] for key in mine}
            room -= sum(_size(step) for key in mine for step in found[key].steps)
            if room < 0:
                break
    return texts


def _size(step: Step) -> int:
    return len(step.action) + (0 if step.observation == step.action else len(step.observation))
