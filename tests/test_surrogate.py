"""The surrogate: a Gaussian process with effects of seeds, held against the dense formula."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from lab.search.kernel import Kernel, encoded
from lab.search.points import Floats, numbers_at_random, params_of
from lab.search.surrogate import Surrogate

SPACE = {
    "template": CategoricalDistribution(["a", "b", "c"]),
    "temperature": FloatDistribution(0.0, 1.0),
    "history": IntDistribution(0, 3),
}
KERNEL = Kernel.of(SPACE)


def played(seed: int, candidates: int = 12, seeds: int = 4, *, tasks: int = 1) -> tuple[Floats, Floats]:
    """Points, and their returns by seed: each has played the first few, and one has played all."""
    rng = np.random.default_rng(seed)
    points = encoded(SPACE, numbers_at_random(SPACE, candidates, rng))
    effects = rng.normal(0, 30, seeds) + 200 * (np.arange(seeds) % tasks)
    values = (
        100 * points[:, [0]] - 40 * points[:, [1]] ** 2 + effects + rng.normal(0, 10, (candidates, seeds))
    )
    for row in values[1:]:
        row[int(rng.integers(1, seeds + 1)) :] = np.nan
    return points, values


def dense(model: Surrogate, points: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Means and covariance of the candidates' own values, by conditioning one joint normal on all returns."""
    rows, columns = np.nonzero(np.isfinite(values))
    count, seeds = values.shape
    v = model.variances
    within = v.signal * KERNEL(points, points) + v.own * np.eye(count)
    of_candidates, of_seeds = np.eye(count)[rows], np.eye(seeds)[columns]
    flat = 1e9 * v.signal  # the mean is unknown
    observed = of_candidates @ within @ of_candidates.T + v.seed * of_seeds @ of_seeds.T
    observed += v.noise * np.eye(len(rows)) + flat
    gain = np.linalg.solve(observed, of_candidates @ within + flat).T
    return gain @ values[rows, columns], within + flat - gain @ (of_candidates @ within + flat)


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_what_is_expected_is_the_posterior_mean_of_the_joint_normal(seed: int) -> None:
    points, values = played(seed)
    model = Surrogate(points, values, KERNEL)
    means, _ = dense(model, points, values)
    ours = model.expected()
    assert ours - ours.mean() == pytest.approx(means - means.mean(), abs=1e-2 * float(np.nanstd(values)))


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_intervals_have_the_width_of_the_joint_normals(seed: int) -> None:
    points, values = played(seed)
    model = Surrogate(points, values, KERNEL)
    low, high = model.intervals(0.95, np.arange(len(points)))
    assert (low + high) / 2 == pytest.approx(model.expected())
    _, covariance = dense(model, points, values)
    # They differ in the level that all candidates share: on these seeds, or on any.
    own = ((high - low) / 2 / 1.96) ** 2
    assert own - own.mean() == pytest.approx(
        covariance.diagonal() - covariance.diagonal().mean(), abs=0.05 * float(own.max())
    )


def test_intervals_cover_the_true_means_at_their_level() -> None:
    covered = list[bool]()
    for seed in range(25):
        rng = np.random.default_rng(seed)
        points = encoded(SPACE, numbers_at_random(SPACE, 16, rng))
        effects, truth = (
            rng.normal(0, 20, 4),
            100 * points[:, 0] - 40 * points[:, 1] ** 2 + rng.normal(0, 5, 16),
        )
        values = truth[:, None] + effects + rng.normal(0, 25, (16, 4))
        for row in values:
            row[int(rng.integers(1, 5)) :] = np.nan
        low, high = Surrogate(points, values, KERNEL).intervals(0.95, np.arange(len(points)))
        covered += [*((low <= truth + effects.mean()) & (truth + effects.mean() <= high))]
    assert 0.9 <= np.mean(covered) <= 0.99, np.mean(covered)


def test_draws_have_the_posteriors_mean_and_covariance() -> None:
    points, values = played(1)
    model, rng = Surrogate(points, values, KERNEL), np.random.default_rng(0)
    joint = model.joint(points[:1])
    drawn = np.array([model.draw(joint, rng)[0] for _ in range(4000)])
    _, covariance = dense(model, points, values)
    centred = np.eye(len(points)) - 1 / len(points)  # the seeds' level is in one and not in the other
    assert drawn.mean(axis=0) == pytest.approx(model.expected(), abs=0.1 * float(np.nanstd(values)))
    assert np.cov((drawn @ centred).T) == pytest.approx(
        centred @ covariance @ centred, abs=0.1 * float(covariance.diagonal().max())
    )


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-1000, 1000))
def test_the_unit_of_the_rewards_changes_nothing(seed: int, factor: float, shift: float) -> None:
    points, values = played(seed)
    one = Surrogate(points, values, KERNEL).expected()
    other = Surrogate(points, factor * values + shift, KERNEL).expected()
    assert other == pytest.approx(
        factor * one + shift, rel=1e-4, abs=1e-4 * factor * float(np.nanstd(values))
    )


@pytest.mark.parametrize("tasks", [1, 2])
def test_easy_seeds_are_not_taken_for_a_good_candidate(tasks: int) -> None:
    """Two equal candidates; one has played only the seed, or the task, on which all return 500 more."""
    rng = np.random.default_rng(0)
    points = encoded(SPACE, numbers_at_random(SPACE, 10, rng))
    points[1] = points[0]
    values = rng.normal(0, 1, (10, 4)) + np.array([500.0, 0, 0, 0] if tasks == 1 else [500.0, 0, 500.0, 0])
    values[1, 1:] = np.nan
    expected = Surrogate(points, values, KERNEL, tasks).expected()
    assert expected[1] == pytest.approx(expected[0], abs=5)


def test_a_settings_effect_may_depend_on_another() -> None:
    """Template a is best cold, b is best hot; two points that nobody played are told apart."""
    rng = np.random.default_rng(0)
    points = numbers_at_random(SPACE, 60, rng)
    values = np.array([[_crossed(params_of(SPACE, point)) + rng.normal(0, 5)] for point in points])
    model = Surrogate(encoded(SPACE, points), values, KERNEL)
    crossed = np.array([[text, heat, 1] for heat in (0.95, 0.05) for text in (0, 1)])
    joint = model.joint(encoded(SPACE, crossed))
    draws = [model.draw(joint, rng)[1] for _ in range(200)]
    a_hot, b_hot, a_cold, b_cold = np.mean(draws, axis=0)
    assert b_hot - a_hot > 50
    assert a_cold - b_cold > 50


def _crossed(point: dict[str, object]) -> float:
    heat = float(str(point["temperature"])) - 0.5
    return 100 * heat * {"a": -1, "b": 1, "c": 0}[str(point["template"])]


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(-5, 5), st.floats(0.5, 10))
def test_coins_stay_between_their_values_and_more_wins_are_better(seed: int, low: float, gap: float) -> None:
    rng = np.random.default_rng(seed)
    points = encoded(SPACE, numbers_at_random(SPACE, 10, rng))
    points[1] = points[0]
    won = rng.random((10, 8)) < 0.5
    won[0], won[1, :] = True, False
    returns: Floats = low + gap * won.astype(float)
    model = Surrogate(points, returns, KERNEL)
    for means in (model.expected(), model.draw(model.joint(points), rng)[0]):
        assert (means >= low).all()
        assert (means <= low + gap).all()
    assert model.expected()[0] > model.expected()[1]


def test_equal_returns_are_no_reason_to_fail() -> None:
    points, values = played(0)
    values[np.isfinite(values)] = 7.0
    model = Surrogate(points, values, KERNEL)
    assert model.expected() == pytest.approx(np.full(len(points), 7.0))
