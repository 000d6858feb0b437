"""RaceSampler and RacePruner as Optuna classes: Optuna's own suites, and their results."""

from collections.abc import Callable

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)
from optuna.trial import TrialState

from lab.search.pruner import RacePruner
from lab.search.sampler import RaceSampler

optuna.logging.set_verbosity(optuna.logging.WARNING)


class TestRaceSampler(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return RaceSampler


def test_a_new_choice_that_is_enqueued_alone_gets_the_settings_that_did_best_with_others() -> None:
    texts, number = CategoricalDistribution(["old", "new"]), FloatDistribution(0.0, 1.0)
    study = optuna.create_study(direction="maximize", sampler=RaceSampler(seed=0))
    for place in range(12):
        study.enqueue_trial({"text": "old", "x": place / 11})
        trial = study.ask({"text": texts, "x": number})
        for step in range(3):
            trial.report(-10 * (trial.params["x"] - 0.75) ** 2 + 0.01 * step, step)
        study.tell(trial, state=TrialState.PRUNED)
    study.enqueue_trial({"text": "new"})
    new = study.ask({"text": texts, "x": number})
    assert new.params["text"] == "new"
    assert abs(new.params["x"] - 0.75) < 0.15


def test_a_step_that_nothing_has_reported_prunes_nothing() -> None:
    study = optuna.create_study(direction="maximize")
    for value, steps in ((1.0, 3), (0.0, 2)):
        trial = study.ask()
        for step in range(steps):
            trial.report(value, step)
    assert not RacePruner(4).drops(study.get_trials(), 1, bound=(3, 0.0))
