"""What the methods that choose among given candidates share: Optuna's distributions, means, and the pick."""

import logging
from collections.abc import Mapping
from itertools import pairwise
from statistics import fmean

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution

from benchmarks.ground import Ground
from lab.agent.candidate import Candidate
from lab.agent.episode import Episode
from lab.experiment.space import Choices, Space

EPISODES = 3
"""Episodes of a trial, for methods that average over a fixed number."""

optuna.logging.set_verbosity(logging.ERROR)


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space as an Optuna user would write it: a list of evenly spaced numbers is a stepped range."""
    written = space.distributions()
    for name, dimension in space.free.items():
        if isinstance(dimension, Choices) and (stepped := _stepped(dimension)):
            written[name] = stepped
    return written


def _stepped(choices: Choices) -> FloatDistribution | None:
    numbers = [value for value in choices.values if isinstance(value, float)]
    steps = {round(after - before, 6) for before, after in pairwise(numbers)}
    if len(numbers) < len(choices.values) or len(steps) != 1 or min(steps) <= 0:
        return None
    return FloatDistribution(numbers[0], numbers[-1], step=min(steps))


def mean_return(episodes: list[Episode]) -> float:
    """The mean return of episodes, in reward."""
    return fmean(episode.episode_return for episode in episodes)


class Best:
    """Keeps the pick at the highest mean so far, as `study.best_trial` would.

    The first mean is the baseline's; what another exceeds it by is the claimed gain.
    """

    def __init__(self, ground: Ground) -> None:
        self._first: float | None = None
        self.value = float("-inf")
        self.ground = ground

    def tell(self, candidate: Candidate, value: float) -> None:
        """Record a mean, and update the pick."""
        if self._first is None:
            self._first = value
        if value > self.value:
            self.value = value
            self.ground.choose(candidate, value - self._first)


def candidate_of(ground: Ground, params: Mapping[str, str | float | int | bool]) -> Candidate:
    """The candidate of Optuna's parameters."""
    return ground.experiment.space.candidate(params)
