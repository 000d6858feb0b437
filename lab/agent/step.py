"""A Step: one action of an episode, its result, and the kind of trouble, if any."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from lab.environments.observation import Fields
from lab.llm.client import Completion

Trouble = Literal["empty", "no_action", "refused", "no_answer"]
"""Why a step has no action that the model chose and the environment accepted: the answer was empty; it could
not be parsed as an action; the environment refused the action; the model call failed."""


@dataclass(frozen=True)
class Step:
    """One action and its result.

    Attributes:
        number: Number of the step, from 1.
        observation: The environment's text after the action.
        error: Why the action is not the model's, or was not accepted; None without an error.
        completion: The model call of the action; None if it failed.
        fields: Fields of the observation.
        environment_s: Seconds that the environment took; None if not recorded.
        trouble: Kind of `error`; None if the action is the model's and the environment accepted it.
        environment_error: The environment's own error of an action that it accepted; None without one.
        own_score: The environment's own score after the step, where the task takes it and there is one.
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
    environment_error: str | None = None
    own_score: float | None = None

    @property
    def reported_error(self) -> str | None:
        """The error of the STEP line: the environment's own, else the lab's."""
        return self.environment_error or self.error


def own_score_of(steps: Sequence[Step]) -> float | None:
    """The environment's own score of an episode: after the last step that has one."""
    return next((step.own_score for step in reversed(steps) if step.own_score is not None), None)
