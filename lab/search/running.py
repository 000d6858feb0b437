"""An episode that is being played: the calls it has made and may still make, and when it need not go on.

It owns the room that it takes in the budget. What a step means to the study is `lab.search.player`'s.
"""

from collections.abc import Callable

from lab.agent.step import Step
from lab.agent.task import Task
from lab.agent.troubles import Troubles, troubles_of
from lab.experiment.budget import Spending

Hopeless = Callable[[float], bool]
"""Whether an episode that can return so much at most need not be played on."""


class Cut(Exception):  # noqa: N818  # not an error: the way out of an episode that need not go on
    """Ends an episode in the middle.

    Attributes:
        bound: the most that it could have returned, in reward.
    """

    def __init__(self, bound: float) -> None:
        self.bound = bound


class Running:
    """One episode.

    Attributes:
        calls: that it has made, over all its attempts.

    Args:
        hopeless: asked after each step; None for an episode that is played to its end.
        later_calls: play it only where the budget has room for it and for so many calls after it; None to
            play it anyway.
        on_step: called with each step.
    """

    def __init__(
        self,
        task: Task,
        hopeless: Hopeless | None,
        later_calls: int | None,
        on_step: Callable[[Step], None],
    ) -> None:
        self.calls = 0
        self._task, self._hopeless, self._later, self._on_step = task, hopeless, later_calls, on_step
        self._kept, self._steps = 0, list[Step]()

    @property
    def is_optional(self) -> bool:
        """Whether it is only played where the budget has room for all of it."""
        return self._later is not None

    @property
    def left(self) -> int:
        """Calls that it may still make."""
        return self._task.max_steps - max(len(self._steps), self._kept)

    @property
    def troubles(self) -> Troubles:
        """Of its steps so far."""
        return troubles_of(self._steps)

    def fits(self, running: set["Running"], kept: int, spending: Spending) -> bool:
        """Whether the budget has room for it beside those that are being played.

        Args:
            kept: of its calls, so many are on record.
        """
        self._kept = kept
        owed = sum(one.left for one in running) + self.left
        return self._later is None or spending.room_for(owed, self._later)

    def begin(self) -> None:
        """An attempt begins."""
        self._steps.clear()

    def step(self, step: Step) -> None:
        """A step was played.

        Raises:
            Cut: what the episode can still return does not matter any more.
        """
        self.calls += 1
        self._steps.append(step)
        self._on_step(step)
        left = self._task.max_steps - step.number
        if self._hopeless is None or step.done or not left:
            return
        bound = sum(played.reward for played in self._steps) + self._task.most_return(left)
        if self._hopeless(bound):
            raise Cut(bound)
