"""The Environment: one interface to environments in process, at a URL, or in a Docker image.

It owns the opening and the protocol of a session (which plays one episode at a time); the implementations
are `lab.environments.in_process` and `lab.environments.remote`. OpenEnv takes seconds to import, so it is
imported only when an environment is opened.
"""

import asyncio
import importlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lab.environments.action import ActionForm
from lab.environments.answer import Values
from lab.environments.config import EnvironmentConfig
from lab.environments.hooks import load_hooks
from lab.environments.in_process import open_in_process
from lab.environments.observation import Observed, View
from lab.environments.remote import Remote
from lab.environments.task_list import TaskList
from lab.errors import EnvError

if TYPE_CHECKING:
    from openenv.core.containers.runtime import LocalDockerProvider

STOP_GRACE_S = 5.0
"""Seconds to wait, when stopped, for a container that is still starting."""

_NOT_STARTED = "The environment's container did not start."


class Session(Protocol):
    """Plays episodes, one after the other.

    Attributes:
        form: Form of the actions.
        view: How observations are shown, and scored.
    """

    form: ActionForm
    view: View

    async def reset(self, seed: int, arguments: Mapping[str, Any]) -> Observed:
        """Start a new episode.

        Raises:
            ConfigError: An argument is unknown to the environment's reset.
            EnvError: It could not be started.
        """

    async def step(self, action: Values) -> Observed:
        """Send an action.

        Raises:
            ActionError: The environment refuses it, and has not changed.
            StepError: The environment raised; call `renew` before anything else.
            EnvError: The environment failed for another reason.
        """

    async def state(self) -> Mapping[str, Any]:
        """The environment's state.

        Raises:
            EnvError: It cannot be read.
        """

    async def grade(self) -> Mapping[str, Any]:
        """The answer of the environment's own grader for the episode so far; unknown fields are None.

        Raises:
            EnvError: It has none that could be called.
        """

    async def renew(self) -> None:
        """Replace a possibly broken session: the next reset starts a new one.

        Raises:
            EnvError: No new session could be opened.
        """


class Environment(Protocol):
    """Opens sessions."""

    def session(self) -> AbstractAsyncContextManager[Session]:
        """Open a separate session; many may be open concurrently."""


class Opened(Environment, Protocol):
    """An environment that was opened at its place, which can be asked about itself."""

    async def tasks(self, named: Sequence[str] = ()) -> TaskList:
        """The tasks that it lists.

        Args:
            named: Names of tasks, which replace its own list.

        Raises:
            EnvError: Its server cannot be reached, or is not an environment.
        """


@asynccontextmanager
async def open_environment(
    config: EnvironmentConfig, root: Path | None = None, say: Callable[[str], None] = lambda _: None
) -> AsyncIterator[Opened]:
    """Open the environment, and close it (with its container) at the end.

    Args:
        root: Project folder, to which the declaration's paths are relative; by default the working directory.
        say: Called once with a sentence for people when a server's session limit makes episodes wait.

    Raises:
        EnvError: It cannot be opened; the message says what to do.
        ConfigError: The declared code cannot be imported.
    """
    root = root or Path.cwd()
    view, parse = await asyncio.to_thread(load_hooks, config, root)
    await asyncio.to_thread(_import_openenv)
    if config.image and not config.url:
        async with _container(config.image) as url:
            yield Remote(replace(config, url=url, headers={}), view, parse, say)
    elif config.address:
        yield Remote(config, view, parse, say)
    else:
        async with open_in_process(config, root, view, parse) as environment:
            yield environment


def _import_openenv() -> None:
    """Import OpenEnv without gradio, for its web page: 3 s of CPU instead of 10, 77 MB instead of 192."""
    absent = "gradio" not in sys.modules
    if absent:
        sys.modules["gradio"] = None  # type: ignore[assignment]
    try:
        importlib.import_module("openenv.core.generic_client")
    finally:
        if absent:
            sys.modules.pop("gradio", None)


@asynccontextmanager
async def _container(image: str) -> AsyncIterator[str]:
    """Run a container of the image during the block; yields its URL."""
    from openenv.core.containers.runtime import LocalDockerProvider

    try:
        docker = await asyncio.to_thread(LocalDockerProvider)
    except RuntimeError as error:
        do = "start Docker, or unset LOCAL_IMAGE_NAME and IMAGE_NAME to use the experiment's location"
        why = "no Docker engine is running"
        raise EnvError(_NOT_STARTED, where=f"image {image}", why=why, do=do) from error
    starting = asyncio.create_task(asyncio.to_thread(_started, docker, image))
    try:
        yield await asyncio.shield(starting)
    finally:
        await asyncio.wait([starting], timeout=STOP_GRACE_S)
        with suppress(subprocess.TimeoutExpired):  # OpenEnv waits no longer than Docker does before it kills
            await asyncio.to_thread(docker.stop_container)


def _started(docker: "LocalDockerProvider", image: str) -> str:
    """The URL of a healthy container of the image; it blocks for half a minute at most."""
    try:
        url: str = docker.start_container(image)
        docker.wait_for_ready(url)
    except Exception as error:
        why = str(getattr(error.__cause__, "stderr", "") or error)
        do = f"docker build -t {image} ."
        raise EnvError(_NOT_STARTED, where=f"image {image}", why=why, do=do) from error
    return url
