"""Places: the number of concurrent sessions that a server accepts, learnt from its refusals.

OpenEnv's server accepts `max_concurrent_envs` sessions, one by default, and answers CAPACITY_REACHED to
more. A refused session waits until one of ours is closed.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from math import inf
from typing import TypeVar

from lab.errors import EnvError

Answer = TypeVar("Answer")

PATIENCE_S = 30.0
"""Seconds for which a server may refuse every session: it frees closed ones late, and has other clients."""

FIRST_PAUSE_S, MOST_PAUSE_S = 0.1, 2.0
"""Seconds between two attempts while no session of ours is open; the pause doubles."""

GROW_S = 30.0
"""Seconds after which a full server is asked for one more session: another client's may have ended."""

FULL = "CAPACITY_REACHED"
"""OpenEnv's code for a refused session, in the text of its client's exception."""


class Places:
    """The places for sessions at the server `where`.

    A place is used while its session is open or may be opened, and inside from the server's first answer
    until the session is about to be closed.

    Args:
        say: Called once, when the server's limit makes sessions wait.
    """

    def __init__(self, where: str, say: Callable[[str], None]) -> None:
        self._where, self._say, self._said = where, say, False
        self._used, self._inside = set[Place](), set[Place]()
        self._peak, self._most = 0, inf
        self._refused_s, self._shut_s = -inf, inf
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def one(self) -> AsyncIterator["Place"]:
        """Wait for a free place, and hold it during the block."""
        place = Place(self)
        await self._take(place)
        try:
            yield place
        finally:
            self.close(place)
            self._free(place)

    def enter(self, place: "Place") -> None:
        """Record that the server has answered in this session."""
        self._inside.add(place)
        self._peak, self._shut_s = max(self._peak, len(self._inside)), inf

    def close(self, place: "Place") -> None:
        """Record that the session is about to be closed: the server may let another in before it is."""
        if place in self._inside and self._most < inf and not self._said:  # the server's limit is known now
            self._said = True
            number = f"{self._peak} session{'s' if self._peak > 1 else ''}"
            self._say(
                f"The environment's server accepted {number} at once and refused more: episodes wait for a"
                " free session. To play more at once, raise max_concurrent_envs in its create_app."
            )
        self._inside.discard(place)

    async def refused(self, place: "Place", why: str, pause_s: float) -> None:
        """Record that the server has refused the session, and wait before the next attempt.

        Args:
            pause_s: Seconds to wait if no session of ours is open.

        Raises:
            EnvError: The server has accepted no session for `PATIENCE_S`.
        """
        now_s = time.monotonic()
        self._inside.discard(place)
        self._free(place)
        self._most, self._refused_s = max(1, len(self._used)), now_s
        if not self._inside:
            self._shut_s = min(self._shut_s, now_s)
            if now_s - self._shut_s >= PATIENCE_S:
                what = f"The environment's server has accepted no session for {PATIENCE_S:g} s: it is full."
                do = "close its other clients, or raise the server's max_concurrent_envs"
                raise EnvError(what, where=self._where, why=why, do=do)
            await asyncio.sleep(pause_s)
        await self._take(place)

    async def _take(self, place: "Place") -> None:
        while len(self._used) >= self._most:
            since_s = time.monotonic() - self._refused_s
            if since_s >= GROW_S:
                self._most, self._refused_s = len(self._used) + 1, time.monotonic()
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(GROW_S - since_s):
                    await self._changed.wait()
        self._used.add(place)

    def _free(self, place: "Place") -> None:
        self._used.discard(place)
        self._changed.set()
        self._changed = asyncio.Event()


class Place:
    """One session's place."""

    def __init__(self, places: Places) -> None:
        self._places = places

    async def ask(
        self, call: Callable[[], Awaitable[Answer]], close: Callable[[], Awaitable[object]]
    ) -> Answer:
        """Make the first call of a session, and repeat it while the server refuses the session.

        Args:
            close: Closes the refused session's connection.

        Raises:
            EnvError: The server accepts no session.
            Exception: Anything else that the call raises.
        """
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                answer = await call()
            except Exception as error:  # only the text of OpenEnv's exceptions says which kind they are
                if FULL not in str(error):
                    raise
                await close()
                await self._places.refused(self, str(error), pause_s)
                pause_s = min(2 * pause_s, MOST_PAUSE_S)
            else:
                self._places.enter(self)
                return answer

    def close(self) -> None:
        """Record that the session is about to be closed; another one may use this place."""
        self._places.close(self)
