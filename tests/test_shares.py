"""Unusable answers are counted and shown, and a study with only unusable answers stops."""

import html
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from lab.agent.episode import Episode
from lab.agent.step import LONGEST, REASONS, Step, Trouble, Troubles, total, troubles_of
from lab.display.screen import screen
from lab.environments.config import EnvironmentConfig
from lab.errors import LabError
from lab.llm.client import Completion
from lab.llm.settings import ModelChoice
from lab.search.first_answers import FIRST, FirstAnswers, RefusedError, UnusableError, read_stopped
from lab.search.trouble_words import TROUBLES, troubles_brief, troubles_text
from lab.storage.database import Store
from lab.storage.optuna_storage import OptunaStorage
from lab.storage.record import Record
from lab.storage.trials import Trials
from tests.fake_endpoint import Body, FakeEndpoint, Reply, fake_endpoint
from tests.fake_environment import fake_environment, observation
from tests.project import Project
from tests.test_any_environment import EXPERIMENT as VAULT_EXPERIMENT
from tests.test_any_environment import GUESS, RECKON, VAULT
from tests.test_live import _rows as rows
from tests.test_live import standing, trial
from tests.test_resume import EXPERIMENT

IN_FLIGHT = 6


def ended_by(reason: str, text: str = "") -> Reply:
    """An answer with this finish_reason."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    usage = {"prompt_tokens": 10, "completion_tokens": 150, "total_tokens": 160}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "fake", "choices": [choice]}
    return Reply(body=json.dumps({**body, "usage": usage}).encode())


def thinks(_: Body) -> Reply:
    """A model that has used all its tokens before it answers."""
    return ended_by("length")


def storyteller(body: Body) -> bool:
    return "storyteller" in body["messages"][0]["content"]


@dataclass
class Run:
    """The result of a command."""

    code: int
    out: str
    err: str
    calls: int


def run(project: Project, endpoint: FakeEndpoint, *command: str) -> Run:
    before = len(endpoint.requests)
    settings = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "fake", "HF_TOKEN": "k"}
    done = project.run("-m", *command, **settings)
    assert "Traceback" not in done.stderr, done.stderr
    return Run(done.returncode, done.stdout, done.stderr, len(endpoint.requests) - before)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project.make(tmp_path / "project", tracked=True)
    project.write("experiments/known.toml", EXPERIMENT)
    return project


def stops(done: Run, code: int, were: str, why: str) -> None:
    """Check that the study stopped after its first answers, or first episodes of five initial candidates."""
    assert done.code == code, done.err
    told = re.search(
        rf"^All of the first (\d+) answers were {were}\.\n  where: .*\n  why: (.*)\n  try: ",
        done.err,
        re.MULTILINE,
    )
    assert told, done.err
    assert 5 * 4 <= int(told[1]) <= FIRST
    assert why in told[2]
    assert int(told[1]) <= done.calls <= FIRST + 2 * IN_FLIGHT


TUNE = ("lab.tune", "experiments/known.toml")


def test_a_model_that_only_thinks_stops_the_study_until_something_changes(project: Project) -> None:
    frozen = project.folder / "prompts/best.toml"
    before = frozen.read_bytes()
    with fake_endpoint(thinks) as endpoint:
        first = run(project, endpoint, *TUNE)
        stops(first, 3, "empty", "finish_reason=length")
        assert "raise task.max_tokens and baseline.max_tokens" in first.err
        again = run(project, endpoint, *TUNE)
        assert (again.code, again.calls) == (3, 0)
        said = first.err.partition("MLflow did not take")[0]  # it had little time
        assert said.endswith(again.err)
        page = run(project, endpoint, "lab.report", "experiments/known.toml", "--out", "r.html")
        assert page.code == 0, page.err
        assert "answers were empty" in (project.folder / "r.html").read_text()
        project.write("experiments/known.toml", EXPERIMENT.replace("max_tokens = 150", "max_tokens = 300"))
        stops(run(project, endpoint, *TUNE), 3, "empty", "finish_reason=length")
        stops(run(project, endpoint, *TUNE, "--fresh"), 3, "empty", "finish_reason=length")
    assert frozen.read_bytes() == before


def vault(project: Project) -> None:
    project.write("experiments/vault.py", VAULT)
    project.write("prompts/templates/guess.toml", GUESS)
    project.write("prompts/templates/reckon.toml", RECKON)
    text = VAULT_EXPERIMENT.format(place='python = "vault.py:Vault"', judge="mean")
    project.write("experiments/known.toml", text.replace("in_flight = 12", f"in_flight = {IN_FLIGHT}"))


def test_prose_instead_of_json_stops_the_study_and_the_doctor_predicts_it(project: Project) -> None:
    vault(project)
    with fake_endpoint(lambda _: Reply("I turn the dial.")) as endpoint:
        doctor = run(project, endpoint, "lab.doctor", "experiments/known.toml")
        assert doctor.code == 3
        assert re.search(
            r"^FAIL  steps .*were no action.*there is no JSON object in it", doctor.out, re.MULTILINE
        )
        done = run(project, endpoint, *TUNE)
    stops(done, 3, "no action", "there is no JSON object in it")


@contextmanager
def environment(project: Project, reply: str) -> Iterator[None]:
    """An environment that resets, and gives `reply` to every action."""

    def say(request: dict[str, Any], _: object) -> str:
        return observation() if request["type"] == "reset" else reply

    with fake_environment(say) as url:
        text = re.sub(r'python = ".*"', f'url = "{url}"', EXPERIMENT)
        project.write("experiments/known.toml", text)
        yield


def test_an_environment_that_refuses_everything_stops_the_study_with_its_words(project: Project) -> None:
    refusal = '{"type": "error", "data": {"message": "Speak up!", "code": "VALIDATION_ERROR"}}'
    with environment(project, refusal), fake_endpoint() as endpoint:
        doctor = run(project, endpoint, "lab.doctor", "experiments/known.toml")
        done = run(project, endpoint, *TUNE)
    stops(done, 4, "refused by the environment", "Speak up!")
    assert doctor.code == 4
    assert re.search(r"^FAIL  steps .*Speak up!", doctor.out, re.MULTILINE)


def test_rewards_that_are_all_0_are_said_plainly(project: Project) -> None:
    with environment(project, observation("so be it", 0.0)), fake_endpoint() as endpoint:
        done = run(project, endpoint, *TUNE)
    assert done.code == 0, done.err
    assert re.search("All [0-9]+ initial candidates returned 0 in their first episode", done.err)
    assert "Every episode returned 0, so candidates cannot be told apart." in done.out
    assert "unusable" not in done.out
    assert "answers were" not in done.out


@pytest.mark.parametrize("varies", [False, True])
def test_episodes_that_are_copies_of_one_are_named(project: Project, varies: bool) -> None:
    numbers = iter(range(10_000))

    def say(body: Body) -> Reply:
        length = 200 if "storyteller" in str(body["messages"]) else 100
        return Reply("x" * (length + (next(numbers) % 7 if varies else 0)))

    with fake_endpoint(say) as endpoint:
        done = run(project, endpoint, *TUNE)
        run(project, endpoint, "lab.report", "experiments/known.toml", "--out", "page.html")
    assert done.code == 0, done.err
    told = "Each candidate's episodes returned the same"
    assert (told in done.out) is not varies
    page = html.unescape((project.folder / "page.html").read_text(encoding="utf-8"))
    assert (told in page) is not varies


SMALL = (
    EXPERIMENT.replace("max_steps = 4", "max_steps = 1")
    .replace("calls = 240", "calls = 9")
    .replace("headroom = 5", "headroom = 2")
    .replace("candidates = 2\nepisodes = 3", "candidates = 1\nepisodes = 2")
    .replace("episodes = 6", "episodes = 2")
)


def test_a_study_too_small_to_stop_says_it_in_the_verdict(project: Project) -> None:
    project.write("experiments/known.toml", SMALL)
    with fake_endpoint(thinks) as endpoint:
        done = run(project, endpoint, *TUNE)
    assert done.code == 0, done.err
    assert re.search(
        r"^Most of the frozen prompt's holdout answers were unusable: 100 % of 2 answers were empty",
        done.out,
        re.MULTILINE,
    )


def test_a_candidate_without_a_usable_answer_stops_nothing_and_cannot_win(project: Project) -> None:
    """The fallback sentence is longer than any answer here, and so earns more."""
    project.write("experiments/known.toml", EXPERIMENT.replace('"storyteller", "lecturer"', '"storyteller"'))
    with fake_endpoint(lambda body: thinks(body) if storyteller(body) else Reply("x" * 20)) as endpoint:
        done = run(project, endpoint, *TUNE, "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["verdict"]["outcome"] == result["verdict"]["frozen"] == "baseline"
    (finalist,) = result["finalists"]
    assert finalist["difference_interval"][0] > 0
    assert finalist["answers"]["empty"] == finalist["answers"]["fallback"] == 1
    assert re.search(r"trial-\d+ cannot win, .* 100 % of 24 answers", result["verdict"]["cautions"][0])
    assert result["baseline"]["answers"]["empty"] == 0
    troubled = [one for one in result["trials"]["troubled"] if one["answers"]["empty"] == 1]
    assert troubled == result["trials"]["troubled"] != []


@dataclass(frozen=True)
class Mixed:
    """A finished study in which about three of ten answers were empty."""

    project: Project
    progress: str
    summary: str
    result: dict[str, Any]
    report: str
    show: str
    compare: str


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Mixed:
    project = Project.make(tmp_path_factory.mktemp("mixed") / "project", tracked=True)
    project.write("experiments/known.toml", EXPERIMENT)
    asked = iter(range(10_000))

    def script(body: Body) -> Reply:
        number = next(asked)
        if number % 10 in (2, 5, 8):
            return thinks(body)
        return Reply("x" * (300 + number % 7 if storyteller(body) else 100 + number % 7))

    with fake_endpoint(script) as endpoint:
        tuned = run(project, endpoint, *TUNE)
        assert tuned.code == 0, tuned.err
        again = run(project, endpoint, *TUNE, "--json", "--quiet")
        page = run(project, endpoint, "lab.report", "experiments/known.toml", "--out", "page.html")
        shown = run(project, endpoint, "lab.show")
        command = ("lab.compare", "frozen", "baseline", "experiments/known.toml", "--episodes", "10")
        compared = run(project, endpoint, *command)
    assert (again.calls, page.code, shown.code, compared.code) == (0, 0, 0, 0)
    html = (project.folder / "page.html").read_text()
    return Mixed(project, tuned.err, tuned.out, json.loads(again.out), html, shown.out, compared.out)


def percents(text: str, words: str) -> list[int]:
    """The percentages before these words."""
    return [int(one) for one in re.findall(rf"(\d+) % {words}", text)]


def test_shares_are_beside_the_returns_of_a_trials_line_and_the_summary(mixed: Mixed) -> None:
    assert percents(mixed.progress, r"empty\]  template=")
    (whole,) = percents(mixed.summary.split("In the whole study")[1], "of [0-9]+ answers were empty")
    assert 25 <= whole <= 35
    assert mixed.summary.count("answers were empty (finish_reason=length)") >= 2
    assert "unusable" not in mixed.summary


def test_the_documents_shares_are_those_of_the_summary_and_of_the_frozen_file(mixed: Mixed) -> None:
    result, evidence = mixed.result, mixed.result["evidence"]
    whole = result["answers"]
    assert whole["steps"] == result["cost"]["calls"]
    assert 0.25 <= whole["empty"] == whole["fallback"] <= 0.35
    assert whole["no_action"] == whole["refused"] == 0
    assert whole["reasons"] == {"empty": "finish_reason=length"}
    parts = [result["baseline"], *result["finalists"], *result["confirmed"]]
    assert all(one["answers"]["steps"] == 4 * one["episodes"] for one in parts)
    share = round(100 * result["baseline"]["answers"]["empty"])
    assert percents(evidence["baseline_troubles"], "of 24 answers were empty") == [
        pytest.approx(share, abs=1)
    ]
    assert evidence["baseline_troubles"] in mixed.summary
    assert evidence["frozen_troubles"] in mixed.show


def test_the_report_and_the_comparison_have_them_too(mixed: Mixed) -> None:
    assert "Unusable answers" in mixed.report
    assert "In the whole study, " in mixed.report.split('id="caveats"')[1]
    failures = mixed.report.split('id="failures"')[1].split("<section")[0]
    assert re.search(r"Unusable answers: \d+ % of \d+ answers were empty", failures)
    assert len(percents(mixed.compare, "empty")) == 2
    assert len(percents(mixed.compare, r"of 40 answers were empty \(finish_reason=length\)")) == 2


def test_mlflow_has_the_share_of_each_run_and_of_the_study(mixed: Mixed) -> None:
    client = MlflowClient(f"sqlite:///{mixed.project.folder}/mlflow.db")
    (experiment,) = [one for one in client.search_experiments() if one.name == "known"]
    runs = {run.info.run_name: run.data for run in client.search_runs([experiment.experiment_id])}
    parent, baseline = runs[mixed.result["study"]], runs["holdout-baseline"]
    assert parent.metrics["share_empty"] == pytest.approx(mixed.result["answers"]["empty"], abs=1e-5)
    empty = mixed.result["baseline"]["answers"]["empty"]
    assert baseline.metrics["share_empty"] == pytest.approx(empty, abs=1e-5)
    assert baseline.tags["troubles"] == mixed.result["evidence"]["baseline_troubles"]
    assert "share_refused" not in baseline.metrics
    assert mixed.result["evidence"]["frozen_troubles"] in parent.tags["mlflow.note.content"]


# What decides that a study stops, at its edges.

MODEL, PLACE = ModelChoice("http://host/v1", "fake"), EnvironmentConfig(url="http://place")


def step(trouble: Trouble | None, error: str | None = "why", number: int = 1) -> Step:
    answer = Completion("", "length", 1, 1, 0.1)
    return Step(number, "a", "o", 0.0, False, error if trouble else None, answer, trouble=trouble)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "calls.db")
    store.begin("known", "")
    yield store
    store.close()


@pytest.fixture
def trials() -> Trials:
    return Trials(OptunaStorage(None), "known")


def first(store: Store, trials: Trials) -> FirstAnswers:
    return FirstAnswers(record_of(store), trials, MODEL, PLACE, lambda _: None)


def record_of(store: Store) -> Record:
    return Record(store, *(store.latest("known") or ("", "")))


def feed(watched: FirstAnswers, troubles: list[Trouble | None], candidates: int = 2) -> None:
    for place, trouble in enumerate(troubles):
        watched.step(f"candidate-{place % candidates}", step(trouble))


def test_a_usable_answer_among_the_first_is_enough_to_continue(store: Store, trials: Trials) -> None:
    feed(first(store, trials), [*["empty"] * (FIRST - 1), None, *["empty"] * 100])  # type: ignore[list-item]


def test_one_candidate_does_not_stop_a_study_and_two_do(store: Store, trials: Trials) -> None:
    watched = first(store, trials)
    feed(watched, ["empty"] * 100, candidates=1)
    with pytest.raises(UnusableError):
        watched.step("another", step("empty"))


def test_every_worker_and_every_later_command_gives_the_same_error(store: Store, trials: Trials) -> None:
    other = first(store, trials)
    with pytest.raises(RefusedError) as told:
        feed(first(store, trials), ["refused"] * FIRST)
    other.refresh()
    with pytest.raises(RefusedError) as there:
        other.step("candidate-5", step(None))
    assert str(told.value) == str(there.value) == str(read_stopped(trials))


def test_several_kinds_of_trouble_stop_it_as_one_does(store: Store, trials: Trials) -> None:
    with pytest.raises(UnusableError) as told:
        feed(first(store, trials), ["empty", "no_action", "empty"] * (FIRST // 3), candidates=3)
    assert told.value.what == "None of the first 24 answers could be used."
    assert "67 % of 24 answers were empty" in told.value.why
    assert "33 % were no action" in told.value.why


def test_a_usable_answer_of_another_worker_counts(store: Store, trials: Trials) -> None:
    watched = first(store, trials)
    record_of(store).keep_episode("elsewhere", Episode(0, "", (step(None),)))
    watched._record.refresh()
    feed(watched, ["empty"] * 100)


def test_short_first_episodes_that_return_the_same_stop_it_earlier(store: Store) -> None:
    after_returns(store, [0.0, 0.0, 0.5]).look()
    with pytest.raises(LabError, match="All of the first 10 answers"):
        after_returns(store, [0.1 + 0.2, 0.3, 0.3]).look()


def after_returns(store: Store, returns: list[float]) -> FirstAnswers:
    """A study whose initial candidates returned these, after 10 refused actions."""
    trials = Trials(OptunaStorage(None), "known")
    trials.state_fact("opening", len(returns))
    for value in returns:
        trials.report(trials.begin({}, {}, {}), value, 0)
    watched = first(store, trials)
    feed(watched, ["refused"] * 10)
    return watched


def test_a_resumed_study_counts_what_was_played_before(store: Store, trials: Trials) -> None:
    before = record_of(store)
    for seed in range(5):
        before.keep_episode(f"candidate-{seed % 2}", Episode(seed, "", (step("empty"),) * 4))
    with pytest.raises(UnusableError, match="first 24"):
        feed(first(store, trials), ["empty"] * 4)


def test_the_screen_has_a_column_and_a_line_for_them_if_there_are_any() -> None:
    fine, other = trial(1, [10.0, 12.0]), trial(2, [5.0, 6.0])
    bad = Episode(7, "", (step("no_action", "The answer is not a valid action: \x1b[31mno JSON"), step(None)))
    troubled = replace(other, evaluation=replace(other.evaluation, episodes=(bad, bad)))
    shown = screen(standing([fine, troubled]), 120, 24).plain
    head, first, second = rows(shown)
    assert "unusable" in head
    assert "50 %" in second
    assert "%" not in first
    assert r"In the search, 33 % of 6 answers were no action (\x1b[31mno JSON)" in shown
    assert "unusable" not in screen(standing([fine, other]), 120, 24).plain


# Counting and wording.

KINDS: list[Trouble] = ["empty", "no_action", "refused", "no_answer"]

STEPS = st.lists(
    st.builds(step, st.none() | st.sampled_from(KINDS), st.text(max_size=2 * LONGEST) | st.sampled_from("ab"))
)


@given(STEPS)
def test_an_episodes_counts_are_exact_and_its_reasons_few_and_short(steps: list[Step]) -> None:
    troubles = troubles_of(steps)
    assert troubles.steps == len(steps)
    for kind in KINDS:
        assert troubles.share_of(kind) * max(len(steps), 1) == pytest.approx(
            sum(one.trouble == kind for one in steps)
        )
        assert sum(one == kind for one, _, _ in troubles.times) <= REASONS + 1
    assert all(len(reason) <= LONGEST and reason.isprintable() for _, reason, _ in troubles.times)


@given(STEPS, STEPS)
def test_the_whole_is_the_sum_of_its_parts(one: list[Step], other: list[Step]) -> None:
    both = total([troubles_of(one), troubles_of(other)])
    assert both.steps == len(one) + len(other)
    assert both.troubled == sum(step.trouble is not None for step in [*one, *other])


@given(STEPS)
def test_the_words_name_every_kind_once_with_a_share_that_is_never_0(steps: list[Step]) -> None:
    troubles = troubles_of(steps)
    text, brief = troubles_text(troubles), troubles_brief(troubles)
    assert (text == "") == (brief == "") == (not troubles.troubled)
    assert "\n" not in text
    assert len(re.findall(r"(?:^|; )\S+(?: \d+)? % ", text)) >= len(troubles.kinds)
    assert not re.match(r"0 %", text)
    for kind in KINDS:
        assert (kind in troubles.kinds) <= (TROUBLES[kind] in text)
    if troubles.troubled:
        assert f" of {len(steps):,} answer" in text


@pytest.mark.parametrize(
    ("troubles", "text", "brief"),
    [
        (Troubles(400), "", ""),
        (
            Troubles(400, (("empty", "finish_reason=length", 152),)),
            "38 % of 400 answers were empty (finish_reason=length)",
            "38 % empty",
        ),
        (
            Troubles(1, (("refused", "no", 1),)),
            "100 % of 1 answer was refused by the environment (no)",
            "100 % refused",
        ),
        (
            Troubles(1000, (("no_action", "", 2), ("no_action", "no JSON", 1), ("no_answer", "busy", 1))),
            "under 1 % of 1,000 answers were no action (no JSON); under 1 % were missing (busy)",
            "under 1 % no action, under 1 % missing",
        ),
    ],
)
def test_troubles_as_text(troubles: Troubles, text: str, brief: str) -> None:
    assert troubles_text(troubles) == text
    assert troubles_brief(troubles) == brief


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("The answer is not a valid action: there is no JSON object in it", "there is no JSON object in it"),
        ("The environment refused the action: 7 is not a valid Action", "7 is not a valid Action"),
        ("ValueError: 7 is not a valid Action", "ValueError: 7 is not a valid Action"),
        ("a\x1b[31m\n  b", r"a\x1b[31m b"),
    ],
)
def test_a_reason_is_in_the_other_sides_words(error: str, reason: str) -> None:
    assert troubles_of([step("refused", error)]).reason("refused") == reason
