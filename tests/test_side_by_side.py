"""Several studies: side by side, and how the last ones of an experiment went."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_ind

from lab.stats.intervals import welch_interval
from tests.fake_endpoint import fake_endpoint
from tests.project import Project
from tests.test_resume import EXPERIMENT, a_project, by_the_request, tune
from tests.test_studies import FILE, command

SHORT = EXPERIMENT.replace("max_steps = 4", "max_steps = 1").replace("calls = 240", "calls = 45")
PRICED = SHORT.replace('name = "fake"', 'name = "fake"\ndollars_in = 1000.0\ndollars_out = 1000.0')


@dataclass(frozen=True)
class Several:
    """Three finished studies of an experiment, on a fake endpoint.

    Attributes:
        first: With all texts.
        poor: With the same holdout, without the best text, and with prices.
        other: As `first`, with other seeds.
    """

    project: Project
    first: str
    poor: str
    other: str


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    project = a_project(tmp_path_factory.mktemp("several") / "project").untracked
    names = list[str]()
    with fake_endpoint(by_the_request) as endpoint:
        for text in (SHORT, PRICED.replace('"storyteller", ', ""), f"seed = 7\n{SHORT}"):
            project.write(FILE, text)
            done = tune(project, endpoint)
            assert done.returncode == 0, done.stderr
            names += re.findall(r"Study (\S+) on", done.stderr)[:1]
        yield Several(project, *names)


def compare(several: Several, *names: str) -> dict[str, Any]:
    studies = [part for name in names for part in ("--study", name)]
    done = command(several.project, "compare", *studies, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_studies_with_the_same_holdout_are_paired_by_seed(several: Several) -> None:
    document = compare(several, several.poor, several.first)
    poor, first = document["studies"]
    assert (poor["study"], first["study"]) == (several.poor, several.first)
    assert first["frozen"]["settings"]["template"] == "storyteller"
    assert first["holdout"] == poor["holdout"] == {"first_seed": 1_000_000, "episodes": 6}
    assert poor["cost"]["dollars"] == pytest.approx(poor["cost"]["tokens"] / 1000)
    assert first["cost"]["dollars"] is None
    (between,) = document["comparisons"]
    assert (between["study"], between["versus"]) == (several.first, several.poor)
    assert (between["holdout"], between["method"]) == ("same", "paired t interval")
    gap = between["difference"]
    assert gap["n"] == 6
    assert gap["mean"] == pytest.approx(first["frozen"]["mean"] - poor["frozen"]["mean"])
    assert gap["interval"][0] <= gap["mean"] <= gap["interval"][1]
    assert gap["p_value"] == pytest.approx(2 / 2**6)


def test_studies_with_other_seeds_are_not_paired(several: Several) -> None:
    (between,) = compare(several, several.first, several.other)["comparisons"]
    assert (between["holdout"], between["method"]) == ("other", "Welch's t interval")
    assert between["difference"]["p_value"] is None
    assert between["difference"]["n"] == 12


def test_the_table_has_a_column_for_each_study_and_says_which_holdouts_are_the_same(several: Several) -> None:
    names = (several.first, several.poor, several.other)
    done = command(several.project, "compare", *(part for name in names for part in ("--study", name)))
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()
    assert rows[0].split() == list(names)
    told = {row[: rows[0].index(names[0])].strip(): row for row in rows}
    assert told["frozen return"].count("n = 6") == 3
    seeds = re.findall(r"\d+ to \d+", told["holdout seeds"])
    assert seeds == ["1000000 to 1000005", "1000000 to 1000005", "1000007 to 1000012"]
    assert re.search(r"price unknown +\$\d+\.\d\d +price unknown", told["cost"])
    assert f"{several.first}: Frozen: trial-" in done.stdout
    assert f"what {several.poor} froze and what {several.first} froze is shown: -" in done.stdout
    assert "n = 6 pairs, p = 0.062. Both holdouts have the same seeds" in done.stdout  # 2 comparisons
    assert "The holdouts have no seed in common: the interval is Welch's" in done.stdout
    assert "The intervals hold for all 2 comparisons together." in done.stdout


def test_the_last_studies_of_an_experiment_are_listed_with_what_they_found(several: Several) -> None:
    listed = json.loads(command(several.project, "studies", FILE, "--json").stdout)
    assert [one["name"] for one in listed] == [several.other, several.poor, several.first]
    assert [one["holdout"] for one in listed] == ["same", "other", "other"]
    results = [one["result"] for one in listed]
    assert results[2] == compare(several, several.first, several.poor)["studies"][0]
    table = command(several.project, "studies", FILE).stdout.splitlines()
    assert [row.split()[0] for row in table] == ["study", several.other, several.poor, several.first]
    for row, result in zip(table[1:], results, strict=True):
        assert f"{result['frozen']['trial']}  " in row
        assert f" {result['cost']['calls']} " in row
    assert (
        "No study of this experiment" in command(several.project, "studies", "experiments/echo.toml").stdout
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name two candidates"),
        (("frozen",), "name two candidates"),
        (("frozen", "baseline", "--json"), "--json requires two or more --study"),
        (("frozen", "baseline", "--study", "a", "--study", "b"), "nothing is played"),
        (("--study", "a", "--study", "b"), "The study 'a' does not exist."),
    ],
)
def test_mistakes_of_the_command_line_are_named(
    several: Several, arguments: tuple[str, ...], said: str
) -> None:
    done = command(several.project, "compare", *arguments)
    assert done.returncode == 2
    assert said in " ".join(re.sub("[│╭╮╰╯─]", " ", done.stderr).split())


def test_welchs_interval_is_scipys() -> None:
    rng = np.random.default_rng(0)
    own, other = rng.normal(5, 3, 9).tolist(), rng.normal(4, 1, 16).tolist()
    ours, theirs = welch_interval(own, other, 0.9), ttest_ind(own, other, equal_var=False)
    ends = theirs.confidence_interval(0.9)
    assert (ours.low, ours.high) == pytest.approx((ends.low, ends.high))
    assert welch_interval(own, other, 0.9, 2).low < ours.low
    assert welch_interval(own[:1], other, 0.9).high == float("inf")
