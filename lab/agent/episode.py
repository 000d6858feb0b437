"""An Episode: a played episode, from reset to done or the step limit, as data.

It owns what is stored of the steps, and the ways an episode can end. Playing is `lab.agent.rollout`'s.
"""

from dataclasses import dataclass, field, fields

from lab.agent.step import Step, Times, Troubles, own_score_of, troubles_of
from lab.environments.observation import Fields
from lab.errors import LabError
from lab.llm.client import Completion


@dataclass(frozen=True)
class Start:
    """The start of an episode.

    Attributes:
        text, fields: The observation returned by `reset`.
        schema: JSON Schema of the actions; empty for plain text.
    """

    text: str
    fields: Fields = field(default_factory=dict)
    schema: str = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """The figures of a completed episode, which `Episode` describes: everything except its texts.

    Attributes:
        times: Troubles of its steps.
    """

    seed: int
    rewards: tuple[float, ...]
    calls: int
    prompt_tokens: int
    completion_tokens: int
    calls_s: float
    duration_s: float
    began: float | None
    times: Times = ()
    own_score: float | None = None
    estimated: int = 0

    @property
    def episode_return(self) -> float:
        """The sum of the rewards."""
        return sum(self.rewards)

    @property
    def troubles(self) -> Troubles:
        """The troubles of its steps."""
        return Troubles(len(self.rewards), self.times)


@dataclass(frozen=True)
class Episode:
    """A completed episode.

    Attributes:
        seed: Seed of the study; the task's `setup` maps it to a task and a reset seed.
        opening: Text of the first observation.
        fields, schema: See `Start`.
        began: Start time in seconds since 1970; None if not recorded.
    """

    seed: int
    opening: str
    steps: tuple[Step, ...]
    fields: Fields = field(default_factory=dict)
    schema: str = ""
    began: float | None = None

    @property
    def start(self) -> Start:
        """The start of the episode."""
        return Start(self.opening, self.fields, self.schema)

    @property
    def rewards(self) -> tuple[float, ...]:
        """Reward of each step."""
        return tuple(step.reward for step in self.steps)

    @property
    def episode_return(self) -> float:
        """The sum of the rewards."""
        return sum(self.rewards)

    @property
    def own_score(self) -> float | None:
        """The environment's own score, where the task takes it; None if it gave none."""
        return own_score_of(self.steps)

    @property
    def calls_s(self) -> float:
        """Total seconds of its model calls."""
        return sum(completion.latency_s for completion in self.completions)

    @property
    def duration_s(self) -> float:
        """Seconds of its model calls and the environment, as far as recorded."""
        return self.calls_s + sum(step.environment_s or 0.0 for step in self.steps)

    @property
    def completions(self) -> tuple[Completion, ...]:
        """The model's answers, in order."""
        return tuple(step.completion for step in self.steps if step.completion is not None)

    @property
    def prompt_tokens(self) -> int:
        """Total prompt tokens of its calls."""
        return sum(completion.prompt_tokens for completion in self.completions)

    @property
    def completion_tokens(self) -> int:
        """Total completion tokens of its calls."""
        return sum(completion.completion_tokens for completion in self.completions)

    @property
    def calls(self) -> int:
        """Number of answered model calls."""
        return len(self.completions)

    @property
    def estimated(self) -> int:
        """Number of calls whose tokens are estimates."""
        return sum(completion.estimated for completion in self.completions)

    @property
    def troubles(self) -> Troubles:
        """The troubles of its steps."""
        return troubles_of(self.steps)

    @property
    def tally(self) -> Tally:
        """The episode without its texts, which are most of its size."""
        figures = {one.name: getattr(self, one.name) for one in fields(Tally) if one.name != "times"}
        return Tally(**figures, times=self.troubles.times)


@dataclass(frozen=True)
class FailedEpisode:
    """An episode that failed in the endpoint or environment: it has no return, and does not count as 0."""

    seed: int
    error: LabError


@dataclass(frozen=True)
class CutEpisode:
    """An episode that was ended early, because its return could no longer matter.

    Attributes:
        bound: Upper bound of its return, in reward.
        troubles: Troubles of the steps played.
    """

    seed: int
    bound: float
    troubles: Troubles = field(default_factory=Troubles)


Ending = Tally | CutEpisode | FailedEpisode
"""How an episode ended, without its texts."""
