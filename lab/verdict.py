"""The Verdict: what episodes that the search never saw say about its best and the baseline.

Confirmation episodes choose the finalists; the sealed holdout, played once, decides. A finalist wins only if
both its interval and its test say so, corrected for all finalists together (Bonferroni).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lab.evaluation import Evaluation
from lab.intervals import Estimate, sign_flip_p, t_interval
from lab.objective import Objective
from lab.trial import Trial


@dataclass(frozen=True)
class Compared:
    """A trial beside the baseline, on seeds that the search did not play.

    Attributes:
        unseen: its episodes there.
        difference: its return less the baseline's, over the seeds that both ended; the interval holds for
            all that are compared there together.
        p_value: of the sign-flip test of these differences, two-sided, times the number compared.
        kept: its return less what the objective's rule asks of a cheaper one; None without a cost.
        saving: the baseline's cost less its own, an episode.
    """

    trial: Trial
    unseen: Evaluation
    difference: Estimate
    p_value: float
    kept: Estimate | None = None
    saving: Estimate | None = None

    def better(self, level: float) -> bool:
        """Whether its return is shown to be higher than the baseline's."""
        return self.difference.low > 0 and self.p_value <= level

    @property
    def cheaper(self) -> bool:
        """Whether it is shown to cost less, at a return within the objective's reach of the baseline's."""
        return bool(self.kept and self.saving and self.kept.low > 0 and self.saving.low > 0)


@dataclass(frozen=True)
class Comparison:
    """Trials and the baseline on the same seeds."""

    baseline: Evaluation
    compared: tuple[Compared, ...]


@dataclass(frozen=True)
class Verdict:
    """The outcome.

    Attributes:
        winner: the best of the finalists that beat the baseline in return, or in cost by the objective's
            rule; None where none does.
        confidence: of the intervals of each comparison together.
    """

    confirmation: Comparison
    holdout: Comparison
    winner: Compared | None
    confidence: float

    @property
    def baseline(self) -> Evaluation:
        """The baseline on the holdout."""
        return self.holdout.baseline

    @property
    def finalists(self) -> tuple[Compared, ...]:
        """What played the holdout beside it."""
        return self.holdout.compared

    @property
    def frozen(self) -> Evaluation:
        """The holdout episodes of what is to be frozen."""
        return self.winner.unseen if self.winner else self.baseline

    @property
    def method(self) -> str:
        """The test, in words."""
        corrected = f", Bonferroni over {len(self.finalists)} finalists" if len(self.finalists) > 1 else ""
        return f"paired t interval and paired sign-flip test of the difference in return{corrected}"


def compare(
    baseline: Evaluation,
    played: Sequence[tuple[Trial, Evaluation]],
    objective: Objective,
    confidence: float,
) -> Comparison:
    """Put each trial beside the baseline, seed by seed; one without two common seeds is left out."""
    count = len(played) * (1 if objective.cost is None else 2)  # better, or cheaper: two ways to win
    compared = [
        _compared(baseline, trial, unseen, objective, confidence, count)
        for trial, unseen in played
        if len(baseline.returns.keys() & unseen.returns.keys()) >= 2
    ]
    return Comparison(baseline, tuple(compared))


def finalists(confirmation: Comparison, objective: Objective, count: int) -> list[Trial]:
    """The best of the confirmed by the objective's rule; their search returns count no more."""
    chosen = ordered(confirmation.compared, objective)
    return [compared.trial for compared in chosen[:count]]


def ordered(compared: Sequence[Compared], objective: Objective) -> list[Compared]:
    """Best first, by the objective's rule, on what was played here."""
    order = objective.order_evaluations([one.unseen for one in compared])
    return [compared[place] for place in order]


def judge(confirmation: Comparison, holdout: Comparison, objective: Objective, confidence: float) -> Verdict:
    """Choose the best finalist of those that beat the baseline on the holdout, or none."""
    able = [one for one in holdout.compared if one.better(1 - confidence) or one.cheaper]
    winner = ordered(able, objective)[0] if able else None
    return Verdict(confirmation, holdout, winner, confidence)


def _compared(
    baseline: Evaluation,
    trial: Trial,
    unseen: Evaluation,
    objective: Objective,
    confidence: float,
    count: int,
) -> Compared:
    mine = {episode.seed: episode for episode in unseen.episodes}
    pairs = [(episode, mine[episode.seed]) for episode in baseline.episodes if episode.seed in mine]
    differences = [own.episode_return - base.episode_return for base, own in pairs]
    difference = t_interval(differences, confidence, count)
    p_value = min(1.0, sign_flip_p(differences) * count)
    if objective.cost is None:
        return Compared(trial, unseen, difference, p_value)
    asked = objective.floor(np.array([base.episode_return for base, _ in pairs]))
    kept = [own.episode_return - float(floor) for (_, own), floor in zip(pairs, asked, strict=True)]
    savings = [objective.cost_of(base) - objective.cost_of(own) for base, own in pairs]
    return Compared(
        trial,
        unseen,
        difference,
        p_value,
        t_interval(kept, confidence, count),
        t_interval(savings, confidence, count),
    )
