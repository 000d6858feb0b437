"""Figures and claims in words: the sentences that every command shows, with decimals by a figure's size."""

from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.stats.format import dollars, estimate_text, interval, number, percent, signed
from lab.stats.intervals import Estimate
from lab.submission.frozen import Evidence
from lab.verdict.words import claim, figures
from tests.test_frozen import a_frozen_prompt

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
        (estimate_text(Estimate(0.04, -0.01, 0.09, 32)), "0.0400 [-0.0100, 0.0900]"),
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


EVIDENCE = Evidence(
    *("winner", 16, 0.95, "t test", 600.0, [590.0, 610.0], 400.0, [390.0, 410.0]),
    *(200.0, [180.0, 220.0], 0.001, 1.0, 0.5, 60.0, 100.0),
    relative_interval=[0.42, 0.58],
)
GAIN = "600.0 (+200.0 vs. baseline, +50 %; 95 % interval [+180.0, +220.0]), n = 16 episodes each, p = 0.001"


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (EVIDENCE, f"Frozen: trial-003 returns more than the baseline on unseen episodes: {GAIN} (t test)."),
        (
            replace(EVIDENCE, outcome="cheaper", saving="40.0 [30.0, 50.0] tokens per episode"),
            "Frozen: trial-003 costs less than the baseline on unseen episodes, by 40.0 [30.0, 50.0] tokens"
            f" per episode; its return is within the objective's tolerance: {GAIN} (t test).",
        ),
        (
            replace(EVIDENCE, relative_interval=None),
            f"Frozen: trial-003 returns more than the baseline on unseen episodes: {GAIN} (t test).".replace(
                ", +50 %", ""
            ),
        ),
        (
            replace(EVIDENCE, outcome="baseline", shortfall="The verdict is based on 16 of 20."),
            "Frozen: the baseline. No candidate was shown to beat it on unseen episodes (n = 16 episodes"
            " each; t test). This does not prove that none is better. The verdict is based on 16 of 20.",
        ),
        (
            replace(EVIDENCE, outcome="baseline", caution="trial-001 is not frozen."),
            "trial-001 is not frozen. Frozen: the baseline.",
        ),
        (
            replace(EVIDENCE, outcome="unvalidated"),
            "NOT VALIDATED on unseen episodes: trial-003 led the search when it ended. All figures are the"
            " search's, in which the best of many is overestimated: expect less on new episodes.",
        ),
    ],
)
def test_the_claim_follows_from_the_evidence(evidence: Evidence, expected: str) -> None:
    assert claim(replace(a_frozen_prompt(), evidence=evidence)) == expected


def test_a_share_of_nothing_is_left_out() -> None:
    gap = Estimate(0.5, 0.25, 0.75, 8)
    assert (
        figures(0.5, gap, 0.99, versus="b")
        == "0.500 (+0.500 vs. b; 99 % interval [+0.250, +0.750]), n = 8 episodes each"
    )
