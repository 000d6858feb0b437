"""Writing one text: what the DSPy and GEPA proposers share, and their call of the model."""

from collections.abc import Awaitable, Callable, Sequence

from lab.llm.client import Completion, Message, Model
from lab.llm.sampling import SamplingParams
from lab.proposers.briefing import Briefing, Rated
from lab.proposers.proposal import ProposalRefusedError

PARENTS = 3
"""Number of best texts from which new ones start, round-robin."""

SAMPLING = SamplingParams(temperature=1.0, max_tokens=700)
"""Default sampling of a proposal: room for a long text, and variety."""

Texts = tuple[str, str]
"""System and turn text."""

Write = Callable[[Briefing, Rated, int], Awaitable[Texts]]
"""Writes new texts from a rated one; the number is the proposal's place in its round."""


async def ask(model: Model, messages: Sequence[Message], sampling: SamplingParams) -> Completion:
    """Ask the model for a complete answer.

    Raises:
        ProposalRefusedError: The answer was cut off or only thinking, so its text is missing or incomplete.
    """
    completion = await model.complete(messages, sampling)
    if completion.only_thought:
        why = f"all {sampling.max_tokens} tokens went to thinking"
        do = "raise proposals.max_tokens, or set proposals.reasoning_effort"
        raise ProposalRefusedError("A proposed text is missing.", why=f"{why}: {do}")
    if completion.finish_reason == "length":
        why = f"it was cut off after {sampling.max_tokens} tokens; raise proposals.max_tokens"
        raise ProposalRefusedError("A proposed text is incomplete.", why=why)
    return completion
