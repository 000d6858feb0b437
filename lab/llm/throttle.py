"""The Throttle: retries, timeouts and concurrency of the calls to one endpoint.

It owns attempts and waits, the concurrency limit, which falls when the endpoint pushes back and recovers,
and the limits on requests and tokens per minute. All calls of one endpoint share it.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf
from typing import TypeVar

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
"""Wait between two attempts: doubled each time, and drawn from half of it to all of it."""

APART_S = 0.0015
"""Minimum time between the starts of two calls. Otherwise calls that are answered at the same moment
continue at the same moment, and wait for each other again and again."""

FALL, FALLS_APART_S = 0.7, 1.0
"""Factor on the concurrency limit when the endpoint pushes back, at most once a second: calls that start
together fail together."""

FIRST_TOKENS = 1000
"""Assumed tokens of a call before any was answered."""


@dataclass(frozen=True)
class Patience:
    """Limits on calls to an endpoint.

    Attributes:
        timeout_s: Timeout of a first attempt, in seconds; a retry after a timeout has twice as long.
        attempts: Maximum attempts of a call, including the first; attempts refused as busy do not count.
        whole_s: Seconds for all attempts of a call and the waits between them; no attempt starts later.
        requests_per_minute, tokens_per_minute: The endpoint's rate limits; infinite for none.
    """

    timeout_s: float = 120.0
    attempts: int = 10
    whole_s: float = 600.0
    requests_per_minute: float = inf
    tokens_per_minute: float = inf


class Throttle:
    """Limits and retries of all calls to one endpoint.

    Attributes:
        on_failure: Called with the error of every failed attempt.
        before_retry: Called before a retry; an exception ends the call.
    """

    def __init__(self, patience: Patience) -> None:
        self.on_failure: Callable[[LabError], None] = lambda _: None
        self.before_retry: Callable[[], None] = lambda: None
        self._patience = patience
        self._in_use, self._limit, self._freed = 0, inf, asyncio.Condition()
        self._fell_s = self._answered_s = -inf
        self._timeout_s = patience.timeout_s
        self._pace = _Pace(patience)

    @property
    def answered(self) -> bool:
        """Whether any call was answered."""
        return self._answered_s > -inf

    async def make(
        self, attempt: Callable[[float], Awaitable[T]], tokens: Callable[[T], int]
    ) -> tuple[T, int]:
        """Make one call, with as many attempts as allowed; returns the answer and their number.

        After an answer that took longer than a first attempt may, the later calls begin with that time.

        Args:
            attempt: Makes an attempt that ends within so many seconds.

        Raises:
            EndpointError: No call can succeed: a wrong key or address, or an endpoint that has answered no
                call since this one began.
            CallError: Every attempt failed while other calls were answered; RequestError: without a retry.
        """
        began_s, number, failed, timeout_s = time.monotonic(), 0, 0, self._timeout_s
        while True:
            number += 1
            try:
                async with self._slot() as expected:
                    sent_s = time.monotonic()
                    answer = await attempt(timeout_s)
                    self._answered(tokens(answer) - expected)
                    if time.monotonic() - sent_s > self._timeout_s:
                        self._timeout_s = timeout_s
                    return answer, number
            except (CallError, UnreachableError) as error:
                self.on_failure(error)
                wait_s = self._wait_s(error, number)
                failed += not isinstance(error, BusyError)
                left_s = began_s + self._patience.whole_s - time.monotonic() - wait_s
                if self._is_final(error) or failed >= self._patience.attempts or left_s < 0:
                    raise self._given_up(error, number, began_s) from error
                if isinstance(error, SlowError):
                    timeout_s = max(timeout_s, min(2 * timeout_s, left_s))
            self.before_retry()
            await asyncio.sleep(wait_s)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[int]:
        """Wait for a slot among the concurrent calls; yields the expected tokens."""
        async with self._freed:
            await self._freed.wait_for(lambda: self._in_use < self._limit)
            self._in_use += 1
        try:
            begins_s, expected = self._pace.reserve(time.monotonic())
            while (wait_s := max(begins_s, self._pace.paused_until_s) - time.monotonic()) > 0:  # noqa: ASYNC110  # it may grow
                await asyncio.sleep(wait_s)
            yield expected
        finally:
            self._in_use -= 1
            async with self._freed:
                self._freed.notify_all()

    def _answered(self, more_tokens: int) -> None:
        self._answered_s = time.monotonic()
        self._pace.correct(more_tokens)
        self._limit += 1 / self._limit

    def _wait_s(self, error: LabError, number: int) -> float:
        """Seconds before the next attempt; reduces the concurrency if the endpoint pushes back."""
        wait_s = min(FIRST_WAIT_S * 2.0 ** (number - 1), MOST_WAIT_S) * random.uniform(0.5, 1.0)
        if not isinstance(error, BusyError | SlowError):
            return wait_s
        now_s = time.monotonic()
        if now_s - self._fell_s >= FALLS_APART_S:
            self._fell_s = now_s
            self._limit = max(1.0, min(self._limit, self._in_use + 1) * FALL)
        asked_s = error.retry_after_s if isinstance(error, BusyError) else 0.0
        self._pace.paused_until_s = max(self._pace.paused_until_s, now_s + asked_s)
        return max(wait_s, asked_s)

    def _is_final(self, error: LabError) -> bool:
        """Whether a retry is useless: a bad request, or an address that never answered."""
        return isinstance(error, RequestError) or (isinstance(error, UnreachableError) and not self.answered)

    def _given_up(self, error: CallError | UnreachableError, number: int, began_s: float) -> LabError:
        """The call's error, or the endpoint's if it was busy or has answered no call in the meantime."""
        if not isinstance(error, OutageError):
            return error
        if self._answered_s >= began_s and not isinstance(error, BusyError):
            return error
        attempts = "the only attempt" if number == 1 else f"any of {number} attempts"
        what = f"The endpoint did not answer {attempts}. {error.what}"
        do = "once the endpoint recovers, run the same command to resume"
        return EndpointError(what, where=error.where, why=error.why, do=do)


class _Pace:
    """Schedules the starts of calls within the limits on requests and tokens per minute.

    A call counts with the average tokens of a call until its own are known.
    """

    def __init__(self, patience: Patience) -> None:
        self.paused_until_s = -inf
        self._request_s = max(60 / patience.requests_per_minute, APART_S)
        self._token_s = 60 / patience.tokens_per_minute
        self._next_s = -inf
        self._calls, self._tokens = 1, FIRST_TOKENS

    def reserve(self, now_s: float) -> tuple[float, int]:
        """The time at which a call may start, and the tokens reserved for it."""
        begins_s, expected = max(now_s, self._next_s), round(self._tokens / self._calls)
        self._next_s = begins_s + max(self._request_s, expected * self._token_s)
        return begins_s, expected

    def correct(self, more_tokens: int) -> None:
        """Correct the reservation of an answered call by this many tokens."""
        self._tokens += round(self._tokens / self._calls) + more_tokens
        self._calls += 1
        self._next_s += more_tokens * self._token_s
