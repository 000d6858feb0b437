"""Patience: how often a call is tried, how long it may take, and how many calls an endpoint bears at a time.

It owns attempts and waits, the limit on calls at once, which falls when the endpoint pushes back and grows
again, and the limits on requests and tokens a minute. All calls of one endpoint share it.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf
from typing import Generic, TypeVar

from lab.errors import (
    BusyError,
    CallError,
    EndpointError,
    LabError,
    OutageError,
    RequestError,
    SlowError,
    UnreachableError,
)

T = TypeVar("T")

FIRST_WAIT_S, MOST_WAIT_S = 0.5, 30.0
"""Between two attempts: doubled each time, and drawn from the half below it to all of it."""

APART_S = 0.0015
"""Between the beginnings of two calls. Calls that are answered in the same moment would else be worked off by
turns, go on in the same moment, and wait for each other time after time."""

FALL, FALLS_APART_S = 0.7, 1.0
"""What the limit on calls at once is multiplied by when the endpoint pushes back, once a second at most:
calls that were begun together fail together."""

FIRST_TOKENS = 1000
"""What a call is taken to cost before any was answered."""


@dataclass(frozen=True)
class Patience:
    """What a call may take, and an endpoint is asked to bear.

    Attributes:
        timeout_s: seconds of one attempt.
        attempts: of one call, the first included; those that the endpoint was too busy for do not count.
        whole_s: seconds of all attempts of a call and the waits between them; no attempt begins later.
        requests_per_minute, tokens_per_minute: as the endpoint's owner allows; infinite for none.
    """

    timeout_s: float = 120.0
    attempts: int = 10
    whole_s: float = 600.0
    requests_per_minute: float = inf
    tokens_per_minute: float = inf


@dataclass(frozen=True)
class Done(Generic[T]):
    """A call that was answered, and by which attempt, counted from 1."""

    answer: T
    attempts: int


class Throttle:
    """All calls of one endpoint pass through here.

    Attributes:
        on_failure: called with the error of every attempt that failed.
        before_retry: called before another attempt is made; what it raises ends the call.
    """

    def __init__(self, patience: Patience, clock: Callable[[], float] = time.monotonic) -> None:
        self.on_failure: Callable[[LabError], None] = lambda _: None
        self.before_retry: Callable[[], None] = lambda: None
        self._patience, self._clock = patience, clock
        self._in_use, self._limit, self._freed = 0, inf, asyncio.Condition()
        self._fell_s = self._answered_s = -inf
        self._pace = _Pace(patience)

    async def make(self, attempt: Callable[[], Awaitable[T]], tokens: Callable[[T], int]) -> Done[T]:
        """Make one call, with as many attempts as patience has.

        Raises:
            EndpointError: no call will do better: a wrong key or address, or an endpoint that has answered
                nobody since this call began.
            CallError: this call failed each time, while others were answered; RequestError: at once.
        """
        began_s, number, failed = self._clock(), 0, 0
        while True:
            number += 1
            try:
                async with self._slot() as expected:
                    answer = await attempt()
                    self._answered(tokens(answer) - expected)
                    return Done(answer, number)
            except (CallError, UnreachableError) as error:
                self.on_failure(error)
                wait_s = self._wait_s(error, number)
                failed += not isinstance(error, BusyError)
                over = self._clock() + wait_s - began_s > self._patience.whole_s
                if self._is_final(error) or failed >= self._patience.attempts or over:
                    raise self._given_up(error, number, began_s) from error
            self.before_retry()
            await asyncio.sleep(wait_s)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[int]:
        """A place among the calls at once, when it is this call's turn; the tokens it is expected to take."""
        async with self._freed:
            await self._freed.wait_for(lambda: self._in_use < self._limit)
            self._in_use += 1
        try:
            begins_s, expected = self._pace.reserve(self._clock())
            while (wait_s := max(begins_s, self._pace.paused_until_s) - self._clock()) > 0:  # noqa: ASYNC110  # it may grow
                await asyncio.sleep(wait_s)
            yield expected
        finally:
            self._in_use -= 1
            async with self._freed:
                self._freed.notify_all()

    def _answered(self, more_tokens: int) -> None:
        self._answered_s = self._clock()
        self._pace.correct(more_tokens)
        self._limit += 1 / self._limit

    def _wait_s(self, error: LabError, number: int) -> float:
        """How long to wait before the next attempt; who pushes back is asked less from now on."""
        wait_s = min(FIRST_WAIT_S * 2.0 ** (number - 1), MOST_WAIT_S) * random.uniform(0.5, 1.0)
        if not isinstance(error, BusyError | SlowError):
            return wait_s
        now_s = self._clock()
        if now_s - self._fell_s >= FALLS_APART_S:
            self._fell_s = now_s
            self._limit = max(1.0, min(self._limit, self._in_use + 1) * FALL)
        asked_s = error.retry_after_s if isinstance(error, BusyError) else 0.0
        self._pace.paused_until_s = max(self._pace.paused_until_s, now_s + asked_s)
        return max(wait_s, asked_s)

    def _is_final(self, error: LabError) -> bool:
        """Whether another attempt is of no use: a bad request, or an address that never answered anybody."""
        never = self._answered_s == -inf
        return isinstance(error, RequestError) or (isinstance(error, UnreachableError) and never)

    def _given_up(self, error: CallError | UnreachableError, number: int, began_s: float) -> LabError:
        """This call's own error, or the endpoint's: it was busy, or has answered nobody in the meantime."""
        if not isinstance(error, OutageError):
            return error
        if self._answered_s >= began_s and not isinstance(error, BusyError):
            return error
        what = f"The endpoint answered none of {number} attempts. {error.what}"
        do = "once the endpoint recovers, run the same command to resume"
        return EndpointError(what, where=error.where, why=error.why, do=do)


class _Pace:
    """When the next call may begin, so that no minute has more requests or tokens than are allowed.

    What a call takes is known when it is answered; until then it counts for what calls take on average.
    """

    def __init__(self, patience: Patience) -> None:
        self.paused_until_s = -inf
        self._request_s = max(60 / patience.requests_per_minute, APART_S)
        self._token_s = 60 / patience.tokens_per_minute
        self._next_s = -inf
        self._calls, self._tokens = 1, FIRST_TOKENS

    def reserve(self, now_s: float) -> tuple[float, int]:
        """The moment that a call may begin at, and the tokens that were set aside for it."""
        begins_s, expected = max(now_s, self._next_s), round(self._tokens / self._calls)
        self._next_s = begins_s + max(self._request_s, expected * self._token_s)
        return begins_s, expected

    def correct(self, more_tokens: int) -> None:
        """A call was answered, and took so many more tokens than were set aside."""
        self._tokens += round(self._tokens / self._calls) + more_tokens
        self._calls += 1
        self._next_s += more_tokens * self._token_s
