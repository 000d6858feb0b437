"""An Unvalidated study: its budget ended before a verdict, but its search has a best candidate.

It owns the summary of that candidate, and the FrozenPrompt made from it on request. The figures are the
search's: the best of many noisy candidates is overestimated, and nothing here corrects that.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan
from pathlib import Path
from typing import Any

from lab.agent.evaluation import BASELINE, Evaluation, Trial
from lab.errors import LabError
from lab.experiment.budget import Spending
from lab.experiment.experiment import Experiment
from lab.llm.settings import ModelChoice
from lab.stats.format import count, estimate_text
from lab.stats.intervals import Estimate, t_interval
from lab.submission.frozen import Evidence, FrozenPrompt, Provenance
from lab.verdict.outcome import ends, frozen_prompt, rounded

METHOD = "none: figures of the search, in which the best of many is overestimated"
"""The `method` in the evidence of a prompt frozen without a verdict."""


@dataclass(frozen=True)
class Unvalidated:
    """A study that ended without a verdict.

    Attributes:
        trials: Trials of the search, best first, with the baseline; at least one has a whole episode.
        reason: Why there is no verdict.
        minutes: Working time in minutes.
        created: Time, ISO 8601, UTC.
    """

    experiment: Experiment
    model: ModelChoice
    study: str
    trials: tuple[Trial, ...]
    spending: Spending
    reason: LabError
    minutes: float
    created: str

    @property
    def best(self) -> Trial:
        """The best trial of the search, which may be the baseline."""
        return self.trials[0]

    @property
    def baseline(self) -> Evaluation | None:
        """The baseline's episodes in the search."""
        return next((trial.evaluation for trial in self.trials if trial.number == BASELINE), None)

    def frozen_prompt(self) -> FrozenPrompt:
        """The best so far, marked as not validated."""
        provenance = Provenance(
            created=self.created,
            experiment=self.experiment.name,
            study=self.study,
            trial=self.best.number,
            calls=self.spending.calls,
            prompt_tokens=self.spending.prompt_tokens,
            completion_tokens=self.spending.completion_tokens,
            minutes=round(self.minutes, 1),
            versions=[],
            dollars=None if self.spending.unpriced else round(self.spending.dollars, 4),
            thinking_tokens=self.spending.thinking_tokens or None,
            estimated_calls=self.spending.estimated or None,
        )
        return frozen_prompt(self.experiment, self.model, self.best.candidate, self.evidence, provenance)

    @property
    def evidence(self) -> Evidence:
        """The search's figures, without a test."""
        best, baseline = self.best.evaluation, self.baseline
        own, theirs, difference = self._estimate(best), self._estimate(baseline), self._difference()
        return Evidence(
            outcome="unvalidated",
            episodes=difference.n,
            confidence=self.experiment.verdict.confidence,
            method=METHOD,
            frozen_return=rounded(best.mean_return),
            frozen_interval=ends(own),
            baseline_return=rounded(baseline.mean_return) if baseline else nan,
            baseline_interval=ends(theirs),
            difference=rounded(difference.mean),
            difference_interval=ends(difference),
            p_value=1.0,
            frozen_score=round(best.mean_score, 3),
            baseline_score=round(baseline.mean_score, 3) if baseline else nan,
            frozen_tokens=round(best.tokens, 1),
            baseline_tokens=round(baseline.tokens, 1) if baseline else nan,
            judged=self.experiment.objective.maximise,
        )

    def _estimate(self, evaluation: Evaluation | None) -> Estimate:
        if evaluation is None:
            return Estimate(nan, -inf, inf, 0)
        return t_interval(list(evaluation.values.values()), self.experiment.verdict.confidence)

    def _difference(self) -> Estimate:
        """The difference over the search's seeds that both have played."""
        own, theirs = self.best.evaluation.values, self.baseline.values if self.baseline else {}
        pairs = [own[seed] - theirs[seed] for seed in own if seed in theirs]
        return t_interval(pairs, self.experiment.verdict.confidence) if pairs else Estimate(nan, -inf, inf, 0)


def unvalidated_summary(study: Unvalidated, written_to: Path | None, again: str) -> str:
    """The result for people: the best so far, why it is not validated, and what to do.

    Args:
        written_to: Path of the frozen file; None if it was not written.
        again: Command that resumes the study.
    """
    best, baseline = study.best, study.baseline
    lines = [
        f"No verdict: {study.reason.what.rstrip('.')} ({study.reason.where or 'the holdout'}).",
        f"Best of the search so far, NOT VALIDATED on unseen episodes: {best.name},"
        f" {_figures(study, best.evaluation)}.",
        *([f"Baseline on the search's seeds: {_figures(study, baseline)}."] if baseline else []),
        "The best of many noisy candidates is overestimated: expect less of it on new episodes.",
        f"Cost: {study.spending.calls:,} calls, {study.minutes:.1f} minutes.",
    ]
    if written_to is not None:
        return "\n".join([*lines, f"Written to {written_to}, marked as not validated."])
    return "\n".join(
        [
            *lines,
            "Next:",
            f"  raise the limit, then {again}   resumes; no answered call is repeated",
            f"  {again} --freeze-unvalidated   freezes this candidate without validation",
        ]
    )


def unvalidated_result(study: Unvalidated, written_to: Path | None, untracked: Sequence[str] | None) -> str:
    """The same as one JSON document; `verdict` is null."""
    spent = study.spending
    table: dict[str, Any] = {
        "format": 1,
        "study": study.study,
        "experiment": study.experiment.name,
        "model": {
            "endpoint": study.model.shown,
            "name": study.model.name,
            "dialect": study.model.dialect.as_table(),
        },
        "verdict": None,
        "reason": {"what": study.reason.what, "where": study.reason.where},
        "frozen_file": str(written_to) if written_to else None,
        "unvalidated": {
            "trial": study.best.name,
            "candidate": {"digest": study.best.candidate.digest, "settings": study.best.candidate.settings},
            "judged": study.experiment.objective.maximise,
            "return": study.best.evaluation.mean_return,
            "score": study.best.evaluation.mean_score,
            "episodes": len(study.best.evaluation.episodes),
            "baseline_return": study.baseline.mean_return if study.baseline else None,
        },
        "cost": {"calls": spent.calls, "minutes": study.minutes},
        "untracked": None if untracked is None else list(untracked),
    }
    return json.dumps(table, indent=2, ensure_ascii=False, allow_nan=False)


def _figures(study: Unvalidated, evaluation: Evaluation) -> str:
    estimate = t_interval(list(evaluation.values.values()), study.experiment.verdict.confidence)
    measure = study.experiment.objective.maximise
    return f"{measure} {estimate_text(estimate)} in {count(estimate.n, 'episode')}"
