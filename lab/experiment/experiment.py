"""An Experiment: what is tuned, with which environment, model, space and budget, from a TOML file.

It owns the rules between the file's tables; the rest of the lab sees only the result.
"""

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import tomli_w

from lab.addresses import shown_url
from lab.agent.candidate import Candidate
from lab.agent.task import Task
from lab.agent.template import FindTemplate, PromptTemplate, find_template
from lab.environments.config import EnvironmentConfig
from lab.environments.given import Reward, give
from lab.errors import ConfigError, MistakeError, all_of, meant
from lab.experiment.baseline import read_baseline
from lab.experiment.budget import FREE, Budget, Prices
from lab.experiment.environment_schema import read_code, read_environment, read_task
from lab.experiment.mistakes import Mended
from lab.experiment.model_schema import read_model, read_models, usual_table
from lab.experiment.models import PricedModel, others_of
from lab.experiment.objective import Objective, read_objective
from lab.experiment.schema import (
    BudgetTable,
    ConfirmationTable,
    ExperimentFile,
    ProposalsTable,
    SearchTable,
    TrackingTable,
    VerdictTable,
)
from lab.experiment.space import Space, read_space
from lab.files import toml_line
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
        return self.priced(model).prices

    def priced(self, model: ModelChoice) -> PricedModel:
        """The baseline's model `model`, with the file's limits and prices."""
        return PricedModel(model, self.patience, self.prices)

    @property
    def others(self) -> Mapping[str, PricedModel]:
        """The models of the space that the baseline does not play on, by name."""
        return others_of(self.space, self.baseline, self.models)

    def played_by(self, candidate: Candidate, usual: ModelChoice) -> PricedModel:
        """The model that plays a candidate.

        Args:
            usual: The baseline's model.
        """
        return self.others.get(candidate.model) or self.priced(usual)

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
        ConfigError: The file is missing.
        MistakeError, MistakesError: Keys or templates are unknown, missing or invalid; the message names the
            file, line and key of each, and lists what is allowed.
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


def _project(root: Path, folder: str, given: Mapping[str, PromptTemplate]) -> "_Project":
    """The project at `root`; its templates' paths are shown from here."""
    here = Path.cwd()
    templates = (root.relative_to(here) if root.is_relative_to(here) else root) / TEMPLATES

    def find(name: str) -> PromptTemplate:
        return given[name] if name in given else find_template(templates, name)

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
        file = Mended(path, text, tomllib.loads(text))
    except ValueError as error:
        raise _unreadable(path, error) from None
    baselines, others = (file.finder(project.find, f"{one}.template") for one in ("baseline", "space"))
    experiment = file.read(lambda tables: _experiment(path, text, tables, project, baselines, others))
    if experiment is not None:
        for keys, rule in _RULES.items():
            for broken in () if file.is_wrong(*keys) else rule(experiment):
                file.note(broken)
    if file.found:
        raise all_of(file.found)
    assert experiment is not None
    return experiment


def _unreadable(path: Path, error: Exception) -> MistakeError:
    do = "fix that line; the file must be TOML in UTF-8"
    unread = ConfigError("The experiment cannot be read.", why=str(error), do=do)
    return MistakeError(unread, path, toml_line(error))


def _experiment(
    path: Path, text: str, file: ExperimentFile, project: _Project, *find: FindTemplate
) -> Experiment:
    environment = read_environment(file.environment, project.folder)
    task = read_task(file.task, file.tasks)
    baseline = read_baseline(file.baseline, find[0])
    usual, models = usual_table(file.model, file.models, baseline.model), read_models(file.models)
    space = read_space(file.space, baseline, find[1])
    prices = Prices(usual.dollars_in, usual.dollars_out)
    others = {name: one.prices for name, one in others_of(space, baseline, models).items()}
    return Experiment(
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
        budget=Budget(**file.budget.model_dump(exclude_none=True)),
        objective=read_objective(file.objective, task, prices, others),
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


def _equal_turns(experiment: Experiment) -> Iterator[ConfigError]:
    """Confirmation and verdict play every task equally often, so that means are comparable."""
    several = max(len(experiment.task.tasks), 1)
    for name, table in (("confirmation", experiment.confirmation), ("verdict", experiment.verdict)):
        if table.episodes % several:
            what = f"episodes = {table.episodes} must be a multiple of the number of tasks ({several})."
            yield ConfigError(what, where=f"{name}.episodes", do=f"use a multiple of {several}")


def _worst_judged(experiment: Experiment) -> Iterator[ConfigError]:
    several = len(experiment.task.tasks)
    if experiment.verdict.judge != "worst":
        return
    if several < 2 or experiment.verdict.episodes < 2 * several:
        do = "add [[tasks]], and play at least two episodes of each"
        yield ConfigError('judge = "worst" needs several tasks.', where="verdict.judge", do=do)
    elif experiment.objective.cost is not None:
        do = 'remove cost and within, or use judge = "mean"'
        yield ConfigError('judge = "worst" cannot be combined with a cost.', where="verdict.judge", do=do)


def _cost_and_tolerance(experiment: Experiment) -> Iterator[ConfigError]:
    cost, within = experiment.objective.cost is not None, experiment.objective.within > 0
    if cost != within:
        absent, there = ("within", "cost") if cost else ("cost", "within")
        do = f"set it, or remove {there}"
        yield ConfigError(f"objective.{absent} is missing.", where=f"objective.{there}", do=do)


def _limited(experiment: Experiment) -> Iterator[ConfigError]:
    do = f"set one of {', '.join(BudgetTable.model_fields)}"
    if experiment.budget == Budget():
        yield ConfigError("The budget has no limit.", where="budget", do=do)


def _enough_calls(experiment: Experiment) -> Iterator[ConfigError]:
    kept, least = experiment.verdict_calls, experiment.search.headroom * experiment.task.max_steps
    if experiment.budget.calls < kept + least:
        what = f"{experiment.budget.calls:g} calls are too few."
        why = f"confirmation and verdict need up to {kept}, the initial candidates {least}"
        do = f"use at least {kept + least}, or reduce their episodes"
        yield ConfigError(what, where="budget.calls", why=why, do=do)


def _finalists_confirmed(experiment: Experiment) -> Iterator[ConfigError]:
    if experiment.verdict.finalists > experiment.confirmation.candidates:
        do = f"use at most confirmation.candidates = {experiment.confirmation.candidates}"
        what = "verdict.finalists exceeds confirmation.candidates."
        yield ConfigError(what, where="verdict.finalists", do=do)


def _dollars_priced(experiment: Experiment) -> Iterator[ConfigError]:
    own = f"models.{experiment.baseline.model}" if experiment.baseline.model else "model"
    usual = experiment.prices if not experiment.others else experiment.prices_of(experiment.model)
    prices = {own: usual, **{f"models.{name}": one.prices for name, one in experiment.others.items()}}
    unknown = next((where for where, one in prices.items() if not one.known), "")
    unpriced = unknown or (own if set(prices.values()) == {FREE} else "")
    if unpriced and (experiment.objective.cost == "dollars" or experiment.budget.dollars < inf):
        do = "set dollars_in and dollars_out, the prices of a million tokens"
        what = "A dollar limit or cost is set, but the model has no prices."
        yield ConfigError(what, where=unpriced, do=do)


def _tokens_allowed(experiment: Experiment) -> Iterator[ConfigError]:
    space, most = experiment.space, experiment.task.max_tokens
    ends = space.free["max_tokens"].ends if "max_tokens" in space.free else (space.start.sampling.max_tokens,)
    own = experiment.baseline.sampling.max_tokens
    for where, tokens in (("baseline", own), ("space", max(map(int, ends)))):
        if tokens > most and (where == "baseline" or tokens != own):
            what = f"max_tokens is {tokens}, but the task allows {most}."
            yield ConfigError(what, where=f"{where}.max_tokens", do=f"use at most {most}")


_RULES: Mapping[tuple[str, ...], Callable[[Experiment], Iterator[ConfigError]]] = {
    ("tasks", "confirmation.episodes", "verdict.episodes"): _equal_turns,
    ("tasks", "verdict.judge", "verdict.episodes", "objective.cost"): _worst_judged,
    ("objective.cost", "objective.within"): _cost_and_tolerance,
    ("budget",): _limited,
    ("verdict.finalists", "confirmation.candidates"): _finalists_confirmed,
    ("model", "models", "baseline.model", "objective.cost", "budget.dollars"): _dollars_priced,
    ("task.max_tokens", "baseline.max_tokens", "space.max_tokens"): _tokens_allowed,
    ("budget.calls", "confirmation", "verdict", "search.headroom", "task.max_steps"): _enough_calls,
}
"""The rules between keys, in order, by the keys that they read: none is checked if one of these is wrong."""
