"""Applications whose calls stand below a prefix, or have arguments in their paths; one has a grader."""

import uuid
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from tests.applications.forms import NUMBERS, FlatStep
from tests.applications.game import Count
from tests.applications.tasks import STARTS

below, below_games = FastAPI(), dict[str, Count]()
"""Sessions in paths, begun by the task; the grader answers at the end only."""


@below.post("/reset")
def below_root() -> dict[str, str]:
    return {"hint": "there is no /step beside this"}


@below.get("/env/tasks")
def below_tasks() -> list[str]:
    return list(STARTS)


@below.post("/env/reset/{task_name}")
def below_reset(task_name: str) -> dict[str, Any]:
    if task_name not in STARTS:
        raise HTTPException(404, f"there is no task {task_name}")
    name = uuid.uuid4().hex
    below_games[name] = Count()
    return {"session_id": name, "observation": below_games[name].begin(STARTS[task_name])}


@below.post("/env/step/{session_id}")
def below_step(session_id: str, request: FlatStep) -> dict[str, Any]:
    game = below_games[session_id]
    reward, done = game.say(request.number)
    return {"observation": game.seen("go on"), "reward": reward, "done": done}


@below.get("/env/state/{session_id}")
def below_state(session_id: str) -> dict[str, Any]:
    return below_games[session_id].state()


class Grade(BaseModel):
    session_id: str


@below.post("/env/grader")
def below_grader(request: Grade) -> dict[str, Any]:
    game = below_games[request.session_id]
    if game.at < game.first + 3:
        raise HTTPException(400, "The episode is not over.")
    return {"graded": {"score": 0.75}}


spelled, spelled_game = FastAPI(), Count()
"""An action in the path, below a longer prefix."""


@spelled.post("/api/v1/reset")
def spelled_reset() -> dict[str, Any]:
    return spelled_game.begin(0)


@spelled.post("/api/v1/step/{action}")
def spelled_step(action: str) -> dict[str, Any]:
    if action.lower() not in NUMBERS:
        raise HTTPException(404, f"{action!r} is not a number here")
    reward, done = spelled_game.say(NUMBERS[action.lower()])
    return {"observation": spelled_game.seen("go on"), "reward": reward, "done": done}


@spelled.get("/api/v1/grade")
def spelled_grade() -> float:
    return (spelled_game.at - spelled_game.first) / 4


unlisted, unlisted_game = FastAPI(), Count()
"""A task in the path, of which none is listed; a schema without fields, which the OpenAPI document has."""


@unlisted.get("/schema")
def unlisted_schema() -> dict[str, Any]:
    return {"action": {"type": "object", "additionalProperties": True}}


@unlisted.post("/reset/{task}")
def unlisted_reset(task: str) -> dict[str, Any]:
    if task not in STARTS:
        raise HTTPException(422, f"there is no task {task}")
    return {"observation": unlisted_game.begin(STARTS[task])}


@unlisted.post("/step")
def unlisted_step(request: FlatStep) -> dict[str, Any]:
    reward, done = unlisted_game.say(request.number)
    return {"observation": unlisted_game.seen("go on"), "reward": reward, "done": done}


APPLICATIONS = {"below": below, "spelled": spelled, "unlisted": unlisted}
