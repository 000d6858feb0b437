"""Opening the model: the chosen endpoint, embedded or hosted, ready for calls.

It owns the order: an embedded model is started before anything slow, and awaited last.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

from lab.llm.client import Endpoint, EndpointConfig
from lab.llm.settings import ModelChoice, hosted_endpoint
from lab.llm.throttle import Patience
from lab.local_model.child import LocalModelProcess

EMBEDDED_TAKES = frozenset(
    ("system", "temperature", "top_p", "max_tokens", "presence_penalty", "frequency_penalty", "stop", "seed")
)
"""Features of requests that `lab.local_model` accepts."""


@dataclass(frozen=True)
class OpeningModel:
    """A starting model: a process that is still loading, or a hosted endpoint's configuration."""

    model: ModelChoice
    coming: LocalModelProcess | EndpointConfig


@contextmanager
def opening_model(model: ModelChoice, environ: Mapping[str, str]) -> Iterator[OpeningModel]:
    """Start the model's process, if it needs one, without waiting; stop it at the end.

    Raises:
        EndpointError: A hosted endpoint has no key, or the embedded model is not installed.
    """
    if not model.embedded:
        yield OpeningModel(model, hosted_endpoint(model, environ))
        return
    with LocalModelProcess.launch() as process:
        yield OpeningModel(model, process)


@asynccontextmanager
async def open_endpoint(opening: OpeningModel, patience: Patience) -> AsyncIterator[Endpoint]:
    """Wait until the model is ready, and close the connections at the end.

    Raises:
        EndpointError: The embedded model did not start.
    """
    config = opening.coming
    if isinstance(config, LocalModelProcess):
        config = EndpointConfig(await config.ready(), opening.model.name, "none", known=EMBEDDED_TAKES)
    async with await asyncio.to_thread(Endpoint, replace(config, patience=patience)) as endpoint:
        yield endpoint
