"""A Recovery: a session for one episode, in which an action that makes the environment raise costs one step.

Such an action may leave an inconsistent state. So before the next action, the episode is replayed in a new
session by repeating the accepted actions.
"""

from collections.abc import Mapping
from math import isclose
from typing import TYPE_CHECKING, Any

from lab.environments.action import ActionError, StepError
from lab.environments.answer import Values
from lab.environments.observation import Observed
from lab.errors import BrokenError, EnvError

if TYPE_CHECKING:
    from lab.environments.environment import Session


class Recovery:
    """Wraps a session. Call `reset` first, and `can_continue` before each step."""

    def __init__(self, session: "Session", seed: int, arguments: Mapping[str, Any]) -> None:
        self._session, self._begin = session, (seed, arguments)
        self._taken, self._seen = list[Values](), list[Observed]()
        self._error: StepError | None = None

    async def reset(self) -> Observed:
        """Start the episode; as `Session.reset`."""
        self._seen = [await self._session.reset(*self._begin)]
        return self._seen[0]

    async def step(self, action: Values) -> Observed:
        """Send an action.

        Raises:
            ActionError: The environment refused it, or raised.
            BrokenError: The environment failed otherwise.
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

    async def can_continue(self) -> bool:
        """Whether another action can be sent; replays the episode if the environment has raised.

        False if the replay differs, because the environment does not follow its seed.

        Raises:
            BrokenError: The environment can no longer be reset.
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
