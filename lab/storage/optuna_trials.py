"""The study in Optuna's storage: every trial with its parameters and episode values, for Optuna's own tools.

Optuna's plots, importances and Pareto front read it there. It is written when the search has ended: a write
to SQLite takes longer than the race's choice of what to play next.
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from lab.agent.evaluation import Trial
from lab.experiment.objective import Objective
from lab.experiment.space import Space
from lab.storage.database import refused

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


_STABLE = 5
"""Trials among the best below which Optuna calls an importance unstable."""


def keep_trials(url: str, name: str, space: Space, objective: Objective, trials: Sequence[Trial]) -> None:
    """Write a study; with a cost in the objective, it has two directions and so a Pareto front.

    A trial's number in the lab is its user attribute `trial`: Optuna numbers in the order of writing. The
    baseline is left out where it lies outside the space.

    Args:
        url: of the database.

    Raises:
        LabError: the disk or the database refused.
    """
    import optuna
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        _write(url, name, space, objective, trials)
    except (StorageInternalError, SQLAlchemyError) as error:
        raised = error.__cause__ if isinstance(error.__cause__, SQLAlchemyError) else error
        shared = not url.startswith("sqlite")
        raise refused("Optuna's storage cannot be written.", url, raised, shared=shared) from error


def _write(url: str, name: str, space: Space, objective: Objective, trials: Sequence[Trial]) -> None:
    import optuna

    directions: list[Literal["maximize", "minimize"]] = ["maximize"]
    if objective.cost is not None:
        directions.append("minimize")
    storage = optuna.storages.RDBStorage(url)
    if name in optuna.get_all_study_names(storage):  # a process before this one wrote it, and then broke off
        optuna.delete_study(study_name=name, storage=storage)
    study = optuna.create_study(storage=storage, study_name=name, directions=directions)
    study.set_user_attr("maximise", objective.maximise)
    told = [_told(trial, space, objective) for trial in sorted(trials, key=lambda trial: trial.number)]
    study.add_trials([trial for trial in told if trial is not None])


def importance(url: str, name: str) -> dict[str, float]:
    """Each parameter's share of what tells the best trials of a study from all, in falling order.

    Optuna's PED-ANOVA (Watanabe et al., IJCAI 2023) of the mean value. The best are a tenth, and at least
    as many as make it stable.

    Returns:
        Nothing where the study was not written yet, or its trials are too few or do not differ.
    """
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator

    storage = optuna.storages.RDBStorage(url)
    if name not in optuna.get_all_study_names(storage):
        return {}
    study = optuna.load_study(study_name=name, storage=storage)
    trials = len(study.trials)
    if trials < 2 * _STABLE:
        return {}
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, _STABLE / trials))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it takes less for better, which the sign is for
        shares = evaluator.evaluate(study, target=lambda trial: -trial.values[0])
    whole = sum(shares.values())
    ranked = sorted(shares.items(), key=lambda share: -share[1])
    return {key: value / whole for key, value in ranked} if whole > 0 else {}


def _told(trial: Trial, space: Space, objective: Objective) -> "FrozenTrial | None":
    import optuna

    params = space.params(trial.candidate)
    if params is None:
        return None
    episodes = trial.evaluation.episodes
    values = [trial.evaluation.mean]
    if objective.cost is not None:
        values.append(sum(map(objective.cost_of, episodes)) / len(episodes))
    return optuna.trial.create_trial(
        params=params,
        distributions=space.distributions(),
        values=values,
        user_attrs={
            "trial": trial.number,
            f"{objective.maximise}s": {str(seed): value for seed, value in trial.evaluation.values.items()},
            "dropped": trial.dropped,
            "digest": trial.candidate.digest,
        },
    )
