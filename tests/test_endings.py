"""How studies end and resume: budgets that run out, raised limits, an early Ctrl-C, files in the way."""

import json
import re
import signal
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.agent.episode import FailedEpisode
from lab.errors import CallError
from lab.storage.database import Store
from lab.storage.keys import CONFIRMATION, HOLDOUT
from lab.storage.record import Record
from lab.submission.frozen import read_frozen
from tests.fake_endpoint import Body, FakeEndpoint, Reply, fake_endpoint
from tests.project import TIMEOUT_S, Project
from tests.test_resume import (
    EXPERIMENT,
    a_project,
    by_the_request,
    count,
    frozen,
    kill_after,
    load,
    rows,
    settings,
    start,
    tune,
)
from tests.test_tune import champion, is_proposal

TOKENS = EXPERIMENT.replace("calls = 240", "tokens = 3600")
"""15 tokens per call, before answers become longer."""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return a_project(tmp_path / "project").untracked


def write(project: Project, *changes: tuple[str, str], text: str = EXPERIMENT) -> None:
    for before, now in changes:
        assert before in text
        text = text.replace(before, now)
    project.write("experiments/known.toml", text)


def dearer_after(calls: int, tokens: int) -> Callable[[Body], Reply]:
    """Answers that report more tokens after `calls` calls."""
    made, lock = [0], threading.Lock()

    def script(body: Body) -> Reply:
        reply = by_the_request(body)
        with lock:
            made[0] += 1
            reply.prompt_tokens += tokens if made[0] > calls else 0
        return reply

    return script


def confirmed(project: Project) -> int:
    """Number of ended episodes of the confirmation."""
    if not (project.folder / ".lab/calls.db").exists():
        return 0
    seeds = [int(str(seed)) for (seed,) in rows(project, "select seed from episodes")]
    return sum(CONFIRMATION <= seed < HOLDOUT for seed in seeds)


SHORT = '''
from lab.environments.echo.server.echo_environment import EchoEnvironment

class Short(EchoEnvironment):
    """An echo environment whose episodes end after one to three steps."""

    def reset(self, seed=None, episode_id=None, **kwargs):
        self._most = 1 + (seed or 0) % 3
        return super().reset()

    def step(self, action, timeout_s=None, **kwargs):
        seen = super().step(action)
        seen.done = self.state.step_count >= self._most
        return seen
'''


ENDS_EARLY = (
    ("lab.environments.echo.server.echo_environment:EchoEnvironment", "short:Short"),
    ("max_steps = 4", "max_steps = 20"),
    ("max_return = 120.0", "max_return = 600.0"),
)


def test_the_minutes_of_the_verdict_are_estimated_for_episodes_as_long_as_those_played(
    project: Project,
) -> None:
    """At most 2,520 calls, of which about 252 are made."""
    project.write("short.py", SHORT)
    one_after_another = ("in_flight = 6", "in_flight = 1")
    write(project, *ENDS_EARLY, one_after_another, ("calls = 240", "minutes = 0.1"), ("= 6", "= 60"))
    with fake_endpoint(by_the_request) as endpoint:
        done = tune(project, endpoint)
    assert done.returncode == 0, done.stderr
    assert "the verdict will take about 1 more minute." in done.stderr


BETTER_IS_LONGER = SHORT.replace(
    "one to three steps", "three steps, or twelve if its answers are long"
).replace(
    "self.state.step_count >= self._most", "self.state.step_count >= (12 if len(action.message) > 150 else 3)"
)


@pytest.mark.parametrize("environment", [SHORT, BETTER_IS_LONGER])
def test_the_search_uses_the_calls_that_short_episodes_leave(project: Project, environment: str) -> None:
    """Those of the verdict too: `max_steps` of its episodes are 360 calls."""
    project.write("short.py", environment)
    write(project, *ENDS_EARLY, ("calls = 240", "calls = 500"))
    with fake_endpoint(by_the_request) as endpoint:
        done = tune(project, endpoint)
    assert done.returncode == 0, done.stderr
    assert 500 - 360 / 2 < count(project, "calls") <= 500
    assert confirmed(project) == 2 * 3
    assert tomllib.loads(frozen(project))["evidence"]["episodes"] == 6


def test_of_a_rung_that_does_not_fit_the_search_plays_as_much_as_does(project: Project) -> None:
    last = "in_flight = 6", "in_flight = 1"
    fewer = "temperature = { low = 0.5, high = 1.0 }", "temperature = [0.5, 0.7]"
    longer = "\nepisodes = 4", "\nepisodes = 64"
    write(project, last, fewer, longer, ("calls = 240", "calls = 400"))  # six candidates: rungs up to 32
    with fake_endpoint(by_the_request) as endpoint:
        done = tune(project, endpoint)
    assert done.returncode == 0, done.stderr
    assert count(project, "calls") == 400


def test_a_round_of_proposals_that_the_limit_interrupts_is_made_once_it_is_raised(project: Project) -> None:
    proposals = '[proposals]\nproposer = "gepa"\nrounds = 1\ntexts = 1\n\n[confirmation]'
    text = EXPERIMENT.replace("[confirmation]", proposals)

    def writes_nothing(body: Body) -> Reply:
        """An empty text goes back to the proposer, whose first try has cost all tokens."""
        if is_proposal(body):
            return Reply("```\n```", prompt_tokens=10**6)
        return by_the_request(body)

    write(project, ("calls = 240", "calls = 240\ntokens = 20_000"), text=text)
    with fake_endpoint(writes_nothing) as endpoint:
        assert tune(project, endpoint).returncode == 5
        endpoint.script = champion
        write(project, ("calls = 240", "calls = 240\ntokens = 1_000_000_000"), text=text)
        done = tune(project, endpoint)
    assert done.returncode == 0, done.stderr
    assert "Round 1 of proposals: gepa-1-0" in done.stderr


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("tokens = 40", "The budget is used up."),
        ("tokens = 100", "The search ended before any candidate had played a whole episode."),
    ],
)
def test_a_search_that_had_room_for_no_candidate_resumes_once_the_limit_is_raised(
    project: Project, limit: str, said: str
) -> None:
    write(project, ("calls = 240", limit), ("in_flight = 6", "in_flight = 1"))
    with fake_endpoint(by_the_request) as endpoint:
        none = [tune(project, endpoint), tune(project, endpoint)]
        calls = count(project, "calls")
        write(project, ("calls = 240", "tokens = 3600"))
        done = tune(project, endpoint)
    assert [one.returncode for one in none] == [5, 5]
    assert said in none[0].stderr
    assert ("calls are reserved for the verdict, at 15 tokens" in none[0].stderr) == ("ended" in said)
    assert done.returncode == 0, done.stderr
    assert count(project, "studies") == 1
    assert tomllib.loads(frozen(project))["evidence"]["episodes"] == 6
    assert calls < count(project, "calls") <= 240


def test_time_ends_the_search_and_the_verdict_is_played_to_its_end(project: Project) -> None:
    write(project, ("calls = 240", "minutes = 0.01"))
    with fake_endpoint(by_the_request) as endpoint:
        done = tune(project, endpoint)
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"The search's 0.01 minutes are over; the verdict will take about (1 more minute|\d+ more minutes)\.",
        done.stderr,
    )
    assert done.stderr.index("minutes are over") < done.stderr.index("Confirming")
    assert tomllib.loads(frozen(project))["evidence"]["episodes"] == 6


def test_tokens_that_run_out_in_the_search_leave_the_best_so_far_and_a_raised_limit_resumes(
    project: Project,
) -> None:
    before = frozen(project)
    write(project, text=TOKENS)
    with fake_endpoint(dearer_after(60, 2_000)) as endpoint:
        done = tune(project, endpoint)
        asked = len(endpoint.requests)
        assert done.returncode == 5, done.stderr
        assert "budget.tokens = 3600" in done.stdout
        assert "NOT VALIDATED" in done.stdout
        assert "prompts/best.toml is unchanged: study echo-" in done.stderr
        assert frozen(project) == before
        assert not {"contenders", "finalists"} & load(project).user_attrs.keys()
        again = tune(project, endpoint, "--json")
        assert again.returncode == 5
        assert "No calls left (budget.tokens = 3600)" in again.stderr
        result = json.loads(again.stdout)
        assert result["verdict"] is None
        assert result["unvalidated"]["trial"] in done.stdout
        kept = tune(project, endpoint, "--freeze-unvalidated", "--out", "kept.toml")
        assert kept.returncode == 0
        assert len(endpoint.requests) == asked
        assert read_frozen(project.folder / "kept.toml").evidence.outcome == "unvalidated"
        shown = project.run("-m", "lab.show", "kept.toml")
        assert f"  {done.stdout.splitlines()[1]}" in shown.stdout.splitlines()
        calls = count(project, "calls")
        write(
            project, ("tokens = 3600", "tokens = 1_000_000"), ("[space]", "# a comment\n[space]"), text=TOKENS
        )
        endpoint.script = by_the_request
        raised = tune(project, endpoint)
    assert raised.returncode == 0, raised.stderr
    assert re.search(r"Left of the budget: \d+,\d+ of 1,000,000 tokens", raised.stderr)
    assert calls < count(project, "calls")
    assert count(project, "studies") == 1
    assert "returns more than the baseline" in raised.stdout


def test_useless_answers_that_count_as_calls_leave_the_verdict_all_its_pairs(project: Project) -> None:
    """One of five answers has no choices: the search reserves as many repeats for the verdict."""
    made, lock = [0], threading.Lock()

    def script(body: Body) -> Reply:
        with lock:
            made[0] += 1
            useless = made[0] % 5 == 0
        return Reply(body=b'{"choices": []}') if useless else by_the_request(body)

    with fake_endpoint(script) as endpoint:
        done = tune(project, endpoint)
    assert done.returncode == 0, done.stderr
    assert "planned pairs" not in done.stdout
    assert tomllib.loads(frozen(project))["evidence"]["episodes"] == 6


def test_tokens_that_run_out_in_the_holdout_give_a_verdict_on_the_pairs_that_were_played(
    project: Project,
) -> None:
    write(project, ("in_flight = 6", "in_flight = 2"), text=TOKENS)

    def script(body: Body) -> Reply:
        """An answer with four times the tokens once all are confirmed."""
        reply = by_the_request(body)
        reply.prompt_tokens += 75 if confirmed(project) == 2 * 3 else 0
        return reply

    with fake_endpoint(script) as endpoint:
        done = tune(project, endpoint)
        again = tune(project, endpoint)
    assert done.returncode == 0, done.stderr + done.stdout
    told = re.search(
        r"The verdict is based on (\d) of 6 planned pairs of episodes: budget.tokens = 3600", done.stdout
    )
    assert told, done.stdout
    assert 2 <= int(told[1]) < 6
    assert again.stdout == done.stdout
    assert f"  {done.stdout.splitlines()[0]}" in project.run("-m", "lab.show").stdout.splitlines()


def test_a_limit_below_the_calls_made_ends_the_study_before_anything_starts(project: Project) -> None:
    with fake_endpoint(by_the_request) as endpoint:
        kill_after(project, endpoint, 130)
    write(project, ("calls = 240", "calls = 92"))
    done = project.run("-m", "lab.tune", "experiments/known.toml", **settings(endpoint))  # nobody listens
    assert done.returncode == 5, done.stderr
    assert "No calls left (budget.calls = 92)" in done.stderr
    assert "NOT VALIDATED" in done.stdout


def test_a_wider_space_is_searched_by_a_study_that_is_not_finished(project: Project) -> None:
    with fake_endpoint(by_the_request) as endpoint:
        kill_after(project, endpoint, 40)
        write(
            project,
            ('"storyteller", "lecturer"]', '"storyteller", "lecturer", "manual"]\ntop_p = [1.0, 0.9]'),
            ("high = 1.0", "high = 1.2"),
            ("calls = 240", "calls = 400"),
        )
        wider = tune(project, endpoint)
        write(project)
        narrower = tune(project, endpoint)
    assert wider.returncode == 0, wider.stderr
    assert "Resuming: " in wider.stderr
    played = {(body["messages"][0]["content"][:60], body.get("top_p", 1.0)) for body in endpoint.requests}
    assert {top_p for _, top_p in played} == {1.0, 0.9}
    assert len({text for text, _ in played}) == 4
    assert narrower.returncode == 0  # that study has finished, so this is a new one
    assert "which has finished; starting a new study" in narrower.stderr


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("high = 1.0", "high = 0.9"), "-space.temperature.high = 1.0"),
        (('"storyteller", "lecturer"]', '"storyteller"]'), "-space.template.values"),
        (("temperature = 0.7", "temperature = 0.6"), "-baseline.sampling.temperature = 0.7"),
    ],
)
def test_the_inputs_of_episodes_must_not_change(
    broken_off: tuple[Project, FakeEndpoint], change: tuple[str, str], told: str
) -> None:
    project, endpoint = broken_off
    write(project, change)
    done = tune(project, endpoint)
    write(project)
    assert done.returncode == 2
    assert told in done.stderr


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, FakeEndpoint]:
    """A study killed after about 20 calls; its endpoint is gone."""
    project = a_project(tmp_path_factory.mktemp("broken") / "project").untracked
    with fake_endpoint(by_the_request) as endpoint:
        kill_after(project, endpoint, 20)
    return project, endpoint


def test_ctrl_c_before_the_first_episode_has_ended_stops_and_the_same_command_resumes(
    project: Project,
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def script(body: Body) -> Reply:
        asked.set()
        go_on.wait(60)
        return by_the_request(body)

    with fake_endpoint(script) as endpoint:
        process = start(project, endpoint)
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=TIMEOUT_S)
        go_on.set()
        assert process.returncode == 130, err
        assert "the same command resumes" in err
        done = tune(project, endpoint)
    assert done.returncode == 0, done.stderr
    assert "Resuming: 0 episodes already recorded." in done.stderr
    assert "has finished" not in done.stderr
    assert count(project, "studies") == 1


def test_the_output_path_is_checked_before_the_first_call(project: Project) -> None:
    project.write("a-file", "")
    with fake_endpoint(by_the_request) as endpoint:
        below, folder = (
            tune(project, endpoint, "--out", "a-file/best.toml"),
            tune(project, endpoint, "--out", "prompts"),
        )
        assert endpoint.requests == []
    for done in (below, folder):
        assert done.returncode == 2, done.stderr
        assert "The file cannot be written." in done.stderr


def test_a_result_that_cannot_be_written_is_printed_and_costs_nothing_to_write_elsewhere(
    project: Project,
) -> None:
    def script(body: Body) -> Reply:
        (project.folder / "out/best.toml").mkdir(parents=True, exist_ok=True)  # after it was looked at
        return by_the_request(body)

    with fake_endpoint(script) as endpoint:
        done = tune(project, endpoint, "--out", "out/best.toml")
        asked = len(endpoint.requests)
        elsewhere = tune(project, endpoint, "--out", "out/other.toml")
    assert done.returncode == 1
    assert "returns more than the baseline" in done.stdout
    assert "with another --out" in done.stderr
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert len(endpoint.requests) == asked
    assert "python inference.py out/other.toml" in elsewhere.stdout
    assert read_frozen(project.folder / "out/other.toml").candidate.template.name == "storyteller"


def test_the_latest_study_is_the_one_started_last_even_if_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "calls.db")
    now = [2_000_000_000.0]
    monkeypatch.setattr("lab.storage.database.time.time", lambda: now[0])
    first = store.begin("known", "one")
    now[0] -= 3600
    second = store.begin("known", "two")
    assert store.latest("known") == (second, "two")
    assert first != second


def test_a_clock_that_was_set_back_adds_no_minutes_to_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "calls.db")
    name, now = store.begin("known", ""), [2_000_000_000.0]
    monkeypatch.setattr("lab.storage.record.time.time", lambda: now[0])
    for seed, began in enumerate((0.0, -7_200.0)):
        record = Record(store, name, "")
        for s in (0.0, 60.0):
            now[0] = 2_000_000_000.0 + began + s
            record.keep_episode("sha256:a", FailedEpisode(10 * seed + int(s), CallError("gone")))
    assert Record(store, name, "").earlier_minutes == pytest.approx(2.0)


def test_a_baseline_that_the_endpoint_refused_is_tried_again_by_the_same_command(project: Project) -> None:
    """The study resumes despite its recorded failure, once the endpoint accepts its requests."""
    refuses = [True]

    def script(body: Body) -> Reply:
        is_baseline = body["temperature"] == 0.7 and "plain echo environment" in str(body["messages"])
        if refuses[0] and is_baseline:
            return Reply(status=400, message="this prompt is refused today")
        return by_the_request(body)

    with fake_endpoint(script) as endpoint:
        refused, again = tune(project, endpoint), tune(project, endpoint)
        refuses[0] = False
        done = tune(project, endpoint)
    for one in (refused, again):
        assert one.returncode == 3, one.stderr
        assert "this prompt is refused today" in one.stderr
    assert done.returncode == 0, done.stderr
    assert count(project, "studies") == 1
    assert "returns more than the baseline" in done.stdout


@pytest.mark.parametrize(("dear", "tokens"), [(12, 60), (10_000, 400)])
def test_a_confirmation_that_a_limit_cuts_short_ends(project: Project, dear: int, tokens: int) -> None:
    """Some of its last episodes are refused, or all: after they were asked for, while others are played."""
    left, lock = [dear], threading.Lock()
    write(project, ("in_flight = 6", "in_flight = 4"), text=TOKENS)

    def script(body: Body) -> Reply:
        reply = by_the_request(body)
        with lock:
            if left[0] and confirmed(project):
                left[0] -= 1
                reply.prompt_tokens += tokens
        return reply

    with fake_endpoint(script) as endpoint:
        done = tune(project, endpoint)
    assert confirmed(project) < 2 * 3 + (tokens < 400)  # by chance, the first limit ends the holdout
    expected = 5 if "NOT VALIDATED" in done.stdout else 0
    assert done.returncode == expected, done.stdout + done.stderr
    assert ("Frozen: " in done.stdout) is (expected == 0)
