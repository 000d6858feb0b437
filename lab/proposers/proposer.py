"""A Proposer: writes new texts, given the episodes played so far.

It owns which texts a round starts from. A round's texts are requested concurrently; an unusable one is
counted. How a library writes one text is that library's module.
"""

import asyncio
from collections.abc import Callable
from typing import Literal, Protocol

from lab.agent.template import PromptTemplate
from lab.errors import BudgetError, CallError, EndpointError
from lab.llm.client import Model
from lab.llm.sampling import SamplingParams
from lab.proposers.briefing import Briefing, Rated
from lab.proposers.proposal import ProposalRefusedError, Proposals, accept, without_duplicates
from lab.proposers.writing import PARENTS, SAMPLING, Write


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
        parents = [briefing.texts[place % min(PARENTS, len(briefing.texts))] for place in range(count)]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._one(briefing, parent, round_number, place))
                    for place, parent in enumerate(parents)
                ]
        except ExceptionGroup as errors:
            fatal = [error for error in errors.exceptions if isinstance(error, (EndpointError, BudgetError))]
            if not fatal:
                raise
            raise fatal[0] from None
        results = [task.result() for task in tasks]
        accepted = [result for result in results if isinstance(result, PromptTemplate)]
        fresh, duplicates = without_duplicates((rated.template for rated in briefing.texts), accepted)
        return Proposals(fresh, tuple(result for result in results if isinstance(result, str)), duplicates)

    async def _one(
        self, briefing: Briefing, parent: Rated, round_number: int, place: int
    ) -> PromptTemplate | str:
        name = f"{self._name}-{round_number}-{place}"
        assert self._write is not None
        try:
            system, turn = await self._write(briefing, parent, place)
            return accept(name, parent.template, system, turn)
        except (CallError, ProposalRefusedError) as error:
            return error.one_line


def make_proposer(
    name: Literal["dspy", "gepa"], model: Model, sampling: SamplingParams = SAMPLING
) -> Proposer:
    """The proposer `name`, asking `model`."""
    if name == "dspy":
        from lab.proposers.dspy_proposer import make_write
    else:
        from lab.proposers.gepa_proposer import make_write
    return RoundProposer(name, lambda: make_write(model, sampling))
