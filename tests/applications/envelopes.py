"""Applications that answer in an envelope, name an episode as they like, or pay with a score."""

import uuid
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from tests.applications.forms import FlatStep, flat_step, unnamed_reset
from tests.applications.game import Count

enveloped, enveloped_games = FastAPI(), dict[str, Count]()
"""Its errors have the HTTP status 200, and reset names the game that each step requires."""


@enveloped.post("/reset")
def enveloped_reset() -> dict[str, Any]:
    name = uuid.uuid4().hex
    enveloped_games[name] = Count()
    return {"success": True, "data": {"observation": enveloped_games[name].begin(0), "game_id": name}}


class EnvelopedStep(BaseModel):
    game_id: str
    number: int


@enveloped.post("/step")
def enveloped_step(request: EnvelopedStep) -> dict[str, Any]:
    if request.number < 0:
        return {"status": "error", "message": "there are no negative numbers here"}
    return {"success": True, "data": enveloped_games[request.game_id].step(request.number)}


moved, moved_games = FastAPI(), dict[str, Count]()
"""The same with another envelope; an episode's name is in the path of reset too."""


@moved.post("/rooms/{sid}/reset")
def moved_reset(sid: str) -> dict[str, Any]:
    moved_games[sid] = Count()
    return {"status": "ok", "transition": {"state": moved_games[sid].begin(0), "reward": 0, "done": False}}


@moved.post("/rooms/{sid}/step")
def moved_step(sid: str, request: FlatStep) -> dict[str, Any]:
    reward, over = moved_games[sid].say(request.number)
    seen = {"obs": moved_games[sid].seen("go on"), "reward": reward, "terminated": over}
    return {"status": "ok", "transition": seen}


paid, paid_game = FastAPI(), Count()
"""The only number of a reward is called its score."""


@paid.post("/reset")
def paid_reset() -> dict[str, Any]:
    return {"observation": paid_game.begin(0)}


@paid.post("/step")
def paid_step(request: FlatStep) -> dict[str, Any]:
    result = paid_game.step(request.number)
    return {**result, "reward": {"score": result["reward"], "reason": "as counted"}}


twofold, twofold_game = FastAPI(), Count()
"""A step requires something beside its action."""


@twofold.post("/reset")
def twofold_reset() -> dict[str, Any]:
    return {"observation": twofold_game.begin(0)}


class TwofoldStep(BaseModel):
    action: FlatStep
    reason: str


@twofold.post("/step")
def twofold_step(request: TwofoldStep) -> dict[str, Any]:
    return twofold_game.step(request.action.number if request.reason else 0)


graded = FastAPI()
"""Tasks are listed by names that its reset, which takes a difficulty, does not know."""


@graded.get("/tasks")
def graded_tasks() -> dict[str, Any]:
    return {"tasks": [{"id": "slow counting"}, {"id": "fast counting"}]}


@graded.post("/reset")
def graded_reset(difficulty: str = "easy") -> dict[str, Any]:
    return {"observation": paid_game.begin(10 if difficulty == "hard" else 0)}


graded.post("/step")(flat_step)


named = FastAPI()
"""The same, and reset says which difficulties there are."""

named.get("/tasks")(graded_tasks)


class NamedReset(BaseModel):
    difficulty: str = "Easy"
    model_config = {"json_schema_extra": {"properties": {"difficulty": {"enum": ["Easy", "Hard"]}}}}


@named.post("/reset")
def named_reset(request: NamedReset) -> dict[str, Any]:
    return graded_reset(request.difficulty.lower())


named.post("/step")(flat_step)

silent = FastAPI()
"""Nothing says what its reset takes, and nothing that it is sent changes the episode."""

silent.post("/reset")(unnamed_reset)
silent.post("/step")(flat_step)

APPLICATIONS = {
    "enveloped": enveloped,
    "moved": moved,
    "paid": paid,
    "twofold": twofold,
    "graded": graded,
    "named": named,
    "silent": silent,
}
