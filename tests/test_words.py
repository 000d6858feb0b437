"""Numbers as text: as many decimals as their size calls for, whatever an environment pays."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.stats.format import dollars, estimate_text, interval, number, percent, recorded, signed
from lab.stats.intervals import Estimate

FIGURES = st.floats(-1e9, 1e9) | st.floats(-2, 2) | st.floats(-0.1, 0.1)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (number(726.24), "726.2"),
        (number(-0.5), "-0.500"),
        (number(float("nan")), "unknown"),
        (signed(3.0), "+3.00"),
        (signed(0.0), "0"),
        (percent(0.999), "over 99 %"),
        (percent(0.001), "under 1 %"),
        (percent(1.0), "100 %"),
        (dollars(None), "unknown"),
        (dollars(0.0), "$0.0000"),
        (dollars(12.5), "$12.50"),
        (interval(Estimate(1.0, -inf, inf, 1)), "no interval (one episode)"),
        (interval(Estimate(40.0, 30.0, 50.0, 4), sign=True), "[+30.0, +50.0]"),
        (estimate_text(Estimate(0.5, -0.02, 1.02, 9)), "0.50 [-0.02, 1.02]"),
        (estimate_text(Estimate(5.123, -1.0, 11.2, 9), sign=True), "+5.1 [-1.0, +11.2]"),
        (estimate_text(Estimate(1234.5, 1200.0, 1300.0, 9)), "1,234.5 [1,200.0, 1,300.0]"),
        (recorded(0.04, [-0.01, 0.09], 32), "0.0400 [-0.0100, 0.0900]"),
    ],
)
def test_numbers_as_text(said: str, expected: str) -> None:
    assert said == expected


@given(FIGURES)
def test_a_number_reads_back_within_a_hundredth_of_its_size(value: float) -> None:
    read = float(number(value).replace(",", ""))
    assert abs(read - value) <= max(0.005 * abs(value), 0.00005) * 1.01


@given(FIGURES, FIGURES, FIGURES)
def test_an_estimate_has_one_precision(one: float, two: float, three: float) -> None:
    low, middle, high = sorted((one, two, three))
    shown = estimate_text(Estimate(middle, low, high, 5), sign=True)
    written = shown.replace(",", "").replace("[", "").replace("]", "").split()
    decimals = {len(figure.partition(".")[2]) for figure in written if figure != "0"}
    assert len(decimals) <= 1
    size = max(abs(low), abs(high))
    for figure, value in zip(written, (middle, low, high), strict=True):
        assert abs(float(figure) - value) <= max(0.005 * size, 0.00005) * 1.01
