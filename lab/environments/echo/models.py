"""What an agent sends to the echo environment, and what comes back.

Both are checked where they come in: a message is Unicode text, of any length. Sessions, rewards and the
wire are others' business.
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
        """Refuse what JSON cannot carry back: two lone surrogates may arrive as one character.

        A TypeError, because pydantic would make a ValidationError of a ValueError: OpenEnv's server
        repeats the input of that in its answer, fails to encode it, and ends the session.
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
