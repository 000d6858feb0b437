"""An Unvalidated study: its budget ended before a verdict, but its search has a best candidate.

It owns the FrozenPrompt that is made from it on request. The figures are the search's: the best of many noisy
candidates is overestimated, and nothing here corrects that.
"""

from dataclasses import dataclass
from math import inf, nan

from lab.agent.candidate import Candidate
from lab.agent.evaluation import BASELINE, Evaluation, Trial
from lab.errors import LabError
from lab.stats.intervals import Estimate, t_interval
from lab.submission.frozen import Evidence
from lab.verdict.outcome import StudyResult, ends, rounded
from lab.verdict.verdict import estimate

METHOD = "none: figures of the search, in which the best of many is overestimated"
"""The `method` in the evidence of a prompt frozen without a verdict."""


@dataclass(frozen=True)
class Unvalidated(StudyResult):
    """A study that ended without a verdict; at least one of its trials has a whole episode.

    Attributes:
        reason: Why there is no verdict.
    """

    reason: LabError

    @property
    def best(self) -> Trial:
        """The best trial of the search, which may be the baseline."""
        return self.trials[0]

    @property
    def baseline(self) -> Evaluation | None:
        """The baseline's episodes in the search."""
        return next((trial.evaluation for trial in self.trials if trial.number == BASELINE), None)

    @property
    def chosen(self) -> tuple[int, Candidate]:
        """The best so far."""
        return self.best.number, self.best.candidate

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
        return estimate(evaluation, self.experiment.verdict.confidence)

    def _difference(self) -> Estimate:
        """The difference over the search's seeds that both have played."""
        own, theirs = self.best.evaluation.values, self.baseline.values if self.baseline else {}
        pairs = [own[seed] - theirs[seed] for seed in own if seed in theirs]
        return t_interval(pairs, self.experiment.verdict.confidence) if pairs else Estimate(nan, -inf, inf, 0)
