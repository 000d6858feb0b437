"""An action that the environment refuses costs a step: the episode and the study continue."""

import asyncio
import re
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from websockets.sync.server import ServerConnection

from lab.agent.agent import Agent
from lab.agent.candidate import Candidate
from lab.agent.episode import Episode
from lab.agent.rollout import play
from lab.agent.task import Task
from lab.agent.template import PromptTemplate
from lab.environments import in_process
from lab.environments.config import EnvironmentConfig
from lab.environments.environment import open_environment
from lab.errors import BrokenError, ConfigError, EnvError, LabError
from lab.experiment.experiment import load_experiment
from lab.llm.client import Completion, Message
from lab.llm.sampling import SamplingParams
from lab.submission.contract import unescape
from lab.submission.freeze import freeze
from lab.submission.frozen import read_frozen
from tests.echo_server import ECHO, server
from tests.fake_endpoint import Body, Reply, Script, fake_endpoint
from tests.fake_environment import Say, fake_environment, observation
from tests.project import Project
from tests.test_inference import checked
from tests.test_resume import count

LADDER = '''
"""A ladder of three rungs: at any other rung it raises, with half a step done."""

import asyncio
import os
import sys
import time
from typing import Any

from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

KINDS = (SystemExit(0), KeyboardInterrupt(), asyncio.CancelledError(), StopIteration(), TimeoutError())
RAISED = dict(enumerate(KINDS, 8))
made, torn, begun = 0, 0, 0


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit(0)


class Climb(Action):
    rung: int


class Seen(Observation):
    height: int


class Ladder(Environment[Climb, Seen, State]):
    def __init__(self) -> None:
        global torn
        super().__init__()
        torn, was_torn = 0, torn
        if was_torn:
            raise OSError("the ladder is torn")

    def reset(self, seed: int | None = None, episode_id: str | None = None, **_: Any) -> Seen:
        global begun
        begun += 1
        self.height = begun if os.environ.get("FORGETFUL") else 0
        return Seen(height=self.height)

    def step(self, action: Climb, timeout_s: float | None = None, **_: Any) -> Seen:
        global torn
        self.height += action.rung
        if action.rung == 20:
            torn = 1
        if action.rung == 21:
            time.sleep(3600)
        if action.rung == 22:
            raise Unprintable
        if action.rung > 3:
            raise RAISED.get(action.rung) or ValueError(f"{action.rung} is not a valid rung")
        return Seen(height=self.height, reward=float(action.rung))

    @property
    def state(self) -> State:
        return State()


class Waiting(Ladder):
    async def step_async(self, action: Climb, timeout_s: float | None = None, **_: Any) -> Seen:
        await asyncio.sleep(0)
        return self.step(action)


class Forking(Ladder):
    async def step_async(self, action: Climb, timeout_s: float | None = None, **_: Any) -> Seen:
        return await asyncio.create_task(Waiting.step_async(self, action))


class Stuck(Ladder):
    def close(self) -> None:
        time.sleep(3600)


if __name__ == "__main__":
    import argparse

    import uvicorn
    from openenv.core.env_server.http_server import create_app

    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    app = create_app(Ladder, Climb, Seen, env_name="ladder")  # of one session, as by default
    uvicorn.run(app, host="127.0.0.1", port=parser.parse_args().port, log_level="warning")
'''

EXPERIMENT = """
about = "Climb."

[environment]
{place}

[task]
name = "climb"
benchmark = "ladders"
max_steps = 3
max_tokens = 60
max_return = 9.0
success_score = 0.1

[model]
endpoint = "embedded"
name = "fake"

[baseline]
template = "plain"
temperature = 0.5
max_tokens = 60
history = 1

[space]
template = ["bold", "steady"]
temperature = {temperature}

[budget]
calls = {calls}

[search]
episodes = 2
headroom = 3
in_flight = 6

[confirmation]
candidates = 1
episodes = 2

[verdict]
episodes = 6
"""

TEMPLATE = """
about = "{name}"
system = "Climb, {name}. {{schema}}"
turn = "{{observation}}"
"""

LADDER_HERE = 'python = "ladder.py:Ladder"'
TASK = Task("climb", "ladders", max_steps=4, max_tokens=60, max_return=9.0, success_score=0.1)
CANDIDATE = Candidate(PromptTemplate("plain", "Climb.", "{observation}"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return a_project(tmp_path / "project")


def a_project(
    folder: Path, place: str = LADDER_HERE, temperature: str = "[0.5, 0.7, 0.9]", calls: int = 110
) -> Project:
    project = Project.make(folder).untracked
    project.write("experiments/ladder.py", LADDER)
    text = EXPERIMENT.format(place=place, temperature=temperature, calls=calls)
    project.write("experiments/ladder.toml", text)
    for name in ("plain", "bold", "steady"):
        project.write(f"prompts/templates/{name}.toml", TEMPLATE.format(name=name))
    return project


def climber(**rungs: int) -> Script:
    """A model that answers 2, except in the second step the rung given here for its template."""

    def script(body: Body) -> Reply:
        if "response_format" in body:
            return Reply(status=400, message="response_format is not supported")
        messages = body["messages"]
        name = re.findall(r"Climb, (\w+)", messages[0]["content"])[0]
        second = messages[-1]["content"] == "2"
        return Reply(f'{{"rung": {rungs[name] if second else 2}}}')

    return script


def settings(url: str) -> dict[str, str]:
    return {"API_BASE_URL": url, "MODEL_NAME": "fake"}


class Told:
    """A model with one answer per step."""

    def __init__(self, *answers: object) -> None:
        self.answers, self.asked = list(answers), list[Sequence[Message]]()

    async def complete(
        self,
        messages: Sequence[Message],
        sampling: SamplingParams,  # noqa: ARG002
        schema: str = "",  # noqa: ARG002
    ) -> Completion:
        self.asked.append(messages)
        return Completion(f'{{"rung": {self.answers.pop(0)}}}', "stop", 1, 1, 0.0)


def climbed(
    project: Project,
    *rungs: int,
    name: str = "Ladder",
    **config: Any,  # noqa: ANN401
) -> tuple[Episode, Told]:
    model, task = Told(*rungs), replace(TASK, max_steps=len(rungs))

    async def episode() -> Episode:
        declared = EnvironmentConfig(python=f"experiments/ladder.py:{name}", **config)
        async with (
            open_environment(declared, project.folder) as environment,
            environment.session() as session,
        ):
            return await play(Agent(CANDIDATE, model, task), session, 0)

    return asyncio.run(episode()), model


WORDS = {
    7: "ValueError: 7 is not a valid rung",
    8: "SystemExit: 0",
    9: "KeyboardInterrupt",
    10: "CancelledError",
    11: "StopIteration",
    12: "TimeoutError",
    22: "Unprintable",
}


@pytest.mark.parametrize("name", ["Ladder", "Waiting"])
def test_whatever_a_step_raises_is_that_steps_error_and_leaves_nothing_behind(
    project: Project, name: str
) -> None:
    wrong = [rung for rung in WORDS if not (name == "Waiting" and rung == 11)]  # no coroutine can raise that
    episode, model = climbed(project, 3, *wrong, 1, name=name)
    first, *refused, last = episode.steps
    assert (first.reward, last.reward, last.observation, last.trouble) == (3.0, 1.0, "4", None)
    for rung, step, asked in zip(wrong, refused, model.asked[2:], strict=True):
        assert (step.trouble, step.reward, step.done) == ("refused", 0.0, False)
        assert str(step.error) == f"The environment refused the action: {WORDS[rung]}"
        assert asked[-1].content == f"The environment refused the action: {WORDS[rung]}\n\n3"


def test_an_environment_that_cannot_be_replayed_ends_the_episode_with_its_steps(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGETFUL", "yes")
    episode, _ = climbed(project, 2, 7, 2, 2)
    assert [step.trouble for step in episode.steps] == [None, "refused"]
    assert episode.episode_return == 2.0


def test_an_environment_that_cannot_be_reset_after_an_action_is_broken_by_it(project: Project) -> None:
    with pytest.raises(BrokenError, match="broke the environment") as caught:
        climbed(project, 2, 20, 2)
    assert "20 is not a valid rung" in caught.value.why
    assert "the ladder is torn" in caught.value.why


def test_a_hanging_close_is_abandoned(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_process, "CLOSE_S", 0.2)
    episode, _ = climbed(project, 2, 7, 1, name="Stuck")
    assert [step.reward for step in episode.steps] == [2.0, 0.0, 1.0]


def test_a_step_that_hangs_is_an_outage_not_a_step_error(project: Project) -> None:
    with pytest.raises(EnvError, match="did not answer in time") as caught:
        climbed(project, 2, 21, 2, step_timeout_s=0.3)
    assert "step_timeout_s" in caught.value.do


def test_a_study_over_step_errors_is_killed_resumed_and_frozen_and_the_submission_shows_them(
    project: Project,
) -> None:
    with fake_endpoint(climber(plain=7, bold=8, steady=3)) as endpoint:
        command = ("-m", "lab.tune", "experiments/ladder.toml")
        process = project.start(*command, **settings(endpoint.url))
        while len(endpoint.requests) < 20 and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        process.communicate()
        tuned = project.run(*command, **settings(endpoint.url))
        assert tuned.returncode == 0, tuned.stderr
        assert read_frozen(project.folder / "prompts/best.toml").candidate.template.name == "steady"
        asked = [message["content"] for body in endpoint.requests for message in body["messages"]]
        assert any("ValueError: 7 is not a valid rung" in text for text in asked)
        answered = sum("response_format" not in body for body in endpoint.requests)
        assert count(project, "calls") <= answered <= count(project, "calls") + 6

    with fake_endpoint(climber(steady=9)) as endpoint:
        played = project.run("inference.py", **settings(endpoint.url))
    _, steps, end = checked(played.stdout)
    assert [float(step[3]) for step in steps] == [2.0, 0.0, 2.0]
    assert "KeyboardInterrupt" in unescape(steps[1][5])
    assert end[1] == "true"


def test_a_candidate_that_breaks_the_environment_fails_with_its_reason_and_the_study_continues(
    tmp_path: Path,
) -> None:
    project = a_project(tmp_path / "project", temperature="0.5", calls=70)
    with fake_endpoint(climber(plain=1, bold=20, steady=3)) as endpoint:
        tuned = project.run("-m", "lab.tune", "experiments/ladder.toml", **settings(endpoint.url))
    assert tuned.returncode == 0, tuned.stderr
    assert "A candidate has failed: it breaks the environment" in tuned.stderr
    with closing(sqlite3.connect(project.folder / ".lab/calls.db")) as record:
        bodies = [row[0] for row in record.execute("select ending from episodes where kind = 'failed'")]
    failed = bodies
    assert failed
    assert all("20 is not a valid rung" in body and "the ladder is torn" in body for body in failed)


def test_an_environment_that_breaks_for_the_baseline_ends_the_study(tmp_path: Path) -> None:
    project = a_project(tmp_path / "project", temperature="0.5", calls=70)
    with fake_endpoint(climber(plain=20, bold=20, steady=20)) as endpoint:
        tuned = project.run("-m", "lab.tune", "experiments/ladder.toml", **settings(endpoint.url))
    assert tuned.returncode == 4, tuned.stderr
    assert "An action broke the environment." in tuned.stderr


def test_a_real_server_with_one_session_is_played_to_the_end_despite_error_frames(tmp_path: Path) -> None:
    project = a_project(tmp_path / "project")
    with (
        server(str(project.folder / "experiments/ladder.py")) as url,
        fake_endpoint(climber(plain=7, bold=7, steady=3)) as endpoint,
    ):
        tuned = project.run(
            "-m", "lab.tune", "experiments/ladder.toml", ENV_BASE_URL=url, **settings(endpoint.url)
        )
    assert tuned.returncode == 0, tuned.stderr
    assert tuned.stderr.count("accepted 1 session at once") == 1
    assert "max_concurrent_envs" in tuned.stderr
    assert read_frozen(project.folder / "prompts/best.toml").candidate.template.name == "steady"
    asked = [message["content"] for body in endpoint.requests for message in body["messages"]]
    assert any("7 is not a valid rung (code: EXECUTION_ERROR)" in text for text in asked)


ENDS = {
    "import": "import sys\nsys.exit(0)\n",
    "class": "class Ladder:\n    reset = step = close = None\n",
    "constructor": LADDER.replace("        if was_torn:", "        sys.exit(0)\n        if was_torn:"),
    "reset": LADDER.replace("        begun += 1", "        raise KeyboardInterrupt"),
    "cancelled reset": LADDER.replace("        begun += 1", "        raise asyncio.CancelledError"),
}


@pytest.mark.parametrize("where", ENDS)
def test_an_environment_that_ends_the_process_is_an_error(tmp_path: Path, where: str) -> None:
    project = a_project(tmp_path / "project")
    project.write("experiments/ladder.py", ENDS[where])
    with pytest.raises((EnvError, ConfigError)) as caught:
        climbed(project, 2)
    assert isinstance(caught.value, ConfigError) is (where in ("import", "class"))
    assert caught.value.why


@pytest.mark.parametrize("where", ["constructor", "reset"])
def test_a_command_says_so_and_has_the_exit_code(tmp_path: Path, where: str) -> None:
    project = a_project(tmp_path / "project")
    project.write("experiments/ladder.py", ENDS[where])
    with fake_endpoint() as endpoint:
        done = project.run("-m", "lab.play", "baseline", "experiments/ladder.toml", **settings(endpoint.url))
    assert done.returncode == 4, done.stderr
    assert re.search("SystemExit: 0|KeyboardInterrupt", done.stderr)


HOOKS = {
    "import": ("import sys\nsys.exit(0)\n", ConfigError),
    "render": ("import sys\n\n\ndef render(observation):\n    sys.exit(0)\n", ConfigError),
    "parse": ("import sys\n\n\ndef parse(text, schema):\n    sys.exit(0)\n", None),
}


@pytest.mark.parametrize("where", HOOKS)
def test_a_hook_that_ends_the_process_is_an_error(project: Project, where: str) -> None:
    text, kind = HOOKS[where]
    project.write("experiments/hooks.py", text)
    if kind is not None:
        with pytest.raises(kind, match="hook"):
            climbed(project, 2, hooks="experiments/hooks.py")
        return
    episode, _ = climbed(project, 2, hooks="experiments/hooks.py")
    assert "SystemExit: 0" in str(episode.steps[0].error)


@pytest.mark.parametrize(
    "python",
    [
        *(
            "os:abort",
            "os:_exit",
            "sys:exit",
            "builtins:exit",
            "shutil:rmtree",
            "subprocess:Popen",
            "os:environ",
        ),
        *("experiments/made.py:number", "experiments/made.py:nothing", "experiments/made.py:ends"),
    ],
)
def test_code_without_an_environment_is_refused_before_it_is_called(project: Project, python: str) -> None:
    project.write(
        "experiments/made.py",
        "import functools\nimport os\n\n\ndef number() -> int:\n    os.abort()\n\n\n"
        "def nothing() -> None:\n    os.abort()\n\n\nends = functools.partial(os._exit, 0)\n",
    )

    async def opened() -> None:
        async with open_environment(EnvironmentConfig(python=python), project.folder):
            pass

    with pytest.raises(ConfigError, match="does not name an environment"):
        asyncio.run(opened())


FACTORIES = """

import functools


def plain():
    return Ladder()


def annotated() -> "Environment[Climb, Seen, State]":
    return Ladder()


cached = functools.cache(plain)
partial = functools.partial(Ladder)
"""


@pytest.mark.parametrize("name", ["plain", "annotated", "cached", "partial"])
def test_a_function_that_creates_an_environment_is_accepted(project: Project, name: str) -> None:
    project.write("experiments/ladder.py", LADDER.replace("if __name__", f"{FACTORIES}\n\nif __name__"))
    assert climbed(project, 2, name=name)[0].episode_return == 2.0


def test_a_background_task_of_an_environment_that_ends_the_process_is_reported(tmp_path: Path) -> None:
    project = a_project(tmp_path / "project", place='python = "ladder.py:Forking"')
    with fake_endpoint(climber(plain=8)) as endpoint:
        done = project.run("-m", "lab.play", "baseline", "experiments/ladder.toml", **settings(endpoint.url))
    assert done.returncode == 1, done.stderr
    assert "SystemExit: 0" in done.stderr


def test_a_command_refuses_code_that_would_abort_it(tmp_path: Path) -> None:
    project = a_project(tmp_path / "project", place='python = "os:abort"')
    with fake_endpoint() as endpoint:
        done = project.run("-m", "lab.tune", "experiments/ladder.toml", **settings(endpoint.url))
    assert done.returncode == 2, done.stderr
    assert "environment.python does not name an environment." in done.stderr


def test_a_steps_time_limit_is_a_setting_and_is_frozen(tmp_path: Path) -> None:
    project = a_project(tmp_path / "project", place=f"{LADDER_HERE}\nstep_timeout_s = 0.5")
    environment = load_experiment(project.folder / "experiments/ladder.toml").environment
    assert environment.step_timeout_s == 0.5
    frozen = read_frozen(project.folder / "prompts/best.toml")
    assert "step_timeout_s" not in frozen.environment.as_table()
    freeze(replace(frozen, environment=environment), project.folder / "prompts/other.toml")
    assert read_frozen(project.folder / "prompts/other.toml").environment == environment
    with fake_endpoint(climber(plain=21)) as endpoint:
        done = project.run("-m", "lab.play", "baseline", "experiments/ladder.toml", **settings(endpoint.url))
    assert done.returncode == 4, done.stderr
    assert "step, 0.5 s" in done.stderr


@pytest.mark.parametrize("value", ["0", "-1", "inf", "nan", '"60"'])
def test_an_invalid_time_limit_is_refused_with_its_key(tmp_path: Path, value: str) -> None:
    project = a_project(tmp_path / "project", place=f"{LADDER_HERE}\nstep_timeout_s = {value}")
    with pytest.raises(ConfigError, match="step_timeout_s") as caught:
        load_experiment(project.folder / "experiments/ladder.toml")
    assert caught.value.exit_code == 2


def echoed(say: Say, steps: int = 3) -> Episode:
    """An episode at a scripted server."""

    class Talker:
        async def complete(self, *_: object, **__: object) -> Completion:
            return Completion("hello", "stop", 1, 1, 0.0)

    async def episode(url: str) -> Episode:
        config = replace(ECHO, url=url, step_timeout_s=5.0)
        async with open_environment(config) as environment, environment.session() as session:
            return await play(Agent(CANDIDATE, Talker(), replace(TASK, max_steps=steps)), session, 0)

    def answer(body: dict[str, Any], connection: ServerConnection) -> str | None:
        """The state, which the first session asks for, is not part of the episode."""
        return observation() if body["type"] == "state" else say(body, connection)

    with fake_environment(answer) as url:
        return asyncio.run(episode(url))


def error(code: str) -> str:
    return f'{{"type": "error", "data": {{"message": "hello is not a move", "code": "{code}"}}}}'


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("code", ["EXECUTION_ERROR", "WHATEVER"])
def test_an_error_frame_is_a_steps_error_and_the_episode_is_repeated_in_a_new_session(
    code: str, closes: bool
) -> None:
    asked = list[tuple[UUID, str]]()

    def say(body: dict[str, Any], connection: ServerConnection) -> str | None:
        asked.append((connection.id, body["type"]))
        if len(asked) == 3:
            connection.send(error(code))
            if closes:
                connection.close()
            return None
        return observation(reward=0.5)

    episode = echoed(say)
    assert [step.trouble for step in episode.steps] == [None, "refused", None]
    assert [step.reward for step in episode.steps] == [0.5, 0.0, 0.5]
    assert episode.steps[1].error == f"The environment refused the action: hello is not a move (code: {code})"
    assert [kind for _, kind in asked if kind != "close"] == [
        *("reset", "step", "step"),
        *("reset", "step", "step"),
    ]
    assert asked[0][0] != asked[-1][0]


def test_an_action_that_the_server_does_not_read_leaves_the_session_as_it_is() -> None:
    asked = list[str]()

    def say(body: dict[str, Any], _: ServerConnection) -> str:
        asked.append(body["type"])
        return error("VALIDATION_ERROR") if len(asked) == 2 else observation()

    assert [step.trouble for step in echoed(say).steps] == ["refused", None, None]
    assert asked[:4] == ["reset", "step", "step", "step"]


def test_an_error_frame_of_a_session_that_was_never_reset_is_no_steps_error() -> None:
    """OpenEnv's client reconnects silently if the connection was lost between two steps."""
    sockets = set[UUID]()

    def say(body: dict[str, Any], connection: ServerConnection) -> str | None:
        sockets.add(connection.id)
        if body["type"] != "reset":
            return error("EXECUTION_ERROR")
        connection.send(observation())
        connection.close()
        return None

    with pytest.raises(LabError) as caught:
        echoed(say)
    assert isinstance(caught.value, BrokenError)
