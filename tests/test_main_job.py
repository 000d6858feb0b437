"""A study on real parts (embedded model, OpenEnv, Optuna, MLflow), and the submission of its result."""

import sqlite3
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import pytest

from lab.submission.contract import unescape
from lab.submission.frozen import FrozenPrompt, read_frozen
from tests.echo_server import echo_server
from tests.project import TIMEOUT_S, Project
from tests.test_inference import checked


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the tuned smoke experiment."""
    project = Project.make(tmp_path_factory.mktemp("real") / "project")
    (project.folder / "prompts/best.toml").unlink()
    done = project.afresh.run("-m", "lab.tune", "experiments/smoke.toml")
    assert done.returncode == 0, done.stderr
    assert "Written to prompts/best.toml" in done.stdout
    return project


@pytest.fixture(scope="module")
def frozen(project: Project) -> FrozenPrompt:
    return read_frozen(project.folder / "prompts/best.toml")


def test_the_frozen_prompt_carries_the_real_runs_evidence(frozen: FrozenPrompt) -> None:
    assert frozen.model.endpoint == "embedded"
    assert frozen.evidence.episodes == 6
    assert frozen.evidence.frozen_return > 0
    assert (4 + 2 + (1 + 1) * 6) * 5 <= frozen.provenance.calls <= 165
    assert frozen.provenance.completion_tokens > 500
    low, high = frozen.evidence.baseline_interval
    assert low < frozen.evidence.baseline_return < high


def test_every_trial_is_tracked(project: Project) -> None:
    with sqlite3.connect(project.folder / "mlflow.db") as database:
        names = {row[0] for row in database.execute("select name from runs where status = 'FINISHED'")}
    assert {"baseline", "trial-001", "trial-002", "holdout-baseline"} <= names


def test_the_submission_plays_it_on_the_embedded_model_and_leaves_nothing_running(project: Project) -> None:
    done = project.run("inference.py")
    start, steps, end = checked(done.stdout)
    assert start[3] == "SmolLM2-135M-Instruct"
    assert len(steps) == 5
    assert end[1] == "true"
    assert all(float(step[3]) == pytest.approx(len(unescape(step[2])) * 0.1, abs=0.005) for step in steps)
    assert done.returncode == 0
    assert done.stderr == ""
    assert_gone(project.folder)


def test_the_submission_plays_over_a_real_server_and_a_real_endpoint(
    project: Project, local_model_url: str
) -> None:
    with echo_server() as url:
        done = project.run(
            "inference.py",
            ENV_BASE_URL=url,
            API_BASE_URL=local_model_url,
            MODEL_NAME="SmolLM2-135M-Instruct",
        )
    _, steps, end = checked(done.stdout)
    assert len(steps) == 5
    assert end[1] == "true"
    assert done.returncode == 0


def test_start_takes_less_than_a_second_of_cpu(project: Project) -> None:
    """START is out after 0.2 s on an idle machine; by the clock, it depends on what else the machine does."""
    process = project.start("inference.py", API_BASE_URL="http://127.0.0.1:9/v1", MODEL_NAME="m")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("[START]")
    before = getrusage(RUSAGE_CHILDREN)
    process.kill()
    process.communicate()
    after = getrusage(RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def assert_gone(folder: Path) -> None:
    """Check that no process still has the project as its working directory."""
    deadline = time.monotonic() + TIMEOUT_S
    while left := [pid for pid in Path("/proc").glob("[0-9]*") if cwd(pid) == str(folder)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def cwd(process: Path) -> str:
    try:
        return str((process / "cwd").readlink())
    except OSError:
        return ""
