"""An OwnScore: the environment's own score of an episode so far, where the task takes it.

It owns where the number is looked for: in the observation or its metadata, in the environment's state, or in
what the project's `score` hook returns.
"""

from typing import Any

from lab.environments.environment import Session
from lab.environments.foreign import raised
from lab.environments.observation import Observed, finite, nested
from lab.errors import ConfigError


class OwnScore:
    """Looks for the score after each step.

    Args:
        where: See `Task.own_score`; empty if the task does not take it.

    Raises:
        ConfigError: The hooks define no score.
    """

    def __init__(self, session: Session, where: str) -> None:
        self._session, self._where = session, where
        self._observations, self._rewards = list[dict[str, Any]](), list[float]()
        if where == "hooks.score" and session.view.score is None:
            do = "define score(observations, rewards) there"
            raise ConfigError("The hooks define no score.", where="environment.hooks", do=do)

    async def after(self, seen: Observed) -> float | None:
        """The score after a step; None if there is no number yet.

        Raises:
            EnvError: The environment cannot tell its state.
            ConfigError: The project's `score` failed.
        """
        source, _, path = self._where.partition(".")
        match source:
            case "observation":
                return finite(nested(seen.raw, path))
            case "metadata":
                return finite(nested(seen.raw, self._where))
            case "state":
                return finite(nested(await self._session.state(), path))
            case "hooks":
                self._observations.append(dict(seen.raw))
                self._rewards.append(seen.reward)
                return self._hooked()
        return None

    def _hooked(self) -> float | None:
        score = self._session.view.score
        assert score is not None
        try:
            given = score(list(self._observations), list(self._rewards))
        except BaseException as error:  # of the project's own code, which may call sys.exit
            what, where = "The score hook failed.", "environment.hooks"
            raise ConfigError(what, where=where, why=raised(error)) from error
        if given is not None and finite(given) is None:
            what, why = "The score hook did not return a finite number.", f"it returned {given!r}"
            raise ConfigError(what, where="environment.hooks", why=why)
        return finite(given)
