"""Importance: which settings separate a study's best trials from the rest, by Optuna."""

import warnings
from statistics import fmean

import optuna

from lab.storage.trials import Trials

_STABLE = 5
"""Number of best trials below which Optuna calls an importance unstable."""


def importance(trials: Trials) -> dict[str, float]:
    """Each parameter's share of the difference between the best trials and all, in descending order.

    Optuna's PED-ANOVA (Watanabe et al., IJCAI 2023) of the trials' mean reports. The best trials are a
    tenth of all, but at least as many as a stable result needs.

    Returns:
        Shares by parameter; empty if the trials are too few or do not differ.
    """
    played = [trial for trial in trials.known if trial.intermediate_values and trial.params]
    if len(played) < 2 * _STABLE:
        return {}
    from optuna.importance import PedAnovaImportanceEvaluator  # with sklearn and pandas: 1 s

    study = optuna.create_study()
    study.get_trials = lambda **_: played  # type: ignore[method-assign]  # adding 2,000 takes 0.5 s
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, _STABLE / len(played)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that lower is taken as better; hence the minus sign
        shares = evaluator.evaluate(study, target=lambda trial: -fmean(trial.intermediate_values.values()))
    whole = sum(shares.values())
    ranked = sorted(shares.items(), key=lambda share: -share[1])
    return {key: value / whole for key, value in ranked} if whole > 0 else {}
