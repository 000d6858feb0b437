"""Resuming: a study that was killed, changed, replayed, or started twice at once."""

import hashlib
import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from tests.fake_endpoint import Body, FakeEndpoint, Reply, fake_endpoint
from tests.project import TIMEOUT_S, Project

EXPERIMENT = """
about = "A known truth: one template is better."

[environment]
python = "lab.environments.echo.server.echo_environment:EchoEnvironment"
text = "echoed_message"

[task]
name = "echo"
benchmark = "test"
max_steps = 4
max_tokens = 150
max_return = 120.0
success_score = 0.1

[model]
endpoint = "embedded"
name = "fake"

[baseline]
template = "reference"
temperature = 0.7
max_tokens = 150
history = 1

[space]
template = ["reference", "storyteller", "lecturer"]
temperature = { low = 0.5, high = 1.0 }

[budget]
calls = 240

[search]
episodes = 4
headroom = 5
in_flight = 6

[confirmation]
candidates = 2
episodes = 3

[verdict]
episodes = 6

[tracking]
traces = 0
"""


UNUSED = "scope not in (select digest || ' ' || seed from episodes)"
"""Calls of unfinished episodes."""


def a_project(folder: Path) -> Project:
    project = Project.make(folder, tracked=True)
    project.write("experiments/known.toml", EXPERIMENT)
    return project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return a_project(tmp_path / "project").untracked


def by_the_request(body: Body) -> Reply:
    """The same answer to the same request, about twice as long for the storyteller."""
    time.sleep(0.02)
    length = 200 if "storyteller" in body["messages"][0]["content"] else 100
    digest = hashlib.sha256(repr(sorted(body.items())).encode()).digest()
    return Reply("x" * (length + digest[0] % 40))


def settings(endpoint: FakeEndpoint) -> dict[str, str]:
    return {"API_BASE_URL": endpoint.url, "MODEL_NAME": "fake", "HF_TOKEN": "canary-key"}


def tune(project: Project, endpoint: FakeEndpoint, *flags: str) -> "subprocess.CompletedProcess[str]":
    done = project.run("-m", "lab.tune", "experiments/known.toml", *flags, **settings(endpoint))
    assert "Traceback" not in done.stderr, done.stderr
    return done


def start(project: Project, endpoint: FakeEndpoint) -> "subprocess.Popen[str]":
    return project.start("-m", "lab.tune", "experiments/known.toml", **settings(endpoint))


def kill_after(project: Project, endpoint: FakeEndpoint, calls: int, *, stored: int = 0) -> None:
    """Start the study, and kill it after this many more answers, unless it finishes before.

    Args:
        stored: Number of calls that are to be on record then: else the last answers may be lost.
    """
    with holding_after(endpoint, calls) as reached:
        process = start(project, endpoint)
        while process.poll() is None and not (reached.wait(0.05) and count(project, "calls") >= stored):
            pass
        process.send_signal(signal.SIGKILL)
        process.communicate()


@contextmanager
def holding_after(endpoint: FakeEndpoint, calls: int) -> Iterator[threading.Event]:
    """Allow this many more answers in the block; the event is set by the next request."""
    script, enough = endpoint.script, len(endpoint.requests) + calls
    reached, over = threading.Event(), threading.Event()

    def held(body: Body) -> Reply:
        if len(endpoint.requests) > enough:
            reached.set()
            over.wait(TIMEOUT_S)
        return script(body)

    endpoint.script = held
    try:
        yield reached
    finally:
        endpoint.script = script
        over.set()


def rows(project: Project, query: str, database: str = ".lab/calls.db") -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(project.folder / database)) as connection:
        return connection.execute(query).fetchall()


def load(project: Project, part: str = "") -> optuna.Study:
    """The project's only study, or one of its parts, loaded with plain Optuna."""
    storage = JournalStorage(JournalFileBackend(str(project.folder / ".lab/optuna.log")))
    (name,) = [one for one in optuna.get_all_study_names(storage) if one.partition("/")[2] == part]
    return optuna.load_study(study_name=name, storage=storage)


def optuna_trials(project: Project, part: str = "") -> list[FrozenTrial]:
    """Its trials."""
    return load(project, part).trials


def count(project: Project, table: str) -> int:
    return int(str(rows(project, f"select count(*) from {table}")[0][0]))


def frozen(project: Project) -> str:
    return (project.folder / "prompts/best.toml").read_text()


@dataclass(frozen=True)
class Finished:
    """A study killed twice and then finished; its endpoint is gone.

    Attributes:
        kept: Calls recorded before its last start.
        asked: All requests to the endpoint.
    """

    project: Project
    endpoint: FakeEndpoint
    done: "subprocess.CompletedProcess[str]"
    kept: int
    asked: int


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    project = a_project(tmp_path_factory.mktemp("finished") / "project")
    with fake_endpoint(by_the_request) as endpoint:
        kill_after(project, endpoint, 30)
        kill_after(project, endpoint, 60)
        kept = count(project, "calls")
        done = tune(project, endpoint)
        return Finished(project, endpoint, done, kept, len(endpoint.requests))


def test_a_killed_study_resumes_and_repeats_no_call(finished: Finished) -> None:
    project = finished.project
    assert finished.done.returncode == 0, finished.done.stderr
    assert "Resuming: " in finished.done.stderr
    assert 'name = "storyteller"' in frozen(project)
    calls = count(project, "calls")
    assert 60 < finished.kept < calls <= 240
    # What was in flight at a kill may have been answered to nobody: 6 at most, each time.
    assert calls <= finished.asked <= calls + 2 * 6
    assert f"Cost: {calls} calls" in finished.done.stdout


def test_nothing_is_counted_twice_after_kills(finished: Finished) -> None:
    project = finished.project
    assert count(project, "studies") == 1
    trials = optuna_trials(project)
    played = [trial for trial in trials if trial.intermediate_values]
    assert len({trial.user_attrs["digest"] for trial in played}) == len(played) > 10
    ended = rows(project, "select digest, seed from episodes")
    reported = sum(len(trial.intermediate_values) for trial in played)
    assert len(ended) == len(set(ended)) == reported + 2 * 3 + 2 * 6
    runs = rows(project, "select name, count(*) from runs group by name", "mlflow.db")
    assert len(runs) > 5
    assert {number for _, number in runs} == {1}


@pytest.mark.parametrize("kills", [(170,), (163, 8), (175, 20)])
def test_what_was_interrupted_as_the_search_ran_out_is_finished_within_the_budget(
    project: Project, kills: tuple[int, ...]
) -> None:
    with fake_endpoint(by_the_request) as endpoint:
        for place, calls in enumerate(kills, 1):  # no whole number of episodes of four
            kill_after(project, endpoint, calls, stored=sum(kills[:place]))
        begun = f"select count(distinct scope) from calls where {UNUSED}"
        assert rows(project, begun) > [(0,)]
        done = tune(project, endpoint)
    assert done.returncode == 0, done.stderr
    assert rows(project, f"select scope, count(*) from calls where {UNUSED} group by scope") == []
    assert 240 - 4 < count(project, "calls") <= 240  # less than an episode is left over


def test_what_was_interrupted_is_finished_though_the_time_is_over(project: Project) -> None:
    project.write("experiments/known.toml", EXPERIMENT.replace("calls = 240", "minutes = 9"))
    with fake_endpoint(by_the_request) as endpoint:
        kill_after(project, endpoint, 101, stored=101)
        begun = rows(project, f"select count(distinct scope) from calls where {UNUSED}")
        project.write("experiments/known.toml", EXPERIMENT.replace("calls = 240", "minutes = 0.001"))
        done = tune(project, endpoint)
    assert begun > [(1,)]
    assert done.returncode == 0, done.stderr
    assert "minutes are over" in done.stderr
    assert rows(project, f"select scope, count(*) from calls where {UNUSED} group by scope") == []


def but_for_mlflow(out: str) -> list[str]:
    """A result's lines without the one about MLflow, which only the writing process prints."""
    return [" ".join(line.split()) for line in out.splitlines() if "mlflow ui" not in line]


@pytest.mark.parametrize("flags", [(), ("--replay",)])
def test_a_finished_study_repeats_its_result_without_a_call(
    finished: Finished, flags: tuple[str, ...]
) -> None:
    before = frozen(finished.project)
    done = tune(finished.project, finished.endpoint, *flags)  # nobody listens there any more
    assert done.returncode == 0, done.stderr
    assert but_for_mlflow(done.stdout) == but_for_mlflow(finished.done.stdout)
    assert frozen(finished.project) == before
    assert "this is its result again" in done.stderr


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, FakeEndpoint]]:
    """A study that was killed after some 20 calls."""
    project = a_project(tmp_path_factory.mktemp("broken") / "project")
    with fake_endpoint(by_the_request) as endpoint:
        kill_after(project, endpoint, 20)
        yield project, endpoint


def test_a_replay_of_an_unfinished_record_ends_with_a_clear_error(
    broken_off: tuple[Project, FakeEndpoint],
) -> None:
    asked = len(broken_off[1].requests)
    done = tune(*broken_off, "--replay")
    assert done.returncode == 2
    assert "The study is unfinished: no verdict yet." in done.stderr
    assert len(broken_off[1].requests) == asked


def test_a_full_disk_is_a_clear_error_that_damages_nothing(project: Project) -> None:
    """Limit files to 1.5 MB, less than the record needs; then lift the limit."""
    before = frozen(project)
    with fake_endpoint(by_the_request) as endpoint:
        limited = (
            "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, -1));"
            "sys.argv = ['tune', 'experiments/known.toml']; runpy.run_module('lab.tune', run_name='__main__')"
        )
        full = project.run("-c", limited, **settings(endpoint))
        kept, left = count(project, "calls"), frozen(project)
        done = tune(project, endpoint)
    assert full.returncode == 1
    assert "The study's record cannot be read or written." in full.stderr
    assert "Traceback" not in full.stderr
    assert left == before
    assert kept > 5
    assert done.returncode == 0, done.stderr
    assert "Resuming: " in done.stderr


def test_an_unusable_record_is_an_error(project: Project) -> None:
    with fake_endpoint(by_the_request) as endpoint:
        state = project.write(".lab", "a file, where a folder is wanted")
        refused = tune(project, endpoint)
        state.unlink()
        project.write(".lab/calls.db", "no database, but long enough to be taken for a damaged one" * 20)
        damaged = tune(project, endpoint)
    assert (refused.returncode, damaged.returncode) == (1, 1)
    assert endpoint.requests == []
    assert "The study's record cannot be written." in refused.stderr
    assert "The study's record cannot be read or written." in damaged.stderr


def test_a_damaged_optuna_storage_is_an_error_before_the_first_call(project: Project) -> None:
    trials = project.write(".lab/optuna.log", "no journal, but long enough to be taken for one\n" * 20)
    with fake_endpoint(by_the_request) as endpoint:
        damaged = tune(project, endpoint)
        assert endpoint.requests == []
        trials.unlink()
        done = tune(project, endpoint)
    assert damaged.returncode == 1
    assert "Optuna's storage is damaged." in damaged.stderr
    assert "Traceback" not in damaged.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("target", ["absolute", ".lab/optuna.log"])
def test_a_line_and_a_lock_that_a_killed_process_left_are_removed(project: Project, target: str) -> None:
    """The second lock is a dangling link, from a process that named the journal by a relative path."""
    with fake_endpoint(by_the_request) as endpoint:
        kill_after(project, endpoint, 40)
        log = project.folder / ".lab/optuna.log"
        lock = log.with_name("optuna.log.lock")
        lock.unlink(missing_ok=True)  # the kill may have left one itself
        lock.symlink_to(log if target == "absolute" else target)
        os.utime(lock, (0, 0), follow_symlinks=False)
        with log.open("a") as torn:
            torn.write('{"op_code":8,"worker_id":"of a killed pro')
        done = tune(project, endpoint)
    assert done.returncode == 0, done.stderr
    assert len(optuna_trials(project, "holdout")) == 2 * 6


def test_a_replay_of_nothing_is_refused(project: Project) -> None:
    with fake_endpoint(by_the_request) as endpoint:
        done = tune(project, endpoint, "--replay")
    assert done.returncode == 2
    assert "No study of experiments/known.toml was recorded." in done.stderr


def test_a_changed_experiment_is_refused_with_the_difference(
    broken_off: tuple[Project, FakeEndpoint],
) -> None:
    project, endpoint = broken_off
    project.write("experiments/known.toml", EXPERIMENT.replace("max_steps = 4", "max_steps = 5"))
    done = tune(project, endpoint)
    project.write("experiments/known.toml", EXPERIMENT)
    assert done.returncode == 2
    assert "has changed since its study began" in done.stderr
    assert "-task.max_steps = 4" in done.stderr
    assert "+task.max_steps = 5" in done.stderr
    assert "--fresh" in done.stderr


def test_a_changed_experiment_starts_a_new_study_after_a_finished_one_and_says_so(project: Project) -> None:
    with fake_endpoint(by_the_request) as endpoint:
        assert tune(project, endpoint).returncode == 0
        project.write("experiments/known.toml", EXPERIMENT.replace("max_steps = 4", "max_steps = 5"))
        done = tune(project, endpoint)
    assert done.returncode == 0, done.stderr
    assert "The experiment has changed since known-" in done.stderr
    assert "That one does not continue: a change affects its episodes." in done.stderr
    assert count(project, "studies") == 2


def test_a_second_process_is_refused_and_fresh_begins_another(
    broken_off: tuple[Project, FakeEndpoint],
) -> None:
    project, endpoint = broken_off
    calls = count(project, "calls")
    with holding_after(endpoint, 10) as reached:
        first = project.start("-m", "lab.tune", "experiments/known.toml", "--fresh", **settings(endpoint))
        assert reached.wait(TIMEOUT_S)
        second = tune(project, endpoint)
        first.send_signal(signal.SIGKILL)
        first.communicate()
    assert second.returncode == 2
    assert "Another process is working on this experiment's study." in second.stderr
    assert count(project, "studies") == 2
    assert count(project, "calls") > calls


def test_fresh_and_replay_together_are_refused(project: Project) -> None:
    done = project.run("-m", "lab.tune", "--fresh", "--replay")
    assert done.returncode == 2
    assert "mutually exclusive" in done.stderr
