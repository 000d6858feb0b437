"""A finished study whose limits are raised: its search continues to another verdict."""

import csv
import io
import json
import shutil
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState
from optuna_dashboard import get_note

from lab.experiment.schema import MOST_UNSEEN
from lab.storage.keys import CONFIRMATION, HOLDOUT
from lab.submission.frozen import read_frozen
from tests.fake_endpoint import Body, FakeEndpoint, Reply, fake_endpoint
from tests.project import Project
from tests.test_resume import (
    EXPERIMENT,
    a_project,
    by_the_request,
    count,
    frozen,
    kill_after,
    load,
    optuna_trials,
    rows,
    tune,
)

RAISED = EXPERIMENT.replace("calls = 240", "calls = 480")

Judged = tuple[Project, FakeEndpoint]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judged]:
    """A finished study of 240 calls, and its endpoint."""
    project = a_project(tmp_path_factory.mktemp("judged") / "project")
    with fake_endpoint(by_the_request) as endpoint:
        done = tune(project, endpoint)
        assert done.returncode == 0, done.stderr
        yield project, endpoint


@pytest.fixture
def judged(once: Judged, tmp_path: Path) -> Judged:
    """A copy of it for one test."""
    shutil.copytree(once[0].folder, tmp_path / "project")
    return Project(tmp_path / "project"), once[1]


def write(project: Project, text: str) -> None:
    project.write("experiments/known.toml", text)


def holdout(project: Project) -> dict[str, set[int]]:
    """Seeds of the holdout that each trial has played, by the command that exports them."""
    table = project.run("-m", "lab.export", "experiments/known.toml", "--episodes").stdout
    played = dict[str, set[int]]()
    for row in csv.DictReader(io.StringIO(table)):
        if row["phase"] == "holdout":
            played.setdefault(row["trial"], set()).add(int(row["seed"]))
    return played


def test_the_search_continues_and_another_holdout_judges(judged: Judged) -> None:
    project, endpoint = judged
    before, sealed, made = optuna_trials(project), holdout(project), len(endpoint.requests)
    write(project, RAISED)
    done = tune(project, endpoint)
    assert done.returncode == 0, done.stderr
    assert "It already has 1 verdict; the next one uses new unseen episodes." in done.stderr
    assert count(project, "studies") == 1
    assert len(endpoint.requests) - made == 240  # the first 240 are not repeated
    assert "verdict 2 of the study, each on its own holdout" in done.stdout
    assert "The verdict before this one: Frozen: trial-" in done.stdout
    assert tomllib.loads(frozen(project))["evidence"]["episodes"] == 6

    now = holdout(project)["baseline"]
    assert sealed["baseline"] < now
    assert len(now) == 2 * 6

    study = load(project)
    after = study.trials
    assert len(after) > len(before)
    for old, new in zip(before, after, strict=False):
        assert old.params == new.params
        assert old.intermediate_values.items() <= new.intermediate_values.items()
    for one in after:
        assert f"template = {one.params['template']}" in get_note(optuna.Trial(study, one._trial_id))
    ended = Counter(one.state for one in after)
    assert not ended[TrialState.RUNNING] + ended[TrialState.WAITING]
    assert any(
        len(new.intermediate_values) > len(old.intermediate_values)
        for old, new in zip(before, after, strict=False)
    )

    again = tune(project, endpoint)
    assert again.stdout == done.stdout
    assert len(endpoint.requests) - made == 240
    (claim,) = json.loads(tune(project, endpoint, "--json").stdout)["verdict"]["earlier"]
    assert claim.startswith("Frozen: trial-")
    report = project.run("-m", "lab.report", "experiments/known.toml")
    page = (project.folder / report.stdout.strip()).read_text()
    assert "This is verdict 2 of the study, and each may err with its own 5 %." in page


def test_an_earlier_winner_is_confirmed_again_though_the_search_has_left_it(
    judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, endpoint = judged
    winner = read_frozen(project.folder / "prompts/best.toml").candidate

    def worse(body: Body) -> Reply:
        is_winner = body["temperature"] == winner.sampling.temperature
        return Reply("x") if is_winner else by_the_request(body)

    write(project, RAISED)
    monkeypatch.setattr(endpoint, "script", worse)
    done = tune(project, endpoint)
    assert done.returncode == 0, done.stderr
    played = rows(project, f"select seed from episodes where digest = '{winner.digest}'")
    confirmed = [
        int(str(seed)) for (seed,) in played if CONFIRMATION + MOST_UNSEEN <= int(str(seed)) < HOLDOUT
    ]
    assert len(confirmed) == 3


def test_mlflow_has_both_verdicts_of_one_study(judged: Judged) -> None:
    project, endpoint = judged
    write(project, RAISED)
    done = tune(project, endpoint)
    assert "MLflow" not in done.stdout, done.stdout
    client = MlflowClient(f"sqlite:///{project.folder / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'known'")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    named = Counter(run.info.run_name for run in runs)
    assert named["holdout-baseline"] == named["holdout-baseline-2"] == 1
    assert max(named.values()) == 1
    (study,) = [run for run in runs if run.data.tags.get("kind") == "study"]
    prompt = read_frozen(project.folder / "prompts/best.toml")
    first, second = (study.data.params[f"frozen_temperature{last}"] for last in ("", "-2"))
    assert float(second) == pytest.approx(prompt.candidate.settings["temperature"])
    assert float(first) > 0
    places = Counter(run.data.tags.get("race") for run in runs)
    assert places["winner"] == 1


def test_a_continued_study_that_is_killed_resumes(judged: Judged) -> None:
    project, endpoint = judged
    write(project, RAISED)
    for calls in (40, 150):
        kill_after(project, endpoint, calls)
    told = project.run("-m", "lab.report", "experiments/known.toml")
    assert told.returncode == 0, told.stderr
    done = tune(project, endpoint)
    assert done.returncode == 0, done.stderr
    assert count(project, "studies") == 1
    assert count(project, "calls") == 480
    assert "verdict 2 of the study" in done.stdout


def test_minutes_do_not_count_an_earlier_verdict(tmp_path: Path) -> None:
    """The search takes 3 s, and the verdict 12 s, which is as long as the raised limit."""
    project, began_s = a_project(tmp_path / "project").untracked, time.monotonic()

    def slow_later(body: Body) -> Reply:
        time.sleep(1.0 if time.monotonic() - began_s > 5 else 0.0)
        return by_the_request(body)

    with fake_endpoint(slow_later) as endpoint:
        for minutes, script in ((0.05, slow_later), (0.2, by_the_request)):
            endpoint.script, before = script, len(endpoint.requests)
            write(project, EXPERIMENT.replace("calls = 240", f"minutes = {minutes}"))
            done = tune(project, endpoint)
            assert done.returncode == 0, done.stderr
    assert "verdict 2 of the study" in done.stdout
    assert len(endpoint.requests) - before > 72 + 24


def test_a_wider_space_joins_a_study_that_continues(judged: Judged) -> None:
    project, endpoint = judged
    made = len(endpoint.requests)
    write(project, RAISED.replace('"storyteller", "lecturer"]', '"storyteller", "lecturer", "manual"]'))
    done = tune(project, endpoint)
    assert done.returncode == 0, done.stderr
    assert count(project, "studies") == 1
    assert len({body["messages"][0]["content"][:60] for body in endpoint.requests[made:]}) >= 3
    assert {one.params.get("template") for one in optuna_trials(project)} >= {"manual", "storyteller"}


def test_limits_without_room_for_another_verdict_are_refused_and_nothing_is_lost(judged: Judged) -> None:
    project, endpoint = judged
    prompt, made = frozen(project), len(endpoint.requests)
    write(project, EXPERIMENT.replace("calls = 240", "calls = 300"))
    done = tune(project, endpoint)
    assert done.returncode == 2
    assert "The raised limits have no room for more." in done.stderr
    assert "the limits leave 60 of 300 calls; another verdict needs up to 72 calls" in done.stderr
    assert len(endpoint.requests) == made
    write(project, EXPERIMENT)
    again = tune(project, endpoint)
    assert again.returncode == 0, again.stderr
    assert frozen(project) == prompt
    assert count(project, "studies") == 1
