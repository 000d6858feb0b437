"""The end of a study: freezes, tracks and prints its result.

It owns these steps; the result's text is `lab.verdict`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import typer

from lab.errors import LabError

if TYPE_CHECKING:
    from lab.study.past_study import PastStudy
    from lab.verdict.outcome import Outcome, Unvalidated


@dataclass(frozen=True)
class Ended:
    """How a study ended.

    Attributes:
        out: The frozen file; None if nothing was frozen.
        not_written: The error that prevented freezing.
        untracked: Items that MLflow rejected, a line for each reason; None if nothing was sent to it.
        urls: Pages of the study on an MLflow server, by what they show.
    """

    outcome: "Outcome | Unvalidated"
    out: Path | None
    not_written: LabError | None = None
    untracked: list[str] | None = None
    urls: Mapping[str, str] = field(default_factory=dict)


def keep(ended: "PastStudy | Unvalidated", out: Path, *, unvalidated: bool = False) -> Ended:
    """Freeze what a study found, and send it to MLflow; without a verdict, only if `unvalidated` is set."""
    from lab.reporting.page import report
    from lab.study.around import from_before
    from lab.study.past_study import PastStudy
    from lab.submission.freeze import freeze

    past = ended if isinstance(ended, PastStudy) else None
    outcome = ended.finished() if isinstance(ended, PastStudy) else ended
    if past is None and not unvalidated:
        if note := from_before(out):
            typer.echo(note, err=True)
        return Ended(outcome, None)
    frozen = outcome.frozen_prompt()
    try:
        freeze(frozen, out)
    except LabError as error:
        error.do = "run the same command with another --out; it prints the result again, without calls"
        return Ended(outcome, None, error)
    if past is not None:
        past.tracker.frozen(frozen)
        past.tracker.report(lambda: report(past))
    return Ended(outcome, out)


def shown(ended: Ended, experiment: Path, *, as_json: bool) -> str:
    """Return the result as text or JSON; suggested commands name the file `experiment`."""
    from lab.verdict.outcome import Outcome
    from lab.verdict.result_json import result
    from lab.verdict.summary import summary, untracked_lines, unvalidated_summary

    outcome, out = ended.outcome, ended.out
    if as_json:
        return result(outcome, out, ended.untracked, ended.urls)
    if isinstance(outcome, Outcome):
        return summary(outcome, out, ended.untracked, experiment, ended.urls)
    text = unvalidated_summary(outcome, out, f"python -m lab.tune {quote(str(experiment))}")
    return "\n".join([text, *untracked_lines(ended.untracked, experiment)])
