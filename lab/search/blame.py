"""Blame: whether a candidate breaks the environment, or the environment fails for every candidate.

It owns the test: it repeats an action that the environment accepted from another candidate.
"""

from lab.agent.candidate import Candidate
from lab.agent.episode import Tally
from lab.agent.step import Step
from lab.agent.task import Task
from lab.environments.action import ActionError, StepError
from lab.environments.environment import Environment
from lab.errors import EnvError
from lab.storage.record import Record


class Blame:
    """Keeps accepted actions: those of this process, else those on record."""

    def __init__(self, environment: Environment, task: Task, record: Record | None) -> None:
        self._environment, self._task, self._record = environment, task, record
        self._taken: dict[str, tuple[int, str]] = {}

    def look_at(self, digest: str, seed: int, step: Step) -> None:
        """Keep an episode's first step if the environment accepted its action."""
        if step.number == 1 and step.trouble is None:
            self._taken.setdefault(digest, (seed, step.action))

    async def is_on(self, candidate: Candidate) -> bool:
        """Whether the environment still accepts an action that it accepted from another candidate."""
        known = self._known_action(candidate)
        if known is None:
            return False
        setup, seed = self._task.setup(known[0])
        try:
            async with self._environment.session() as session:
                await session.reset(seed, setup.reset)
                await session.step(session.form.read(known[1]).values)
        except (EnvError, StepError):
            return False
        except ActionError:  # the environment answered
            pass
        return True

    def _known_action(self, candidate: Candidate) -> tuple[int, str] | None:
        """A seed, and the first action that the environment accepted from another candidate on it."""
        taken = (one for digest, one in self._taken.items() if digest != candidate.digest)
        return next(taken, None) or self._recorded_action(candidate)

    def _recorded_action(self, candidate: Candidate) -> tuple[int, str] | None:
        ended = self._record.ended.items() if self._record else ()
        for (digest, seed), played in ended:
            if self._record and isinstance(played, Tally) and digest != candidate.digest:
                first = self._record.episode(digest, seed).steps[0]
                if first.trouble is None:
                    return seed, first.action
        return None
