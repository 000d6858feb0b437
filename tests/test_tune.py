"""`python -m lab.tune`, run as a user runs it, on a scripted endpoint: its winner, record and output.

The real model plays in `test_main_job.py`; here the truth is known, and faults occur on demand.
"""

import itertools
import json
import random
import re
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState

from lab.submission.frozen import FrozenPrompt, read_frozen
from tests.fake_endpoint import Body, FakeEndpoint, Reply, fake_endpoint
from tests.project import TIMEOUT_S, Project
from tests.test_resume import optuna_trials

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
history = 4

[space]
template = ["reference", "storyteller", "lecturer"]
temperature = { low = 0.5, high = 1.0 }

[budget]
calls = 300

[search]
episodes = 4
headroom = 5
in_flight = 12

[confirmation]
candidates = 3
episodes = 4

[verdict]
finalists = 2
episodes = 8
"""


@pytest.fixture
def tracked(tmp_path: Path) -> Project:
    project = Project.make(tmp_path / "project", tracked=True)
    project.write("experiments/known.toml", EXPERIMENT)
    return project


@pytest.fixture
def project(tracked: Project) -> Project:
    return tracked.untracked


def storyteller_is_best(body: Body) -> Reply:
    """Answers of twice the length for the storyteller, with noise."""
    length = 200 if "storyteller" in body["messages"][0]["content"] else 100
    time.sleep(0.05)
    return Reply("x" * random.randint(length - 20, length + 20))


def baseline_is_best(body: Body) -> Reply:
    """The baseline is ahead of all others, with noise; every episode has the maximum score."""
    reference = "plain echo environment" in body["messages"][0]["content"]
    length = 450 if reference and body["temperature"] == 0.7 else 350
    return Reply("x" * random.randint(length - 20, length + 20))


def tune(project: Project, endpoint: FakeEndpoint, *flags: str, **settings: str) -> tuple[int, str, str]:
    done = project.run(
        *("-m", "lab.tune", "experiments/known.toml", *flags),
        **{"API_BASE_URL": endpoint.url, "MODEL_NAME": "fake", "HF_TOKEN": "canary-key", **settings},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def frozen(project: Project) -> FrozenPrompt:
    return read_frozen(project.folder / "prompts/best.toml")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, FakeEndpoint, str, str]:
    """A complete study in which the storyteller is better: the project, stdout and stderr."""
    project = Project.make(tmp_path_factory.mktemp("tuned") / "project")
    project.write("experiments/known.toml", EXPERIMENT)
    full = threading.Event()

    def slow_until_full(body: Body) -> Reply:
        if endpoint.most_at_once >= 12:
            full.set()
        full.wait(TIMEOUT_S)
        return storyteller_is_best(body)

    with fake_endpoint(slow_until_full) as endpoint:
        code, out, err = tune(project, endpoint)
    assert code == 0, err
    return project, endpoint, out, err


Tuned = tuple[Project, FakeEndpoint, str, str]


def test_the_better_template_is_found_and_frozen_with_its_evidence(tuned: Tuned) -> None:
    prompt = frozen(tuned[0])
    evidence = prompt.evidence
    assert prompt.candidate.template.name == "storyteller"
    assert evidence.outcome == "winner"
    assert evidence.episodes == 8
    assert evidence.difference == pytest.approx(40, abs=8)
    assert evidence.p_value < 0.05
    low, high = evidence.difference_interval  # that it covers the truth 95 times in 100 is test_verdict's
    assert 0 < low < evidence.difference < high
    assert prompt.model.name == "fake"
    assert prompt.provenance.experiment == "known"


def test_the_output_says_what_was_frozen_by_how_much_and_what_is_next(tuned: Tuned) -> None:
    _, _, out, err = tuned
    gain = r"\+\d+\.\d vs\. baseline, \+\d+ %; 95 % interval \[\+\d+\.\d, \+\d+\.\d\]"
    told = rf"Frozen: trial-\d+ returns more than .*: \d+\.\d \({gain}\), n = 8 episodes each, p = 0\.0\d+ \("
    assert re.match(told, out)
    assert "python inference.py" in out
    assert "mlflow ui" in out
    assert "baseline" in err  # a line a trial


def test_every_call_is_counted_and_the_budget_is_used_and_not_passed(tuned: Tuned) -> None:
    project, endpoint, out, _ = tuned
    played = frozen(project).provenance.calls
    assert 300 - 4 * 4 <= played == len(endpoint.requests) <= 300
    assert f"{played:,} calls" in out


def test_search_confirmation_and_holdout_play_disjoint_seeds(tuned: Tuned) -> None:
    with sqlite3.connect(tuned[0].folder / "mlflow.db") as database:
        runs = database.execute(
            "select artifact_uri, value from runs join tags using (run_uuid) where key = 'kind'"
        ).fetchall()
    seeds: dict[str, set[int]] = {"search": set(), "confirmation": set(), "holdout": set()}
    for uri, kind in runs:
        path = Path(uri.removeprefix("file://")) / "episodes.json"
        if kind in seeds:
            seeds[kind] |= {episode["seed"] for episode in json.loads(path.read_text())}
    searched = seeds.pop("search")
    assert {0} <= searched <= set(range(4))  # how many a candidate plays is the race's choice
    assert seeds == {
        "confirmation": set(range(500_000, 500_004)),
        "holdout": set(range(1_000_000, 1_000_008)),
    }


def test_the_endpoint_is_kept_busy_and_never_over_its_limit(tuned: Tuned) -> None:
    assert tuned[1].most_at_once == 12


def test_the_key_is_written_nowhere(tuned: Tuned) -> None:
    project, _, out, err = tuned
    assert "canary-key" not in out + err
    for path in project.folder.rglob("*"):
        if path.is_file():
            assert b"canary-key" not in path.read_bytes(), path


def test_the_trials_are_in_optunas_storage(tuned: Tuned) -> None:
    trials = optuna_trials(tuned[0])
    assert len(trials) > 5
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert all(trial.intermediate_values for trial in trials)


def test_mlflow_holds_the_study_read_back_through_its_api(tuned: Tuned) -> None:
    project = tuned[0]
    done = project.run("-m", "tests.read_mlflow", "known")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ok"


def test_the_submission_plays_what_was_tuned(tuned: Tuned) -> None:
    project = tuned[0]
    with fake_endpoint(storyteller_is_best) as endpoint:
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="fake", HF_TOKEN="k")
    assert done.returncode == 0, done.stderr
    assert len(endpoint.requests) == 4
    assert endpoint.requests[0]["temperature"] == frozen(project).candidate.sampling.temperature
    assert "storyteller" in endpoint.requests[0]["messages"][0]["content"]


def test_without_a_better_candidate_the_baseline_is_frozen_and_saturation_reported(
    project: Project,
) -> None:
    with fake_endpoint(baseline_is_best) as endpoint:
        code, out, _ = tune(project, endpoint)
    assert "All 24 holdout episodes reached the maximum score; compare returns instead." in out
    assert code == 0
    assert frozen(project).evidence.outcome == "baseline"
    assert frozen(project).candidate.template.name == "reference"
    assert out.startswith("Frozen: the baseline. No candidate was shown to beat it on unseen episodes")
    assert "To search on, raise [budget] and run the same command" in out


def wait_for(text: str, stream: "list[str]") -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not any(text in line for line in stream):
        assert time.monotonic() < deadline, stream
        time.sleep(0.05)


def interrupted(project: Project, script: Callable[[Body], Reply], presses: int) -> tuple[int, str, str]:
    """Run a study and press Ctrl-C `presses` times once two trials have ended.

    Before a second press the endpoint stops answering, or the study might end first.
    """
    pressed, answering = threading.Event(), threading.Event()

    def held(body: Body) -> Reply:
        if pressed.is_set() and presses > 1:
            answering.wait(TIMEOUT_S)
        return script(body)

    with fake_endpoint(held) as endpoint:
        process = project.start(
            *("-m", "lab.tune", "experiments/known.toml"),
            API_BASE_URL=endpoint.url, MODEL_NAME="fake", HF_TOKEN="k",
        )  # fmt: skip
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(iter(process.stderr.readline, "")))  # type: ignore[union-attr]
        reader.start()
        wait_for("baseline", lines)
        wait_for("trial-", lines)
        pressed.set()
        process.send_signal(signal.SIGINT)
        wait_for("Ctrl-C again stops at once", lines)
        if presses > 1:
            process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        out = process.stdout.read()
        code = process.wait(TIMEOUT_S)
        reader.join()
        answering.set()
    assert "Traceback" not in "".join(lines)
    return code, out, "".join(lines)


def endless_storyteller(body: Body) -> Reply:
    if "storyteller" in body["messages"][0]["content"]:
        time.sleep(0.3)
    else:
        time.sleep(0.05)
    return storyteller_is_best(body)


def test_ctrl_c_once_ends_the_search_and_freezes_the_best(project: Project) -> None:
    project.write("experiments/known.toml", EXPERIMENT.replace("calls = 300", "calls = 100_000"))
    code, out, err = interrupted(project, endless_storyteller, presses=1)
    assert code == 0, err
    assert "Ctrl-C again stops at once" in err
    assert "Written to prompts/best.toml" in out
    assert frozen(project).evidence.episodes == 8


def test_ctrl_c_twice_stops_at_once_and_keeps_every_finished_trial(tracked: Project) -> None:
    project = tracked
    project.write("experiments/known.toml", EXPERIMENT.replace("calls = 300", "calls = 100_000"))
    before = project.write("prompts/best.toml", "what was there").read_bytes()
    code, out, err = interrupted(project, endless_storyteller, presses=2)
    assert code == 130
    assert out == ""
    assert (project.folder / "prompts/best.toml").read_bytes() == before
    shown = len(set(re.findall(r"^. (trial-\d+|baseline)", err, re.MULTILINE)))
    kept = sum(bool(trial.intermediate_values) for trial in optuna_trials(project))
    with sqlite3.connect(project.folder / "mlflow.db") as database:
        runs = database.execute("select count(*) from runs where name like 'trial-%' or name = 'baseline'")
        assert 0 < runs.fetchone()[0] <= shown  # as far as MLflow was ready in time; the rest follows
    assert kept >= shown  # what is in the middle of a rung is kept as well


def is_proposal(body: Body) -> bool:
    """Whether a request is a proposer's, DSPy's or GEPA's."""
    text = str(body["messages"])
    return "[[ ## objective ## ]]" in text or "provided an assistant" in text


def champion(body: Body) -> Reply:
    """The proposed text gives the longest answers."""
    if is_proposal(body):
        time.sleep(0.01)
        text = f"You are the champion of all, number {random.random()}."
        dspy = "[[ ## objective ## ]]" in str(body["messages"])
        return Reply(f"[[ ## text ## ]]\n{text}\n[[ ## completed ## ]]" if dspy else f"```\n{text}\n```")
    best = "champion" in body["messages"][0]["content"]
    time.sleep(0.02)
    return Reply("x" * random.randint(280, 320)) if best else storyteller_is_best(body)


@pytest.mark.parametrize("name", ["dspy", "gepa"])
def test_texts_proposed_by_a_separate_model_join_the_race_and_win(project: Project, name: str) -> None:
    table = f'[proposals]\nproposer = "{name}"\nrounds = 2\ntexts = 2\n\n[confirmation]'
    text = EXPERIMENT.replace("[space]", "[space]\ndemonstrations = [0, 2]").replace(
        "calls = 300", "calls = 400"
    )
    text = text.replace("in_flight = 12", "in_flight = 4")
    project.write("experiments/known.toml", text.replace("[confirmation]", table))

    def as_slow_as_can_be(body: Body) -> Reply:
        """Answers once the players wait for it."""
        played = -1
        while played < len(endpoint.requests):
            played = len(endpoint.requests)
            time.sleep(0.7)
        return champion(body)

    with fake_endpoint(champion) as endpoint, fake_endpoint(as_slow_as_can_be) as other:
        proposer = {
            "PROPOSER_BASE_URL": other.url,
            "PROPOSER_MODEL_NAME": "big",
            "PROPOSER_API_KEY": "another-key",
        }
        code, out, err = tune(project, endpoint, "--json", **proposer)
        assert code == 0, err
        replayed = tune(project, endpoint, "--replay", "--json", **proposer)[1]
        assert json.loads(replayed) == {**json.loads(out), "untracked": None}, "texts too are as they were"
        assert len(other.requests) == 4
        assert {request["model"] for request in other.requests} == {"big"}
        assert not any(is_proposal(request) for request in endpoint.requests)
        assert frozen(project).provenance.calls == len(endpoint.requests) + 4
        played = [request["messages"][0]["content"] for request in endpoint.requests]
    trials = optuna_trials(project)
    searched = 4 * sum(len(trial.intermediate_values) for trial in trials)
    new = [played.index(text) for text in dict.fromkeys(played) if "champion" in text]
    assert new[0] <= 0.4 * searched, "two thirds of the search are kept for the first round's texts"
    assert new[2] <= 0.75 * searched, "and a third for the second's"
    names = [f"{name}-{number}-{place}" for number in (1, 2) for place in (0, 1)]
    firsts = [next(one for one in trials if one.params.get("template") == text) for text in names]
    assert all(len(trial.intermediate_values) >= 3 for trial in firsts), "judged by several episodes"
    assert any(one.params.get("demonstrations") == 2 for one in trials), "they come with the texts"
    assert "Round 1 of proposals: " in err
    study = frozen(project).provenance.study
    told_again = project.run("-m", "lab.show", "--study", study).stdout
    assert frozen(project).candidate.template.name.startswith(f"{name}-")
    assert f"Round 1 of proposals: {name}-1-0 (from " in told_again
    assert "champion" in frozen(project).candidate.template.system


def test_a_proposer_that_fails_costs_its_round_and_not_the_study(project: Project) -> None:
    table = '[proposals]\nproposer = "gepa"\n\n[confirmation]'
    project.write("experiments/known.toml", EXPERIMENT.replace("[confirmation]", table))
    with fake_endpoint(storyteller_is_best) as endpoint, fake_endpoint(lambda _: Reply(status=401)) as other:
        code, _, err = tune(project, endpoint, PROPOSER_BASE_URL=other.url, PROPOSER_MODEL_NAME="big")
    assert code == 0, err
    assert "Round 1 of proposals failed: The endpoint refused the key" in err
    assert frozen(project).candidate.template.name == "storyteller"


def demonstrated(body: Body) -> Reply:
    """The model writes longer answers if it is shown an earlier one."""
    time.sleep(0.02)
    length = 300 if any(message["role"] == "assistant" for message in body["messages"]) else 100
    return Reply("x" * random.randint(length - 20, length + 20))


def test_demonstrations_from_the_best_episodes_are_tried_frozen_and_submitted(project: Project) -> None:
    text = EXPERIMENT.replace("[space]", "[space]\ndemonstrations = [0, 2]")
    project.write("experiments/known.toml", text)
    with fake_endpoint(demonstrated) as endpoint:
        code, _, err = tune(project, endpoint)
    assert code == 0, err
    shown = frozen(project).candidate.demonstrations
    assert len(shown) == 2
    assert all(set(one.action) == {"x"} for one in shown)
    with fake_endpoint(demonstrated) as endpoint:
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="fake", HF_TOKEN="k")
    assert done.returncode == 0, done.stderr
    roles = [message["role"] for message in endpoint.requests[0]["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert endpoint.requests[0]["messages"][2]["content"] == shown[0].action


def test_steps_that_earned_little_are_not_demonstrations_even_if_only_one_is_left(project: Project) -> None:
    numbers = itertools.count()

    def good_once_shown(body: Body) -> Reply:
        shown = any(message["role"] == "assistant" for message in body["messages"])
        length = 300 if shown or next(numbers) == 9 else 100
        return Reply("x" * random.randint(length - 20, length + 20))

    text = EXPERIMENT.replace("[space]", "[space]\ndemonstrations = [0, 2]")
    project.write("experiments/known.toml", text)
    with fake_endpoint(good_once_shown) as endpoint:
        code, _, err = tune(project, endpoint)
    assert code == 0, err
    (shown,) = frozen(project).candidate.demonstrations
    assert len(shown.action) >= 280


def test_demonstrations_are_taken_again_once_the_first_have_taught_better_answers(project: Project) -> None:
    def surpasses(body: Body) -> Reply:
        time.sleep(0.02)
        shown = [message["content"] for message in body["messages"] if message["role"] == "assistant"]
        return Reply("x" * (2 * len(max(shown, key=len)) if shown else random.randint(60, 90)))

    text = EXPERIMENT.replace("[space]", "[space]\ndemonstrations = [0, 2]").replace("300", "600")
    project.write("experiments/known.toml", text)
    with fake_endpoint(surpasses) as endpoint:
        code, _, err = tune(project, endpoint)
    assert code == 0, err
    assert max(len(one.action) for one in frozen(project).candidate.demonstrations) > 90


def storyteller_is_far_better(body: Body) -> Reply:
    time.sleep(0.02)
    length = 200 if "storyteller" in body["messages"][0]["content"] else 20
    return Reply("x" * random.randint(length - 2, length + 2))


def test_episodes_that_can_no_longer_matter_are_ended_in_the_middle(project: Project) -> None:
    text = EXPERIMENT.replace("success_score = 0.1", "success_score = 0.1\nmax_step_reward = 21.0")
    # The race seldom plays a low candidate again; with this sampler, each plays on until it is dropped.
    text = text.replace("max_steps = 4", "max_steps = 8").replace(
        "in_flight = 12", 'in_flight = 4\nsampler = "random"'
    )
    text = text.replace("candidates = 3\nepisodes = 4", "candidates = 1\nepisodes = 2").replace("300", "520")
    text = text.replace("finalists = 2\nepisodes = 8", "finalists = 1\nepisodes = 6")
    project.write("experiments/known.toml", text)
    with fake_endpoint(storyteller_is_far_better) as endpoint:
        code, _, err = tune(project, endpoint)
    assert code == 0, err
    assert frozen(project).candidate.template.name == "storyteller"
    cut = [one.user_attrs["cut"] for one in optuna_trials(project) if "cut" in one.user_attrs]
    assert cut
    assert all(0 < bound < 8 * 21 for _, bound in cut)


def test_equal_candidates_are_reported_before_the_budget_is_spent(tracked: Project) -> None:
    """With traces disabled, MLflow has none."""
    project = tracked
    project.write("experiments/known.toml", EXPERIMENT + "\n[tracking]\ntraces = 0\n")
    with fake_endpoint(lambda _: Reply("always the same")) as endpoint:
        code, out, err = tune(project, endpoint)
    assert code == 0, err
    said = re.search(r"Warm-up test: (no difference found|it is not yet known)", err)
    assert said is not None
    assert said[0] in out
    assert said.start() < err.index("Confirming")
    assert frozen(project).evidence.outcome == "baseline"
    with sqlite3.connect(project.folder / "mlflow.db") as database:
        assert database.execute("select count(*) from trace_info").fetchone() == (0,)
        told = database.execute("select value from tags where key = 'mlflow.note.content'").fetchall()
    frozen_note = "\n\n**Frozen: the baseline. No candidate was shown to beat it"
    assert [frozen_note in note for (note,) in told].count(True) == 1


def test_with_a_cost_in_the_objective_the_cheap_one_is_frozen_and_optuna_has_the_costs(
    project: Project,
) -> None:
    """All answers are equal; candidates with history cost more, and the baseline has history."""
    objective = '[objective]\ncost = "tokens"\nwithin = 0.2\n\n[search]'
    text = EXPERIMENT.replace("[search]", objective).replace("[space]", "[space]\nhistory = [0, 4]")
    project.write("experiments/known.toml", text)

    def script(body: Body) -> Reply:
        time.sleep(0.02)
        return replace(Reply("x" * 200), prompt_tokens=len(str(body["messages"])))

    with fake_endpoint(script) as endpoint:
        code, out, err = tune(project, endpoint)
    assert code == 0, err
    evidence = frozen(project).evidence
    assert evidence.outcome == "cheaper"
    assert evidence.frozen_tokens < evidence.baseline_tokens
    assert frozen(project).candidate.context.history == 0
    assert re.match(r"Frozen: trial-\d+ costs less .*, by [\d,.]+ \[.*\] tokens per episode; its return", out)
    for trial in optuna_trials(project):
        assert trial.user_attrs.get("costs", {}).keys() == {str(step) for step in trial.intermediate_values}


def test_a_budget_that_ends_before_a_verdict_ends_with_5_and_keeps_what_was_frozen(project: Project) -> None:
    project.write("experiments/known.toml", EXPERIMENT.replace("calls = 300", "tokens = 50"))
    before = project.write("prompts/best.toml", "what was there").read_bytes()
    with fake_endpoint(endless_storyteller) as endpoint:
        code, out, err = tune(project, endpoint)
    assert code == 5
    assert "budget.tokens = 50" in err + out
    assert "Frozen" not in out
    assert (project.folder / "prompts/best.toml").read_bytes() == before


@pytest.mark.parametrize(("status", "told"), [(401, "refused the key"), (404, "does not have 'fake'")])
def test_a_wrong_key_or_model_stops_the_study_with_3(project: Project, status: int, told: str) -> None:
    with fake_endpoint(lambda _: Reply(status=status)) as endpoint:
        code, out, err = tune(project, endpoint)
    assert code == 3
    assert out == ""
    assert told in err


HASTY_S = 8.0
"""Seconds after which a missing answer counts as a hang; even a busy machine answers faster."""

FAULTS = [
    (Reply(status=429, headers={"Retry-After": "0.1"}), "The endpoint is busy."),
    (Reply(status=503), "The endpoint is busy."),
    (Reply(status=500), "The endpoint failed."),
    (Reply(status=504), "The model did not answer in time."),
    (Reply(delay_s=HASTY_S + 1), "The model did not answer in time."),
    (Reply(sent=0.5), "The connection to the endpoint was lost."),
    (Reply(sent=-1), "The connection to the endpoint was lost."),
    (Reply(body=b'{"choices": ['), "The model's answer is not JSON."),
    (Reply(body=b'{"choices": []}'), "The model's answer has no choices."),
    (Reply("x" * 10_000_000), "The model's answer is too long."),
]
"""Failures that a retry solves, and how they are recorded."""

HASTY = ("[baseline]", f"timeout_s = {HASTY_S}\n\n[baseline]")
"""Change of an experiment's text that makes a hang time out early."""


def test_an_endpoint_that_fails_a_third_of_the_calls_costs_nothing_but_time(project: Project) -> None:
    """Each failed attempt is retried and counted; a candidate that breaks its own calls is left out."""
    project.write("experiments/known.toml", EXPERIMENT.replace(*HASTY).replace("calls = 300", "calls = 600"))
    faults, drawn, lock = Counter[str](), random.Random(0), threading.Lock()
    slow = [fault for fault in FAULTS if fault[0].delay_s]  # a hang takes its time, so there is one

    def script(body: Body) -> Reply:
        if "professor" in body["messages"][0]["content"]:
            return Reply(status=400, code="context_length_exceeded")
        with lock:
            if drawn.random() > 0.3:
                return storyteller_is_best(body)
            reply, what = slow.pop() if slow else drawn.choice([one for one in FAULTS if not one[0].delay_s])
            faults[what] += 1
        return reply

    with fake_endpoint(script) as endpoint:
        code, out, err = tune(project, endpoint, MLFLOW_TRACKING_URI="sqlite:////dev/null/none.db")
    assert code == 0, err
    assert frozen(project).candidate.template.name == "storyteller"
    assert frozen(project).evidence.episodes == 8
    assert "lecturer" not in err
    assert err.count("MLflow did not take") == 1
    assert "Frozen: " in out
    with sqlite3.connect(project.folder / ".lab/calls.db") as database:
        told = dict(database.execute("select what, count(*) from failures group by what"))
        ((attempts, calls),) = database.execute("select sum(attempts), count(*) from calls")
    refused = told.pop("Prompt and answer do not fit into the model's context.")
    assert told == faults
    assert faults.total() == attempts - calls
    assert len(endpoint.requests) == attempts + refused
    assert "Failed attempts: " in out


def test_an_episode_that_fails_for_the_endpoints_fault_is_played_again(project: Project) -> None:
    """One call fails in every attempt: its episode restarts, and repeats no answered call."""
    project.write("experiments/known.toml", EXPERIMENT.replace("[baseline]", "attempts = 2\n\n[baseline]"))
    chosen, refused, lock = list[Body](), [0], threading.Lock()

    def script(body: Body) -> Reply:
        with lock:
            if not chosen and "xxx" in body["messages"][-1]["content"]:  # no other episode asks for the same
                chosen.append(body)
            if body in chosen and refused[0] < 2:
                refused[0] += 1
                return Reply(status=500)
        return storyteller_is_best(body)

    with fake_endpoint(script) as endpoint:
        code, _, err = tune(project, endpoint)
    assert code == 0, err
    assert refused[0] == 2
    with sqlite3.connect(project.folder / ".lab/calls.db") as database:
        ((calls,),) = database.execute("select count(*) from calls")
        ((failed,),) = database.execute("select count(*) from episodes where kind = 'failed'")
    assert failed == 0
    assert len(endpoint.requests) == calls + 2


@pytest.mark.parametrize(
    ("arguments", "settings", "code", "told"),
    [
        (["experiments/absent.toml"], {}, 2, "The experiment file does not exist"),
        (["--trails", "3"], {}, 2, "No such option"),
        (["experiments/known.toml"], {"API_BASE_URL": "https://host.invalid/v1"}, 2, "MODEL_NAME"),
        (["experiments/known.toml"], {"MODEL_NAME": "gpt-9"}, 2, "set API_BASE_URL to this model's endpoint"),
        (
            ["experiments/known.toml"],
            {"API_BASE_URL": "https://h.invalid/v1", "MODEL_NAME": "m"},
            3,
            "HF_TOKEN",
        ),
        (
            ["experiments/known.toml"],
            {"API_BASE_URL": "http://127.0.0.1:9/v1", "MODEL_NAME": "m"},
            3,
            "no server is listening",
        ),
        (["experiments/known.toml"], {"ENV_BASE_URL": "http://127.0.0.1:9"}, 4, "ENV_BASE_URL"),
    ],
)
def test_an_impossible_run_ends_with_its_exit_code_and_message(
    project: Project, arguments: list[str], settings: dict[str, str], code: int, told: str
) -> None:
    with fake_endpoint() as endpoint:
        here = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "m"} if "ENV_BASE_URL" in settings else {}
        done = project.run("-m", "lab.tune", *arguments, **here, **settings)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert "MLflow did not take" not in done.stderr


def test_help_answers_with_examples(project: Project) -> None:
    done = project.run("-m", "lab.tune", "--help")
    assert done.returncode == 0
    assert "experiments/smoke.toml" in done.stdout
