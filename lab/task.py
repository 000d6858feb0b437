"""A Task: what an episode is, and how its rewards become a score.

The normaliser belongs to the task and never to a candidate: fewer tokens asked for is no smaller denominator.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class Task:
    """The rules that every candidate is held to.

    Attributes:
        name: the `task=` of the START line.
        benchmark: the `env=` of the START line.
        environment: the environment that is played.
        max_steps: steps of an episode at most.
        max_tokens: tokens of one answer at most, whatever the candidate asks for.
        max_return: the return that a score of 1.0 stands for, in reward.
        success_score: the score from which an episode counts as a success.
        max_step_reward: the most that one step can bring, in reward; infinite where that is not known.
    """

    name: str
    benchmark: str
    environment: str
    max_steps: int
    max_tokens: int
    max_return: float
    success_score: float
    max_step_reward: float = inf

    def score(self, rewards: Iterable[float]) -> float:
        """The rewards' sum over `max_return`, held within [0, 1]."""
        return min(max(sum(rewards) / self.max_return, 0.0), 1.0)
