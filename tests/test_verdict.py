"""The verdict and its intervals: what is claimed holds, and what is not there is not claimed."""

import math
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lab.candidate import Candidate
from lab.episode import Episode, Step
from lab.evaluation import Evaluation
from lab.intervals import t_interval
from lab.prompt import PromptTemplate
from lab.search import Trial
from lab.task import Task
from lab.verdict import Verdict, judge

TASK = Task("t", "b", "echo", 1, 150, 120.0, 0.1)


def evaluation(name: str, returns: dict[int, float]) -> Evaluation:
    candidate = Candidate(PromptTemplate(name, "system", "turn"))
    episodes = (Episode(seed, "", (Step(1, "a", "a", value, False),)) for seed, value in returns.items())
    return Evaluation(candidate, TASK, tuple(episodes))


def verdict(baseline: Sequence[float], *finalists: Sequence[float]) -> Verdict:
    entries = []
    for number, returns in enumerate(finalists):
        played = evaluation(f"finalist {number}", dict(enumerate(returns)))
        entries.append((Trial(number, played), played))
    return judge(evaluation("baseline", dict(enumerate(baseline))), entries, 0.95)


@pytest.mark.filterwarnings("ignore:Precision loss")
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30), st.floats(0.6, 0.99))
def test_the_interval_is_scipys(values: list[float], confidence: float) -> None:
    ours = t_interval(values, confidence)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    if len(set(values)) > 1:
        assert ours.low == pytest.approx(theirs.low, abs=1e-6, rel=1e-6)
        assert ours.high == pytest.approx(theirs.high, abs=1e-6, rel=1e-6)
    assert ours.low <= ours.mean + 1e-9
    assert ours.n == len(values)


def test_one_value_bounds_nothing() -> None:
    assert t_interval([3.0], 0.95).low == -math.inf


def test_intervals_for_several_are_wider() -> None:
    one, five = (t_interval([1.0, 2.0, 4.0], 0.95, comparisons=count) for count in (1, 5))
    assert five.low < one.low < one.high < five.high


def gauss(rng: random.Random) -> float:
    return rng.gauss(400, 50)


def skewed(rng: random.Random) -> float:
    return rng.lognormvariate(6, 0.5)


def coin(rng: random.Random) -> float:
    return float(rng.random() < 0.5)


@pytest.mark.parametrize("draw", [gauss, skewed, coin])
def test_equal_candidates_are_called_a_gain_in_at_most_5_of_100_studies(
    draw: Callable[[random.Random], float],
) -> None:
    """All arms alike, three finalists, 16 episodes: the false-gain rate, with room for chance (3 sigma)."""
    rng, studies = random.Random(7), 2000
    claimed = 0
    for _ in range(studies):
        arms = [[draw(rng) for _ in range(16)] for _ in range(4)]
        claimed += verdict(*arms).winner is not None
    assert claimed / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


def test_a_real_gain_is_found_and_its_size_covered() -> None:
    rng, covered, found = random.Random(3), 0, 0
    for _ in range(300):
        outcome = verdict([rng.gauss(400, 50) for _ in range(16)], [rng.gauss(500, 50) for _ in range(16)])
        found += outcome.winner is not None
        covered += outcome.finalists[0].difference.low <= 100 <= outcome.finalists[0].difference.high
    assert found >= 290
    assert covered / 300 >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 300)


def test_the_best_of_several_that_beat_the_baseline_wins() -> None:
    outcome = verdict([1, 2, 1, 2], [5, 6, 5, 6.5], [9, 10, 9, 10.5], [1, 2, 1, 2.5])
    assert outcome.winner is not None
    assert outcome.winner.trial.number == 1
    assert outcome.frozen is outcome.winner.holdout


def test_pairs_are_made_by_seed_and_an_episode_that_failed_leaves_its_pair_out() -> None:
    baseline = evaluation("baseline", {1: 10, 2: 20, 3: 30})
    other = evaluation("other", {3: 31, 2: 21, 9: 1000})
    outcome = judge(baseline, [(Trial(0, other), other)], 0.95)
    assert outcome.finalists[0].difference.mean == 1
    assert outcome.finalists[0].difference.n == 2


def test_without_two_pairs_nothing_wins() -> None:
    other = evaluation("other", {1: 1000.0})
    outcome = judge(evaluation("baseline", {1: 1.0, 2: 1.0}), [(Trial(0, other), other)], 0.95)
    assert outcome.winner is None
    assert outcome.frozen is outcome.baseline
