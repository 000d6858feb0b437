"""A container of an environment's Docker image, for as long as its environment is open."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from lab.errors import EnvError

if TYPE_CHECKING:
    from openenv.core.generic_client import GenericEnvClient

STOP_GRACE_S = 5.0
"""Seconds to wait, when stopped, for a container that is still starting."""


@asynccontextmanager
async def container(image: str) -> AsyncIterator[str]:
    """Run a container of the image during the block; yields its URL.

    Raises:
        EnvError: It did not start.
    """
    starting = asyncio.create_task(asyncio.to_thread(_start_container, image))
    try:
        url, close = await asyncio.shield(starting)
    except asyncio.CancelledError:
        with suppress(Exception):  # stop a container that is still starting, if it starts soon
            _, close = await asyncio.wait_for(asyncio.shield(starting), STOP_GRACE_S)
            await asyncio.to_thread(close)
        raise
    except Exception as error:
        raise _docker_failure(error, image) from error
    try:
        yield url
    finally:
        await asyncio.to_thread(close)


def _start_container(image: str) -> tuple[str, Callable[[], None]]:
    """Start the container, in a thread: OpenEnv blocks until it is healthy, for at most half a minute.

    Returns:
        Its URL, and a function that stops it.
    """
    from openenv.core.generic_client import GenericEnvClient

    async def start() -> "GenericEnvClient":
        client: GenericEnvClient = await GenericEnvClient.from_docker_image(image)
        await client.disconnect()  # frees its session for the episodes
        return client

    client = asyncio.run(start())

    async def stop() -> None:
        await client.close()

    return str(client.base_url), lambda: asyncio.run(stop())


def _docker_failure(error: Exception, image: str) -> EnvError:
    what, where = "The environment's container did not start.", f"image {image}"
    if "Docker is not available" in str(error):
        do = "start Docker, or unset LOCAL_IMAGE_NAME and IMAGE_NAME to use the experiment's location"
        return EnvError(what, where=where, why="no Docker engine is running", do=do)
    why = str(getattr(error.__cause__, "stderr", "") or error)
    return EnvError(what, where=where, why=why, do=f"docker build -t {image} .")
