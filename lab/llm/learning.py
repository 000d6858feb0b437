"""Learning: how an endpoint's dialect is found out from what it accepts and refuses.

It owns when a request is changed and sent again. What a refusal means for the dialect is
`lab.llm.dialect`'s; failures that are not about the request are left to `lab.llm.throttle`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace

from lab.errors import LabError
from lab.llm.dialect import OPENAI, Dialect, is_of_value, learnt, plainer
from lab.llm.refusal import Refusal
from lab.llm.request import Request
from lab.llm.response import Answer

ALONE_S = 10.0
"""Seconds for which calls with an untried feature wait for the first such call: refusals come at once."""

ROUNDS = 12
"""Maximum changes of one request."""

VAIN = 2
"""Number of times that plainer requests are tried without success."""

UNCLEAR = (400, 405, 422, 500, 501)
"""Statuses of errors that may be about the request although they do not say so. 502 to 504 are outages."""

Send = Callable[[Request, Dialect], Awaitable[Answer]]


class RefusedError(Exception):
    """The endpoint refused a request; `error` is what the call fails with if no change of the request helps.

    Attributes:
        is_clear: Whether the refusal is about something else than the request's form.
        elsewhere: The dialect with another address that may be the right one; None for none.
    """

    def __init__(
        self, error: LabError, refusal: Refusal, *, is_clear: bool, elsewhere: Dialect | None = None
    ) -> None:
        super().__init__(str(refusal))
        self.error, self.refusal, self.is_clear, self.elsewhere = error, refusal, is_clear, elsewhere


class Learning:
    """One endpoint's dialect, as far as it is known.

    Attributes:
        dialect: What requests are sent in.
        on_change: Called with the new dialect and, in words, what the endpoint refused.

    Args:
        known: Features that the endpoint is known to accept.
    """

    def __init__(self, dialect: Dialect = OPENAI, known: frozenset[str] = frozenset()) -> None:
        self.dialect = dialect
        self.on_change: Callable[[Dialect, str], None] = lambda _, __: None
        self._accepted, self._tried, self._gone = set(known), set(known), set[str]()
        self._vain, self._lock = 0, asyncio.Lock()

    async def ask(self, request: Request, send: Send) -> Answer:
        """Send a request, changed until the endpoint accepts it or refuses it for another reason.

        A feature that was not sent before is tried by one call at a time: a refusal costs one request.

        Raises:
            LabError: As `send` does; of a refused request, the error of the last refusal.
        """
        if not self._knows(request):
            async with self._alone():
                if not self._knows(request):  # no other call has tried its features meanwhile
                    try:
                        return await self._ask(request, send)
                    finally:
                        self._tried |= request.features(self.dialect)
        return await self._ask(request, send)

    def _knows(self, request: Request) -> bool:
        return request.features(self.dialect) <= self._tried

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            with suppress(TimeoutError):
                async with asyncio.timeout(ALONE_S):
                    await stack.enter_async_context(self._lock)
            yield

    async def _ask(self, request: Request, send: Send) -> Answer:
        error: LabError | None = None
        for _ in range(ROUNDS):
            dialect = self.dialect
            try:
                answer = await send(request, dialect)
            except RefusedError as refused:
                error = refused.error
                if not self._changed(request, dialect, refused):
                    return await self._otherwise(request, dialect, refused, send)
            else:
                self._accept(request, dialect, answer)
                return answer
        assert error is not None
        raise error

    def _changed(self, request: Request, sent: Dialect, refused: RefusedError) -> bool:
        """Whether the request differs now, because of this refusal or of another call's."""
        if _differs(request, self.dialect, sent):
            return True
        features = request.features(sent)
        if refused.is_clear:
            return False
        changed = learnt(self.dialect, features - self._accepted, refused.refusal, self._gone)
        if changed is None or not _differs(request, changed, sent):
            return False
        self._gone |= features - request.features(changed)
        self._adopt(changed, refused.refusal.message)
        return True

    async def _otherwise(self, request: Request, sent: Dialect, refused: RefusedError, send: Send) -> Answer:
        """The answer to a request that is sent elsewhere, or is plainer.

        Raises:
            LabError: No such request is accepted; the error of the refused request.
        """
        unclear = not (refused.is_clear or is_of_value(refused.refusal)) and self._vain < VAIN
        unclear = unclear and refused.refusal.status in UNCLEAR
        unsure = request.features(sent) - self._accepted if unclear else ()
        others = [refused.elsewhere] if refused.elsewhere else plainer(sent, sorted(unsure), refused.refusal)
        for dialect in others:
            if not _differs(request, dialect, sent):
                continue
            try:
                answer = await send(request, dialect)
            except RefusedError as again:
                if refused.elsewhere and not again.is_clear:  # it is the API's, and refuses something else
                    self._adopt(dialect, str(refused.refusal))
                    return await self._ask(request, send)
                continue
            self._vain = 0
            left_out = request.features(sent) - request.features(dialect)
            if not left_out & self._accepted:  # another call may have shown meanwhile that it was an outage
                self._gone |= left_out
                self._adopt(_merged(self.dialect, sent, dialect), str(refused.refusal))
            self._accept(request, dialect, answer)
            return answer
        self._vain += bool(unsure)
        raise refused.error from None

    def _accept(self, request: Request, dialect: Dialect, answer: Answer) -> None:
        self._accepted |= request.features(dialect)
        if answer.began_inside and self.dialect.thinking == "marked":
            self._adopt(replace(self.dialect, thinking="unopened"), "an answer has no opening tag")

    def _adopt(self, dialect: Dialect, why: str) -> None:
        self.dialect = dialect
        self.on_change(dialect, why)


def _differs(request: Request, one: Dialect, other: Dialect) -> bool:
    return one != other and (one.path != other.path or request.body(one) != request.body(other))


def _merged(now: Dialect, before: Dialect, after: Dialect) -> Dialect:
    """The dialect `now` with the changes from `before` to `after`."""
    changes = {name: one for name, one in vars(after).items() if one != getattr(before, name)}
    return replace(now, **changes | {"omit": now.without(after.omit).omit})
