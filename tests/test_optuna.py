"""The study is Optuna's: in Optuna and its dashboard, with any sampler, and our sampler in any study."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from optuna_dashboard import get_note

from lab.search import RacePruner, RaceSampler
from lab.search.open_trial import order_of
from tests.browser import browsing, dashboard, needs_chromium
from tests.fake_endpoint import fake_endpoint
from tests.project import TIMEOUT_S, Project
from tests.test_resume import (
    EXPERIMENT,
    a_project,
    by_the_request,
    frozen,
    holding_after,
    kill_after,
    load,
    optuna_trials,
    start,
    tune,
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return a_project(tmp_path / "project").untracked


def test_optuna_sees_running_trials_with_their_returns_and_afterwards_all(
    project: Project,
) -> None:
    with fake_endpoint(by_the_request) as endpoint:
        with holding_after(endpoint, 80) as reached:
            process = start(project, endpoint)
            assert reached.wait(TIMEOUT_S)
            now = load(project).trials
        _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, err
    running = [trial for trial in now if trial.state is TrialState.RUNNING]
    assert any(trial.intermediate_values for trial in running)
    assert all(trial.datetime_start and not trial.datetime_complete for trial in running)

    study = load(project)
    table = study.trials_dataframe(("number", "value", "params", "state", "datetime_start", "duration"))
    assert set(table["state"]) <= {"COMPLETE", "PRUNED"}
    assert (table["duration"].dt.total_seconds() > 0).all()
    assert table["datetime_start"].is_monotonic_increasing
    assert {"params_template", "params_temperature"} <= set(table.columns)
    for trial in study.trials:
        values = list(trial.intermediate_values.values())
        order = order_of(trial.number, study.user_attrs["opening"], 4)
        assert sorted(trial.intermediate_values) == sorted(order[: len(values)])
        assert trial.state is not TrialState.COMPLETE or trial.value == pytest.approx(np.mean(values))
        assert f"template = {trial.params['template']}" in get_note(optuna.Trial(study, trial._trial_id))
    assert study.user_attrs["verdict"].startswith("Frozen: trial-")
    best = study.user_attrs["finalists"][0]
    assert f"trial-{best:03d}" in frozen(project) or f"trial = {best}" in frozen(project)
    assert len(load(project, "confirmation").trials) == 2 * 3
    holdout = load(project, "holdout").trials
    assert {trial.state for trial in holdout} == {TrialState.COMPLETE}
    assert {trial.user_attrs["trial"] for trial in holdout} == {0, best}


def test_a_running_trial_is_whole_at_every_moment(project: Project, tmp_path: Path) -> None:
    """A process may be killed between any two lines of the journal."""
    with fake_endpoint(by_the_request) as endpoint:
        assert tune(project, endpoint).returncode == 0
    lines = (project.folder / ".lab/optuna.log").read_bytes().splitlines(keepends=True)
    running = 0
    for end in range(0, len(lines), 7):
        cut = tmp_path / f"{end}.log"
        cut.write_bytes(b"".join(lines[:end]))
        storage = JournalStorage(JournalFileBackend(str(cut)))
        for study in optuna.get_all_study_summaries(storage):
            for trial in storage.get_all_trials(study._study_id, states=[TrialState.RUNNING]):
                running += 1
                assert "candidate" in trial.user_attrs or "/" in study.study_name
                assert trial.datetime_start is not None
    assert running > 20


@pytest.mark.parametrize(
    ("sampler", "pruner", "options"),
    [
        ("tpe", "race", "n_startup_trials = 4"),
        ("cmaes", "median", ""),
        ("qmc", "none", ""),
        ("random", "hyperband", ""),
        ("race", "wilcoxon", ""),
        ("optuna.samplers.BruteForceSampler", "optuna.pruners.PercentilePruner", ""),
    ],
)
def test_any_sampler_and_any_pruner_end_with_a_verdict(
    project: Project, sampler: str, pruner: str, options: str
) -> None:
    table = f'[search]\nsampler = "{sampler}"\npruner = "{pruner}"\n'
    text = EXPERIMENT.replace("[search]\n", table)
    extra = f"\n[search.sampler_options]\n{options}\n"
    if "Percentile" in pruner:
        extra += "\n[search.pruner_options]\npercentile = 50.0\n"
    project.write("experiments/known.toml", text + extra)
    with fake_endpoint(by_the_request) as endpoint:
        done = tune(project, endpoint)
    assert done.returncode == 0, done.stderr
    assert "Frozen: trial-" in done.stdout
    trials = [trial for trial in optuna_trials(project) if trial.intermediate_values]
    assert len({trial.user_attrs["digest"] for trial in trials}) == len(trials) > 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('sampler = "gp"', "needs the package torch"),
        ('sampler = "annealing"', "cannot be imported"),
        ('sampler = "optuna.samplers.Missing"', "cannot be imported"),
        ('sampler = "os.getcwd"', "is not an Optuna sampler"),
        ('pruner = "optuna.samplers.RandomSampler"', "is not an Optuna pruner"),
        ('sampler = "tpe"\nsampler_options = { nothing = 1 }', "cannot be created"),
        ('sampler = "random"\nsampler_options = 3', "search.sampler_options"),
    ],
)
def test_an_unavailable_sampler_is_reported_before_anything_is_played(
    project: Project, line: str, said: str
) -> None:
    project.write("experiments/known.toml", EXPERIMENT.replace("[search]\n", f"[search]\n{line}\n"))
    with fake_endpoint(by_the_request) as endpoint:
        done = tune(project, endpoint)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "search." in done.stderr
    assert endpoint.requests == []
    assert not list((project.folder / ".lab").glob("optuna.log")) or optuna_names(project) == []


def optuna_names(project: Project) -> list[str]:
    storage = JournalStorage(JournalFileBackend(str(project.folder / ".lab/optuna.log")))
    return optuna.get_all_study_names(storage)


@pytest.mark.parametrize("place", ["elsewhere/journal.log", "sqlite:///trials.db"])
def test_trials_are_kept_wherever_optuna_keeps_them(project: Project, place: str) -> None:
    with fake_endpoint(by_the_request) as endpoint:
        done = tune(project, endpoint, "--storage", place)
        asked = len(endpoint.requests)
        again = tune(project, endpoint, "--storage", place)
    assert done.returncode == 0, done.stderr
    assert again.returncode == 0, again.stderr
    assert "this is its result again" in again.stderr
    assert len(endpoint.requests) == asked
    assert (project.folder / place.removeprefix("sqlite:///")).exists()
    assert not (project.folder / ".lab/optuna.log").exists()


def test_a_wider_space_continues_in_a_copy_of_the_trials(project: Project) -> None:
    with fake_endpoint(by_the_request) as endpoint:
        wider = EXPERIMENT.replace("calls = 240", "calls = 400")
        project.write("experiments/known.toml", wider.replace('"storyteller", ', ""))
        kill_after(project, endpoint, 60)
        before = [trial for trial in load(project).trials if trial.intermediate_values]
        project.write("experiments/known.toml", wider)
        done = tune(project, endpoint)
    assert done.returncode == 0, done.stderr
    after = load(project).trials
    for trial in before:
        kept = after[trial.number]
        assert kept.params == trial.params
        assert trial.intermediate_values.items() <= kept.intermediate_values.items()
    assert 'name = "storyteller"' in frozen(project)


# In a study of Optuna's that has nothing to do with the lab


def noisy(worth: Callable[[optuna.Trial], float], instances: int = 8) -> Callable[[optuna.Trial], float]:
    def objective(trial: optuna.Trial) -> float:
        rng, mean = np.random.default_rng(trial.number), worth(trial)
        values = []
        for step in range(instances):
            values.append(10.0 * step + mean + rng.normal(0, 0.3))
            trial.report(values[-1], step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(np.mean(values))

    return objective


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_they_find_the_best_of_a_plain_study(direction: Literal["maximize", "minimize"]) -> None:
    sign = 1 if direction == "maximize" else -1

    def worth(trial: optuna.Trial) -> float:
        kind, x = trial.suggest_categorical("kind", ["a", "b", "c"]), trial.suggest_float("x", 0, 1)
        return sign * ({"a": 0, "b": 3, "c": 1}[kind] - 4 * (x - 0.7) ** 2)

    study = optuna.create_study(
        direction=direction, sampler=RaceSampler(seed=1), pruner=RacePruner(8, error_rate=0.1)
    )
    study.optimize(noisy(worth), n_trials=60)
    assert study.best_params["kind"] == "b"
    assert abs(study.best_params["x"] - 0.7) < 0.3
    pruned = [trial for trial in study.trials if trial.state is TrialState.PRUNED]
    assert len(pruned) > 2
    late = [trial.params["kind"] for trial in study.trials[30:]]
    assert late.count("b") > 20


def test_the_truly_best_is_seldom_pruned() -> None:
    """One of many equals is designated as best; at most the stated share of studies prunes it."""
    lost, studies = 0, 40
    for seed in range(studies):
        study = optuna.create_study(
            direction="maximize", sampler=RaceSampler(seed=seed), pruner=RacePruner(8, error_rate=0.1)
        )
        study.enqueue_trial({"x": 0.5})
        study.optimize(noisy(lambda trial: 0.0 * trial.suggest_float("x", 0, 1)), n_trials=12)
        lost += study.trials[0].state is TrialState.PRUNED
    assert lost / studies <= 0.1 + 3 * (0.1 * 0.9 / studies) ** 0.5


def test_the_same_seed_gives_the_same_trials_also_in_threads() -> None:
    def run(jobs: int) -> list[dict[str, object]]:
        study = optuna.create_study(direction="maximize", sampler=RaceSampler(seed=3))
        study.optimize(noisy(lambda trial: trial.suggest_float("x", 0, 1)), n_trials=20, n_jobs=jobs)
        return [trial.params for trial in study.trials]

    assert run(1) == run(1)
    assert len({json.dumps(one) for one in run(2)}) == 20


def test_threads_that_ask_before_either_trial_has_parameters_get_different_ones() -> None:
    sampler = RaceSampler(seed=3)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(noisy(lambda trial: trial.suggest_float("x", 0, 1)), n_trials=12)
    space = sampler.infer_relative_search_space(study, study.trials[-1])
    asked = [sampler.sample_relative(study, study.trials[-1], space)["x"] for _ in range(20)]
    assert len(set(asked)) == 20


def test_they_need_nothing_else_of_the_lab() -> None:
    heavy = ("mlflow", "dspy", "openai", "openenv", "pydantic", "rich", "typer", "lab.llm", "lab.agent")
    code = f"import sys, lab.search; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@needs_chromium
def test_the_dashboard_shows_a_study_while_it_runs_and_afterwards(project: Project) -> None:
    with fake_endpoint(by_the_request) as endpoint, ExitStack() as open_pages:
        with holding_after(endpoint, 80) as reached:
            process = start(project, endpoint)
            assert reached.wait(TIMEOUT_S)
            browser = open_pages.enter_context(browsing(open_pages.enter_context(dashboard(project))))
            browser.open("/dashboard/studies/0/trials")
            browser.shows("Running", "Intermediate Values", "template = reference", "plain echo environment")
        process.communicate(timeout=TIMEOUT_S)
        browser.open("/dashboard/studies/0")
        browser.shows("Best Trial", "verdict", "Frozen: trial-", "Intermediate values")
        browser.picture(Path(os.environ.get("PICTURES", project.folder)) / "dashboard.png")
        assert browser.strayed() == []
    assert process.returncode == 0


def test_reading_a_study_writes_nothing_into_optunas_storage(project: Project) -> None:
    """Another process may be writing to it."""
    with fake_endpoint(by_the_request) as endpoint:
        kill_after(project, endpoint, 40)
        log = project.folder / ".lab/optuna.log"
        with log.open("a") as torn:
            torn.write('{"op_code":8,"worker_id":"of a killed pro')
        before = log.read_bytes()
        for command in (("lab.report", "experiments/known.toml"), ("lab.studies",)):
            done = project.run("-m", *command)
            assert done.returncode == 0, done.stderr
    assert log.read_bytes() == before
    log.unlink()
    done = project.run("-m", "lab.report", "experiments/known.toml")
    assert done.returncode == 0, done.stderr
    assert not log.exists()
