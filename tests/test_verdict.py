"""The verdict and its intervals: claims hold, and no false gain is claimed."""

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lab.agent.candidate import Candidate
from lab.agent.episode import Tally
from lab.agent.evaluation import Evaluation, Trial
from lab.agent.task import Setup, Task
from lab.agent.template import PromptTemplate
from lab.experiment.objective import Objective
from lab.stats.intervals import relative_difference, sign_flip_p, t_interval, worst_difference
from lab.verdict.verdict import Compared, Confirmed, Verdict, confirm, finalists, judge

BY_RETURN = Objective()
TASK = Task("t", "b", 1, 150, 120.0, 0.1)


def tally(seed: int, value: float, tokens: int) -> Tally:
    return Tally(seed, (value,), 1, tokens, 0, 0.0, 0.0, None)


def evaluation(name: str, returns: dict[int, float], tokens: int = 0) -> Evaluation:
    candidate = Candidate(PromptTemplate(name, "system", "turn"))
    episodes = (tally(seed, value, tokens) for seed, value in returns.items())
    return Evaluation(candidate, TASK, tuple(episodes))


def judged(baseline: Evaluation, *played: Evaluation, objective: Objective = BY_RETURN) -> Verdict:
    entries = [(Trial(number, one), one) for number, one in enumerate(played, 1)]
    return judge((), baseline, entries, objective, 0.95)


def compared(baseline: Evaluation, *played: Evaluation) -> tuple[Compared, ...]:
    return judged(baseline, *played).finalists


def verdict(baseline: Sequence[float], *played: Sequence[float]) -> Verdict:
    base = evaluation("baseline", dict(enumerate(baseline)))
    entries = [evaluation(f"finalist {number}", dict(enumerate(one))) for number, one in enumerate(played, 1)]
    return judged(base, *entries)


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


def test_one_value_has_an_unbounded_interval() -> None:
    assert t_interval([3.0], 0.95).low == -math.inf


def test_intervals_for_several_are_wider() -> None:
    one, five = (t_interval([1.0, 2.0, 4.0], 0.95, comparisons=count) for count in (1, 5))
    assert five.low < one.low < one.high < five.high


PAIRS = st.lists(st.tuples(st.floats(0, 1e3), st.floats(0, 1e3)), min_size=2, max_size=20)


@given(PAIRS, st.floats(0.6, 0.99))
@settings(max_examples=40)
def test_a_relative_differences_interval_inverts_scipys_paired_test(
    pairs: list[tuple[float, float]], confidence: float
) -> None:
    own, base = (list(values) for values in zip(*pairs, strict=True))
    one, mean = relative_difference(own, base, confidence), t_interval(base, confidence)
    assert (one is not None) is (mean.low > 0) or mean.low == pytest.approx(0, abs=1e-6)
    if one is None or mean.low < 1e-3 * mean.mean:
        return
    assert one.low - 1e-6 <= one.mean <= one.high + 1e-6
    for end in (one.low, one.high):
        rest = [mine - (1 + end) * theirs for mine, theirs in pairs]
        if max(rest) - min(rest) > 1e-3:
            assert stats.ttest_1samp(rest, 0).pvalue == pytest.approx(1 - confidence, abs=1e-3)


def test_a_relative_difference_is_covered_though_the_baselines_mean_is_uncertain() -> None:
    """In 95 of 100 studies, within chance; the difference's interval over the baseline's mean in fewer."""
    rng, studies, covered, divided = random.Random(3), 600, 0, 0
    for _ in range(studies):
        base = [rng.gauss(100, 60) for _ in range(16)]
        own = [200 + 0.9 * (one - 100) + rng.gauss(0, 20) for one in base]
        one = relative_difference(own, base, 0.95)
        assert one is not None
        gap = t_interval([mine - theirs for mine, theirs in zip(own, base, strict=True)], 0.95)
        covered += one.low <= 1 <= one.high
        divided += gap.low <= fmean(base) <= gap.high
    chance = 3 * math.sqrt(0.05 * 0.95 / studies)
    assert covered / studies == pytest.approx(0.95, abs=chance)
    assert divided / studies < 0.95 - chance


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
    """All arms equal, three finalists, 16 episodes: the false-gain rate, with a 3-sigma margin for chance."""
    rng, studies = random.Random(7), 200
    claimed = 0
    for _ in range(studies):
        arms = [[draw(rng) for _ in range(16)] for _ in range(4)]
        claimed += verdict(*arms).winner is not None
    assert claimed / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


WORST = replace(TASK, tasks=tuple(map(Setup, "abc")))


def worst(baseline: Sequence[float], *played: Sequence[float]) -> Verdict:
    """Judged by the worst of three tasks; one value per episode, the tasks round-robin."""
    arms = [replace(evaluation("x", dict(enumerate(one))), task=WORST) for one in (baseline, *played)]
    entries = [(Trial(number, one), one) for number, one in enumerate(arms[1:], 1)]
    return judge((), arms[0], entries, BY_RETURN, 0.95, "worst")


@pytest.mark.parametrize("draw", [gauss, skewed, coin])
@pytest.mark.parametrize("spread", [0.0, 200.0])
def test_by_the_worst_task_equal_candidates_are_called_a_gain_in_at_most_5_of_100(
    draw: Callable[[random.Random], float], spread: float
) -> None:
    """Three tasks, equal or far apart, and two finalists whose worst task equals the baseline's."""
    rng, studies = random.Random(5), 200
    claimed = 0
    for _ in range(studies):
        base, *others = [[draw(rng) + spread * (seed % 3) for seed in range(24)] for _ in range(3)]
        # What finalists gain where it is easy already does not count.
        better = [[value + 300 * (seed % 3 == 2) for seed, value in enumerate(one)] for one in others]
        claimed += worst(base, *better).winner is not None
    assert claimed / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


def test_a_gain_in_the_worst_task_is_found_even_if_an_easy_one_gets_worse() -> None:
    rng, found, covered = random.Random(3), 0, 0
    for _ in range(200):
        base = [rng.gauss((100, 300, 500)[seed % 3], 30) for seed in range(24)]
        own = [rng.gauss((200, 300, 400)[seed % 3], 30) for seed in range(24)]
        outcome = worst(base, own)
        difference = outcome.finalists[0].difference
        found += outcome.winner is not None
        covered += difference.low <= 100 <= difference.high
    assert found >= 190
    assert covered >= 190 - 3 * math.sqrt(200 * 0.05 * 0.95)


@given(st.lists(st.integers(-9, 9), min_size=12, max_size=12), st.floats(0.8, 0.99))
def test_the_worst_tasks_interval_and_p_value_are_one_test(values: list[int], confidence: float) -> None:
    tasks = [dict(enumerate(map(float, values[start : start + 3]))) for start in range(0, 12, 3)]
    estimate, p_value = worst_difference(tasks[:2], tasks[2:], confidence)
    assert estimate.low <= estimate.mean <= estimate.high
    assert estimate.mean == pytest.approx(
        min(fmean(one.values()) for one in tasks[:2]) - min(fmean(one.values()) for one in tasks[2:])
    )
    if abs(p_value - (1 - confidence)) > 1e-9:
        assert (p_value < 1 - confidence) == (estimate.low > 0 or estimate.high < 0)


def test_a_real_gain_is_found_and_its_size_covered() -> None:
    rng, covered, found = random.Random(3), 0, 0
    for _ in range(300):
        outcome = verdict([rng.gauss(400, 50) for _ in range(16)], [rng.gauss(500, 50) for _ in range(16)])
        found += outcome.winner is not None
        covered += outcome.finalists[0].difference.low <= 100 <= outcome.finalists[0].difference.high
    assert found >= 290
    assert covered / 300 >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 300)


def test_the_best_of_several_that_beat_the_baseline_wins() -> None:
    base = [1.0, 2.0] * 4
    good, best = [5.0, 6.5] * 4, [9.0, 10.5] * 4
    outcome = verdict(base, good, best, [1.0, 2.5] * 4)
    assert outcome.winner is not None
    assert outcome.winner.trial.number == 2
    assert outcome.frozen is outcome.winner.unseen


def test_pairs_are_made_by_seed_and_an_episode_that_failed_leaves_its_pair_out() -> None:
    baseline = evaluation("baseline", {1: 10, 2: 20, 3: 30})
    other = evaluation("other", {3: 31, 2: 21, 9: 1000})
    (pair,) = compared(baseline, other)
    assert pair.difference.mean == 1
    assert pair.difference.n == 2


def test_without_two_pairs_nothing_wins() -> None:
    other = evaluation("other", {1: 1000.0})
    outcome = judged(evaluation("baseline", {1: 1.0, 2: 1.0}), other)
    assert outcome.winner is None
    assert outcome.frozen is outcome.baseline


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=8))
def test_the_sign_flip_p_is_the_share_of_sign_patterns_as_extreme(values: list[int]) -> None:
    means = [abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in patterns(len(values))]
    share = sum(mean >= abs(sum(values)) for mean in means) / len(means)
    assert sign_flip_p([float(value) for value in values]) == pytest.approx(share)


def patterns(count: int) -> list[tuple[int, ...]]:
    return list(itertools.product((1, -1), repeat=count))


def confirmed(*played: Evaluation) -> tuple[Confirmed, ...]:
    return confirm([(Trial(number, one), one) for number, one in enumerate(played, 1)], 0.95)


def test_intervals_of_the_confirmed_hold_for_all_of_them() -> None:
    alone, beside = evaluation("a", {1: 2.0, 2: 3.0}), evaluation("b", {1: 5.0, 2: 6.0})
    assert confirmed(alone, beside)[0].mean.low < confirmed(alone)[0].mean.low
    assert confirmed(alone, evaluation("failed", {}))[0].trial.number == 1


def test_the_confirmed_are_ranked_by_their_confirmation() -> None:
    low, high = evaluation("low", {1: 2.0, 2: 3.0}), evaluation("high", {1: 5.0, 2: 6.0})
    (first,) = finalists(confirmed(low, high), BY_RETURN, 1)
    assert first.candidate.template.name == "high"


TOKENS = Objective("tokens", 0.05)


def test_within_the_tolerance_the_cheapest_candidate_is_chosen() -> None:
    best = evaluation("best", {1: 100.0, 2: 101.0}, tokens=100)
    cheap = evaluation("cheap", {1: 97.0, 2: 98.0}, tokens=40)
    poor = evaluation("poor", {1: 60.0, 2: 61.0}, tokens=1)
    chosen = finalists(confirmed(best, cheap, poor), TOKENS, 3)
    names = [trial.candidate.template.name for trial in chosen]
    assert names == ["cheap", "best", "poor"]


@pytest.mark.parametrize(
    ("tokens", "returns", "wins"), [(40, 99.0, True), (40, 90.0, False), (99, 99.0, False)]
)
def test_a_candidate_wins_by_cost_only_if_its_return_holds(tokens: int, returns: float, wins: bool) -> None:
    rng = random.Random(1)
    base = evaluation("baseline", {seed: rng.gauss(100, 1) for seed in range(12)}, tokens=100)
    noisy = {seed: rng.gauss(returns, 1) for seed in range(12)}
    own = evaluation("own", noisy, tokens=tokens)
    if tokens == 99:  # cheaper on average, and not surely
        counts = zip(noisy.items(), [50, 148] * 6, strict=True)
        own = replace(own, episodes=tuple(tally(*earned, count) for earned, count in counts))
    outcome = judged(base, own, objective=TOKENS)
    assert (outcome.winner is not None) is wins
    if outcome.winner is not None:
        assert outcome.winner.cheaper
        assert not outcome.winner.better(0.05)
