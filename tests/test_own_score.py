"""An environment that scores itself, in process and at a server: played, tuned and submitted."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.agent.candidate import Candidate
from lab.agent.task import Task
from lab.agent.template import PromptTemplate
from lab.environments.config import EnvironmentConfig
from lab.environments.observation import View
from lab.errors import EnvError
from lab.llm.sampling import SamplingParams
from lab.submission.freeze import freeze
from lab.submission.frozen import FrozenModel, FrozenPrompt, read_frozen
from tests.echo_server import server
from tests.fake_endpoint import Body, Reply, fake_endpoint
from tests.project import Project
from tests.test_frozen import EVIDENCE, PROVENANCE
from tests.test_inference import checked

ENVIRONMENT = '''
"""A lift: each step pays 1, and its grade is the share of steps up."""

from typing import Any, Literal

from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State


class Push(Action):
    button: Literal["up", "Down"]


class Floor(Observation):
    floor: int
    graded: dict[str, float] = {}


class Lifts(State):
    grade: float | None = None


class Lift(Environment[Push, Floor, Lifts]):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed: int | None = None, episode_id: str | None = None, **_: Any) -> Floor:
        self.pushed = []
        return Floor(floor=0)

    def step(self, action: Push, timeout_s: float | None = None, **_: Any) -> Floor:
        self.pushed.append(action.button)
        grade = self.pushed.count("up") / 4
        return Floor(
            floor=len(self.pushed), graded={"total": grade}, metadata={"grade": str(grade), "word": "good"},
            reward=1.0, done=len(self.pushed) == 4,
        )

    @property
    def state(self) -> Lifts:
        return Lifts(grade=self.pushed.count("up") / 4)


if __name__ == "__main__":
    import argparse

    import uvicorn
    from openenv.core.env_server.http_server import create_app

    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    app = create_app(Lift, Push, Floor, env_name="lift", max_concurrent_envs=64)
    uvicorn.run(app, host="127.0.0.1", port=parser.parse_args().port, log_level="warning")
'''

HOOKS = """
def score(observations, rewards):
    assert len(observations) == len(rewards) == observations[-1]["floor"]
    return observations[-1]["graded"]["total"]
"""

WHERE = ["observation.graded.total", "metadata.grade", "state.grade", "hooks.score"]
TASK = Task("lift", "house", 4, 20, 1.0, 0.5)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project.make(tmp_path / "project", tracked=True).untracked
    project.write("experiments/lift.py", ENVIRONMENT)
    project.write("experiments/lift_hooks.py", HOOKS)
    return project


@contextmanager
def placed(project: Project, kind: str) -> Iterator[EnvironmentConfig]:
    hooks = "experiments/lift_hooks.py"
    if kind == "in process":
        yield EnvironmentConfig(python="experiments/lift.py:Lift", hooks=hooks)
    else:
        with server(str(project.folder / "experiments/lift.py")) as url:
            yield EnvironmentConfig(url=url, hooks=hooks)


def frozen(project: Project, environment: EnvironmentConfig, score: str) -> None:
    candidate = Candidate(PromptTemplate("mine", "Ride.", "Step {step}: {observation}"), SamplingParams())
    model = FrozenModel("http://127.0.0.1:9/v1", "m")
    task = replace(TASK, score=score)
    freeze(
        FrozenPrompt(candidate, environment, task, model, EVIDENCE, PROVENANCE),
        project.folder / "prompts/best.toml",
    )


ANSWERS = ["up", "Down", "up", "up"]


def rides(body: Body) -> Reply:
    found = re.search(r"Step (\d)", body["messages"][-1]["content"])
    return Reply(ANSWERS[int(found[1]) - 1 if found else 0])


@pytest.mark.parametrize("kind", ["in process", "at a server"])
def test_the_score_is_the_environments_own(project: Project, kind: str) -> None:
    with placed(project, kind) as environment, fake_endpoint(rides) as endpoint:
        for where in WHERE:
            frozen(project, environment, where)
            done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m")
            _, steps, end = checked(done.stdout)
            assert [step[2] for step in steps] == ANSWERS, where
            assert end.groups() == ("true", "4", "0.750", "1.00,1.00,1.00,1.00"), where
            assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("where", ["observation.nothing", "metadata.word", "state.episode_id"])
def test_an_episode_that_ends_without_the_score_is_told(project: Project, where: str) -> None:
    with placed(project, "in process") as environment, fake_endpoint(rides) as endpoint:
        frozen(project, environment, where)
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m")
    _, _, end = checked(done.stdout)
    assert end.groups() == ("false", "4", "0.000", "1.00,1.00,1.00,1.00")
    assert done.returncode == 1
    assert "without a score" in done.stderr
    assert where in done.stderr


@pytest.mark.parametrize(
    ("hooks", "told"),
    [
        ("def score(observations, rewards):\n    return 'good'\n", "it returned 'good'"),
        ("def score(observations, rewards):\n    raise SystemExit(3)\n", "SystemExit"),
        ("def render(observation):\n    return 'x'\n", "The hooks define no score"),
        ("x = 1\n", "none of render, parse, score"),
    ],
)
def test_a_score_hook_that_cannot_be_used_is_told(project: Project, hooks: str, told: str) -> None:
    project.write("experiments/lift_hooks.py", hooks)
    with placed(project, "in process") as environment, fake_endpoint(rides) as endpoint:
        frozen(project, environment, "hooks.score")
        done = project.run("inference.py", API_BASE_URL=endpoint.url, MODEL_NAME="m")
    assert checked(done.stdout)[2][1] == "false"
    assert told in done.stderr
    assert "Traceback" not in done.stderr


EXPERIMENT = """
about = "Ride up."

[environment]
python = "lift.py:Lift"

[task]
name = "lift"
benchmark = "house"
max_steps = 4
max_tokens = 20
max_return = 1.0
success_score = 0.5
score = "metadata.grade"

[model]
endpoint = "embedded"
name = "fake"

[baseline]
template = "lazy"
temperature = 0.7
max_tokens = 20
history = 0

[space]
template = ["lazy", "eager"]
temperature = { low = 0.5, high = 1.0 }

[budget]
calls = 300

[search]
episodes = 4
headroom = 5

[confirmation]
candidates = 2
episodes = 4

[verdict]
episodes = 16
"""


def test_it_is_tuned_by_that_score_and_the_return_is_kept(project: Project) -> None:
    project.write("experiments/lift.toml", EXPERIMENT)
    for name in ("lazy", "eager"):
        text = f'about = "x"\nsystem = "Be {name}."\nturn = "Step {{step}}: {{observation}}"\n'
        project.write(f"prompts/templates/{name}.toml", text)
    turns = iter(range(10_000))

    def script(body: Body) -> Reply:
        eager = "eager" in body["messages"][0]["content"]
        return Reply("up" if next(turns) % (8 if eager else 2) else "Down")

    with fake_endpoint(script) as endpoint:
        settings = {"API_BASE_URL": endpoint.url, "MODEL_NAME": "fake"}
        plan = project.run("-m", "lab.tune", "experiments/lift.toml", "--dry-run", **settings).stdout
        done = project.run("-m", "lab.tune", "experiments/lift.toml", **settings)
        assert done.returncode == 0, done.stderr
        played = project.run("-m", "lab.play", "frozen", "experiments/lift.toml", **settings)
    evidence = read_frozen(project.folder / "prompts/best.toml").evidence
    assert (evidence.outcome, evidence.judged) == ("winner", "score"), done.stdout
    assert evidence.frozen_return == evidence.baseline_return == 4.0
    assert evidence.baseline_score < 0.7 < evidence.frozen_score
    assert "cannot be told apart" not in done.stdout
    assert "the environment's metadata.grade: 0 gives 0 and 1 gives 1" in " ".join(plan.split())
    assert re.search(r"Return 4.00 in 4 steps, score (1.000|0.750)", played.stdout)


@pytest.mark.parametrize(
    "reward", [True, 1, 1.0, np.float32(1.0), np.int64(1), np.bool_(True), Decimal("1.0"), "1", " 1.00 "]
)
def test_any_number_is_a_reward(reward: object) -> None:
    seen = View().observed({"shown": "text"}, reward, False)
    assert (seen.reward, type(seen.reward)) == (1.0, float)


@pytest.mark.parametrize(
    "reward", ["plenty", "nan", "inf", b"1", [1.0], {}, np.array([1.0, 2.0]), Decimal("NaN"), 1j]
)
def test_anything_else_is_no_reward(reward: Any) -> None:  # noqa: ANN401
    with pytest.raises(EnvError, match="reward is not a finite number"):
        View().observed({"shown": "text"}, reward, False)
