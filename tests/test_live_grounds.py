"""The live comparison's tables over several grounds."""

import json
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.live_grounds import claims, leads, leads_of_grounds, markdown, read_results

Line = dict[str, Any]

RETURNS = st.lists(st.floats(0, 4), min_size=2, max_size=6)


def line(method: str, run: int, holdout: list[float], claimed: float | None = None, **more: object) -> Line:
    task = {"max_return": 4.0}
    start = {"ground": "sums", "method": method, "run": run, "calls": 900, "seconds": 1, "task": task}
    written: Line = json.loads(
        json.dumps(start | {"holdout": holdout, "claimed": claimed, "interval": None} | more)
    )
    return written


@given(st.lists(st.tuples(RETURNS, RETURNS), min_size=2, max_size=6))
def test_a_lead_is_the_mean_of_the_paired_differences(runs: list[tuple[list[float], list[float]]]) -> None:
    lines = [line("lab", run, ours) for run, (ours, _) in enumerate(runs)]
    lines += [line("gepa", run, theirs) for run, (_, theirs) in enumerate(runs)]
    lead = leads(read_results(lines))["gepa"]
    assert lead.mean == pytest.approx(fmean((fmean(ours) - fmean(theirs)) / 4 for ours, theirs in runs))
    assert lead.low <= lead.mean <= lead.high
    assert lead.n == len(runs)


def test_the_lead_over_grounds_counts_each_ground_once() -> None:
    lines = [line("lab", run, [2.0, 2.0], ground=ground) for ground in ("a", "b") for run in range(3)]
    lines += [line("gepa", 0, [0.0, 0.0], ground="a")]
    lines += [line("gepa", run, [1.0, 1.0], ground="b") for run in range(3)]
    wide = leads_of_grounds(read_results(lines))["gepa"]
    assert wide.mean == pytest.approx(0.375)
    assert wide.n == 2
    assert leads(read_results(lines))["gepa"].mean == pytest.approx(0.3125)


def test_only_runs_of_both_on_the_same_ground_are_paired() -> None:
    lines = [line("lab", run, [2.0, 2.0]) for run in range(3)]
    lines += [line("gepa", 0, [1.0, 1.0]), line("gepa", 1, [1.0, 1.0])]
    lines += [line("gepa", 2, [9.0, 9.0], ground="games")]
    lead = leads(read_results(lines))["gepa"]
    assert lead.n == 2
    assert lead.mean == pytest.approx(0.25)


@given(
    st.lists(st.lists(st.floats(0, 4), min_size=3, max_size=3), min_size=2), st.floats(0, 4), st.floats(-1, 1)
)
def test_what_a_claim_exceeds_the_sealed_gain_by(
    runs: list[list[float]], baseline: float, excess: float
) -> None:
    lines = [line("baseline", 0, [baseline] * 3)]
    lines += [line("gepa", run, own, fmean(own) - baseline + excess) for run, own in enumerate(runs)]
    figures = claims(read_results(lines))["gepa"]
    assert figures.excess.mean == pytest.approx(excess / 4, abs=1e-9)
    assert figures.sealed == pytest.approx(fmean(fmean(own) - baseline for own in runs) / 4, abs=1e-9)
    assert figures.held is None


def test_how_many_intervals_hold_the_sealed_gain() -> None:
    lines = [line("baseline", 0, [1.0, 1.0])]
    lines += [
        line("lab", 0, [3.0, 3.0], 2.0, interval=[1.5, 2.5]),
        line("lab", 1, [3.0, 3.0], 3.0, interval=[2.5, 3.5]),
    ]
    assert claims(read_results(lines))["lab"].held == 1
    assert claims(read_results(lines))["lab"].agreeing == 1


def test_a_claim_may_differ_by_the_noise_of_the_sealed_episodes_too() -> None:
    noisy = [2.0, 4.0] * 20
    lines = [line("baseline", 0, [1.0] * 40)]
    lines += [
        line("lab", run, noisy, 2.0 + off, interval=[1.9 + off, 2.1 + off])
        for run, off in enumerate((0.0, 0.3, 0.4))
    ]
    own = claims(read_results(lines))["lab"]
    assert (own.held, own.agreeing) == (1, 2)


def test_a_method_that_is_shown_to_be_worse_or_better_on_a_ground_is_marked() -> None:
    lines = [line("lab", run, [2.0, 2.0 + run / 100]) for run in range(3)]
    lines += [line("gepa", run, [1.0, 1.0]) for run in range(3)]
    lines += [line("capo", run, [3.0, 3.0]) for run in range(3)]
    lines += [line("dspy", run, [1.0 + run, 1.0 + run]) for run in range(3)]
    text = markdown(read_results(lines))
    assert "| gepa | 1.00↓ (1.00 to 1.00, n = 3) |" in text
    assert "| capo | **3.00**↑ (3.00 to 3.00, n = 3) |" in text
    assert "| dspy | 2.00 (1.00 to 3.00, n = 3) |" in text


def test_the_tables_name_each_ground_and_method_and_mark_the_best() -> None:
    lines = [line("lab", 0, [3.0, 3.0], 2.0), line("gepa", 0, [1.0, 2.0]), line("gepa", 1, [2.0, 2.0])]
    text = markdown(read_results([*lines, line("gepa", 0, [0.5, 0.5], ground="games")]))
    assert "| sealed return | sums | games |" in text
    assert "| lab | **3.00** (n = 1) | - |" in text
    assert "| gepa | 1.75 (1.50 to 2.00, n = 2) | 0.50 (n = 1) |" in text
