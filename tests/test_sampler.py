"""RaceSampler and RacePruner as Optuna classes: Optuna's own suites, and their results."""

import copy
import pickle
from collections.abc import Callable

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)
from optuna.trial import TrialState

from lab.search.likeness import likeness
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


@pytest.mark.parametrize("texts", [{}, {"text": {"old": "Be brief.", "new": "Be brief, please."}}])
def test_a_sampler_can_be_copied_and_sent_to_another_process(texts: dict[str, dict[str, str]]) -> None:
    space: dict[str, BaseDistribution] = {"text": CategoricalDistribution(["old", "new"])}
    sampler = RaceSampler(space=space, seed=3, texts=texts)
    for one in (copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler))):
        study = optuna.create_study(direction="maximize", sampler=one)
        assert study.ask(space).params["text"] in ("old", "new")


def test_in_a_large_study_no_point_is_chosen_twice_and_means_are_of_all_reports() -> None:
    """There several choices are made with one model."""
    rng, space = np.random.default_rng(0), {"x": FloatDistribution(0.0, 1.0)}
    sampler = RaceSampler(space=space, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for _ in range(300):
        trial = study.ask({"x": FloatDistribution(0.0, 1.0)})
        for step in range(2):
            trial.report(trial.params["x"] + rng.normal(0, 0.1), step)
    chosen = list[float]()
    for _ in range(8):
        number = sampler.choose(study, range(300))
        if number is not None and number >= 0:
            known = study.trials[number]
            step = len(known.intermediate_values)
            optuna.Trial(study, known._trial_id).report(rng.normal(), step)
        else:
            chosen.append(study.ask({"x": FloatDistribution(0.0, 1.0)}).params["x"])
    assert len(set(chosen)) == len(chosen)
    trials = study.get_trials()
    afresh = RaceSampler(space=space, seed=1).expected(trials)
    assert sampler.expected(trials) == pytest.approx(afresh, nan_ok=True)


def test_in_a_large_study_almost_every_point_of_a_finite_space_is_found() -> None:
    """More points are asked for than one choice looks at, while the model stays the same."""
    rng, number = np.random.default_rng(0), IntDistribution(0, 299)
    study = optuna.create_study(direction="maximize", sampler=RaceSampler(space={"x": number}, seed=0))
    for x in range(100):
        reports = dict(enumerate(rng.normal(x, 10, 120).tolist()))
        frozen = optuna.create_trial(
            state=TrialState.PRUNED, params={"x": x}, distributions={"x": number}, intermediate_values=reports
        )
        study.add_trial(frozen)
    sampler = study.sampler
    assert isinstance(sampler, RaceSampler)
    while sampler.choose(study, []) is not None:
        study.ask({"x": number})
    found = [trial.params["x"] for trial in study.trials]
    assert len(set(found)) == len(found) >= 285


def test_where_all_that_played_are_alike_most_reports_are_of_new_trials() -> None:
    """A better one may be among those that have not played."""
    space = {
        "text": CategoricalDistribution([f"text {one}" for one in range(12)]),
        "x": FloatDistribution(0.0, 1.0),
    }
    begun = list[int]()
    for seed in range(8):
        rng, sampler = np.random.default_rng(seed), RaceSampler(space=space, seed=seed)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        reports = list[int]()
        for _ in range(120):
            number = sampler.choose(study, [one for one, count in enumerate(reports) if count < 8])
            if number == NEW:
                number = study.ask({**space}).number
                reports.append(0)
            assert number is not None
            optuna.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id).report(
                rng.normal(), reports[number]
            )
            reports[number] += 1
        begun.append(len(reports))
    assert np.mean(begun) > 66


def test_one_good_text_among_many_that_are_alike_is_met() -> None:
    """Were all drawn equally often, 34 of 40 would have a trial by then, on average."""
    count, tried = 40, list[int]()
    space = {
        "text": CategoricalDistribution([f"text {one}" for one in range(count)]),
        "x": FloatDistribution(0.0, 1.0),
    }
    for seed in range(8):
        rng, sampler = np.random.default_rng(seed), RaceSampler(space=space, seed=seed)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for _ in range(2 * count):
            trial = study.ask({**space})
            trial.report(rng.normal(), 0)
        tried.append(len({trial.params["text"] for trial in study.trials}))
    assert np.mean(tried) > 0.89 * count


def test_a_step_that_nothing_has_reported_prunes_nothing() -> None:
    study = optuna.create_study(direction="maximize")
    for value, steps in ((1.0, 3), (0.0, 2)):
        trial = study.ask()
        for step in range(steps):
            trial.report(value, step)
    assert not RacePruner(4).drops(study.get_trials(), 1, bound=(3, 0.0))


@given(st.lists(st.text(alphabet="ab \n.!é", max_size=12), min_size=1, max_size=8))
def test_likeness_is_a_correlation_that_words_decide(texts: list[str]) -> None:
    alike = likeness(texts)
    assert np.array_equal(alike, alike.T)
    assert np.array_equal(np.diag(alike), np.ones(len(texts)))
    assert alike.min() >= 0
    assert np.linalg.eigvalsh(alike).min() > -1e-9
    assert np.array_equal(alike, likeness([f"{text.upper()} !" for text in texts]))


def test_texts_with_more_words_in_common_are_more_alike() -> None:
    near, far = likeness(["Think step by step.", "think, step by step: then answer", "Say only a name"])[
        0, 1:
    ]
    assert 0 == far < near < 1


@pytest.mark.parametrize("known", ["from the start", "once others have played"])
def test_a_text_that_has_not_played_is_tried_first_if_texts_like_it_did_well(known: str) -> None:
    words = {
        f"{kind}-{place}": f"{kind} {kind}ly {kind}ness number{place}"
        for kind in ("good", "bad")
        for place in range(30)
    }
    texts: dict[str, BaseDistribution] = {"text": CategoricalDistribution([*words])}
    sampler = RaceSampler(space=texts, seed=0, texts={"text": words if known == "from the start" else {}})
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for place in range(8):
        for kind in ("good", "bad"):
            study.enqueue_trial({"text": f"{kind}-{place}"})
            trial = study.ask(texts)
            for step in range(3):
                trial.report(float(kind == "good") + 0.1 * step + 0.02 * place, step)
        sampler.choose(study, [])
    sampler.widen(texts, {"text": words})
    asked = list[str]()
    for _ in range(10):
        asked.append(study.ask(texts).params["text"])
    assert sum(name.startswith("good") for name in asked) >= 9
