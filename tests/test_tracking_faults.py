"""Items that MLflow rejects, loses or never answers: listed with the result, logged again from the record."""

import json
import multiprocessing
import re
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lab.tracking.database import is_half_made, prepare
from lab.tracking.metrics import LONGEST, cut, safe_name
from lab.tracking.missed import Missed
from tests.fake_endpoint import Body, FakeEndpoint, Reply, fake_endpoint
from tests.fake_environment import fake_environment, observation
from tests.project import TIMEOUT_S, Project
from tests.test_tune import EXPERIMENT

SMALL = (
    EXPERIMENT.replace("max_steps = 4", "max_steps = 1")
    .replace("calls = 300", "calls = 60")
    .replace("candidates = 3\nepisodes = 4", "candidates = 2\nepisodes = 4")
    .replace("finalists = 2\nepisodes = 8", "finalists = 1\nepisodes = 6")
)
"""A study of a few seconds."""

NAME = "it's 100% ünusual`"
"""An experiment's name that MLflow's filters, tags and prompts reject, each for another character."""

TASKS = '\n[[tasks]]\nname = "near"\n\n[[tasks]]\nname = ".."\n'


def command(
    project: Project, endpoint: FakeEndpoint, *arguments: str, **settings: str
) -> tuple[int, str, str]:
    done = project.run("-m", *arguments, API_BASE_URL=endpoint.url, MODEL_NAME="fake", **settings)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def storyteller_is_best(body: Body) -> Reply:
    long = "storyteller" in body["messages"][0]["content"]
    return Reply("x" * (200 if long else 100) + "y" * (time.monotonic_ns() // 1000 % 20))


def rows(database: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database)) as opened:
        return opened.execute(query).fetchall()


RUNS = "select name, status, lifecycle_stage from runs order by name"
FIGURES = (
    "select name, key, value from runs join latest_metrics using (run_uuid)"
    " where key not in ('contenders', 'search_return', 'search_leader_return') order by 1, 2"
)
PARAMS = "select name, key, value from runs join params using (run_uuid) order by 1, 2"


def test_a_rejected_item_affects_no_other_is_reported_and_can_be_logged_again(tmp_path: Path) -> None:
    """An experiment with an odd name, deleted in MLflow, freezes a prompt that the registry rejects."""
    project = Project.make(tmp_path / "project")
    project.write(f"experiments/{NAME}.toml", SMALL.replace("\n[model]", f"{TASKS}\n[model]", 1))
    template = project.folder / "prompts/templates/storyteller.toml"
    text = template.read_text()
    template.write_text(text.replace("storyteller", "storyteller " + "and more " * 13_400, 1))
    store = project.folder / "mlflow.db"
    client = MlflowClient(f"sqlite:///{store}")
    client.delete_experiment(client.create_experiment(NAME))
    file = f"experiments/{NAME}.toml"
    with fake_endpoint(storyteller_is_best) as endpoint:
        code, out, err = command(project, endpoint, "lab.doctor", file)
        assert f"{NAME} was deleted there; the next study restores it" in out
        code, out, err = command(project, endpoint, "lab.tune", file, "--json")
        assert code == 0, err
        assert f"experiment {NAME!r} was deleted in MLflow; restoring it" in err or NAME in err
        (untracked,) = json.loads(out)["untracked"]
        assert re.match(r"the frozen prompt in the registry: MlflowException: .*exceeds max", untracked)
        assert "MLflow did not take the frozen prompt in the registry" in err
        runs, figures, params = (rows(store, query) for query in (RUNS, FIGURES, PARAMS))
        assert {tuple(run[1:]) for run in runs} == {("FINISHED", "active")}
        assert {"baseline", "trial-001", "holdout-baseline"} <= {run[0] for run in runs}
        named = {str(key) for _, key, _ in figures if str(key).startswith("return_mean/")}
        assert len(named) == 2
        code, out, err = command(project, endpoint, "lab.tune", file, "--quiet")  # prints the result again
        assert (code, err) == (0, "")
        assert "mlflow ui" not in out
        assert "MLflow rejected some items:\n  the frozen prompt in the registry: " in out
        (again,) = re.findall(r"python -m (lab\.report .*) --mlflow   logs them again", out)
        assert rows(store, RUNS) == runs
        store.unlink()
        asked = len(endpoint.requests)
        code, out, err = command(project, endpoint, "lab.report", file, "--mlflow")
        assert (code, out) == (1, "")
        assert "why: the frozen prompt in the registry: " in err
        assert again == "lab.report 'experiments/it'\"'\"'s 100% ünusual`.toml'"
        assert len(endpoint.requests) == asked
    assert (rows(store, RUNS), rows(store, FIGURES), rows(store, PARAMS)) == (runs, figures, params)
    assert list((project.folder / "mlruns").glob("*/*/artifacts/report.html"))


def test_many_equal_failures_are_one_line() -> None:
    warned: list[str] = []
    missed = Missed(warned.append)
    for number in range(40):
        missed.add(f"traces of trial-{number}", OSError(f"No space for run {number:032x}"))
    missed.add("report.html", ValueError("another"))
    missed.add("best.toml", ValueError("once"))
    missed.took("best.toml")
    first, second = missed.lines
    assert first.startswith("traces of trial-0, traces of trial-1 and 38 more: OSError: No space for run 0")
    assert second == "report.html: ValueError: another"
    assert len(warned) == 3


@contextmanager
def making(make: Callable[[str], None], path: Path, file: Path, tables: int) -> Iterator[None]:
    """A process that creates a database at `path`, killed when `file` has this many tables."""
    child = multiprocessing.get_context("fork").Process(target=make, args=(f"sqlite:///{path}",))
    child.start()
    while child.is_alive():
        if file.exists() and _tables(file) >= tables:
            break
    child.kill()
    child.join()
    yield


def _tables(file: Path) -> int:
    try:
        return len(rows(file, "select name from sqlite_master where type = 'table'"))
    except sqlite3.OperationalError:  # at this moment it is being written
        return 0


def in_place(uri: str) -> None:
    """Create a database as MLflow does."""
    MlflowClient(uri).search_experiments(max_results=1)


def ours(uri: str) -> None:
    prepare(uri, lambda _: None)


@pytest.mark.parametrize("tables", [0, 15, 30])
def test_a_database_left_incomplete_by_a_kill_is_detected_and_replaced(
    tmp_path: Path, tables: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.tracking.database.STILL_S", 0.5)
    path, said = tmp_path / "a folder/mlflow.db", list[str]()
    path.parent.mkdir()
    with making(in_place, path, path, tables):
        assert is_half_made(path)
    prepare(f"sqlite:///{path}", said.append)
    (line,) = said
    assert "mlflow.db.broken-1" in line
    assert not is_half_made(path)
    client = MlflowClient(f"sqlite:///{path}")
    client.create_experiment("kept")
    prepare(f"sqlite:///{path}", said.append)  # whole now, and left alone
    assert client.get_experiment_by_name("kept") is not None
    assert len(said) == 1


@pytest.mark.parametrize("tables", [1, 30])
def test_a_kill_while_the_lab_creates_the_database_leaves_no_database(tmp_path: Path, tables: int) -> None:
    path, said = tmp_path / "mlflow.db", list[str]()
    with making(ours, path, Path(f"{path}.new"), tables):
        assert not path.exists()
    prepare(f"sqlite:///{path}", said.append)
    assert [one.name for one in MlflowClient(f"sqlite:///{path}").search_experiments()] == ["Default"]
    assert said == []


def test_a_database_with_runs_is_never_moved_whatever_its_schema(tmp_path: Path) -> None:
    """An older MLflow's database is out of date, not incomplete."""
    path, said = tmp_path / "mlflow.db", list[str]()
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table alembic_version (version_num text)")
        database.execute("create table experiments (name text)")
        database.execute("insert into experiments values ('Default')")
        database.commit()
    prepare(f"sqlite:///{path}", said.append)
    assert said == []
    assert rows(path, "select name from experiments") == [("Default",)]


def test_the_commands_handle_an_incomplete_database_and_unwritable_artifacts(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project")
    project.write("experiments/known.toml", SMALL)
    project.write("mlruns", "a file, where MLflow wants a folder")
    store = project.folder / "mlflow.db"
    with making(in_place, store, store, 20), fake_endpoint(storyteller_is_best) as endpoint:
        code, out, _ = command(project, endpoint, "lab.doctor", "experiments/known.toml")
        assert code == 2
        assert re.search(r"^FAIL +MLflow store +MLflow's database is incomplete", out, re.MULTILINE)
        code, out, err = command(project, endpoint, "lab.tune", "experiments/known.toml")
        assert code == 0, err
        assert "was incomplete after a kill: moved to" in err
        assert (project.folder / "mlflow.db.broken-1").exists()
        told = out[out.index("MLflow rejected some items:") :]
        assert re.search(
            r"^  experiment\.toml, prompt\.txt of .* and \d+ more: \w+Error: ", told, re.MULTILINE
        )
        assert "mlflow ui" not in out
        assert len(rows(store, "select name from runs where name like 'holdout-%'")) == 2
        (project.folder / "mlruns").unlink()
        code, out, err = command(project, endpoint, "lab.report", "experiments/known.toml", "--mlflow")
        assert code == 0, err
        assert out.startswith("Logged to MLflow: known-")
    assert list((project.folder / "mlruns").glob("*/*/artifacts/best.toml"))


@contextmanager
def silent_server() -> Iterator[tuple[str, threading.Event]]:
    """A server that accepts connections and never answers; the event is set by the first request."""
    asked, held = threading.Event(), list[socket.socket]()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hold() -> None:
            while True:
                try:
                    held.append(listening.accept()[0])
                except OSError:
                    return
                asked.set()

        threading.Thread(target=hold, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
        listening.shutdown(socket.SHUT_RDWR)
    for one in held:
        one.close()


def test_a_silent_server_does_not_hold_a_stopped_study_and_the_next_command_logs_it(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project")
    project.write("experiments/known.toml", SMALL)
    released = threading.Event()

    def script(body: Body) -> Reply:
        if len(endpoint.requests) > 30:  # the study lasts until it is stopped
            released.wait(120)
        return storyteller_is_best(body)

    with fake_endpoint(script) as endpoint, silent_server() as (url, asked):
        settings = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "fake"}
        study = project.start(
            *("-m", "lab.tune", "experiments/known.toml"), **settings, MLFLOW_TRACKING_URI=url
        )
        assert asked.wait(90)
        study.send_signal(signal.SIGTERM)
        began_s = time.monotonic()
        _, err = study.communicate(timeout=TIMEOUT_S)
        assert time.monotonic() - began_s < 40  # 8 on a machine that has time; without a bound it is over 60
        assert study.returncode == 130
        assert err.index("Stopped. All calls") < err.index("MLflow did not answer in time")
        assert not (project.folder / "mlflow.db").exists()
        released.set()
        code, out, err = command(project, endpoint, "lab.tune", "experiments/known.toml")
    assert code == 0, err
    assert "  mlflow ui  " in out
    shown = set(re.findall(r"^. (trial-\d+|baseline)", err, re.MULTILINE))
    logged = {str(name) for (name,) in rows(project.folder / "mlflow.db", "select name from runs")}
    assert shown <= logged


def test_a_wait_for_a_silent_server_is_announced_and_ctrl_c_gives_the_result(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project")
    project.write("experiments/known.toml", SMALL)
    with fake_endpoint(storyteller_is_best) as endpoint, silent_server() as (url, _):
        study = project.start(
            *("-m", "lab.tune", "experiments/known.toml", "--json"),
            **{"API_BASE_URL": endpoint.url, "MODEL_NAME": "fake", "MLFLOW_TRACKING_URI": url},
        )
        assert study.stderr is not None
        assert any("Waiting up to 60 s for MLflow" in line for line in study.stderr)
        study.send_signal(signal.SIGINT)
        out, _ = study.communicate(timeout=50)
    assert study.returncode == 0
    told = json.loads(out)
    assert told["verdict"]["outcome"]
    assert all(line.endswith("MLflow did not answer in time") for line in told["untracked"])
    assert (project.folder / "prompts/best.toml").exists()


def test_a_large_observation_is_warned_about_once_recorded_whole_and_cut_for_mlflow(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "project")
    large = "abc " * 75_000

    def say(request: dict[str, object], _: object) -> str:
        step = request["type"] == "step"
        return observation(large, 1.0 if step else 0.0, step)

    with fake_environment(say) as where, fake_endpoint(storyteller_is_best) as endpoint:
        text = SMALL.replace("[environment]", f'[environment]\nurl = "{where}"')
        project.write("experiments/known.toml", re.sub(r"python = .*\n", "", text))
        code, _, err = command(project, endpoint, "lab.tune", "experiments/known.toml")
    assert code == 0, err
    assert err.count("An observation has 300,000 characters") == 1
    assert "set longest under [environment]" in err
    longest = "select max(length(episode)) from episodes where episode like '%abc abc%'"
    ((recorded,),) = rows(project.folder / ".lab/calls.db", longest)
    assert isinstance(recorded, int)
    assert recorded > 600_000
    written = [*(project.folder / "mlruns").glob("*/*/artifacts/episodes.json")]
    assert written
    for file in written:
        for episode in json.loads(file.read_text()):
            assert len(episode["opening"]) <= LONGEST
            assert episode["opening"].endswith(" characters more]")
    ((span,),) = rows(project.folder / "mlflow.db", "select max(length(content)) from spans")
    assert isinstance(span, int)
    assert 20_000 < span < 100_000


def test_names_and_texts_are_fitted_to_what_mlflow_takes() -> None:
    assert safe_name("echo.v2_x-1") == "echo.v2_x-1"
    assert re.fullmatch(r"it-s-[0-9a-f]{6}", safe_name("it's"))
    assert len({safe_name(name) for name in ("日本", "中国", "--")}) == 3
    assert cut("a" * 6_000, 6_000) == "a" * 6_000
    assert len(cut("a" * 100_000, 6_000)) <= 6_000
    assert cut("a" * 100, 60) == "a" * 20 + " [... 80 characters more]"
