"""The Verdict: the comparison of the search's best candidates and the baseline on unseen episodes.

Confirmation episodes choose the finalists; the sealed holdout, played once, decides. A finalist wins only if
its interval and its test agree, both corrected for all finalists (Bonferroni). With several tasks, the mean
over all is judged, or the mean of the worst.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Literal

import numpy as np

from lab.agent.evaluation import Evaluation, Trial
from lab.agent.task import Measure
from lab.experiment.objective import Objective
from lab.stats.intervals import Estimate, relative_difference, sign_flip_p, t_interval, worst_difference

Judge = Literal["mean", "worst"]
"""What is judged: the mean value of all episodes, or of the task with the lowest mean."""

ROUNDING = 1e-9
"""Maximum difference of sums that is due to rounding."""


@dataclass(frozen=True)
class Compared:
    """A finalist compared with the baseline, on the holdout.

    Attributes:
        unseen: The finalist's holdout episodes.
        difference: Its value minus the baseline's, over the seeds that both completed, or its worst task's
            minus the baseline's worst; the interval holds for all finalists together.
        p_value: Two-sided p-value of no difference, times the number of finalists: of the paired sign-flip
            test, or for the worst task as in `worst_difference`.
        other: The same difference in the measure that is not judged.
        kept: Its value minus the minimum for a cheaper candidate; None without a cost.
        other_kept: The same in the measure that is not judged.
        saving: The baseline's cost per episode minus its own.
        relative: The difference as a share of the baseline's value; see `relative_difference`. None for the
            worst task too.
        other_relative, relative_cost: The same of the measure that is not judged, and of the cost.
    """

    trial: Trial
    unseen: Evaluation
    difference: Estimate
    p_value: float
    other: Estimate
    kept: Estimate | None = None
    other_kept: Estimate | None = None
    saving: Estimate | None = None
    relative: Estimate | None = None
    other_relative: Estimate | None = None
    relative_cost: Estimate | None = None

    def better(self, level: float) -> bool:
        """Whether its value is shown to be higher than the baseline's."""
        return self.difference.low > 0 and self.p_value <= level

    @property
    def cheaper(self) -> bool:
        """Whether it is shown to cost less, at a value within the objective's tolerance of the baseline's."""
        return bool(self.kept and self.saving and self.kept.low > 0 and self.saving.low > 0)

    @property
    def other_is_lower(self) -> bool:
        """Whether the measure that is not judged is shown to be lower than the baseline's."""
        return self.other.high < -ROUNDING

    def loses_score(self, level: float) -> bool:
        """Whether it is shown to lose score while gaining return, or more than a cheaper candidate may."""
        if self.unseen.measure == "score":
            return False
        lost = self.other if self.better(level) or self.other_kept is None else self.other_kept
        return lost.high < -ROUNDING


@dataclass(frozen=True)
class Confirmed:
    """One of the search's best candidates, on fresh seeds.

    Attributes:
        mean: Mean of its values, with an interval that holds for all confirmed candidates together.
    """

    trial: Trial
    unseen: Evaluation
    mean: Estimate


@dataclass(frozen=True)
class Verdict:
    """What the holdout says: the finalists compared with the baseline, and the winner.

    Attributes:
        winner: Best of the finalists that beat the baseline in value, or in cost by the objective's rule,
            with at least one usable answer; None if no finalist qualifies.
        baseline, finalists: Results on the holdout.
        confidence: Joint confidence level of the intervals of all confirmed, and of all finalists.
        refused: Finalists that beat the baseline in return or cost, but are shown to score lower.
        earlier: Claims of the study's earlier verdicts; each used another holdout.
    """

    confirmed: tuple[Confirmed, ...]
    baseline: Evaluation
    finalists: tuple[Compared, ...]
    winner: Compared | None
    confidence: float
    by: Judge = "mean"
    refused: tuple[Compared, ...] = ()
    earlier: tuple[str, ...] = ()

    @property
    def measure(self) -> Measure:
        """The number that was judged."""
        return self.baseline.measure

    def value(self, evaluation: Evaluation) -> float:
        """The judged value of an evaluation: its mean, or its worst task's mean."""
        return evaluation.mean if self.by == "mean" else evaluation.worst

    @property
    def holdout(self) -> dict[str, Evaluation]:
        """Results on the holdout by candidate, the baseline first."""
        return {"baseline": self.baseline, **{one.trial.name: one.unseen for one in self.finalists}}

    @property
    def pairs(self) -> int:
        """Number of seeds that the baseline and every finalist have completed."""
        return min((one.difference.n for one in self.finalists), default=0)

    @property
    def frozen(self) -> Evaluation:
        """The holdout results of the candidate to freeze."""
        return self.winner.unseen if self.winner else self.baseline

    @property
    def number(self) -> int:
        """The verdict's number in its study, from 1."""
        return len(self.earlier) + 1

    @property
    def method(self) -> str:
        """Description of the test."""
        corrected = f", Bonferroni over {len(self.finalists)} finalists" if len(self.finalists) > 1 else ""
        if self.earlier:
            corrected += f"; verdict {self.number} of the study, each on its own holdout"
        if self.by == "worst":
            number = f"the worst task's {self.measure}"
            return f"intersection-union t tests of the difference in {number}{corrected}"
        return f"paired t interval and paired sign-flip test of the difference in {self.measure}{corrected}"


def estimate(evaluation: Evaluation, confidence: float, comparisons: int = 1) -> Estimate:
    """The mean value of an evaluation, with its t interval; see `t_interval`."""
    return t_interval(list(evaluation.values.values()), confidence, comparisons)


Played = Sequence[tuple[Trial, Evaluation]]
"""Trials and their results on unseen seeds."""


def confirm(played: Played, confidence: float) -> tuple[Confirmed, ...]:
    """The confirmation's figures, corrected for their number; without trials that completed no episode."""
    return tuple(
        Confirmed(trial, unseen, estimate(unseen, confidence, len(played)))
        for trial, unseen in played
        if unseen.episodes
    )


def finalists(
    confirmed: Sequence[Confirmed], objective: Objective, count: int, by: Judge = "mean"
) -> list[Trial]:
    """The best of the confirmed by the objective's rule, regardless of their values in the search."""
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
    """Compare each finalist with the baseline, seed by seed, and choose the best of those that beat it.

    A finalist with fewer than two seeds in common with the baseline is left out. One that is shown to score
    lower is refused, unless the user insists on the return.
    """
    count = len(played) * (1 if objective.cost is None else 2)  # better, or cheaper: two ways to win
    compared = tuple(
        _compared(baseline, trial, unseen, objective, confidence, count)
        if by == "mean"
        else _compared_worst(baseline, trial, unseen, confidence, count)
        for trial, unseen in played
        if len(baseline.values.keys() & unseen.values.keys()) >= 2
    )

    def is_refused(one: Compared) -> bool:
        return one.loses_score(1 - confidence) and not objective.insists_on_return

    won = [one for one in compared if one.better(1 - confidence) or one.cheaper]
    able = [one for one in won if not one.unseen.troubles.unusable and not is_refused(one)]
    order = _order([one.unseen for one in able], objective, by)
    winner, refused = able[order[0]] if order else None, tuple(filter(is_refused, won))
    return Verdict(confirmed, baseline, compared, winner, confidence, by, refused)


def _order(evaluations: Sequence[Evaluation], objective: Objective, by: Judge) -> list[int]:
    if by == "mean":
        return objective.order_evaluations(evaluations)
    return sorted(range(len(evaluations)), key=lambda place: -evaluations[place].worst)


def _compared_worst(
    baseline: Evaluation, trial: Trial, unseen: Evaluation, confidence: float, count: int
) -> Compared:
    difference, p_value = _worst_gap(unseen, baseline, confidence, count)
    other, _ = _worst_gap(unseen.other, baseline.other, confidence, count)
    return Compared(trial, unseen, difference, p_value, other)


def _worst_gap(
    own: Evaluation, baseline: Evaluation, confidence: float, count: int
) -> tuple[Estimate, float]:
    mine, theirs = ([*one.by_task.values()] for one in (own, baseline))
    if not all([*mine, *theirs]):  # a task without a completed episode: nothing is shown
        return Estimate(0.0, -inf, inf, 0), 1.0
    return worst_difference(mine, theirs, confidence, count)


def _compared(
    baseline: Evaluation,
    trial: Trial,
    unseen: Evaluation,
    objective: Objective,
    confidence: float,
    count: int,
) -> Compared:
    sides = (unseen.values, baseline.values), (unseen.other.values, baseline.other.values)
    p_value = min(1.0, sign_flip_p(_gaps(*sides[0])) * count)
    difference, other = (t_interval(_gaps(*side), confidence, count) for side in sides)
    relative, other_relative = (relative_difference(*_paired(*side), confidence, count) for side in sides)
    one = Compared(
        trial, unseen, difference, p_value, other, relative=relative, other_relative=other_relative
    )
    if objective.cost is None:
        return one
    kept, other_kept = (t_interval(_gaps(*side, objective), confidence, count) for side in sides)
    cost, base_cost = (
        {episode.seed: objective.cost_of(episode, played.candidate.model) for episode in played.episodes}
        for played in (unseen, baseline)
    )
    saving = t_interval(_gaps(base_cost, cost), confidence, count)
    dearer = relative_difference(*_paired(cost, base_cost), confidence, count)
    return replace(one, kept=kept, other_kept=other_kept, saving=saving, relative_cost=dearer)


Values = Mapping[int, float]
"""A number of each episode, by seed."""


def _paired(own: Values, baseline: Values) -> tuple[list[float], list[float]]:
    """The values on each seed that both completed."""
    seeds = [seed for seed in baseline if seed in own]
    return [own[seed] for seed in seeds], [baseline[seed] for seed in seeds]


def _gaps(own: Values, baseline: Values, rule: Objective | None = None) -> list[float]:
    """Own value minus the baseline's, or minus the rule's minimum, on each seed that both completed."""
    values, base = _paired(own, baseline)
    asked = np.array(base) if rule is None else rule.floor(np.array(base))
    return [value - float(floor) for value, floor in zip(values, asked, strict=True)]
