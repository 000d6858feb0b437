"""The Verdict: what episodes that the search never saw say about its best and the baseline.

Confirmation episodes choose the finalists; the sealed holdout, played once, decides. A finalist wins only if
both its interval and its test say so, corrected for all finalists together (Bonferroni). Of several tasks the
mean over all is judged, or the mean of the worst.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

import numpy as np

from lab.evaluation import Evaluation
from lab.intervals import Estimate, sign_flip_p, t_interval, worst_difference
from lab.objective import Objective
from lab.trial import Trial

Judge = Literal["mean", "worst"]
"""What is judged: the mean return of all episodes, or of the task where it is lowest."""


@dataclass(frozen=True)
class Compared:
    """A finalist beside the baseline, on the holdout.

    Attributes:
        unseen: its episodes there.
        difference: its return less the baseline's, over the seeds that both ended, or its worst task's less
            the baseline's worst; the interval holds for all finalists together.
        p_value: that there is no difference, two-sided, times the number of finalists: of the sign-flip test
            of the pairs, or for the worst task as `worst_difference` says.
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
class Confirmed:
    """One of the search's best, on seeds that the search did not play.

    Attributes:
        mean: of its returns there, with an interval that holds for all the confirmed together.
    """

    trial: Trial
    unseen: Evaluation
    mean: Estimate


@dataclass(frozen=True)
class Verdict:
    """The outcome.

    Attributes:
        winner: the best of the finalists that beat the baseline in return, or in cost by the objective's
            rule, with at least one answer that could be used; None where none does.
        baseline, finalists: what played the holdout.
        confidence: of the intervals of all the confirmed, and of all the finalists, together.
    """

    confirmed: tuple[Confirmed, ...]
    baseline: Evaluation
    finalists: tuple[Compared, ...]
    winner: Compared | None
    confidence: float
    by: Judge = "mean"

    @property
    def frozen(self) -> Evaluation:
        """The holdout episodes of what is to be frozen."""
        return self.winner.unseen if self.winner else self.baseline

    @property
    def method(self) -> str:
        """The test, in words."""
        corrected = f", Bonferroni over {len(self.finalists)} finalists" if len(self.finalists) > 1 else ""
        if self.by == "worst":
            return f"intersection-union t tests of the difference in the worst task's return{corrected}"
        return f"paired t interval and paired sign-flip test of the difference in return{corrected}"


Played = Sequence[tuple[Trial, Evaluation]]
"""Trials and what they played on seeds that the search did not."""


def confirm(played: Played, confidence: float) -> tuple[Confirmed, ...]:
    """The confirmation's figures, corrected for how many they are; who ended no episode is left out."""
    return tuple(
        Confirmed(trial, unseen, t_interval(list(unseen.returns.values()), confidence, len(played)))
        for trial, unseen in played
        if unseen.episodes
    )


def finalists(
    confirmed: Sequence[Confirmed], objective: Objective, count: int, by: Judge = "mean"
) -> list[Trial]:
    """The best of the confirmed by the objective's rule; their search returns count no more."""
    order = _order([one.unseen for one in confirmed], objective, by)
    return [confirmed[place].trial for place in order[:count]]


def judge(
    confirmed: tuple[Confirmed, ...],
    baseline: Evaluation,
    played: Played,
    objective: Objective,
    confidence: float,
    by: Judge = "mean",
) -> Verdict:
    """Put each finalist beside the baseline, seed by seed, and choose the best of those that beat it.

    A finalist without two seeds in common with the baseline is left out.
    """
    count = len(played) * (1 if objective.cost is None else 2)  # better, or cheaper: two ways to win
    compared = tuple(
        _compared(baseline, trial, unseen, objective, confidence, count)
        if by == "mean"
        else _compared_worst(baseline, trial, unseen, confidence, count)
        for trial, unseen in played
        if len(baseline.returns.keys() & unseen.returns.keys()) >= 2
    )
    able = [
        one
        for one in compared
        if (one.better(1 - confidence) or one.cheaper) and not one.unseen.troubles.unusable
    ]
    order = _order([one.unseen for one in able], objective, by)
    return Verdict(confirmed, baseline, compared, able[order[0]] if able else None, confidence, by)


def _order(evaluations: Sequence[Evaluation], objective: Objective, by: Judge) -> list[int]:
    if by == "mean":
        return objective.order_evaluations(evaluations)
    return sorted(range(len(evaluations)), key=lambda place: -evaluations[place].worst_return)


def _compared_worst(
    baseline: Evaluation, trial: Trial, unseen: Evaluation, confidence: float, count: int
) -> Compared:
    mine, theirs = ([*one.by_task.values()] for one in (unseen, baseline))
    if not all([*mine, *theirs]):  # a task of which no episode ended: nothing is shown
        return Compared(trial, unseen, Estimate(0.0, -inf, inf, 0), 1.0)
    return Compared(trial, unseen, *worst_difference(mine, theirs, confidence, count))


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
