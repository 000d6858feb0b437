"""The Environment as the lab plays it: opened in process, by URL, or from a Docker image, all alike.

It owns the opening and what a session is (one place to play episodes); how each kind plays is
`lab.environments.in_process`'s and `lab.environments.remote`'s. OpenEnv takes seconds to import, so nothing
of it is imported before an environment is opened.
"""

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from lab.environments.action import ActionForm, Values
from lab.environments.config import EnvironmentConfig
from lab.environments.hooks import load_hooks
from lab.environments.in_process import open_in_process
from lab.environments.observation import Observed, View
from lab.environments.remote import Remote, container


class Session(Protocol):
    """One place to play episodes, one after the other.

    Attributes:
        form: of the actions here.
    """

    form: ActionForm

    async def reset(self, seed: int, arguments: Mapping[str, Any]) -> Observed:
        """Begin a new episode.

        Raises:
            EnvError: it could not be begun.
        """

    async def step(self, action: Values) -> Observed:
        """Send an action.

        Raises:
            ActionError: the environment does not take it; nothing has happened there.
            StepError: the environment raised; call `renew` before anything else.
            EnvError: the environment failed, whatever the action.
        """

    async def renew(self) -> None:
        """Leave what an action may have broken: the next reset is a new session's first.

        Raises:
            EnvError: there is no new session.
        """


class Environment(Protocol):
    """An opened environment."""

    def session(self) -> AbstractAsyncContextManager[Session]:
        """Open a session of one's own; many may be open at once."""


@asynccontextmanager
async def open_environment(
    config: EnvironmentConfig, root: Path | None = None, say: Callable[[str], None] = lambda _: None
) -> AsyncIterator[Environment]:
    """Open the environment, and close it (with its container) at the end.

    Args:
        root: the project's; files that the declaration names are below it. By default the working directory.
        say: called with a sentence for people, once, when a server's limit on sessions makes episodes wait.

    Raises:
        EnvError: it cannot be opened; the message says what to do.
        ConfigError: code that the declaration names cannot be had.
    """
    root = root or Path.cwd()
    hooks = await asyncio.to_thread(load_hooks, config, root)
    view = View(config.text, config.longest, hooks.render)
    await asyncio.to_thread(_import_openenv)
    if config.image and not config.url:
        async with container(config.image) as url:
            yield Remote(url, view, hooks.parse, config.step_timeout_s, say)
    elif config.address:
        yield Remote(config.address, view, hooks.parse, config.step_timeout_s, say)
    else:
        async with open_in_process(config, root, view, hooks.parse) as environment:
            yield environment


def _import_openenv() -> None:
    """Import OpenEnv without gradio, its web page: 3 s of CPU instead of 10, 77 MB instead of 192."""
    absent = "gradio" not in sys.modules
    if absent:
        sys.modules["gradio"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("openenv.core.generic_client")
    finally:
        if absent:
            sys.modules.pop("gradio", None)
