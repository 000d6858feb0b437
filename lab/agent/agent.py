"""The Agent: a Candidate at an Endpoint; observation and history in, action out.

What the lab scores and what `inference.py` plays is this. The prompt's form is `lab.agent.messages`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lab.agent.candidate import Candidate
from lab.agent.episode import Start
from lab.agent.messages import chat
from lab.agent.step import Step, Trouble
from lab.agent.task import Task
from lab.llm.client import Completion, Model

FALLBACK_ACTION = "The model gave no answer for this step, so this sentence is sent in its place."
"""Sent where the model gave nothing; the step's `error` says so."""


@dataclass(frozen=True)
class Answer:
    """What the agent does next.

    Attributes:
        error: why the action is the fallback, or None where it is the model's own.
        completion: the call behind it; None where the call failed.
        trouble: the kind of `error`.
    """

    action: str
    error: str | None
    completion: Completion | None
    trouble: Trouble | None = None


@dataclass(frozen=True)
class Agent:
    """Plays one candidate. It keeps no state: all it says follows from the steps that it is given."""

    candidate: Candidate
    model: Model
    task: Task

    async def act(self, start: Start, steps: Sequence[Step]) -> Answer:
        """Choose the action of step `len(steps) + 1`.

        Args:
            start: what the episode began with.
            steps: the episode so far.

        Raises:
            CallError, EndpointError: the model call failed.
        """
        messages = chat(self.candidate, self.task, start, steps)
        completion = await self.model.complete(messages, self.candidate.sampling, start.schema)
        action = completion.text.strip()
        if not action:
            return Answer(FALLBACK_ACTION, "the model's answer was empty", completion, "empty")
        return Answer(action, None, completion)

    def fallback(self, error: str) -> Answer:
        """The action of a step whose model call failed with `error`."""
        return Answer(FALLBACK_ACTION, error, None, "no_answer")
