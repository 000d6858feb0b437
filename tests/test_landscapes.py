"""The benchmark on known truths: every method plays, and what it picks is scored by the truth."""

import optuna
import pytest

from benchmarks.landscapes import METHODS, Played
from benchmarks.truths import TRUTHS

optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.parametrize("in_flight", [1, 32])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_plays_and_picks(method: str, in_flight: int) -> None:
    truth = TRUTHS["seeds differ"](0)
    played = Played(METHODS[method], truth, 0, in_flight)
    for _ in range(60):
        played.episode()
    reports = [len(one.intermediate_values) for one in played.study.get_trials(deepcopy=False)]
    assert sum(reports) == 60
    assert max(reports) <= METHODS[method].episodes
    assert -3 < played.pick() <= 1.2  # the best point of a sample may be beaten


@pytest.mark.parametrize("name", TRUTHS)
def test_the_best_of_many_points_is_the_truths_best(name: str) -> None:
    truth = TRUTHS[name](1)
    assert truth.best > truth.average
