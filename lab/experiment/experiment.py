"""An Experiment: a definition that was read from a TOML file, or from a dictionary with its keys.

It owns reading and checking: the file, its templates and its code. What the content means, and which rules
hold between its tables, is `lab.experiment.definition`'s.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w

from lab.addresses import shown_url
from lab.agent.template import FindTemplate, PromptTemplate, find_template
from lab.environments.config import EnvironmentConfig
from lab.environments.given import Reward, give
from lab.errors import ConfigError, MistakeError, all_of, meant
from lab.experiment.budget import Budget, Prices
from lab.experiment.definition import RULES, Definition
from lab.experiment.environment_schema import read_code, read_environment, read_task
from lab.experiment.mistakes import Mended
from lab.experiment.model_schema import others_of, read_model, read_models, usual_table
from lab.experiment.objective import read_objective
from lab.experiment.schema import ExperimentFile
from lab.experiment.space import read_space
from lab.files import toml_line

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
class Experiment(Definition):
    """An experiment file's content, as the lab's types, and the texts that it was read from.

    Attributes:
        name: Name of the file without `.toml`, and of the MLflow experiment.
        seed: Seed of the search's choices, and first seed of the environment.
        models: The models of the tables `[models.NAME]`, by name.
        root: Project folder.
        file: Path of the file, relative to the root.
        text: Text of the file.
        code: The project's files for the environment: text by path relative to the root.
        verdicts: Number of the study's earlier verdicts; each one uses new confirmation and holdout seeds.
    """

    root: Path
    file: str
    text: str
    code: Mapping[str, str]
    verdicts: int = 0

    @classmethod
    def load(cls, path: Path | str) -> "Experiment":
        """Read and check an experiment file.

        Raises:
            ConfigError: The file or a template is missing, or a key is unknown, missing or invalid.
        """
        path = Path(path)
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


load_experiment = Experiment.load


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
        ConfigError: As `Experiment.load`.
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
        for keys, rule in RULES.items():
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
    baseline = file.baseline.candidate(find[0])
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
