"""A Proposer: writes new texts, given the episodes played so far.

It owns which texts a round starts from: those that are best on some instance, not one leader. This is GEPA's
candidate selection (Agrawal et al., arXiv 2507.19457, section 3.2) with the race's seeds as instances. How a
library writes one text is that library's module.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from lab.agent.template import PromptTemplate
from lab.errors import BudgetError, CallError, EndpointError
from lab.llm.client import Model
from lab.llm.sampling import SamplingParams
from lab.proposers.briefing import Briefing, Part, Rated
from lab.proposers.proposal import ProposalRefusedError, Proposals, accept, fingerprint, without_duplicates
from lab.proposers.writing import SAMPLING, Assignment, Write

TRIES = 2
"""Calls for a text: a refused one goes back to the model once, with the reason."""

TURNS = 4
"""Every fourth text of a study is a turn text: most of what a text says is in the system text."""


class Proposer:
    """Writes the texts of a round with a function that writes one.

    Args:
        name: Prefix of the texts' names, `<name>-<round>-<place>`.
        make_write: Imports the library and returns that function; runs once, in a thread, during episodes.
    """

    def __init__(self, name: str, make_write: Callable[[], Write]) -> None:
        self._name, self._make_write = name, make_write
        self._write: Write | None = None

    async def propose(self, briefing: Briefing, count: int, round_number: int) -> Proposals:
        """Request up to `count` new texts concurrently.

        Raises:
            EndpointError: The proposing model is unavailable.
            BudgetError: The budget is used up.
        """
        self._write = self._write or await asyncio.to_thread(self._make_write)
        orders = assignments(briefing, count, round_number)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._one(order, f"{self._name}-{round_number}-{place}"))
                    for place, order in enumerate(orders)
                ]
        except ExceptionGroup as errors:
            fatal = [error for error in errors.exceptions if isinstance(error, (EndpointError, BudgetError))]
            if not fatal:
                raise
            raise fatal[0] from None
        results = [task.result() for task in tasks]
        accepted = [result for result in results if isinstance(result, PromptTemplate)]
        fresh, duplicates = without_duplicates((rated.template for rated in briefing.texts), accepted)
        refused = tuple(result for result in results if isinstance(result, str))
        origins = zip(results, orders, strict=True)
        parents = {text.name: order.parents for text, order in origins if text in fresh}
        return Proposals(fresh, refused, duplicates, parents)

    async def _one(self, order: Assignment, name: str) -> PromptTemplate | str:
        """Write one text; a duplicate of the second try is returned, to be counted."""
        assert self._write is not None
        known = {fingerprint(rated.template) for rated in order.briefing.texts}
        reason = ""
        for last in (False, True):
            try:
                written = await self._write(replace(order, refused=reason))
                template = accept(name, order.parent.template, *order.texts(written))
                if last or fingerprint(template) not in known:
                    return template
                reason = "It is a text that was tried already."
            except ProposalRefusedError as error:
                reason = error.one_line
            except CallError as error:  # its own retries are used up
                return error.one_line
        return reason


def make_proposer(
    name: Literal["dspy", "gepa"], model: Model, sampling: SamplingParams = SAMPLING
) -> Proposer:
    """The proposer `name`, asking `model`."""
    if name == "dspy":
        from lab.proposers.dspy_proposer import make_write
    else:
        from lab.proposers.gepa_proposer import make_write
    return Proposer(name, lambda: make_write(model, sampling))


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
