"""The echo environment as an OpenEnv package: its models, its client and its server.

Importing the package is cheap. A name is loaded when it is first used, because OpenEnv's core takes
seconds to import, which code that only names the environment should not pay for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.environments.echo.client import TestEnv
    from lab.environments.echo.models import TestAction, TestObservation
    from lab.environments.echo.server.echo_environment import EchoEnvironment

__all__ = ["EchoEnvironment", "TestAction", "TestEnv", "TestObservation"]

_HOME = {
    "EchoEnvironment": ".server.echo_environment",
    "TestAction": ".models",
    "TestEnv": ".client",
    "TestObservation": ".models",
}


def __getattr__(name: str) -> object:
    """Load a public name from the submodule that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name], __name__), name)
