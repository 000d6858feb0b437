"""Applications that differ in how a task is chosen."""

import json
from typing import Any, Literal

from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel, Field

from tests.applications.forms import FlatStep, flat_step, unnamed_reset
from tests.applications.game import Count

listed, listed_game = FastAPI(), Count()
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
    return listed_game.step(request.number)


@listed.get("/state")
def listed_state() -> dict[str, Any]:
    return {"score": (listed_game.at - listed_game.first) / 4}


chosen, chosen_game = FastAPI(), Count()


@chosen.post("/reset")
def chosen_reset(difficulty: Literal["easy", "hard", "mad"] | None = None) -> dict[str, Any]:
    if difficulty == "mad":
        raise HTTPException(400, "not today")
    return {"observation": chosen_game.begin(50 if difficulty == "hard" else 0), "info": {"score": 0.5}}


class ChosenStep(BaseModel):
    number: int = Field(json_schema_extra={"default": "1"})


@chosen.post("/step")
def chosen_step(request: ChosenStep) -> dict[str, Any]:
    return chosen_game.step(request.number)


open_, open_game = FastAPI(), Count()


@open_.get("/tasks")
def open_tasks() -> dict[str, Any]:
    return {"1": {"name": "Count from one"}, "2": {"name": "Count from two"}}


@open_.post("/reset")
async def open_reset(request: Request) -> dict[str, Any]:
    task = json.loads(await request.body() or "{}").get("task_id", "1")
    return {"observation": open_game.begin(int(task))}


open_.post("/step")(flat_step)


deaf = FastAPI()
deaf.get("/tasks")(open_tasks)
deaf.post("/reset")(unnamed_reset)
deaf.post("/step")(flat_step)


several, several_games = FastAPI(), {name: Count() for name in STARTS}
"""An application with a game for each task, which every request names."""


@several.post("/reset")
def several_reset(task: str = "from_zero") -> dict[str, Any]:
    return {"observation": several_games[task].begin(STARTS[task])}


class SeveralStep(BaseModel):
    number: int
    task: str = "from_zero"


@several.post("/step")
def several_step(request: SeveralStep) -> dict[str, Any]:
    game = several_games[request.task]
    reward, done = game.say(request.number)
    final = (game.at - game.first) / 4 if done else None
    return {"observation": game.seen("go on"), "reward": reward, "done": done, "final_score": final}


@several.get("/state")
def several_state(task: str = "from_zero") -> dict[str, Any]:
    return {"score": (several_games[task].at - several_games[task].first) / 4}


beside = FastAPI()
"""The same; a step has its task beside its action."""

beside.post("/reset")(several_reset)
beside.get("/state")(several_state)


class BesideStep(BaseModel):
    action: FlatStep
    task: str = "from_zero"


@beside.post("/step")
def beside_step(request: BesideStep) -> dict[str, Any]:
    return several_step(SeveralStep(number=request.action.number, task=request.task))


required, required_game = FastAPI(), Count()


@required.get("/tasks")
def required_tasks() -> dict[str, Any]:
    easy = [{"id": "from_zero", "max_steps": 3}, {"id": "retired"}]
    return {"easy": easy, "hard": [{"id": "from_ten", "max_steps": 6}], "total": 3}


class RequiredReset(BaseModel):
    task_id: str


@required.post("/reset")
def required_reset(request: RequiredReset) -> dict[str, Any]:
    if request.task_id not in STARTS:
        raise HTTPException(404, f"there is no task {request.task_id}")
    return {"observation": required_game.begin(STARTS[request.task_id]), "max_steps": 3}


@required.post("/step")
def required_step(request: ChosenStep) -> dict[str, Any]:
    return required_game.step(request.number)


APPLICATIONS = {
    **{"listed": listed, "chosen": chosen, "open": open_, "deaf": deaf},
    **{"several": several, "beside": beside, "required": required},
}
