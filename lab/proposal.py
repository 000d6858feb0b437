"""A proposal: a text that a proposer wrote, and whether it can join the race.

It owns what a text must keep. Whatever a model writes ends as a template with its placeholders, or refused.
"""

import string
from collections.abc import Iterable
from dataclasses import dataclass

from lab.errors import ConfigError, LabError
from lab.prompt import PromptTemplate

LONGEST = 4_000
"""Characters of a proposed system or turn text at most: it is sent with every call."""


class ProposalRefusedError(LabError):
    """A proposed text cannot be played, or would not be the same task."""


@dataclass(frozen=True)
class Proposals:
    """What one round brought.

    Attributes:
        refused: the reason for each text that cannot be played.
        duplicates: texts that are in the race already.
    """

    accepted: tuple[PromptTemplate, ...]
    refused: tuple[str, ...] = ()
    duplicates: int = 0


def accept(name: str, parent: PromptTemplate, system: str, turn: str) -> PromptTemplate:
    """The proposed texts as a template; an empty one stays as the parent's.

    Raises:
        ProposalRefusedError: a placeholder of the parent's is lost, one is unknown, braces do not match, or
            the text is too long or unprintable.
    """
    parts = {"system": system.strip() or parent.system, "turn": turn.strip() or parent.turn}
    for part, text in parts.items():
        if len(text) > LONGEST:
            raise _refused(name, f"the {part} text has {len(text)} characters, {LONGEST} are allowed")
        if not all(character.isprintable() or character in "\n\t" for character in text):
            raise _refused(name, f"the {part} text has unprintable characters")
    try:
        template = PromptTemplate(name, **parts)
    except ConfigError as error:
        raise _refused(name, error.one_line) from None
    for part in ("system", "turn"):
        lost = placeholders(getattr(parent, part)) - placeholders(getattr(template, part))
        if lost:
            raise _refused(name, f"the {part} text lost {{{min(lost)}}}")
    return template


def placeholders(text: str) -> frozenset[str]:
    """The names in a template text's braces."""
    return frozenset(field for _, field, _, _ in string.Formatter().parse(text) if field)


def fingerprint(template: PromptTemplate) -> str:
    """The same for texts that differ in white space alone."""
    return " ".join(template.system.split()) + "\0" + " ".join(template.turn.split())


def without_duplicates(
    known: Iterable[PromptTemplate], proposed: Iterable[PromptTemplate]
) -> tuple[tuple[PromptTemplate, ...], int]:
    """The proposed that are not known and not the same as one before, and how many were left out."""
    seen = {fingerprint(template) for template in known}
    fresh: list[PromptTemplate] = []
    left_out = 0
    for template in proposed:
        if (print_ := fingerprint(template)) in seen:
            left_out += 1
        else:
            seen.add(print_)
            fresh.append(template)
    return tuple(fresh), left_out


def _refused(name: str, why: str) -> ProposalRefusedError:
    return ProposalRefusedError("A proposed text was refused.", where=name, why=why)
