"""An ExperimentFile: the tables and keys that an experiment's TOML file may hold, and their limits.

The file's meaning is `lab.experiment.definition`'s; errors are `lab.experiment.mistakes`'s.
"""

from typing import Any, Literal

from pydantic import Field

from lab.agent.candidate import Candidate, ContextSettings, Layout
from lab.agent.template import FindTemplate
from lab.errors import ConfigError
from lab.experiment.budget import Prices
from lab.experiment.environment_schema import EnvironmentTable, SetupTable, Table, TaskTable
from lab.experiment.model_schema import ModelTable
from lab.experiment.objective import ObjectiveTable
from lab.llm.sampling import SamplingParams

ProposerName = Literal["dspy", "gepa"]

MOST_UNSEEN = 10_000
"""Maximum episodes of a candidate in confirmation or holdout: the seeds of a study's next verdict follow."""


class BaselineTable(Table):
    """`[baseline]`: the candidate in use today; its values apply to settings that `[space]` does not list."""

    template: str
    model: str = ""
    temperature: float
    top_p: float = 1.0
    max_tokens: int
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: list[str] = Field(default=[])
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    reasoning_effort: str = ""
    seed: int = -1
    extra: dict[str, Any] = Field(default={})
    history: int
    layout: Layout = "text"
    show_rewards: bool = True

    def candidate(self, find: FindTemplate) -> Candidate:
        """The candidate, with the template that `find` finds.

        Raises:
            ConfigError: A value is out of range.
        """
        sampling = self.model_dump(exclude={"template", "model", "history", "layout", "show_rewards"})
        try:
            return Candidate(
                find(self.template),
                SamplingParams(**sampling),
                ContextSettings(self.history, self.layout, self.show_rewards),
                model=self.model,
            )
        except ConfigError as error:
            raise ConfigError(
                error.what, where=f"baseline.{error.where}", why=error.why, do=error.do
            ) from None


class BudgetTable(Table):
    """`[budget]`: limits of the whole study; see `lab.experiment.budget.Budget`. At least one is set."""

    calls: int | None = Field(default=None, ge=1)
    tokens: int | None = Field(default=None, ge=1)
    dollars: float | None = Field(default=None, gt=0)
    minutes: float | None = Field(default=None, gt=0)


class SearchTable(Table):
    """`[search]`: how candidates are compared.

    Attributes:
        episodes: Maximum episodes of a candidate; all play the same seeds in the same order.
        error_rate: Maximum probability of dropping the best candidate.
        headroom: Number of initial candidates, whose warm-up test shows whether candidates differ.
        in_flight: Number of concurrent episodes.
        sampler: What chooses candidates: "race", one of Optuna's, a dotted path, "optunahub:samplers/NAME".
        pruner: What ends a candidate before it has played all episodes: "race", one of Optuna's, a path.
        sampler_options, pruner_options: Arguments of their constructors.
    """

    episodes: int = Field(default=8, ge=1)
    error_rate: float = Field(default=0.1, gt=0, lt=1)
    headroom: int = Field(default=10, ge=2)
    in_flight: int = Field(default=32, ge=1)
    sampler: str = "race"
    pruner: str = "race"
    sampler_options: dict[str, Any] = Field(default={})
    pruner_options: dict[str, Any] = Field(default={})


class ProposalsTable(Table):
    """`[proposals]`: new templates, by a model that sees the search's results so far; optional.

    Attributes:
        proposer: The method that writes them.
        rounds: Number of rounds; each is due once the texts before have played.
        texts: Number of templates per round.
        max_tokens: Maximum tokens of a text, thinking included; by default 700 for the embedded model, 4,000
            for others.
        reasoning_effort: How much a thinking model thinks before it writes; see `SamplingParams`.
        dollars_in, dollars_out: The proposing model's prices of a million prompt and completion tokens, if
            it is another one; unknown if not set.
    """

    proposer: ProposerName
    rounds: int = Field(default=1, ge=1)
    texts: int = Field(default=4, ge=1)
    max_tokens: int | None = Field(default=None, ge=1, le=32_768)
    reasoning_effort: str = ""
    dollars_in: float | None = Field(default=None, ge=0)
    dollars_out: float | None = Field(default=None, ge=0)

    @property
    def names(self) -> list[str]:
        """Names of all texts that may be proposed, in the order of their rounds."""
        rounds, texts = range(1, self.rounds + 1), range(self.texts)
        return [f"{self.proposer}-{number}-{place}" for number in rounds for place in texts]

    def sampling(self, *, embedded: bool) -> SamplingParams:
        """Sampling parameters of a proposal, for varied texts."""
        most = self.max_tokens or (700 if embedded else 4000)
        return SamplingParams(temperature=1.0, max_tokens=most, reasoning_effort=self.reasoning_effort)

    @property
    def prices(self) -> Prices:
        """Prices of the proposing model, if it is not the playing one."""
        return Prices(self.dollars_in, self.dollars_out)


class ConfirmationTable(Table):
    """`[confirmation]`: the search's best candidates play fresh seeds, which choose the finalists.

    Attributes:
        candidates: Number of candidates.
        episodes: Episodes of each.
    """

    candidates: int = Field(default=4, ge=1)
    episodes: int = Field(default=8, ge=2, le=MOST_UNSEEN)


class VerdictTable(Table):
    """`[verdict]`: the test on the sealed holdout, whose seeds are played once.

    Attributes:
        finalists: Number of confirmed candidates that play it.
        episodes: Episodes of each finalist and of the baseline.
        confidence: Confidence level of the intervals, for all finalists together.
        judge: Whether the mean over all tasks is judged, or the worst task's mean.
    """

    finalists: int = Field(default=1, ge=1)
    episodes: int = Field(ge=2, le=MOST_UNSEEN)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    judge: Literal["mean", "worst"] = "mean"


class TrackingTable(Table):
    """`[tracking]`: what MLflow gets besides figures, settings and prompts.

    Attributes:
        traces: Traced episodes of each trial, besides the whole holdout of the frozen candidate and the
            baseline; 0 disables all traces.
    """

    traces: int = Field(default=1, ge=0)


class ExperimentFile(Table):
    """The file's tables. `[space]` is read by `lab.experiment.space`."""

    about: str
    seed: int = Field(default=0, ge=0)
    environment: EnvironmentTable
    task: TaskTable
    tasks: list[SetupTable] = Field(default=[])
    model: ModelTable | None = None
    models: dict[str, ModelTable] = Field(default={})
    baseline: BaselineTable
    space: dict[str, Any]
    budget: BudgetTable
    objective: ObjectiveTable = ObjectiveTable()
    search: SearchTable = SearchTable()
    proposals: ProposalsTable | None = None
    confirmation: ConfirmationTable = ConfirmationTable()
    verdict: VerdictTable
    tracking: TrackingTable = TrackingTable()
