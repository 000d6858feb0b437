"""Applications that differ in the form of requests and answers."""

import uuid
from typing import Annotated, Any, Literal

from fastapi import Body, FastAPI, HTTPException, Request, WebSocket
from pydantic import BaseModel, Field

from tests.applications.game import Count

flat, flat_game = FastAPI(), Count()


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
    return game.step(request.action["number"])


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
NUMBERS = {"one": 1, "two": 2, "three": 3}


@words.get("/reset")
def words_reset(start: int = 0) -> dict[str, Any]:
    return {"observation": str(words_game.begin(start)), "reward": 0.0, "done": False}


@words.post("/step")
def words_step(action: Literal["one", "two", "three"]) -> list[Any]:
    reward, done = words_game.say(NUMBERS[action])
    return [words_game.seen("go on"), reward, done, {}]


older = FastAPI(title="Environment HTTP Server")
older_game = Count()


@older.get("/schema/action")
def older_schema() -> dict[str, Any]:
    return FlatStep.model_json_schema()


@older.post("/reset")
async def older_reset(request: Annotated[dict[str, Any], Body(default_factory=dict)]) -> dict[str, Any]:
    return {"observation": older_game.begin(request.get("seed", 0)), "reward": None, "done": False}


@older.post("/step")
async def older_step(request: dict[str, Any]) -> dict[str, Any]:
    return older_game.step(request["action"]["number"])


oldest = FastAPI(title="Environment HTTP Server")
oldest.post("/reset")(older_reset)
oldest.post("/step")(older_step)


unnamed = FastAPI()
unnamed_game = Count()


@unnamed.post("/reset")
async def unnamed_reset(request: Request) -> dict[str, Any]:
    await request.body()
    return {"observation": unnamed_game.begin(0)}


@unnamed.post("/step")
async def unnamed_step(request: Request) -> dict[str, Any]:
    return unnamed_game.step((await request.json())["number"])


anything, anything_game = FastAPI(), Count()


class AnyStep(BaseModel):
    action: dict[str, Any]


@anything.post("/reset")
def anything_reset() -> dict[str, Any]:
    return {"observation": anything_game.begin(0)}


@anything.post("/step")
def anything_step(request: AnyStep) -> dict[str, Any]:
    return anything_game.step(request.action["number"])


union, union_game = FastAPI(), Count()


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
    return union_game.step(number)


gym, gym_games = FastAPI(), dict[str, Count]()


class GymStep(BaseModel):
    session_id: str
    number: int


@gym.post("/reset")
def gym_reset() -> dict[str, Any]:
    name = uuid.uuid4().hex
    gym_games[name] = Count()
    return {"session_id": name, "observation": gym_games[name].begin(0)}


@gym.post("/step")
def gym_step(request: GymStep) -> dict[str, Any]:
    game = gym_games.get(request.session_id)
    if game is None:
        raise HTTPException(404, "Session not found. Call /reset first.")
    reward, ended = game.say(request.number)
    if ended:
        del gym_games[request.session_id]
    return {"observation": game.seen("go on"), "reward": reward, "terminated": ended, "truncated": False}


stated, stated_game = FastAPI(), Count()


@stated.post("/reset")
def stated_reset() -> dict[str, Any]:
    return {"session_id": "only", "state": stated_game.begin(0)}


@stated.post("/step")
def stated_step(request: FlatStep) -> dict[str, Any]:
    reward, done = stated_game.say(request.number)
    return {"state": stated_game.seen("go on"), "reward": reward, "done": done}


mixed, mixed_game = FastAPI(), Count()
"""An application that names sessions, and has one game for all of them."""


@mixed.post("/reset")
def mixed_reset() -> dict[str, Any]:
    return {"session_id": uuid.uuid4().hex, "observation": mixed_game.begin(0)}


class MixedStep(BaseModel):
    session_id: str
    number: Literal[1, 2, 3] = 1


@mixed.post("/step")
def mixed_step(request: MixedStep) -> dict[str, Any]:
    right = request.number == 1  # whatever number it is at
    mixed_game.at += right
    return {"observation": mixed_game.seen("go on"), "reward": float(right), "done": mixed_game.at > 3}


APPLICATIONS = {
    "mixed": mixed,
    "flat": flat,
    "stated": stated,
    "gym": gym,
    "wrapped": wrapped,
    "words": words,
    "older": older,
    "oldest": oldest,
    "unnamed": unnamed,
    "anything": anything,
    "union": union,
}
