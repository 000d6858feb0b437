"""The HTTP server of the embedded model: three routes, with errors in OpenAI's format.

It owns bodies, statuses and disconnects; it leaves the format to `wire` and the answers to `engine`.
"""

import asyncio
import socket
import time
import uuid
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from lab.local_model.engine import Engine
from lab.local_model.wire import ApiError, Completion, model_entry, no_such_model, read_request, response

MAX_BODY_BYTES = 1_000_000
_MAX_DISCARDED_BYTES = 64_000_000
_KEEP_ALIVE_S = 75  # longer than clients keep an idle connection, so that the client closes it


def build_app(engine: Engine, name: str) -> FastAPI:
    """The application that answers from `engine`, as the model of that name."""
    app = FastAPI(title="Embedded model", openapi_url=None)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        chat = read_request(await _body(request), name)
        completion = await _while_connected(request, engine.complete(chat))
        if completion is None:
            return Response(status_code=499)
        request_id, now_s = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
        return JSONResponse(response(completion, model=name, request_id=request_id, created_s=now_s))

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model_entry(name)]}

    @app.get("/v1/models/{model_id}")
    async def model(model_id: str) -> dict[str, Any]:
        if model_id != name:
            raise no_such_model(model_id, name)
        return model_entry(name)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "healthy"}

    _handle_errors(app)
    return app


async def serve(engine: Engine, name: str, listener: socket.socket) -> None:
    """Serve at a listening socket, until the process ends."""
    config = uvicorn.Config(
        build_app(engine, name),
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=_KEEP_ALIVE_S,
    )
    await _Server(config).serve([listener])


class _Server(uvicorn.Server):
    """Uvicorn, with signals left to the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _body(request: Request) -> bytes:
    """The body, regardless of its content type; an ApiError if it is too large."""
    kept, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MAX_BODY_BYTES:
            kept += chunk
        # Keep reading: a connection closed with unread bytes is reset, and the client never sees the answer.
        elif size > _MAX_DISCARDED_BYTES:
            break
    if size > MAX_BODY_BYTES:
        raise ApiError(413, f"The body is larger than {MAX_BODY_BYTES:,} bytes.", code="body_too_large")
    return bytes(kept)


async def _while_connected(request: Request, answering: Coroutine[Any, Any, Completion]) -> Completion | None:
    """The completion; cancelled, and None, as soon as the client disconnects."""
    answer = asyncio.ensure_future(answering)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else None
    finally:
        answer.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.body, error.status)

    @app.exception_handler(HTTPException)
    async def not_routed(request: Request, error: HTTPException) -> JSONResponse:
        where = f"{request.method} {request.url.path}"
        return await refused(request, ApiError(error.status_code, f"{error.detail}: {where}."))
