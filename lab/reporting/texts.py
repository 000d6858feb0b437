"""The episodes of a study with their texts, as far as the report has room for them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from lab.agent.episode import Ending, Episode, Tally
from lab.agent.step import Step
from lab.storage.record import EpisodeKey, Record

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
    texts, room = dict[EpisodeKey, Episode](), MOST
    for digest in dict.fromkeys(digests):
        whole = [seed for seed, one in endings.get(digest, {}).items() if isinstance(one, Tally)]
        for episode in record.episodes_of(digest, whole):
            texts[digest, episode.seed] = episode
            room -= sum(map(_size, episode.steps))
        if room < 0:
            break
    return texts


def _size(step: Step) -> int:
    return len(step.action) + (0 if step.observation == step.action else len(step.observation))
