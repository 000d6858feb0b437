"""A proposal: a text that a proposer wrote, and whether it can join the race.

It owns what a text must keep. A model's answer is changed as little as needed to become a template with its
parent's placeholders, or is refused: the parent's paragraphs with those that the writer lost are appended.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lab.agent.candidate import Demonstration
from lab.agent.template import (
    FIELD,
    OPENING,
    OPENING_FIELD,
    SYSTEM_PLACEHOLDERS,
    TURN_PLACEHOLDERS,
    PromptTemplate,
    Values,
    placeholders,
)
from lab.errors import ConfigError, LabError

LONGEST = 4_000
"""Maximum characters of a proposed system or turn text: it is sent with every call."""

SHORTEST = 800
"""Characters that every proposal is allowed; one of a longer text is asked for at most twice its length."""

MEANING = {
    "step": "the number of the step that is to be played",
    "max_steps": "the number of steps in an episode",
    "schema": "the form that answers have to have",
    "observation": "what the environment last showed",
    OPENING: "what the environment showed at the start of the episode",
    "reward": "what the last action earned; nothing before the first step",
    "history": "the steps so far; nothing before the first step",
}
"""Meaning of each placeholder, for the proposing model."""

FIRST_STEP: Values = {
    **{"step": "1", "max_steps": "8", "observation": "o"},
    **{OPENING: None, "reward": None, "history": None},
}
"""Values of a turn text at an episode's start, when three placeholders have none."""


_PARAGRAPH = re.compile(r"\n[ \t]*\n")
_BRACES = re.compile(r"\{\{\s*[\w.]+\s*\}\}|\{\{|\}\}|\{[^{}]*\}|[{}]")
_FENCE = re.compile(r"\A\s*(```|'''|\"\"\")[a-z]*\n(.*)\n\s*\1\s*\Z", re.DOTALL)


class ProposalRefusedError(LabError):
    """A proposed text that cannot be played, or would change the task."""


@dataclass(frozen=True)
class Proposals:
    """The results of one round.

    Attributes:
        texts: Those that join the race.
        refused: The reason for each refused text; each was asked for twice.
        duplicates: Number of texts that are in the race already.
        parents: Names of the texts that the model read, by the name of a text.
        demonstrations: Good answers, which join the race with the texts.
    """

    texts: tuple[PromptTemplate, ...]
    refused: tuple[str, ...] = ()
    duplicates: int = 0
    parents: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)
    demonstrations: tuple[Demonstration, ...] = ()

    def __str__(self) -> str:
        """The results for people, with each text's parents and the reason for each refused text."""
        origins = {name: f" (from {' and '.join(parents)})" for name, parents in self.parents.items()}
        names = ", ".join(text.name + origins.get(text.name, "") for text in self.texts) or "none"
        counts = f"{len(self.refused)} refused, {self.duplicates} duplicates"
        reasons = (f"  refused: {reason}" for reason in self.refused)
        return "\n".join([f"{names} join the race; {counts}.", *reasons])


def accept(name: str, parent: PromptTemplate, system: str, turn: str) -> PromptTemplate:
    """The proposed texts as a template, repaired where that is enough.

    Raises:
        ProposalRefusedError: A text is empty, too long, or renders to nothing at the first step.
    """
    parts = {
        "system": _repaired(system, parent.system, "system"),
        "turn": _repaired(turn, parent.turn, "turn"),
    }
    for part, text in parts.items():
        if len(text) > LONGEST:
            raise _refused(name, f"the {part} text has {len(text)} characters, {LONGEST} are allowed")
    try:
        template = PromptTemplate(name, **parts)
    except ConfigError as error:
        raise _refused(name, error.one_line) from None
    first_step = {**FIRST_STEP, **{FIELD + field: "f" for field in parent.fields}}
    first_step |= {OPENING_FIELD + field: None for field in parent.opening_fields}
    # A paragraph is left out if a placeholder in it has no value: a text of one paragraph may vanish.
    if parent.render_turn(first_step).strip() and not template.render_turn(first_step).strip():
        raise _refused(name, "the turn text is empty at the first step")
    return template


def _repaired(text: str, parent: str, part: str) -> str:
    """Return `text` without a fence around it, unprintable characters and lost or unknown placeholders.

    Args:
        parent: The text that it replaces.
        part: `system` or `turn`.
    """
    if text.strip() == parent.strip():
        return text.strip()
    text = "".join(one for one in text if one.isprintable() or one in "\n\t").strip()
    text = fenced[2].strip() if (fenced := _FENCE.match(text)) else text
    named = set(placeholders(parent))
    usual = SYSTEM_PLACEHOLDERS if part == "system" else TURN_PLACEHOLDERS
    text = _escaped(text, usual | named)
    if not text:
        return text
    lost = named.difference(placeholders(text))
    missing = [part for part in _PARAGRAPH.split(parent.strip()) if lost.intersection(placeholders(part))]
    return "\n\n".join([text, *missing])


def _escaped(text: str, known: Iterable[str]) -> str:
    """The text with all braces literal but those of known placeholders; a field may lack its prefix."""
    meant = {name.removeprefix(FIELD): name for name in known} | {name: name for name in known}

    def replaced(found: re.Match[str]) -> str:
        braces = found[0]
        if (name := meant.get(braces.strip("{}").strip())) is not None:
            return f"{{{name}}}"
        doubled = braces.startswith("{{") or braces == "}}"
        return braces if doubled else braces.replace("{", "{{").replace("}", "}}")

    return _BRACES.sub(replaced, text)


def rules(text: str) -> str:
    """What a replacement of `text` must keep, as instructions for the proposing model."""
    short = f"Write at most {max(SHORTEST, 2 * len(text))} characters: they are sent with every call."
    names = sorted(placeholders(text))
    if not names:
        return f"{short} Write no braces."
    kept = "; ".join(f"{{{name}}}, {_meaning(name)}" for name in names)
    return (
        f"{short} Keep these placeholders exactly, they are filled in later: {kept}. Write no other braces."
    )


def _meaning(name: str) -> str:
    if name in MEANING:
        return MEANING[name]
    shown, _, field = name.partition(".")
    return f"the field {field} of {MEANING[shown]}"


def fingerprint(template: PromptTemplate) -> str:
    """A key that is equal for texts that differ only in white space."""
    return " ".join(template.system.split()) + "\0" + " ".join(template.turn.split())


def without_duplicates(
    known: Iterable[PromptTemplate], proposed: Iterable[PromptTemplate]
) -> tuple[tuple[PromptTemplate, ...], int]:
    """The proposed templates that are neither known nor repeated, and the number of the others."""
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
