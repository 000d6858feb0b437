"""An Experiment: a TOML file that says what is tuned, on what, within which space and budget.

It owns the file's keys and how a mistake in them is told; the rest of the lab sees only what comes out.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError

from lab.candidate import Candidate, ContextSettings, Layout, SamplingParams
from lab.declaration import EnvironmentConfig
from lab.environment_table import (
    EnvironmentTable,
    SetupTable,
    Table,
    TaskTable,
    read_code,
    read_environment,
    read_task,
)
from lab.errors import ConfigError, meant, unknown_key
from lab.files import place
from lab.objective import Cost, Objective
from lab.patience import Patience
from lab.prompt import load_template
from lab.settings import ModelChoice
from lab.space import Space
from lab.space_table import read_space
from lab.spending import FREE, UNKNOWN, Budget, Prices
from lab.task import Task

TEMPLATES = Path("prompts/templates")
"""Where templates lie, below the project's root: the folder above the experiment file's."""

ProposerName = Literal["dspy", "gepa"]


class ModelTable(Table):
    """`[model]`: `endpoint` is a base URL or "embedded"; `API_BASE_URL` and `MODEL_NAME` go before it.

    Attributes:
        dollars_in, dollars_out: the prices of a million tokens; unknown where they are not set.
        timeout_s, attempts, whole_s, requests_per_minute, tokens_per_minute: see `lab.patience.Patience`.
    """

    endpoint: str
    name: str
    dollars_in: float | None = Field(default=None, ge=0)
    dollars_out: float | None = Field(default=None, ge=0)
    timeout_s: float = Field(default=Patience.timeout_s, gt=0)
    attempts: int = Field(default=Patience.attempts, ge=1)
    whole_s: float = Field(default=Patience.whole_s, gt=0)
    requests_per_minute: float = Field(default=inf, gt=0)
    tokens_per_minute: float = Field(default=inf, gt=0)

    @property
    def patience(self) -> Patience:
        """With this endpoint."""
        return Patience(
            self.timeout_s, self.attempts, self.whole_s, self.requests_per_minute, self.tokens_per_minute
        )


class BaselineTable(Table):
    """`[baseline]`: what is played now; also the value of every dimension that `[space]` does not name."""

    template: str
    temperature: float
    top_p: float = 1.0
    max_tokens: int
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: list[str] = Field(default=[])
    history: int
    layout: Layout = "text"
    show_rewards: bool = True


class BudgetTable(Table):
    """`[budget]`: what the whole study may spend; see `lab.spending.Budget`. At least one is set."""

    calls: int | None = Field(default=None, ge=1)
    tokens: int | None = Field(default=None, ge=1)
    dollars: float | None = Field(default=None, gt=0)
    minutes: float | None = Field(default=None, gt=0)


class ObjectiveTable(Table):
    """`[objective]`: return against cost; without this table the return alone counts.

    Attributes:
        cost: what an episode costs, in this unit.
        within: freeze the cheapest candidate whose return is within this share of the best one's.
    """

    cost: Cost
    within: float = Field(gt=0, lt=1)


class SearchTable(Table):
    """`[search]`: how candidates are compared.

    Attributes:
        episodes: what a candidate plays at most; all play the same seeds in the same order.
        error_rate: the chance, at most, that the best of all that were tried is dropped.
        headroom: candidates that open the search and show whether there is something to find.
        in_flight: episodes played at once.
    """

    episodes: int = Field(default=8, ge=1)
    error_rate: float = Field(default=0.1, gt=0, lt=1)
    headroom: int = Field(default=10, ge=2)
    in_flight: int = Field(default=32, ge=1)


class ProposalsTable(Table):
    """`[proposals]`: new texts, by a model that sees what the search found so far; without it there are none.

    Attributes:
        proposer: what writes them.
        rounds: how often, at equal distances through the search's budget.
        texts: how many are asked for in a round.
        dollars_in, dollars_out: the proposing model's prices of a million tokens, where it is another one;
            unknown where they are not set.
    """

    proposer: ProposerName
    rounds: int = Field(default=1, ge=1)
    texts: int = Field(default=4, ge=1)
    dollars_in: float | None = Field(default=None, ge=0)
    dollars_out: float | None = Field(default=None, ge=0)

    @property
    def prices(self) -> Prices:
        """Of the proposing model, where it is not the playing one."""
        return Prices(self.dollars_in, self.dollars_out)


class ConfirmationTable(Table):
    """`[confirmation]`: the search's best play seeds that the search did not, for the finalists to be chosen.

    Attributes:
        candidates: how many of the best.
        episodes: each of them.
    """

    candidates: int = Field(default=4, ge=1)
    episodes: int = Field(default=8, ge=2)


class VerdictTable(Table):
    """`[verdict]`: the test on the sealed holdout, whose seeds are played once.

    Attributes:
        finalists: the best of the confirmed, which play it.
        episodes: each of them, and the baseline.
        confidence: of the intervals, for all finalists together.
        judge: what decides: the mean return over all tasks, or the worst task's.
    """

    finalists: int = Field(default=1, ge=1)
    episodes: int = Field(ge=2)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    judge: Literal["mean", "worst"] = "mean"


class TrackingTable(Table):
    """`[tracking]`: what MLflow is given besides figures, settings and prompts.

    Attributes:
        traces: episodes of each trial that it can show step by step, and all of the holdout's of the frozen
            candidate and the baseline; 0 for none at all.
    """

    traces: int = Field(default=1, ge=0)


class ExperimentFile(Table):
    """The file's tables. `[space]` is read by `lab.space_table`."""

    about: str
    seed: int = Field(default=0, ge=0)
    environment: EnvironmentTable
    task: TaskTable
    tasks: list[SetupTable] = Field(default=[])
    model: ModelTable
    baseline: BaselineTable
    space: dict[str, Any]
    budget: BudgetTable
    objective: ObjectiveTable | None = None
    search: SearchTable = SearchTable()
    proposals: ProposalsTable | None = None
    confirmation: ConfirmationTable = ConfirmationTable()
    verdict: VerdictTable
    tracking: TrackingTable = TrackingTable()


@dataclass(frozen=True)
class Experiment:
    """What the file says, in the lab's own terms.

    Attributes:
        name: the file's name without `.toml`; also the MLflow experiment's.
        seed: of the search's choices, and the first of the environment's seeds.
        root: the project's folder.
        text: the file as it was read.
        code: the project's own files around the environment: each one's path below the root, and its text.
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
    text: str
    code: Mapping[str, str]

    def prices_of(self, model: ModelChoice) -> Prices:
        """What a call of `model` costs: as the file says; the embedded one is free where it says nothing."""
        return FREE if model.embedded and self.prices == UNKNOWN else self.prices

    @property
    def verdict_calls(self) -> int:
        """Model calls that confirmation and holdout take at most; the search leaves them untouched."""
        confirmed = self.confirmation.candidates * self.confirmation.episodes
        return (confirmed + (self.verdict.finalists + 1) * self.verdict.episodes) * self.task.max_steps


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
        known = sorted(str(file) for file in path.parent.glob("*.toml"))
        do = meant(str(path), known, f"one of: {', '.join(known) or 'none there'}")
        raise ConfigError("There is no such experiment.", where=str(path), do=do) from None
    except ValidationError as error:
        raise _first_mistake(path, error) from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            "The experiment cannot be read.", where=place(path, error), why=str(error)
        ) from None
    except ConfigError as error:
        where = error.where if error.where.startswith(str(path)) else f"{path}, {error.where}"
        raise ConfigError(error.what, where=where, why=error.why, do=error.do) from None


def _experiment(path: Path, text: str, file: ExperimentFile) -> Experiment:
    root = path.resolve().parent.parent
    environment = read_environment(file.environment, path.resolve().parent.name)
    task = read_task(file.task, file.tasks)
    folder = root / TEMPLATES
    baseline = _baseline(file.baseline, folder)
    space = read_space(file.space, baseline, folder)
    _check_tokens(baseline, space, task)
    prices = Prices(file.model.dollars_in, file.model.dollars_out)
    experiment = Experiment(
        name=path.stem,
        about=file.about,
        seed=file.seed,
        environment=environment,
        task=task,
        model=ModelChoice(file.model.endpoint, file.model.name),
        patience=file.model.patience,
        baseline=baseline,
        space=space,
        prices=prices,
        budget=_budget(file.budget),
        objective=Objective(**file.objective.model_dump(), prices=prices) if file.objective else Objective(),
        search=file.search,
        proposals=file.proposals,
        confirmation=file.confirmation,
        verdict=file.verdict,
        root=root,
        tracking=file.tracking,
        text=text,
        code=read_code(environment, root),
    )
    _check_budget(experiment)
    _check_turns(experiment)
    return experiment


def _check_turns(experiment: Experiment) -> None:
    """Means over phases that play every task equally often can be compared; others can not."""
    several = max(len(experiment.task.tasks), 1)
    for name, table in (("confirmation", experiment.confirmation), ("verdict", experiment.verdict)):
        if table.episodes % several:
            what = f"{table.episodes} episodes are no equal share for {several} tasks."
            do = f"use a multiple of {several}"
            raise ConfigError(what, where=f"{name}.episodes", do=do)
    if experiment.verdict.judge == "worst":
        if several < 2 or experiment.verdict.episodes < 2 * several:
            do = "give several [[tasks]], and at least two episodes for each"
            raise ConfigError("There is no worst task to judge.", where="verdict.judge", do=do)
        if experiment.objective.cost is not None:
            do = 'leave out [objective], or use judge = "mean"'
            raise ConfigError("The worst task is judged by its return alone.", where="verdict.judge", do=do)


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
        why = f"confirmation and verdict take up to {kept}, and the first candidates {least}"
        do = f"use at least {kept + least}, or fewer episodes there"
        raise ConfigError(what, where="budget.calls", why=why, do=do)
    if experiment.verdict.finalists > experiment.confirmation.candidates:
        do = f"use at most confirmation.candidates = {experiment.confirmation.candidates}"
        raise ConfigError("There are more finalists than are confirmed.", where="verdict.finalists", do=do)
    priced = experiment.prices.known and experiment.prices != FREE
    if not priced and (experiment.objective.cost == "dollars" or experiment.budget.dollars < inf):
        do = "set dollars_in and dollars_out, the prices of a million tokens"
        raise ConfigError("Dollars are counted, but nothing has a price.", where="model", do=do)


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
        if isinstance(part, int):
            continue
        annotation = table.model_fields[part].annotation
        if isinstance(annotation, UnionType) or get_origin(annotation) is list:
            annotation = get_args(annotation)[0]
        assert isinstance(annotation, type)
        table = annotation
    return list(table.model_fields)
