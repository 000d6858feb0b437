"""Whatever an environment's server sends, an episode ends clearly: bounded in memory, depth and time."""

import asyncio
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from lab.environments.environment import open_environment
from lab.environments.observation import View
from lab.environments.wire import MOST_BYTES
from lab.errors import EnvError
from tests.echo_server import ECHO
from tests.fake_environment import MESSAGE, fake_environment, observation

LEVELS = 240 if sys.version_info < (3, 12) else 480
"""Depth of a schema that can be read, but exceeds Python's recursion limit."""


async def reset(url: str, answer_s: float = 20.0) -> None:
    config = replace(ECHO, url=url, step_timeout_s=answer_s)
    async with open_environment(config) as environment, environment.session() as session:
        await session.reset(0, {})


def failure(url: str, answer_s: float = 20.0) -> EnvError:
    with pytest.raises(EnvError) as caught:
        asyncio.run(reset(url, answer_s))
    assert len(str(caught.value).splitlines()) <= 4
    return caught.value


def test_a_schema_that_is_too_long_is_reported() -> None:
    with fake_environment(lambda *_: observation(), MESSAGE | {"description": "x" * MOST_BYTES}) as url:
        assert "more than" in failure(url).why


def nested(levels: int) -> object:
    value: object = {"type": "string"}
    for _ in range(levels):
        value = {"type": "object", "properties": {"inner": value}}
    return value


@pytest.mark.parametrize(
    ("action", "told"),
    [
        ({"properties": {"a": nested(LEVELS), "b": {}}}, "cannot be used: RecursionError"),
        ({"properties": "none"}, "cannot be used"),
        ({"properties": {"a": "text", "b": 1}}, "cannot be used"),
    ],
)
def test_an_unusable_schema_is_reported_with_the_reason(action: object, told: str) -> None:
    with fake_environment(lambda *_: observation(), action) as url:
        error = failure(url)
    assert "publishes no usable action schema" in error.what
    assert told in error.why


@contextmanager
def page(head: bytes, part: bytes, pause_s: float) -> Iterator[str]:
    """A server that answers anything with `head`, then with endless `part`s."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                try:
                    connection.sendall(head)
                    while True:
                        connection.sendall(part)
                        time.sleep(pause_s)
                except OSError:
                    pass

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n"


def test_a_schema_without_an_end_is_read_to_a_limit() -> None:
    with page(OK + b"\r\n", b" " * 100_000, 0) as url:
        assert "more than" in failure(url).why
    with page(OK + b"Content-Encoding: br\r\n\r\n", b" " * 100_000, 0) as url:
        assert "more than" in failure(url).why
    with page(OK + b"\r\n", b" ", 0.1) as url:
        assert "did not answer in time" in failure(url, answer_s=0.5).what


def test_a_deep_schema_and_a_deep_answer_are_errors_with_a_reason() -> None:
    deep = b"[" * 100_000
    with page(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(deep), deep, 9) as url:
        assert "RecursionError" in failure(url).why
    for frame in (deep.decode(), observation("x" * 20_000_000)):
        with fake_environment(lambda *_, frame=frame: frame) as url:
            assert failure(url).exit_code == 4


class Unshowable:
    def __str__(self) -> str:
        raise RuntimeError("it cannot be shown")


def test_an_unwritable_field_is_a_malformed_observation() -> None:
    deep: object = "bottom"
    for _ in range(200_000):
        deep = [deep]
    circle: dict[str, object] = {}
    circle["self"] = circle
    for value in (deep, circle, Unshowable()):
        with pytest.raises(EnvError, match="observation is malformed"):
            View().observed({"shown": value}, 0.0, False)


@pytest.mark.parametrize("reward", [10**400, -(10**400), json.loads("1" + "0" * 400)])
def test_a_reward_of_hundreds_of_digits_is_no_number(reward: int) -> None:
    with pytest.raises(EnvError, match="reward is not a finite number"):
        View().observed({"shown": "text"}, reward, False)
