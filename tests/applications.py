"""Environments with HTTP applications of their own, in the forms that public submissions have.

Each is a part of one server: `python tests/applications.py --port PORT` serves it at its name. All of them
are one game: count up to three, a point for each right number.
"""

import argparse
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import Body, FastAPI, Header, HTTPException, Request, Response, WebSocket
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field


class Count:
    """The game."""

    def __init__(self) -> None:
        self.begin(0)

    def begin(self, first: int) -> dict[str, Any]:
        """Start at a number."""
        self.first = self.at = first
        return self.seen("count up")

    def say(self, number: int) -> tuple[float, bool]:
        """Say the next number; the reward, and whether the game is over."""
        if number < 0:
            raise ValueError("there are no negative numbers here")
        right = number == self.at + 1
        self.at += right
        return float(right), self.at >= self.first + 3

    def seen(self, told: str) -> dict[str, Any]:
        """The observation."""
        return {"told": told, "last": self.at}

    def state(self) -> dict[str, Any]:
        """The state, with half a point for each right number."""
        return {"graded": {"points": (self.at - self.first) / 2}}


main = FastAPI()


@main.get("/health")
def health() -> dict[str, str]:
    return {"status": "healthy"}


flat, flat_game = FastAPI(), Count()
main.mount("/flat", flat)


class FlatReset(BaseModel):
    start: int = 0


class FlatStep(BaseModel):
    number: int
    note: str | None = None


@flat.post("/reset")
def flat_reset(request: FlatReset | None = None) -> dict[str, Any]:
    return flat_game.begin(request.start if request else 0)


@flat.post("/step")
def flat_step(request: FlatStep) -> dict[str, Any]:
    try:
        reward, done = flat_game.say(request.number)
    except ValueError as error:
        raise HTTPException(400, str(error)) from None
    wrong = None if reward else f"{request.number} is not the next number"
    seen, info = flat_game.seen("go on"), {"said": request.number, "wrong": wrong}
    return {"observation": seen, "reward": {"value": reward, "why": "counted"}, "done": done, "info": info}


@flat.get("/state")
def flat_state() -> dict[str, Any]:
    return flat_game.state()


wrapped = FastAPI()
main.mount("/wrapped", wrapped)
wrapped_games = dict[str, Count]()


class WrappedReset(BaseModel):
    seed: int = 0
    episode_id: str | None = None


class WrappedStep(BaseModel):
    action: dict[str, Any]
    episode_id: str | None = None


@wrapped.get("/schema")
def wrapped_schema() -> dict[str, Any]:
    properties = {"number": {"type": "integer"}}
    return {"action": {"type": "object", "properties": properties, "required": ["number"]}}


@wrapped.post("/reset")
def wrapped_reset(request: Annotated[WrappedReset, Body(default_factory=WrappedReset)]) -> dict[str, Any]:
    name = f"{request.episode_id or uuid.uuid4()}"
    wrapped_games[name] = Count()
    return {"observation": wrapped_games[name].begin(10 * request.seed), "episode_id": name}


@wrapped.post("/step")
def wrapped_step(request: WrappedStep) -> dict[str, Any]:
    if request.episode_id not in wrapped_games:
        raise HTTPException(400, "Call /reset first to start an episode.")
    game = wrapped_games[request.episode_id]
    reward, done = game.say(request.action["number"])
    return {"observation": game.seen("go on"), "reward": reward, "done": done}


@wrapped.get("/state")
def wrapped_state(episode_id: str) -> dict[str, Any]:
    return wrapped_games[episode_id].state()


@wrapped.websocket("/ws")
async def wrapped_socket(socket: WebSocket) -> None:
    await socket.accept()
    while True:
        await socket.receive_json()
        await socket.send_json({"status": "ok", "observation": "another protocol"})


words, words_game = FastAPI(), Count()
main.mount("/words", words)
NUMBERS = {"one": 1, "two": 2, "three": 3}


@words.get("/reset")
def words_reset(start: int = 0) -> dict[str, Any]:
    return {"observation": str(words_game.begin(start)), "reward": 0.0, "done": False}


@words.post("/step")
def words_step(action: Literal["one", "two", "three"]) -> list[Any]:
    reward, done = words_game.say(NUMBERS[action])
    return [words_game.seen("go on"), reward, done, {}]


older = FastAPI(title="Environment HTTP Server")
main.mount("/older", older)
older_game = Count()


@older.get("/schema/action")
def older_schema() -> dict[str, Any]:
    return FlatStep.model_json_schema()


@older.post("/reset")
async def older_reset(request: Annotated[dict[str, Any], Body(default_factory=dict)]) -> dict[str, Any]:
    return {"observation": older_game.begin(request.get("seed", 0)), "reward": None, "done": False}


@older.post("/step")
async def older_step(request: dict[str, Any]) -> dict[str, Any]:
    reward, done = older_game.say(request["action"]["number"])
    return {"observation": older_game.seen("go on"), "reward": reward, "done": done}


oldest = FastAPI(title="Environment HTTP Server")
main.mount("/oldest", oldest)
oldest.post("/reset")(older_reset)
oldest.post("/step")(older_step)


unnamed = FastAPI()
main.mount("/unnamed", unnamed)
unnamed_game = Count()


@unnamed.post("/reset")
async def unnamed_reset(request: Request) -> dict[str, Any]:
    await request.body()
    return {"observation": unnamed_game.begin(0)}


@unnamed.post("/step")
async def unnamed_step(request: Request) -> dict[str, Any]:
    reward, done = unnamed_game.say((await request.json())["number"])
    return {"observation": unnamed_game.seen("go on"), "reward": reward, "done": done}


anything, anything_game = FastAPI(), Count()
main.mount("/anything", anything)


class AnyStep(BaseModel):
    action: dict[str, Any]


@anything.post("/reset")
def anything_reset() -> dict[str, Any]:
    return {"observation": anything_game.begin(0)}


@anything.post("/step")
def anything_step(request: AnyStep) -> dict[str, Any]:
    reward, done = anything_game.say(request.action["number"])
    return {"observation": anything_game.seen("go on"), "reward": reward, "done": done}


locked = FastAPI()
main.mount("/locked", locked)


def check_key(key: str | None) -> None:
    """Refuse whoever does not know the key."""
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


union, union_game = FastAPI(), Count()
main.mount("/union", union)


class Say(BaseModel):
    """Say a number."""

    kind: Literal["say"] = "say"
    number: int


class Wait(BaseModel):
    """Say nothing."""

    kind: Literal["wait"] = "wait"


class UnionStep(BaseModel):
    action: Annotated[Say | Wait, Field(discriminator="kind")]
    session_id: str | None = None


@union.post("/reset")
def union_reset() -> dict[str, Any]:
    return {"observation": union_game.begin(0)}


@union.post("/step")
def union_step(request: UnionStep) -> dict[str, Any]:
    number = request.action.number if isinstance(request.action, Say) else 0
    reward, done = union_game.say(number)
    return {"observation": union_game.seen("go on"), "reward": reward, "done": done}


listed, listed_game = FastAPI(), Count()
main.mount("/listed", listed)
STARTS = {"from_zero": 0, "from_ten": 10, "from_twenty": 20}


class ListedReset(BaseModel):
    task_id: str = "from_zero"


@listed.get("/tasks")
def listed_tasks() -> dict[str, Any]:
    return {"tasks": [{"id": name, "difficulty": "easy"} for name in (*STARTS, "retired")]}


@listed.post("/reset")
def listed_reset(request: ListedReset | None = None) -> dict[str, Any]:
    task = request.task_id if request else "from_zero"
    if task not in STARTS:
        raise HTTPException(404, f"there is no task {task}")
    return {**listed_game.begin(STARTS[task]), "max_steps": 4}


@listed.post("/step")
def listed_step(request: FlatStep) -> dict[str, Any]:
    reward, done = listed_game.say(request.number)
    return {"observation": listed_game.seen("go on"), "reward": reward, "done": done}


@listed.get("/state")
def listed_state() -> dict[str, Any]:
    return {"score": (listed_game.at - listed_game.first) / 4}


chosen, chosen_game = FastAPI(), Count()
main.mount("/chosen", chosen)


@chosen.post("/reset")
def chosen_reset(difficulty: Literal["easy", "hard", "mad"] | None = None) -> dict[str, Any]:
    if difficulty == "mad":
        raise HTTPException(400, "not today")
    return {"observation": chosen_game.begin(50 if difficulty == "hard" else 0), "info": {"score": 0.5}}


class ChosenStep(BaseModel):
    number: int = Field(json_schema_extra={"default": "1"})


@chosen.post("/step")
def chosen_step(request: ChosenStep) -> dict[str, Any]:
    reward, done = chosen_game.say(request.number)
    return {"observation": chosen_game.seen("go on"), "reward": reward, "done": done}


open_, open_game = FastAPI(), Count()
main.mount("/open", open_)


@open_.get("/tasks")
def open_tasks() -> dict[str, Any]:
    return {"1": {"name": "Count from one"}, "2": {"name": "Count from two"}}


@open_.post("/reset")
async def open_reset(request: Request) -> dict[str, Any]:
    task = json.loads(await request.body() or "{}").get("task_id", "1")
    return {"observation": open_game.begin(int(task))}


open_.post("/step")(flat_step)


deaf = FastAPI()
main.mount("/deaf", deaf)
deaf.get("/tasks")(open_tasks)
deaf.post("/reset")(unnamed_reset)
deaf.post("/step")(flat_step)


limited, limited_game = FastAPI(), Count()
main.mount("/limited", limited)
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
    reward, done = limited_game.say(request.number)
    return {"observation": limited_game.seen("go on"), "reward": reward, "done": done}


for status in (401, 404, 500, 503):
    page = FastAPI()
    main.mount(f"/status-{status}", page)

    @page.get("/{path:path}")
    def refuse(path: str, code: int = status) -> None:  # noqa: ARG001
        raise HTTPException(code, "as the server says")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    uvicorn.run(main, host="127.0.0.1", port=parser.parse_args().port, log_level="warning")
