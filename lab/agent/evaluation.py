"""An Evaluation: one candidate's episodes, and the figures computed from them.

A Trial is an evaluation in the search: its number, its rank, and whether it was dropped.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, stdev

from lab.agent.candidate import Candidate
from lab.agent.episode import CutEpisode, Episode, FailedEpisode, Tally
from lab.agent.task import OTHER, Measure, Task
from lab.agent.troubles import Troubles, total


@dataclass(frozen=True)
class Evaluation:
    """What a candidate did. Figures are over the episodes that ended; failed ones have no return.

    Of an episode that is in a study's record this has the tally, and `Record.episode` the whole.

    Attributes:
        cut: episodes that were ended in the middle; only `troubles` counts their steps.
        measure: the number that candidates are judged by.

    Raises:
        statistics.StatisticsError: a mean is asked for, and no episode ended.
    """

    candidate: Candidate
    task: Task
    episodes: tuple[Episode | Tally, ...]
    failed: tuple[FailedEpisode, ...] = ()
    cut: tuple[CutEpisode, ...] = ()
    measure: Measure = "return"

    def only(self, seeds: Collection[int]) -> "Evaluation":
        """The same with the episodes of these seeds alone."""
        return replace(self, episodes=tuple(one for one in self.episodes if one.seed in seeds))

    @cached_property
    def values(self) -> dict[int, float]:
        """Seed to the number that is judged: return, in reward, or score, in [0, 1]."""
        return {episode.seed: self.task.value_of(episode.rewards, self.measure) for episode in self.episodes}

    @cached_property
    def other(self) -> "Evaluation":
        """The same episodes by the measure that does not decide."""
        return replace(self, measure=OTHER[self.measure])

    @cached_property
    def returns(self) -> dict[int, float]:
        """Seed to episode return, in reward."""
        return {episode.seed: episode.episode_return for episode in self.episodes}

    @cached_property
    def by_task(self) -> dict[str, dict[int, float]]:
        """The values of each of several tasks, by the task's name; empty where there is but one."""
        if len(self.task.tasks) < 2:
            return {}
        return {
            setup.name: {
                seed: value for seed, value in self.values.items() if self.task.setup(seed)[0] is setup
            }
            for setup in self.task.tasks
        }

    @property
    def worst(self) -> float:
        """The mean value of the task with the lowest; of all episodes where there is but one task."""
        means = [fmean(values.values()) for values in self.by_task.values() if values]
        return min(means, default=self.mean)

    @property
    def mean(self) -> float:
        """The mean of the values, which the objective maximises."""
        return fmean(self.values.values())

    @property
    def mean_return(self) -> float:
        """The mean episode return, in reward."""
        return fmean(self.returns.values())

    @property
    def spread(self) -> float | None:
        """The standard deviation of the values; None for fewer than two."""
        return stdev(self.values.values()) if len(self.episodes) > 1 else None

    @cached_property
    def scores(self) -> tuple[float, ...]:
        """The task's score of each episode, in [0, 1]."""
        return tuple(self.task.score_of(episode.rewards) for episode in self.episodes)

    @property
    def mean_score(self) -> float:
        """The mean of the scores."""
        return fmean(self.scores)

    @property
    def clamped_share(self) -> float:
        """The share of episodes whose score sits at the clamp, 1.0."""
        return sum(score >= 1.0 for score in self.scores) / len(self.scores)

    @cached_property
    def troubles(self) -> Troubles:
        """The troubles of all steps that were played."""
        return total(one.troubles for one in (*self.episodes, *self.cut))

    @property
    def calls(self) -> int:
        """Of the model, that were answered, in all episodes."""
        return sum(episode.calls for episode in self.episodes)

    @property
    def tokens(self) -> float:
        """Mean tokens of an episode, in and out."""
        return fmean(episode.prompt_tokens + episode.completion_tokens for episode in self.episodes)

    @property
    def latency_s(self) -> float:
        """Mean seconds of a call; 0 where none was answered."""
        return sum(episode.calls_s for episode in self.episodes) / max(self.calls, 1)


BASELINE = -1
"""The baseline's number: it is played beside the trials."""


@dataclass(frozen=True)
class Trial:
    """One candidate of the search.

    Attributes:
        number: counts from 0, in the order of entering the race; BASELINE for the baseline.
        place: among all that played, when this was written; 1 is the incumbent.
        dropped: it was shown to be worse than another, and plays no more.
        cut: episodes that were ended in the middle for that.
    """

    number: int
    evaluation: Evaluation
    place: int = 1
    dropped: bool = False
    cut: int = 0

    @property
    def candidate(self) -> Candidate:
        """What was tried."""
        return self.evaluation.candidate

    @property
    def name(self) -> str:
        """For people, and for the run in MLflow."""
        return "baseline" if self.number == BASELINE else f"trial-{self.number:03d}"
