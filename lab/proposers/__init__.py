"""Proposers: they see what was played, and write new texts.

One file a library. What they share is here: which texts are worked from, that a round's texts are asked for
at once, and that a text which cannot be used is counted and costs nothing more.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol

from lab.briefing import Briefing, Rated
from lab.candidate import SamplingParams
from lab.endpoint import Completion, Message, Model
from lab.errors import BudgetError, CallError, EndpointError
from lab.prompt import PromptTemplate
from lab.proposal import ProposalRefusedError, Proposals, accept, without_duplicates

PARENTS = 3
"""New texts start from the best few, in turn."""

SAMPLING = SamplingParams(temperature=1.0, max_tokens=700)
"""Of a proposal: room for a long text, and little sameness between two."""

Texts = tuple[str, str]
"""System and turn text."""

Write = Callable[[Briefing, Rated, int], Awaitable[Texts]]
"""Writes new texts from a rated one; the number is the proposal's place in its round."""


class Proposer(Protocol):
    """Writes new texts."""

    async def propose(self, briefing: Briefing, count: int, round_number: int) -> Proposals:
        """Up to `count` new texts.

        Raises:
            EndpointError: the proposing model is not to be had.
            BudgetError: the budget is used up.
        """
        ...


class RoundProposer:
    """A proposer made of a way to write one text.

    Args:
        name: the texts are called `<name>-<round>-<place>`.
        make_write: imports the library; it runs once, in a thread, while episodes are played.
    """

    def __init__(self, name: str, make_write: Callable[[], Write]) -> None:
        self._name, self._make_write = name, make_write
        self._write: Write | None = None

    async def propose(self, briefing: Briefing, count: int, round_number: int) -> Proposals:
        """Ask for all at once, and sort what comes back."""
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


async def ask(model: Model, messages: Sequence[Message]) -> Completion:
    """The model's whole answer.

    Raises:
        ProposalRefusedError: it was cut off, and what there is of its text is not what was meant.
    """
    completion = await model.complete(messages, SAMPLING)
    if completion.finish_reason == "length":
        why = f"it was cut off after {SAMPLING.max_tokens} tokens"
        raise ProposalRefusedError("A proposal is not whole.", why=why)
    return completion


def make_proposer(name: Literal["dspy", "gepa"], model: Model) -> Proposer:
    """The proposer `name`, asking `model`."""
    if name == "dspy":
        from lab.proposers.dspy_proposer import make_write
    else:
        from lab.proposers.gepa_proposer import make_write
    return RoundProposer(name, lambda: make_write(model))
