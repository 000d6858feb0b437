"""An Episode: what was played from reset to done or the step limit, as data.

It owns what is kept of the steps, and the ways an episode can end. Playing one is `lab.agent.rollout`'s.
"""

from dataclasses import dataclass, field

from lab.agent.step import Step
from lab.agent.troubles import Times, Troubles, troubles_of
from lab.environments.observation import Fields
from lab.errors import LabError
from lab.llm.client import Completion


@dataclass(frozen=True)
class Start:
    """What an episode begins with.

    Attributes:
        text, fields: the observation that `reset` showed.
        schema: the JSON Schema that actions are asked for in; empty where they are plain text.
    """

    text: str
    fields: Fields = field(default_factory=dict)
    schema: str = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """What is counted of an episode that was played to its end: all but its texts.

    Attributes:
        rewards: of each step.
        calls: of the model, that were answered.
        calls_s: seconds of them, all together.
        duration_s: see `Episode`.
        began: see `Episode`.
        times: the troubles of its steps.
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
    """An episode that was played to its end.

    Attributes:
        seed: the study's; the task's `setup` says what it plays.
        opening: the text that `reset` showed.
        fields, schema: see `Start`.
        began: when its play began, in seconds since 1970; None where that was not kept.
    """

    seed: int
    opening: str
    steps: tuple[Step, ...]
    fields: Fields = field(default_factory=dict)
    schema: str = ""
    began: float | None = None

    @property
    def start(self) -> Start:
        """What it began with."""
        return Start(self.opening, self.fields, self.schema)

    @property
    def rewards(self) -> tuple[float, ...]:
        """Of each step."""
        return tuple(step.reward for step in self.steps)

    @property
    def episode_return(self) -> float:
        """The sum of the rewards."""
        return sum(self.rewards)

    @property
    def calls_s(self) -> float:
        """Seconds of its model calls, all together."""
        return sum(completion.latency_s for completion in self.completions)

    @property
    def duration_s(self) -> float:
        """Seconds that its model calls and the environment took, as far as they were kept."""
        return self.calls_s + sum(step.environment_s or 0.0 for step in self.steps)

    @property
    def completions(self) -> tuple[Completion, ...]:
        """The model's answers, in order."""
        return tuple(step.completion for step in self.steps if step.completion is not None)

    @property
    def prompt_tokens(self) -> int:
        """Tokens sent, all calls together."""
        return sum(completion.prompt_tokens for completion in self.completions)

    @property
    def completion_tokens(self) -> int:
        """Tokens that the model wrote."""
        return sum(completion.completion_tokens for completion in self.completions)

    @property
    def calls(self) -> int:
        """Of the model, that were answered."""
        return len(self.completions)

    @property
    def troubles(self) -> Troubles:
        """The troubles of its steps."""
        return troubles_of(self.steps)

    @property
    def tally(self) -> Tally:
        """It without its texts, which are most of it."""
        return Tally(
            self.seed,
            self.rewards,
            self.calls,
            self.prompt_tokens,
            self.completion_tokens,
            self.calls_s,
            self.duration_s,
            self.began,
            self.troubles.times,
        )


@dataclass(frozen=True)
class FailedEpisode:
    """An episode that endpoint or environment broke off: it has no return, and is no zero."""

    seed: int
    error: LabError


@dataclass(frozen=True)
class CutEpisode:
    """An episode that was ended in the middle, because its return could not matter any more.

    Attributes:
        bound: the most that it could have returned, in reward.
        troubles: of the steps that were played.
    """

    seed: int
    bound: float
    troubles: Troubles = field(default_factory=Troubles)


Ending = Tally | CutEpisode | FailedEpisode
"""How an episode ended, without its texts."""
