"""How a study ended: what is frozen and tracked of it, and what is printed.

It owns what follows from a study that ended; the verdict's words are `lab.verdict`'s.
"""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import typer

from lab.errors import LabError

if TYPE_CHECKING:
    from lab.study.past_study import PastStudy
    from lab.submission.frozen import FrozenPrompt
    from lab.verdict.outcome import Outcome
    from lab.verdict.unvalidated import Unvalidated


@dataclass(frozen=True)
class Ended:
    """How a study ended.

    Attributes:
        out: Where it was frozen to; None where nothing was.
        not_written: Why what was to be frozen is not.
        untracked: What MLflow rejected, a line for each reason; None where nothing was sent to it.
    """

    outcome: "Outcome | Unvalidated"
    out: Path | None
    not_written: LabError | None = None
    untracked: list[str] | None = None

    @property
    def unvalidated(self) -> bool:
        """Whether there is no verdict."""
        from lab.verdict.unvalidated import Unvalidated

        return isinstance(self.outcome, Unvalidated)


def keep(past: "PastStudy", out: Path) -> Ended:
    """Freeze what a study found, and give MLflow the frozen prompt and the report."""
    from lab.reporting.page import report

    outcome = past.finished()
    frozen = outcome.frozen_prompt()
    not_written = _not_frozen(frozen, out)
    if not_written is not None:
        return Ended(outcome, None, not_written)
    past.tracker.frozen(frozen)
    past.tracker.report(lambda: report(past))
    return Ended(outcome, out)


def keep_unvalidated(outcome: "Unvalidated", out: Path, *, freeze: bool) -> Ended:
    """Freeze the best of a search without a verdict, where that is asked for."""
    from lab.study.around import from_before

    if freeze:
        not_written = _not_frozen(outcome.frozen_prompt(), out)
        return Ended(outcome, None if not_written else out, not_written)
    if note := from_before(out):
        typer.echo(note, err=True)
    return Ended(outcome, None)


def shown(ended: Ended, experiment: Path, *, as_json: bool) -> str:
    """Return the result as it is printed.

    Args:
        experiment: The experiment's file, for the commands that come next.
    """
    from lab.verdict.outcome import Outcome
    from lab.verdict.result_json import result, unvalidated_result
    from lab.verdict.summary import summary, untracked_lines, unvalidated_summary

    outcome, out = ended.outcome, ended.out
    if isinstance(outcome, Outcome):
        if as_json:
            return result(outcome, out, ended.untracked)
        return summary(outcome, out, ended.untracked, experiment)
    if as_json:
        return unvalidated_result(outcome, out, ended.untracked)
    text = unvalidated_summary(outcome, out, f"python -m lab.tune {quote(str(experiment))}")
    return "\n".join([text, *untracked_lines(ended.untracked, experiment)])


def _not_frozen(frozen: "FrozenPrompt", out: Path) -> LabError | None:
    """Freeze it; why that failed."""
    from lab.submission.freeze import freeze

    try:
        freeze(frozen, out)
    except LabError as error:
        error.do = "name another file with --out: the same command prints the result again, without calls"
        return error
    return None
