"""A Stage: environment, task, model and the named candidates that play outside a study.

It owns the names of candidates: `frozen`, `baseline`, a trial's number or name, or the path of a frozen
file. It leaves playing and printing to the commands.
"""

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lab.agent.candidate import Candidate
from lab.agent.task import Task
from lab.cli.command import say
from lab.environments.config import EnvironmentConfig, choose_environment
from lab.environments.environment import Environment, open_environment
from lab.errors import ConfigError, meant
from lab.experiment.model_schema import PricedModel
from lab.llm.client import Endpoint
from lab.llm.dialect import OPENAI, changed
from lab.llm.launch import open_endpoint, opening_model
from lab.llm.settings import ModelChoice, choose_model, hosted_endpoint, read_surroundings
from lab.submission.frozen import BEST, read_frozen

if TYPE_CHECKING:
    from lab.experiment.experiment import Experiment

FROZEN, BASELINE = "frozen", "baseline"

DEFAULT = Path("experiments/echo.toml")
"""The default experiment."""

_TRIAL = re.compile(r"(trial-)?\d+")


@dataclass(frozen=True)
class Contender:
    """A candidate, with the name given by the user, and the model that plays it."""

    name: str
    candidate: Candidate
    model: PricedModel


@dataclass(frozen=True)
class Stage:
    """Environment, task, model and candidates.

    Attributes:
        root: Project folder, to which the environment's paths are relative.
        experiment: The experiment; None if only the frozen prompt is used.
        model: The study's model.
    """

    environment: EnvironmentConfig
    root: Path
    task: Task
    model: PricedModel
    contenders: tuple[Contender, ...]
    experiment: "Experiment | None"

    @asynccontextmanager
    async def opened(
        self, tell: Callable[[str], None] = lambda _: None
    ) -> AsyncIterator[tuple[Sequence[Endpoint], Environment]]:
        """Start each contender's model, and the environment, and stop them at the end.

        Raises:
            EndpointError, EnvError: One of them cannot be opened.
        """
        models = [contender.model for contender in self.contenders]
        async with AsyncExitStack() as stack:
            coming = {
                model: stack.enter_context(opening_model(model.choice)) for model in dict.fromkeys(models)
            }
            where = choose_environment(self.environment)
            environment = await stack.enter_async_context(open_environment(where, self.root, tell))
            endpoints = dict[PricedModel, Endpoint]()
            for model, opening in coming.items():
                endpoints[model] = await stack.enter_async_context(open_endpoint(opening, model.patience))
                endpoints[model].learning.on_change = lambda dialect, why: say(changed(dialect, why))
            yield [endpoints[model] for model in models], environment


def experiment_path(name: str) -> Path:
    """The file of the experiment `name`, in the folder `experiments`.

    Raises:
        ConfigError: The name leads out of that folder: a frozen file may contain any path.
    """
    if Path(name).name != name:
        do = "pass the experiment's file on the command line"
        raise ConfigError(f"{name!r} is not an experiment's name.", where="provenance.experiment", do=do)
    return Path("experiments") / f"{name}.toml"


def set_stage(
    names: Sequence[str], experiment: Path | None, study: str, endpoint: str, *, need_experiment: bool
) -> Stage:
    """The stage for the candidates of these names.

    Args:
        experiment: The experiment file; None for the frozen prompt's, or the default one.
        study: Study of the trials, baseline and task; empty for the experiment's last study if a trial is
            named.
        need_experiment: Whether an experiment is required besides the frozen prompt.

    Raises:
        ConfigError: A file is missing or invalid, or a candidate is unknown.
    """
    read_surroundings(Path.cwd(), endpoint)
    for name in names:
        _check_name(name)
    files = {name: BEST if name == FROZEN else Path(name) for name in names if _is_frozen(name)}
    frozen = {name: read_frozen(file) for name, file in files.items()}
    first = next(iter(frozen.values()), None)
    if first and not (experiment or study or need_experiment) and set(names) == set(frozen):
        model_alone = PricedModel(choose_model(first.model.choice))
        alone = tuple(Contender(name, frozen[name].candidate, model_alone) for name in names)
        return Stage(first.environment, Path.cwd(), first.task, model_alone, alone, None)
    path = experiment or (experiment_path(first.provenance.experiment) if first else DEFAULT)
    loaded, model, tried = _experiment(names, path, study)
    known = {BASELINE: loaded.baseline, **{name: one.candidate for name, one in frozen.items()}, **tried}
    played = loaded.priced(choose_model(model))
    models = {**loaded.models, loaded.baseline.model: played}
    contenders = tuple(Contender(name, known[name], models.get(known[name].model, played)) for name in names)
    for contender in contenders:
        _check_tokens(contender, loaded)
    return Stage(loaded.environment, loaded.root, loaded.task, played, contenders, loaded)


def on_models(stage: Stage, names: Sequence[str]) -> dict[str, Stage]:
    """The stage on each of these models: of a table `[models.NAME]`, or by that name at the stage's endpoint.

    Raises:
        ConfigError: A name is empty, or there is no endpoint for it.
        NoKeyError: There is no key for one of them.
    """
    assert stage.experiment is not None
    stages = dict[str, Stage]()
    for name in names:
        model = stage.experiment.models.get(name) or _at_endpoint(stage, name)
        if not model.choice.embedded:
            hosted_endpoint(model.choice)  # before an episode is paid for
        alike = [
            replace(one, candidate=replace(one.candidate, model=""), model=model) for one in stage.contenders
        ]
        stages[name] = replace(stage, contenders=tuple(alike))
    return stages


def _at_endpoint(stage: Stage, name: str) -> PricedModel:
    here = stage.model.choice
    if name == here.name:
        return stage.model
    if not name or here.embedded:
        assert stage.experiment is not None
        known = ", ".join([here.name, *stage.experiment.models])
        do = f"use one of {known}, add a table [models.NAME], or set API_BASE_URL to the model's endpoint"
        raise ConfigError(f"Unknown model {name!r}.", where="--model", do=do)
    other = replace(here, name=name, dialect=replace(OPENAI, path=here.dialect.path))
    return PricedModel(other, stage.model.patience)


def _is_frozen(name: str) -> bool:
    """Whether `name` denotes a frozen file: the default one, or a path."""
    return name == FROZEN or name.endswith(".toml") or "/" in name


def _check_name(name: str) -> None:
    if name == BASELINE or _is_frozen(name) or _TRIAL.fullmatch(name):
        return
    digits = "".join(re.findall(r"\d", name))
    known = [FROZEN, BASELINE, *([f"trial-{digits}"] if digits else [])]
    do = meant(name, known, "use frozen, baseline, a trial's number or name, or a path")
    raise ConfigError(f"Unknown candidate {name!r}.", where="the command line", do=do)


def _experiment(
    names: Sequence[str], path: Path, study: str
) -> tuple["Experiment", ModelChoice, Mapping[str, Candidate]]:
    """The experiment and model, from a study if one is needed, and the requested trials."""
    trials = [name for name in names if _TRIAL.fullmatch(name)]
    if not (study or trials):
        from lab.experiment.experiment import load_experiment

        experiment = load_experiment(path)
        return experiment, experiment.model, {}
    from lab.experiment.environment_schema import read_code
    from lab.study.past_study import Which, reading

    with reading(Which(path, study), say) as past:
        tried = {name: past.trial(name.removeprefix("trial-")).candidate for name in trials}
        if read_code(past.experiment.environment, past.experiment.root) != past.experiment.code:
            say(f"The environment's code has changed since {past.record.name}; playing the current code.")
        return past.experiment, past.model, tried


def _check_tokens(contender: Contender, experiment: "Experiment") -> None:
    wanted, most = contender.candidate.sampling.max_tokens, experiment.task.max_tokens
    if wanted > most:
        what = f"{contender.name} has max_tokens = {wanted}, but the task allows {most}."
        do = "pass the experiment in which it was tuned"
        raise ConfigError(what, where=f"{experiment.file}, task.max_tokens", do=do)
