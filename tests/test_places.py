"""A server with a session limit: episodes wait for a place, with one notice."""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from websockets.sync.server import ServerConnection

from lab.environments import places
from lab.environments.environment import open_environment
from lab.environments.isolation import isolation_of
from lab.errors import EnvError
from tests.echo_server import ECHO
from tests.fake_environment import fake_environment, observation
from tests.project import TIMEOUT_S

FULL = (
    '{"type": "error", "data": {"message": "Server at capacity: 2/2 sessions active.",'
    ' "code": "CAPACITY_REACHED"}}'
)


class Server:
    """Accepts `most` sessions; a session ends when the client closes it, or is gone."""

    def __init__(self, most: int) -> None:
        self.most, self.refused, self.at_once = most, 0, 0
        self.inside = set[ServerConnection]()

    async def has_refused(self) -> None:
        """Wait for the first refusal."""
        while not self.refused:  # noqa: ASYNC110  # it happens in another thread
            await asyncio.sleep(0.01)

    def say(self, body: dict[str, Any], connection: ServerConnection) -> str | None:
        if body["type"] == "close":
            self.inside.discard(connection)
            return None
        if connection not in self.inside:
            if len(self.inside) >= self.most:
                self.refused += 1
                return FULL
            self.inside.add(connection)
        self.at_once = max(self.at_once, len(self.inside))
        return observation(reward=1.0)


@contextmanager
def playing(server: Server) -> Iterator[Callable[[int], tuple[float, list[str]]]]:
    """Play concurrent episodes at the server: their returns, and the notices."""
    with fake_environment(server.say) as url:

        async def play(episodes: int) -> tuple[float, list[str]]:
            said = list[str]()
            async with open_environment(replace(ECHO, url=url), say=said.append) as environment:

                async def one(seed: int) -> float:
                    async with environment.session() as session:
                        await session.reset(seed, {})
                        await asyncio.sleep(0.01)
                        return (await session.step({"message": "hello"})).reward

                return sum(await asyncio.gather(*(one(seed) for seed in range(episodes)))), said

        yield lambda episodes: asyncio.run(play(episodes))


@pytest.mark.parametrize("most", [1, 3])
def test_episodes_wait_for_a_place_with_one_notice_and_few_retries(most: int) -> None:
    server = Server(most)
    with playing(server) as play:
        returned, said = play(24)
    assert returned == 24.0
    assert server.at_once == most
    assert server.refused <= 2 * 24
    (told,) = said
    accepted = re.search(r"accepted (\d+) sessions? at once", told)  # before the first one ended
    assert accepted is not None
    assert 1 <= int(accepted[1]) <= most
    assert "max_concurrent_envs" in told


def test_a_server_with_room_for_all_gives_no_notice() -> None:
    server = Server(24)
    with playing(server) as play:
        assert play(24) == (24.0, [])
    assert server.refused == 0


def test_a_place_that_somebody_else_leaves_is_taken() -> None:
    server = Server(1)
    other: Any = object()
    server.inside.add(other)
    say = server.say

    def leaves(body: dict[str, Any], connection: ServerConnection) -> str | None:
        if server.refused == 2:
            server.inside.discard(other)
        return say(body, connection)

    server.say = leaves  # type: ignore[method-assign]
    with playing(server) as play:
        returned, _ = play(4)
    assert (returned, server.at_once) == (4.0, 1)


def test_more_places_are_requested_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "GROW_S", 0.05)
    server = Server(4)
    others: list[Any] = [object() for _ in range(3)]
    server.inside |= set(others)

    async def play(url: str) -> None:
        async with open_environment(replace(ECHO, url=url)) as environment, environment.session() as first:
            await first.reset(0, {})

            async def second() -> None:
                async with environment.session() as session:
                    await session.reset(0, {})

            waiting = asyncio.create_task(second())
            await server.has_refused()
            server.inside -= set(others)
            await waiting

    with fake_environment(server.say) as url:
        asyncio.run(asyncio.wait_for(play(url), TIMEOUT_S))


def test_a_server_that_others_fill_is_an_outage_after_some_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "PATIENCE_S", 0.5)
    server = Server(0)
    with playing(server) as play, pytest.raises(EnvError, match="is full") as caught:
        play(4)
    assert "Server at capacity" in caught.value.why
    assert "max_concurrent_envs" in caught.value.do
    assert len(str(caught.value).splitlines()) <= 4


def test_a_server_with_one_place_is_known_to_have_one_before_a_place_would_be_free() -> None:
    async def isolation(url: str) -> str:
        async with asyncio.timeout(places.GROW_S), open_environment(replace(ECHO, url=url)) as environment:
            return await isolation_of(environment, 0)

    with fake_environment(Server(1).say) as url:
        assert asyncio.run(isolation(url)) == "single"


TOOLS = {
    "type": "object",
    "properties": {"tool_name": {"type": "string"}, "arguments": {"type": "object"}},
}


def test_the_tools_of_a_full_server_are_asked_for_once_it_has_a_place() -> None:
    server = Server(0)

    def say(body: dict[str, Any], connection: ServerConnection) -> str | None:
        said = server.say(body, connection)
        if server.refused == 2:
            server.most = 1
        if said and said != FULL and body.get("data", {}).get("type") == "list_tools":
            tools = '[{"name": "add", "description": "Adds two numbers."}]'
            return f'{{"type": "observation", "data": {{"observation": {{"tools": {tools}}}}}}}'
        return said

    async def asked(url: str) -> str:
        async with (
            open_environment(replace(ECHO, url=url)) as environment,
            environment.session() as session,
        ):
            return session.form.asked

    with fake_environment(say, TOOLS) as url:
        assert "Adds two numbers." in asyncio.run(asked(url))
