"""The headroom test: it sees differences that are there, and rarely any that are not."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lab.headroom import headroom


@given(st.lists(st.tuples(*[st.floats(-100, 100)] * 2), min_size=2, max_size=12))
def test_with_two_seeds_and_two_candidates_it_is_the_paired_t_test_squared(
    rows: list[tuple[float, float]],
) -> None:
    table = list(zip(*rows, strict=True))  # two candidates on many seeds
    found = headroom(table)
    assert found is not None
    differences = np.subtract(*table)
    if np.var(differences) > 1e-9:
        assert found.p_value == pytest.approx(stats.ttest_rel(*table).pvalue, abs=1e-6)


def test_equal_candidates_seldom_look_different() -> None:
    rng, seen = np.random.default_rng(0), 0
    for _ in range(1000):
        found = headroom(rng.normal(400, 50, size=(10, 2)).tolist())
        assert found is not None
        seen += found.found
    assert seen / 1000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


def test_spread_beyond_the_noise_is_seen_and_measured() -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(400, 100, size=(200, 1))
    found = headroom((means + rng.normal(0, 50, size=(200, 2))).tolist())
    assert found is not None
    assert found.found
    assert found.between == pytest.approx(100, rel=0.15)
    assert found.within == pytest.approx(50, rel=0.15)
    assert "something to find" in str(found)


def test_what_cannot_tell_says_nothing() -> None:
    assert headroom([[1.0, 2.0]]) is None
    assert headroom([[1.0], [2.0]]) is None
    assert headroom([]) is None


def test_no_noise_at_all_is_no_accident() -> None:
    equal, different = headroom([[1.0, 1.0], [1.0, 1.0]]), headroom([[1.0, 1.0], [2.0, 2.0]])
    assert equal is not None
    assert different is not None
    assert not equal.found
    assert "NONE SEEN" in str(equal)
    assert different.found
