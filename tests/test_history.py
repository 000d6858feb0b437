"""A study read back from its record: the same trials and verdict, without a call."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.errors import ConfigError
from lab.study.past_study import Which, reading
from lab.verdict.outcome import Outcome
from tests.fake_endpoint import fake_endpoint
from tests.project import Project
from tests.test_resume import a_project, by_the_request, kill_after, settings

COMMAND = ("-m", "lab.tune", "experiments/known.toml")


@contextmanager
def at(folder: Path, monkeypatch: pytest.MonkeyPatch, **environ: str) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        for name, value in environ.items():
            patch.setenv(name, value)
        yield


async def read(folder: Path) -> tuple[list[str], Outcome | None]:
    with reading(Which(folder / "experiments/known.toml")) as past:
        assert past.trial("baseline").candidate == past.experiment.baseline
        assert past.trial("1") == past.trial("trial-001")
        with pytest.raises(ConfigError, match="The study has no trial 'trial-999'"):
            past.trial("999")
        return [trial.name for trial in past.trials], past.outcome


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return a_project(tmp_path / "project").untracked


def test_a_finished_study_is_read_back_completely(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_endpoint(by_the_request) as endpoint:
        done = project.run(*COMMAND, **settings(endpoint))
        assert done.returncode == 0, done.stderr
        asked = len(endpoint.requests)
        with at(project.folder, monkeypatch, **settings(endpoint)):
            names, outcome = asyncio.run(read(project.folder))
        assert len(endpoint.requests) == asked
    assert outcome is not None
    assert outcome.verdict.winner is not None
    assert outcome.verdict.winner.trial.name in done.stdout
    assert set(names) == set(re.findall(r"^. (trial-\d+|baseline)", done.stderr, re.MULTILINE))


def test_an_unfinished_study_has_trials_and_no_outcome(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_endpoint(by_the_request) as endpoint:
        kill_after(project, endpoint, 60)
        with at(project.folder, monkeypatch, **settings(endpoint)):
            names, outcome = asyncio.run(read(project.folder))
    assert outcome is None
    assert "baseline" in names
