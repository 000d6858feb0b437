"""Rows: trials as plain values, the same for `--json`, `lab export` and data frames.

It owns the columns; `docs/result.md` describes them.
"""

from collections.abc import Sequence
from typing import Any

from lab.agent.evaluation import Trial
from lab.verdict.verdict import Verdict


def trial_row(trial: Trial) -> dict[str, Any]:
    """A trial's figures in the search, without its settings; None where no whole episode was played."""
    played, was_played = trial.evaluation, bool(trial.evaluation.episodes)
    return {
        "trial": trial.name,
        "number": trial.number,
        "place": trial.place,
        "dropped": trial.dropped,
        "episodes": len(played.episodes),
        "cut": len(played.cut),
        "failed": len(played.failed),
        "return": played.mean_return if was_played else None,
        "score": played.mean_score if was_played else None,
        "tokens": played.tokens if was_played else None,
        "calls": played.calls,
        "latency_s": played.latency_s,
        "unusable": played.troubles.share,
    }


def unseen_columns(trial: Trial, verdict: Verdict | None) -> dict[str, float | None]:
    """The judged means of a trial's confirmation and holdout; None where it did not play them."""
    confirmed = {one.trial.name: one.unseen for one in verdict.confirmed} if verdict else {}
    holdout = verdict.holdout if verdict else {}
    phases = {"confirmation": confirmed, "holdout": holdout}
    return {
        phase: verdict.value(played[trial.name]) if verdict and trial.name in played else None
        for phase, played in phases.items()
    }


def trial_rows(trials: Sequence[Trial], verdict: Verdict | None) -> list[dict[str, Any]]:
    """A row for each trial, with a column for each setting that any of them has."""
    names = dict.fromkeys(name for trial in trials for name in trial.candidate.settings)
    return [
        {
            **trial_row(trial),
            **unseen_columns(trial, verdict),
            **{name: trial.candidate.settings[name] for name in names},
        }
        for trial in trials
    ]
