"""Writing one text: what the DSPy and GEPA proposers share, and their call of the model."""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from lab.errors import CallError
from lab.llm.client import Completion, Message, Model
from lab.llm.sampling import SamplingParams
from lab.proposers.briefing import Briefing, Part, Rated
from lab.proposers.proposal import ProposalRefusedError, rules

SAMPLING = SamplingParams(temperature=1.0, max_tokens=700)
"""Default sampling of a proposal: room for a long text, and variety."""

AGAIN = "Your last answer could not be used:"
"""What the model reads before the reason at the second try."""

_SENTENCES = re.compile(r".*[.!?](?=\s)", re.DOTALL)
"""A text up to its last whole sentence."""


@dataclass(frozen=True)
class Assignment:
    """One text to write.

    Attributes:
        parent: The text to improve.
        partner: A text that does better on another instance, whose strengths are to be taken over; or None.
        part: The part to write; the other is the parent's.
        refused: Why the first try was refused; empty at the first try.
    """

    briefing: Briefing
    parent: Rated
    partner: Rated | None
    part: Part
    refused: str = ""

    @property
    def text(self) -> str:
        """The text to replace."""
        return str(getattr(self.parent.template, self.part))

    @property
    def parents(self) -> tuple[str, ...]:
        """Names of the texts that the model reads."""
        texts = (self.parent, self.partner) if self.partner else (self.parent,)
        return tuple(rated.template.name for rated in texts)

    @property
    def rules(self) -> str:
        """What the new text must keep, and why the first try was refused."""
        again = f" {AGAIN} {self.refused} Write another." if self.refused else ""
        return rules(self.text) + again

    def texts(self, written: str) -> tuple[str, str]:
        """System and turn text with the written part."""
        template = self.parent.template
        return (written, template.turn) if self.part == "system" else (template.system, written)


Write = Callable[[Assignment], Awaitable[str]]
"""Writes the assigned part."""


async def ask(
    model: Model, messages: Sequence[Message], sampling: SamplingParams, *, last: bool = False
) -> Completion:
    """Ask the model for a complete answer; at the `last` try, one that was cut off ends with a sentence.

    Raises:
        CallError: The answer was only thinking; a second one would be too.
        ProposalRefusedError: The answer was cut off, so its text is incomplete.
    """
    completion = await model.complete(messages, sampling)
    if completion.only_thought:
        why = f"all {sampling.max_tokens} tokens went to thinking"
        do = "raise proposals.max_tokens, or set proposals.reasoning_effort"
        raise CallError("A proposed text is missing.", why=f"{why}: {do}")
    if completion.finish_reason == "length" and last and (whole := _SENTENCES.match(completion.text)):
        return replace(completion, text=whole[0])
    if completion.finish_reason == "length":
        why = f"it was cut off after {sampling.max_tokens} tokens; raise proposals.max_tokens"
        raise ProposalRefusedError("A proposed text is incomplete.", why=why)
    return completion
