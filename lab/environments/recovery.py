"""A Recovery: a session for one episode, in which an action that made the environment raise costs one step.

Such an action may leave half a state behind. So before the next action, the episode is begun again in a new
session by repeating the actions that the environment took.
"""

from collections.abc import Mapping
from math import isclose
from typing import TYPE_CHECKING, Any

from lab.environments.action import ActionError, StepError, Values
from lab.environments.observation import Observed
from lab.errors import BrokenError, EnvError

if TYPE_CHECKING:
    from lab.environments.environment import Session


class Recovery:
    """Wraps a session. Call `reset` first, and `goes_on` before each step."""

    def __init__(self, session: "Session", seed: int, arguments: Mapping[str, Any]) -> None:
        self._session, self._begin = session, (seed, arguments)
        self._taken, self._seen = list[Values](), list[Observed]()
        self._error: StepError | None = None

    async def reset(self) -> Observed:
        """Begin the episode.

        Raises:
            EnvError: it could not be begun.
        """
        self._seen = [await self._session.reset(*self._begin)]
        return self._seen[0]

    async def step(self, action: Values) -> Observed:
        """Send an action.

        Raises:
            ActionError: the environment refused it, or raised.
            BrokenError: the environment failed otherwise.
        """
        try:
            self._seen.append(await self._session.step(action))
        except StepError as error:
            self._error = error
            raise
        except EnvError as error:
            raise BrokenError(error.what, where=error.where, why=error.why, do=error.do) from error
        self._taken.append(action)
        return self._seen[-1]

    async def goes_on(self) -> bool:
        """Whether another action can be sent; begins the episode again where the environment has raised.

        False where the environment does not repeat itself: there is no way back to where the episode was.

        Raises:
            BrokenError: the environment cannot be reset any more.
        """
        if self._error is None:
            return True
        try:
            repeated = await self._repeats()
        except ActionError:
            return False
        except EnvError as error:
            what, why = "An action broke the environment.", f"{self._error.why}; then: {error.one_line}"
            raise BrokenError(what, where=error.where, why=why, do=error.do) from error
        self._error = None
        return repeated

    async def _repeats(self) -> bool:
        await self._session.renew()
        again = await self._session.reset(*self._begin)
        for action, before in zip(self._taken, self._seen, strict=False):
            if not _same(again, before):
                return False
            again = await self._session.step(action)
        return _same(again, self._seen[-1])


def _same(one: Observed, other: Observed) -> bool:
    close = isclose(one.reward, other.reward, rel_tol=1e-6, abs_tol=1e-9)
    return close and (one.done, one.text) == (other.done, other.text)
