"""Rows: trials as plain values, the same for `--json`, `lab export` and data frames.

It owns the columns; `docs/result.md` describes them.
"""

from collections.abc import Sequence
from typing import Any

from lab.agent.evaluation import Evaluation, Trial
from lab.verdict.verdict import Verdict


def trial_row(trial: Trial, verdict: Verdict | None) -> dict[str, Any]:
    """A trial's figures without its settings; None where no whole episode was played.

    Its `confirmation` and `holdout` are the judged means on unseen episodes.
    """
    played, was_played = trial.evaluation, bool(trial.evaluation.episodes)
    confirmed = {one.trial.name: one.unseen for one in verdict.confirmed} if verdict else {}
    holdout = verdict.holdout if verdict else {}
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
        "expected": trial.expected.mean if trial.expected and was_played else None,
        "calls": played.calls,
        "latency_s": played.latency_s,
        "unusable": played.troubles.share,
        "confirmation": _judged(verdict, confirmed.get(trial.name)),
        "holdout": _judged(verdict, holdout.get(trial.name)),
    }


def _judged(verdict: Verdict | None, unseen: Evaluation | None) -> float | None:
    return verdict.value(unseen) if verdict and unseen is not None else None


def trial_rows(trials: Sequence[Trial], verdict: Verdict | None) -> list[dict[str, Any]]:
    """A row for each trial, with a column for each setting that any of them has."""
    names = dict.fromkeys(name for trial in trials for name in trial.candidate.settings)
    return [
        {**trial_row(trial, verdict), **{name: trial.candidate.settings[name] for name in names}}
        for trial in trials
    ]
