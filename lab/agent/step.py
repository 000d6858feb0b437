"""A Step: one action of an episode, what came of it, and which kind of trouble it was in."""

from dataclasses import dataclass, field
from typing import Literal

from lab.environments.observation import Fields
from lab.llm.client import Completion

Trouble = Literal["empty", "no_action", "refused", "no_answer"]
"""Why a step's action is not one that the model chose and the environment took: the model's answer was empty;
it could not be read as an action; the environment refused the action; the model call failed."""


@dataclass(frozen=True)
class Step:
    """One action and what came of it.

    Attributes:
        number: counts from 1.
        observation: the environment's text after the action.
        error: why the action is not the model's own, or is none of the environment's; or None.
        completion: the model call behind the action; None where it failed.
        fields: of the observation.
        environment_s: seconds that the environment took for it; None where that was not kept.
        trouble: the kind of `error`; None where the action is the model's own and the environment took it.
    """

    number: int
    action: str
    observation: str
    reward: float
    done: bool
    error: str | None = None
    completion: Completion | None = None
    fields: Fields = field(default_factory=dict)
    environment_s: float | None = None
    trouble: Trouble | None = None
