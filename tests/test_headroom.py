"""The warm-up test finds real differences between candidates, rarely false ones, and says if it is unsure."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.methods.lab_race import a_race, play
from lab.agent.candidate import Candidate
from lab.agent.template import PromptTemplate
from lab.experiment.space import Choices, Range, Space
from lab.search.headroom import GROUP, RATIOS, TRIED, Headroom, headroom
from lab.search.points import Floats, at_random
from lab.search.race import Race

TEXTS = {name: PromptTemplate(name, f"system {name}", "turn") for name in "abcdef"}
FREE: dict[str, Choices | Range] = {"template": Choices(tuple(TEXTS)), "temperature": Range(0.0, 1.0)}
SPACE = Space(FREE, Candidate(TEXTS["a"]), TEXTS)
OPENING = 10


def a_table(rng: np.random.Generator, candidates: int, seeds: int, spread: float) -> Floats:
    """Returns of candidates, of which each has played some of the seeds."""
    values = rng.normal(0, spread, (candidates, 1)) + rng.normal(size=(candidates, seeds))
    counts = rng.integers(1, seeds + 1, (candidates, 1))
    counts[0] = seeds
    return np.where(np.arange(seeds) < counts, values, np.nan)


def by_definition(values: Floats, alike: Floats, ratio: float) -> float:
    """Logarithm of the density of all values with flat seed effects, integrated over their scale."""
    candidates, seeds = np.nonzero(np.isfinite(values))
    y = values[candidates, seeds]
    x = (seeds[:, None] == np.arange(values.shape[1])).astype(float)
    inverse = np.linalg.inv(np.eye(len(y)) + ratio * alike[np.ix_(candidates, candidates)])
    within = x.T @ inverse @ x
    rest = inverse - inverse @ x @ np.linalg.solve(within, x.T @ inverse)
    df, determinants = len(y) - x.shape[1], (np.linalg.slogdet(one)[1] for one in (within, inverse))
    first, second = determinants
    return float(0.5 * second - 0.5 * first - df / 2 * math.log(y @ rest @ y))


@given(st.integers(0, 2**32), st.integers(3, 12), st.integers(2, 5), st.floats(0.1, 1000))
def test_the_p_value_is_the_reciprocal_of_the_mean_bayes_factor(
    seed: int, candidates: int, seeds: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    values = a_table(rng, candidates, seeds, 1.0)
    root = rng.normal(size=(candidates, 2))
    alike = root @ root.T
    factors = [
        math.exp(by_definition(values, each, ratio) - by_definition(values, each, 0.0))
        for each in (np.eye(candidates), alike)
        for ratio in RATIOS
    ]
    test = headroom(scale * values + 100 * rng.normal(size=seeds), alike)
    assert test is not None
    assert test.p_value == pytest.approx(min(1 / np.mean(factors), 1.0), rel=1e-3)


def test_without_the_power_to_see_a_difference_it_is_not_yet_known() -> None:
    rng = np.random.default_rng(0)
    results = [headroom(rng.normal(size=(6, seeds)), np.eye(6)) for seeds in (2, 40)]
    few, many = (one.result for one in results if one)
    assert few == "not yet known"
    assert many == "none seen"
    assert "not yet known" in str(results[0])
    assert "no difference found" in str(results[1])


def test_one_episode_each_says_nothing_of_how_much_candidates_differ() -> None:
    values = np.random.default_rng(0).normal(500, 100, (12, 1))
    seen = headroom(values, np.eye(12))
    assert seen is not None
    assert "12 candidates in 12 episodes: too few to say how much mean returns differ; p = " in str(seen)


def test_without_noise_any_difference_counts() -> None:
    equal, different = (
        headroom(np.repeat(one, 8, axis=1), np.eye(8)) for one in (np.full((8, 1), 0.3), LEVELS)
    )
    assert equal is not None
    assert different is not None
    assert (equal.result, different.result) == ("none seen", "found")
    assert "something to gain" in str(different)
    assert headroom(np.array([[1.0, np.nan], [np.nan, 2.0]]), np.eye(2)) is None


LEVELS = np.arange(8.0)[:, None] + 0.1

NOISES: dict[str, Callable[[np.random.Generator], float]] = {
    "normal": lambda rng: rng.normal(),
    "coins": lambda rng: float(rng.random() < 0.5),
    "skewed": lambda rng: rng.lognormal(0, 0.8),
    "heavy-tailed": lambda rng: rng.standard_t(3),
}


def seems_found(noise: Callable[[np.random.Generator], float], seed: int) -> bool:
    """Whether equal candidates are ever found to differ, while the luckiest ones play on."""
    rng = np.random.default_rng(seed)
    values = np.full((20, 8), np.nan)
    for episode in range(80):
        counts = np.isfinite(values).sum(axis=1)
        means = np.nansum(values, axis=1) / np.maximum(counts, 1) + rng.normal(0, 0.5, 20)
        able = counts < 8 if episode >= 20 else counts == 0
        one = int(np.argmax(np.where(able, means, -np.inf)))
        values[one, counts[one]] = noise(rng)
        if episode >= 20 and episode % 4 == 3:
            test = headroom(values, np.eye(20))
            if test is not None and test.found:
                return True
    return False


@pytest.mark.parametrize("noise", NOISES)
def test_equal_candidates_are_seldom_found_different_however_often_one_looks(noise: str) -> None:
    studies = 60
    found = sum(seems_found(NOISES[noise], seed) for seed in range(studies))
    assert found <= studies * 0.05 + 3 * math.sqrt(studies * 0.05 * 0.95)


def raced(
    truth: Callable[[Candidate], float], seed: int, episodes: int
) -> tuple[Race, list[tuple[int, Headroom]]]:
    """A race on seeds of different difficulty, and the test's results."""
    rng = np.random.default_rng(seed)
    race = a_race(SPACE, seed)
    for params in at_random(SPACE.distributions(), OPENING, rng):
        race.new.enqueue(SPACE.candidate(params))
    race.open_with(len(race.study.known))
    seeds = rng.normal(400, 100, size=8)
    return race, play(
        race, episodes, lambda one, step: float(seeds[step] + truth(one.candidate) + rng.normal(0, 50))
    )


def test_races_of_equal_candidates_find_none() -> None:
    studies = 16
    found = sum(any(one.found for _, one in raced(lambda _: 0.0, seed, 50)[1]) for seed in range(studies))
    assert found <= studies * 0.05 + 3 * math.sqrt(studies * 0.05 * 0.95)


def by_template(candidate: Candidate) -> float:
    return 60.0 * "abcdef".index(candidate.template.name)


def test_real_differences_are_found_once_and_the_trials_alone_say_so() -> None:
    found = 0
    for seed in range(8):
        race, results = raced(by_template, seed, 40)
        assert [one.found for _, one in results] in ([], [True])
        found += len(results)
        again = a_race(SPACE, seed, study=race.study)
        again.open_with(OPENING)
        known = again.headroom(last=True)
        assert known is not None
        assert known.found or not results
    assert found >= 7


def test_the_test_asks_for_second_episodes_of_the_lowest_and_highest() -> None:
    """A race that only has new candidates to play."""
    race, rng = a_race(SPACE, 0), np.random.default_rng(0)
    for params in at_random(SPACE.distributions(), 60, rng):
        race.new.enqueue(SPACE.candidate(params))
    race.open_with(OPENING)
    first = rng.permutation(len(race.study.known)).astype(float)
    play(
        race,
        len(first) + 2 * GROUP,
        lambda one, step: float(first[one.number] if step == 0 else rng.normal()),
    )
    twice = {one.number for one in race.study.known if {0, 1} <= one.intermediate_values.keys()}
    order = np.argsort(first[: TRIED * OPENING])
    assert twice == {int(one) for one in (*order[:GROUP], *order[-GROUP:])}
