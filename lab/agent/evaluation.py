"""An Evaluation: one candidate's episodes, and the figures computed from them.

A Trial is an evaluation in the search: its number, its rank, and whether it was dropped.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, stdev

from lab.agent.candidate import Candidate
from lab.agent.episode import CutEpisode, Ending, Episode, FailedEpisode, Tally
from lab.agent.step import Troubles, total
from lab.agent.task import OTHER, Measure, Task
from lab.stats.estimate import Estimate


@dataclass(frozen=True)
class Evaluation:
    """A candidate's results. Figures are over completed episodes; failed ones have no return.

    For an episode in a study's record this has only the tally; `Record.episode` has its texts.

    Attributes:
        cut: Episodes that were ended early; only `troubles` counts their steps.
        measure: The number that candidates are judged by.

    Raises:
        statistics.StatisticsError: A mean is requested, but no episode is complete.
    """

    candidate: Candidate
    task: Task
    episodes: tuple[Episode | Tally, ...]
    failed: tuple[FailedEpisode, ...] = ()
    cut: tuple[CutEpisode, ...] = ()
    measure: Measure = "return"

    @classmethod
    def of(
        cls, candidate: Candidate, task: Task, endings: Sequence[Episode | Ending], measure: Measure
    ) -> "Evaluation":
        """The evaluation of a candidate whose episodes ended in these ways."""
        return cls(
            candidate,
            task,
            tuple(one for one in endings if isinstance(one, Episode | Tally)),
            tuple(one for one in endings if isinstance(one, FailedEpisode)),
            tuple(one for one in endings if isinstance(one, CutEpisode)),
            measure,
        )

    def only(self, seeds: Collection[int]) -> "Evaluation":
        """The evaluation with only the episodes of these seeds."""
        return replace(self, episodes=tuple(one for one in self.episodes if one.seed in seeds))

    @cached_property
    def values(self) -> dict[int, float]:
        """The judged number by seed: return, in reward, or score, in [0, 1]."""
        value_of, measure = self.task.value_of, self.measure
        return {one.seed: value_of(one.rewards, measure, one.own_score) for one in self.episodes}

    @cached_property
    def other(self) -> "Evaluation":
        """The same episodes by the measure that is not judged."""
        return replace(self, measure=OTHER[self.measure])

    @cached_property
    def returns(self) -> dict[int, float]:
        """Episode return by seed, in reward."""
        return {episode.seed: episode.episode_return for episode in self.episodes}

    @cached_property
    def by_task(self) -> dict[str, dict[int, float]]:
        """The values of each task, by name; empty if there is only one task."""
        if len(self.task.tasks) < 2:
            return {}
        return {
            setup.name: {
                seed: value for seed, value in self.values.items() if self.task.setup(seed)[0] is setup
            }
            for setup in self.task.tasks
        }

    @cached_property
    def troubles_by_task(self) -> dict[str, Troubles]:
        """Troubles of the completed episodes of each task, by name; empty if there is only one task."""
        return {
            task: total(one.troubles for one in self.episodes if one.seed in values)
            for task, values in self.by_task.items()
        }

    @property
    def worst(self) -> float:
        """The lowest mean value of a task; with a single task, the mean of all episodes."""
        means = [fmean(values.values()) for values in self.by_task.values() if values]
        return min(means, default=self.mean)

    @property
    def mean(self) -> float:
        """Mean of the values, which the objective maximises."""
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
        return tuple(self.task.score_of(one.rewards, one.own_score) for one in self.episodes)

    @property
    def mean_score(self) -> float:
        """The mean of the scores."""
        return fmean(self.scores)

    @property
    def clamped_share(self) -> float:
        """Share of episodes with the maximum score, 1.0."""
        return sum(score >= 1.0 for score in self.scores) / len(self.scores)

    @cached_property
    def troubles(self) -> Troubles:
        """Troubles of all steps played."""
        return total(one.troubles for one in (*self.episodes, *self.cut))

    @property
    def calls(self) -> int:
        """Number of answered model calls in all episodes."""
        return sum(episode.calls for episode in self.episodes)

    @property
    def tokens(self) -> float:
        """Mean tokens of an episode, prompt and completion."""
        return fmean(episode.prompt_tokens + episode.completion_tokens for episode in self.episodes)

    @property
    def tokens_text(self) -> str:
        """The same for people, marked if the endpoint does not report them."""
        mark = " (estimated)" if any(episode.estimated for episode in self.episodes) else ""
        return f"{self.tokens:,.0f}{mark}"

    @property
    def latency_s(self) -> float:
        """Mean seconds of a call; 0 if none was answered."""
        return sum(episode.calls_s for episode in self.episodes) / max(self.calls, 1)


BASELINE = 0
"""The baseline's number: it is the first trial."""


def trial_name(number: int) -> str:
    """A trial's name, for people and for its MLflow run."""
    return "baseline" if number == BASELINE else f"trial-{number:03d}"


@dataclass(frozen=True)
class Trial:
    """One candidate of the search.

    Attributes:
        number: Optuna's number; 0 for the baseline.
        place: Rank among all candidates at that time; 1 is the leader.
        dropped: Whether it was shown to be worse than another, and plays no more.
        cut: Number of episodes ended early for that reason.
        expected: What the search ranks by: its mean value by the search's model, with the model's interval;
            its own mean, unbounded, without a model.
    """

    number: int
    evaluation: Evaluation
    place: int = 1
    dropped: bool = False
    cut: int = 0
    expected: Estimate | None = None

    @property
    def candidate(self) -> Candidate:
        """The candidate tried."""
        return self.evaluation.candidate

    @property
    def name(self) -> str:
        """The trial's name; see `trial_name`."""
        return trial_name(self.number)
