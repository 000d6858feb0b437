"""An environment that nobody had in mind: generated here, tuned by one experiment file, played and judged.

Its actions, observations, rewards, arguments of reset and `done` are its own, and are not the echo
environment's; the lab sees none of it but through the declaration.
"""

import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.contract import unescape
from lab.frozen import read_frozen
from tests.echo_server import server
from tests.fake_endpoint import Body, Reply, fake_endpoint
from tests.project import Project
from tests.test_inference import checked

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
max_return = 3.0
success_score = 0.5

[[tasks]]
name = "near"
reset = {{ distance = 10 }}

[[tasks]]
name = "far"
reset = {{ distance = 30 }}

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
calls = 240

[search]
episodes = 4
headroom = 5
in_flight = 12

[confirmation]
candidates = 2
episodes = 4

[verdict]
episodes = 8
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
    """A model that turns too far, too little or talks, and does best where it is told both numbers."""
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
    project = Project.make(tmp_path / "project")
    project.write("experiments/vault.py", VAULT)
    project.write("prompts/templates/guess.toml", GUESS)
    project.write("prompts/templates/reckon.toml", RECKON)
    return project


@contextmanager
def place(kind: str, project: Project) -> Iterator[str]:
    """The environment table's text, while the environment can be had there."""
    if kind == "in process":
        yield 'python = "vault.py:Vault"'
    else:
        with server(str(project.folder / "experiments/vault.py")) as url:
            yield f'url = "{url}"'


@pytest.mark.parametrize("kind", ["in process", "at a server"])
def test_it_is_tuned_by_one_file_and_what_is_frozen_is_played(project: Project, kind: str) -> None:
    with place(kind, project) as where, fake_endpoint(opener) as endpoint:
        project.write("experiments/vault.toml", EXPERIMENT.format(place=where))
        settings = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "fake"}
        tuned = project.run("-m", "lab.tune", "experiments/vault.toml", **settings)
        assert tuned.returncode == 0, tuned.stderr
        frozen = read_frozen(project.folder / "prompts/best.toml")
        assert frozen.evidence.outcome == "winner", tuned.stdout
        assert frozen.candidate.template.name == "reckon"
        assert [one.name for one in frozen.task.tasks] == ["near", "far"]

        first = checked(project.run("inference.py", **settings).stdout)
        far = checked(project.run("inference.py", TEST_TASK="far", TEST_BENCHMARK="b", **settings).stdout)
    assert first[0].groups() == ("near", "safes", "fake")
    assert far[0].groups() == ("far", "b", "fake")
    for (_, steps, end), distance in ((first, 10), (far, 30)):
        assert end[1] == "true" or distance == 10  # of 3.0, the most is had where it is far
        actions = [json.loads(unescape(step[2])) for step in steps]
        assert all(set(action) == {"way", "clicks"} for action in actions)
        assert sum(float(step[3]) for step in steps) == pytest.approx(distance / 10, abs=0.31)
        assert [step[4] == "true" for step in steps[:-1]] == [False] * (len(steps) - 1)
