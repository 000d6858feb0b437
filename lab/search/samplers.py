"""The sampler and the pruner that an experiment names: the lab's own, or from Optuna, OptunaHub or a path."""

import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from inspect import Parameter, signature
from types import ModuleType
from typing import Any, TypeVar

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from lab.errors import ConfigError
from lab.experiment.experiment import Experiment
from lab.search.pruner import RacePruner
from lab.search.sampler import RaceSampler
from lab.search.trials import distributions_of

T = TypeVar("T", BaseSampler, BasePruner)

HUB = "optunahub:"
"""Prefix of the name of a package in OptunaHub's registry."""

SAMPLERS = {
    "tpe": "optuna.samplers.TPESampler",
    "gp": "optuna.samplers.GPSampler",
    "cmaes": "optuna.samplers.CmaEsSampler",
    "random": "optuna.samplers.RandomSampler",
    "qmc": "optuna.samplers.QMCSampler",
}
PRUNERS = {
    "wilcoxon": "optuna.pruners.WilcoxonPruner",
    "hyperband": "optuna.pruners.HyperbandPruner",
    "median": "optuna.pruners.MedianPruner",
    "none": "optuna.pruners.NopPruner",
}


def make_sampler(experiment: Experiment) -> BaseSampler:
    """Return the sampler of `[search]`.

    Raises:
        ConfigError: It cannot be imported or created, or needs a package that is not installed.
    """
    search, objective = experiment.search, experiment.objective
    if search.sampler == "race":
        return RaceSampler(
            space=distributions_of(experiment),
            seed=experiment.seed,
            tasks=max(len(experiment.task.tasks), 1),
            order=objective.order,
            costs=None if objective.cost is None else costs_of,
            **search.sampler_options,
        )
    return _made(
        BaseSampler,  # type: ignore[type-abstract]
        SAMPLERS,
        search.sampler,
        search.sampler_options,
        "search.sampler",
        seed=experiment.seed,
        search_space=distributions_of(experiment),
    )


def make_pruner(experiment: Experiment) -> BasePruner:
    """Return the pruner of `[search]`.

    Raises:
        ConfigError: As `make_sampler`.
    """
    search = experiment.search
    if search.pruner == "race":
        return RacePruner(
            search.episodes,
            error_rate=search.error_rate,
            within=experiment.objective.within,
            tasks=max(len(experiment.task.tasks), 1),
            **search.pruner_options,
        )
    name, options = search.pruner, search.pruner_options
    return _made(BasePruner, PRUNERS, name, options, "search.pruner")  # type: ignore[type-abstract]


def costs_of(trial: optuna.trial.FrozenTrial) -> Mapping[int, float]:
    """Return the cost of a trial's episodes by step."""
    return {int(step): cost for step, cost in trial.user_attrs.get("costs", {}).items()}


def _made(
    kind: type[T],
    known: Mapping[str, str],
    name: str,
    options: Mapping[str, Any],
    where: str,
    **offered: Any,  # noqa: ANN401  # as its constructor takes it
) -> T:
    """Create the sampler or pruner called `name`.

    Args:
        offered: Arguments for those whose constructor has a seed, or requires the others.
    """
    word = kind.__name__.removeprefix("Base")
    found = _found(known.get(name, name), word, where)
    try:
        made = found(**{**_wanted(found, offered), **options})
        if isinstance(made, optuna.samplers.GPSampler):
            import_module("torch")
    except ModuleNotFoundError as error:
        raise _missing(found.__name__, error, where) from None
    except Exception as error:  # whatever its constructor raises
        why = f"{type(error).__name__}: {error}"
        do = f"check {where}_options"
        raise ConfigError(f"{found!r} cannot be created.", where=where, why=why, do=do) from None
    if not isinstance(made, kind):
        raise ConfigError(f"{name!r} is not an Optuna {word.lower()}.", where=where, do=_DO)
    return made


def _wanted(found: Any, offered: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401  # somebody's class
    """What of `offered` goes to a constructor."""
    known = signature(found).parameters
    return {
        name: value
        for name, value in offered.items()
        if name in known and (name == "seed" or known[name].default is Parameter.empty)
    }


def _found(path: str, word: str, where: str) -> Any:  # noqa: ANN401  # somebody's class
    """The object that a dotted path, or a name in OptunaHub's registry, refers to.

    Args:
        word: Which class of a package of the registry is meant: its name ends with "Sampler" or "Pruner".
    """
    try:
        if path.startswith(HUB):
            package, _, name = path.removeprefix(HUB).partition(".")
            module = import_module("optunahub").load_module(package)
            return getattr(module, name or _only(module, word))
        package, _, name = path.rpartition(".")
        return getattr(import_module(package), name)
    except ModuleNotFoundError as error:
        raise _missing(path, error, where) from None
    except Exception as error:  # whatever importing it raises
        why = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{path!r} cannot be imported.", where=where, why=why, do=_DO) from None


def _only(module: ModuleType, word: str) -> str:
    """The name of a package's only sampler or pruner.

    Raises:
        AttributeError: It has none, or several.
    """
    names: list[str] = [name for name in getattr(module, "__all__", dir(module)) if name.endswith(word)]
    if len(names) == 1:
        return names[0]
    raise AttributeError(f"it has {' and '.join(names)}; add one as .NAME" if names else f"it has no {word}")


_DO = (
    f'use one of "race", {", ".join(map(repr, (*SAMPLERS, *PRUNERS)))}, a dotted path or "{HUB}samplers/NAME"'
)


def _missing(path: str, error: ModuleNotFoundError, where: str) -> ConfigError:
    """What to say of a package that is not there, or lacks a module that was expected of it."""
    package = (error.name or "").split(".")[0]
    if package and package not in sys.modules and not find_spec(package):
        do = f"pip install {package}, and run the same command again"
        return ConfigError(f"{path} needs the package {package}.", where=where, why=str(error), do=do)
    do = "install what it needs, in the version that it was written for, or use another one"
    return ConfigError(f"{path} cannot be imported.", where=where, why=str(error), do=do)
