"""The likeness of texts: how much of what is known of one holds for another."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lab.search.points import Floats

Texts = Mapping[str, Mapping[Any, str]]
"""For parameters whose categories stand for texts: the text of each category."""

NO_TEXTS: Texts = {}

_OWN = 0.5
"""Share of a text's effect that other texts, whatever their words, say nothing of."""


def likeness(texts: Sequence[str]) -> Floats:
    """Return the correlation that is expected of the effects of each two texts.

    It grows with the share of their words that both have (Jaccard): texts that an optimiser has written from
    others return much as those do. An empty text is like no other.
    """
    words = [set(re.findall(r"\w+", text.lower())) for text in texts]
    places = {word: place for place, word in enumerate(sorted(set().union(*words)))}
    has = np.zeros((len(texts), len(places)))
    for row, own in enumerate(words):
        has[row, [places[word] for word in own]] = 1.0
    both, sizes = has @ has.T, has.sum(axis=1)
    either = sizes[:, None] + sizes[None, :] - both
    alike: Floats = (1 - _OWN) * both / np.maximum(either, 1.0)
    np.fill_diagonal(alike, 1.0)
    return alike
