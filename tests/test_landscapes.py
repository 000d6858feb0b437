"""The benchmark on known truths: every method plays, and what it picks is scored by the truth."""

import gzip
import itertools
import json
from pathlib import Path

import numpy as np
import optuna
import pytest

from benchmarks.landscapes import IN_FLIGHT, METHODS, Played, Result, shares, truths_on
from benchmarks.table import load_table
from benchmarks.truths import TRUTHS
from lab.search.points import at_random

optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.parametrize("in_flight", [1, 32])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_plays_and_picks(method: str, in_flight: int) -> None:
    truth = TRUTHS["seeds differ"](0)
    played = Played(METHODS[method], truth, 0, in_flight)
    for _ in range(60):
        played.episode()
    reports = [len(one.intermediate_values) for one in played.study.get_trials(deepcopy=False)]
    assert sum(reports) == 60
    assert max(reports) <= METHODS[method].episodes
    assert -1 <= played.pick() <= 1.2  # the best point of a sample may be beaten


@pytest.mark.parametrize("name", TRUTHS)
def test_the_best_of_many_points_is_the_truths_best(name: str) -> None:
    truth = TRUTHS[name](1)
    assert truth.best > truth.average


@pytest.mark.parametrize(("name", "points"), [("echo", 156), ("reasoning", 120)])
def test_a_recorded_table_is_a_ground_on_which_all_points_of_a_study_meet_the_same_seeds(
    name: str, points: int
) -> None:
    table, make = load_table(name), truths_on("recorded")[name]
    assert len(table.candidates) == points
    assert {len(episodes) for episodes in table.episodes.values()} == {24}
    truth, rng = make(0), np.random.default_rng(0)
    some = at_random(truth.space, 40, rng)
    played = np.array([[truth.episode(point, seed, rng) for seed in range(truth.most)] for point in some])
    assert played.mean(axis=1) == pytest.approx([truth.mean(point) for point in some])
    assert truth.best == pytest.approx(max(table.true_means.values()))
    assert truth.best > truth.average
    again, other = make(0), make(1)
    orders = [[one.episode(some[0], seed, rng) for seed in range(24)] for one in (truth, again, other)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


def test_a_file_of_measured_prompts_is_a_ground_whose_best_prompt_counts_as_one(tmp_path: Path) -> None:
    accuracies = [1.0, *[0.0] * 39]
    rows = [
        {"task": "sums", "model": "any", "accuracy": value, "words": ["add", place]}
        for place, value in enumerate(accuracies)
    ]
    path = tmp_path / "prompts.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)

    (truth,) = truths_on(str(path)).values()
    assert [truth(3).share({"template": f"p{i}"}) for i in range(2)] == [1.0, pytest.approx(-1 / 39)]

    jobs = itertools.product(["sums, any"], ["lab", "random"], IN_FLIGHT, range(2), [str(path)])
    report = Result(str(path), ("lab", "random"), 2, {job: shares(job) for job in jobs}).report()
    assert "| sums, any | 1.00 ±0.00 |" in report
