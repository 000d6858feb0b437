"""RacePruner: an Optuna pruner for objectives that are the mean over many noisy instances."""

from collections.abc import Sequence

import numpy as np
from optuna import Study
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from lab.search.points import Floats
from lab.search.returns import BLAS, Lock, Returns


class RacePruner(BasePruner):
    """Prunes a trial that is shown to be worse than the best trial with as many reports.

    A one-sided, paired, moderated t test over the instances that both have reported. The truly best trial is
    tested at most once per instance, and wrongly pruned only if one of the others seems better: at a level of
    `error_rate / (instances * others)` per test, the union bound keeps the total below `error_rate`.

    Args:
        instances: Maximum reports of a trial: `trial.report(value, step=index)`, with an index below this.
        error_rate: Maximum probability that the truly best trial is pruned.
        within: Tolerance: a trial whose mean is within this share of the best is not pruned.
        tasks: Number of kinds of instances, which the steps play round-robin.
    """

    def __init__(
        self, instances: int, *, error_rate: float = 0.05, within: float = 0.0, tasks: int = 1
    ) -> None:
        self._instances, self._error_rate, self._within, self._tasks = instances, error_rate, within, tasks
        self._study, self._returns, self._lock = "", Returns(tasks), Lock()

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Return whether the trial is to be pruned."""
        with self._lock:
            if study.study_name != self._study:
                self._study, self._returns = study.study_name, Returns(self._tasks)
        sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
        return self.drops(study.get_trials(deepcopy=False), trial.number, sign=sign)

    def drops(
        self,
        trials: Sequence[FrozenTrial],
        number: int,
        bound: tuple[int, float] | None = None,
        sign: float = 1.0,
    ) -> bool:
        """Return whether a trial is to be pruned, given all trials of its study.

        Args:
            trials: Trials of the same study at each call, in the order of their numbers.
            bound: (step, value) of an unfinished instance, with the best value that it can still reach: a
                trial pruned with it would also be pruned at the instance's end.
            sign: 1 if values are maximised, else -1.
        """
        with self._lock, BLAS.limit(limits=1):
            returns = self._returns
            returns.read(trials, sign)
            counts = returns.counts
            counted = int(counts[number]) + (bound is not None)
            rival = returns.rival(number, counted)
            if rival is None or not counted:
                return False
            best = returns.values[rival]
            floor: Floats = best - self._within * np.abs(best)
            extra = None if bound is None else (bound[0], sign * bound[1])
            others = max(int((counts > 0).sum()) - 1, 1)
            return returns.p_behind(number, floor, extra) < self._error_rate / (self._instances * others)
