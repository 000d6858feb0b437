"""An Experiment: what is tuned, with which environment, model, space and budget, from a TOML file.

It owns the rules between the file's tables; the rest of the lab sees only the result.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from lab.addresses import shown_url
from lab.agent.candidate import Candidate
from lab.agent.task import Task
from lab.agent.template import FindTemplate, PromptTemplate, find_template
from lab.environments.config import EnvironmentConfig
from lab.environments.given import Reward, give
from lab.errors import ConfigError, meant
from lab.experiment.budget import FREE, UNKNOWN, Budget, Prices
from lab.experiment.environment_schema import read_code, read_environment, read_task
from lab.experiment.model_schema import read_model
from lab.experiment.objective import Objective
from lab.experiment.schema import (
    ConfirmationTable,
    ExperimentFile,
    ProposalsTable,
    SearchTable,
    TrackingTable,
    VerdictTable,
    first_mistake,
)
from lab.experiment.space import Space, read_space
from lab.experiment.tables import check_tokens, check_turns, read_baseline, read_budget, read_objective
from lab.files import key_place, place
from lab.llm.settings import ModelChoice
from lab.llm.throttle import Patience

TEMPLATES = Path("prompts/templates")
"""The templates folder, relative to the project's root, which is the parent of the experiments folder."""


@dataclass(frozen=True)
class Source:
    """An experiment's file, templates and code as texts, from which it can be read without the project.

    Attributes:
        file: Path of the file, relative to the root.
        text: Text of the file, without credentials in URLs.
        templates: Templates that it names, by name.
        code: See `Experiment`.
    """

    file: str
    text: str
    templates: Mapping[str, PromptTemplate]
    code: Mapping[str, str]


@dataclass(frozen=True)
class Experiment:
    """An experiment file's content, as the lab's types.

    Attributes:
        name: Name of the file without `.toml`, and of the MLflow experiment.
        seed: Seed of the search's choices, and first seed of the environment.
        root: Project folder.
        file: Path of the file, relative to the root.
        text: Text of the file.
        code: The project's files for the environment: text by path relative to the root.
    """

    name: str
    about: str
    seed: int
    environment: EnvironmentConfig
    task: Task
    model: ModelChoice
    patience: Patience
    baseline: Candidate
    space: Space
    prices: Prices
    budget: Budget
    objective: Objective
    search: SearchTable
    proposals: ProposalsTable | None
    confirmation: ConfirmationTable
    verdict: VerdictTable
    tracking: TrackingTable
    root: Path
    file: str
    text: str
    code: Mapping[str, str]

    @classmethod
    def load(cls, path: Path | str) -> "Experiment":
        """Read and check an experiment file.

        Raises:
            ConfigError: The file or a template is missing, or a key is unknown, missing or invalid.
        """
        return load_experiment(Path(path))

    @classmethod
    def from_table(
        cls,
        table: Mapping[str, Any],
        name: str,
        *,
        templates: Iterable[PromptTemplate] = (),
        environment: Callable[[], object] | None = None,
        reward: Reward | None = None,
        root: Path | str = ".",
    ) -> "Experiment":
        """The experiment of a Python dictionary with the keys of an experiment file.

        Args:
            name: The experiment's name, for its studies and in MLflow.
            templates: Templates that `table` may name, besides the files in `prompts/templates`.
            environment: Python object in place of `environment.python`: an OpenEnv Environment class, or a
                function that returns an instance. Only this program can play it, also once it is frozen.
            reward: Function of a step's action and observation that replaces the reward of the class.
            root: Project folder.

        Raises:
            ConfigError: As `load`; or a value cannot be written as TOML.
        """
        if not name or Path(name).name != name:
            raise ConfigError(f"{name!r} is not an experiment's name.", where="name", do="use a file's name")
        if environment is not None or reward is not None:
            given = {"python": give(environment, reward)}
            table = {**table, "environment": {**table.get("environment", {}), **given}}
        try:
            text = tomli_w.dumps(table)
        except (TypeError, ValueError) as error:
            what, do = "The experiment cannot be written as TOML.", "leave out keys that are None"
            raise ConfigError(what, where=name, why=str(error), do=do) from None
        project = _project(Path(root).resolve(), "experiments", {one.name: one for one in templates})
        return _read(Path("experiments", f"{name}.toml"), text, project)

    @property
    def table(self) -> dict[str, Any]:
        """The file's content as a dictionary, from which `from_table` makes a changed experiment."""
        return tomllib.loads(self.text)

    def prices_of(self, model: ModelChoice) -> Prices:
        """The prices of `model`: from the file; the embedded model is free if the file sets none."""
        return FREE if model.embedded and self.prices == UNKNOWN else self.prices

    @property
    def source(self) -> Source:
        """The source from which `read_experiment` reads it again."""
        text = self.text
        shown = {self.model.endpoint: self.model.shown, self.environment.url: shown_url(self.environment.url)}
        for url, one in shown.items():
            text = text.replace(url, one) if url else text
        return Source(self.file, text, self.space.templates, self.code)

    @property
    def verdict_calls(self) -> int:
        """Maximum calls of confirmation and holdout, which are reserved."""
        confirmed = self.confirmation.candidates * self.confirmation.episodes
        return (confirmed + (self.verdict.finalists + 1) * self.verdict.episodes) * self.task.max_steps


def load_experiment(path: Path) -> Experiment:
    """Read and check an experiment file.

    Raises:
        ConfigError: The file or a template is missing, or a key is unknown, missing or invalid; the message
            names file, line and key, and lists what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        known = sorted(str(file) for file in path.parent.glob("*.toml"))
        do = meant(str(path), known, f"use one of: {', '.join(known) or 'none there'}")
        raise ConfigError("The experiment file does not exist.", where=str(path), do=do) from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    folder = path.resolve().parent
    return _read(path, text, _project(folder.parent, folder.name, {}))


def _project(root: Path, folder: str, templates: Mapping[str, PromptTemplate]) -> "_Project":
    def find(name: str) -> PromptTemplate:
        return templates[name] if name in templates else find_template(root / TEMPLATES, name)

    return _Project(root, folder, find, partial(read_code, root=root))


def read_experiment(source: Source, root: Path) -> Experiment:
    """The inverse of `Experiment.source`, for the project at `root`, without reading its files.

    Raises:
        ConfigError: As `load_experiment`.
    """

    def find(name: str) -> PromptTemplate:
        if name not in source.templates:
            raise ConfigError(f"The template {name!r} does not exist.")
        return source.templates[name]

    file = Path(source.file)
    return _read(file, source.text, _Project(root, file.parent.name, find, lambda _: source.code))


@dataclass(frozen=True)
class _Project:
    """The file's folder relative to the root, and how to find its templates and code."""

    root: Path
    folder: str
    find: FindTemplate
    code_of: Callable[[EnvironmentConfig], Mapping[str, str]]


def _read(path: Path, text: str, project: _Project) -> Experiment:
    try:
        file = ExperimentFile.model_validate(tomllib.loads(text))
        return _experiment(path, text, file, project)
    except ValidationError as error:
        raise first_mistake(path, text, error) from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    except ConfigError as error:
        where = error.where if error.where.startswith(str(path)) else key_place(path, text, error.where)
        raise ConfigError(error.what, where=where, why=error.why, do=error.do) from None


def _unreadable(path: Path, error: Exception) -> ConfigError:
    what, do = "The experiment cannot be read.", "fix that line; the file must be TOML in UTF-8"
    return ConfigError(what, where=place(path, error), why=str(error), do=do)


def _experiment(path: Path, text: str, file: ExperimentFile, project: _Project) -> Experiment:
    environment = read_environment(file.environment, project.folder)
    task = read_task(file.task, file.tasks)
    baseline = read_baseline(file.baseline, project.find)
    space = read_space(file.space, baseline, project.find)
    check_tokens(baseline, space, task)
    prices = Prices(file.model.dollars_in, file.model.dollars_out)
    objective = read_objective(file.objective, task, prices)
    experiment = Experiment(
        name=path.stem,
        about=file.about,
        seed=file.seed,
        environment=environment,
        task=task,
        model=read_model(file.model),
        patience=file.model.patience,
        baseline=baseline,
        space=space,
        prices=prices,
        budget=read_budget(file.budget),
        objective=objective,
        search=file.search,
        proposals=file.proposals,
        confirmation=file.confirmation,
        verdict=file.verdict,
        root=project.root,
        file=f"{project.folder}/{path.name}",
        tracking=file.tracking,
        text=text,
        code=project.code_of(environment),
    )
    _check_budget(experiment)
    check_turns(task, file.confirmation, file.verdict, objective)
    return experiment


def _check_budget(experiment: Experiment) -> None:
    kept, least = experiment.verdict_calls, experiment.search.headroom * experiment.task.max_steps
    if experiment.budget.calls < kept + least:
        what = f"{experiment.budget.calls:g} calls are too few."
        why = f"confirmation and verdict need up to {kept}, the initial candidates {least}"
        do = f"use at least {kept + least}, or reduce their episodes"
        raise ConfigError(what, where="budget.calls", why=why, do=do)
    if experiment.verdict.finalists > experiment.confirmation.candidates:
        do = f"use at most confirmation.candidates = {experiment.confirmation.candidates}"
        raise ConfigError(
            "verdict.finalists exceeds confirmation.candidates.", where="verdict.finalists", do=do
        )
    priced = experiment.prices.known and experiment.prices != FREE
    if not priced and (experiment.objective.cost == "dollars" or experiment.budget.dollars < inf):
        do = "set dollars_in and dollars_out, the prices of a million tokens"
        raise ConfigError("A dollar limit or cost is set, but the model has no prices.", where="model", do=do)
