"""Applications that refuse: without a key, beyond a rate, or always."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Body, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from tests.applications.forms import (
    FlatStep,
    WrappedReset,
    WrappedStep,
    wrapped_reset,
    wrapped_schema,
    wrapped_step,
)
from tests.applications.game import Count

locked = FastAPI()


def check_key(key: str | None) -> None:
    """Refuse a request without the key."""
    if key != "open sesame":
        raise HTTPException(401, "Unauthorized")


@locked.get("/schema")
def locked_schema(x_api_key: Annotated[str | None, Header()] = None) -> dict[str, Any]:
    check_key(x_api_key)
    return wrapped_schema()


@locked.post("/reset")
def locked_reset(
    request: Annotated[WrappedReset, Body(default_factory=WrappedReset)],
    x_api_key: Annotated[str | None, Header()] = None,
) -> dict[str, Any]:
    check_key(x_api_key)
    return wrapped_reset(request)


@locked.post("/step")
def locked_step(request: WrappedStep, x_api_key: Annotated[str | None, Header()] = None) -> dict[str, Any]:
    check_key(x_api_key)
    return wrapped_step(request)


limited, limited_game = FastAPI(), Count()
refusals = {"/limited/step"}
"""Paths whose next request is beyond the rate limit."""


@limited.middleware("http")
async def limit(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    if request.url.path in refusals:
        refusals.remove(request.url.path)
        return JSONResponse({"detail": "Rate limit exceeded"}, 429)
    return await answer(request)


@limited.post("/reset")
def limited_reset() -> dict[str, Any]:
    return {"observation": limited_game.begin(0)}


@limited.post("/step")
def limited_step(request: FlatStep) -> dict[str, Any]:
    return limited_game.step(request.number)


def broken(status: int) -> FastAPI:
    """An application that refuses every page with a status."""
    page = FastAPI()

    @page.get("/{path:path}")
    def refuse(path: str) -> None:  # noqa: ARG001
        raise HTTPException(status, "as the server says")

    return page


APPLICATIONS = {
    "locked": locked,
    "limited": limited,
    **{f"status-{status}": broken(status) for status in (401, 404, 500, 503)},
}
