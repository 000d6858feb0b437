"""The warm-up test finds real differences between candidates, and rarely finds false ones."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.methods.lab_race import a_race, play
from lab.agent.candidate import Candidate
from lab.agent.template import PromptTemplate
from lab.experiment.space import Choices, Range, Space
from lab.search.headroom import GROUP, LATE, Headroom, headroom
from lab.search.open_trial import OpenTrial
from lab.search.points import at_random
from lab.search.race import Race

Values = list[float]

TEXTS = {name: PromptTemplate(name, f"system {name}", "turn") for name in "abcdef"}
FREE: dict[str, Choices | Range] = {"template": Choices(tuple(TEXTS)), "temperature": Range(0.0, 1.0)}
SPACE = Space(FREE, Candidate(TEXTS["a"]), TEXTS)

some_values = st.lists(st.floats(-100, 100), min_size=2, max_size=8)


@given(some_values, some_values)
def test_it_is_students_test(contenders: Values, last: Values) -> None:
    found = headroom(contenders, last)
    assert found is not None
    assert (found.contenders, found.last) == (len(contenders), len(last))
    if np.var(contenders) + np.var(last) > 1e-6:
        known = stats.ttest_ind(contenders, last, alternative="greater")
        assert found.p_value == pytest.approx(known.pvalue, abs=1e-9)
        two_sided = stats.ttest_ind(contenders, last).confidence_interval(0.95)
        assert (found.ahead.low, found.ahead.high) == pytest.approx((two_sided.low, two_sided.high))


@pytest.mark.parametrize(("contenders", "last"), [([], [1.0]), ([1.0], []), ([1.0], [0.0]), ([], [])])
def test_undefined_tests_have_no_result(contenders: Values, last: Values) -> None:
    assert headroom(contenders, last) is None


def test_a_difference_without_noise_is_significant() -> None:
    equal, different = headroom([0.1 + 0.2, 0.3], [0.3, 0.3]), headroom([2.0, 2.0], [1.0, 1.0])
    assert equal is not None
    assert different is not None
    assert not equal.found
    assert "no difference found" in str(equal)
    assert different.found
    assert "something to gain" in str(different)


def raced(truth: Callable[[Candidate], float], noise: float, seed: int) -> tuple[Race, Headroom | None]:
    """A race of 50 episodes on seeds of different difficulty, and the test's result."""
    rng = np.random.default_rng(seed)
    race = a_race(SPACE, seed)
    for params in at_random(SPACE.distributions(), 10, rng):
        race.new.enqueue(SPACE.candidate(params))
    race.open_with(len(race.study.known))
    seeds = rng.normal(400, 100, size=8)
    return race, looked_at(
        race, 50, lambda one, step: float(seeds[step] + truth(one.candidate) + rng.normal(0, noise))
    )


def looked_at(race: Race, episodes: int, earned: Callable[[OpenTrial, int], float]) -> Headroom | None:
    """The test's result in a race, given at most once."""
    said = list[Headroom]()
    look = race.headroom

    def once() -> Headroom | None:
        if (found := look()) is not None:
            said.append(found)
        return found

    race.headroom = once  # type: ignore[method-assign]
    play(race, episodes, earned)
    assert len(said) <= 1
    return said[0] if said else None


def test_equal_candidates_are_seldom_found_different() -> None:
    told = [raced(lambda _: 0.0, 50, seed)[1] for seed in range(60)]
    found = [headroom.found for headroom in told if headroom is not None]
    assert len(found) > 45
    assert np.mean(found) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / len(found))


def test_real_differences_are_found_at_the_cost_of_a_few_episodes() -> None:
    def truth(candidate: Candidate) -> float:
        return 80.0 * "abcdef".index(candidate.template.name)

    races = [raced(truth, 50, seed) for seed in range(20)]
    found = [headroom is not None and headroom.found for _, headroom in races]
    assert np.mean(found) > 0.8
    for race, _ in races:
        played_on = sum(len(trial.intermediate_values) > 1 for trial in race.study.known)
        assert played_on > GROUP  # the contenders, and the opening's last


def only_new(truth: Callable[[Candidate], float], seed: int) -> Headroom | None:
    """The test's result in a race that always plays a new candidate."""
    rng = np.random.default_rng(seed)
    race = a_race(SPACE, seed)
    for params in at_random(SPACE.distributions(), 10 * LATE + 5, rng):
        race.new.enqueue(SPACE.candidate(params))  # some are drawn twice
    race.open_with(10)
    episodes = len(race.study.known) + 2 * GROUP
    found = looked_at(race, episodes, lambda one, _: float(truth(one.candidate) + rng.normal(0, 50)))
    assert found is not None
    assert found.contenders + found.last == 2 * GROUP
    return found


def test_the_test_requests_second_episodes_if_the_race_plays_none() -> None:
    equal = [only_new(lambda _: 0.0, seed) for seed in range(200)]
    assert sum(one.found for one in equal if one) <= 200 * 0.05 + 3 * math.sqrt(200 * 0.05 * 0.95)
    apart = [only_new(lambda one: 80.0 * "abcdef".index(one.template.name), seed) for seed in range(40)]
    assert sum(one.found for one in apart if one) > 0.8 * 40
