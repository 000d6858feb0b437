"""A submission of several tasks: a START and an END each, one deadline, whatever happens to one of them."""

import re
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.agent.candidate import Candidate
from lab.agent.task import ScoreBounds, Setup, Task
from lab.agent.template import PromptTemplate
from lab.environments.config import EnvironmentConfig
from lab.llm.sampling import SamplingParams
from lab.submission.checker import check
from lab.submission.contract import end_line, start_line, step_line
from lab.submission.freeze import freeze
from lab.submission.frozen import FrozenModel, FrozenPrompt, read_frozen
from lab.submission.turns import opening_share, share_of, turns_of
from tests.fake_endpoint import Body, Reply, fake_endpoint
from tests.project import Project
from tests.test_frozen import EVIDENCE, PROVENANCE, TASK
from tests.test_inference import checked, episodes, read_lines

ENVIRONMENT = '''
"""Pays its level for each word; some words end it, or its process."""

import ctypes
import os
from typing import Any

from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State


class Say(Action):
    text: str


class Heard(Observation):
    heard: str
    last_action_error: str | None = None
    error: str | None = None
    status: str = "fine"


class Levels(Environment[Say, Heard, State]):
    def reset(
        self, seed: int | None = None, episode_id: str | None = None, level: int = 0, **_: Any
    ) -> Heard:
        assert seed == 0
        self.level, self.steps = level, 0
        return Heard(heard=f"level {level}")

    def step(self, action: Say, timeout_s: float | None = None, **_: Any) -> Heard:
        self.steps += 1
        match action.text:
            case "leave":
                os._exit(0)
            case "abort":
                os.abort()
            case "hold":
                ctypes.PyDLL(None).sleep(1000)  # with the interpreter's lock
            case "unknown":
                error = "no bed 9 here:\\nchoose 1 to 4"
                return Heard(heard=f"level {self.level}", reward=0.0, last_action_error=error)
            case "other":
                return Heard(heard=f"level {self.level}", reward=0.0, error="of another field", status="odd")
        return Heard(heard=f"level {self.level}", reward=5.0 * self.level, done=self.steps == 2)

    @property
    def state(self) -> State:
        return State()
'''

SETUPS = tuple(Setup(f"level-{level}", {"level": level}) for level in range(3))


def frozen_project(folder: Path, task: Task, error: str = "") -> Project:
    """A project whose frozen prompt plays `task` in the environment above."""
    project = Project.make(folder).untracked
    project.write("levels.py", ENVIRONMENT)
    candidate = Candidate(PromptTemplate("mine", "Act.", "Step {step}: {observation}"), SamplingParams())
    levels = EnvironmentConfig(python="levels.py:Levels", text="heard", error=error)
    model = FrozenModel("http://127.0.0.1:9/v1", "m")
    freeze(
        FrozenPrompt(candidate, levels, task, model, EVIDENCE, PROVENANCE),
        project.folder / "prompts/best.toml",
    )
    return project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return frozen_project(tmp_path / "project", replace(TASK, max_return=20.0, tasks=SETUPS))


def asked(body: Body) -> tuple[int, int]:
    """The level and the step that a request is about."""
    found = re.search(r"Step (\d+): level (\d+)", body["messages"][-1]["content"])
    assert found
    return int(found[2]), int(found[1])


def names(stdout: str) -> list[str]:
    return re.findall(r"^\[START\] task=(\S+)", stdout, re.MULTILINE)


def test_every_task_is_played_with_a_start_and_an_end_each(project: Project) -> None:
    with fake_endpoint() as endpoint:
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m")
    ends = [checked(text)[2].groups() for text in episodes(done.stdout)]
    assert names(done.stdout) == ["level-0", "level-1", "level-2"]
    assert ends == [
        ("false", "2", "0.000", "0.00,0.00"),
        ("true", "2", "0.500", "5.00,5.00"),
        ("true", "2", "1.000", "10.00,10.00"),
    ]
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("known", [False, True], ids=["learnt", "frozen"])
def test_what_the_endpoint_refuses_is_learnt_once_though_the_process_is_taken_down_twice(
    project: Project, known: bool
) -> None:
    dialect = {"token_limit": "max_completion_tokens", "system": "user"} if known else {}
    path = project.folder / "prompts/best.toml"
    tuned = read_frozen(path)
    freeze(replace(tuned, model=replace(tuned.model, dialect=dialect)), path)
    refused = list[Body]()

    def picky(body: Body) -> Reply:
        if "max_tokens" in body or body["messages"][0]["role"] == "system":
            refused.append(body)
            message = "Unsupported: max_tokens" if "max_tokens" in body else "System role not supported"
            return Reply(status=400, message=message)
        level, step = asked(body)
        return Reply("leave" if level < 2 and step == 2 else "go")

    with fake_endpoint(picky) as endpoint:
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m")
    ends = [checked(text)[2].groups() for text in episodes(done.stdout)]
    assert [steps for _, steps, *_ in ends] == ["1", "1", "2"], done.stderr
    assert len(refused) == (0 if known else 2)
    assert len(endpoint.requests) == len(refused) + 6
    assert done.stderr.count("Requests are adapted") == len(refused)


@pytest.mark.parametrize(
    ("wanted", "played", "told"),
    [
        ("level-1", ["level-1"], ""),
        ("level-2, level-0,", ["level-2", "level-0"], ""),
        ("level-2,hard", ["level-2"], "no task 'hard'"),
        ("all", ["level-0", "level-1", "level-2"], "no task 'all'"),
    ],
)
def test_test_task_names_those_that_are_played(
    project: Project, wanted: str, played: list[str], told: str
) -> None:
    with fake_endpoint() as endpoint:
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m", TEST_TASK=wanted)
    assert names(done.stdout) == played
    assert [asked(body)[0] for body in endpoint.requests[::2]] == [int(name[-1]) for name in played]
    assert (done.returncode, bool(done.stderr)) == (0, bool(told))
    assert told in done.stderr


@pytest.mark.parametrize(("word", "told"), [("leave", "exit code 0"), ("abort", "SIGABRT")])
def test_a_task_that_takes_its_process_down_leaves_the_others_to_be_played(
    project: Project, word: str, told: str
) -> None:
    def script(body: Body) -> Reply:
        return Reply(word if asked(body) == (1, 2) else "fine")

    with fake_endpoint(script) as endpoint:
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m")
    ends = [checked(text)[2].groups() for text in episodes(done.stdout)]
    assert ends[1:] == [("false", "1", "0.250", "5.00"), ("true", "2", "1.000", "10.00,10.00")]
    assert done.returncode == 1
    assert told in done.stderr


@pytest.mark.parametrize("holds", [True, False])
def test_a_task_that_uses_up_its_share_leaves_the_others_theirs(project: Project, holds: bool) -> None:
    """Its environment holds the interpreter, or the endpoint does not answer."""
    release = threading.Event()

    def script(body: Body) -> Reply:
        if asked(body) == (0, 2) and not holds:
            release.wait(120)
        return Reply("hold" if asked(body) == (0, 2) else "fine")

    began = time.monotonic()
    with fake_endpoint(script) as endpoint:
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m", DEADLINE_S="75")
        release.set()
    assert 15 < time.monotonic() - began < 85
    ends = [checked(text)[2].groups() for text in episodes(done.stdout)]
    assert ends[0] == ("false", "1", "0.000", "0.00")
    assert [end[1] for end in ends] == ["1", "2", "2"]
    assert done.returncode == (1 if holds else 0)
    assert ("SIGKILL" if holds else "DEADLINE_S") in done.stderr


def test_an_environment_that_opens_slowly_takes_nothing_from_the_first_of_many_tasks(tmp_path: Path) -> None:
    task = replace(TASK, max_return=20.0, tasks=tuple(Setup(f"level-{n}", {"level": n}) for n in range(16)))
    project = frozen_project(tmp_path / "project", task)
    project.write("levels.py", f"{ENVIRONMENT}\n\nimport time\n\ntime.sleep(5)\n")
    with fake_endpoint() as endpoint:
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m", DEADLINE_S="64")
    ends = [checked(text)[2].groups() for text in episodes(done.stdout)]
    assert [end[1] for end in ends] == ["2"] * 16, done.stderr


@pytest.mark.parametrize("level", [0, 1])
def test_a_signal_gives_every_task_its_end(project: Project, level: int) -> None:
    release = threading.Event()

    def script(body: Body) -> Reply:
        if asked(body) == (level, 2):
            release.wait(60)
        return Reply("fine")

    with fake_endpoint(script) as endpoint:
        process = project.start("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m")
        seen = read_lines(process, 2 + 4 * level)
        process.send_signal(signal.SIGTERM)
        rest, err = process.communicate(timeout=60)
        release.set()
    ends = [checked(text)[2].groups() for text in episodes("".join(seen) + rest)]
    assert [end[1] for end in ends] == ["2"] * level + ["1"] + ["0"] * (2 - level)
    assert [end[0] for end in ends[level:]] == ["false"] * (3 - level)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in err


def test_a_closed_stdout_ends_all_tasks(project: Project) -> None:
    with fake_endpoint() as endpoint:
        process = project.start("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m")
        read_lines(process, 1)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait(60) == 1
    assert err.count("\n") == 1
    assert len(endpoint.requests) <= 3


@pytest.mark.parametrize(
    ("settings", "told"),
    [({}, "cannot be reached"), ({"API_BASE_URL": "nonsense", "MODEL_NAME": "m"}, "API_BASE_URL")],
)
def test_what_cannot_be_played_still_gets_every_start_and_end(
    project: Project, settings: dict[str, str], told: str
) -> None:
    done = project.run("inference.py", **settings)
    ends = [checked(text)[2].groups() for text in episodes(done.stdout)]
    assert ends == [("false", "0", "0.000", "")] * 3
    assert done.returncode == 1
    assert told in done.stderr


def test_without_a_frozen_file_the_tasks_that_are_asked_for_have_their_end(project: Project) -> None:
    done = project.run("inference.py", "absent.toml", TEST_TASK="a,b")
    assert [checked(text)[0][1] for text in episodes(done.stdout)] == ["a", "b"]
    assert done.returncode == 1


def test_names_with_blanks_are_one_word_on_start_and_the_task_is_found_by_them(project: Project) -> None:
    path = project.folder / "prompts/best.toml"
    path.write_text(path.read_text().replace("level-1", "Basic Crop  Growth"))
    with fake_endpoint() as endpoint:
        done = project.run(
            "inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m", TEST_TASK="Basic Crop  Growth"
        )
    assert names(done.stdout) == ["Basic_Crop_Growth"]
    assert asked(endpoint.requests[0])[0] == 1
    assert "'Basic Crop  Growth' as 'Basic_Crop_Growth'" in done.stderr


def test_open_bounds_are_printed_and_nothing_else_changes(tmp_path: Path) -> None:
    task = replace(TASK, max_return=20.0, tasks=SETUPS, score_bounds="open", success_score=0.0)
    project = frozen_project(tmp_path / "project", task)
    with fake_endpoint() as endpoint:
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m")
    ends = [checked(text)[2].groups() for text in episodes(done.stdout)]
    assert [end[2] for end in ends] == ["0.001", "0.500", "0.999"]
    assert [end[0] for end in ends] == ["true"] * 3


@pytest.mark.parametrize(
    ("field", "errors"),
    [("", [r"no bed 9 here:\nchoose 1 to 4", "of another field"]), ("status", ["fine", "odd"])],
)
def test_the_error_is_the_environments_own(tmp_path: Path, field: str, errors: list[str]) -> None:
    project = frozen_project(tmp_path / "project", replace(TASK, max_steps=4, tasks=SETUPS[1:2]), field)

    def script(body: Body) -> Reply:
        return Reply(["unknown", "other", "", "fine"][asked(body)[1] - 1])

    with fake_endpoint(script) as endpoint:
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m")
    _, steps, _ = checked(done.stdout)
    own = ["fine"] * 2 if field else ["the model's answer was empty", "null"]
    assert [step[5] for step in steps] == errors + own


NAMES = st.text(st.characters()).filter(str.strip)
STEPS = st.lists(
    st.tuples(
        st.text(st.characters()), st.floats(-1e6, 1e6), st.none() | st.text(st.characters(), min_size=1)
    ),
    max_size=4,
)


@given(
    st.lists(st.tuples(NAMES, STEPS, st.floats(0, 1)), min_size=1, max_size=4),
    st.sampled_from(["closed", "open"]),
)
def test_whatever_several_tasks_print_is_accepted(
    tasks: list[tuple[str, list[tuple[str, float, str | None]], float]], bounds: ScoreBounds
) -> None:
    lines = list[str]()
    for name, steps, score in tasks:
        lines.append(start_line(name, "b", "m"))
        lines += [step_line(number, *step[:2], False, step[2]) for number, step in enumerate(steps, 1)]
        lines.append(end_line(True, score, [step[1] for step in steps], open_bounds=bounds == "open"))
        printed = float(lines[-1].partition("score=")[2].partition(" ")[0])
        assert (0 < printed < 1) if bounds == "open" else (0 <= printed <= 1)
        assert abs(printed - score) <= 0.0015
    found = check(("\n".join(lines) + "\n").encode())
    assert (found.episodes, "sample" in found.accepted_by) == (len(tasks), True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.floats(1, 1e5), st.floats(0, 1e6))
def test_shares_keep_the_deadline_and_pass_on_what_is_left(
    used: list[float], length_s: float, now_s: float
) -> None:
    """Each turn uses a part of its share; the last may use all that is left."""
    last_s, began_s, first_s = now_s + length_s, now_s, length_s / len(used)
    for number, part in enumerate(used):
        share = share_of(began_s, last_s, len(used) - number)
        assert began_s <= share.play_until_s <= share.stop_s <= last_s + 1e-6
        assert share.stop_s - began_s >= 0.94 * first_s - 1e-6  # never less than the first had
        began_s += part * (share.stop_s - began_s)
    share = share_of(began_s, last_s, 1)
    assert last_s - share.stop_s <= 1.0 + 1e-6
    assert share_of(last_s + 1, last_s, 2).stop_s == last_s + 1  # too late is over at once
    assert opening_share(began_s, last_s, 1) == share  # a single turn may wait as long as it may play


@given(
    st.lists(st.text("abc ", min_size=1).filter(str.strip).map(str.strip), unique=True, max_size=5),
    st.lists(st.sampled_from(["a", "b", "c", "aa", "ab", "", " "]), max_size=5),
)
def test_turns_are_the_known_names_once_each_in_the_order_of_asking(
    known: list[str], asked: list[str]
) -> None:
    task = replace(TASK, tasks=tuple(Setup(name) for name in known))
    turns, unknown = turns_of(task, ",".join(asked))
    wanted = [name for name in dict.fromkeys(asked) if name.strip()]
    if not known:
        assert [turn.name for turn in turns] == [",".join(asked) or task.name]
        return
    assert [turn.name for turn in turns] == ([name for name in wanted if name in known] or known)
    assert all(task.setup(turn.seed) == (Setup(turn.name), 0) for turn in turns)
    assert unknown == [name for name in wanted if name not in known]
