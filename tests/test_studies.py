"""Past studies on the command line: read from their record, by name, and listed."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.experiment.experiment import load_experiment
from lab.llm.client import Completion
from lab.llm.settings import ModelChoice
from lab.storage.database import Store
from lab.storage.keys import PROPOSALS, CallKey
from lab.storage.record import Record
from lab.study.document import document
from tests.fake_endpoint import FakeEndpoint, fake_endpoint
from tests.project import TIMEOUT_S, Project
from tests.test_report import read
from tests.test_resume import (
    EXPERIMENT,
    a_project,
    but_for_mlflow,
    by_the_request,
    frozen,
    holding_after,
    rows,
    start,
    tune,
)

FILE = "experiments/known.toml"


@dataclass(frozen=True)
class Told:
    """Two finished studies of one experiment, the older with another search; their endpoint answers.

    Attributes:
        older, last: Their names.
        results: The output of `lab.tune` for each.
    """

    project: Project
    endpoint: FakeEndpoint
    older: str
    last: str
    results: tuple[str, str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    project = a_project(tmp_path_factory.mktemp("made") / "project")
    with fake_endpoint(by_the_request) as endpoint:
        project.write(FILE, EXPERIMENT.replace("max_steps = 4", "max_steps = 3"))
        older = tune(project, endpoint)
        project.write(FILE, EXPERIMENT)
        last = tune(project, endpoint)
        names = [re.findall(r"Study (\S+) on", done.stderr)[0] for done in (older, last)]
        yield Told(project, endpoint, names[0], names[1], (older.stdout, last.stdout))


@pytest.fixture
def told(made: Told, tmp_path: Path) -> Told:
    """A copy in a separate folder."""
    shutil.copytree(made.project.folder, tmp_path / "project")
    return Told(Project(tmp_path / "project"), made.endpoint, made.older, made.last, made.results)


def command(project: Project, name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command without variables of the model, and check that it prints no traceback."""
    done = project.run("-m", f"lab.{name}", *arguments)
    assert "Traceback" not in done.stderr, done.stderr
    assert "The lab itself failed" not in done.stderr, done.stderr
    return done


def deleted(project: Project) -> str:
    """Delete the experiment and its templates, and return the expected message."""
    (project.folder / FILE).unlink()
    shutil.rmtree(project.folder / "prompts/templates")
    return "The experiment file does not exist."


def changed(project: Project) -> str:
    """Change the experiment and the model's name in it, and return the expected message."""
    text = EXPERIMENT.replace("max_steps = 4", "max_steps = 5").replace('"fake"', '"other"')
    project.write(FILE, text.replace('"storyteller", ', ""))
    return f"{FILE} has changed since"


def broken(project: Project) -> str:
    project.write(FILE, "about = \n")
    return "The experiment cannot be read."


@pytest.mark.parametrize("happens", [deleted, changed, broken])
def test_changes_of_the_file_do_not_affect_the_report_on_its_last_study(
    told: Told, happens: "object"
) -> None:
    before = command(told.project, "report", FILE, "--out", "before.html")
    assert before.returncode == 0, before.stderr
    assert before.stderr == ""
    assert callable(happens)
    said = happens(told.project)
    after = command(told.project, "report", FILE, "--out", "after.html")
    assert after.returncode == 0, after.stderr
    assert said in after.stderr
    assert f"{told.last}" in after.stderr
    assert len(after.stderr.splitlines()) == 1
    pages = [(told.project.folder / name).read_text() for name in ("before.html", "after.html")]
    assert pages[0] == pages[1]
    assert told.last in pages[0]


def test_a_trial_is_played_as_its_study_did_without_the_file_and_without_variables(told: Told) -> None:
    deleted(told.project)
    played = command(told.project, "play", "1", FILE)
    assert played.returncode == 0, played.stderr
    assert f"Playing 1 on fake at {told.endpoint.url}" in played.stdout
    assert played.stdout.count("== Step ") == 4
    older = command(told.project, "play", "baseline", "--study", told.older)
    assert older.returncode == 0, older.stderr
    assert older.stdout.count("== Step ") == 3
    assert older.stderr == ""


def test_two_trials_are_compared_as_their_study_did_though_the_file_has_changed(told: Told) -> None:
    said = changed(told.project)
    done = command(told.project, "compare", "1", "baseline", FILE, "--episodes", "2")
    assert done.returncode == 0, done.stderr
    assert said in done.stderr
    assert "2 episodes each: at most 16 calls" in done.stderr
    older = command(told.project, "compare", "1", "frozen", "--study", told.older, "--episodes", "2")
    assert older.returncode == 0, older.stderr
    assert "at most 12 calls" in older.stderr
    assert "changed" not in older.stderr


def test_no_difference_is_shown_between_studies_of_different_tasks(told: Told) -> None:
    done = command(told.project, "compare", "--study", told.older, "--study", told.last)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(
        "The studies differ in environment, task or judged number: no difference is shown.\n"
    )


def test_an_older_study_prints_its_result_again_unchanged(told: Told) -> None:
    before, asked = frozen(told.project), len(told.endpoint.requests)
    replayed = command(
        told.project, "tune", FILE, "--replay", "--study", told.older, "--out", "prompts/best.toml"
    )
    assert replayed.returncode == 0, replayed.stderr
    assert but_for_mlflow(replayed.stdout) == but_for_mlflow(told.results[0])
    assert told.older in frozen(told.project)
    assert frozen(told.project) != before
    shown = command(told.project, "show", "--study", told.older)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines() == told.results[0].split("Written to ")[0].splitlines()
    table = json.loads(command(told.project, "show", "--study", told.last, "--json").stdout)
    assert (table["study"], table["frozen_file"]) == (told.last, None)
    page = command(told.project, "report", "--study", told.older)
    assert page.stdout.strip() == f".lab/report-{told.older}.html"
    assert len(told.endpoint.requests) == asked


def test_the_claim_is_the_same_sentence_wherever_it_is_shown(told: Told) -> None:
    claim = told.results[1].splitlines()[0]
    assert claim.startswith("Frozen: trial-")
    assert f"  {claim}" in command(told.project, "show").stdout.splitlines()
    document = json.loads(command(told.project, "show", "--study", told.last, "--json").stdout)
    assert document["verdict"]["claim"] == claim
    assert command(told.project, "report", FILE, "--out", "page.html").returncode == 0
    assert claim in read(told.project.folder / "page.html").sections["verdict"]
    notes = rows(told.project, "select value from tags where key = 'mlflow.note.content'", "mlflow.db")
    assert [f"\n\n**{claim}**\n" in str(note) for (note,) in notes].count(True) == 1


def test_changed_code_of_an_environment_is_reported_before_it_is_played(tmp_path: Path) -> None:
    project = a_project(tmp_path / "project").untracked
    code = (
        "from lab.environments.echo.server.echo_environment import EchoEnvironment\n\n\n"
        "class Mine(EchoEnvironment):\n    pass\n"
    )
    mine = project.write("experiments/mine.py", code)
    file = project.write(FILE, re.sub("python = .*", 'python = "mine.py:Mine"', EXPERIMENT))
    with fake_endpoint(by_the_request) as endpoint, closing(Store(project.folder / ".lab/calls.db")) as store:
        text = document(load_experiment(file), ModelChoice(endpoint.url, "fake"), "").as_json()
        name = store.begin("known", text)
        file.unlink()
        same = command(project, "play", "baseline", "--study", name)
        mine.write_text(f"{code}\n\nANOTHER = 1\n")
        other = command(project, "play", "baseline", "--study", name)
        mine.unlink()
        none = command(project, "play", "baseline", "--study", name)
        read = command(project, "report", "--study", name)
    assert (same.returncode, same.stderr) == (0, "")
    assert other.returncode == 0
    assert f"The environment's code has changed since {name}; playing the current code." in other.stderr
    assert none.returncode == 2
    assert "The file does not exist." in none.stderr
    assert read.returncode == 0, read.stderr


def test_calls_of_another_proposing_model_keep_its_prices_without_its_variables(tmp_path: Path) -> None:
    project = a_project(tmp_path / "project").untracked
    proposals = '[proposals]\nproposer = "gepa"\ndollars_in = 12.5\ndollars_out = 0.0\n\n[verdict]'
    prices = 'name = "fake"\ndollars_in = 1.0\ndollars_out = 1.0'
    text = EXPERIMENT.replace("[verdict]", proposals).replace('name = "fake"', prices)
    experiment = load_experiment(project.write(FILE, text))
    kept = document(
        experiment, ModelChoice("http://127.0.0.1:9/v1", "fake"), "other at https://host"
    ).as_json()
    with closing(Store(project.folder / ".lab/calls.db")) as store:
        record = Record(store, store.begin("known", kept), kept)
        call = Completion("a text", "stop", 1_000_000, 0, 1.0)
        asyncio.run(record.keep_call(CallKey(PROPOSALS, "key", 0), "a request", call))
    done = command(project, "report", FILE, "--out", "page.html")
    assert done.returncode == 0, done.stderr
    assert "$12.50" in (project.folder / "page.html").read_text()


READING = {
    "report": ("report",),
    "show": ("show",),
    "play": ("play", "1"),
    "compare": ("compare", "1", "baseline"),
    "tune": ("tune", "--replay"),
}


@pytest.mark.parametrize("arguments", READING.values(), ids=READING)
def test_a_name_that_no_study_has_suggests_the_nearest(made: Told, arguments: tuple[str, ...]) -> None:
    name = made.older.replace("known", "knwon")
    done = command(made.project, *arguments, "--study", name)
    assert done.returncode == 2
    assert f"The study {name!r} does not exist." in done.stderr
    assert re.search(rf"try: did you mean ({made.older}|{made.last})\?", done.stderr)
    assert "python -m lab.studies" in command(made.project, *arguments, "--study", "zzz").stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tune", "--study", "x"), "--study requires --replay"),
        (("show", "prompts/best.toml", "--study", "x"), "--study cannot be combined with FILE"),
    ],
)
def test_a_meaningless_study_name_is_refused(made: Told, arguments: tuple[str, ...], said: str) -> None:
    done = command(made.project, *arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_all_studies_are_listed_the_latest_first(told: Told) -> None:
    with closing(Store(told.project.folder / ".lab/calls.db")) as store:
        begun = store.begin("echo", "not even a document")
    listed = json.loads(command(told.project, "studies", "--json").stdout)
    assert [one["name"] for one in listed] == [begun, told.last, told.older]
    assert [one["state"] for one in listed] == ["unfinished", "finished", "finished"]
    assert [one["experiment"] for one in listed] == ["echo", "known", "known"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", listed[0]["began"])
    table = command(told.project, "studies").stdout.splitlines()
    assert [line.split()[0] for line in table] == ["study", begun, told.last, told.older]
    for one, result in zip(listed[1:], reversed(told.results), strict=True):
        assert f"Cost: {one['calls']} calls in {one['episodes']} whole episodes" in result
        assert one["trials"] > 5
    assert [listed[0][key] for key in ("trials", "episodes", "calls")] == [0, 0, 0]


def test_without_a_study_the_list_is_empty_and_nothing_is_made(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert "No study is recorded" in command(project, "studies").stdout
    assert json.loads(command(project, "studies", "--json").stdout) == []
    assert not (tmp_path / ".lab").exists()


def test_a_study_at_work_is_listed_as_such_and_as_unfinished_once_it_was_killed(tmp_path: Path) -> None:
    project = a_project(tmp_path / "project").untracked
    with fake_endpoint(by_the_request) as endpoint:
        with holding_after(endpoint, 40) as reached:
            process = start(project, endpoint)
            assert reached.wait(TIMEOUT_S)
            (at_work,) = json.loads(command(project, "studies", "--json").stdout)
            process.kill()
            process.communicate()
        (killed,) = json.loads(command(project, "studies", "--json").stdout)
        shown = command(project, "show", "--study", killed["name"])
    assert (at_work["state"], killed["state"]) == ("searching", "unfinished")
    assert at_work["calls"] > 20
    assert shown.returncode == 2
    assert "The study is unfinished: no verdict yet." in shown.stderr
    assert f"python -m lab.report --study {killed['name']}" in shown.stderr


HOSTILE = {
    "nothing": "",
    "no JSON": "not JSON",
    "another format": json.dumps({"format": 3, "episodes": {}}),
    "deep nesting": '{"format": 4, "episodes": ' + "[" * 50_000 + "]" * 50_000 + "}",
    "missing keys": json.dumps({"format": 4}),
    "a part without its keys": "search",
    "no model": "episodes",
    "no proposals": "effort",
    "no file": "source",
    "no templates": "templates",
    "a file that is none": "text",
    "a deeply nested file": "nested",
}

RESUMES = ("effort", "source", "templates", "text", "nested")
"""A setting that a study does not depend on: it resumes with the current value."""


def spoilt(document: str, how: str) -> str:
    """A document with an empty part, or with another text."""
    table = json.loads(document)
    if how in table:
        return json.dumps({**table, how: {}})
    if how in ("text", "nested"):
        text = "seed = \x1b[31m" if how == "text" else "a = " + "[" * 20_000
        return json.dumps({**table, "source": {**table["source"], "text": text}})
    return how


def test_without_a_study_of_an_experiment_the_error_names_one_of_another(told: Told) -> None:
    done = command(told.project, "report", "experiments/smoke.toml")
    assert done.returncode == 2, done.stderr
    assert "No study of experiments/smoke.toml was recorded." in done.stderr
    assert "or add --study known-" in done.stderr


@pytest.mark.parametrize("how", HOSTILE.values(), ids=HOSTILE)
def test_a_document_that_cannot_be_read_is_a_clear_error(told: Told, how: str) -> None:
    with closing(Store(told.project.folder / ".lab/calls.db")) as store:
        latest = store.latest("known")
        assert latest is not None
        name = store.begin("known", spoilt(latest[1], how))
    for arguments in (("report", FILE), ("show", "--study", name), ("tune", FILE, "--replay")):
        done = command(told.project, *arguments)
        assert done.returncode == 2, done.stderr
        assert "The study's document cannot be read" in done.stderr
        assert name in done.stderr
        assert "\x1b" not in done.stderr
        assert len(done.stderr.splitlines()) <= 5
    if how in RESUMES:
        return
    resumed = tune(told.project, told.endpoint)
    assert resumed.returncode == 2, resumed.stderr
    assert "The lab itself failed" not in resumed.stderr
    assert "--fresh" in resumed.stderr
