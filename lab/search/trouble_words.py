"""Troubles as text, the same on the terminal, in the report and in MLflow."""

from lab.agent.step import Troubles
from lab.stats.format import count, percent

TROUBLES = {
    "empty": "empty",
    "no_action": "no action",
    "refused": "refused by the environment",
    "no_answer": "missing",
}
"""Description of an answer, by the kind of its step's trouble."""


def troubles_text(troubles: Troubles) -> str:
    """`38 % of 400 answers were empty (finish_reason=length)`; empty if no step was troubled."""
    were, parts = "was" if troubles.steps == 1 else "were", list[str]()
    for kind in troubles.kinds:
        whole = "" if parts else f" of {count(troubles.steps, 'answer')}"
        why = f" ({reason})" if (reason := troubles.reason(kind)) else ""
        parts.append(f"{percent(troubles.share_of(kind))}{whole} {were} {TROUBLES.get(kind, kind)}{why}")
    return "; ".join(parts)


def troubles_brief(troubles: Troubles) -> str:
    """`38 % empty, 2 % refused`, for a table cell; empty if no step was troubled."""
    names = {kind: TROUBLES.get(kind, kind).removesuffix(" by the environment") for kind in troubles.kinds}
    return ", ".join(f"{percent(troubles.share_of(kind))} {name}" for kind, name in names.items())
