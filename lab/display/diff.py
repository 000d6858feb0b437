"""Differences between two candidates: settings and texts, without what is equal in both.

All comparisons of candidates use this module, so that "equal" means the same everywhere.
"""

import difflib

from lab.agent.candidate import Candidate, Setting
from lab.llm.sampling import Settings


def settings_of(candidate: Candidate) -> Settings:
    """All settings except texts, in the order of `Candidate.settings`, then the stop strings."""
    return Settings({**candidate.settings, "stop": ", ".join(map(repr, candidate.sampling.stop)) or "none"})


def differing(one: Candidate, other: Candidate) -> dict[str, tuple[Setting, Setting]]:
    """The settings in which two candidates differ, with the value of each."""
    values, others = settings_of(one), settings_of(other)
    names = {**values, **others}
    return {name: (values[name], others[name]) for name in names if values[name] != others[name]}


def text_diff(one: Candidate, other: Candidate, names: tuple[str, str]) -> list[str]:
    """A unified diff of all texts, without newlines; empty if they are equal."""
    before, after = text_lines(one), text_lines(other)
    lines: list[str] = []
    for part in before:
        told = [f"{name}, {part}" for name in names]
        lines += difflib.unified_diff(before[part], after[part], told[0], told[1], lineterm="")
    return lines


def whole_diff(one: Candidate, other: Candidate) -> dict[str, list[str]]:
    """The parts that differ, each with all lines of both, after a space, `+` or `-` as in a unified diff."""
    before, after = text_lines(one), text_lines(other)
    diffs = {
        part: list(difflib.unified_diff(lines, after[part], n=len(lines), lineterm=""))
        for part, lines in before.items()
    }
    return {part: lines[3:] for part, lines in diffs.items() if lines}  # without the head


def demonstrations(candidate: Candidate) -> list[str]:
    """The candidate's demonstrations, line by line."""
    shown = (
        f"step {one.step}, observed: {one.observation}\nanswered: {one.action}"
        for one in candidate.demonstrations
    )
    return [line for text in shown for line in text.splitlines()]


def text_lines(candidate: Candidate) -> dict[str, list[str]]:
    """The lines of all texts, by part: system, turn and demonstrations."""
    template = candidate.template
    return {
        "system": template.system.strip().splitlines(),
        "turn": template.turn.strip().splitlines(),
        "demonstrations": demonstrations(candidate),
    }
