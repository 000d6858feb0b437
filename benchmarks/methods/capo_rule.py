"""CAPO's racing rule as an Optuna pruner (arXiv 2504.16005, section 4; `promptolution` 2.3.0, `capo.py`).

After each block, a candidate is dropped if at least as many others as are to survive are better, each by a
one-sided paired t test at a level of 0.2 without correction. The paper keeps ten; a block is an episode here.
"""

import numpy as np
import optuna
from optuna.pruners import BasePruner
from scipy.stats import ttest_rel

SURVIVORS, LEVEL = 10, 0.2


class CapoRule(BasePruner):
    """The rule, for trials that report an episode at each step."""

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        """Return whether the trial is dropped."""
        own = trial.intermediate_values
        others = [
            [one.intermediate_values[step] for step in own]
            for one in study.get_trials(deepcopy=False)
            if one.number != trial.number and own.keys() <= one.intermediate_values.keys()
        ]
        if len(own) < 2 or len(others) < SURVIVORS:
            return False
        with np.errstate(divide="ignore", invalid="ignore"):  # of equal values: the p-value is not a number
            p = ttest_rel(
                np.array(others), np.array([*own.values()])[None], axis=1, alternative="greater"
            ).pvalue
        return int((p < LEVEL).sum()) >= SURVIVORS
