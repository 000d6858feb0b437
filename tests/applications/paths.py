"""Applications whose calls stand below a prefix, or have arguments in their paths; one has a grader."""

import uuid
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Header, HTTPException, WebSocket
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
    return game.step(request.number)


@below.get("/env/state/{session_id}")
def below_state(session_id: str) -> dict[str, Any]:
    return below_games[session_id].state()


class Grade(BaseModel):
    session_id: str


class Graded(BaseModel):
    task: str = "counting"
    score: float


@below.post("/env/grader")
def below_grader(request: Grade) -> Graded:
    game = below_games[request.session_id]
    if game.at < game.first + 3:
        raise HTTPException(400, "The episode is not over.")
    return Graded(score=0.75)


spelled, spelled_game = FastAPI(), Count()
"""An action in the path, below a longer prefix."""


@spelled.post("/api/v1/reset")
def spelled_reset() -> dict[str, Any]:
    return spelled_game.begin(0)


@spelled.post("/api/v1/step/{action}")
def spelled_step(action: str) -> dict[str, Any]:
    if action.lower() not in NUMBERS:
        raise HTTPException(404, f"{action!r} is not a number here")
    return spelled_game.step(NUMBERS[action.lower()])


@spelled.get("/api/v1/grade")
def spelled_grade() -> float:
    return (spelled_game.at - spelled_game.first) / 4


judged, judged_game = FastAPI(), Count()
"""A grader whose path names the task, which reset does not require."""


@judged.post("/reset")
def judged_reset(task: str | None = None) -> dict[str, Any]:
    return {"observation": judged_game.begin(STARTS[task or "from_zero"])}


@judged.post("/step")
def judged_step(request: FlatStep) -> dict[str, Any]:
    return judged_game.step(request.number)


@judged.get("/grader/{task}")
def judged_grader(task: str) -> float:
    return (judged_game.at - STARTS[task]) / 4


imitated, imitated_game = FastAPI(), Count()
"""A WebSocket that knows OpenEnv's `state`, and a schema that is none; the document has the step's form."""


@imitated.get("/schema")
def imitated_schema() -> dict[str, Any]:
    return {"action": {"type": "object", "fields": {"number": {"type": "int"}}}}


@imitated.post("/reset")
def imitated_reset() -> dict[str, Any]:
    return {"observation": imitated_game.begin(0)}


@imitated.post("/step")
def imitated_step(request: FlatStep) -> dict[str, Any]:
    return imitated_game.step(request.number)


@imitated.websocket("/ws")
async def imitated_socket(socket: WebSocket) -> None:
    await socket.accept()
    while True:
        asked = await socket.receive_json()
        known = {"type": "state", "data": imitated_game.state()}
        unknown = {"type": "error", "data": {"message": "unknown", "code": "UNKNOWN"}}
        await socket.send_json(known if asked["type"] == "state" else unknown)


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
    return unlisted_game.step(request.number)


@unlisted.get("/grade")
def unlisted_grade() -> dict[str, Any]:
    if unlisted_game.at < unlisted_game.first + 3:
        raise HTTPException(409, "Not yet.")
    return {"graded": {"points": 0.75}}


headed, headed_games = FastAPI(), dict[str, Count]()
"""Sessions in a header, and a reward with the step's share and the score so far."""


@headed.post("/reset")
def headed_reset() -> dict[str, Any]:
    name = uuid.uuid4().hex
    headed_games[name] = Count()
    return {"session_id": name, **headed_games[name].begin(0)}


@headed.post("/step")
def headed_step(
    request: FlatStep, session: Annotated[str | None, Header(alias="X-Session-ID")] = None
) -> dict[str, Any]:
    if session not in headed_games:
        raise HTTPException(400, "Missing or unknown X-Session-ID header. Call /reset first.")
    game = headed_games[session]
    reward, done = game.say(request.number)
    parts = {"score": (game.at - game.first) / 4, "step_reward": reward}
    return {"observation": game.seen("go on"), "reward": parts, "done": done}


numbered, numbered_games = FastAPI(), list[Count]()
"""Environments by number, which stands before the call's name."""


@numbered.post("/api/env/reset")
def numbered_reset() -> dict[str, Any]:
    numbered_games.append(Count())
    return {"env_id": len(numbered_games) - 1, "observation": numbered_games[-1].begin(0)}


@numbered.post("/api/env/{env_id}/step")
def numbered_step(env_id: int, request: FlatStep) -> dict[str, Any]:
    return numbered_games[env_id].step(request.number)


stepwise, stepwise_game = FastAPI(), Count()
"""Only the step says which tasks there are."""


@stepwise.post("/reset")
def stepwise_reset(task: str = "from_zero") -> dict[str, Any]:
    return {"observation": stepwise_game.begin(STARTS[task])}


class StepwiseStep(BaseModel):
    task: Literal["from_zero", "from_ten"]
    number: int


@stepwise.post("/step")
def stepwise_step(request: StepwiseStep) -> dict[str, Any]:
    return stepwise_game.step(request.number)


APPLICATIONS = {
    **{"below": below, "spelled": spelled, "unlisted": unlisted},
    "imitated": imitated,
    "judged": judged,
    **{"headed": headed, "numbered": numbered, "stepwise": stepwise},
}
