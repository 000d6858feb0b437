"""Opening the model: the chosen endpoint, embedded or hosted, ready for calls.

It owns the order: an embedded model is started before anything slow, and awaited last.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

from lab.llm.client import Endpoint, EndpointConfig
from lab.llm.settings import ModelChoice, hosted_endpoint
from lab.llm.throttle import Patience
from lab.local_model.child import LocalModelProcess

EMBEDDED_TAKES = frozenset(
    ("system", "temperature", "top_p", "max_tokens", "presence_penalty", "frequency_penalty", "stop", "seed")
)
"""Features of requests that `lab.local_model` accepts."""


OpeningModel = Callable[[], EndpointConfig]
"""A starting model: waits until it is ready, and returns how to call it; raises as `open_endpoint`."""


@contextmanager
def opening_model(model: ModelChoice) -> Iterator[OpeningModel]:
    """Start the model's process, if it needs one, without waiting; stop it at the end.

    Raises:
        EndpointError: A hosted endpoint has no key, or the embedded model is not installed.
    """
    if not model.embedded:
        hosted = hosted_endpoint(model)
        yield lambda: hosted
        return
    with LocalModelProcess.launch() as process:
        yield lambda: EndpointConfig(process.base_url, model.name, "none", known=EMBEDDED_TAKES)


@asynccontextmanager
async def open_endpoint(opening: OpeningModel, patience: Patience) -> AsyncIterator[Endpoint]:
    """Wait until the model is ready, and close the connections at the end.

    Raises:
        EndpointError: The embedded model did not start.
    """
    config = replace(await asyncio.to_thread(opening), patience=patience)
    async with await asyncio.to_thread(Endpoint, config) as endpoint:
        yield endpoint
