"""An Experiment: what is tuned, with which environment, model, space and budget, from a TOML file.

It owns the rules between the file's tables; the rest of the lab sees only the result.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path

from pydantic import ValidationError

from lab.addresses import shown_url
from lab.agent.candidate import Candidate, ContextSettings
from lab.agent.task import Measure, Task
from lab.agent.template import FindTemplate, PromptTemplate, find_template
from lab.environments.config import EnvironmentConfig
from lab.errors import ConfigError, meant
from lab.experiment.budget import FREE, Budget, Prices
from lab.experiment.environment_schema import read_code, read_environment, read_task
from lab.experiment.model_schema import read_model, read_models, usual_table
from lab.experiment.models import PricedModel, others_of
from lab.experiment.objective import Objective
from lab.experiment.schema import (
    BaselineTable,
    BudgetTable,
    ConfirmationTable,
    ExperimentFile,
    ObjectiveTable,
    ProposalsTable,
    SearchTable,
    TrackingTable,
    VerdictTable,
    first_mistake,
)
from lab.experiment.space import Space, read_space
from lab.files import key_place, place
from lab.llm.sampling import SamplingParams
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
    """The file's content, as the lab's types.

    Attributes:
        name: Name of the file without `.toml`, and of the MLflow experiment.
        seed: Seed of the search's choices, and first seed of the environment.
        root: Project folder.
        file: Path of the file, relative to the root.
        text: Text of the file.
        code: The project's files for the environment: text by path relative to the root.
        models: The models of the tables `[models.NAME]`, by name.
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
    models: Mapping[str, PricedModel]

    def prices_of(self, model: ModelChoice) -> Prices:
        """The prices of `model`: from the file; the embedded model is free if the file sets none."""
        return PricedModel(model, prices=self.prices).prices

    @property
    def others(self) -> Mapping[str, PricedModel]:
        """The models of the space that the baseline does not play on, by name."""
        return others_of(self.space, self.baseline, self.models)

    def played_by(self, candidate: Candidate, usual: ModelChoice) -> PricedModel:
        """The model that plays a candidate.

        Args:
            usual: The baseline's model.
        """
        return self.others.get(candidate.model) or PricedModel(usual, self.patience, self.prices)

    def models_text(self, usual: ModelChoice) -> str:
        """The baseline's model `usual`, and the others of the space, for people."""
        choices = [usual, *(one.choice for one in self.others.values())]
        return " and ".join(f"{one.name} at {one.shown}" for one in choices)

    @property
    def source(self) -> Source:
        """The source from which `read_experiment` reads it again."""
        text = self.text
        models = (self.model, *(one.choice for one in self.models.values()))
        shown = {one.endpoint: one.shown for one in models}
        shown[self.environment.url] = shown_url(self.environment.url)
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
    root = folder.parent
    project = _Project(
        root, folder.name, partial(find_template, root / TEMPLATES), partial(read_code, root=root)
    )
    return _read(path, text, project)


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
    baseline = _baseline(file.baseline, project.find)
    space = read_space(file.space, baseline, project.find)
    _check_tokens(baseline, space, task)
    usual, models = usual_table(file.model, file.models, baseline.model), read_models(file.models)
    prices = Prices(usual.dollars_in, usual.dollars_out)
    others = {name: one.prices for name, one in others_of(space, baseline, models).items()}
    experiment = Experiment(
        name=path.stem,
        about=file.about,
        seed=file.seed,
        environment=environment,
        task=task,
        model=models[baseline.model].choice if baseline.model else read_model(usual),
        patience=usual.patience,
        baseline=baseline,
        space=space,
        prices=prices,
        budget=_budget(file.budget),
        objective=replace(_objective(file.objective, task, prices), others=others),
        search=file.search,
        proposals=file.proposals,
        confirmation=file.confirmation,
        verdict=file.verdict,
        root=project.root,
        file=f"{project.folder}/{path.name}",
        tracking=file.tracking,
        text=text,
        code=project.code_of(environment),
        models=models,
    )
    _check_budget(experiment)
    _check_turns(experiment)
    return experiment


def _check_turns(experiment: Experiment) -> None:
    """Check that confirmation and verdict play every task equally often, so that means are comparable."""
    several = max(len(experiment.task.tasks), 1)
    for name, table in (("confirmation", experiment.confirmation), ("verdict", experiment.verdict)):
        if table.episodes % several:
            what = f"episodes = {table.episodes} must be a multiple of the number of tasks ({several})."
            do = f"use a multiple of {several}"
            raise ConfigError(what, where=f"{name}.episodes", do=do)
    if experiment.verdict.judge == "worst":
        if several < 2 or experiment.verdict.episodes < 2 * several:
            do = "add [[tasks]], and play at least two episodes of each"
            raise ConfigError('judge = "worst" needs several tasks.', where="verdict.judge", do=do)
        if experiment.objective.cost is not None:
            do = 'remove cost and within, or use judge = "mean"'
            raise ConfigError('judge = "worst" cannot be combined with a cost.', where="verdict.judge", do=do)


def _baseline(table: BaselineTable, find: FindTemplate) -> Candidate:
    sampling = table.model_dump(exclude={"template", "model", "history", "layout", "show_rewards"})
    try:
        return Candidate(
            find(table.template),
            SamplingParams(**sampling),
            ContextSettings(table.history, table.layout, table.show_rewards),
            model=table.model,
        )
    except ConfigError as error:
        raise ConfigError(error.what, where=f"baseline.{error.where}", why=error.why, do=error.do) from None


def _objective(table: ObjectiveTable, task: Task, prices: Prices) -> Objective:
    if (table.cost is None) != (table.within is None):
        absent, there = ("cost", "within") if table.cost is None else ("within", "cost")
        do = f"set it, or remove {there}"
        raise ConfigError(f"objective.{absent} is missing.", where=f"objective.{there}", do=do)
    usual: Measure = "return" if task.score == "sum" else "score"
    return Objective(
        table.cost, table.within or 0.0, prices, table.maximise or usual, stated=table.maximise is not None
    )


def _budget(table: BudgetTable) -> Budget:
    limits = table.model_dump(exclude_none=True)
    if not limits:
        do = f"set one of {', '.join(BudgetTable.model_fields)}"
        raise ConfigError("The budget has no limit.", where="budget", do=do)
    return Budget(**limits)


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
    own = f"models.{experiment.baseline.model}" if experiment.baseline.model else "model"
    usual = experiment.prices if not experiment.others else experiment.prices_of(experiment.model)
    prices = {own: usual, **{f"models.{name}": one.prices for name, one in experiment.others.items()}}
    unknown = next((where for where, one in prices.items() if not one.known), "")
    unpriced = unknown or (own if set(prices.values()) == {FREE} else "")
    if unpriced and (experiment.objective.cost == "dollars" or experiment.budget.dollars < inf):
        do = "set dollars_in and dollars_out, the prices of a million tokens"
        what = "A dollar limit or cost is set, but the model has no prices."
        raise ConfigError(what, where=unpriced, do=do)


def _check_tokens(baseline: Candidate, space: Space, task: Task) -> None:
    ends = space.free["max_tokens"].ends if "max_tokens" in space.free else (space.start.sampling.max_tokens,)
    for where, tokens in (("baseline", baseline.sampling.max_tokens), *(("space", end) for end in ends)):
        if int(tokens) > task.max_tokens:
            what = f"max_tokens is {tokens}, but the task allows {task.max_tokens}."
            raise ConfigError(what, where=f"{where}.max_tokens", do=f"use at most {task.max_tokens}")
