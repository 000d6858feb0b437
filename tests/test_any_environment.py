"""A generated environment, unknown to the lab: tuned with one experiment file, played and judged.

Its actions, observations, rewards, reset arguments and `done` differ from the echo environment's; the lab
knows it only from the declaration.
"""

import asyncio
import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.agent.agent import Agent
from lab.agent.episode import Episode
from lab.agent.rollout import play
from lab.environments.action import ActionError
from lab.environments.config import EnvironmentConfig
from lab.environments.environment import Environment, open_environment
from lab.errors import ConfigError
from lab.experiment.experiment import load_experiment
from lab.llm.client import Endpoint, EndpointConfig
from lab.submission.contract import unescape
from lab.submission.frozen import read_frozen
from tests.echo_server import ROOT, server
from tests.fake_endpoint import Body, Reply, fake_endpoint
from tests.project import Project
from tests.test_inference import checked, episodes

VAULT = '''
"""A vault with a dial: turn it towards the number, and it opens."""

from typing import Any, Literal

from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State
from pydantic import Field


class Turn(Action):
    way: Literal["left", "right"]
    clicks: int = Field(ge=1, le=50, description="How far.")


class Dial(Observation):
    position: int
    target: int
    log: list[str] = []
    warning: str | None = None


class Vault(Environment[Turn, Dial, State]):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed: int | None = None, episode_id: str | None = None, *, distance: int) -> Dial:
        self.position, self.target, self.log = 50, 50 + distance + (seed or 0) % 3, []
        return Dial(position=self.position, target=self.target)

    def step(self, action: Turn, timeout_s: float | None = None, **_: Any) -> Dial:
        before = abs(self.target - self.position)
        self.position += action.clicks if action.way == "right" else -action.clicks
        self.log.append(f"{action.way} {action.clicks}")
        left = abs(self.target - self.position)
        warning = "that was the wrong way" if left > before else None
        return Dial(
            position=self.position, target=self.target, log=self.log, warning=warning,
            reward=(before - left) / 10, done=left == 0,
        )

    @property
    def state(self) -> State:
        return State()


if __name__ == "__main__":
    import argparse

    import uvicorn
    from openenv.core.env_server.http_server import create_app

    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    app = create_app(Vault, Turn, Dial, env_name="vault", max_concurrent_envs=64)
    uvicorn.run(app, host="127.0.0.1", port=parser.parse_args().port, log_level="warning")
'''

EXPERIMENT = """
about = "Open the vault."

[environment]
{place}

[task]
name = "vault"
benchmark = "safes"
max_steps = 4
max_tokens = 60
max_return = 4.0
success_score = 0.4

[[tasks]]
name = "near"
reset = {{ distance = 20 }}

[[tasks]]
name = "far"
reset = {{ distance = 40 }}

[model]
endpoint = "embedded"
name = "fake"

[baseline]
template = "guess"
temperature = 0.7
max_tokens = 60
history = 1

[space]
template = ["guess", "reckon"]
temperature = {{ low = 0.5, high = 1.0 }}

[budget]
calls = 320

[search]
episodes = 4
headroom = 5
in_flight = 12

[confirmation]
candidates = 2
episodes = 4

[verdict]
episodes = 16
judge = "{judge}"
"""

GUESS = """
about = "No word of how."
system = "Open the vault."
turn = "{observation}"
"""

RECKON = """
about = "Fields of its own, and where the schema goes."
system = '''
Reckon, and answer in this form:
{schema}'''
turn = '''
You are at {observation.position}, and want to be at {observation.target}.

Careful: {observation.warning}.'''
"""


def opener(body: Body) -> Reply:
    """A model that turns too far, too little or talks, and does best if it reads both numbers."""
    if "response_format" in body:  # as many endpoints do
        return Reply(status=400, message="response_format is not supported")
    asked = body["messages"][-1]["content"]
    if told := re.search(r"You are at (\d+), and want to be at (\d+)", asked):
        way = int(told[2]) - int(told[1])
        clicks = max(1, min(50, abs(way) - random.choice([0, 1, 2])))
        return Reply(f'Well:\n```json\n{{"way": "{"right" if way > 0 else "left"}", clicks: {clicks},}}\n```')
    return Reply(random.choice(["I turn it!", '{"way": "up", "clicks": 3}', '{"way": "right", "clicks": 5}']))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project.make(tmp_path / "project", tracked=True)
    project.write("experiments/vault.py", VAULT)
    project.write("prompts/templates/guess.toml", GUESS)
    project.write("prompts/templates/reckon.toml", RECKON)
    return project


@contextmanager
def place(kind: str, project: Project) -> Iterator[str]:
    """The text of the environment table, while the environment is available."""
    if kind == "in process":
        yield 'python = "vault.py:Vault"'
    else:
        with server(str(project.folder / "experiments/vault.py")) as url:
            yield f'url = "{url}"'


@pytest.mark.parametrize(("kind", "judge"), [("in process", "mean"), ("at a server", "worst")])
def test_it_is_tuned_with_one_file_and_the_frozen_prompt_is_played(
    project: Project, kind: str, judge: str
) -> None:
    with place(kind, project) as where, fake_endpoint(opener) as endpoint:
        project.write("experiments/vault.toml", EXPERIMENT.format(place=where, judge=judge))
        settings = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "fake"}
        tuned = project.run("-m", "lab.tune", "experiments/vault.toml", **settings)
        assert tuned.returncode == 0, tuned.stderr
        assert "MLflow did not take" not in tuned.stderr
        frozen = read_frozen(project.folder / "prompts/best.toml")
        assert frozen.evidence.outcome == "winner", tuned.stdout
        assert frozen.candidate.template.name == "reckon"
        assert [one.name for one in frozen.task.tasks] == ["near", "far"]
        assert re.search(r"task far: baseline -?[\d.]+, trial-\d+ \d", tuned.stdout)

        assert ("worst task" in tuned.stdout) is (judge == "worst")
        near, _ = map(checked, episodes(project.run("inference.py", **settings).stdout))
        far = checked(project.run("inference.py", TEST_TASK="far", TEST_BENCHMARK="b", **settings).stdout)
    assert near[0].groups() == ("near", "safes", "fake")
    assert far[0].groups() == ("far", "b", "fake")
    for (_, steps, end), distance in ((near, 20), (far, 40)):
        assert end[1] == "true"
        actions = [json.loads(unescape(step[2])) for step in steps]
        assert all(set(action) == {"way", "clicks"} for action in actions)
        assert sum(float(step[3]) for step in steps) == pytest.approx(distance / 10, abs=0.31)
        assert [step[4] == "true" for step in steps[:-1]] == [False] * (len(steps) - 1)


DEAF = """
from typing import Any

from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State


class Say(Action):
    text: str


class Hall(Environment[Say, Observation, State]):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(
        self, seed: int | None = None, episode_id: str | None = None, *, deaf: bool = False
    ) -> Observation:
        self.deaf = deaf
        return Observation(metadata={"at": 0})

    def step(self, action: Say, timeout_s: float | None = None, **_: Any) -> Observation:
        if self.deaf:
            raise ValueError("nobody hears you here")
        return Observation(reward=-len(action.text) / 10, done=True)

    @property
    def state(self) -> State:
        return State()
"""


def test_a_task_without_a_usable_answer_and_scores_that_are_all_0_are_named(project: Project) -> None:
    project.write("experiments/hall.py", DEAF)
    text = EXPERIMENT.format(place='python = "hall.py:Hall"', judge="mean")
    for before, after in (("distance = 20", "deaf = false"), ("distance = 40", "deaf = true")):
        text = text.replace(before, after)
    project.write("experiments/hall.toml", text.replace('"guess", "reckon"', '"guess"'))
    project.write("prompts/templates/guess.toml", 'system = "Say."\nturn = "{step}"')
    with fake_endpoint(lambda _: Reply("x" * random.randint(1, 9))) as endpoint:
        settings = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "fake"}
        tuned = project.run("-m", "lab.tune", "experiments/hall.toml", **settings)
    assert tuned.returncode == 0, tuned.stderr
    assert "None of the frozen prompt's holdout answers in task far was usable: 100 %" in tuned.stdout
    assert "nobody hears you here" in tuned.stdout
    assert "in task near" not in tuned.stdout
    assert re.search(r"Every holdout episode scores 0, with returns from -[\d.]+ to ", tuned.stdout)
    assert "set task.min_return" in tuned.stdout


def test_the_example_in_the_docs_runs(project: Project) -> None:
    text = (ROOT / "docs/environments.md").read_text()
    blocks = re.findall(r"`([\w/.]+)`:\n\n```\w+\n(.*?)```", text, re.DOTALL)
    for name, block in blocks:
        project.write(name, block)
    assert len(blocks) == 4
    experiment = load_experiment(project.folder / "experiments/nim.toml")
    asked = list[Body]()

    def script(body: Body) -> Reply:
        asked.append(body)
        return Reply('{"heap": 1, "stones": 3}' if len(asked) == 1 else '{"heap": 1, "stones": 1}')

    async def episode(url: str) -> Episode:
        async with (
            open_environment(experiment.environment, experiment.root) as environment,
            Endpoint(EndpointConfig(url, "m", "k")) as endpoint,
            environment.session() as session,
        ):
            agent = Agent(experiment.baseline, endpoint, experiment.task)
            return await play(agent, session, experiment.task.names.index("four"))

    with fake_endpoint(script) as endpoint:
        played = asyncio.run(episode(endpoint.url))
    assert played.opening == "1: **\n2: ***\n3: ****\n4: **"
    assert [step.reward for step in played.steps[:2]] == [-0.1, 0.0]
    assert "There are not so many there." in asked[1]["messages"][-1]["content"]
    assert "How many to take." in asked[0]["messages"][0]["content"]


@pytest.mark.parametrize("key", ["python", "hooks"])
def test_a_frozen_file_runs_no_code_from_outside_of_the_project(project: Project, key: str) -> None:
    project.write("../outside.py", "raise SystemExit('it ran')")
    frozen = project.folder / "prompts/best.toml"
    line = {
        "python": 'python = "../outside.py:Vault"',
        "hooks": 'text = "echoed_message"\nhooks = "../outside.py"',
    }
    old = {"python": r'python = ".*"', "hooks": r'text = ".*"'}
    frozen.write_text(re.sub(old[key], line[key], frozen.read_text(), count=1))
    with fake_endpoint() as endpoint:
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m")
    assert done.returncode == 1
    assert "project's own folder" in done.stderr
    assert checked(done.stdout)[2][1] == "false"


def test_an_environment_without_concurrent_sessions_is_played_one_episode_at_a_time(project: Project) -> None:
    project.write("experiments/vault.py", VAULT.replace("SESSIONS = True", "SESSIONS = False"))
    config = EnvironmentConfig(python="experiments/vault.py:Vault")
    open_now, most = 0, 0

    async def one(environment: Environment) -> None:
        nonlocal open_now, most
        async with environment.session() as session:
            open_now, most = open_now + 1, max(most, open_now + 1)
            await session.reset(0, {"distance": 3})
            open_now -= 1

    async def several() -> None:
        async with open_environment(config, project.folder) as environment:
            await asyncio.gather(*(one(environment) for _ in range(4)))

    asyncio.run(several())
    assert most == 1


def test_an_unknown_argument_of_reset_is_reported(project: Project) -> None:
    async def reset() -> None:
        config = EnvironmentConfig(python="experiments/vault.py:Vault")
        async with open_environment(config, project.folder) as environment, environment.session() as session:
            await session.reset(0, {"distnace": 3})

    with pytest.raises(ConfigError, match="no argument 'distnace'") as caught:
        asyncio.run(reset())
    assert "distance" in caught.value.do


HANGS = """
import asyncio
from pathlib import Path

from lab.environments.config import EnvironmentConfig
from lab.environments.environment import open_environment
from lab.errors import EnvError


async def step() -> None:
    config = EnvironmentConfig(python="experiments/vault.py:Vault", step_timeout_s=2.0)
    async with open_environment(config, Path()) as environment, environment.session() as session:
        await session.reset(0, {"distance": 3})
        try:
            await session.step({"way": "left", "clicks": 1})
        except EnvError as error:
            print(error.what)


asyncio.run(step())
"""


def test_a_step_that_never_returns_does_not_keep_the_process_alive(project: Project) -> None:
    hanging = VAULT.replace(
        "        before = abs", "        import time\n\n        time.sleep(3600)\n        before = abs"
    )
    project.write("experiments/vault.py", hanging)
    done = project.run("-c", HANGS)
    assert (done.returncode, done.stdout) == (0, "The environment did not answer in time.\n"), done.stderr


TOOLS = """
from typing import Any

from fastmcp import FastMCP
from openenv.core.env_server.mcp_environment import MCPEnvironment
from openenv.core.env_server.mcp_types import CallToolAction, CallToolObservation
from openenv.core.env_server.types import Action, Observation, State


class Tools(MCPEnvironment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        tools = FastMCP("sums")

        @tools.tool
        def add(a: int, b: int) -> int:
            "Adds two numbers."
            return a + b

        super().__init__(tools)

    def reset(self, seed: int | None = None, episode_id: str | None = None, **_: Any) -> Observation:
        return Observation()

    def _step_impl(self, action: Action, timeout_s: float | None = None, **_: Any) -> Observation:
        return Observation()

    @property
    def state(self) -> State:
        return State()


if __name__ == "__main__":
    import argparse

    import uvicorn
    from openenv.core.env_server.http_server import create_app

    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    app = create_app(Tools, CallToolAction, CallToolObservation, env_name="tools")
    uvicorn.run(app, host="127.0.0.1", port=parser.parse_args().port, log_level="warning")
"""


@pytest.mark.parametrize("kind", ["in process", "at a server"])
def test_an_environment_with_tools_gets_calls_of_its_own_tools(project: Project, kind: str) -> None:
    file = project.write("experiments/tools.py", TOOLS)

    async def call(config: EnvironmentConfig) -> str:
        async with open_environment(config, project.folder) as environment, environment.session() as session:
            assert "Adds two numbers." in session.form.asked
            for wrong in (
                '{"tool_name": "sub", "arguments": {}}',
                '{"tool_name": "add", "arguments": {"a": 1}}',
            ):
                with pytest.raises(ActionError):
                    session.form.read(wrong)
            await session.reset(0, {})
            action = session.form.read('{"tool_name": "add", "arguments": {"a": 1, "b": 2}}')
            return (await session.step(action.values)).fields["result"] or ""

    if kind == "in process":
        result = asyncio.run(call(EnvironmentConfig(python="experiments/tools.py:Tools")))
    else:
        with server(str(file)) as url:
            result = asyncio.run(call(EnvironmentConfig(url=url)))
    assert result == "3"  # its text, and not the protocol's object around it


ACTIONS = """
from enum import Enum
from typing import Annotated, Any, Literal, Union

from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Observation, State
from pydantic import BaseModel, Field, RootModel


class Way(str, Enum):
    left = "left"
    right = "right"


class Turn(BaseModel):
    kind: Literal["turn"] = "turn"
    way: Way
    by: list[int] = [1]


class Stop(BaseModel):
    kind: Literal["stop"] = "stop"


class Whole(RootModel[Annotated[Turn | Stop, Field(discriminator="kind")]]):
    pass


class Word(BaseModel):
    way: Way


class Numbers(RootModel[list[int]]):
    pass


class Seen(Observation):
    told: str


class Base(Environment[Any, Seen, State]):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed: int | None = None, episode_id: str | None = None, **_: Any) -> Seen:
        return Seen(told="go")

    def step(self, action: Any, timeout_s: float | None = None, **_: Any) -> Seen:
        return Seen(told=f"{type(action).__name__} {action!r}", reward=1.0, done=True)

    @property
    def state(self) -> State:
        return State()


class OfUnion(Base):
    def step(self, action: Union[Turn, Stop], timeout_s: float | None = None, **_: Any) -> Seen:
        return super().step(action)


class OfRoot(Base):
    def step(self, action: Whole, timeout_s: float | None = None, **_: Any) -> Seen:
        return super().step(action)


class OfWord(Base):
    def step(self, action: Word, timeout_s: float | None = None, **_: Any) -> Seen:
        return super().step(action)


class OfAsync(Base):
    async def reset(self, seed: int | None = None, episode_id: str | None = None, **_: Any) -> Seen:
        return super().reset()

    async def step(self, action: Word, timeout_s: float | None = None, **_: Any) -> Seen:
        return super().step(action)


class OfList(Base):
    def step(self, action: Numbers, timeout_s: float | None = None, **_: Any) -> Seen:
        return super().step(action)
"""

ANSWERS = {
    "OfUnion": ('{"kind": "stop"}', "Stop Stop(kind='stop')"),
    "OfRoot": ('{"kind": "turn", "way": "left", "by": [2]}', "Whole Whole(root=Turn(kind='turn', way="),
    "OfWord": ("'Right.'", "Word Word(way=<Way.right: 'right'>)"),
    "OfAsync": ("left", "Word Word(way=<Way.left: 'left'>)"),
    "OfList": ('{"root": [1, 2]}', "Numbers Numbers(root=[1, 2])"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_any_pydantic_model_is_an_action_in_process(project: Project, name: str) -> None:
    project.write("experiments/actions.py", ACTIONS)
    answer, told = ANSWERS[name]
    text = EXPERIMENT.format(place=f'python = "actions.py:{name}"', judge="mean")
    project.write("experiments/actions.toml", re.sub(r"distance = \d+", "", text))
    with fake_endpoint(lambda _: Reply(answer)) as endpoint:
        settings = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "fake"}
        done = project.run("-m", "lab.play", "baseline", "experiments/actions.toml", **settings)
    assert told in done.stdout, done.stdout + done.stderr
    assert "Return 1.00 in 1 steps" in done.stdout
