"""Opening an environment in process, by URL and from an image: equal episodes, clear errors."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.server import ServerConnection

from lab.agent.agent import Agent
from lab.agent.candidate import Candidate
from lab.agent.episode import Episode
from lab.agent.rollout import play
from lab.agent.task import Task
from lab.agent.template import PromptTemplate
from lab.environments.config import EnvironmentConfig, choose_environment
from lab.environments.environment import open_environment
from lab.errors import EnvError
from lab.llm.client import Completion, Message
from lab.llm.sampling import SamplingParams
from tests.echo_server import ECHO, echo_server, free_port, wait_until_healthy, without_gradio
from tests.fake_docker import fake_docker
from tests.fake_environment import Say, fake_environment, observation

CANDIDATE = Candidate(PromptTemplate("plain", "Speak.", "{observation}"))
TASK = Task("echo", "test", max_steps=2, max_tokens=10, max_return=2.0, success_score=0.1)


class Talker:
    """A model that always gives the same answer."""

    async def complete(
        self,
        messages: Sequence[Message],  # noqa: ARG002
        sampling: SamplingParams,  # noqa: ARG002
        schema: str = "",  # noqa: ARG002
    ) -> Completion:
        return Completion("hello", "stop", 1, 1, 0.0)


MESSAGES = ["", "a", "two\nlines", "éü😀\u2028", "x" * 5000]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with echo_server() as url:
        yield url


@pytest.fixture(params=["in process", "url", "image"])
def config(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EnvironmentConfig]:
    if request.param == "in process":
        yield ECHO
    elif request.param == "url":
        yield replace(ECHO, url=request.getfixturevalue("server"))
    else:
        with fake_docker(tmp_path) as docker:
            monkeypatch.setenv("PATH", docker.path)
            monkeypatch.setenv("PYTHONPATH", without_gradio(tmp_path))
            yield replace(ECHO, image="test:latest")
            assert docker.left_over() == []


async def play_messages(config: EnvironmentConfig) -> tuple[list[str], list[float]]:
    async with open_environment(config) as environment, environment.session() as session:
        opening = await session.reset(7, {})
        assert opening.text
        assert opening.reward == 0
        seen = [await session.step({"message": message}) for message in MESSAGES]
        assert not any(observed.done for observed in seen)
        return [observed.text for observed in seen], [observed.reward for observed in seen]


def test_an_episode_is_the_same_however_the_environment_is_opened(config: EnvironmentConfig) -> None:
    texts, rewards = asyncio.run(play_messages(config))
    assert texts == MESSAGES
    assert rewards == pytest.approx([len(message) * 0.1 for message in MESSAGES])


def test_64_sessions_of_one_server_are_played_at_once(server: str) -> None:
    async def one(stack: AsyncExitStack, number: int) -> float:
        environment = await stack.enter_async_context(open_environment(replace(ECHO, url=server)))
        session = await stack.enter_async_context(environment.session())
        await session.reset(number, {})
        return (await session.step({"message": "x" * number})).reward

    async def all_at_once() -> list[float]:
        async with AsyncExitStack() as stack:
            return await asyncio.gather(*(one(stack, number) for number in range(64)))

    assert asyncio.run(all_at_once()) == pytest.approx([number * 0.1 for number in range(64)])


def failure(config: EnvironmentConfig) -> EnvError:
    with pytest.raises(EnvError) as caught:
        asyncio.run(play_messages(config))
    assert len(str(caught.value).splitlines()) <= 4
    return caught.value


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://nowhere.invalid:8000", "http://"])
def test_an_unreachable_url_says_what_to_check(url: str) -> None:
    error = failure(replace(ECHO, url=url))
    assert "cannot be reached" in error.what
    assert "ENV_BASE_URL" in error.do


def test_no_docker_engine_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    error = failure(replace(ECHO, image="test:latest"))
    assert "no Docker engine is running" in error.why
    assert "unset LOCAL_IMAGE_NAME" in error.do


def test_a_missing_image_says_how_to_build_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_docker(tmp_path) as docker:
        monkeypatch.setenv("PATH", docker.path)
        error = failure(replace(ECHO, image="nope:latest"))
    assert "nope:latest" in error.why
    assert error.do == "docker build -t nope:latest ."


def test_a_server_that_dies_in_the_episode_is_an_environments_failure(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "lab.environments.echo.server.app", "--port", str(port)]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": without_gradio(tmp_path)})

    async def episode() -> None:
        config = replace(ECHO, url=f"http://127.0.0.1:{port}")
        async with open_environment(config) as environment, environment.session() as session:
            await session.reset(0, {})
            process.send_signal(signal.SIGKILL)
            process.wait()
            await session.step({"message": "still there?"})

    try:
        wait_until_healthy(f"http://127.0.0.1:{port}", process)
        with pytest.raises(EnvError):
            asyncio.run(episode())
    finally:
        process.kill()
        process.wait()


def failure_of_play(say: Say) -> EnvError:
    """The ending of an episode with this server."""

    async def episode(url: str) -> None:
        config = replace(ECHO, url=url, step_timeout_s=2.0)
        async with open_environment(config) as environment, environment.session() as session:
            await play(Agent(CANDIDATE, Talker(), TASK), session, 0)

    with fake_environment(say) as url, pytest.raises(EnvError) as caught:
        asyncio.run(episode(url))
    assert len(str(caught.value).splitlines()) <= 4
    return caught.value


def after_reset(frame: str | None) -> Say:
    return lambda asked, _: observation() if asked["type"] in ("state", "reset") else frame


def hang_up(asked: dict[str, Any], connection: ServerConnection) -> str | None:
    if asked["type"] == "step":
        connection.close()
    return observation()


FAULTS: dict[str, tuple[Say, str]] = {
    "reward NaN": (after_reset(observation(reward=float("nan"))), "reward is not a finite number"),
    "reward infinite": (after_reset(observation(reward=float("inf"))), "reward is not a finite number"),
    "reward a string": (after_reset(observation(reward="plenty")), "environment"),
    "no observation": (after_reset('{"type": "observation", "data": {}}'), "observation is malformed"),
    "text a number": (after_reset(observation(text=7)), "observation is malformed"),
    "not JSON": (after_reset("<html>"), "environment failed"),
    "done a string": (after_reset(observation(done="maybe")), "environment"),
    "done at reset": (lambda *_: observation(done=True), "over at reset"),
    "a step that hangs": (after_reset(None), "did not answer in time"),
    "a reset that hangs": (lambda *_: None, "did not answer in time"),
    "a socket that closes": (hang_up, "environment"),
    "an error at reset": (
        lambda *_: '{"type": "error", "data": {"message": "no", "code": "BAD"}}',
        "environment failed",
    ),
}


@pytest.mark.parametrize(("say", "told"), FAULTS.values(), ids=FAULTS)
def test_any_behaviour_of_a_server_is_an_environment_error(say: Say, told: str) -> None:
    assert told in failure_of_play(say).what


def test_no_reward_counts_as_zero_and_a_surrogate_is_replaced() -> None:
    async def episode(url: str) -> Episode:
        config = replace(ECHO, url=url)
        async with open_environment(config) as environment, environment.session() as session:
            return await play(Agent(CANDIDATE, Talker(), TASK), session, 0)

    with fake_environment(after_reset(observation(text="\ud800", reward=None))) as url:
        played = asyncio.run(episode(url))
    assert [step.reward for step in played.steps] == [0.0, 0.0]
    assert [step.observation for step in played.steps] == ["?", "?"]


def test_an_action_that_the_server_refuses_is_that_steps_error() -> None:
    async def episode(url: str) -> Episode:
        async with open_environment(replace(ECHO, url=url)) as environment, environment.session() as session:
            return await play(Agent(CANDIDATE, Talker(), TASK), session, 0)

    refused = '{"type": "error", "data": {"message": "Invalid message", "code": "VALIDATION_ERROR"}}'
    with fake_environment(after_reset(refused)) as url:
        played = asyncio.run(episode(url))
    assert [step.reward for step in played.steps] == [0.0, 0.0]
    assert all("refused the action" in str(step.error) for step in played.steps)
    assert played.steps[0].observation.endswith("\n\nready")


@pytest.mark.parametrize("action", [None, [], "text"])
def test_a_server_without_an_action_schema_is_reported(action: object) -> None:
    with fake_environment(lambda *_: observation(), action) as url:
        error = failure(replace(ECHO, url=url))
    assert "publishes no usable action schema" in error.what
    assert error.where == f"{url}/schema"


def test_a_space_is_played_at_its_url_and_variables_override_a_declaration() -> None:
    declared = EnvironmentConfig(space="Some_Owner/My.Env")
    assert declared.address == "https://some-owner-my-env.hf.space"
    image = choose_environment(declared, {"IMAGE_NAME": "test:latest"})
    assert (image.address, image.image) == ("", "test:latest")
    url = {"IMAGE_NAME": "test:latest", "ENV_BASE_URL": "http://127.0.0.1:8000"}
    assert choose_environment(declared, url).address == "http://127.0.0.1:8000"
    assert choose_environment(declared, {}) == declared
