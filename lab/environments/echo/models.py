"""The action and the observation of the echo environment.

Both are validated: a message is Unicode text of any length. Sessions, rewards and the protocol are in other
modules.
"""

import re

from openenv.core.env_server.types import Action, Observation
from pydantic import Field, field_validator

LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class TestAction(Action):  # type: ignore[misc]  # openenv carries no types
    """One message for the environment to echo."""

    __test__ = False  # the name is OpenEnv's to keep; pytest must not collect it

    message: str = Field(description="The message to echo: Unicode text, without lone surrogates.")

    @field_validator("message")
    @classmethod
    def _is_text(cls, message: str) -> str:
        """Refuse lone surrogates: two of them may arrive as one character through JSON.

        It raises a TypeError, because pydantic turns a ValueError into a ValidationError: OpenEnv's server
        repeats its input in the answer, fails to encode it, and ends the session.
        """
        if found := LONE_SURROGATE.search(message):
            raise TypeError(f"message is not text: lone surrogate at position {found.start()}")
        return message


class TestObservation(Observation):  # type: ignore[misc]
    """The echo of the last message; `reward` and `done` come from OpenEnv's base class."""

    __test__ = False

    echoed_message: str = Field(default="", description="The message, exactly as it was sent.")
    message_length: int = Field(
        default=0, ge=0, description="Its length in Unicode code points, as `len()` counts them."
    )
