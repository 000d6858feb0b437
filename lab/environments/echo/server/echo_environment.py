"""The echo environment: returns each message, with a reward proportional to its length.

It owns the reward and nothing else. There is no cap and no end: the step limit and the score belong
to the task, so to the agent's side.
"""

from typing import TYPE_CHECKING
from uuid import uuid4

from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import EnvironmentMetadata, State
from typing_extensions import override

if TYPE_CHECKING or __package__ != "server":
    from ..models import TestAction, TestObservation
else:  # OpenEnv serves `server.app:app` from inside the package's folder
    from models import TestAction, TestObservation

REWARD_PER_CHARACTER = 0.1
READY = "Echo environment ready!"


class EchoEnvironment(Environment[TestAction, TestObservation, State]):  # type: ignore[misc]
    """Echoes each message; `reward = len(message) * 0.1`."""

    SUPPORTS_CONCURRENT_SESSIONS = True  # an instance holds its own episode and nothing shared

    def __init__(self) -> None:
        super().__init__()
        self._state = State(episode_id=str(uuid4()))

    @override
    def reset(
        self, seed: int | None = None, episode_id: str | None = None, **kwargs: object
    ) -> TestObservation:
        """Begin an episode. Nothing here is random, so the seed changes nothing."""
        self._state = State(episode_id=episode_id or str(uuid4()))
        return TestObservation(echoed_message=READY, reward=0.0)

    @override
    def step(self, action: TestAction, timeout_s: float | None = None, **kwargs: object) -> TestObservation:
        """Echo the action's message and pay for its length."""
        self._state.step_count += 1
        length = len(action.message)
        return TestObservation(
            echoed_message=action.message, message_length=length, reward=length * REWARD_PER_CHARACTER
        )

    @property
    @override
    def state(self) -> State:
        """The episode's id and how many steps it has had."""
        return self._state

    @override
    def get_metadata(self) -> EnvironmentMetadata:
        """What `/metadata` says."""
        return EnvironmentMetadata(
            name="echo",
            description="Echoes each message; reward = len(message) * 0.1, with no cap.",
            version="0.1.0",
        )
