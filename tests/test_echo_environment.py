"""The echo environment: in process, over its server, and as a package that OpenEnv accepts."""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.environments.echo import EchoEnvironment, TestAction, TestEnv
from lab.environments.echo.server.app import MAX_SESSIONS
from tests.echo_server import echo_server, without_gradio
from tests.project import TIMEOUT_S

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "lab" / "environments" / "echo"
AWKWARD = [
    "",
    "two\nlines\r\n",
    "tab\tand\0NUL",
    "é ü ß",
    "😀 👨‍👩‍👧",
    "\u2028\u2029\ufeff",
    '"quoted" \\',
    "x" * 100_000,
]
SLOT_TIMEOUT_S = 300.0


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with echo_server() as url:
        yield url


def rewards_in_process(messages: Sequence[str]) -> list[float]:
    environment = EchoEnvironment()
    environment.reset()
    return [environment.step(TestAction(message=message)).reward for message in messages]


async def play(url: str, messages: Sequence[str]) -> list[tuple[str, float]]:
    async with TestEnv(base_url=url) as env:
        await env.reset()
        results = [await env.step(TestAction(message=message)) for message in messages]
        return [(result.observation.echoed_message, result.reward) for result in results]


async def open_session(url: str) -> TestEnv:
    """A client whose session the server has accepted; a session just closed may still hold its slot."""
    deadline = time.monotonic() + SLOT_TIMEOUT_S
    while True:
        env = TestEnv(base_url=url)
        try:
            await env.reset()
            return env
        except RuntimeError:
            await env.close()
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


def get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: dict[str, Any] = json.load(answer)
        return body


# In process


@given(st.text())
def test_a_step_echoes_exactly_and_pays_a_tenth_for_each_character(message: str) -> None:
    observation = EchoEnvironment().step(TestAction(message=message))
    assert observation.echoed_message == message
    assert observation.message_length == len(message)
    assert observation.reward == len(message) * 0.1


@given(st.lists(st.text(), max_size=30))
def test_the_environment_never_ends_an_episode(messages: list[str]) -> None:
    environment = EchoEnvironment()
    assert not environment.reset().done
    assert not any(environment.step(TestAction(message=message)).done for message in messages)
    assert environment.state.step_count == len(messages)


def test_reset_begins_an_episode_with_a_ready_message_and_no_reward() -> None:
    environment = EchoEnvironment()
    environment.step(TestAction(message="hello"))
    first = environment.reset(seed=1, episode_id="mine")
    assert (first.echoed_message, first.reward, first.done) == ("Echo environment ready!", 0.0, False)
    assert (environment.state.episode_id, environment.state.step_count) == ("mine", 0)
    environment.reset()
    assert environment.state.episode_id != "mine"


@pytest.mark.parametrize("message", ["\ud83d", "a\udc00b", "\ud83d\ude00"])
def test_a_lone_surrogate_is_refused_before_it_is_sent(message: str) -> None:
    with pytest.raises(TypeError, match="lone surrogate at position"):
        TestAction(message=message)


# Over the server


@settings(deadline=None, max_examples=20)
@given(messages=st.lists(st.text(), max_size=8))
def test_an_episode_over_the_server_equals_one_in_process(server: str, messages: list[str]) -> None:
    assert asyncio.run(play(server, messages)) == list(
        zip(messages, rewards_in_process(messages), strict=True)
    )


def test_awkward_text_comes_back_exactly(server: str) -> None:
    assert [echo for echo, _ in asyncio.run(play(server, AWKWARD))] == AWKWARD


def test_sessions_play_concurrently_up_to_the_limit_and_the_next_is_refused(server: str) -> None:
    async def crowd() -> None:
        sessions = [await open_session(server) for _ in range(MAX_SESSIONS)]
        late = TestEnv(base_url=server)
        try:
            with pytest.raises(RuntimeError, match="CAPACITY_REACHED"):
                await late.reset()
            steps = (env.step(TestAction(message="x" * n)) for n, env in enumerate(sessions))
            results = await asyncio.gather(*steps)
            assert [result.observation.message_length for result in results] == list(range(MAX_SESSIONS))
        finally:
            await asyncio.gather(*(env.close() for env in [late, *sessions]))

    asyncio.run(crowd())


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({"message": 5}, "VALIDATION_ERROR"),
        ({}, "VALIDATION_ERROR"),
        ({"message": "x", "volume": 11}, "VALIDATION_ERROR"),
        ({"message": "\ud800"}, "EXECUTION_ERROR"),
    ],
)
def test_a_malformed_action_keeps_the_session(server: str, payload: dict[str, Any], code: str) -> None:
    class Careless(TestEnv):
        def _step_payload(self, action: TestAction | dict[str, Any]) -> dict[str, Any]:
            return action if isinstance(action, dict) else super()._step_payload(action)

    async def episode() -> None:
        async with Careless(base_url=server) as env:
            await env.reset(episode_id="kept")
            with pytest.raises(RuntimeError, match=code):
                await env.step(payload)
            result = await env.step(TestAction(message="still here"))
            state = await env.state()
            assert (result.reward, state.episode_id, state.step_count) == (1.0, "kept", 1)

    asyncio.run(episode())


def test_the_http_endpoints_answer(server: str) -> None:
    assert get(f"{server}/health") == {"status": "healthy"}
    assert get(f"{server}/metadata")["name"] == "echo"
    assert get(f"{server}/schema")["action"]["properties"]["message"]["type"] == "string"
    assert "/step" in get(f"{server}/openapi.json")["paths"]
    assert "echoed_message" in get(f"{server}/schema")["observation"]["properties"]


def test_the_web_page_leads_to_the_api_page_without_the_web_interface(server: str) -> None:
    with urllib.request.urlopen(f"{server}/web", timeout=10) as answer:
        assert answer.url == f"{server}/docs"


# As a package


def test_openenv_accepts_the_package(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "openenv"), "validate", "--level", "static", str(PACKAGE)]
    settings = os.environ | {"PYTHONPATH": without_gradio(tmp_path)}
    run = subprocess.run(
        command, env=settings, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Verdict: PASS" in run.stdout


def test_importing_the_package_does_not_import_openenv() -> None:
    code = "import lab.environments.echo, sys; print('openenv' in sys.modules, 'fastapi' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    assert run.stdout.split() == ["False", "False"]
