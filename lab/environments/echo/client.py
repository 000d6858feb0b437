"""The client of an echo server: one WebSocket, one session, one episode at a time.

It owns the translation between the wire and the models. Connecting, sessions and containers are
OpenEnv's (`TestEnv(base_url=...)`, `TestEnv.from_docker_image(...)`).
"""

from typing import TYPE_CHECKING, Any

from openenv.core.client_types import StepResult
from openenv.core.env_client import EnvClient
from openenv.core.env_server.types import State

if TYPE_CHECKING or __package__:
    from .models import TestAction, TestObservation
else:  # a submission puts this folder itself on PYTHONPATH and runs `from client import TestEnv`
    from models import TestAction, TestObservation


class TestEnv(EnvClient[TestAction, TestObservation, State]):  # type: ignore[misc]
    """Plays the echo environment over its server."""

    __test__ = False  # the name is OpenEnv's to keep; pytest must not collect it

    def _step_payload(self, action: TestAction) -> dict[str, Any]:
        return {"message": action.message}

    def _parse_result(self, payload: dict[str, Any]) -> StepResult:
        reward, done = payload["reward"], payload["done"]
        observation = TestObservation(**payload["observation"], reward=reward, done=done)
        return StepResult(observation=observation, reward=reward, done=done)

    def _parse_state(self, payload: dict[str, Any]) -> State:
        return State(**payload)
