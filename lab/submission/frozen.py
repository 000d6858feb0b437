"""A FrozenPrompt: the winner with its evidence and provenance, as a TOML file in `prompts/`.

It owns the file's format and the check of its digest; writing is `lab.submission.freeze`'s. The file is read
before START is printed, so only the standard library is used.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lab.agent.candidate import Candidate
from lab.agent.episode import Start
from lab.agent.messages import chat
from lab.agent.step import Step
from lab.agent.task import Setup, Task
from lab.environments.config import EnvironmentConfig
from lab.environments.observation import Fields
from lab.errors import ConfigError, FrozenMistakesError, FrozenPromptError, MistakeError, place
from lab.files import line_of, read_bounded, toml_line
from lab.llm.dialect import Dialect
from lab.llm.request import Request
from lab.llm.settings import ModelChoice, check_headers
from lab.stats.estimate import Estimate
from lab.submission.records import Records, read_candidate

FORMAT = 3

BEST = Path("prompts/best.toml")
"""Where `lab.tune` freezes to and `inference.py` reads from, below the project's root."""


@dataclass(frozen=True)
class FrozenModel:
    """The model it was tuned on: a base URL (without credentials) or `embedded`, and the name.

    Attributes:
        dialect: What its requests may hold, where that is not as OpenAI's; see `lab.llm.dialect.Dialect`.
        headers: Headers of its requests; values `env:NAME` stand for variables.
    """

    endpoint: str
    name: str
    dialect: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, model: ModelChoice) -> "FrozenModel":
        """The model of a study, as the file has it."""
        return cls(model.shown, model.name, model.dialect.as_table(), dict(model.headers))

    @property
    def choice(self) -> ModelChoice:
        """The model, to be called.

        Raises:
            ConfigError: The dialect or a header is invalid.
        """
        check_headers(self.headers, "model.headers")
        dialect = Dialect.from_table(self.dialect, "model.dialect")
        return ModelChoice(self.endpoint, self.name, dialect, tuple(self.headers.items()))


@dataclass(frozen=True)
class Evidence:
    """The evidence from unseen episodes, in reward per episode, or in score if that was judged.

    Intervals, difference and p-value refer to the judged number; by the worst task, its mean does too.

    Attributes:
        outcome: `winner`: a tuned candidate is better than the baseline; `cheaper`: it costs less, at a value
            within the objective's tolerance; `baseline`: neither was shown, and the baseline was kept;
            `unvalidated`: the budget ended before a verdict, and all figures are the search's.
        episodes: Holdout episodes of the frozen candidate and of the baseline, paired by seed.
        confidence: Confidence level of `difference_interval` for all finalists together, and of the other
            two intervals separately.
        method: Tests behind interval and p-value.
        p_value: Two-sided p-value of the difference, corrected for all finalists.
        frozen_score, baseline_score: Mean scores in [0, 1].
        frozen_tokens, baseline_tokens: Mean tokens of an episode, prompt and completion.
        frozen_troubles, baseline_troubles: Shares of unusable answers with the most common reason, in
            words; None if all were usable.
        judged: `return` or `score`.
        caution: What the data show against the outcome; empty if nothing.
        saving: Cost saved per episode with its interval, in words, if it is `cheaper`; else empty.
        shortfall: How many of the planned pairs were completed, in words; empty if all were.
        relative_interval: Interval of the difference as a share of the baseline's mean; None if that mean is
            not shown to be above zero.
    """

    outcome: str
    episodes: int
    confidence: float
    method: str
    frozen_return: float
    frozen_interval: list[float]
    baseline_return: float
    baseline_interval: list[float]
    difference: float
    difference_interval: list[float]
    p_value: float
    frozen_score: float
    baseline_score: float
    frozen_tokens: float
    baseline_tokens: float
    frozen_troubles: str | None = None
    baseline_troubles: str | None = None
    judged: str = "return"
    caution: str = ""
    saving: str = ""
    shortfall: str = ""
    relative_interval: list[float] | None = None

    @property
    def frozen_value(self) -> Estimate:
        """The frozen candidate's mean of the judged number, with its interval."""
        mean = self.frozen_score if self.judged == "score" else self.frozen_return
        return self._estimate(mean, self.frozen_interval)

    @property
    def baseline_value(self) -> Estimate:
        """The baseline's mean of the judged number, with its interval."""
        mean = self.baseline_score if self.judged == "score" else self.baseline_return
        return self._estimate(mean, self.baseline_interval)

    @property
    def gap(self) -> Estimate:
        """The difference with its interval."""
        return self._estimate(self.difference, self.difference_interval)

    def _estimate(self, mean: float, ends: Sequence[float]) -> Estimate:
        low, high = ends
        return Estimate(mean, low, high, self.episodes)


@dataclass(frozen=True)
class Provenance:
    """The origin of the frozen prompt.

    Attributes:
        created: Time, UTC, ISO 8601.
        study: Name of the Optuna study and of the MLflow parent run.
        trial: Number of the trial; 0 is the baseline.
        calls, prompt_tokens, completion_tokens, minutes, dollars: Cost of the whole study.
        versions: `name version` of the relevant packages.
        dollars: Cost in dollars; None if a price is unknown.
        thinking_tokens: Number of the completion tokens that are thinking; None for none.
        estimated_calls: Number of calls whose tokens are estimates; None for none.
    """

    created: str
    experiment: str
    study: str
    trial: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    minutes: float
    versions: list[str]
    dollars: float | None = None
    thinking_tokens: int | None = None
    estimated_calls: int | None = None


@dataclass(frozen=True)
class FrozenPrompt:
    """Everything that a submission plays, with its evidence."""

    candidate: Candidate
    environment: EnvironmentConfig
    task: Task
    model: FrozenModel
    evidence: Evidence
    provenance: Provenance

    def messages(
        self, observation: str, steps: Sequence[Step] = (), *, fields: Fields | None = None, schema: str = ""
    ) -> list[dict[str, str]]:
        """The messages before step `len(steps) + 1`, as OpenAI's API takes them, for any client.

        Args:
            observation: Text of the episode's first observation.
            steps: The episode so far.
            fields: Fields of the first observation, with their texts, where the template names some.
            schema: JSON Schema of the actions; empty for plain text.
        """
        start = Start(observation, fields or {}, schema)
        return [asdict(message) for message in chat(self.candidate, self.task, start, steps)]

    @property
    def parameters(self) -> dict[str, object]:
        """The request's other parameters, such as the temperature, in the form that its endpoint takes."""
        body = Request((), self.candidate.sampling).body(self.model.choice.dialect)
        return {name: value for name, value in body.items() if name != "messages"}

    def as_table(self) -> dict[str, Any]:
        """The file's content, provenance last."""
        tasks = [{"name": one.name, "reset": dict(one.reset)} for one in self.task.tasks]
        task = {name: value for name, value in asdict(self.task).items() if name != "tasks"}
        return {
            "format": FORMAT,
            "digest": self.candidate.digest,
            "candidate": self.candidate.as_table(),
            "environment": self.environment.as_table(),
            "task": task,
            **({"tasks": tasks} if tasks else {}),
            "model": {k: one for k, one in asdict(self.model).items() if one != {}},
            "evidence": {k: one for k, one in asdict(self.evidence).items() if one not in ("", None)},
            "provenance": {k: one for k, one in asdict(self.provenance).items() if one is not None},
        }


def read_frozen(path: Path) -> FrozenPrompt:
    """Read a frozen prompt, and check its digest.

    Raises:
        FrozenPromptError: The file is missing, damaged, in an unsupported format, or changed.
    """
    try:
        # A model's text may contain a lone surrogate, which `lab.files` writes in the same way.
        return _read(path, read_bounded(path).decode("utf-8", "surrogatepass"))
    except FileNotFoundError:
        raise _refused(str(path), "The frozen prompt does not exist.") from None
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        why = "its values are nested too deeply" if isinstance(error, RecursionError) else why
        raise _refused(place(path, toml_line(error)), "The frozen prompt cannot be read.", why) from None


def _read(path: Path, text: str) -> FrozenPrompt:
    table = tomllib.loads(text)
    if "format" not in table:
        raise _refused(str(path), "The file is not a frozen prompt.", "the key format is missing")
    if table["format"] != FORMAT:
        why = f"its format is {table['format']!r}, this version reads {FORMAT}"
        raise _refused(str(path), "The frozen prompt has an unsupported format.", why)
    records = Records()
    frozen = _from_table(table, records)
    if frozen is None:
        raise _damaged(path, text, records.found)
    if frozen.candidate.digest != table.get("digest"):
        why = "the digest does not match: [candidate] was changed after it was frozen"
        raise _refused(str(path), "The frozen prompt was changed.", why)
    return frozen


def _refused(where: str, what: str, why: str = "") -> FrozenPromptError:
    return FrozenPromptError(what, where=where, why=why, do="python -m lab.tune")


def _damaged(path: Path, text: str, found: list[ConfigError]) -> ConfigError:
    again = "python -m lab.tune writes a new one"
    if len(found) > 1:
        mistakes = (MistakeError(one, path, line_of(text, one.where), one.where) for one in found)
        return FrozenMistakesError(mistakes, do=again)
    error = found[0]
    where = f"{place(path, line_of(text, error.where))}, {error.where}"
    do = "; ".join(filter(None, [again, error.do]))
    return FrozenPromptError("The frozen prompt is damaged.", where=where, why=error.what, do=do)


def _from_table(table: dict[str, Any], records: Records) -> FrozenPrompt | None:
    """The frozen prompt of a file's content; None if it has mistakes, which `records` notes."""
    records.check_names(table, ["format", "digest", "tasks", *(one.name for one in fields(FrozenPrompt))])
    candidate = read_candidate(table.get("candidate"), records)
    environment = records.read(EnvironmentConfig, table.get("environment"), "environment")
    task = records.read(Task, table.get("task"), "task")
    setups = records.made(
        lambda: [records.read(Setup, one, "tasks") for one in table.get("tasks", ())], "tasks"
    )
    model = records.read(FrozenModel, table.get("model"), "model")
    if model is not None:
        records.made(lambda: model.choice, "model")  # a damaged dialect is found here
    evidence = records.read(Evidence, table.get("evidence"), "evidence")
    provenance = records.read(Provenance, table.get("provenance"), "provenance")
    if records.found or not (candidate and environment and task and model and evidence and provenance):
        return None
    task = replace(task, tasks=tuple(one for one in setups or () if one))
    return FrozenPrompt(candidate, environment, task, model, evidence, provenance)
