"""The Agent: a Candidate with a model; observation and history in, action out.

The lab scores, and `inference.py` plays, this same class. The prompt's form is `lab.agent.messages`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lab.agent.candidate import Candidate
from lab.agent.episode import Start
from lab.agent.messages import chat
from lab.agent.step import Step, Trouble
from lab.agent.task import Task
from lab.environments.action import words_asked
from lab.llm.client import Completion, Model

FALLBACK_ACTION = "The model gave no answer for this step, so this sentence is sent in its place."
"""Sent if the model gave no answer; the step's `error` says so."""


@dataclass(frozen=True)
class Answer:
    """The agent's next action.

    Attributes:
        error: Reason for the fallback action; None if the action is the model's.
        completion: The model call; None if it failed.
        trouble: Kind of `error`.
    """

    action: str
    error: str | None
    completion: Completion | None
    trouble: Trouble | None = None


@dataclass(frozen=True)
class Agent:
    """Plays one candidate. It is stateless: its actions depend only on the steps it is given."""

    candidate: Candidate
    model: Model
    task: Task

    async def act(self, start: Start, steps: Sequence[Step]) -> Answer:
        """Choose the action of step `len(steps) + 1`.

        Args:
            start: The episode's first observation.
            steps: The episode so far.

        Raises:
            CallError, EndpointError: The model call failed.
        """
        messages = chat(self.candidate, self.task, start, steps)
        schema = "" if words_asked(start.schema) else start.schema  # a word needs no JSON
        completion = await self.model.complete(messages, self.candidate.sampling, schema)
        action = completion.text.strip()
        if not action:
            return Answer(FALLBACK_ACTION, "the model's answer was empty", completion, "empty")
        return Answer(action, None, completion)

    def fallback(self, error: str) -> Answer:
        """The action of a step whose model call failed with `error`."""
        return Answer(FALLBACK_ACTION, error, None, "no_answer")
