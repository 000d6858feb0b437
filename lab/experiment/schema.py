"""An ExperimentFile: the tables and keys that an experiment's TOML file may hold, and their limits.

It owns how a mistake in a key is told. What the file says in the lab's own terms is
`lab.experiment.experiment`'s.
"""

from math import inf
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError

from lab.agent.candidate import Layout
from lab.agent.task import Measure
from lab.errors import ConfigError, unknown_key
from lab.experiment.budget import Prices
from lab.experiment.environment_schema import EnvironmentTable, SetupTable, Table, TaskTable
from lab.experiment.objective import Cost
from lab.files import key_place
from lab.llm.throttle import Patience

ProposerName = Literal["dspy", "gepa"]


class ModelTable(Table):
    """`[model]`: `endpoint` is a base URL or "embedded"; `API_BASE_URL` and `MODEL_NAME` go before it.

    Attributes:
        dollars_in, dollars_out: the prices of a million tokens; unknown where they are not set.
        timeout_s, attempts, whole_s, requests_per_minute, tokens_per_minute: see `lab.llm.throttle.Patience`.
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
    """`[budget]`: what the whole study may spend; see `lab.experiment.budget.Budget`. At least one is set."""

    calls: int | None = Field(default=None, ge=1)
    tokens: int | None = Field(default=None, ge=1)
    dollars: float | None = Field(default=None, gt=0)
    minutes: float | None = Field(default=None, gt=0)


class ObjectiveTable(Table):
    """`[objective]`: the number that is maximised, and what it may cost; see
    `lab.experiment.objective.Objective`.

    Attributes:
        maximise: by default the return where `task.score` is "sum", else the score.
        cost: what an episode costs, in this unit. It is set together with `within`.
        within: freeze the cheapest candidate whose value is within this share of the best one's.
    """

    maximise: Measure | None = None
    cost: Cost | None = None
    within: float | None = Field(default=None, gt=0, lt=1)


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
    """The file's tables. `[space]` is read by `lab.experiment.space`."""

    about: str
    seed: int = Field(default=0, ge=0)
    environment: EnvironmentTable
    task: TaskTable
    tasks: list[SetupTable] = Field(default=[])
    model: ModelTable
    baseline: BaselineTable
    space: dict[str, Any]
    budget: BudgetTable
    objective: ObjectiveTable = ObjectiveTable()
    search: SearchTable = SearchTable()
    proposals: ProposalsTable | None = None
    confirmation: ConfirmationTable = ConfirmationTable()
    verdict: VerdictTable
    tracking: TrackingTable = TrackingTable()


def first_mistake(path: Path, text: str, error: ValidationError) -> ConfigError:
    """The mistake that helps most, by file, line and key, with what is allowed."""
    # A misspelt key is also a missing one; the misspelling is what helps.
    mistake = min(error.errors(), key=lambda mistake: mistake["type"] != "extra_forbidden")
    key = ".".join(map(str, mistake["loc"]))
    where = key_place(path, text, key)
    if mistake["type"] == "extra_forbidden":
        return unknown_key(key, _keys_beside(mistake["loc"]), where=where)
    if mistake["type"] == "missing":
        return ConfigError(f"{key} is missing.", where=where, do="set it; docs/experiment.md lists every key")
    what = f"{key} is {mistake['input']!r}." if not isinstance(mistake["input"], dict) else f"{key} is wrong."
    return ConfigError(what, where=where, do=mistake["msg"].lower())


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
