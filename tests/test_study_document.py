"""Which settings of an experiment may change before its study ends, by phase."""

from pathlib import Path

import pytest

from lab.experiment.experiment import load_experiment
from lab.llm.settings import ModelChoice
from lab.study.document import (
    Reached,
    StudyDocument,
    difference,
    document,
    kept,
    may_become,
    read_document,
)
from tests.echo_server import ROOT
from tests.test_resume import EXPERIMENT

SEARCHING = Reached()
CONFIRMING = Reached(searched=True, confirming=True)
HOLDOUT = Reached(searched=True, confirming=True, holdout=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "prompts").symlink_to(ROOT / "prompts")
    (tmp_path / "experiments").mkdir()
    return tmp_path


def a_document(project: Path, *changes: tuple[str, str], model: str = "fake") -> StudyDocument:
    text = EXPERIMENT
    for before, now in changes:
        assert before in text
        text = text.replace(before, now)
    path = project / "experiments/known.toml"
    path.write_text(text)
    return document(load_experiment(path), ModelChoice("http://127.0.0.1:1/v1", model), "")


TWO = 'endpoint = "https://{}/v1"\nname = "m"\n\n'
MODELS = (
    (
        '[model]\nendpoint = "embedded"\nname = "fake"\n',
        f"[models.a]\n{TWO.format('a')}[models.b]\n{TWO.format('b')}",
    ),
    ("[baseline]", '[baseline]\nmodel = "a"'),
    ("[space]", '[space]\nmodel = ["a", "b"]'),
)


def test_a_model_may_be_added_and_not_changed(project: Path) -> None:
    alone, both = (a_document(project, *MODELS[:last]) for last in (2, 3))
    moved = a_document(project, *MODELS, ("https://b/", "https://c/"))
    priced = a_document(project, *MODELS, ('https://b/v1"', 'https://b/v1"\ndollars_in = 1.0'))
    assert may_become(alone, both, SEARCHING)
    assert not may_become(alone, both, CONFIRMING)
    assert may_become(both, priced, HOLDOUT)
    for now in (alone, moved):
        assert not may_become(both, now, SEARCHING)
    assert "+models.b.endpoint" in "\n".join(difference(alone, both))
    assert read_document(both.as_json()) == both


FREE = {
    "a budget": ("calls = 240", "calls = 300\ntokens = 100_000"),
    "a lower budget": ("calls = 240", "calls = 100"),
    "prices": ('name = "fake"', 'name = "fake"\ndollars_in = 1.0\ndollars_out = 2.0'),
    "patience and rates": ('name = "fake"', 'name = "fake"\ntimeout_s = 5.0\nrequests_per_minute = 60'),
    "in_flight": ("in_flight = 6", "in_flight = 32"),
    "about": ("one template is better", "another text"),
    "a comment": ("[space]", "# why not\n[space]"),
    "tracking": ("traces = 0", "traces = 3"),
    "a time limit": ("[task]", "step_timeout_s = 5.0\n\n[task]"),
}
WIDER = {
    "a template": ('"lecturer"]', '"lecturer", "manual"]'),
    "a range": ("low = 0.5", "low = 0.2"),
    "another setting": ("[space]", "[space]\ntop_p = [1.0, 0.9]"),
    "more episodes": ("episodes = 4\nheadroom", "episodes = 8\nheadroom"),
    "the error rate": ("headroom = 5", "headroom = 5\nerror_rate = 0.2"),
}
FIXED = {
    "the task": ("max_steps = 4", "max_steps = 5"),
    "the score": ("success_score = 0.1", 'success_score = 0.1\nscore = "last"'),
    "the baseline": ("history = 1", "history = 2"),
    "the seeds": ("[environment]", "seed = 7\n\n[environment]"),
    "what is shown": ('text = "echoed_message"', 'text = "echoed_message"\nlongest = 50'),
    "the objective": ("[search]", '[objective]\nmaximise = "score"\n\n[search]'),
    "a narrower range": ("high = 1.0", "high = 0.9"),
    "a template less": ('"storyteller", "lecturer"]', '"storyteller"]'),
    "fewer episodes": ("episodes = 4\nheadroom", "episodes = 2\nheadroom"),
}


@pytest.mark.parametrize("change", FREE.values(), ids=FREE)
@pytest.mark.parametrize("reached", [SEARCHING, HOLDOUT])
def test_settings_that_no_episode_depends_on_may_change_at_any_time(
    project: Path, change: tuple[str, str], reached: Reached
) -> None:
    assert may_become(a_document(project), a_document(project, change), reached)


@pytest.mark.parametrize("change", WIDER.values(), ids=WIDER)
def test_the_search_may_be_widened_while_it_runs(project: Path, change: tuple[str, str]) -> None:
    before, now = a_document(project), a_document(project, change)
    assert may_become(before, now, SEARCHING)
    assert not may_become(before, now, Reached(searched=True))


@pytest.mark.parametrize("change", FIXED.values(), ids=FIXED)
def test_the_inputs_of_an_episode_never_change(project: Path, change: tuple[str, str]) -> None:
    assert not may_become(a_document(project), a_document(project, change), SEARCHING)


def test_another_model_or_another_text_is_another_study(project: Path) -> None:
    before = a_document(project)
    assert not may_become(before, a_document(project, model="other"), SEARCHING)
    (project / "prompts").unlink()
    templates = project / "prompts/templates"
    templates.mkdir(parents=True)
    for path in (ROOT / "prompts/templates").glob("*.toml"):
        text = path.read_text()
        changed = text.replace("You", "We", 1) if path.stem == "lecturer" else text
        (templates / path.name).write_text(changed)
    assert not may_become(before, a_document(project), SEARCHING)


def test_confirmation_and_holdout_may_change_until_they_start(project: Path) -> None:
    before = a_document(project)
    confirmation = a_document(project, ("candidates = 2\nepisodes = 3", "candidates = 3\nepisodes = 4"))
    holdout = a_document(project, ("[verdict]\nepisodes = 6", "[verdict]\nepisodes = 12\nconfidence = 0.9"))
    assert may_become(before, confirmation, Reached(searched=True))
    assert not may_become(before, confirmation, CONFIRMING)
    assert may_become(before, holdout, CONFIRMING)
    assert not may_become(before, holdout, HOLDOUT)


def test_a_document_comes_back_from_the_store_as_it_was(project: Path) -> None:
    written = a_document(project)
    assert read_document(written.as_json()) == written
    for other in ("", "format 2\nmodel fake", "{}", "[1, 2]", '{"format": 2}'):
        assert read_document(other) is None


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.toml")), ids=lambda path: path.stem)
def test_an_experiment_is_read_from_its_document_as_from_its_file(path: Path) -> None:
    experiment, model = load_experiment(path), ModelChoice("https://u:canary@host/v1?key=canary", "big")
    text = document(experiment, model, "other at https://host").as_json()
    assert "canary" not in text
    was = kept(text, "a study", ROOT)
    assert was == (experiment, ModelChoice("https://host/v1", "big"), "other at https://host")


def test_an_environments_code_is_recorded_and_not_run_by_reading(project: Path) -> None:
    (project / "experiments/mine.py").write_text("raise SystemExit('it was run')\n")
    place = '"lab.environments.echo.server.echo_environment:EchoEnvironment"'
    before = a_document(project, (place, '"mine.py:Mine"'))
    (project / "experiments/mine.py").unlink()
    experiment, _, _ = kept(before.as_json(), "a study", project)
    assert experiment.environment.python == "experiments/mine.py:Mine"
    assert experiment.code == {"experiments/mine.py": "raise SystemExit('it was run')\n"}


def test_no_token_of_an_address_is_kept(project: Path) -> None:
    text = a_document(
        project,
        ('endpoint = "embedded"', 'endpoint = "https://host/v1?token=canary"'),
        ('python = "lab.environments', 'url = "http://host/play?token=canary" # "lab.environments'),
    ).as_json()
    assert "canary" not in text
    experiment, _, _ = kept(text, "a study", project)
    assert experiment.environment.url == "http://host/play"


def test_comments_are_kept_and_not_compared(project: Path) -> None:
    before, now = a_document(project), a_document(project, ("[space]", "# why not\n[space]"))
    assert before == now
    assert before.as_json() != now.as_json()
    assert difference(before, now) == []
