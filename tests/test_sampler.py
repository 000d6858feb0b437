"""RaceSampler and RacePruner as Optuna classes: Optuna's own suites, and their results."""

from collections.abc import Callable

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)
from optuna.trial import TrialState

from lab.search.pruner import RacePruner
from lab.search.sampler import NEW, RaceSampler

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


@pytest.mark.parametrize("as_coins", [False, True])
def test_the_larger_the_noise_the_fewer_candidates_begin(as_coins: bool) -> None:
    names = [f"text {number}" for number in range(200)]
    texts: dict[str, BaseDistribution] = {"text": CategoricalDistribution(names)}

    def begun(noise: float, seed: int, episodes: int = 80) -> int:
        rng = np.random.default_rng(seed)
        worth = dict(zip(names, rng.normal(0, 1, 200), strict=True))
        sampler = RaceSampler(space=texts, seed=seed)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        trials = list[optuna.Trial]()
        for _ in range(episodes):
            chosen = sampler.choose(study, range(len(trials)))
            if chosen == NEW:
                trials.append(study.ask(texts))
            trial = trials[-1 if chosen == NEW or chosen is None else chosen]
            played = len(study.get_trials(deepcopy=False)[trial.number].intermediate_values)
            for step in range(played, played + (2 if len(trials) <= 10 else 1)):
                value = worth[trial.params["text"]] + rng.normal(0, noise)
                trial.report(float(value > 0) if as_coins else value, step)
        return len(trials)

    quiet, noisy = (sum(begun(noise, seed) for seed in range(3)) for noise in (0.2, 6.0))
    assert quiet > 1.3 * noisy
