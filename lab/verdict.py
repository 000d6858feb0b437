"""The Verdict: what episodes that the search never saw say about its finalists and the baseline.

A finalist wins only if the whole interval of its paired difference to the baseline lies above zero; the
intervals hold for all finalists together (Bonferroni), so that picking the best of them is paid for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lab.evaluation import Evaluation
from lab.intervals import Estimate, t_interval
from lab.search import Trial


@dataclass(frozen=True)
class Finalist:
    """A trial on the holdout.

    Attributes:
        holdout: its episodes there.
        difference: its return less the baseline's, over the seeds that both ended.
    """

    trial: Trial
    holdout: Evaluation
    difference: Estimate


@dataclass(frozen=True)
class Verdict:
    """The outcome.

    Attributes:
        winner: the finalist with the highest difference among those that beat the baseline, if any.
        confidence: of all the intervals together.
    """

    baseline: Evaluation
    finalists: tuple[Finalist, ...]
    winner: Finalist | None
    confidence: float

    @property
    def frozen(self) -> Evaluation:
        """The holdout episodes of what is to be frozen."""
        return self.winner.holdout if self.winner else self.baseline

    @property
    def method(self) -> str:
        """The test, in words."""
        corrected = f", Bonferroni over {len(self.finalists)} finalists" if len(self.finalists) > 1 else ""
        return f"paired t interval of the difference in return{corrected}"


def judge(baseline: Evaluation, holdouts: Sequence[tuple[Trial, Evaluation]], confidence: float) -> Verdict:
    """Compare each finalist with the baseline, seed by seed. Without two common seeds nothing can win."""
    finalists = []
    for trial, holdout in holdouts:
        seeds = baseline.returns.keys() & holdout.returns.keys()
        if len(seeds) < 2:
            continue
        differences = [holdout.returns[seed] - baseline.returns[seed] for seed in sorted(seeds)]
        estimate = t_interval(differences, confidence, comparisons=len(holdouts))
        finalists.append(Finalist(trial, holdout, estimate))
    better = [finalist for finalist in finalists if finalist.difference.low > 0]
    winner = max(better, key=lambda finalist: finalist.difference.mean, default=None)
    return Verdict(baseline, tuple(finalists), winner, confidence)
