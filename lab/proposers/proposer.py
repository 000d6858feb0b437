"""A Proposer: writes new texts, given the episodes played so far.

A round's texts are requested concurrently. A text that is refused goes back to the model once, with the
reason. How a library writes one text is that library's module.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, Protocol

from lab.agent.template import PromptTemplate
from lab.errors import BudgetError, CallError, EndpointError
from lab.llm.client import Model
from lab.llm.sampling import SamplingParams
from lab.proposers.briefing import Briefing
from lab.proposers.parents import assignments
from lab.proposers.proposal import ProposalRefusedError, Proposals, accept, fingerprint, without_duplicates
from lab.proposers.writing import SAMPLING, Assignment, Write

TRIES = 2
"""Calls for a text: a refused one goes back once."""


class Proposer(Protocol):
    """Writes new texts."""

    async def propose(self, briefing: Briefing, count: int, round_number: int) -> Proposals:
        """Write up to `count` new texts.

        Raises:
            EndpointError: The proposing model is unavailable.
            BudgetError: The budget is used up.
        """
        ...


class RoundProposer:
    """A proposer from a function that writes one text.

    Args:
        name: Prefix of the texts' names, `<name>-<round>-<place>`.
        make_write: Imports the library and returns that function; runs once, in a thread, during episodes.
    """

    def __init__(self, name: str, make_write: Callable[[], Write]) -> None:
        self._name, self._make_write = name, make_write
        self._write: Write | None = None

    async def propose(self, briefing: Briefing, count: int, round_number: int) -> Proposals:
        """Request all texts concurrently, and sort them into accepted, refused and duplicate."""
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
    return RoundProposer(name, lambda: make_write(model, sampling))
