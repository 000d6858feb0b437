"""Writing one text: what the modules of DSPy and GEPA share, and how they ask the model."""

from collections.abc import Awaitable, Callable, Sequence

from lab.llm.client import Completion, Message, Model
from lab.llm.sampling import SamplingParams
from lab.proposers.briefing import Briefing, Rated
from lab.proposers.proposal import ProposalRefusedError

PARENTS = 3
"""New texts start from the best few, in turn."""

SAMPLING = SamplingParams(temperature=1.0, max_tokens=700)
"""Of a proposal by default: room for a long text, and little sameness between two."""

Texts = tuple[str, str]
"""System and turn text."""

Write = Callable[[Briefing, Rated, int], Awaitable[Texts]]
"""Writes new texts from a rated one; the number is the proposal's place in its round."""


async def ask(model: Model, messages: Sequence[Message], sampling: SamplingParams) -> Completion:
    """The model's whole answer.

    Raises:
        ProposalRefusedError: it was cut off, and what there is of its text is not what was meant.
    """
    completion = await model.complete(messages, sampling)
    if completion.only_thought:
        why = f"all {sampling.max_tokens} tokens went to thinking"
        do = "raise proposals.max_tokens, or set proposals.reasoning_effort"
        raise ProposalRefusedError("A proposal has no text.", why=f"{why}: {do}")
    if completion.finish_reason == "length":
        why = f"it was cut off after {sampling.max_tokens} tokens; raise proposals.max_tokens"
        raise ProposalRefusedError("A proposal is not whole.", why=why)
    return completion
