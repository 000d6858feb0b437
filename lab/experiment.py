"""An Experiment: a TOML file that says what is tuned, on what, within which space and budget.

It owns the file's keys and how a mistake in them is told; the rest of the lab sees only what comes out.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.candidate import Candidate, ContextSettings, Layout, SamplingParams
from lab.environment import EnvironmentConfig
from lab.errors import ConfigError
from lab.prompt import load_template
from lab.settings import ModelChoice
from lab.space import Space
from lab.space_table import read_space, unknown_key
from lab.task import Task

TEMPLATES = Path("prompts/templates")
"""Where templates lie, below the project's root: the folder above the experiment file's."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TaskTable(_Table):
    """`[task]`: see `lab.task.Task`."""

    name: str
    benchmark: str
    environment: str
    max_steps: int = Field(ge=1)
    max_tokens: int = Field(ge=1)
    max_return: float = Field(gt=0)
    success_score: float = Field(ge=0, le=1)


class ModelTable(_Table):
    """`[model]`: `endpoint` is a base URL or "embedded"; `API_BASE_URL` and `MODEL_NAME` go before it."""

    endpoint: str
    name: str


class BaselineTable(_Table):
    """`[baseline]`: what is played now; also the value of every dimension that `[space]` does not name."""

    template: str
    temperature: float
    top_p: float = 1.0
    max_tokens: int
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: list[str] = []
    history: int
    layout: Layout = "text"
    show_rewards: bool = True


class SearchTable(_Table):
    """`[search]`: the search's budget.

    Attributes:
        trials: candidates that are tried, beside the baseline.
        episodes: episodes a trial.
        minutes: no trial is begun after that long.
        in_flight: episodes played at once.
    """

    trials: int = Field(ge=1)
    episodes: int = Field(ge=1)
    minutes: float = Field(gt=0)
    in_flight: int = Field(default=32, ge=1)


class VerdictTable(_Table):
    """`[verdict]`: the test on episodes that the search never saw.

    Attributes:
        finalists: the search's best candidates, which play the holdout.
        episodes: holdout episodes each; the baseline plays them too.
        confidence: of the intervals, for all finalists together.
    """

    finalists: int = Field(ge=1)
    episodes: int = Field(ge=2)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)


class ExperimentFile(_Table):
    """The file's tables. `[space]` is read by `lab.space_table`."""

    about: str
    seed: int = Field(default=0, ge=0)
    task: TaskTable
    model: ModelTable
    baseline: BaselineTable
    space: dict[str, Any]
    search: SearchTable
    verdict: VerdictTable


@dataclass(frozen=True)
class Experiment:
    """What the file says, in the lab's own terms.

    Attributes:
        name: the file's name without `.toml`; also the MLflow experiment's.
        seed: of Optuna's sampler, and the first of the environment's seeds.
        text: the file as it was read.
    """

    name: str
    about: str
    seed: int
    task: Task
    model: ModelChoice
    baseline: Candidate
    space: Space
    search: SearchTable
    verdict: VerdictTable
    text: str


def load_experiment(path: Path) -> Experiment:
    """Read and check an experiment file.

    Raises:
        ConfigError: the file or a template is absent, or a key is unknown, missing or wrong; the message
            names file and key, and what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
        file = ExperimentFile.model_validate(tomllib.loads(text))
        return _experiment(path, text, file)
    except FileNotFoundError:
        known = ", ".join(sorted(str(file) for file in path.parent.glob("*.toml"))) or "none there"
        raise ConfigError("There is no such experiment.", where=str(path), do=f"one of: {known}") from None
    except ValidationError as error:
        raise _first_mistake(path, error) from None
    except (OSError, ValueError) as error:
        raise ConfigError("The experiment cannot be read.", where=str(path), why=str(error)) from None
    except ConfigError as error:
        where = error.where if error.where.startswith(str(path)) else f"{path}, {error.where}"
        raise ConfigError(error.what, where=where, why=error.why, do=error.do) from None


def _experiment(path: Path, text: str, file: ExperimentFile) -> Experiment:
    task = Task(**file.task.model_dump())
    EnvironmentConfig(task.environment)
    folder = path.resolve().parent.parent / TEMPLATES
    baseline = _baseline(file.baseline, folder)
    space = read_space(file.space, baseline, folder)
    _check_tokens(baseline, space, task)
    return Experiment(
        name=path.stem,
        about=file.about,
        seed=file.seed,
        task=task,
        model=ModelChoice(file.model.endpoint, file.model.name),
        baseline=baseline,
        space=space,
        search=file.search,
        verdict=file.verdict,
        text=text,
    )


def _baseline(table: BaselineTable, folder: Path) -> Candidate:
    sampling = table.model_dump(exclude={"template", "history", "layout", "show_rewards"})
    try:
        return Candidate(
            load_template(folder / f"{table.template}.toml"),
            SamplingParams(**sampling),
            ContextSettings(table.history, table.layout, table.show_rewards),
        )
    except ConfigError as error:
        raise ConfigError(error.what, where=f"baseline.{error.where}", why=error.why, do=error.do) from None


def _check_tokens(baseline: Candidate, space: Space, task: Task) -> None:
    ends = space.free["max_tokens"].ends if "max_tokens" in space.free else (space.start.sampling.max_tokens,)
    for where, tokens in (("baseline", baseline.sampling.max_tokens), *(("space", end) for end in ends)):
        if int(tokens) > task.max_tokens:
            what = f"max_tokens is {tokens}, and the task allows {task.max_tokens}."
            raise ConfigError(what, where=f"{where}.max_tokens", do=f"use at most {task.max_tokens}")


def _first_mistake(path: Path, error: ValidationError) -> ConfigError:
    # A misspelt key is also a missing one; the misspelling is what helps.
    mistake = min(error.errors(), key=lambda mistake: mistake["type"] != "extra_forbidden")
    key = ".".join(map(str, mistake["loc"]))
    if mistake["type"] == "extra_forbidden":
        return unknown_key(key, _keys_beside(mistake["loc"]), where=f"{path}, {key}")
    if mistake["type"] == "missing":
        return ConfigError(f"{key} is missing.", where=f"{path}, {key}")
    what = f"{key} is {mistake['input']!r}." if not isinstance(mistake["input"], dict) else f"{key} is wrong."
    return ConfigError(what, where=f"{path}, {key}", do=mistake["msg"].lower())


def _keys_beside(loc: tuple[int | str, ...]) -> list[str]:
    table: type[BaseModel] = ExperimentFile
    for part in loc[:-1]:
        annotation = table.model_fields[str(part)].annotation
        assert isinstance(annotation, type)
        table = annotation
    return list(table.model_fields)
